"""Text of a report: what comes from outside made safe and short, answers counted in words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from lbt_sim.stats import wilson_interval
from lbt_sim.transcript.safe import plain_text

__all__ = [
    "BROKEN",
    "LONGEST",
    "OUTCOMES",
    "as_html",
    "as_markdown",
    "as_name",
    "broken",
    "cut",
    "fenced",
    "middle",
    "share_interval",
]

LONGEST = 8_000
"""Characters of any one text in a report; whoever wants more reads the run folder."""
OUTCOMES = {"c": "correct", "w": "wrong", "i": "invalid", "t": "truncated", "f": "failed"}
"""Letter -> outcome."""
_NAME = 100
"""What is cut shorter is a name."""
BROKEN = ("invalid", "truncated", "failed")
"""Outcomes that are neither right nor wrong."""

_PIECE = re.compile(r"[^/,_.]*[/,_.]+|[^/,_.]+")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~$&!])")
_AUTOLINK = re.compile(r"(?i)\b(https?|ftp|mailto|javascript|data|vbscript)(:)|\b(www)(\.)")
_LIST, _NUMBERED = re.compile(r"^(?=[-+]\s|[-+=]+\s*$)"), re.compile(r"^(\d+)(?=[.)](\s|$))")


def cut(text: str, limit: int) -> str:
    """The text's first `limit` characters; of a text that is no mere name also how many there are."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}…" if limit < _NAME else f"{text[:limit]} … ({len(text):,} characters in all)"


def middle(name: str, limit: int) -> str:
    """A name in at most `limit` characters, without its middle: what tells conditions apart is often at their end."""
    if len(name) <= limit:
        return name
    return f"{name[: limit // 2]}…{name[len(name) - (limit - 1 - limit // 2) :]}"


def as_html(value: Any) -> Any:
    """What a template prints: a text from outside without anything that hides or reorders; the rest as it is.

    It is Jinja's `finalize`: no text can go round it. Escaping comes after it.
    """
    if isinstance(value, str) and not isinstance(value, Markup):
        return plain_text(cut(value, LONGEST))
    return "" if value is None else value


def as_name(value: str, limit: int) -> Markup:
    """A name for HTML, shortened to `limit` characters, that may be broken behind separators as well as at spaces."""
    pieces = _PIECE.findall(str(as_html(middle(value, limit))))
    return Markup("<wbr>").join(escape(piece) for piece in pieces)


def as_markdown(value: Any) -> Any:
    """As `as_html`, for Markdown: one line, with nothing in it that Markdown, or HTML in it, would act on."""
    if isinstance(value, str) and not isinstance(value, Markup):
        text = _MARKDOWN.sub(r"\\\1", plain_text(cut(value, LONGEST), newlines="fold"))
        # Renderers make links of bare addresses too; an entity in the place of the colon looks the same and is none.
        text = _AUTOLINK.sub(lambda m: (m[1] + "&#58;") if m[1] else (m[3] + "&#46;"), text)
        return _NUMBERED.sub(r"\1\\", _LIST.sub(r"\\", text.strip()))
    return "" if value is None else value


def fenced(command: str) -> Markup:
    """A command for a fenced block of Markdown: one line, and nothing in it that ends the fence."""
    return Markup(plain_text(command, newlines="fold").replace("```", "'''"))  # noqa: S704 - a fence escapes nothing


def broken(outcomes: Mapping[str, Any]) -> str:
    """What was neither right nor wrong: `2 invalid, 1 failed`; `none` where all could be graded."""
    parts = [f"{int(outcomes[name]):,} {name}" for name in BROKEN if outcomes.get(name)]
    return ", ".join(parts) or "none"


def share_interval(letters: Sequence[str]) -> tuple[int, int, tuple[float, float] | None]:
    """(correct, of how many, Wilson's 95 % interval); calls that gave up are nobody's mistake and are left out."""
    joined = "".join(letters)
    correct, n = joined.count("c"), len(joined) - joined.count("f")
    return correct, n, wilson_interval(correct, n)
