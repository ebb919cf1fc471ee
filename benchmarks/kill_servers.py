"""Kills and hangs the vLLM servers of runs, and the runs that own them: is an answer lost, a student charged, a process
left?

    python benchmarks/kill_servers.py --kills 50 --seed 1
    python benchmarks/kill_servers.py --kills 2 --parallel 1 --model FOLDER --python ENVIRONMENT/bin/python

The servers are `stub_vllm.py`, which lbt-sim starts, guards and watches as it does vLLM; each has a child process that
outlives it, as vLLM has. A quarter of the runs has two. No call is tried again on its own account, and no number of
failed calls stops a run, so that whatever a server's death costs a call shows as a charge. With `--model` the servers
are vLLM's own. Four kinds of events, each at random moments of runs:

- a server is killed with SIGKILL: its first process alone, or all of it;
- a server hangs: no call finishes, no counter moves, and `/health` stays 200 (of a real vLLM all processes but the
  first are stopped);
- we are killed with SIGKILL: 15 s later no process of the server may live, though a quarter of them ignore SIGTERM;
  then `lbt-sim resume`;
- we are killed together with the server's guard, so that something is left: the next start has to sweep it.

After each run its result, as `--json` prints it but for times, calls, tokens and the folder's name, its answers one by
one, and the rows of its ledger that were there before each event are compared with those of an undisturbed run. It
ends with status 1 where any row under "has to be 0" is not. Answers of a real vLLM may depend on what is computed
beside them, so of one only results and answers that differ are shown and not judged.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

from kill import SCENARIO, Row, command, committed, count, path_of, result_of

from lbt_sim.folders import MANIFEST_FILE, SERVER_LOGS

Kind = Literal["server killed", "server hangs", "we killed", "we and guard killed"]

KINDS: dict[Kind, int] = {"server killed": 3, "server hangs": 2, "we killed": 4, "we and guard killed": 3}
"""Kind -> events in one run, at most."""
GONE = 15.0
"""Seconds after the death of our process until no process of its servers may live."""
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["lbt_sim.cli", "lbt_sim.cli.drive", "lbt_sim.runs", "lbt_sim.scenario.load", "lbt_sim.models.vllm.model", "kill"]
)


# --- what is run ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bench:
    """What all runs have in common.

    Attributes:
        folder: Where everything is.
        stub: Whether the servers are stand-ins.
        limit: Seconds that an execution may take.
    """

    folder: Path
    stub: bool
    limit: float


def bench_of(folder: Path, asked: argparse.Namespace) -> Bench:
    """Writes the scenario, and without `--model` something that passes for weights."""
    model: dict[str, Any] = {"engine": "vllm", "device": asked.device, "restarts": 100, "retries": 0}
    model["patience"] = asked.patience
    if asked.model is None:
        weights = folder / "weights"
        weights.mkdir()
        (weights / "config.json").write_text("{}", encoding="utf-8")
        (weights / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
        stub = [sys.executable, str(Path(__file__).with_name("stub_vllm.py"))]
        flags = {"seconds": asked.seconds, "slots": 8, "child": True}
        model |= {"model": str(weights), "command": stub, "flags": flags, "cpu_cache": 1, "start_timeout": 60}
    else:
        model |= {"model": str(Path(asked.model).absolute()), "start_timeout": 900}
        model |= {"python": asked.python} if asked.python else {}
    text = SCENARIO.replace("MODEL", json.dumps(model)).replace("ROUNDS", str(asked.rounds))
    (folder / "killed.yaml").write_text(f"{text}budget: {{failed: 1.0}}\n", encoding="utf-8")
    return Bench(folder, asked.model is None, 120.0 if asked.model is None else 3600.0)


def _command(arguments: list[str], folder: str, output: str, state: str) -> None:
    """In the child: a command whose servers are recorded in `state`."""
    os.environ["LBT_SIM_STATE"] = state
    command(arguments, folder, output)


class Execution:
    """`lbt-sim run` or `resume` of a run, as a process of its own. Used by one thread."""

    _one_at_a_time = threading.Lock()
    # multiprocessing looks after all children whenever one is started: two threads must not ask for the same status.

    def __init__(self, bench: Bench, name: str, seed: int, more: Sequence[str] = ()) -> None:
        self.run = bench.folder / name
        self.state = bench.folder / f"{name}-state"
        self._limit = time.monotonic() + bench.limit
        self._output = bench.folder / name
        resume = (self.run / MANIFEST_FILE).exists()
        arguments = ["resume", name] if resume else ["run", "killed.yaml", "--out", name, "--seed", str(seed), *more]
        named = ([*arguments, "--json", "-q"], str(bench.folder), name, str(self.state))
        self._process: BaseProcess = _CONTEXT.Process(target=_command, args=named)
        with self._one_at_a_time:
            self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs; one that does not come to an end is killed."""
        if time.monotonic() > self._limit:
            self.kill()
        with self._one_at_a_time:
            return self._process.is_alive()

    def wait(self, seconds: float = 1e9, until: Callable[[], bool] = lambda: False) -> bool:
        """Until it has ended, so many seconds have passed, or something has happened; whether it still runs."""
        end = time.monotonic() + seconds
        while (alive := self.alive) and not until() and (rest := end - time.monotonic()) > 0:
            time.sleep(min(0.005, rest))
        return alive

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()

    def status(self) -> int:
        """Its exit status, when it has ended."""
        self.wait()
        with self._one_at_a_time:
            code = self._process.exitcode
        assert code is not None
        return code

    def said(self) -> str:
        """Its output."""
        return self._output.with_name(self.run.name + ".out").read_text(encoding="utf-8")

    def account(self) -> str:
        """What there is to say about its failure."""
        error = self._output.with_name(self.run.name + ".err").read_text(encoding="utf-8")[-2000:]
        logs = [log.read_text(encoding="utf-8", errors="replace")[-1000:] for log in self.logs()]
        return "\n".join([f"{self.run.name}, status {self.status()}:", error, *logs])

    def logs(self) -> list[Path]:
        """Its servers' logs."""
        return sorted((self.run / SERVER_LOGS).glob("*.log"))


