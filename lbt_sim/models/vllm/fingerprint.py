"""What stands in a folder of weights: a hash that tells one model from another at little cost, and how large they are.

Reading all of a large model takes minutes, and times of files change when they are copied. So hashed are: the names
and whole contents of small files that decide what is answered (configuration, tokenizer, chat template, index, adapter
configuration), and of every file of weights its name and size, and of safetensors the header and the middle 4 KiB of
every tensor, of other formats 256 pieces of 16 KiB. Another training run changes those; a few numbers changed by hand
may go unseen.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

from lbt_sim.errors import ModelUnavailable

__all__ = ["FLOATS", "PATTERNS", "Contents", "read_folder", "read_json"]

PATTERNS = ("*.safetensors", "pytorch_model*.bin", "*.bin", "*.pt")
"""The files of weights in a folder, the first that there are; vLLM looks for them in the same order."""

FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Types of safetensors that are loaded with the type that is asked for -> bytes of a number."""

_SMALL = 64 << 20
"""Bytes. A tokenizer of a large vocabulary has 30 MB."""
_PIECE, _PIECES = 16 << 10, 256
_MIDDLE = 4 << 10
_HEADER = 256 << 20
_TEXTS = (".json", ".jinja", ".model", ".txt", ".tiktoken", ".py")
"""Endings of the small files that decide what is answered: code too, since some models bring theirs."""
_LEFT_OUT = ("training_args", "trainer_state", "README")


@dataclass(frozen=True, slots=True)
class Contents:
    """What stands in a folder of weights.

    Attributes:
        digest: 12 hexadecimal digits, as the module says.
        files: The weights' files.
        stored: Bytes of weights as they are stored.
        floats: How many of the numbers are floating point, which are loaded with the type that is asked for; 0 where
            unknown.
        rest: Bytes of the weights that are loaded as they are stored.
    """

    digest: str
    files: tuple[str, ...]
    stored: int
    floats: int
    rest: int

    def loaded(self, size: int) -> int:
        """Bytes of memory when a floating-point number takes `size` bytes."""
        return self.floats * size + self.rest


def read_folder(folder: Path, patterns: Sequence[str]) -> Contents:
    """Looks at a folder's weights: the files of the first pattern that any are of.

    Raises:
        ModelUnavailable: No such file, one that the index names is missing, or one is damaged.
    """
    weights = _weights(folder, patterns)
    digest = blake2b(digest_size=6)
    for path in sorted(path for path in folder.iterdir() if _decides(path)):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    stored = floats = rest = 0
    loaded = _loaded(folder)
    for path in weights:
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        stored += size
        with path.open("rb") as file:
            if path.suffix == ".safetensors":
                header, tensors = _header(file, path, size)
                digest.update(header)
                for tensor in tensors if not loaded or path.name in loaded else ():
                    floats += tensor.count if tensor.floating else 0
                    rest += 0 if tensor.floating else tensor.end - tensor.begin
                places = [(max(t.begin, (t.begin + t.end - _MIDDLE) // 2), t.end) for t in tensors]
                pieces = ((begin, min(_MIDDLE, end - begin)) for begin, end in places)
            else:
                rest += size
                pieces = ((size * n // _PIECES, _PIECE) for n in range(_PIECES))
            for begin, length in pieces:
                file.seek(begin)
                digest.update(file.read(length))
    return Contents(digest.hexdigest(), tuple(path.name for path in weights), stored, floats, rest)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ModelUnavailable: It cannot be read, or is none.
    """
    try:
        value = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ModelUnavailable(f"{path} cannot be read: {error.strerror}", remedy="Check its permissions.") from error
    except ValueError as error:
        raise ModelUnavailable(f"{path} is not JSON: {error}", remedy="Fetch or write the folder again.") from error
    if not isinstance(value, dict):
        raise ModelUnavailable(f"{path} holds no JSON object", remedy="Fetch or write the folder again.")
    return value


def _decides(path: Path) -> bool:
    return (
        path.suffix in _TEXTS
        and not path.name.startswith(_LEFT_OUT)
        and path.is_file()
        and path.stat().st_size <= _SMALL
    )


def _weights(folder: Path, patterns: Sequence[str]) -> list[Path]:
    found = next((paths for pattern in patterns if (paths := sorted(folder.glob(pattern)))), [])
    if not found:
        raise ModelUnavailable(
            f"{folder} has no weights: no {' and no '.join(patterns)}", remedy="Fetch or write the folder again."
        )
    for index in folder.glob("*.safetensors.index.json"):
        named = read_json(index).get("weight_map")
        names = sorted(set(named.values())) if isinstance(named, dict) else []
        if missing := [name for name in names if not (folder / str(name)).is_file()]:
            raise ModelUnavailable(
                f"{folder} is not complete: {missing[0]} is missing ({len(missing)} of {len(names)} files)",
                remedy="Fetch or write the folder again.",
            )
    return found


def _loaded(folder: Path) -> set[str]:
    """The files that the index names: beside these a folder may hold the same weights in another maker's files."""
    index = folder / "model.safetensors.index.json"
    named = read_json(index).get("weight_map") if index.is_file() else None
    return set(map(str, named.values())) if isinstance(named, dict) else set()


@dataclass(frozen=True, slots=True)
class _Tensor:
    begin: int
    end: int
    floating: bool
    count: int


def _header(file: BinaryIO, path: Path, size: int) -> tuple[bytes, list[_Tensor]]:
    """The header of a safetensors file, which is all there: https://huggingface.co/docs/safetensors."""
    damaged = ModelUnavailable(f"{path} is damaged, or was not written to its end", remedy="Fetch or write it again.")
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(size - 8, _HEADER):
        raise damaged
    header = file.read(length)
    try:
        entries = json.loads(header)
        tensors = list(_tensors(entries, 8 + length))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged from error
    if any(not 0 <= tensor.begin <= tensor.end <= size for tensor in tensors):
        raise damaged
    return header, tensors


def _tensors(entries: Mapping[str, Any], start: int) -> Iterator[_Tensor]:
    for name, entry in entries.items():
        if name == "__metadata__":
            continue
        begin, end = (start + int(offset) for offset in entry["data_offsets"])
        width = FLOATS.get(entry["dtype"])
        yield _Tensor(begin, end, width is not None, (end - begin) // width if width else 0)
