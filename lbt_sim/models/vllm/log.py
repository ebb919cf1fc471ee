"""What a person needs of a vLLM server's log, which holds hundreds of lines and the reason of a failure in one.

A log is foreign text: whatever could act on a terminal is taken out.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

__all__ = ["explain", "telling_lines"]

LONGEST = 400
"""Characters of a line; some hold a whole configuration."""
FURTHER = 3
"""Lines that an exception's message may go on for."""

_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_].*?(?:\x07|\x1b\\|$)|[ -/]*[0-~])?")
_PROCESS = re.compile(r"^(?:\([A-Za-z][\w-]*(?: [\w=:.-]+)*\)\s?)+")
_LEVEL = re.compile(r"^(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL):?\s+(?:[\d: ,.-]*\[[^\]\s]+:\d+\])?\s?")
_EXCEPTION = re.compile(
    r"^(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Exit|Interrupt|Failure|Warning|Timeout)\b(?::|$)"
)
_USAGE = re.compile(r"^\S+: error: ")
_ASIDE = re.compile(r"^During handling of|^The above exception was|Warning: |errors\.pydantic\.dev")
"""After an exception, but no part of its message."""
_TRACEBACK = "Traceback (most recent call last):"
_BAD = ("ERROR", "CRITICAL")

_REMEDIES = (
    (
        r"address already in use|\[Errno 98\]",
        "Another program took the port in the meantime. Start it again.",
    ),
    (
        r"unrecognized arguments|: error: argument |invalid choice:",
        "This vLLM does not take one of the `flags`: they are named as in its own `vllm serve --help=all`.",
    ),
    (
        r"Free memory on device .{0,400}?(?:less than|Desired GPU memory)",
        "The GPU has too little memory free: lower `memory`, or end what else holds it (`nvidia-smi` lists who does).",
    ),
    (
        r"No available memory for the cache blocks",
        "The weights leave no room for the key-value cache: raise `memory` (on the CPU `cpu_cache`), lower `length`, "
        "or spread the model over more GPUs with `tensor_parallel`.",
    ),
    (
        r"larger than the (?:available KV cache memory|maximum number of tokens that can be stored in KV cache)",
        "The key-value cache does not hold one prompt of the model's full length: set `length` lower, or raise "
        "`memory` (on the CPU `cpu_cache`).",
    ),
    (
        r"CUDA out of memory|OutOfMemoryError|CUDA error: out of memory",
        "The GPU ran out of memory: lower `memory` or `length`, use more GPUs with `tensor_parallel`, or end what else "
        "holds its memory (`nvidia-smi` lists who does).",
    ),
    (
        r"Available memory on node .{0,200}less than requested memory|DefaultCPUAllocator: can't allocate memory|"
        r"Cannot allocate memory|\bMemoryError\b",
        "The machine has too little memory: lower `cpu_cache` or `length`, or take a smaller model.",
    ),
    (
        r"(?:max_model_len|max seq len).{0,80}(?:is greater than|exceeds)|derived max_model_len",
        "The model was made for shorter texts: set `length` lower, or leave it out.",
    ),
    (
        r"gated repo|GatedRepoError|is restricted\b.{0,200}(?:access|authorized)|401 Client Error",
        "The model asks for consent: accept its terms on its page at huggingface.co and set HF_TOKEN.",
    ),
    (
        r"couldn't connect to 'https://\S+'|LocalEntryNotFoundError|OfflineModeIsEnabled|outgoing traffic has been "
        r"disabled|cached snapshot folder|Max retries exceeded|Name or service not known|"
        r"Temporary failure in name resolution",
        "The weights are not on this machine and the Hugging Face hub is out of reach: give `model` a local folder, or "
        "fetch the weights where there is a network.",
    ),
    (
        r"RepositoryNotFoundError|is not a local folder and is not a valid model identifier|HFValidationError|"
        r"Repo id must be|404 Client Error|RevisionNotFoundError|EntryNotFoundError|"
        r"does not appear to have a file named|Invalid repository ID or local directory",
        "There is no such model: check `model` (a Hugging Face id or a local folder with config.json) and `revision`.",
    ),
    (
        r"No module named ['\"]?gguf|pip install.{0,20}gguf|gguf.{0,60}(?:is not installed|not found|required)",
        "Reading GGUF files needs the package gguf in vLLM's environment: `pip install gguf` there.",
    ),
    (
        r"No module named (?P<module>['\"]?[\w.]+)",
        "vLLM's environment lacks the module {module}. `lbt-sim doctor` says which environment is taken and what it "
        "lacks.",
    ),
    (
        r"Bfloat16 is only supported|dtype.{0,60}(?:not supported|is invalid|unknown)|Unknown dtype|invalid dtype",
        "The hardware or the model does not take this `dtype`: try `float16`, on the CPU `float32`.",
    ),
    (
        r"Model architectures \[.{0,200}\] .{0,40}not supported|has no vLLM implementation",
        "This vLLM does not know the model's architecture: take a newer vLLM or another model.",
    ),
    (
        r"Failed to infer device type|no NVIDIA driver|No CUDA GPUs are available|CUDA driver version is insufficient",
        "vLLM sees no GPU that it can use. `lbt-sim doctor` says what this machine has; `device: cpu` needs a vLLM "
        "built for the CPU.",
    ),
    (
        r"default chat template is no longer allowed|chat template.{0,80}(?:must provide|not defined|is required)",
        "The model has no chat template: take an instruction-tuned one, or give the flag `chat-template` a file.",
    ),
)  # fmt: skip


