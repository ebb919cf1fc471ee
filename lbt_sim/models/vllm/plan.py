"""From a scenario's options to servers: everything that can be known before anything starts is found out here."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lbt_sim.errors import ModelUnavailable, Place
from lbt_sim.models.vllm import adapters as lora
from lbt_sim.models.vllm import weights as weights_
from lbt_sim.models.vllm.adapters import Adapter
from lbt_sim.models.vllm.check import at, check_environment
from lbt_sim.models.vllm.gpus import MIB, Gpu, gpus, memory, told
from lbt_sim.models.vllm.install import Installation, default_environment, find, how_to_install, serve_argv
from lbt_sim.models.vllm.launch import Launch
from lbt_sim.models.vllm.placing import Request, Seating, check_weights, place
from lbt_sim.models.vllm.reserve import Reservations, servers, with_servers, with_servers_on_cpu
from lbt_sim.models.vllm.spec import VllmSpec
from lbt_sim.models.vllm.weights import Weights

__all__ = ["Wanted", "plan"]

Tell = Callable[[str], None]

OVERHEAD = 2048
"""MiB that a server's processes take on the CPU beside weights and cache, as measured with vLLM 0.32."""

_FETCHES = ("tokenizer", "speculative-config", "hf-config-path", "hf-overrides")
"""Flags that may name something on the hub even where the weights are in a folder."""

_RESIZES = ("quantization", "load-format", "cpu-offload-gb", "model-loader-extra-config", "hf-overrides")
"""Flags with which weights take another space than their files say."""

