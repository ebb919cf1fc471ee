"""The NVIDIA GPUs that a server may use, as `nvidia-smi` tells them, and the machine's own memory; who holds it."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lbt_sim.errors import ModelUnavailable, Place

__all__ = ["Gpu", "Holder", "Memory", "check_visible", "gpus", "memory", "numbered", "told"]

SECONDS = 20.0
"""A driver that has not answered by then is stuck; a machine with many GPUs and no persistence takes several."""

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that holds memory. `used_mib` is None where the driver does not tell, as in containers."""

    pid: int
    name: str
    used_mib: int | None

    def __str__(self) -> str:
        size = "" if self.used_mib is None else f", {self.used_mib} MiB"
        return f"{self.name} (process {self.pid}{size})"


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU that may be used.

    Attributes:
        number: What `gpus` in a scenario calls it: its position in `CUDA_VISIBLE_DEVICES` where that is set, else
            `index`.
        index: Its number in `nvidia-smi`, in the order of the PCI bus.
        uuid: Its own name, `GPU-…`.
        name: Its make.
        total_mib: Its memory; None where the driver does not tell.
        free_mib: What of that is free now; None where the driver does not tell.
        holders: Who holds the rest, as far as can be seen from here, the largest first.
        mig: Whether it is cut into MIG instances, which lbt-sim cannot use.
    """

    number: int
    index: int
    uuid: str
    name: str
    total_mib: int | None
    free_mib: int | None
    holders: tuple[Holder, ...] = ()
    mig: bool = False

    @property
    def device(self) -> str:
        """Its name among a `Launch`'s devices."""
        return "gpu-" + self.uuid.removeprefix("GPU-")


@dataclass(frozen=True, slots=True)
class Memory:
    """The machine's own memory, and the processes that hold most of it."""

    total_mib: int
    available_mib: int
    holders: tuple[Holder, ...]


def told(holders: Sequence[Holder], others: str = "processes that cannot be seen from here") -> str:
    """Who holds memory, in words."""
    return ", ".join(map(str, holders)) if holders else others


def gpus(environment: Mapping[str, str] = os.environ) -> list[Gpu]:
    """The GPUs that `CUDA_VISIBLE_DEVICES` leaves, in its order; every one where it is not set.

    Without `nvidia-smi` there are none.

    Raises:
        ModelUnavailable: `nvidia-smi` does not work, or `CUDA_VISIBLE_DEVICES` names what is not there.
    """
    program = shutil.which("nvidia-smi", path=environment.get("PATH"))
    if program is None:
        return []
    every = _every(program)
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    return every if chosen is None or not every else _visible(every, chosen)


def check_visible(environment: Mapping[str, str] = os.environ) -> None:
    """Whether `CUDA_VISIBLE_DEVICES` names GPUs: of this machine, if it has any.

    Raises:
        ModelUnavailable: It names something else.
    """
    chosen = environment.get("CUDA_VISIBLE_DEVICES", "")
    program = shutil.which("nvidia-smi", path=environment.get("PATH"))
    every: list[Gpu] = []
    with suppress(ModelUnavailable):  # a driver that does not answer is told when GPUs are wanted
        every = _every(program) if program else []
    if every:
        _visible(every, chosen)
        return
    for word in map(str.strip, chosen.split(",")):
        if word in _NONE:
            return
        if not word.isdecimal() and not word.startswith(("GPU-", "MIG-")):
            raise ModelUnavailable(
                f"CUDA_VISIBLE_DEVICES={chosen} names {word!r}, which is no GPU",
                remedy="Set it to numbers of GPUs as `nvidia-smi` gives them, or unset it.",
            )


def numbered(numbers: Sequence[int], there: Sequence[Gpu], where: Place | None = None) -> list[Gpu]:
    """The GPUs of these numbers.

    Raises:
        ModelUnavailable: One is not there.
    """
    by_number = {gpu.number: gpu for gpu in there}
    for number in numbers:
        if number not in by_number:
            limited = "CUDA_VISIBLE_DEVICES" in os.environ
            raise ModelUnavailable(
                f"there is no GPU {number}" + (" in CUDA_VISIBLE_DEVICES" if limited and there else ""),
                where=where,
                valid=[f"{gpu.number} ({gpu.name})" for gpu in there],
                remedy="Correct the number, or leave `gpus` out." if there else "This machine has no NVIDIA GPU.",
            )
    return [by_number[number] for number in numbers]


# --- nvidia-smi --------------------------------------------------------------------------------------------


_FIELDS = "index,uuid,name,memory.total,memory.free"


def _every(program: str) -> list[Gpu]:
    done = _ask(program, f"--query-gpu={_FIELDS},mig.mode.current")
    if done.returncode:  # drivers that do not know the field
        done = _ask(program, f"--query-gpu={_FIELDS}")
    if done.returncode and "No devices were found" in done.stdout + done.stderr:
        return []
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").splitlines()[0]
        raise _broken(said[:200])
    holders = _holders(program)
    found: list[Gpu] = []
    for row in _rows(done.stdout):
        if len(row) < 5 or not row[0].isdigit():
            continue
        index, uuid, name = int(row[0]), row[1], row[2]
        held = sorted(holders.get(uuid, []), key=lambda holder: -(holder.used_mib or 0))
        mig = row[5:6] == ["Enabled"]
        found.append(Gpu(index, index, uuid, name, _mib(row[3]), _mib(row[4]), tuple(held), mig))
    return sorted(found, key=lambda gpu: gpu.index)


