"""Feedback: what the teacher is told after an exam."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lbt_sim.events import Event
from lbt_sim.exam import Exam, Sitting
from lbt_sim.roles.room import Context, Room
from lbt_sim.roles.values import Material, Utterance
from lbt_sim.tasks.base import Problem

__all__ = ["Failure", "Feedback", "OtherClass", "failures_as_values", "give_feedback", "report_text"]


@dataclass(frozen=True, slots=True)
class Failure:
    """A problem and who got it wrong: [(student, what it answered)]; an unreadable answer is None."""

    problem: Problem
    given: tuple[tuple[str, str | None], ...]

    def as_values(self) -> dict[str, Any]:
        """As templates see it."""
        given = [{"student": who, "answer": answer} for who, answer in self.given]
        return {"question": self.problem.question, "answer": self.problem.answer, "given": given}


@dataclass(frozen=True, slots=True)
class Feedback:
    """What an exam said about one material.

    Attributes:
        material: What was taught.
        failures: Problems that any student got wrong or answered unreadably. Calls that gave up are not failures
            of a student and are not here.
        report: The examiner's report, as the teacher reads it.
    """

    material: Material
    failures: tuple[Failure, ...]
    report: str


@dataclass(frozen=True, slots=True)
class OtherClass:
    """What another run's class failed: told to a teacher instead of its own class's failures, as a control.

    Attributes:
        run: The other run's folder.
        round: Of that run.
        material: Id of what it had been taught there.
        failures: As in `Feedback`.
        report: The examiner's report there.
    """

    run: str
    round: int
    material: str
    failures: tuple[Failure, ...]
    report: str


def give_feedback(
    room: Room,
    exam: Exam,
    material: Material,
    sittings: Sequence[Sitting],
    ctx: Context,
    questions: Sequence[Utterance] = (),
    other: OtherClass | None = None,
) -> Feedback:
    """The examiner's report on an exam, with the questions that the teacher was asked in the lesson before it.

    With `other` the teacher is told of that class instead; what its own class did is recorded all the same.
    """
    failures = _failures(exam, sittings)
    report = report_text(room, exam, sittings, failures, questions)
    data: dict[str, Any] = {
        "round": exam.round,
        "material": material.id,
        "failures": [failure.problem.id for failure in failures],
        "text": report,
    }
    if other is not None:
        data["told"] = {
            "run": other.run,
            "round": other.round,
            "material": other.material,
            "failures": [failure.problem.id for failure in other.failures],
            "text": other.report,
        }
        failures, report = other.failures, other.report
    ctx.emit(Event(f"r{exam.round}/{material.id}/feedback", "feedback", data))
    return Feedback(material, failures, report)


def report_text(
    room: Room,
    exam: Exam,
    sittings: Sequence[Sitting],
    failures: Sequence[Failure],
    questions: Sequence[Utterance] = (),
) -> str:
    """The examiner's report as its template writes it: scores, mistakes, kinds of problems, what was asked."""
    given = [(failure.problem.answer, answer) for failure in failures for _, answer in failure.given]
    confusions = Counter((right, said) for right, said in given if said is not None)
    families = Counter(failure.problem.family for failure in failures if failure.problem.family)
    return room.examiner.report(
        {
            "problems": len(exam.problems),
            "students": [
                {"name": s.who, "correct": s.outcomes["correct"], "answered": s.n, "unreadable": s.outcomes["invalid"]}
                for s in sittings
            ],
            "failures": failures_as_values(failures),
            "confusions": [
                {"right": right, "said": said, "times": times} for (right, said), times in confusions.most_common(6)
            ],
            "families": [{"family": family, "times": times} for family, times in families.most_common(6)],
            "questions": [{"student": asked.speaker, "text": asked.text} for asked in questions],
        }
    )


def failures_as_values(failures: Sequence[Failure]) -> list[dict[str, Any]]:
    """Failures as templates see them: [{question, answer, given: [{student, answer}]}]."""
    return [failure.as_values() for failure in failures]


def _failures(exam: Exam, sittings: Sequence[Sitting]) -> tuple[Failure, ...]:
    found = []
    for index, problem in enumerate(exam.problems):
        given = tuple(
            (sitting.who, sitting.grades[index].answer)
            for sitting in sittings
            if sitting.grades[index].outcome in ("wrong", "invalid", "truncated")
        )
        if given:
            found.append(Failure(problem, given))
    return tuple(found)
