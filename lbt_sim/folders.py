"""A run's folder: made, opened, forked, locked.

A run folder holds `scenario.yaml` (every value, and the agents, templates and classroom that were used),
`run.sqlite` (calls and events) and `manifest.json` (versions, engine flags, seeds, executions), where the teacher is
told of another run's failures `donor.json` (those), and nothing that cannot be derived from them. The manifest is
written last: a folder without one is no run yet, and whoever was killed while making it can make it again.
"""

from __future__ import annotations

import json
import platform
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lbt_sim.donor import DONOR_FILE, Donor, load_donor, read_donor
from lbt_sim.errors import InputError, Place, RunLocked
from lbt_sim.events import Event
from lbt_sim.ledger import LEDGER_FILE, Ledger, LedgerReader
from lbt_sim.manifest import MANIFEST_FILE, RESUMED_WITH, installed, read_manifest, write_manifest
from lbt_sim.scenario.load import LoadedScenario, dump_resolved, load_resolved
from lbt_sim.setup import Prepared, prepare

__all__ = [
    "MANIFEST_FILE",
    "SCENARIO_FILE",
    "SERVER_LOGS",
    "RunFolder",
    "claimed",
    "create_run",
    "discard_unstarted",
    "fork_run",
    "load_run_scenario",
    "locked",
    "open_run",
    "scenario_text",
]

SCENARIO_FILE = "scenario.yaml"
SERVER_LOGS = "servers"
"""The folder for the logs of servers that a run starts; it stays when the run could not be started, to be read."""
_LOCK_FILE = ".lock"
_UNFINISHED = {
    _LOCK_FILE,
    SCENARIO_FILE,
    DONOR_FILE,
    f"{MANIFEST_FILE}.part",
    *(LEDGER_FILE + tail for tail in ("", "-wal", "-shm", "-journal")),
}
"""What a folder can hold when its making was cut short."""
_PACKAGES = ("lbt-sim", "autogen-agentchat", "xllamacpp", "math-verify", "networkx", "pydantic", "jinja2")


@dataclass(frozen=True)
class RunFolder:
    """A run on disk.

    Attributes:
        path: The folder.
        prepared: Its scenario, from the folder alone.
        manifest: What was recorded about it.
        changed: Whether the scenario was changed just now, to be recorded when the run goes on.
        donor: The other run, of whose failures the teacher is told (`feedback: shuffled`).
    """

    path: Path
    prepared: Prepared
    manifest: Mapping[str, Any]
    changed: bool = False
    donor: Donor | None = None


def create_run(
    prepared: Prepared,
    out: Path | None,
    *,
    forked: Mapping[str, Any] | None = None,
    fill: Callable[[Path], None] | None = None,
    donor: Donor | None = None,
) -> RunFolder:
    """Makes the folder of a new run.

    Args:
        prepared: What is to be run.
        out: The folder; without it, one in `runs/` with a name of its own.
        forked: For the manifest: from what, and from which round.
        fill: Puts into the folder what the run begins with.
        donor: What is known of the scenario's donor already; without it, it is read now.

    Raises:
        InputError: `out` holds something already, or cannot be written, or nothing can be had from the donor.
    """
    if donor is None and (named := _donor_named(prepared)) is not None:
        donor = read_donor(named, prepared.task.labels, prepared.loaded.place("method.revise.donor"))
    manifest: dict[str, Any] = {
        "lbt_sim": installed("lbt-sim"),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": prepared.file.seed,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "sqlite": sqlite3.sqlite_version,
        "packages": {name: installed(name) for name in _PACKAGES},
        "task_sources": dict(prepared.task.sources),
        "models": {},
    }
    name = f"{prepared.loaded.name}-{prepared.file.seed}"
    if forked is not None:
        manifest["forked"] = dict(forked)
        name += f"-fork{forked['round']}"
    if donor is not None:
        manifest["donor"] = {"run": donor.run, "sha256": donor.digest}
    try:
        path = claimed(Path("runs"), name) if out is None else out
        _refuse_taken(path)  # before anything is made in it
        path.mkdir(parents=True, exist_ok=True)
        with locked(path):
            _refuse_taken(path)
            _remove(path)
            try:
                (path / SCENARIO_FILE).write_text(dump_resolved(prepared.loaded), encoding="utf-8")
                if donor is not None:
                    (path / DONOR_FILE).write_text(donor.as_text(), encoding="utf-8", errors="surrogatepass")
                if fill is not None:
                    fill(path)
                write_manifest(path, manifest)
            except BaseException:
                _remove(path)
                raise
    except OSError as error:
        raise InputError(
            f"the run folder cannot be written: {error.strerror or error}",
            where=Place(str(error.filename or out)),
            remedy="With --out, name a folder that you may write to.",
        ) from error
    return RunFolder(path, prepared, manifest, donor=donor)


