"""The same report in Markdown: tables and diffs, no pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lbt_sim.report.html import templates

if TYPE_CHECKING:
    from lbt_sim.report.run_page import RunPage
    from lbt_sim.report.study_page import StudyPage

__all__ = ["run_markdown", "study_markdown"]


def run_markdown(page: RunPage) -> str:
    """A run's report."""
    return _rendered("run.md.j2", page)


def study_markdown(page: StudyPage) -> str:
    """A study's report."""
    return _rendered("study.md.j2", page)


def _rendered(template: str, page: Any) -> str:
    lines = templates("md").get_template(template).render(page=page).splitlines()
    kept = [line.rstrip() for line, before in zip(lines, ["", *lines], strict=False) if line.strip() or before.strip()]
    return "\n".join(kept).strip("\n") + "\n"
