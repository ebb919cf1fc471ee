from __future__ import annotations

import json
import os
import shutil
import struct
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fake_machine import adapter_folder, model_folder, script, tensors

from lbt_sim.errors import ModelUnavailable
from lbt_sim.models import weights as known
from lbt_sim.models.vllm import adapters
from lbt_sim.models.vllm.install import VARIABLE, Installation, learn
from lbt_sim.models.vllm.spec import VllmSpec
from lbt_sim.models.vllm.weights import Weights, find

REAL = os.environ.get(VARIABLE, "")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "smollm2-135m"


@pytest.fixture(autouse=True)
def nothing_cached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LBT_SIM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)


def vllm(python: Path | str = "/no/python", missing: tuple[str, ...] = ()) -> Installation:
    return Installation(str(python), "here", "vllm", "0.32.0", "2.13.0", "cuda", "3.12.4", missing)


def look(model: str | Path, python: Path | str = "/no/python", **options: object) -> Weights:
    return find(VllmSpec.model_validate({"model": str(model)} | options), vllm(python), lambda _: None)


# --- folders -----------------------------------------------------------------------------------------------


def test_a_folder_is_known_by_what_is_in_it_and_not_by_where_or_when(tmp_path: Path) -> None:
    first = look(model_folder(tmp_path / "a" / "mine"))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    again = look(tmp_path / "b" / "mine")
    assert first.identity == again.identity
    assert first.identity.startswith("mine@")
    assert (again.argument, again.local) == (str(tmp_path / "b" / "mine"), True)


def test_other_weights_another_tokenizer_or_another_template_are_another_model(tmp_path: Path) -> None:
    seen = {
        look(model_folder(tmp_path / "a" / "m")).identity,
        look(model_folder(tmp_path / "b" / "m", (1, 2, 4))).identity,
    }
    for name in ("tokenizer.json", "chat_template.jinja"):
        folder = model_folder(tmp_path / name / "m")
        (folder / name).write_text('{"other": 1}')
        seen.add(look(folder).identity)
    assert len(seen) == 4


def test_what_it_takes_in_memory_depends_on_the_type_it_is_loaded_with(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    tensors(folder / "model.safetensors", {"w": [1.0] * 100}, "F16")
    contents = look(folder).contents
    assert contents is not None
    assert (contents.stored, contents.loaded(4), contents.loaded(2)) == (contents.stored, 400, 200)


@pytest.mark.parametrize("size", [4, 40, -1])
def test_weights_that_were_not_written_to_their_end_are_damaged(tmp_path: Path, size: int) -> None:
    folder = model_folder(tmp_path / "m")
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:size])
    with pytest.raises(ModelUnavailable, match="damaged"):
        look(folder)


def test_a_folder_that_is_not_complete_says_what_is_missing(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    index = {"weight_map": {"w": "model.safetensors", "v": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelUnavailable, match=r"model-00002-of-00002\.safetensors is missing"):
        look(folder)
    (folder / "model.safetensors.index.json").unlink()
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelUnavailable, match="has no weights"):
        look(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ModelUnavailable, match=r"no config\.json"):
        look(folder)


def test_an_adapter_in_place_of_a_model_is_told_where_it_belongs(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="is a LoRA adapter") as caught:
        look(adapter_folder(tmp_path / "a"))
    assert "`lora`" in caught.value.remedy


def test_a_path_that_is_not_there_and_a_name_that_nearly_is_known(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="there is no folder"):
        look(tmp_path / "nowhere")
    python = script(tmp_path / "python", """echo '{"kind": "ConnectError", "error": "no network"}'\n""")
    with pytest.raises(ModelUnavailable, match=f"did you mean '{NAME}'"):
        look("smollm2-135", python)


# --- the hub -----------------------------------------------------------------------------------------------


def test_a_hub_id_is_pinned_to_the_commit_in_this_machines_cache(tmp_path: Path) -> None:
    refs = tmp_path / "hf" / "hub" / "models--org--name" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text(COMMIT)
    found = look("org/name")
    assert (found.argument, found.identity, found.revision) == ("org/name", f"org/name@{COMMIT}", COMMIT)
    assert not found.local


def test_a_commit_needs_nobody_to_be_asked() -> None:
    assert look("org/name", revision=COMMIT).identity == f"org/name@{COMMIT}"


def test_what_is_not_cached_is_asked_of_the_hub_with_the_servers_environment(tmp_path: Path) -> None:
    python = script(tmp_path / "python", f'[ "$HF_ENDPOINT" = t ] && echo \'{{"commit": "{COMMIT}"}}\'\n')
    found = look("org/name", python, environment={"HF_ENDPOINT": "t"}, revision="v1")
    assert found.revision == COMMIT
    assert found.detail["revision"] == "v1"


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("RepositoryNotFoundError", "has no 'org/name'"),
        ("RevisionNotFoundError", "has no revision 'v1' of org/name"),
        ("GatedRepoError", "only to those who asked"),
        ("OfflineModeIsEnabled", "not in this machine's cache"),
    ],
)
def test_what_the_hub_does_not_give_is_told_before_a_server_starts(tmp_path: Path, kind: str, what: str) -> None:
    python = script(tmp_path / "python", f'echo \'{{"kind": "{kind}", "error": "x"}}\'\n')
    with pytest.raises(ModelUnavailable, match=what):
        look("org/name", python, revision="v1")


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """The folder of a commit in this machine's cache of the hub."""
    return model_folder(tmp_path / "hf" / "hub" / "models--org--name" / "snapshots" / COMMIT)


