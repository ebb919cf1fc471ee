"""What a candidate is scored on, by whom, and what is kept out of everything for scoring winners anew."""

from __future__ import annotations

from pathlib import Path

from rooms import material, seated, small_task

from lbt_sim.methods.scoring import respondents, scoring_pool, set_aside
from lbt_sim.models.base import ChatRequest
from lbt_sim.roles.values import Material
from lbt_sim.scenario.schema import SelectSpec
from lbt_sim.tasks.base import Exemplar


def silent(request: ChatRequest) -> str:
    raise AssertionError("nobody is to be asked")


async def test_a_material_is_not_scored_on_what_it_shows(tmp_path: Path) -> None:
    async with seated(tmp_path, silent) as here:
        train = here.room.task.train
        exemplars = Material((Exemplar(train[0].question.upper(), "yes"),))
        lecture = material(lecture=f"As in '{train[1].question}', say no.")
        pool = scoring_pool(here.room, [exemplars, lecture])
    assert [problem.id for problem in pool] == [problem.id for problem in train[2:]]


async def test_what_is_set_aside_is_no_train_problem_any_more(tmp_path: Path) -> None:
    async with seated(tmp_path, silent, task=small_task(train=40)) as here:
        room, reserve = set_aside(here.room, SelectSpec(rescore=5), ["t3"], here.ctx)
        again = set_aside(here.room, SelectSpec(rescore=5), ["t3"], here.ctx)[1]
        assert not here.of_kind("notice")
    assert len(reserve) == 5
    assert reserve == again
    assert {p.id for p in reserve} | {p.id for p in room.task.train} == {p.id for p in here.room.task.train}
    assert not {p.id for p in reserve} & ({p.id for p in room.teachable} | {"t3"})


async def test_at_most_a_fifth_of_train_is_set_aside_and_that_is_told(tmp_path: Path) -> None:
    async with seated(tmp_path, silent, task=small_task(train=20)) as here:
        assert len(set_aside(here.room, SelectSpec(rescore=24), (), here.ctx)[1]) == 4
        assert "on 4 problems in place of 24" in here.of_kind("notice")[0].data["text"]
        assert set_aside(here.room, SelectSpec(rescore=0), (), here.ctx)[1] == []


async def test_everyone_who_has_a_say_is_counted(tmp_path: Path) -> None:
    async with seated(tmp_path, silent) as here:
        assert respondents(here.room, SelectSpec(by="students")) == len(here.room.students) == 2
        assert respondents(here.room, SelectSpec(by="teacher")) == 1
