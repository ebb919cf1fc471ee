"""Short reviews for sentiment, made from a seed: easy ones, and four families in which single words mislead.

| family | what is hard | example |
| --- | --- | --- |
| `plain` | nothing: all of it points one way | The soup was cold, and I regret it deeply. |
| `negation` | the adjective says the opposite | The room was anything but noisy, and it did not disappoint. |
| `mixed` | two sides; the sentence says which one weighs more | Although the fish was dry, I recall that … |
| `irony` | praise that is none, complaints that are none | Great, the desk lost our booking twice. |
| `expectation` | what was expected was not so | I expected the plot to be dull, and I was wrong. |

Each family has as many positive as negative reviews, and most patterns stand for either label, so neither family nor
aspect gives the label away. Train and held-out are disjoint by construction: every clause ("the room was noisy") and
event belongs to one split only, so a held-out review is no train review with a verdict exchanged. Adjectives recur
with other subjects and verdicts ("I loved it") in both splits: there is something to learn.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lbt_sim.errors import Place, TaskError, nearest
from lbt_sim.seeds import Seeds
from lbt_sim.tasks import review_phrases as phrases
from lbt_sim.tasks.base import Problem, Task

__all__ = ["FAMILIES", "INSTRUCTION", "LABELS", "generate"]

Label = Literal["positive", "negative"]

LABELS: tuple[Label, Label] = ("positive", "negative")
INSTRUCTION = "Decide whether the review is positive or negative. Answer with one word: positive or negative."
FAMILIES: Mapping[str, float] = {"plain": 0.5, "negation": 0.2, "mixed": 0.2, "irony": 0.05, "expectation": 0.05}
"""Family -> its share of either split."""

SHORTEST, LONGEST = 8, 20
"""Words of a review: short, since a small model on a CPU reads some 150 tokens a second."""

HELD_OUT_SHARE = 0.25
"""Share of the negated verdicts that only held-out reviews use; of each aspect's four clauses it is one."""

PATIENCE = 500
"""Draws for one review before its family counts as used up."""


@dataclass(frozen=True, slots=True)
class _Clause:
    """What can be said of one aspect, in a polarity of its own; an event has no adjective."""

    text: str
    aspect: int
    subject: str = ""
    be: str = ""
    adjective: str = ""


@dataclass(frozen=True, slots=True)
class _Stock:
    """What one split may use: clauses by (domain, polarity), negated verdicts by polarity."""

    clauses: Mapping[tuple[int, Label], tuple[_Clause, ...]]
    negated: Mapping[Label, tuple[str, ...]]


def generate(*, train: int, held_out: int, seed: int, options: Mapping[str, int | float | str | bool]) -> Task:
    """Make a task of short reviews.

    Args:
        train: How many reviews to teach and examine with.
        held_out: How many are kept for reporting.
        seed: Which ones are made.
        options: Family -> share (see `FAMILIES`). When one is given, families that are not given have none.

    Raises:
        TaskError: An option is unknown or no share, or there are not so many different reviews.
    """
    shares = _shares(options)
    seeds = Seeds(seed).at("reviews")
    stocks = _stocks(seeds.at("stock").rng())
    taken: set[str] = set()
    splits = []
    for split, count in (("train", train), ("held_out", held_out)):
        rng = seeds.at(split).rng()
        splits.append(tuple(_reviews(split, count, shares, stocks[split], rng, taken)))
    return Task(
        name="reviews",
        instruction=INSTRUCTION,
        labels=LABELS,
        positive=LABELS[0],
        grader="labels",
        train=splits[0],
        held_out=splits[1],
        sources={"reviews": f"seed {seed}, train {train}, held_out {held_out}, {dict(shares)}"},
    )


def _shares(options: Mapping[str, int | float | str | bool]) -> dict[str, float]:
    for name, value in options.items():
        where = Place(key=f"task.options.{name}")
        if name not in FAMILIES:
            guess = nearest(name, FAMILIES)
            hint = f"; did you mean '{guess}'?" if guess else "."
            raise TaskError(f"'{name}' is not an option of 'reviews'{hint}", where=where, valid=tuple(FAMILIES))
        if isinstance(value, (bool, str)) or not 0 <= value <= 1:
            raise TaskError(f"{value!r} is not a share.", where=where, remedy="Give a number from 0 to 1.")
    given = {name: float(options.get(name, 0.0)) for name in FAMILIES} if options else dict(FAMILIES)
    total = sum(given.values())
    if total == 0:
        raise TaskError("Every family has share 0.", where=Place(key="task.options"), valid=tuple(FAMILIES))
    return {name: share / total for name, share in given.items() if share > 0}


