"""A scenario by name or path, with flags; and there and back through a run folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lbt_sim.errors import ScenarioError
from lbt_sim.scenario.load import dump_resolved, load_resolved, load_scenario, resolve_agents, resolve_classroom
from lbt_sim.scenario.yaml import read_yaml

Write = Callable[[str, str], Path]


def test_a_scenario_is_found_by_name_and_by_path(write: Write) -> None:
    by_name = load_scenario("demo")
    by_path = load_scenario("scenarios/demo.yaml")
    assert by_name.file == by_path.file
    assert (by_name.name, by_path.name) == ("demo", "demo")
    assert by_name.file.method.exam.problems == 24


def test_a_scenario_elsewhere_finds_what_stands_beside_it(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    loaded = load_scenario(str(tmp_path / "scenarios" / "demo.yaml"))
    assert resolve_classroom(loaded).file.edges[0].kind == "teaches"
    assert resolve_agents(loaded)[1].agent.sampling["answer"].max_tokens == 4


def test_an_unknown_scenario_lists_the_known_ones(write: Write) -> None:
    with pytest.raises(ScenarioError, match="'dmo' is not a scenario; did you mean 'demo'"):
        load_scenario("dmo")
    with pytest.raises(ScenarioError, match="no such file"):
        load_scenario("scenarios/dmo.yaml")


def test_a_file_of_50_mb_is_refused(write: Write, tmp_path: Path) -> None:
    with (tmp_path / "scenarios" / "large.yaml").open("wb") as stream:
        stream.truncate(50 << 20)
    for name in ("large", "scenarios/large.yaml"):
        with pytest.raises(ScenarioError, match="52,428,800 bytes"):
            load_scenario(name)


def test_flags_are_applied_and_told(write: Write) -> None:
    loaded = load_scenario("demo", sets=["method.exam.set_by=fixed", "method.preset=paper"], seed=5)
    assert (loaded.file.seed, loaded.file.method.exam.problems, loaded.file.method.exam.set_by) == (5, 24, "fixed")
    origins = {row.key: row.origin for row in loaded.origins}
    assert origins["seed"] == "--seed 5"
    assert origins["method.exam.set_by"] == "--set method.exam.set_by=fixed"
    assert origins["method.rounds"] == "scenario"
    assert origins["method.beam"].startswith("preset paper")


def test_a_mistake_in_a_flag_names_the_flag(write: Write) -> None:
    with pytest.raises(ScenarioError) as caught:
        load_scenario("demo", sets=["method.rounds=many"])
    assert str(caught.value).startswith("--set method.rounds=many\n  found 'many'; wanted a whole number")


def test_an_unknown_engine_is_told_with_its_line(write: Write) -> None:
    write("scenarios/x.yaml", "models:\n  small: {engine: simulatd}\ntask: {name: reviews}\n")
    with pytest.raises(ScenarioError) as caught:
        load_scenario("x")
    assert str(caught.value.where) == "scenarios/x.yaml:2  models.small.engine"
    assert "did you mean 'simulated'?" in caught.value.what


def test_a_missing_model_name_is_told_with_its_line(write: Write) -> None:
    write("scenarios/x.yaml", "models:\n  small: {engine: llamacpp}\ntask: {name: reviews}\n")
    with pytest.raises(ScenarioError) as caught:
        load_scenario("x")
    assert str(caught.value.where) == "scenarios/x.yaml:2  models.small.model"
    assert caught.value.what == "the key 'model' is missing"


def test_an_option_of_another_engine_is_refused(write: Write) -> None:
    write("scenarios/x.yaml", "models:\n  small:\n    engine: simulated\n    latencyy: 0.1\ntask: {name: reviews}\n")
    with pytest.raises(ScenarioError) as caught:
        load_scenario("x")
    assert str(caught.value.where) == "scenarios/x.yaml:4  models.small.latencyy"
    assert "did you mean 'latency'?" in caught.value.what


def test_engine_puts_every_model_on_it_and_drops_the_old_ones_options(write: Write) -> None:
    models = load_scenario("demo", engine="simulated").file.models
    assert {name: spec.model_dump() for name, spec in models.items()} == {
        "small": {"engine": "simulated"},
        "large": {"engine": "simulated"},
    }


def test_engine_keeps_the_options_of_models_that_are_on_it_already(write: Write) -> None:
    large = load_scenario("demo", engine="openai", sets=["models.small={engine: simulated}"]).file.models["large"]
    assert large.model_extra == {"url": "http://localhost:1/v1", "model": "some/large"}


def test_engine_keeps_a_model_that_the_engine_takes_and_replaces_others(write: Write) -> None:
    models = load_scenario("demo", engine="llamacpp").file.models
    assert models["large"].model_extra == {"model": "smollm2-135m"}
    write(
        "scenarios/x.yaml",
        "models: {a: {engine: openai, url: 'http://x/v1', model: my.gguf}}\ntask: {name: reviews}\nclassroom: pair\n",
    )
    assert load_scenario("x", engine="llamacpp").file.models["a"].model_extra == {"model": "my.gguf"}


def test_engine_options_can_be_set_after_it(write: Write) -> None:
    loaded = load_scenario("demo", engine="simulated", sets=["models.small.latency=0.5"])
    assert loaded.file.models["small"].model_extra == {"latency": 0.5}


def test_an_unknown_engine_in_the_flag_is_refused(write: Write) -> None:
    with pytest.raises(ScenarioError, match="did you mean 'simulated'") as caught:
        load_scenario("demo", engine="simulatd")
    assert str(caught.value.where) == "--engine simulatd"


def test_an_error_about_a_key_has_its_place(write: Write) -> None:
    error = load_scenario("demo").error("cast.students[1].persona", "is odd", ["a"], "Do this.")
    assert str(error) == "scenarios/demo.yaml:12  cast.students[1].persona\n  is odd\n  Valid: a\n  Do this."


# --- classrooms -------------------------------------------------------------------------------------------


def test_a_classroom_reads_graphs_beside_it(write: Write) -> None:
    write("classrooms/own.yaml", "kind: classroom\nfile: own.graphml\n")
    write("classrooms/own.graphml", "<graphml/>")
    room = resolve_classroom(load_scenario("demo", sets=["classroom=own"]))
    assert room.read_file("own.graphml") == "<graphml/>"
    assert str(room.place("file")) == "classrooms/own.yaml:2  file"


@pytest.mark.parametrize("path", ["../../secret.graphml", "/etc/passwd", "..", "a/../../../x"])
def test_a_classroom_reads_nothing_outside_the_workspace(write: Write, path: str) -> None:
    write("classrooms/own.yaml", f"kind: classroom\nfile: {path}\n")
    room = resolve_classroom(load_scenario("demo", sets=["classroom=own"]))
    with pytest.raises(ScenarioError, match="leads out of the workspace") as caught:
        room.read_file(path)
    assert str(caught.value.where) == "classrooms/own.yaml:2  file"


def test_a_classroom_may_stand_in_the_scenario(write: Write) -> None:
    room = resolve_classroom(load_scenario("demo", sets=["classroom={edges: []}"]))
    assert room.file.edges == []
    assert str(room.place("edges")) == "--set classroom={edges: []}  (classroom.edges)"


def test_an_unknown_classroom_lists_the_known_ones(write: Write) -> None:
    with pytest.raises(ScenarioError, match="'pairr' is not a classroom; did you mean 'pair'"):
        resolve_classroom(load_scenario("demo", sets=["classroom=pairr"]))


# --- data -------------------------------------------------------------------------------------------------


def data_scenario(write: Write, name: str) -> None:
    write(
        "scenarios/data.yaml",
        f"models: {{m: {{engine: simulated}}}}\ntask:\n  jsonl: [train.jsonl, {name}]\nclassroom: pair\n",
    )


def test_data_is_found_in_given_folders(write: Write, tmp_path: Path) -> None:
    data_scenario(write, "test.jsonl")
    write("data/train.jsonl", "{}")
    given = write("elsewhere/test.jsonl", "{}").parent
    with pytest.raises(ScenarioError, match=r"'test\.jsonl' is not there") as caught:
        load_scenario("data").data_file("test.jsonl")
    assert str(caught.value.where) == "scenarios/data.yaml:3  task.jsonl[1]"
    assert "--data DIR" in caught.value.remedy
    loaded = load_scenario("data", data=[given])
    assert loaded.data_file("test.jsonl") == given / "test.jsonl"
    assert loaded.data_file("train.jsonl") == tmp_path / "data" / "train.jsonl"


@pytest.mark.parametrize("name", ["../secret.jsonl", "/etc/passwd"])
def test_a_scenario_names_no_data_outside_its_folders_but_a_flag_may(write: Write, tmp_path: Path, name: str) -> None:
    data_scenario(write, name)
    with pytest.raises(ScenarioError, match="leads out of the workspace"):
        load_scenario("data").data_file(name)
    secret = write("other/secret.jsonl", "{}")
    assert load_scenario("data", sets=[f"task.jsonl={secret}"]).data_file(str(secret)) == secret


# --- run folders ------------------------------------------------------------------------------------------


def test_a_run_folder_holds_the_scenario_and_all_that_it_uses(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = ["method.preset=paper", "method.revise={keep: null}", "cast.students[0].sampling={answer: {top_p: 0.5}}"]
    sets += ["cast.students[0].traits={slip: 0.9}"]
    first = load_scenario("demo", sets=sets, seed=9)
    text = dump_resolved(first)
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    second = load_resolved(text, "run/scenario.yaml")
    assert second.file == first.file
    assert (second.name, second.source.file) == ("demo", "scenarios/demo.yaml")
    for one, other in zip(resolve_agents(first), resolve_agents(second), strict=True):
        assert (one.name, one.role, one.agent, one.persona, one.model, one.sampling, one.traits) == (
            (other.name, other.role, other.agent, other.persona, other.model, other.sampling, other.traits)
        )
        assert {use: t.text for use, t in one.templates.items()} == {use: t.text for use, t in other.templates.items()}
    assert resolve_classroom(second).file == resolve_classroom(first).file
    assert dump_resolved(second) == text


def test_a_run_keeps_its_files_when_the_workspace_changes(write: Write) -> None:
    text = dump_resolved(load_scenario("demo"))
    write("agents/student/answer.md.j2", "changed")
    write("agents/personas/literal.yaml", "nonsense: 1")
    seats = resolve_agents(load_resolved(text, "run/scenario.yaml"))
    assert seats[1].templates["answer"].render(question="q") == "Answer q"


def test_only_files_that_are_used_are_kept(write: Write) -> None:
    write("agents/personas/unused.yaml", "title: U\ntext: u\n")
    assert set(read_yaml(dump_resolved(load_scenario("demo")), "x").value["library"]) == {
        "agents/examiner.yaml",
        "agents/personas/literal.yaml",
        "agents/personas/sceptic.yaml",
        "agents/student.yaml",
        "agents/student/answer.md.j2",
        "agents/teacher.yaml",
        "agents/teacher/answer.md.j2",
        "classrooms/pair.yaml",
    }


def test_a_run_keeps_graphs_and_where_its_data_was(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_scenario(write, "test.jsonl")
    given = [write(f"elsewhere/{name}.jsonl", "{}").parent for name in ("train", "test")]
    write("classrooms/pair.yaml", "kind: classroom\nfile: own.graphml\n")
    write("classrooms/own.graphml", "<graphml/>")
    text = dump_resolved(load_scenario("data", data=given))
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    loaded = load_resolved(text, "run/scenario.yaml")
    assert loaded.data_file("test.jsonl") == given[0] / "test.jsonl"
    assert resolve_classroom(loaded).read_file("own.graphml") == "<graphml/>"


def test_a_fork_changes_a_run_by_flags(write: Write) -> None:
    text = dump_resolved(load_scenario("demo"))
    write("agents/personas/new.yaml", "title: New\ntext: You are new.\n")
    loaded = load_resolved(text, "run/scenario.yaml", sets=["cast.students[0].persona=new", "method.beam=3"])
    assert loaded.file.method.beam == 3
    assert [seat.name for seat in resolve_agents(loaded)][1] == "new"


def test_a_task_of_a_run_has_no_keys_that_were_not_written(write: Write) -> None:
    loaded = load_resolved(dump_resolved(load_scenario("demo")), "run/scenario.yaml")
    assert loaded.file.task.model_fields_set == {"name", "train", "held_out"}


def test_a_broken_run_folder_is_told(write: Write) -> None:
    text = dump_resolved(load_scenario("demo"))
    with pytest.raises(ScenarioError, match="'library' is not a mapping"):
        load_resolved(text.partition("library:")[0] + "library: 3\n", "run/scenario.yaml")
    with pytest.raises(ScenarioError, match="'library' is not a mapping"):
        load_resolved(text.partition("library:")[0] + "library: {a: [1]}\n", "run/scenario.yaml")
