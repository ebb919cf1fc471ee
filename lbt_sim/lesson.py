"""The lesson: the teacher presents, assistants pass on, students ask, peers talk. Edges decide who hears whom.

Everything said is an `Utterance` with its hearers; a student's notes are the utterances that it heard or said.
There is no barrier: each student goes on as soon as those whom it hears have spoken.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from lbt_sim.concurrency import cancelled
from lbt_sim.events import Event
from lbt_sim.models.base import CallPath
from lbt_sim.roles.room import Context, Room
from lbt_sim.roles.student import Assistant
from lbt_sim.roles.teacher import Teacher
from lbt_sim.roles.values import Material, Notes, Utterance
from lbt_sim.scenario.schema import LessonSpec
from lbt_sim.tasks.base import Exemplar

__all__ = ["presented", "teach"]


async def teach(
    room: Room, material: Material, spec: LessonSpec, round_: int, ctx: Context
) -> AsyncIterator[tuple[str, Notes]]:
    """Teaches `material`; yields each student with its notes as soon as they are complete.

    Args:
        room: Who is there and who hears whom.
        material: What the teachers teach.
        spec: Questions, discussion, how material is dealt out.
        round_: The round, for the calls' paths.
        ctx: Seeds and events.
    """
    lesson = _Lesson(room, material, spec, round_, ctx)
    heard = await lesson.present()
    if not lesson.needs_words:
        for student in room.students:
            yield student, await room.students[student].keep(lesson.path("summarise"), heard[student])
        return
    tasks = [asyncio.ensure_future(lesson.attend(name, heard[name])) for name in room.students]
    try:
        for done in asyncio.as_completed(tasks):
            yield await done
    finally:
        await cancelled(tasks)


async def presented(room: Room, material: Material, spec: LessonSpec, ctx: Context) -> dict[str, Notes]:
    """What everyone has heard when the material has been presented and nobody has asked or talked yet."""
    return await _Lesson(room, material, spec, 0, ctx).present()


class _Lesson:
    """One lesson. Students wait for each other by futures: one for each of a student's turns."""

    def __init__(self, room: Room, material: Material, spec: LessonSpec, round_: int, ctx: Context) -> None:
        self._room = room
        self._material = material
        self._spec = spec
        self._round = round_
        self._ctx = ctx
        self._step = f"lesson/{material.id}"
        loop = asyncio.get_running_loop()
        self._said: dict[tuple[str, int], asyncio.Future[Utterance]] = {
            (student, turn): loop.create_future() for student in room.students for turn in range(spec.discussion.turns)
        }
        self._upstream: dict[str, Notes] = {}  # what each assistant had heard when it spoke

    @property
    def needs_words(self) -> bool:
        """Whether anything is said beyond the presentation."""
        policies = {student.seat.agent.notes.keep for student in self._room.students.values()}
        return bool(self._spec.questions or self._spec.discussion.turns) or "summary" in policies

    def path(self, stage: str, item: str = "", sample: int = 0) -> CallPath:
        """The path of a call of this lesson."""
        return CallPath(self._round, f"{self._step}/{stage}", "", item, sample)

    # --- presenting ---------------------------------------------------------------------------------------

    async def present(self) -> dict[str, Notes]:
        """What everyone has heard when the teachers and then the assistants have presented."""
        heard: dict[str, list[Utterance]] = {seat.name: [] for seat in self._room.classroom.seats}
        teachers = list(self._room.teachers)
        for speaker in self._room.classroom.relay_order():
            if speaker in self._room.teachers:
                said = self._taught_by(speaker, teachers.index(speaker), len(teachers))
            else:
                said = await self._passed_on_by(speaker, Notes(tuple(heard[speaker])))
            for number, utterance in enumerate(said):
                self._tell(utterance, "present", number)
                for hearer in utterance.hearers:
                    heard[hearer].append(utterance)
        return {name: Notes(tuple(utterances)) for name, utterances in heard.items()}

    def _taught_by(self, teacher: str, index: int, teachers: int) -> list[Utterance]:
        """A teacher's presentation: all of the material, its part of it, or a part for each seat of a group."""
        pupils = self._room.classroom.pupils_of(teacher)
        if self._spec.material == "shared" or (self._spec.material == "split" and teachers == 1):
            return [_presentation(teacher, pupils, self._material)]
        if self._spec.material == "split":
            return [_presentation(teacher, pupils, self._material.part(index, teachers))]
        places = self._jigsaw_places()
        parts = 1 + max(place for place in places.values())
        by_part = [tuple(p for p in pupils if places.get(p, part) == part) for part in range(parts)]
        return [
            _presentation(teacher, hearers, self._material.part(part, parts))
            for part, hearers in enumerate(by_part)
            if hearers
        ]

    def _jigsaw_places(self) -> dict[str, int]:
        """Each student's place within its group: students with the same place hear the same part."""
        return {student: place for group in self._room.classroom.groups() for place, student in enumerate(group)}

    async def _passed_on_by(self, assistant: str, notes: Notes) -> list[Utterance]:
        self._upstream[assistant] = notes
        pupils = self._room.classroom.pupils_of(assistant)
        if self._spec.assistants == "reword":
            text = await self._room.assistants[assistant].reword(self.path("pass_on"), notes, pupils)
            return [Utterance(assistant, pupils, "assists", text)]
        texts = "\n\n".join(u.text for u in notes.heard if u.text)
        return [Utterance(assistant, pupils, "assists", texts, notes.exemplars)]

    # --- asking and talking -------------------------------------------------------------------------------

    async def attend(self, student: str, notes: Notes) -> tuple[str, Notes]:
        """A student's lesson after the presentation: its questions, the talk with its peers, its notes."""
        for number in range(self._spec.questions):
            notes = notes.plus(await self._ask(student, notes, number))
        for turn in range(self._spec.discussion.turns):
            mine = await self._speak(student, notes, turn)
            self._said[student, turn].set_result(mine)
            peers = [p for p in self._room.classroom.peers_heard_by(student) if (p, turn) in self._said]
            others = [await self._said[peer, turn] for peer in peers]
            notes = notes.plus([u for u in (mine, *others) if u.text or u.exemplars])
        return student, await self._room.students[student].keep(self.path("summarise"), notes)

    async def _ask(self, student: str, notes: Notes, number: int) -> Sequence[Utterance]:
        """A question travels up an edge to whoever teaches the student; the answer comes back down it."""
        teachers = self._room.classroom.teachers_of(student)
        teacher = teachers[number % len(teachers)]
        text = await self._room.students[student].ask(self.path("ask", sample=number), notes, number + 1)
        if not text:
            return ()
        question = Utterance(student, (teacher,), "question", text)
        self._tell(question, "ask", number)
        path = self.path("reply", item=student, sample=number)
        agent: Teacher | Assistant
        if teacher in self._room.teachers:
            agent = self._room.teachers[teacher]
            values = {"asker": student, "question": text, "exemplars": [], "heard": []}
            reply = await agent.write(path, "reply", agent.knowing(self._material), **values)
            answer_text = reply.text.strip()
        else:
            agent = self._room.assistants[teacher]
            answer_text = await agent.reply(path, self._upstream[teacher], student, text)
        answer = Utterance(teacher, (student,), "answer", answer_text)
        self._tell(answer, f"reply/{student}", number)
        return question, answer

    async def _speak(self, student: str, notes: Notes, turn: int) -> Utterance:
        hearers = self._room.classroom.peers_hearing(student)
        if not hearers:
            return Utterance(student, (), "discusses")
        if self._spec.discussion.mode == "recite":
            said = Utterance(student, hearers, "discusses", "", self._recited(student, notes, turn))
        else:
            path = self.path("discuss", sample=turn)
            text = await self._room.students[student].discuss(path, notes, turn + 1, hearers)
            said = Utterance(student, hearers, "discusses", text)
        self._tell(said, "discuss", turn)
        return said

    def _recited(self, student: str, notes: Notes, turn: int) -> tuple[Exemplar, ...]:
        """The exemplars of a turn: some that it knows, its peers' too, and has not recited yet, in an order of its own."""
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


def _presentation(teacher: str, pupils: tuple[str, ...], material: Material) -> Utterance:
    return Utterance(teacher, pupils, "teaches", material.lecture or "", material.exemplars)
