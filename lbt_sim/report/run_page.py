"""Everything that the report of one run says, as values: HTML and Markdown are made from the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lbt_sim.errors import InputError
from lbt_sim.executions import recorded
from lbt_sim.manifest import read_manifest
from lbt_sim.report.charts import Curve, Look, look
from lbt_sim.report.classroom_svg import Drawing, drawing
from lbt_sim.report.exam import ExamGrid, exam_grids
from lbt_sim.report.exemplars import Credits, credits_of
from lbt_sim.report.lineage import Lineage, lineage
from lbt_sim.report.reproduce import Commands, run_commands, versions
from lbt_sim.report.text import broken
from lbt_sim.report.told import (
    Failures,
    Lesson,
    Reflection,
    executions_told,
    failures,
    lessons,
    models_told,
    reflections,
)
from lbt_sim.stats import bootstrap_mean, wilson_interval
from lbt_sim.study.words import interval_text, points, readable
from lbt_sim.transcript.figures import interval
from lbt_sim.transcript.read import RunRecord

__all__ = ["Figure", "RoundRow", "RunPage", "Series", "StudentScore", "run_page"]

Data = Mapping[str, Any]
_STUDENT_CURVES = 5


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure that stands by itself: what it is, its value, its interval and of how many."""

    label: str
    value: str
    detail: str


@dataclass(frozen=True, slots=True)
class StudentScore:
    """A student's exam in the table of rounds."""

    name: str
    value: float | None
    n: int
    low: float | None
    high: float | None
    broken: str


@dataclass(frozen=True, slots=True)
class RoundRow:
    """A reported round."""

    round: int
    n: int
    accuracy: float | None
    interval: str
    f1: float | None
    f1_interval: str
    broken: str
    students: tuple[StudentScore, ...]
    selected: str
    rescored: str
    candidates: str
    material: str
    others: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Series:
    """A curve with its name for the legend."""

    name: str
    curve: Curve
    note: str = ""

    @property
    def look(self) -> Look:
        """How it is drawn."""
        return self.curve.look


@dataclass(frozen=True)
class RunPage:
    """The report of a run; the templates say in which order."""

    name: str
    title: str
    facts: tuple[str, ...]
    unfinished: str
    answer: str
    caution: str
    figures: tuple[Figure, ...]
    baselines: tuple[tuple[str, float], ...]
    series: tuple[Series, ...]
    rounds: tuple[RoundRow, ...]
    exams: tuple[ExamGrid, ...]
    classroom: Drawing | None
    seats: tuple[tuple[str, str, str, str], ...]
    lineage: Lineage | None
    credits: Credits | None
    lessons: Mapping[int, tuple[Lesson, ...]]
    reflections: Mapping[int, tuple[tuple[Reflection, ...], int]]
    failures: Failures
    cost: tuple[tuple[str, str], ...]
    commands: Commands
    made_with: tuple[tuple[str, str], ...]
    times: tuple[tuple[str, str], ...]


def run_page(folder: Path) -> RunPage:
    """Reads a run folder: finished, still going on, or stopped.

    Raises:
        InputError: There is no run in it, or one that has asked nothing yet.
    """
    with RunRecord(folder) as record:
        run, executions, manifest = record.run, recorded(folder), _manifest(folder)
        rows = tuple(_row(record, number, report) for number, report in record.reports.items())
        said = lessons(record)
        name = folder.resolve().name
        return RunPage(
            name=name,
            title=str(run.get("title") or name),
            facts=tuple(_facts(run)),
            unfinished=_unfinished(record),
            answer=_answer(record),
            caution=_CAUTION,
            figures=tuple(_figures(record)),
            baselines=tuple(_baselines(run)),
            series=tuple(_series(record)),
            rounds=rows,
            exams=tuple(exam_grids(record)),
            classroom=drawing(run),
            seats=tuple(_seat(seat) for seat in run.get("seats") or ()),
            lineage=lineage(record),
            credits=credits_of(record),
            lessons=said,
            reflections={number: reflections(record, number) for number in said},
            failures=failures(record),
            cost=tuple(_cost(record)),
            commands=run_commands(folder),
            made_with=(*_seed(run), *models_told(executions, manifest), *versions(manifest)),
            times=(("created", str(manifest.get("created", "?"))), *executions_told(executions)),
        )


