"""Rows become problems: fields or templates give question, answer and rationale; labels are checked and translated."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from lbt_sim.errors import InputError, Place, TaskError, nearest
from lbt_sim.scenario.schema import TaskSpec
from lbt_sim.tasks.base import Problem
from lbt_sim.tasks.files import Row, Table
from lbt_sim.tasks.split import Placed

__all__ = ["Reading", "label_words"]

SHOWN = 10

Read = Callable[[Row], str]


@dataclass(frozen=True, slots=True)
class Reading:
    """How rows of one task are read. Made from a spec by `Reading.of`."""

    question: Read
    answer: Read
    rationale: Read | None
    family: Read | None
    pattern: re.Pattern[str] | None
    words: Mapping[str, str]
    values: tuple[str, ...]

    @classmethod
    def of(cls, spec: TaskSpec, place: Callable[[str], Place]) -> Reading:
        """The reading that `spec` describes.

        Args:
            spec: The task.
            place: Dotted key of the scenario -> where it stands, for messages.

        Raises:
            TaskError: A label set, pattern or template is not usable.
        """
        return cls(
            question=_reader(spec.question or "question", "question", place),
            answer=_reader(spec.answer or "answer", "answer", place),
            rationale=None if spec.rationale is None else _reader(spec.rationale, "rationale", place),
            family=None if spec.family is None else _reader(spec.family, "family", place),
            pattern=_pattern(spec.answer_pattern, place("task.answer_pattern")),
            words=label_words(spec.labels, place("task.labels")),
            values=tuple(spec.labels or ()),
        )

    def problems(self, table: Table, prefix: str) -> list[Placed]:
        """All rows as problems, in order; ids are `prefix` and the row's number.

        Raises:
            TaskError: A row lacks a field, is empty, or its answer is none of the labels; names the rows.
        """
        placed = []
        strangers: defaultdict[str, list[Row]] = defaultdict(list)
        for row in table.rows:
            answer, worked = self._answer(row)
            if self.words:
                word = self.words.get(_folded(answer))
                if word is None:
                    strangers[answer].append(row)
                    continue
                answer = word
            rationale = self.rationale(row) if self.rationale else worked
            family = self.family(row) if self.family else None
            question = _filled(self.question(row), row, "question")
            placed.append(Placed(Problem(f"{prefix}{row.number}", question, answer, rationale, family), str(row)))
        if strangers:
            self._refuse(strangers)
        return placed

    def _answer(self, row: Row) -> tuple[str, str | None]:
        """The answer, and what stands before it where a pattern takes it out of a worked solution."""
        text = _filled(self.answer(row), row, "answer")
        if self.pattern is None:
            return text, None
        match = self.pattern.search(text)
        if match is None or not (match[1] or "").strip():
            what = f"`answer_pattern` {self.pattern.pattern!r} finds no answer in {_short(text)}."
            raise TaskError(what, where=row.place("answer"), remedy="Correct the pattern, or the row.")
        return match[1].strip(), text[: match.start()].strip() or None

    def _refuse(self, strangers: Mapping[str, Sequence[Row]]) -> NoReturn:
        value, rows = next(iter(strangers.items()))
        count = sum(map(len, strangers.values()))
        others = [row for found in strangers.values() for row in found][:SHOWN]
        guess = nearest(value, self.values)
        hint = f" Did you mean '{guess}'?" if guess else ""
        what = f"{_short(value)} is not a label.{hint}"
        if count > 1:
            more = f" and {count - SHOWN} more" if count > SHOWN else ""
            what += f" {count} rows are like that: {', '.join(map(str, others))}{more}."
        remedy = "Correct the rows, or `task.labels`: a list of labels, or a mapping of the data's values to words."
        raise TaskError(what, where=rows[0].place("answer"), valid=self.values, remedy=remedy)


def label_words(labels: Mapping[str, str] | Sequence[str] | None, where: Place) -> dict[str, str]:
    """The data's value (case-folded) -> the word that is answered; empty without labels.

    Raises:
        TaskError: Fewer than two labels, an empty one, or two that differ only by case.
    """
    if labels is None:
        return {}
    pairs = labels.items() if isinstance(labels, Mapping) else [(label, label) for label in labels]
    words: dict[str, str] = {}
    spelt: dict[str, str] = {}
    for value, word in pairs:
        if not word.strip() or "\n" in word:
            raise TaskError(f"{word!r} cannot be a label.", where=where, remedy="A label is a word or a short phrase.")
        clean = " ".join(word.split())
        if spelt.setdefault(_folded(clean), clean) != clean or _folded(value) in words:
            raise TaskError(f"The label {word!r} stands twice, or differs from another only by case.", where=where)
        words[_folded(value)] = clean
    if len(spelt) < 2:
        raise TaskError("A label set needs at least two labels.", where=where)
    return words


def _folded(value: str) -> str:
    # 1.0 is how a table with gaps writes 1.
    return re.sub(r"^(-?\d+)\.0$", r"\1", value.strip()).casefold()


def _pattern(text: str | None, where: Place) -> re.Pattern[str] | None:
    if text is None:
        return None
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise TaskError(f"Not a regular expression: {error}.", where=where) from None
    if pattern.groups == 0:
        remedy = "Put the answer's part into parentheses, as in '#### (.*)'."
        raise TaskError("The regular expression has no group.", where=where, remedy=remedy)
    return pattern


def _reader(source: str, key: str, place: Callable[[str], Place]) -> Read:
    """Reads one value of a row: `source` is a field, or a Jinja template over the row's fields."""
    if "{{" not in source and "{%" not in source:
        return lambda row: _text(_field(row, source, key), row, source)
    from lbt_sim.prompts import Template

    where = place(f"task.{key}")
    template = Template(source, str(where))

    def render(row: Row) -> str:
        try:
            return str(template.render(**row.values))
        except InputError as error:
            fields = tuple(map(str, row.values))
            raise TaskError(f"{row}: {error.what}", where=where, valid=fields, remedy=error.remedy) from error

    return render


def _field(row: Row, name: str, key: str) -> Any:
    if name in row.values:
        return row.values[name]
    guess = nearest(name, row.values)
    hint = f"; did you mean '{guess}'?" if guess else "."
    remedy = f"Name the field that holds the {key}: `{key}: <field>` under `task`."
    raise TaskError(f"The row has no field '{name}'{hint}", where=row.place(), valid=tuple(row.values), remedy=remedy)


def _text(value: object, row: Row, key: str) -> str:
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return str(value)
    found = "null" if value is None else _short(str(value))
    raise TaskError(f"The field holds {found} where text or a number is expected.", where=row.place(key))


def _filled(text: str, row: Row, key: str) -> str:
    """`text` stripped; refuses what is empty or cannot be stored."""
    clean = text.strip()
    if not clean:
        raise TaskError(f"The {key} is empty.", where=row.place(key), remedy="Fill it in, or remove the row.")
    try:
        clean.encode()
    except UnicodeEncodeError:
        raise TaskError(f"The {key} holds half a character (a lone surrogate).", where=row.place(key)) from None
    return clean


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:59] + "…")
