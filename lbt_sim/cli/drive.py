"""Executes a run for a command: displays, interrupts, the result on standard output, the exit status."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import typer

from lbt_sim.errors import InputError, Interrupted, LbtError, RunLocked, RunSpoiled
from lbt_sim.events import EventSink
from lbt_sim.folders import discard_unstarted
from lbt_sim.models.recorded import Caller, Meter
from lbt_sim.runs import Run, RunFolder
from lbt_sim.transcript.commands import command_line

__all__ = ["drive"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def drive(folder: RunFolder, *, as_json: bool, quiet: bool, replay: bool = False, new: bool = False) -> None:
    """Executes `folder`'s run and ends the command with the documented status.

    Args:
        folder: The run.
        as_json: Print the result as JSON, and nothing else on standard output.
        quiet: Show no progress.
        replay: Forbid models.
        new: The folder was just made; where a model cannot be had and nothing was started, it goes again.
    """
    if not quiet:
        typer.echo(f"run folder: {folder.path}", err=True)
    with ExitStack() as displays:
        screen = _Screen(displays, as_json=as_json, quiet=quiet)
        run = Run(folder, [screen.observe], replay=replay, tell=screen.tell)
        try:
            result = asyncio.run(_executed(run, screen))
        except LbtError as error:
            displays.close()
            if new and isinstance(error, InputError) and not isinstance(error, RunLocked):
                discard_unstarted(folder.path)
            _print_stopped(folder, error, as_json=as_json)
            raise
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False))
    elif not quiet:
        _print_summary(folder, result)


async def _executed(run: Run, screen: _Screen) -> Mapping[str, Any]:
    """The run as a task that interrupts can end: drain, then cancel, then leave."""
    task = asyncio.ensure_future(run.execute())
    interrupts = _Interrupts(run, task, screen)
    # Not the loop's own handlers: those wait for the loop, and what hangs may be the loop.
    before = {number: signal.signal(number, interrupts) for number in _SIGNALS}
    try:
        return await task
    except asyncio.CancelledError:
        raise Interrupted("interrupted; everything answered so far is kept") from None
    finally:
        for number, handler in before.items():
            signal.signal(number, _leave if interrupts.count else handler)


class _Interrupts:
    """The first drains, the second cancels and commits, the third leaves."""

    def __init__(self, run: Run, task: asyncio.Future[Any], screen: _Screen) -> None:
        self._run, self._task, self._screen = run, task, screen
        self._loop = asyncio.get_running_loop()
        self.count = 0

    def __call__(self, *_: object) -> None:
        self.count += 1
        if self.count <= 2:
            self._loop.call_soon_threadsafe(self._drain_or_cancel, self.count)
        else:
            self._screen.close()  # the terminal is given back as it was
            _leave()

    def _drain_or_cancel(self, count: int) -> None:
        if count == 1 and self._run.caller is not None:
            self._run.caller.draining = True
            self._screen.say("Finishing what is in flight; once more to cancel it.")
        else:
            self._screen.say("Cancelling; everything answered so far is kept. Once more to leave at once.")
            self._task.cancel()


def _leave(*_: object) -> None:
    os._exit(Interrupted.status)


class _Screen:
    """The live room on a terminal, plain lines elsewhere, nothing when quiet; always on standard error with --json."""

    def __init__(self, displays: ExitStack, *, as_json: bool, quiet: bool) -> None:
        self._displays, self._as_json, self._quiet = displays, as_json, quiet
        self.say: Callable[[str], None] = lambda text: print(text, file=sys.stderr)  # noqa: T201

    def tell(self, text: str) -> None:
        """Says something beside the display, unless nothing is to be said."""
        if not self._quiet:
            self.say(text)

    def close(self) -> None:
        """Ends the display."""
        self._displays.close()

    def observe(self, meter: Meter, _: Caller) -> EventSink:
        """Makes the display once the run's meter is there."""
        from lbt_sim.transcript.live import LiveRoom, can_be_live
        from lbt_sim.transcript.plain import PlainLines
        from lbt_sim.transcript.theme import make_console

        self._displays.close()  # a run that has to begin again has another meter
        console = make_console(sys.stderr if self._as_json else None)
        display: LiveRoom | PlainLines
        if can_be_live(console) and not self._quiet:
            display = LiveRoom(meter, console)
        else:
            display = PlainLines(console, quiet=self._quiet)
        self._displays.enter_context(display)
        if not self._quiet:
            self.say = display.say
        return display


def _print_stopped(folder: RunFolder, error: LbtError, *, as_json: bool) -> None:
    if as_json and error.status in (3, 130):
        status = "interrupted" if isinstance(error, Interrupted) else "failed"
        stopped = {"run": str(folder.path), "status": status, "error": str(error)}
        typer.echo(json.dumps(stopped, ensure_ascii=False))
    if isinstance(error, Interrupted):
        error.remedy = f"Continue with: {command_line('resume', str(folder.path))}"
    elif error.status == 3 and not isinstance(error, RunSpoiled):
        error.remedy += f"\n  Continue with: {command_line('resume', str(folder.path))}"


def _print_summary(folder: RunFolder, result: Mapping[str, Any]) -> None:
    from lbt_sim.transcript.read import RunRecord
    from lbt_sim.transcript.summary import print_summary
    from lbt_sim.transcript.theme import make_console

    with RunRecord(folder.path) as record:
        counts = record.candidate_counts()
    print_summary(make_console(), result, counts)
