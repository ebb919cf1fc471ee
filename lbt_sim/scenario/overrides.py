"""What `--set key.path=value` does to a scenario that was read."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from lbt_sim.errors import Place, ScenarioError, nearest
from lbt_sim.scenario.validation import show
from lbt_sim.scenario.yaml import Document, KeyPath, core_scalar, dotted, parse_path, read_value

__all__ = ["apply_overrides", "override", "parse_set", "put"]


def apply_overrides(value: Mapping[str, Any], sets: Sequence[str]) -> dict[str, Any]:
    """A copy of `value` with each `key.path=value` of `sets` done, in order.

    Raises:
        ScenarioError: No '=', a path that cannot be walked, an index that is out of range.
    """
    return override(Document(dict(value), ""), sets).value


def override(document: Document, sets: Sequence[str]) -> Document:
    """A copy of the document with each of `sets` done; `place` names the flag for what it set."""
    value = copy.deepcopy(document.value)
    flags = dict(document.flags)
    for text in sets:
        path, new = parse_set(text)
        flag = f"--set {text}"
        where = put(value, path, new, flag)
        for below in [known for known in flags if known[: len(where)] == where]:
            del flags[below]
        flags[where] = flag
    return Document(value, document.file, document.lines, flags)


def parse_set(text: str) -> tuple[KeyPath, Any]:
    """The path and the value in `key.path=value`.

    The path's steps are keys and indices, `cast.students[1].persona` or `cast.students.1.persona`. A value that
    begins with a bracket, a brace or a quote is YAML; any other is one plain scalar, so that text needs no quotes.
    """
    left, equals, right = text.partition("=")
    where = Place(key=f"--set {text}")
    if not equals:
        raise ScenarioError("there is no '=' in it", where=where, remedy="Write --set key.path=value.")
    try:
        path = parse_path(left.strip())
    except ValueError:
        path = ()
    if not path or isinstance(path[0], int):
        raise ScenarioError(
            f"'{left}' is not the path of a key", where=where, remedy="Write it like cast.students[1].persona=literal."
        )
    right = right.strip()
    if right[:1] in ("[", "{", '"', "'"):
        try:
            return path, read_value(right, "")
        except ScenarioError as error:
            raise ScenarioError(error.what, where=where, remedy=error.remedy) from None
    try:
        return path, core_scalar(right)
    except ValueError as error:
        raise ScenarioError(str(error), where=where, remedy="Give a finite number.") from None


def put(root: dict[str, Any], path: KeyPath, new: Any, flag: str) -> KeyPath:
    """Sets the value at a path, making mappings where there is nothing; gives the path with indices as numbers.

    Args:
        root: What is changed.
        path: Keys and indices.
        new: The value.
        flag: Who says so, for messages.

    Raises:
        ScenarioError: The path cannot be walked.
    """
    here: Any = root
    done: list[str | int] = []
    for number, step in enumerate(path):
        last = number == len(path) - 1
        key = _step(here, step, tuple(done), flag)
        done.append(key)
        if last:
            here[key] = new
        elif isinstance(here, dict) and here.get(key) is None:
            here[key] = here = {}
        else:
            here = here[key]
    return tuple(done)


def _step(here: Any, step: str | int, done: KeyPath, flag: str) -> str | int:
    """The key or index that a step means in what stands there."""
    name = f"'{dotted(done)}'"
    where = Place(key=flag)
    if isinstance(here, list):
        index = int(step) if isinstance(step, int) or (step.isascii() and step.isdigit()) else None
        if index is None:
            raise ScenarioError(
                f"{name} is a list, so '{step}' cannot be a key of it", where=where, remedy=f"Write {dotted(done)}[0]."
            )
        if index >= len(here):
            raise ScenarioError(
                f"{name} has {len(here)} entries, numbered from 0; there is no [{index}]",
                where=where,
                remedy=f"Use an index below {len(here)}, or set the whole list.",
            )
        return index
    if not isinstance(here, dict):
        raise ScenarioError(
            f"{name} is {show(here)}, so '{step}' cannot be set in it",
            where=where,
            remedy=f"Set the whole of it: --set '{dotted(done)}={{{step}: …}}'.",
        )
    if isinstance(step, int):
        if not here:
            remedy = f"Set the whole list: --set '{dotted(done)}=[…]'."
            raise ScenarioError(f"{name} is not written in the scenario", where=where, remedy=remedy)
        near = nearest(str(step), here)
        remedy = f"Its keys are {', '.join(here)}." + (f" Did you mean '{near}'?" if near else "")
        raise ScenarioError(f"{name} is a mapping, so it has no [{step}]", where=where, remedy=remedy)
    return step
