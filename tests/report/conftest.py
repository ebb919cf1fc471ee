"""One small study of real runs, made once for all tests of reports."""

from __future__ import annotations

from pathlib import Path

import pytest
from made import SMALL, hostile_run, make_run, make_study

from lbt_sim.study.results import StudyResults


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two students."""
    return make_run(tmp_path_factory.mktemp("reports") / "small", *SMALL)


@pytest.fixture(scope="session")
def ill_folder(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run with hostile text wherever there was text."""
    return hostile_run(run_folder, tmp_path_factory.mktemp("ill") / "run")


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    """Three casts with three seeds."""
    return make_study(tmp_path_factory.mktemp("study") / "made")
