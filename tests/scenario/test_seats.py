"""Who sits where: agents, personas, templates, names."""

from __future__ import annotations

import keyword
from collections.abc import Callable
from pathlib import Path

import pytest

from lbt_sim.errors import ScenarioError, TemplateError
from lbt_sim.scenario.load import Seat, load_scenario, resolve_agents
from lbt_sim.scenario.validation import SeveralMistakesError

Write = Callable[[str, str], Path]


def seats(*sets: str) -> list[Seat]:
    return list(resolve_agents(load_scenario("demo", sets=sets)))


def names(*sets: str) -> list[str]:
    return [seat.name for seat in seats(*sets)]


def test_seats_stand_in_the_order_of_the_roles(write: Write) -> None:
    found = seats("cast.assistants=[{}]")
    assert [seat.role for seat in found] == ["teacher", "assistant", "student", "student", "student", "examiner"]
    assert [seat.model for seat in found] == ["large", "small", "small", "small", "small", "small"]


def test_names_are_those_of_persona_or_role_and_numbered(write: Write) -> None:
    assert names() == ["teacher", "literal", "sceptic_1", "sceptic_2", "examiner"]
    assert names("cast.students=[{}, {count: 2}]") == ["teacher", "student_1", "student_2", "student_3", "examiner"]
    assert names("cast.teacher=[{}, {}]")[:2] == ["teacher_1", "teacher_2"]


def test_a_name_that_is_given_becomes_an_identifier(write: Write) -> None:
    assert names("cast.students=[{name: first-one}, {name: other, count: 2}]")[1:4] == [
        "first_one",
        "other_1",
        "other_2",
    ]


@pytest.mark.parametrize(
    "students",
    [
        "[{name: ann}, {name: ann}]",
        "[{name: a-b}, {name: a_b}]",
        "[{persona: sceptic, count: 2}, {name: sceptic_1}]",
        "[{name: teacher}]",
        "[{name: examiner}]",
        "[{name: ann, count: 2}, {name: ann_2}]",
    ],
)
def test_two_seats_of_one_name_are_refused(write: Write, students: str) -> None:
    with pytest.raises(ScenarioError, match="two seats are called") as caught:
        names(f"cast.students={students}")
    assert caught.value.remedy


def test_words_of_python_are_no_names(write: Write) -> None:
    with pytest.raises(ScenarioError, match="cannot be an agent's name"):
        names("cast.students=[{name: class}]")
    write("agents/personas/class.yaml", "title: C\ntext: c\n")
    write("agents/personas/1st.yaml", "title: C\ntext: c\n")
    found = names("cast.students=[{persona: class}, {persona: 1st}]")
    assert all(name.isidentifier() and not keyword.iskeyword(name) for name in found)


def test_the_teacher_can_be_its_own_student(write: Write) -> None:
    student = seats("cast.students=teacher")[1]
    assert (student.name, student.role, student.model) == ("student", "student", "large")


def test_the_teacher_as_its_own_student_answers_as_the_teacher_does(write: Write) -> None:
    teacher, student, _ = seats(
        "cast.students=teacher", "cast.teacher={persona: literal, sampling: {answer: {max_tokens: 9}}}"
    )
    assert student.persona is teacher.persona is not None
    assert student.traits == teacher.traits
    assert student.sampling["answer"] == teacher.sampling["answer"]
    assert (
        "answer" not in seats("cast.students=teacher")[1].sampling
    )  # the student agent's own, which the teacher has not


def test_what_a_seat_says_stands_over_its_agent_and_persona(write: Write) -> None:
    literal = seats("cast.students[0].sampling={answer: {top_p: 0.5}}", "cast.students[0].traits={slip: 0.9}")[1]
    answer = literal.sampling["answer"]
    assert (answer.temperature, answer.top_p, answer.max_tokens) == (0.5, 0.5, 4)
    assert (literal.traits.blind, literal.traits.slip) == (0.2, 0.9)


def test_an_unknown_persona_is_told_as_the_documentation_shows(write: Write) -> None:
    write(
        "scenarios/x.yaml",
        "models: {m: {engine: simulated}}\ntask: {name: reviews}\ncast:\n  students:\n"
        "    - {persona: literal}\n    - {persona: scpetic}\n",
    )
    with pytest.raises(ScenarioError) as caught:
        resolve_agents(load_scenario("x"))
    lines = str(caught.value).splitlines()
    assert lines[0] == "scenarios/x.yaml:6  cast.students[1].persona"
    assert lines[1] == "  'scpetic' is not a persona; did you mean 'sceptic'?"
    assert lines[2].startswith("  Personas found: ")
    assert lines[2].endswith("   (agents/personas/ here, then the built-in library)")
    assert lines[3] == "  Correct the name, or add agents/personas/scpetic.yaml."
    assert {"literal", "sceptic"} <= set(caught.value.valid)


def test_unknown_agents_and_models_are_told(write: Write) -> None:
    with pytest.raises(ScenarioError, match="'studnt' is not an agent; did you mean 'student'"):
        seats("cast.students[0].agent=studnt")
    with pytest.raises(
        ScenarioError, match="'smal' is not one of the scenario's models; did you mean 'small'"
    ) as caught:
        seats("cast.students[0].model=smal")
    assert caught.value.valid == ("large", "small")


def test_all_unknown_names_are_told_together(write: Write) -> None:
    with pytest.raises(SeveralMistakesError) as caught:
        seats("cast.students[0].persona=x", "cast.students[1].model=y", "cast.teacher.agent=z")
    assert len(caught.value.mistakes) == 3


def test_an_agent_sits_only_where_its_role_is(write: Write) -> None:
    with pytest.raises(ScenarioError, match="'teacher' is for the role 'teacher'; this seat is the student's"):
        seats("cast.students[0].agent=teacher")


def test_nobody_to_teach_or_to_be_taught_is_refused(write: Write) -> None:
    with pytest.raises(ScenarioError, match="no teacher"):
        seats("cast.teacher=[]")
    with pytest.raises(ScenarioError, match="no student"):
        seats("cast.students=[]")


def test_a_mistake_in_an_agents_file_has_its_place(write: Write) -> None:
    write("agents/student.yaml", "role: student\nprompts: {}\nnotes: {kep: all}\n")
    with pytest.raises(ScenarioError) as caught:
        seats()
    assert str(caught.value.where) == "agents/student.yaml:3  notes.kep"


def test_a_mistake_in_a_template_has_its_place(write: Write) -> None:
    write("agents/student/answer.md.j2", "fine\n{{ ''.__class__ }}\n")
    with pytest.raises(TemplateError) as caught:
        seats("cast.students=[{}]")
    assert str(caught.value.where) == "agents/student/answer.md.j2:2"


def test_a_template_that_is_not_there_is_told_at_the_agent(write: Write) -> None:
    write("agents/student.yaml", "role: student\nprompts:\n  answer: student/anwser.md.j2\n")
    with pytest.raises(ScenarioError, match=r"'agents/student/anwser.md.j2' is not there") as caught:
        seats("cast.students=[{}]")
    assert str(caught.value.where) == "agents/student.yaml:3  prompts.answer"


@pytest.mark.parametrize("path", ["../../../etc/passwd", "/etc/passwd", "../..", "C:/x"])
def test_a_template_outside_the_workspace_is_refused(write: Write, path: str) -> None:
    write("agents/student.yaml", f"role: student\nprompts:\n  answer: {path}\n")
    with pytest.raises(ScenarioError, match="leads out of the workspace"):
        seats("cast.students=[{}]")