def size(found: Weights, bytes_each: int = 2) -> int | None:
    return found.contents.loaded(bytes_each) if found.contents else None


def test_what_is_cached_of_the_hub_is_sized_and_nobody_is_asked(snapshot: Path, tmp_path: Path) -> None:
    tensors(snapshot / "model.safetensors", {"w": [1.0] * 100}, "F16")
    python = script(tmp_path / "python", f"touch {tmp_path}/asked\n")
    assert size(look("org/name", python, revision=COMMIT)) == 200
    assert not (tmp_path / "asked").exists()


def test_files_that_an_index_leaves_out_are_not_loaded(snapshot: Path) -> None:
    tensors(snapshot / "consolidated.safetensors", {"w": [1.0] * 100})
    (snapshot / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": "model.safetensors"}}))
    assert size(look("org/name", revision=COMMIT)) == 3 * 2


@pytest.mark.parametrize(
    ("told", "bytes_"),
    [
        ({"files": {"model.safetensors": 999}, "numbers": {"F32": 100, "BF16": 20}}, 240),
        ({"files": {"model.safetensors": 999, "old/a.safetensors": 5}, "numbers": {"I32": 100, "F16": 20}}, 999),
        ({"files": {"model.safetensors": 480}, "numbers": {"F32": 100, "I64": 10}}, 280),
        ({"files": {"model.safetensors": 100}, "numbers": {"F8_E4M3": 60, "BF16": 20}}, 100),
        ({"files": {}, "numbers": {"F32": 100, "I64": 10}}, 200),
        ({"files": {"model.safetensors": 999}, "numbers": {"I32": 100}}, 999),
        ({"files": {"pytorch_model.bin": 700, "x.bin": 5, "config.json": 1}, "numbers": {}}, 700),
        ({"files": {"a.safetensors": 7, "b.safetensors": 8, "consolidated.safetensors": 15}}, 15),
        ({"files": {"config.json": 1}}, None),
        ({}, None),
    ],
)
def test_what_is_not_cached_is_sized_by_what_the_hub_tells(
    tmp_path: Path, told: dict[str, object], bytes_: int | None
) -> None:
    python = script(tmp_path / "python", f"echo '{json.dumps({'commit': COMMIT} | told)}'\n")
    assert size(look("org/name", python)) == bytes_
    assert size(look("org/name", python, revision=COMMIT)) == bytes_


def test_a_buffer_of_integers_is_no_reason_to_count_floats_as_they_are_stored(tmp_path: Path) -> None:
    told = {"commit": COMMIT, "files": {"model.safetensors": 280}, "numbers": {"BF16": 100, "I64": 10}}
    found = look("org/name", script(tmp_path / "python", f"echo '{json.dumps(told)}'\n"))
    assert (size(found, 2), size(found, 4)) == (280, 480)


def test_a_buffer_of_integers_in_a_folder_is_loaded_as_it_is_stored(snapshot: Path) -> None:
    header = {"w": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}}
    header["i"] = {"dtype": "I64", "shape": [2], "data_offsets": [12, 28]}
    written = json.dumps(header).encode()
    (snapshot / "model.safetensors").write_bytes(struct.pack("<Q", len(written)) + written + bytes(28))
    assert size(look("org/name", revision=COMMIT)) == 3 * 2 + 16


