"""What a Hugging Face id stands for: a commit, and how large its weights are; from this machine's cache, or asked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from lbt_sim.errors import ModelUnavailable, nearest
from lbt_sim.models.vllm.fingerprint import FLOATS, PATTERNS, Contents, read_folder
from lbt_sim.models.vllm.install import run
from lbt_sim.models.vllm.spec import VllmSpec, path_of
from lbt_sim.models.weights import KNOWN

__all__ = ["COMMIT", "ask", "asked_commit", "asked_contents", "cache_of", "cached_commit", "cached_contents", "meant"]

HUB_SECONDS = 30.0

COMMIT = re.compile(r"[0-9a-f]{40}")

_ASK_HUB = """
import json, sys
try:
    from huggingface_hub import HfApi
    info = HfApi().model_info(sys.argv[1], revision=sys.argv[2] or None, files_metadata=True)
    known = getattr(info, "safetensors", None)
    print(json.dumps({
        "commit": info.sha,
        "files": {one.rfilename: one.size for one in info.siblings or () if one.size is not None},
        "numbers": dict(known.parameters) if known else {},
    }))
except Exception as error:
    print(json.dumps({"kind": type(error).__name__, "error": str(error)[:500]}))
"""
"""Asked with vLLM's own interpreter, so that its settings, mirror and token are those that the server will use."""


def cache_of(model: str, environment: Mapping[str, str]) -> Path:
    """Where the hub's cache on this machine has a model."""
    home = environment.get("HF_HOME") or str(Path(environment.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    hub = environment.get("HF_HUB_CACHE") or environment.get("HUGGINGFACE_HUB_CACHE") or str(Path(home) / "hub")
    return path_of(hub) / ("models--" + model.replace("/", "--"))


def cached_commit(cache: Path, revision: str) -> str | None:
    """The commit that it has for a branch or tag."""
    try:
        commit = (cache / "refs" / revision).read_text("utf-8").strip()
    except (OSError, ValueError):
        return None
    return commit if COMMIT.fullmatch(commit) else None


def cached_contents(cache: Path, commit: str) -> Contents | None:
    """What a commit's files hold, where all of them are there."""
    with suppress(ModelUnavailable, OSError):
        return read_folder(cache / "snapshots" / commit, PATTERNS)
    return None


def ask(model: str, revision: str | None, python: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """What the hub has of a model, or why it does not say."""
    return run([python, "-I", "-c", _ASK_HUB, model, revision or ""], environment, HUB_SECONDS)


def asked_contents(told: Mapping[str, Any]) -> Contents | None:
    """What the files hold as the hub tells it: of safetensors how many numbers, of others how many bytes."""
    files, numbers = told.get("files"), told.get("numbers")
    if not isinstance(files, dict):
        return None
    sizes = {name: size for name, size in files.items() if "/" not in name and isinstance(size, int)}
    named = next((found for one in PATTERNS if (found := [name for name in sizes if fnmatch(name, one)])), [])
    # The same weights once more, in their maker's own files.
    named = [name for name in named if not name.startswith("consolidated")] or named
    stored = sum(sizes[name] for name in named)
    numbers = numbers if isinstance(numbers, dict) else {}
    floats = {kind: count for kind in FLOATS if isinstance(count := numbers.get(kind), int)}
    only = floats and numbers.keys() <= FLOATS.keys()  # else a buffer of integers, or packed weights, lie among them
    rest = 0 if only else max(0, stored - sum(count * FLOATS[kind] for kind, count in floats.items()))
    return Contents("", tuple(named), stored, sum(floats.values()), rest) if floats or rest else None


def asked_commit(spec: VllmSpec, told: Mapping[str, Any]) -> str:
    """The commit that the hub has now.

    Raises:
        ModelUnavailable: The hub does not have it, does not give it, or cannot be reached; nor is it cached.
    """
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
            f"the Hugging Face hub has no {what}" + meant(spec.model),
            valid=tuple(sorted(KNOWN)),
            remedy="Correct it; a private model needs HF_TOKEN. A folder of this machine is named with its path.",
        )
    raise ModelUnavailable(
        f"{spec.model} is not in this machine's cache, and the Hugging Face hub cannot be asked: {first[:200]}"
        + ("" if "/" in spec.model else meant(spec.model)),
        remedy="Check the network (HF_ENDPOINT: a mirror; HF_HUB_OFFLINE: switched off), or name a local folder.",
    )


def meant(model: str) -> str:
    """A known model that a name is near to, in words."""
    near = nearest(model, KNOWN)
    return f"; did you mean {near!r}?" if near else ""
