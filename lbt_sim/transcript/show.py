"""`show`: a past run, one still going on, or one that failed, read from its folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from lbt_sim.transcript.figures import plural
from lbt_sim.transcript.material import show_material
from lbt_sim.transcript.page import Page, ShowOptions
from lbt_sim.transcript.read import CallFilter, RunRecord
from lbt_sim.transcript.show_calls import show_calls
from lbt_sim.transcript.show_item import show_item
from lbt_sim.transcript.show_round import show_round, tell_round
from lbt_sim.transcript.summary import next_commands, summary
from lbt_sim.transcript.theme import dressed, look_of

__all__ = ["ShowOptions", "show_run"]

_DRAWN_SEATS = 200
_FIRST, _LAST = 2, 4
"""Rounds that the story of a long run tells; the table has them all."""


def show_run(folder: Path, console: Console, options: ShowOptions = ShowOptions()) -> None:  # noqa: B008 - frozen
    """Prints what `options` ask for; without any, the whole run in short.

    Raises:
        InputError: There is no run in the folder, or no such round, agent, item or material in it.
    """
    with RunRecord(folder) as record:
        page = Page(record, console, look_of(dressed(console)), options)
        _check(record, options)
        if options.agent is not None:
            _who(page, options.agent)
        if options.calls or options.agent is not None:
            show_calls(page, CallFilter(options.round, options.agent, options.item, options.material))
        elif options.item is not None:
            show_item(page, options.item)
        elif options.material is not None:
            show_material(page, options.material)
        elif options.round is not None:
            show_round(page, options.round)
        else:
            _overview(page)


def _check(record: RunRecord, options: ShowOptions) -> None:
    """Refuses what the run does not know, before anything is printed."""
    if options.round is not None:
        record.check_round(options.round)
    if options.agent is not None:
        record.check_agent(options.agent)
    if options.material is not None:
        record.check_material(options.material)
    if options.item is not None:
        record.check_item(options.item)


def _overview(page: Page) -> None:
    """Title, classroom, table, the story round by round, and what to do next."""
    record = page.record
    result = record.result()
    _head(page)
    _classroom(page)
    for notice in record.notices():
        page.fact("note", page.look.text(notice, "lbt.notice"))
    page.gap()
    page.out(summary(result, record.candidate_counts(), look=page.look))
    rounds = record.rounds
    told = [number for at, number in enumerate(rounds) if at < _FIRST or at >= len(rounds) - _LAST]
    for at, number in enumerate(told):
        if at and number - told[at - 1] > 1:
            page.gap()
            between = f"rounds {told[at - 1] + 1} to {number - 1}: {page.command('--round', str(number - 1))}"
            page.hint(f"{page.look.glyph('ellipsis')} {between}")
        tell_round(page, number)
    page.gap()
    page.console.print(next_commands(result, page.look), soft_wrap=True)


def _head(page: Page) -> None:
    run = page.record.run
    page.out(page.look.line(run.get("title") or page.record.folder.name, page.width, "lbt.title"))
    task: Mapping[str, Any] = run.get("task") or {}
    facts = [
        f"seed {run['seed']}" if "seed" in run else "",
        f"{run['method']}, {plural(int(run.get('rounds') or 0), 'round')}" if run.get("method") else "",
        f"{task['name']}: {task['train']:,} to teach, {task['held_out']:,} held out" if task else "",
        page.record.status or "not finished: still running, or stopped",
    ]
    dot = f" {page.look.glyph('dot')} "
    page.out(page.look.text(dot.join(fact for fact in facts if fact), "lbt.label"))


def _classroom(page: Page) -> None:
    run = page.record.run
    seats = [(seat["name"], seat["role"]) for seat in run.get("seats", []) if seat["role"] != "examiner"]
    if not seats:
        return
    page.gap()
    edges = run.get("edges", [])
    if len(seats) > _DRAWN_SEATS or not edges:
        kinds = run.get("edge_counts") or {}
        words = [
            plural(len(seats), "seat"),
            *(f"{plural(number, 'edge')} {kind}" for kind, number in kinds.items() if number),
        ]
        page.fact("classroom", page.look.text(", ".join(words)))
        return
    from lbt_sim.classroom.draw import draw
    from lbt_sim.classroom.graph import Classroom

    for line in draw(Classroom.from_edges(seats, edges), min(page.width, 100), ascii_only=not page.look.unicode):
        page.out(Text(page.look.cut(page.look.plain(line), page.width), no_wrap=True))


def _who(page: Page, agent: str) -> None:
    """Who the agent is."""
    seat = page.record.seats.get(agent, {})
    facts = [seat.get("role"), seat.get("model") and f"model {seat['model']}", seat.get("persona")]
    title = page.look.text(agent, page.role_style(agent) + " bold")
    for fact in facts:
        if fact:
            title.append(f"  {page.look.plain(str(fact), newlines='fold')}", "not bold lbt.label")
    page.out(title)
