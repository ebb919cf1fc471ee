"""Plain lines: an event sink that prints one short line for each thing worth telling, for logs and pipes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from lbt_sim.events import Event
from lbt_sim.transcript.figures import broken, interval, plural, score, share
from lbt_sim.transcript.theme import dressed, look_of, make_console

__all__ = ["PlainLines"]

_STUDENTS = 6
"""With more students, one line tells the exam of them all."""


class PlainLines:
    """Prints a line for the start, each exam result, candidates, selection, report and notice.

    Args:
        console: Where to print; standard output by default. Colours only on a terminal.
        quiet: Print nothing.
    """

    def __init__(self, console: Console | None = None, *, quiet: bool = False) -> None:
        self._console = dressed(console) if console else make_console()
        self._look = look_of(self._console)
        self._quiet = quiet
        self._students = 0
        self._exams: dict[tuple[int, str], list[str]] = {}
        self._candidates: Counter[str] = Counter()

    def __call__(self, event: Event) -> None:
        """Takes an event; never raises."""
        if self._quiet:
            return
        try:
            for line in self._lines(event):
                self._print(line)
        except (LookupError, TypeError, ValueError) as error:
            self._print(Text(f"{event.kind} at {self._look.plain(event.path)} cannot be told: {error!r}"))

    def say(self, text: str) -> None:
        """Prints a line."""
        if not self._quiet:
            self._print(self._look.text(text, "lbt.notice"))

    def close(self) -> None:
        """Nothing is held open."""

    def __enter__(self) -> PlainLines:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _print(self, line: Text) -> None:
        # soft_wrap: a line of a log is one line, whatever the width.
        self._console.print(line, soft_wrap=True)
        self._console.file.flush()

    def _lines(self, event: Event) -> list[Text]:
        data = event.data
        match event.kind:
            case "run":
                return self._run(data)
            case "exam":
                return [self._at(data, f"exam of {plural(len(data['items']), 'problem')}, {data['set_by']}")]
            case "grades":
                return self._grades(data)
            case "candidate":
                self._candidates[data["status"]] += 1
                return []
            case "selection":
                return [*self._tried(data), self._selection(data)]
            case "report":
                return [self._report(data)]
            case "notice":
                return [Text("note: ", "lbt.notice").append_text(self._look.text(data["text"]))]
            case "done":
                return [self._look.text(str(data["status"]))]
            case _:
                return []

    def _at(self, data: Mapping[str, Any], text: str = "") -> Text:
        return Text().append(f"round {data['round']}  ", "lbt.label").append(self._look.plain(text))

    def _run(self, data: Mapping[str, Any]) -> list[Text]:
        roles = Counter(seat["role"] for seat in data["seats"])
        self._students = roles["student"]
        seats = ", ".join(plural(number, role) for role, number in roles.items() if role != "examiner")
        task = data["task"]
        facts = [
            f"seed {data['seed']}",
            f"{data['method']}, {plural(data['rounds'], 'round')}",
            seats,
            f"{task['name']}: {task['train']} to teach, {task['held_out']} held out",
        ]
        title = self._look.text(data["title"] or "run", "lbt.title")
        lines = [title.append("  " + "  ".join(map(self._look.plain, facts)), "not bold")]
        return lines + [self._look.text(f"note: {notice}", "lbt.notice") for notice in data.get("notices", [])]

    def _grades(self, data: Mapping[str, Any]) -> list[Text]:
        outcomes = data["outcomes"]
        if self._students <= _STUDENTS:
            right, of = score(outcomes)
            text = f"{data['student']} {right} of {of} correct"
            return [self._with_broken(self._at(data, f"exam on {data['material']}: {text}"), outcomes)]
        done = self._exams.setdefault((data["round"], data["material"]), [])
        done.append(outcomes)
        if len(done) < self._students:
            return []
        del self._exams[data["round"], data["material"]]
        scores = [right / of for right, of in map(score, done) if of]
        dash = self._look.glyph("dash")
        spread = f"{share(min(scores))}{dash}{share(max(scores))}" if scores else dash
        mean = share(sum(scores) / len(scores) if scores else None, look=self._look)
        text = f"exam on {data['material']}: {len(done):,} students, mean {mean} ({spread})"
        return [self._with_broken(self._at(data, text), "".join(done))]

    def _with_broken(self, line: Text, outcomes: str | Mapping[str, Any]) -> Text:
        trouble = broken(outcomes, self._look)
        return line.append("  ").append_text(trouble) if trouble else line

    def _tried(self, data: Mapping[str, Any]) -> list[Text]:
        if not self._candidates:
            return []
        total = sum(self._candidates.values())
        parts = ", ".join(f"{number} {status}" for status, number in self._candidates.most_common())
        self._candidates = Counter()
        return [self._at(data, f"{plural(total, 'candidate')}: {parts}")]

    def _selection(self, data: Mapping[str, Any]) -> Text:
        scores = {row["id"]: row["score"] for row in data["candidates"]}
        beam = ", ".join(f"{name} {share(scores.get(name), look=self._look)}" for name in data["beam"])
        text = f"selected by {data['strategy']} with {plural(data['answers'], 'answer')}: {beam}"
        if again := data.get("rescore"):
            text += f"; the best, scored anew on {again['n']}: {share(again['score'], look=self._look)}"
        return self._at(data, text)

    def _report(self, data: Mapping[str, Any]) -> Text:
        teacher, look = data["teacher"], self._look
        n = teacher["n"]
        line = self._at(data, f"teacher on {plural(n, 'held-out problem')}: accuracy ")
        line.append(share(teacher["accuracy"], n, look=look), "lbt.figure")
        if found := interval(teacher):
            line.append(f" (95 % {share(found[0], n)}{look.glyph('dash')}{share(found[1], n)})")
        line.append(f", F1 {share(teacher['f1'], n, look=look)}")
        return self._with_broken(line, teacher["outcomes"])
