"""Named settings of the method, short forms written out, and where each value of a scenario comes from.

A preset gives defaults under what the scenario says: anything written there, or set with `--set`, wins.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel

from lbt_sim.scenario.yaml import Document, KeyPath, dotted

__all__ = ["PRESETS", "Explained", "Setting", "apply_preset", "expand_short_forms", "explain"]


class Setting(NamedTuple):
    """A value of a preset, and who says so."""

    value: Any
    source: str


_PAPER = "arXiv 2406.14629v3, M3"
_CODE = "the code published with arXiv 2406.14629"
_CODE_FOR_PAPER = "the published code's value; the paper states none"

# Decoding (temperatures, token limits) belongs to agents, not to the method: see `sampling` in agents/*.yaml.
_PUBLISHED: Mapping[KeyPath, Any] = {
    ("rounds",): 5,  # and round 0, which is always there
    ("exemplars",): 8,
    ("beam",): 4,
    ("exam", "problems"): 64,  # shared by the whole beam
    ("revise", "operators"): ["rewrite"],
    ("revise", "failures"): 4,  # drawn uniformly from the pooled failures of all students
    ("revise", "reflections"): 4,
    ("revise", "rewrites"): 1,
    ("revise", "keep"): 8,  # only a cap
    ("revise", "mix"): 1,  # `gradient_mix`
    ("select", "by"): "teacher",
    ("select", "strategy"): "uniform",  # the same random subset of train for every candidate
    ("select", "metric"): "accuracy",
    ("select", "ties"): "first",
    ("select", "budget"): 2048,  # answers, shared by all candidates
    ("select", "rescore"): 0,
}

# What the paper itself states: 5 rounds, 8 exemplars, beam 4, 8 new sets per current set, the teacher's F1 on train.
_STATED: Mapping[KeyPath, Any] = {
    ("rounds",): 5,
    ("start",): "written",
    ("exemplars",): 8,
    ("beam",): 4,
    ("revise", "operators"): ["rewrite"],
    ("revise", "reflections"): 8,  # with one rewrite each: 8 new sets per current set
    ("revise", "rewrites"): 1,
    ("select", "by"): "teacher",
    ("select", "metric"): "f1",
}

PRESETS: Mapping[str, Mapping[KeyPath, Setting]] = {
    "default": {},
    "published-code": {path: Setting(value, _CODE) for path, value in _PUBLISHED.items()},
    "paper": {
        **{path: Setting(value, _CODE_FOR_PAPER) for path, value in _PUBLISHED.items()},
        **{path: Setting(value, _PAPER) for path, value in _STATED.items()},
    },
}
"""Preset -> key path under `method` -> value and source."""


def expand_short_forms(value: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a scenario with `exam: 24`, `revise: [..]` and `discussion: 1` written out, to add other keys to."""
    value = dict(value)
    lesson = value.get("lesson")
    if isinstance(lesson, dict) and _is_number(lesson.get("discussion")):
        value["lesson"] = {**lesson, "discussion": {"turns": lesson["discussion"]}}
    method = value.get("method")
    if isinstance(method, dict):
        method = value["method"] = dict(method)
        if _is_number(method.get("exam")):
            method["exam"] = {"problems": method["exam"]}
        revise = method.get("revise")
        if isinstance(revise, (str, list)):
            short = [] if revise == "none" else [revise] if isinstance(revise, str) else revise
            method["revise"] = {"operators": short}
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def apply_preset(value: Mapping[str, Any]) -> tuple[dict[str, Any], dict[KeyPath, str]]:
    """A copy of a scenario completed by the preset that it names, and which key came from where.

    An unknown preset adds nothing; the scenario's validation refuses it.
    """
    full = copy.deepcopy(expand_short_forms(value))
    method = full.get("method")
    name = method.get("preset") if isinstance(method, dict) else None
    origins: dict[KeyPath, str] = {}
    if not isinstance(method, dict) or not isinstance(name, str):
        return full, origins
    for path, setting in PRESETS.get(name, {}).items():
        inner: Any = method
        for key in path[:-1]:
            inner = inner.setdefault(key, {}) if isinstance(inner, dict) else None
        if isinstance(inner, dict) and path[-1] not in inner:
            inner[path[-1]] = copy.deepcopy(setting.value)
            origins["method", *path] = f"preset {name}: {setting.source}"
    return full, origins


class Explained(NamedTuple):
    """One value of a scenario, and where it comes from."""

    key: str
    value: Any
    origin: str


def explain(file: BaseModel, document: Document, presets: Mapping[KeyPath, str]) -> list[Explained]:
    """Every value of a checked file, in its order, with where it comes from.

    Args:
        file: The checked file.
        document: What it was made from: values that were written, and flags.
        presets: Key path -> the preset that gave it (from `apply_preset`).
    """
    rows = []
    for path, value in _leaves(file.model_dump(by_alias=True), ()):
        origin = presets.get(path) or document.flag(path) or ("scenario" if _written(document, path) else "default")
        rows.append(Explained(dotted(path), value, origin))
    return rows


def _leaves(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        for number, inner in enumerate(value):
            yield from _leaves(inner, (*path, number))
    else:
        yield path, value


def _written(document: Document, path: KeyPath) -> bool:
    """Whether the value stands in the file, be it in a short form (`ring` for `{name: ring}`)."""
    here: Any = document.value
    for key in path:
        if isinstance(here, dict):
            if key not in here:
                return False
            here = here[key]
        elif isinstance(here, list) and isinstance(key, int):
            here = here[key] if key < len(here) else None
        else:
            return here is not None
    return True
