from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from fake_machine import adapter_folder, cpu_interpreter, interpreter, model_folder, put_gpus, script
from pydantic import ValidationError

from lbt_sim.cli.fetch import fetch_models
from lbt_sim.errors import ModelUnavailable
from lbt_sim.models.vllm import install, records
from lbt_sim.models.vllm.gpus import Holder, Memory
from lbt_sim.models.vllm.launch import Launch
from lbt_sim.models.vllm.plan import Wanted, plan
from lbt_sim.models.vllm.spec import VllmSpec
from lbt_sim.scenario.load import load_scenario
from lbt_sim.setup import prepare

FOUR = [f"{n}, GPU-{n}, NVIDIA L4, 23000, 22900, Disabled" for n in range(4)]


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two free GPUs, and vLLM for them in the usual place."""
    put_gpus(monkeypatch, tmp_path)
    interpreter(tmp_path / "usual" / "bin" / "python")
    monkeypatch.delenv(install.VARIABLE, raising=False)
    for name in ("HF_HUB_OFFLINE", "VLLM_BATCH_INVARIANT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(install, "default_environment", lambda: tmp_path / "usual")
    monkeypatch.setattr(install, "_own", lambda: install.Problem("own", "no vLLM"))
    monkeypatch.setenv("LBT_SIM_STATE", str(tmp_path / "state"))
    model_folder(tmp_path / "model")


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No GPU, and vLLM's CPU build."""
    put_gpus(monkeypatch, tmp_path, [])
    cpu_interpreter(tmp_path / "usual" / "bin" / "python")


def spec(tmp_path: Path, **options: object) -> VllmSpec:
    return VllmSpec.model_validate({"model": str(tmp_path / "model")} | options)


def planned(tmp_path: Path, *entries: dict[str, object], heard: list[str] | None = None) -> list[list[Launch]]:
    """What is started for entries called a, b, …"""
    wanted = [Wanted(name, spec(tmp_path, **options), {}) for name, options in zip("abcdef", entries, strict=False)]
    tell = (lambda _: None) if heard is None else heard.append
    return list(plan(wanted, tell).values())


def refused(tmp_path: Path, *entries: dict[str, object]) -> ModelUnavailable:
    with pytest.raises(ModelUnavailable) as caught:
        planned(tmp_path, *entries)
    return caught.value


def value(argv: Sequence[str], flag: str) -> str | None:
    return argv[argv.index(flag) + 1] if flag in argv else None


def seats(launches: Sequence[Launch]) -> list[str]:
    return [launch.environment["CUDA_VISIBLE_DEVICES"] for launch in launches]


# --- one server --------------------------------------------------------------------------------------------


def test_one_server_takes_the_freest_gpu_and_says_everything_that_decides(tmp_path: Path) -> None:
    ((launch,),) = planned(tmp_path, {"length": 4096, "flags": {"max-num-seqs": 64, "enable-prefix-caching": False}})
    python = str(tmp_path / "usual" / "bin" / "python")
    assert launch.name == "a"
    assert launch.argv == (
        *(python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(tmp_path / "model")),
        *("--dtype", "auto", "--tensor-parallel-size", "1", "--gpu-memory-utilization", "0.9"),
        *("--max-model-len", "4096", "--enable-prompt-tokens-details", "--generation-config", "vllm"),
        *("--max-num-seqs", "64"),
        "--no-enable-prefix-caching",
    )
    assert launch.devices == ("gpu-bbbb1111",)
    environment = dict(launch.environment)
    assert (environment["CUDA_VISIBLE_DEVICES"], environment["CUDA_DEVICE_ORDER"]) == ("1", "PCI_BUS_ID")
    assert (environment["VLLM_NO_USAGE_STATS"], environment["DO_NOT_TRACK"]) == ("1", "1")
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert not {"--host", "--port", "--served-model-name"} & set(launch.argv)
    detail = launch.detail
    assert str(detail["identity"]).startswith("model@")
    assert (detail["vllm"], detail["device"], detail["memory"]) == ("0.32.0", "cuda", 0.9)
    assert detail["VLLM_BATCH_INVARIANT"] == "0"
    assert detail["flags"] == {"max-num-seqs": 64, "enable-prefix-caching": False}


