"""Studies as a whole: killed and resumed, on more workers, and with 10,000 runs.

`kills`: a study is killed with SIGKILL, coordinator or worker or all, while its folder is made, as a result is written,
while it is reported, or at any moment, and gone on with until it ends; its results and its report must be those of one
that was never killed, and every call and result that was on disk must still be there. `scale`: wall and processor time
of the same study on 1 and 2 workers, and on Ray. `large`: `lbt-sim report` on a study folder that holds the results of
10,000 runs: those of real small runs under more seeds, with a tenth of the held-out answers drawn anew so that no two
are alike; the run folders of the real ones are there, the others are not.

    uv run python benchmarks/studies.py kills --kills 20 --seeds 8
    uv run python benchmarks/studies.py scale --repeats 3
    uv run python benchmarks/studies.py large --runs 10000

It ends with status 1 where something differs or a limit is missed.
"""

from __future__ import annotations

import argparse
import difflib
import os
import platform
import random
import re
import resource
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
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

MOMENTS = ("while its folder is made", "as results are written", "while it is reported", "any time")


@dataclass
class Tally:
    """What `kills` counts."""

    kills: int = 0
    of_all: int = 0
    of_workers: int = 0
    of_coordinator: int = 0
    at: Counter[str] = field(default_factory=Counter)
    before_it_was_a_study: int = 0
    with_a_line_cut_off: int = 0
    gone_on_with_beside_its_old_workers: int = 0
    studies: int = 0
    runs: int = 0
    results_differ: int = 0
    reports_differ: int = 0
    calls_lost: int = 0
    result_lines_lost: int = 0
    failed: int = 0
    processes_left: int = 0

    @property
    def flawless(self) -> bool:
        wrong = (self.results_differ, self.reports_differ, self.calls_lost, self.result_lines_lost)
        return not (any(wrong) or self.failed or self.processes_left)


@dataclass(frozen=True)
class Whole:
    """The study that nobody kills: what the others are compared with, and when things happen in it."""

    results: dict[tuple[str, int], RunResult]
    page: str
    seconds: float
    reporting: float
    size: int


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


def gone(folder: Path, within: float = 60.0) -> bool:
    """Whether a study's workers, to whom nobody gives work any more, end by themselves."""
    limit = time.monotonic() + within
    while left := processes_of(folder):
        if time.monotonic() > limit:
            kill(left)
            return False
        time.sleep(0.02)
    return True


def lines_of(folder: Path) -> bytes:
    file = folder / RESULTS_FILE
    return file.read_bytes() if file.exists() else b""


def entries(folder: Path) -> int:
    with suppress(OSError):
        return sum(1 for _ in folder.iterdir())
    return -1


def wait_for(moment: str, process: subprocess.Popen[bytes], folder: Path, whole: Whole, rng: random.Random) -> None:
    """Until a moment of that kind, or until the process ends without one."""
    written = len(lines_of(folder))
    due, after = time.monotonic() + rng.uniform(0.0, whole.seconds / 2), rng.uniform(0.0, 0.004)
    conditions, wanted = folder / "conditions", rng.randint(0, len({name for name, _ in whole.results}))
    size = written + rng.random() * max(0, whole.size - written)
    if moment == MOMENTS[2]:
        size, after = whole.size - 1, rng.uniform(0.0, whole.reporting)
    while process.poll() is None:
        if moment == MOMENTS[0]:
            reached = entries(conditions) >= wanted
        elif moment == MOMENTS[3]:
            reached = time.monotonic() >= due
        else:
            reached = (folder / RESULTS_FILE).exists() and (folder / RESULTS_FILE).stat().st_size > size
        if reached:
            break
        time.sleep(0.0005)
    time.sleep(after if moment != MOMENTS[0] else after / 2)


def killed(process: subprocess.Popen[bytes], folder: Path, rng: random.Random, tally: Tally) -> bool:
    """Kills a worker, the coordinator, or all; whether the study has to be gone on with."""
    workers = processes_of(folder)
    what = rng.choice(("all", "all", "coordinator", "worker"))
    tally.kills += 1
    if what == "worker" and workers:
        kill([rng.choice(workers)])
        tally.of_workers += 1
        return False  # another one takes its place
    if what == "coordinator":
        os.kill(process.pid, signal.SIGKILL)
        tally.of_coordinator += 1
    else:
        os.killpg(process.pid, signal.SIGKILL)
        kill(processes_of(folder))
        tally.of_all += 1
    process.wait()
    return True


def begun(folder: Path, seeds: int) -> subprocess.Popen[bytes]:
    """The study begun, begun again or gone on with, as a user would, in a process group of its own."""
    there = (folder / STUDY_FILE).exists()
    line = command("resume", folder, "--workers", 2) if there else study(folder, seeds, "--workers", 2)
    with (folder.parent / f"{folder.name}.log").open("ab") as log:
        return subprocess.Popen(line, stdout=log, stderr=log, cwd=folder.parent, start_new_session=True)