_CAUTION = (
    "One run is one seed. Its interval is over the held-out problems alone: it says nothing about how another seed "
    "would have gone. A study of many seeds does (lbt-sim study)."
)


def _manifest(folder: Path) -> Data:
    try:
        return read_manifest(folder)
    except InputError:
        return {}  # the ledger tells the story; with what it was made is then not known


def _facts(run: Data) -> list[str]:
    task: Data = run.get("task") or {}
    method = f"method {run['method']}, {run.get('rounds')} rounds" if run.get("method") else ""
    split = f"task {task['name']}: {task['train']:,} problems to teach, {task['held_out']:,} held out" if task else ""
    return [fact for fact in (f"seed {run['seed']}" if "seed" in run else "", method, split) if fact]


def _unfinished(record: RunRecord) -> str:
    if record.status == "done":
        return ""
    planned, last = record.run.get("rounds"), max(record.reports, default=None)
    done = "no round has been reported yet" if last is None else f"round {last} of {planned} is the last reported"
    why = next((str(one["error"]) for one in reversed(recorded(record.folder)) if one.get("error")), "")
    tail = f" It stopped with: {why}" if why else ""
    return f"This run is not finished: {done}. What follows is what stands in its folder so far.{tail}"


def _answer(record: RunRecord) -> str:
    reports = record.reports
    if not reports:
        return "Nothing has been reported yet: the run stopped, or still is, before its first report."
    last = max(reports)
    now = _scored(reports[last]["teacher"])
    if not last:
        return f"Before any revision the teacher answers {now}. No later round has been reported."
    change = _paired(record)
    if change is None:
        return f"After round {last} the teacher answers {now}."
    value, low, high, n = change
    found = f"95 % interval {interval_text(low, high, in_points=True)}, bootstrap over the same {n:,} held-out problems"
    start, end = (readable(reports[number]["teacher"].get("accuracy")) for number in (min(reports), last))
    words = f"In {last} round{'s' * (last != 1)} the teacher's own accuracy went from {start} to {end}"
    shown = "" if low > 0 or high < 0 else " The interval includes zero: a change is not shown."
    return f"{words}: {points(value)} points ({found}).{shown}"


def _scored(teacher: Data) -> str:
    found = interval(teacher)
    told = f"95 % Wilson interval {interval_text(*found)}" if found else "no interval"
    return f"{readable(teacher.get('accuracy'))} of {int(teacher.get('n') or 0):,} held-out problems right ({told})"


def _paired(record: RunRecord) -> tuple[float, float, float, int] | None:
    """Last round minus round 0 over the problems that both answered: (mean, low, high, how many)."""
    reports = record.reports
    if len(reports) < 2:
        return None
    sides = [record.reported(number)[:1] for number in (min(reports), max(reports))]
    if not all(sides):
        return None
    before, after = (str(side[0]["outcomes"]) for side in sides)
    pairs = [(a == "c") - (b == "c") for b, a in zip(before, after, strict=False) if "f" not in (a, b)]
    if not pairs:
        return None
    low, high = bootstrap_mean(pairs)
    return sum(pairs) / len(pairs), low, high, len(pairs)


def _figures(record: RunRecord) -> list[Figure]:
    reports = record.reports
    if not reports:
        return []
    rows = [_figure("Before any revision" if not n else f"After round {n}", reports[n]) for n in _ends(list(reports))]
    if (change := _paired(record)) is not None:
        value, low, high, n = change
        told = f"95 % bootstrap {interval_text(low, high, in_points=True)}; {n:,} paired problems"
        rows.append(Figure("Change, in points", points(value), told))
    trivial = _baselines(record.run)
    if trivial:
        name, value = max(trivial, key=lambda pair: pair[1])
        rows.append(Figure("Without reading", readable(value), f"the better trivial baseline: {name}"))
    return rows


def _ends(numbers: Sequence[int]) -> list[int]:
    return sorted({min(numbers), max(numbers)})


def _figure(label: str, report: Data) -> Figure:
    teacher: Data = report["teacher"]
    found = interval(teacher)
    told = f"95 % Wilson {interval_text(*found)}" if found else "no interval"
    told += f"; {teacher.get('n') or 0:,} problems; not gradable: {broken(teacher.get('outcomes') or {})}"
    return Figure(label, readable(teacher.get("accuracy")), told)


