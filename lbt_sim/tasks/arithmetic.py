"""Functional word problems: each family is one problem whose names and numbers are drawn anew from a seed.

The same problem with other numbers tells understanding from recall, and gives exam problems that are similar to a
teaching problem (M1; arXiv 2406.14629, section 3.1). Stories stand in `stories.py`, in words of this project.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from random import Random

from lbt_sim.errors import Place, TaskError, nearest
from lbt_sim.seeds import Seeds
from lbt_sim.tasks.base import Problem, Task
from lbt_sim.tasks.split import normalise
from lbt_sim.tasks.stories import STORIES, Draw

__all__ = ["FAMILIES", "INSTRUCTION", "generate", "variants"]

INSTRUCTION = "Solve the word problem step by step. End with the answer as a number."

FAMILIES: tuple[str, ...] = tuple(sorted(STORIES))
"""Names of the stories, of one to four steps."""

PATIENCE = 200
"""Draws for one new problem before its story counts as used up."""


def generate(*, train: int, held_out: int, seed: int, options: Mapping[str, int | float | str | bool]) -> Task:
    """Make a task of word problems; both splits go through all stories in turn and share no text.

    Args:
        train: How many problems to teach and examine with.
        held_out: How many are kept for reporting.
        seed: Which ones are made.
        options: `steps`: only stories with at most so many steps; `family`: one story only.

    Raises:
        TaskError: An option is unknown or leaves no story, or there are not so many different problems.
    """
    families = _families(options)
    seeds = Seeds(seed).at("arithmetic")
    taken: set[str] = set()
    splits = [
        _problems(families, split, count, seeds.at(split).rng(), taken)
        for split, count in (("train", train), ("held_out", held_out))
    ]
    return Task(
        name="arithmetic",
        instruction=INSTRUCTION,
        labels=(),
        positive=None,
        grader="number",
        train=splits[0],
        held_out=splits[1],
        sources={"arithmetic": f"seed {seed}, train {train}, held_out {held_out}, {dict(options)}"},
    )


def variants(family: str, n: int, *, seed: int, apart_from: Collection[str] = ()) -> tuple[Problem, ...]:
    """The same problem with new names and numbers.

    Args:
        family: Which story: a problem's `family`.
        n: How many, all different.
        seed: Which ones are made.
        apart_from: Questions that must not be among them, such as the one that is taught.

    Raises:
        TaskError: There is no such story, or there are not so many variants.
    """
    if family not in STORIES:
        raise TaskError(f"'{family}' is not a family of 'arithmetic'.", valid=FAMILIES)
    taken = set(map(normalise, apart_from))
    rng = Seeds(seed).at("arithmetic", "variants", family).rng()
    return _problems((family,), "variant", n, rng, taken)


def _families(options: Mapping[str, int | float | str | bool]) -> tuple[str, ...]:
    for name in options:
        if name not in ("family", "steps"):
            what = f"'{name}' is not an option of 'arithmetic'."
            raise TaskError(what, where=Place(key=f"task.options.{name}"), valid=("family", "steps"))
    family, steps = options.get("family"), options.get("steps", 4)
    if family is not None and family not in STORIES:
        guess = nearest(str(family), FAMILIES)
        hint = f"; did you mean '{guess}'?" if guess else "."
        where = Place(key="task.options.family")
        raise TaskError(f"'{family}' is not a family of 'arithmetic'{hint}", where=where, valid=FAMILIES)
    if isinstance(steps, (bool, str)) or steps not in (1, 2, 3, 4):
        where = Place(key="task.options.steps")
        raise TaskError(f"{steps!r} is not a number of steps.", where=where, valid=("1", "2", "3", "4"))
    chosen = tuple(name for name in FAMILIES if family in (None, name) and STORIES[name].steps <= steps)
    if not chosen:
        raise TaskError(f"'{family}' takes more than {steps} steps.", where=Place(key="task.options"))
    return chosen


def _problems(families: tuple[str, ...], split: str, count: int, rng: Random, taken: set[str]) -> tuple[Problem, ...]:
    order = [families[index % len(families)] for index in range(count)]
    rng.shuffle(order)
    return tuple(_new(family, f"{split[0]}{number}", rng, taken) for number, family in enumerate(order, 1))


def _new(family: str, problem_id: str, rng: Random, taken: set[str]) -> Problem:
    story: Callable[[Draw], tuple[str, str, int]] = STORIES[family].tell
    for _ in range(PATIENCE):
        question, rationale, answer = story(Draw(rng))
        if normalise(question) not in taken:
            taken.add(normalise(question))
            return Problem(problem_id, question, str(answer), rationale, family)
    what = f"The story '{family}' has no new numbers left."
    raise TaskError(what, where=Place(key="task"), remedy="Ask for fewer problems, or for more families.")
