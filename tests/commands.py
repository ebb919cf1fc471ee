"""The command line in this process: its status, what it prints, and no traceback."""

from __future__ import annotations

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from lbt_sim.cli import main

SMALL = """\
kind: scenario
version: 1
models: {small: {engine: simulated}}
task: {name: reviews, train: 40, held_out: 8}
classroom: star
cast: {students: [{persona: literal}, {persona: sceptic}]}
method: {rounds: 3, exemplars: 4, beam: 2, exam: 6, revise: {operators: [choose], chosen: 2}, select: {budget: 40}}
"""
"""A run of half a second."""

SMALL_STUDY = """\
kind: study
version: 1
title: Does it matter?
base: simulated
set:
  task.train: 80
  task.held_out: 20
  method.rounds: 1
  method.exemplars: 6
  method.exam: {problems: 6}
  method.revise.chosen: 3
  method.select: {budget: 32, block: 8, rescore: 4}
"""
"""A study without its arms, factors and seeds: those are added."""


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def result(self) -> dict[str, Any]:
        """The JSON in the last line of standard output."""
        found: dict[str, Any] = json.loads(self.out.splitlines()[-1])
        return found


def lbt_sim(*arguments: object) -> Said:
    """Gives a command. A bug of ours comes out as the exception that it is."""
    out, err = io.StringIO(), io.StringIO()
    status: Any = 0
    with patch.object(sys, "argv", ["lbt-sim", *map(str, arguments)]), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as left:
            status = left.code or 0
    return Said(status, out.getvalue(), err.getvalue())


_PASSING = ("run", "seconds", "calls", "tokens", "time", "servers", "executions")


def lasting(result: dict[str, Any]) -> dict[str, Any]:
    """What must not differ between two executions of a run."""
    return {key: value for key, value in result.items() if key not in _PASSING}
