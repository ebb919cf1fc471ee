"""The tables of what a study found: its comparisons, and the effects of its factors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lbt_sim.report.table_kinds import Column, Table
from lbt_sim.stats import Estimate
from lbt_sim.study.analysis import Analysis, Comparison, FactorEffect
from lbt_sim.study.scores import OUTCOMES

__all__ = ["COMPARISONS", "EFFECTS", "findings"]

_FOUND = (
    Column("difference", "float64", "the mean over seeds; null with fewer than two", "share"),
    Column("low", "float64", "lower end of its 95 % interval; null where there is none", "share"),
    Column("high", "float64", "upper end", "share"),
    Column("method", "string", "how the interval was computed"),
    Column("p", "float64", "two-sided, of the permutation test over seeds"),
    *(
        Column(f"{name}_answers", "int64", f"held-out answers of all its conditions that were {name}", "answers")
        for name in OUTCOMES.values()
    ),
)

COMPARISONS = Table(
    "comparisons",
    "What a study concludes from: one row for each comparison, condition a minus condition b, paired by seed.",
    (
        Column("a", "string", "a condition"),
        Column("b", "string", "what it is compared with"),
        Column("differs", "strings", "in what the two differ"),
        Column("pairs", "int64", "seeds that both have", "seeds"),
        Column("left_out", "int64", "planned seeds that one of the two lacks", "seeds"),
        Column("crossed", "bool", "whether all pairs were examined on the same problems"),
        *_FOUND,
        Column("p_holm", "float64", "corrected over the study's comparisons (Holm)"),
        Column("effect", "float64", "Hedges' g of the paired differences", "standard deviations"),
        Column("effect_low", "float64", "lower end of its 95 % interval", "standard deviations"),
        Column("effect_high", "float64", "upper end", "standard deviations"),
        Column(
            "detectable",
            "float64",
            "the smallest true difference that so many seeds find with 80 % power, at 5 % divided by the number of "
            "comparisons",
            "share",
        ),
        Column("verdict", "string", "shown, equivalent (within the study's smallest effect), not shown"),
    ),
    ("a", "b"),
)

EFFECTS = Table(
    "effects",
    "What each factor does, averaged over the others, and how the effect of one hangs on another: one row for each "
    "level but a factor's first, and for two such. Empty where fewer than two factors (arms are one) vary.",
    (
        Column("factor", "string", "the factor; `arm` for arms"),
        Column("level", "string", "its level"),
        Column("against", "string", "what that is compared with: its first level"),
        Column("by_factor", "string", "of an interaction the other factor; null of a main effect"),
        Column("by_level", "string", "its level"),
        Column(
            "by_against",
            "string",
            "its first level; the difference is the factor's effect at `by_level` minus that at `by_against`",
        ),
        Column("conditions", "int64", "how many conditions are in it", "conditions"),
        Column("pairs", "int64", "seeds that have all of them", "seeds"),
        *_FOUND,
        Column("p_holm", "float64", "corrected over all effects of factors (Holm)"),
    ),
    ("factor", "level", "by_factor", "by_level"),
)


def findings(analysis: Analysis) -> Iterator[tuple[str, dict[str, Any]]]:
    """(table, row) of everything that a study found."""
    for one in analysis.comparisons:
        row = {name: getattr(one, name) for name in ("a", "b", "pairs", "left_out", "crossed", "detectable", "verdict")}
        effect = dict(zip(("effect", "effect_low", "effect_high"), _ends(one.effect), strict=True))
        yield (
            COMPARISONS.name,
            {**row, "differs": list(one.differs), **effect, **_found(one)},
        )
    for two in analysis.effects:
        names = ("factor", "level", "against", "by_factor", "by_level", "by_against")
        pairs = zip(two.factors, two.level, two.against, strict=True)
        values = [value for pair in pairs for value in pair]
        which = dict(zip(names, [*values, None, None, None], strict=False))
        counts = {"conditions": two.conditions, "pairs": two.pairs}
        yield EFFECTS.name, {**which, **counts, **_found(two)}


def _found(one: Comparison | FactorEffect) -> dict[str, Any]:
    ends = dict(zip(("difference", "low", "high"), _ends(one.difference), strict=True))
    answers = {f"{name}_answers": one.outcomes.get(name, 0) for name in OUTCOMES.values()}
    method = None if one.difference is None else one.difference.method
    return {**ends, "method": method, "p": one.p, "p_holm": one.p_holm, **answers}


def _ends(found: Estimate | None) -> tuple[float | None, float | None, float | None]:
    return (None, None, None) if found is None else (found.value, found.low, found.high)
