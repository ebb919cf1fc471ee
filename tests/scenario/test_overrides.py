"""`--set key.path=value`."""

from __future__ import annotations

from typing import Any

import pytest

from lbt_sim.errors import Place, ScenarioError
from lbt_sim.scenario.overrides import apply_overrides, override
from lbt_sim.scenario.yaml import read_yaml

BASE: dict[str, Any] = {"seed": 1, "cast": {"students": [{"persona": "a"}, {"persona": "b"}]}, "classroom": "star"}


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("seed=7", ("seed",), 7),
        ("cast.students[1].persona=literal", ("cast", "students", 1, "persona"), "literal"),
        ("cast.students.0.persona=literal", ("cast", "students", 0, "persona"), "literal"),
        ("budget.calls=10", ("budget", "calls"), 10),
        ("method.revise=[choose, rewrite]", ("method", "revise"), ["choose", "rewrite"]),
        ("method.exam={problems: 5, set_by: fixed}", ("method", "exam"), {"problems": 5, "set_by": "fixed"}),
        ("title=Is it good: yes or no? # really", ("title",), "Is it good: yes or no? # really"),
        ("title='7'", ("title",), "7"),
        ("task.train=null", ("task", "train"), None),
        ("budget.failed=1e-2", ("budget", "failed"), 0.01),
        ("title=a=b", ("title",), "a=b"),
    ],
)
def test_a_value_is_set(text: str, path: tuple[str | int, ...], value: Any) -> None:
    found: Any = apply_overrides(BASE, [text])
    for part in path:
        found = found[part]
    assert (found, type(found)) == (value, type(value))


def test_the_original_is_not_changed() -> None:
    apply_overrides(BASE, ["cast.students[0].persona=z"])
    assert BASE["cast"]["students"][0] == {"persona": "a"}


def test_later_ones_win() -> None:
    assert apply_overrides(BASE, ["seed=2", "seed=3"])["seed"] == 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seed", "no '='"),
        ("=3", "not the path of a key"),
        ("a..b=3", "not the path of a key"),
        ("[0]=3", "not the path of a key"),
        ("cast.students[2].persona=x", "2 entries, numbered from 0; there is no [2]"),
        ("cast.students.first=x", "is a list, so 'first' cannot be a key"),
        ("classroom.seats.student=3", "'classroom' is 'star', so 'seats' cannot be set in it"),
        ("cast[0]=x", "'cast' is a mapping"),
        ("method.list[0]=x", "'method.list' is not written in the scenario"),
        ("seed=.nan", ".nan"),
        ("method.revise=[a", "not YAML"),
        ("method={a: &x 1}", "anchor"),
        ("method={a: 1, a: 2}", "twice"),
    ],
)
def test_mistakes_name_the_flag_and_the_remedy(text: str, says: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        apply_overrides(BASE, [text])
    assert says in caught.value.what
    assert caught.value.where == Place(key=f"--set {text}")
    assert caught.value.remedy


def test_what_a_flag_set_has_the_flag_as_its_place() -> None:
    document = override(read_yaml("seed: 1\nmethod:\n  beam: 2\n", "s.yaml"), ["method={rounds: x}", "seed=3"])
    assert document.place(("seed",)) == Place(key="--set seed=3")
    assert document.place(("method", "rounds")) == Place(key="--set method={rounds: x}  (method.rounds)")
    document = override(document, ["method.rounds=4"])
    assert document.place(("method", "rounds")) == Place(key="--set method.rounds=4")
