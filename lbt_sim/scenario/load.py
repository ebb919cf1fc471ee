"""From a scenario's name or file to a `LoadedScenario`, and to and from the `scenario.yaml` of a run folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lbt_sim.errors import Place, ScenarioError
from lbt_sim.library import (
    DataFolder,
    FolderLayer,
    Layer,
    Library,
    SnapshotLayer,
    Source,
    beside,
    built_in,
    data_folders,
)
from lbt_sim.scenario.loaded import LoadedScenario, Room, resolve_classroom
from lbt_sim.scenario.overrides import override
from lbt_sim.scenario.presets import apply_preset, expand_short_forms
from lbt_sim.scenario.schema import ScenarioFile
from lbt_sim.scenario.seats import Seat, missing_names, resolve_agents
from lbt_sim.scenario.validation import as_one, find_mistakes
from lbt_sim.scenario.yaml import Document, KeyPath, read_text, read_yaml, write_yaml

__all__ = [
    "Base",
    "LoadedScenario",
    "Room",
    "Seat",
    "dump_resolved",
    "load_resolved",
    "load_scenario",
    "on_engine",
    "read_base",
    "resolve_agents",
    "resolve_classroom",
]

DEFAULT_MODELS: Mapping[str, str] = {"llamacpp": "smollm2-135m", "vllm": "smollm2-135m"}
"""Engine -> the model that `--engine` gives it where the scenario's own is not for it."""


def load_scenario(
    name_or_path: str | os.PathLike[str],
    *,
    sets: Sequence[str] = (),
    engine: str | None = None,
    seed: int | None = None,
    data: Sequence[Path | str] = (),
    cwd: Path | None = None,
) -> LoadedScenario:
    """Reads a scenario, completes it and checks it.

    Args:
        name_or_path: A name (`quickstart`: here, then the built-in library) or the path of a YAML file.
        sets: `key.path=value`, done in order.
        engine: Puts every model on this engine; done before `sets`, which can then give the engine its options.
        seed: The run's seed.
        data: Folders to look for data files in.
        cwd: The working directory, if it is another than the process's.

    Raises:
        ScenarioError: Anything that is wrong with it, with file, line and key.
    """
    base = read_base(name_or_path, sets=sets, engine=engine, seed=seed, data=data, cwd=cwd)
    return base.load(base.document)


@dataclass(frozen=True)
class Base:
    """A scenario that was read, and is not checked yet: what a study varies.

    Attributes:
        document: What it says, short forms written out, flags applied.
        name: What it is called.
        source: Its file.
        layers: Where what it names is looked up.
        data: Folders for data files.
    """

    document: Document
    name: str
    source: Source
    layers: tuple[Layer, ...]
    data: tuple[DataFolder, ...]

    def load(self, document: Document) -> LoadedScenario:
        """The scenario, or a variant of it, completed and checked.

        Raises:
            ScenarioError: Anything that is wrong with it.
        """
        return _checked(document, Library(self.layers, data=self.data), self.name, self.source)


def read_base(
    name_or_path: str | os.PathLike[str],
    *,
    sets: Sequence[str] = (),
    engine: str | None = None,
    seed: int | None = None,
    data: Sequence[Path | str] = (),
    cwd: Path | None = None,
    beside_too: Path | None = None,
) -> Base:
    """Reads a scenario as `load_scenario` does, without checking it.

    Args:
        name_or_path: As there.
        sets: As there.
        engine: As there.
        seed: As there.
        data: As there.
        cwd: As there.
        beside_too: A workspace in which a name is looked up first.

    Raises:
        ScenarioError: It is not there, or is no YAML.
    """
    cwd = (cwd or Path.cwd()).resolve()
    source, path = _open(os.fspath(name_or_path), cwd, beside_too)
    folders = data_folders(path.parent if path else None, cwd, data)
    document = _with_flags(read_yaml(source.text, source.file), sets, engine, seed)
    return Base(document, Path(source.path).stem, source, tuple(_layers(path, cwd)), tuple(folders))


