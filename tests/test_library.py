"""Where names are looked up, and what may not be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbt_sim.errors import Place, ScenarioError
from lbt_sim.library import (
    KINDS,
    FolderLayer,
    Library,
    SnapshotLayer,
    UnknownNameError,
    beside,
    built_in,
    data_folders,
)


def put(root: Path, path: str, text: str) -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture
def layers(tmp_path: Path) -> list[FolderLayer]:
    """Two workspaces, the first before the second."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    return [FolderLayer(tmp_path / "first", "here"), FolderLayer(tmp_path / "second", "the built-in library")]


def test_the_first_layer_that_has_a_file_wins(layers: list[FolderLayer]) -> None:
    put(layers[1].root, "agents/personas/a.yaml", "second")
    put(layers[1].root, "agents/personas/b.yaml", "second")
    put(layers[0].root, "agents/personas/a.yaml", "first")
    library = Library(layers)
    assert library.find("agents/personas", "a").text == "first"
    assert library.find("agents/personas", "b.yaml").text == "second"
    assert library.names("agents/personas") == ["a", "b"]


def test_personas_and_studies_are_no_agents_and_scenarios(layers: list[FolderLayer]) -> None:
    put(layers[0].root, "agents/personas/a.yaml", "")
    put(layers[0].root, "scenarios/studies/s.yaml", "")
    library = Library(layers)
    assert library.names("agents") == []
    assert library.names("scenarios") == []
    assert library.names("scenarios/studies") == ["s"]


def test_a_workspace_can_replace_a_single_template(layers: list[FolderLayer]) -> None:
    put(layers[1].root, "agents/student.yaml", "yaml")
    put(layers[1].root, "agents/student/a.md.j2", "old a")
    put(layers[1].root, "agents/student/b.md.j2", "old b")
    put(layers[0].root, "agents/student/a.md.j2", "new a")
    library = Library(layers)
    agent = library.find("agents", "student")
    assert [library.read(f"student/{name}.md.j2", base=agent.path).text for name in "ab"] == ["new a", "old b"]


def test_a_snapshot_comes_first_and_everything_read_is_remembered(layers: list[FolderLayer]) -> None:
    put(layers[0].root, "agents/a.yaml", "changed since")
    put(layers[0].root, "agents/b.yaml", "new")
    library = Library([SnapshotLayer({"agents/a.yaml": "kept"}, "run/scenario.yaml"), *layers])
    source = library.find("agents", "a")
    assert (source.text, source.file) == ("kept", "run/scenario.yaml[agents/a.yaml]")
    library.find("agents", "b")
    assert library.snapshot() == {"agents/a.yaml": "kept", "agents/b.yaml": "new"}
    assert library.names("agents") == ["a", "b"]


def test_a_file_is_read_once(layers: list[FolderLayer]) -> None:
    file = put(layers[0].root, "agents/a.yaml", "one")
    library = Library(layers)
    library.find("agents", "a")
    file.write_text("two")
    assert library.find("agents", "a").text == "one"


def test_an_unknown_name_says_what_there_is_and_where_it_looked(layers: list[FolderLayer]) -> None:
    put(layers[0].root, "agents/personas/sceptic.yaml", "")
    with pytest.raises(UnknownNameError) as caught:
        Library(layers).find("agents/personas", "scpetic", where=Place("s.yaml", 3, "cast"))
    assert str(caught.value) == (
        "s.yaml:3  cast\n"
        "  'scpetic' is not a persona; did you mean 'sceptic'?\n"
        "  Personas found: sceptic   (agents/personas/ here, then the built-in library)\n"
        "  Correct the name, or add agents/personas/scpetic.yaml."
    )
    with pytest.raises(UnknownNameError, match="is not a study"):
        Library(layers).find("scenarios/studies", "x")


@pytest.mark.parametrize("name", ["../agents/a", "/etc/passwd", "..", "", "a/b", "a\0b", "\x1b[31m", "x" * 10_000])
def test_a_name_is_no_path(layers: list[FolderLayer], name: str) -> None:
    put(layers[0].root, "agents/a.yaml", "")
    put(layers[0].root, "agents/personas/b.yaml", "")
    with pytest.raises(UnknownNameError) as caught:
        Library(layers).find("agents/personas", name)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("path", ["../../x", "/etc/passwd", "..", "student/../../../x", "a\\b", "C:/x", ""])
def test_a_path_in_a_file_never_leaves_the_workspace(layers: list[FolderLayer], tmp_path: Path, path: str) -> None:
    put(tmp_path, "x", "secret")
    with pytest.raises(ScenarioError):
        Library(layers).read(path, base="agents/student.yaml")


def test_a_path_may_go_up_inside_the_workspace(layers: list[FolderLayer]) -> None:
    put(layers[0].root, "classrooms/x.graphml", "graph")
    assert Library(layers).read("../classrooms/x.graphml", base="scenarios/s.yaml").text == "graph"


