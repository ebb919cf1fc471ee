"""The teacher: knows the material, answers questions, reflects on failures, revises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lbt_sim.models.base import CallPath, ChatRequest, Head
from lbt_sim.roles.agent import ClassroomAgent
from lbt_sim.roles.values import Material, Notes, Utterance, exemplar_values
from lbt_sim.tasks.base import Problem

__all__ = ["Teacher"]


class Teacher(ClassroomAgent):
    """A teacher agent."""

    def notes_on(self, material: Material) -> Notes:
        """What it teaches is what it has in mind."""
        return Notes((Utterance(self.name, (), "teaches", "", material.exemplars),))

    def knowing(self, material: Material, notes: Notes | None = None) -> Head:
        """The head of the teacher's own exam, with all of the material in mind or, given `notes`, what fits of it."""
        return self.head(self.notes_on(material) if notes is None else notes, lecture=material.lecture)

    async def reply(self, path: CallPath, material: Material, asker: str, question: str) -> str:
        """The answer to a student's question."""
        values = {"asker": asker, "question": question, "exemplars": [], "heard": []}
        said = await self.say(path, "reply", self.notes_on(material), lambda kept: values, lecture=material.lecture)
        return said.text.strip()

    def first_material(self, path: CallPath, count: int, *, lecture: bool) -> ChatRequest:
        """Writes material from the task alone."""
        return self.request(path, "write", self.head(), {"count": count, "lecture": lecture})

    def reflection(
        self, path: CallPath, material: Material, failures: Sequence[Mapping[str, Any]], report: str
    ) -> ChatRequest:
        """Explains why the material led to such failures."""
        return self.request(path, "reflect", self.head(), {**_shown(material), "failures": failures, "report": report})

    def rewriting(
        self,
        path: CallPath,
        material: Material,
        failures: Sequence[Mapping[str, Any]],
        reflections: Sequence[str],
        count: int,
    ) -> ChatRequest:
        """Writes the material anew, `count` exemplars or a lecture, in the light of reflections."""
        values = {**_shown(material), "count": count, "failures": failures, "reflections": reflections}
        return self.request(path, "rewrite", self.head(), values)

    def repair(self, path: CallPath, material: Material, reply: str, why: str, count: int) -> ChatRequest:
        """Is shown its own malformed material and what is wrong with it."""
        values = {**_shown(material), "count": count, "reply": reply, "why": why}
        return self.request(path, "repair", self.head(), values)

    def choice(
        self, path: CallPath, material: Material, menu: Sequence[Problem], failures: Sequence[Mapping[str, Any]]
    ) -> ChatRequest:
        """Picks one problem of a menu, by its number, as a new exemplar."""
        numbered = [
            {"number": number, "question": problem.question, "answer": problem.answer}
            for number, problem in enumerate(menu, start=1)
        ]
        values = {**_shown(material), "menu": numbered, "failures": failures}
        choices = tuple(str(entry["number"]) for entry in numbered)
        return self.request(path, "choose", self.head(), values, choices=choices)


def _shown(material: Material) -> dict[str, Any]:
    return {
        "exemplars": exemplar_values(material.exemplars),
        "count": len(material.exemplars),
        "lecture": material.lecture,
    }