def test_the_scenarios_environment_is_on_top(tmp_path: Path) -> None:
    given = {"VLLM_BATCH_INVARIANT": "1", "HF_HUB_OFFLINE": "0"}
    ((launch,),) = planned(tmp_path, {"environment": given})
    assert given.items() <= launch.environment.items()
    assert launch.detail["VLLM_BATCH_INVARIANT"] == "1"


@pytest.mark.parametrize("name", ["HF_TOKEN", "MY_SECRET", "AWS_ACCESS_KEY_ID", "MY_CRED"])
def test_secrets_do_not_stand_in_scenarios_which_run_folders_keep(name: str) -> None:
    with pytest.raises(ValidationError, match="looks like a secret"):
        VllmSpec.model_validate({"model": "m", "environment": {name: "x"}})


@pytest.mark.parametrize(
    "flag", ["hf-token", "ssl-keyfile", "config", "served-model", "max-model", "gpu_memory", "disable-log-stats"]
)
def test_flags_that_lbt_sim_sets_are_refused_however_they_are_abbreviated(flag: str) -> None:
    with pytest.raises(ValidationError, match="is set by lbt-sim"):
        VllmSpec.model_validate({"model": "m", "flags": {flag: "x"}})


def test_ones_own_environment_is_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_BATCH_INVARIANT", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    ((launch,),) = planned(tmp_path, {})
    assert launch.detail["VLLM_BATCH_INVARIANT"] == "1"
    assert "HF_HUB_OFFLINE" not in launch.environment


@pytest.mark.parametrize("name", ["VLLM_API_KEY", "CUDA_VISIBLE_DEVICES", "LBT_SIM_SERVER", "VLLM_TARGET_DEVICE"])
def test_variables_that_lbt_sim_needs_are_refused(tmp_path: Path, name: str) -> None:
    error = refused(tmp_path, {"environment": {name: "x"}})
    assert str(error.where) == f"models.a.environment.{name}"


def test_a_flag_that_names_something_on_the_hub_leaves_the_hub_on(tmp_path: Path) -> None:
    ((launch,),) = planned(tmp_path, {"flags": {"tokenizer": "org/tokenizer"}})
    assert "HF_HUB_OFFLINE" not in launch.environment


def test_a_hub_model_is_pinned_with_its_tokenizer(tmp_path: Path) -> None:
    commit = "ab" * 20
    launches = plan([Wanted("a", VllmSpec(model="org/name", revision=commit), {})], lambda _: None)
    argv = launches["a"][0].argv
    assert (value(argv, "--revision"), value(argv, "--tokenizer-revision")) == (commit, commit)
    assert "HF_HUB_OFFLINE" not in launches["a"][0].environment
    assert launches["a"][0].detail["identity"] == f"org/name@{commit}"


def test_adapters_are_served_by_their_names(tmp_path: Path) -> None:
    folder = adapter_folder(tmp_path / "tutor")
    (launches,) = plan([Wanted("a", spec(tmp_path), {"lora-1": str(folder)})], lambda _: None).values()
    argv = launches[0].argv
    assert value(argv, "--max-lora-rank") == "16"
    assert dict(launches[0].adapters) == {"lora-1": str(folder)}
    told = launches[0].detail["adapters"]
    assert isinstance(told, dict)
    assert told["lora-1"].startswith("lora:tutor@")


def test_a_command_gets_the_flags_and_vllm_serve_its_model_by_position(tmp_path: Path) -> None:
    run = script(tmp_path / "bin" / "run-vllm", "")
    (first,), (second,) = planned(
        tmp_path, {"command": [str(run), "--quiet"], "memory": 0.3}, {"command": [str(run), "serve"], "memory": 0.3}
    )
    model = str(tmp_path / "model")
    assert first.argv[:4] == (str(run), "--quiet", "--model", model)
    assert second.argv[:4] == (str(run), "serve", model, "--dtype")
    assert first.detail["vllm"] is None


