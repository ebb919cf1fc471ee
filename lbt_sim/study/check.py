"""A study file checked to the last prompt, and what it will take told before anything is spent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from lbt_sim.check_file import Checked
from lbt_sim.library import FolderLayer, Library, built_in
from lbt_sim.scenario.files import file_kind
from lbt_sim.scenario.presets import explain
from lbt_sim.study.forecast import Forecast, Pilot, forecast, is_simulated, pilot
from lbt_sim.study.plan import Plan, load_study
from lbt_sim.study.ready import prepared_conditions
from lbt_sim.study.telling import ALPHA, EQUAL, floor_of, seeds_needed
from lbt_sim.transcript.figures import count, duration, plural

__all__ = ["check_study", "is_study_file"]

_MOST = 24
"""Conditions that are listed one by one."""


def is_study_file(name: str) -> bool:
    """Whether a name or path means a study: a file that says so, or a name that only a study has."""
    if name.endswith((".yaml", ".yml")) or "/" in name:
        return file_kind(name) == "study"
    library = Library([FolderLayer(Path.cwd(), "here"), built_in()])
    return name not in library.names("scenarios") and name in library.names("scenarios/studies")


def check_study(name: str, *, sets: Sequence[str] = (), data: Sequence[Path] = (), measure: bool = False) -> Checked:
    """Checks a study and every scenario in it; rehearses one seed of each condition on the simulated engine.

    Args:
        name: A name, or a path.
        sets: `key.path=value`, done in order.
        data: Folders to look for data files in.
        measure: Run a pilot on the study's own models, one round of its first condition, to measure time and tokens.

    Raises:
        LbtError: What is wrong with it.
    """
    plan = load_study(name, sets=sets, data=data)
    prepared_conditions(plan)
    found = forecast(plan)
    measured = pilot(plan) if measure else None
    lines = [*_size(plan), *_conditions(plan, found), *_cost(plan, found, measured)]
    lines += list(_compared(plan))
    lines += [f"note: {note}" for note in [*plan.notes, *_unequal(plan, found), *_budget(plan, found), *_power(plan)]]
    return Checked("study", lines, explain(plan.file, plan.document, {}))


def _size(plan: Plan) -> Iterator[str]:
    seeds = plan.file.seed_list
    total = len(seeds) * len(plan.conditions)
    yield (
        f"{plural(total, 'run')}: {plural(len(plan.conditions), 'condition')} × {plural(len(seeds), 'seed')}, "
        "compared seed by seed on the same problems"
    )


def _conditions(plan: Plan, found: Forecast) -> Iterator[str]:
    shown = plan.conditions[:_MOST]
    width = max(len(one.condition.name) for one in shown)
    for one in shown:
        counts = found.counts[one.condition.name]
        yield (
            f"  {one.condition.name:<{width}}  {one.condition.title}: a run has {count(counts['answers'])} answers "
            f"({count(counts['exam_answers'])} in exams, {count(counts['select_answers'])} to select, "
            f"{count(counts['report_answers'])} held out), {count(counts['written'])} calls that write"
        )
    if len(plan.conditions) > len(shown):
        yield f"  … and {plural(len(plan.conditions) - len(shown), 'condition')} more"


def _compared(plan: Plan) -> Iterator[str]:
    """What is compared, and in what the two differ."""
    if not plan.comparisons:
        yield "compared: nothing"
    for (a, b), words in list(zip(plan.comparisons, plan.differs, strict=True))[:_MOST]:
        yield f"compared: {a} − {b}, which differ in {_listed(words)}"
    if len(plan.comparisons) > _MOST:
        yield f"compared: {plural(len(plan.comparisons) - _MOST, 'pair')} more"


def _listed(words: Sequence[str]) -> str:
    if not words:
        return "nothing"
    if len(words) == 1:
        return words[0]
    return f"{', '.join(words[:-1])} and {words[-1]}: which of these it is cannot be told"


def _unequal(plan: Plan, found: Forecast) -> Iterator[str]:
    """For whom compute is not equal, and by how much, as rehearsed: train may hold too few problems to be asked."""
    if plan.file.equal_compute is None:
        return
    given = {name: counts["exam_answers"] + counts["select_answers"] for name, counts in found.counts.items()}
    most = max(given.values())
    if less := [f"{name} {count(number)}" for name, number in given.items() if number < EQUAL * most]:
        yield (
            f"compute is not equal, though it is asked for: {count(most)} answers in exams and selection of a run at "
            f"most; {', '.join(less[:_MOST])}. More problems in train, or another `by`, may help"
        )


def _budget(plan: Plan, found: Forecast) -> Iterator[str]:
    calls = plan.file.budget.calls
    if calls is not None and calls < found.paid:
        yield f"the budget of {count(calls)} calls will not suffice: the study stops there; resume it with more"


def _power(plan: Plan) -> Iterator[str]:
    """Whether anything could be shown at all."""
    seeds, comparisons = len(plan.file.seed_list), len(plan.comparisons)
    if comparisons and floor_of(seeds, comparisons) >= ALPHA:
        yield (
            f"with {plural(seeds, 'seed')} and {plural(comparisons, 'comparison')} nothing can be shown, whatever the "
            f"difference: it takes {seeds_needed(comparisons)} seeds at least"
        )


def _cost(plan: Plan, found: Forecast, measured: Pilot | None) -> Iterator[str]:
    paid = (
        f"{count(found.paid)} of them paid"
        if is_simulated(plan)
        else f"{_span(count(found.paid), count(found.calls))} of them paid, as alike as conditions go"
    )
    yield (
        f"calls: about {count(found.calls)} asked for, {paid}: equal deterministic calls of one seed's conditions are "
        "made once (rehearsed on the simulated engine, one seed of each)"
    )
    if measured is not None:
        most, word = (found.paid, "about") if is_simulated(plan) else (found.calls, "at most")
        yield (
            f"tokens: {word} {count(measured.prompt * most)} in prompts and {count(measured.completion * most)} "
            f"generated (measured: {measured.prompt:.0f} and {measured.completion:.1f} for each call)"
        )
        each = measured.seconds / measured.calls
        yield (
            f"time: {_span(duration(each * found.paid), duration(each * most))} (measured: one round of "
            f"{measured.condition}, {count(measured.calls)} calls, took {duration(measured.seconds)} on these models); "
            "several runs at once are seldom slower"
        )
        return
    yield (
        f"tokens: about {count(found.total('prompt_tokens'))} in prompts and {count(found.total('completion_tokens'))} "
        "generated, counted as words and without what a language model writes at length"
    )
    if found.seconds is not None:
        yield f"time: about {duration(found.seconds)} with one worker, less with more (measured: {found.how})"
    else:
        yield "time: not measured; `--pilot` runs one round of the first condition on the study's own models"
    if is_simulated(plan):
        yield "its learners are simulated: rules in place of a language model"


def _span(least: str, most: str) -> str:
    return least if least == most else f"{least} to {most}"
