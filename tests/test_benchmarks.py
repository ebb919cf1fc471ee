"""The benchmarks run, at a tiny size, and measure what they say."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def load(name: str) -> ModuleType:
    """A benchmark as a module."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def overhead() -> ModuleType:
    return load("overhead")


def test_overhead_counts_what_a_classroom_did(overhead: ModuleType) -> None:
    lesson = asyncio.run(overhead.classroom(overhead.prepared(5, 2, 4)))
    assert lesson.messages.units == 10  # each student once a turn
    assert lesson.deliveries == 20  # two neighbours hear each
    assert lesson.answers.units == 20


def test_overhead_seats_everyone_beside_everyone(overhead: ModuleType) -> None:
    lesson = asyncio.run(overhead.classroom(overhead.prepared(4, 1, 2, "seminar")))
    assert lesson.deliveries == 4 * 3


@pytest.mark.parametrize("live", [False, True])
def test_overhead_measures_the_same_work_with_the_live_view(overhead: ModuleType, live: bool) -> None:
    lesson = asyncio.run(overhead.classroom(overhead.prepared(3, 1, 2), live=live))
    assert (lesson.messages.units, lesson.answers.units) == (3, 6)


def test_overhead_prints_a_ratio_table(overhead: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    overhead.main(["5", "--repeats", "1", "--turns", "1", "--items", "2", "--messages", "2", "--complete", "3"])
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split("|")[1].strip(): line.split("|")[2:] for line in lines if line.startswith("| ")}
    assert float(rows["lbt-sim: message"][3]) == 1.0
    assert int(rows["lbt-sim: exam answer"][0]) == 10
    assert int(rows["AutoGen round robin, least agent: message"][0]) == 2
    assert int(rows["AutoGen round robin, AssistantAgent: message"][0]) == 2
    assert int(rows["AutoGen GraphFlow star, least agent: message"][0]) == 5
    assert "Everyone with everyone, 3 students" in "\n".join(lines)


def test_show_million_makes_a_ledger_that_show_can_read(tmp_path: Path) -> None:
    module = load("show_million")
    asyncio.run(module.make(tmp_path, 2_000, 4))
    seconds, peak, status, lines = module.measure([str(tmp_path)])
    assert status == 0
    assert lines > 5
    assert seconds > 0
    assert peak > 0


@pytest.mark.parametrize(
    "flaw", [{"differing": 1}, {"changed": 1}, {"again": 1}, {"other_tokens": 1}, {"failures": ["no such file"]}]
)
def test_kill_passes_no_run_in_which_anything_differs(flaw: dict[str, Any]) -> None:
    kill = load("kill")
    assert kill.Tally(kills=3, runs=2).flawless
    assert not kill.Tally(kills=3, runs=2, **flaw).flawless


