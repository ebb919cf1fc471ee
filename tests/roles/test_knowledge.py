"""Knowledge: of the worked examples that someone hears a share stays, and none of some families."""

from __future__ import annotations

import asyncio
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rooms import below, prepared, prompt, seated, seats_for, small_task, star
from test_hearing import World, worlds

from lbt_sim.classroom import Classroom
from lbt_sim.errors import InputError
from lbt_sim.exam import examine, set_exam
from lbt_sim.ledger import LedgerReader, StoredCall
from lbt_sim.lesson import teach
from lbt_sim.models.base import ChatRequest
from lbt_sim.preview import preview
from lbt_sim.roles.knowledge import Knowledge, families_of
from lbt_sim.roles.values import Material, Utterance
from lbt_sim.scenario.schema import DiscussionSpec, ExamSpec, KnowledgeSpec, LessonSpec, NotesSpec, TraitsSpec
from lbt_sim.seeds import Seeds
from lbt_sim.tasks.base import Exemplar

TASK = small_task()
EXEMPLAR = re.compile(r"xexemplar\d+x")
TAUGHT = Material(tuple(Exemplar(f"xexemplar{n}x", ("yes", "no")[n % 2], None, f"t{n}") for n in range(9)))
"""Nine exemplars; the n-th is of family n % 3."""


def knowledge(who: str = "ann", seed: int = 0, **spec: Any) -> Knowledge:
    return Knowledge(KnowledgeSpec(**spec), who, Seeds(seed), families_of(TASK))


def kept(mind: Knowledge, count: int = 1000) -> set[str]:
    return {question for question in (f"question {n}" for n in range(count)) if mind.keeps(question)}


def seen(request: ChatRequest) -> set[str]:
    return set(EXEMPLAR.findall(prompt(request)))


# --- which ones stay ----------------------------------------------------------------------------------------


def test_a_share_stays_drawn_by_seed_and_name_and_question() -> None:
    ann = kept(knowledge(share=0.3))
    assert 250 < len(ann) < 350
    assert ann == kept(knowledge(share=0.3))
    assert ann != kept(knowledge("bob", share=0.3))
    assert ann != kept(knowledge(seed=1, share=0.3))


def test_who_keeps_less_keeps_a_part_of_what_it_would_keep_otherwise() -> None:
    shares = [kept(knowledge(share=share)) for share in (0.0, 0.2, 0.7, 1.0)]
    assert shares[0] == set()
    assert shares[1] < shares[2] < shares[3]
    assert len(shares[3]) == 1000


def test_white_space_and_signs_make_no_other_example() -> None:
    mind = knowledge(share=0.5)
    assert all(mind.keeps(f"question {n}") == mind.keeps(f" Question   {n}!") for n in range(50))


def test_families_are_known_by_the_source_and_by_the_text() -> None:
    mind = knowledge(without=["family1"])
    problem = TASK.train[4]
    assert problem.family == "family1"
    assert not mind.keeps("in other words", problem.id)
    assert not mind.keeps(problem.question), "a teacher who writes it down anew makes no other problem of it"
    assert mind.keeps("in other words", TASK.train[3].id)
    assert mind.keeps("what a teacher made up")


# --- what it takes from what is said --------------------------------------------------------------------------


def test_what_is_lost_is_lost_in_words_too() -> None:
    mind = knowledge(without=["family1"])
    text = "Mind this.\n- xexemplar0x -> yes\n- tquestion4x of4x kind4x -> yes\nI recall xexemplar1x well.\nSo be it."
    (heard,) = mind.of([Utterance("bob", ("ann",), "discusses", text, TAUGHT.exemplars[:3])], TAUGHT.exemplars)
    assert heard.text == "Mind this.\n- xexemplar0x -> yes\nSo be it."
    assert [e.question for e in heard.exemplars] == ["xexemplar0x", "xexemplar2x"]


def test_a_lost_question_of_several_lines_takes_what_was_said_with_it() -> None:
    taught = (Exemplar("one line\nand another", "yes", None, "t1"),)
    mind = knowledge(without=["family1"])
    (heard,) = mind.of([Utterance("bob", ("ann",), "discusses", "You asked: one line\nand another\nyes")], taught)
    assert heard.text == ""


