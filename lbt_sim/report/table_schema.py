"""What the tidy tables hold: each table's columns with type, unit and meaning, and the page that documents them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lbt_sim.grading.base import OUTCOMES
from lbt_sim.report.table_findings import COMPARISONS, EFFECTS
from lbt_sim.report.table_kinds import Column, Table
from lbt_sim.stats import MEASURES

__all__ = [
    "COUNTS",
    "LEVEL",
    "TABLES",
    "TABLES_VERSION",
    "arrow_schema",
    "columns_of",
    "tables_page",
]

TABLES_VERSION = "1"
"""Rises when a column goes, or means something else; a column that is added changes nothing for who reads."""

LEVEL = "level."
"""What the columns of `runs` that hold a factor's level begin with."""


COUNTS: Mapping[str, tuple[str, str]] = {
    "calls": ("asked for, whoever answered", "calls"),
    "made": ("answered by a model for this run", "calls"),
    "shared": ("answered already, for an equal call of this or another run", "calls"),
    "failed": ("that gave up", "calls"),
    "answers": ("answers to exam, selection and report", "calls"),
    "exam_answers": ("students' answers to exams", "calls"),
    "select_answers": ("answers to score materials on train", "calls"),
    "report_answers": ("answers to held-out problems", "calls"),
    "written": ("calls that wrote something", "calls"),
    "prompt_tokens": ("prompts of all calls, shared ones too", "tokens"),
    "generated_tokens": ("written by the calls that write, shared ones too", "tokens"),
    "completion_tokens": ("replies to all calls, shared ones too", "tokens"),
}
"""What is counted of a run -> what it is, and its unit."""

_RUN = Column("run", "string", "the run: its folder, relative to the study's; of a single run its folder's name")
_WHOSE = (
    _RUN,
    Column("condition", "string", "the run's condition; null for a single run"),
    Column("seed", "int64", "the run's seed"),
)
_ROUND = Column("round", "int64", "from 0, the initial material", "rounds")
_EXAM_ROUND = Column("round", "int64", "from 1", "rounds")
_MATERIAL = Column("material", "string", "the material's id, which stands for its content")
_TEACHER = (
    Column("teacher", "string", "the teacher's name; null where the ledger cannot be read"),
    Column("teacher_number", "int64", "from 0: with several teachers, scores of a study are those of number 0"),
)
_OUTCOME = Column("outcome", "string", f"{', '.join(OUTCOMES)}; a failed answer did not come back, and is nobody's")
_PROBLEM = Column("problem", "string", "key into `problems`; null for an exam's where the ledger cannot be read")
_FAMILY = Column("family", "string", "what kind of problem it is; null where the task does not say")
_ANSWER = Column("answer", "string", "what was read from the reply; null where nothing could be")
_READ_FROM = Column("read_from", "string", "logprobs, text or judge; null where nothing was read")


def _outcomes(prefix: str, of: str) -> tuple[Column, ...]:
    return tuple(Column(f"{prefix}{name}", "int64", f"{of} that are {name}", "answers") for name in OUTCOMES)


_RUNS = Table(
    "runs",
    "One row for each run, also for those that failed, were stopped, or were planned and not made. Columns "
    f"`{LEVEL}FACTOR` stand after `arm`: one for each factor of the study.",
    (
        *_WHOSE,
        Column("arm", "string", "the arm; null without one"),
        Column(
            "status",
            "string",
            "done; failed (it stopped); unfinished (it was interrupted, or goes on); missing (planned, not made). "
            "Statistics use the runs that are done",
        ),
        Column("error", "string", "why it failed"),
        Column("ledger", "bool", "whether its ledger could be read; else what only the ledger holds is null or absent"),
        Column("title", "string", "the scenario's title, or its name"),
        Column("task", "string", "the task's name"),
        Column("method", "string", "the method's name"),
        Column("planned_rounds", "int64", "rounds after round 0 that were planned", "rounds"),
        Column("reported_rounds", "int64", "rounds that were reported, round 0 too", "rounds"),
        Column("students", "int64", "students in the room", "seats"),
        Column("teachers", "int64", "teachers in the room", "seats"),
        *(Column(name, "int64", text, unit) for name, (text, unit) in COUNTS.items()),
        *_outcomes("teacher_", "the first teacher's held-out answers, over all rounds,"),
        *_outcomes("students_", "students' exam answers (those taught with the best material), over all rounds,"),
    ),
    ("run",),
    5_000,
)

