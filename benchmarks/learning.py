"""Does the teacher learn? Runs a scenario over many seeds, and beside each run a control that revises without feedback.

For each seed: a run, and a fork of it from round 1 with `method.revise.feedback=none`, so that both start from the
same material (round 0 is paid once) and make the same kinds and numbers of calls. Reported: the teacher's held-out
accuracy at the last round minus round 0, paired by seed, with a 95 % t interval over seeds; the same for the
control; and the difference of the two. Finished runs are kept and not made again, so this can be interrupted.

    uv run python benchmarks/learning.py quickstart --seeds 10 --workers 2 --out runs/learning
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

T_975 = {4: 2.776, 5: 2.571, 7: 2.365, 9: 2.262, 11: 2.201, 14: 2.145, 19: 2.093, 29: 2.045, 39: 2.023}
"""97.5 % quantiles of Student's t by degrees of freedom."""


def run(folder: Path, first: Sequence[str], args: argparse.Namespace) -> dict:
    """The result of the run in `folder`: replayed if it is finished, resumed if it was begun, else made by `first`."""
    done = folder.with_suffix(".json")
    if done.exists():
        return json.loads(done.read_text())
    command = ["resume", str(folder)] if (folder / "run.sqlite").exists() else [*first, "--out", str(folder)]
    made = subprocess.run(
        [sys.executable, "-m", "lbt_sim", *command, "--json", "--quiet"], capture_output=True, text=True, check=False
    )
    if made.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {made.returncode}:\n{made.stderr}")
    done.write_text(made.stdout.splitlines()[-1])
    result = json.loads(done.read_text())
    print(f"{folder.name}: {curve(result)}  {result['calls']['made']} calls, {result['seconds']:.0f} s", flush=True)
    return result


def curve(result: dict) -> list[float]:
    """Held-out accuracy by round."""
    return [round(row["teacher"]["accuracy"], 3) for row in result["rounds"]]


def pair(seed: int, args: argparse.Namespace) -> tuple[dict, dict]:
    """A run and its control."""
    sets = [part for entry in args.set for part in ("--set", entry)]
    engine = ["--engine", args.engine] if args.engine else []
    main = args.out / f"seed{seed}-feedback"
    feedback = run(main, ["run", args.scenario, "--seed", str(seed), *engine, *sets], args)
    first = ["fork", str(main), "--from-round", "1", "--set", "method.revise.feedback=none"]
    return feedback, run(args.out / f"seed{seed}-none", first, args)


def interval(values: Sequence[float]) -> str:
    """Mean and 95 % t interval."""
    n = len(values)
    mean = statistics.fmean(values)
    if n < 2:
        return f"{mean:+.3f}"
    half = T_975.get(n - 1, 1.96) * statistics.stdev(values) / math.sqrt(n)
    return f"{mean:+.3f} (95 % {mean - half:+.3f} to {mean + half:+.3f}, {n} seeds)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--engine")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--out", type=Path, default=Path("runs/learning"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    seeds = range(args.first, args.first + args.seeds)
    with ThreadPoolExecutor(args.workers) as pool:
        pairs = list(pool.map(lambda seed: pair(seed, args), seeds))
    gains = [[(c := curve(result))[-1] - c[0] for result in arm] for arm in zip(*pairs, strict=True)]
    calls = [[result["calls"]["made"] for result in arm] for arm in zip(*pairs, strict=True)]
    starts = [curve(feedback)[0] for feedback, _ in pairs]
    print(f"round 0                      {statistics.fmean(starts):.3f}")
    print(f"gain, led by failures        {interval(gains[0])}")
    print(f"gain, control                {interval(gains[1])}")
    print(f"led by failures - control    {interval([a - b for a, b in zip(*gains, strict=True)])}")
    made = [statistics.fmean(arm) for arm in calls]
    print(f"calls made, mean             {made[0]:.0f} with round 0; control {made[1]:.0f} without it")
    print(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