def _stocks(rng: random.Random) -> dict[str, _Stock]:
    """Deal clauses and negated verdicts to the splits."""
    clauses: dict[str, dict[tuple[int, Label], tuple[_Clause, ...]]] = {"train": {}, "held_out": {}}
    for number, domain in enumerate(phrases.DOMAINS):
        # One of an aspect's four clauses is held out, the same one for either label: were they dealt at random, an
        # aspect with more good clauses than bad ones in a split would give the label away there.
        kept = [rng.randrange(4) for _ in domain.aspects]
        for label in LABELS:
            said = _clauses(domain, label)
            clauses["held_out"][number, label] = tuple(row[out] for row, out in zip(said, kept, strict=True))
            clauses["train"][number, label] = tuple(
                clause for row, out in zip(said, kept, strict=True) for index, clause in enumerate(row) if index != out
            )
    pairs = list(zip(phrases.VERDICTS_NEGATED["positive"], phrases.VERDICTS_NEGATED["negative"], strict=True))
    rng.shuffle(pairs)
    cut = round(len(pairs) * HELD_OUT_SHARE)
    return {
        split: _Stock(clauses[split], dict(zip(LABELS, zip(*dealt, strict=True), strict=True)))
        for split, dealt in (("held_out", pairs[:cut]), ("train", pairs[cut:]))
    }


def _clauses(domain: phrases.Domain, label: Label) -> list[list[_Clause]]:
    """For each aspect its four clauses: three adjectives, one event."""
    clauses: list[list[_Clause]] = []
    for number, aspect in enumerate(domain.aspects):
        subject, be = aspect.subject.rsplit(" ", 1)
        good = label == "positive"
        described = [
            _Clause(f"{aspect.subject} {adjective}", number, subject, be, adjective)
            for adjective in (aspect.good if good else aspect.bad)
        ]
        clauses.append([*described, _Clause(aspect.good_event if good else aspect.bad_event, number)])
    return clauses


def _reviews(
    split: str, count: int, shares: Mapping[str, float], stock: _Stock, rng: random.Random, taken: set[str]
) -> list[Problem]:
    slots = _slots(count, shares)
    rng.shuffle(slots)
    problems = []
    for number, (family, label) in enumerate(slots, 1):
        text = _new(family, label, stock, rng, taken)
        if text is None:
            what = f"There are not so many different reviews: {number - 1} of {count} could be made for {split}."
            remedy = f"Ask for fewer, or raise the share of families other than '{family}'."
            raise TaskError(what, where=Place(key=f"task.{split}"), remedy=remedy)
        problems.append(Problem(f"{split[0]}{number}", f"Review: {text}", label, family=family))
    return problems


def _slots(count: int, shares: Mapping[str, float]) -> list[tuple[str, Label]]:
    """Family and label of each review: shares by largest remainder, labels balanced within each family."""
    sizes = {family: int(count * share) for family, share in shares.items()}
    by_rest = sorted(shares, key=lambda family: count * shares[family] - sizes[family], reverse=True)
    for family in by_rest[: count - sum(sizes.values())]:
        sizes[family] += 1
    slots: list[tuple[str, Label]] = []
    odd = 0
    for family, size in sizes.items():
        # Odd families take turns in which label has one more, so that the whole is balanced too.
        labels = LABELS if odd % 2 == 0 else LABELS[::-1]
        slots += [(family, labels[index % 2]) for index in range(size)]
        odd += size % 2
    return slots


def _new(family: str, label: Label, stock: _Stock, rng: random.Random, taken: set[str]) -> str | None:
    for _ in range(PATIENCE):
        domain = rng.randrange(len(phrases.DOMAINS))
        text = _WRITERS[family](_Draw(domain, label, stock, rng))
        if text not in taken and SHORTEST <= len(text.split()) <= LONGEST:
            taken.add(text)
            return text
    return None


