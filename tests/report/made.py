"""A small study made of real run folders, and an analysis of it by plain arithmetic; hostile variants of both."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from lbt_sim.events import Event
from lbt_sim.ledger import Ledger, LedgerReader
from lbt_sim.manifest import MANIFEST_FILE
from lbt_sim.runs import Run, create_run
from lbt_sim.scenario.load import load_scenario
from lbt_sim.setup import prepare
from lbt_sim.stats import Estimate
from lbt_sim.study.analysis import Analysis, Comparison, ConditionRow, CurvePoint, Dose, FactorEffect, MixedModel
from lbt_sim.study.digest import digest
from lbt_sim.study.record import RunResult
from lbt_sim.study.results import Condition, StudyResults

CASTS = {
    "diverse": "[{persona: literal}, {persona: sceptic}, {persona: guesser}]",
    "clones": "[{persona: literal, count: 3}]",
    "one": "[{persona: literal}]",
}
SMALL = (
    "task={name: reviews, train: 60, held_out: 24}",
    "method={rounds: 3, exemplars: 4, beam: 2, exam: 8, revise: {operators: [choose], chosen: 4}}",
    "method.select={budget: 80}",
)
T = 3.0
"""Wide enough for any handful of seeds; the figures of these tests are no findings."""


def make_run(folder: Path, *sets: str, base: str = "simulated") -> Path:
    """A finished run."""
    asyncio.run(Run(create_run(prepare(load_scenario(base, sets=sets)), folder)).execute())
    return folder


def make_study(folder: Path, casts: dict[str, str] = CASTS, seeds: Sequence[int] = range(3)) -> StudyResults:
    """Runs of each cast with each seed, digested as a study does."""
    runs: dict[tuple[str, int], RunResult] = {}
    for name, cast in casts.items():
        for seed in seeds:
            relative = f"runs/{name}/{seed}"
            make_run(folder / relative, *SMALL, f"cast.students={cast}", f"seed={seed}")
            runs[name, seed] = digest(folder / relative, name, seed, relative, "done")
    names = list(casts)
    return StudyResults(
        folder=folder,
        name="made",
        title="Does diversity help the teacher, or only head count?",
        description="Three casts of rule-based learners.",
        conditions=tuple(Condition(name, name, {}, f"cast {name}") for name in names),
        seeds=tuple(seeds),
        comparisons=tuple((names[0], name) for name in names[1:]),
        metric="accuracy",
        outcome="last",
        runs=runs,
        notes=("one: 8 exam answers a round in place of 24: it has one student",),
        facts={
            "command": ["lbt-sim", "study", "made"],
            "lbt_sim": "0.1.0",
            "python": "3.11",
            "created": "2026-01-01T00:00:00+00:00",
            "packages": {"numpy": "2"},
            "executions": [],
        },
    )


def _estimate(values: Sequence[float], problems: int = 24) -> Estimate:
    half = T * stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
    mean = fmean(values)
    low, high = (None, None) if half is None else (mean - half, mean + half)
    return Estimate(mean, low, high, "t interval over seeds", len(values), problems)


def make_analysis(results: StudyResults) -> Analysis:
    """The parts of an analysis, from the results."""
    done = {key: run for key, run in results.runs.items() if run.status == "done" and run.rounds}
    by_name = {one.name: [run for (name, _), run in done.items() if name == one.name] for one in results.conditions}
    rows, curves = [], []
    for name, runs in by_name.items():
        if runs:
            rows.append(_row(results, name, runs))
            for number in range(max(len(run.rounds) for run in runs)):
                scores = [run.rounds[number].accuracy or 0.0 for run in runs if len(run.rounds) > number]
                letters = "".join(run.rounds[number].outcomes for run in runs if len(run.rounds) > number)
                curves.append(CurvePoint(name, number, _estimate(scores), _counted(letters)))
    comparisons = tuple(_comparison(results, a, b) for a, b in results.comparisons)
    main = comparisons[0].difference if comparisons else None
    answer = "Nothing can be told yet."
    if main is not None:
        answer = f"Diverse students against clones: {100 * main.value:+.1f} points ({comparisons[0].pairs} pairs)."
    points = tuple(
        (name, seed, float(measure), (run.rounds[-1].accuracy or 0) - (run.rounds[0].accuracy or 0))
        for (name, seed), run in done.items()
        if run.exams and (measure := run.exams[-1].diversity.get("disagreement")) is not None
    )
    dose = Dose("disagreement", Estimate(0.2, -0.1, 0.5, "least squares", len(results.seeds)), 0.2, 0.4, 0.3, points)
    model = MixedModel({"diverse − clones": _estimate([0.0, 0.1])}, {"seed": 0.1, "problem": 0.2}, 216, "A note.")
    return Analysis(
        answer, tuple(rows), tuple(curves), comparisons, (dose,), model, ("Three seeds are few.",), _effects(results)
    )


def _effects(results: StudyResults) -> tuple[FactorEffect, ...]:
    """Of two factors that this study could have, and their interaction, which too few seeds have."""
    seeds, found = len(results.seeds), Estimate(0.031, 0.011, 0.051, "t interval over seeds", len(results.seeds))
    return (
        FactorEffect(("arm",), ("clones",), ("diverse",), found, 0.01, 0.03, 4, seeds),
        FactorEffect(("exam",), ("12",), ("6",), replace(found, low=-0.02), 0.3, 0.6, 4, seeds),
        FactorEffect(("arm", "exam"), ("clones", "12"), ("diverse", "6"), None, None, None, 4, 1),
    )


def _counted(letters: str) -> dict[str, int]:
    names = {"c": "correct", "w": "wrong", "i": "invalid", "t": "truncated", "f": "failed"}
    return {name: letters.count(letter) for letter, name in names.items()}


def _row(results: StudyResults, name: str, runs: Sequence[RunResult]) -> ConditionRow:
    start = [run.rounds[0].accuracy or 0.0 for run in runs]
    end = [run.rounds[-1].accuracy or 0.0 for run in runs]
    outcomes = _counted("".join(row.outcomes for run in runs for row in run.rounds))
    exams = _counted("".join(s.outcomes for run in runs for exam in run.exams for s in exam.students))
    counts = {key: fmean(run.counts[key] for run in runs) for key in runs[0].counts}
    failed = sum(run.status == "failed" for (other, _), run in results.runs.items() if other == name)
    missing = len(results.seeds) - len(runs) - failed
    gain = _estimate([b - a for a, b in zip(start, end, strict=True)])
    return ConditionRow(
        name, len(runs), failed, missing, _estimate(start), _estimate(end), gain, outcomes, exams, counts, {}
    )


def _comparison(results: StudyResults, a: str, b: str) -> Comparison:
    both = [
        (seed, results.runs[a, seed].rounds[-1].accuracy or 0.0, results.runs[b, seed].rounds[-1].accuracy or 0.0)
        for seed in results.seeds
        if all((name, seed) in results.runs and results.runs[name, seed].rounds for name in (a, b))
    ]
    difference = _estimate([x - y for _, x, y in both]) if len(both) > 1 else None
    effect = Estimate(0.4, -0.2, 1.0, "Hedges' g", len(both))
    p = None if difference is None else 0.2
    return Comparison(
        a=a,
        b=b,
        difference=difference,
        p=p,
        p_holm=p,
        effect=effect,
        detectable=0.08,
        pairs=len(both),
        left_out=len(results.seeds) - len(both),
        crossed=False,
        per_seed=tuple(both),
        verdict="not shown",
        seeds_needed=((0.01, None), (0.02, 1234), (0.05, 40)),
        differs=("students", "persona"),
    )


@cache
def _hostile() -> tuple[str, ...]:
    return (
        "<script>document.title='pwned'</script>",
        "</svg><script>document.title='pwned'</script>",
        "</style><script>document.title='pwned'</script>",
        '"><img src=x onerror="document.title=\'pwned\'">',
        "'><svg onload='document.title=\"pwned\"'>",
        "javascript:document.title='pwned'",
        "<a href='javascript:alert(1)'>x</a><iframe src='https://evil.example/'></iframe>",
        "</style><style>@import url(https://evil.example/a.css);body{background:url(https://evil.example/b.png)}",
        "var(--x);}body{background:url(https://evil.example/c.png)}",
        "{{ 7*191 }}{% for x in y %}{{ config }}",
        "nul\x00byte \u202ereversed\u2066 \u200bzero \x1b[31mred",
        "]]><!-- --><!--<script>",
        "[click](javascript:alert(1)) ![i](https://evil.example/d.png) <https://evil.example>",
        "| a | b |\n|---|---|\n# heading\n```\nfence",
        "$\\frac{1}{0}$ &lt;script&gt; &#60;script&#62;",
    )


HOSTILE = " ".join(_hostile())
"""Everything that a model or a file could try, in one text."""
LONG = "<b>" + "A" * (1 << 20)


def hostile_study(results: StudyResults) -> StudyResults:
    """The same study with hostile text wherever a file or a model could put it, names of conditions too."""
    names = {one.name: f"{one.name} {HOSTILE}" for one in results.conditions}
    conditions = tuple(
        Condition(names[one.name], HOSTILE, {HOSTILE: HOSTILE}, f"{HOSTILE} {LONG}") for one in results.conditions
    )
    runs = {
        (names[name], seed): replace(
            run,
            condition=names[name],
            exams=tuple(
                replace(exam, students=tuple(replace(s, student=s.student + HOSTILE) for s in exam.students))
                for exam in run.exams
            ),
        )
        for (name, seed), run in results.runs.items()
    }
    last = list(runs)[-1]
    runs[last] = replace(runs[last], status="failed", error=HOSTILE + LONG, rounds=(), exams=())
    facts: dict[str, Any] = {
        "command": ["lbt-sim", "study", HOSTILE],
        "lbt_sim": HOSTILE,
        "created": HOSTILE,
        "packages": {HOSTILE: HOSTILE},
        "executions": [{"began": HOSTILE, "how": HOSTILE}],
    }
    return replace(
        results,
        name=HOSTILE,
        title=HOSTILE + LONG,
        description=HOSTILE + LONG,
        conditions=conditions,
        comparisons=tuple((names[a], names[b]) for a, b in results.comparisons),
        runs=runs,
        notes=(HOSTILE, LONG),
        facts=facts,
    )


def hostile_analysis(analysis: Analysis) -> Analysis:
    """With hostile words where an analysis has some."""
    bad = replace(analysis.doses[0], measure=HOSTILE)
    assert analysis.model is not None
    estimate = Estimate(0.1, None, None, HOSTILE, 3)
    model = replace(analysis.model, terms={HOSTILE: estimate}, sd={HOSTILE: 0.1}, note=HOSTILE)
    return replace(analysis, answer=HOSTILE, doses=(bad,), warnings=(HOSTILE, LONG), model=model)


# --- a run whose every text means ill -------------------------------------------------------------------------

_KEPT = {"kind", "role", "status", "strategy", "metric", "outcomes", "read_from", "run_status"}
"""Words of ours that say how the rest is to be read."""


def _ill(value: Any, key: str = "") -> Any:
    """The same data with hostile text behind every string, keys that are names included."""
    if isinstance(value, str):
        return value if key in _KEPT or not value else value + HOSTILE
    if isinstance(value, list):
        return [_ill(one, key) for one in value]
    if isinstance(value, dict):
        names = key in {"students", "teachers"}
        return {name + HOSTILE if names else name: _ill(one, name) for name, one in value.items()}
    return value


def _edges(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "edges": [[a, b, kind.removesuffix(HOSTILE)] for a, b, kind in data["edges"]]}


def hostile_run(good: Path, folder: Path) -> Path:
    """The run again, with hostile text in every event, and exam answers of every outcome."""
    folder.mkdir(parents=True)
    asyncio.run(_copy(good, folder))
    manifest = json.loads((good / MANIFEST_FILE).read_text(encoding="utf-8"))
    manifest["packages"] = {HOSTILE: HOSTILE}
    manifest["task_sources"] = {HOSTILE: HOSTILE}
    manifest["executions"][0].update(began=HOSTILE, error=HOSTILE + LONG, how=HOSTILE)
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest), encoding="utf-8")
    return folder


async def _copy(good: Path, folder: Path) -> None:
    with LedgerReader(good) as reader:
        events = list(reader.events())
        calls = list(reader.calls("c.step LIKE 'exam/%'"))
    async with Ledger(folder) as ledger:
        for event in events:
            data = _ill(dict(event.data))
            if event.kind == "run":
                data = {**_edges(data), "notices": [HOSTILE, LONG]}
            if event.kind == "grades":
                data["outcomes"] = "".join("cwitf"[at % 5] for at in range(len(data["outcomes"])))
            if event.kind == "utterance":
                data["text"] = HOSTILE + LONG
            ledger.put(Event(event.path, event.kind, data))
        some = Event("r1/notice/more", "notice", {"text": HOSTILE})
        ledger.put(some)
        for call in calls:
            step = f"exam/{call.step.removeprefix('exam/')}{HOSTILE}"
            changed = {"step": step, "agent": call.agent + HOSTILE, "item": call.item + HOSTILE}
            ledger.put(call._replace(**changed, text=HOSTILE + LONG[:3000], error=HOSTILE))


def cut_off(good: Path, folder: Path, last: int) -> Path:
    """The run as it would be if it had been stopped while round `last` + 1 went on."""
    folder.mkdir(parents=True)

    async def copy() -> None:
        with LedgerReader(good) as reader:
            events = list(reader.events())
        async with Ledger(folder) as ledger:
            for event in events:
                late = int(event.data.get("round", 0)) > last
                if event.kind != "done" and not (late and event.kind in {"report", "reported", "selection"}):
                    ledger.put(event)

    asyncio.run(copy())
    (folder / MANIFEST_FILE).write_bytes((good / MANIFEST_FILE).read_bytes())
    return folder
