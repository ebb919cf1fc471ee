"""From an arm and the levels of factors to a scenario: what is merged into the base, and the built-in arms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lbt_sim.errors import Place, ScenarioError
from lbt_sim.scenario.load import on_engine
from lbt_sim.scenario.schema import CastSpec, ScenarioFile, SeatSpec
from lbt_sim.scenario.study import BUILT_IN_ARMS, ArmSpec, BuiltInArm
from lbt_sim.scenario.vary import merged, with_value
from lbt_sim.scenario.yaml import Document, parse_path
from lbt_sim.study.compose import composed

__all__ = ["Origin", "arm_title", "kind_of", "with_arm", "with_level"]

Origin = Callable[..., str]
"""Keys of the study file -> where that stands, for messages."""

_PARTS = ("models", "task", "classroom", "cast", "lesson", "method")
_STUDENTS = ("cast", "students")
_OF_STUDENTS = ("persona", "model", "temperature")
"""Factors that set something of every student."""


def kind_of(name: str, spec: ArmSpec | None) -> BuiltInArm | None:
    """The built-in arm that this one begins with."""
    if spec is not None and spec.like is not None:
        return spec.like
    return next((kind for kind in BUILT_IN_ARMS if kind == name), None)


def with_arm(base: Document, name: str, spec: ArmSpec | None, origin: Origin) -> Document:
    """The base as this arm has it.

    Args:
        base: The base scenario's document.
        name: The arm.
        spec: What the study says of it.
        origin: Gives the place of a key of the study.

    Raises:
        ScenarioError: Something cannot be set as it is said.
    """
    arm, document = spec or ArmSpec(), base
    kind = kind_of(name, spec)
    for part in _PARTS:
        if (given := getattr(arm, part)) not in (None, {}):
            document = merged(document, {part: given}, origin("arms", name, part))
    for short, change in (
        ("students", {"cast": {"students": arm.students}}),
        ("teacher", {"cast": {"teacher": arm.teacher}}),
        ("revise", {"method": {"revise": arm.revise}}),
    ):
        if getattr(arm, short) is not None:
            document = merged(document, change, origin("arms", name, short))
    for key, value in arm.set.items():
        document = with_value(document, parse_path(key), value, origin("arms", name, "set", key))
    if kind is not None:
        given = arm.students is not None or "students" in arm.cast or "cast.students" in arm.set
        _refuse_other_words(base, document, kind, origin("arms", name))
        document = _built_in(document, kind, given=given, at=origin("arms", name))
    return document


def _refuse_other_words(base: Document, document: Document, kind: BuiltInArm, at: str) -> None:
    """Refuses an arm that says itself what the built-in arm that it begins with says otherwise."""
    fixed: Mapping[BuiltInArm, tuple[str, Any]] = {
        "resample": ("feedback", "none"),
        "shuffled": ("feedback", "shuffled"),
        "no_revision": ("operators", []),
    }
    if kind not in fixed:
        return
    key, value = fixed[kind]
    said = document.at(("method", "revise", key))
    if said not in (base.at(("method", "revise", key)), value):
        raise ScenarioError(
            f"'{kind}' is an arm with {key} {value or 'none'}, and this one says {key} {said}",
            where=Place(key=at),
            remedy="Take that away, or give the arm another name and say all that it is.",
        )


def with_level(document: Document, factor: str, level: Any, origin: str) -> Document:
    """The document with a factor at a level.

    Raises:
        ScenarioError: The key cannot be set.
    """
    if factor == "engine":
        return on_engine(document, str(level))
    if factor == "distinct":
        return with_value(document, (*_STUDENTS, "compose", "distinct"), level, origin)
    if factor in ("students", "teacher"):
        return merged(document, {"cast": {factor: level}}, origin)
    if factor in _OF_STUDENTS:
        students = _students(document, origin)
        seats = [_with(seat, factor, level) for seat in students]
        return with_value(document, _STUDENTS, seats, origin)
    change: Any = level
    for key in reversed(parse_path(factor)):
        if isinstance(key, int):
            return with_value(document, parse_path(factor), level, origin)
        change = {key: change}
    return merged(document, change, origin)


def _with(seat: Mapping[str, Any], factor: str, level: Any) -> dict[str, Any]:
    if factor == "temperature":
        sampling = seat.get("sampling") or {}
        answer = {**(sampling.get("answer") or {}), "temperature": float(level)}
        return {**seat, "sampling": {**sampling, "answer": answer}}
    return {**seat, factor: level}


def _built_in(document: Document, kind: BuiltInArm, *, given: bool, at: str) -> Document:
    """What a built-in arm is; `given`: the study says who the students are."""
    if kind == "self":
        return document if given else with_value(document, _STUDENTS, "teacher", at)
    if kind == "one" and not given:
        first = _students(document, at)[0]
        return with_value(document, _STUDENTS, [{**first, "count": 1}], at)
    if kind == "clones":
        students = _students(document, at)
        if not given:
            total = sum(int(seat.get("count", 1)) for seat in students)
            students = [{**students[0], "count": total}]
        clones = [
            {**seat, "traits": {"mind": f"clone{number}", **(seat.get("traits") or {})}}
            for number, seat in enumerate(students, 1)
        ]
        return with_value(document, _STUDENTS, clones, at)
    if kind in ("resample", "shuffled"):
        feedback = "none" if kind == "resample" else "shuffled"
        return merged(document, {"method": {"revise": {"feedback": feedback}}}, at)
    if kind == "no_revision":
        return merged(document, {"method": {"revise": {"operators": []}}}, at)
    return document


def _students(document: Document, origin: str) -> list[dict[str, Any]]:
    """The students' seats as they are written, composed ones written out."""
    written = composed(document, origin).at(_STUDENTS)
    if written is None:
        return [{}]
    if isinstance(written, list) and written and all(isinstance(seat, dict) for seat in written):
        return written
    raise ScenarioError(
        "this arm is made from the students, and here they are no list of seats",
        where=document.place(_STUDENTS),
        remedy=f"Write them as a list of seats: `students: [{{persona: literal}}]`. Asked for by {origin}.",
    )


def arm_title(name: str, spec: ArmSpec | None, file: ScenarioFile) -> str:
    """A few words for people: what is special about this arm."""
    if spec is not None and spec.title:
        return spec.title
    cast = file.cast
    if cast.students == "teacher":
        return "the teacher as its own student"
    count = heads(cast)
    kind = kind_of(name, spec)
    who = _count(count, "student")
    words: Mapping[BuiltInArm | None, str] = {
        "one": who,
        "several": f"{_number(count)} different students",
        "clones": f"{_count(count, 'clone')} of {_count(len(cast.students), 'student')}",
        "resample": f"{who}, resampling without feedback",
        "shuffled": f"{who}, another run's failures",
        "no_revision": f"{who}, no revision",
    }
    return words.get(kind, f"{name} ({who})")


def heads(cast: CastSpec) -> int:
    """How many students there are."""
    if isinstance(cast.students, str):
        return 1
    return sum(seat.count for seat in cast.students if isinstance(seat, SeatSpec))


def _count(number: int, noun: str) -> str:
    return f"{_number(number)} {noun}{'s' * (number != 1)}"


def _number(number: int) -> str:
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    return words[number] if number < len(words) else str(number)
