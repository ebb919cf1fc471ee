"""Colours, marks and the console: the one place that decides how transcripts look.

Every colour is from the fixed part of the 256-colour palette and close to the lightness that stands out equally
from black and from white (a contrast of at least 3.5 against both, checked by a test), so that one theme serves
dark and light terminals. No colour carries a meaning that a shape does not carry too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TextIO

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.errors import MissingStyle
from rich.text import Text
from rich.theme import Theme

from lbt_sim.transcript.safe import Newlines, plain_text

__all__ = ["COLOURS", "OUTCOMES", "UNICODE", "Look", "dressed", "look_of", "make_console"]

COLOURS: Final = {
    "correct": 28,
    "wrong": 166,
    "invalid": 129,
    "truncated": 162,
    "failed": 160,
    "answered": 67,
    "unanswered": 244,
    "teacher": 27,
    "assistant": 30,
    "student": 130,
    "examiner": 98,
    "label": 243,
    "border": 244,
    "added": 28,
    "removed": 160,
    "notice": 130,
    "bar": 31,
    "curve": 27,
}
"""Style -> number in the 256-colour palette."""

_STYLES = {f"lbt.{name}": f"color({number})" for name, number in COLOURS.items()} | {
    "lbt.failed": f"bold color({COLOURS['failed']})",
    "lbt.invalid": f"bold color({COLOURS['invalid']})",
    "lbt.title": "bold",
    "lbt.figure": "bold",
    "lbt.speaking": "bold reverse",
}

OUTCOMES: Final = {
    "c": "correct",
    "w": "wrong",
    "i": "invalid",
    "t": "truncated",
    "f": "failed",
    "a": "answered",
    ".": "unanswered",
}
"""Letter of an outcome -> its name; `a` is answered and not yet graded, `.` not yet answered."""

_MARKS = {"c": "■", "w": "□", "i": "!", "t": "✂", "f": "✗", "a": "▒", ".": "·"}
_ASCII_MARKS = {"c": "#", "w": "o", "i": "!", "t": "%", "f": "x", "a": ":", ".": "."}
_GLYPHS = {
    "to": "→", "dash": "–", "minus": "−", "plus_minus": "±", "ellipsis": "…", "dot": "·", "open": "“", "close": "”",
    "full": "▇", "empty": "░", "rule": "─", "down": "↓", "beam": "★", "steps": "▁▂▃▄▅▆▇█", "point": "●",
    "whisker": "│", "dashes": "┄", "branch": "└─ ", "left": "←", "same": "=",
}  # fmt: skip
_ASCII_GLYPHS = {
    "to": "->", "dash": "-", "minus": "-", "plus_minus": "+-", "ellipsis": "..", "dot": "-", "open": '"', "close": '"',
    "full": "#", "empty": ".", "rule": "-", "down": "v", "beam": "*", "steps": "_.,-~=^#", "point": "o",
    "whisker": "|", "dashes": "-", "branch": "`- ", "left": "<-", "same": "=",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Look:
    """What a terminal can show: Unicode or ASCII only. Makes texts of it that are never markup."""

    unicode: bool = True

    def glyph(self, name: str) -> str:
        """A sign of ours, by name."""
        return (_GLYPHS if self.unicode else _ASCII_GLYPHS)[name]

    def mark(self, letter: str) -> Text:
        """The mark of one outcome."""
        return self.marks(letter)

    def marks(self, letters: str) -> Text:
        """The marks of outcomes, one cell each."""
        shapes = _MARKS if self.unicode else _ASCII_MARKS
        row = Text(no_wrap=True)
        start = 0
        for at in range(1, len(letters) + 1):
            if at == len(letters) or letters[at] != letters[start]:
                letter = letters[start] if letters[start] in shapes else "i"
                row.append(shapes[letter] * (at - start), f"lbt.{OUTCOMES[letter]}")
                start = at
        return row

    def legend(self, letters: Iterable[str]) -> Text:
        """What the marks of `letters` mean."""
        row = Text(style="lbt.label")
        for letter in letters:
            row.append("  " if row else "")
            row.append_text(self.mark(letter)).append(f" {OUTCOMES[letter]}")
        return row

    def plain(self, text: str, *, newlines: Newlines = "keep") -> str:
        """Text from outside, safe to show here."""
        return plain_text(text, newlines=newlines, ascii_only=not self.unicode)

    def text(self, text: str, style: str = "") -> Text:
        """Text from outside, of any number of lines."""
        return Text(self.plain(text), style)

    def line(self, text: str, width: int, style: str = "") -> Text:
        """Text from outside as one line of at most `width` cells."""
        # What does not fit is cut off first: a reply may be megabytes long.
        return Text(self.cut(self.plain(text[: 4 * max(width, 1) + 64], newlines="fold"), width), style, no_wrap=True)

    def cut(self, line: str, width: int) -> str:
        """A line cut to `width` cells, with an ellipsis where something is missing."""
        if cell_len(line) <= width:
            return line
        ellipsis = self.glyph("ellipsis")
        if width <= len(ellipsis):
            return ellipsis[: max(width, 0)]
        return set_cell_size(line, width - len(ellipsis)).rstrip() + ellipsis

    def said(self, text: str, width: int, style: str = "") -> Text:
        """Text from outside in quotation marks, as one line of at most `width` cells."""
        inner = self.line(text, width - 2, style)
        return Text(no_wrap=True).append(self.glyph("open")).append_text(inner).append(self.glyph("close"))


UNICODE: Final = Look()
"""The look of a terminal that can show everything."""


def look_of(console: Console) -> Look:
    """What this console can show. The old Linux console and dumb terminals get ASCII."""
    capable = console.encoding.lower().startswith("utf") and not console.is_dumb_terminal
    return Look(unicode=capable and os.environ.get("TERM") != "linux")


def make_console(stream: TextIO | None = None, *, color: bool | None = None, width: int | None = None) -> Console:
    """A console with the theme, in which no text is ever read as markup, emoji code or link.

    Args:
        stream: Where to write; standard output by default.
        color: True: colours even into a pipe (for `less -R`); False: none; None: on a terminal only.
        width: Columns; found out by default.
    """
    return dressed(
        Console(
            file=stream or sys.stdout,
            markup=False,
            emoji=False,
            highlight=False,
            force_terminal=True if color else None,
            no_color=True if color is False else None,
            color_system="256" if color else "auto",
            width=width,
        )
    )


def dressed(console: Console) -> Console:
    """The console with the theme, and able to print any text. Doing it twice changes nothing."""
    try:
        console.get_style("lbt.label")
    except MissingStyle:
        console.push_theme(Theme(_STYLES))
    reconfigure = getattr(console.file, "reconfigure", None)
    if reconfigure is not None and not console.encoding.lower().startswith("utf"):
        reconfigure(errors="replace")  # A letter that this terminal lacks is no reason to stop.
    return console
