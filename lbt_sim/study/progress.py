"""A study while it runs: how far each condition is, its cost, what went wrong. Live on a terminal, else as lines."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lbt_sim.study.results import Condition
from lbt_sim.transcript.figures import bar, count, duration, plural, share
from lbt_sim.transcript.live import can_be_live
from lbt_sim.transcript.theme import dressed, look_of

__all__ = ["Progress", "StudyScreen"]

_LINES = 5.0
"""Seconds between two lines where there is no terminal."""
_KEPT = 6


@dataclass
class Progress:
    """What is known of a study under way, from what its workers tell.

    Args:
        conditions: In order.
        seeds: How many runs each condition has.
    """

    conditions: Sequence[Condition]
    seeds: int
    done: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    running: Counter[str] = field(default_factory=Counter)
    scores: dict[str, list[float]] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    doing: str = "preparing"
    """What is done before runs begin, and after the last; '' while runs are executed."""
    here: int = 0
    """Runs that ended in this execution."""
    began: float = field(default_factory=time.monotonic)
    _ended: dict[tuple[str, int], str] = field(default_factory=dict)
    _made: int = 0
    _under_way: dict[int, int] = field(default_factory=dict)
    """Worker -> calls made by the runs that it executes now."""

    @property
    def total(self) -> int:
        """All runs."""
        return len(self.conditions) * self.seeds

    @property
    def ended(self) -> int:
        """Runs that came to an end, now or before."""
        return self.done.total() + self.failed.total()

    @property
    def made(self) -> int:
        """Calls made by the runs that ended in this execution, or are under way."""
        return self._made + sum(self._under_way.values())

    @property
    def left(self) -> float | None:
        """Seconds, as this execution has gone so far; None before anything ended."""
        if not self.here:
            return None
        return (time.monotonic() - self.began) / self.here * (self.total - self.ended)

    def take(self, event: Mapping[str, Any]) -> None:
        """Takes what a worker tells."""
        kind, name = event["event"], event.get("condition", "")
        if kind == "known":
            self._end(event["result"])
        elif kind == "plan" and not event["runs"]:
            self.doing = ""
        elif kind == "starting":
            workers = event["workers"]
            self.doing = f"starting {plural(workers, 'worker')}" if workers else "starting workers"
        elif kind == "begin":
            self.doing = ""
            self.running[name] += 1
        elif kind == "interrupted":
            self.running[name] -= 1
            if why := event.get("why"):
                self.say(f"{name}, seed {event['seed']}: {why}")
        elif kind == "result":
            self.running[name] -= self.running[name] > 0
            self.here += 1
            self._made += event["result"]["counts"].get("made", 0)
            self._end(event["result"])
            if error := event["result"]["error"]:
                self.say(f"failed: {name}, seed {event['seed']}: {error}")
        elif kind == "died":
            self.say(f"a worker ended ({event['why']}); another takes its place, and its runs go on where they were")
            self.running.clear()
            self._under_way.pop(event.get("worker", 0), None)
        elif kind == "told":
            self.say(str(event["text"]))
        elif kind == "progress":
            self._under_way[event.get("worker", 0)] = event["made"]

    def say(self, text: str) -> None:
        """Keeps a line for people."""
        self.told = [*self.told[-_KEPT + 1 :], text]

    def _end(self, result: Mapping[str, Any]) -> None:
        name = result["condition"]
        if before := self._ended.get((name, result["seed"])):
            (self.done if before == "done" else self.failed)[name] -= 1
        self._ended[name, result["seed"]] = result["status"]
        (self.done if result["status"] == "done" else self.failed)[name] += 1
        if result["status"] == "done" and result["rounds"]:
            last = result["rounds"][-1]["accuracy"]
            if last is not None:
                self.scores.setdefault(name, []).append(last)


class StudyScreen:
    """Shows a study's progress. A context manager, and a `Watch`.

    Args:
        progress: What is known.
        name: The study.
        console: Where to draw.
        quiet: Show nothing.
    """

    def __init__(self, progress: Progress, name: str, console: Console, *, quiet: bool = False) -> None:
        self.progress = progress
        self._name, self._quiet = name, quiet
        self._console = dressed(console)
        self._look = look_of(self._console)
        live = can_be_live(self._console) and not quiet
        self._live = Live(console=self._console, refresh_per_second=4, get_renderable=self._draw) if live else None
        self._last = time.monotonic()
        self._shown = 0

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Takes what happens; never waits."""
        before, doing = list(self.progress.told), self.progress.doing
        self.progress.take(event)
        if self._live is not None or self._quiet:
            return
        if self.progress.doing not in ("", doing):
            self._print(self.progress.doing)
        if self.progress.told != before:
            self._print(self.progress.told[-1])
        if event["event"] == "result" and time.monotonic() - self._last >= _LINES:
            self._last = time.monotonic()
            self._print(self._line())

    def doing(self, text: str) -> None:
        """Shows what is being done now, while no run is executed."""
        self.progress.doing = text
        if self._live is None and not self._quiet:
            self._print(text)

    def say(self, text: str) -> None:
        """Shows a line."""
        self.progress.say(text)
        if self._live is None and not self._quiet:
            self._print(text)

    def __enter__(self) -> StudyScreen:
        if self._live is not None:
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Gives the terminal back; what is shown last stays."""
        if self._live is not None:
            self._live.stop()

    def _print(self, text: str) -> None:
        self._console.print(Text(self._look.plain(text, newlines="fold")), soft_wrap=True)

    def _line(self) -> str:
        known = self.progress
        left = "" if known.left is None or known.ended == known.total else f", about {duration(known.left)} left"
        failed = f", {known.failed.total()} failed" if known.failed.total() else ""
        return f"{known.ended} of {plural(known.total, 'run')}{failed}, {count(known.made)} calls made{left}"

    def _draw(self) -> RenderableType:
        known, look = self.progress, self._look
        head = Text.assemble((f"{self._name}  ", "lbt.title"), known.doing or self._line())
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for name, justify in (("condition", "left"), ("runs", "left"), ("", "right"), ("running", "right")):
            table.add_column(name, justify=justify, header_style="lbt.label", no_wrap=True)  # type: ignore[arg-type]
        table.add_column("failed", justify="right", header_style="lbt.label")
        table.add_column("last score, mean of those done", justify="right", header_style="lbt.label")
        for one in self._shown_conditions():
            scores = known.scores.get(one.name, [])
            mean = share(sum(scores) / len(scores)) if scores else look.glyph("dash")
            done = known.done[one.name]
            failed = known.failed[one.name]
            table.add_row(
                look.line(one.name, 30),
                bar(done / self.progress.seeds, 20, look),
                f"{done}/{self.progress.seeds}",
                str(known.running[one.name] or ""),
                Text(str(failed or ""), "lbt.failed"),
                f"{mean} (n = {len(scores)})" if scores else mean,
            )
        notes = [look.line(text, self._console.width - 1, "lbt.notice") for text in known.told]
        return Group(head, table, *notes)

    def _shown_conditions(self) -> Sequence[Condition]:
        """As many as fit; those that are at work first."""
        room = max(3, self._console.height - 5 - len(self.progress.told))
        if len(self.progress.conditions) <= room:
            return self.progress.conditions
        ranked = sorted(self.progress.conditions, key=lambda one: -self.progress.running[one.name])
        return ranked[:room]
