"""How often greedy answers change is measured on a scenario's own prompts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest
from rooms import scenario_value

import lbt_sim.determinism as determinism
from lbt_sim.determinism import measure
from lbt_sim.models.base import ChatRequest, ModelInfo, Reply
from lbt_sim.models.determined import known, remember
from lbt_sim.preview import exam_prompts
from lbt_sim.scenario.load import load_scenario
from lbt_sim.scenario.yaml import write_yaml
from lbt_sim.setup import Prepared, prepare


class Shaky:
    """Answers otherwise to every fourth prompt of a batch, and to texts that its cache has not seen."""

    reads_facts = False

    def __init__(self) -> None:
        self.salt: str | None = None
        self.seen: set[tuple[str | None, str]] = set()
        self.closed = False

    async def ready(self) -> ModelInfo:
        return ModelInfo("shaky", {"version": "1", "servers": ["somewhere"]})

    async def create(self, request: ChatRequest) -> Reply:
        key = (self.salt, request.last)
        cold, text = key not in self.seen, not request.choices
        self.seen.add(key)
        if text:
            return Reply("cold" if cold else "warm")
        return Reply("positive", choice_logprobs=(-0.1, -2.5))

    async def create_many(self, requests: Iterable[ChatRequest]) -> AsyncIterator[tuple[int, Reply]]:
        for index, request in enumerate(requests):
            reply = Reply("warm") if not request.choices else Reply("positive", choice_logprobs=(-0.1, -2.25))
            yield index, Reply("negative" if request.choices else "other") if index % 4 == 3 else reply

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepared:
    monkeypatch.setenv("LBT_SIM_STATE", str(tmp_path / "state"))
    file = tmp_path / "small.yaml"
    file.write_text(write_yaml(scenario_value(task={"name": "reviews", "train": 60, "held_out": 8})), encoding="utf-8")
    return prepare(load_scenario(str(file)))


async def test_the_prompts_are_the_teachers_own_exam(prepared: Prepared) -> None:
    requests = await exam_prompts(prepared, 5)
    assert len(requests) == 5
    assert len({request.head.digest for request in requests}) == 1
    assert all(request.choices == prepared.task.labels for request in requests)
    shown = {turn.content for turn in requests[0].head.turns}
    assert not any(request.last in shown for request in requests)


async def test_changes_are_counted_and_kept_for_later_runs(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    model, said = Shaky(), []
    monkeypatch.setattr(determinism, "open_model", lambda *_: model)
    (found,) = (await measure(prepared, 8, said.append, sizes=(8, 32))).values()
    cache, batch = found
    assert (cache.what, batch.what) == ("cold cache, warm cache", "alone, 8 at a time")
    assert (cache.labels_changed, cache.texts_changed, cache.largest) == (0, 8, 0.0)
    assert (batch.labels, batch.labels_changed, batch.texts_changed) == (8, 2, 2)
    assert batch.largest == pytest.approx(0.25)
    assert model.closed
    kept = known(await model.ready())
    assert kept is not None
    assert [one["texts_changed"] for one in kept["comparisons"]] == [8, 2]


async def test_rules_have_nothing_to_measure(prepared: Prepared, tmp_path: Path) -> None:
    rules = prepare(load_scenario(str(tmp_path / "small.yaml"), engine="simulated"))
    assert await measure(rules, 4, lambda text: None) == {}


def test_what_is_known_belongs_to_exactly_this_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LBT_SIM_STATE", str(tmp_path))
    here = ModelInfo("m", {"vllm": "0.32.0", "servers": ["a"]})
    assert known(here) is None
    remember(here, [{"what": "x"}])
    assert known(ModelInfo("m", {"vllm": "0.32.0", "servers": ["b"], "attached": True})) is not None
    assert known(ModelInfo("m", {"vllm": "0.33.0"})) is None
    assert known(ModelInfo("n", {"vllm": "0.32.0"})) is None