# --- what the kernel and the records say ------------------------------------------------------------------


@dataclass
class Servers:
    """The processes of a run's servers, past and present."""

    state: Path
    sessions: set[int] = field(default_factory=set)

    def records(self) -> list[dict[str, Any]]:
        """What lbt-sim has written down."""
        found = []
        for path in self.state.glob("*.json"):
            with suppress(OSError, ValueError):
                found.append(json.loads(path.read_bytes()))
        self.sessions |= {record["pgid"] for record in found if record["pgid"]}
        return found

    def left_over(self) -> list[str]:
        """Files that are no server's any more: all but the locks, which are everybody's."""
        return [path.name for path in self.state.glob("*") if path.suffix != ".lock"]

    def processes(self) -> dict[int, tuple[int, int]]:
        """Process -> parent and session, of all that have the mark, or are of a server's session. Guards have it."""
        self.records()
        found = {}
        ours = f"LBT_SIM_STATE={self.state}".encode()
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                environment = (entry / "environ").read_bytes().split(b"\0")
                state, parent, _, session = (entry / "stat").read_bytes().rpartition(b")")[2].split()[:4]
            except (OSError, ValueError):
                continue
            marked = ours in environment and any(one.startswith(b"LBT_SIM_SERVER=") for one in environment)
            if state not in (b"Z", b"X") and (marked or int(session) in self.sessions):
                found[int(entry.name)] = int(parent), int(session)
        return found

    def wait_gone(self, seconds: float) -> tuple[float, int]:
        """Seconds until none lived, and how many live when it is given up."""
        begun = time.monotonic()
        while left := self.processes():
            if time.monotonic() - begun >= seconds:
                break
            time.sleep(0.05)
        return time.monotonic() - begun, len(left)


# --- what is counted --------------------------------------------------------------------------------------

Answers = dict[tuple[Any, ...], tuple[Any, ...]]


@dataclass(frozen=True)
class Undisturbed:
    """A seed's run without an event: what the others are compared with."""

    result: str
    answers: Answers
    seconds: float
    starting: float
    calls: int


@dataclass
class Tally:
    """What was counted of one kind of events."""

    events: int = 0
    alone: int = 0
    starting: int = 0
    stubborn: int = 0
    replicated: int = 0
    at: list[int] = field(default_factory=list)
    runs: int = 0
    restarts: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    for_the_next: int = 0
    unended: int = 0
    lost: int = 0
    again: int = 0
    charged: int = 0
    without_cause: int = 0
    orphans: int = 0
    left_over: int = 0
    other_results: int = 0
    other_answers: int = 0
    accounts: list[str] = field(default_factory=list)

    def flawless(self, *, same: bool = True) -> bool:
        """Whether all is 0 that has to be; `same`: results and answers too have to be those of an undisturbed run."""
        wrong = self.unended + self.lost + self.again + self.charged + self.without_cause
        wrong += self.orphans + self.left_over
        return not wrong and not (same and (self.other_results or self.other_answers))