def test_entries_with_addresses_are_left_alone(tmp_path: Path) -> None:
    wanted = Wanted("a", VllmSpec(model="org/name", urls=["http://127.0.0.1:9/v1"]), {})
    assert plan([wanted], lambda _: None) == {}


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"model": "/nowhere"}, "models.a.model"),
        ({"lora": "/nowhere"}, "models.a.lora"),
        ({"python": "/nowhere/python"}, "models.a.python"),
        ({"command": ["/nowhere/vllm"]}, "models.a.command"),
        ({"gpus": [7]}, "models.a.gpus"),
        ({"tensor_parallel": 3}, "models.a.tensor_parallel"),
        ({"gpus": [0, 1]}, "models.a.gpus"),
    ],
)
def test_every_problem_has_the_place_of_its_option(tmp_path: Path, options: dict[str, object], key: str) -> None:
    one = spec(tmp_path, **options)
    adapters = {"lora-1": one.lora} if one.lora else {}
    with pytest.raises(ModelUnavailable) as caught:
        plan([Wanted("a", one, adapters)], lambda _: None)
    assert str(caught.value.where) == key
    assert caught.value.remedy


# --- GPUs --------------------------------------------------------------------------------------------------


def test_replicas_spread_over_gpus_before_they_share_one(tmp_path: Path) -> None:
    (two,) = planned(tmp_path, {"replicas": 2})
    assert sorted(seats(two)) == ["0", "1"]
    assert [launch.name for launch in two] == ["a.1", "a.2"]
    (four,) = planned(tmp_path, {"replicas": 4})
    assert sorted(seats(four)) == ["0", "0", "1", "1"]
    assert {value(launch.argv, "--gpu-memory-utilization") for launch in four} == {"0.45"}


def test_a_gpu_that_somebody_else_fills_is_not_spread_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_gpus(monkeypatch, tmp_path, ["0, GPU-a, H100, 80000, 5000, Disabled", "1, GPU-b, H100, 80000, 79000, Disabled"])
    (launches,) = planned(tmp_path, {"replicas": 2})
    assert seats(launches) == ["1", "1"]


def test_named_gpus_are_dealt_out_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_gpus(monkeypatch, tmp_path, FOUR)
    (launches,) = planned(tmp_path, {"gpus": [3, 1, 0, 2], "tensor_parallel": 2, "replicas": 2})
    assert seats(launches) == ["3,1", "0,2"]
    assert launches[0].devices == ("gpu-3", "gpu-1")
    assert value(launches[0].argv, "--tensor-parallel-size") == "2"


def test_other_entries_go_where_the_named_ones_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_gpus(monkeypatch, tmp_path, FOUR)
    auto, named = planned(tmp_path, {"tensor_parallel": 2}, {"gpus": [0, 1], "tensor_parallel": 2})
    assert (seats(auto), seats(named)) == (["2,3"], ["0,1"])


def test_numbers_are_positions_in_what_is_visible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_gpus(monkeypatch, tmp_path, FOUR)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-2")
    (launches,) = planned(tmp_path, {"gpus": [1, 0], "replicas": 2})
    assert seats(launches) == ["2", "3"]
    assert refused(tmp_path, {"gpus": [2]}).valid == ("0 (NVIDIA L4)", "1 (NVIDIA L4)")


def test_a_server_that_says_nothing_takes_what_the_others_leave(tmp_path: Path) -> None:
    first, second, third = planned(tmp_path, {"gpus": [0], "memory": 0.5}, {"gpus": [0]}, {"gpus": [0]})
    assert [value(one[0].argv, "--gpu-memory-utilization") for one in (first, second, third)] == ["0.5", "0.2", "0.2"]


def test_a_server_over_several_gpus_takes_the_least_share_of_them(tmp_path: Path) -> None:
    wide, narrow = planned(tmp_path, {"gpus": [0, 1], "tensor_parallel": 2}, {"gpus": [1]})
    assert value(wide[0].argv, "--gpu-memory-utilization") == "0.45"
    assert value(narrow[0].argv, "--gpu-memory-utilization") == "0.45"


