"""The learning curve of the teacher: held-out accuracy by round, its 95 % interval, the best trivial baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from lbt_sim.transcript.figures import half_width, interval, share, sparkline
from lbt_sim.transcript.theme import UNICODE, Look

__all__ = ["best_baseline", "learning_curve"]

_LEAST_SPAN = 0.2
_PLOT_HEIGHT = 8
_PLOT_WIDTH = 24
_LABEL = 5


def best_baseline(baselines: Mapping[str, Any]) -> tuple[str, float] | None:
    """The trivial baseline with the highest accuracy: (its name, its accuracy)."""
    found = [
        (name.replace("_", " "), float(values["accuracy"]))
        for name, values in baselines.items()
        if isinstance(values, Mapping) and values.get("accuracy") is not None
    ]
    return max(found, key=lambda pair: pair[1], default=None)


def learning_curve(
    reports: Mapping[int, Mapping[str, Any]],
    baselines: Mapping[str, Any],
    width: int,
    height: int,
    look: Look = UNICODE,
) -> list[Text]:
    """The curve in at most `height` lines of `width` cells: a plot where there is room, else one row of steps.

    Args:
        reports: Round -> its report (`teacher` with `accuracy` and `ci95`).
        baselines: Name -> {accuracy, f1} or None.
        width: Cells in a line.
        height: Lines.
        look: What the terminal can show.
    """
    points = [
        _Point(number, float(report["teacher"]["accuracy"]), report["teacher"])
        for number, report in sorted(reports.items())
        if report["teacher"].get("accuracy") is not None
    ]
    baseline = best_baseline(baselines)
    if not points:
        lines = [Text("no report yet", "lbt.label")]
    elif height >= _PLOT_HEIGHT and width >= _PLOT_WIDTH and len(points) > 1:
        lines = [*_plot(points, baseline, width, height - 2, look), *_words(points[-1], baseline, look)]
    else:
        lines = [_steps(points, width, look), *_words(points[-1], baseline, look)]
    for line in lines:
        line.no_wrap = True
    return [_cut(line, width, look) for line in lines[:height]]


@dataclass(frozen=True, slots=True)
class _Point:
    round: int
    value: float
    teacher: Mapping[str, Any]

    @property
    def low(self) -> float:
        return (interval(self.teacher) or (self.value, self.value))[0]

    @property
    def high(self) -> float:
        return (interval(self.teacher) or (self.value, self.value))[1]


def _cut(line: Text, width: int, look: Look) -> Text:
    if line.cell_len <= width:
        return line
    line.truncate(max(width - len(look.glyph("ellipsis")), 0))
    return line.append(look.glyph("ellipsis"), "lbt.label")


def _steps(points: list[_Point], width: int, look: Look) -> Text:
    room = max(width - 10, 1)
    steps = sparkline([point.value for point in points[-room:]], look)
    row = Text().append(share(points[0].value)).append(" ").append(steps, "lbt.curve")
    return row.append(" ").append(share(points[-1].value), "lbt.figure") if len(points) > 1 else row


def _words(last: _Point, baseline: tuple[str, float] | None, look: Look) -> list[Text]:
    half = half_width(last.teacher)
    first = Text(share(last.value), "lbt.figure")
    if half is not None:
        first.append(f" {look.glyph('plus_minus')}{half:.2f}", "not bold").append(" (95 %)", "not bold lbt.label")
    second = Text()
    if baseline is not None:
        second.append(f"{baseline[0]} ", "lbt.label").append(share(baseline[1]))
    return [first, second] if second else [first]


def _plot(points: list[_Point], baseline: tuple[str, float] | None, width: int, height: int, look: Look) -> list[Text]:
    columns = width - _LABEL - 1
    step = max(min(columns // len(points), 6), 1)
    points = points[-(columns // step) :]
    height -= 1  # The last line holds the rounds.
    low = min([point.low for point in points] + ([baseline[1]] if baseline else []))
    high = max([point.high for point in points] + ([baseline[1]] if baseline else []))
    if high - low < _LEAST_SPAN:
        low, high = max((low + high - _LEAST_SPAN) / 2, 0.0), min((low + high + _LEAST_SPAN) / 2, 1.0)

    def line_of(value: float) -> int:
        return round((high - value) / (high - low) * (height - 1))

    cells = [[(" ", "")] * columns for _ in range(height)]
    if baseline is not None:
        cells[line_of(baseline[1])] = [(look.glyph("dashes"), "lbt.label")] * min(step * len(points), columns)
    for at, point in enumerate(points):
        column = at * step + step // 2
        for line in range(line_of(point.high), line_of(point.low) + 1):
            cells[line][column] = (look.glyph("whisker"), "lbt.border")
        cells[line_of(point.value)][column] = (look.glyph("point"), "lbt.curve")
    labels = {0: high, height - 1: low}
    rows = []
    for number, row in enumerate(cells):
        text = Text(f"{share(labels[number])} " if number in labels else " " * _LABEL, "lbt.label", no_wrap=True)
        for char, style in row:
            text.append(char, style)
        rows.append(text)
    return [*rows, _axis(points, step, columns, look)]


def _axis(points: list[_Point], step: int, columns: int, look: Look) -> Text:
    axis = [" "] * columns
    free = 0
    for at, point in enumerate(points):
        label = str(point.round)
        column = at * step + step // 2
        if column >= free and column + len(label) <= columns:
            axis[column : column + len(label)] = label
            free = column + len(label) + 1
    return Text("round"[:_LABEL] + "".join(axis).rstrip(), "lbt.label")
