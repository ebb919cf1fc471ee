"""Train and held-out stay apart: texts that stand in both, contradictions within one, and exemplars that leak."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from rapidfuzz import fuzz, process

from lbt_sim.errors import Place, TaskError
from lbt_sim.tasks.base import Problem, Task

__all__ = ["HeldOutGuard", "Placed", "bare", "keep_apart", "normalise", "same_problem", "within_split"]

SHOWN = 10
"""How many rows a message lists before it counts the rest."""

NEAR_ROWS = 97.0
NEAR_EXEMPLAR = 95.0
"""Similarity (rapidfuzz ratio, 0 to 100) from which two texts count as nearly the same: for rows that people
collected, and, stricter, for what a teacher wrote, where rewording a held-out problem is the very thing to catch."""

NEAR_PAIRS = 10_000_000
"""How many pairs of rows are compared for near duplicates; a larger task is not searched for them."""

SHORT, CORE = 16, 40
"""Characters below which a held-out question, or the longest line of one, is not looked for inside other texts:
'Is it?' stands in every lecture."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A problem and where it came from ('liar_train.jsonl:17')."""

    problem: Problem
    place: str


def normalise(text: str) -> str:
    """`text` as compared for equality: NFKC, case-folded, white space collapsed, punctuation stripped at the ends."""
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    start, end = 0, len(folded)
    while start < end and not folded[start].isalnum():
        start += 1
    while end > start and not folded[end - 1].isalnum():
        end -= 1
    # A text of nothing but signs ('+', '?!') is itself, not empty.
    return folded[start:end] or folded


def same_problem(a: Problem, b: Problem) -> bool:
    """Whether two problems put the same question."""
    return normalise(a.question) == normalise(b.question)


def keep_apart(
    train: Sequence[Placed],
    held_out: Sequence[Placed],
    duplicates: Literal["error", "drop"],
    where: Place | None = None,
) -> tuple[list[Placed], list[str]]:
    """The train rows that may be taught, and notices.

    Args:
        train: Rows of the train split.
        held_out: Rows of the held-out split.
        duplicates: What to do with a train row whose text is held out too.
        where: Where the scenario says so, for the message.

    Raises:
        TaskError: A text stands in both splits and `duplicates` is 'error'.
    """
    held = {normalise(row.problem.question): row for row in held_out}
    kept, dropped = [], []
    for row in train:
        twin = held.get(normalise(row.problem.question))
        if twin is None:
            kept.append(row)
        else:
            dropped.append(f"{row.place} = {twin.place}")
    if dropped and duplicates == "error":
        count = f"{len(dropped)} train rows have" if len(dropped) > 1 else "1 train row has"
        what = f"{count} a text that is held out too: {_listed(dropped)}."
        remedy = "Remove the rows, or write `duplicates: drop` under `task` to leave them out of train."
        raise TaskError(what, where=where, remedy=remedy)
    notices = [f"{_rows(len(dropped))} dropped from train, held out too: {_listed(dropped)}."] if dropped else []
    near = _near(kept, held)
    if near:
        notices.append(
            f"{_rows(len(near))} of train nearly the same as a held-out row (similarity {NEAR_ROWS:.0f} % or more), "
            f"kept: {_listed(near)}."
        )
    return kept, notices


def within_split(rows: Sequence[Placed], split: str) -> list[str]:
    """Notices on texts that stand more than once in a split: the same answer repeated, or answers that contradict."""
    groups: defaultdict[str, list[Placed]] = defaultdict(list)
    for row in rows:
        groups[normalise(row.problem.question)].append(row)
    repeated: list[str] = []
    contradictory: list[str] = []
    for group in groups.values():
        if len(group) == 1:
            continue
        places = " = ".join(row.place for row in group[:SHOWN])
        answers = {row.problem.answer for row in group}
        (repeated if len(answers) == 1 else contradictory).append(places)
    notices = []
    if contradictory:
        texts = "text has" if len(contradictory) == 1 else "texts have"
        notices.append(f"{len(contradictory)} {texts} contradictory answers in {split}: {_listed(contradictory)}.")
    if repeated:
        texts = "text stands" if len(repeated) == 1 else "texts stand"
        notices.append(f"{len(repeated)} {texts} more than once in {split}: {_listed(repeated)}.")
    return notices