def test_shares_above_the_whole_are_refused(tmp_path: Path) -> None:
    error = refused(tmp_path, {"gpus": [0], "memory": 0.6}, {"gpus": [0], "memory": 0.5})
    assert "1.10 of its memory together (a 0.6, b 0.5)" in error.what
    error = refused(tmp_path, {"gpus": [0], "memory": 0.9}, {"gpus": [0]})
    assert "leave nothing for b" in error.what


def test_too_little_free_memory_names_the_holders_and_what_would_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apps = ["GPU-aaaa0000, 4242, /opt/train.py, 39000"]
    put_gpus(monkeypatch, tmp_path, ["0, GPU-aaaa0000, NVIDIA H100, 80000, 40000, Disabled"], apps)
    error = refused(tmp_path, {})
    assert str(error.where) == "models.a.gpus"
    assert "40,000 of 80,000 MiB free" in error.what
    assert "train.py (process 4242, 39000 MiB)" in error.what
    assert "`memory: 0.5`" in error.remedy
    ((fits,),) = planned(tmp_path, {"memory": 0.5})
    assert fits.devices == ("gpu-aaaa0000",)


def test_servers_on_one_gpu_have_to_fit_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_gpus(monkeypatch, tmp_path, ["0, GPU-a, H100, 80000, 40000, Disabled"])
    planned(tmp_path, {"memory": 0.3})
    assert "48,000 MiB are wanted for a, b" in refused(tmp_path, {"memory": 0.3}, {"memory": 0.3}).what


def test_memory_that_the_driver_does_not_tell_is_left_to_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_gpus(monkeypatch, tmp_path, [f"{n}, GPU-{n}, GB10, [N/A], [N/A], [N/A]" for n in range(2)])
    (launches,) = planned(tmp_path, {"replicas": 2})
    assert sorted(seats(launches)) == ["0", "1"]


def test_a_gpu_cut_into_instances_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_gpus(monkeypatch, tmp_path, ["0, GPU-a, A100, 40000, 39990, Enabled", "1, GPU-b, A100, 40000, 39000, Disabled"])
    (launches,) = planned(tmp_path, {})
    assert seats(launches) == ["1"]
    assert "MIG" in refused(tmp_path, {"gpus": [0]}).what


def test_a_broken_driver_is_told(tmp_path: Path) -> None:
    script(tmp_path / "bin" / "nvidia-smi", "echo 'Driver/library version mismatch'; exit 18\n")
    assert "version mismatch" in refused(tmp_path, {}).what


def hub_model(folder: Path, monkeypatch: pytest.MonkeyPatch, mib: int, kind: str = "BF16") -> dict[str, object]:
    """An entry of a model in this machine's cache of the hub, whose weights are of that size."""
    monkeypatch.setenv("HF_HUB_CACHE", str(folder / "hub"))
    commit = "ab" * 20
    snapshot = folder / "hub" / "models--org--name" / "snapshots" / commit
    snapshot.mkdir(parents=True, exist_ok=True)
    (snapshot / "config.json").write_text("{}")
    header = json.dumps({"w": {"dtype": kind, "shape": [1], "data_offsets": [0, mib << 20]}}).encode()
    with (snapshot / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + (mib << 20))  # a hole, which takes no room
    return {"model": "org/name", "revision": commit}


