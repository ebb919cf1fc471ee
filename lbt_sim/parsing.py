"""Exemplars read from what a model wrote. Strict: what cannot be read is said, never guessed."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from itertools import islice
from typing import Any

from lbt_sim.tasks.base import Exemplar

__all__ = ["parse_exemplars"]

_ASKED = re.compile(r"^\W{0,8}(?:Q|Question)\W{0,8}?:[*_` \t]*", re.IGNORECASE)
_ANSWERED = re.compile(r"^\W{0,8}(?:A|Answer)\W{0,8}?:[*_` \t]*", re.IGNORECASE)
_MAX_QUESTION = 4_000
_MAX_TEXT = 200_000
"""Characters of a reply that are read: a runaway reply of megabytes costs no more than a long one."""
_MAX_STARTS = 200
"""Brackets that are tried as the beginning of a JSON value."""


def parse_exemplars(text: str, labels: Sequence[str], count: int | None = None) -> list[Exemplar] | str:
    """Exemplars from `text`, or what is wrong with it.

    Two forms are read: a JSON list of {"question", "answer", "rationale"?} (with or without text or a code fence
    around it), and blocks of `Q: …` / `A: …` lines.

    Args:
        text: What the model wrote.
        labels: The label set, empty for open answers. An answer is taken as a label when it is one but for case,
            quotes and a full stop.
        count: How many exemplars are wanted at most; more are cut off. None: any number.
    """
    text = text[:_MAX_TEXT]
    rows = _from_json(text)
    if rows is None:
        rows = _from_blocks(text)
    if not rows:
        return "no exemplars found: neither a JSON list of {question, answer} nor lines 'Q: …' and 'A: …'"
    exemplars: dict[str, Exemplar] = {}
    for number, row in enumerate(rows, start=1):
        read = _exemplar(row, labels)
        if isinstance(read, str):
            return f"exemplar {number}: {read}"
        exemplars.setdefault(read.question, read)
    kept = list(exemplars.values())
    return kept if count is None else kept[:count]


def _from_json(text: str) -> list[Any] | None:
    """The first JSON list of objects in `text`, be it inside an object or a fence; one object is a list of one.

    Not so an object of a list that breaks off: a reply that was cut off is not a set of one.
    """
    decoder = json.JSONDecoder()
    broken = False
    for match in islice(re.finditer(r"[\[{]", text), _MAX_STARTS):
        try:
            value, _ = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):  # ValueError: no JSON, or a number of thousands of digits
            broken |= match[0] == "["
            continue
        if isinstance(value, dict):
            inner = next((part for part in value.values() if _is_rows(part)), None)
            value = [value] if inner is None and not broken else inner
        if _is_rows(value):
            return list(value)
    return None


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _from_blocks(text: str) -> list[Any]:
    """`Q: …` down to the next `A: …`, whose line is the answer."""
    rows: list[Any] = []
    asked: list[str] | None = None
    for line in text.splitlines():
        if start := _ASKED.match(line):
            asked = [line[start.end() :]]
        elif asked is not None and (start := _ANSWERED.match(line)):
            rows.append({"question": "\n".join(asked), "answer": line[start.end() :]})
            asked = None
        elif asked is not None:
            asked.append(line)
    return rows


def _exemplar(row: Any, labels: Sequence[str]) -> Exemplar | str:
    question, answer, rationale = row.get("question"), row.get("answer"), row.get("rationale")
    if not isinstance(question, str) or not question.strip():
        return "it has no question"
    if len(question) > _MAX_QUESTION:
        return f"its question has {len(question)} characters, more than {_MAX_QUESTION}"
    if not isinstance(answer, str | int | float) or not str(answer).strip():
        return "it has no answer"
    if isinstance(answer, float) and not math.isfinite(answer):
        return f"its answer {answer} is no number"
    said = str(answer).strip()
    if labels:
        bare = said.strip(" \t\"'`*.").casefold()
        label = next((label for label in labels if label.casefold() == bare), None)
        if label is None:
            return f"its answer {said[:40]!r} is not one of {', '.join(labels)}"
        said = label
    return Exemplar(
        question.strip(), said, rationale.strip() if isinstance(rationale, str) and rationale.strip() else None
    )
