"""Every error that a user can meet, in one tree.

    LbtError                      ours; printed plainly, never with a traceback
    ├── InputError                exit status 2: something given to us is wrong, and nothing was started
    │   ├── ScenarioError         a YAML file: says file, line and key
    │   ├── TemplateError         a prompt template
    │   ├── TaskError             problems, labels, splits
    │   ├── ClassroomError        the graph of seats
    │   ├── ModelUnavailable      a model or server that cannot be had
    │   └── RunLocked             another process works in the folder
    ├── RunError                  exit status 3: the run stopped, what was committed is kept, `resume` continues
    │   ├── CallsFailed           too many calls gave up
    │   ├── BudgetExhausted       the scenario's budget is spent
    │   ├── LedgerMismatch        what is asked for is not what the ledger holds at that path
    │   ├── ReplayMiss            replay met a call that was never recorded
    │   ├── ServerLost            a server of ours that cannot be brought back; nothing is charged to anybody
    │   └── RunSpoiled            what the run was given turned out wrong on the way; `resume` would meet it again
    └── Interrupted               exit status 130: asked to stop; `resume` continues

An error tells what is wrong, where, what is valid, and what to do next: the four fields of `LbtError`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rapidfuzz import fuzz, process, utils

__all__ = [
    "BudgetExhausted",
    "CallsFailed",
    "ClassroomError",
    "InputError",
    "Interrupted",
    "LbtError",
    "LedgerMismatch",
    "ModelUnavailable",
    "Place",
    "ReplayMiss",
    "RunError",
    "RunLocked",
    "RunSpoiled",
    "ScenarioError",
    "ServerLost",
    "TaskError",
    "TemplateError",
    "nearest",
]


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands: a file, a line in it (from 1), a dotted key."""

    file: str | None = None
    line: int | None = None
    key: str | None = None

    def __str__(self) -> str:
        where = self.file or ""
        if self.file and self.line:
            where += f":{self.line}"
        return "  ".join(part for part in (where, self.key) if part)


def nearest(found: str, valid: Iterable[str]) -> str | None:
    """The valid name that `found` most likely meant, or None when nothing is close."""
    names = list(valid)
    best = process.extractOne(found, names, scorer=fuzz.ratio, processor=utils.default_process, score_cutoff=60)
    if best is None and len(found) >= _LEAST_PART:
        best = process.extractOne(found, names, score_cutoff=85)  # a part of a longer name, or its words turned round
    return None if best is None else str(best[0])


_LEAST_PART = 4
"""Shorter ones are a part of too many names by accident."""


class LbtError(Exception):
    """An error with its remedy.

    Args:
        what: What is wrong, in one sentence.
        where: The place, if there is one.
        valid: The valid choices, if they can be listed.
        remedy: What to do next.
    """

    status = 1

    def __init__(
        self,
        what: str,
        *,
        where: Place | None = None,
        valid: Sequence[str] = (),
        remedy: str = "",
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.valid = tuple(valid)
        self.remedy = remedy

    def __str__(self) -> str:
        lines = [str(self.where)] if self.where and str(self.where) else []
        lines.append(self.what)
        if self.valid:
            lines.append("Valid: " + ", ".join(self.valid))
        if self.remedy:
            lines.append(self.remedy)
        return "\n  ".join(lines)


class InputError(LbtError):
    """Something given to us is wrong; nothing was started."""

    status = 2


class ScenarioError(InputError):
    """A YAML file says something that is not valid."""


class TemplateError(InputError):
    """A prompt template cannot be rendered."""


class TaskError(InputError):
    """A task has no problems, bad labels, or splits that overlap."""


class ClassroomError(InputError):
    """A classroom graph that cannot be taught in."""


class ModelUnavailable(InputError):
    """A model, its weights or its server cannot be had."""


class RunLocked(InputError):
    """Another process works in this run folder."""


class RunError(LbtError):
    """The run stopped; everything committed is kept and `lbt-sim resume` continues."""

    status = 3


class CallsFailed(RunError):
    """More calls gave up than the scenario tolerates."""


class BudgetExhausted(RunError):
    """The scenario's budget of calls is spent."""


class LedgerMismatch(RunError):
    """The ledger holds another call at this path."""


class ReplayMiss(RunError):
    """Replay met a call that the ledger does not hold."""


class ServerLost(RunError):
    """A server of ours died or hung, and could not be brought back; no call is charged for it."""


class RunSpoiled(RunError):
    """What the run was given turned out wrong on the way; `resume` would end at the same place."""


class Interrupted(LbtError):
    """The user asked to stop; the run can be resumed."""

    status = 130