def test_a_link_out_of_the_workspace_is_refused(layers: list[FolderLayer], tmp_path: Path) -> None:
    secret = put(tmp_path, "secret.txt", "secret")
    put(layers[0].root, "agents/a.yaml", "")
    (layers[0].root / "agents" / "t.md.j2").symlink_to(secret)
    (layers[0].root / "agents" / "personas").symlink_to(tmp_path)
    put(tmp_path, "p.yaml", "secret")
    library = Library(layers)
    with pytest.raises(ScenarioError, match="link that leads out of the workspace"):
        library.read("t.md.j2", base="agents/a.yaml")
    with pytest.raises(ScenarioError, match="link that leads out of the workspace"):
        library.find("agents/personas", "p")


def test_a_workspace_may_itself_be_a_link(layers: list[FolderLayer], tmp_path: Path) -> None:
    put(layers[0].root, "agents/a.yaml", "text")
    (tmp_path / "link").symlink_to(layers[0].root)
    assert Library([FolderLayer(tmp_path / "link", "here")]).find("agents", "a").text == "text"


def test_large_and_broken_files_are_refused(layers: list[FolderLayer]) -> None:
    for name, size in (("a.yaml", 2 << 20), ("t.md.j2", 2 << 20), ("g.graphml", 50 << 20)):
        with put(layers[0].root, f"agents/{name}", "").open("wb") as stream:
            stream.truncate(size)
        with pytest.raises(ScenarioError, match="bytes; at most"):
            Library(layers).read(name, base="agents/x.yaml")


def test_the_workspace_of_a_scenario_holds_its_scenarios_folder(tmp_path: Path) -> None:
    assert beside(tmp_path / "scenarios" / "a.yaml") == tmp_path
    assert beside(tmp_path / "scenarios" / "studies" / "a.yaml") == tmp_path
    assert beside(tmp_path / "mine" / "a.yaml") == tmp_path / "mine"


def test_the_built_in_library_has_what_scenarios_take_by_default() -> None:
    library = Library([built_in()])
    assert {"teacher", "assistant", "student", "examiner"} <= set(library.names("agents"))
    assert "star" in library.names("classrooms")
    for kind in KINDS:
        for name in library.names(kind):
            assert library.find(kind, name).text


# --- data -------------------------------------------------------------------------------------------------


def test_data_is_looked_for_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    roots = [tmp_path / name for name in ("scenario", "cwd", "cwd/data", "given", "variable")]
    monkeypatch.setenv("LBT_SIM_DATA", str(roots[4]))
    library = Library([], data=data_folders(roots[0], roots[1], [roots[3]]))
    for root in reversed(roots):
        put(root, "d.jsonl", "{}")
        assert library.data_file("d.jsonl") == root / "d.jsonl"
        library.data_found.clear()


def test_data_that_is_not_there_says_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LBT_SIM_DATA", raising=False)
    library = Library([], data=data_folders(None, tmp_path, ["given"]))
    with pytest.raises(ScenarioError, match=r"'d\.jsonl' is not there") as caught:
        library.data_file("d.jsonl", where=Place("s.yaml", 4, "task.jsonl"))
    assert str(caught.value).startswith("s.yaml:4  task.jsonl\n")
    assert str(tmp_path / "data") in caught.value.what
    assert "given" in caught.value.what
    assert "--data DIR" in caught.value.remedy


def test_only_a_trusted_name_may_lead_anywhere(tmp_path: Path) -> None:
    secret = put(tmp_path, "secret.jsonl", "{}")
    (tmp_path / "ws").mkdir()
    library = Library([], data=data_folders(None, tmp_path / "ws"))
    for name in (str(secret), "../secret.jsonl", "a/../../secret.jsonl"):
        with pytest.raises(ScenarioError, match="leads out of the workspace"):
            library.data_file(name)
    assert library.data_file(str(secret), trusted=True) == secret
    assert library.data_file("../secret.jsonl", trusted=True).samefile(secret)


def test_a_link_out_of_the_workspace_is_data_only_where_the_user_says_so(tmp_path: Path) -> None:
    secret = put(tmp_path, "secret.jsonl", "{}")
    workspace = tmp_path / "ws"
    workspace.mkdir()
    (workspace / "d.jsonl").symlink_to(secret)
    with pytest.raises(ScenarioError, match="is not there"):
        Library([], data=data_folders(None, workspace)).data_file("d.jsonl")
    assert Library([], data=data_folders(None, tmp_path / "x", [workspace])).data_file("d.jsonl").samefile(secret)


def test_where_data_was_found_is_remembered_and_taken_up(tmp_path: Path) -> None:
    file = put(tmp_path, "ws/d.jsonl", "{}")
    library = Library([], data=data_folders(None, tmp_path / "ws"))
    library.data_file("d.jsonl")
    assert library.data_found == {"d.jsonl": str(file)}
    assert Library([], known_data=library.data_found).data_file("d.jsonl", trusted=True) == file


def test_the_built_in_library_of_an_installed_package_is_inside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lbt_sim.library.files", lambda _: tmp_path / "lbt_sim")
    assert built_in().root == tmp_path / "lbt_sim" / "_library"
    put(tmp_path, "pyproject.toml", '[project]\nname = "something-else"\n')
    assert built_in().root == tmp_path / "lbt_sim" / "_library"
    put(tmp_path, "pyproject.toml", '[project]\nname = "lbt-sim"\n')
    assert built_in().root == tmp_path