def telling_lines(text: str, limit: int = 12) -> list[str]:
    """The lines of a log that say why a server failed, the last ones last.

    They are the last lines of tracebacks and what was logged as an error, each once, without times, names of
    processes and code; where there are none, the log's last lines.

    Args:
        text: The log, or its end.
        limit: How many lines at most.
    """
    lines = [line for line in map(_parse, text.split("\n")) if line[1].strip()]
    found = list(_reasons(lines)) or [line for _, line in lines]
    return _last(found, limit)


def explain(text: str) -> str:
    """What to do about the failure that a log tells of; '' where it is none that is well known."""
    shown = "\n".join(line for _, line in map(_parse, text.split("\n")))
    for pattern, remedy in _REMEDIES:
        if match := re.search(pattern, shown, re.IGNORECASE):
            module = match.groupdict().get("module") or ""
            return remedy.replace("{module}", module.strip("'\""))
    return ""


def _parse(line: str) -> tuple[str, str]:
    """A line's level ('' without one), and the line without what stands before the message."""
    line = _plain(line)
    line = line[_ends(_PROCESS.match(line)) :]
    match = _LEVEL.match(line)
    return (match["level"], line[match.end() :]) if match else ("", line)


def _ends(match: re.Match[str] | None) -> int:
    return match.end() if match else 0


def _plain(line: str) -> str:
    """Without colours, without what a carriage return wrote over, and with nothing that acts on a terminal."""
    line = _ESCAPE.sub("", line.rstrip("\r")).rpartition("\r")[2].replace("\t", "    ")
    if not line.isprintable():
        line = "".join(" " if unicodedata.category(char)[0] in "CZ" else char for char in line)
    return line.rstrip()


def _reasons(lines: Iterable[tuple[str, str]]) -> Iterator[str]:
    """The exceptions at the ends of tracebacks and the logged errors."""
    inside = False
    further = 0
    for level, line in lines:
        text = line.lstrip("|+- ") if inside else line  # an exception group's tracebacks are drawn as a tree
        if _TRACEBACK in line:
            inside, further = True, 0
        elif _USAGE.match(line):
            yield line
        elif inside and line[:1] in {" ", "|"} and not _EXCEPTION.match(text):
            continue
        elif inside or _EXCEPTION.match(line):
            inside, further = False, FURTHER
            yield text
        elif level in _BAD:
            further = 0
            if not line.startswith(" "):
                yield line
        elif further and not level and not _ASIDE.search(line):
            further -= 1
            yield line
        else:
            further = 0


def _last(lines: list[str], limit: int) -> list[str]:
    """The last ones, each once, at its last place."""
    once = list(dict.fromkeys(_short(line.strip()) for line in reversed(lines)))
    return once[:limit][::-1]


def _short(line: str) -> str:
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"
