"""Studies as a whole: killed and resumed, on more workers, and with 10,000 runs.

`kills`: a study is killed with SIGKILL at random moments, coordinator or worker or all, and resumed until it ends; its
results and its report must be those of one that was never killed. `scale`: wall and processor time of the same study on
1 and 2 workers, and on Ray. `large`: `lbt-sim report` on a study folder that holds the results of 10,000 runs: those of
real small runs under more seeds, with a tenth of the held-out answers drawn anew so that no two are alike; the run
folders of the real ones are there, the others are not.

    uv run python benchmarks/studies.py kills --kills 20
    uv run python benchmarks/studies.py scale --repeats 3
    uv run python benchmarks/studies.py large --runs 10000

It ends with status 1 where something differs or a limit is missed.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import random
import re
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lbt_sim.ledger import LEDGER_FILE, LedgerReader
from lbt_sim.study.folder import RESULTS_FILE, STUDY_FILE, ResultsFile, load_results
from lbt_sim.study.record import RunResult

SMALL = ("method.rounds=2", "task.held_out=60", "method.select.budget=160")
PAID = ("made", "shared")
"""Counts that say which of several runs paid for a call that they have in common."""
SECONDS, GIB = 60.0, 2.0
"""What a report on 10,000 runs may take."""


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "lbt_sim", *map(str, arguments)]


def study(out: Path, seeds: int, *more: object) -> list[str]:
    sets = [part for one in (f"seeds={seeds}", *SMALL) for part in ("--set", one)]
    return command("study", "diversity", "--out", out, *sets, *more)


def lasting(folder: Path) -> dict[tuple[str, int], RunResult]:
    """The results without who paid."""
    runs = load_results(folder).runs
    return {
        key: replace(run, counts={n: c for n, c in run.counts.items() if n not in PAID}) for key, run in runs.items()
    }


def report_of(folder: Path) -> str:
    """The report without the section that tells times, and without what the study's folder is called."""
    page = (folder / "report.html").read_text(encoding="utf-8")
    page, found = re.subn(r'<section id="times".*?</section>', "", page, flags=re.DOTALL)
    assert found == 1
    return page.replace(str(folder), "FOLDER").replace(folder.name, "FOLDER")


def committed(folder: Path) -> dict[str, dict[tuple[Any, ...], tuple[Any, ...]]]:
    """Every call in every ledger: run -> path -> what came back."""
    found: dict[str, dict[tuple[Any, ...], tuple[Any, ...]]] = {}
    for file in sorted(folder.glob(f"runs/*/*/{LEDGER_FILE}")):
        try:
            with LedgerReader(file.parent) as ledger:
                rows = {call.path: (call.key, call.shared, call.text, call.finish) for call in ledger.calls()}
        except Exception:  # killed while its tables were being made
            rows = {}
        found[str(file.parent.relative_to(folder))] = rows
    return found


# --- kills ------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What `kills` counts."""

    kills: int = 0
    of_all: int = 0
    of_workers: int = 0
    of_coordinator: int = 0
    before_it_was_a_study: int = 0
    studies: int = 0
    runs: int = 0
    results_differ: int = 0
    reports_differ: int = 0
    calls_lost: int = 0
    failed: int = 0

    @property
    def flawless(self) -> bool:
        return not (self.results_differ or self.reports_differ or self.calls_lost or self.failed)


