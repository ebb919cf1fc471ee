"""A run folder made by hand: three students, two rounds, every outcome, and texts that mean ill."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from hashlib import blake2b
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from lbt_sim.events import Event
from lbt_sim.ledger import Ledger, StoredCall
from lbt_sim.transcript.theme import make_console

EVIL = (
    "\x1b[31mred \x1b]8;;http://evil\x07link\x1b]8;;\x07 [red]tag[/red] [link=http://x]y[/link] \u202eover \u200bzero"
)
STUDENTS = ("literal", "sceptic-1", "sceptic-2")
ITEMS = ("p1", "p2", "p3", "p4")
RIGHT = ("positive", "negative", "positive", "negative")


def run_event(students: tuple[str, ...] = STUDENTS, rounds: int = 2) -> Event:
    seats = [{"name": "teacher", "role": "teacher", "model": "small", "persona": None}]
    seats += [{"name": name, "role": "student", "model": "small", "persona": "plain"} for name in students]
    seats += [{"name": "examiner", "role": "examiner", "model": "small", "persona": None}]
    data = {
        "title": "a small run",
        "seed": 7,
        "method": "m3",
        "rounds": rounds,
        "task": {"name": "reviews", "labels": ["positive", "negative"], "positive": "positive", "grader": "labels"}
        | {"train": 40, "held_out": 10},
        "seats": seats,
        "edges": [["teacher", name, "teaches"] for name in students],
        "edge_counts": {"teaches": len(students), "assists": 0, "discusses": 0},
        "baselines": {
            "always_positive": {"accuracy": 0.5, "f1": 0.67},
            "majority": {"accuracy": 0.6, "f1": 0.0},
        },
        "notices": ["2 rows were dropped"],
    }
    return Event("run", "run", data)


def material_event(name: str, parents: tuple[str, ...] = (), swap: int = 0) -> Event:
    exemplars = [
        {"question": f"exemplar {at}", "answer": RIGHT[at], "rationale": None, "source": f"t{at}"} for at in range(3)
    ]
    if swap:
        exemplars[0] = {"question": f"swapped {swap}", "answer": "negative", "rationale": EVIL, "source": None}
        exemplars[1] = {**exemplars[1], "answer": "positive"}
    data = {"id": name, "kind": "exemplars", "parents": list(parents), "operator": "rewrite" if parents else "sampled"}
    return Event(f"material/{name}", "material", {**data, "by": "teacher", "exemplars": exemplars, "lecture": None})


def utterance_event(round_: int, material: str, text: str, *, exemplars: int = 0) -> Event:
    data = {"round": round_, "material": material, "speaker": "teacher", "hearers": list(STUDENTS), "kind": "teaches"}
    path = f"r{round_}/{material}/teach/teacher/0"
    return Event(path, "utterance", {**data, "text": text, "exemplars": exemplars})


def exam_event(round_: int, question: str = "Not bad at all.") -> Event:
    data = {"round": round_, "set_by": "sampled", "items": list(ITEMS), "questions": [question] * 4}
    return Event(f"r{round_}/exam", "exam", {**data, "answers": list(RIGHT)})


def grades_event(round_: int, material: str, student: str, outcomes: str) -> Event:
    other = {"positive": "negative", "negative": "positive"}
    answers = [
        right if letter == "c" else other[right] if letter == "w" else None
        for letter, right in zip(outcomes, RIGHT, strict=True)
    ]
    data = {"round": round_, "material": material, "student": student, "items": list(ITEMS), "outcomes": outcomes}
    path = f"r{round_}/{material}/grades/{student}"
    return Event(
        path, "grades", {**data, "answers": answers, "read_from": ["logprobs" if answer else "" for answer in answers]}
    )


def candidate_event(round_: int, parent: str, number: int, status: str, material: str | None, why: str = "") -> Event:
    data = {"round": round_, "parent": parent, "operator": "rewrite", "by": "teacher", "status": status}
    path = f"r{round_}/candidate/{parent}/rewrite/{number}"
    return Event(path, "candidate", {**data, "material": material, "why": why})


def selection_event(round_: int, scores: dict[str, float | None], beam: list[str]) -> Event:
    rows = [
        {"id": name, "n": 8, "correct": 6, "score": score, "dropped": None if name in beam else 1}
        for name, score in scores.items()
    ]
    data = {"round": round_, "strategy": "race", "metric": "accuracy", "candidates": rows, "answers": 24, "beam": beam}
    return Event(f"r{round_}/selection", "selection", {**data, "rescore": {"n": 4, "score": 0.5}})


def report(round_: int, accuracy: float | None, material: str = "m0", students: tuple[str, ...] = ()) -> dict[str, Any]:
    outcomes = {"correct": 7, "wrong": 2, "invalid": 1, "truncated": 0, "failed": 0}
    ci = None if accuracy is None else [accuracy - 0.1, accuracy + 0.1]
    teacher = {"n": 10, "accuracy": accuracy, "f1": accuracy, "ci95": {"accuracy": ci, "f1": ci}, "outcomes": outcomes}
    student = {"n": 4, "accuracy": 0.75, "outcomes": {**outcomes, "correct": 3, "wrong": 1, "invalid": 0}}
    return {"round": round_, "teacher": teacher, "students": dict.fromkeys(students, student), "material": material}


def reported_event(round_: int, material: str, outcome: str) -> Event:
    answer = {"c": "positive", "w": "negative"}[outcome]
    data = {"round": round_, "material": material, "teacher": "teacher", "outcomes": outcome}
    return Event(f"r{round_}/report/teacher", "reported", {**data, "answers": [answer], "read_from": ["logprobs"]})


def report_event(round_: int, accuracy: float | None, material: str = "m0", students: tuple[str, ...] = ()) -> Event:
    return Event(f"r{round_}/report", "report", report(round_, accuracy, material, students))


def stored_call(path: tuple[int, str, str, str, int], text: str, **changes: Any) -> StoredCall:
    turns = json.dumps([["system", f"You are {path[2]}. {EVIL}"], ["user", "shown"], ["assistant", "positive"]])
    values: dict[str, Any] = {
        "key": blake2b(repr(path).encode(), digest_size=16).digest(),
        "shared": 0,
        "model": "scripted:none",
        "purpose": "answer",
        "sampling": "Sampling(temperature=0.0, top_p=1.0, top_k=None, max_tokens=4, stop=())",
        "choices": '["positive", "negative"]',
        "head_digest": blake2b(turns.encode(), digest_size=16).digest(),
        "head_turns": turns,
        "last": f"question {path[3]}",
        "seed": None,
        "text": text,
        "finish": "stop",
        "logprobs": "[-0.2231435513142097, -2.302585092994046]",
        "prompt_tokens": 40,
        "cached_tokens": 30,
        "completion_tokens": 1,
        "reasoning": None,
        "error": None,
        "seconds": 0.5,
    }
    return StoredCall(*path, **{**values, **changes})


def a_round(round_: int, taught: str, made: str) -> Iterator[Event | StoredCall]:
    yield exam_event(round_)
    yield utterance_event(round_, taught, EVIL, exemplars=3)
    for student, outcomes in zip(STUDENTS, ("cccc", "cwiw", "ctfw"), strict=True):
        for item, letter, right in zip(ITEMS, outcomes, RIGHT, strict=True):
            finish = {"t": "length", "f": "failed"}.get(letter, "stop")
            text = "" if letter == "f" else EVIL if letter == "i" else right
            error = "the server said 500" if letter == "f" else None
            path = (round_, f"exam/{taught}", student, item, 0)
            yield stored_call(path, text, finish=finish, error=error)
        yield grades_event(round_, taught, student, outcomes)
    data = {"round": round_, "material": taught, "failures": ["p2", "p3", "p4"], "text": f"3 problems failed.\n{EVIL}"}
    yield Event(f"r{round_}/{taught}/feedback", "feedback", data)
    reflection = {"purpose": "reflect", "choices": "[]", "logprobs": None, "seed": 99}
    yield stored_call((round_, f"reflect/{taught}", "teacher", "", 0), f"Because of 'not'. {EVIL}", **reflection)
    yield material_event(made, (taught,), swap=round_)
    yield candidate_event(round_, taught, 0, "new", made)
    yield candidate_event(round_, taught, 1, "duplicate", taught)
    yield candidate_event(round_, taught, 2, "invalid", None, f"unreadable {EVIL}")
    yield selection_event(round_, {taught: 0.5, made: 0.75}, [made])
    yield stored_call((round_, "report", "teacher", "h1", 0), "positive")
    yield reported_event(round_, made, "c")
    yield report_event(round_, 0.5 + 0.1 * round_, made, STUDENTS)


def whole_run() -> Iterator[Event | StoredCall]:
    yield run_event()
    yield material_event("m0")
    held_out = {"items": ["h1"], "questions": [f"Held out. {EVIL}"], "answers": ["positive"]}
    yield Event("r0/held_out", "held_out", held_out)
    yield stored_call((0, "report", "teacher", "h1", 0), "negative")
    yield reported_event(0, "m0", "w")
    yield report_event(0, 0.5)
    yield from a_round(1, "m0", "m1")
    yield from a_round(2, "m1", "m2")
    yield Event("done", "done", {"status": "done"})


async def write_run(folder: Path, rows: Iterator[Event | StoredCall]) -> Path:
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    async with Ledger(folder) as ledger:
        for row in rows:
            ledger.put(row)
    return folder


class Screen:
    """A console that writes into memory."""

    def __init__(self, *, color: bool, width: int, height: int) -> None:
        self.stream = StringIO()
        self.console: Console = make_console(self.stream, color=color, width=width)
        self.console.height = height

    @property
    def text(self) -> str:
        return self.stream.getvalue()
