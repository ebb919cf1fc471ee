"""What each agent would be sent: the prompts of a run, with nobody asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rooms import prepared

from lbt_sim.errors import InputError
from lbt_sim.preview import Preview, preview

METHOD = {"exemplars": 4, "revise": {"operators": ["rewrite", "choose"]}}


async def shown(folder: Path, agent: str | None = None, **scenario: Any) -> list[Preview]:
    return await preview(prepared(folder, **{"method": METHOD, **scenario}), agent)


def uses(found: list[Preview], agent: str) -> list[str]:
    return [one.use for one in found if one.agent == agent]


async def test_each_kind_of_agent_is_shown_once_with_all_that_it_is_sent(tmp_path: Path) -> None:
    found = await shown(tmp_path, lesson={"questions": 1, "discussion": 1})
    assert uses(found, "teacher") == ["answer", "reflect", "rewrite", "repair", "choose", "reply"]
    assert uses(found, "ann") == ["answer", "ask", "discuss"]
    assert not uses(found, "bob"), "bob is sent what ann is sent"


async def test_personas_are_kinds_of_their_own(tmp_path: Path) -> None:
    cast = {"students": [{"persona": "literal", "count": 2}, {"persona": "sceptic"}]}
    found = await shown(tmp_path, cast=cast)
    students = [one for one in found if one.role == "student"]
    assert [one.agent for one in students] == ["literal_1", "sceptic"]
    assert all(students[0].request.head.turns[0] != one.request.head.turns[0] for one in students[1:])


async def test_an_exam_prompt_holds_the_exemplars_as_turns_and_a_new_problem(tmp_path: Path) -> None:
    found = await shown(tmp_path, "ann")
    (answer,) = [one for one in found if one.use == "answer"]
    roles = [turn.role for turn in answer.request.turns]
    assert roles == ["system", *["user", "assistant"] * 4, "user"]
    assert answer.request.last not in [turn.content for turn in answer.request.turns[:-1]]


async def test_no_held_out_problem_is_shown(tmp_path: Path) -> None:
    here = prepared(tmp_path, method={**METHOD, "exam": {"set_by": "written"}})
    found = await preview(here)
    text = "\n".join(turn.content for one in found for turn in one.request.turns)
    assert "set_exam" in [one.use for one in found]
    assert not [problem for problem in here.task.held_out if problem.question in text]


async def test_an_assistant_is_shown_what_it_says(tmp_path: Path) -> None:
    cast = {"assistants": [{}], "students": [{"name": "ann"}]}
    lesson = {"assistants": "reword", "questions": 1}
    found = await shown(tmp_path, "assistant", cast=cast, classroom="assistants", lesson=lesson)
    assert uses(found, "assistant") == ["pass_on", "reply"]
    answer = (await shown(tmp_path, "ann", cast=cast, classroom="assistants", lesson=lesson))[0]
    assert "…the words of assistant…" in answer.request.turns[0].content


async def test_one_who_is_not_there_is_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'teacher'"):
        await shown(tmp_path, "teecher")