_ROUNDS = Table(
    "rounds",
    "The teacher's held-out score after each round: one row for each run, round and teacher.",
    (
        *_WHOSE,
        _ROUND,
        *_TEACHER,
        _MATERIAL,
        Column("n", "int64", "answers that came back: what the scores are of", "answers"),
        Column("accuracy", "float64", "correct of those that came back", "share"),
        Column("accuracy_low", "float64", "lower end of its 95 % interval (Wilson) over the problems", "share"),
        Column("accuracy_high", "float64", "upper end", "share"),
        Column("f1", "float64", "F1 of the positive class; null without one, or undefined", "share"),
        Column("f1_low", "float64", "lower end of its 95 % interval (bootstrap) over the problems", "share"),
        Column("f1_high", "float64", "upper end", "share"),
        *_outcomes("", "held-out answers"),
        Column("train", "float64", "the material's score on train problems when it was selected", "`metric`"),
        Column("train_n", "int64", "of how many train problems", "problems"),
        Column("rescored", "float64", "its score on train problems that nothing is selected on", "`metric`"),
        Column("rescored_n", "int64", "of how many problems", "problems"),
        Column("metric", "string", "what `train` and `rescored` are: accuracy, probability of the right label, f1"),
        Column("candidates", "int64", "candidates tried in this round; null where nothing was selected", "materials"),
        Column("kept", "int64", "new ones among the materials kept", "materials"),
    ),
    ("run", "round", "teacher_number"),
)

_ANSWERS = Table(
    "answers",
    "Held-out answers: one row for each run, round, teacher and problem.",
    (
        *_WHOSE,
        _ROUND,
        *_TEACHER,
        Column("number", "int64", "the problem's place in the run's held-out problems, from 0"),
        Column("item", "string", "its id in the task; null where the ledger cannot be read"),
        _PROBLEM,
        _FAMILY,
        _OUTCOME,
        _ANSWER,
        _READ_FROM,
        Column("positive", "bool", "whether the right answer is the positive label; null without labels"),
        Column(
            "said_positive",
            "bool",
            "whether the answer is the positive label; null without labels, and where nothing could be read: for F1 "
            "that is an error either way",
        ),
    ),
    ("run", "round", "teacher_number", "number"),
)

_EXAM_ANSWERS = Table(
    "exam_answers",
    "Students' exam answers: one row for each run, round, material taught, student and item. Where `best` holds they "
    "are those of the students taught with the best material, on which measures of diversity are.",
    (
        *_WHOSE,
        _EXAM_ROUND,
        Column("material", "string", "what they had been taught; null where the ledger cannot be read"),
        Column("best", "bool", "whether that was the best material of the round before"),
        Column("student", "string", "the student's name"),
        Column("number", "int64", "the item's place in the exam, from 0"),
        Column("item", "string", "the problem's id in the task, or in the exam where the examiner wrote it"),
        _PROBLEM,
        _FAMILY,
        _OUTCOME,
        _ANSWER,
        _READ_FROM,
    ),
    ("run", "round", "material", "student", "number"),
)

_PROBLEMS = Table(
    "problems",
    "Each problem once, whichever runs were asked it: held-out ones and exam items. Those of runs whose ledger cannot "
    "be read are absent.",
    (
        Column("problem", "string", "stands for question and right answer"),
        Column("question", "string", "the question"),
        Column("answer", "string", "the right answer"),
        _FAMILY,
    ),
    ("problem",),
    5_000,
)

