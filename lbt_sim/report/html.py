"""Values set as one HTML file: it opens offline, asks for nothing and runs nothing.

Every text passes `as_html` (nothing hides or reorders) and then Jinja's escaping; there is no way round either. The
policy in the page's head forbids scripts, requests and frames besides.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from lbt_sim.report import charts, text
from lbt_sim.report.run_page import RunPage
from lbt_sim.study import words

if TYPE_CHECKING:
    from jinja2 import Environment

    from lbt_sim.report.study_page import StudyPage

__all__ = ["POLICY", "run_html", "study_html", "templates"]

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
"""The page's content security policy."""
_FILTERS = {
    "cut": text.cut,
    "fenced": text.fenced,
    "interval": lambda pair, in_points=False: words.interval_text(pair.low, pair.high, in_points=in_points),
    "of": words.of_how_many,
    "p": words.p_text,
    "points": words.points,
    "readable": words.readable,
    "broken": text.broken,
    "middle": text.middle,
    "name": text.as_name,
}


@cache
def templates(name: str) -> Environment:
    """The environment of a format: `html` or `md`."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    html = name == "html"
    environment = Environment(
        loader=PackageLoader("lbt_sim.report", "templates"),
        autoescape=html,  # noqa: S701 - Markdown escapes in `finalize`, by its own rules
        finalize=text.as_html if html else text.as_markdown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= _FILTERS
    return environment


def run_html(page: RunPage) -> str:
    """A run's page."""
    drawn = {}
    if page.series:
        drawn["curve"] = charts.curves(
            [series.curve for series in page.series],
            "curve",
            "The teacher's score on held-out problems after each round, with its interval; students' exams thin",
            levels=[charts.Level(value) for _, value in page.baselines],
        )
    return _page("run.html.j2", page, drawn)


def study_html(page: StudyPage) -> str:
    """A study's page."""
    drawn: dict[str, Any] = {}
    if page.series:
        all_ = [series.curve for series in page.series]
        drawn["curve"] = charts.curves(all_, "curve", "Mean held-out score of each condition after each round")
        if len(all_) > 1:
            drawn["panels"] = charts.panels(
                all_, "panels", "The same, a small chart for each condition in the order of the legend, with its band"
            )
    drawn["doses"] = [_dose(page, number) for number in range(len(page.doses))]
    return _page("study.html.j2", page, drawn)


def _dose(page: StudyPage, number: int) -> Markup:
    dose = page.doses[number]
    slope = None if dose.slope is None else (dose.slope.value, dose.slope.low, dose.slope.high)
    # The measure's name is written beside the picture, by the page: nothing from outside goes into one.
    title = "The teacher's gain of each run against its students' diversity"
    return charts.scatter(dose.groups, slope, f"dose{number}", title, ("measure", "gain, points"))


def _page(template: str, page: Any, drawn: Mapping[str, Any]) -> str:
    environment = templates("html")
    assert environment.loader is not None  # noqa: S101 - `templates` gives it one
    style = environment.loader.get_source(environment, "style.css")[0]
    ours: dict[str, Any] = {"policy": Markup(POLICY), "style": Markup(style), "drawn": drawn}  # noqa: S704 - our own files
    return environment.get_template(template).render(page=page, marker=_marker, **ours)


_SHAPES = {
    "o": "M0-4A4 4 0 1 1 0 4A4 4 0 1 1 0-4Z",
    "s": "M-3.5-3.5H3.5V3.5H-3.5Z",
    "^": "M0-4.2L4 3.4H-4Z",
    "D": "M0-4.6L4.6 0L0 4.6L-4.6 0Z",
    "v": "M0 4.2L4-3.4H-4Z",
    "P": "M-1.5-4.2H1.5V-1.5H4.2V1.5H1.5V4.2H-1.5V1.5H-4.2V-1.5H-1.5Z",
    "X": "M-2.6-4.4L0-1.8L2.6-4.4L4.4-2.6L1.8 0L4.4 2.6L2.6 4.4L0 1.8L-2.6 4.4L-4.4 2.6L-1.8 0L-4.4-2.6Z",
    "p": "M0-4.4L4.2-1.4L2.6 3.6H-2.6L-4.2-1.4Z",
}


def _marker(drawn: charts.Look) -> str:
    """A series' marker as a path round 0, 0; the same as in the chart."""
    return _SHAPES[drawn.marker]
