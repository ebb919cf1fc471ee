"""The terminal's second screen, of which only the lines that changed are written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console
from rich.control import Control
from rich.segment import ControlType, Segment, Segments
from rich.text import Text

__all__ = ["LineScreen"]

_REPAINT = 20
"""Every so many frames all lines are written, in case something else has written to the terminal."""


class LineScreen:
    """Shows lines on the alternate screen. `open` takes the terminal over, `close` gives it back as it was."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: list[Text] = []
        self._size = (0, 0)
        self._frames = 0
        self._open = False

    def open(self) -> None:
        """Switches to the alternate screen and hides the cursor."""
        self._open = True
        self._console.set_alt_screen(True)
        self._console.show_cursor(False)

    def close(self) -> None:
        """Shows the cursor and switches back; once."""
        if self._open:
            self._open = False
            self._console.show_cursor(True)
            self._console.set_alt_screen(False)

    def show(self, lines: Sequence[Text], size: tuple[int, int]) -> None:
        """Writes the lines that differ from those shown."""
        if not self._open:
            return
        if size != self._size or self._frames % _REPAINT == 0:
            self._shown = []
        self._frames += 1
        new = [(at, line) for at, line in enumerate(lines) if at >= len(self._shown) or self._shown[at] != line]
        if new:
            self._console.print(Segments(self._segments(new)), end="", soft_wrap=True)
        self._shown, self._size = list(lines), size

    def _segments(self, lines: Iterable[tuple[int, Text]]) -> Iterator[Segment]:
        for at, line in lines:
            yield Control.move_to(0, at).segment
            yield from line.render(self._console)
            yield Control((ControlType.ERASE_IN_LINE, 0)).segment
