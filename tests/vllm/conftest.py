"""Tests against a real vLLM. They need an environment that holds it, and a minute for each server that is started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_vllm import Keeper, the_python

from lbt_sim.models.vllm.install import VARIABLE


@pytest.fixture(scope="session")
def vllm_python() -> str:
    """The interpreter of the environment that holds vLLM."""
    return the_python(os.environ)


@pytest.fixture(scope="session")
def keeper(vllm_python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keeper]:
    """The tiny model, and who keeps it up."""
    made = Keeper(tmp_path_factory.mktemp("tiny"), vllm_python)
    made.write()
    yield made
    made.stop()


@pytest.fixture
def kept(keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> Keeper:
    """The tiny model, which answers: models of this process attach to it."""
    monkeypatch.setenv(VARIABLE, keeper.python)
    monkeypatch.setenv("LBT_SIM_STATE", str(keeper.state))
    keeper.up()
    return keeper


@pytest.fixture
def state(vllm_python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of records of the test's own, where no server is kept."""
    folder = tmp_path / "state"
    monkeypatch.setenv("LBT_SIM_STATE", str(folder))
    return folder
