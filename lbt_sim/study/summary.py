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
            told = f"95 % intervals: {first.method}. Detectable: the true difference found with 80 % power. "
            told += "Not graded: held-out answers that are invalid, truncated or failed."
            console.print(Text(told, "lbt.label"))
    for warning in analysis.warnings:
        console.print(Text(f"note: {look.plain(warning)}", "lbt.notice"))


def _conditions(rows: Iterable[ConditionRow], metric: str) -> Table:
    table = _table("condition", "runs", "start", "end", f"gain in {metric} (95 %)", "not graded")
    for row in rows:
        answers = sum(row.outcomes.values())
        broken = sum(row.outcomes.get(name, 0) for name in ("invalid", "truncated", "failed"))
        runs = Text(str(row.done))
        for number, word in ((row.failed, "failed"), (row.missing, "missing")):
            if number:
                runs.append(f", {number} {word}", "lbt.failed")
        table.add_row(
            row.condition,
            runs,
            _value(row.start),
            _value(row.end),
            _with_interval(row.gain),
            f"{broken:,} of {answers:,}",
        )
    return table


def _comparisons(rows: Iterable[Comparison]) -> Table:
    table = _table("comparison", "pairs", "difference (95 %)", "Holm p", "detectable", "")
    for row in rows:
        table.add_row(
            f"{row.a} − {row.b}",
            str(row.pairs),
            _with_interval(row.difference),
            _p(row.p_holm),
            "–" if row.detectable is None else f"{row.detectable:.3f}",
            row.verdict,
        )
    return table


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for number, name in enumerate(names):
        first = number == 0
        table.add_column(
            name,
            justify="left" if first or not name else "right",
            header_style="lbt.label",
            no_wrap=not first,  # figures stay whole; long names of conditions are broken
            overflow="fold",
        )
    return table


def _value(estimate: Estimate | None) -> str:
    return "–" if estimate is None else f"{estimate.value:.3f}"


def _with_interval(estimate: Estimate | None) -> str:
    if estimate is None:
        return "–"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:+.3f} (no interval)"
    return f"{estimate.value:+.3f} ({estimate.low:+.3f}, {estimate.high:+.3f})"


def _p(p: float | None) -> str:
    return "–" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"
