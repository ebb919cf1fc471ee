"""Who hears whom, over random classrooms: words travel along edges only, and not before they can have arrived.

Everybody marks all that it writes with a token of its own and (a parrot) repeats every token that it has read, so
that a leak anywhere spreads as far as it can. What may have reached whom is worked out here from the graph alone.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rooms import material, prompt, seated, seats_for, small_task

from lbt_sim.classroom import Classroom
from lbt_sim.classroom.checks import check
from lbt_sim.errors import ClassroomError
from lbt_sim.exam import Sitting, examine, set_exam
from lbt_sim.lesson import teach
from lbt_sim.models.base import ChatRequest
from lbt_sim.roles.values import Material, Notes
from lbt_sim.scenario.schema import DiscussionSpec, ExamSpec, LessonSpec, NotesSpec

TOKEN = re.compile(r"<[^<>]+>")
EXEMPLAR = re.compile(r"xexemplar\d+x")


def token(request: ChatRequest) -> str:
    path = request.path
    return f"<{request.purpose}.{path.agent}.{path.sample}.{path.item}>"


def tokens(text: str) -> set[str]:
    return {*TOKEN.findall(text), *EXEMPLAR.findall(text)}


@dataclass(frozen=True)
class World:
    """A random classroom with a random lesson."""

    classroom: Classroom
    lesson: LessonSpec
    parrot: bool
    notes: NotesSpec
    lecture: bool


@st.composite
def worlds(draw: st.DrawFn) -> World:
    teachers = [f"t{n}" for n in range(draw(st.integers(1, 3)))]
    assistants = [f"a{n}" for n in range(draw(st.integers(0, 3)))]
    students = [f"s{n}" for n in range(draw(st.integers(1, 6)))]
    seats = [*((t, "teacher") for t in teachers), *((a, "assistant") for a in assistants)]
    seats += [(s, "student") for s in students]
    edges: list[tuple[str, str, str]] = []
    edges += [(t, p, "teaches") for t in teachers for p in (*assistants, *students) if draw(st.booleans())]
    edges += [(a, s, "assists") for a in assistants for s in students if draw(st.booleans())]
    edges += [(a, b, "assists") for i, a in enumerate(assistants) for b in assistants[i + 1 :] if draw(st.booleans())]
    talkers = (*assistants, *students)
    edges += [(a, b, "discusses") for a in talkers for b in talkers if a != b and draw(st.integers(0, 2)) == 0]
    for deaf in assistants:
        if not any(hearer == deaf and kind != "discusses" for _, hearer, kind in edges):
            edges.append((teachers[0], deaf, "teaches"))
    classroom = Classroom.from_edges(seats, edges)
    for name in students:  # whoever cannot be reached is taught directly
        if not classroom.could_know(name) & set(teachers):
            edges.append((draw(st.sampled_from(teachers)), name, "teaches"))
            classroom = Classroom.from_edges(seats, edges)
    check(classroom)
    talk = DiscussionSpec(
        turns=draw(st.integers(0, 3)),
        mode=draw(st.sampled_from(["talk", "recite"])),
        recite=draw(st.integers(1, 2)),
    )
    dealt = ["shared", "split"] + (["jigsaw"] if any(len(g) > 1 for g in classroom.groups()) else [])
    lesson = LessonSpec(
        questions=draw(st.integers(0, 2)),
        discussion=talk,
        material=draw(st.sampled_from(dealt)),
        assistants=draw(st.sampled_from(["relay", "reword"])),
    )
    notes = draw(st.sampled_from([NotesSpec(), NotesSpec(), NotesSpec(keep="summary"), NotesSpec(keep="last", last=2)]))
    return World(classroom, lesson, draw(st.booleans()), notes, draw(st.integers(0, 3)) == 0)


@dataclass
class Happened:
    requests: list[ChatRequest]
    notes: dict[str, Notes]
    sittings: tuple[Sitting, ...]
    taught: Material
    held_out: list[str]


async def hold(world: World, folder: Path) -> Happened:
    """The lesson and the exam of a world, with parrots in it."""

    def reply(request: ChatRequest) -> str:
        if request.purpose == "answer":
            return f"<exam.{request.path.agent}.{request.path.item}>"
        echoed = "".join(sorted(tokens(prompt(request)))) if world.parrot else ""
        return token(request) + echoed

    room_seats = seats_for([(seat.name, seat.role) for seat in world.classroom.seats], folder)
    room_seats = [
        replace(seat, agent=seat.agent.model_copy(update={"notes": world.notes})) if seat.role == "student" else seat
        for seat in room_seats
    ]
    taught = material(6, lecture="<lecture>") if world.lecture else material(6)
    task = small_task()
    async with seated(folder, reply, classroom=world.classroom, seats=room_seats, task=task) as here:
        exam = await set_exam(here.room, ExamSpec(problems=3), 1, here.ctx)
        notes: dict[str, Notes] = {}

        async def kept():
            async for name, heard in teach(here.room, taught, world.lesson, 1, here.ctx):
                notes[name] = heard
                yield name, heard

        sittings = await examine(here.room, exam, taught, kept(), here.ctx)
        return Happened(here.model.requests, notes, sittings, taught, [p.question for p in task.held_out])


class Reference:
    """What everybody may have heard, worked out from the graph, turn by turn, apart from `lbt_sim.lesson`."""

    def __init__(self, world: World, taught: Material) -> None:
        self.world = world
        self.room = world.classroom
        self.all_material = tokens(taught.lecture or "") | {e.question for e in taught.exemplars}
        self.dealt = {
            student: taught.exemplars[place :: len(group)]
            for group in self.room.groups()
            for place, student in enumerate(group)
        }
        """Each student's part in a jigsaw lesson."""
        self.parts = self._parts(taught)
        self.at_start: dict[str, set[str]] = {}
        for name in self.room.relay_order():
            if self.room.role_of(name) == "assistant":
                self.at_start[name] = self._presented_to(name)
        for name in self.room.by_role("student"):
            self.at_start[name] = self._presented_to(name)

    def _parts(self, taught: Material) -> dict[tuple[str, str], set[str]]:
        """(teacher, pupil) -> the material that the pupil is told."""
        teachers = self.room.by_role("teacher")
        told: dict[tuple[str, str], set[str]] = {}
        for index, teacher in enumerate(teachers):
            for pupil in self.room.pupils_of(teacher):
                shown = taught.exemplars
                if self.world.lesson.material == "split":
                    shown = shown[index :: len(teachers)]
                if self.world.lesson.material == "jigsaw" and pupil in self.dealt:
                    shown = self.dealt[pupil]
                told[teacher, pupil] = {e.question for e in shown} | tokens(taught.lecture or "")
        return told

    def _presented_to(self, name: str) -> set[str]:
        heard: set[str] = set()
        for speaker in self.room.teachers_of(name):
            if self.room.role_of(speaker) == "teacher":
                heard |= self.parts[speaker, name]
            elif self.world.lesson.assistants == "relay":
                dealt = self.dealt.get(name) if self.world.lesson.material == "jigsaw" else None
                mine = self.all_material if dealt is None else {e.question for e in dealt}
                heard |= {word for word in self.at_start[speaker] if not EXEMPLAR.fullmatch(word) or word in mine}
            else:
                heard |= {f"<pass_on.{speaker}.0.>"} | (self.at_start[speaker] if self.world.parrot else set())
        return heard

    def may_know(self) -> dict[tuple[str, int], set[str]]:
        """(name, turn) -> what may stand in its prompt when it speaks for the turn-th time, or after the last turn."""
        lesson, room = self.world.lesson, self.room
        names = (*room.by_role("assistant"), *room.by_role("student"))
        known: dict[tuple[str, int], set[str]] = {}
        for name in names:
            known[name, 0] = set(self.at_start[name])
            above = room.teachers_of(name)
            if room.role_of(name) == "student" and above:
                for number in range(lesson.questions):
                    asked = above[number % len(above)]
                    known[name, 0] |= {f"<ask.{name}.{number}.>", f"<reply.{asked}.{number}.{name}>"}
                    if self.world.parrot:  # a teacher has all of it in mind, an assistant what it was told
                        known[name, 0] |= (
                            self.all_material if room.role_of(asked) == "teacher" else self.at_start[asked]
                        )
        for turn in range(lesson.discussion.turns):
            for name in names:
                more = known[name, turn] | self._said(name, turn, known[name, turn])
                for peer in room.peers_heard_by(name):
                    more = more | self._said(peer, turn, known[peer, turn])
                known[name, turn + 1] = more
        return known

    def _said(self, name: str, turn: int, known: set[str]) -> set[str]:
        if not self.room.peers_hearing(name):
            return set()
        if self.world.lesson.discussion.mode == "recite":
            return {word for word in known if EXEMPLAR.fullmatch(word)}
        return {f"<discuss.{name}.{turn}.>"} | (known if self.world.parrot else set())


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(worlds())
def test_words_travel_along_edges_and_no_faster_and_nothing_passes_in_the_exam(world: World) -> None:
    with tempfile.TemporaryDirectory() as folder:
        happened = asyncio.run(hold(world, Path(folder)))
    reference = Reference(world, happened.taught)
    known = reference.may_know()
    for request in happened.requests:
        name, text = request.path.agent, prompt(request)
        reachable = {*world.classroom.could_know(name, questions=True), name}
        assert {word.strip("<>").split(".")[1] for word in TOKEN.findall(text) if "." in word} <= reachable
        assert tokens(text) <= _may_hold(request, world, reference, known), request.path
        assert "<exam." not in text, "an exam answer left the exam"
        assert not any(question in text for question in happened.held_out)
        if request.purpose == "answer":
            notes = happened.notes[name]
            before = " ".join([u.text for u in notes.heard] + [e.question for e in notes.exemplars])
            assert tokens(text) <= tokens(before), "an exam prompt holds what is not in the notes"
            assert request.last.startswith("tquestion")


