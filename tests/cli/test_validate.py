"""`lbt-sim validate` checks each of our YAML files by its kind."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import lbt_sim

ROOT = Path(__file__).parents[2]
BUILT_IN = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("agents", "agents/personas", "classrooms")
    for path in (ROOT / folder).glob("*.yaml")
)

STUDENT = """\
kind: agent
role: student
prompts:
  system: student/system.md.j2
  answer: mine/answer.md.j2
  worked: student/worked.md.j2
"""


def write(file: str, text: str) -> str:
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text(text, encoding="utf-8")
    return file


def classroom(*lines: str) -> str:
    return write("classrooms/mine.yaml", "\n".join(["kind: classroom", *lines]) + "\n")


def agent(text: str = STUDENT, answer: str = "{{ question }}") -> str:
    write("agents/mine/answer.md.j2", answer)
    return write("agents/mine.yaml", text)


def test_every_built_in_file_is_valid(workspace: Path) -> None:
    said = lbt_sim("validate", *(ROOT / file for file in BUILT_IN))
    assert (said.status, said.err) == (0, "")
    assert said.out.count(": valid") == len(BUILT_IN) > 15


def test_files_of_all_kinds_are_told_apart(workspace: Path) -> None:
    files = [ROOT / file for file in ("classrooms/village.yaml", "agents/teacher.yaml", "agents/personas/novice.yaml")]
    said = lbt_sim("validate", "small.yaml", *files)
    assert said.status == 0
    for part in ("task reviews", "1 teacher, 8 students", "for the role teacher", "persona: Novice"):
        assert part in said.out


def test_a_kind_that_is_none_lists_those_that_are(workspace: Path) -> None:
    said = lbt_sim("validate", write("mine.yaml", "title: x\nkind: clasroom\n"))
    assert said.status == 2
    assert "mine.yaml:2  kind" in said.err
    assert "did you mean 'classroom'" in said.err
    assert "Valid: scenario, study, classroom, agent, persona" in said.err


def test_a_file_without_a_kind_is_a_scenario(workspace: Path) -> None:
    text = (workspace / "small.yaml").read_text(encoding="utf-8").replace("kind: scenario\n", "")
    assert "task reviews" in lbt_sim("validate", write("mine.yaml", text)).out


EDGE = "edges: [{from: teacher, to: student, kind: teaches}"
WRONG_CLASSROOMS = {
    "a key": (["seats: {techer: 1}"], ["classrooms/mine.yaml:2", "techer"]),
    "a topology": (
        ["edges:", "- {from: teacher, to: student, kind: teaches}", "- {among: student, kind: discusses, topology: a}"],
        ["classrooms/mine.yaml:4  edges[1].topology", "'a' is not a topology"],
    ),
    "a role": (["", EDGE.replace("student", "studnet") + "]"], ["classrooms/mine.yaml:3  edges[0].to", "'student'"]),
    "nobody taught": (["seats: {teacher: 1, student: 2}", "edges: []"], ["classrooms/mine.yaml:3  edges", "student_1"]),
    "a file that is not there": (["file: none.graphml"], ["classrooms/mine.yaml:2  file", "none.graphml"]),
}


@pytest.mark.parametrize("case", WRONG_CLASSROOMS)
def test_a_classroom_is_built_and_its_mistakes_told_where_they_stand(workspace: Path, case: str) -> None:
    lines, says = WRONG_CLASSROOMS[case]
    said = lbt_sim("validate", classroom(*lines))
    assert (said.status, said.out) == (2, "")
    for part in says:
        assert part in said.err


def test_an_agents_mistakes_are_told_together(workspace: Path) -> None:
    file = agent(STUDENT.replace("  worked", "  wroked"), "{{ quesiton }}")
    said = lbt_sim("validate", file)
    assert (said.status, said.out) == (2, "")
    for part in (
        "agents/mine.yaml:3  prompts\n  there is no template for worked",
        "agents/mine.yaml:6  prompts.wroked",
        "did you mean 'worked'",
        "agents/mine/answer.md.j2:1",
        "'quesiton' is not given to this template",
        "never says {{ question }}",
    ):
        assert part in said.err


def test_templates_that_cannot_be_had_are_told_together(workspace: Path) -> None:
    file = agent(STUDENT.replace("student/system", "student/sytsem"), "{% if %}")
    said = lbt_sim("validate", file)
    assert said.status == 2
    for part in ("agents/mine.yaml:4  prompts.system", "sytsem", "agents/mine/answer.md.j2:1", "not a template"):
        assert part in said.err


def test_a_student_who_keeps_a_summary_needs_its_template(workspace: Path) -> None:
    assert lbt_sim("validate", agent()).status == 0
    said = lbt_sim("validate", agent(), "--set", "notes.keep=summary")
    assert said.status == 2
    assert "no template for summarise" in said.err


def test_an_assistant_keeps_no_summary(workspace: Path) -> None:
    said = lbt_sim("validate", ROOT / "agents" / "assistant.yaml", "--set", "notes={keep: summary}")
    assert said.status == 2
    assert "--set notes={keep: summary}" in said.err
    assert "only students do" in said.err


def test_a_persona_is_checked(workspace: Path) -> None:
    said = lbt_sim("validate", write("agents/personas/mine.yaml", "kind: persona\ntitle: Mine\ntraits: {blind: 2}\n"))
    assert said.status == 2
    for part in ("agents/personas/mine.yaml:3  traits.blind", "'text' is missing"):
        assert part in said.err


def test_explain_says_where_the_values_of_any_file_come_from(workspace: Path) -> None:
    said = lbt_sim("validate", classroom("file: graph.txt"), "--explain", "--set", "file=other.txt")
    assert said.status == 2  # there is no such file
    write("classrooms/other.txt", "0 1\n")
    said = lbt_sim("validate", "classrooms/mine.yaml", "--explain", "--set", "file=other.txt")
    assert said.status == 0
    for part in ("kind: classroom   (classroom)", "version: 1   (default)", "file: other.txt   (--set file=other.txt)"):
        assert part in said.out


def test_all_files_are_checked_whatever_is_wrong_with_the_first(workspace: Path) -> None:
    said = lbt_sim("validate", write("bad.yaml", "kind: study\n"), "small.yaml")
    assert said.status == 2
    assert "small.yaml: valid" in said.out