def _donor_named(prepared: Prepared) -> str | None:
    revise = prepared.file.method.revise
    return revise.donor if revise.feedback == "shuffled" else None


def _kept_donor(path: Path, facts: Mapping[str, Any]) -> Donor:
    """The donor's failures as the folder keeps them: the donor itself may be gone."""
    try:
        donor = load_donor((path / DONOR_FILE).read_text(encoding="utf-8", errors="surrogatepass"))
        if donor.digest != facts["donor"]["sha256"]:
            raise ValueError("it is not the one that the run was started with")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"what the run keeps of another run's failures cannot be used: {error}",
            where=Place(str(path / DONOR_FILE)),
            remedy="Put the file back as it was (its SHA-256 is in manifest.json), or start a new run.",
        ) from error
    return donor


def _refuse_taken(path: Path) -> None:
    """Refuses a folder that holds anything but what is left of a run whose making was cut short."""
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is there already, and is no folder", where=Place(key="--out"), remedy="Name another.")
    names = ({entry.name for entry in path.iterdir()} if path.exists() else set()) - {SERVER_LOGS}
    if names and not (_LOCK_FILE in names and names <= _UNFINISHED):
        raise InputError(
            f"{path} is there already" + (" and holds a run" if MANIFEST_FILE in names else ""),
            where=Place(key="--out"),
            remedy=(f"Continue it with `lbt-sim resume {path}`, or name" if MANIFEST_FILE in names else "Name")
            + " another folder.",
        )


def discard_unstarted(path: Path) -> None:
    """Takes a new run's folder away again where no model was asked yet, so that the same command can be given anew."""
    try:
        with LedgerReader(path) as ledger:
            facts = json.loads((path / MANIFEST_FILE).read_text(encoding="utf-8"))
            first = facts.get("forked", {}).get("round", 0)
            if ledger.count("c.round >= ?", (first,)):
                return
    except InputError:
        pass  # no ledger yet
    with suppress(OSError):
        (path / MANIFEST_FILE).unlink(missing_ok=True)
        _remove(path)
        (path / _LOCK_FILE).unlink(missing_ok=True)
        path.rmdir()


def _remove(path: Path) -> None:
    """Removes what is left of a folder whose making was cut short."""
    for name in _UNFINISHED - {_LOCK_FILE}:
        (path / name).unlink(missing_ok=True)


def open_run(path: Path, *, sets: Sequence[str] = ()) -> RunFolder:
    """A run that was made before, from its folder alone.

    Args:
        path: The folder.
        sets: `budget.…` and `models.…` values to change; anything else would be another run (`fork_run`).

    Raises:
        InputError: It is no run folder, or its data have changed.
    """
    for entry in sets:
        if not entry.startswith(("budget.", "models.")):
            raise InputError(
                f"a run cannot be resumed with another {entry.split('=', 1)[0].split('.', 1)[0]}",
                where=Place(key=f"--set {entry}"),
                valid=["budget.…", "models.…"],
                remedy="`lbt-sim fork RUN --from-round K --set …` goes on from a round with a changed scenario.",
            )
    scenario, manifest = path / SCENARIO_FILE, path / MANIFEST_FILE
    for file in (scenario, manifest):
        if not file.is_file():
            raise InputError(
                f"{path} is not a run folder: {file.name} is missing",
                where=Place(str(path)),
                remedy="A run folder holds scenario.yaml, manifest.json and run.sqlite; "
                "`lbt-sim run` makes one in runs/.",
            )
    facts = read_manifest(path)
    prepared = prepare(load_run_scenario(path, sets=sets))
    changed = [name for name, digest in prepared.task.sources.items() if facts["task_sources"].get(name) != digest]
    changed += [name for name in facts["task_sources"] if name not in prepared.task.sources]
    if changed:
        raise InputError(
            f"the data of this run have changed: {changed[0]}",
            where=Place(str(scenario), key="task"),
            remedy="Put the file back that the run was started with (its SHA-256 is in manifest.json), "
            "or start a new run.",
        )
    donor = _kept_donor(path, facts) if _donor_named(prepared) is not None else None
    if sets:
        facts[RESUMED_WITH] = [*facts.get(RESUMED_WITH, ()), *sets]  # written when the run goes on
    return RunFolder(path, prepared, facts, changed=bool(sets), donor=donor)


