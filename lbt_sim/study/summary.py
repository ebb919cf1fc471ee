"""A study's findings on a terminal: the answer, conditions, comparisons, effects of factors, what went wrong."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lbt_sim.stats import Estimate
from lbt_sim.study.analysis import Analysis, Comparison, ConditionRow, FactorEffect
from lbt_sim.study.results import StudyResults
from lbt_sim.study.words import interval_text, p_text, points, readable
from lbt_sim.transcript.theme import Look, dressed, look_of

__all__ = ["print_findings"]

_LEAST = 14
"""Cells that the first column takes at least, however wide the others are."""
_EFFECTS = 12
"""So many effects of factors are printed; the report has them all."""
_VERDICT, _DETECTABLE = "verdict", "detectable,\npoints"
"""The second is left out where a terminal is narrow."""
_BROKEN = ("invalid", "truncated", "failed")

Row = tuple[str, ...]
"""A name, where a new line is a good place to break it, and figures."""


def print_findings(console: Console, results: StudyResults, analysis: Analysis) -> None:
    """Prints what a study found."""
    look = look_of(dressed(console))
    console.print()
    console.print(Text(look.plain(results.title), "lbt.title"))
    console.print(Text(_told(analysis.answer, look)))
    console.print()
    heads: Row = ("condition", "runs", "start", "end", "gain, points\n(95 % interval)", "not\ngraded")
    console.print(_table(console, look, heads, map(_condition, analysis.conditions)))
    if analysis.comparisons:
        console.print()
        heads = ("comparison", "pairs", "points\n(95 % interval)", "Holm p", _DETECTABLE, _VERDICT)
        console.print(_table(console, look, heads, map(_comparison, analysis.comparisons)))
    if analysis.effects:
        console.print()
        heads = ("effect of a factor", "seeds", "points\n(95 % interval)", "Holm p")
        console.print(_table(console, look, heads, map(_effect, analysis.effects[:_EFFECTS])))
    console.print()
    for line in _footer(results, analysis):
        console.print(Text(_told(line, look), "lbt.label"))
    for warning in analysis.warnings:
        console.print(Text(f"note: {_told(warning, look)}", "lbt.notice"))


def _condition(row: ConditionRow) -> Row:
    answers, broken = sum(row.outcomes.values()), sum(row.outcomes.get(name, 0) for name in _BROKEN)
    told = ((row.failed, "failed"), (row.missing, "missing"))
    runs = "".join(f", {number} {word}" for number, word in told if number)
    ends = (readable(None if one is None else one.value, 3) for one in (row.start, row.end))
    graded = f"{broken:,} of {answers:,}" if answers else "–"
    return (_line(row.condition), f"{row.done}{runs}", *ends, _with_interval(row.gain), graded)


def _comparison(row: Comparison) -> Row:
    return (
        f"{_line(row.a)} −\n{_line(row.b)}",
        f"{row.pairs}",
        _with_interval(row.difference),
        p_text(row.p_holm),
        points(row.detectable, signed=False),
        row.verdict,
    )


def _effect(row: FactorEffect) -> Row:
    each = zip(row.factors, row.level, row.against, strict=True)
    name = " ×\n".join(_line(f"{factor} ({level} − {against})") for factor, level, against in each)
    return (name, f"{row.pairs}", _with_interval(row.difference), p_text(row.p_holm))


def _line(name: str) -> str:
    return " ".join(name.split())


def _with_interval(estimate: Estimate | None) -> str:
    if estimate is None:
        return "–"
    return f"{points(estimate.value)} ({interval_text(estimate.low, estimate.high, in_points=True)})"


def _footer(results: StudyResults, analysis: Analysis) -> Iterable[str]:
    """What the columns are. How each single interval was computed stands in the report."""
    yield (
        f"Start and end: mean held-out {results.metric}, as a share. Points: hundredths of it. Not graded: held-out "
        "answers that are invalid, truncated or failed."
    )
    yield (
        "Intervals: seeds resampled, and the problems where all have the same, with Student's t; each one's method is "
        "in the report."
    )
    if analysis.comparisons:
        number = sum(one.p is not None for one in analysis.comparisons)
        corrected = f", corrected for {number} comparisons" if number > 1 else ""
        yield f"Detectable: the true difference that is found with 80 % power{corrected}."
    if analysis.effects:
        more = len(analysis.effects) - _EFFECTS
        told = f" {more} more are in the report." if more > 0 else ""
        yield (
            "An effect of a factor is averaged over the others, and corrected for all such effects; of two (×): by how "
            f"much the effect of one differs with the other.{told}"
        )


def _told(text: str, look: Look) -> str:
    """A text made safe, with minus, dash and times as the terminal can show them."""
    if not look.unicode:
        text = text.replace("−", look.glyph("minus")).replace("–", look.glyph("dash")).replace("×", "x")
    return look.plain(text)


# --- tables -------------------------------------------------------------------------------------------------


def _table(console: Console, look: Look, heads: Sequence[str], rows: Iterable[Row]) -> Table:
    """Figures stay whole; the names in the first column are broken, or shortened, where they do not fit."""
    columns = list(zip(heads, *([_told(cell, look) for cell in row] for row in rows), strict=True))
    taken = [max(cell_len(line) for cell in column for line in cell.split("\n")) for column in columns]
    if _DETECTABLE in heads and console.width < _LEAST + sum(taken[1:]) + len(taken):
        place = heads.index(_DETECTABLE)
        del columns[place], taken[place]
    width = max(_LEAST, console.width - sum(taken[1:]) - len(taken))
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for number, (head, *_) in enumerate(columns):
        left = number == 0 or head == _VERDICT
        table.add_column(head, justify="left" if left else "right", header_style="lbt.label", no_wrap=True)
    for name, *figures in list(zip(*columns, strict=True))[1:]:
        table.add_row("\n".join(_folded(name, width, look)), *map(_styled, figures))
    return table


def _styled(figure: str) -> Text:
    troubled = figure.endswith((" failed", " missing"))
    return Text(figure, "lbt.failed" if troubled else "lbt.figure" if figure in {"shown", "equivalent"} else "")


_PIECE = re.compile(r"[^\s,/=_−-]*[\s,/=_−-]*")
"""A piece of a name, with the separators after it: behind these it may be broken."""


def _folded(name: str, width: int, look: Look) -> Iterator[str]:
    """A name in lines of at most so many cells: broken behind separators, a longer piece shortened in its middle."""
    parts = name.split("\n")
    if cell_len(" ".join(parts)) <= width:
        yield " ".join(parts)
        return
    for part in parts:
        line = ""
        for piece in filter(None, _PIECE.findall(part)):
            if line and cell_len(line) + cell_len(piece.rstrip()) > width:
                yield line.rstrip()
                line = ""
            line += piece if cell_len(piece.rstrip()) <= width else _shortened(piece.rstrip(), width, look)
        yield line.rstrip()


def _shortened(piece: str, width: int, look: Look) -> str:
    ellipsis = look.glyph("ellipsis")
    half = (width - cell_len(ellipsis)) // 2
    return look.cut(piece, half + cell_len(ellipsis)).removesuffix(ellipsis) + ellipsis + _end(piece, half)


def _end(piece: str, width: int) -> str:
    """The last so many cells."""
    while cell_len(piece) > width:
        piece = piece[1:]
    return piece
