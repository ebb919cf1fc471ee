"""In what two scenarios differ, in words: whoever compares them has to know whether it is one thing or several."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from lbt_sim.scenario.schema import ScenarioFile

__all__ = ["EQUALISED", "differences", "leaves", "values_of"]

_WORDS = {
    "cast.students": "students",
    "cast.teacher": "teacher",
    "cast": "cast",
    "classroom": "classroom",
    "lesson": "lesson",
    "models": "models",
    "task": "problems",
    "method.revise.feedback": "feedback",
    "method.revise.donor": "feedback",
    "method.revise": "revision",
    "method.exam": "exams",
    "method.select": "selection",
    "method": "method",
}
"""Key -> what it is about; the longest prefix of a key counts. Others (seed, title, budget) make no difference."""
EQUALISED = ("method.exam.problems", "method.select.budget", "method.select.spend")
"""What equal compute sets."""


def leaves(value: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf by its dotted key; a list is a leaf, what is empty is none."""
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from leaves(inner, f"{before}{name}.")
        elif inner is not None:
            yield f"{before}{name}", inner


def values_of(file: ScenarioFile) -> dict[str, Any]:
    """Dotted key -> value, of everything in a scenario."""
    return dict(leaves(file.model_dump(by_alias=True, mode="json")))


def differences(a: Mapping[str, Any], b: Mapping[str, Any], ignored: Collection[str] = ()) -> tuple[str, ...]:
    """What differs between two conditions, each kind of thing once, in the order of a scenario's parts.

    Args:
        a: A scenario's values, by dotted key.
        b: Another's.
        ignored: Keys that make no difference.
    """
    differing = [key for key in a.keys() | b.keys() if a.get(key) != b.get(key)]
    words = {_word(key) for key in differing if key not in ignored}
    return tuple(word for word in dict.fromkeys(_WORDS.values()) if word in words)


def _word(key: str) -> str:
    while key not in _WORDS:
        if "." not in key:
            return ""
        key = key.rpartition(".")[0]
    return _WORDS[key]
