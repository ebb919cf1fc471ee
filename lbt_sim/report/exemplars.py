"""Which exemplars were in material that scored well, and which in material that scored badly.

Each selection scores its candidates on the same train problems. What a material scored above the mean of its selection
is credited to every exemplar that it holds. This says with what company an exemplar was seen, not what it caused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from lbt_sim.report.text import cut
from lbt_sim.stats import bootstrap_mean
from lbt_sim.transcript.read import RunRecord

__all__ = ["Credit", "Credits", "credits_of", "credits_of_study", "standings"]

Data = Mapping[str, Any]
Key = tuple[str, str]
"""(question, answer)."""

_LEAST = 2
"""An exemplar seen in fewer materials (in a study: runs) is not ranked."""
_FOR_INTERVAL = 5
"""From so many runs on there is an interval; where enough exemplars have one, only these are ranked."""
_SHOWN = 6
_TEXT = 400


@dataclass(frozen=True, slots=True)
class Credit:
    """An exemplar and how material that held it scored against its selection's mean.

    Attributes:
        question: Its question.
        answer: Its answer.
        value: Mean difference.
        low: In a run the lowest of them, in a study the lower end of a 95 % interval; None: too few.
        high: The same, upper.
        of: In how many materials (in a study: runs) it was scored.
    """

    question: str
    answer: str
    value: float
    low: float | None
    high: float | None
    of: int


@dataclass(frozen=True, slots=True)
class Credits:
    """The best and the worst of the exemplars that can be ranked.

    Attributes:
        best: Highest first.
        worst: Lowest first.
        ranked: How many could be ranked.
        seen: How many there were.
        unit: What `of` counts: `materials` or `runs`.
        interval: What `low` and `high` are.
        least: In how many an exemplar has to have been to be ranked.
    """

    best: tuple[Credit, ...]
    worst: tuple[Credit, ...]
    ranked: int
    seen: int
    unit: str
    interval: str
    least: int = _LEAST


def standings(record: RunRecord) -> dict[Key, list[float]]:
    """Exemplar -> for each material that holds it, its score above the mean of its selection (mean over selections)."""
    above: dict[str, list[float]] = defaultdict(list)
    for selection in record.selections.values():
        scored = [(str(row["id"]), float(row["score"])) for row in selection["candidates"] if _is_scored(row)]
        if len(scored) < 2:
            continue
        mean = fmean(score for _, score in scored)
        for name, score in scored:
            above[name].append(score - mean)
    found: dict[Key, list[float]] = defaultdict(list)
    for name, differences in above.items():
        exemplars = record.materials.get(name, {}).get("exemplars") or ()
        for key in dict.fromkeys((str(e.get("question", "")), str(e.get("answer", ""))) for e in exemplars):
            found[key].append(fmean(differences))
    return found


def _is_scored(row: Data) -> bool:
    return row.get("score") is not None and row["score"] >= 0


def credits_of(record: RunRecord) -> Credits | None:
    """Of one run; None where nothing was scored against anything."""
    found = standings(record)
    rows = [
        Credit(cut(q, _TEXT), cut(a, _TEXT), fmean(values), min(values), max(values), len(values))
        for (q, a), values in found.items()
        if len(values) >= _LEAST
    ]
    return _ranked(rows, len(found), "materials", "lowest to highest of them") if found else None


def credits_of_study(runs: Iterable[Mapping[Key, Sequence[float]]]) -> Credits | None:
    """Over runs: each run counts once for an exemplar, by its mean. None where nothing was scored."""
    by_run: dict[Key, list[float]] = defaultdict(list)
    for run in runs:
        for key, values in run.items():
            by_run[key].append(fmean(values))
    enough = sum(len(values) >= _FOR_INTERVAL for values in by_run.values()) >= 2 * _SHOWN
    least = _FOR_INTERVAL if enough else _LEAST
    ranked = [(key, values) for key, values in by_run.items() if len(values) >= least]
    ranked.sort(key=lambda pair: -fmean(pair[1]))
    ends = ranked if len(ranked) <= 2 * _SHOWN else [*ranked[:_SHOWN], *ranked[-_SHOWN:]]
    rows = []
    for (question, answer), values in ends:
        low, high = bootstrap_mean(values) if len(values) >= _FOR_INTERVAL else (None, None)
        rows.append(Credit(cut(question, _TEXT), cut(answer, _TEXT), fmean(values), low, high, len(values)))
    words = "95 % bootstrap interval over runs" + ("" if enough else ", where there are five or more")
    found = _ranked(rows, len(by_run), "runs", words)
    return Credits(found.best, found.worst, len(ranked), found.seen, "runs", words, least) if by_run else None


def _ranked(rows: Sequence[Credit], seen: int, unit: str, interval: str) -> Credits:
    order = sorted(rows, key=lambda row: (-row.value, row.question, row.answer))
    half = min(_SHOWN, len(order) // 2) if len(order) > 1 else len(order)
    worst = order[::-1][:half] if len(order) > 1 else []
    return Credits(tuple(order[:half]), tuple(worst), len(order), seen, unit, interval)
