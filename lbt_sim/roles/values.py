"""What passes between the people in the room: material, utterances, notes. All frozen."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any, Literal

from lbt_sim.tasks.base import Exemplar

__all__ = ["Material", "Notes", "Utterance", "UtteranceKind", "exemplar_values"]

UtteranceKind = Literal["teaches", "assists", "question", "answer", "discusses", "summary"]


@dataclass(frozen=True)
class Material:
    """Teaching material (TM): a set of exemplars, or a lecture. Its lineage is data.

    Attributes:
        exemplars: Worked examples, in the order in which they are taught; empty for a lecture.
        lecture: Free text; None for exemplars.
        parents: Ids of the materials that it was made from.
        operator: How: 'sampled', 'written', 'rewrite', 'choose'.
        by: Which teacher made it.
    """

    exemplars: tuple[Exemplar, ...] = ()
    lecture: str | None = None
    parents: tuple[str, ...] = ()
    operator: str = "sampled"
    by: str = ""

    @cached_property
    def id(self) -> str:
        """A name that stands for the content alone: the same material has the same id wherever it comes from."""
        content = [self.lecture, [(e.question, e.answer, e.rationale) for e in self.exemplars]]
        return "m" + blake2b(json.dumps(content).encode(), digest_size=4).hexdigest()

    def part(self, index: int, parts: int) -> Material:
        """Every `parts`-th exemplar from `index` on: what a jigsaw student or one of several teachers is given."""
        return Material(self.exemplars[index::parts], self.lecture, (self.id,), "part", self.by)

    def as_data(self) -> dict[str, Any]:
        """The `material` event."""
        return {
            "id": self.id,
            "kind": "lecture" if self.lecture is not None else "exemplars",
            "parents": list(self.parents),
            "operator": self.operator,
            "by": self.by,
            "exemplars": [
                {**values, "source": e.source}
                for values, e in zip(exemplar_values(self.exemplars), self.exemplars, strict=True)
            ],
            "lecture": self.lecture,
        }


def exemplar_values(exemplars: Iterable[Exemplar]) -> list[dict[str, str | None]]:
    """Exemplars as templates and events see them."""
    return [{"question": e.question, "answer": e.answer, "rationale": e.rationale} for e in exemplars]


@dataclass(frozen=True, slots=True)
class Utterance:
    """Something said in the lesson, with who heard it.

    `text` is what was said; exemplars that go with it (presenting, reciting) stay data, so that whoever hears
    them can put them into a prompt as worked examples.
    """

    speaker: str
    hearers: tuple[str, ...]
    kind: UtteranceKind
    text: str = ""
    exemplars: tuple[Exemplar, ...] = ()


@dataclass(frozen=True)
class Notes:
    """What one agent has heard (and said), in order: all that its exam prompt may hold."""

    heard: tuple[Utterance, ...] = ()

    def plus(self, more: Sequence[Utterance]) -> Notes:
        """These notes with more heard."""
        return Notes(self.heard + tuple(more)) if more else self

    @cached_property
    def exemplars(self) -> tuple[Exemplar, ...]:
        """The worked examples heard, each once, in the order in which they were first heard."""
        first: dict[str, Exemplar] = {}
        for utterance in self.heard:
            for exemplar in utterance.exemplars:
                first.setdefault(exemplar.question, exemplar)
        return tuple(first.values())

    def remarks(self, owner: str) -> list[Mapping[str, str]]:
        """What was said in words: [{speaker, kind, text}], the owner's own utterances under 'you'."""
        return [
            {"speaker": "you" if u.speaker == owner else u.speaker, "kind": u.kind, "text": u.text}
            for u in self.heard
            if u.text
        ]
