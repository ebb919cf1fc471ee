"""Which server computes on which GPUs, and with what share of their memory: decided for all before any starts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lbt_sim.errors import ModelUnavailable, Place
from lbt_sim.models.vllm.gpus import Gpu, numbered, told

__all__ = ["Request", "Seating", "check_weights", "place"]

USUAL = 0.9
"""Share of a GPU that servers take together where nothing is said: the rest is for CUDA itself."""
LEAST = 0.05
"""A smaller share holds no model."""


@dataclass(frozen=True, slots=True)
class Request:
    """What one entry of a scenario asks for.

    Attributes:
        name: The entry's.
        numbers: The GPUs it names, None for `auto`.
        tensor_parallel: GPUs of each server.
        replicas: How many servers.
        memory: The share it names, None where it names none.
    """

    name: str
    numbers: tuple[int, ...] | None
    tensor_parallel: int
    replicas: int
    memory: float | None

    def at(self, key: str) -> Place:
        """The place of one of its options."""
        return Place(key=f"models.{self.name}.{key}")


@dataclass(frozen=True, slots=True)
class Seating:
    """Where one server computes: its GPUs, and the share of each one's memory that it takes."""

    gpus: tuple[Gpu, ...]
    share: float


def place(requests: Sequence[Request], there: Sequence[Gpu]) -> dict[str, list[Seating]]:
    """Deals GPUs out, those that are named first, and divides their memory.

    Raises:
        ModelUnavailable: A GPU is not there, there are too few, shares are more than the whole, or more than what is
            free now; the last with the names of whoever holds the rest.
    """
    dealt = _dealt(requests, there)
    shares = {gpu.number: _shares(gpu, requests, dealt) for gpu in there}
    for gpu in there:
        _check_room(gpu, requests, dealt, shares)
    return {
        request.name: [
            Seating(group, min(shares[gpu.number][request.name] for gpu in group)) for group in dealt[request.name]
        ]
        for request in requests
    }


def check_weights(sizes: Mapping[str, int], seats: Mapping[str, Sequence[Seating]]) -> None:
    """Whether weights fit into the servers' shares. What a server takes beside them only vLLM knows.

    Args:
        sizes: Entry -> MiB of its weights, where that is known; a server's GPUs have equal parts of them.
        seats: Where the servers compute.

    Raises:
        ModelUnavailable: They do not; with what else is on the GPU.
    """
    for name, mib in sizes.items():
        for seating in seats.get(name, ()):
            for gpu in seating.gpus:
                part = math.ceil(mib / len(seating.gpus))
                if gpu.total_mib is not None and part > seating.share * gpu.total_mib:
                    raise _too_large(name, part, gpu, seating, seats)


def _too_large(
    name: str, part: int, gpu: Gpu, seating: Seating, seats: Mapping[str, Sequence[Seating]]
) -> ModelUnavailable:
    total = gpu.total_mib or 0
    others = [other for other, there in seats.items() if other != name and any(gpu in one.gpus for one in there)]
    held = ([f"other servers there are of {', '.join(others)}"] if others else []) + (
        [f"it is held by {told(gpu.holders)}"] if gpu.holders else []
    )
    needed = math.ceil(part / total * 100 + 1) / 100
    raising = f"raise `memory` above {needed:g}, " if needed < 1.0 else ""
    return ModelUnavailable(
        f"the weights of {name} take {part:,} MiB of GPU {gpu.number} ({gpu.name}), and its server is to take "
        f"{seating.share * total:,.0f} of {total:,} MiB" + "".join(f"; {one}" for one in held),
        where=Place(key=f"models.{name}.memory"),
        remedy=raising[:1].upper()
        + raising[1:]
        + ("spread" if raising else "Spread")
        + " the model over more GPUs with `tensor_parallel`, or use a smaller one.",
    )


Dealt = Mapping[str, Sequence[tuple[Gpu, ...]]]
"""Entry -> the GPUs of each of its servers."""


def _dealt(requests: Sequence[Request], there: Sequence[Gpu]) -> Dealt:
    count: Counter[int] = Counter()
    dealt: dict[str, list[tuple[Gpu, ...]]] = {}
    for request in sorted(requests, key=lambda request: request.numbers is None):
        choose = _named if request.numbers is not None else _freest
        dealt[request.name] = []
        for group in choose(request, there, count):
            dealt[request.name].append(group)
            count.update(gpu.number for gpu in group)
    return dealt


