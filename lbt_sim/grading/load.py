"""Graders by name."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import cast

from lbt_sim.errors import InputError, Place, TaskError, nearest
from lbt_sim.grading.base import Grader
from lbt_sim.tasks.base import Task

__all__ = ["GRADERS", "GROUP", "check_grader", "grader_names", "open_grader"]

GROUP = "lbt_sim.graders"
GRADERS = ("exact", "labels", "math", "number", "rubric")
"""Built-in graders; installed packages add theirs as entry points of the group `lbt_sim.graders`: Task -> Grader.
None of them replaces a built-in one."""

_KEY = "task.grader"


def grader_names() -> tuple[str, ...]:
    """Every grader's name, sorted. Imports no grader."""
    return tuple(sorted({*GRADERS, *_added()}))


def check_grader(name: str | None, where: Place | None = None) -> None:
    """Refuses a name that no grader has, before anything is asked of the task.

    Args:
        name: What the scenario says; None: it leaves the grader to the task.
        where: The place of `task.grader`.

    Raises:
        TaskError: There is no such grader; lists those that there are.
    """
    if name is None or name in GRADERS or name in _added():
        return
    valid = grader_names()
    guess = nearest(name, valid)
    hint = f"; did you mean '{guess}'?" if guess else "."
    remedy = f"Correct the name, or install the package that adds it (entry point group `{GROUP}`)."
    raise TaskError(f"'{name}' is not a grader{hint}", where=where or Place(key=_KEY), valid=valid, remedy=remedy)


def open_grader(task: Task, judge: Grader | None = None, *, place: Callable[[str], Place] | None = None) -> Grader:
    """The grader that the task names; the caller closes it.

    Args:
        task: The task.
        judge: Who grades open answers by the task's rubric: the examiner's model, wrapped as a grader.
        place: Dotted key ('task.grader') -> where it stands in the scenario, for messages.

    Raises:
        TaskError: There is no such grader, it cannot be loaded, or the task's answers do not suit it; names the
            problems.
    """
    at = place or (lambda key: Place(key=key))
    if task.grader == "rubric":
        if judge is None:
            remedy = "Give the examiner a model: `cast: {examiner: {model: …}}`."
            raise TaskError("The grader `rubric` needs an examiner with a model.", where=at(_KEY), remedy=remedy)
        return judge
    check_grader(task.grader, at(_KEY))
    try:
        return _OPEN.get(task.grader, _open_added)(task)
    except InputError as error:  # it knows which key it dislikes, not in which file and line that stands
        if error.where is None or not error.where.file:
            error.where = at((error.where and error.where.key) or _KEY)
        raise


def _added() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _open_added(task: Task) -> Grader:
    """The grader of an installed package, whose code may raise anything."""
    entry = _added()[task.grader]
    try:
        return cast(Callable[[Task], Grader], entry.load())(task)
    except InputError:
        raise
    except Exception as error:
        raise TaskError(
            f"the grader '{task.grader}' of {entry.value} cannot be loaded: {type(error).__name__}: {error}",
            remedy="Reinstall or update the package that adds it.",
        ) from error


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
