"""Graders by name."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from typing import cast

from lbt_sim.errors import Place, TaskError, nearest
from lbt_sim.grading.base import Grader
from lbt_sim.tasks.base import Task

__all__ = ["GRADERS", "open_grader"]

GRADERS = ("exact", "labels", "math", "number", "rubric")
"""Built-in graders; installed packages add theirs as entry points of the group `lbt_sim.graders`: Task -> Grader."""


def open_grader(task: Task, judge: Grader | None = None) -> Grader:
    """The grader that the task names; the caller closes it.

    Args:
        task: The task.
        judge: Who grades open answers by the task's rubric: the examiner's model, wrapped as a grader.

    Raises:
        TaskError: There is no such grader, or the task's answers do not suit it; names the problems.
    """
    where = Place(key="task.grader")
    if task.grader == "rubric":
        if judge is None:
            remedy = "Give the examiner a model: `cast: {examiner: {model: …}}`."
            raise TaskError("The grader `rubric` needs an examiner with a model.", where=where, remedy=remedy)
        return judge
    if task.grader in _OPEN:
        return _OPEN[task.grader](task)
    added = {entry.name: entry for entry in entry_points(group="lbt_sim.graders")}
    if task.grader in added:
        return cast(Callable[[Task], Grader], added[task.grader].load())(task)
    valid = sorted({*GRADERS, *added})
    guess = nearest(task.grader, valid)
    hint = f"; did you mean '{guess}'?" if guess else "."
    raise TaskError(f"'{task.grader}' is not a grader{hint}", where=where, valid=valid)


def _labels(task: Task) -> Grader:
    from lbt_sim.grading.labels import LabelGrader

    if not task.labels:
        raise TaskError("The grader `labels` needs a label set.", where=Place(key="task.labels"))
    return LabelGrader(task.labels)


def _exact(task: Task) -> Grader:
    from lbt_sim.grading.text import ExactGrader

    return ExactGrader()


def _number(task: Task) -> Grader:
    from lbt_sim.grading.numbers import NumberGrader, number

    unread = [problem for problem in (*task.train, *task.held_out) if number(problem.answer) is None]
    if unread:
        shown = ", ".join(f"{problem.id} ({problem.answer[:30]!r})" for problem in unread[:10])
        more = f" and {len(unread) - 10} more" if len(unread) > 10 else ""
        remedy = "Take the number out with `answer_pattern`, or use the grader `exact` or `math`."
        raise TaskError(f"Right answers that are no number: {shown}{more}.", where=Place(key="task"), remedy=remedy)
    return NumberGrader()


def _math(task: Task) -> Grader:
    # Imported by name: mathematics pulls in what an ordinary run never needs.
    return cast(Grader, import_module("lbt_sim.grading.mathematics").MathGrader())


_OPEN: dict[str, Callable[[Task], Grader]] = {"exact": _exact, "labels": _labels, "math": _math, "number": _number}
