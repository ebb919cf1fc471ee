"""Which weights a server loads, and what stands for them in a run's record: `name@what exactly`.

A Hugging Face id is pinned to a commit before anything starts, so that replicas, restarts and a resumed run have the
same weights even when the hub's have moved on. A GGUF file is written out once as a Hugging Face folder, since that is
what vLLM computes with.
"""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock

from lbt_sim.errors import ModelUnavailable, nearest
from lbt_sim.models.vllm.fingerprint import Contents, read_folder, read_json
from lbt_sim.models.vllm.install import Installation, installations
from lbt_sim.models.vllm.spec import VllmSpec
from lbt_sim.models.weights import KNOWN, cache_dir, locate, sha256_of

__all__ = ["Weights", "find"]

PATTERNS = ("*.safetensors", "pytorch_model*.bin", "*.bin", "*.pt")
"""The files of weights in a folder, the first that there are; vLLM looks for them in the same order."""

HUB_SECONDS = 30.0
LOCK_SECONDS = 7200.0

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")

_ASK_HUB = """
import json, sys
try:
    from huggingface_hub import HfApi
    print(json.dumps({"commit": HfApi().model_info(sys.argv[1], revision=sys.argv[2] or None).sha}))
except Exception as error:
    print(json.dumps({"kind": type(error).__name__, "error": str(error)[:500]}))
"""
"""Asked with vLLM's own interpreter, so that its settings, mirror and token are those that the server will use."""

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
        contents: What the folder holds, None for a Hugging Face id.
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
    path = Path(model).expanduser()
    if model in KNOWN:
        found = locate(model)
        if found is None:
            raise ModelUnavailable(
                f"the model {model!r} has not been fetched yet", remedy=f"Run `lbt-sim models pull {model}`."
            )
        return _of_gguf(model, found, spec, installation, tell)
    if model.endswith(".gguf") or path.is_file():
        return _of_gguf(path.name, path.absolute(), spec, installation, tell)
    if path.is_dir():
        return _of_folder(path.absolute(), spec)
    if _HUB_ID.fullmatch(model):
        return _of_hub(spec, installation)
    raise ModelUnavailable(
        f"there is no folder {path}" + _meant(model),
        valid=tuple(sorted(KNOWN)),
        remedy="Name a folder with a config.json, a GGUF file, a Hugging Face id (`org/name`), or a known model.",
    )


def _meant(model: str) -> str:
    near = nearest(model, KNOWN)
    return f"; did you mean {near!r}?" if near else ""


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
    commit = wanted if _COMMIT.fullmatch(wanted) else _cached_commit(spec.model, wanted, environment)
    source = "given" if commit == wanted else "this machine's cache"
    if commit is None and installation.python and "VLLM_USE_MODELSCOPE" not in environment:
        commit, source = _asked_commit(spec, installation.python, environment), "the hub"
    revision = commit or spec.revision
    detail = {"hub": spec.model, "revision": wanted, "commit": commit, "commit_from": source if commit else None}
    return Weights(spec.model, f"{spec.model}@{revision or 'main'}", detail, revision=revision)


def _cached_commit(model: str, revision: str, environment: Mapping[str, str]) -> str | None:
    """The commit that the hub's cache on this machine has for a branch or tag."""
    home = environment.get("HF_HOME") or str(Path(environment.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    hub = environment.get("HF_HUB_CACHE") or environment.get("HUGGINGFACE_HUB_CACHE") or str(Path(home) / "hub")
    note = Path(hub).expanduser() / ("models--" + model.replace("/", "--")) / "refs" / revision
    try:
        commit = note.read_text("utf-8").strip()
    except (OSError, ValueError):
        return None
    return commit if _COMMIT.fullmatch(commit) else None


def _asked_commit(spec: VllmSpec, python: str, environment: Mapping[str, str]) -> str:
    """The commit that the hub has now.

    Raises:
        ModelUnavailable: The hub does not have it, does not give it, or cannot be reached; nor is it cached.
    """
    told = _run([python, "-I", "-c", _ASK_HUB, spec.model, spec.revision or ""], environment, HUB_SECONDS)
    commit = told.get("commit")
    if isinstance(commit, str) and commit:
        return commit
    kind, said = str(told.get("kind", "")), str(told.get("error", "no answer")).splitlines()
    first = said[0] if said else kind
    if kind == "GatedRepoError":
        remedy = "Accept its licence on the hub, and set HF_TOKEN."
        raise ModelUnavailable(f"{spec.model} is given out by the hub only to those who asked for it", remedy=remedy)
    if kind in ("RepositoryNotFoundError", "HFValidationError", "RevisionNotFoundError"):
        what = f"revision {spec.revision!r} of {spec.model}" if kind.startswith("Revision") else repr(spec.model)
        raise ModelUnavailable(
            f"the Hugging Face hub has no {what}" + _meant(spec.model),
            valid=tuple(sorted(KNOWN)),
            remedy="Correct it; a private model needs HF_TOKEN. A folder of this machine is named with its path.",
        )
    raise ModelUnavailable(
        f"{spec.model} is not in this machine's cache, and the Hugging Face hub cannot be asked: {first[:200]}"
        + ("" if "/" in spec.model else _meant(spec.model)),
        remedy="Check the network (HF_ENDPOINT: a mirror; HF_HUB_OFFLINE: switched off), or name a local folder.",
    )


# --- GGUF --------------------------------------------------------------------------------------------------


def _of_gguf(name: str, path: Path, spec: VllmSpec, installation: Installation, tell: Tell) -> Weights:
    if spec.revision is not None:
        raise ModelUnavailable(f"{name} is a file, which has no revisions", remedy="Leave `revision` out.")
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


def _checked(name: str, path: Path) -> str:
    """The file's SHA-256."""
    again = f"Run `lbt-sim models pull {name}`." if name in KNOWN else "Fetch the file again."
    try:
        with path.open("rb") as file:
            magic = file.read(4)
        digest = sha256_of(path)
    except OSError as error:
        raise ModelUnavailable(
            f"{path} cannot be read: {error.strerror}", remedy="Correct the path, or its permissions."
        ) from error
    if magic != b"GGUF":
        raise ModelUnavailable(f"{path} is not a GGUF file", remedy=again)
    if name in KNOWN and digest != KNOWN[name].sha256:
        raise ModelUnavailable(f"{path} is damaged: its SHA-256 is not that of {name!r}", remedy=again)
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
    told = _run([python, "-I", str(script), str(path), str(folder), dtype], environment, None)
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


def _run(argv: list[str], environment: Mapping[str, str], seconds: float | None) -> dict[str, Any]:
    """Runs a script that writes a JSON object as its last line; what it said where it writes none."""
    try:
        done = subprocess.run(  # noqa: S603 - vLLM's own interpreter and our own code
            argv, capture_output=True, env=dict(environment), timeout=seconds, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {seconds:g} s"}
    lines = done.stdout.decode("utf-8", "replace").strip().splitlines()
    try:
        told = json.loads(lines[-1]) if lines else None
    except ValueError:
        told = None
    if isinstance(told, dict):
        return told
    said = done.stderr.decode("utf-8", "replace").strip().splitlines()
    ended = f"ended by signal {-done.returncode}" if done.returncode < 0 else f"exit status {done.returncode}"
    return {"error": f"{ended}: {said[-1][:300]}" if said else ended}
