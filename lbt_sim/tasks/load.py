"""A scenario's `task:` becomes a `Task`: exactly one source, read, split, checked."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NoReturn, Protocol, cast

from lbt_sim.errors import Place, TaskError, nearest
from lbt_sim.scenario.schema import TaskSpec
from lbt_sim.seeds import Seeds
from lbt_sim.tasks.base import Problem, Task
from lbt_sim.tasks.files import Table, read_csv, read_jsonl
from lbt_sim.tasks.problems import Reading
from lbt_sim.tasks.split import Placed, keep_apart, normalise, within_split

__all__ = ["GENERATORS", "SOURCES", "TaskGenerator", "load_task"]

SOURCES = ("name", "jsonl", "csv", "dataset")
GENERATORS = {"arithmetic": "lbt_sim.tasks.arithmetic:generate", "reviews": "lbt_sim.tasks.reviews:generate"}
"""Built-in generators; installed packages add theirs as entry points of the group `lbt_sim.tasks`."""

GENERATED = 400, 120
"""Train and held-out problems of a generator where the scenario says nothing."""

PROBLEM_SEED = 0
"""Seed of the problems where the task names none: not the run's seed, so that runs are compared on the same ones."""

OF_ROWS = ("question", "answer", "answer_pattern", "rationale", "family", "labels")
OF_DATASETS = ("config", "splits", "revision")


class TaskGenerator(Protocol):
    """Makes a task from a seed: the same seed, the same problems. Raises `TaskError` for unusable options."""

    def __call__(
        self, *, train: int, held_out: int, seed: int, options: Mapping[str, int | float | str | bool]
    ) -> Task:
        """Make `train` and `held_out` problems that share no text."""
        ...


def load_task(
    spec: TaskSpec,
    *,
    seed: int = 0,
    find_data: Callable[[str], Path],
    place: Callable[[str], Place] | None = None,
) -> Task:
    """Load the task that a scenario describes.

    Args:
        spec: The scenario's `task`.
        seed: The run's seed. It has no influence: which problems there are depends on `spec.seed` alone, so that
            runs with different seeds are compared on the same problems.
        find_data: File name -> path; raises where there is none.
        place: Dotted key ('task.labels') -> where it stands in the scenario, for messages.

    Raises:
        TaskError: The source, a row, the labels or the split is not usable; says which and what to do.
    """
    del seed
    at = place or (lambda key: Place(key=key))
    source = _source(spec, at)
    problem_seed = PROBLEM_SEED if spec.seed is None else spec.seed
    if source == "name":
        task = _generated(spec, problem_seed, at)
    else:
        task = _from_tables(spec, _tables(spec, source, find_data, at), problem_seed, at)
    _check_task(task, at)
    return replace(task, notices=(*task.notices, *_one_sided(task)))


def _source(spec: TaskSpec, at: Callable[[str], Place]) -> str:
    given = [source for source in SOURCES if getattr(spec, source) not in (None, [])]
    if len(given) != 1:
        found = "it has none" if not given else "it has " + " and ".join(f"`{name}`" for name in given)
        remedy = "Write one of them, for example `task: {name: reviews}` or `task: {jsonl: [train.jsonl, test.jsonl]}`."
        raise TaskError(f"A task has exactly one source; {found}.", where=at("task"), valid=SOURCES, remedy=remedy)
    source = given[0]
    foreign = {"name": (*OF_ROWS, *OF_DATASETS), "dataset": ("options",)}.get(source, ("options", *OF_DATASETS))
    for key in foreign:
        if key in spec.model_fields_set:
            allowed = "a generator brings its own" if source == "name" else f"it has no meaning with `{source}`"
            raise TaskError(f"`{key}` cannot be given here: {allowed}.", where=at(f"task.{key}"), remedy="Remove it.")
    return source


