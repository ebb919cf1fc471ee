"""Which runs are of one condition, and what conditions are called: by what differs between their scenarios."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lbt_sim.folders import SCENARIO_FILE, load_run_scenario, scenario_text
from lbt_sim.manifest import RESUMED_WITH, read_manifest
from lbt_sim.scenario.yaml import read_yaml
from lbt_sim.study.differ import values_of

__all__ = ["Names", "RunScenario", "Scenarios", "named"]

_SEED = re.compile(r"^seed: (\d+)[ \t]*$", re.MULTILINE)
_DONOR = re.compile(r"^    donor: .*$", re.MULTILINE)
_LIBRARY = "\nlibrary:\n"
_IGNORED = ("seed", "title", "description", "budget", "kind", "version", "method.revise.donor")
"""What makes no other condition of a run that came to its end."""
_FILES = "file "
_LONG = 60
_SEARCHED = 12
_TOGETHER = 3


@dataclass(frozen=True)
class RunScenario:
    """What a run was made from.

    Attributes:
        key: Equal for runs of one condition.
        values: Dotted key -> value, of everything that makes a condition.
        seed: The run's seed.
        shuffled: Whether it was told of another run's failures.
    """

    key: str
    values: Mapping[str, Any]
    seed: int
    shuffled: bool


@dataclass
class Scenarios:
    """Reads run folders' scenarios; those that differ in the seed alone are checked once."""

    _known: dict[tuple[str, ...], RunScenario] = field(default_factory=dict)

    def of(self, path: Path) -> RunScenario:
        """The scenario of a run folder.

        Raises:
            InputError: It cannot be read, or is not valid.
        """
        text = scenario_text(path)
        facts = read_manifest(path)
        made_from = {
            **{f"{_FILES}{name}": digest for name, digest in facts["task_sources"].items()},
            "forked from round": (facts.get("forked") or {}).get("round"),
        }
        head, mark, library = text.partition(_LIBRARY)  # the files that it uses may have lines of any kind
        rest = _DONOR.sub("", _SEED.sub("", head)) + mark + library
        known = (rest, json.dumps(facts.get(RESUMED_WITH, [])), json.dumps(made_from, sort_keys=True))
        found = _SEED.search(text)
        if known not in self._known or found is None:
            self._known[known] = _read(path, text, made_from)
        one = self._known[known]
        return one if found is None else RunScenario(one.key, one.values, int(found[1]), one.shuffled)


def _read(path: Path, text: str, made_from: Mapping[str, Any]) -> RunScenario:
    file = load_run_scenario(path).file
    values = values_of(file)
    library = read_yaml(text, str(path / SCENARIO_FILE)).value.get("library") or {}
    values |= {f"{_FILES}{name}": _short_hash(content) for name, content in library.items()}
    values |= {name: value for name, value in made_from.items() if value is not None}
    kept = {name: value for name, value in values.items() if not _is_ignored(name)}
    shuffled = file.method.revise.feedback == "shuffled"
    return RunScenario(json.dumps(kept, sort_keys=True), kept, file.seed, shuffled)


def _is_ignored(name: str) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in _IGNORED)


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]


# --- names --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Names:
    """What conditions are called.

    Attributes:
        names: One for each; not always unique.
        unnamed: Keys that differ too, and are in no name.
    """

    names: tuple[str, ...]
    unnamed: tuple[str, ...]


def named(conditions: Sequence[Mapping[str, Any]], folders: Sequence[str]) -> Names:
    """Names conditions by the fewest keys that tell them all apart.

    Args:
        conditions: Dotted key -> value, of each.
        folders: What each is called where its name would be long, or there is no telling apart.
    """
    if len(conditions) == 1:
        return Names((folders[0],), ())
    told = [{name: _told(value) for name, value in one.items()} for one in conditions]
    keys = list(dict.fromkeys(name for one in told for name in one))
    # A file that only some use says nothing: a key that names it differs too.
    named_by_all = [name for name in keys if not name.startswith(_FILES) or all(name in one for one in told)]
    differing = [name for name in named_by_all if len({one.get(name) for one in told}) > 1]
    differing.sort(key=lambda name: _weight(name, told))
    chosen = _fewest(differing, told)
    names = tuple(
        name if chosen and len(name := ", ".join(f"{key}={one.get(key, '–')}" for key in chosen)) <= _LONG else folder
        for one, folder in zip(told, folders, strict=True)
    )
    return Names(names, tuple(name for name in differing if name not in chosen))


def _weight(name: str, told: Sequence[Mapping[str, str]]) -> tuple[bool, bool, int]:
    """What names are better made of comes first: keys before files, keys that all have, short ones."""
    return name.startswith(_FILES), any(name not in one for one in told), sum(len(one.get(name, "")) for one in told)


def _fewest(differing: Sequence[str], told: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """The fewest keys that tell all apart; () where there are none."""
    for size in range(1, _TOGETHER + 1):
        for chosen in itertools.combinations(differing[:_SEARCHED], size):
            if _tells(chosen, told):
                return chosen
    return tuple(differing) if _tells(differing, told) and len(differing) <= _SEARCHED else ()


def _tells(chosen: Sequence[str], told: Sequence[Mapping[str, str]]) -> bool:
    return len({tuple(one.get(name) for name in chosen) for one in told}) == len(told)


def _told(value: Any) -> str:
    """A value in few letters."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        inner = {name: one for name, one in value.items() if one not in (None, [], {})}
        if inner.keys() <= {"persona", "count"} and "persona" in inner:  # a seat as most are
            return f"{inner['persona']}" + (f"×{inner['count']}" if inner.get("count", 1) != 1 else "")
        return "{" + ", ".join(f"{name}: {_told(one)}" for name, one in inner.items()) + "}"
    if isinstance(value, list):
        return "+".join(map(_told, value)) if value else "none"
    return str(value)
