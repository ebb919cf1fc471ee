"""The lesson: who waits for whom, in which order notes stand, how material is dealt out, and what remains of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rooms import Handler, Seated, below, complete, material, prompt, seated, seats_for, star

from lbt_sim.classroom import Classroom
from lbt_sim.errors import CallsFailed
from lbt_sim.lesson import teach
from lbt_sim.models.base import ChatRequest, Reply
from lbt_sim.roles.values import Material, Notes
from lbt_sim.scenario.schema import DiscussionSpec, LessonSpec, NotesSpec


def talk(turns: int = 1, mode: str = "talk", **lesson: Any) -> LessonSpec:
    return LessonSpec(discussion=DiscussionSpec(turns=turns, mode=mode), **lesson)


async def notes_of(here: Seated, lesson: LessonSpec, taught: Material | None = None) -> dict[str, Notes]:
    return {name: notes async for name, notes in teach(here.room, taught or material(), lesson, 1, here.ctx)}


def who_said_what(notes: Notes) -> list[tuple[str, str]]:
    return [(u.speaker, u.kind) for u in notes.heard]


def keeping(folder: Path, classroom: Classroom, notes: NotesSpec) -> list[Any]:
    seats = seats_for([(seat.name, seat.role) for seat in classroom.seats], folder)
    return [replace(seat, agent=seat.agent.model_copy(update={"notes": notes})) for seat in seats]


# --- waiting ----------------------------------------------------------------------------------------------


async def test_a_slow_student_delays_nobody_whom_it_does_not_feed(tmp_path: Path) -> None:
    room = Classroom.from_edges(
        [("teacher", "teacher"), ("slow", "student"), ("fed", "student"), ("ann", "student"), ("bob", "student")],
        [
            *(("teacher", name, "teaches") for name in ("slow", "fed", "ann", "bob")),
            ("slow", "fed", "discusses"),
            ("ann", "bob", "discusses"),
            ("bob", "ann", "discusses"),
        ],
    )
    awake = asyncio.Event()

    async def reply(request: ChatRequest) -> str:
        if request.path.agent == "slow":
            await awake.wait()
        return f"said by {request.path.agent}"

    async with seated(tmp_path, reply, classroom=room) as here:
        lesson = teach(here.room, material(), talk(2), 1, here.ctx)
        first = [await anext(lesson), await anext(lesson)]
        assert {name for name, _ in first} == {"ann", "bob"}
        awake.set()
        assert {name async for name, _ in lesson} == {"slow", "fed"}


async def test_a_slow_assistant_delays_only_its_own_pupils(tmp_path: Path) -> None:
    room = Classroom.from_edges(
        [("teacher", "teacher"), ("slow", "assistant"), ("quick", "assistant"), ("ann", "student"), ("bob", "student")],
        [
            ("teacher", "slow", "teaches"),
            ("teacher", "quick", "teaches"),
            ("slow", "ann", "assists"),
            ("quick", "bob", "assists"),
        ],
    )
    awake = asyncio.Event()

    async def reply(request: ChatRequest) -> str:
        if request.path.agent == "slow":
            await awake.wait()
        return f"said by {request.path.agent}"

    async with seated(tmp_path, reply, classroom=room) as here:
        lesson = teach(here.room, material(), LessonSpec(assistants="reword"), 1, here.ctx)
        name, notes = await anext(lesson)
        assert name == "bob"
        assert [u.text for u in notes.heard] == ["said by quick"]
        awake.set()
        assert [name async for name, _ in lesson] == ["ann"]


@pytest.mark.parametrize("last", ["ann", "bob", "eve"])
async def test_the_order_of_notes_does_not_depend_on_who_answers_first(tmp_path: Path, last: str) -> None:
    others: set[str] = set()
    done = asyncio.Event()

    async def reply(request: ChatRequest) -> str:
        if request.purpose == "discuss" and request.path.sample == 0:
            if request.path.agent == last:
                await done.wait()
            else:
                others.add(request.path.agent)
                if len(others) == 2:
                    done.set()
        return f"{request.purpose} {request.path.agent} {request.path.sample}"

    async with seated(tmp_path, reply, classroom=complete("ann", "bob", "eve")) as here:
        notes = await notes_of(here, talk(2, questions=1))
    assert who_said_what(notes["bob"]) == [
        ("teacher", "teaches"),
        ("bob", "question"),
        ("teacher", "answer"),
        ("bob", "discusses"),
        ("ann", "discusses"),
        ("eve", "discusses"),
        ("bob", "discusses"),
        ("ann", "discusses"),
        ("eve", "discusses"),
    ]


async def test_ending_a_lesson_early_leaves_no_tasks(tmp_path: Path) -> None:
    never = asyncio.Event()

    async def reply(request: ChatRequest) -> str:
        if request.path.agent != "ann":
            await never.wait()
        return "words"

    room = Classroom.from_edges(
        [("teacher", "teacher"), ("helper", "assistant"), ("ann", "student"), ("bob", "student"), ("eve", "student")],
        [
            ("teacher", "helper", "teaches"),
            ("teacher", "ann", "teaches"),
            ("teacher", "bob", "teaches"),
            ("helper", "eve", "assists"),
        ],
    )
    async with seated(tmp_path, reply, classroom=room) as here:
        before = asyncio.all_tasks()
        lesson = teach(here.room, material(), LessonSpec(questions=0, assistants="reword"), 1, here.ctx)
        await anext(lesson)
        await lesson.aclose()
        assert asyncio.all_tasks() == before

        async def whole() -> None:
            await notes_of(here, LessonSpec(questions=1, assistants="reword"))

        running = asyncio.ensure_future(whole())
        for _ in range(20):
            await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert asyncio.all_tasks() == before


@pytest.mark.parametrize("broken", ["ann", "helper"])
async def test_a_call_that_stops_the_run_stops_everyone_who_waits_for_it(tmp_path: Path, broken: str) -> None:
    room = Classroom.from_edges(
        [("teacher", "teacher"), ("helper", "assistant"), ("ann", "student"), ("bob", "student")],
        [
            ("teacher", "helper", "teaches"),
            ("teacher", "ann", "teaches"),
            ("helper", "bob", "assists"),
            *((a, b, "discusses") for a in ("ann", "bob", "helper") for b in ("ann", "bob", "helper") if a != b),
        ],
    )

    def reply(request: ChatRequest) -> Reply:
        failed = request.path.agent == broken and request.purpose == "discuss"
        return Reply("", "failed", error="the server is down", transient=True) if failed else Reply("words")

    async with seated(tmp_path, reply, classroom=room) as here:
        before = asyncio.all_tasks()
        with pytest.raises(CallsFailed, match="the server is down"):
            await asyncio.wait_for(notes_of(here, talk(2)), 20)
        assert asyncio.all_tasks() == before


async def test_one_who_gives_no_answer_for_good_is_silent_and_the_lesson_goes_on(tmp_path: Path) -> None:
    def reply(request: ChatRequest) -> Reply:
        return Reply("", "failed", error="refused") if request.path.agent == "ann" else Reply("words")

    async with seated(tmp_path, reply, classroom=complete("ann", "bob")) as here:
        notes = await notes_of(here, talk(2, questions=1))
    assert not [u for u in notes["bob"].heard if u.speaker == "ann"]
    assert len([u for u in notes["ann"].heard if u.speaker == "bob"]) == 2


# --- dealing out ------------------------------------------------------------------------------------------


def silent(request: ChatRequest) -> str:
    raise AssertionError(f"nobody was to be asked: {request.path}")


def heard_exemplars(notes: Notes) -> list[str]:
    return [exemplar.question for exemplar in notes.exemplars]


async def test_everyone_hears_all_of_shared_material_and_no_model_is_asked(tmp_path: Path) -> None:
    async with seated(tmp_path, silent) as here:
        notes = await notes_of(here, LessonSpec())
    assert heard_exemplars(notes["ann"]) == heard_exemplars(notes["bob"]) == [f"xexemplar{n}x" for n in range(4)]


async def test_with_split_each_teacher_teaches_its_part(tmp_path: Path) -> None:
    room = Classroom.from_edges(
        [("one", "teacher"), ("two", "teacher"), ("ann", "student"), ("bob", "student")],
        [("one", "ann", "teaches"), ("two", "bob", "teaches"), ("one", "bob", "teaches")],
    )
    async with seated(tmp_path, silent, classroom=room) as here:
        notes = await notes_of(here, LessonSpec(material="split"), material(5))
    assert heard_exemplars(notes["ann"]) == ["xexemplar0x", "xexemplar2x", "xexemplar4x"]
    assert heard_exemplars(notes["bob"]) == [*heard_exemplars(notes["ann"]), "xexemplar1x", "xexemplar3x"]


async def test_a_jigsaw_group_has_all_parts_and_each_student_one(tmp_path: Path) -> None:
    names = ("ann", "bob", "eve", "dan")
    groups = [("ann", "bob"), ("eve", "dan")]
    edges = [("teacher", name, "teaches") for name in names]
    edges += [edge for a, b in groups for edge in ((a, b, "discusses"), (b, a, "discusses"))]
    room = Classroom.from_edges([("teacher", "teacher"), *((n, "student") for n in names)], edges)
    async with seated(tmp_path, silent, classroom=room) as here:
        notes = await notes_of(here, LessonSpec(material="jigsaw"), material(5))
    assert (
        heard_exemplars(notes["ann"]) == heard_exemplars(notes["eve"]) == ["xexemplar0x", "xexemplar2x", "xexemplar4x"]
    )
    assert heard_exemplars(notes["bob"]) == heard_exemplars(notes["dan"]) == ["xexemplar1x", "xexemplar3x"]


async def test_each_jigsaw_group_has_all_parts_whatever_its_size_and_whoever_passes_them_on(tmp_path: Path) -> None:
    groups = [("ann", "bob", "eve"), ("dan", "kim")]
    names = [name for group in groups for name in group]
    edges = [("teacher", "aide", "teaches"), *(("aide", name, "assists") for name in names)]
    edges += [(a, b, "discusses") for group in groups for a in group for b in group if a != b]
    seats = [("teacher", "teacher"), ("aide", "assistant"), *((n, "student") for n in names)]
    async with seated(tmp_path, silent, classroom=Classroom.from_edges(seats, edges)) as here:
        notes = await notes_of(here, LessonSpec(material="jigsaw"), material(6))
    for group in groups:
        parts = [heard_exemplars(notes[name]) for name in group]
        assert sorted(e for part in parts for e in part) == [f"xexemplar{n}x" for n in range(6)]
        assert {len(part) for part in parts} == {6 // len(group)}


async def test_reciting_completes_a_jigsaw_without_a_model(tmp_path: Path) -> None:
    async with seated(tmp_path, silent, classroom=complete("ann", "bob")) as here:
        lesson = LessonSpec(discussion=DiscussionSpec(turns=2, mode="recite", recite=3), material="jigsaw")
        notes = await notes_of(here, lesson, material(6))
    assert (
        set(heard_exemplars(notes["ann"])) == set(heard_exemplars(notes["bob"])) == {f"xexemplar{n}x" for n in range(6)}
    )


async def test_nobody_recites_the_same_exemplar_twice(tmp_path: Path) -> None:
    async with seated(tmp_path, silent, classroom=complete("ann", "bob")) as here:
        lesson = LessonSpec(discussion=DiscussionSpec(turns=6, mode="recite", recite=1))
        notes = await notes_of(here, lesson, material(4))
    said = [e.question for u in notes["bob"].heard if u.speaker == "ann" for e in u.exemplars]
    assert sorted(said) == [f"xexemplar{n}x" for n in range(4)]


async def test_a_relay_passes_word_for_word_and_rewording_passes_only_the_words(tmp_path: Path) -> None:
    room = Classroom.from_edges(
        [("teacher", "teacher"), ("first", "assistant"), ("second", "assistant"), ("ann", "student")],
        [("teacher", "first", "teaches"), ("first", "second", "assists"), ("second", "ann", "assists")],
    )
    async with seated(below(tmp_path, "a"), silent, classroom=room) as here:
        relayed = await notes_of(here, LessonSpec())
    assert heard_exemplars(relayed["ann"]) == [f"xexemplar{n}x" for n in range(4)]

    async with seated(below(tmp_path, "b"), lambda r: f"in the words of {r.path.agent}", classroom=room) as here:
        reworded = await notes_of(here, LessonSpec(assistants="reword"))
        asked = here.asked("pass_on")
    assert [(u.speaker, u.text) for u in reworded["ann"].heard] == [("second", "in the words of second")]
    assert not reworded["ann"].exemplars
    assert "xexemplar0x" in prompt(asked[0])
    assert "xexemplar0x" not in prompt(asked[1])
    assert "in the words of first" in prompt(asked[1])


# --- asking and talking -----------------------------------------------------------------------------------


async def test_questions_go_to_several_teachers_in_turn(tmp_path: Path) -> None:
    room = Classroom.from_edges(
        [("one", "teacher"), ("helper", "assistant"), ("ann", "student")],
        [("one", "ann", "teaches"), ("one", "helper", "teaches"), ("helper", "ann", "assists")],
    )
    async with seated(tmp_path, lambda r: f"{r.purpose} {r.path.sample}", classroom=room) as here:
        notes = await notes_of(here, LessonSpec(questions=3))
    answers = [(u.speaker, u.text) for u in notes["ann"].heard if u.kind == "answer"]
    assert answers == [("one", "reply 0"), ("helper", "reply 1"), ("one", "reply 2")]


async def test_a_student_without_a_question_is_not_answered(tmp_path: Path) -> None:
    async with seated(tmp_path, lambda r: "" if r.purpose == "ask" else "words") as here:
        notes = await notes_of(here, LessonSpec(questions=2))
        assert not here.asked("reply")
    assert who_said_what(notes["ann"]) == [("teacher", "teaches")]


async def test_a_question_and_its_answer_are_heard_by_nobody_else(tmp_path: Path) -> None:
    async with seated(tmp_path, lambda r: f"{r.purpose} by {r.path.agent}", classroom=complete("ann", "bob")) as here:
        await notes_of(here, talk(1, questions=1))
        bob = " ".join(prompt(request) for request in here.model.requests if request.path.agent == "bob")
    assert "ask by bob" in bob
    assert "ask by ann" not in bob


async def test_a_student_whom_only_peers_teach_asks_nobody(tmp_path: Path) -> None:
    room = Classroom.from_edges(
        [("teacher", "teacher"), ("ann", "student"), ("bob", "student")],
        [("teacher", "ann", "teaches"), ("ann", "bob", "discusses")],
    )
    async with seated(tmp_path, lambda r: f"{r.purpose} by {r.path.agent}", classroom=room) as here:
        notes = await notes_of(here, talk(1, questions=2))
        assert {request.path.agent for request in here.asked("ask")} == {"ann"}
    assert [u.text for u in notes["bob"].heard] == ["discuss by ann"]


async def test_assistants_who_are_joined_to_students_talk_with_them(tmp_path: Path) -> None:
    room = Classroom.from_edges(
        [("teacher", "teacher"), ("helper", "assistant"), ("ann", "student")],
        [
            ("teacher", "helper", "teaches"),
            ("teacher", "ann", "teaches"),
            ("helper", "ann", "discusses"),
            ("ann", "helper", "discusses"),
        ],
    )
    async with seated(tmp_path, lambda r: f"{r.purpose} by {r.path.agent}", classroom=room) as here:
        notes = await notes_of(here, talk(2))
        second = next(r for r in here.asked("discuss", "helper") if r.path.sample == 1)
    assert list(notes) == ["ann"]
    assert [u.text for u in notes["ann"].heard if u.speaker == "helper"] == ["discuss by helper"] * 2
    assert "discuss by ann" in prompt(second)


# --- notes ------------------------------------------------------------------------------------------------


async def test_notes_keep_the_last_utterances_only(tmp_path: Path) -> None:
    room = complete("ann", "bob")
    seats = keeping(tmp_path, room, NotesSpec(keep="last", last=2))
    async with seated(tmp_path, lambda r: f"turn {r.path.sample}", classroom=room, seats=seats) as here:
        notes = await notes_of(here, talk(3))
    assert [u.text for u in notes["ann"].heard] == ["turn 2", "turn 2"]
    assert not notes["ann"].exemplars


async def test_a_summary_replaces_what_was_said_and_keeps_the_exemplars(tmp_path: Path) -> None:
    room = complete("ann", "bob")
    seats = keeping(tmp_path, room, NotesSpec(keep="summary"))
    async with seated(tmp_path, lambda r: f"{r.purpose} by {r.path.agent}", classroom=room, seats=seats) as here:
        notes = await notes_of(here, talk(1))
        read = prompt(here.asked("summarise", "ann")[0])
    assert "discuss by bob" in read
    assert [remark["text"] for remark in notes["ann"].remarks("ann")] == ["summarise by ann"]
    assert heard_exemplars(notes["ann"]) == [f"xexemplar{n}x" for n in range(4)]


async def test_nothing_said_needs_no_summary(tmp_path: Path) -> None:
    room = star("ann")
    seats = keeping(tmp_path, room, NotesSpec(keep="summary"))
    async with seated(tmp_path, silent, classroom=room, seats=seats) as here:
        notes = await notes_of(here, LessonSpec())
    assert len(notes["ann"].exemplars) == 4


async def test_what_is_said_is_told_with_its_hearers(tmp_path: Path) -> None:
    async with seated(tmp_path, lambda r: f"{r.purpose} by {r.path.agent}", classroom=complete("ann", "bob")) as here:
        await notes_of(here, talk(1, questions=1))
        told = {event.path: event.data for event in here.of_kind("utterance")}
    said = {(data["speaker"], data["kind"], tuple(data["hearers"])) for data in told.values()}
    assert said == {
        ("teacher", "teaches", ("ann", "bob")),
        ("ann", "question", ("teacher",)),
        ("bob", "question", ("teacher",)),
        ("teacher", "answer", ("ann",)),
        ("teacher", "answer", ("bob",)),
        ("ann", "discusses", ("bob",)),
        ("bob", "discusses", ("ann",)),
    }
    assert len(told) == 7


async def test_the_same_seed_asks_the_same_in_the_same_words(tmp_path: Path) -> None:
    async def asked(folder: Path, handler: Handler | Callable[..., Any]) -> set[tuple[Any, ...]]:
        async with seated(folder, handler, classroom=complete("ann", "bob", "eve"), seed=3) as here:
            await notes_of(here, talk(2, questions=1))
            return {(r.path, r.seed, prompt(r)) for r in here.model.requests}

    order: list[int] = []

    async def slow(request: ChatRequest) -> str:
        order.append(1)
        for _ in range(len(order) * 7 % 5):
            await asyncio.sleep(0)
        return f"{request.path}"

    assert await asked(below(tmp_path, "a"), lambda r: f"{r.path}") == await asked(below(tmp_path, "b"), slow)