def _holders(program: str) -> dict[str, list[Holder]]:
    """GPU -> who computes there. What fails here costs nothing but names in messages."""
    found: dict[str, list[Holder]] = {}
    for row in _rows(_ask(program, "--query-compute-apps=gpu_uuid,pid,process_name,used_memory").stdout):
        if len(row) >= 4 and row[1].isdigit():
            name = Path(row[2]).name or "a process"
            found.setdefault(row[0], []).append(Holder(int(row[1]), name, _mib(row[3])))
    return found


def _ask(program: str, query: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(  # noqa: S603 - found by which, fixed arguments
            [program, query, "--format=csv,noheader,nounits"],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _broken(f"no answer within {SECONDS:.0f} s") from None
    except OSError as error:
        raise _broken(error.strerror or str(error)) from error


def _broken(said: str) -> ModelUnavailable:
    return ModelUnavailable(
        f"the NVIDIA driver does not answer: nvidia-smi: {said}",
        remedy="Check the driver, or use `device: cpu` with vLLM's CPU build.",
    )


def _rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in row] for row in csv.reader(text.splitlines(), skipinitialspace=True)]


def _mib(cell: str) -> int | None:
    """Some drivers write the unit even where it is not wanted; containers write `[N/A]`."""
    number = cell.removesuffix("MiB").strip()
    return int(number) if number.isdigit() else None


_NONE = ("", "-1", "NoDevFiles", "none", "void")
"""Words of `CUDA_VISIBLE_DEVICES` that are no GPU: CUDA ignores whatever comes after."""


def _visible(every: Sequence[Gpu], chosen: str) -> list[Gpu]:
    """As CUDA reads `CUDA_VISIBLE_DEVICES`, but that what is not there is an error and not the end of the list."""
    found: list[Gpu] = []
    for item in chosen.split(","):
        word = item.strip()
        if word in _NONE:
            break
        if word.startswith("MIG"):
            raise ModelUnavailable(
                f"CUDA_VISIBLE_DEVICES={chosen} names a MIG instance, which lbt-sim cannot use",
                remedy="Use whole GPUs, or start vLLM yourself and name its address under `urls`.",
            )
        gpu = next((gpu for gpu in every if word == str(gpu.index) or _abbreviates(word, gpu.uuid)), None)
        if gpu is None:
            raise ModelUnavailable(
                f"CUDA_VISIBLE_DEVICES={chosen} names {word!r}, which is not a GPU of this machine",
                valid=[f"{gpu.index} ({gpu.name})" for gpu in every],
                remedy="Correct the variable, or unset it.",
            )
        if gpu.index not in {other.index for other in found}:
            found.append(_with_number(gpu, len(found)))
    return found


def _abbreviates(word: str, uuid: str) -> bool:
    return word.startswith("GPU-") and uuid.startswith(word)


def _with_number(gpu: Gpu, number: int) -> Gpu:
    return Gpu(number, gpu.index, gpu.uuid, gpu.name, gpu.total_mib, gpu.free_mib, gpu.holders, gpu.mig)


# --- the machine -------------------------------------------------------------------------------------------


def memory(holders: int = 3) -> Memory | None:
    """The machine's memory, or the control group's where that is less; None where it cannot be known.

    Args:
        holders: How many of the processes that hold most are named.
    """
    try:
        lines = Path("/proc/meminfo").read_text("utf-8").splitlines()
    except OSError:
        return None
    sizes = {line.split(":")[0]: int(line.split()[1]) // 1024 for line in lines if line.endswith("kB")}
    if "MemTotal" not in sizes or "MemAvailable" not in sizes:
        return None
    total, available = sizes["MemTotal"], sizes["MemAvailable"]
    if (group := _control_group()) is not None:
        total, available = min(total, group[0]), min(available, group[1])
    return Memory(total, available, tuple(_largest(holders)))


def _control_group() -> tuple[int, int] | None:
    """(limit, available) in MiB of this process's control group, None where it has no limit.

    What the group holds as cache of files is given back when memory is wanted, so it counts as available.
    """
    for limit, used, inactive in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        folder = Path("/sys/fs/cgroup")
        try:
            most, now = int((folder / limit).read_text()), int((folder / used).read_text())
            stat = (folder / limit).with_name("memory.stat").read_text().splitlines()
        except (OSError, ValueError):  # 'max' is no number: no limit
            continue
        cache = next((int(line.split()[1]) for line in stat if line.startswith(inactive + " ")), 0)
        return most // MIB, max(0, most - now + cache) // MIB
    return None


def _largest(count: int) -> list[Holder]:
    page = os.sysconf("SC_PAGE_SIZE")
    found: list[Holder] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            resident = int((folder / "statm").read_text().split()[1]) * page // MIB
            name = (folder / "comm").read_text("utf-8", "replace").strip()
        except (OSError, ValueError, IndexError):
            continue  # it ended meanwhile
        found.append(Holder(int(folder.name), name, resident))
    return sorted(found, key=lambda holder: -(holder.used_mib or 0))[:count]
