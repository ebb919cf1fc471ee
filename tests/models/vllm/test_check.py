"""What is wrong with entries on vLLM and can be seen without any: each mistake at its key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_machine import adapter_folder, model_folder, put_gpus, script
from pydantic import ValidationError

from lbt_sim.errors import ModelUnavailable
from lbt_sim.models.vllm.check import at, check_agreement, mistakes
from lbt_sim.models.vllm.gpus import check_visible
from lbt_sim.models.vllm.spec import VllmSpec


@pytest.fixture(autouse=True)
def no_vllm_anywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without GPUs, without a vLLM, and with nothing fetched."""
    put_gpus(monkeypatch, tmp_path, [])
    monkeypatch.setenv("LBT_SIM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LBT_SIM_VLLM_PYTHON", str(tmp_path / "nowhere"))


def found(**entries: dict[str, Any]) -> dict[str, str]:
    """Place -> what is wrong there."""
    specs = {name: VllmSpec.model_validate({"model": "org/name"} | said) for name, said in entries.items()}
    errors = list(mistakes(specs))
    assert all(error.remedy for error in errors)
    return {str(error.where): error.what for error in errors}


def test_what_is_there_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + bytes(64))
    program = str(script(tmp_path / "python", "exit 1\n"))
    entries: list[dict[str, Any]] = [
        {},
        {"model": "smollm2-135m"},
        {"model": str(model_folder(tmp_path / "model")), "lora": str(adapter_folder(tmp_path / "tutor"))},
        {"model": str(tmp_path / "x.gguf"), "python": program},
        {"command": [program, "serve"], "gpus": [0], "tensor_parallel": 1},
        {"model": "/served/elsewhere", "lora": "tutor", "urls": ["http://127.0.0.1:9/v1"]},
    ]
    assert found(**{f"m{number}": said for number, said in enumerate(entries)}) == {}


@pytest.mark.parametrize(
    ("said", "key", "what"),
    [
        ({"model": "./nowhere"}, "model", "there is no folder"),
        ({"model": "{}/empty"}, "model", "has no config.json"),
        ({"model": "{}/tutor"}, "model", "is a LoRA adapter"),
        ({"model": "{}/gone.gguf"}, "model", "cannot be read"),
        ({"model": "{}/text.gguf"}, "model", "is not a GGUF file"),
        ({"model": "{}/model", "revision": "v1"}, "revision", "has no revisions"),
        ({"lora": "{}/gone"}, "lora", "no such folder"),
        ({"lora": "{}/model"}, "lora", "no adapter_config.json"),
        ({"python": "{}/gone/python"}, "python", "is not there"),
        ({"python": "{}/text.gguf"}, "python", "cannot be executed"),
        ({"command": ["{}/gone/vllm", "serve"]}, "command", "was not found"),
        ({"model": "~nosuchuser/x"}, "model", "no such user's folder"),
        ({"model": "~nosuchuser/x", "revision": "v1"}, "model", "no such user's folder"),
        ({"model": "a" * 300}, "model", "File name too long"),
        ({"lora": "~nosuchuser/x"}, "lora", "no such user's folder"),
        ({"lora": "a" * 300}, "lora", "File name too long"),
        ({"lora": "{}" + "/a" * 2020}, "lora", "too long"),
        ({"python": "~nosuchuser/x"}, "python", "no such user's folder"),
        ({"python": "a" * 300}, "python", "File name too long"),
        ({"command": ["~nosuchuser/x"]}, "command", "no such user's folder"),
        ({"command": ["a" * 300]}, "command", "File name too long"),
        ({"environment": {"CUDA_VISIBLE_DEVICES": "1"}}, "environment.CUDA_VISIBLE_DEVICES", "use `gpus`"),
    ],
)
def test_each_mistake_has_its_place(said: dict[str, Any], key: str, what: str, tmp_path: Path) -> None:
    model_folder(tmp_path / "model")
    adapter_folder(tmp_path / "tutor")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.gguf").write_text("no weights")

    def here(value: Any) -> Any:
        return [here(one) for one in value] if isinstance(value, list) else str(value).replace("{}", str(tmp_path))

    filled = {name: value if isinstance(value, dict) else here(value) for name, value in said.items()}
    (only,) = found(small=filled).items()
    assert only[0] == f"models.small.{key}"
    assert what in only[1]


@pytest.mark.parametrize(
    "said",
    [
        {"environment": {"A=B": "1"}},
        {"environment": {"": "1"}},
        {"environment": {"A": "x\0y"}},
        {"environment": {"A\0": "x"}},
        {"flags": {"x": "\0"}},
        {"flags": {"x\0": True}},
        {"command": ["vllm", "\0"]},
        {"revision": "\0"},
        {"lora": "\0"},
    ],
)
def test_what_no_program_can_be_given_is_a_mistake(said: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"no variable's name|the character NUL") as caught:
        VllmSpec.model_validate({"model": "org/name"} | said)
    assert caught.value.errors()[0]["loc"] == tuple(said)


