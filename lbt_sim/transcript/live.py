"""The live room: an event sink that shows the classroom while it runs, four times a second.

The run only ever updates a small state; a thread of its own samples that state and the caller's meter and draws.
The view takes the terminal's second screen, so that the first is as it was when the run ends, however it ends.
"""

from __future__ import annotations

import io
import sys
import threading
import time
from types import TracebackType
from typing import TextIO

from rich.console import Console

from lbt_sim.events import Event
from lbt_sim.models.recorded import Meter
from lbt_sim.transcript.room import Pace, Room
from lbt_sim.transcript.room_view import RoomView
from lbt_sim.transcript.screen import LineScreen
from lbt_sim.transcript.theme import dressed, look_of, make_console

__all__ = ["LiveRoom", "can_be_live"]

_LEAST = (40, 10)
_KEPT = 100_000


def can_be_live(console: Console) -> bool:
    """Whether the live room can be shown: a terminal that moves its cursor and is not tiny. Else use `PlainLines`."""
    width, height = console.size
    return console.is_terminal and not console.is_dumb_terminal and width >= _LEAST[0] and height >= _LEAST[1]


class LiveRoom:
    """Shows the room while a run goes on: an event sink and a context manager.

    Args:
        meter: The caller's meter; sampled, never written.
        console: Where to draw; standard output by default.
        per_second: How often to draw.
    """

    def __init__(self, meter: Meter, console: Console | None = None, *, per_second: float = 4.0) -> None:
        self.room = Room()
        self._meter = meter
        self._console = dressed(console) if console else make_console()
        # A console on standard error looks that up at every write, and would find what we put there meanwhile.
        self._console.file = self._console.file
        self._view = RoomView(look_of(self._console))
        self._pace = Pace()
        self._pause = 1.0 / per_second
        self._screen = LineScreen(self._console)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._stderr: TextIO | None = None
        self._kept = io.StringIO()

    def __call__(self, event: Event) -> None:
        """Takes an event; never waits and never raises."""
        self.room.take(event, self._meter)

    def say(self, text: str) -> None:
        """Shows a line at the bottom (`stopping when what is in flight has come back`)."""
        self.room.notices.append(text)

    def __enter__(self) -> LiveRoom:
        # What others write to standard error would be painted over; it is shown when the room closes.
        self._stderr, sys.stderr = sys.stderr, self._kept
        try:
            self._screen.open()
            self._stop.clear()
            self._thread = threading.Thread(target=self._refresh, name="live-room", daemon=True)
            self._thread.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Gives the terminal back as it was. May be called at any time, also twice, also before leaving in haste."""
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=2.0)
        self._thread = None
        self._screen.close()
        stderr, self._stderr = self._stderr, None
        if stderr is not None:
            sys.stderr = stderr
            stderr.write(self._kept.getvalue()[-_KEPT:])
            self._kept = io.StringIO()

    def _refresh(self) -> None:
        try:
            self._frame()
            while not self._stop.wait(self._pause):
                self._frame()
        except Exception as error:
            # A fault of the view must not end the run; it is told when the room closes.
            self._kept.write(f"the live view failed: {error!r}\n")

    def _frame(self) -> None:
        now = time.monotonic()
        self._pace.sample(now, self._meter)
        width, height = self._console.size
        lines = self._view.draw(self.room, self._meter, self._pace, (width, height), now)
        self._screen.show(lines, (width, height))
