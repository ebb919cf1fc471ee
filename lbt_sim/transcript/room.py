"""The room as the live view knows it: a small state that events update and the view samples.

Taking an event is a few assignments; nothing is drawn, waited for or kept beyond the current round.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lbt_sim.events import Event
from lbt_sim.models.recorded import Meter

__all__ = ["Pace", "Room", "Said"]

_REPORT = "held-out exam"
_STAGES = {
    "utterance": ("lesson", 0.02),
    "exam": ("exam", 0.05),
    "grades": ("exam", 0.05),
    "feedback": ("revision", 0.40),
    "candidate": ("selection", 0.50),
    "selection": (_REPORT, 0.90),
    "report": ("reported", 1.0),
}
"""Kind of event -> the stage that is then under way, and the share of a round that is then behind us: a rough guess."""

_EXAM_SHARE = 0.35
_START_WEIGHT = 0.15
"""Round 0 only reports, so it is a small part of the whole."""

_WINDOW = 10.0
_EDGES_KEPT = 1000


@dataclass(frozen=True, slots=True)
class Said:
    """Something that was said in the room."""

    speaker: str
    hearers: tuple[str, ...]
    text: str
    kind: str = ""
    exemplars: int = 0
    """How many worked examples go with it."""


@dataclass(slots=True)
class Room:
    """What has happened, as far as the view shows it."""

    clock: Callable[[], float] = time.monotonic
    title: str = ""
    seed: int | None = None
    method: str = ""
    rounds: int = 0
    roles: Mapping[str, str] = field(default_factory=dict)
    students: tuple[str, ...] = ()
    """Their names, in seat order."""
    edges: tuple[tuple[str, str, str], ...] = ()
    """Who speaks to whom, and how; left out where there are too many to be drawn."""
    edge_counts: Counter[str] = field(default_factory=Counter)
    baselines: Mapping[str, Any] = field(default_factory=dict)
    round: int = 0
    stage: str = "getting ready"
    share: float = 0.0
    """How much of the current round is behind us, roughly."""
    items: int = 0
    beam: tuple[str, ...] = ()
    """The materials that were kept last, best first."""
    taught: tuple[str, ...] = ()
    """The materials that are taught in this round."""
    grades: dict[tuple[str, str], str] = field(default_factory=dict)
    """(material, student) -> a letter for each item."""
    candidates: Counter[str] = field(default_factory=Counter)
    reports: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    said: deque[Said] = field(default_factory=lambda: deque(maxlen=64))
    notices: deque[str] = field(default_factory=lambda: deque(maxlen=8))
    status: str = ""
    taken: int = 0
    """Events so far."""
    not_understood: int = 0
    began: float | None = None
    """When the run (or this part of it) began; None before."""
    round_began: float = 0.0
    round_seconds: dict[int, float] = field(default_factory=dict)
    """Round -> how long it took, where it was worked and not only read from the ledger."""
    _made_at_start: int = 0

    def take(self, event: Event, meter: Meter) -> None:
        """Takes an event. Never raises: what is not understood is counted and shown."""
        self.taken += 1
        try:
            self._take(event, meter)
        except Exception:
            self.not_understood += 1

    def _take(self, event: Event, meter: Meter) -> None:
        data = event.data
        number = data.get("round")
        if isinstance(number, int) and event.kind != "notice":
            self._at_round(number, meter)
        if event.kind in _STAGES:
            stage, share = _STAGES[event.kind]
            if share >= self.share:
                self.stage, self.share = stage, share
        match event.kind:
            case "run":
                self._begin(data)
            case "material":
                if not data.get("parents") and data["id"] not in self.beam and not self.reports:
                    self.taught = self.beam = (*self.beam, data["id"])
            case "utterance":
                self.said.append(_said(data))
            case "exam":
                self.items = len(data["items"])
            case "grades":
                self.grades[data["material"], data["student"]] = data["outcomes"]
            case "candidate":
                self.candidates[data["status"]] += 1
            case "selection":
                self.beam = tuple(data["beam"])
            case "report":
                self._report(data, meter)
            case "notice":
                self.notices.append(data["text"])
            case "done":
                self.status = data["status"]
            case _:
                pass

    def _begin(self, data: Mapping[str, Any]) -> None:
        self.title, self.seed, self.method = data.get("title", ""), data.get("seed"), data.get("method", "")
        self.rounds = int(data.get("rounds") or 0)
        self.roles = {seat["name"]: seat["role"] for seat in data.get("seats", [])}
        self.students = tuple(name for name, role in self.roles.items() if role == "student")
        edges = data.get("edges", [])
        counts = data.get("edge_counts") or Counter(edge[2] for edge in edges)
        self.edge_counts = Counter({kind: number for kind, number in counts.items() if number})
        self.edges = tuple((edge[0], edge[1], edge[2]) for edge in edges) if len(edges) <= _EDGES_KEPT else ()
        self.baselines = data.get("baselines") or {}
        self.notices.extend(data.get("notices", []))
        self.stage = _REPORT  # round 0 only examines the teacher
        self.began = self.round_began = self.clock()

    def _at_round(self, number: int, meter: Meter) -> None:
        if number <= self.round:
            return
        self.round, self.stage, self.share = number, "lesson", 0.0
        self.taught = self.beam
        self.grades, self.candidates = {}, Counter()  # New ones, since the view may be reading the old.
        self.round_began, self._made_at_start = self.clock(), meter.made

    def _report(self, data: Mapping[str, Any], meter: Meter) -> None:
        self.reports = {**self.reports, int(data["round"]): data}
        if meter.made > self._made_at_start:
            self.round_seconds[self.round] = self.clock() - self.round_began

    # --- sampled by the view --------------------------------------------------------------------------------

    def answered(self, meter: Meter, material: str) -> list[int]:
        """How many answers of this round's exam are in, for each student."""
        # The view asks this of a thousand students four times a second.
        count, round_, step = meter.answered.get, self.round, f"exam/{material}"
        return [count((round_, step, student), 0) for student in self.students]

    def focus(self, meter: Meter) -> str | None:
        """The material whose exam is shown: the first of the beam that is not yet all graded, else the best."""
        taught = self.taught or tuple({material: None for material, _ in list(self.grades)})
        students = self.students
        for material in taught:
            graded = sum((material, student) in self.grades for student in students)
            if graded < len(students) and (graded or any(self.answered(meter, material))):
                return material
        shown = [material for material in taught if any(key[0] == material for key in list(self.grades))]
        return shown[0] if shown else (taught[0] if taught else None)

    def outcomes(self, meter: Meter, material: str) -> list[tuple[str, str]]:
        """(student, a letter for each item): graded, answered (`a`), or not yet (`.`)."""
        rows = []
        for student, number in zip(self.students, self.answered(meter, material), strict=True):
            graded = self.grades.get((material, student))
            done = min(number, self.items)
            rows.append((student, graded if graded is not None else "a" * done + "." * (self.items - done)))
        return rows

    def fraction(self, meter: Meter) -> float:
        """How much of the run is behind us, roughly."""
        if self.status:
            return 1.0
        if not self.rounds and self.round == 0:
            return 1.0 if self.reports else 0.0
        whole = _START_WEIGHT + self.rounds
        if self.round == 0:
            return _START_WEIGHT * self.share / whole
        return min((_START_WEIGHT + self.round - 1 + self._share(meter)) / whole, 1.0)

    def _share(self, meter: Meter) -> float:
        if self.stage != "exam" or not self.items or not self.taught:
            return self.share
        answers = sum(sum(self.answered(meter, material)) for material in self.taught)
        part = answers / max(self.items * len(self.taught) * len(self.students), 1)
        return self.share + _EXAM_SHARE * min(part, 1.0)

    def seconds_left(self, now: float) -> float | None:
        """From how long earlier rounds took, round 0 aside; before there is one, None: nothing is known of it."""
        took = [seconds for number, seconds in list(self.round_seconds.items()) if number > 0]
        if not took or self.status:
            return None
        mean = sum(took) / len(took)
        rest = max(mean - (now - self.round_began), 0.0) if self.stage != "reported" else 0.0
        return rest + mean * (self.rounds - self.round)


def _said(data: Mapping[str, Any]) -> Said:
    return Said(
        data["speaker"], tuple(data["hearers"]), data["text"], data.get("kind", ""), int(data.get("exemplars") or 0)
    )


@dataclass(slots=True)
class Pace:
    """Calls and tokens per second over the last ten seconds of samples."""

    _samples: deque[tuple[float, int, int]] = field(default_factory=deque)

    def sample(self, now: float, meter: Meter) -> None:
        """Notes where the meter stands."""
        self._samples.append((now, meter.made, meter.prompt_tokens + meter.completion_tokens))
        while len(self._samples) > 2 and now - self._samples[0][0] > _WINDOW:
            self._samples.popleft()

    def per_second(self) -> tuple[float, float]:
        """(calls, tokens) per second."""
        if len(self._samples) < 2:
            return 0.0, 0.0
        (then, calls, tokens), (now, calls_now, tokens_now) = self._samples[0], self._samples[-1]
        passed = max(now - then, 1e-6)
        return (calls_now - calls) / passed, (tokens_now - tokens) / passed
