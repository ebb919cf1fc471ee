"""Which of the choices does a first token begin? Pure functions that every engine shares.

A choice such as `positive` is read from the log-probabilities of the reply's *first token*: its probability is that of
the tokens that begin it and no other choice. Where the engine can tell how its tokenizer begins each choice, only
that token counts, with or without a space before it; elsewhere any token does whose text is the beginning of exactly
one choice.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

__all__ = ["LEAST_MASS", "distinct", "mass", "pick", "read_choices", "total"]

LEAST_MASS = 0.01
"""Probability that the choices must have together for one to be read from theirs. With less, the model was about to
say something else first (it thinks, it chats), and which choice is likelier *there* says nothing: its text is read."""


def distinct(choices: Sequence[str], first: Mapping[str, str] | None = None) -> bool:
    """Whether one token can tell the choices apart.

    Args:
        choices: What may be answered.
        first: Choice -> the text of the token that begins it, where the tokenizer is known.

    Returns:
        With `first`: whether no two choices begin with the same token. Without: whether the choices are not empty,
        begin differently, and none is the beginning of another (`1` and `10`), which a text alone cannot tell apart.
    """
    if not choices:
        return False
    if first is not None:
        begins = [first[choice].lstrip() for choice in choices]
        return all(begins) and len(set(begins)) == len(begins)
    begins = sorted(choice.lstrip() for choice in choices)
    return bool(begins[0]) and not any(b.startswith(a) for a, b in pairwise(begins))


def read_choices(
    top: Iterable[tuple[str, float]], choices: Sequence[str], first: Mapping[str, str] | None = None
) -> tuple[float | None, ...] | None:
    """The log-probability of each choice, from the likeliest first tokens.

    White space before a token is not part of it (` Yes` and `Yes` both begin `Yes`); case is. Probabilities of
    several tokens that begin the same choice add up. A token of one character that merely begins a longer choice
    counts only where nothing longer does: `P` is the beginning of too much else.

    Args:
        top: (text of the token, natural-log probability), in any order.
        choices: What may be answered, `distinct`.
        first: Choice -> the text of the token that begins it, where the tokenizer is known.

    Returns:
        A value for each choice, None for one that no token begins; None altogether when no choice was found, or
        when a token that begins several choices is likelier than all that begin one.
    """
    begins = [choice.lstrip() for choice in choices]
    strong: list[list[float]] = [[] for _ in choices]
    weak: list[list[float]] = [[] for _ in choices]
    contested = -math.inf
    for token, logprob in top:
        text = token.lstrip()
        if not text or math.isnan(logprob):
            continue
        if first is not None:
            owners = [i for i, choice in enumerate(choices) if first[choice].lstrip() == text]
        else:
            owners = [i for i, begin in enumerate(begins) if begin.startswith(text)]
        if len(owners) > 1:
            contested = max(contested, logprob)
        elif owners:
            whole = first is not None or len(text) > 1 or text == begins[owners[0]]
            (strong if whole else weak)[owners[0]].append(logprob)
    found = [total(s) if s else total(w) if w else None for s, w in zip(strong, weak, strict=True)]
    best = max((value for value in found if value is not None), default=None)
    return None if best is None or contested > best else tuple(found)


def mass(logprobs: Sequence[float | None]) -> float:
    """The probability that the choices have together; what is unknown or no number has none."""
    return sum(math.exp(min(value, 0.0)) for value in logprobs if value is not None and not math.isnan(value))


def pick(choices: Sequence[str], logprobs: Sequence[float | None], temperature: float, seed: int) -> str:
    """One of the choices: the likeliest at temperature 0, else drawn by softmax(log-probability / temperature).

    It is drawn among the choices alone: with every engine `top_p` and `top_k`, which cut the tail off a vocabulary,
    have no say here. (They do where one token cannot tell the choices apart, and the engine draws the whole reply.) The
    draw depends on `seed` alone; ties go to the choice that stands first. A choice without a log-probability
    is never picked; at least one must have one.
    """
    known = [(choice, value) for choice, value in zip(choices, logprobs, strict=True) if value is not None]
    best = max(value for _, value in known)
    if temperature == 0.0 or math.isinf(best):
        return next(choice for choice, value in known if value == best)
    weights = [math.exp((value - best) / temperature) for _, value in known]
    return random.Random(seed).choices([choice for choice, _ in known], weights)[0]


def total(logprobs: Sequence[float]) -> float:
    """The log-probability of all of them together: log(sum(exp)), never above 0."""
    best = max(logprobs)
    if len(logprobs) == 1 or math.isinf(best):
        return min(best, 0.0)
    return min(best + math.log(sum(math.exp(value - best) for value in logprobs)), 0.0)
