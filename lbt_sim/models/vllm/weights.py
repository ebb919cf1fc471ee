"""Which weights a server loads, and what stands for them in a run's record: `name@what exactly`.

A Hugging Face id is pinned to a commit before anything starts, so that replicas, restarts and a resumed run have the
same weights even when the hub's have moved on. A GGUF file is written out once as a Hugging Face folder, since that is
what vLLM computes with.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import filelock

from lbt_sim.errors import ModelUnavailable
from lbt_sim.models.vllm import hub
from lbt_sim.models.vllm.fingerprint import PATTERNS, Contents, read_folder, read_json
from lbt_sim.models.vllm.hub import meant
from lbt_sim.models.vllm.install import Installation, installations, run
from lbt_sim.models.vllm.spec import VllmSpec, path_of
from lbt_sim.models.weights import KNOWN, cache_dir, locate, sha256_of

__all__ = ["Weights", "check", "find"]

LOCK_SECONDS = 7200.0

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Weights:
    """What a server is started with.

    Attributes:
        argument: For `--model`.
        identity: `<name>@<commit or hash>`: equal for equal weights.
        detail: For the manifest.
        revision: For `--revision`, None for folders.
        local: Whether everything is in a folder of this machine, so that nothing need be fetched.
        contents: What the files hold; None where that is not known, as it may be of a Hugging Face id.
    """

    argument: str
    identity: str
    detail: Mapping[str, object] = field(default_factory=dict)
    revision: str | None = None
    local: bool = False
    contents: Contents | None = None


def find(spec: VllmSpec, installation: Installation, tell: Tell) -> Weights:
    """The weights of a scenario's model; a GGUF file is written out now, unless it was before.

    Args:
        spec: The model's options.
        installation: The vLLM that will load them; its interpreter writes GGUF files out.
        tell: Told of what takes time.

    Raises:
        ModelUnavailable: They are not there, are damaged, or cannot be written out.
    """
    model = spec.model
    if model in KNOWN:
        found = locate(model)
        if found is None:
            raise ModelUnavailable(
                f"the model {model!r} has not been fetched yet", remedy=f"Run `lbt-sim models pull {model}`."
            )
        return _of_gguf(model, found, spec, installation, tell)
    path = path_of(model)
    if _is_gguf(path):
        return _of_gguf(path.name, path.absolute(), spec, installation, tell)
    if path.is_dir():
        return _of_folder(path.absolute(), spec)
    if _HUB_ID.fullmatch(model):
        return _of_hub(spec, installation)
    raise _nowhere(model)


def check(spec: VllmSpec) -> None:
    """What can be said of a scenario's model without any vLLM: nobody is asked, and nothing is written out.

    Raises:
        ModelUnavailable: There is no such file or folder, or it is no model.
    """
    path = path_of(spec.model)
    if spec.model in KNOWN:
        _no_revision(spec, spec.model)
    elif _is_gguf(path):
        _no_revision(spec, path.name)
        _check_magic(path.name, path.absolute())
    elif path.is_dir():
        _of_folder(path.absolute(), spec)
    elif not _HUB_ID.fullmatch(spec.model):
        raise _nowhere(spec.model)


def _is_gguf(path: Path) -> bool:
    return path.name.endswith(".gguf") or path.is_file()


def _nowhere(model: str) -> ModelUnavailable:
    return ModelUnavailable(
        f"there is no folder {path_of(model)}" + meant(model),
        valid=tuple(sorted(KNOWN)),
        remedy="Name a folder with a config.json, a GGUF file, a Hugging Face id (`org/name`), or a known model.",
    )


# --- folders -----------------------------------------------------------------------------------------------


def _of_folder(folder: Path, spec: VllmSpec) -> Weights:
    if spec.revision is not None:
        raise ModelUnavailable(f"{folder} is a folder, which has no revisions", remedy="Leave `revision` out.")
    return _folder(folder, folder.name, "")


def _folder(folder: Path, name: str, digest: str) -> Weights:
    """A folder's weights; `digest` stands for them where it is known otherwise."""
    if not (folder / "config.json").is_file():
        what = "is a LoRA adapter" if (folder / "adapter_config.json").is_file() else "has no config.json"
        raise ModelUnavailable(
            f"{folder} {what}: not a model that vLLM can load",
            remedy="Name a folder that `save_pretrained` wrote; an adapter's goes under `lora`, beside its `model`.",
        )
    config = read_json(folder / "config.json")
    contents = read_folder(folder, PATTERNS)
    detail = {
        "folder": str(folder),
        "digest": digest or contents.digest,
        "bytes": contents.stored,
        "architecture": next(iter(config.get("architectures") or []), ""),
        "stored_as": config.get("dtype") or config.get("torch_dtype"),
    }
    return Weights(str(folder), f"{name}@{digest or contents.digest}", detail, local=True, contents=contents)


# --- the hub -----------------------------------------------------------------------------------------------


def _of_hub(spec: VllmSpec, installation: Installation) -> Weights:
    environment = {**os.environ, **spec.environment}
    wanted = spec.revision or "main"
    cache = hub.cache_of(spec.model, environment)
    commit = wanted if hub.COMMIT.fullmatch(wanted) else hub.cached_commit(cache, wanted)
    source = "given" if commit == wanted else "this machine's cache"
    contents = hub.cached_contents(cache, commit) if commit else None
    if contents is None and installation.python and "VLLM_USE_MODELSCOPE" not in environment:
        told = hub.ask(spec.model, commit or spec.revision, installation.python, environment)
        if commit is None:
            commit, source = hub.asked_commit(spec, told), "the hub"
            contents = hub.cached_contents(cache, commit)
        contents = contents or hub.asked_contents(told)
    revision = commit or spec.revision
    detail = {"hub": spec.model, "revision": wanted, "commit": commit, "commit_from": source if commit else None}
    return Weights(spec.model, f"{spec.model}@{revision or 'main'}", detail, revision=revision, contents=contents)