def processes_of(folder: Path) -> list[int]:
    """The workers of a study: processes whose command line names it."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"lbt_sim.study.worker" in line and str(folder).encode() in line:
                found.append(int(entry.name))
    return found


def kill(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def killed_once(process: subprocess.Popen[bytes], folder: Path, after: float, rng: random.Random, tally: Tally) -> None:
    """Waits, then kills a worker, the coordinator, or all; where only a worker died, the study goes on."""
    time.sleep(after)
    if process.poll() is not None:
        return
    workers = processes_of(folder)
    what = rng.choice(("all", "all", "coordinator", "worker"))
    tally.kills += 1
    if what == "worker" and workers:
        kill([rng.choice(workers)])
        tally.of_workers += 1
        return
    if what == "coordinator":
        kill([process.pid])
        tally.of_coordinator += 1
    else:
        kill([process.pid, *workers])
        tally.of_all += 1
    process.wait()
    while processes_of(folder):  # those that were not killed end by themselves: nobody gives them work
        time.sleep(0.02)


def kills(args: argparse.Namespace, work: Path) -> bool:
    rng, tally = random.Random(args.seed), Tally()
    whole = work / "study-whole"
    started = time.monotonic()
    subprocess.run(study(whole, args.seeds, "--workers", 2), check=True, cwd=work, capture_output=True)
    took = time.monotonic() - started
    expected, page = lasting(whole), report_of(whole)
    while tally.kills < args.kills:
        folder = work / f"study-{tally.studies}"
        tally.studies += 1
        before: dict[str, Any] = {}
        while True:
            there = (folder / STUDY_FILE).exists()
            if not there and folder.exists():
                tally.before_it_was_a_study += 1
                shutil.rmtree(folder)
            line = command("resume", folder, "--workers", 2) if there else study(folder, args.seeds, "--workers", 2)
            with (work / "log").open("ab") as log:
                process = subprocess.Popen(line, stdout=log, stderr=log, cwd=work)
            while process.poll() is None and tally.kills < args.kills:
                killed_once(process, folder, rng.uniform(0.2, took / 3), rng, tally)
            status = process.wait()
            after = committed(folder)
            for run, rows in before.items():
                tally.calls_lost += sum(after.get(run, {}).get(path) != row for path, row in rows.items())
            before = after
            if status == -signal.SIGKILL:
                continue
            tally.failed += status != 0
            break
        found = lasting(folder)
        tally.runs += len(found)
        tally.results_differ += sum(found.get(key) != run for key, run in expected.items()) + len(found) - len(expected)
        if report_of(folder) != page:
            tally.reports_differ += 1
            lines = difflib.unified_diff(page.splitlines(), report_of(folder).splitlines(), n=0, lineterm="")
            print("\n".join(line[:200] for line in list(lines)[:20]), file=sys.stderr)
    print("| figure | value |\n| --- | ---: |")
    for name, value in vars(tally).items():
        print(f"| {name.replace('_', ' ')} | {value} |")
    return tally.flawless


# --- scale ------------------------------------------------------------------------------------------------


def spent(line: list[str], work: Path) -> tuple[float, float]:
    """Wall and processor seconds of a command with all its children."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run([*line, "--quiet"], check=True, cwd=work, stderr=subprocess.DEVNULL)
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - started
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def scale(args: argparse.Namespace, work: Path) -> bool:
    ways: dict[str, list[object]] = {"1 worker": ["--workers", 1], "2 workers": ["--workers", 2]}
    if args.ray:
        ways["Ray, 2 workers"] = ["--executor", "ray", "--workers", 2]
    measured: dict[str, list[tuple[float, float, float]]] = {way: [] for way in ways}
    reports: list[float] = []
    for repeat in range(args.repeats):
        for way, options in ways.items():
            folder = work / f"scale-{way.replace(' ', '-')}-{repeat}"
            line = command("study", "diversity", "--out", folder, "--set", f"seeds={args.seeds}", "--no-report")
            wall, cpu = spent([*line, *map(str, options)], work)
            seconds = json.loads((folder / "manifest.json").read_text())["executions"][-1]["seconds"]
            measured[way].append((wall, seconds, cpu))
            if repeat == 0 and way == "2 workers":
                reports = [spent(command("report", folder, "-o", folder / "r.html"), work)[0] for _ in range(3)]
            shutil.rmtree(folder)
    print(f"{args.seeds} seeds, {6 * args.seeds} runs; the report alone: {statistics.median(reports):.1f} s\n")
    print("| | wall, s | executing its runs, s | processor, s (Ray's own processes not counted) |")
    print("| --- | ---: | ---: | ---: |")
    for way, rows in measured.items():
        cells = [
            f"{statistics.median(column):.1f} ({', '.join(f'{v:.1f}' for v in column)})"
            for column in zip(*rows, strict=True)
        ]
        print(f"| {way} | {' | '.join(cells)} |")
    return True


# --- large ------------------------------------------------------------------------------------------------


def redrawn(result: RunResult, condition: str, seed: int, rng: random.Random) -> RunResult:
    """A result under another seed, a tenth of its held-out answers right or wrong by chance."""
    rounds = []
    for one in result.rounds:
        letters = "".join(rng.choice("cw") if rng.random() < 0.1 else letter for letter in one.outcomes)
        rounds.append(replace(one, outcomes=letters, accuracy=letters.count("c") / len(letters)))
    return replace(result, condition=condition, seed=seed, folder=f"runs/{condition}/{seed}", rounds=tuple(rounds))


def large(args: argparse.Namespace, work: Path) -> bool:
    from lbt_sim.scenario.yaml import read_yaml, write_yaml

    folder, rng = work / "large", random.Random(args.seed)
    arms = "arms=[self, one, several, clones, resample, shuffled, no_revision]"
    line = command("study", "diversity", "--out", folder, "--set", f"seeds={args.real}", "--set", arms)
    line += [part for one in ("compare=[[several, clones], [several, one], [one, self]]",) for part in ("--set", one)]
    subprocess.run([*line, "--quiet", "--no-report"], check=True, cwd=work)
    known = list(load_results(folder).runs.values())
    conditions = [one.name for one in load_results(folder).conditions]
    seeds = -(-args.runs // len(conditions))
    file = folder / STUDY_FILE
    plan = read_yaml(file.read_text(encoding="utf-8"), str(file)).value
    file.write_text(write_yaml({**plan, "seeds": list(range(1, seeds + 1))}), encoding="utf-8")
    by_condition = {name: [one for one in known if one.condition == name] for name in conditions}
    with ResultsFile(folder) as results:
        for seed in range(args.real + 1, seeds + 1):
            for name in conditions:
                results.add(redrawn(rng.choice(by_condition[name]), name, seed, rng))
    total = len(load_results(folder).runs)
    began = time.monotonic()
    process = subprocess.Popen(command("report", folder, "-o", folder / "report.html"), cwd=work)
    _, status, usage = os.wait4(process.pid, 0)
    wall, peak = time.monotonic() - began, usage.ru_maxrss / 2**20
    size = (folder / "report.html").stat().st_size
    print("| figure | value |\n| --- | ---: |")
    print(f"| runs' results | {total:,} |")
    print(f"| of them real, with their folders | {len(known):,} |")
    print(f"| `{RESULTS_FILE}`, MiB | {(folder / RESULTS_FILE).stat().st_size / 2**20:.0f} |")
    print(f"| report, wall, s | {wall:.1f} |")
    print(f"| report, peak memory, GiB | {peak:.2f} |")
    print(f"| report, MB | {size / 1e6:.2f} |")
    return status == 0 and wall < SECONDS and peak < GIB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["kills", "scale", "large"])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1, help="of the moments and of what is drawn")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-ray", dest="ray", action="store_false")
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--real", type=int, default=20, help="seeds that are really run for `large`")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lbt-sim-studies-") as folder:
        good = {"kills": kills, "scale": scale, "large": large}[args.part](args, Path(folder))
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
