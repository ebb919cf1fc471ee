"""What works on this machine: one finding for each thing that a run may need. `lbt-sim doctor` renders them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

__all__ = ["Finding", "diagnose"]

Status = Literal["ok", "missing", "broken"]

Check = Callable[[], "Iterator[Finding]"]

MODEL = "smollm2-135m"
ROOM = 1 << 30
"""Bytes of disk and memory below which a first run is in danger."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: What.
        status: `ok`; `missing`: not there, and whether that matters depends on what one wants to do, as `remedy`
            says; `broken`: there, and does not work.
        detail: What was found.
        remedy: What to do, '' where nothing is to be done.
    """

    name: str
    status: Status
    detail: str
    remedy: str = ""


def diagnose(seconds: float = 10.0) -> list[Finding]:
    """Look at everything, side by side. Never raises: a check that fails is itself a finding.

    Args:
        seconds: After which a check that has not ended is reported as such and left alone.
    """
    checks: dict[str, Check] = {
        "Python": _python,
        "SQLite": _sqlite,
        "terminal": _terminal,
        "processors": _processors,
        "memory": _memory,
        "disk": _disk,
        "engines": _engines,
        "engine llamacpp": _llamacpp,
        "engine vllm": _vllm,
        "extras": _extras,
        "Hugging Face hub": _hub,
        "GPU": _gpu,
        "LBT_SIM_DATA": _data,
    }
    found: dict[str, list[Finding]] = {}

    def run(name: str) -> None:
        try:
            found[name] = list(checks[name]())
        except Exception as error:  # a doctor that dies helps nobody
            found[name] = [Finding(name, "broken", f"the check itself failed: {type(error).__name__}: {error}")]

    # Daemons: a name server that does not answer cannot be interrupted, and must not hold anybody up.
    threads = [threading.Thread(target=run, args=(name,), daemon=True) for name in checks]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    late = "Run it again when the machine has less to do; if it stays so, this does not work here."
    return [
        finding
        for name in checks
        for finding in found.get(name, [Finding(name, "broken", f"no answer within {seconds:g} s", late)])
    ]


def _python() -> Iterator[Finding]:
    yield Finding("Python", "ok", f"{platform.python_version()} ({platform.system()} {platform.machine()})")


def _sqlite() -> Iterator[Finding]:
    version = sqlite3.sqlite_version
    if sqlite3.sqlite_version_info < (3, 35, 0):
        yield Finding("SQLite", "broken", version, "Use a Python built with SQLite 3.35 or newer.")
    else:
        yield Finding("SQLite", "ok", version)


def _terminal() -> Iterator[Finding]:
    encoding = (getattr(sys.stdout, "encoding", None) or "unknown").lower()
    kind = "a terminal" if sys.stdout is not None and sys.stdout.isatty() else "no terminal: plain lines"
    if encoding.replace("-", "") != "utf8":
        yield Finding("terminal", "broken", f"{kind}, {encoding}", "Set PYTHONUTF8=1, or a UTF-8 locale.")
    else:
        yield Finding("terminal", "ok", f"{kind}, {encoding}")


def _processors() -> Iterator[Finding]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Finding("processors", "ok", f"{usable} usable of {os.cpu_count() or usable}")


def _memory() -> Iterator[Finding]:
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        total, free = (page * os.sysconf(name) for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
    except (ValueError, OSError, AttributeError):
        yield Finding("memory", "ok", "size unknown")
        return
    detail = f"{total / 2**30:.1f} GiB, {free / 2**30:.1f} GiB free"
    if total < ROOM:
        yield Finding("memory", "broken", detail, "The embedded engine needs about 1 GiB; use `openai` instead.")
    else:
        yield Finding("memory", "ok", detail)


def _disk() -> Iterator[Finding]:
    from lbt_sim.models.weights import cache_dir

    for name, folder in (("disk, model cache", cache_dir()), ("disk, working directory", Path.cwd())):
        there = next(parent for parent in (folder, *folder.parents) if parent.exists())
        free = shutil.disk_usage(there).free
        detail = f"{folder}: {free / 2**30:.1f} GiB free"
        if not os.access(there, os.W_OK):
            yield Finding(
                name, "broken", f"{folder} cannot be written", "Change its permissions, or set LBT_SIM_CACHE."
            )
        elif free < ROOM:
            yield Finding(name, "broken", detail, "Free some disk space.")
        else:
            yield Finding(name, "ok", detail)


def _engines() -> Iterator[Finding]:
    from lbt_sim.errors import LbtError
    from lbt_sim.models import registry

    for name in registry.engine_names():
        if name in ("llamacpp", "vllm"):
            continue  # they have checks of their own
        try:
            registry.engine(name).spec()
        except (LbtError, ImportError, AttributeError) as error:
            yield Finding(f"engine {name}", "broken", str(error), "Reinstall the package that brings it.")
        else:
            yield Finding(f"engine {name}", "ok", registry.engine(name).summary)
    for problem in registry.refused_engines():
        yield Finding("engine of a package", "broken", problem, "Update or remove that package.")


def _llamacpp() -> Iterator[Finding]:
    from lbt_sim.models.weights import KNOWN, locate, sha256_of

    if importlib.util.find_spec("xllamacpp") is None:
        yield Finding("engine llamacpp", "missing", "no package xllamacpp", "Install it: uv pip install xllamacpp")
        return
    pull = f"Run `lbt-sim models pull {MODEL}`."
    path = locate(MODEL)
    if path is None:
        yield Finding("engine llamacpp", "ok", f"xllamacpp {importlib.metadata.version('xllamacpp')}")
        yield Finding(f"model {MODEL}", "missing", "not fetched yet", pull)
        return
    if sha256_of(path) != KNOWN[MODEL].sha256:
        yield Finding(f"model {MODEL}", "broken", f"{path} is damaged: wrong SHA-256", pull)
        return
    yield Finding(f"model {MODEL}", "ok", str(path))
    yield _canary(path)


def _canary(path: Path) -> Finding:
    """One token from the model, in a process of its own: a native crash must not take the doctor with it."""
    code = (
        "import sys, pathlib\n"
        "from lbt_sim.models.llamacpp_native import Native, Setup\n"
        "native = Native.load(Setup(pathlib.Path(sys.argv[1]), 256, 1, 1, 0, 0))\n"
        "native.chat({'messages': [{'role': 'user', 'content': 'Hi'}], 'max_tokens': 1})['choices'][0]\n"
        "native.close()\n"
    )
    name = "engine llamacpp"
    remedy = "Reinstall xllamacpp, or use another engine."
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and code; the path is an argument
            [sys.executable, "-c", code, str(path)], capture_output=True, timeout=30, check=False
        )
    except subprocess.TimeoutExpired:
        return Finding(name, "broken", f"no token within 30 s from {path.name}", remedy)
    if done.returncode:
        last = (done.stderr.decode("utf-8", "replace").strip().splitlines() or [f"exit {done.returncode}"])[-1]
        return Finding(name, "broken", last[:300], remedy)
    return Finding(name, "ok", f"xllamacpp {importlib.metadata.version('xllamacpp')} answers")


def _extras() -> Iterator[Finding]:
    for extra, module, what in (
        ("math", "math_verify", "the grader `math`"),
        ("hub", "datasets", "tasks from a Hugging Face dataset id"),
    ):
        if importlib.util.find_spec(module) is None:
            remedy = f"Only for {what}: uv pip install 'lbt-sim[{extra}]'"
            yield Finding(f"extra {extra}", "missing", f"no package {module}", remedy)
        else:
            yield Finding(f"extra {extra}", "ok", what)


def _hub() -> Iterator[Finding]:
    name = "Hugging Face hub"
    if os.environ.get("HF_HUB_OFFLINE", "").strip().lower() in {"1", "true", "yes", "on"}:
        yield Finding(name, "missing", "switched off by HF_HUB_OFFLINE", "Only for dataset ids.")
        return
    parts = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    host = parts.hostname or "huggingface.co"
    try:
        port = parts.port or (80 if parts.scheme == "http" else 443)
        socket.create_connection((host, port), timeout=3).close()
    except (OSError, ValueError) as error:
        remedy = "Only for dataset ids; models are then fetched from the Python package index."
        yield Finding(name, "missing", f"{host} cannot be reached: {error}", remedy)
    else:
        yield Finding(name, "ok", f"{host} can be reached")


def _vllm() -> Iterator[Finding]:
    """The vLLM that would be started, and the others that were found: `python` in a scenario chooses among them."""
    from lbt_sim.models.vllm import install

    looked = install.installations()
    recipe = install.how_to_install(install.default_environment())
    refused = next((one for one in looked if isinstance(one, install.Problem) and one.explicit), None)
    found = [one for one in looked if isinstance(one, install.Installation)]
    if refused is not None:  # nothing else is taken in its stead
        yield Finding("engine vllm", "broken", str(refused), f"Correct it, or unset it.\n{recipe}")
    elif not found:
        places = "; ".join(map(str, looked))
        yield Finding("engine vllm", "missing", f"no environment with vLLM ({places})", recipe)
    for number, one in enumerate(found):
        name = "engine vllm" if number == 0 and refused is None else "another vLLM"
        yield Finding(name, "ok", f"{one}: {one.python} ({one.source})")
        if one.missing:
            remedy = f"Only for GGUF files: uv pip install --python {one.python} {' '.join(one.missing)}"
            yield Finding(f"{name}, packages", "missing", f"no {', no '.join(one.missing)}", remedy)


def _gpu() -> Iterator[Finding]:
    from lbt_sim.errors import ModelUnavailable
    from lbt_sim.models.vllm.gpus import gpus, told

    try:
        found = gpus()
    except ModelUnavailable as error:
        yield Finding("GPU", "broken", error.what, error.remedy)
        return
    if not found:
        hidden = shutil.which("nvidia-smi") is not None
        detail = "nvidia-smi shows none, or CUDA_VISIBLE_DEVICES hides them" if hidden else "no nvidia-smi"
        remedy = "Not needed: the embedded engine and vLLM's CPU build run on the CPU."
        yield Finding("GPU", "missing", detail, remedy)
    for gpu in found:
        size = "memory unknown" if gpu.total_mib is None else f"{gpu.total_mib / 1024:.1f} GiB"
        size += "" if gpu.free_mib is None else f", {gpu.free_mib / 1024:.1f} GiB free"
        held = f", held by {told(gpu.holders)}" if gpu.holders else ""
        name = f"GPU {gpu.number}"
        if gpu.mig:
            remedy = "vLLM can be started there by hand, and its address named under `urls`."
            yield Finding(name, "missing", f"{gpu.name}, cut into MIG instances: not used", remedy)
        else:
            yield Finding(name, "ok", f"{gpu.name}, {size}{held}")


def _data() -> Iterator[Finding]:
    chosen = os.environ.get("LBT_SIM_DATA")
    if not chosen:
        remedy = "Only for scenarios with files of their own data: set it to their folder, or use `--data`."
        yield Finding("LBT_SIM_DATA", "missing", "not set", remedy)
    elif not Path(chosen).expanduser().is_dir():
        yield Finding("LBT_SIM_DATA", "broken", f"{chosen} is not a folder", "Correct it.")
    else:
        yield Finding("LBT_SIM_DATA", "ok", chosen)
