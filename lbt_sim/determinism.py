"""How often does a greedy answer change with what has nothing to do with it: the cache, and what is computed beside it?

At temperature 0 a model's answer ought to depend on its prompt alone. On a server it depends, in the last digits, on
how many prompts are computed together and on what a prefix cache held; where two tokens are nearly as likely, a digit
decides. What that amounts to is measured here, on a scenario's own exam prompts, and stands with the run's figures.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Protocol, runtime_checkable

from lbt_sim.models.base import ChatModel, ChatRequest, Reply, Sampling
from lbt_sim.models.determined import remember
from lbt_sim.models.registry import open_model
from lbt_sim.models.surroundings import Surroundings
from lbt_sim.preview import exam_prompts
from lbt_sim.setup import Prepared, models_needed

__all__ = ["Comparison", "Salted", "measure"]

WORDS = Sampling(max_tokens=24)
"""A greedy text, long enough for a digit to matter."""


@runtime_checkable
class Salted(Protocol):
    """A model whose prefix cache can be given a name, so that another name finds it cold."""

    salt: str | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """The same prompts asked in two ways.

    Attributes:
        what: The two ways.
        labels: Answers among labels that were compared.
        labels_changed: Those that differ.
        texts: Greedy texts that were compared.
        texts_changed: Those that differ.
        largest: The largest difference between two log-probabilities of the same label; None without any.
    """

    what: str
    labels: int
    labels_changed: int
    texts: int
    texts_changed: int
    largest: float | None


async def measure(
    prepared: Prepared, items: int, tell: Callable[[str], None], sizes: Sequence[int] = (8, 32)
) -> dict[str, list[Comparison]]:
    """Measures every model of a scenario; what is found is kept for the runs that follow.

    Args:
        prepared: The scenario: its models, its exam prompts.
        items: Prompts to ask.
        tell: Takes what is being done.
        sizes: How many at a time, against one alone.

    Returns:
        By the models' names.

    Raises:
        ModelUnavailable: A model cannot be had.
    """
    requests = await exam_prompts(prepared, items)
    surroundings = Surroundings(tell=tell)
    models = {
        name: open_model(name, prepared.file.models[name], prepared.loaded.place(f"models.{name}"), surroundings)
        for name in models_needed(prepared)
    }
    found: dict[str, list[Comparison]] = {}
    try:
        for name, model in models.items():
            info = await model.ready()
            if model.reads_facts:
                continue  # rules: nothing is computed that could differ
            tell(f"{name}: asking {len(requests)} prompts in {2 + len(sizes)} ways")
            found[name] = await _compared(model, requests, sizes)
            remember(info, [asdict(one) for one in found[name]])
    finally:
        for model in models.values():
            await model.close()
    return found


async def _compared(model: ChatModel, requests: Sequence[ChatRequest], sizes: Sequence[int]) -> list[Comparison]:
    texts = [replace(request, choices=(), sampling=WORDS) for request in requests]
    both = [replace(request, sampling=replace(request.sampling, temperature=0.0)) for request in requests] + texts
    salts = [secrets.token_hex(4) for _ in both]
    cold = [await _alone(model, request, salt) for request, salt in zip(both, salts, strict=True)]
    warm = [await _alone(model, request, salt) for request, salt in zip(both, salts, strict=True)]
    cached = "cold cache, warm cache" if isinstance(model, Salted) else "asked first, asked again"
    found = [_comparison(cached, cold, warm, len(requests))]
    for size in sizes:
        if size <= len(requests):
            together = [reply for part in _parts(both, size) for reply in await _together(model, part)]
            found.append(_comparison(f"alone, {size} at a time", warm, together, len(requests)))
    return found


def _parts(requests: Sequence[ChatRequest], size: int) -> list[Sequence[ChatRequest]]:
    return [requests[start : start + size] for start in range(0, len(requests), size)]


async def _alone(model: ChatModel, request: ChatRequest, salt: str) -> Reply:
    if isinstance(model, Salted):
        model.salt = salt
    return await model.create(request)


async def _together(model: ChatModel, requests: Sequence[ChatRequest]) -> list[Reply]:
    if isinstance(model, Salted):
        model.salt = "together"
    replies = {index: reply async for index, reply in model.create_many(requests)}
    return [replies[index] for index in range(len(requests))]


def _comparison(what: str, one: Sequence[Reply], other: Sequence[Reply], labels: int) -> Comparison:
    """Compares replies in pairs; the first `labels` are among labels. Calls that gave up are left out."""
    pairs = [
        (number < labels, a, b)
        for number, (a, b) in enumerate(zip(one, other, strict=True))
        if "failed" not in (a.finish, b.finish)
    ]
    apart = [
        abs(x - y)
        for _, a, b in pairs
        if a.choice_logprobs is not None and b.choice_logprobs is not None
        for x, y in zip(a.choice_logprobs, b.choice_logprobs, strict=True)
        if x is not None and y is not None
    ]
    return Comparison(
        what,
        sum(label for label, _, _ in pairs),
        sum(label and a.text != b.text for label, a, b in pairs),
        sum(not label for label, _, _ in pairs),
        sum(not label and a.text != b.text for label, a, b in pairs),
        max(apart, default=None),
    )
