"""From a scenario's `cast:` to who sits where: agents, personas and templates found, names given."""

from __future__ import annotations

import keyword
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from pydantic import BaseModel

from lbt_sim.errors import InputError, ScenarioError, TemplateError, nearest
from lbt_sim.library import Kind, Library, Source
from lbt_sim.prompts import Template
from lbt_sim.scenario.loaded import LoadedScenario
from lbt_sim.scenario.schema import AgentFile, KnowledgeSpec, PersonaFile, SamplingSpec, SeatSpec, TraitsSpec
from lbt_sim.scenario.validation import as_one, show, validate_model
from lbt_sim.scenario.yaml import Document, KeyPath, dotted, read_yaml

__all__ = ["Role", "Seat", "missing_names", "read_templates", "resolve_agents"]

Role = Literal["teacher", "assistant", "student", "examiner"]
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Seat:
    """Someone in the room.

    Attributes:
        name: Unique in the room, and a Python identifier, as AutoGen wants agents' names.
        role: What it does.
        agent: Its agent file.
        templates: Use -> compiled template.
        persona: Its persona, if it has one.
        model: A name under the scenario's `models`.
        sampling: Use -> how replies are drawn, the scenario's values over the agent's.
        traits: What a simulated learner on this seat is like, the scenario's values over the persona's.
        knowledge: Which of the worked examples that it hears stay with it; None: all.
    """

    name: str
    role: Role
    agent: AgentFile
    templates: Mapping[str, Template]
    persona: PersonaFile | None
    model: str
    sampling: Mapping[str, SamplingSpec]
    traits: TraitsSpec
    knowledge: KnowledgeSpec | None = None


@dataclass(frozen=True)
class _Entry:
    """One entry of the cast."""

    role: Role
    spec: SeatSpec
    key: KeyPath


@dataclass
class _Found:
    """Agents and personas that were read already: many seats share few of them."""

    agents: dict[str, tuple[AgentFile, Mapping[str, Template]]] = field(default_factory=dict)
    personas: dict[str, PersonaFile] = field(default_factory=dict)


def resolve_agents(loaded: LoadedScenario) -> tuple[Seat, ...]:
    """Everyone in the room, in the order teachers, assistants, students, examiner.

    Raises:
        ScenarioError: Names of agents, personas or models that are not there, files with mistakes, or two seats of
            the same name; all that were found together.
        TemplateError: A prompt template cannot be compiled.
    """
    entries = list(_entries(loaded))
    names = _names(loaded, entries)
    found = _Found()
    seats: list[Seat] = []
    mistakes: list[InputError] = []
    for entry, called in zip(entries, names, strict=True):
        try:
            seats += _seats(loaded, entry, called, found)
        except (ScenarioError, TemplateError) as error:
            mistakes.append(error)
    if mistakes:
        raise as_one(mistakes)
    if loaded.file.cast.students == "teacher":
        seats = [_like(seat, seats[0]) if seat.role == "student" else seat for seat in seats]
    return tuple(seats)


def _like(student: Seat, teacher: Seat) -> Seat:
    """The student that a teacher is to itself: what sets it apart is only what it has heard."""
    sampling = {use: spec for use, spec in student.sampling.items() if use != "answer"}
    if "answer" in teacher.sampling:
        sampling["answer"] = teacher.sampling["answer"]
    return replace(student, persona=teacher.persona, traits=teacher.traits, sampling=sampling)


def missing_names(document: Document, library: Library) -> list[InputError]:
    """Agents, personas and a classroom that a scenario names and that are not there, whatever else is wrong with it."""
    named: list[tuple[Kind, KeyPath]] = [("classrooms", ("classroom",))]
    cast = document.at(("cast",))
    for role, seats in cast.items() if isinstance(cast, dict) else ():
        several = isinstance(seats, list)
        for number in range(len(seats) if several else 1):
            key: KeyPath = ("cast", role, number) if several else ("cast", role)
            named += [("agents", (*key, "agent")), ("agents/personas", (*key, "persona"))]
    mistakes: list[InputError] = []
    for kind, key in named:
        name = document.at(key)
        if isinstance(name, str):
            try:
                library.find(kind, name, where=document.place(key))
            except InputError as error:
                mistakes.append(error)
    return mistakes


def _entries(loaded: LoadedScenario) -> Iterator[_Entry]:
    cast = loaded.file.cast
    teachers = cast.teacher if isinstance(cast.teacher, list) else [cast.teacher]
    if not teachers:
        raise loaded.error(("cast", "teacher"), "there is no teacher", remedy="Cast one: `teacher: {agent: teacher}`.")
    for number, spec in enumerate(teachers):
        several = isinstance(cast.teacher, list)
        yield _Entry("teacher", spec, ("cast", "teacher", number) if several else ("cast", "teacher"))
    for number, spec in enumerate(cast.assistants):
        yield _Entry("assistant", spec, ("cast", "assistants", number))
    if isinstance(cast.students, str):
        yield _Entry("student", SeatSpec(model=teachers[0].model), ("cast", "students"))
    else:
        if not cast.students:
            remedy = "Cast one: `students: [{persona: literal}]`, or `students: teacher`."
            raise loaded.error(("cast", "students"), "there is no student", remedy=remedy)
        for number, spec in enumerate(cast.students):
            yield _Entry("student", spec, ("cast", "students", number))
    if cast.examiner.count != 1:
        raise loaded.error(("cast", "examiner", "count"), "there is one examiner", remedy="Remove `count`.")
    yield _Entry("examiner", cast.examiner, ("cast", "examiner"))


