"""The exam: how it is set, that it is sat in isolation, and how answers are counted."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from rooms import LABELS, Seated, below, material, problems, prompt, rightly, seated, seats_for, small_task, star

from lbt_sim.errors import CallsFailed
from lbt_sim.exam import Exam, Sitting, examine, set_exam, sit
from lbt_sim.grading.base import Grade
from lbt_sim.ledger import LedgerReader
from lbt_sim.lesson import teach
from lbt_sim.models.base import CallPath, ChatRequest, Reply
from lbt_sim.models.recorded import Limits
from lbt_sim.roles.values import Material, Notes, Utterance
from lbt_sim.scenario.schema import ExamSpec, LessonSpec, SamplingSpec
from lbt_sim.tasks.base import Exemplar, Problem

PATH = CallPath(1, "exam/m", "")


def silent(request: ChatRequest) -> str:
    raise AssertionError(f"nobody was to be asked: {request.path}")


async def taught(here: Seated, **said: str) -> AsyncIterator[tuple[str, Notes]]:
    """A lesson in which each student has heard words of its own."""
    for name in here.room.students:
        yield name, Notes((Utterance("teacher", (name,), "teaches", said.get(name, f"for {name} only")),))


# --- setting ----------------------------------------------------------------------------------------------


async def test_a_sampled_exam_is_new_each_round_and_the_same_for_a_seed(tmp_path: Path) -> None:
    async with seated(below(tmp_path, "a"), silent, seed=1) as here:
        first = [await set_exam(here.room, ExamSpec(problems=6), round_, here.ctx) for round_ in (1, 2)]
    async with seated(below(tmp_path, "b"), silent, seed=1) as here:
        again = [await set_exam(here.room, ExamSpec(problems=6), round_, here.ctx) for round_ in (1, 2)]
    async with seated(below(tmp_path, "c"), silent, seed=2) as here:
        other = await set_exam(here.room, ExamSpec(problems=6), 1, here.ctx)
    assert first == again
    assert first[0].problems != first[1].problems
    assert first[0].problems != other.problems
    assert len({problem.id for problem in first[0].problems}) == 6


async def test_a_fixed_exam_stays_and_can_be_named(tmp_path: Path) -> None:
    async with seated(tmp_path, silent) as here:
        spec = ExamSpec(problems=5, set_by="fixed")
        exams = [await set_exam(here.room, spec, round_, here.ctx) for round_ in (1, 2, 3)]
        assert len({exam.problems for exam in exams}) == 1
        named = await set_exam(here.room, ExamSpec(set_by="fixed", ids=["t5", "t2"]), 1, here.ctx)
        assert [problem.id for problem in named.problems] == ["t5", "t2"]


@pytest.mark.parametrize("set_by", ["sampled", "fixed", "written"])
async def test_an_exam_holds_no_held_out_problem(tmp_path: Path, set_by: str) -> None:
    async with seated(tmp_path, lambda r: "no list") as here:
        exam = await set_exam(here.room, ExamSpec(problems=24, set_by=set_by), 1, here.ctx)
        assert {problem.id[0] for problem in exam.problems} == {"t"}


def written(*rows: tuple[str, str]) -> str:
    return json.dumps([{"question": question, "answer": answer} for question, answer in rows])


def examiner(reply: str, solved: str = "yes") -> object:
    return lambda request: reply if request.purpose == "set_exam" else solved


async def exam_of(here: Seated, problems_: int = 3) -> tuple[Exam, str]:
    exam = await set_exam(here.room, ExamSpec(problems=problems_, set_by="written"), 1, here.ctx)
    notices = [event.data["text"] for event in here.of_kind("notice")]
    return exam, " ".join(notices)


async def test_a_written_exam_is_taken_where_every_check_passes(tmp_path: Path) -> None:
    rows = [(f"a brand new thing {word}", "yes") for word in ("apple", "river", "stone")]
    async with seated(tmp_path, examiner(written(*rows))) as here:
        exam, notice = await exam_of(here)
        assert [p.question for p in exam.problems] == [question for question, _ in rows]
        assert not notice
        assert {r.path.agent for r in here.model.requests} == {"examiner"}


@pytest.mark.parametrize(
    ("reply", "solved", "why"),
    [
        ("I would rather not.", "yes", "1 malformed"),
        (written(("fresh apple", "maybe")), "yes", "1 malformed"),
        (written(("hquestion1001x of1001x kind1001x", "no")), "no", "1 held out"),
        (written(("Well, HQUESTION1001X of1001x, kind1001x!", "no")), "no", "1 held out"),
        (written(("tquestion1x of1x kind1x", "no")), "no", "1 not new"),
        (written(("fresh apple", "yes")), "no", "1 examiner disagrees with itself"),
        (written(("fresh apple", "yes")), "mumble", "1 examiner disagrees with itself"),
    ],
)
async def test_what_a_written_exam_lacks_is_sampled_and_said(tmp_path: Path, reply: str, solved: str, why: str) -> None:
    async with seated(tmp_path, examiner(reply, solved)) as here:
        exam, notice = await exam_of(here)
    assert {problem.id[0] for problem in exam.problems} == {"t"}
    assert len(exam.problems) == 3
    assert "0 written problems passed the checks" in notice
    assert why in notice
    assert "3 were sampled from train" in notice


async def test_the_examiner_must_agree_with_itself_every_time(tmp_path: Path) -> None:
    def reply(request: ChatRequest) -> str:
        if request.purpose == "set_exam":
            return written(("fresh apple", "yes"))
        return "no" if request.path.sample == 2 else "yes"

    task = small_task(labels=(), positive=None, grader="exact")
    async with seated(tmp_path, reply, task=task) as here:
        exam, notice = await exam_of(here, 1)
    assert "1 examiner disagrees with itself" in notice
    assert exam.problems[0].id[0] == "t"


async def test_a_check_that_gave_up_is_no_disagreement(tmp_path: Path) -> None:
    def reply(request: ChatRequest) -> Reply:
        if request.purpose == "set_exam":
            return Reply(written(("fresh apple", "yes"), ("fresh pear", "no")))
        if request.path.sample == 1:
            return Reply("", "failed", error="gave up")
        return Reply("yes")

    async with seated(tmp_path, reply, limits=Limits(failed=0.5)) as here:
        _, notice = await exam_of(here, 2)
    assert "1 not checked, since calls gave up" in notice
    assert "1 examiner disagrees with itself" in notice


@pytest.mark.parametrize("labels", [(), ("yes", "no")])
async def test_checks_are_not_one_greedy_answer_repeated(tmp_path: Path, labels: tuple[str, ...]) -> None:
    task = small_task(labels=labels, positive=labels[0] if labels else None, grader="labels" if labels else "exact")
    async with seated(tmp_path, examiner(written(("fresh apple", "yes"))), task=task) as here:
        await exam_of(here, 1)
        checks = here.asked("answer")
    assert len(checks) == 3, "three answers, none shared"
    assert len({(r.seed, r.sampling) for r in checks}) == 3


@pytest.mark.parametrize("temperature", [0.0, 0.4])
async def test_the_drawn_checks_of_a_problem_have_consecutive_seeds(tmp_path: Path, temperature: float) -> None:
    drawing = {"answer": SamplingSpec(temperature=temperature)}
    seats = [replace(s, sampling=drawing) for s in seats_for([("teacher", "teacher"), ("ann", "student")], tmp_path)]
    async with seated(tmp_path, lambda request: "yes", classroom=star("ann"), seats=seats) as here:
        examiner, problems = here.room.examiner, here.room.task.train[:3]
        paths = [CallPath(1, "set_exam/check", "", sample=sample) for sample in range(4)]
        checks = [examiner.solve(path, problems, here.room.choices) for path in paths]
    for of_one in zip(*checks, strict=True):
        drawn = [request for request in of_one if request.sampling.temperature]
        assert len(drawn) == (4 if temperature else 3)
        assert len({(r.head.digest, r.last, r.sampling) for r in drawn}) == 1, "one prompt, drawn several times"
        assert [(r.seed - drawn[0].seed) % 2**31 for r in drawn] == list(range(len(drawn)))
    assert len({request.seed for request in checks[-1]}) == 3, "each problem has seeds of its own"


async def test_written_problems_are_judged_anew_at_every_check(tmp_path: Path) -> None:
    task = small_task(labels=(), positive=None, grader="rubric", rubric="It is a fruit.")

    def reply(request: ChatRequest) -> str:
        if request.purpose == "set_exam":
            return written(("fresh apple", "fruit"))
        return "Correct." if request.purpose == "judge" else f"fruit, {request.path.sample}"

    async with seated(tmp_path, reply, task=task) as here:
        exam, notice = await exam_of(here, 1)
        judged = here.asked("judge")
    assert [problem.question for problem in exam.problems] == ["fresh apple"]
    assert not notice
    assert len({request.path for request in judged}) == 3


async def test_a_written_problem_that_the_beam_shows_is_not_new(tmp_path: Path) -> None:
    async with seated(tmp_path, examiner(written(("Fresh, apple!", "yes")))) as here:
        beam = [Material((Exemplar("fresh apple", "yes"),))]
        exam = await set_exam(here.room, ExamSpec(problems=1, set_by="written"), 1, here.ctx, beam)
        assert "1 not new" in here.of_kind("notice")[0].data["text"]
        assert exam.problems[0].id[0] == "t"


@pytest.mark.parametrize("set_by", ["sampled", "fixed"])
async def test_what_a_lecture_shows_is_not_examined(tmp_path: Path, set_by: str) -> None:
    task = small_task(train=12)
    lecture = "Learn this:\n" + "\n".join(f"- {p.question} -> {p.answer}" for p in task.train[:8])
    async with seated(tmp_path, lambda r: "yes", task=task) as here:
        spec = ExamSpec(problems=12, set_by=set_by)
        exam = await set_exam(here.room, spec, 1, here.ctx, [material(lecture=lecture)])
        assert "12 problems are asked for, 4 that no exemplar shows" in here.of_kind("notice")[0].data["text"]
    assert {problem.id for problem in exam.problems} == {problem.id for problem in task.train[8:]}


async def test_a_fixed_exam_of_more_problems_than_there_are_takes_them_all(tmp_path: Path) -> None:
    async with seated(tmp_path, lambda r: "yes", task=small_task(train=10)) as here:
        exam = await set_exam(here.room, ExamSpec(problems=24, set_by="fixed"), 1, here.ctx)
        assert len(exam.problems) == 10
        assert "24 problems are asked for" in here.of_kind("notice")[0].data["text"]


async def test_train_problems_that_are_nearly_held_out_ones_are_not_examined(tmp_path: Path) -> None:
    task = small_task(train=6)
    twin = Problem("t9", task.held_out[0].question + " !", task.held_out[0].answer)
    async with seated(tmp_path, lambda r: "yes", task=replace(task, train=(*task.train, twin))) as here:
        for set_by in ("sampled", "fixed"):
            exam = await set_exam(here.room, ExamSpec(problems=7, set_by=set_by), 1, here.ctx)
            assert "t9" not in {problem.id for problem in exam.problems}


# --- sitting ----------------------------------------------------------------------------------------------


async def test_nobody_reads_anyone_elses_notes_or_answers(tmp_path: Path) -> None:
    async with seated(tmp_path, lambda r: f"yes, says {r.path.agent}") as here:
        exam = await set_exam(here.room, ExamSpec(problems=4), 1, here.ctx)
        sittings = await examine(here.room, exam, material(), taught(here), here.ctx)
        assert [sitting.who for sitting in sittings] == ["ann", "bob"]
        for request in here.asked("answer"):
            other = {"ann": "bob", "bob": "ann"}[request.path.agent]
            assert f"for {request.path.agent} only" in prompt(request)
            assert other not in prompt(request)
            assert "says" not in prompt(request)


async def test_an_exams_prompts_share_one_head_and_differ_in_the_item(tmp_path: Path) -> None:
    async with seated(tmp_path, lambda r: "yes") as here:
        exam = await set_exam(here.room, ExamSpec(problems=4), 1, here.ctx)
        await examine(here.room, exam, material(), taught(here), here.ctx)
        asked = here.asked("answer", "ann")
    assert len({id(request.head) for request in asked}) == 1
    assert [request.last for request in asked] == [problem.question for problem in exam.problems]


async def test_sittings_are_in_seat_order_whoever_is_first(tmp_path: Path) -> None:
    async with seated(tmp_path, lambda r: "yes") as here:
        exam = await set_exam(here.room, ExamSpec(problems=2), 1, here.ctx)

        async def bob_first() -> AsyncIterator[tuple[str, Notes]]:
            yield "bob", Notes()
            yield "ann", Notes()

        sittings = await examine(here.room, exam, material(), bob_first(), here.ctx)
    assert [sitting.who for sitting in sittings] == ["ann", "bob"]


async def test_every_outcome_is_counted_and_told(tmp_path: Path) -> None:
    replies = {
        "t0": Reply("yes"),
        "t1": Reply("yes"),
        "t2": Reply("I like cake"),
        "t3": Reply("let me think about", "length"),
        "t4": Reply("", "failed", error="gave up"),
        "t5": Reply("No."),
    }
    async with seated(tmp_path, lambda r: replies[r.path.item], limits=Limits(failed=0.5)) as here:
        exam = Exam(1, here.room.task.train[:6], "fixed")
        ann, _ = await examine(here.room, exam, material(), taught(here), here.ctx)
        told = here.of_kind("grades")
    assert ann.outcomes == {"correct": 2, "wrong": 1, "invalid": 1, "truncated": 1, "failed": 1}
    assert ann.n == 5
    assert ann.accuracy == pytest.approx(2 / 5)
    assert [event.path for event in told] == [f"r1/{material().id}/grades/{name}" for name in ("ann", "bob")]
    assert told[0].data["outcomes"] == "cwitfc"
    assert told[0].data["read_from"] == ["text", "text", "", "", "", "text"]


async def test_an_exam_of_calls_that_gave_up_is_no_exam(tmp_path: Path) -> None:
    async with seated(tmp_path, lambda r: Reply("", "failed", error="no server")) as here:
        exam = await set_exam(here.room, ExamSpec(problems=4), 1, here.ctx)
        with pytest.raises(CallsFailed, match="no server"):
            await examine(here.room, exam, material(), taught(here), here.ctx)


def test_accuracy_of_nothing_is_unknown() -> None:
    nobody = Sitting("ann", problems("t", 2), (Grade("failed"), Grade("failed")))
    assert nobody.n == 0
    assert nobody.accuracy is None


async def test_certainty_is_the_right_labels_share_among_the_labels(tmp_path: Path) -> None:
    logprobs = {
        "t0": (math.log(0.6), math.log(0.2)),
        "t1": (math.log(0.6), math.log(0.2)),
        "t2": (None, math.log(0.2)),
        "t3": None,
        "t4": (None, None),
    }
    async with seated(tmp_path, lambda r: Reply("yes", choice_logprobs=logprobs[r.path.item])) as here:
        ann = here.room.students["ann"]
        sitting = await sit(here.room, ann, ann.head(), PATH, here.room.task.train[:5])
    assert sitting.certainty == (pytest.approx(0.75), pytest.approx(0.25), 0.0, None, None)
    assert [grade.read_from for grade in sitting.grades] == ["logprobs"] * 3 + ["text"] * 2


async def test_students_are_told_the_labels_to_choose_from(tmp_path: Path) -> None:
    async with seated(tmp_path, lambda r: rightly(small_task())[r.last]) as here:
        exam = await set_exam(here.room, ExamSpec(problems=8), 1, here.ctx)
        sittings = await examine(here.room, exam, material(), taught(here), here.ctx)
        assert {request.choices for request in here.asked("answer")} == {LABELS}
    assert [sitting.accuracy for sitting in sittings] == [1.0, 1.0]


async def test_what_the_students_were_shown_is_not_asked(tmp_path: Path) -> None:
    async with seated(tmp_path, silent) as here:
        shown = here.room.task.train[:4]
        beam = [Material(tuple(Exemplar(p.question, p.answer, None, p.id) for p in shown))]
        everything = len(here.room.task.train)
        for spec in (ExamSpec(problems=everything), ExamSpec(problems=everything, set_by="fixed")):
            exam = await set_exam(here.room, spec, 1, here.ctx, beam)
            assert len(exam.problems) == everything - 4
            assert not {p.id for p in exam.problems} & {p.id for p in shown}


async def test_a_problem_of_no_known_kind_says_so(tmp_path: Path) -> None:
    train = tuple(replace(problem, family=None) for problem in problems("t", 6))
    async with seated(tmp_path, silent, task=small_task(train=6, held_out=8)) as here:
        room = replace(here.room, task=replace(here.room.task, train=train))
        await set_exam(room, ExamSpec(problems=3), 1, here.ctx)
        assert here.of_kind("exam")[0].data["families"] == [""] * 3


async def test_seats_of_one_agent_and_persona_that_heard_the_same_are_sent_the_same_exam(tmp_path: Path) -> None:
    """The built-in templates never say a seat's own name: greedy language models are clones without more ado."""
    async with seated(tmp_path, lambda request: "yes") as here:
        exam = await set_exam(here.room, ExamSpec(problems=4), 1, here.ctx)
        lesson = teach(here.room, material(), LessonSpec(), 1, here.ctx)
        await examine(here.room, exam, material(), lesson, here.ctx)
    with LedgerReader(tmp_path) as ledger:
        sent = {
            name: {c.item: (c.head_turns, c.last, c.key) for c in ledger.calls() if c.agent == name}
            for name in ("ann", "bob")
        }
    assert len(sent["ann"]) == 4
    assert sent["ann"] == sent["bob"]