def _generated(spec: TaskSpec, seed: int, at: Callable[[str], Place]) -> Task:
    generate = _generator(cast(str, spec.name), at("task.name"))
    train, held_out = spec.train or GENERATED[0], spec.held_out or GENERATED[1]
    try:
        task = generate(train=train, held_out=held_out, seed=seed, options=spec.options)
    except TaskError as error:
        # A generator knows which key it dislikes, not in which file and line that stands.
        key = (error.where and error.where.key) or "task.name"
        where = at("task.options" if key.startswith("task.options.") else key)
        raise TaskError(error.what, where=where, valid=error.valid, remedy=error.remedy) from None
    name = task.name
    kept, notices = keep_apart(_placed(task.train, name), _placed(task.held_out, name), spec.duplicates, at("task"))
    return replace(
        task,
        name=spec.title or name,
        instruction=spec.instruction or task.instruction,
        grader=spec.grader or task.grader,
        positive=_positive(spec, task.labels, at) if spec.positive else task.positive,
        rubric=spec.rubric,
        train=tuple(row.problem for row in kept),
        notices=(*task.notices, *notices),
    )


def _generator(name: str, where: Place) -> TaskGenerator:
    if name in GENERATORS:
        module, function = GENERATORS[name].split(":")
        return cast(TaskGenerator, getattr(import_module(module), function))
    added = {entry.name: entry for entry in entry_points(group="lbt_sim.tasks")}
    if name in added:
        return cast(TaskGenerator, added[name].load())
    guess = nearest(name, [*GENERATORS, *added])
    hint = f"; did you mean '{guess}'?" if guess else "."
    remedy = "Correct the name, or take problems from a file with `jsonl` or `csv`."
    raise TaskError(
        f"'{name}' is not a generator of problems{hint}",
        where=where,
        valid=sorted({*GENERATORS, *added}),
        remedy=remedy,
    )


def _placed(problems: Sequence[Problem], name: str) -> list[Placed]:
    return [Placed(problem, f"{name} {problem.id}") for problem in problems]


def _tables(
    spec: TaskSpec, source: str, find_data: Callable[[str], Path], at: Callable[[str], Place]
) -> tuple[Table, ...]:
    where = at(f"task.{source}")
    if source == "dataset":
        from lbt_sim.tasks.hub import read_dataset

        names: list[str] = spec.splits
        dataset = cast(str, spec.dataset)
        read: Callable[[str], Table] = lambda split: read_dataset(  # noqa: E731
            dataset, split, config=spec.config, revision=spec.revision, where=where
        )
    else:
        value: Any = getattr(spec, source)
        names = [value] if isinstance(value, str) else value
        reader = read_jsonl if source == "jsonl" else read_csv
        read = lambda name: reader(find_data(name), name)  # noqa: E731
    if not 1 <= len(names) <= 2 or len(set(names)) != len(names):
        remedy = "Give one, which is split, or two different ones: [train, held-out]."
        raise TaskError(f"Found {len(names)}: {', '.join(names) or 'nothing'}.", where=where, remedy=remedy)
    tables = tuple(map(read, names))
    for table in tables:
        if not table.rows:
            raise TaskError("There are no rows.", where=Place(table.file), remedy="A task needs problems.")
    return tables


def _from_tables(spec: TaskSpec, tables: tuple[Table, ...], seed: int, at: Callable[[str], Place]) -> Task:
    reading = Reading.of(spec, at)
    labels = tuple(dict.fromkeys(reading.words.values()))
    grader = _grader(spec, labels, at)
    seeds = Seeds(seed).at("task")
    notices: list[str] = []
    if len(tables) == 2:
        train, held_out = reading.problems(tables[0], "t"), reading.problems(tables[1], "h")
        notices += within_split(train, "train") + within_split(held_out, "held-out")
    else:
        rows = reading.problems(tables[0], "t")
        notices += within_split(rows, tables[0].file)
        train, held_out = _divide(rows, spec.held_out, seeds.at("split").rng(), at)
    train, apart = keep_apart(train, held_out, spec.duplicates, at("task"))
    return Task(
        name=spec.title or _title(tables[0].file),
        instruction=spec.instruction or _instruction(grader, labels),
        labels=labels,
        positive=_positive(spec, labels, at),
        grader=grader,
        train=_sampled(train, spec.train, "train", seeds.at("train").rng(), at),
        held_out=_sampled(held_out, spec.held_out, "held_out", seeds.at("held_out").rng(), at),
        rubric=spec.rubric,
        notices=(*notices, *apart),
        sources={table.file: table.sha256 for table in tables},
    )


