"""What `lbt-sim doctor --determinism` measured of a model, kept for the runs that ask it later."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any

import platformdirs

from lbt_sim.models.base import ModelInfo

__all__ = ["PASSING", "known", "remember"]

PASSING = frozenset({"servers", "attached", "urls", "found_by", "started_with"})
"""What of a model's detail differs from run to run and computes nothing: where its servers are, who started them."""


def known(info: ModelInfo) -> dict[str, Any] | None:
    """What was measured of exactly this model on this machine: `date` and `comparisons`; None where nothing was."""
    with suppress(OSError, ValueError):
        found = json.loads(_file(info).read_text("utf-8"))
        return found if isinstance(found, dict) else None
    return None


def remember(info: ModelInfo, comparisons: Sequence[Mapping[str, Any]]) -> None:
    """Keeps what was measured, in place of what was known before."""
    file = _file(info)
    data = {"date": datetime.now(UTC).date().isoformat(), "comparisons": list(comparisons)}
    with suppress(OSError):  # not being remembered costs a line in later runs, no more
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(data), "utf-8")


def _file(info: ModelInfo) -> Path:
    """Versions and flags decide what a server computes, so they are part of the name."""
    constant = {key: value for key, value in info.detail.items() if key not in PASSING}
    about = json.dumps([info.identity, constant], sort_keys=True, default=str)
    digest = blake2b(about.encode(), digest_size=8).hexdigest()
    folder = os.environ.get("LBT_SIM_STATE") or platformdirs.user_state_dir("lbt-sim")
    return Path(folder) / "determinism" / f"{digest}.json"
