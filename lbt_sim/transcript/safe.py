"""Model text made safe for a terminal: everything that could act, hide or reorder is shown as what it is.

A language model may write anything: escape sequences that move the cursor or set the window's title, bidirectional
overrides that show one text and hold another, characters without width that carry a message nobody sees, a
tower of accents that covers the lines above. `plain_text` leaves what can be seen and makes the rest visible.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final, Literal

__all__ = ["plain_text"]

Newlines = Literal["keep", "fold"]

_TAB = "    "
_MARKS_KEPT = 3
"""Accents on one letter; no script that we know of needs more, towers of them cover other lines."""

_HIDDEN = frozenset(
    [
        *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0, 0xFFFC),
        *range(0x180B, 0x1810),
        *range(0xFE00, 0xFE10),
        *range(0xE0000, 0xE1000),
    ]
)
"""Invisible characters that Unicode counts as letters, marks or symbols; the categories catch the others."""

_JOINER, _PRESENTATION = "\u200d", "\ufe0e\ufe0f"
_QUIET = re.compile(r"[ -~]*")


def plain_text(text: str, *, newlines: Newlines = "keep", ascii_only: bool = False) -> str:
    r"""The text with nothing in it that acts on a terminal, hides, or reorders what stands beside it.

    Control characters become their pictures (`\x1b` is `␛`), other invisible, formatting, private and unassigned
    characters their number (`⟨U+202E⟩`). Emoji are shown as their parts, since terminals disagree about the width
    of joined ones. Doing it twice changes nothing.

    Args:
        text: What a model, or anything else outside, wrote.
        newlines: `keep` them, or `fold` each into ` ⏎ ` for displays of one line.
        ascii_only: For terminals that are not UTF-8: pictures become `^[`, letters outside ASCII `\u00e9`.
    """
    if _QUIET.fullmatch(text):
        return text
    text = text.replace("\r\n", "\n")
    if newlines == "fold":
        text = re.sub(r"\s*\n\s*", " <- " if ascii_only else " ⏎ ", text.strip("\n"))
    if not text.isascii():
        text = _marks(_emoji(text))
    text = text.translate(_ASCII if ascii_only else _UNICODE)
    return text.encode("ascii", "backslashreplace").decode() if ascii_only else text


class _Table(dict[int, str]):
    """What each character is shown as, worked out when it is first met."""

    def __init__(self, *, ascii_only: bool) -> None:
        super().__init__({0x09: _TAB, 0x0A: "\n"})
        self.ascii_only = ascii_only

    def __missing__(self, code: int) -> str:
        shown = self[code] = self._shown(code)
        return shown

    def _shown(self, code: int) -> str:
        if code < 0x20 or code == 0x7F:
            if self.ascii_only:
                return "^" + chr(code ^ 0x40)
            return chr(0x2400 + code) if code < 0x20 else "␡"
        category = unicodedata.category(chr(code))
        if category in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"} or code in _HIDDEN:
            return f"<U+{code:04X}>" if self.ascii_only else f"⟨U+{code:04X}⟩"
        if category == "Zs" and code != 0x3000:  # The ideographic space is two cells wide and can be seen.
            return " "
        return chr(code)


_UNICODE: Final = _Table(ascii_only=False)
_ASCII: Final = _Table(ascii_only=True)


def _emoji(text: str) -> str:
    """Takes emoji sequences apart: a joiner between two symbols, a presentation mark after one."""
    if _JOINER not in text and "\ufe0e" not in text and "\ufe0f" not in text:
        return text
    kept: list[str] = []
    for at, char in enumerate(text):
        before = text[at - 1 : at]
        if char in _PRESENTATION and _is_symbol(before):
            continue  # One says how the symbol is to be drawn; any further one is a hiding place.
        if char == _JOINER and _is_symbol(text[at + 1 : at + 2]):
            if before and before in _PRESENTATION:
                before = text[at - 2 : at - 1]
            if _is_symbol(before):
                continue
        kept.append(char)
    return "".join(kept)


def _is_symbol(char: str) -> bool:
    """Whether an emoji can be made of it: pictures, skin tones, and the few below the pictures."""
    return bool(char) and (unicodedata.category(char) in {"So", "Sk", "Sm"} or char in "#*0123456789‼⁉")


def _marks(text: str) -> str:
    """Shows accents that have no letter, or that pile up on one, as their numbers."""
    if not any(map(unicodedata.combining, text)) and not any(unicodedata.category(char) == "Me" for char in text):
        return text
    shown: list[str] = []
    pile = _MARKS_KEPT
    for char in text:
        if unicodedata.category(char) in {"Mn", "Me"} and ord(char) not in _HIDDEN:
            pile += 1
            if pile > _MARKS_KEPT:
                shown.append(f"⟨U+{ord(char):04X}⟩")
                continue
        else:
            # An accent may stand on a letter, not on a space or at a start, where it would change what we draw.
            pile = 0 if unicodedata.category(char)[0] in "LNSPM" else _MARKS_KEPT
        shown.append(char)
    return "".join(shown)
