"""The lesson: the teacher presents, assistants pass on, students ask, peers talk. Edges decide who hears whom.

Everything said is an `Utterance` with its hearers; a student's notes are the utterances that it heard or said.
There is no barrier: everyone goes on as soon as those whom it hears have spoken.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

from lbt_sim.concurrency import cancelled
from lbt_sim.events import Event
from lbt_sim.models.base import CallPath
from lbt_sim.roles.room import Context, Room
from lbt_sim.roles.student import Student
from lbt_sim.roles.values import Material, Notes, Utterance
from lbt_sim.scenario.schema import LessonSpec
from lbt_sim.tasks.base import Exemplar

__all__ = ["presented", "teach"]

Speech = Mapping[str, Sequence[Utterance]]
"""What someone presented, by hearer: with jigsaw not everyone hears the same."""


async def teach(
    room: Room,
    material: Material,
    spec: LessonSpec,
    round_: int,
    ctx: Context,
    step: str = "lesson",
    asked: dict[tuple[str, int], Utterance] | None = None,
) -> AsyncIterator[tuple[str, Notes]]:
    """Teaches `material`; yields each student with its notes as soon as they are complete.

    Args:
        room: Who is there and who hears whom.
        material: What the teachers teach.
        spec: Questions, discussion, how material is dealt out.
        round_: The round, for the calls' paths.
        ctx: Seeds and events.
        step: The step of the calls' paths; a second lesson on a material in a round needs one of its own.
        asked: Takes the questions that reach a teacher, by (student, number of the question).
    """
    lesson = _Lesson(room, material, spec, round_, ctx, step)
    lesson.asked = {} if asked is None else asked
    if not lesson.needs_words:
        heard = await lesson.present()
        for student in room.students:
            yield student, await room.students[student].keep(lesson.path("summarise"), heard[student])
        return
    tasks = [asyncio.ensure_future(lesson.attend(name)) for name in lesson.talkers]
    try:
        for done in asyncio.as_completed(tasks):
            name, notes = await done
            if name in room.students:
                yield name, notes
    finally:
        await cancelled(tasks)
        await lesson.end()


async def presented(room: Room, material: Material, spec: LessonSpec, ctx: Context) -> dict[str, Notes]:
    """What everyone has heard when the material has been presented and nobody has asked or talked yet."""
    return await _Lesson(room, material, spec, 0, ctx, "lesson").present()


class _Lesson:
    """One lesson. People wait for each other by futures: one for each presentation and for each turn of a talk."""

    def __init__(self, room: Room, material: Material, spec: LessonSpec, round_: int, ctx: Context, step: str) -> None:
        self._room = room
        self._material = material
        self._spec = spec
        self._round = round_
        self._ctx = ctx
        self._step = f"{step}/{material.id}"
        self.asked: dict[tuple[str, int], Utterance] = {}
        classroom = room.classroom
        self._order = classroom.relay_order()
        self._teachers = list(room.teachers)
        self.talkers = [*room.students, *(name for name in room.assistants if classroom.peers_hearing(name))]
        """Students, and assistants who are joined to someone by `discusses` edges."""
        loop = asyncio.get_running_loop()
        self._said: dict[tuple[str, int], asyncio.Future[Utterance]] = {
            (name, turn): loop.create_future() for name in self.talkers for turn in range(spec.discussion.turns)
        }
        self._speeches: dict[str, asyncio.Future[Speech]] = {}

    @property
    def needs_words(self) -> bool:
        """Whether a model is asked for anything."""
        policies = {student.seat.agent.notes.keep for student in self._room.students.values()}
        rewording = self._spec.assistants == "reword" and bool(self._room.assistants)
        return bool(self._spec.questions or self._spec.discussion.turns or rewording) or "summary" in policies

    def path(self, stage: str, item: str = "", sample: int = 0) -> CallPath:
        """The path of a call of this lesson."""
        return CallPath(self._round, f"{self._step}/{stage}", "", item, sample)

    # --- presenting ---------------------------------------------------------------------------------------

    async def present(self) -> dict[str, Notes]:
        """What everyone has heard when the teachers and the assistants have presented."""
        try:
            return {seat.name: await self._heard_by(seat.name) for seat in self._room.classroom.seats}
        finally:
            await self.end()

    async def end(self) -> None:
        """Ends presentations that nobody waits for any more."""
        await cancelled(list(self._speeches.values()))

    async def _heard_by(self, name: str) -> Notes:
        """What `name` has heard when all who teach or assist it have presented, in the order of presenting."""
        above = self._room.classroom.teachers_of(name)
        if not self._speeches:
            for speaker in self._order:
                self._speeches[speaker] = asyncio.ensure_future(self._present(speaker))
        in_order = above if len(above) < 2 else [speaker for speaker in self._order if speaker in above]
        heard: list[Utterance] = []
        for speaker in in_order:
            # Shielded: many wait for one presentation, and one of them may be cancelled alone.
            speech = await asyncio.shield(self._speeches[speaker])
            heard += speech.get(name, ())
        return Notes(self._taken_in(name, heard))

    def _taken_in(self, name: str, heard: Sequence[Utterance]) -> tuple[Utterance, ...]:
        """What of it stays with `name`."""
        who = self._room.students.get(name) or self._room.assistants.get(name)
        return tuple(heard) if who is None else who.take_in(heard, self._material.exemplars)

    async def _present(self, speaker: str) -> Speech:
        if speaker in self._room.teachers:
            said = self._taught_by(speaker, self._teachers.index(speaker), len(self._teachers))
        else:
            said = await self._passed_on_by(speaker, await self._heard_by(speaker))
        speech: dict[str, list[Utterance]] = {}
        for number, utterance in enumerate(said):
            self._tell(utterance, "present", number)
            for hearer in utterance.hearers:
                speech.setdefault(hearer, []).append(utterance)
        return speech

    def _taught_by(self, teacher: str, index: int, teachers: int) -> list[Utterance]:
        """A teacher's presentation: all of the material, its part of it, or a part for each seat of a group."""
        pupils = self._room.classroom.pupils_of(teacher)
        if self._spec.material == "shared" or (self._spec.material == "split" and teachers == 1):
            return [_presentation(teacher, pupils, self._material)]
        if self._spec.material == "split":
            return [_presentation(teacher, pupils, self._material.part(index, teachers))]
        dealt = _dealt(pupils, self._jigsaw_parts())
        return [
            _presentation(teacher, hearers, self._material if part is None else self._material.part(*part))
            for part, hearers in dealt.items()
        ]

    def _jigsaw_parts(self) -> dict[str, tuple[int, int]]:
        """Student -> (its part, of how many): a group hears all parts, each member one of them."""
        groups = self._room.classroom.groups()
        return {student: (place, len(group)) for group in groups for place, student in enumerate(group)}

    async def _passed_on_by(self, assistant: str, notes: Notes) -> list[Utterance]:
        pupils = self._room.classroom.pupils_of(assistant)
        if not pupils:
            return []
        if self._spec.assistants == "reword":
            text = await self._room.assistants[assistant].reword(self.path("pass_on"), notes, pupils)
            return [Utterance(assistant, pupils, "assists", text)]
        texts = "\n\n".join(u.text for u in notes.heard if u.text)
        parts = self._jigsaw_parts() if self._spec.material == "jigsaw" else {}
        return [
            Utterance(
                assistant,
                hearers,
                "assists",
                texts,
                notes.exemplars[slice(part[0], None, part[1]) if part else slice(None)],
            )
            for part, hearers in _dealt(pupils, parts).items()
        ]

    # --- asking and talking -------------------------------------------------------------------------------

    async def attend(self, name: str) -> tuple[str, Notes]:
        """Someone's lesson: what is presented to it, its questions, the talk with its peers, its notes."""
        notes = await self._heard_by(name)
        student = self._room.students.get(name)
        for number in range(self._spec.questions if student else 0):
            notes = notes.plus(self._taken_in(name, await self._ask(name, notes, number)))
        peers = [p for p in self._room.classroom.peers_heard_by(name) if (p, 0) in self._said]
        for turn in range(self._spec.discussion.turns):
            mine = await self._speak(name, notes, turn)
            self._said[name, turn].set_result(mine)
            others = [await self._said[peer, turn] for peer in peers]
            spoken = self._taken_in(name, (mine, *others))
            notes = notes.plus([u for u in spoken if u.text or u.exemplars])
        return name, await student.keep(self.path("summarise"), notes) if student else notes

    async def _ask(self, student: str, notes: Notes, number: int) -> Sequence[Utterance]:
        """A question travels up an edge to whoever teaches the student; the answer comes back down it."""
        teachers = self._room.classroom.teachers_of(student)
        if not teachers:  # taught by its peers alone
            return ()
        teacher = teachers[number % len(teachers)]
        text = await self._room.students[student].ask(self.path("ask", sample=number), notes, number + 1)
        if not text:
            return ()
        question = Utterance(student, (teacher,), "question", text)
        self._tell(question, "ask", number)
        if teacher in self._room.teachers:
            self.asked[student, number] = question
        path = self.path("reply", item=student, sample=number)
        if teacher in self._room.teachers:
            answer_text = await self._room.teachers[teacher].reply(path, self._material, student, text)
        else:
            heard, (asked,) = await self._heard_by(teacher), self._taken_in(teacher, [question])
            answer_text = await self._room.assistants[teacher].reply(path, heard, student, asked.text)
        answer = Utterance(teacher, (student,), "answer", answer_text)
        self._tell(answer, f"reply/{student}", number)
        return question, answer

    async def _speak(self, name: str, notes: Notes, turn: int) -> Utterance:
        hearers = self._room.classroom.peers_hearing(name)
        if not hearers:
            return Utterance(name, (), "discusses")
        if self._spec.discussion.mode == "recite":
            said = Utterance(name, hearers, "discusses", "", self._recited(name, notes, turn))
        else:
            speaker: Student = self._room.students.get(name) or self._room.assistants[name]
            path = self.path("discuss", sample=turn)
            said = Utterance(name, hearers, "discusses", await speaker.discuss(path, notes, turn + 1, hearers))
        self._tell(said, "discuss", turn)
        return said

    def _recited(self, student: str, notes: Notes, turn: int) -> tuple[Exemplar, ...]:
        """The exemplars of a turn: some that it knows and has not recited yet, in an order of its own."""
        told = {e.question for u in notes.heard if u.speaker == student for e in u.exemplars}
        known = [exemplar for exemplar in notes.exemplars if exemplar.question not in told]
        self._ctx.seeds.at("recite", self._round, student, turn).rng().shuffle(known)
        return tuple(known[: self._spec.discussion.recite])

    def _tell(self, utterance: Utterance, stage: str, number: int) -> None:
        path = f"r{self._round}/{self._material.id}/{stage}/{utterance.speaker}/{number}"
        data = {
            "round": self._round,
            "material": self._material.id,
            "speaker": utterance.speaker,
            "hearers": list(utterance.hearers),
            "kind": utterance.kind,
            "text": utterance.text,
            "exemplars": len(utterance.exemplars),
        }
        self._ctx.emit(Event(path, "utterance", data))


def _dealt(
    pupils: Sequence[str], parts: Mapping[str, tuple[int, int]]
) -> dict[tuple[int, int] | None, tuple[str, ...]]:
    """Pupils by the part that they are to hear; None is all of it, for assistants and for who sits in no group."""
    dealt: dict[tuple[int, int] | None, tuple[str, ...]] = {}
    for pupil in pupils:
        part = parts.get(pupil)
        dealt[part] = (*dealt.get(part, ()), pupil)
    return dealt


def _presentation(teacher: str, pupils: tuple[str, ...], material: Material) -> Utterance:
    return Utterance(teacher, pupils, "teaches", material.lecture or "", material.exemplars)