def not_killed(folder: Path, seeds: int) -> Whole:
    started, all_in, size = time.monotonic(), time.monotonic(), 0
    process = begun(folder, seeds)
    while process.poll() is None:
        if (there := len(lines_of(folder))) > size:
            size, all_in = there, time.monotonic()
        time.sleep(0.02)
    ended = time.monotonic()
    if process.returncode:
        raise SystemExit((folder.parent / f"{folder.name}.log").read_text())
    return Whole(lasting(folder), report_of(folder), ended - started, ended - all_in, size)


def one_killed(folder: Path, moments: list[str], whole: Whole, rng: random.Random, tally: Tally, seeds: int) -> None:
    """One copy of the study, killed at each of the moments and gone on with to its end."""
    calls: dict[str, dict[tuple[Any, ...], tuple[Any, ...]]] = {}
    lines = b""
    while True:
        process, again = begun(folder, seeds), False
        while moments and not again:
            wait_for(moments[0], process, folder, whole, rng)
            if process.poll() is not None:
                break
            moment = moments.pop(0)
            again = killed(process, folder, rng, tally)
            tally.at[moment] += 1
        status = process.wait()
        if again:
            tally.before_it_was_a_study += folder.exists() and not (folder / STUDY_FILE).exists()
            if rng.random() < 0.5 and processes_of(folder):
                tally.gone_on_with_beside_its_old_workers += 1
            else:
                tally.processes_left += not gone(folder)
        found, now = committed(folder), lines_of(folder)
        for run, rows in calls.items():
            tally.calls_lost += sum(found.get(run, {}).get(path) != row for path, row in rows.items())
        tally.result_lines_lost += not now.startswith(lines)
        calls, lines = found, now[: now.rfind(b"\n") + 1]
        tally.with_a_line_cut_off += again and lines != now
        if not again:
            break
    tally.processes_left += not gone(folder)
    tally.studies += 1
    if status:
        tally.failed += 1
        print((folder.parent / f"{folder.name}.log").read_text()[-2000:], file=sys.stderr)
        return
    compare(folder, whole, tally)


def compare(folder: Path, whole: Whole, tally: Tally) -> None:
    """A study that was killed against the one that was not."""
    found = lasting(folder)
    tally.runs += len(found)
    tally.results_differ += sum(found.get(key) != run for key, run in whole.results.items())
    tally.results_differ += len(found.keys() - whole.results.keys())
    if (page := report_of(folder)) != whole.page:
        tally.reports_differ += 1
        lines = difflib.unified_diff(whole.page.splitlines(), page.splitlines(), n=0, lineterm="")
        print("\n".join(line[:200] for line in list(lines)[:20]), file=sys.stderr)


def kill_studies(kills: int, seeds: int, seed: int, work: Path) -> Tally:
    """Kills copies of a study until there were so many kills; each is gone on with to its end."""
    rng, tally = random.Random(seed), Tally()
    whole = not_killed(work / "study-whole", seeds)
    while tally.kills < kills and not tally.failed:
        of_each = Counter(rng.choices(MOMENTS, (2, 3, 1, 2), k=min(kills - tally.kills, rng.randint(3, 6))))
        later = list((of_each - Counter({MOMENTS[0]: kills, MOMENTS[2]: kills})).elements())
        rng.shuffle(later)
        first, last = ([one] * of_each[one] for one in (MOMENTS[0], MOMENTS[2]))
        one_killed(work / f"study-{tally.studies}", [*first, *later, *last], whole, rng, tally, seeds)
    return tally


def kills(args: argparse.Namespace, work: Path) -> bool:
    tally = kill_studies(args.kills, args.seeds, args.seed, work)
    print("| figure | value |\n| --- | ---: |")
    for name, value in vars(tally).items():
        rows = {f"killed {at}": n for at, n in value.items()} if name == "at" else {name.replace("_", " "): value}
        print("\n".join(f"| {figure} | {number} |" for figure, number in rows.items()))
    return tally.flawless


# --- scale ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spent:
    """Seconds of a study from its command's start to its end, and where they went.

    Attributes:
        wall: In all.
        planned: Until its folder was made.
        up: From then until the first run had begun: workers start.
        runs: From then until the last result was in.
        after: From then on: workers end, findings are computed, the report is written.
        cpu: Of the command and of all processes under it, Ray's own too.
        own: Of the command itself.
        busy: Cores busy while its runs were executed.
    """

    wall: float
    planned: float
    up: float
    runs: float
    after: float
    cpu: float
    own: float
    busy: float


def look(root: int, used: dict[tuple[int, str], float]) -> None:
    """Puts down the processor seconds of a process and all under it, those whose parents are gone too."""
    rows = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                # After the name, which may hold anything: state, parent, …, user and system ticks, …, start.
                row = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                rows[int(entry.name)] = (int(row[1]), (int(row[11]) + int(row[12])) / os.sysconf("SC_CLK_TCK"), row[19])
    known = {root, *(pid for pid, born in used if pid in rows and rows[pid][2] == born)}
    while more := {pid for pid, row in rows.items() if row[0] in known} - known:
        known |= more
    used.update({(pid, rows[pid][2]): rows[pid][1] for pid in known if pid in rows})


