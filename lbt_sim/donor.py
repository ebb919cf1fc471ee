"""Another run's failures, for the control `feedback: shuffled`: is it *these* failures that help, or any?

The donor is read once, when a run's folder is made, and kept there: a run goes on, is replayed and is forked from its
own folder alone. What the donor's class failed is told to the teacher in the form in which its own class's failures
would be.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from lbt_sim.errors import InputError, Place, ScenarioError
from lbt_sim.events import Event
from lbt_sim.feedback import Failure, OtherClass
from lbt_sim.ledger import LedgerReader
from lbt_sim.roles.room import Room
from lbt_sim.scenario.schema import ReviseSpec
from lbt_sim.tasks.base import Problem
from lbt_sim.tasks.split import bare

__all__ = ["DONOR_FILE", "Donor", "load_donor", "read_donor", "suited"]

DONOR_FILE = "donor.json"
"""In a run folder: what was read of the donor."""
_AGAINST = "wit"
"""Letters of the outcomes that are failures of a student: wrong, invalid, truncated."""


@dataclass(frozen=True)
class Donor:
    """What the classes of another run failed.

    Attributes:
        run: Its folder, as the scenario names it.
        rounds: For each of its finished rounds, from round 1, each material of its beam, best first. Never empty,
            nor is any of them.
    """

    run: str
    rounds: tuple[tuple[OtherClass, ...], ...]

    def at(self, round_: int, place: int) -> OtherClass:
        """Whose failures are told in a round: of the donor's same round and the material at the same place.

        A donor with fewer rounds, or with fewer materials in its beam, is gone through again from its first.

        Args:
            round_: From 1.
            place: The material's in the beam, from 0.
        """
        classes = self.rounds[(round_ - 1) % len(self.rounds)]
        return classes[place % len(classes)]

    def as_text(self) -> str:
        """As the run folder keeps it."""
        rounds = [[_as_data(one) for one in classes] for classes in self.rounds]
        return json.dumps({"run": self.run, "rounds": rounds}, ensure_ascii=False, indent=1) + "\n"

    @property
    def digest(self) -> str:
        """SHA-256 of what the run folder keeps."""
        return sha256(self.as_text().encode("utf-8", "surrogatepass")).hexdigest()


def read_donor(folder: str, labels: Sequence[str], where: Place | None = None) -> Donor:
    """What the classes of a run failed, from its ledger.

    Args:
        folder: The run folder, relative to the working directory.
        labels: Of the task of the run that is told of it.
        where: Where the scenario names the folder.

    Raises:
        ScenarioError: It is no run folder, it has not finished a round of revision, or its task has other labels.
    """
    try:
        with LedgerReader(Path(folder).expanduser()) as ledger:
            events = list(ledger.events("run", "exam", "grades", "feedback", "selection", "report"))
    except InputError as error:
        remedy = "Name the folder of a run whose first round is finished, relative to the working directory."
        raise ScenarioError(
            f"no failures can be had from '{folder}': {error.what}", where=where, remedy=remedy
        ) from error
    finished = sorted({int(event.data["round"]) for event in events if event.kind == "report"} - {0})
    rounds = tuple(classes for round_ in finished if (classes := _classes(folder, round_, events)))
    if not rounds:
        raise ScenarioError(
            f"'{folder}' has not finished its round 1, so that nobody there has failed anything yet",
            where=where,
            remedy=f"Go on with it (lbt-sim resume {folder}), or name another run.",
        )
    theirs = [label for event in events if event.kind == "run" for label in event.data["task"]["labels"]]
    if theirs != list(labels):
        raise ScenarioError(
            f"the task of '{folder}' has other labels ({', '.join(theirs) or 'none'}) than this one's",
            where=where,
            valid=labels,
            remedy="Name a run of the same task: its failures are to be taught here.",
        )
    return Donor(folder, rounds)


def load_donor(text: str) -> Donor:
    """What a run folder keeps of its donor.

    Raises:
        ValueError: It is not what `as_text` gives.
    """
    try:
        data = json.loads(text)
        rounds = tuple(tuple(_from_data(data["run"], one) for one in classes) for classes in data["rounds"])
        if not (rounds and all(rounds)):
            raise ValueError("it holds nobody's failures")
        return Donor(data["run"], rounds)
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"it is not what lbt-sim writes ({type(error).__name__}: {error})") from error


def suited(donor: Donor | None, spec: ReviseSpec, room: Room, reserve: Sequence[Problem]) -> Donor | None:
    """The donor's failures as they may be told and offered in this room; None where it is told of its own.

    A problem that is held out here, or nearly, is left out, wherever it stands; so is one that is set aside for scoring
    winners anew. In its place comes the next failure of the donor's following rounds, so that as many are told, as long
    as there are others. One that is a train problem here is that one, with its rationale and its family.

    Args:
        donor: What was read.
        spec: Says whose failures are told.
        room: The room, without the problems that are set aside.
        reserve: Those.

    Raises:
        ValueError: Another run's failures are to be told, and there are none: silently telling its own would give a
            control that is none.
    """
    if spec.feedback != "shuffled":
        return None
    if donor is None:
        raise ValueError("`feedback: shuffled` needs a donor")
    own = {bare(problem.question): problem for problem in room.task.train}
    kept = {bare(problem.question) for problem in reserve}

    def here(other: OtherClass) -> OtherClass:
        told, refused = [], []
        for failure in other.failures:
            words = bare(failure.problem.question)
            if words in kept or _gives_away(room, failure.problem):
                refused.append(words)
            else:
                problem = own.get(words) or replace(failure.problem, id=f"d{other.round}_{failure.problem.id}")
                told.append(Failure(problem, tuple((who, _harmless(room, said)) for who, said in failure.given)))
        return replace(other, failures=tuple(told), report=_report(room, other.report, refused))

    fitted = replace(donor, rounds=tuple(tuple(map(here, classes)) for classes in donor.rounds))
    return replace(
        fitted,
        rounds=tuple(
            tuple(_filled(fitted, number, place, len(one.failures)) for place, one in enumerate(classes))
            for number, classes in enumerate(donor.rounds, 1)
        ),
    )


def _filled(donor: Donor, number: int, place: int, count: int) -> OtherClass:
    """What is told of the donor's `number`-th round, filled up to `count` failures from its rounds after that."""
    told = {bare(failure.problem.question): failure for failure in donor.at(number, place).failures}
    for later in range(1, len(donor.rounds)):
        for failure in donor.at(number + later, place).failures:
            if len(told) < count:
                told.setdefault(bare(failure.problem.question), failure)
    return replace(donor.at(number, place), failures=tuple(told.values()))


