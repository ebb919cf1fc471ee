"""From a study file to its plan: every condition as a checked scenario, every run, what is compared with what."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lbt_sim.errors import Place, ScenarioError, nearest
from lbt_sim.library import FolderLayer, Library, beside, built_in
from lbt_sim.scenario.load import Base, LoadedScenario, on_engine, read_base
from lbt_sim.scenario.overrides import override
from lbt_sim.scenario.schema import ScenarioFile
from lbt_sim.scenario.study import BUILT_IN_ARMS, ArmSpec, StudyFile
from lbt_sim.scenario.validation import validate_model
from lbt_sim.scenario.vary import with_value
from lbt_sim.scenario.yaml import Document, parse_path, read_text, read_yaml
from lbt_sim.study.arms import arm_title, kind_of, with_arm, with_level
from lbt_sim.study.comparisons import called, comparisons_of, condition_name
from lbt_sim.study.compose import composed
from lbt_sim.study.differ import differences, values_of
from lbt_sim.study.equal import equalised
from lbt_sim.study.results import Condition

__all__ = ["Plan", "Planned", "PlannedRun", "load_study"]


@dataclass(frozen=True)
class Planned:
    """A condition as it will be run.

    Attributes:
        condition: What it is called, and what is special about it.
        slug: Its folder.
        loaded: Its scenario; each run has its own seed.
        donor: The condition whose runs give their failures to this one's; None where it uses its own.
    """

    condition: Condition
    slug: str
    loaded: LoadedScenario
    donor: str | None = None


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One run: a condition with a seed.

    Attributes:
        condition: Its condition's name.
        seed: Its seed.
        folder: Relative to the study's.
        donor: (condition, seed) of the run whose failures it is given, which has to be done before.
    """

    condition: str
    seed: int
    folder: str
    donor: tuple[str, int] | None = None


@dataclass(frozen=True)
class Plan:
    """A study, checked; nothing has been run.

    Attributes:
        name: The study's name.
        file: Its values.
        conditions: In the order of arms, then levels.
        comparisons: (a, b) of conditions' names.
        differs: In what the two of each comparison differ, in words.
        notes: Where equal compute cannot be had, and by how much.
        source: Its file, as shown to people.
        document: What is written there.
    """

    name: str
    file: StudyFile
    conditions: tuple[Planned, ...]
    comparisons: tuple[tuple[str, str], ...]
    differs: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    source: str
    document: Document

    @property
    def runs(self) -> Iterator[PlannedRun]:
        """Every run, seed by seed."""
        slugs = {planned.condition.name: planned.slug for planned in self.conditions}
        seeds = self.file.seed_list
        for number, seed in enumerate(seeds):
            for planned in self.conditions:
                donor = None if planned.donor is None else (planned.donor, seeds[(number + 1) % len(seeds)])
                name = planned.condition.name
                yield PlannedRun(name, seed, f"runs/{slugs[name]}/{seed}", donor)


_FIXED = ("kind", "version", "title", "description", "seed", "budget")
"""Keys of a scenario that make no condition: each run has its own seed (`seeds`)."""
_VARIED = (
    *("students", "teacher", "engine", "persona", "model", "temperature", "distinct"),
    *(name for name in ScenarioFile.model_fields if name not in _FIXED),
)


@dataclass(frozen=True)
class _Study:
    """A study file that was read."""

    document: Document
    file: StudyFile
    name: str

    def origin(self, *key: str | int) -> str:
        """Where a key stands, in words."""
        return str(self.document.place(key))

    def error(self, key: Sequence[str | int], what: str, valid: Sequence[str] = (), remedy: str = "") -> ScenarioError:
        return ScenarioError(what, where=self.document.place(key), valid=valid, remedy=remedy)


