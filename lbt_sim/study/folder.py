"""A study's folder: made, opened, read.

It holds `study.yaml` (the study as it was planned), `conditions/` (each condition's scenario with everything that it
uses), `manifest.json` (versions, executions), `runs/CONDITION/SEED/` (ordinary run folders), and `results.jsonl` (what
is kept of each finished run, which can be derived from the run folders anew).
"""

from __future__ import annotations

import json
import platform
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lbt_sim.errors import InputError, Place, RunLocked
from lbt_sim.folders import locked
from lbt_sim.manifest import MANIFEST_FILE, installed, write_manifest
from lbt_sim.scenario.load import dump_resolved
from lbt_sim.scenario.overrides import override
from lbt_sim.scenario.study import StudyFile
from lbt_sim.scenario.validation import validate_model
from lbt_sim.scenario.yaml import Document, read_text, read_yaml, write_yaml
from lbt_sim.study.plan import Plan, PlannedRun
from lbt_sim.study.record import RunResult
from lbt_sim.study.results import Condition, StudyResults

__all__ = [
    "RESULTS_FILE",
    "STUDY_FILE",
    "ResultsFile",
    "StudyFolder",
    "change_budget",
    "create_study",
    "facts_of",
    "is_study",
    "is_study_begun",
    "load_results",
    "locked_study",
    "open_study",
]

STUDY_FILE = "study.yaml"
RESULTS_FILE = "results.jsonl"
_CONDITIONS = "conditions"
_PACKAGES = ("lbt-sim", "numpy", "scipy", "statsmodels", "matplotlib", "ray")
_MAX = 64 << 20
_PLANNED = "# Written by lbt-sim: the study as it was planned.\n"


@dataclass(frozen=True)
class StudyFolder:
    """A study on disk.

    Attributes:
        path: The folder.
        study: The study file's values, as planned.
        conditions: In order.
        slugs: Condition -> its folder's name.
        donors: Condition -> the condition that gives its failures.
        seeds: Every seed.
        comparisons: (a, b).
        differs: (a, b) -> in what the two differ, in words.
        notes: What the plan had to say.
        name: The study's name.
    """

    path: Path
    study: Mapping[str, Any]
    conditions: tuple[Condition, ...]
    slugs: Mapping[str, str]
    donors: Mapping[str, str]
    seeds: tuple[int, ...]
    comparisons: tuple[tuple[str, str], ...]
    differs: Mapping[tuple[str, str], tuple[str, ...]]
    notes: tuple[str, ...]
    name: str

    @property
    def runs(self) -> Iterator[PlannedRun]:
        """Every run, seed by seed; a donor has the next seed."""
        for number, seed in enumerate(self.seeds):
            for condition in self.conditions:
                giver = self.donors.get(condition.name)
                donor = None if giver is None else (giver, self.seeds[(number + 1) % len(self.seeds)])
                yield PlannedRun(condition.name, seed, self.folder_of(condition.name, seed), donor)

    def folder_of(self, condition: str, seed: int) -> str:
        """A run's folder, relative to the study's."""
        return f"runs/{self.slugs[condition]}/{seed}"

    def scenario_of(self, condition: str) -> Path:
        """The file that has a condition's scenario."""
        return self.path / _CONDITIONS / f"{self.slugs[condition]}.yaml"

    def read_scenario(self, condition: str) -> str:
        """A condition's scenario, as YAML.

        Raises:
            InputError: It cannot be read.
        """
        file = self.scenario_of(condition)
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"the study's folder lacks a condition: {getattr(error, 'strerror', None) or error}",
                where=Place(str(file)),
                remedy="Put the file back as it was; without it, start the study anew. Runs that are done are kept.",
            ) from error


def is_study(path: Path) -> bool:
    """Whether this is a study's folder."""
    return (path / STUDY_FILE).is_file()


def is_study_begun(path: Path) -> bool:
    """Whether this is a study's folder whose making was cut short: no run was begun in it yet."""
    return not is_study(path) and (path / _CONDITIONS).is_dir() and _is_free(path)


@contextmanager
def locked_study(path: Path) -> Iterator[None]:
    """Keeps a second process from working on a study. The lock goes with the process, however it ends.

    Raises:
        RunLocked: Another process has it.
        InputError: The folder cannot be written.
    """
    with ExitStack() as held:
        try:
            held.enter_context(locked(path))
        except RunLocked as error:
            raise RunLocked(
                "another process works on this study",
                where=Place(str(path)),
                remedy=f"Wait for it, or stop it; `lbt-sim report {path}` can be used meanwhile.",
            ) from error
        yield


