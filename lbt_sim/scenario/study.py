"""The shape of a study file: what is varied over a base scenario, how often, and what is compared with what."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, PositiveInt, field_validator, model_validator

from lbt_sim.scenario.schema import BudgetSpec, Spec

__all__ = ["BUILT_IN_ARMS", "ArmSpec", "BuiltInArm", "EqualComputeSpec", "SeedsSpec", "StudyBudget", "StudyFile"]

BuiltInArm = Literal["self", "one", "several", "clones", "resample", "shuffled", "no_revision"]
BUILT_IN_ARMS: tuple[BuiltInArm, ...] = get_args(BuiltInArm)

Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,39}$")]
"""Names of arms and levels: they become folders, and stand in tables."""


class SeedsSpec(Spec):
    """The seeds of a study: consecutive ones."""

    count: PositiveInt
    """How many."""
    first: int = Field(default=1, ge=0, lt=2**31)
    """The first of them."""


class ArmSpec(Spec):
    """What one arm does otherwise than the base scenario.

    Mappings are merged into the base's, everything else takes the place of what stands there.
    """

    like: BuiltInArm | None = None
    """A built-in arm to begin with; an arm that has the name of one is like it without saying so.

    `self`: the teacher is its own student. `one`: the first of the base's students alone. `several`: the base's
    students. `clones`: as many exact copies of the first one. `resample`: the base's students, but the teacher
    revises without being told of their failures. `shuffled`: it is told of another run's. `no_revision`: it teaches,
    and nothing is revised."""
    of: Label | None = None
    """Another arm to begin with, in place of the base: `{of: clones, like: resample}` is clones without feedback."""
    title: str = ""
    """A few words for the report: `three different students`."""
    students: Any = None
    """Short for `cast.students`: `teacher`, a list of seats, or `compose` (see `scenarios/README.md`)."""
    teacher: Any = None
    """Short for `cast.teacher`."""
    revise: Any = None
    """Short for `method.revise`."""
    donor: Label | None = None
    """With `shuffled` feedback: the arm whose runs give their failures; without it the first that has the same
    students and is told of its own."""
    models: dict[str, Any] = Field(default={})
    """As in a scenario."""
    task: dict[str, Any] = Field(default={})
    """As in a scenario."""
    classroom: Any = None
    """As in a scenario."""
    cast: dict[str, Any] = Field(default={})
    """As in a scenario."""
    lesson: dict[str, Any] = Field(default={})
    """As in a scenario."""
    method: dict[str, Any] = Field(default={})
    """As in a scenario."""
    set: dict[str, Any] = Field(default={})
    """`key.path: value`, done last."""


class EqualComputeSpec(Spec):
    """How arms are given the same number of answers and of generated tokens."""

    by: Literal["exam", "select"] = "exam"
    """Where arms that would use less get the rest: in longer exams for their students, or in a larger `select.budget`
    for the teacher's own answers."""


class StudyBudget(BudgetSpec):
    """What a study may spend; `failed` holds for each run."""


class StudyFile(Spec):
    """A study: a base scenario, what is varied, seeds, comparisons."""

    kind: Literal["study"] = "study"
    version: Literal[1] = 1
    title: str = ""
    """The question, as the report puts it."""
    description: str = ""
    """What to look at."""
    base: str
    """A scenario: a name, or a path relative to this file."""
    engine: str | None = None
    """Puts every model of the base on this engine, as `--engine` does."""
    set: dict[str, Any] = Field(default={})
    """`key.path: value`: changes of the base that hold for every run."""
    seeds: PositiveInt | list[int] | SeedsSpec = 10
    """How many (from 1 on), which, or `{first: …, count: …}`. Each condition is run once with each seed, and compared
    seed by seed."""
    arms: dict[Label, ArmSpec | None] = Field(default={})
    """Name -> what is different; a list of built-in arms is a short form."""
    factors: dict[str, dict[Label, Any]] = Field(default={})
    """Key -> its levels, by name; a list of values is a short form. A key is a dotted key of the scenario, or one of
    `students`, `classroom`, `engine`, and `persona`, `model`, `temperature` (of every student)."""
    combinations: Literal["full"] | list[dict[str, Any]] = "full"
    """Which levels go together: all with all, or those given: a list of `{factor: level}`."""
    compare: list[Annotated[list[str], Field(min_length=2, max_length=2)]] | None = None
    """Pairs [a, b]: a minus b. Names of arms, of levels (`exam=12`), of both (`diverse/exam=12`): compared are the
    conditions that have them, with all else alike. The first is the study's question. Without it each arm (or
    combination of levels) is compared with the first."""
    metric: Literal["accuracy", "f1"] = "accuracy"
    """The teacher's held-out score that is compared."""
    outcome: Literal["last", "area"] = "last"
    """Which of a run: after its last round, or the mean over its rounds from 1 on."""
    smallest_effect: float | None = Field(default=None, gt=0, lt=1)
    """The smallest difference that would matter, as a share of 1: `0.02` is two points. What is not shown is then told
    apart: `equivalent` where the whole interval is smaller, `not shown` where it may be as large."""
    equal_compute: EqualComputeSpec | None = None
    """Gives every arm the same number of answers; `true` is short for `{by: exam}`."""
    budget: StudyBudget = StudyBudget()
    """What the whole study may spend; it stops, resumable, before a run that it has no budget for."""

    @field_validator("arms", mode="before")
    @classmethod
    def _arms(cls, value: Any) -> Any:
        return dict.fromkeys(value) if isinstance(value, list) and all(isinstance(v, str) for v in value) else value

    @field_validator("factors", mode="before")
    @classmethod
    def _factors(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: _named(levels) if isinstance(levels, list) else levels for key, levels in value.items()}

    @field_validator("equal_compute", mode="before")
    @classmethod
    def _equal(cls, value: Any) -> Any:
        return {True: {}, False: None}[value] if isinstance(value, bool) else value

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, value: Any) -> Any:
        if isinstance(value, list):
            if not value or len(set(value)) < len(value):
                raise ValueError("give each seed once, and at least one")
            if not all(0 <= seed < 2**31 for seed in value):
                raise ValueError("a seed is a whole number from 0 to 2147483647")
        return value

    @model_validator(mode="after")
    def _something(self) -> StudyFile:
        if not self.arms and not self.factors:
            raise ValueError("a study varies something: give `arms`, `factors`, or both")
        return self

    @property
    def seed_list(self) -> tuple[int, ...]:
        """Every seed."""
        if isinstance(self.seeds, list):
            return tuple(self.seeds)
        spec = self.seeds if isinstance(self.seeds, SeedsSpec) else SeedsSpec(count=self.seeds)
        return tuple(range(spec.first, spec.first + spec.count))


def _named(levels: list[Any]) -> dict[str, Any]:
    """Levels by the name that a plain value is its own; others are numbered."""
    named: dict[str, Any] = {}
    for number, level in enumerate(levels, 1):
        name = _text(level) if isinstance(level, (str, int, float, bool)) else f"level{number}"
        if name in named:
            raise ValueError(f"two levels are called '{name}'; give each a name: `{{first: …, second: …}}`")
        named[name] = level
    return named


def _text(level: str | float | bool) -> str:
    """A plain value as YAML has it."""
    return str(level).lower() if isinstance(level, bool) else str(level)
