"""The engines by name. An engine is one module, imported when a scenario names it.

An installed package adds an engine by an entry point of the group `lbt_sim.engines`, which names an `EngineEntry`:

    [project.entry-points."lbt_sim.engines"]
    mine = "my_package.engine:ENTRY"
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pydantic import BaseModel, ValidationError

from lbt_sim.errors import Place, ScenarioError, nearest
from lbt_sim.models.base import ChatModel
from lbt_sim.models.limits import SharesGates
from lbt_sim.models.surroundings import Settles, Surroundings
from lbt_sim.scenario.schema import ModelSpec

__all__ = ["ENGINES", "GROUP", "EngineEntry", "check_model", "engine", "engine_names", "open_model", "refused_engines"]

GROUP = "lbt_sim.engines"


@dataclass(frozen=True, slots=True)
class EngineEntry:
    """An engine.

    Attributes:
        name: What scenarios call it.
        spec: Gives the pydantic class of its options (the keys beside `engine`). Called when it is needed, so that
            the engine's module is imported late.
        open: Makes a model from an instance of that class. Touches no file and no network: `ChatModel.ready` does.
        summary: One line for `lbt-sim models list`.
    """

    name: str
    spec: Callable[[], type[BaseModel]]
    open: Callable[[Any], ChatModel]
    summary: str = ""


def _built_in(name: str, prefix: str, summary: str, module: str = "") -> EngineEntry:
    """The engine in `lbt_sim.models.<module or name>`, whose classes are `<prefix>Spec` and `<prefix>Model`."""

    def load(kind: str) -> Any:
        return getattr(import_module(f"lbt_sim.models.{module or name}"), prefix + kind)

    def spec() -> type[BaseModel]:
        found: type[BaseModel] = load("Spec")
        return found

    def open_(options: BaseModel) -> ChatModel:
        model: ChatModel = load("Model")(options)
        return model

    return EngineEntry(name, spec, open_, summary)


ENGINES: dict[str, EngineEntry] = {
    entry.name: entry
    for entry in (
        _built_in("llamacpp", "LlamaCpp", "llama.cpp inside this process, with a GGUF file"),
        _built_in("vllm", "Vllm", "vLLM servers on GPUs of this machine (or its CPU), watched", "vllm.model"),
        _built_in("openai", "OpenAI", "any OpenAI-compatible server, or several replicas of one"),
        _built_in("simulated", "Simulated", "rule-based learners, seeded and instant; no language model"),
        _built_in("scripted", "Scripted", "replies written down beforehand, for tests"),
    )
}
"""The built-in engines. A package cannot replace them."""


@cache
def _installed() -> dict[str, EntryPoint]:
    """Entry points of installed packages; read once, since looking for them reads every package's metadata."""
    return {point.name: point for point in entry_points(group=GROUP)}


def engine_names() -> tuple[str, ...]:
    """Every engine's name, sorted. Imports no engine."""
    return tuple(sorted({*ENGINES, *_installed()}))


def refused_engines() -> Iterator[str]:
    """What is wrong with engines of installed packages: one sentence each. Imports them."""
    for name, point in _installed().items():
        if name in ENGINES:
            yield f"{point.value} wants to replace the built-in engine {name!r} and is ignored"
            continue
        try:
            engine(name)
        except ScenarioError as error:
            yield error.what


def engine(name: str, where: Place | None = None) -> EngineEntry:
    """The engine called `name`.

    Raises:
        ScenarioError: There is none, or the installed package's one cannot be loaded.
    """
    if name in ENGINES:
        return ENGINES[name]
    point = _installed().get(name)
    if point is None:
        near = nearest(name, engine_names())
        raise ScenarioError(
            f"{name!r} is not an engine" + (f"; did you mean {near!r}?" if near else ""),
            where=where,
            valid=engine_names(),
            remedy="Correct the name, or install the package that adds it.",
        )
    try:
        entry = point.load()
    except Exception as error:
        raise ScenarioError(
            f"the engine {name!r} of {point.value} cannot be loaded: {type(error).__name__}: {error}",
            where=where,
            remedy="Reinstall or update the package that adds it.",
        ) from error
    if not isinstance(entry, EngineEntry):
        raise ScenarioError(
            f"the engine {name!r}: {point.value} is {type(entry).__name__}, not an EngineEntry",
            where=where,
            remedy="Tell the author of the package that adds it.",
        )
    return entry


def check_model(name: str, spec: ModelSpec, where: Place | None = None) -> BaseModel:
    """The engine's options of the model called `name` in a scenario, checked.

    Args:
        name: The key under `models`.
        spec: What stands there.
        where: The place of that key, if the caller knows its file and line.

    Raises:
        ScenarioError: No such engine, an unknown option, or a value that does not fit.
    """
    file, line = (where.file, where.line) if where else (None, None)
    key = (where.key if where and where.key else None) or f"models.{name}"
    options = engine(spec.engine, Place(file, line, f"{key}.engine")).spec()
    try:
        return options.model_validate(spec.model_extra or {})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        at = ".".join(map(str, first["loc"]))
        raise _wrong_option(spec.engine, options, first, Place(file, line, f"{key}.{at}" if at else key)) from None


def open_model(
    name: str, spec: ModelSpec, where: Place | None = None, surroundings: Surroundings | None = None
) -> ChatModel:
    """The model called `name` in a scenario, not yet ready.

    Args:
        name: The key under `models`.
        spec: What stands there.
        where: The place of that key.
        surroundings: The run: models that ask the same server share its limits, or the server itself.

    Raises:
        ScenarioError: As `check_model`.
    """
    model = engine(spec.engine, where).open(check_model(name, spec, where))
    if surroundings is not None:
        if isinstance(model, SharesGates):
            model.share(surroundings.gates)
        if isinstance(model, Settles):
            model.settle(surroundings, name)
    return model


def _wrong_option(name: str, options: type[BaseModel], first: Any, where: Place) -> ScenarioError:
    """Say what is wrong with one option; unknown and missing ones with what there is."""
    valid = tuple(sorted(options.model_fields))
    found = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        near = nearest(found, valid)
        what = f"{found!r} is not an option of the engine {name!r}" + (f"; did you mean {near!r}?" if near else "")
        return ScenarioError(what, where=where, valid=valid, remedy="Correct or remove the key.")
    if first["type"] == "missing":
        what = f"the engine {name!r} needs {found!r}"
        about = options.model_fields[found].description if found in options.model_fields else None
        return ScenarioError(what, where=where, valid=valid, remedy=f"Add it: {about}" if about else "Add it.")
    value = repr(first["input"])
    what = first["msg"].removeprefix("Value error, ")
    return ScenarioError(
        f"{what} (found {value[:80]})", where=where, remedy=f"Correct {found or 'the options'} of the engine {name!r}."
    )