class Hub(BaseHTTPRequestHandler):
    """Answers about one model as the hub does: https://huggingface.co/api/models/org/name/revision/main?blobs=true."""

    def do_GET(self) -> None:
        files = [{"rfilename": "model.safetensors", "size": 999, "blobId": "x"}, {"rfilename": "README.md"}]
        said: dict[str, Any] = {"_id": "1", "id": "org/name", "modelId": "org/name", "sha": COMMIT, "siblings": files}
        said |= {"safetensors": {"parameters": {"BF16": 400}, "total": 400}, "tags": [], "private": False}
        known = self.path.startswith("/api/models/org/name")
        self.send_response(200 if known else 404)
        for header in () if known else (("X-Error-Code", "RepoNotFound"),):
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(json.dumps(said if known else {"error": "Repository not found"}).encode())

    def log_message(self, *_: Any) -> None:
        pass


def test_the_hub_is_asked_as_its_own_library_does() -> None:
    pytest.importorskip("huggingface_hub")
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as hub:
        thread = threading.Thread(target=hub.serve_forever)
        thread.start()
        environment = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HUB_OFFLINE": "0"}
        try:
            found = look("org/name", sys.executable, environment=environment)
            with pytest.raises(ModelUnavailable, match="hub has no 'org/other'"):
                look("org/other", sys.executable, environment=environment)
        finally:
            hub.shutdown()
            thread.join()
    assert (found.revision, size(found), size(found, 4)) == (COMMIT, 800, 1600)


