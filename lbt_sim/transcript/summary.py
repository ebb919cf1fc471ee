"""The table at the end of a run: rounds down, what the teacher and the students scored, what it cost, what next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from lbt_sim.transcript.commands import command_line
from lbt_sim.transcript.figures import broken, count, duration, interval, plural, share
from lbt_sim.transcript.servers import servers_told
from lbt_sim.transcript.theme import UNICODE, Look, dressed, look_of

__all__ = ["next_commands", "print_summary", "summary"]

_STUDENT_COLUMNS = 6
_ENDLESS = 10_000
_TROUBLE = ("invalid", "truncated", "failed")


def print_summary(
    console: Console, result: Mapping[str, Any], candidates: Mapping[int, tuple[int, int]] | None = None
) -> None:
    """Prints `summary`, and the commands that one wants next."""
    look = look_of(dressed(console))
    console.print()
    console.print(summary(result, candidates, look=look))
    console.print()
    # soft_wrap: a command is copied, so it is never broken by us.
    console.print(next_commands(result, look), soft_wrap=True)


def summary(
    result: Mapping[str, Any],
    candidates: Mapping[int, tuple[int, int]] | None = None,
    *,
    look: Look = UNICODE,
) -> RenderableType:
    """The table of a run's rounds, with the baselines and the cost below it.

    Args:
        result: What `lbt-sim run --json` prints: `run`, `status`, `seconds`, `rounds`, `baselines`, `calls`, `tokens`,
            `executions`.
        candidates: Round -> (tried, kept), where known; see `RunRecord.candidate_counts`.
        look: What the terminal can show.
    """
    rounds: Sequence[Mapping[str, Any]] = result.get("rounds") or []
    parts: list[RenderableType] = []
    if rounds:
        parts += [_Rounds(rounds, candidates or {}, look), ""]
        if letters := _letters(rounds):
            parts.append(_fact("", look.legend(letters)))
        if any(entry.get("students") for entry in rounds):
            parts.append(
                _fact("students", Text("their exam of that round, taught with the best material of the round before"))
            )
    else:
        parts.append(Text("No round has been reported yet.", "lbt.label"))
    if again := next(filter(None, map(_rescored, rounds)), None):
        parts.append(_fact("train", Text(f"the material on {again['n']} train problems that nothing is selected on")))
    if baselines := _baselines(result.get("baselines") or {}, look):
        parts.append(_fact("trivial", Text(baselines)))
    parts.append(_fact("cost", Text(_cost(result, look))))
    for label, text in servers_told(result.get("executions") or [], look):
        parts.append(_fact(label, Text(text)))
    return Group(*parts)


@dataclass(frozen=True, slots=True)
class _Rounds:
    """The table of rounds. Where it does not fit, it goes without the less important columns."""

    rounds: Sequence[Mapping[str, Any]]
    candidates: Mapping[int, tuple[int, int]]
    look: Look

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        endless = options.update(max_width=_ENDLESS)
        names = tuple({name: None for entry in self.rounds for name in entry.get("students") or {}})
        separate = [False] if len(names) <= _STUDENT_COLUMNS else []
        table = Table()
        some = [True, False]
        train = [True, False] if any(_rescored(entry) for entry in self.rounds) else [False]
        for material, together, scored, kept in product(some, [*separate, True], train, some):
            students = _Students(names, together, self.look)
            table = self._table(students, kept=kept, material=material, train=scored)
            if Measurement.get(console, endless, table).maximum <= options.max_width:
                break
        yield table

    def _table(self, students: _Students, *, kept: bool, material: bool, train: bool) -> Table:
        """With columns for the candidates kept, the material and its score on train, or without."""
        look = self.look
        table = Table(
            box=box.SIMPLE_HEAD if look.unicode else box.ASCII,
            show_edge=False,
            padding=(0, 1, 0, 0),
            header_style="lbt.label",
        )
        heads = [Text(head) for head in ("round", "accuracy", "95 %", "F1", *self._others())] + students.heads()
        heads += [Text("train")] if train else []
        kept = kept and bool(self.candidates)
        heads += [Text("kept")] if kept else []
        for head in heads:
            table.add_column(head, justify="right", no_wrap=True)
        if material:
            table.add_column(Text("material"), no_wrap=True)
        scores = [entry["teacher"].get("accuracy") for entry in self.rounds]
        best = max((value for value in scores if value is not None), default=None)
        for entry in self.rounds:
            cells = [Text(str(entry["round"])), *_teacher(entry["teacher"], best, look)]
            cells += [_score((entry.get("teachers") or {}).get(name), look) for name in self._others()]
            cells += students.cells(entry)
            cells += [_on_train(entry, look)] if train else []
            if kept:
                tried, stayed = self.candidates.get(entry["round"], (0, 0))
                cells.append(Text(f"{stayed} of {tried}" if tried else look.glyph("dash")))
            cells += [look.line(str(entry.get("material") or ""), 24)] if material else []
            table.add_row(*cells)
        return table

    def _others(self) -> list[str]:
        """Teachers beside the first."""
        names = dict.fromkeys(name for entry in self.rounds for name in entry.get("teachers") or {})
        return list(names)[1:]


def _rescored(entry: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return (entry.get("train") or {}).get("rescored")


def _on_train(entry: Mapping[str, Any], look: Look) -> Text:
    """The material's score on train problems that nothing was selected on."""
    again = _rescored(entry)
    return Text(share(again["score"], again["n"])) if again else Text(look.glyph("dash"), "lbt.label")