@pytest.fixture
def kill_servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """By its own name, since its processes import it by that."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("kill_servers")
    for name in ("kill_servers", "kill"):
        sys.modules.pop(name)


@pytest.mark.parametrize(
    "flaw",
    ["unended", "lost", "again", "charged", "orphans", "left_over", "without_cause", "other_results", "other_answers"],
)
def test_kill_servers_passes_no_tally_in_which_anything_is_wrong(kill_servers: ModuleType, flaw: str) -> None:
    assert kill_servers.Tally(events=3, runs=2, restarts=3).flawless()
    assert not kill_servers.Tally(events=3, runs=2, **{flaw: 1}).flawless()


def test_kill_servers_judges_no_answers_that_a_real_server_gives_otherwise(kill_servers: ModuleType) -> None:
    assert kill_servers.Tally(other_answers=1, other_results=1).flawless(same=False)
    assert not kill_servers.Tally(other_answers=1, charged=1).flawless(same=False)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["server killed", "server hangs", "we killed", "we and guard killed"])
def test_servers_that_die_cost_no_answer_and_leave_no_process(
    kill_servers: ModuleType, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kill_servers.main(
        ["--kills", "1", "--seeds", "1", "--parallel", "1", "--rounds", "1", "--seed", "3", "--kind", kind]
    )
    rows = {line[:44].strip(): line[44:].strip() for line in capsys.readouterr().out.splitlines()}
    assert int(rows["events"]) >= 1
    for figure in (*kill_servers.ZEROS, *kill_servers.SAME):
        assert rows[figure] == "0", figure


@pytest.mark.slow
def test_learning_reports_gains_of_a_run_and_its_control(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["method.rounds=1", "method.exam=3", "task.train=40", "task.held_out=10", "method.select.budget=16"]
    sets = [part for entry in small for part in ("--set", entry)]
    arguments = ["quickstart", "--seeds", "1", "--engine", "simulated", "--out", str(tmp_path / "learning"), *sets]
    monkeypatch.setattr(sys, "argv", ["learning.py", *arguments])
    load("learning").main()
    printed = capsys.readouterr().out
    assert "gain, led by failures" in printed
    assert "gain, control" in printed


@pytest.mark.parametrize("batches", [True, False])
def test_serving_makes_a_round_of_the_published_size(batches: bool, tmp_path: Path) -> None:
    serving = load("serving")
    with serving.stub("--seconds", "0", "--slots", "256") as url:
        row = serving.run_round(url, tmp_path, batches=batches)
        told = serving.stats_of(url)
    assert row.calls == serving.CALLS == len(serving.prompts_of(tmp_path))
    assert [len(stage) for stage in serving.stages(serving.prompts_of(tmp_path))] == [200, 128, 4, 4, 2045, 200]
    assert row.told["prompt_tokens"] <= told["prompt_tokens"]
    assert row.requests < serving.CALLS / 5 if batches else row.requests >= serving.CALLS
    assert row.seconds > 0 < row.cpu


def test_serving_counts_every_answer(capsys: pytest.CaptureFixture[str]) -> None:
    load("serving").measure_sustained(400, 20)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[-2:]] == ["batches", "single"]


@pytest.fixture(scope="module")
def studies() -> ModuleType:
    return load("studies")


@pytest.mark.parametrize(
    "flaw", ["results_differ", "reports_differ", "calls_lost", "result_lines_lost", "failed", "processes_left"]
)
def test_studies_passes_no_kills_after_which_anything_is_wrong(studies: ModuleType, flaw: str) -> None:
    assert studies.Tally(kills=3, runs=2, before_it_was_a_study=1).flawless
    assert not studies.Tally(kills=3, runs=2, **{flaw: 1}).flawless


def test_studies_redraws_a_result_and_counts_it_anew(studies: ModuleType) -> None:
    from lbt_sim.study.record import RoundRecord, RunResult

    problems = tuple(map(str, range(200)))
    real = RunResult(
        "a", 1, "runs/a/1", "done", None, problems, rounds=(RoundRecord(0, "m", "c" * 200, "", 1.0, None),)
    )
    drawn = studies.redrawn(real, "a", 7, random.Random(1))
    (round_,) = drawn.rounds
    assert (drawn.seed, drawn.problems) == (7, problems)
    assert round_.accuracy == round_.outcomes.count("c") / 200
    assert 0.85 < round_.accuracy < 1.0  # a tenth by chance: half of those become wrong
    assert drawn != studies.redrawn(real, "a", 7, random.Random(2))


def rows_of(printed: str) -> dict[str, list[str]]:
    lines = [line for line in printed.splitlines() if line.startswith("| ")]
    return {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines}


TINY = ("arms=[several, one]", "compare=[[several, one]]", "equal_compute=null", "task.held_out=10", "method.rounds=1")
"""A study of two conditions, whose runs take a tenth of a second."""


@pytest.mark.slow
def test_studies_that_are_killed_end_as_the_one_that_was_not(
    studies: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studies, "SMALL", TINY)
    tally = studies.kill_studies(2, 2, 2, tmp_path)
    assert (tally.kills, sum(tally.at.values())) == (2, 2)
    assert tally.runs == 2 * 2 * tally.studies > 0
    assert tally.flawless, vars(tally)
    for folder in tmp_path.glob("study-*"):
        assert studies.processes_of(folder) == []


FEW = ("task.held_out=10", "method.rounds=1", "method.select.budget=40")


@pytest.mark.slow
def test_studies_reports_as_many_results_as_were_asked_for(
    studies: ModuleType, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        studies.main(["large", "--runs", "70", "--real", "2", *(part for one in FEW for part in ("--set", one))])
    rows = rows_of(capfd.readouterr().out)
    assert ended.value.code == 0
    assert rows["runs' results"] == ["70"]
    assert rows["of them real, with their folders"] == ["14"]
    assert float(rows["report, MB"][0]) > 0


@pytest.mark.slow
def test_studies_tells_where_the_seconds_of_a_study_went(
    studies: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studies, "SMALL", TINY)
    folder = tmp_path / "s"
    found = studies.spent(studies.study(folder, 2, "--workers", 1, "--no-report"), folder, 4)
    assert found.planned + found.up + found.runs + found.after == pytest.approx(found.wall)
    assert min(found.planned, found.up, found.runs, found.after) > 0
    assert 0 < found.own < found.cpu  # workers are counted too
