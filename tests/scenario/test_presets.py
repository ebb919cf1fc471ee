"""Presets give defaults under what is written, and each value tells where it comes from."""

from __future__ import annotations

from typing import Any

import pytest

from lbt_sim.scenario.presets import PRESETS, apply_preset, expand_short_forms, explain
from lbt_sim.scenario.schema import M3Spec, ScenarioFile
from lbt_sim.scenario.validation import validate_model
from lbt_sim.scenario.yaml import Document, dotted


def method(**written: Any) -> M3Spec:
    return M3Spec.model_validate(apply_preset({"method": written})[0]["method"])


def test_the_papers_settings() -> None:
    paper = method(preset="paper")
    assert (paper.rounds, paper.exemplars, paper.beam, paper.start) == (5, 8, 4, "written")
    assert paper.revise.operators == ["rewrite"]
    assert paper.revise.reflections * paper.revise.rewrites == 8
    assert (paper.select.by, paper.select.metric, paper.select.strategy) == ("teacher", "f1", "uniform")


def test_the_published_codes_settings() -> None:
    code = method(preset="published-code")
    assert (code.rounds, code.exemplars, code.beam, code.exam.problems) == (5, 8, 4, 64)
    assert (code.revise.failures, code.revise.reflections, code.revise.rewrites) == (4, 4, 1)
    assert (code.revise.keep, code.revise.mix) == (8, 1)
    assert (code.select.metric, code.select.strategy, code.select.budget) == ("accuracy", "uniform", 2048)


@pytest.mark.parametrize("name", ["paper", "published-code"])
def test_what_is_written_wins_over_a_preset(name: str) -> None:
    spec = method(preset=name, rounds=2, exam=24, revise=["choose"], select={"budget": 9})
    assert (spec.rounds, spec.exam.problems, spec.revise.operators, spec.select.budget) == (2, 24, ["choose"], 9)
    assert (spec.beam, spec.revise.failures, spec.select.strategy) == (4, 4, "uniform")


def test_a_null_that_is_written_wins_too() -> None:
    assert method(preset="paper", revise={"keep": None}).revise.keep is None


def test_every_preset_sets_only_keys_that_exist_and_names_its_source() -> None:
    for name, settings in PRESETS.items():
        assert all(setting.source for setting in settings.values())
        method(preset=name)  # unknown keys would be refused


def test_every_preset_of_the_schema_is_there() -> None:
    assert set(M3Spec.model_json_schema()["properties"]["preset"]["enum"]) == set(PRESETS)


def test_mistakes_in_the_method_are_left_to_validation() -> None:
    for wrong in (
        {"preset": "papper"},
        {"preset": ["paper"]},
        {"preset": "paper", "select": 3},
        {"preset": "paper", "exam": []},
    ):
        assert apply_preset({"method": wrong})[0]["method"].items() >= wrong.items()
    assert apply_preset({"method": 3})[0] == {"method": 3}


def test_short_forms_are_written_out() -> None:
    value = {"lesson": {"discussion": 1}, "method": {"exam": 24, "revise": "choose"}}
    assert expand_short_forms(value) == {
        "lesson": {"discussion": {"turns": 1}},
        "method": {"exam": {"problems": 24}, "revise": {"operators": ["choose"]}},
    }
    assert value["method"]["exam"] == 24


def test_none_is_short_for_no_operators() -> None:
    for short in ("none", []):
        spec = method(preset="paper", revise=short)
        assert (spec.revise.operators, spec.beam) == ([], 4)
    assert M3Spec.model_validate({"revise": "none"}).revise.operators == []


def test_explain_says_where_each_value_comes_from() -> None:
    written = {
        "models": {"small": {"engine": "simulated"}},
        "task": {"name": "reviews"},
        "method": {"preset": "paper", "beam": 2},
        "classroom": {"edges": [{"among": "student", "kind": "discusses", "topology": "ring"}]},
        "seed": 3,
    }
    value, presets = apply_preset(written)
    document = Document(value, "s.yaml", {}, {("seed",): "--set seed=3"})
    rows = {row.key: row for row in explain(validate_model(document, ScenarioFile), document, presets)}
    assert rows["method.beam"].origin == "scenario"
    assert rows["method.rounds"][1:] == (5, "preset paper: arXiv 2406.14629v3, M3")
    assert rows["method.revise.mix"].origin == "preset paper: the published code's value; the paper states none"
    assert rows["seed"].origin == "--set seed=3"
    assert rows["lesson.questions"][1:] == (0, "default")
    assert rows["models.small.engine"].origin == "scenario"
    assert rows["classroom.edges[0].topology.name"][1:] == ("ring", "scenario")
    assert rows["classroom.edges[0].split"].origin == "default"
    assert all(dotted(("method", *path)) in rows for path in PRESETS["paper"])