def load_study(
    name_or_path: str,
    *,
    sets: Sequence[str] = (),
    engine: str | None = None,
    data: Sequence[Path | str] = (),
    cwd: Path | None = None,
) -> Plan:
    """Reads a study, completes it and checks every scenario in it.

    Args:
        name_or_path: A name (`diversity`: in `scenarios/studies/` here, then in the built-in library) or a path.
        sets: `key.path=value`, done in order: changes of the study file where the key is one of a study's, else of the
            base scenario, as `set` says them.
        engine: Puts every model of every condition on this engine.
        data: Folders to look for data files in.
        cwd: The working directory, if it is another than the process's.

    Raises:
        ScenarioError: Anything that is wrong with it, with file, line and key.
    """
    cwd = (cwd or Path.cwd()).resolve()
    text, shown, path = _open(name_or_path, cwd)
    own = [one for one in sets if _first(one) in StudyFile.model_fields]
    document = override(read_yaml(text, shown), own)
    study = _Study(document, validate_model(document, StudyFile), path.stem)
    base = _base(study, path, data, cwd)
    rest = [one for one in sets if one not in own]
    for entry in rest:
        _refuse_unknown(entry)
    start = override(_changed(study, base.document), rest)
    if study.file.engine is not None:
        start = on_engine(start, study.file.engine)
    variants = list(_variants(study, start))
    if engine is not None:
        variants = [replace(one, document=on_engine(one.document, engine)) for one in variants]
    loaded = [base.load(composed(one.document, one.origin)) for one in variants]
    # What equal compute sets is no difference: it makes conditions alike.
    values = {one.name: values_of(scenario.file) for one, scenario in zip(variants, loaded, strict=True)}
    notes: list[str] = []
    if study.file.equal_compute is not None:
        where = document.place(("equal_compute",))
        changed = equalised(loaded, [one.name for one in variants], study.file.equal_compute, where)
        notes, loaded = (
            list(changed.notes),
            [
                scenario if not sets_ else base.load(_with_all(scenario.document, sets_, study))
                for scenario, sets_ in zip(loaded, changed.sets, strict=True)
            ],
        )
    for one, scenario in zip(variants, loaded, strict=True):
        _refuse_contradiction(study, one, scenario)
    conditions = _conditions(study, variants, loaded)
    conditions = tuple(_with_donor(one, _donor(study, one, conditions)) for one in conditions)
    comparisons = comparisons_of(study.file, [one.condition for one in conditions], study.error)
    differs = tuple(differences(values[a], values[b]) for a, b in comparisons)
    return Plan(study.name, study.file, conditions, comparisons, differs, tuple(notes), shown, document)


def _open(name: str, cwd: Path) -> tuple[str, str, Path]:
    """A study's text, its file as shown to people, and its path."""
    if name.endswith((".yaml", ".yml")) or "/" in name:
        path = cwd / Path(name).expanduser()
        if not path.is_file():
            remedy = "Correct the path, or give the name of a study: `lbt-sim study diversity`."
            raise ScenarioError("there is no such file", where=Place(name), remedy=remedy)
        return read_text(path, name), name, path
    layers = [FolderLayer(cwd, "here"), built_in()]
    for layer in layers:
        if name in layer.names("scenarios/studies"):
            source = Library([layer]).find("scenarios/studies", name)
            return source.text, source.file, layer.root / source.path
    Library(layers).find("scenarios/studies", name, where=Place(key=name))
    raise AssertionError(name)  # find raises for a name that no layer lists


def _refuse_unknown(entry: str) -> None:
    """Refuses a change of a key that is neither a study's nor one of its base that runs may have in common."""
    valid = [*StudyFile.model_fields, *(name for name in ScenarioFile.model_fields if name not in _FIXED)]
    if (first := _first(entry)) and first not in valid:
        near = nearest(first, valid)
        raise ScenarioError(
            f"'{first}' is no key of a study, nor of its base" + (f"; did you mean '{near}'?" if near else ""),
            where=Place(key=f"--set {entry}"),
            valid=list(dict.fromkeys(valid)),
            remedy="Correct the key.",
        )


def _first(entry: str) -> str:
    """The first key of a `key.path=value`."""
    try:
        return str(parse_path(entry.partition("=")[0].strip())[0])
    except (ValueError, IndexError):
        return ""


def _base(study: _Study, path: Path, data: Sequence[Path | str], cwd: Path) -> Base:
    """The base scenario; a path is relative to the study's file."""
    name = study.file.base
    if name.endswith((".yaml", ".yml")) or "/" in name:
        found = path.parent / Path(name).expanduser()
        if not found.is_file():
            raise study.error(("base",), f"there is no file {name}", remedy="Write its path relative to the study's.")
        name = str(found)
    try:
        return read_base(name, data=data, cwd=cwd, beside_too=beside(path))
    except ScenarioError as error:
        if error.where is None or error.where.file is None:
            error.where = study.document.place(("base",))
        raise


