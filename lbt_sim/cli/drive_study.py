"""Executes a study for a command: progress, interrupts, findings, the report, the exit status."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lbt_sim.errors import InputError, Interrupted, LbtError, Place, RunError, nearest
from lbt_sim.study.execute import Execution, Executor, LocalWorkers, Outcome
from lbt_sim.study.folder import StudyFolder, change_budget, load_results, locked_study, open_study
from lbt_sim.transcript.commands import command_line

if TYPE_CHECKING:
    from lbt_sim.study.progress import StudyScreen

__all__ = ["check_executor", "drive_study", "workers_of"]

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


def workers_of(name: str, workers: int | None) -> Callable[[StudyFolder], Executor]:
    """Makes the executor of that name for a study.

    Raises:
        InputError: There is none.
    """
    check_executor(name)

    def make(study: StudyFolder) -> Executor:
        if name == "ray":
            from lbt_sim.study.ray_workers import RayWorkers

            ray: Executor = RayWorkers(workers)
            return ray
        return LocalWorkers(workers or default_workers(study))

    return make


def default_workers(study: StudyFolder) -> int:
    """One for each core where runs are all our own computing; one where models are loaded or served."""
    from lbt_sim.scenario.yaml import read_yaml

    engines = set()
    for one in study.conditions:
        text = study.read_scenario(one.name)
        models = read_yaml(text, str(study.scenario_of(one.name))).value.get("models") or {}
        engines |= {spec.get("engine") for spec in models.values()}
    return os.cpu_count() or 1 if engines <= {"simulated", "scripted"} else 1


def drive_study(
    path: Path,
    executor: Callable[[StudyFolder], Executor],
    *,
    sets: Sequence[str] = (),
    as_json: bool,
    quiet: bool,
    report: bool = True,
) -> None:
    """Executes what a study lacks, tells what it found, and ends the command with the documented status.

    Args:
        path: The study's folder.
        executor: Makes what its runs are executed by.
        sets: `budget.…` values to change first.
        as_json: Print the findings as JSON, and nothing else on standard output.
        quiet: Show no progress and no findings.
        report: Write `report.html` into the folder.
    """
    open_study(path)  # what is none is told before anything is made in it
    with locked_study(path):
        if sets:
            change_budget(path, sets)
        study = open_study(path)
        if not quiet:
            typer.echo(f"study folder: {path}", err=True)
        outcome = asyncio.run(_executed(study, executor(study), quiet=quiet))
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
            remedy=f"{again} --set budget.calls=N, with more than was spent (or budget.tokens)",
        )
    return RunError(
        f"{outcome.failed} runs failed, {outcome.missing} are missing; {outcome.done} are done",
        where=Place(str(path)),
        remedy=f"What failed stands above and in the report; it is tried anew: {again}",
    )


async def _executed(study: StudyFolder, executor: Executor, *, quiet: bool) -> Outcome:
    from lbt_sim.study.progress import Progress, StudyScreen
    from lbt_sim.transcript.theme import make_console

    progress = Progress(study.conditions, len(study.seeds))
    with StudyScreen(progress, study.name, make_console(sys.stderr), quiet=quiet) as screen:
        execution = Execution(study, executor, screen, locked=True)
        task = asyncio.ensure_future(_served(execution, screen))
        interrupts = _Interrupts(execution, task, screen)
        before = {number: signal.signal(number, interrupts) for number in _SIGNALS}
        try:
            return await task
        except asyncio.CancelledError:
            return _not_begun(study)
        finally:
            for number, handler in before.items():
                signal.signal(number, interrupts.leave if interrupts.count else handler)


async def _served(execution: Execution, screen: StudyScreen) -> Outcome:
    """The execution, between the start and the end of the servers that it needs."""
    from lbt_sim.study.servers import servers_for, servers_wanted

    wanted = servers_wanted(execution.study) if _is_unfinished(execution.study) else {}
    if wanted:
        screen.doing("starting servers")
    async with servers_for(wanted, screen.say):
        outcome = await execution.execute()
        if wanted:
            screen.doing("stopping servers")
    screen.progress.doing = ""
    return outcome


def _is_unfinished(study: StudyFolder) -> bool:
    done = {key for key, run in load_results(study.path).runs.items() if run.status == "done"}
    return any((run.condition, run.seed) not in done for run in study.runs)


def _not_begun(study: StudyFolder) -> Outcome:
    """What there is of a study whose execution was interrupted before it began."""
    known = [run.status for run in load_results(study.path).runs.values()]
    done, failed = known.count("done"), known.count("failed")
    return Outcome("interrupted", done, failed, len(study.conditions) * len(study.seeds) - len(known), 0.0)


class _Interrupts:
    """The first begins nothing more and waits for what is in flight, the second breaks it off, the third leaves.

    Servers that are being started are given up at the first: nothing is in flight yet.
    """

    def __init__(self, execution: Execution, task: asyncio.Future[Outcome], screen: StudyScreen) -> None:
        self._execution, self._task, self._screen = execution, task, screen
        self._loop = asyncio.get_running_loop()
        self.count = 0

    def __call__(self, *_: object) -> None:
        self.count += 1
        if self.count > 2:
            self.leave()
        self._loop.call_soon_threadsafe(self._stop, self.count)

    def leave(self, *_: object) -> None:
        """Leaves at once: who is asked to stop again while the results are told, or while something hangs."""
        self._screen.close()  # the terminal is given back as it was
        again = command_line("resume", str(self._execution.study.path))
        os.write(2, f"left at once; everything answered so far is kept. Continue with: {again}\n".encode())
        os._exit(Interrupted.status)

    def _stop(self, count: int) -> None:
        if self._execution.phase == "before":
            self._screen.say("Cancelling; nothing was begun. Once more to leave at once.")
            self._task.cancel()
        elif self._execution.phase == "after":
            self._screen.say("Everything is kept; what was started is being ended.")
        else:
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
        "effects": [asdict(row) for row in analysis.effects],
        "warnings": list(analysis.warnings),
    }
