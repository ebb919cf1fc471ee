import asyncio
import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lbt_sim.errors import InputError, RunError
from lbt_sim.grading import Grade, mathematics
from lbt_sim.grading.mathematics import MathGrader
from lbt_sim.models.base import Reply
from lbt_sim.tasks.base import Problem

needs_math = pytest.mark.skipif(
    importlib.util.find_spec("math_verify") is None, reason="the extra `math` is not installed"
)

STAND_IN = """
import json, os, signal, sys, time
print(json.dumps({"outcome": "ready"}), flush=True)
for line in sys.stdin:
    answer = json.loads(line)["answer"]
    if answer == "crash": os.kill(os.getpid(), signal.SIGSEGV)
    if answer == "hang": time.sleep(600)
    if answer == "hang once" and not os.path.exists(__file__ + ".hung"):
        open(__file__ + ".hung", "w").close()
        time.sleep(600)
    if answer == "half": print('{"outcome": ', end="", flush=True); os._exit(1)
    outcome = answer if answer in ("memory", "error", "unread") else "same"
    print(json.dumps({"outcome": outcome, "read": answer}), flush=True)
"""


@pytest.fixture
async def grader(tmp_path, monkeypatch):
    """A grader whose worker is a real process that misbehaves on command and starts at once."""
    worker = tmp_path / "stand_in.py"
    worker.write_text(STAND_IN)
    monkeypatch.setattr(mathematics, "WORKER", worker)
    monkeypatch.setattr(mathematics, "find_spec", lambda name: name)
    opened = MathGrader(seconds=0.5, patience=0.5)
    yield opened
    await opened.close()


def child_of(pid):
    """The process that computes for the worker, where the system tells."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return int(children.read_text()) if children.exists() else None


async def graded(grader, *pairs):
    return await grader.grade([(Problem(f"p{n}", "?", gold), Reply(text)) for n, (gold, text) in enumerate(pairs)])


@pytest.mark.slow
@needs_math
async def test_mathematics_is_compared_and_a_towering_power_costs_its_time_and_not_the_run():
    grader = MathGrader(seconds=2.0)
    await graded(grader, ("1", "$1$ metre"))
    worker = grader._worker
    grades = await graded(
        grader,
        ("\\frac{1}{2}", "So it is $0.5$."),
        ("x+1", "We get \\boxed{1+x}"),
        ("5", "The answer is 6."),
        ("2\\sqrt{3}", "$\\sqrt{12}$"),
        ("5", "I do not know."),
        ("5", "$9^{9^{9^{9}}}$"),
        ("5", "$5$ apples"),
    )
    assert grader._worker is worker, "only the process that computes was replaced"
    if (child := child_of(worker.pid)) is not None:
        os.kill(child, signal.SIGSEGV)
        assert [grade.read_from for grade in await graded(grader, ("1", "$1$ m"), ("1", "$1$ m"))] == ["crash", "text"]
    await grader.close()
    outcomes = [grade.outcome for grade in grades]
    assert outcomes == ["correct", "correct", "wrong", "correct", "invalid", "invalid", "correct"]
    assert grades[2].answer == "6"
    assert [grade.read_from for grade in grades[4:]] == ["", "timeout", "text"]


@pytest.mark.parametrize(
    ("text", "why"),
    [("hang", "timeout"), ("crash", "crash"), ("half", "crash"), ("memory", "memory")],
)
async def test_what_ends_the_worker_costs_one_answer(grader, text, why):
    grades = await graded(grader, ("1", "fine"), ("1", text), ("1", "fine again"))
    assert [grade.outcome for grade in grades] == ["correct", "invalid", "correct"]
    assert grades[1] == Grade("invalid", None, why)


async def test_a_worker_that_was_at_a_stop_is_asked_once_more(grader):
    assert await graded(grader, ("1", "hang once"), ("1", "fine")) == [
        Grade("correct", "hang once", "text"),
        Grade("correct", "fine", "text"),
    ]


LIBRARIES = """
import sys, time, types
sys.modules["math_verify"] = types.ModuleType("math_verify")
from lbt_sim.grading import worker

def compare(gold, answer):
    end = time.process_time() + 600
    while answer == "computes" and time.process_time() < end: pass
    if answer == "waits": time.sleep(1.5)
    if answer == "hangs": time.sleep(600)
    return {"outcome": "same", "read": answer}

worker._compare = compare
worker.main(0.5, float(sys.argv[1]), 2**33)
"""


def outcomes_of_the_worker(patience, *answers):
    lines = "".join(json.dumps({"gold": "1", "answer": answer}) + "\n" for answer in answers)
    command = [sys.executable, "-c", LIBRARIES, str(patience)]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, check=True)
    return [json.loads(line)["outcome"] for line in done.stdout.splitlines()]


def test_a_grade_takes_its_time_of_the_processor_and_not_of_the_clock():
    found = outcomes_of_the_worker(60, "quick", "waits", "computes", "quick")
    assert found == ["ready", "same", "same", "timeout", "same"]


def test_what_neither_answers_nor_computes_is_given_up_by_the_clock():
    assert outcomes_of_the_worker(2, "quick", "hangs", "quick") == ["ready", "same", "stalled", "same"]


async def test_broken_is_not_wrong(grader):
    problem = Problem("p", "?", "5")
    replies = [
        Reply("", finish="failed"),
        Reply(""),
        Reply("unread"),
        Reply("error"),
        Reply("We have $5$, and", finish="length"),
        Reply("So \\boxed{5}. Now for", finish="length"),
    ]
    grades = await grader.grade([(problem, reply) for reply in replies])
    assert [grade.outcome for grade in grades] == ["failed", "invalid", "invalid", "invalid", "truncated", "correct"]


async def test_cancelling_ends_the_worker_and_leaves_the_grader_usable(grader):
    await graded(grader, ("1", "fine"))
    worker = grader._worker
    pending = asyncio.create_task(graded(grader, ("1", "hang")))
    await asyncio.sleep(0.05)
    pending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pending
    assert worker.returncode is not None
    assert [grade.outcome for grade in await graded(grader, ("1", "fine"))] == ["correct"]


async def test_closing_leaves_nothing_running_and_may_be_repeated(grader):
    await graded(grader, ("1", "fine"))
    worker = grader._worker
    await grader.close()
    assert worker.returncode is not None
    await grader.close()


async def test_two_callers_do_not_get_each_others_answers(grader):
    first, second = await asyncio.gather(
        graded(grader, *(("1", f"a{n}") for n in range(20))), graded(grader, *(("1", f"b{n}") for n in range(20)))
    )
    assert [grade.answer for grade in first + second] == [f"{who}{n}" for who in "ab" for n in range(20)]


async def test_a_worker_that_does_not_start_stops_the_run_with_a_remedy(grader, tmp_path):
    (tmp_path / "stand_in.py").write_text("raise SystemExit(1)")
    with pytest.raises(RunError, match="does not start") as caught:
        await graded(grader, ("1", "fine"))
    assert "lbt-sim resume" in caught.value.remedy


def test_missing_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(mathematics, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="math-verify") as caught:
        MathGrader()
    assert "--extra math" in caught.value.remedy