def create_study(plan: Plan, out: Path, *, command: Sequence[str] = ()) -> StudyFolder:
    """Makes a study's folder.

    Args:
        plan: The study.
        out: The folder.
        command: The command that makes it, for the report.

    Raises:
        InputError: `out` holds something already, or cannot be written.
    """
    if out.exists() and not _is_free(out):
        there = "holds a study" if is_study(out) else "is there already"
        raise InputError(
            f"{out} {there}",
            where=Place(key="--out"),
            remedy=(f"Continue it with `lbt-sim resume {out}`, or name" if is_study(out) else "Name")
            + " another folder.",
        )
    try:
        (out / _CONDITIONS).mkdir(parents=True, exist_ok=True)
        with locked(out):
            for left in (out / _CONDITIONS).iterdir():
                left.unlink()
            manifest = {
                "lbt_sim": installed("lbt-sim"),
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "command": list(command),
                "folder": str(out),  # as it was named where the command was given
                "python": platform.python_version(),
                "platform": platform.platform(),
                "packages": {name: installed(name) for name in _PACKAGES},
                "executions": [],
            }
            write_manifest(out, manifest)  # first: it has the command, to be given again where this is cut short
            for one in plan.conditions:
                (out / _CONDITIONS / f"{one.slug}.yaml").write_text(dump_resolved(one.loaded), encoding="utf-8")
            # Written last: a folder without it is no study yet.
            part = out / f"{STUDY_FILE}.part"
            part.write_text(_as_yaml(plan), encoding="utf-8")
            part.replace(out / STUDY_FILE)
    except OSError as error:
        raise InputError(
            f"the study's folder cannot be written: {error.strerror or error}",
            where=Place(str(error.filename or out)),
            remedy="With --out, name a folder that you may write to.",
        ) from error
    return open_study(out)


def _is_free(out: Path) -> bool:
    """Whether a folder is empty, or holds no more than what is left of a study whose making was cut short."""
    if not out.is_dir():
        return False
    names = {entry.name for entry in out.iterdir()}
    if names <= {".lock"}:
        return True
    made = {".lock", _CONDITIONS, MANIFEST_FILE, f"{MANIFEST_FILE}.part", f"{STUDY_FILE}.part"}
    conditions = out / _CONDITIONS
    if not names <= made or not conditions.is_dir():
        return False
    left = list(conditions.iterdir())
    return all(entry.is_file() and entry.suffix == ".yaml" for entry in left) and (".lock" in names or not left)


def _as_yaml(plan: Plan) -> str:
    value = {
        "study": plan.file.model_dump(exclude_none=True),
        "name": plan.name,
        "source": plan.source,
        "conditions": [
            {
                "name": one.condition.name,
                "arm": one.condition.arm,
                "levels": dict(one.condition.levels),
                "title": one.condition.title,
                "folder": one.slug,
                **({"donor": one.donor} if one.donor else {}),
            }
            for one in plan.conditions
        ],
        "seeds": list(plan.file.seed_list),
        "comparisons": [list(pair) for pair in plan.comparisons],
        "differs": [list(words) for words in plan.differs],
        "notes": list(plan.notes),
    }
    return _PLANNED + write_yaml(value)