def _may_hold(
    request: ChatRequest, world: World, reference: Reference, known: dict[tuple[str, int], set[str]]
) -> set[str]:
    """The tokens that a prompt may hold at most."""
    name, number, pupil = request.path.agent, request.path.sample, request.path.item
    if request.purpose == "reply":
        asked = {f"<ask.{pupil}.{number}.>"} | (known[pupil, 0] if world.parrot else set())
        is_teacher = world.classroom.role_of(name) == "teacher"
        return asked | (reference.all_material if is_teacher else reference.at_start[name])
    if request.purpose == "pass_on":
        return reference.at_start[name]
    if request.purpose == "ask":
        return known[name, 0]
    if request.purpose == "discuss":
        return known[name, number]
    return known[name, world.lesson.discussion.turns] | {f"<summarise.{name}.0.>"}


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(worlds())
def test_whoever_keeps_all_notes_knows_all_that_could_reach_it(world: World) -> None:
    """The other side: hearing is complete, so the checks above do not pass because nobody hears anything."""
    talk = world.lesson.discussion.model_copy(update={"mode": "talk"})
    world = replace(
        world,
        parrot=True,
        notes=NotesSpec(),
        lesson=world.lesson.model_copy(update={"discussion": talk}),
    )
    with tempfile.TemporaryDirectory() as folder:
        happened = asyncio.run(hold(world, Path(folder)))
    known = Reference(world, happened.taught).may_know()
    for name, notes in happened.notes.items():
        had = tokens(" ".join([u.text for u in notes.heard] + [e.question for e in notes.exemplars]))
        assert had == known[name, world.lesson.discussion.turns], name


