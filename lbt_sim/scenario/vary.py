"""Variants of a scenario that was read: values merged in, keys set, each remembered with where the change stands."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lbt_sim.scenario.overrides import put
from lbt_sim.scenario.presets import expand_short_forms
from lbt_sim.scenario.yaml import Document, KeyPath

__all__ = ["merged", "with_value"]


def merged(document: Document, changes: Mapping[str, Any], origin: str) -> Document:
    """A copy with `changes` merged in: mappings into mappings, anything else in place of what stands there.

    Args:
        document: A scenario's document, short forms written out.
        changes: As a scenario would say it.
        origin: Where the changes stand, for messages.
    """
    value = copy.deepcopy(document.value)
    replaced: list[KeyPath] = []
    _merge(value, expand_short_forms(copy.deepcopy(dict(changes))), (), replaced)
    return _noted(replace(document, value=value), replaced, origin)


def with_value(document: Document, path: KeyPath, new: Any, origin: str) -> Document:
    """A copy with one value set.

    Raises:
        ScenarioError: The path cannot be walked.
    """
    value = copy.deepcopy(document.value)
    where = put(value, path, copy.deepcopy(new), origin)
    return _noted(replace(document, value=value), [where], origin)


def _merge(here: dict[str, Any], change: Mapping[str, Any], path: KeyPath, replaced: list[KeyPath]) -> None:
    for key, new in change.items():
        there = here.get(key)
        if isinstance(new, dict) and isinstance(there, dict):
            _merge(there, new, (*path, key), replaced)
        else:
            here[key] = new
            replaced.append((*path, key))


def _noted(document: Document, replaced: list[KeyPath], origin: str) -> Document:
    """The document with what was replaced no longer at its old lines."""

    def gone(key: KeyPath) -> bool:
        return any(key[: len(path)] == path for path in replaced)

    lines = {key: line for key, line in document.lines.items() if not gone(key)}
    flags = {key: flag for key, flag in document.flags.items() if not gone(key)}
    return replace(document, lines=lines, flags={**flags, **dict.fromkeys(replaced, origin)})
