"""Feedback: what the teacher is told after an exam."""

from __future__ import annotations

from pathlib import Path

from rooms import material, seated

from lbt_sim.exam import Exam, Sitting
from lbt_sim.feedback import Feedback, give_feedback
from lbt_sim.grading.base import Grade
from lbt_sim.models.base import ChatRequest
from lbt_sim.roles.values import Utterance

RIGHT, FAILED = Grade("correct", "yes", "text"), Grade("failed")
WRONG, INVALID, CUT = Grade("wrong", "no", "text"), Grade("invalid"), Grade("truncated")


def silent(request: ChatRequest) -> str:
    raise AssertionError("the report is a template: nobody is asked")


async def feedback(folder: Path, *rows: tuple[Grade, ...]) -> tuple[Feedback, dict[str, object]]:
    async with seated(folder, silent) as here:
        problems = here.room.task.train[: len(rows[0])]
        sittings = [Sitting(f"s{n}", problems, grades) for n, grades in enumerate(rows)]
        given = give_feedback(here.room, Exam(2, problems, "sampled"), material(), sittings, here.ctx)
        return given, dict(here.of_kind("feedback")[0].data)


async def test_failures_of_all_students_are_pooled_with_what_each_answered(tmp_path: Path) -> None:
    given, _ = await feedback(tmp_path, (RIGHT, WRONG, WRONG, RIGHT), (RIGHT, WRONG, RIGHT, INVALID))
    assert [(f.problem.id, f.given) for f in given.failures] == [
        ("t1", (("s0", "no"), ("s1", "no"))),
        ("t2", (("s0", "no"),)),
        ("t3", (("s1", None),)),
    ]


async def test_unreadable_and_cut_off_answers_are_failures_and_calls_that_gave_up_are_not(tmp_path: Path) -> None:
    given, _ = await feedback(tmp_path, (FAILED, INVALID, CUT, RIGHT))
    assert [failure.problem.id for failure in given.failures] == ["t1", "t2"]


async def test_the_report_counts_what_came_back(tmp_path: Path) -> None:
    said_yes = Grade("wrong", "yes", "text")  # t1's right answer is no
    given, data = await feedback(tmp_path, (RIGHT, said_yes, FAILED, INVALID), (RIGHT, RIGHT, RIGHT, RIGHT))
    assert "Exam of 4 problems." in given.report
    assert "s0: 1 of 3 right, 1 unreadable" in given.report
    assert "s1: 4 of 4 right" in given.report
    assert "Most frequent mistakes:\n- 1 times yes in place of no\n" in given.report
    assert "family1: 1" in given.report
    assert data == {"round": 2, "material": material().id, "failures": ["t1", "t3"], "text": given.report}


async def test_the_report_tells_what_the_teacher_was_asked(tmp_path: Path) -> None:
    async with seated(tmp_path, silent) as here:
        problems = here.room.task.train[:1]
        asked = [Utterance("ann", ("teacher",), "question", "Does irony count?")]
        sittings = [Sitting("ann", problems, (WRONG,))]
        given = give_feedback(here.room, Exam(2, problems, "sampled"), material(), sittings, here.ctx, asked)
    assert "What the students asked in the lesson:\n- ann: Does irony count?" in given.report


async def test_an_exam_without_mistakes_says_so(tmp_path: Path) -> None:
    given, _ = await feedback(tmp_path, (RIGHT, RIGHT))
    assert not given.failures
    assert "Nobody failed anything." in given.report
    assert "Most frequent mistakes" not in given.report


async def test_the_report_names_the_most_frequent_confusions_first(tmp_path: Path) -> None:
    # t0's and t2's right answer is yes, t1's is no.
    said_no, said_yes = Grade("wrong", "no", "text"), Grade("wrong", "yes", "text")
    given, _ = await feedback(tmp_path, (said_no, said_yes, said_no))
    assert given.report.index("2 times no in place of yes") < given.report.index("1 times yes in place of no")
