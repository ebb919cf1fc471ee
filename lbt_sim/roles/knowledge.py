"""What of the worked examples that it hears stays with a student: a share of them, none of some families.

Knowledge is confined where it comes in, as the ears of whoever it belongs to: what does not stay is not in its notes,
so it is in none of its prompts, and it cannot be passed on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from lbt_sim.roles.values import Utterance
from lbt_sim.scenario.schema import KnowledgeSpec
from lbt_sim.seeds import Seeds
from lbt_sim.tasks.base import Exemplar, Task
from lbt_sim.tasks.split import bare

__all__ = ["Knowledge", "families_of"]

_LINE = re.compile(r"- (?P<question>.+?) -> .")
"""A worked example as simulated agents tell it in words."""


def families_of(task: Task) -> Mapping[str, str]:
    """What kind of problem stands behind an exemplar: by the bare text of its question, and by the problem's id.

    An exemplar that a teacher wrote has no source, and yet it may be a train problem word for word.
    """
    by_id = {problem.id: problem.family for problem in task.train if problem.family}
    by_text = {bare(problem.question): problem.family for problem in task.train if problem.family}
    return {**by_id, **by_text}


@dataclass(frozen=True)
class Knowledge:
    """One student's, or of all who share a mind.

    Attributes:
        spec: The share that stays, the families that do not.
        who: Whose: a seat's name, or the mind that several seats share.
        seeds: The run's seeds.
        families: As `families_of` gives them.
    """

    spec: KnowledgeSpec
    who: str
    seeds: Seeds
    families: Mapping[str, str]

    def keeps(self, question: str, source: str | None = None) -> bool:
        """Whether a worked example with this question stays, in this round and in any other.

        Args:
            question: Its question; white space and signs do not count.
            source: The id of the problem that it was taken from.
        """
        words = bare(question)
        if self.spec.without:
            family = self.families.get(words) or self.families.get(source or "")
            if family in self.spec.without:
                return False
        # Drawn alike whatever the share: who keeps less keeps a part of what it would keep otherwise.
        return self.seeds.at("knowledge", self.who, words).number() < self.spec.share * 2**31

    def of(self, heard: Iterable[Utterance], taught: Sequence[Exemplar]) -> tuple[Utterance, ...]:
        """What was heard, without what does not stay.

        Examples told in words go too: lines `- question -> answer`, and lines that hold a taught question word for
        word.

        Args:
            heard: What was heard.
            taught: The worked examples of the lesson.
        """
        lost = [f" {bare(e.question)} " for e in taught if not self.keeps(e.question, e.source)]
        return tuple(
            replace(
                utterance,
                text=self._without(utterance.text, lost),
                exemplars=tuple(e for e in utterance.exemplars if self.keeps(e.question, e.source)),
            )
            for utterance in heard
        )

    def _without(self, text: str, lost: Sequence[str]) -> str:
        kept = [line for line in text.split("\n") if self._may_hear(line, lost)]
        left = text if len(kept) == len(text.split("\n")) else "\n".join(kept).strip()
        # A question of several lines stands on none of them.
        return "" if _tells(left, lost) else left

    def _may_hear(self, line: str, lost: Sequence[str]) -> bool:
        example = _LINE.search(line)
        return not _tells(line, lost) and (example is None or self.keeps(example["question"]))


def _tells(text: str, lost: Sequence[str]) -> bool:
    words = f" {bare(text)} " if text and lost else ""
    return any(question in words for question in lost)