@dataclass(frozen=True, slots=True)
class _Draw:
    """What a writer draws from: one domain, the label to express, the split's stock."""

    domain: int
    label: Label
    stock: _Stock
    rng: random.Random

    @property
    def other(self) -> Label:
        return LABELS[1] if self.label == LABELS[0] else LABELS[0]

    @property
    def things(self) -> phrases.Domain:
        return phrases.DOMAINS[self.domain]

    def clause(self, label: Label, *, apart_from: int | None = None, described: bool = False) -> _Clause:
        """A clause of the domain; of another aspect than `apart_from`, with an adjective if `described`."""
        fitting = [
            clause
            for clause in self.stock.clauses[self.domain, label]
            if clause.aspect != apart_from and (clause.adjective or not described)
        ]
        # In a small stock none may fit: the empty clause makes the writer give up, and another draw follows.
        return self.rng.choice(fitting) if fitting else _Clause("", -1)

    def opened(self, text: str) -> str:
        """`text`, at times after a sentence that says nothing good or bad."""
        sentence = _sentence(text)
        return f"{self.rng.choice(self.things.contexts)} {sentence}" if self.rng.random() < 0.4 else sentence


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _plain(draw: _Draw) -> str:
    first = draw.clause(draw.label)
    second = draw.clause(draw.label, apart_from=first.aspect).text
    verdict = draw.rng.choice(phrases.VERDICTS[draw.label])
    kind = draw.rng.randrange(4)
    if kind == 0:
        return draw.opened(f"{first.text}. {_sentence(verdict)}.")
    if not second:
        return ""
    if kind == 1:
        return f"{_sentence(verdict)}: {first.text} and {second}."
    if kind == 2:
        return f"{_sentence(first.text)} and {second}. {_sentence(verdict)}."
    return draw.opened(draw.rng.choice(phrases.PLAIN_PAIRS).format(a=first.text, b=second))


def _negation(draw: _Draw) -> str:
    first = draw.clause(draw.other, described=True)
    second = draw.clause(draw.other, apart_from=first.aspect, described=True)
    if not first.adjective:
        return ""
    said = _negated(first, draw.rng)
    verdict = draw.rng.choice(draw.stock.negated[draw.label])
    kind = draw.rng.randrange(4)
    if kind == 0:
        return draw.opened(f"{said}, and {verdict}.")
    if kind == 1:
        return draw.opened(f"{verdict}: {said}.")
    if kind == 2 and second.adjective not in ("", first.adjective):
        return f"{_sentence(said)}, and {_negated(second, draw.rng)}."
    return f"{draw.rng.choice(draw.things.contexts)} {_sentence(said)}."


def _negated(clause: _Clause, rng: random.Random) -> str:
    return rng.choice(phrases.NEGATED).format(s=clause.subject, be=clause.be, x=clause.adjective)


def _mixed(draw: _Draw) -> str:
    outweighed = draw.clause(draw.other)
    decisive = draw.clause(draw.label, apart_from=outweighed.aspect)
    if not decisive.text:
        return ""
    pattern = draw.rng.choice(draw.rng.choice((phrases.MIXED_LAST, phrases.MIXED_FIRST)))
    return _sentence(pattern.format(a=outweighed.text, b=decisive.text))


def _irony(draw: _Draw) -> str:
    patterns = phrases.MOCK_COMPLAINTS if draw.label == "positive" else phrases.MOCK_PRAISE
    # Irony needs something that happened; an adjective has to do where the split has no event of this domain.
    clauses = draw.stock.clauses[draw.domain, draw.label]
    events = [clause for clause in clauses if not clause.adjective] if draw.rng.random() < 0.8 else []
    event = draw.rng.choice(events or clauses).text
    return draw.rng.choice(patterns).format(e=event, noun=draw.things.noun)


def _expectation(draw: _Draw) -> str:
    if draw.rng.random() < 0.3:
        patterns = draw.rng.choice((phrases.SURPRISES, phrases.COMPARED))[draw.label]
        return draw.opened(draw.rng.choice(patterns).format(noun=draw.things.noun, plural=draw.things.plural))
    expected = draw.clause(draw.other, described=True)
    if not expected.adjective:
        return ""
    said = draw.rng.choice(phrases.BELIED)
    return draw.opened(said.format(s=expected.subject, be=expected.be, x=expected.adjective))


_WRITERS = {
    "plain": _plain,
    "negation": _negation,
    "mixed": _mixed,
    "irony": _irony,
    "expectation": _expectation,
}