def open_study(path: Path) -> StudyFolder:
    """A study that was made before.

    Raises:
        InputError: It is no study's folder, or was changed by hand.
    """
    file = path / STUDY_FILE
    if is_study_begun(path):
        raise _half_made(path)
    if not file.is_file():
        raise InputError(
            f"{path} is not a study's folder: {STUDY_FILE} is missing",
            where=Place(str(path)),
            remedy="`lbt-sim study FILE` makes one.",
        )
    value = read_yaml(read_text(file, str(file), _MAX), str(file)).value
    try:
        rows = value["conditions"]
        comparisons = tuple((a, b) for a, b in value["comparisons"])
        return StudyFolder(
            path=path,
            study=value["study"],
            conditions=tuple(Condition(row["name"], row["arm"], row["levels"], row["title"]) for row in rows),
            slugs={row["name"]: row["folder"] for row in rows},
            donors={row["name"]: row["donor"] for row in rows if "donor" in row},
            seeds=tuple(value["seeds"]),
            comparisons=comparisons,
            differs=dict(zip(comparisons, map(tuple, value.get("differs", [()] * len(comparisons))), strict=True)),
            notes=tuple(value["notes"]),
            name=value["name"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"the study's plan is damaged: {error!r}",
            where=Place(str(file)),
            remedy="It is not for editing. Put it back as it was, or start the study anew.",
        ) from error


def _half_made(path: Path) -> InputError:
    said = facts_of(path).get("command")
    command = shlex.join(map(str, said)) if isinstance(said, list) and said else "lbt-sim study STUDY"
    if " --out" not in command:
        command += f" --out {shlex.quote(str(path))}"
    return InputError(
        f"making this study was cut short, before its first run: {STUDY_FILE} is missing",
        where=Place(str(path)),
        remedy=f"Nothing was lost. Give the command again that began it: {command}",
    )


def facts_of(path: Path) -> dict[str, Any]:
    """What a study's manifest says; nothing where it cannot be read: it only tells how results were made."""
    try:
        facts = json.loads((path / MANIFEST_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def change_budget(path: Path, sets: Sequence[str]) -> None:
    """Changes what a study may spend, for the executions to come.

    Raises:
        InputError: Something else is to be changed, or the value is not valid.
    """
    for entry in sets:
        if not entry.startswith("budget."):
            raise InputError(
                f"a study cannot go on with another {entry.split('=', 1)[0]}",
                where=Place(key=f"--set {entry}"),
                valid=["budget.calls=…", "budget.tokens=…"],
                remedy="Start a new study with what is to be different.",
            )
    file = path / STUDY_FILE
    value = read_yaml(read_text(file, str(file), _MAX), str(file)).value
    document = override(Document(value["study"], str(file)), sets)
    study = validate_model(document, StudyFile)
    value["study"] = study.model_dump(exclude_none=True)
    part = file.with_name(f"{STUDY_FILE}.part")
    part.write_text(_PLANNED + write_yaml(value), encoding="utf-8")
    part.replace(file)


class ResultsFile:
    """`results.jsonl`, open for writing: one line for each finished run, each set of held-out problems once.

    A line that was cut off by a kill is taken away when it is opened, so that its run is read anew.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / RESULTS_FILE
        self.results: dict[tuple[str, int], RunResult] = {}
        self._sets: dict[tuple[Any, ...], int] = {}
        if self._path.exists():
            good = 0
            for result, end in _read(self._path, self._sets):
                good = end
                if result is not None:
                    self.results[result.condition, result.seed] = result
            with self._path.open("r+b") as file:
                file.truncate(good)
        self._file = self._path.open("ab")

    def __enter__(self) -> ResultsFile:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # a full disk was told by `add`
            self._file.close()

    def add(self, result: RunResult) -> None:
        """Takes a result; it is in the file when this returns."""
        self.results[result.condition, result.seed] = result
        content = (result.problems, result.positive, result.families)
        data = result.as_data()
        lines = []
        if content not in self._sets:
            self._sets[content] = len(self._sets)
            lines.append({"set": self._sets[content], **{name: data[name] for name in _SHARED}})
        lines.append({"of": self._sets[content], **{name: data[name] for name in data if name not in _SHARED}})
        text = "".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines)
        self._file.write(text.encode("utf-8", "replace"))
        self._file.flush()


_SHARED = ("problems", "positive", "families")
"""What runs that were examined on the same problems have in common."""


def _read(path: Path, sets: dict[tuple[Any, ...], int]) -> Iterator[tuple[RunResult | None, int]]:
    """The results in a file, each with where its line ends; ends before a line that is damaged."""
    by_number: dict[int, tuple[Any, ...]] = {}
    end = 0
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            try:
                row = json.loads(line)
                end += len(line)
                if "set" in row:
                    content = tuple(tuple(row[name]) for name in _SHARED)
                    by_number[row["set"]] = content
                    sets[content] = row["set"]
                    yield None, end
                    continue
                content = by_number[row.pop("of")]
                yield RunResult.from_data({**row, **dict(zip(_SHARED, content, strict=True))}), end
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                return


def load_results(path: Path) -> StudyResults:
    """A study's results as they are now.

    Raises:
        InputError: It is no study's folder.
    """
    folder = open_study(path)
    file = path / RESULTS_FILE
    found = [result for result, _ in _read(file, {}) if result is not None] if file.exists() else []
    planned = {(run.condition, run.seed) for run in folder.runs}
    runs = {(one.condition, one.seed): one for one in found if (one.condition, one.seed) in planned}
    seeds = {seed: number for number, seed in enumerate(folder.seeds)}
    places = {one.name: number for number, one in enumerate(folder.conditions)}
    manifest = facts_of(path)
    study = folder.study
    return StudyResults(
        folder=path,
        name=folder.name,
        title=str(study.get("title") or folder.name),
        description=str(study.get("description") or ""),
        conditions=folder.conditions,
        seeds=folder.seeds,
        comparisons=folder.comparisons,
        metric=study["metric"],
        outcome=study["outcome"],
        runs=dict(sorted(runs.items(), key=lambda pair: (places[pair[0][0]], seeds[pair[0][1]]))),
        smallest_effect=study.get("smallest_effect"),
        differs=folder.differs,
        equal_compute=study.get("equal_compute") is not None,
        notes=folder.notes,
        facts={name: manifest[name] for name in sorted(manifest)},
    )