def _open(name: str, cwd: Path, beside_too: Path | None = None) -> tuple[Source, Path]:
    """The scenario's file: a path as the user gave it, or a name that is looked up."""
    if name.endswith((".yaml", ".yml")) or "/" in name:
        path = cwd / Path(name).expanduser()
        if not path.is_file():
            remedy = "Correct the path, or give the name of a scenario: `lbt-sim run quickstart`."
            raise ScenarioError("there is no such file", where=Place(name), remedy=remedy)
        return Source(path.name, read_text(path, name), name), path.resolve()
    layers = [FolderLayer(cwd, "here"), built_in()]
    if beside_too is not None and beside_too.resolve() not in (cwd, built_in().root.resolve()):
        layers.insert(0, FolderLayer(beside_too, "beside the study"))
    for layer in layers:
        if name in layer.names("scenarios"):
            found = Library([layer]).find("scenarios", name)
            return found, (layer.root / found.path).resolve()
    Library(layers).find("scenarios", name, where=Place(key=name))
    raise AssertionError(name)  # find raises for a name that no layer lists


def _layers(path: Path, cwd: Path) -> list[Layer]:
    """Beside the scenario, the working directory, the library; a built-in scenario has nothing of its own beside it."""
    library = built_in()
    here = FolderLayer(cwd, "here")
    own = beside(path)
    layers: list[Layer] = []
    if own not in (cwd, library.root.resolve()):
        layers.append(FolderLayer(own, f"beside {path.name}"))
    layers.append(here)
    if library.root.resolve() != cwd:
        layers.append(library)
    return layers


def _with_flags(document: Document, sets: Sequence[str], engine: str | None, seed: int | None) -> Document:
    document = replace(document, value=expand_short_forms(document.value))
    if engine is not None:
        document = on_engine(document, engine)
    document = override(document, sets)
    if seed is not None:
        flags = {**document.flags, ("seed",): f"--seed {seed}"}
        document = replace(document, value={**document.value, "seed": seed}, flags=flags)
    return document


def on_engine(document: Document, name: str) -> Document:
    """A copy with every model on another engine.

    A `model` stays where that engine takes it; other options were the old engine's.
    """
    from lbt_sim.models.registry import engine

    flag = f"--engine {name}"
    fields = engine(name, Place(key=flag)).spec().model_fields
    models = document.value.get("models")
    if not isinstance(models, dict):
        return document
    flags = dict(document.flags)
    switched: dict[str, Any] = {}
    for key, spec in models.items():
        if not isinstance(spec, dict) or spec.get("engine") == name:
            switched[key] = spec
            continue
        switched[key] = {"engine": name}
        flags["models", key] = flag
        if "model" in fields:
            model = spec.get("model")
            model = model if _takes(name, model) else DEFAULT_MODELS.get(name, model)
            switched[key] |= {"model": model} if model is not None else {}
    return replace(document, value={**document.value, "models": switched}, flags=flags)


def _takes(engine: str, model: Any) -> bool:
    """Whether a model's name means something to an engine: llama.cpp's are of a kind of their own, vLLM needs one."""
    if engine == "vllm":
        return isinstance(model, str)
    if engine != "llamacpp":
        return True
    from lbt_sim.models.weights import KNOWN

    return isinstance(model, str) and (model in KNOWN or model.endswith(".gguf"))


def _checked(
    document: Document, library: Library, name: str, source: Source, *, from_run: bool = False
) -> LoadedScenario:
    value, presets = apply_preset(document.value)
    document = replace(document, value=value)
    file, mistakes = find_mistakes(document, ScenarioFile)
    if file is None:
        raise as_one([*mistakes, *missing_names(document, library)])
    _check_models(document, file)
    return LoadedScenario(file, library, name, source, document, presets, from_run)


