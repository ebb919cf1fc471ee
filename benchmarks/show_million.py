"""How long `lbt-sim show` takes, and how much memory, on a ledger of many calls.

    python benchmarks/show_million.py [CALLS] [--folder DIR] [--students N]

Makes a run folder of about CALLS recorded calls (kept with --folder and used again), then runs `show` with
several options, each in a process of its own, and prints wall time and peak resident memory of each.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

from lbt_sim.events import Event
from lbt_sim.ledger import LEDGER_FILE, Ledger, StoredCall

ITEMS, BEAM, HELD_OUT = 24, 3, 120
LABELS = ("positive", "negative")
SHOW = """
import sys, typer
from lbt_sim.cli.show import show
from lbt_sim.errors import LbtError
try:
    typer.run(show)
except LbtError as error:
    print(error)
    sys.exit(error.status)
"""


def head_of(material: str, student: str) -> tuple[bytes, str]:
    turns = [["system", f"You are {student}, a student. Answer with one word."]]
    for number in range(8):
        turns += [["user", f"Review {number} of {material}: " + "the plot is thin but the cast saves it. " * 4]]
        turns += [["assistant", LABELS[number % 2]]]
    text = json.dumps(turns)
    return blake2b(text.encode(), digest_size=16).digest(), text


def call(path: tuple[int, str, str, str, int], head: tuple[bytes, str], text: str, purpose: str) -> StoredCall:
    key = blake2b(repr(path).encode(), digest_size=16).digest()
    choices = json.dumps(LABELS) if purpose == "answer" else "[]"
    logprobs = "[-0.22314355131420976, -1.6094379124341003]" if purpose == "answer" else None
    sampling = "Sampling(temperature=0.0, top_p=1.0, top_k=None, max_tokens=4, stop=())"
    last = f"Review {path[3]}: a slow start, a fine middle, and an ending that one forgets on the way home."
    return StoredCall(
        *path, key, 0, "benchmark:none", purpose, sampling, choices, *head, last, None, text, "stop", logprobs,
        400, 380, 1, None, None, 0.05,
    )  # fmt: skip


def rounds_of(calls: int, students: int) -> int:
    return max(-(-calls // (students * ITEMS * BEAM + HELD_OUT)), 1)


def events_and_calls(calls: int, students: int) -> Iterator[Event | StoredCall]:
    rng = random.Random(7)
    names = [f"student-{number}" for number in range(1, students + 1)]
    rounds = rounds_of(calls, students)
    seats = [{"name": "teacher", "role": "teacher", "model": "m", "persona": None}]
    seats += [{"name": name, "role": "student", "model": "m", "persona": None} for name in names]
    yield Event("run", "run", {
        "title": "benchmark", "seed": 7, "method": "m3", "rounds": rounds,
        "task": {"name": "reviews", "labels": LABELS, "positive": "positive", "grader": "labels", "train": 400,
                 "held_out": HELD_OUT},
        "seats": seats, "edges": [["teacher", name, "teaches"] for name in names],
        "baselines": {"always_positive": {"accuracy": 0.5, "f1": 0.67}, "majority": {"accuracy": 0.5, "f1": 0.0}},
        "notices": [],
    })  # fmt: skip
    beam: list[str] = []
    for round_ in range(rounds + 1):
        if round_:
            yield from _exam(round_, beam, names, rng)
        beam = [f"m{round_}{letter}" for letter in "abc"[:BEAM]]
        for name in beam:
            exemplars = [{"question": f"{name} {n}", "answer": LABELS[n % 2], "rationale": None} for n in range(8)]
            parents = [f"m{round_ - 1}a"] if round_ else []
            yield Event(f"material/{name}", "material", {
                "id": name, "kind": "exemplars", "parents": parents, "operator": "choose", "by": "teacher",
                "exemplars": exemplars, "lecture": None,
            })  # fmt: skip
        if round_:
            rows = [{"id": name, "n": 40, "correct": 30, "score": 0.75, "dropped": None} for name in beam]
            yield Event(f"r{round_}/selection", "selection", {
                "round": round_, "strategy": "race", "candidates": rows, "answers": 240, "beam": beam, "rescore": None,
            })  # fmt: skip
        yield from _held_out(round_, beam[0], rng)
        yield _report(round_, names, beam[0])


def _exam(round_: int, beam: list[str], names: list[str], rng: random.Random) -> Iterator[Event | StoredCall]:
    items = [f"p{round_}_{number}" for number in range(ITEMS)]
    right = [rng.choice(LABELS) for _ in items]
    data = {"round": round_, "set_by": "sampled", "items": items, "questions": [f"Review {i}" for i in items]}
    yield Event(f"r{round_}/exam", "exam", {**data, "answers": right})
    for material in beam:
        for name in names:
            head = head_of(material, name)
            said = [rng.choice(LABELS) for _ in items]
            for item, text in zip(items, said, strict=True):
                yield call((round_, f"exam/{material}", name, item, 0), head, text, "answer")
            outcomes = "".join("c" if a == b else "w" for a, b in zip(said, right, strict=True))
            yield Event(f"r{round_}/{material}/grades/{name}", "grades", {
                "round": round_, "material": material, "student": name, "items": items, "outcomes": outcomes,
                "answers": said, "read_from": ["logprobs"] * ITEMS,
            })  # fmt: skip
        feedback = {"round": round_, "material": material, "failures": items, "text": "Many failed."}
        yield Event(f"r{round_}/{material}/feedback", "feedback", feedback)


def _held_out(round_: int, material: str, rng: random.Random) -> Iterator[Event | StoredCall]:
    items = [f"h{number}" for number in range(HELD_OUT)]
    right = [LABELS[number % 2] for number in range(HELD_OUT)]
    if round_ == 0:
        asked = {"items": items, "questions": [f"Review {i}" for i in items], "answers": right}
        yield Event("r0/held_out", "held_out", asked)
    head = head_of(material, "teacher")
    said = [rng.choice(LABELS) for _ in items]
    for item, text in zip(items, said, strict=True):
        yield call((round_, "report", "teacher", item, 0), head, text, "answer")
    outcomes = "".join("c" if a == b else "w" for a, b in zip(said, right, strict=True))
    yield Event(f"r{round_}/report/teacher", "reported", {
        "round": round_, "material": material, "teacher": "teacher", "outcomes": outcomes, "answers": said,
        "read_from": ["logprobs"] * HELD_OUT,
    })  # fmt: skip


def _report(round_: int, names: list[str], material: str) -> Event:
    outcomes = {"correct": 90, "wrong": 30, "invalid": 0, "truncated": 0, "failed": 0}
    ci95 = {"accuracy": [0.66, 0.82], "f1": [0.66, 0.82]}
    teacher = {"n": HELD_OUT, "accuracy": 0.75, "f1": 0.74, "ci95": ci95, "outcomes": outcomes}
    student = {"n": ITEMS, "accuracy": 0.5, "outcomes": {**outcomes, "correct": 12, "wrong": 12}}
    students = dict.fromkeys(names, student) if round_ else {}
    data = {"round": round_, "teacher": teacher, "students": students, "material": material}
    return Event(f"r{round_}/report", "report", data)


async def make(folder: Path, calls: int, students: int) -> None:
    async with Ledger(folder) as ledger:
        for number, row in enumerate(events_and_calls(calls, students)):
            ledger.put(row)
            if number % 20_000 == 0:
                await ledger.flush()


def measure(arguments: list[str]) -> tuple[float, float, int, int]:
    """(seconds, peak MiB, exit status, lines printed) of one `show`."""
    with tempfile.TemporaryFile() as out:
        started = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-c", SHOW, *arguments], stdout=out)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - started
        out.seek(0)
        lines = sum(1 for _ in out)
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return seconds, usage.ru_maxrss / unit, process.returncode, lines


def main() -> None:
    parser = argparse.ArgumentParser(description="Times `lbt-sim show` on a ledger of many calls.")
    parser.add_argument("calls", nargs="?", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--students", type=int, default=320)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch) / "run"
        if not (folder / LEDGER_FILE).exists():
            started = time.perf_counter()
            folder.mkdir(parents=True, exist_ok=True)
            asyncio.run(make(folder, options.calls, options.students))
            print(f"made in {time.perf_counter() - started:.0f} s")
        with sqlite3.connect(folder / LEDGER_FILE) as connection:
            count = connection.execute("SELECT count(*) FROM calls").fetchone()[0]
        size = sum(file.stat().st_size for file in folder.iterdir()) / 2**20
        print(f"{count:,} calls, {options.students} students, {size:,.0f} MiB\n")
        last = rounds_of(options.calls, options.students)
        student = f"student-{options.students}"
        print(f"| {'show':<52} | seconds | peak MiB | lines | status |")
        print(f"|{'-' * 54}|--------:|---------:|------:|-------:|")
        for arguments in (
            [],
            ["--round", str(last)],
            ["--agent", student],
            ["--agent", "teacher", "--round", str(last)],
            ["--item", f"p{last}_3"],
            ["--item", f"p{last}_3", "--calls"],
            ["--material", f"m{last - 1}a"],
            ["--calls", "--skip", str(count - 20)],
            ["--agent", "nobody"],
        ):
            seconds, peak, status, lines = measure([str(folder), *arguments])
            print(f"| {' '.join(arguments):<52} | {seconds:7.2f} | {peak:8.0f} | {lines:5} | {status:6} |", flush=True)


if __name__ == "__main__":
    main()