@dataclass(frozen=True, slots=True)
class HeldOutGuard:
    """Tells whether a text gives away a held-out problem; made once for a task.

    A text leaks when it is a held-out question, contains one (or the longest line of one, where a question has
    several), or is nearly one with the same numbers in it: the same story with new numbers is another problem.
    Only letters and digits count, and what all questions of the task share at the start or the end
    ('Statement: …', 'Is it true?') is left out of the comparison.
    """

    task: Task
    _bare: dict[str, Problem] = field(init=False, repr=False, compare=False)
    _inside: dict[str, Problem] = field(init=False, repr=False, compare=False)
    _frame: tuple[str, str] = field(init=False, repr=False, compare=False)
    _known: dict[str, Problem | None] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        questions = [_words(problem.question) for problem in self.task.held_out]
        frame = _shared_frame(questions)
        bare = {_without(text, frame): problem for text, problem in zip(questions, self.task.held_out, strict=True)}
        cores = {_core(problem.question, frame): problem for problem in self.task.held_out}
        inside = {f" {text} ": problem for text, problem in bare.items() if len(text) >= SHORT}
        inside |= {f" {text} ": problem for text, problem in cores.items() if len(text) >= CORE}
        object.__setattr__(self, "_frame", frame)
        object.__setattr__(self, "_bare", bare)
        object.__setattr__(self, "_inside", inside)

    def leaks(self, text: str) -> Problem | None:
        """The held-out problem that `text` gives away, or None."""
        if text not in self._known:
            if len(self._known) >= 10_000:
                self._known.clear()
            self._known[text] = self._search(text)
        return self._known[text]

    def _search(self, text: str) -> Problem | None:
        words = _words(text)
        whole = _without(words, self._frame)
        if whole in self._bare:
            return self._bare[whole]
        padded = f" {words} "
        for part, problem in self._inside.items():
            if part in padded:
                return problem
        # A lecture may hold a reworded problem on one of its lines.
        for part in {whole, *(_without(_words(line), self._frame) for line in text.splitlines())}:
            if len(part) >= SHORT and (twin := _nearest(part, list(self._bare), NEAR_EXEMPLAR)) is not None:
                return self._bare[twin]
        return None


@lru_cache(maxsize=50_000)
def bare(text: str) -> str:
    """Letters and digits of `text`, case-folded: a comma less does not make another problem."""
    return _words(text) or text


def _words(text: str) -> str:
    return " ".join(re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", text).casefold()))


def _shared_frame(texts: Sequence[str]) -> tuple[str, str]:
    """The words with which all texts begin and end."""
    if len(texts) < 2:
        return "", ""
    rows = [text.split() for text in texts]
    head = _shared(rows)
    tail = _shared([row[: len(head) - 1 if head else None : -1] for row in rows])
    return " ".join(head), " ".join(reversed(tail))


def _shared(rows: Iterable[Sequence[str]]) -> list[str]:
    shared = []
    for column in zip(*rows, strict=False):
        if len(set(column)) > 1:
            break
        shared.append(column[0])
    return shared


def _without(text: str, frame: tuple[str, str]) -> str:
    head, tail = frame
    bare = text.removeprefix(f"{head} ").removesuffix(f" {tail}")
    return bare.strip() or text


def _core(question: str, frame: tuple[str, str]) -> str:
    """The longest line of a question of several lines ('Statement: …' above who said it), else ''."""
    lines = question.splitlines()
    return max((_without(_words(line), frame) for line in lines), key=len) if len(lines) > 1 else ""


def _nearest(text: str, others: Sequence[str], cutoff: float) -> str | None:
    """The one of `others` that is nearly `text` and has the same numbers."""
    numbers = Counter(re.findall(r"\d+", text))
    for other, _, _ in process.extract(text, others, scorer=fuzz.ratio, score_cutoff=cutoff, limit=5):
        if Counter(re.findall(r"\d+", other)) == numbers:
            return str(other)
    return None


def _near(train: Sequence[Placed], held: dict[str, Placed]) -> list[str]:
    if len(train) * len(held) > NEAR_PAIRS:
        return []
    found = []
    questions = sorted(held, key=len)
    lengths = list(map(len, questions))
    # Texts of lengths a <= b are at most 2a / (a + b) alike: most pairs need not be compared.
    reach = (200 - NEAR_ROWS) / NEAR_ROWS
    for row in train:
        text = normalise(row.problem.question)
        alike = questions[bisect_left(lengths, len(text) / reach) : bisect_right(lengths, len(text) * reach)]
        if alike and (twin := _nearest(text, alike, NEAR_ROWS)) is not None:
            found.append(f"{row.place} ~ {held[twin].place}")
    return found


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def _listed(items: Sequence[str]) -> str:
    rest = len(items) - SHOWN
    return "; ".join(items[:SHOWN]) + (f"; and {rest} more" if rest > 0 else "")
