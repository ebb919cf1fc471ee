"""A run's or a study's report, written to a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from lbt_sim.errors import InputError, Place
from lbt_sim.ledger import LEDGER_FILE
from lbt_sim.manifest import MANIFEST_FILE

if TYPE_CHECKING:
    from lbt_sim.study.analysis import Analysis
    from lbt_sim.study.results import StudyResults

__all__ = ["FORMATS", "Format", "Text", "report_run", "report_study", "save", "write_report"]

Format = Literal["html", "md", "parquet"]
Text = Literal["html", "md"]
FORMATS: tuple[Format, ...] = get_args(Format)


def report_run(folder: Path, format_: Text = "html") -> str:
    """The report of a run folder: finished, going on, or stopped.

    Raises:
        InputError: There is no run in it, or one that has asked nothing yet.
    """
    from lbt_sim.report.html import run_html
    from lbt_sim.report.markdown import run_markdown
    from lbt_sim.report.run_page import run_page

    page = run_page(folder)
    return run_html(page) if format_ == "html" else run_markdown(page)


def report_study(results: StudyResults, analysis: Analysis, format_: Text = "html") -> str:
    """The report of a study, finished or not."""
    from lbt_sim.report.html import study_html
    from lbt_sim.report.markdown import study_markdown
    from lbt_sim.report.study_page import study_page

    page = study_page(results, analysis)
    return study_html(page) if format_ == "html" else study_markdown(page)


def _refuse_what_is_neither(folder: Path) -> None:
    if not any((folder / name).is_file() for name in (LEDGER_FILE, MANIFEST_FILE)):
        raise InputError(
            f"there is neither a run nor a study in {folder}",
            where=Place(str(folder)),
            remedy="Give the folder of a run (`lbt-sim run` prints where it puts one) or of a study.",
        )


def write_report(folder: Path, out: Path | None = None, format_: Format = "html") -> Path:
    """Writes the report of a run or a study folder, whole or not at all; where it is.

    Args:
        folder: Of a run or of a study.
        out: The file; without it, `report.html` or `report.md` in the folder. Of `parquet` the folder for the tables;
            without it, `tables` in the folder.
        format_: The format.

    Raises:
        InputError: There is nothing to report in the folder, or the file cannot be written.
    """
    if format_ == "parquet":
        from lbt_sim.report.tables import write_tables

        out = out or folder / "tables"
        write_tables(folder, out)
        return out
    from lbt_sim.study.analysis import analyse
    from lbt_sim.study.folder import is_study, load_results

    if is_study(folder):
        results = load_results(folder)
        text = report_study(results, analyse(results), format_)
    else:
        _refuse_what_is_neither(folder)
        text = report_run(folder, format_)
    out = out or folder / f"report.{format_}"
    save(text, out)
    return out


def save(text: str, out: Path) -> None:
    """Puts a report into its file, whole or not at all.

    Raises:
        InputError: The file cannot be written.
    """
    part = out.with_name(f"{out.name}.part")
    try:
        part.write_text(text, encoding="utf-8", errors="replace", newline="\n")
        part.replace(out)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise InputError(
            f"the report cannot be written: {error.strerror or error}",
            where=Place(str(out), key="-o"),
            remedy="With -o, name a file in a folder that is there and that you may write to.",
        ) from error
