"""Casts by degree of diversity: `students: {compose: {count: 4, distinct: 2, persona: […], …}}`.

Students are of `distinct` kinds, in turn; those of one kind are exact copies. What sets kinds apart is listed:
personas, models, knowledge, sampling temperatures, and which words they are blind to. So head count and diversity can
be varied each for itself.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, PositiveInt

from lbt_sim.errors import ScenarioError
from lbt_sim.scenario.schema import Spec
from lbt_sim.scenario.validation import validate_model
from lbt_sim.scenario.vary import with_value
from lbt_sim.scenario.yaml import Document

__all__ = ["ComposeSpec", "composed"]

_AT = ("cast", "students")


class ComposeSpec(Spec):
    """Students of some kinds."""

    count: PositiveInt
    """How many students."""
    distinct: PositiveInt | None = None
    """How many kinds; without it every student is a kind of its own. Kind k takes the k-th entry of each list, from
    the beginning again where a list is shorter."""
    persona: list[str] = Field(default=[], max_length=1000)
    """Personas."""
    model: list[str] = Field(default=[], max_length=1000)
    """Names under `models`."""
    knowledge: list[dict[str, Any]] = Field(default=[], max_length=1000)
    """What a student keeps or may know, as a seat's `knowledge`."""
    temperature: list[float] = Field(default=[], max_length=1000)
    """At which it answers."""
    blind_spots: bool = True
    """Whether kinds differ in the words that simulated learners are blind to, and in their slips."""


def composed(document: Document, origin: str) -> Document:
    """The document with composed students written out as seats; as it is where there are none.

    Raises:
        ScenarioError: What is said under `compose` is not valid.
    """
    written = document.at(_AT)
    if not isinstance(written, dict):
        return document
    if set(written) != {"compose"}:
        raise ScenarioError(
            "students are `teacher`, a list of seats, or `compose`",
            where=document.place(_AT),
            valid=["teacher", "[{persona: …}, …]", "{compose: {count: …}}"],
            remedy="Write them in one of these ways.",
        )
    spec = validate_model(document, ComposeSpec, (*_AT, "compose"))
    kinds = spec.distinct or spec.count
    if kinds > spec.count:
        raise ScenarioError(
            f"{spec.count} students cannot be of {kinds} kinds",
            where=document.place((*_AT, "compose", "distinct")),
            remedy="Lower `distinct`, or raise `count`.",
        )
    return with_value(document, _AT, [_seat(spec, number % kinds) for number in range(spec.count)], origin)


def _seat(spec: ComposeSpec, kind: int) -> dict[str, Any]:
    seat: dict[str, Any] = {"traits": {"mind": f"kind{kind + 1 if spec.blind_spots else ''}"}}
    for name in ("persona", "model", "knowledge"):
        if values := getattr(spec, name):
            seat[name] = values[kind % len(values)]
    if spec.temperature:
        seat["sampling"] = {"answer": {"temperature": spec.temperature[kind % len(spec.temperature)]}}
    return seat
