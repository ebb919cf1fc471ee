"""One YAML file checked with everything that it names, whatever its kind; nothing is run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lbt_sim.classroom import ROLES
from lbt_sim.classroom.example import example_classroom
from lbt_sim.errors import InputError, ScenarioError, TemplateError
from lbt_sim.models.registry import check_model
from lbt_sim.preview import rehearse
from lbt_sim.roles.uses import NEEDED, misuses
from lbt_sim.scenario.files import OwnFile, file_kind, own_file
from lbt_sim.scenario.load import LoadedScenario, load_scenario
from lbt_sim.scenario.loaded import classroom_of
from lbt_sim.scenario.presets import Explained, explain
from lbt_sim.scenario.schema import AgentFile, PersonaFile
from lbt_sim.scenario.seats import read_templates
from lbt_sim.scenario.validation import as_one
from lbt_sim.seeds import Seeds
from lbt_sim.setup import prepare

__all__ = ["Checked", "check_file"]


@dataclass(frozen=True)
class Checked:
    """What there is to say about a valid file.

    Attributes:
        kind: scenario, classroom, agent or persona.
        lines: A few lines for people.
        values: Every value with where it comes from.
    """

    kind: str
    lines: Sequence[str]
    values: Iterable[Explained]


def check_file(name: str, *, sets: Sequence[str] = (), data: Sequence[Path] = ()) -> Checked:
    """Checks a file by its `kind`; studies are checked by `lbt_sim.study.check`.

    Args:
        name: A path, or the name of a scenario.
        sets: `key.path=value`, done in order.
        data: Folders to look for a scenario's data files in.

    Raises:
        InputError: What is wrong with it; a `SeveralMistakesError` where that is more than one thing.
    """
    kind = file_kind(name)
    if kind == "scenario":
        return _scenario(name, sets, data)
    checks: Mapping[str, Callable[[OwnFile], Checked]] = {
        "classroom": _classroom,
        "agent": _agent,
        "persona": _persona,
    }
    return checks[kind](own_file(name, sets))


def _scenario(name: str, sets: Sequence[str], data: Sequence[Path]) -> Checked:
    loaded = load_scenario(name, sets=sets, data=data)
    prepared = prepare(loaded)
    _check_servers(loaded)
    prepared = rehearse(prepared)
    task, people = prepared.task, ", ".join(seat.name for seat in prepared.seats)
    size = f"{len(task.train)} train, {len(task.held_out)} held out"
    filled = {f"task.{key}": getattr(task, key) for key in ("instruction", "labels", "positive", "grader")}
    values = [
        entry._replace(value=filled[entry.key], origin=f"the task {task.name}")
        if entry.value is None and filled.get(entry.key)
        else entry
        for entry in loaded.origins
    ]
    notes = [f"note: {notice}" for notice in task.notices]
    return Checked("scenario", [f"task {task.name}: {size}; in the room: {people}", *notes], values)


def _check_servers(loaded: LoadedScenario) -> None:
    """What servers would not start with and can be seen without any."""
    specs = {name: spec for name, spec in loaded.file.models.items() if spec.engine == "vllm"}
    if not specs:
        return
    from lbt_sim.models.vllm.check import mistakes
    from lbt_sim.models.vllm.spec import VllmSpec

    checked = {name: check_model(name, spec, loaded.place(f"models.{name}")) for name, spec in specs.items()}
    found = list(mistakes({name: spec for name, spec in checked.items() if isinstance(spec, VllmSpec)}))
    for mistake in found:
        if mistake.where is not None and mistake.where.key:
            mistake.where = loaded.place(mistake.where.key)
    if found:
        raise as_one(found)


def _classroom(own: OwnFile) -> Checked:
    plan = classroom_of(own.library, own.source, own.document)
    room = example_classroom(plan.file, seed=Seeds(0), read_file=plan.read_file, place=plan.place)
    seats = [f"{count} {role}{'s' * (count != 1)}" for role in ROLES if (count := len(room.by_role(role)))]
    edges = [f"{count} {kind}" for kind, count in room.edge_counts().items() if count]
    line = f"classroom, built with {', '.join(seats)}; edges: {', '.join(edges)}"
    return Checked("classroom", [line], explain(plan.file, own.document, {}))


def _agent(own: OwnFile) -> Checked:
    agent = own.model(AgentFile)
    templates = read_templates(agent, own.library, own.source, own.document)
    mistakes = list(_missing(own, agent))
    for use, template in templates.items():
        mistakes += misuses(use, template, own.document.place(("prompts", use)))
    if mistakes:
        raise as_one(mistakes)
    line = f"agent for the role {agent.role}; templates: {', '.join(templates)}"
    return Checked("agent", [line], explain(agent, own.document, {}))


def _missing(own: OwnFile, agent: AgentFile) -> Iterator[InputError]:
    """What any scenario would miss in this agent."""
    summary = agent.notes.keep == "summary"
    if summary and agent.role != "student":
        yield ScenarioError(
            f"this {agent.role} is to keep a summary, which only students do",
            where=own.document.place(("notes", "keep")),
            remedy="Use `notes: {keep: all}` or `{keep: last}`.",
        )
    needed = [*NEEDED[agent.role], *(["summarise"] if summary and agent.role == "student" else [])]
    missing = [use for use in needed if use not in agent.prompts]
    if missing:
        yield TemplateError(
            f"there is no template for {', '.join(missing)}, which this {agent.role} needs",
            where=own.document.place(("prompts",)),
            remedy=f"Add `{missing[0]}: …` under `prompts`, with a template file beside this one.",
        )


def _persona(own: OwnFile) -> Checked:
    persona = own.model(PersonaFile)
    return Checked("persona", [f"persona: {persona.title}"], explain(persona, own.document, {}))