def _changed(study: _Study, document: Document) -> Document:
    for key, value in study.file.set.items():
        document = with_value(document, _path(study, key, ("set", key)), value, study.origin("set", key))
    return document


def _path(study: _Study, key: str, at: Sequence[str | int]) -> tuple[str | int, ...]:
    try:
        return parse_path(key)
    except ValueError:
        raise study.error(at, f"'{key}' is not the path of a key", remedy="Write it like method.rounds.") from None


def _with_all(document: Document, values: Mapping[str, Any], study: _Study) -> Document:
    for key, value in values.items():
        document = with_value(document, parse_path(key), value, study.origin("equal_compute"))
    return document


@dataclass(frozen=True)
class _Variant:
    name: str
    arm: str
    spec: ArmSpec | None
    levels: Mapping[str, str]
    document: Document
    origin: str


def _variants(study: _Study, start: Document) -> Iterator[_Variant]:
    """Every condition's document: arms, at each combination of levels."""
    arms: Mapping[str, ArmSpec | None] = study.file.arms or {"": None}
    for arm, spec in study.file.arms.items():
        if spec is None and kind_of(arm, spec) is None:
            near = nearest(arm, BUILT_IN_ARMS)
            raise study.error(
                ("arms", arm),
                f"'{arm}' is not a built-in arm" + (f"; did you mean '{near}'?" if near else ""),
                BUILT_IN_ARMS,
                "Correct the name, or say what is different in it (`{title: …}` for the base as it is).",
            )
    names = called(list(study.file.factors))
    for arm, spec in arms.items():
        line = _line_of(study, arm) if arm else []
        for levels in _combinations(study):
            document = _at(study, start, levels, of_cast=True)
            for one in line:
                document = with_arm(document, one, study.file.arms[one], study.origin)
            document = _at(study, document, levels, of_cast=False)
            name = condition_name(arm, levels, names)
            yield _Variant(name, arm, spec, levels, document, study.origin("arms", arm) if arm else name)


def _refuse_contradiction(study: _Study, one: _Variant, scenario: LoadedScenario) -> None:
    """Refuses an arm that is called a control and is none: a level of a factor made it another thing."""
    if not one.arm:
        return
    revise = scenario.file.method.revise
    for arm in _line_of(study, one.arm):
        kind = kind_of(arm, study.file.arms[arm])
        feedback = {"resample": "none", "shuffled": "shuffled"}.get(kind or "")
        if (feedback and revise.feedback != feedback and arm == one.arm) or (
            kind == "no_revision" and revise.operators
        ):
            raise study.error(
                ("arms", arm),
                f"'{one.name}' is no '{kind}' any more: {'method.revise' if one.levels else 'its own words'} undo it",
                remedy="Do not vary what a control fixes, or give the arm another name and what it is.",
            )


def _line_of(study: _Study, arm: str) -> list[str]:
    """The arms that an arm begins with, the first one first, and itself."""
    line = [arm]
    while (spec := study.file.arms[line[0]]) is not None and spec.of is not None:
        at = ("arms", line[0], "of")
        if spec.of not in study.file.arms:
            near = nearest(spec.of, list(study.file.arms))
            what = f"'{spec.of}' is not an arm of this study" + (f"; did you mean '{near}'?" if near else "")
            raise study.error(at, what, list(study.file.arms), "Correct the name, or add the arm.")
        if spec.of in line:
            raise study.error(
                at, f"the arm '{spec.of}' begins with itself", remedy="Let one of them begin with the base."
            )
        line.insert(0, spec.of)
    return line


def _at(study: _Study, document: Document, levels: Mapping[str, str], *, of_cast: bool) -> Document:
    """The document at these levels: those of the whole cast, which arms are made from, or the others."""
    for factor, level in levels.items():
        if (factor.removeprefix("cast.") in ("students", "teacher")) == of_cast:
            origin = study.origin("factors", factor, level)
            document = with_level(document, factor, study.file.factors[factor][level], origin)
    return document