def test_what_stays_is_heard_as_it_was_said() -> None:
    said = Utterance("bob", ("ann",), "discusses", "  as it was\n\nsaid \n", TAUGHT.exemplars)
    assert knowledge(share=1.0).of([said], TAUGHT.exemplars) == (said,)


# --- in the room ----------------------------------------------------------------------------------------------


async def exam_prompts(folder: Path, **seat: Any) -> list[tuple[str, set[str]]]:
    """Who saw which exemplars in its exam, by student, over two rounds."""
    traits, knows = TraitsSpec(mind=seat.pop("mind", None)), KnowledgeSpec(**seat)
    seats = [
        replace(one, knowledge=knows, traits=traits) if one.role == "student" else one
        for one in seats_for([("teacher", "teacher"), ("ann", "student"), ("bob", "student")], folder)
    ]
    async with seated(folder, lambda request: "yes", classroom=star("ann", "bob"), seats=seats, task=TASK) as here:
        for round_ in (1, 2):
            exam = await set_exam(here.room, ExamSpec(problems=2), round_, here.ctx)
            await examine(here.room, exam, TAUGHT, teach(here.room, TAUGHT, LessonSpec(), round_, here.ctx), here.ctx)
        return [(request.path.agent, seen(request)) for request in here.asked("answer")]


async def test_the_same_examples_stay_in_every_round(tmp_path: Path) -> None:
    saw = await exam_prompts(tmp_path, share=0.5)
    ann = {frozenset(found) for who, found in saw if who == "ann"}
    bob = {frozenset(found) for who, found in saw if who == "bob"}
    assert (len(ann), len(bob)) == (1, 1)
    assert ann != bob
    assert 0 < len(next(iter(ann))) < 9


async def test_those_who_share_a_mind_keep_the_same(tmp_path: Path) -> None:
    saw = await exam_prompts(tmp_path, share=0.5, mind="one")
    assert len({frozenset(found) for _, found in saw}) == 1


async def test_a_family_that_does_not_stay_is_in_no_exam(tmp_path: Path) -> None:
    saw = await exam_prompts(tmp_path, without=["family0", "family2"])
    assert all(found == {"xexemplar1x", "xexemplar4x", "xexemplar7x"} for _, found in saw)


def recalling(request: ChatRequest) -> str:
    """Says all that it has read, as an example and in a sentence of its own."""
    if request.purpose == "answer":
        return "yes"
    return "".join(f"- {word} -> yes\nThen there is {word}.\n" for word in sorted(seen(request))) + "That is all."


async def hold(world: World, spec: KnowledgeSpec | None, folder: Path) -> list[StoredCall]:
    """Every call of a lesson and an exam, be it answered with another's reply; all but the teachers know so much."""
    seats = [
        replace(seat, knowledge=spec, agent=seat.agent.model_copy(update={"notes": world.notes}))
        if seat.role == "student"
        else replace(seat, knowledge=spec if seat.role == "assistant" else None)
        for seat in seats_for([(seat.name, seat.role) for seat in world.classroom.seats], folder)
    ]
    async with seated(folder, recalling, classroom=world.classroom, seats=seats, task=TASK) as here:
        exam = await set_exam(here.room, ExamSpec(problems=2), 1, here.ctx)
        await examine(here.room, exam, TAUGHT, teach(here.room, TAUGHT, world.lesson, 1, here.ctx), here.ctx)
    with LedgerReader(folder) as ledger:
        return list(ledger.calls())


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(worlds(), st.sampled_from([0.0, 0.4, 1.0]), st.sampled_from([[], ["family1"], ["family0", "family2"]]))
def test_what_does_not_stay_is_in_no_prompt_whatever_is_said(world: World, share: float, without: list[str]) -> None:
    spec = KnowledgeSpec(share=share, without=without)
    with tempfile.TemporaryDirectory() as folder:
        calls = asyncio.run(hold(world, spec, Path(folder)))
    lost = {number for number in range(9) if f"family{number % 3}" in without}
    sources = {e.question: e.source for e in TAUGHT.exemplars}
    assert calls
    for call in calls:
        if world.classroom.role_of(call.agent) == "teacher":
            continue
        found = set(EXEMPLAR.findall(call.head_turns + call.last))
        assert not found & {f"xexemplar{number}x" for number in lost}
        mind = knowledge(call.agent, share=share, without=without)
        assert all(mind.keeps(question, sources[question]) for question in found), call.path


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(worlds())
def test_who_keeps_all_is_asked_what_it_would_be_asked_without_saying_so(world: World) -> None:
    world = replace(world, notes=NotesSpec(keep="last", last=2))
    with tempfile.TemporaryDirectory() as folder:
        whole = asyncio.run(hold(world, KnowledgeSpec(), below(Path(folder), "a")))
        plain = asyncio.run(hold(world, None, below(Path(folder), "b")))
    asked, otherwise = ({call.path: (call.head_turns, call.last) for call in calls} for calls in (whole, plain))
    assert asked == otherwise


