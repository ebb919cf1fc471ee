"""Items and worked examples are rendered once for all agents that would read the same, and only for those."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rooms import material, seated, seats_for

from lbt_sim.models.base import CallPath, ChatRequest, Head
from lbt_sim.prompts import REMEMBERED, Template
from lbt_sim.roles.values import Notes, Utterance
from lbt_sim.scenario.schema import PersonaFile
from lbt_sim.scenario.seats import Seat

CAST = [("teacher", "teacher"), ("ann", "student"), ("bob", "student")]


class Counted(Template):
    """A template that counts how often it is rendered."""

    def __init__(self, text: str) -> None:
        super().__init__(text, "counted.md.j2")
        self.renderings = 0

    def render(self, /, **values: Any) -> str:
        self.renderings += 1
        return super().render(**values)


def cast_with(folder: Path, **templates: Template) -> list[Seat]:
    """Teacher, ann, bob and an examiner; the students share their templates."""
    return [
        replace(seat, templates={**seat.templates, **templates}) if seat.role == "student" else seat
        for seat in seats_for(CAST, folder)
    ]


def yes(_: ChatRequest) -> str:
    return "yes"


async def test_an_item_that_names_nobody_is_rendered_once_for_all_students(tmp_path: Path) -> None:
    answer = Counted("Q: {{ question }}")
    async with seated(tmp_path, yes, seats=cast_with(tmp_path, answer=answer)) as here:
        problems = here.room.task.train[:3]
        for student in here.room.students.values():
            asked = student.exam_requests(CallPath(1, "exam", ""), Head(()), problems, ())
            assert [request.last for request in asked] == [f"Q: {problem.question}" for problem in problems]
    assert answer.renderings == len(problems)


@pytest.mark.parametrize("known", ["name", "persona", "task.instruction"])
async def test_an_item_that_names_its_reader_is_not_another_reader_s(tmp_path: Path, known: str) -> None:
    answer = Template("{{ " + known + " }} {{ question }}", "answer.md.j2")
    seats = [
        replace(seat, persona=PersonaFile(title=seat.name, text=f"You are like {seat.name}."))
        for seat in cast_with(tmp_path, answer=answer)
    ]
    async with seated(tmp_path, yes, seats=seats) as here:
        read = {}
        for name, student in here.room.students.items():
            [request] = student.exam_requests(CallPath(1, "exam", ""), Head(()), here.room.task.train[:1], ())
            read[name] = request.last
        question = here.room.task.train[0].question
        if known == "task.instruction":
            assert set(read.values()) == {f"{here.room.task.instruction} {question}"}
        else:
            who = {"name": "{}", "persona": "You are like {}."}[known]
            assert read == {name: f"{who.format(name)} {question}" for name in ("ann", "bob")}


async def test_each_set_of_exemplars_is_shown_as_it_is_however_often_sets_change(tmp_path: Path) -> None:
    async with seated(tmp_path, yes, seats=cast_with(tmp_path)) as here:
        ann = here.room.students["ann"]
        sets = [material(3, prefix=f"set{number}x") for number in range(12)] * 2
        for one in sets:
            head = ann.head(Notes((Utterance("teacher", ("ann",), "teaches", "", one.exemplars),)))
            shown = [turn.content for turn in head.turns if turn.role != "system"]
            assert shown == [text for e in one.exemplars for text in (e.question, e.answer)]


def test_a_template_forgets_the_oldest_text_when_it_keeps_too_many() -> None:
    template = Counted("{{ number }}")
    for number in range(REMEMBERED + 1):
        template.render_once(number, number=number)
    template.render_once(REMEMBERED, number=REMEMBERED)
    assert template.renderings == REMEMBERED + 1
    assert template.render_once(0, number=0) == "0"
    assert template.renderings == REMEMBERED + 2
