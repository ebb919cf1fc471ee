"""Models that several runs use: open while anybody uses them, and then as many of the latest as fit on the shelf."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest

from lbt_sim.errors import ModelUnavailable, Place
from lbt_sim.models import pool
from lbt_sim.models.base import ChatModel, ModelInfo
from lbt_sim.models.pool import Shelf
from lbt_sim.models.surroundings import Surroundings
from lbt_sim.scenario.schema import ModelSpec


class Fake:
    """Whether it is open, and what was done to it."""

    lasting = False

    def __init__(self, spec: ModelSpec) -> None:
        self.said = (spec.model_extra or {})["says"]
        self.ended: list[str] = []
        self.refuses = False
        self.hangs = False

    async def ready(self) -> ModelInfo:
        if self.hangs:
            await asyncio.Event().wait()
        if self.refuses:
            raise ModelUnavailable("not today")
        return ModelInfo(self.said)

    async def close(self) -> None:
        await asyncio.sleep(0)
        self.ended.append("closed")


class Made(list[Fake]):
    """Every model that was opened, in order."""

    @property
    def open(self) -> list[str]:
        return [one.said for one in self if not one.ended]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    made = Made()

    def open_model(name: str, spec: ModelSpec, *_: object) -> ChatModel:
        made.append(Fake(spec))
        model: ChatModel = made[-1]  # type: ignore[assignment]
        return model

    monkeypatch.setattr(pool, "open_model", open_model)
    return made


def spec(says: object) -> ModelSpec:
    return ModelSpec.model_validate({"engine": "fake", "says": str(says)})


async def use(shelf: Shelf, says: object, doing: Callable[[], object] = lambda: None) -> None:
    """A run that uses one model."""
    async with shelf.lent("m", spec(says), Place()) as model:
        await shelf.ready(spec(says), model)
        doing()


async def test_only_the_latest_of_hundreds_of_models_are_open(made: Made) -> None:
    async with Shelf(Surroundings(), most=3) as shelf:
        for number in range(200):
            await use(shelf, number, lambda: None)
            assert len(made.open) <= 3
        assert made.open == ["197", "198", "199"]
        await use(shelf, 197)
        await use(shelf, 200)
        assert made.open == ["197", "199", "200"]  # 198 was used the longest ago
        assert len(made) == 201
    assert made.open == []
    assert all(one.ended == ["closed"] for one in made)


async def test_what_is_in_use_stays_open_whatever_comes(made: Made) -> None:
    async with Shelf(Surroundings(), most=2) as shelf, AsyncExitStack() as runs:
        for number in range(5):
            await runs.enter_async_context(shelf.lent("m", spec(number), Place()))
        await use(shelf, 2)
        await use(shelf, "new")
        assert made.open == ["0", "1", "2", "3", "4"]  # no room for one more that nobody uses
        await runs.aclose()
        assert len(made.open) == 2


async def test_two_runs_share_a_model_that_the_last_of_them_gives_back(made: Made) -> None:
    async with Shelf(Surroundings(), most=1) as shelf:
        async with shelf.lent("m", spec("a"), Place()) as one:
            await use(shelf, "a")
            await use(shelf, "b")
            assert made.open == ["a"]
            assert isinstance(one, Fake)
            assert one.ended == []
        await use(shelf, "b")
        assert made.open == ["b"]


async def test_models_whose_servers_were_started_here_are_never_closed_for_others(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Shelf(Surroundings(), most=2) as shelf:
        await use(shelf, "served", lambda: setattr(made[0], "lasting", True))
        for number in range(10):
            await use(shelf, number)
        await use(shelf, "served")
        assert sum(one.said == "served" for one in made) == 1
        assert made.open[0] == "served"
        assert len(made.open) == 2
    assert made.open == []


async def test_a_model_that_did_not_get_ready_is_opened_anew(made: Made) -> None:
    async with Shelf(Surroundings(), most=9) as shelf:
        async with shelf.lent("m", spec("a"), Place()) as model:
            made[0].refuses = True
            with pytest.raises(ModelUnavailable):
                await shelf.ready(spec("a"), model)
        assert made.open == []
        await use(shelf, "a")
        assert made.open == ["a"]


async def test_one_that_is_getting_ready_is_given_up_at_the_end_alone(made: Made) -> None:
    async with Shelf(Surroundings(), most=1) as shelf:

        async def run() -> None:
            async with shelf.lent("m", spec("slow"), Place()) as model:
                made[0].hangs = True
                await shelf.ready(spec("slow"), model)

        running = asyncio.ensure_future(run())
        await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait([running])
        await use(shelf, "other")
        assert made.open == ["slow"]  # others may wait for it
    assert made.open == []


async def test_a_model_that_cannot_be_closed_harms_no_run(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    async def close(self: Fake) -> None:
        self.ended.append("closed")
        raise OSError("no")

    monkeypatch.setattr(Fake, "close", close)
    async with Shelf(Surroundings(tell=told.append), most=1) as shelf:
        await use(shelf, "a")
        await use(shelf, "b")
        assert made.open == ["b"]
    assert len(told) == 2
    assert "m cannot be closed (OSError: no)" in told