def _check_models(document: Document, file: ScenarioFile) -> None:
    """Refuses engines that are not there, and options that they do not have."""
    from lbt_sim.models.registry import engine

    mistakes: list[ScenarioError] = []
    for name, spec in file.models.items():
        at: KeyPath = ("models", name)
        try:
            options = engine(spec.engine, document.place((*at, "engine"))).spec()
        except ScenarioError as error:
            mistakes.append(error)
            continue
        part = replace(document, value={"models": {name: spec.model_extra or {}}})
        mistakes += find_mistakes(part, options, at)[1]
    if mistakes:
        raise as_one(mistakes)


# --- run folders -------------------------------------------------------------------------------------------


def dump_resolved(loaded: LoadedScenario) -> str:
    """The scenario with every value, and every file that it uses: what a run folder keeps as `scenario.yaml`.

    Raises:
        ScenarioError: Someone or something that the scenario names is not there.
    """
    resolve_agents(loaded)
    room = resolve_classroom(loaded)
    for graph in (room.file.file, *(edge.topology.file for edge in room.file.edges if edge.among)):
        if graph is not None:
            room.read_file(graph)
    for given in (loaded.file.task.jsonl, loaded.file.task.csv):
        for name in [given] if isinstance(given, str) else given or []:
            loaded.data_file(name)
    value = loaded.file.model_dump(by_alias=True, exclude_none=True)
    # Keys of other sources than the task's own are mistakes, even with their defaults.
    value["task"] = loaded.file.task.model_dump(exclude_unset=True)
    # A null that is written keeps a preset's value away.
    value["method"] = loaded.file.method.model_dump(by_alias=True)
    # Entries of the cast are put over agents and personas: a default written out there would hide theirs.
    value["cast"] = loaded.file.cast.model_dump(by_alias=True, exclude_unset=True)
    resolved: dict[str, Any] = {"name": loaded.name, "file": loaded.source.file}
    if loaded.library.data_found:
        resolved["data"] = dict(sorted(loaded.library.data_found.items()))
    text = write_yaml({**value, "resolved": resolved, "library": loaded.library.snapshot()})
    return "# Written by lbt-sim: the scenario with every value, and the files that it uses.\n" + text


def load_resolved(
    text: str,
    file: str,
    *,
    sets: Sequence[str] = (),
    engine: str | None = None,
    data: Sequence[Path | str] = (),
    cwd: Path | None = None,
) -> LoadedScenario:
    """The scenario in a run folder, with the files that it kept; `sets` change it, as `fork` does.

    Args:
        text: What `dump_resolved` gave.
        file: Its file, as shown to people.
        sets: `key.path=value`, done in order.
        engine: Puts every model on this engine.
        data: Folders to look for data files in, where they are no longer where they were.
        cwd: The working directory, if it is another than the process's.

    Raises:
        ScenarioError: It was changed by hand into something invalid, or `sets` do so.
    """
    cwd = (cwd or Path.cwd()).resolve()
    document = read_yaml(text, file)
    value = dict(document.value)
    kept = _texts(document, "library", value.pop("library", {}))
    resolved = value.pop("resolved", {})
    resolved = resolved if isinstance(resolved, dict) else {}
    known = _texts(document, "resolved.data", resolved.get("data", {}))
    library = Library(
        [SnapshotLayer(kept, file), FolderLayer(cwd, "here"), built_in()],
        data=data_folders(None, cwd, data),
        known_data=known,
    )
    name, origin = str(resolved.get("name", "scenario")), str(resolved.get("file", file))
    document = _with_flags(replace(document, value=value), sets, engine, None)
    return _checked(document, library, name, Source(f"{name}.yaml", text, origin), from_run=True)


def _texts(document: Document, key: str, value: Any) -> dict[str, str]:
    if isinstance(value, dict) and all(isinstance(text, str) for text in value.values()):
        return value
    raise ScenarioError(
        f"'{key}' is not a mapping of files to texts",
        where=document.place(key.split(".")),
        remedy="The file was changed; a run's own scenario.yaml is not for editing. Start the run anew.",
    )
