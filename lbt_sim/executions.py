"""The executions of a run, as its manifest keeps them: when, how each ended, with which models, what servers did.

A run is executed once, and again each time it is resumed, perhaps with another version of a server or other flags. Each
execution has an entry of its own, written when its models are ready, before anything is asked, and completed when it
ends. One that was killed has begun and never ended. Whoever asks nothing (a replay, resuming a finished run) has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from lbt_sim.errors import InputError, Place, RunError
from lbt_sim.manifest import MANIFEST_FILE, as_model, installed, read_manifest, write_manifest
from lbt_sim.models.base import ModelInfo
from lbt_sim.models.determined import PASSING

__all__ = ["Entry", "Execution", "How", "models_of", "now", "recorded", "together", "unlike", "version_of"]

Entry = Mapping[str, Any]
"""An execution as data: `began`, `lbt_sim`, `models` (name -> `identity`, `detail`), `committed` (calls that the ledger
held before); from its end on also `ended`, `how`, `error`, `time`, `calls`, `servers`. Times are ISO 8601, UTC."""

How = Literal["done", "interrupted", "failed"]

_SUMMED = ("prompt_tokens", "computed", "generated", "preempted", "pushed_back", "requests")
_TIMES = ("starting", "waiting", "own")
_COMPARED = {"what", "labels", "labels_changed", "texts", "texts_changed"}
_MOST = 1e18
_SEEN = PASSING | {"can", "vllm", "out of reach"}
"""What of a model's detail is no setting: where servers were, what was seen of them."""


class Execution:
    """This execution's entry in the manifest. The folder is locked while there is one.

    Args:
        folder: The run's.
        manifest: What it says so far, read with the folder locked.
        began: When it began; see `now`.
    """

    def __init__(self, folder: Path, manifest: Mapping[str, Any], began: str) -> None:
        self._folder = folder
        self._entry: dict[str, Any] = {"began": began, "lbt_sim": installed("lbt-sim")}
        before = manifest.get("executions")
        self._manifest = {**manifest, "executions": [*(before if isinstance(before, list) else ()), self._entry]}

    def begin(self, models: Mapping[str, ModelInfo], committed: int) -> None:
        """Records that it goes on, before anything is asked.

        Args:
            models: By their names; the manifest's own `models` are those of the latest execution.
            committed: Calls that the ledger holds: those that follow are this execution's.

        Raises:
            RunError: The manifest cannot be written.
        """
        told = {name: {"identity": info.identity, "detail": dict(info.detail)} for name, info in models.items()}
        self._manifest["models"] = told
        self._entry.update(models=told, committed=committed)
        try:
            write_manifest(self._folder, self._manifest)
        except OSError as error:
            raise RunError(
                f"the manifest cannot be written: {error.strerror or error}",
                where=Place(str(self._folder / MANIFEST_FILE)),
                remedy="Free disk space or mend the permissions, then `lbt-sim resume` the run.",
            ) from error

    def end(self, how: How, did: Mapping[str, Any], error: str | None = None) -> None:
        """Records how it ended and what it did: `time`, `calls`, `servers`.

        Raises:
            OSError: The manifest cannot be written.
        """
        self._entry.update(ended=now(), how=how, error=error, **did)
        write_manifest(self._folder, self._manifest)


def now() -> str:
    """The time, as entries have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def recorded(folder: Path) -> list[Entry]:
    """The executions that a run folder tells of, in order; none where its manifest cannot be read."""
    try:
        found = read_manifest(folder).get("executions")
    except InputError:
        return []
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def models_of(entry: Entry) -> dict[str, Mapping[str, Any]]:
    """The models of an execution by their names, each with `identity` and `detail`; without what says neither."""
    return {str(name): said for name, model in _mapping(entry.get("models")).items() if (said := as_model(model))}


def version_of(detail: Mapping[str, Any]) -> str | None:
    """Which vLLM it was: the installation's version, else what the server itself says; None where neither is known."""
    said = detail.get("vllm") or _mapping(detail.get("can")).get("version")
    return str(said) if said else None


