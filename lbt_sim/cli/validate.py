"""`lbt-sim validate`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lbt_sim.cli.options import Data, Sets
from lbt_sim.errors import InputError, LbtError, Place, ScenarioError, TemplateError, nearest

if TYPE_CHECKING:
    from lbt_sim.prompts import Template
    from lbt_sim.scenario.files import OwnFile
    from lbt_sim.scenario.presets import Explained
    from lbt_sim.scenario.schema import AgentFile

__all__ = ["validate"]


@dataclass(frozen=True)
class _Report:
    """What there is to say about a valid file: a few lines, and every value with where it comes from."""

    lines: Sequence[str]
    values: Iterable[Explained]


def validate(
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE…", help="Scenarios by name; any of our YAML files by path.", show_default=False),
    ],
    set_: Sets = None,
    data: Data = None,
    explain: Annotated[bool, typer.Option("--explain", help="Print every value and where it comes from.")] = False,
) -> None:
    """Check files by their `kind`, and everything that they name. Nothing is run.

    A scenario with its agents, templates, classroom, data and models; a classroom, built with a few students; an
    agent with its templates; a persona.

    Example: lbt-sim validate scenarios/mine.yaml --explain
    """
    from lbt_sim.cli import print_error

    wrong: LbtError | None = None
    for file in files:
        try:
            kind, report = _check(file, set_ or (), data or ())
        except LbtError as error:
            print_error(error)
            wrong = error
            continue
        typer.echo(f"{file}: valid")
        for line in report.lines:
            typer.echo(f"  {line}")
        for entry in report.values if explain else ():
            origin = kind if entry.origin == "scenario" else entry.origin  # written in the file itself
            typer.echo(f"  {entry.key}: {_as_written(entry.value)}   ({origin})")
    if wrong is not None:
        raise typer.Exit(wrong.status)


def _check(file: str, sets: Sequence[str], data: Sequence[Path]) -> tuple[str, _Report]:
    """The file's kind, and what is to be said about it; raises an `InputError` for what is wrong."""
    from lbt_sim.scenario.files import file_kind, own_file

    kind = file_kind(file)
    if kind == "scenario":
        return kind, _scenario(file, sets, data)
    checks: Mapping[str, Callable[[OwnFile], _Report]] = {
        "classroom": _classroom,
        "agent": _agent,
        "persona": _persona,
    }
    return kind, checks[kind](own_file(file, sets))


def _scenario(file: str, sets: Sequence[str], data: Sequence[Path]) -> _Report:
    from lbt_sim.preview import rehearse
    from lbt_sim.scenario.load import load_scenario
    from lbt_sim.setup import prepare

    loaded = load_scenario(file, sets=sets, data=data)
    prepared = rehearse(prepare(loaded))
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
    return _Report([f"task {task.name}: {size}; in the room: {people}", *notes], values)


def _classroom(own: OwnFile) -> _Report:
    from lbt_sim.classroom import ROLES
    from lbt_sim.classroom.example import example_classroom
    from lbt_sim.scenario.loaded import classroom_of
    from lbt_sim.scenario.presets import explain
    from lbt_sim.seeds import Seeds

    plan = classroom_of(own.library, own.source, own.document)
    room = example_classroom(plan.file, seed=Seeds(0), read_file=plan.read_file, place=plan.place)
    seats = [f"{count} {role}{'s' * (count != 1)}" for role in ROLES if (count := len(room.by_role(role)))]
    edges = [f"{count} {kind}" for kind, count in room.edge_counts().items() if count]
    line = f"classroom, built with {', '.join(seats)}; edges: {', '.join(edges)}"
    return _Report([line], explain(plan.file, own.document, {}))


def _agent(own: OwnFile) -> _Report:
    from lbt_sim.scenario.presets import explain
    from lbt_sim.scenario.schema import AgentFile
    from lbt_sim.scenario.validation import as_one

    agent = own.model(AgentFile)
    templates = own.templates(agent)
    mistakes = [*_missing(own, agent), *(one for use in templates for one in _misused(own, use, templates[use]))]
    if mistakes:
        raise as_one(mistakes)
    return _Report(
        [f"agent for the role {agent.role}; templates: {', '.join(templates)}"], explain(agent, own.document, {})
    )


def _missing(own: OwnFile, agent: AgentFile) -> Iterator[InputError]:
    from lbt_sim.roles.uses import NEEDED

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


def _misused(own: OwnFile, use: str, template: Template) -> Iterator[InputError]:
    """What is wrong with a template for what it is used for."""
    from lbt_sim.roles.uses import COMMON, MUST, USES

    if use not in USES:
        near = nearest(use, USES)
        what = f"'{use}' is not a use of a template" + (f"; did you mean '{near}'?" if near else "")
        where = own.document.place(("prompts", use))
        yield TemplateError(what, where=where, valid=sorted(USES), remedy="Correct the use, or remove it.")
        return
    try:
        template.check(COMMON | USES[use])
    except TemplateError as error:
        yield error
    lacking = sorted(MUST.get(use, frozenset()) - template.variables)
    if lacking:
        yield TemplateError(
            f"the template for '{use}' never says {{{{ {lacking[0]} }}}}",
            where=Place(template.file),
            remedy="Without it the prompt would not hold what it is about. Put it in.",
        )


def _persona(own: OwnFile) -> _Report:
    from lbt_sim.scenario.presets import explain
    from lbt_sim.scenario.schema import PersonaFile

    persona = own.model(PersonaFile)
    return _Report([f"persona: {persona.title}"], explain(persona, own.document, {}))


def _as_written(value: Any) -> str:
    """A value on one line, as one would write it in YAML."""
    if value is None:
        return "not set"
    if isinstance(value, str):
        return " ".join(value.split())
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_as_written, value))}]"
    return json.dumps(value)