def answers_of(rows: Iterable[Row]) -> Answers:
    """Path -> what was answered."""
    return {path_of(row): tuple(row[name] for name in ("text", "finish", "reasoning", "error")) for row in rows}


def failed_in(result: Any) -> int:
    """How often a result says `failed` of outcomes or calls."""
    if isinstance(result, dict):
        return sum(value if key == "failed" else failed_in(value) for key, value in result.items())
    return sum(map(failed_in, result)) if isinstance(result, list) else 0


def undisturbed(bench: Bench, seed: int) -> Undisturbed:
    begun = time.monotonic()
    execution = Execution(bench, f"undisturbed-{seed}", seed)
    if execution.status() != 0:
        raise SystemExit(f"the undisturbed run failed: {execution.account()}")
    seconds, text, rows = time.monotonic() - begun, execution.said(), committed(execution.run).values()
    told = json.loads(text.splitlines()[-1])
    if failed_in(told):
        errors = {row["error"] for row in rows if row["finish"] == "failed"}
        raise SystemExit("\n".join(["calls failed in the undisturbed run:", *sorted(map(str, errors))]))
    return Undisturbed(result_of(text), answers_of(rows), seconds, told["time"]["starting"], len(rows))


# --- the events -------------------------------------------------------------------------------------------


@dataclass
class Disturbed:
    """One run, its events, and what they did to it."""

    bench: Bench
    kind: Kind
    name: str
    seed: int
    whole: Undisturbed
    rng: random.Random
    tally: Tally
    known: dict[int, Row] = field(default_factory=dict)
    before: dict[int, Row] = field(default_factory=dict)
    struck: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.stubborn = self.bench.stub and self.kind == "we killed" and self.rng.random() < 0.25
        self.replicas = 2 if self.rng.random() < 0.25 else 1
        self.run = self.bench.folder / self.name
        self.servers = Servers(self.bench.folder / f"{self.name}-state")

    def moments(self, most: int) -> list[int]:
        """After how many committed calls something is to happen, in order."""
        found = sorted(self.rng.randrange(1, self.whole.calls) for _ in range(self.rng.randint(1, most)))
        # A quarter of them follow at once: while what the one before has ended is being started.
        return [
            before if self.rng.random() < 0.25 else at for before, at in zip([found[0], *found], found, strict=False)
        ]

    def happened(self, found: dict[int, Row], *, starting: bool) -> None:
        """Takes note of an event, and of the rows that were committed before it."""
        self.compare(found)
        tally, self.known = self.tally, found
        tally.events += 1
        tally.starting += starting
        tally.stubborn += self.stubborn
        tally.replicated += self.replicas > 1
        tally.at.append(len(found))

    def compare(self, found: dict[int, Row]) -> None:
        """Rows that were committed before the last event have to be there, as they were."""
        self.tally.lost += sum(found.get(number) != row for number, row in self.known.items())

    def disturb(self) -> None:
        """All of it."""
        (self._disturb_server if self.kind.startswith("server") else self._disturb_us)()

    def _disturb_server(self) -> None:
        """A server is killed or hangs, once or several times: the run is to end by itself."""
        execution = self._begin()
        for calls in self.moments(KINDS[self.kind]):
            execution.wait(until=lambda calls=calls: count(self.run) >= calls)  # type: ignore[misc]
            execution.wait(self.rng.uniform(0.0, 0.05))
            while execution.alive and not self._strike(execution):
                execution.wait(0.02)
        self._ended(execution)

    def _strike(self, execution: Execution) -> bool:
        """One event, where there is a server that had none yet."""
        ours = [record for record in self.servers.records() if record["owner"] == execution.pid and record["pgid"]]
        fresh = [record for record in ours if record["pgid"] not in self.struck]
        # One that is being started is killed as well, now and then; it is not made to hang, for nobody asks it yet.
        if not fresh:
            return False
        record = self.rng.choice(fresh)
        if not record["ready"] and (self.kind == "server hangs" or self.rng.random() < 0.9):
            return False
        processes, first = self.servers.processes(), record["pgid"]
        if first not in processes:
            return False
        found = committed(self.run)
        if self.kind == "server hangs":
            if not self._hang(record, processes):
                return False
        elif self.rng.random() < 0.5:
            os.kill(first, signal.SIGKILL)
            self.tally.alone += 1
        else:
            with suppress(ProcessLookupError):
                os.killpg(first, signal.SIGKILL)
        self.struck.add(first)
        self.happened(found, starting=not record["ready"])
        return True

    def _hang(self, record: dict[str, Any], processes: dict[int, tuple[int, int]]) -> bool:
        """Makes a server hang; whether it says that it is well."""
        root = record["url"].removesuffix("/v1")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with suppress(OSError):
            if self.bench.stub:
                opener.open(urllib.request.Request(f"{root}/stub/faults", b'{"fault": "hang"}'), timeout=10).close()
            else:
                for pid, (_, session) in processes.items():
                    if session == record["pgid"] != pid:
                        os.kill(pid, signal.SIGSTOP)
            with opener.open(f"{root}/health", timeout=10) as answer:
                return bool(answer.status == 200)
        return False

    def _disturb_us(self) -> None:
        """Our process is killed, once or several times, then the run is resumed to its end."""
        for calls in self.moments(KINDS[self.kind]):
            execution = self._begin()
            by_time = self.rng.random()
            if by_time < 0.2:
                execution.wait(self.rng.uniform(0.0, 1.2 * self.whole.starting))
            elif by_time < 0.4:
                execution.wait(self.rng.uniform(0.0, self.whole.seconds))
            else:
                execution.wait(until=lambda calls=calls: count(self.run) >= calls)  # type: ignore[misc]
                execution.wait(self.rng.uniform(0.0, 0.05))
            if not execution.alive:
                self._ended(execution)
                return
            self._kill_us(execution)
        self._ended(self._begin())

    def _kill_us(self, execution: Execution) -> None:
        ready = any(record["ready"] and record["owner"] == execution.pid for record in self.servers.records())
        guards = [pid for pid, (parent, _) in self.servers.processes().items() if parent == execution.pid]
        doomed = [execution.pid] if self.kind == "we killed" else [*guards, execution.pid]
        self.rng.shuffle(doomed)
        for pid in doomed:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if execution.status() == 0:  # it had just ended
            self.tally.orphans += self.servers.wait_gone(GONE)[1]
            return
        self.before = committed(self.run)
        self.happened(self.before, starting=not ready)
        if self.kind == "we killed":
            seconds, left = self.servers.wait_gone(GONE)
            self.tally.slowest = max(self.tally.slowest, seconds)
            self.tally.orphans += left
        else:
            time.sleep(self.rng.uniform(0.0, 0.5))
            self.tally.for_the_next += len(self.servers.processes())

    def _begin(self) -> Execution:
        more = ["--set", f"models.small.replicas={self.replicas}"]
        more += ["--set", "models.small.flags.ignore-term=true"] if self.stubborn else []
        return Execution(self.bench, self.name, self.seed, more)

    def _ended(self, execution: Execution) -> None:
        """Waits for the end of the run, and looks at all that is left of it."""
        tally, status = self.tally, execution.status()
        tally.runs += 1
        self.servers.records()
        tally.orphans += len(self.servers.processes())
        tally.left_over += len(self.servers.left_over())
        found = committed(self.run)
        self.compare(found)
        if status != 0:
            tally.unended += 1
            tally.accounts.append(execution.account())
            return
        answers, text = answers_of(found.values()), execution.said()
        result = json.loads(text.splitlines()[-1])
        tally.lost += len(self.whole.answers.keys() - answers.keys())
        tally.charged += failed_in(result) + sum(row["finish"] == "failed" for row in found.values())
        new = sum(not row["shared"] for number, row in found.items() if number not in self.before)
        tally.again += abs(result["calls"]["made"] - new)
        same = self.whole.answers
        tally.other_answers += sum(same[path] != answers[path] for path in same.keys() & answers.keys())
        tally.other_results += result_of(text) != self.whole.result
        reasons = [why for told in result["servers"].values() for why in told.get("restarts", ())]
        tally.restarts += len(reasons)
        tally.reasons.update(reasons)
        tally.without_cause += max(0, len(reasons) - len(self.struck))
        if not tally.flawless():
            tally.accounts.append(f"{execution.account()}\n{reasons}")