def _names(loaded: LoadedScenario, entries: list[_Entry]) -> list[list[str]]:
    """A name for each seat of each entry: as it is given, or numbered where more than one would have the same."""
    bases = [_base(loaded, entry) for entry in entries]
    total: Counter[str] = Counter()
    for base, entry in zip(bases, entries, strict=True):
        total[base] += 0 if entry.spec.name else entry.spec.count
    numbers: Counter[str] = Counter()
    taken: dict[str, KeyPath] = {}
    names: list[list[str]] = []
    for base, entry in zip(bases, entries, strict=True):
        count = entry.spec.count
        if entry.spec.name:
            called = [base] if count == 1 else [f"{base}_{number}" for number in range(1, count + 1)]
        else:
            first = numbers[base] + 1
            numbers[base] += count
            called = [base] if total[base] == 1 else [f"{base}_{number}" for number in range(first, first + count)]
        for name in called:
            if name in taken:
                raise loaded.error(
                    (*entry.key, "name"),
                    f"two seats are called '{name}'; the other is {dotted(taken[name])}",
                    remedy="Give one of them another `name`.",
                )
            taken[name] = entry.key
        names.append(called)
    return names


def _base(loaded: LoadedScenario, entry: _Entry) -> str:
    name = (entry.spec.name or entry.spec.persona or entry.role).replace("-", "_").replace(".", "_")
    if keyword.iskeyword(name) or not name.isidentifier():
        # A persona may be called so; an agent may not.
        if entry.spec.name:
            remedy = "Choose another; it must not be a word of the Python language."
            raise loaded.error((*entry.key, "name"), f"'{name}' cannot be an agent's name", remedy=remedy)
        return f"{entry.role}_{name}" if f"{entry.role}_{name}".isidentifier() else entry.role
    return name


def _seats(loaded: LoadedScenario, entry: _Entry, names: list[str], found: _Found) -> list[Seat]:
    spec = entry.spec
    agent, templates = _agent(loaded, entry, found)
    persona = _persona(loaded, entry, found)
    sampling = {**agent.sampling}
    for use, override in spec.sampling.items():
        sampling[use] = _over(sampling.get(use, SamplingSpec()), override)
    traits = _over(persona.traits if persona else TraitsSpec(), spec.traits)
    parts = (agent, templates, persona, _model(loaded, entry), sampling, traits, spec.knowledge)
    return [Seat(name, entry.role, *parts) for name in names]


def _over(base: Model, override: Model | None) -> Model:
    """`base` with the values that were written in `override`."""
    if override is None:
        return base
    written: dict[str, Any] = {name: getattr(override, name) for name in override.model_fields_set}
    return base.model_copy(update=written)


def _agent(loaded: LoadedScenario, entry: _Entry, found: _Found) -> tuple[AgentFile, Mapping[str, Template]]:
    name = entry.spec.agent or entry.role
    key = (*entry.key, "agent")
    if name not in found.agents:
        source = loaded.library.find("agents", name, where=loaded.place(key))
        document = read_yaml(source.text, source.file)
        agent = validate_model(document, AgentFile)
        found.agents[name] = agent, read_templates(agent, loaded.library, source, document)
    agent = found.agents[name][0]
    if agent.role != entry.role:
        valid = [one for one in loaded.library.names("agents") if one == entry.role]
        what = f"the agent '{name}' is for the role '{agent.role}'; this seat is the {entry.role}'s"
        raise loaded.error(key, what, valid, remedy=f"Name an agent whose `role` is {entry.role}.")
    return found.agents[name]


def read_templates(agent: AgentFile, library: Library, source: Source, document: Document) -> dict[str, Template]:
    """Use -> compiled template of an agent.

    Args:
        agent: What its file says.
        library: Where templates are looked up, first beside the file.
        source: The file.
        document: The file, with line numbers.

    Raises:
        InputError: Templates that are not there, or cannot be compiled; all of them.
    """
    templates: dict[str, Template] = {}
    mistakes: list[InputError] = []
    for use, path in agent.prompts.items():
        try:
            found = library.read(path, base=source.path, where=document.place(("prompts", use)))
            templates[use] = Template(found.text, found.file)
        except InputError as error:
            mistakes.append(error)
    if mistakes:
        raise as_one(mistakes)
    return templates


def _persona(loaded: LoadedScenario, entry: _Entry, found: _Found) -> PersonaFile | None:
    name = entry.spec.persona
    if name is None:
        return None
    if name not in found.personas:
        source = loaded.library.find("agents/personas", name, where=loaded.place((*entry.key, "persona")))
        found.personas[name] = validate_model(read_yaml(source.text, source.file), PersonaFile)
    return found.personas[name]


def _model(loaded: LoadedScenario, entry: _Entry) -> str:
    models = loaded.file.models
    name = entry.spec.model
    if name is None:
        return next(iter(models))
    if name not in models:
        near = nearest(name, models)
        what = f"{show(name)} is not one of the scenario's models" + (f"; did you mean '{near}'?" if near else "")
        raise loaded.error((*entry.key, "model"), what, sorted(models), "Correct the name, or add it under `models`.")
    return name
