"""Kills runs with SIGKILL at random moments and resumes them: is anything lost, is any committed call made again?

    python benchmarks/kill.py --kills 200 --seed 1

Each run is a process of its own that executes `lbt-sim run` or `lbt-sim resume` on the simulated engine. After each
kill the ledger's rows are read; every row that was there must be there later, with the same id and the same content.
At the end the result of `--json` is compared with that of an uninterrupted run, byte for byte but for times, calls and
the folder's name; tokens by themselves. It ends with status 1 where anything differs.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from lbt_sim.folders import MANIFEST_FILE
from lbt_sim.ledger_file import LEDGER_FILE

Row = dict[str, Any]

SCENARIO = """\
kind: scenario
version: 1
models: {small: MODEL}
task: {name: reviews, train: 60, held_out: 12}
classroom: {edges: [{from: teacher, to: student, kind: teaches}, {among: student, kind: discusses, topology: ring}]}
cast: {students: [{persona: literal}, {persona: sceptic}, {persona: guesser}]}
lesson: {discussion: 1}
method:
  rounds: ROUNDS
  exemplars: 4
  beam: 2
  exam: 8
  revise: {operators: [rewrite, choose], reflections: 2, chosen: 2}
  select: {budget: 80}
"""
"""Of a MODEL, with so many ROUNDS."""
MODEL = "{engine: simulated, latency: 0.004, concurrency: 4}"
_CONTEXT = multiprocessing.get_context("forkserver")
# What a run imports is imported once; each run is then a fork of that process, up in milliseconds.
_CONTEXT.set_forkserver_preload(
    ["lbt_sim.cli", "lbt_sim.cli.drive", "lbt_sim.runs", "lbt_sim.scenario.load", "lbt_sim.models.simulated"]
)


def command(arguments: list[str], folder: str, output: str) -> None:
    """In the child: `lbt-sim` with `arguments`, its output in files."""
    from lbt_sim.cli import main

    os.chdir(folder)
    for number, name in ((1, f"{output}.out"), (2, f"{output}.err")):
        with Path(name).open("w") as file:
            os.dup2(file.fileno(), number)
    sys.argv = ["lbt-sim", *arguments]
    try:
        main()
    except BaseException:
        sys.stdout.flush()
        raise


def start(arguments: list[str], folder: Path, output: str = "lbt-sim") -> BaseProcess:
    """Starts `lbt-sim` with `arguments` in `folder`, where `output`.out and `output`.err take what it prints."""
    process = _CONTEXT.Process(target=command, args=(arguments, str(folder), output))
    process.start()
    return process


def result_of(text: str) -> str:
    """What must not differ between an interrupted and an uninterrupted run."""
    result: dict[str, Any] = json.loads(text.splitlines()[-1])
    for key in ("run", "seconds", "calls", "tokens", "time", "servers", "executions"):
        result.pop(key)
    return json.dumps(result, ensure_ascii=False)


def committed(run: Path) -> dict[int, Row]:
    """The ledger's calls by row id, every column; nothing where there is no ledger yet."""
    try:
        with closing(sqlite3.connect(f"{(run / LEDGER_FILE).as_uri()}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            return {row["id"]: dict(row) for row in connection.execute("SELECT * FROM calls")}
    except sqlite3.OperationalError:
        return {}


def count(run: Path) -> int:
    """How many calls are committed."""
    try:
        with closing(sqlite3.connect(f"{(run / LEDGER_FILE).as_uri()}?mode=ro", uri=True)) as connection:
            return int(connection.execute("SELECT count(*) FROM calls").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def path_of(row: Row) -> tuple[Any, ...]:
    return tuple(row[column] for column in ("round", "step", "agent", "item", "sample"))


def _wait(process: BaseProcess, run: Path, seconds: float, calls: int | None, rng: random.Random) -> None:
    """Until a random moment of `seconds`, or until just after so many calls were committed."""
    if calls is None:
        process.join(rng.uniform(0.0, seconds))
        return
    while process.is_alive() and count(run) < calls:
        process.join(0.001)
    process.join(rng.uniform(0.0, 0.005))


@dataclass
class Tally:
    """What was counted."""

    kills: int = 0
    before_the_folder: int = 0
    runs: int = 0
    differing: int = 0
    changed: int = 0
    again: int = 0
    other_tokens: int = 0
    failures: list[str] = field(default_factory=list)
    committed_at_kill: list[int] = field(default_factory=list)

    @property
    def flawless(self) -> bool:
        return not (self.differing or self.changed or self.again or self.other_tokens or self.failures)


@dataclass(frozen=True)
class Uninterrupted:
    """A seed's run without a kill: what the others are compared with."""

    result: str
    seconds: float
    tokens: Any
    calls: int


def uninterrupted(folder: Path, seed: int) -> Uninterrupted:
    name = f"whole-{seed}"
    begun = time.monotonic()
    process = start(_arguments(name, seed, resume=False), folder, name)
    process.join()
    seconds = time.monotonic() - begun
    text = (folder / f"{name}.out").read_text()
    if process.exitcode != 0:
        raise SystemExit(f"the uninterrupted run failed: {(folder / f'{name}.err').read_text()}")
    tokens = json.loads(text.splitlines()[-1])["tokens"]
    return Uninterrupted(result_of(text), seconds, tokens, count(folder / name))


def _arguments(name: str, seed: int, *, resume: bool) -> list[str]:
    if resume:
        return ["resume", name, "--json", "-q"]
    return ["run", "killed.yaml", "--out", name, "--seed", str(seed), "--json", "-q"]


def interrupted(folder: Path, name: str, seed: int, whole: Uninterrupted, rng: random.Random, tally: Tally) -> None:
    """One run, killed up to a dozen times, then resumed to the end."""
    run, known = folder / name, dict[int, Row]()
    wanted = rng.randint(4, 12)
    # A quarter at a moment of time, which may be before the first call; the others spread over the calls.
    at = sorted(rng.randrange(whole.calls) for _ in range(wanted))
    moments = [None if rng.random() < 0.25 else calls for calls in at]
    for attempt in range(wanted + 1):
        process = start(_arguments(name, seed, resume=(run / MANIFEST_FILE).exists()), folder, name)
        if attempt < wanted:
            _wait(process, run, whole.seconds, moments[attempt], rng)
            process.kill()
        process.join()
        found = committed(run)
        tally.changed += sum(found.get(number) != row for number, row in known.items())
        if process.exitcode == 0:
            break
        if process.exitcode != -9:
            tally.failures.append((folder / f"{name}.err").read_text()[-2000:])
            return
        known = found
        tally.kills += 1
        tally.before_the_folder += not (run / MANIFEST_FILE).exists()
        tally.committed_at_kill.append(len(known))
    text = (folder / f"{name}.out").read_text()
    result = json.loads(text.splitlines()[-1])
    paths = [path_of(row) for row in found.values()]
    tally.again += len(paths) - len(set(paths))
    tally.again += result["calls"]["made"] - sum(
        not row["shared"] for number, row in found.items() if number not in known
    )
    tally.differing += result_of(text) != whole.result
    tally.other_tokens += result["tokens"] != whole.tokens
    tally.runs += 1


def kill_runs(kills: int, seed: int, folder: Path, *, seeds: int = 5) -> Tally:
    """Kills runs until at least `kills` were killed; every one of them is resumed to its end."""
    scenario = SCENARIO.replace("MODEL", MODEL).replace("ROUNDS", "3")
    (folder / "killed.yaml").write_text(scenario, encoding="utf-8")
    rng, tally = random.Random(seed), Tally()
    wholes = {number: uninterrupted(folder, number) for number in range(seeds)}
    while tally.kills < kills and not tally.failures:
        number = rng.randrange(seeds)
        interrupted(folder, f"killed-{tally.runs}", number, wholes[number], rng, tally)
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        tally = kill_runs(asked.kills, asked.seed, Path(folder))
    at = sorted(tally.committed_at_kill)
    rows = {
        "kills": tally.kills,
        "of which before the run folder was made": tally.before_the_folder,
        "committed calls at a kill: least, median, most": f"{at[0]}, {at[len(at) // 2]}, {at[-1]}",
        "runs, each resumed to its end": tally.runs,
        "differing results": tally.differing,
        "committed calls changed or lost": tally.changed,
        "committed calls made again": tally.again,
        "runs whose tokens differ": tally.other_tokens,
        "resumes that failed": len(tally.failures),
        "seconds": f"{time.monotonic() - begun:.0f}",
    }
    for name, value in rows.items():
        print(f"{name:<50} {value}")
    for failure in tally.failures:
        print(failure)
    if not tally.flawless:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
