"""Reports: a run or a study as one self-contained HTML file, as Markdown, as tidy tables."""

from __future__ import annotations

from lbt_sim.report.write import FORMATS, Format, report_run, report_study, save, write_report

__all__ = ["FORMATS", "Format", "report_run", "report_study", "save", "write_report"]
