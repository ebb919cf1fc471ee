"""A run folder, read: what the transcript shows, asked of the ledger piece by piece.

Nothing here loads all calls: a ledger may hold a million. Calls are found in the index of their paths and fetched
one page at a time. A run may still be writing, or have failed: whatever is there is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

from lbt_sim.errors import InputError, Place, nearest
from lbt_sim.events import Event
from lbt_sim.executions import recorded
from lbt_sim.ledger import LedgerReader, StoredCall

__all__ = ["CallFilter", "RunRecord"]

Data = Mapping[str, Any]

_LISTED = 20


@dataclass(frozen=True, slots=True)
class CallFilter:
    """Which calls: all conditions hold; None is any.

    `step` is a GLOB; `item` also finds an examiner's judgement of that item.
    """

    round: int | None = None
    agent: str | None = None
    item: str | None = None
    material: str | None = None
    step: str | None = None

    def sql(self) -> tuple[str, list[Any]]:
        """A condition on the columns of the index of paths, and its values."""
        conditions, values = ["1"], list[Any]()
        for column, value in (("round", self.round), ("agent", self.agent)):
            if value is not None:
                conditions.append(f"{column} = ?")
                values.append(value)
        if self.step is not None:
            conditions.append("step GLOB ?")
            values.append(self.step)
        if self.item is not None:
            conditions.append("(item = ? OR substr(item, -length(?)) = ?)")
            values += [self.item, f"/{self.item}", f"/{self.item}"]
        if self.material is not None:
            conditions.append("instr(step || '/', ?)")
            values.append(f"/{self.material}/")
        return " AND ".join(conditions), values


class RunRecord:
    """A run folder open for reading. A context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ledger = LedgerReader(folder)

    def __enter__(self) -> RunRecord:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ledger.__exit__(kind, error, trace)

    # --- the run as a whole -----------------------------------------------------------------------------------

    @cached_property
    def run(self) -> Data:
        """The `run` event; empty where the run stopped before it."""
        return next((event.data for event in self._ledger.events("run")), {})

    @cached_property
    def status(self) -> str:
        """How the run ended; '' where it has not."""
        return next((str(event.data["status"]) for event in self._ledger.events("done")), "")

    @cached_property
    def seats(self) -> dict[str, Data]:
        """Name -> seat (role, model, persona)."""
        return {seat["name"]: seat for seat in self.run.get("seats", [])}

    @cached_property
    def reports(self) -> dict[int, Data]:
        """Round -> its report."""
        reports = {int(event.data["round"]): event.data for event in self._ledger.events("report")}
        return dict(sorted(reports.items()))

    @cached_property
    def exams(self) -> dict[int, Data]:
        """Round -> its exam."""
        return {int(event.data["round"]): event.data for event in self._ledger.events("exam")}

    @cached_property
    def held_out(self) -> Data:
        """The problems of the reports: `items`, `questions`, `answers`; empty before the first report."""
        return next((event.data for event in self._ledger.events("held_out")), {})

    def reported(self, round_: int) -> list[Data]:
        """Each teacher's held-out answers of a round, in the order of `held_out`."""
        return [event.data for event in self._of(round_, "reported")]

    @cached_property
    def rounds(self) -> list[int]:
        """The rounds of which anything was recorded."""
        return sorted({*self.reports, *self.exams, *self.selections} | ({0} if self.materials else set()))

    @cached_property
    def materials(self) -> dict[str, Data]:
        """Id -> material, in the order in which they were made."""
        return {event.data["id"]: event.data for event in self._ledger.events("material")}

    @cached_property
    def selections(self) -> dict[int, Data]:
        """Round -> its selection."""
        return {int(event.data["round"]): event.data for event in self._ledger.events("selection")}

    @cached_property
    def candidates(self) -> dict[int, list[Data]]:
        """Round -> what became of each candidate."""
        found: dict[int, list[Data]] = {}
        for event in self._ledger.events("candidate"):
            found.setdefault(int(event.data["round"]), []).append(event.data)
        return found

    def notices(self) -> list[str]:
        """What was worth telling: of the task, and of what happened."""
        return [*self.run.get("notices", []), *(str(event.data["text"]) for event in self._ledger.events("notice"))]

    def candidate_counts(self) -> dict[int, tuple[int, int]]:
        """Round -> (candidates tried, how many of them are in the beam)."""
        counts = {}
        for number, selection in self.selections.items():
            made = self.candidates.get(number, [])
            new = {candidate["material"] for candidate in made if candidate["status"] == "new"}
            counts[number] = (len(made), len(new.intersection(selection["beam"])))
        return counts

    def result(self) -> dict[str, Any]:
        """What `lbt-sim run --json` prints, as far as it stands in the folder.

        Seconds and what servers did are told of each of the `executions`; see `executions.together`.
        """
        totals = self._ledger.totals()
        return {
            "run": str(self.folder),
            "status": self.status or "unfinished",
            "rounds": list(self.reports.values()),
            "baselines": self.run.get("baselines") or {},
            "calls": {
                "made": totals["calls"] - totals["shared"],
                "shared": totals["shared"],
                "failed": totals["failed"],
            },
            "tokens": {
                "prompt": totals["prompt_tokens"],
                "cached": totals["cached_tokens"],
                "completion": totals["completion_tokens"],
            },
            "executions": recorded(self.folder),
        }

    def spent(self) -> list[tuple[str, str, int, int, int, int, int]]:
        """(purpose, stage, calls, shared, failed, prompt tokens, completion tokens) of each purpose and stage.

        The stage is the first part of a call's step: exam, select, report, … Tokens count shared calls too.
        """
        return self._ledger.spent()

    # --- one round --------------------------------------------------------------------------------------------

    def grades(self, round_: int) -> dict[str, list[Data]]:
        """Material -> the students' graded exams of a round, students in seat order."""
        order = {name: number for number, name in enumerate(self.seats)}
        found: dict[str, list[Data]] = {}
        for event in self._of(round_, "grades"):
            found.setdefault(event.data["material"], []).append(event.data)
        beam = {name: number for number, name in enumerate(self.taught(round_))}
        for exams in found.values():
            exams.sort(key=lambda data: order.get(data["student"], len(order)))
        return dict(sorted(found.items(), key=lambda pair: beam.get(pair[0], len(beam))))

    def taught(self, round_: int) -> list[str]:
        """The materials that were taught in a round, best first: the beam that the round before left."""
        before = [number for number in self.selections if number < round_]
        if before:
            return list(self.selections[max(before)]["beam"])
        first = self.reports.get(0, {}).get("material")
        roots = [name for name, data in self.materials.items() if not data.get("parents")]
        return sorted(roots, key=lambda name: name != first)

    def feedback(self, round_: int) -> dict[str, Data]:
        """Material -> what the teacher was told of its exam."""
        return {event.data["material"]: event.data for event in self._of(round_, "feedback")}

    def utterances(self, round_: int) -> dict[str, list[Data]]:
        """Material -> what was said in its lesson, in order."""
        found: dict[str, list[Data]] = {}
        for event in self._of(round_, "utterance"):
            found.setdefault(event.data["material"], []).append(event.data)
        return found

    def _of(self, round_: int, kind: str) -> Iterator[Event]:
        return self._ledger.events(kind, path=f"r{round_}/*")

    # --- calls ------------------------------------------------------------------------------------------------

    def calls(self, which: CallFilter, *, limit: int = -1, skip: int = 0) -> Iterator[StoredCall]:
        """Calls in the order of their commits."""
        condition, values = which.sql()
        # Ids come from the index of paths alone, so that only the rows of this page are read from the table.
        found = f"SELECT id FROM calls INDEXED BY calls_path WHERE {condition} ORDER BY +id LIMIT ? OFFSET ?"  # noqa: S608
        return self._ledger.calls(f"c.id IN ({found})", (*values, limit, skip))

    def count(self, which: CallFilter) -> int:
        """How many calls there are."""
        condition, values = which.sql()
        return self._ledger.count(condition, values)

    # --- names that a user gave ---------------------------------------------------------------------------------

    def check_round(self, round_: int) -> None:
        """Raises `InputError` for a round of which nothing was recorded."""
        if round_ not in self.rounds and not self.count(CallFilter(round=round_)):
            self._refuse("--round", str(round_), f"round {round_} is not in this run", list(map(str, self.rounds)))

    def check_agent(self, agent: str) -> None:
        """Raises `InputError` for someone who is not in the room and has said nothing."""
        if agent not in self.seats and not self.count(CallFilter(agent=agent)):
            self._refuse("--agent", agent, f"nobody here is called '{agent}'", list(self.seats))

    def check_item(self, item: str) -> None:
        """Raises `InputError` for an item that nobody was asked."""
        asked = {name: None for exam in self.exams.values() for name in exam["items"]}
        asked |= dict.fromkeys(self.held_out.get("items", []))
        if item not in asked and not self.count(CallFilter(item=item)):
            self._refuse("--item", item, f"item '{item}' was not asked in this run", list(asked))

    def check_material(self, material: str) -> None:
        """Raises `InputError` for a material that was not made."""
        if material not in self.materials:
            self._refuse("--material", material, f"no material here is called '{material}'", list(self.materials))

    def _refuse(self, key: str, found: str, what: str, valid: Sequence[str]) -> None:
        close = nearest(found, valid)
        more = [f"… and {len(valid) - _LISTED:,} more"] if len(valid) > _LISTED else []
        raise InputError(
            what + (f"; did you mean '{close}'?" if close else ""),
            where=Place(str(self.folder), key=key),
            valid=[*valid[:_LISTED], *more],
            remedy=f"Take one of these, or leave {key} out." if valid else "Nothing has been recorded in this run yet.",
        )