def test_the_random_classrooms_are_not_all_alike() -> None:
    found: set[str] = set()

    @settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(worlds())
    def look(world: World) -> None:
        room = world.classroom
        found.add(world.lesson.material)
        found.add(world.lesson.assistants if room.by_role("assistant") else "no assistants")
        found.add(world.lesson.discussion.mode)
        if len(room.by_role("teacher")) > 1:
            found.add("teachers")
        if any(not room.teachers_of(name) for name in room.by_role("student")):
            found.add("taught by peers alone")
        if any(room.peers_hearing(name) for name in room.by_role("assistant")):
            found.add("assistants who talk")

    look()
    assert found >= {"shared", "split", "jigsaw", "relay", "reword", "no assistants", "talk", "recite", "teachers"}
    assert found >= {"taught by peers alone", "assistants who talk"}


@pytest.mark.parametrize("mode", ["talk", "recite"])
async def test_d_turns_carry_words_at_most_d_hops(tmp_path: Path, mode: str) -> None:
    names = [f"s{n}" for n in range(6)]
    edges = [("t", "s0", "teaches")]
    edges += [pair for a, b in itertools.pairwise(names) for pair in ((a, b, "discusses"), (b, a, "discusses"))]
    line = Classroom.from_edges([("t", "teacher"), *((n, "student") for n in names)], edges)

    def parrot(request: ChatRequest) -> str:
        return " ".join(sorted(tokens(prompt(request)))) or "nothing"

    for turns in range(5):
        folder = tmp_path / str(turns)
        folder.mkdir()
        lesson = LessonSpec(discussion=DiscussionSpec(turns=turns, mode=mode, recite=9))
        async with seated(folder, parrot, classroom=line) as here:
            notes = {name: kept async for name, kept in teach(here.room, material(2), lesson, 1, here.ctx)}
        reached = {
            name
            for name, kept in notes.items()
            if tokens(" ".join([u.text for u in kept.heard] + [e.question for e in kept.exemplars])) & {"xexemplar0x"}
        }
        assert reached == set(names[: turns + 1])


def test_an_unreachable_student_is_refused() -> None:
    with pytest.raises(ClassroomError, match="s1"):
        check(Classroom.from_edges([("t", "teacher"), ("s0", "student"), ("s1", "student")], [("t", "s0", "teaches")]))