_DIVERSITY = Table(
    "diversity",
    "How different the students' answers to one exam are: one row for each run, round and measure, of exams that "
    "students taught with the best material sat.",
    (
        *_WHOSE,
        _EXAM_ROUND,
        Column("measure", "string", "; ".join(f"{name}: {text}" for name, text in MEASURES.items())),
        Column("value", "float64", "its value; null where it is undefined"),
        Column("students", "int64", "of how many students", "students"),
        Column("items", "int64", "of how many items", "items"),
    ),
    ("run", "round", "measure"),
)

_MATERIALS = Table(
    "materials",
    "Teaching materials: one row for each run and material.",
    (
        *_WHOSE,
        Column("material", "string", "its id, which stands for its content"),
        Column("number", "int64", "its place in the order in which they were made, from 0"),
        Column("round", "int64", "in which it was made: 0 for what the run began with", "rounds"),
        Column("kind", "string", "exemplars or lecture"),
        Column("operator", "string", "how it was made: sampled, written, choose, rewrite"),
        Column("parents", "strings", "ids of the materials that it was made from"),
        Column("by", "string", "the teacher who made it"),
        Column("exemplars", "exemplars", "its worked examples, in the order in which they are taught; null: a lecture"),
        Column("lecture", "string", "its text; null for exemplars"),
        Column("first_scored", "int64", "the round of its first selection; null where it was in none", "rounds"),
        Column("train", "float64", "its score there; null where it was asked nothing", "`metric` of `standings`"),
        Column("train_n", "int64", "of how many train problems", "problems"),
        Column("best_in", "int64", "in how many rounds it was the best material", "rounds"),
    ),
    ("run", "material"),
    2_000,
)

_STANDINGS = Table(
    "standings",
    "Selection: one row for each run, round and material that stood for selection, those of the round before too.",
    (
        *_WHOSE,
        _EXAM_ROUND,
        _MATERIAL,
        Column("n", "int64", "train problems that it was scored on", "problems"),
        Column("correct", "int64", "of these right", "problems"),
        Column("score", "float64", "its score; null where it was asked nothing", "`metric`"),
        Column("metric", "string", "what the score is: accuracy, probability (of the right label), f1"),
        Column("dropped", "int64", "the block of problems after which it was dropped; null where it was not", "blocks"),
        Column("place", "int64", "its place among those kept, 0 the best; null where it was not kept"),
    ),
    ("run", "round", "material"),
)

_CANDIDATES = Table(
    "candidates",
    "What became of each candidate: one row for each run, round and candidate.",
    (
        *_WHOSE,
        _EXAM_ROUND,
        Column("number", "int64", "its place among the round's candidates, from 0"),
        Column("parent", "string", "the id of the material that it was made from"),
        Column("operator", "string", "choose or rewrite"),
        Column("by", "string", "the teacher who made it"),
        Column("status", "string", "new, duplicate, invalid, failed, leak (it shows a held-out problem)"),
        Column("material", "string", "its id; null where there is no material"),
        Column("why", "string", "what was wrong; null where nothing was"),
    ),
    ("run", "round", "number"),
)

_CALLS = Table(
    "calls",
    "Calls and tokens: one row for each run, purpose and stage. Absent for runs whose ledger cannot be read.",
    (
        *_WHOSE,
        Column("purpose", "string", "answer, judge, rewrite, …; count: asked only how long a prompt is, in no total"),
        Column("stage", "string", "exam, select, report, …"),
        *(Column(name, "int64", *COUNTS[name]) for name in ("calls", "made", "shared", "failed")),
        Column("prompt_tokens", "int64", "of all, shared ones too", "tokens"),
        Column("completion_tokens", "int64", "of all, shared ones too", "tokens"),
    ),
    ("run", "purpose", "stage"),
)

TABLES: Mapping[str, Table] = {
    table.name: table
    for table in (
        _RUNS,
        _ROUNDS,
        _ANSWERS,
        _EXAM_ANSWERS,
        _PROBLEMS,
        _DIVERSITY,
        _MATERIALS,
        _STANDINGS,
        _CANDIDATES,
        _CALLS,
        COMPARISONS,
        EFFECTS,
    )
}
"""Name -> table."""