def _named(request: Request, there: Sequence[Gpu], _: Counter[int]) -> Iterator[tuple[Gpu, ...]]:
    """The GPUs that it names, in order; replicas for which none are left begin with the first again."""
    size = request.tensor_parallel
    chosen = numbered(request.numbers or (), there, request.at("gpus"))
    groups = [tuple(chosen[start : start + size]) for start in range(0, len(chosen), size)]
    if len(groups) > request.replicas:
        raise ModelUnavailable(
            f"{len(chosen)} GPUs, and {request.replicas} server{'s' * (request.replicas > 1)} of {size}: "
            "some would not be used",
            where=request.at("gpus"),
            remedy=f"Set `replicas: {len(groups)}`, or `tensor_parallel: {len(chosen) // request.replicas or 1}`, "
            "or name fewer.",
        )
    if mig := [gpu for gpu in chosen if gpu.mig]:
        raise ModelUnavailable(
            f"GPU {mig[0].number} is cut into MIG instances, which lbt-sim cannot use",
            where=request.at("gpus"),
            remedy="Use another, or start vLLM yourself and name its address under `urls`.",
        )
    for number in range(request.replicas):
        yield groups[number % len(groups)]


def _freest(request: Request, there: Sequence[Gpu], count: Counter[int]) -> Iterator[tuple[Gpu, ...]]:
    """Those with the most free memory for each server of ours that would be on them."""
    size = request.tensor_parallel
    whole = [gpu for gpu in there if not gpu.mig]
    if len(whole) < size:
        raise ModelUnavailable(
            f"a server over {size} GPUs, and there {'is' if len(whole) == 1 else 'are'} {len(whole)}"
            + (" that are not cut into MIG instances" if len(whole) < len(there) else ""),
            where=request.at("tensor_parallel"),
            remedy="Lower `tensor_parallel`, or free GPUs (CUDA_VISIBLE_DEVICES may hide some).",
        )

    def room(gpu: Gpu) -> float:
        free = gpu.free_mib if gpu.free_mib is not None else gpu.total_mib
        return (math.inf if free is None else free) / (count[gpu.number] + 1)

    for _ in range(request.replicas):
        # Unknown sizes are all the same, so that servers spread over them.
        best = sorted(whole, key=lambda gpu: (-room(gpu), count[gpu.number], gpu.number))[:size]
        yield tuple(sorted(best, key=lambda gpu: gpu.number))


def _on(gpu: Gpu, requests: Sequence[Request], dealt: Dealt) -> list[Request]:
    """Who has a server on it: once for each server."""
    return [request for request in requests for group in dealt[request.name] if gpu in group]


def _shares(gpu: Gpu, requests: Sequence[Request], dealt: Dealt) -> dict[str, float]:
    """What each entry's servers may take of this GPU: what they name, and equal parts of what is left of `USUAL`."""
    here = _on(gpu, requests, dealt)
    named = math.fsum(request.memory for request in here if request.memory is not None)
    others = [request for request in here if request.memory is None]
    first = next((request for request in here if request.memory is not None), None)
    if first is not None and named > 1.0 + 1e-9:
        raise ModelUnavailable(
            f"the servers on GPU {gpu.number} are to take {named:.2f} of its memory together ("
            + ", ".join(f"{request.name} {request.memory:g}" for request in here if request.memory is not None)
            + ")",
            where=first.at("memory"),
            remedy="Lower their `memory`, or put them on different GPUs.",
        )
    rest = math.floor((USUAL - named) / len(others) * 10_000) / 10_000 if others else 0.0
    if others and rest < LEAST:
        raise ModelUnavailable(
            f"on GPU {gpu.number}, {len(here) - len(others)} other servers with `memory` leave nothing for "
            f"{others[0].name}",
            where=others[0].at("memory"),
            remedy="Lower their `memory`, say how much this one may take, or put it on another GPU.",
        )
    return {request.name: rest if request.memory is None else request.memory for request in here}


def _check_room(gpu: Gpu, requests: Sequence[Request], dealt: Dealt, shares: Mapping[int, Mapping[str, float]]) -> None:
    """Whether what the servers on a GPU will take is free now: they look themselves, but only when it is their turn."""
    here = _on(gpu, requests, dealt)
    if not here or gpu.total_mib is None or gpu.free_mib is None:
        return
    wanted = math.fsum(_least(request, gpu, dealt, shares) for request in here) * gpu.total_mib
    if wanted <= gpu.free_mib:
        return
    fits = math.floor(gpu.free_mib / gpu.total_mib / len(here) * 100) / 100
    smaller = f", or set `memory: {fits:g}` for what is free" if fits >= LEAST else ""
    names = ", ".join(dict.fromkeys(request.name for request in here))
    raise ModelUnavailable(
        f"GPU {gpu.number} ({gpu.name}) has {gpu.free_mib:,} of {gpu.total_mib:,} MiB free, and {wanted:,.0f} MiB are "
        f"wanted for {names}; the rest is held by {told(gpu.holders)}",
        where=here[0].at("gpus"),
        remedy=f"End what holds it, take other GPUs (`gpus`){smaller}.",
    )


def _least(request: Request, gpu: Gpu, dealt: Dealt, shares: Mapping[int, Mapping[str, float]]) -> float:
    """The share that the entry's server on this GPU takes: one number for all of its GPUs, so the least of them."""
    groups = [group for group in dealt[request.name] if gpu in group]
    return min(shares[other.number][request.name] for group in groups for other in group)
