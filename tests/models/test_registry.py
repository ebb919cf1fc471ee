from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest
from pydantic import BaseModel

from lbt_sim.errors import ScenarioError
from lbt_sim.models import registry, scripted
from lbt_sim.models.limits import Gates
from lbt_sim.models.openai import OpenAIModel
from lbt_sim.models.registry import EngineEntry, check_model, engine, engine_names, open_model
from lbt_sim.models.surroundings import Surroundings
from lbt_sim.scenario.schema import ModelSpec

MINE = EngineEntry("mine", lambda: scripted.ScriptedSpec, scripted.ScriptedModel)


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    points = {
        "mine": EntryPoint("mine", f"{__name__}:MINE", registry.GROUP),
        "broken": EntryPoint("broken", "no_such_package:ENTRY", registry.GROUP),
        "odd": EntryPoint("odd", "sys:path", registry.GROUP),
        "openai": EntryPoint("openai", f"{__name__}:MINE", registry.GROUP),
    }
    monkeypatch.setattr(registry, "_installed", lambda: points)


def test_the_registry_imports_no_engine() -> None:
    code = (
        "import sys, lbt_sim.models.registry\n"
        "heavy = {'aiohttp', 'xllamacpp', 'autogen_core', 'autogen_agentchat', 'tenacity'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert not [name for name in sys.modules if name.startswith('lbt_sim.models.openai')]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["llamacpp", "openai", "scripted"])
def test_every_built_in_engine_has_options_with_a_description_each(name: str) -> None:
    spec = engine(name).spec()
    assert issubclass(spec, BaseModel)
    assert spec.model_config.get("extra") == "forbid"
    assert all(field.description for field in spec.model_fields.values())


def test_a_misspelt_engine_is_told_the_nearest() -> None:
    with pytest.raises(ScenarioError) as caught:
        engine("opanai")
    assert "did you mean 'openai'" in caught.value.what
    assert caught.value.valid == engine_names()


def test_a_misspelt_option_is_told_the_nearest_and_where() -> None:
    with pytest.raises(ScenarioError) as caught:
        check_model("small", ModelSpec.model_validate({"engine": "llamacpp", "modle": "x", "model": "y"}))
    assert "did you mean 'model'" in caught.value.what
    assert caught.value.where is not None
    assert caught.value.where.key == "models.small.modle"
    assert "context" in caught.value.valid


def test_a_missing_option_is_explained() -> None:
    with pytest.raises(ScenarioError) as caught:
        check_model("small", ModelSpec(engine="llamacpp"))
    assert "needs 'model'" in caught.value.what
    assert "GGUF" in caught.value.remedy


def test_a_value_that_does_not_fit_is_quoted() -> None:
    with pytest.raises(ScenarioError, match="found 'many'"):
        check_model("small", ModelSpec.model_validate({"engine": "llamacpp", "model": "x", "context": "many"}))


def test_opening_touches_no_network_and_gives_a_model() -> None:
    spec = ModelSpec.model_validate({"engine": "openai", "model": "x", "url": "http://localhost:1"})
    model = open_model("big", spec)
    assert model.reads_facts is False


def test_models_of_one_run_that_ask_the_same_server_go_through_its_gate_together() -> None:
    said = {"engine": "openai", "model": "x", "url": "http://localhost:1"}
    gates = Gates()
    one, two = (
        open_model(name, ModelSpec.model_validate({**said, "timeout": timeout}), surroundings=Surroundings(gates))
        for name, timeout in (("one", 1), ("two", 2))
    )
    apart = open_model(
        "three", ModelSpec.model_validate({**said, "url": "http://localhost:2"}), surroundings=Surroundings(gates)
    )
    assert isinstance(one, OpenAIModel)
    assert isinstance(two, OpenAIModel)
    assert isinstance(apart, OpenAIModel)
    assert one._into is two._into
    assert one._into is not apart._into
    assert open_model("rules", ModelSpec(engine="simulated"), surroundings=Surroundings(gates)).reads_facts


@pytest.mark.usefixtures("package")
def test_an_installed_package_adds_an_engine() -> None:
    assert "mine" in engine_names()
    assert engine("mine") is MINE
    assert isinstance(open_model("m", ModelSpec(engine="mine")), scripted.ScriptedModel)


@pytest.mark.usefixtures("package")
def test_an_installed_package_cannot_replace_a_built_in() -> None:
    assert engine("openai") is registry.ENGINES["openai"]
    assert any("wants to replace" in problem for problem in registry.refused_engines())


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("name", ["broken", "odd"])
def test_a_package_with_a_broken_engine_is_an_error_with_a_remedy(name: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        engine(name)
    assert name in caught.value.what
    assert caught.value.remedy
