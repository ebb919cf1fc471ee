"""What changed from one teaching material to the next."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

__all__ = ["Changes", "exemplar_changes", "lecture_changes"]

Exemplar = Mapping[str, Any]
"""question, answer, rationale, source."""


@dataclass(frozen=True, slots=True)
class Changes:
    """The difference between two sets of exemplars.

    Attributes:
        removed: In the first set only.
        added: In the second only.
        altered: The same question with another answer or rationale: (before, after).
        kept: How many stand in both, word for word.
        reordered: Whether those kept stand in another order.
    """

    removed: tuple[Exemplar, ...]
    added: tuple[Exemplar, ...]
    altered: tuple[tuple[Exemplar, Exemplar], ...]
    kept: int
    reordered: bool


def exemplar_changes(before: Sequence[Exemplar], after: Sequence[Exemplar]) -> Changes:
    """Compares by question; an exemplar that stands twice counts once."""
    old, new = ({str(e.get("question")): e for e in exemplars} for exemplars in (before, after))
    both = [question for question in old if question in new]
    altered = tuple((old[q], new[q]) for q in both if _taught(old[q]) != _taught(new[q]))
    return Changes(
        removed=tuple(e for question, e in old.items() if question not in new),
        added=tuple(e for question, e in new.items() if question not in old),
        altered=altered,
        kept=len(both) - len(altered),
        reordered=both != [question for question in new if question in old],
    )


def _taught(exemplar: Exemplar) -> tuple[Any, Any]:
    return exemplar.get("answer"), exemplar.get("rationale")


def lecture_changes(before: str, after: str) -> list[tuple[str, str]]:
    """Sentences removed (`-`), added (`+`) and, in between, how many stay (`=`)."""
    old, new = _sentences(before), _sentences(after)
    changes: list[tuple[str, str]] = []
    for tag, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            changes.append(("=", str(b - a)))
        else:
            changes += [("-", sentence) for sentence in old[a:b]]
            changes += [("+", sentence) for sentence in new[c:d]]
    return changes


def _sentences(text: str) -> list[str]:
    # Quadratic comparison: a lecture of megabytes is compared by its first thousand sentences.
    return [part.strip() for part in re.split(r"(?<=[.!?])\s+|\n+", text) if part.strip()][:1000]