def test_weights_that_do_not_fit_into_a_share_are_told_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = hub_model(tmp_path, monkeypatch, 30_000)
    error = refused(tmp_path, large | {"gpus": [0], "memory": 0.3}, {"gpus": [0]})
    assert str(error.where) == "models.a.memory"
    assert "the weights of a take 30,000 MiB of GPU 0 (NVIDIA H100 80GB HBM3)" in error.what
    assert "is to take 24,000 of 80,000 MiB; other servers there are of b" in error.what
    assert error.remedy.startswith("Raise `memory` above 0.39, spread the model over more GPUs with `tensor_parallel`")
    planned(tmp_path, large | {"gpus": [0], "memory": 0.4}, {"gpus": [0]})
    planned(tmp_path, large | {"gpus": [0, 1], "memory": 0.2, "tensor_parallel": 2})
    error = refused(tmp_path, hub_model(tmp_path, monkeypatch, 90_000))
    assert "take 90,000 MiB" in error.what
    assert error.remedy.startswith("Spread the model over more GPUs")
    planned(tmp_path, hub_model(tmp_path, monkeypatch, 90_000) | {"tensor_parallel": 2})


def test_weights_that_do_not_fit_tell_who_holds_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apps = ["GPU-aaaa0000, 4242, /opt/train.py, 39000"]
    put_gpus(monkeypatch, tmp_path, ["0, GPU-aaaa0000, NVIDIA H100, 80000, 40000, Disabled"], apps)
    error = refused(tmp_path, hub_model(tmp_path, monkeypatch, 50_000) | {"memory": 0.5})
    assert "it is held by train.py (process 4242, 39000 MiB)" in error.what


def test_weights_are_as_large_as_the_type_that_they_are_loaded_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = hub_model(tmp_path, monkeypatch, 60_000, "F32") | {"memory": 0.5}
    planned(tmp_path, stored)
    planned(tmp_path, stored | {"dtype": "bfloat16"})
    assert "take 60,000 MiB" in refused(tmp_path, stored | {"dtype": "float32"}).what
    assert (
        "take 60,000 MiB" in refused(tmp_path, hub_model(tmp_path, monkeypatch, 60_000, "I32") | {"memory": 0.5}).what
    )


def test_weights_of_unknown_size_are_told_and_left_to_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = hub_model(tmp_path, monkeypatch, 60_000) | {"memory": 0.5}
    heard: list[str] = []
    planned(tmp_path, large | {"flags": {"quantization": "fp8"}}, heard=heard)
    planned(tmp_path, {"model": "org/other", "revision": "cd" * 20}, heard=heard)
    assert heard == ["a: whether its weights fit is not known before they are loaded"] * 2
    planned(tmp_path, {}, heard=heard)
    assert len(heard) == 2


def test_memory_that_servers_of_ours_hold_is_told_by_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = os.getpid()
    start = records.started(pid)
    assert start is not None
    record = records.Record(
        token="0123456789abcdef", name="teacher", owner=pid, owner_start=start, place=records.here(), log="", port=1,
        url="", served="", api_key="", server_key="", devices=(), adapters={}, kept=True, started="",
        pgid=os.getpgid(pid),
    )  # fmt: skip
    monkeypatch.setattr(records, "live", lambda: [record])
    line = ["0, GPU-aaaa0000, NVIDIA H100, 80000, 1000, Disabled"]
    put_gpus(monkeypatch, tmp_path, line, [f"GPU-aaaa0000, {pid}, VLLM::EngineCore, 70000"])
    assert f"held by teacher, a server of lbt-sim (process {pid}, 70000 MiB)" in refused(tmp_path, {}).what


# --- which device ------------------------------------------------------------------------------------------


def test_vllm_for_gpus_needs_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_gpus(monkeypatch, tmp_path, [])
    assert "no NVIDIA GPU was found, and vLLM is built for CUDA" in refused(tmp_path, {}).what
    assert "scripts/vllm-cpu" in refused(tmp_path, {"device": "cuda"}).remedy
    assert "CPU is asked for" in refused(tmp_path, {"device": "cpu"}).what


def test_the_cpu_build_beside_gpus_is_used_and_told(tmp_path: Path) -> None:
    cpu_interpreter(tmp_path / "usual" / "bin" / "python")
    heard: list[str] = []
    ((launch,),) = planned(tmp_path, {}, heard=heard)
    assert launch.devices == ("cpu",)
    assert "although there are GPUs" in heard[0]
    assert "GPUs are asked for" in refused(tmp_path, {"gpus": [0]}).what
    assert str(refused(tmp_path, {"device": "cuda"}).where) == "models.a.device"