@pytest.mark.parametrize("model", ["~nosuchuser/x", "a" * 300])
def test_entries_whose_paths_cannot_be_are_told_apart_all_the_same(model: str) -> None:
    keys = {VllmSpec.model_validate({"model": one}).server_key for one in (model, model, "org/name")}
    assert len(keys) == 2


def test_a_file_that_cannot_be_read_is_told_at_the_option() -> None:
    with pytest.raises(ModelUnavailable, match="/x/y cannot be read: Permission denied") as caught, at("a", "model"):
        raise PermissionError(13, "Permission denied", "/x/y")
    assert str(caught.value.where) == "models.a.model"


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    wrong = found(a={"model": "./nowhere", "lora": str(tmp_path / "gone")}, b={"python": "/nowhere/python"})
    assert set(wrong) == {"models.a.model", "models.a.lora", "models.b.python"}


# --- which GPUs are visible --------------------------------------------------------------------------------


@pytest.mark.parametrize("chosen", ["0,1", "GPU-bbbb", "-1", "", "0,-1,x", "none"])
def test_gpus_that_may_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, chosen: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    check_visible()
    put_gpus(monkeypatch, tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    check_visible()


def test_variable_that_names_no_gpu_is_a_mistake_of_entries_that_may_use_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,all")
    (only,) = found(small={"device": "cpu"}, large={}).items()
    assert only == ("models.large.gpus", "CUDA_VISIBLE_DEVICES=0,all names 'all', which is no GPU")
    assert found(small={"device": "cpu"}) == {}


def test_variable_that_names_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put_gpus(monkeypatch, tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,7")
    with pytest.raises(ModelUnavailable, match="names '7', which is not a GPU of this machine") as caught:
        check_visible()
    assert caught.value.valid == ("0 (NVIDIA H100 80GB HBM3)", "1 (NVIDIA H100 80GB HBM3)")


def test_driver_that_does_not_answer_is_no_matter_of_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script(tmp_path / "bin" / "nvidia-smi", "exit 9\n")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert found(small={}) == {}


# --- entries that share servers ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "values", "told"),
    [
        ("patience", (60, 180.5), ("60", "180.5")),
        ("start_timeout", (1800, 60), ("1800", "60")),
        ("restarts", (0, 3), ("0", "3")),
    ],
)
def test_entries_that_share_servers_say_the_same_of_them(
    key: str, values: tuple[float, float], told: tuple[str, str]
) -> None:
    one, other = ({key: value} for value in values)
    tuned = {"lora": "adapters/tutor"}
    specs = {
        name: VllmSpec.model_validate({"model": "m"} | said) for name, said in {"a": one, "b": other | tuned}.items()
    }
    with pytest.raises(ModelUnavailable, match=f"'a' and 'b' are answered by the same servers, and `{key}`") as caught:
        check_agreement(specs)
    assert f"is {told[0]} for the one and {told[1]} for the other" in caught.value.what
    assert str(caught.value.where) == f"models.b.{key}"
    apart = {"a": specs["a"], "b": specs["b"].model_copy(update={"length": 512})}
    check_agreement(apart)


def test_entries_at_the_same_addresses_have_one_key() -> None:
    urls = {"urls": ["http://127.0.0.1:9/v1"]}
    wrong = found(a=urls | {"api_key_env": "ONE"}, b=urls, c=urls | {"api_key_env": "ONE", "restarts": 7})
    (only,) = wrong.items()
    assert only[0] == "models.b.api_key_env"
    assert "`api_key_env` is ONE for the one and not given for the other" in only[1]


def test_entries_at_the_same_addresses_wait_as_long_for_them() -> None:
    urls = {"urls": ["http://127.0.0.1:9/v1"]}
    (only,) = found(a=urls | {"patience": 3.0}, b=urls, c={"urls": ["http://127.0.0.1:8/v1"], "patience": 7.0}).items()
    assert only[0] == "models.b.patience"
    assert "`patience` is 3 for the one and 180 for the other" in only[1]


def test_options_of_servers_beside_addresses_say_what_to_leave_out() -> None:
    with pytest.raises(ValidationError, match=r"`gpus` is for servers that lbt-sim starts, .*: leave out either it or"):
        VllmSpec.model_validate({"model": "m", "urls": ["http://127.0.0.1:9/v1"], "gpus": [0]})
    with pytest.raises(ValidationError, match=r"`gpus`, `memory` are for .*: leave out either these or `urls`"):
        VllmSpec.model_validate({"model": "m", "urls": ["http://127.0.0.1:9/v1"], "memory": 0.5, "gpus": [0]})
