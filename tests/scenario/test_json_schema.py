"""The JSON Schema that editors complete from."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lbt_sim.errors import ScenarioError
from lbt_sim.models.registry import engine_names
from lbt_sim.scenario.json_schema import SCHEMA_KINDS, schema


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*map(references, value.values()))
    if isinstance(value, list):
        return set().union(*map(references, value))
    return set()


@pytest.mark.parametrize("kind", SCHEMA_KINDS)
def test_each_kind_has_a_schema_that_is_json_and_whole(kind: str) -> None:
    made = schema(kind)
    json.dumps(made, allow_nan=False)
    assert made["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert made["title"] == f"lbt-sim {kind}"
    assert made["properties"]["kind"]["const"] == kind
    assert made["additionalProperties"] is False
    assert references(made) <= {f"#/$defs/{name}" for name in made.get("$defs", {})}


def test_descriptions_are_the_docstrings_on_one_line() -> None:
    made = schema("scenario")
    assert made["properties"]["seed"]["description"] == "The run's seed: every random choice comes from it."
    jsonl = made["$defs"]["TaskSpec"]["properties"]["jsonl"]["description"]
    assert jsonl.startswith("JSON Lines")
    assert "\n" not in jsonl


def test_a_model_has_the_options_of_its_engine() -> None:
    model = schema("scenario")["$defs"]["ModelSpec"]
    alternatives = {one["properties"]["engine"]["const"]: one for one in model["oneOf"]}
    assert set(alternatives) == set(engine_names())
    assert {"engine", "model"} <= set(alternatives["llamacpp"]["required"])
    assert "latency" in alternatives["simulated"]["properties"]
    assert all(one["additionalProperties"] is False for one in alternatives.values())


def test_short_forms_are_valid() -> None:
    definitions = schema("scenario")["$defs"]

    def types(name: str) -> list[Any]:
        return [one.get("type") for one in definitions[name]["anyOf"]]

    assert types("ExamSpec") == ["object", "integer"]
    assert types("ReviseSpec") == ["object", "string", "array"]
    assert types("DiscussionSpec") == ["object", "integer"]
    assert types("TopologySpec") == ["object", "string", "object", "object"]
    assert definitions["ReviseSpec"]["anyOf"][1]["enum"] == ["rewrite", "choose", "none"]


def test_from_is_called_as_it_is_written() -> None:
    properties = schema("classroom")["$defs"]["EdgeSpec"]["properties"]
    assert "from" in properties
    assert "from_" not in properties


def test_an_unknown_kind_lists_the_known_ones() -> None:
    with pytest.raises(ScenarioError, match="did you mean 'scenario'") as caught:
        schema("scenaro")
    assert caught.value.valid == SCHEMA_KINDS
