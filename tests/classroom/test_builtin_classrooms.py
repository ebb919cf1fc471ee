from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lbt_sim.classroom import Classroom
from lbt_sim.classroom.draw import draw
from lbt_sim.errors import ClassroomError

LIBRARY = Path(__file__).parents[2] / "classrooms"

BuiltIn = Callable[..., Classroom]

HEADS = {
    "star": (1, 0),
    "seminar": (1, 0),
    "chain": (1, 0),
    "ring": (1, 0),
    "small-world": (1, 0),
    "tutorial": (1, 0),
    "jigsaw": (1, 0),
    "assistants": (1, 3),
    "assistant-chain": (1, 3),
    "jigsaw-assistants": (1, 2),
    "two-teachers": (2, 0),
    "village": (1, 0),
}


def test_every_classroom_is_known_here_and_in_the_readme() -> None:
    files = {path.stem for path in LIBRARY.glob("*.yaml")}
    readme = (LIBRARY / "README.md").read_text("utf-8")
    assert files == set(HEADS)
    assert {name for name in files if f"| `{name}` |" in readme} == files


@pytest.mark.parametrize("name", HEADS)
def test_every_classroom_says_what_it_is_for(name: str) -> None:
    text = (LIBRARY / f"{name}.yaml").read_text("utf-8")
    file = yaml.safe_load(text)
    assert text.startswith("# ")
    assert file["title"]
    assert file["description"]


@pytest.mark.parametrize("name", HEADS)
def test_every_classroom_seats_one_to_thirty_students(built_in: BuiltIn, name: str) -> None:
    for students in range(1, 31):
        possible = {"small-world": students >= 5, "village": students == 8}.get(name, True)
        if not possible:
            with pytest.raises(ClassroomError):
                built_in(name, *HEADS[name], students)
            continue
        room = built_in(name, *HEADS[name], students)
        assert len(room.by_role("student")) == students
        assert draw(room, 80)


def test_the_star_has_no_talk_and_the_seminar_all(built_in: BuiltIn) -> None:
    assert built_in("star", 1, 0, 5).edge_counts()["discusses"] == 0
    assert built_in("seminar", 1, 0, 5).edge_counts()["discusses"] == 20


def test_jigsaw_and_tutorial_talk_in_threes_and_twos(built_in: BuiltIn) -> None:
    assert list(map(len, built_in("jigsaw", 1, 0, 8).groups())) == [3, 3, 2]
    assert list(map(len, built_in("tutorial", 1, 0, 5).groups())) == [2, 2, 1]


def test_assistants_stand_between_teacher_and_students(built_in: BuiltIn) -> None:
    for name, aides in (("assistants", 3), ("assistant-chain", 3), ("jigsaw-assistants", 2)):
        room = built_in(name, 1, aides, 6)
        assert not any(room.role_of(pupil) == "student" for pupil in room.pupils_of("teacher_1"))
        assert all(len(room.teachers_of(student)) == 1 for student in room.by_role("student"))


def test_the_chain_is_a_chain(built_in: BuiltIn) -> None:
    room = built_in("assistant-chain", 1, 3, 3)
    assert room.pupils_of("teacher_1") == ("assistant_1",)
    assert room.could_know("student_3") == {"teacher_1", "assistant_1", "assistant_2", "assistant_3"}
    assert room.could_know("student_1") == {"teacher_1", "assistant_1"}


def test_both_teachers_are_heard_by_all(built_in: BuiltIn) -> None:
    room = built_in("two-teachers", 2, 0, 3)
    assert all(room.teachers_of(student) == ("teacher_1", "teacher_2") for student in room.by_role("student"))


def test_in_the_village_six_of_eight_live_from_talk(built_in: BuiltIn) -> None:
    room = built_in("village", 1, 0, 8)
    assert room.pupils_of("teacher_1") == ("student_1", "student_5")
    assert len(room.groups()) == 1
