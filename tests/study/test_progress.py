"""What is shown of a study under way: what is done before runs begin, and calls as they are made."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from lbt_sim.study.progress import Progress, StudyScreen
from lbt_sim.study.record import RunResult
from lbt_sim.study.results import Condition


def progress() -> Progress:
    return Progress([Condition("one", "one", {}, "One")], 2)


def ended(seed: int, made: int) -> dict[str, Any]:
    result = RunResult("one", seed, f"runs/one/{seed}", "done", None, counts={"made": made})
    return {"event": "result", "condition": "one", "seed": seed, "worker": 0, "result": result.as_data()}


def test_calls_are_counted_while_they_are_made_and_once() -> None:
    known = progress()
    begin = {"event": "begin", "condition": "one", "seed": 1, "worker": 0}
    known.take(begin)
    known.take({"event": "progress", "worker": 0, "active": 1, "made": 7, "shared": 0, "in_flight": 3})
    assert known.made == 7
    known.take({"event": "progress", "worker": 1, "active": 1, "made": 5, "shared": 0, "in_flight": 3})
    assert known.made == 12
    known.take(ended(1, 9))
    known.take({"event": "progress", "worker": 0, "active": 0, "made": 0, "shared": 0, "in_flight": 0})
    assert known.made == 14
    known.take({"event": "died", "worker": 1, "why": "signal 9"})
    assert known.made == 9


@pytest.mark.parametrize("terminal", [True, False])
def test_what_is_being_done_is_said_until_a_run_begins(terminal: bool) -> None:
    out = io.StringIO()
    known = progress()
    with StudyScreen(known, "mine", Console(file=out, force_terminal=terminal, width=100)) as screen:
        assert known.doing == "preparing"
        screen.doing("starting servers")
        screen({"event": "starting", "workers": 2})
        assert known.doing == "starting 2 workers"
        screen({"event": "ready", "worker": 0})
        assert known.doing == "starting 2 workers"
        screen({"event": "begin", "condition": "one", "seed": 1, "worker": 0})
        assert known.doing == ""
    if not terminal:
        assert out.getvalue().splitlines() == ["starting servers", "starting 2 workers"]
