"""Exemplars read from what a model wrote. Strict: what cannot be read is said, never guessed."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from lbt_sim.tasks.base import Exemplar

__all__ = ["parse_exemplars"]

_BLOCK = re.compile(
    r"^\W*(?:Q|Question)\W*:\s*(?P<question>.+?)\s*^\W*(?:A|Answer)\W*:\s*(?P<answer>[^\n]+)",
    re.IGNORECASE | re.MULTILINE | re.DOTALL,
)
_MAX_QUESTION = 4_000


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
    rows = _from_json(text)
    if rows is None:
        rows = [{"question": m["question"], "answer": m["answer"]} for m in _BLOCK.finditer(text)]
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
    decoder = json.JSONDecoder()
    for match in re.finditer(r"[\[{]", text):
        try:
            value, _ = decoder.raw_decode(text, match.start())
        except (json.JSONDecodeError, RecursionError):
            continue
        if isinstance(value, dict):
            inner = next((v for v in value.values() if isinstance(v, list)), None)
            value = inner if inner is not None else [value]
        if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
            return value
    return None


def _exemplar(row: Any, labels: Sequence[str]) -> Exemplar | str:
    question, answer, rationale = row.get("question"), row.get("answer"), row.get("rationale")
    if not isinstance(question, str) or not question.strip():
        return "it has no question"
    if len(question) > _MAX_QUESTION:
        return f"its question has {len(question)} characters, more than {_MAX_QUESTION}"
    if not isinstance(answer, str | int | float) or not str(answer).strip():
        return "it has no answer"
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