# --- GGUF --------------------------------------------------------------------------------------------------


def _of_gguf(name: str, path: Path, spec: VllmSpec, installation: Installation, tell: Tell) -> Weights:
    _no_revision(spec, name)
    digest = _checked(name, path)
    dtype = "float32" if spec.dtype == "auto" else spec.dtype
    folder = cache_dir() / "huggingface" / f"{path.stem}-{digest[:12]}-{dtype}"
    if not (folder / "config.json").is_file():
        _write_out(path, folder, dtype, installation, tell)
    weights = _folder(folder, name, digest[:12])
    return Weights(
        weights.argument,
        weights.identity,
        {**weights.detail, "gguf": str(path), "sha256": digest, "written_as": dtype},
        local=True,
        contents=weights.contents,
    )


def _no_revision(spec: VllmSpec, name: str) -> None:
    if spec.revision is not None:
        raise ModelUnavailable(f"{name} is a file, which has no revisions", remedy="Leave `revision` out.")


def _check_magic(name: str, path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise _unreadable(path, error) from error
    if magic != b"GGUF":
        raise ModelUnavailable(f"{path} is not a GGUF file", remedy=_again(name))


def _unreadable(path: Path, error: OSError) -> ModelUnavailable:
    return ModelUnavailable(f"{path} cannot be read: {error.strerror}", remedy="Correct the path, or its permissions.")


def _again(name: str) -> str:
    return f"Run `lbt-sim models pull {name}`." if name in KNOWN else "Fetch the file again."


def _checked(name: str, path: Path) -> str:
    """The file's SHA-256."""
    _check_magic(name, path)
    try:
        digest = sha256_of(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    if name in KNOWN and digest != KNOWN[name].sha256:
        raise ModelUnavailable(f"{path} is damaged: its SHA-256 is not that of {name!r}", remedy=_again(name))
    return digest


def _write_out(path: Path, folder: Path, dtype: str, installation: Installation, tell: Tell) -> None:
    """Writes the folder, once even when several want it; nothing half-written stays under its name."""
    python = _writer(installation)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder.with_name(folder.name + ".lock"), timeout=LOCK_SECONDS):
            if (folder / "config.json").is_file():
                return
            for left in folder.parent.glob(f".{glob.escape(folder.name)}.*"):  # of one that was killed
                shutil.rmtree(left, ignore_errors=True)
            tell(f"writing {path.name} out as a Hugging Face folder, once: {folder}")
            with tempfile.TemporaryDirectory(
                prefix=f".{folder.name}.", dir=folder.parent, ignore_cleanup_errors=True
            ) as new:
                _convert(python, path, Path(new) / "model", dtype)
                (Path(new) / "model").rename(folder)
    except filelock.Timeout:
        raise ModelUnavailable(
            f"another process has been writing {folder} for {LOCK_SECONDS / 3600:.0f} hours", remedy="End it."
        ) from None
    except OSError as error:
        raise ModelUnavailable(
            f"{path.name} cannot be written out to {folder.parent}: {error.strerror or error}",
            remedy="Free some disk space, or set LBT_SIM_CACHE to a folder that can be written.",
        ) from error


def _writer(installation: Installation) -> str:
    """An interpreter that can write GGUF files out: the server's own, or, beside a command, any that is found."""
    if installation.python and not installation.missing:
        return installation.python
    if not installation.python:
        found = [one for one in installations() if isinstance(one, Installation) and not one.missing]
        if found:
            return found[0].python
        raise ModelUnavailable(
            "a GGUF file is written out by an environment with vLLM, gguf and accelerate, and none was found",
            remedy="Name a Hugging Face folder as `model`, or set LBT_SIM_VLLM_PYTHON to such an interpreter.",
        )
    raise _without(installation.python, installation.missing)


def _without(python: str, names: tuple[str, ...]) -> ModelUnavailable:
    return ModelUnavailable(
        f"vLLM's environment lacks what writes GGUF files out: {', '.join(names)}",
        remedy=f"Run `uv pip install --python {python} {' '.join(names)}`.",
    )


def _convert(python: str, path: Path, folder: Path, dtype: str) -> None:
    script = Path(__file__).with_name("gguf_to_folder.py")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "TOKENIZERS_PARALLELISM": "false"}
    told = run([python, "-I", str(script), str(path), str(folder), dtype], environment, None)
    if not told and (folder / "config.json").is_file():
        return
    kind, said = told.get("kind", ""), str(told.get("error", "it left nothing behind"))[:400]
    if kind == "packages":
        raise _without(python, ("gguf", "accelerate"))
    remedy = {
        "disk": "Free some disk space, or set LBT_SIM_CACHE to a folder on a larger disk.",
        "memory": "Use a machine with more memory for this once, or a Hugging Face folder of the model.",
        "file": "Fetch the file again, or use a Hugging Face folder of the model: not every GGUF file can be read.",
    }.get(str(kind), "Try it again.")
    raise ModelUnavailable(f"{path.name} cannot be written out for vLLM: {said}", remedy=remedy)
