"""What is taught and examined: problems, and a task that splits them."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Exemplar", "Problem", "Task"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem with its answer.

    Attributes:
        id: Unique within the task; stands in paths of the ledger, so short and of [A-Za-z0-9_.-] only.
        question: The question as put, the task's question template rendered.
        answer: The right answer: one of the task's labels, or the expected text or number.
        rationale: Worked solution, where the data has one.
        family: What kind of problem it is ('negation', 'irony', a template's name), for coverage of failures.
    """

    id: str
    question: str
    answer: str
    rationale: str | None = None
    family: str | None = None


@dataclass(frozen=True, slots=True)
class Exemplar:
    """A worked example that the teacher teaches with.

    `source` is the id of the problem it was taken from, None when the teacher wrote it.
    """

    question: str
    answer: str
    rationale: str | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """Problems split into train (teaching, exams, selection) and held-out (reported, never selected on).

    Attributes:
        name: Short name, shown in reports.
        instruction: What is asked, in a sentence or two; agents' prompts include it.
        labels: The label set, in the order in which it is offered; empty for open answers.
        positive: The label that F1 is computed for; None without labels.
        grader: Name of the grader (`labels`, `exact`, `number`, `math`, `rubric`).
        rubric: For the `rubric` grader, what a right answer contains.
        notices: What loading found worth telling (contradictory labels, rows dropped).
        sources: File or generator → SHA-256 or seed, for the manifest.
    """

    name: str
    instruction: str
    labels: tuple[str, ...]
    positive: str | None
    grader: str
    train: tuple[Problem, ...]
    held_out: tuple[Problem, ...]
    rubric: str | None = None
    notices: tuple[str, ...] = ()
    sources: dict[str, str] = field(default_factory=dict)