# --- all of it --------------------------------------------------------------------------------------------


@contextmanager
def no_processes_left(folder: Path) -> Iterator[None]:
    """Whatever happens here, nothing that was started in `folder` outlives it."""
    try:
        yield
    finally:
        for process in multiprocessing.active_children():
            process.kill()
        for state in folder.glob("*-state"):
            for pid in Servers(state).processes():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def kill_servers(
    kind: Kind, kills: int, seed: int, bench: Bench, wholes: Sequence[Undisturbed], parallel: int
) -> Tally:
    """Runs with events of a kind until there were at least `kills` of them."""
    rng, lock, tally = random.Random(f"{seed} {kind}"), threading.Lock(), Tally()

    def work() -> None:
        while tally.events < kills and len(tally.accounts) < 3:
            with lock:
                number, own = rng.randrange(len(wholes)), random.Random(rng.random())
                name = f"{kind.replace(' ', '-')}-{own.getrandbits(40):010x}"
            mine = Tally()
            Disturbed(bench, kind, name, number, wholes[number], own, mine).disturb()
            with lock:
                _add(tally, mine)

    with ThreadPoolExecutor(parallel) as pool:
        for done in [pool.submit(work) for _ in range(parallel)]:
            done.result()
    return tally


def _add(tally: Tally, more: Tally) -> None:
    for name, value in vars(more).items():
        if name == "slowest":
            tally.slowest = max(tally.slowest, more.slowest)
        elif name == "reasons":
            tally.reasons.update(value)
        else:
            setattr(tally, name, getattr(tally, name) + value)