def _teacher(teacher: Mapping[str, Any], best: float | None, look: Look) -> Iterator[Text]:
    n, accuracy = teacher.get("n"), teacher.get("accuracy")
    style = "lbt.figure" if accuracy is not None and accuracy == best else ""
    yield _with_trouble(Text(share(accuracy, n, look=look), style), teacher.get("outcomes") or {}, look)
    found = interval(teacher)
    dash = look.glyph("dash")
    yield Text(f"{share(found[0], n)}{dash}{share(found[1], n)}" if found else dash)
    yield Text(share(teacher.get("f1"), n, look=look))


def _with_trouble(cell: Text, outcomes: Mapping[str, Any], look: Look) -> Text:
    trouble = broken(outcomes, look)
    return Text(no_wrap=True).append_text(trouble).append(" ").append_text(cell) if trouble else cell


def _score(who: Mapping[str, Any] | None, look: Look) -> Text:
    if who is None:
        return Text(look.glyph("dash"), "lbt.label")
    return _with_trouble(Text(share(who.get("accuracy"), who.get("n"), look=look)), who.get("outcomes") or {}, look)


@dataclass(frozen=True, slots=True)
class _Students:
    """The students' columns: one each, or their mean and range."""

    names: tuple[str, ...]
    together: bool
    look: Look

    def heads(self) -> list[Text]:
        if self.together:
            return [Text(f"{len(self.names):,} students", "lbt.student"), Text("range", "lbt.student")]
        return [self.look.line(name, 20, "lbt.student") for name in self.names]

    def cells(self, entry: Mapping[str, Any]) -> list[Text]:
        students = entry.get("students") or {}
        if not self.together:
            return [_score(students.get(name), self.look) for name in self.names]
        scores = [s["accuracy"] for s in students.values() if s.get("accuracy") is not None]
        dash = self.look.glyph("dash")
        if not scores:
            return [Text(dash, "lbt.label"), Text(dash, "lbt.label")]
        trouble = {kind: sum((s.get("outcomes") or {}).get(kind) or 0 for s in students.values()) for kind in _TROUBLE}
        mean = _with_trouble(Text(share(sum(scores) / len(scores))), trouble, self.look)
        return [mean, Text(f"{share(min(scores))}{dash}{share(max(scores))}")]


def _letters(rounds: Sequence[Mapping[str, Any]]) -> str:
    """The marks that the table holds and that want a word."""
    found = ""
    for kind in _TROUBLE:
        graded = (who for entry in rounds for who in (entry["teacher"], *(entry.get("students") or {}).values()))
        if any((who.get("outcomes") or {}).get(kind) for who in graded):
            found += kind[0]
    return found


def _fact(name: str, value: Text) -> Table:
    """A name in the margin, and what belongs to it keeping its indent."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=9)
    grid.add_column()
    grid.add_row(Text(name, "lbt.label"), value)
    return grid


def _baselines(baselines: Mapping[str, Any], look: Look) -> str:
    """What one scores without reading the question."""
    parts = []
    for name, label in (("always_positive", "always the positive label"), ("majority", "always the majority label")):
        if values := baselines.get(name):
            accuracy, f1 = (share(values.get(metric), look=look) for metric in ("accuracy", "f1"))
            parts.append(f"{label}: accuracy {accuracy}, F1 {f1}")
    return f" {look.glyph('dot')} ".join(parts)


def _cost(result: Mapping[str, Any], look: Look) -> str:
    calls = result.get("calls") or {}
    parts = [f"{plural(int(calls.get('made') or 0), 'call')} made"]
    parts += [f"{count(calls[kind])} {kind}" for kind in ("replayed", "shared", "failed") if calls.get(kind)]
    tokens = result.get("tokens")
    if isinstance(tokens, Mapping):
        cached = f" ({count(tokens['cached'])} cached)" if tokens.get("cached") else ""
        parts.append(f"{count(tokens.get('prompt') or 0)} prompt tokens{cached}")
        parts.append(f"{count(tokens.get('completion') or 0)} tokens written")
    elif tokens:
        parts.append(f"{count(tokens)} tokens")
    if result.get("seconds") is not None:
        parts.append(duration(float(result["seconds"])))
    return f" {look.glyph('dot')} ".join(parts)


def next_commands(result: Mapping[str, Any], look: Look = UNICODE) -> Text:
    """The three commands that one wants next; print them with soft_wrap."""
    rounds = result.get("rounds") or []
    run = look.plain(str(result["run"]), newlines="fold")
    last = rounds[-1]["round"] if rounds else 0
    pairs = []
    if result.get("status") != "done":
        pairs.append((command_line("resume", run), "go on where it stopped"))
    pairs.append((command_line("show", run), "read what happened"))
    if rounds:
        pairs.append((command_line("show", run, "--round", str(last)), "the last round in full"))
    pairs.append((command_line("report", run), "a page to look at"))
    pairs = pairs[:3]
    # The purpose first: a long command then runs over the line's end as one piece.
    wide = max(len(purpose) for _, purpose in pairs)
    text = Text()
    for command, purpose in pairs:
        text.append("\n" if text else "").append(purpose.ljust(wide + 2), "lbt.label").append(command)
    return text
