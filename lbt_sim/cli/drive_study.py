"""Executes a study for a command: progress, interrupts, findings, the report, the exit status."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import typer

from lbt_sim.errors import InputError, Interrupted, LbtError, Place, RunError, nearest
from lbt_sim.study.execute import Execution, Executor, LocalWorkers, Outcome
from lbt_sim.study.folder import StudyFolder, load_results, open_study
from lbt_sim.transcript.commands import command_line

__all__ = ["check_executor", "drive_study", "executor_of"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
EXECUTORS = ("local", "ray")
REPORT = "report.html"


def check_executor(name: str) -> None:
    """Refuses an executor that is not there, before anything is made.

    Raises:
        InputError: There is none of that name.
    """
    if name not in EXECUTORS:
        near = nearest(name, EXECUTORS)
        raise InputError(
            f"'{name}' is not an executor" + (f"; did you mean '{near}'?" if near else ""),
            where=Place(key="--executor"),
            valid=EXECUTORS,
            remedy="Name one of these.",
        )


def executor_of(name: str, workers: int | None, study: StudyFolder) -> Executor:
    """The executor of that name.

    Raises:
        InputError: There is none, or its package is missing.
    """
    check_executor(name)
    if name == "ray":
        from lbt_sim.study.ray_workers import RayWorkers

        ray: Executor = RayWorkers(workers)
        return ray
    return LocalWorkers(workers or default_workers(study))


def default_workers(study: StudyFolder) -> int:
    """One for each core where runs are all our own computing; one where models are loaded or served."""
    from lbt_sim.scenario.yaml import read_yaml

    engines = set()
    for one in study.conditions:
        file = study.scenario_of(one.name)
        models = read_yaml(file.read_text(encoding="utf-8"), str(file)).value.get("models") or {}
        engines |= {spec.get("engine") for spec in models.values()}
    return os.cpu_count() or 1 if engines <= {"simulated", "scripted"} else 1


def drive_study(path: Path, executor: Executor, *, as_json: bool, quiet: bool, report: bool = True) -> None:
    """Executes what a study lacks, tells what it found, and ends the command with the documented status.

    Args:
        path: The study's folder.
        executor: Where its runs are executed.
        as_json: Print the findings as JSON, and nothing else on standard output.
        quiet: Show no progress and no findings.
        report: Write `report.html` into the folder.
    """
    study = open_study(path)
    if not quiet:
        typer.echo(f"study folder: {path}", err=True)
    outcome = asyncio.run(_executed(study, executor, as_json=as_json, quiet=quiet))
    _tell(path, outcome, as_json=as_json, quiet=quiet, report=report)
    if outcome.status == "interrupted":
        raise Interrupted(
            "interrupted; everything answered so far is kept",
            remedy=f"Continue with: {command_line('resume', str(path))}",
        )
    if outcome.status != "done":
        raise _unfinished(path, outcome)


def _unfinished(path: Path, outcome: Outcome) -> LbtError:
    again = f"Continue with: {command_line('resume', str(path))}"
    if outcome.status == "budget":
        return RunError(
            f"the study's budget is spent: {outcome.missing} runs are missing",
            where=Place(key="budget"),
            remedy=f"Raise it with --set budget.calls=…. {again}",
        )
    return RunError(
        f"{outcome.failed} runs failed, {outcome.missing} are missing; {outcome.done} are done",
        where=Place(str(path)),
        remedy=f"What failed stands above and in the report; it is tried anew: {again}",
    )


async def _executed(study: StudyFolder, executor: Executor, *, as_json: bool, quiet: bool) -> Outcome:
    from lbt_sim.study.progress import Progress, StudyScreen
    from lbt_sim.study.servers import servers_for
    from lbt_sim.transcript.theme import make_console

    screen = StudyScreen(
        Progress(study.conditions, len(study.seeds)), study.name, make_console(sys.stderr), quiet=quiet
    )
    async with AsyncExitStack() as stack:
        stack.enter_context(screen)
        execution = Execution(study, executor, screen)
        interrupts = _Interrupts(execution, screen)
        before = {number: signal.signal(number, interrupts) for number in _SIGNALS}
        try:
            await stack.enter_async_context(servers_for(study, screen.say))
            return await execution.execute()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Interrupts:
    """The first begins nothing more and waits for what is in flight, the second breaks it off, the third leaves."""

    def __init__(self, execution: Execution, screen: Any) -> None:
        self._execution, self._screen = execution, screen
        self._loop = asyncio.get_running_loop()
        self._count = 0

    def __call__(self, *_: object) -> None:
        self._count += 1
        if self._count > 2:
            self._screen.close()
            os._exit(Interrupted.status)
        self._loop.call_soon_threadsafe(self._stop, self._count)

    def _stop(self, count: int) -> None:
        self._screen.say(
            "Finishing what is in flight; once more to cancel it."
            if count == 1
            else "Cancelling; everything answered so far is kept. Once more to leave at once."
        )
        self._execution.stop(cancel=count > 1)


def _tell(path: Path, outcome: Outcome, *, as_json: bool, quiet: bool, report: bool) -> None:
    from lbt_sim.study.analysis import analyse
    from lbt_sim.study.summary import print_findings
    from lbt_sim.transcript.theme import make_console

    results = load_results(path)
    if not quiet:
        typer.echo("computing what was found", err=True)
    analysis = analyse(results)
    if report:
        from lbt_sim.report import report_study, save

        save(report_study(results, analysis), path / REPORT)
    if as_json:
        typer.echo(json.dumps(_as_json(path, outcome, analysis), ensure_ascii=False))
    elif not quiet:
        console = make_console()
        print_findings(console, results, analysis)
        if report:
            typer.echo(f"\nreport: {path / REPORT}")


def _as_json(path: Path, outcome: Outcome, analysis: Any) -> Mapping[str, Any]:
    from dataclasses import asdict

    return {
        "study": str(path),
        "status": outcome.status,
        "seconds": round(outcome.seconds, 3),
        "runs": {"done": outcome.done, "failed": outcome.failed, "missing": outcome.missing},
        "answer": analysis.answer,
        "conditions": [asdict(row) for row in analysis.conditions],
        "comparisons": [asdict(row) for row in analysis.comparisons],
        "warnings": list(analysis.warnings),
    }
