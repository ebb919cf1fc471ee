"""Charts as static SVG by matplotlib: no script, no fonts of their own, colours as CSS variables of the page.

Nothing from outside is written into a picture: matplotlib draws axes and numbers, names stand in the page's legends,
where they are escaped like all text. The same input gives the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import StringIO
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "MARKERS", "Curve", "Level", "Look", "curves", "look", "panels", "scatter"]

COLOURS = 7
"""Colours of series: the page's variables `--s0` to `--s6`, after Okabe and Ito (2008)."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
"""The second channel, beside the dashes: nothing is told by colour alone."""
_DASHES: tuple[tuple[float, ...], ...] = ((), (5, 1.6), (1.2, 1.4), (6, 1.6, 1.2, 1.6))
_INK, _MUTED, _RULE, _PAPER, _ACCENT = "#020001", "#020002", "#020003", "#020004", "#020005"
_VARIABLES = {_INK: "ink", _MUTED: "muted", _RULE: "rule", _PAPER: "paper", _ACCENT: "accent"}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "lbt-sim",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.edgecolor": _RULE,
    "axes.labelcolor": _MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "xtick.color": _RULE,
    "ytick.color": _RULE,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _MUTED,
    "grid.color": _RULE,
    "grid.linewidth": 0.6,
    "text.color": _INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


@dataclass(frozen=True, slots=True)
class Look:
    """How a series is drawn, in charts and in legends: a colour, a marker, a dash."""

    colour: int
    marker: str
    dash: tuple[float, ...]

    @property
    def dasharray(self) -> str:
        """As SVG has it."""
        return " ".join(f"{2 * length:g}" for length in self.dash)


@dataclass(frozen=True, slots=True)
class Curve:
    """A series over rounds.

    Attributes:
        look: How it is drawn.
        points: (round, score, low, high), by round; bounds None where there is no interval.
        quiet: Drawn thin and without its band.
    """

    look: Look
    points: tuple[tuple[int, float, float | None, float | None], ...]
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Level:
    """A score that does not change: a baseline."""

    value: float


def look(number: int) -> Look:
    """The look of series `number`; the first 56 are told apart by colour and marker, near ones also by dash."""
    return Look(number % COLOURS, MARKERS[number % len(MARKERS)], _DASHES[number % len(_DASHES)])


def curves(series: Sequence[Curve], name: str, title: str, *, levels: Sequence[Level] = ()) -> Markup:
    """Learning curves in one chart.

    Args:
        series: What is drawn, the most important last.
        name: Of this picture in the page: its ids begin with it.
        title: What it shows, for those who do not see it.
        levels: Baselines.
    """
    with _drawing():
        figure, (axes,) = _figure(7.2, 3.5, 1, 1)
        for level in levels:
            axes.axhline(level.value, color=_MUTED, linewidth=0.9, dashes=(1, 2.5))
        for curve in series:
            _draw(axes, curve, _series(curve.look))
        _rounds(axes, series)
        _scores(axes, series, levels)
        axes.set_ylabel("score")
        axes.set_xlabel("round")
        return _svg(figure, name, title)