def scenario_text(path: Path) -> str:
    """What a run folder keeps as its scenario.

    Raises:
        InputError: It cannot be read.
    """
    file = path / SCENARIO_FILE
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"the run's scenario cannot be read: {error}",
            where=Place(str(file)),
            remedy="It was changed after the run was started: put the file back as it was, or start a new run.",
        ) from error


def load_run_scenario(path: Path, *, sets: Sequence[str] = (), **changes: Any) -> LoadedScenario:
    """The scenario that a run folder holds, with what it was resumed with.

    Args:
        path: The folder.
        sets: `key.path=value`, done in order after those.
        changes: As `load_resolved` takes them.

    Raises:
        InputError: It cannot be read, or is not valid.
    """
    text = scenario_text(path)
    facts = read_manifest(path)
    return load_resolved(text, str(path / SCENARIO_FILE), sets=[*facts.get(RESUMED_WITH, ()), *sets], **changes)


def fork_run(source: RunFolder, prepared: Prepared, from_round: int, out: Path | None) -> RunFolder:
    """A new run that shares rounds 0 to `from_round` - 1 with `source` and goes on with another scenario.

    Raises:
        InputError: `source` has not finished round `from_round` - 1.
    """
    with LedgerReader(source.path) as ledger:
        done = [int(event.data["round"]) for event in ledger.events("report")]
    if from_round < 1 or from_round - 1 not in done:
        raise InputError(
            f"{source.path} cannot be forked from round {from_round}",
            where=Place(key="--from-round"),
            valid=[str(round_ + 1) for round_ in sorted(done)],
            remedy="Fork from a round whose predecessor is finished.",
        )
    if prepared.task.held_out != source.prepared.task.held_out:
        raise InputError(
            "a fork cannot change the held-out problems: the finished rounds were reported on them",
            where=Place(key="task"),
            remedy="Start a new run with this task.",
        )
    same_donor = source.donor is not None and source.donor.run == _donor_named(prepared)
    return create_run(
        prepared,
        out,
        forked={"from": str(source.path), "round": from_round},
        fill=lambda folder: _copy_rounds(source.path, folder, from_round),
        donor=source.donor if same_donor else None,
    )


def _copy_rounds(source: Path, target: Path, before: int) -> None:
    """Copies calls and events of the rounds before `before` into the target's new ledger."""
    with LedgerReader(source) as reader:
        calls = list(reader.calls("c.round < ?", (before,)))
        events = [e for e in reader.events() if e.kind == "material" or 0 <= _round_of(e) < before]
    kept = {id_ for e in events if e.kind == "selection" for id_ in [c["id"] for c in e.data["candidates"]]}
    kept |= {e.data["material"] for e in events if e.kind == "report"}

    ledger = Ledger(target)
    for call in calls:
        ledger.put(call)
    for event in events:
        if event.kind != "material" or event.data["id"] in kept:
            ledger.put(event)
    ledger.close()


def _round_of(event: Event) -> int:
    head = event.path.split("/", 1)[0]
    return int(head[1:]) if head[:1] == "r" and head[1:].isdigit() else -1


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keeps a second process out of the folder. The lock goes with the process, however it ends.

    Raises:
        RunLocked: Another process has it.
        InputError: The folder cannot be written.
    """
    lock = FileLock(path / _LOCK_FILE, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise RunLocked(
            "another process works in this run folder",
            where=Place(str(path)),
            remedy="Wait for it, or stop it; `lbt-sim show` can be used meanwhile.",
        ) from None
    except OSError as error:
        raise InputError(
            f"the run folder cannot be written: {error.strerror or error}",
            where=Place(str(path)),
            remedy="Mend its permissions, or copy it to where you may write.",
        ) from error
    try:
        yield
    finally:
        lock.release()


def claimed(parent: Path, name: str) -> Path:
    """`parent/name`, made; numbered where that is taken."""
    path, number = parent / name, 1
    while True:
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            number += 1
            path = parent / f"{name}-{number}"
        else:
            return path