@pytest.mark.parametrize("mode", ["talk", "recite"])
async def test_a_peer_who_knows_it_cannot_tell_it(tmp_path: Path, mode: Any) -> None:
    """Ann keeps all and tells it three times; nothing of it stays with bob, and cyd hears none from him."""
    edges = [("teacher", "ann", "teaches"), ("ann", "bob", "discusses"), ("bob", "cyd", "discusses")]
    names = ("ann", "bob", "cyd")
    line = Classroom.from_edges([("teacher", "teacher"), *((name, "student") for name in names)], edges)
    talk = LessonSpec(discussion=DiscussionSpec(turns=3, mode=mode, recite=9))
    knows = {"bob": KnowledgeSpec(without=["family0", "family1"])}
    seats = seats_for([(seat.name, seat.role) for seat in line.seats], tmp_path)
    seats = [replace(seat, knowledge=knows.get(seat.name)) for seat in seats]
    async with seated(tmp_path, recalling, classroom=line, seats=seats, task=TASK) as here:
        notes = {name: kept async for name, kept in teach(here.room, TAUGHT, talk, 1, here.ctx)}
    had = {
        name: set(EXEMPLAR.findall(" ".join([*(u.text for u in kept.heard), *(e.question for e in kept.exemplars)])))
        for name, kept in notes.items()
    }
    assert had["ann"] == {f"xexemplar{number}x" for number in range(9)}
    assert had["bob"] == had["cyd"] == {"xexemplar2x", "xexemplar5x", "xexemplar8x"}


# --- in a scenario ----------------------------------------------------------------------------------------------


def cast(role: str, **spec: Any) -> dict[str, Any]:
    seat = {"knowledge": spec}
    students: list[dict[str, Any]] = [{"name": "ann"}, {"name": "bob"}]
    if role == "students":
        students[1] |= seat
        return {"students": students}
    return {"students": students, role: [seat] if role == "assistants" else seat}


@pytest.mark.parametrize("role", ["teacher", "examiner"])
def test_those_who_hear_no_lesson_have_no_knowledge_of_it(tmp_path: Path, role: str) -> None:
    with pytest.raises(InputError, match=f"the {role} hears none") as caught:
        prepared(tmp_path, cast=cast(role, share=0.5))
    assert caught.value.where is not None
    assert caught.value.where.key == f"cast.{role}.knowledge"


@pytest.mark.parametrize("role", ["students", "assistants"])
def test_a_family_that_the_task_has_not_is_refused_with_those_that_it_has(tmp_path: Path, role: str) -> None:
    with pytest.raises(InputError, match="did you mean 'negation'") as caught:
        prepared(tmp_path, cast=cast(role, without=["plain", "negatoin"]), classroom=_room(role))
    assert caught.value.valid == ("expectation", "irony", "mixed", "negation", "plain")
    assert caught.value.where is not None
    assert caught.value.where.key == f"cast.{role}[{int(role == 'students')}].knowledge.without"


def _room(role: str) -> str:
    return "assistants" if role == "assistants" else "star"


async def test_prompts_show_what_stays_and_each_knowledge_once(tmp_path: Path) -> None:
    here = prepared(tmp_path, cast=cast("students", share=0.0))
    answers = {one.agent: one.request for one in await preview(here) if one.use == "answer"}
    assert len(answers["ann"].head.turns) == 1 + 2 * 8
    assert len(answers["bob"].head.turns) == 1
