"""Writes a GGUF file out as a Hugging Face folder: `python -I gguf_to_folder.py FILE FOLDER DTYPE`.

Run by path with the interpreter of vLLM's environment, which has torch and transformers; nothing of lbt-sim is
imported.
The last line on standard output is a JSON object: {} when all went well, else `kind` and `error`.
"""

from __future__ import annotations

import errno
import importlib
import json
import sys
from pathlib import Path

__all__ = ["main", "write"]


def write(file: Path, folder: Path, dtype: str) -> None:
    """Writes the folder: weights of that type, tokenizer, chat template, configuration."""
    for name in ("gguf", "accelerate"):
        importlib.import_module(name)
    torch = importlib.import_module("torch")
    transformers = importlib.import_module("transformers")
    source, name = str(file.parent), file.name
    options = {}
    if hasattr(transformers, "GgufConfig"):  # before it, weights were always written out in full
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(source, gguf_file=name)
    kind = transformers.AutoModelForCausalLM
    model = kind.from_pretrained(source, gguf_file=name, dtype=getattr(torch, dtype), **options)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main(file: str, folder: str, dtype: str) -> int:
    """Writes it, and says how it went."""
    try:
        write(Path(file), Path(folder), dtype)
    except Exception as error:  # whatever it is, it is told to the one who asked
        print(json.dumps({"kind": _kind(error), "error": f"{type(error).__name__}: {error}"[:2000]}), flush=True)  # noqa: T201
        return 1
    print("{}", flush=True)  # noqa: T201
    return 0


def _kind(error: BaseException | None) -> str:
    while error is not None:
        if isinstance(error, ImportError):
            return "packages"
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
        if full or "StorageFull" in str(error):
            return "disk"
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            return "memory"
        error = error.__cause__ or error.__context__
    return "file"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