def test_half_of_a_download_is_no_size(snapshot: Path, tmp_path: Path) -> None:
    index = {"weight_map": {"w": "model.safetensors", "v": "model-2.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    told = {"commit": "ef" * 20, "files": {"model.safetensors": 9}, "numbers": {"F32": 100}}
    python = script(tmp_path / "python", f"echo '{json.dumps(told)}'\n")
    found = look("org/name", python, revision=COMMIT)
    assert (size(found), found.revision) == (200, COMMIT)


@pytest.mark.parametrize("text", ["exit 1", """echo '{"kind": "OfflineModeIsEnabled", "error": "x"}'""", "echo []"])
def test_a_size_that_nobody_tells_is_no_failure(tmp_path: Path, text: str) -> None:
    found = look("org/name", script(tmp_path / "python", text + "\n"), revision=COMMIT)
    assert (found.contents, found.revision) == (None, COMMIT)


def test_with_a_command_of_ones_own_the_revision_is_what_the_scenario_says() -> None:
    assert look("org/name", "", revision="v1").identity == "org/name@v1"
    assert look("org/name", "").identity == "org/name@main"


# --- GGUF --------------------------------------------------------------------------------------------------

WRITES = 'mkdir -p "$4" && cp {model}/* "$4"/ && echo "$5" >> {model}.log && echo "{{}}"\n'
"""Stands for an interpreter that writes the folder: -I script file folder dtype."""


def gguf(path: Path) -> Path:
    path.write_bytes(b"GGUF" + bytes(64))
    return path


def test_a_gguf_file_is_written_out_once_for_each_type(tmp_path: Path) -> None:
    model = model_folder(tmp_path / "model")
    python = script(tmp_path / "python", WRITES.format(model=model))
    file = gguf(tmp_path / "tiny.gguf")
    heard: list[str] = []
    spec = VllmSpec(model=str(file))
    first = find(spec, vllm(python), heard.append)
    assert find(spec, vllm(python), heard.append) == first
    digest = known.sha256_of(file)[:12]
    assert first.identity == f"tiny.gguf@{digest}"
    assert Path(first.argument) == tmp_path / "cache" / "huggingface" / f"tiny-{digest}-float32"
    assert first.local
    assert len(heard) == 1
    find(VllmSpec(model=str(file), dtype="bfloat16"), vllm(python), heard.append)
    assert (tmp_path / "model.log").read_text().split() == ["float32", "bfloat16"]


@pytest.mark.parametrize(
    ("text", "what", "remedy"),
    [
        (
            """echo '{"kind": "disk", "error": "OSError: No space left on device"}'; exit 1\n""",
            "No space",
            "disk space",
        ),
        ("""echo '{"kind": "file", "error": "ValueError: v0"}'; exit 1\n""", "v0", "Fetch the file again"),
        ("""echo '{"kind": "packages", "error": "no gguf"}'; exit 1\n""", "lacks", "uv pip install --python"),
        ("kill -9 $$\n", "signal 9", "again"),
        ("echo '{}'\n", "left nothing behind", "again"),
    ],
)
def test_what_goes_wrong_leaves_nothing_half_written(tmp_path: Path, text: str, what: str, remedy: str) -> None:
    python = script(tmp_path / "python", f'mkdir -p "$4" && echo x > "$4"/part\n{text}')
    with pytest.raises(ModelUnavailable, match=what) as caught:
        look(gguf(tmp_path / "tiny.gguf"), python)
    assert remedy in caught.value.remedy
    assert [path for path in (tmp_path / "cache" / "huggingface").iterdir() if path.is_dir()] == []


def test_what_a_killed_run_left_behind_is_swept(tmp_path: Path) -> None:
    file = gguf(tmp_path / "tiny.gguf")
    folder = tmp_path / "cache" / "huggingface"
    left = folder / f".tiny-{known.sha256_of(file)[:12]}-float32.abc"
    left.mkdir(parents=True)
    python = script(tmp_path / "python", WRITES.format(model=model_folder(tmp_path / "model")))
    look(file, python)
    assert not left.exists()


def test_an_environment_that_lacks_packages_is_not_tried(tmp_path: Path) -> None:
    file = gguf(tmp_path / "tiny.gguf")
    with pytest.raises(ModelUnavailable, match="lacks what writes GGUF files out: gguf") as caught:
        find(VllmSpec(model=str(file)), vllm("/e/python", ("gguf",)), lambda _: None)
    assert "uv pip install --python /e/python gguf" in caught.value.remedy


def test_known_models_have_to_be_fetched_and_whole(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="not been fetched") as caught:
        look(NAME)
    assert f"lbt-sim models pull {NAME}" in caught.value.remedy
    (tmp_path / "cache").mkdir()
    gguf(tmp_path / "cache" / known.KNOWN[NAME].file)
    with pytest.raises(ModelUnavailable, match="damaged"):
        look(NAME)


def test_a_file_that_is_no_gguf(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_text("hello")
    with pytest.raises(ModelUnavailable, match="not a GGUF file"):
        look(tmp_path / "x.gguf")
    with pytest.raises(ModelUnavailable, match="cannot be read"):
        look(tmp_path / "gone.gguf")


def test_files_and_folders_have_no_revision(tmp_path: Path) -> None:
    for model in (model_folder(tmp_path / "m"), gguf(tmp_path / "x.gguf")):
        with pytest.raises(ModelUnavailable, match="no revisions"):
            look(model, revision="v1")


@pytest.mark.slow
@pytest.mark.skipif(not REAL, reason=f"{VARIABLE} names no vLLM")
def test_a_real_gguf_file_becomes_a_real_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = learn(Path(REAL), "here")
    assert isinstance(found, Installation)
    with monkeypatch.context() as usual:
        usual.delenv("LBT_SIM_CACHE")
        there = known.locate(NAME)
    if there is None:
        pytest.skip(f"{NAME} has not been fetched")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / there.name).symlink_to(there)
    written = find(VllmSpec(model=NAME), found, lambda _: None)
    assert written.identity == f"{NAME}@{known.KNOWN[NAME].sha256[:12]}"
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {p.name for p in Path(written.argument).iterdir()}
    assert written.contents is not None
    assert written.contents.loaded(4) > 500 << 20
    bad = gguf(tmp_path / "bad.gguf")
    with pytest.raises(ModelUnavailable, match="cannot be written out"):
        find(VllmSpec(model=str(bad)), found, lambda _: None)


# --- adapters ----------------------------------------------------------------------------------------------


def test_an_adapter_is_known_by_its_weights_and_its_largest_rank(tmp_path: Path) -> None:
    found = adapters.read(str(adapter_folder(tmp_path / "a" / "tutor", rank_pattern={"q_proj": 20})))
    assert found.rank == 20
    assert found.identity.startswith("lora:tutor@")
    other = adapter_folder(tmp_path / "b" / "tutor", rank_pattern={"q_proj": 20})
    assert adapters.read(str(other)).identity == found.identity
    tensors(other / "adapter_model.safetensors", {"a": [0.75]})
    assert adapters.read(str(other)).identity != found.identity
    flags = adapters.flags({"lora-1": found})
    assert flags[0] == "--enable-lora"
    assert json.loads(flags[2]) == {"name": "lora-1", "path": str(tmp_path / "a" / "tutor")}
    assert flags[3:] == ["--max-lora-rank", "32", "--max-loras", "1"]
    assert adapters.flags({}) == []


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "bias: all"),
        ({"modules_to_save": ["embed_tokens"]}, "embed_tokens"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"r": 1024}, "from 1 to 512"),
        ({"r": None}, "from 1 to 512"),
    ],
)
def test_adapters_that_vllm_cannot_serve_are_refused(tmp_path: Path, said: dict[str, object], what: str) -> None:
    with pytest.raises(ModelUnavailable, match=what):
        adapters.read(str(adapter_folder(tmp_path / "a", **said)))


def test_a_folder_that_is_no_adapter(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="no such folder"):
        adapters.read(str(tmp_path / "x"))
    folder = adapter_folder(tmp_path / "a")
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelUnavailable, match="has no weights"):
        adapters.read(str(folder))