_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Servers that are to be started for one entry, or for several that say the same.

    Attributes:
        name: The entry's name, in messages and logs.
        spec: Its options.
        adapters: Served name -> folder of each LoRA adapter.
    """

    name: str
    spec: VllmSpec
    adapters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Part:
    """What is known of an entry before its weights are looked at."""

    wanted: Wanted
    installation: Installation
    device: Literal["cuda", "cpu"]
    adapters: Mapping[str, Adapter]

    @property
    def dtype(self) -> str:
        """For `--dtype`."""
        dtype = self.wanted.spec.dtype
        return "float32" if dtype == "auto" and self.device == "cpu" else dtype

    @property
    def cache(self) -> int:
        """GiB of key-value cache on the CPU."""
        return self.wanted.spec.cpu_cache


def plan(wanted: Sequence[Wanted], tell: Tell, reservations: Reservations | None = None) -> dict[str, list[Launch]]:
    """How the servers of these entries are started, one `Launch` for each replica; entries with `urls` have none.

    Takes as long as it takes to write a GGUF file out for the first time; `tell` is told.

    Args:
        wanted: The entries.
        tell: Takes a line about what takes time, or is not known.
        reservations: Take what the servers need, so that no other run plans with it; without them nothing is reserved.

    Raises:
        ModelUnavailable: No vLLM, no weights, no such GPU, too little memory: with the place of the option, before
            anything is started.
    """
    ours = [one for one in wanted if not one.spec.urls]
    machine = _Machine()
    parts = [_part(one, machine, tell) for one in ours]
    _seats(parts, machine)  # what does not fit is told before weights are written out
    weights: dict[str, Weights] = {}
    for part in parts:
        with at(part.wanted.name, "model"):
            weights[part.wanted.name] = weights_.find(part.wanted.spec, part.installation, tell)
        if _size(part, weights[part.wanted.name]) is None:
            tell(f"{part.wanted.name}: whether its weights fit is not known before they are loaded")
    if reservations is None:
        return _fitted(parts, weights, machine)
    with reservations.turn():
        machine.look_again()
        fitted = _fitted(parts, weights, machine)
        return reservations.take(fitted, {gpu.device: gpu.free_mib for gpu in machine.seen})


def _fitted(parts: Sequence[_Part], weights: Mapping[str, Weights], machine: _Machine) -> dict[str, list[Launch]]:
    seats = _seats(parts, machine)
    sizes = {part.wanted.name: _size(part, weights[part.wanted.name]) for part in parts}
    check_weights({name: size for name, size in sizes.items() if size is not None}, seats)
    _check_memory([part for part in parts if part.device == "cpu"], weights)
    return {part.wanted.name: _launches(part, weights[part.wanted.name], seats.get(part.wanted.name)) for part in parts}


class _Machine:
    """What is asked of the machine, once for all entries."""

    def __init__(self) -> None:
        self._found: dict[object, Installation] = {}
        self._gpus: list[Gpu] | None = None

    def installation(self, spec: VllmSpec, where: Place) -> Installation:
        key = (spec.python, tuple(spec.command or ()))
        if key not in self._found:
            self._found[key] = find(spec, where)
        return self._found[key]

    @property
    def gpus(self) -> list[Gpu]:
        if self._gpus is None:
            ours = servers()
            self._gpus = [with_servers(gpu, ours) for gpu in gpus()]
        return self._gpus

    @property
    def seen(self) -> Sequence[Gpu]:
        """The GPUs, where these were looked at."""
        return self._gpus or ()

    def look_again(self) -> None:
        """What was seen may have changed."""
        self._gpus = None


def _part(wanted: Wanted, machine: _Machine, tell: Tell) -> _Part:
    spec, name = wanted.spec, wanted.name
    check_environment(name, spec)
    installation = machine.installation(spec, Place(key=f"models.{name}"))
    device = _device(wanted, installation, machine, tell)
    with at(name, "lora"):
        found = {served: lora.read(folder) for served, folder in wanted.adapters.items()}
    return _Part(wanted, installation, device, found)


def _device(wanted: Wanted, installation: Installation, machine: _Machine, tell: Tell) -> Literal["cuda", "cpu"]:
    """What the servers compute on: what vLLM was built for has to be there."""
    spec, built = wanted.spec, installation.device
    where = Place(key=f"models.{wanted.name}.{'gpus' if isinstance(spec.gpus, list) else 'device'}")
    gpus_wanted = spec.device == "cuda" or isinstance(spec.gpus, list)
    install = how_to_install(default_environment())
    if built not in (None, "cuda", "cpu"):
        raise ModelUnavailable(
            f"vLLM is built for {built.upper()} there ({installation.python}), which lbt-sim does not start",
            where=where,
            remedy="Start it yourself, and name its address under `urls`.",
        )
    if gpus_wanted and built == "cpu":
        raise ModelUnavailable(
            f"GPUs are asked for, and vLLM is built for the CPU there ({installation.python})",
            where=where,
            remedy=f"Name another environment under `python`, or leave this out.\n  {install}",
        )
    if spec.device == "cpu" or built == "cpu":
        if built == "cuda":
            raise ModelUnavailable(
                f"the CPU is asked for, and vLLM is built for CUDA there ({installation.python})",
                where=where,
                remedy=f"Name an environment with vLLM's CPU build under `python`.\n  {install}",
            )
        if spec.device == "auto" and _any_gpu(machine):
            tell(f"{wanted.name}: on the CPU, although there are GPUs: vLLM is built for the CPU there")
        return "cpu"
    if machine.gpus:
        return "cuda"
    if gpus_wanted or built == "cuda":
        raise ModelUnavailable(
            "no NVIDIA GPU was found"
            + ("" if gpus_wanted else f", and vLLM is built for CUDA there ({installation.python})"),
            where=where,
            remedy=f"Check `nvidia-smi` and CUDA_VISIBLE_DEVICES, or use vLLM's CPU build.\n  {install}",
        )
    return "cpu"


def _any_gpu(machine: _Machine) -> bool:
    try:
        return bool(machine.gpus)
    except ModelUnavailable:
        return False  # a broken driver is no matter on the CPU


# --- memory ------------------------------------------------------------------------------------------------


def _seats(parts: Sequence[_Part], machine: _Machine) -> dict[str, list[Seating]]:
    requests = [
        Request(
            part.wanted.name,
            tuple(spec.gpus) if isinstance(spec.gpus, list) else None,
            spec.tensor_parallel,
            spec.replicas,
            spec.memory,
        )
        for part in parts
        if part.device == "cuda"
        for spec in (part.wanted.spec,)
    ]
    return place(requests, machine.gpus) if requests else {}


def _check_memory(parts: Sequence[_Part], weights: Mapping[str, Weights]) -> None:
    """Whether servers on the CPU fit into what is available now."""
    there = memory()
    if not parts or there is None:
        return
    there = with_servers_on_cpu(there, servers())
    needs = {part.wanted.name: _need(part, weights[part.wanted.name]) * part.wanted.spec.replicas for part in parts}
    total = sum(needs.values())
    if total <= there.available_mib:
        return
    most = max(needs, key=lambda name: needs[name])
    shown = ", ".join(f"{name} {need:,} MiB" for name, need in needs.items())
    raise ModelUnavailable(
        f"{there.available_mib:,} of {there.total_mib:,} MiB of memory are available, and {total:,} MiB are wanted "
        f"({shown}); most is held by {told(there.holders)}",
        where=Place(key=f"models.{most}.cpu_cache"),
        remedy="Lower `cpu_cache` or `replicas`, use a smaller model, or end what holds the memory.",
    )


def _need(part: _Part, weights: Weights) -> int:
    """MiB that a server takes on the CPU; without its weights where these are of unknown size."""
    return (_size(part, weights) or 0) + part.cache * 1024 + OVERHEAD


def _size(part: _Part, weights: Weights) -> int | None:
    """MiB of a server's weights once they are loaded; None where that is not known."""
    contents = weights.contents
    if contents is None or set(_RESIZES) & set(part.wanted.spec.flags):
        return None
    # On GPUs `auto` is a type of two bytes: vLLM loads what is stored as float32 as one of these.
    size = 4 if part.dtype == "float32" else 2
    if (
        not contents.floats
        and part.device == "cuda"
        and not all(one.endswith(".safetensors") for one in contents.files)
    ):
        return contents.stored * size // 4 // MIB  # of unknown type: the least that they can take
    return contents.loaded(size) // MIB