def _baselines(run: Data) -> list[tuple[str, float]]:
    found = []
    for name, label in (("always_positive", "always the positive label"), ("majority", "always train's majority")):
        value = ((run.get("baselines") or {}).get(name) or {}).get("accuracy")
        if value is not None:
            found.append((label, float(value)))
    return found


def _series(record: RunRecord) -> list[Series]:
    """The students' exams thin, the teacher over them."""
    found = []
    names = list(dict.fromkeys(name for report in record.reports.values() for name in report.get("students") or {}))
    for at, name in enumerate(names[:_STUDENT_CURVES], 1):
        scores = [(n, (report.get("students") or {}).get(name)) for n, report in record.reports.items()]
        line = tuple((n, float(s["accuracy"]), None, None) for n, s in scores if s and s.get("accuracy") is not None)
        if line:
            found.append(Series(name, Curve(look(at), line, quiet=True), "student, exam of the round"))
    teacher = []
    for number, report in record.reports.items():
        if report["teacher"].get("accuracy") is not None:
            low, high = interval(report["teacher"]) or (None, None)
            teacher.append((number, float(report["teacher"]["accuracy"]), low, high))
    if teacher:
        found.append(Series("teacher", Curve(look(0), tuple(teacher)), "held-out problems, 95 % Wilson interval"))
    return found


def _row(record: RunRecord, number: int, report: Data) -> RoundRow:
    teacher: Data = report["teacher"]
    accuracy, f1 = interval(teacher), interval(teacher, "f1")
    train: Data = report.get("train") or {}
    again: Data = train.get("rescored") or {}
    tried, kept = record.candidate_counts().get(number, (0, 0))
    others = [(name, _scored(score)) for name, score in list((report.get("teachers") or {}).items())[1:]]
    return RoundRow(
        round=number,
        n=int(teacher.get("n") or 0),
        accuracy=teacher.get("accuracy"),
        interval=interval_text(*(accuracy or (None, None))),
        f1=teacher.get("f1"),
        f1_interval=interval_text(*(f1 or (None, None))) if teacher.get("f1") is not None else "",
        broken=broken(teacher.get("outcomes") or {}),
        students=tuple(_student(name, score) for name, score in (report.get("students") or {}).items()),
        selected=_of(train),
        rescored=_of(again),
        candidates=f"{kept} of {tried}" if tried else "–",
        material=str(report.get("material") or ""),
        others=tuple(others),
    )


def _of(part: Data) -> str:
    return f"{readable(part['score'])} of {part['n']:,}" if part.get("score") is not None else "–"


def _student(name: str, score: Data) -> StudentScore:
    outcomes, n = score.get("outcomes") or {}, int(score.get("n") or 0)
    low, high = wilson_interval(int(outcomes.get("correct") or 0), n) or (None, None)
    return StudentScore(name, score.get("accuracy"), n, low, high, broken(outcomes))


def _seat(seat: Data) -> tuple[str, str, str, str]:
    return str(seat["name"]), str(seat["role"]), str(seat.get("model") or ""), str(seat.get("persona") or "")


def _cost(record: RunRecord) -> list[tuple[str, str]]:
    result = record.result()
    calls, tokens = result["calls"], result["tokens"]
    exam = sum(len(data["outcomes"]) for n in record.exams for sat in record.grades(n).values() for data in sat)
    report = sum(len(data["outcomes"]) for n in record.reports for data in record.reported(n))
    select = sum(int(selection.get("answers") or 0) for selection in record.selections.values())
    return [
        ("calls paid for", f"{calls['made']:,}"),
        ("calls answered by an identical one", f"{calls['shared']:,}"),
        ("calls that gave up", f"{calls['failed']:,}"),
        ("exam answers of students", f"{exam:,}"),
        ("answers to select among candidates", f"{select:,}"),
        ("held-out answers of teachers", f"{report:,}"),
        ("prompt tokens", f"{tokens['prompt']:,}"),
        ("of them from the server's cache", "not told" if tokens["cached"] is None else f"{tokens['cached']:,}"),
        ("tokens written", f"{tokens['completion']:,}"),
    ]


def _seed(run: Data) -> list[tuple[str, str]]:
    return [("seed", str(run["seed"]))] if "seed" in run else []