def _spread(at: Sequence[int]) -> str:
    ordered = sorted(at)
    return f"{ordered[0]}, {ordered[len(at) // 2]}, {ordered[-1]}" if at else "–"


ROWS: dict[str, Callable[[Tally], object]] = {
    "events": lambda t: t.events,
    "of which the first process alone": lambda t: t.alone or "",
    "of which while a server was starting": lambda t: t.starting,
    "of which with a second server": lambda t: t.replicated,
    "of which with servers that ignore SIGTERM": lambda t: t.stubborn or "",
    "committed calls then: least, median, most": lambda t: _spread(t.at),
    "runs, each to its end": lambda t: t.runs,
    "restarts that the runs tell of": lambda t: t.restarts,
    "slowest end of a server without us, s": lambda t: f"{t.slowest:.1f}" if t.slowest else "",
    "processes that the next start ended": lambda t: t.for_the_next or "",
}
ZEROS: dict[str, Callable[[Tally], int]] = {
    "runs that did not end with status 0": lambda t: t.unended,
    "answers lost": lambda t: t.lost,
    "answers made again": lambda t: t.again,
    "wrong charges: calls or outcomes `failed`": lambda t: t.charged,
    "orphans": lambda t: t.orphans,
    "records left over": lambda t: t.left_over,
    "restarts without a cause": lambda t: t.without_cause,
}
SAME: dict[str, Callable[[Tally], int]] = {
    "differing results": lambda t: t.other_results,
    "differing answers": lambda t: t.other_answers,
}


def show(tallies: dict[Kind, Tally], *, stub: bool) -> None:
    def lines(rows: Iterable[tuple[str, Callable[[Tally], object]]]) -> None:
        for name, value in rows:
            print(f"{name:<44}" + "".join(f"{value(tally)!s:>21}" for tally in tallies.values()))

    print(f"{'':<44}" + "".join(f"{kind:>21}" for kind in tallies))
    lines(ROWS.items())
    print(f"has to be 0{'' if stub else ', but for the last two'}:")
    lines([*ZEROS.items(), *SAME.items()])
    reasons = sum((tally.reasons for tally in tallies.values()), Counter[str]())
    for why, times in reasons.most_common():
        print(f"{times:>4} restarts: the server {why}")
    for tally in tallies.values():
        for account in tally.accounts[:3]:
            print(account)


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="of each kind")
    parser.add_argument("--kind", action="append", choices=list(KINDS), help="only this one")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=3, help="runs that differ")
    parser.add_argument("--parallel", type=int, default=4, help="runs at a time")
    parser.add_argument("--rounds", type=int, default=3, help="of the method")
    parser.add_argument("--seconds", type=float, default=0.02, help="that the stand-in takes for a call, 8 at a time")
    parser.add_argument("--patience", type=float, help="after which a server counts as hung; 2, with --model 60")
    parser.add_argument("--model", help="a folder: real vLLM servers of that model")
    parser.add_argument("--python", help="of an environment with vLLM")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda", "auto"])
    asked = parser.parse_args(argv)
    asked.patience = asked.patience or (60.0 if asked.model else 2.0)
    return asked


def main(argv: Sequence[str] | None = None) -> None:
    asked, begun = arguments(argv), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kill-servers-") as name, no_processes_left(Path(name)):
        bench = bench_of(Path(name), asked)
        wholes = [undisturbed(bench, seed) for seed in range(asked.seeds)]
        tallies: dict[Kind, Tally] = {}
        for kind in KINDS:
            if kind in (asked.kind or KINDS):
                tallies[kind] = kill_servers(kind, asked.kills, asked.seed, bench, wholes, asked.parallel)
                print(f"{kind}: done after {time.monotonic() - begun:.0f} s", file=sys.stderr)
    show(tallies, stub=bench.stub)
    print(f"{'seconds':<44}{time.monotonic() - begun:>21.0f}")
    if not all(tally.flawless(same=bench.stub) for tally in tallies.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
