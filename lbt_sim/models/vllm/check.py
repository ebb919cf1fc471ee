"""What is wrong with entries on vLLM and can be seen without any server, and without any vLLM: for `validate` too."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import combinations

from lbt_sim.errors import LbtError, ModelUnavailable, Place
from lbt_sim.models.vllm import adapters, install, weights
from lbt_sim.models.vllm.gpus import check_visible
from lbt_sim.models.vllm.spec import VllmSpec, path_of

__all__ = ["at", "check_agreement", "check_environment", "mistakes"]

_REFUSED = {
    "CUDA_VISIBLE_DEVICES": "use `gpus`",
    "CUDA_DEVICE_ORDER": "`gpus` are numbered as `nvidia-smi` does",
    "VLLM_API_KEY": "each server gets a key of its own",
    "VLLM_TARGET_DEVICE": "use `device`",
    "VLLM_CPU_KVCACHE_SPACE": "use `cpu_cache`",
    "LBT_SIM_SERVER": "servers of lbt-sim are known by it",
}
"""Variables of a server that a scenario cannot set -> what to do."""

_SERVERS = ("patience", "start_timeout", "restarts")
"""What an entry says of its servers beside what they are."""
_GIVEN = ("api_key_env", "patience")
"""The same of servers that it names by their `urls`."""


def mistakes(entries: Mapping[str, VllmSpec]) -> Iterator[ModelUnavailable]:
    """Everything that would stop a run before its servers start: each with its key, without file and line.

    A vLLM that is not installed, weights that are yet to be fetched and GPUs of another machine are no mistakes.

    Args:
        entries: Name under `models:` -> its options.
    """
    checks: list[Callable[[], None]] = [lambda: check_agreement(entries)]
    for name, spec in entries.items():
        if not spec.urls:
            checks += _checks(name, spec)
    if first := next((name for name, spec in entries.items() if not spec.urls and spec.device != "cpu"), None):
        checks.append(lambda: _visible(first))
    for check in checks:
        try:
            check()
        except ModelUnavailable as error:
            yield error


def check_agreement(entries: Mapping[str, VllmSpec]) -> None:
    """Entries that the same servers answer have to say the same of these.

    Raises:
        ModelUnavailable: Two do not.
    """
    for (one, first), (other, second) in combinations(entries.items(), 2):
        if first.server_key != second.server_key:
            continue
        for key in _GIVEN if first.urls else _SERVERS:
            said = getattr(first, key), getattr(second, key)
            if said[0] != said[1]:
                words = [_said(value) for value in said]
                raise ModelUnavailable(
                    f"'{one}' and '{other}' are answered by the same servers, and `{key}` is {words[0]} for the one "
                    f"and {words[1]} for the other",
                    where=Place(key=f"models.{other}.{key}"),
                    remedy=f"Say the same `{key}` in both.",
                )


def check_environment(name: str, spec: VllmSpec) -> None:
    """The variables that an entry sets for its servers.

    Raises:
        ModelUnavailable: One is not a scenario's to set.
    """
    for variable in spec.environment:
        if variable in _REFUSED:
            raise ModelUnavailable(
                f"{variable} is set by lbt-sim itself: {_REFUSED[variable]}",
                where=Place(key=f"models.{name}.environment.{variable}"),
                remedy="Remove it.",
            )


@contextmanager
def at(name: str, key: str) -> Iterator[None]:
    """Gives errors that have no place the one of an entry's option, and files that cannot be read too."""
    try:
        yield
    except LbtError as error:
        if error.where is None:
            error.where = Place(key=f"models.{name}.{key}")
        raise
    except OSError as error:
        raise ModelUnavailable(
            f"{error.filename or 'a file'} cannot be read: {error.strerror or error}",
            where=Place(key=f"models.{name}.{key}"),
            remedy="Correct the path, or its permissions.",
        ) from error


def _checks(name: str, spec: VllmSpec) -> Iterator[Callable[[], None]]:
    def model() -> None:
        with at(name, "model"):
            here = path_of(spec.model).exists()
        with at(name, "revision" if spec.revision is not None and here else "model"):
            weights.check(spec)

    def lora() -> None:
        if spec.lora is not None:
            with at(name, "lora"):
                adapters.read(spec.lora)

    yield lambda: check_environment(name, spec)
    yield lambda: install.check(spec, Place(key=f"models.{name}"))
    yield model
    yield lora


def _visible(name: str) -> None:
    with at(name, "gpus"):
        check_visible()


def _said(value: object) -> str:
    return "not given" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