def spent(line: list[str], folder: Path, runs: int) -> Spent:
    """A study's command, watched from without."""
    marks = (
        lambda: (folder / STUDY_FILE).exists(),
        lambda: any(folder.glob(f"runs/*/*/{LEDGER_FILE}")),
        lambda: sum(one.startswith(b'{"of"') for one in lines_of(folder).splitlines()) >= runs,
    )
    used: dict[tuple[int, str], float] = {}
    moments: list[tuple[float, float]] = []
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    process = subprocess.Popen([*line, "--quiet"], cwd=folder.parent, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        look(process.pid, used)
        if len(moments) < len(marks) and marks[len(moments)]():
            moments.append((time.monotonic(), sum(used.values())))
        time.sleep(0.05)
    ended, after = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode or len(moments) < len(marks):
        raise SystemExit(f"{shlex.join(line)} ended with status {process.returncode}")
    # What is waited for counts to the last tick; what is not (Ray's workers) was looked at 20 times a second.
    waited = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    (made, _), (first, cpu_first), (last, cpu_last) = moments
    own = next(seconds for (pid, _), seconds in used.items() if pid == process.pid)
    times = (ended - began, made - began, first - made, last - first, ended - last)
    return Spent(*times, max(waited, sum(used.values())), own, (cpu_last - cpu_first) / max(last - first, 1e-9))


COLUMNS = {
    "wall": "wall, s", "planned": "until it is planned", "up": "until the first run", "runs": "its runs",
    "after": "after them", "cpu": "processor, s", "own": "of it the command itself", "busy": "cores busy in its runs",
}  # fmt: skip


def scale(args: argparse.Namespace, work: Path) -> bool:
    ways: dict[str, list[object]] = {"1 worker": ["--workers", 1], "2 workers": ["--workers", 2]}
    if args.ray:
        ways["Ray, 2 workers"] = ["--executor", "ray", "--workers", 2]
    measured: dict[str, list[Spent]] = {way: [] for way in ways}
    for _ in range(args.repeats):
        for way, options in ways.items():
            for old in work.glob("scale-*"):
                shutil.rmtree(old)
            folder = work / f"scale-{len(measured[way])}-{way.replace(' ', '-').replace(',', '')}"
            line = command("study", "diversity", "--out", folder, "--set", f"seeds={args.seeds}", *options)
            measured[way].append(spent(line, folder, 6 * args.seeds))
    began = time.monotonic()
    subprocess.run(command("report", folder, "-o", folder / "r.html"), check=True, stdout=subprocess.DEVNULL)
    print(f"{args.seeds} seeds, {6 * args.seeds} runs; `lbt-sim report` alone: {time.monotonic() - began:.1f} s.")
    print("Medians, and all values.\n")
    print(f"| | {' | '.join(COLUMNS.values())} |")
    print(f"| --- |{' ---: |' * len(COLUMNS)}")
    for way, rows in measured.items():
        columns = [[getattr(row, name) for row in rows] for name in COLUMNS]
        cells = [f"{statistics.median(column):.1f} ({', '.join(f'{v:.1f}' for v in column)})" for column in columns]
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
    compared = "compare=[[several, clones], [several, one], [one, self]]"
    sets = [part for one in (f"seeds={args.real}", arms, compared, *args.set) for part in ("--set", one)]
    line = command("study", "diversity", "--out", folder, *sets)
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
    process.returncode = os.waitstatus_to_exitcode(status)  # it was waited for here
    wall, peak = time.monotonic() - began, usage.ru_maxrss / 2**20
    size = (folder / "report.html").stat().st_size
    print("| figure | value |\n| --- | ---: |")
    print(f"| runs' results | {total:,} |")
    print(f"| of them real, with their folders | {len(known):,} |")
    print(f"| `{RESULTS_FILE}`, MiB | {(folder / RESULTS_FILE).stat().st_size / 2**20:.0f} |")
    print(f"| report, wall, s | {wall:.1f} |")
    print(f"| report, peak memory, GiB | {peak:.2f} |")
    print(f"| report, MB | {size / 1e6:.2f} |")
    return status == 0 and (total < 10_000 or (wall < SECONDS and peak < GIB))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["kills", "scale", "large"])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1, help="of the moments and of what is drawn")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-ray", dest="ray", action="store_false")
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--real", type=int, default=20, help="seeds that are really run for `large`")
    parser.add_argument("--set", action="append", default=[], help="of the study that is really run for `large`")
    args = parser.parse_args(arguments)
    print(f"| date | machine | command |\n| --- | --- | --- |\n| {datetime.now(UTC):%Y-%m-%d} ", end="")
    print(f"| {os.cpu_count()} {platform.machine()} cores; Python {platform.python_version()} ", end="")
    said = shlex.join(sys.argv[1:] if arguments is None else arguments)
    print(f"| `python benchmarks/studies.py {said}` |\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="lbt-sim-studies-") as folder:
        good = {"kills": kills, "scale": scale, "large": large}[args.part](args, Path(folder))
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