def _combinations(study: _Study) -> list[dict[str, str]]:
    """{factor: name of its level} of each combination."""
    factors = study.file.factors
    for factor, levels in factors.items():
        if not levels:
            raise study.error(("factors", factor), "a factor without levels", remedy="Give at least one.")
        first = _path(study, factor, ("factors", factor))[0]
        if first not in _VARIED:
            near = nearest(str(first), _VARIED)
            what = f"'{factor}' is nothing that can be varied" + (f"; did you mean '{near}'?" if near else "")
            raise study.error(("factors", factor), what, _VARIED, "Write a scenario's key, like method.rounds.")
    if study.file.combinations == "full":
        return [dict(zip(factors, names, strict=True)) for names in itertools.product(*factors.values())]
    given = []
    for number, one in enumerate(study.file.combinations):
        at = ("combinations", number)
        if set(one) != set(factors):
            raise study.error(
                at, "a combination names a level of each factor", list(factors), "Write `{factor: level, …}`."
            )
        levels = {factor: _level(study, (*at, factor), factor, one[factor]) for factor in factors}
        if levels in given:
            raise study.error(at, "this combination stands here twice", remedy="Take one of the two away.")
        given.append(levels)
    return given


def _level(study: _Study, at: Sequence[str | int], factor: str, level: Any) -> str:
    names = list(study.file.factors[factor])
    wanted = str(level).lower() if isinstance(level, bool) else str(level)
    if wanted in names:
        return wanted
    near = nearest(wanted, names)
    what = f"'{wanted}' is not a level of {factor}" + (f"; did you mean '{near}'?" if near else "")
    raise study.error(at, what, names, "Correct the level, or add it under `factors`.")


def _conditions(study: _Study, variants: Sequence[_Variant], loaded: Sequence[LoadedScenario]) -> tuple[Planned, ...]:
    planned: list[Planned] = []
    taken: set[str] = set()
    names = called(list(study.file.factors))
    for one, scenario in zip(variants, loaded, strict=True):
        slug = re.sub(r"[^A-Za-z0-9_.+=-]+", "-", one.name).strip(".-") or "base"
        while slug in taken:
            slug += "x"
        taken.add(slug)
        title = arm_title(one.arm, one.spec, scenario.file) if one.arm else one.name
        if one.arm and one.levels:
            title += f" ({', '.join(f'{names[f]} {level}' for f, level in one.levels.items())})"
        planned.append(Planned(Condition(one.name, one.arm, dict(one.levels), title), slug, scenario))
    return tuple(planned)


def _with_donor(one: Planned, donor: str | None) -> Planned:
    """The condition with its donor; which run that is differs from seed to seed, and is set when each is made."""
    if donor is None:
        return one
    method = one.loaded.file.method
    revise = method.revise.model_copy(update={"donor": f"({donor}, another seed)"})
    file = one.loaded.file.model_copy(update={"method": method.model_copy(update={"revise": revise})})
    return replace(one, donor=donor, loaded=replace(one.loaded, file=file))


def _donor(study: _Study, one: Planned, conditions: Sequence[Planned]) -> str | None:
    """The condition at the same levels that gives its failures."""
    if one.loaded.file.method.revise.feedback != "shuffled":
        return None
    at = ("arms", one.condition.arm)
    if len(study.file.seed_list) < 2:
        raise study.error(at, "shuffled feedback takes another run's, and there is one seed", remedy="Raise `seeds`.")
    alike = [
        c
        for c in conditions
        if c.condition.levels == one.condition.levels
        and c.loaded.file.method.revise.feedback == "failures"
        and c.loaded.file.method.revise.operators
    ]
    line = [study.file.arms[arm] for arm in reversed(_line_of(study, one.condition.arm))] if one.condition.arm else []
    donor = next((spec.donor for spec in line if spec is not None and spec.donor is not None), None)
    if donor is not None:
        chosen = [c for c in alike if c.condition.arm == donor]
        if not chosen:
            names = list(dict.fromkeys(c.condition.arm for c in alike))
            what = f"'{donor}' is no arm that is told of its own failures"
            raise study.error((*at, "donor"), what, names, "Name one of these.")
        return chosen[0].condition.name
    same = [c for c in alike if c.loaded.file.cast == one.loaded.file.cast]
    if not same:
        raise study.error(
            at,
            "no arm with the same students is told of its own failures, so there are none to be shuffled",
            list(dict.fromkeys(c.condition.arm for c in alike)),
            "Add such an arm (`several`), or name one: `donor: …`.",
        )
    return same[0].condition.name
