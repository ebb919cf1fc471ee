"""What is reported of a round: the teacher's held-out score, and what answering blindly would score."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rooms import material, prompt, rightly, seated, small_task

from lbt_sim.classroom import Classroom
from lbt_sim.exam import Sitting
from lbt_sim.grading.base import Grade
from lbt_sim.models.base import ChatRequest, Reply
from lbt_sim.reporting import baselines, report_round, score
from lbt_sim.selection import Scored, Selection, Standing
from lbt_sim.tasks.base import Problem, Task


def labelled(positives: int, n: int) -> tuple[Problem, ...]:
    return tuple(Problem(f"h{k}", f"statement {k}", "yes" if k < positives else "no") for k in range(n))


def liar(train_positives: int = 60) -> Task:
    """A held-out split with the shares of LIAR's test split: 54.2 % positive."""
    train = tuple(replace(problem, id=f"t{k}") for k, problem in enumerate(labelled(train_positives, 100)))
    return replace(small_task(), train=train, held_out=labelled(542, 1000))


def test_always_yes_scores_f1_70_3_where_54_2_percent_are_positive() -> None:
    found = baselines(liar())
    assert found["always_positive"] == {"accuracy": 0.542, "f1": pytest.approx(0.703, abs=5e-4)}
    assert found["majority"] == found["always_positive"]


def test_the_majority_is_trains_and_not_the_held_out_splits() -> None:
    assert baselines(liar(train_positives=40))["majority"] == {"accuracy": 0.458, "f1": 0.0}


def test_open_answers_have_no_trivial_baselines() -> None:
    task = small_task(labels=(), positive=None, grader="exact")
    assert baselines(task) == {"always_positive": None, "majority": None}


def sitting(*grades: Grade, problems: tuple[Problem, ...] | None = None) -> Sitting:
    return Sitting("teacher", problems or labelled(len(grades) // 2, len(grades)), grades)


YES, NO = Grade("correct", "yes", "text"), Grade("wrong", "no", "text")


def test_an_unreadable_answer_is_an_error_and_not_a_no() -> None:
    task = small_task()
    positive, negative = labelled(1, 2)
    unread = Grade("invalid")
    # On a negative problem a silent No would be right: here it is a false alarm.
    on_negative = score(sitting(YES, unread, problems=(positive, negative)), task)
    assert on_negative["accuracy"] == 0.5
    assert on_negative["f1"] == pytest.approx(2 / 3, abs=1e-6)
    on_positive = score(sitting(unread, Grade("correct", "no", "text"), problems=(positive, negative)), task)
    assert on_positive["f1"] == 0.0
    assert on_positive["outcomes"]["invalid"] == 1


def test_calls_that_gave_up_are_left_out_of_everything_but_the_counts() -> None:
    problems = labelled(2, 4)
    gone = Grade("failed")
    row = score(sitting(YES, gone, gone, Grade("wrong", "yes", "logprobs"), problems=problems), small_task())
    assert (row["n"], row["accuracy"]) == (2, 0.5)
    assert row["f1"] == pytest.approx(2 / 3, abs=1e-6)
    assert row["outcomes"]["failed"] == 2
    assert row["read_from"] == {"logprobs": 1, "text": 1}


def test_nothing_that_came_back_is_unknown_and_not_zero() -> None:
    row = score(sitting(Grade("failed"), Grade("failed")), small_task())
    assert (row["n"], row["accuracy"], row["f1"]) == (0, None, None)
    assert row["ci95"] == {"accuracy": None, "f1": None}


def test_f1_without_anything_positive_is_unknown() -> None:
    row = score(sitting(Grade("correct", "no", "text"), problems=labelled(0, 1)), small_task())
    assert (row["accuracy"], row["f1"]) == (1.0, None)


def test_open_answers_have_accuracy_only() -> None:
    task = small_task(labels=(), positive=None, grader="exact")
    row = score(sitting(YES, NO), task)
    assert (row["accuracy"], row["f1"]) == (0.5, None)
    assert row["ci95"]["accuracy"] is not None


async def test_a_round_examines_the_teacher_on_held_out_problems_with_its_material_in_mind(tmp_path: Path) -> None:
    answers = rightly(small_task())
    async with seated(tmp_path, lambda r: answers[r.last]) as here:
        row = await report_round(here.room, 3, material(), here.ctx)
        assert {r.path.item for r in here.model.requests} == {problem.id for problem in here.room.task.held_out}
        assert {r.path.step for r in here.model.requests} == {"report"}
        assert all("xexemplar0x" in prompt(request) for request in here.model.requests)
        assert here.of_kind("report")[0].data == row
    assert (row["round"], row["material"], row["teacher"]["accuracy"]) == (3, material().id, 1.0)
    assert "teachers" not in row
    assert (row["students"], row["students_material"], row["train"]) == ({}, None, None)


async def test_every_held_out_answer_is_told_with_what_it_was_read_from(tmp_path: Path) -> None:
    answers = rightly(small_task()) | {small_task().held_out[2].question: "hm"}
    async with seated(tmp_path, lambda r: answers[r.last]) as here:
        await report_round(here.room, 0, material(), here.ctx)
        await report_round(here.room, 1, material(5), here.ctx)
        problems, told = here.of_kind("held_out"), here.of_kind("reported")
    assert [problem.id for problem in small_task().held_out] == problems[0].data["items"]
    assert len(problems) == 1
    assert [(e.data["round"], e.data["teacher"], e.data["material"]) for e in told] == [
        (0, "teacher", material().id),
        (1, "teacher", material(5).id),
    ]
    assert told[0].data["outcomes"] == "cciccccc"
    assert told[0].data["answers"][2:4] == [None, "no"]
    assert told[0].data["read_from"][1:4] == ["text", "", "text"]


async def test_what_the_material_scored_on_train_stands_beside_its_report(tmp_path: Path) -> None:
    best, other = material(), material(5)
    standings = (
        Standing(other, {"t1": Scored(False, None)}),
        Standing(best, {"t1": Scored(True, None), "t2": Scored(False, None)}),
    )
    selection = Selection((best,), standings, "accuracy", 3, (4, 0.25))
    answers = rightly(small_task())
    async with seated(tmp_path, lambda r: answers[r.last]) as here:
        row = await report_round(here.room, 1, best, here.ctx, taught=other, selection=selection)
    assert row["train"] == {"n": 2, "score": 0.5, "rescored": {"n": 4, "score": 0.25}}
    assert row["students_material"] == other.id


async def test_with_two_teachers_both_are_reported_and_the_first_is_the_result(tmp_path: Path) -> None:
    seats = [("one", "teacher"), ("two", "teacher"), ("ann", "student")]
    room = Classroom.from_edges(seats, [("one", "ann", "teaches"), ("two", "ann", "teaches")])
    answers = rightly(small_task())

    def reply(request: ChatRequest) -> Reply:
        return Reply(answers[request.last] if request.path.agent == "one" else "hm")

    # The two have other system prompts in a real scenario; here one call must not stand for both.
    async with seated(tmp_path, reply, classroom=room, task=small_task(instruction="Say yes or no.")) as here:
        two = here.room.teachers["two"]
        two._known = {**two._known, "persona": "You are the second."}
        row = await report_round(here.room, 0, material(), here.ctx)
    assert row["teacher"] == row["teachers"]["one"]
    assert row["teachers"]["one"]["accuracy"] == 1.0
    assert row["teachers"]["two"]["outcomes"]["invalid"] == 8
