"""What is shipped works outside the checkout: source distribution, wheel, a clean environment, another directory."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

import lbt_sim

ROOT = Path(__file__).parents[1]


_OWN = ("PYTHON", "VIRTUAL_ENV", "LBT_SIM", "UV_PYTHON", "UV_PROJECT")
"""What would lead a command back to the checkout or its environment."""


def attempt(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs a command in `cwd`, without the checkout on its path."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(_OWN)}
    return subprocess.run([str(c) for c in command], cwd=cwd, env=env, capture_output=True, text=True)


def call(*command: str | Path, cwd: Path) -> str:
    """As `attempt`, which has to succeed; its standard output."""
    done = attempt(*command, cwd=cwd)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the source distribution, as a package index would build it."""
    folder = tmp_path_factory.mktemp("build")
    call(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder, cwd=ROOT)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    unpacked = folder / sdist.name.removesuffix(".tar.gz")
    call(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=unpacked)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def uv() -> str:
    found = os.environ.get("UV") or shutil.which("uv")
    if found is None:
        pytest.skip("needs uv to install the wheel")
    return found


@pytest.fixture(scope="module")
def installed(uv: str, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `lbt-sim` command of a new virtual environment that has the wheel and what is locked for it, no extra."""
    folder = tmp_path_factory.mktemp("clean")
    python, locked = folder / "env" / "bin" / "python", folder / "locked.txt"
    export = ("export", "--locked", "--no-emit-project", "--no-dev", "--python", sys.executable, "-q", "-o", locked)
    call(uv, *export, cwd=ROOT)
    venv.create(folder / "env", with_pip=False)
    install = (uv, "pip", "install", "--python", python)
    if attempt(*install, "--offline", "-r", locked, cwd=folder).returncode != 0:
        done = attempt(*install, "-r", locked, cwd=folder)
        if done.returncode != 0 and not os.environ.get("CI"):
            pytest.skip(f"the locked packages are neither in uv's cache nor to be had: {done.stderr[-500:]}")
        assert done.returncode == 0, done.stderr
    # With its dependencies, and nothing to take them from: what the wheel asks for is what is locked.
    call(*install, "--offline", "--no-index", wheel, cwd=folder)
    call(uv, "pip", "check", "--python", python, cwd=folder)
    return python.parent / "lbt-sim"


OF_EXTRAS = {"datasets", "math_verify", "ray"}
COME_WITH = {"markupsafe": "jinja2", "pydantic_core": "pydantic"}
"""Imported beside the package that pins it."""


def imported() -> set[str]:
    """The packages of others that are imported anywhere in ours, late imports too."""
    names: set[str] = set()
    for file in (ROOT / "lbt_sim").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"lbt_sim"}


def test_whatever_is_imported_is_there_and_asked_for_by_the_wheel(installed: Path, tmp_path: Path) -> None:
    code = (
        "import importlib.metadata as m, json; print(json.dumps([m.packages_distributions(), m.requires('lbt-sim')]))"
    )
    found, asked = json.loads(call(installed.parent / "python", "-c", code, cwd=tmp_path))
    declared = {re.split(r"[^\w.-]", need)[0].lower() for need in asked if "extra ==" not in need}
    missing = {name for name in imported() - OF_EXTRAS if not declared & {d.lower() for d in found.get(name, ())}}
    assert {COME_WITH.get(name, name) for name in missing} <= declared
    assert not OF_EXTRAS & set(found)


def test_every_module_can_be_imported_without_the_extras(installed: Path, tmp_path: Path) -> None:
    code = (
        "import importlib, pkgutil, lbt_sim; "
        "names = [m.name for m in pkgutil.walk_packages(lbt_sim.__path__, 'lbt_sim.') if not m.name.endswith('__')]; "
        "print(len([importlib.import_module(name) for name in names]))"
    )
    assert int(call(installed.parent / "python", "-c", code, cwd=tmp_path)) > 80


def test_the_installed_package_is_the_wheels(installed: Path, tmp_path: Path) -> None:
    where = "import lbt_sim.library as l; print(l.__file__); print(l.built_in().root)"
    file, library = call(installed.parent / "python", "-c", where, cwd=tmp_path).split()
    assert Path(file).is_relative_to(installed.parents[1])
    assert Path(library) == Path(file).parent / "_library"


def test_the_wheel_runs_the_quickstart_from_another_directory(installed: Path, tmp_path: Path) -> None:
    out = call(
        installed, "run", "quickstart", "--engine", "simulated", "--set", "method.rounds=1", "--json", cwd=tmp_path
    )
    result = json.loads(out.splitlines()[-1])
    assert result["status"] == "done"
    assert len(result["rounds"]) == 2
    assert (tmp_path / "runs" / "quickstart-7" / "run.sqlite").is_file()
    replayed = json.loads(call(installed, "replay", "runs/quickstart-7", "--json", cwd=tmp_path).splitlines()[-1])
    assert replayed["rounds"] == result["rounds"]


def test_the_wheel_runs_a_study_to_its_report(installed: Path, tmp_path: Path) -> None:
    small = [f"--set={one}" for one in ("seeds=1", "arms=[one]", "compare=[]", "method.rounds=1", "task.held_out=10")]
    call(installed, "study", "diversity", *small, "--out", "s", "--quiet", cwd=tmp_path)
    assert "<title>" in (tmp_path / "s" / "report.html").read_text(encoding="utf-8")


def test_the_wheel_makes_a_workspace_whose_scenario_runs(installed: Path, tmp_path: Path) -> None:
    call(installed, "init", "mine", cwd=tmp_path)
    out = call(installed, "run", "first", "--json", "--set", "method.rounds=1", cwd=tmp_path / "mine")
    assert json.loads(out.splitlines()[-1])["status"] == "done"


def test_the_wheel_finds_data_that_lie_beside_a_built_in_scenario(installed: Path, tmp_path: Path) -> None:
    assert "32 train, 16 held out" in call(installed, "validate", "open-answers", cwd=tmp_path)


def test_the_wheel_holds_the_library_and_says_that_it_is_typed(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("agents", "classrooms", "scenarios"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file():
                assert f"lbt_sim/_library/{path.relative_to(ROOT).as_posix()}" in names
    assert "lbt_sim/py.typed" in names
    assert {name.split("/")[0] for name in names} == {"lbt_sim", f"lbt_sim-{lbt_sim.__version__}.dist-info"}


def test_public_names_are_sorted_and_there() -> None:
    assert lbt_sim.__all__ == sorted(lbt_sim.__all__)
    for name in lbt_sim.__all__:
        assert getattr(lbt_sim, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        lbt_sim.nothing  # noqa: B018


def test_importing_the_package_imports_nothing_heavy(tmp_path: Path) -> None:
    code = "import sys, lbt_sim; print(sorted({m.split('.')[0] for m in sys.modules} & {'pydantic', 'numpy', 'typer'}))"
    assert call(sys.executable, "-c", code, cwd=tmp_path).strip() == "[]"


def test_the_version_is_the_installed_one() -> None:
    assert version("lbt-sim") == lbt_sim.__version__


def test_no_package_outside_its_own_name_is_shipped_and_no_heavy_one_is_needed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert not [need for need in project["dependencies"] if need.startswith(("torch", "transformers", "vllm"))]


def test_the_check_installs_every_extra_so_that_no_test_is_left_out() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    check = (ROOT / "check").read_text(encoding="utf-8")
    assert set(re.findall(r"--extra (\w+)", check)) == set(project["optional-dependencies"])
