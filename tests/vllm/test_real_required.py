"""A test that needs vLLM says so: it skips where there is none, and fails where it has to run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from real_vllm import REQUIRED, the_python

from lbt_sim.models.vllm.install import VARIABLE

ONE = "test_the_server_is_found_out"


def told(tmp_path: Path, **environment: str) -> tuple[int, str]:
    """How a run of one such test ends."""
    clean = {key: value for key, value in os.environ.items() if key not in (VARIABLE, REQUIRED, "PYTEST_ADDOPTS")}
    asked = ["-m", "pytest", "-p", "no:cacheprovider", "-k", ONE, str(Path(__file__).with_name("test_real_answers.py"))]
    done = subprocess.run(
        [sys.executable, *asked, f"--basetemp={tmp_path / 'inner'}"],
        env={**clean, **environment},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stdout


def test_without_vllm_it_skips_and_says_how_to_get_it(tmp_path: Path) -> None:
    status, out = told(tmp_path)
    assert (status, "1 skipped" in out, "failed" in out) == (0, True, False), out
    assert "scripts/vllm-cpu" in out
    assert VARIABLE in out


@pytest.mark.parametrize("python", ["", "/nowhere/bin/python", sys.executable], ids=["none", "missing", "other"])
def test_where_it_is_required_a_missing_or_broken_vllm_is_a_failure(tmp_path: Path, python: str) -> None:
    status, out = told(tmp_path, **{REQUIRED: "1", VARIABLE: python})
    assert status == 1, out
    assert "skipped" not in out, out
    assert "1 error" in out or "1 failed" in out, out


def test_an_interpreter_that_was_named_and_has_no_vllm_is_a_failure_everywhere() -> None:
    with pytest.raises(pytest.fail.Exception, match="has no vLLM"):
        the_python({VARIABLE: sys.executable})


@pytest.mark.parametrize(("required", "ends"), [("", "1 skipped"), ("1", "1 failed")])
def test_where_it_is_required_a_test_that_skips_for_another_reason_is_a_failure(
    tmp_path: Path, required: str, ends: str
) -> None:
    tests = Path(__file__).parents[1]
    text = "import pytest\n\n@pytest.mark.vllm\ndef test_it():\n    pytest.skip('the weights are not here')\n"
    (tmp_path / "test_that_skips.py").write_text(text)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = vllm\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider", "-ra", tmp_path],
        env={**os.environ, "PYTHONPATH": str(tests), REQUIRED: required},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ends in done.stdout
    assert "the weights are not here" in done.stdout