def panels(series: Sequence[Curve], name: str, title: str, columns: int = 3) -> Markup:
    """A small chart for each series, in order, with its band; the others stand in grey behind it."""
    columns = min(columns, max(1, len(series)))
    rows = -(-len(series) // columns)
    with _drawing():
        figure, all_axes = _figure(7.2, 1.75 * rows, rows, columns)
        for number, axes in enumerate(all_axes):
            if number >= len(series):
                axes.set_axis_off()
                continue
            for other in series:
                if other is not series[number]:
                    axes.plot(*_xy(other), color=_MUTED, alpha=0.35, linewidth=0.7, zorder=1)
            _draw(axes, replace(series[number], quiet=False), _series(series[number].look))
            _rounds(axes, series)
            _scores(axes, series, ())
            axes.set_title(str(number + 1), loc="left", fontsize=9, fontweight="bold", color=_INK, pad=3)
            axes.tick_params(labelleft=number % columns == 0, labelsize=7.5)
        return _svg(figure, name, title)


def scatter(
    groups: Sequence[tuple[Look, Sequence[tuple[float, float]]]],
    slope: tuple[float, float | None, float | None] | None,
    name: str,
    title: str,
    labels: tuple[str, str],
) -> Markup:
    """Points of groups, and the line of `slope` (value, low, high) through their means with its wedge.

    Args:
        groups: (look, points) of each.
        slope: Y for one unit of x, with its interval; None: no line.
        name: Of this picture in the page.
        title: What it shows.
        labels: Of the axes; ours, not a model's.
    """
    points = [point for _, group in groups for point in group]
    many = len(points) > _CLOUD
    with _drawing():
        figure, (axes,) = _figure(3.5, 2.7, 1, 1)
        axes.axhline(0, color=_MUTED, linewidth=0.8, dashes=(1, 2.5))
        for group_look, group in groups:
            shown = _thinned(group, _CLOUD // max(1, len(groups))) if many else list(group)
            if shown:
                xs, ys = zip(*shown, strict=True)
                axes.plot(
                    *(xs, [100 * y for y in ys]),
                    linestyle="none",
                    marker=group_look.marker,
                    markersize=4,
                    markeredgewidth=0,
                    color=_series(group_look),
                    alpha=0.65,
                )
        if slope is not None and points:
            _line(axes, points, slope)
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        axes.grid(visible=True, axis="y")
        return _svg(figure, name, title, "chart small")


_CLOUD = 600
"""So many points are drawn; of more, some spread evenly over them all."""


def _thinned(group: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    step = max(1, -(-len(group) // max(1, most)))
    return list(group[::step])


def _line(axes: Axes, points: Sequence[tuple[float, float]], slope: tuple[float, float | None, float | None]) -> None:
    """The slope through the middle of the points, and what its interval allows."""
    xs = [x for x, _ in points]
    middle, height = sum(xs) / len(xs), sum(y for _, y in points) / len(points)
    ends = [min(xs), max(xs)]
    value, low, high = slope
    if low is not None and high is not None:
        sides = [[100 * (height + rate * (x - middle)) for x in ends] for rate in (low, high)]
        axes.fill_between(ends, sides[0], sides[1], color=_INK, alpha=0.12, linewidth=0)
    axes.plot(ends, [100 * (height + value * (x - middle)) for x in ends], color=_INK, linewidth=1.3)


def _draw(axes: Axes, curve: Curve, colour: str) -> None:
    xs, ys = _xy(curve)
    band = [(x, low, high) for x, _, low, high in curve.points if low is not None and high is not None]
    if band and not curve.quiet:
        places, lows, highs = zip(*band, strict=True)
        axes.fill_between(places, lows, highs, color=colour, alpha=0.16, linewidth=0, zorder=2)
    axes.plot(
        *(xs, ys),
        color=colour,
        linewidth=1.0 if curve.quiet else 1.8,
        dashes=curve.look.dash or (None, None),
        marker=curve.look.marker if len(xs) <= _MARKED else None,
        markersize=3.4 if curve.quiet else 4.6,
        markeredgecolor=_PAPER,
        markeredgewidth=0.6,
        zorder=2.5 if curve.quiet else 3,
    )


_MARKED = 40
"""A curve of more rounds has no markers."""


def _xy(curve: Curve) -> tuple[list[int], list[float]]:
    return [point[0] for point in curve.points], [point[1] for point in curve.points]


def _rounds(axes: Axes, series: Sequence[Curve]) -> None:
    last = max((point[0] for curve in series for point in curve.points), default=1)
    step = max(1, -(-last // 10))
    axes.set_xticks(range(0, last + 1, step))
    axes.set_xlim(-0.15 * max(1, last / 5), last + 0.15 * max(1, last / 5))


def _scores(axes: Axes, series: Sequence[Curve], levels: Sequence[Level]) -> None:
    values = [value for curve in series for point in curve.points for value in point[1:] if value is not None]
    values += [level.value for level in levels]
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = max(0.05, 0.06 * (high - low))
    axes.set_ylim(max(-0.02, low - room), min(1.02, high + room))
    axes.grid(visible=True, axis="y")
    axes.set_axisbelow(True)


def _series(drawn: Look) -> str:
    return f"#0100{drawn.colour:02x}"


def _drawing() -> Any:
    from matplotlib import rc_context

    return rc_context(_STYLE)


def _figure(width: float, height: float, rows: int, columns: int) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    found = figure.subplots(rows, columns, squeeze=False)
    return figure, list(found.flat)


def _svg(figure: Figure, name: str, title: str, kind: str = "chart") -> Markup:
    """The figure as an `svg` element that can stand beside others in a page."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    stream = StringIO()
    FigureCanvasSVG(figure).print_svg(stream, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))  # type: ignore[no-untyped-call]
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    # Its style rule would hold for the whole page; the page's own style sheet says the same of charts.
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>|<defs>\s*</defs>", "", text, flags=re.DOTALL)
    text = re.sub(r"#0100([0-9a-f]{2})", lambda found: f"var(--s{int(found[1], 16)})", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r'(?:xlink:)?href="#', f'href="#{name}-', text)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    text = re.sub(r' (?:d|x|y|transform)="[^"]*"', _short, text)
    text = re.sub(r"\s*\n\s*", "\n", text)
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None  # noqa: S101 - matplotlib has always written one
    head = f'<svg class="{kind}" role="img" aria-labelledby="{name}-title" {box[0]}>'
    return Markup(f'{head}<title id="{name}-title">{escape(title)}</title>{text[text.index(">") + 1 :].strip()}')  # noqa: S704 - matplotlib's, of numbers alone


def _short(attribute: re.Match[str]) -> str:
    """Coordinates to a hundredth of a point."""
    text = re.sub(r"(\d\.\d\d)\d+", r"\1", attribute[0])
    return re.sub(r"\s*\n\s*", " ", text)