def _divide(
    rows: Sequence[Placed], size: int | None, rng: random.Random, at: Callable[[str], Place]
) -> tuple[list[Placed], list[Placed]]:
    """One file as (train, held-out); rows with the same text stay together, so that the two cannot overlap."""
    wanted = size or max(1, len(rows) // 5)
    if wanted >= len(rows):
        _too_many(wanted, len(rows), "held_out", at, " in the file, and train needs some too")
    groups: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(normalise(row.problem.question), []).append(index)
    held: set[int] = set()
    for group in rng.sample(list(groups.values()), len(groups)):
        if len(held) + len(group) <= wanted:
            held.update(group)
    train = [row for index, row in enumerate(rows) if index not in held]
    held_out = [
        Placed(replace(row.problem, id="h" + row.problem.id[1:]), row.place)
        for index, row in enumerate(rows)
        if index in held
    ]
    return train, held_out


def _sampled(
    rows: Sequence[Placed], size: int | None, split: str, rng: random.Random, at: Callable[[str], Place]
) -> tuple[Problem, ...]:
    if size is None or size == len(rows):
        return tuple(row.problem for row in rows)
    if size > len(rows):
        _too_many(size, len(rows), split, at)
    return tuple(rows[index].problem for index in sorted(rng.sample(range(len(rows)), size)))


def _too_many(wanted: int, there: int, split: str, at: Callable[[str], Place], which: str = "") -> NoReturn:
    problems = "problem" if there == 1 else "problems"
    what = f"`{split}: {wanted}` is more than there is: {there} {problems}{which}."
    raise TaskError(what, where=at(f"task.{split}"), remedy="Ask for fewer, or leave it out to use all.")


def _grader(spec: TaskSpec, labels: tuple[str, ...], at: Callable[[str], Place]) -> str:
    grader = spec.grader or ("labels" if labels else "exact")
    if (grader in ("exact", "math", "number", "rubric")) if labels else grader == "labels":
        what = f"The grader `{grader}` has no labels." if labels else "The grader `labels` needs a label set."
        remedy = "Write `labels: [Yes, No]` and no other grader, or a grader without labels."
        raise TaskError(what, where=at("task.grader"), remedy=remedy)
    return grader


def _positive(spec: TaskSpec, labels: tuple[str, ...], at: Callable[[str], Place]) -> str | None:
    if spec.positive is None:
        return labels[0] if labels else None
    for label in labels:
        if label.casefold() == spec.positive.casefold():
            return label
    what = f"'{spec.positive}' is not a label" + ("." if labels else ": the task has none.")
    raise TaskError(what, where=at("task.positive"), valid=labels, remedy="Name the label that F1 is computed for.")


def _instruction(grader: str, labels: tuple[str, ...]) -> str:
    if labels:
        return f"Answer with one of: {', '.join(labels)}."
    return "Solve the problem and give the answer as a number." if grader == "number" else "Answer the question."


def _title(file: str) -> str:
    stem = Path(file).stem
    for ending in ("train", "all"):
        stem = stem.removesuffix(f"_{ending}").removesuffix(f"-{ending}")
    return stem


def _check_task(task: Task, at: Callable[[str], Place]) -> None:
    for split, problems in (("train", task.train), ("held_out", task.held_out)):
        if not problems:
            remedy = "A task needs problems to teach with, and others to report on."
            raise TaskError(f"There are no {split} problems.", where=at(f"task.{split}"), remedy=remedy)
    if task.grader == "rubric" and not task.rubric:
        remedy = "Write `rubric:` under `task`: what a right answer contains."
        raise TaskError("The grader `rubric` needs a rubric.", where=at("task.grader"), remedy=remedy)
    if task.grader != "rubric" and task.rubric:
        raise TaskError("`rubric` is only read by the grader `rubric`.", where=at("task.rubric"), remedy="Remove it.")


def _one_sided(task: Task) -> list[str]:
    notices = []
    for split, problems in (("train", task.train), ("held-out", task.held_out)):
        missing = set(task.labels) - {problem.answer for problem in problems}
        notices += [f"No {split} problem has the label '{label}'." for label in task.labels if label in missing]
    return notices
