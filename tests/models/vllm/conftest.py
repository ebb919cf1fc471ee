"""What runs of a server, as the kernel has it, and the promise that a test leaves nothing of it."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from server_processes import marked

from lbt_sim.models.vllm import records


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of records of the test's own; whatever processes a failed test leaves are ended."""
    folder = tmp_path / "state"
    monkeypatch.setenv("LBT_SIM_STATE", str(folder))
    seen: set[str] = set()
    save = records.save

    def remember(record: records.Record) -> None:
        seen.add(record.token)
        save(record)

    monkeypatch.setattr(records, "save", remember)
    yield folder
    seen.update(path.stem for path in folder.glob("*.json"))
    left = [pid for token in seen for pid in marked(token)]
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert not left, "processes of a server outlived the test"