def columns_of(table: Table, factors: Sequence[str] = ()) -> Iterator[Column]:
    """A table's columns, with those of a study's factors."""
    for column in table.columns:
        yield column
        if table.name == "runs" and column.name == "arm":
            for factor in factors:
                yield Column(f"{LEVEL}{factor}", "string", f"the level of the factor {factor}")


def arrow_schema(table: Table, factors: Sequence[str] = ()) -> Any:
    """A table's `pyarrow.Schema`: descriptions and units with the fields, version and description with the file."""
    import pyarrow as pa

    from lbt_sim import __version__

    exemplar = [pa.field(name, pa.string()) for name in ("question", "answer", "rationale", "source")]
    types = {
        "string": pa.string(),
        "int64": pa.int64(),
        "float64": pa.float64(),
        "bool": pa.bool_(),
        "strings": pa.list_(pa.string()),
        "exemplars": pa.list_(pa.struct(exemplar)),
    }
    fields = [
        pa.field(
            column.name,
            types[column.type],
            metadata={"description": column.text} | ({"unit": column.unit} if column.unit else {}),
        )
        for column in columns_of(table, factors)
    ]
    about = {
        "lbt_sim.table": table.name,
        "lbt_sim.tables_version": TABLES_VERSION,
        "lbt_sim.version": __version__,
        "description": table.text,
        "key": " ".join(table.key),
    }
    return pa.schema(fields, metadata=about)


_PAGE = """\
# Tidy tables

<!-- Written by `python -m lbt_sim.report.tables`: change lbt_sim/report/table_schema.py instead. -->

`lbt-sim report RUN_OR_STUDY --format parquet -o tables` writes what a run or a study holds as tables, one Parquet file
each, to be read with pandas or whatever else reads Parquet. One row is one observation. What is missing or undefined
is null, never 0. Every table but `problems`, `comparisons` and `effects` begins with `run`, `condition`, `seed`; the
last two hold what the report of a study concludes, and are empty for a run. Of a study, for example:

```python
import pandas as pd

runs = pd.read_parquet("tables/runs.parquet")
rounds = pd.read_parquet("tables/rounds.parquet")

done = runs.loc[runs["status"] == "done", "run"]
rounds = rounds[rounds["run"].isin(done) & (rounds["teacher_number"] == 0)]
last = rounds.sort_values("round").groupby("run").tail(1)
by_seed = last.pivot(index="seed", columns="condition", values="accuracy")
print(by_seed.describe())
```

A column's meaning and unit stand in the file too, and the version of this schema, {version}, with the table's name:

```python
import pyarrow.parquet as pq

schema = pq.read_schema("tables/rounds.parquet")
print(schema.metadata[b"lbt_sim.tables_version"], schema.field("accuracy").metadata)
```

Strings are dictionary-encoded in the files. Where memory is short, read them so (`pq.read_table(file,
read_dictionary=["run", "condition"])`), or only the columns that are needed (`columns=[…]`). The same folder gives the
same bytes, by the same version of pyarrow.
"""


def tables_page() -> str:
    """The page that documents the tables: `docs/tables.md`."""
    parts = [_PAGE.format(version=TABLES_VERSION)]
    for table in TABLES.values():
        rows = "\n".join(
            f"| `{column.name}` | {column.type} | {column.unit} | {column.text} |" for column in columns_of(table)
        )
        keys = ", ".join(f"`{name}`" for name in table.key)
        head = "| column | type | unit | what |\n| --- | --- | --- | --- |"
        parts.append(f"## {table.name}\n\n{table.text} Key: {keys}.\n\n{head}\n{rows}\n")
    parts.append(
        "`strings` is a list of strings; `exemplars` a list of structures with `question`, `answer`, `rationale` "
        "(null without one)\nand `source` (the id of the train problem; null for what was written).\n"
    )
    return "\n".join(parts)