def test_builds_for_other_makers_gpus_are_not_started(tmp_path: Path) -> None:
    interpreter(tmp_path / "usual" / "bin" / "python", torch_device="rocm")
    error = refused(tmp_path, {})
    assert "ROCM" in error.what
    assert "`urls`" in error.remedy


# --- the CPU -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("on_cpu")
def test_a_server_on_the_cpu(tmp_path: Path) -> None:
    ((launch,),) = planned(tmp_path, {"cpu_cache": 1, "length": 2048})
    assert launch.devices == ("cpu",)
    assert value(launch.argv, "--dtype") == "float32"
    assert "--enforce-eager" in launch.argv
    assert "--gpu-memory-utilization" not in launch.argv
    assert launch.environment["VLLM_TARGET_DEVICE"] == "cpu"
    assert launch.environment["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert "CUDA_VISIBLE_DEVICES" not in launch.environment
    assert (launch.detail["cpu_cache_gib"], launch.detail["dtype"]) == (1, "float32")
    ((compiled,),) = planned(tmp_path, {"flags": {"enforce-eager": False}, "dtype": "bfloat16"})
    assert "--no-enforce-eager" in compiled.argv
    assert "--enforce-eager" not in compiled.argv
    assert value(compiled.argv, "--dtype") == "bfloat16"


@pytest.mark.usefixtures("on_cpu")
def test_all_servers_on_the_cpu_have_to_fit_into_what_is_available(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Memory(16_000, 9_000, (Holder(7, "firefox", 5_000),))
    monkeypatch.setattr("lbt_sim.models.vllm.plan.memory", lambda: there)
    planned(tmp_path, {"cpu_cache": 1}, {"cpu_cache": 1})
    error = refused(tmp_path, {"cpu_cache": 1}, {"cpu_cache": 1, "replicas": 2})
    assert str(error.where) == "models.b.cpu_cache"
    assert "9,000 of 16,000 MiB" in error.what
    assert "firefox (process 7, 5000 MiB)" in error.what


@pytest.mark.usefixtures("on_cpu")
def test_weights_of_the_hub_count_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lbt_sim.models.vllm.plan.memory", lambda: Memory(16_000, 9_000, ()))
    error = refused(tmp_path, hub_model(tmp_path, monkeypatch, 3_000) | {"cpu_cache": 1})
    assert "a 9,072 MiB" in error.what  # float32, the cache and what is beside
    planned(tmp_path, hub_model(tmp_path, monkeypatch, 3_000) | {"cpu_cache": 1, "dtype": "bfloat16"})


# --- from a scenario ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["quickstart", "simulated"])
def test_a_scenario_of_another_engine_can_be_put_on_vllm(name: str) -> None:
    models = load_scenario(name, engine="vllm").file.models
    assert {(one.engine, (one.model_extra or {})["model"]) for one in models.values()} == {("vllm", "smollm2-135m")}


def test_a_model_that_another_server_knows_is_kept() -> None:
    models = load_scenario("m3-gsm8k", engine="vllm").file.models
    assert (models["solver"].model_extra or {})["model"] == "Qwen/Qwen2.5-1.5B-Instruct"


@pytest.mark.parametrize(
    ("line", "fetched"),
    [
        ("{engine: vllm, model: smollm2-135m}", ["smollm2-135m"]),
        ("{engine: vllm, model: org/name}", []),
        ("{engine: vllm, model: smollm2-135m, urls: ['http://127.0.0.1:9/v1']}", []),
    ],
)
def test_a_known_model_is_fetched_for_servers_of_our_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, fetched: list[str]
) -> None:
    monkeypatch.setenv("LBT_SIM_CACHE", str(tmp_path / "cache"))
    asked: list[str] = []
    monkeypatch.setattr("lbt_sim.models.weights.pull", lambda name, progress: asked.append(name))
    fetch_models(prepare(load_scenario("quickstart", sets=[f"models.small={line}"])), quiet=True)
    assert asked == fetched