def together(executions: Sequence[Entry]) -> dict[str, Any]:
    """What the executions did together.

    Returns:
        `executions`: how many there are; `ended`: of how many of them the rest is; `time`: seconds; `servers`: by the
        models' names, the figures of those that told any. Counts are sums, and None where a part of a sum is not known;
        shares and rates are those of the sums; `in_flight_at_most` is the largest; `restarts` are listed.
        `determinism` lists what was measured, each with the number of `executions` that it holds for.
    """
    ended = [entry for entry in executions if entry.get("ended")]
    times = [_mapping(entry.get("time")) for entry in ended]
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for entry in ended:
        for name, figures in _mapping(entry.get("servers")).items():
            if _mapping(figures):
                by_name.setdefault(str(name), []).append(figures)
    return {
        "executions": len(executions),
        "ended": len(ended),
        "time": {key: round(sum(_number(time.get(key)) or 0.0 for time in times), 3) for key in _TIMES},
        "servers": {name: _added(figures) for name, figures in by_name.items()},
    }


def _added(all_: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A model's figures over the executions that told any."""
    last = all_[-1]
    total: dict[str, Any] = {**last, **{key: _sum(one.get(key) for one in all_) for key in _SUMMED}}
    sent, computed = total["prompt_tokens"], total["computed"]
    total["prefix_hit_rate"] = round(1 - computed / sent, 4) if sent and computed is not None else None
    total["tokens_per_second"] = _rate(all_)
    highest = [value for one in all_ if (value := _number(one.get("in_flight_at_most"))) is not None]
    total["in_flight_at_most"] = max(highest, default=None)
    total["restarts"] = [str(why) for one in all_ for why in _list(one.get("restarts"))]
    total["lost"] = int(sum(_number(one.get("lost")) or 0 for one in all_))
    labels = [told for one in all_ if (told := _mapping(one.get("labels")))]
    total["labels"] = {key: _sum(told.get(key) for told in labels) for key in ("read", "thin")} if labels else None
    measured: list[dict[str, Any]] = []
    for found in (told for one in all_ if (told := _mapping(one.get("determinism"))) and _is_measured(told)):
        same = next((other for other in measured if {**found, "executions": other["executions"]} == other), None)
        if same is None:
            measured.append({**found, "executions": 1})
        else:
            same["executions"] += 1
    total["determinism"] = measured
    return total


def _sum(values: Iterable[Any]) -> int | None:
    """The sum of counts; None where one of them is not known: a part is no sum."""
    known = [_number(value) for value in values]
    found = [value for value in known if value is not None]
    return int(sum(found)) if found and len(found) == len(known) else None


def _rate(all_: Sequence[Mapping[str, Any]]) -> float | None:
    """Tokens a second, over the seconds that the single rates stand for."""
    tokens = seconds = 0.0
    for one in all_:
        rate = _number(one.get("tokens_per_second"))
        done = (_number(one.get("prompt_tokens")) or 0.0) + (_number(one.get("generated")) or 0.0)
        if rate is None:
            return None
        tokens += done
        seconds += done / rate if rate else 0.0
    if len(all_) == 1:
        return _number(all_[0].get("tokens_per_second"))
    return round(tokens / seconds, 1) if seconds else None


def unlike(executions: Sequence[Entry]) -> list[str]:
    """In what the executions that asked something were not alike: versions, flags; empty where they were."""
    asked = [entry for entry in executions if not entry.get("ended") or _mapping(entry.get("calls")).get("made")]
    found = _change("lbt_sim", [entry.get("lbt_sim") for entry in asked])
    for name in dict.fromkeys(name for entry in asked for name in models_of(entry)):
        models = [model for entry in asked if (model := models_of(entry).get(name))]
        details = [model["detail"] for model in models]
        changes = _change("identity", [model["identity"] for model in models])
        changes += _change("vLLM", list(map(version_of, details)))
        for key in dict.fromkeys(key for detail in details for key in detail if key not in _SEEN):
            changes += _change(key, [detail.get(key) for detail in details])
        found += [f"{name}: {change}" for change in changes]
    return found


def _change(key: str, values: Sequence[Any]) -> list[str]:
    distinct: list[Any] = []
    for value in values:
        if value not in distinct:
            distinct.append(value)
    if len(distinct) < 2:
        return []
    if any(isinstance(value, (dict, list)) for value in distinct):
        return [key]
    return [f"{key} " + ", then ".join("none" if value is None else str(value) for value in distinct)]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: Any) -> float | None:
    """A number that can be reckoned with: a file may hold NaN, or one of a thousand digits."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _MOST else None


def _is_measured(told: Mapping[str, Any]) -> bool:
    """Whether it is what `doctor` measures: `date`, and `comparisons` with their counts."""
    rows = [_mapping(one) for one in _list(told.get("comparisons"))]
    return "date" in told and all(row.keys() >= _COMPARED for row in rows)
