"""What is shipped works outside the checkout: source distribution, wheel, a clean environment, another directory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

import lbt_sim

ROOT = Path(__file__).parents[1]


def call(*command: str | Path, cwd: Path) -> str:
    """Runs a command in `cwd`, without the checkout on its path; its standard output."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV", "LBT_SIM", "UV_"))}
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=env, capture_output=True, text=True)
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
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `lbt-sim` command of a new virtual environment that has the wheel.

    What lbt-sim depends on is lent by the environment of the tests, so that nothing is downloaded; the checkout is not,
    since a line of a .pth file does not read the .pth files of the folder that it names.
    """
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        pytest.skip("needs uv to install the wheel")
    folder = tmp_path_factory.mktemp("clean") / "env"
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    call(uv, "pip", "install", "--offline", "--no-deps", "--python", python, wheel, cwd=folder)
    site = call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    lent = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    (Path(site) / "lent.pth").write_text("\n".join(lent) + "\n", encoding="utf-8")
    return folder / "bin" / "lbt-sim"


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
