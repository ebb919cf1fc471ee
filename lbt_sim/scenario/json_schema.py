"""JSON Schema of the YAML files, for editors: completes keys, shows what they mean, marks mistakes while typing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel

from lbt_sim.errors import Place, ScenarioError, nearest
from lbt_sim.scenario.schema import AgentFile, ClassroomFile, PersonaFile, ScenarioFile
from lbt_sim.scenario.study import BUILT_IN_ARMS, StudyFile

__all__ = ["SCHEMA_KINDS", "SchemaKind", "schema", "write_schemas"]

SchemaKind = Literal["scenario", "study", "classroom", "agent", "persona"]
SCHEMA_KINDS: tuple[SchemaKind, ...] = get_args(SchemaKind)

_FILES: dict[str, type[BaseModel]] = {
    "scenario": ScenarioFile,
    "study": StudyFile,
    "classroom": ClassroomFile,
    "agent": AgentFile,
    "persona": PersonaFile,
}
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema(kind: str) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of one kind of file.

    Descriptions are the docstrings of `schema.py`. The options of each engine are those of the engines that are
    installed; the short forms that `lbt-sim` accepts are valid.

    Raises:
        ScenarioError: There is no such kind.
    """
    if kind not in _FILES:
        near = nearest(kind, SCHEMA_KINDS)
        raise ScenarioError(
            f"'{kind}' is not a kind of file" + (f"; did you mean '{near}'?" if near else ""),
            where=Place(key=kind),
            valid=SCHEMA_KINDS,
            remedy=f"Name one of them: lbt-sim schema {near or 'scenario'}",
        )
    made = _FILES[kind].model_json_schema(by_alias=True)
    if kind == "study":
        _accept_short_studies(made["properties"])
    definitions: dict[str, Any] = made.get("$defs", {})
    if "ModelSpec" in definitions:
        definitions["ModelSpec"] = _models(definitions)
    if "TaskSpec" in definitions:
        _complete_graders(definitions["TaskSpec"])
    _accept_short_forms(definitions)
    _tidy(made)
    return {"$schema": _DIALECT, **made, "title": f"lbt-sim {kind}"}


def _models(definitions: dict[str, Any]) -> dict[str, Any]:
    """A model: one alternative for each engine, told apart by `engine`."""
    alternatives = []
    for name, spec in _engines():
        options = spec.model_json_schema(by_alias=True)
        definitions |= options.pop("$defs", {})
        about = {"const": name, "description": options.get("description", "")}
        options["properties"] = {"engine": about, **options.get("properties", {})}
        options["required"] = ["engine", *options.get("required", [])]
        options["title"] = name
        alternatives.append(options)
    engine = {"enum": [one["title"] for one in alternatives], "description": "The engine that runs the model."}
    return {
        "title": "Model",
        "description": "A model and the engine that runs it; the other keys are the engine's own.",
        "type": "object",
        "required": ["engine"],
        "properties": {"engine": engine},
        "oneOf": alternatives,
    }


def _complete_graders(task: dict[str, Any]) -> None:
    """Names the graders that are there, for completion; one of a package that is elsewhere is valid all the same."""
    from lbt_sim.grading.load import grader_names

    grader = task["properties"]["grader"]
    grader["anyOf"] = [{"enum": list(grader_names())}, *grader["anyOf"]]


def _engines() -> Iterator[tuple[str, type[BaseModel]]]:
    from lbt_sim.models.registry import engine, engine_names

    for name in engine_names():
        try:
            yield name, engine(name).spec()
        except ScenarioError:  # a broken package of someone else's; `lbt-sim doctor` tells of it
            continue


def _accept_short_forms(definitions: dict[str, Any]) -> None:
    """Adds what `schema.py`'s validators take beside the full form."""
    if "ExamSpec" in definitions:
        number = {"type": "integer", "exclusiveMinimum": 0, "description": "Short for `problems`."}
        definitions["ExamSpec"] = _either(definitions["ExamSpec"], number)
    if "ReviseSpec" in definitions:
        operators = definitions["ReviseSpec"]["properties"]["operators"]
        names = [*operators["items"]["enum"], "none"]
        one = {**operators["items"], "enum": names, "description": "Short for one of `operators`, or for none of them."}
        several = {"type": "array", "items": operators["items"], "description": "Short for `operators`."}
        definitions["ReviseSpec"] = _either(definitions["ReviseSpec"], one, several)
    if "DiscussionSpec" in definitions:
        turns = definitions["DiscussionSpec"]["properties"]["turns"]
        number = {key: turns[key] for key in ("type", "minimum", "maximum")} | {"description": "Short for `turns`."}
        definitions["DiscussionSpec"] = _either(definitions["DiscussionSpec"], number)
    if "TopologySpec" in definitions:
        full = definitions["TopologySpec"]
        values = {"type": ["number", "boolean"]}
        name = {"type": "string", "description": full["properties"]["name"]["description"]}
        flat = {"type": "object", "required": ["name"], "properties": {"name": name}, "additionalProperties": values}
        nested = {"type": ["object", "null"], "additionalProperties": values}
        keyed = {"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": nested}
        # `{name: ring}` and `{file: x}` fit several of them, hence anyOf.
        definitions["TopologySpec"] = _either(full, name, flat, keyed)


def _accept_short_studies(study: dict[str, Any]) -> None:
    """Adds what a study's validators take beside the full form."""
    names = {"type": "array", "items": {"enum": list(BUILT_IN_ARMS)}, "description": "Built-in arms."}
    study["arms"] = _either(study["arms"], names)
    levels = study["factors"]["additionalProperties"]
    study["factors"]["additionalProperties"] = {"anyOf": [levels, {"type": "array"}]}
    study["equal_compute"] = {
        **study["equal_compute"],
        "anyOf": [*study["equal_compute"]["anyOf"], {"type": "boolean"}],
    }


def _either(full: dict[str, Any], *short: dict[str, Any]) -> dict[str, Any]:
    outer: dict[str, Any] = {key: full[key] for key in ("title", "description") if key in full}
    return {**outer, "anyOf": [full, *short]}


def _tidy(value: Any) -> None:
    """Puts each description on one line; docstrings are wrapped for reading in the source."""
    if isinstance(value, dict):
        if isinstance(value.get("description"), str):
            value["description"] = " ".join(value["description"].split())
        for inner in value.values():
            _tidy(inner)
    elif isinstance(value, list):
        for inner in value:
            _tidy(inner)


def write_schemas(folder: Path) -> list[Path]:
    """Writes `<kind>.schema.json` for every kind of file; the YAML's first line then names it for the editor."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for kind in SCHEMA_KINDS:
        file = folder / f"{kind}.schema.json"
        file.write_text(json.dumps(schema(kind), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        files.append(file)
    return files