def _gives_away(room: Room, problem: Problem) -> bool:
    """Whether a problem, or an open answer of its, tells a held-out one."""
    leaks = room.guard.leaks
    return leaks(problem.question) is not None or (not room.task.labels and leaks(problem.answer) is not None)


def _harmless(room: Room, said: str | None) -> str | None:
    """What a student answered, unless it tells a held-out problem."""
    return None if said is None or (not room.task.labels and room.guard.leaks(said)) else said


def _report(room: Room, text: str, refused: Sequence[str]) -> str:
    """The examiner's report without the lines that tell of what is left out; '' where no line can be named."""

    def tells(part: str) -> bool:
        words = f" {bare(part)} "
        return room.guard.leaks(part) is not None or any(f" {question} " in words for question in refused)

    if not tells(text):
        return text
    left = "\n".join(line for line in text.split("\n") if not tells(line))
    return "" if tells(left) else left


# --- reading a ledger -------------------------------------------------------------------------------------


def _classes(folder: str, round_: int, events: Sequence[Event]) -> tuple[OtherClass, ...]:
    """The classes of a round, one for each material of the beam that was taught, best first."""
    seats = [seat["name"] for event in events if event.kind == "run" for seat in event.data["seats"]]
    exams = [event.data for event in events if event.kind == "exam" and event.data["round"] == round_]
    reports = {e.data["material"]: e.data["text"] for e in events if e.kind == "feedback" and e.data["round"] == round_}
    if not exams:
        return ()
    beams = [event.data for event in events if event.kind == "selection" and event.data["round"] < round_]
    beam = list(max(beams, key=lambda data: data["round"])["beam"]) if beams else []
    in_order = sorted(reports, key=lambda id_: (beam.index(id_) if id_ in beam else len(beam), id_))
    classes = []
    for material in in_order:
        sat = [
            event.data
            for event in events
            if event.kind == "grades" and (event.data["round"], event.data["material"]) == (round_, material)
        ]
        sat.sort(key=lambda data: seats.index(data["student"]) if data["student"] in seats else len(seats))
        failures = tuple(_failures(exams[0], sat))
        classes.append(OtherClass(folder, round_, material, failures, reports[material]))
    return tuple(classes)


def _failures(exam: Mapping[str, Any], sat: Sequence[Mapping[str, Any]]) -> Iterable[Failure]:
    for index, id_ in enumerate(exam["items"]):
        given = tuple(
            (grades["student"], grades["answers"][index]) for grades in sat if grades["outcomes"][index] in _AGAINST
        )
        if given:
            yield Failure(Problem(id_, exam["questions"][index], exam["answers"][index]), given)


def _as_data(other: OtherClass) -> dict[str, Any]:
    failures = [
        {
            "id": f.problem.id,
            "question": f.problem.question,
            "answer": f.problem.answer,
            "given": list(map(list, f.given)),
        }
        for f in other.failures
    ]
    return {"round": other.round, "material": other.material, "failures": failures, "report": other.report}


def _from_data(run: str, data: Mapping[str, Any]) -> OtherClass:
    failures = tuple(
        Failure(Problem(f["id"], f["question"], f["answer"]), tuple((who, said) for who, said in f["given"]))
        for f in data["failures"]
    )
    return OtherClass(run, data["round"], data["material"], failures, data["report"])
