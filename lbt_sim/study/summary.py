"""A study's findings on a terminal: the answer, conditions, comparisons, what went wrong."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lbt_sim.stats import Estimate
from lbt_sim.study.analysis import Analysis, Comparison, ConditionRow
from lbt_sim.study.results import StudyResults
from lbt_sim.transcript.theme import dressed, look_of

__all__ = ["print_findings"]


def print_findings(console: Console, results: StudyResults, analysis: Analysis) -> None:
    """Prints what a study found."""
    look = look_of(dressed(console))
    console.print()
    console.print(Text(look.plain(results.title), "lbt.title"))
    console.print(Text(look.plain(analysis.answer)))
    console.print()
    console.print(_conditions(analysis.conditions, results.metric))
    if analysis.comparisons:
        console.print()
        console.print(_comparisons(analysis.comparisons))
        first = next((one.difference for one in analysis.comparisons if one.difference is not None), None)
        if first is not None:
            console.print(Text(f"95 % intervals: {first.method}.", "lbt.label"))
    for warning in analysis.warnings:
        console.print(Text(f"note: {look.plain(warning)}", "lbt.notice"))


def _conditions(rows: Iterable[ConditionRow], metric: str) -> Table:
    table = _table(
        "condition", "runs", "failed", "round 0", f"last {metric}", "gain (95 %)", "invalid", "failed answers"
    )
    for row in rows:
        table.add_row(
            row.condition,
            str(row.done),
            Text(str(row.failed or ""), "lbt.failed"),
            _value(row.start),
            _value(row.end),
            _with_interval(row.gain),
            str(row.outcomes.get("invalid", 0) + row.outcomes.get("truncated", 0)),
            str(row.outcomes.get("failed", 0)),
        )
    return table


def _comparisons(rows: Iterable[Comparison]) -> Table:
    table = _table("comparison", "pairs", "difference (95 %)", "p", "Holm p", "g", "detectable", "")
    for row in rows:
        table.add_row(
            f"{row.a} − {row.b}",
            str(row.pairs),
            _with_interval(row.difference),
            _p(row.p),
            _p(row.p_holm),
            "–" if row.effect is None else f"{row.effect.value:+.2f}",
            "–" if row.detectable is None else f"{row.detectable:.3f}",
            row.verdict,
        )
    return table


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for number, name in enumerate(names):
        table.add_column(name, justify="left" if number in (0, len(names) - 1) else "right", header_style="lbt.label")
    return table


def _value(estimate: Estimate | None) -> str:
    return "–" if estimate is None else f"{estimate.value:.3f}"


def _with_interval(estimate: Estimate | None) -> str:
    if estimate is None:
        return "–"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:+.3f}"
    return f"{estimate.value:+.3f} ({estimate.low:+.3f} to {estimate.high:+.3f})"


def _p(p: float | None) -> str:
    return "–" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"