def _needs(part: _Part, weights: Weights, seat: Seating | None) -> dict[str, int]:
    """`Launch.needs`."""
    if seat is None:
        return {"cpu": _need(part, weights)} if part.device == "cpu" else {}
    return {gpu.device: int(seat.share * gpu.total_mib) for gpu in seat.gpus if gpu.total_mib is not None}


# --- launches ----------------------------------------------------------------------------------------------


def _launches(part: _Part, weights: Weights, seats: Sequence[Seating] | None) -> list[Launch]:
    name, replicas = part.wanted.name, part.wanted.spec.replicas
    # A dot is in no entry's name, so no other server can be called so.
    names = [name] if replicas == 1 else [f"{name}.{number}" for number in range(1, replicas + 1)]
    seated: Sequence[Seating | None] = seats if seats is not None else [None] * replicas
    common = _detail(part, weights) | {"replicas": [_seat_detail(seat) for seat in seated]}
    return [
        Launch(
            name=one,
            argv=_argv(part, weights, seat),
            environment=_environment(part, weights, seat),
            devices=tuple(gpu.device for gpu in seat.gpus) if seat else ("cpu",),
            adapters={served: str(adapter.folder) for served, adapter in part.adapters.items()},
            detail=common | _seat_detail(seat),
            needs=_needs(part, weights, seat),
        )
        for one, seat in zip(names, seated, strict=True)
    ]


def _argv(part: _Part, weights: Weights, seat: Seating | None) -> tuple[str, ...]:
    spec = part.wanted.spec
    start = serve_argv(part.installation)
    argv = [*start, *(["--model"] if start[-1] != "serve" else []), weights.argument]
    argv += ["--dtype", part.dtype, "--tensor-parallel-size", str(spec.tensor_parallel)]
    if weights.revision:
        # The tokenizer is the weights' own, unless a flag names another; that one's revisions are not these.
        argv += ["--revision", weights.revision]
        argv += [] if "tokenizer" in spec.flags else ["--tokenizer-revision", weights.revision]
    if seat is not None:
        argv += ["--gpu-memory-utilization", f"{seat.share:g}"]
    if spec.length is not None:
        argv += ["--max-model-len", str(spec.length)]
    argv += lora.flags(part.adapters)
    # A model's own sampling defaults (a repetition penalty, say) are not what the scenario says.
    flags: dict[str, bool | int | float | str] = {"enable-prompt-tokens-details": True, "generation-config": "vllm"}
    if part.device == "cpu":
        flags["enforce-eager"] = True  # compiling takes minutes there, and gains little
    for flag, value in (flags | spec.flags).items():
        argv += [f"--{flag}"] if value is True else [f"--no-{flag}"] if value is False else [f"--{flag}", str(value)]
    return tuple(argv)


def _environment(part: _Part, weights: Weights, seat: Seating | None) -> dict[str, str]:
    spec = part.wanted.spec
    environment = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if weights.local and not set(_FETCHES) & set(spec.flags) and "HF_HUB_OFFLINE" not in os.environ:
        environment["HF_HUB_OFFLINE"] = "1"
    if seat is not None:
        environment |= {"VLLM_TARGET_DEVICE": "cuda", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        # Numbers: versions of vLLM before it could read names of GPUs stop at them.
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(str(gpu.index) for gpu in seat.gpus)
    else:
        environment |= {"VLLM_TARGET_DEVICE": "cpu", "VLLM_CPU_KVCACHE_SPACE": str(part.cache)}
    return environment | spec.environment


def _detail(part: _Part, weights: Weights) -> dict[str, object]:
    """For the manifest; of the environment what the scenario says, without what looks like a secret."""
    spec, one = part.wanted.spec, part.installation
    invariant = spec.environment.get("VLLM_BATCH_INVARIANT", os.environ.get("VLLM_BATCH_INVARIANT", "0"))
    return {
        "identity": weights.identity,
        "adapters": {served: adapter.identity for served, adapter in part.adapters.items()},
        "weights": dict(weights.detail),
        "vllm": one.version or None,
        "distribution": one.distribution or None,
        "torch": one.torch,
        "python": one.python_version or None,
        "started_with": list(serve_argv(one)),
        "found_by": one.source,
        "device": part.device,
        "dtype": part.dtype,
        "length": spec.length,
        "tensor_parallel": spec.tensor_parallel,
        "cpu_cache_gib": part.cache if part.device == "cpu" else None,
        "flags": dict(spec.flags),
        "environment": {key: "…" if _SECRET.search(key) else value for key, value in spec.environment.items()},
        "VLLM_BATCH_INVARIANT": invariant,
    }


def _seat_detail(seat: Seating | None) -> dict[str, object]:
    if seat is None:
        return {"gpus": [], "memory": None}
    shown = [
        {"number": gpu.number, "index": gpu.index, "name": gpu.name, "uuid": gpu.uuid, "mib": gpu.total_mib}
        for gpu in seat.gpus
    ]
    return {"gpus": shown, "memory": seat.share}
