"""Every mistake of a file is told at once, in plain words, with what is valid."""

from __future__ import annotations

import pytest

from lbt_sim.errors import ScenarioError
from lbt_sim.scenario.schema import ClassroomFile, ScenarioFile
from lbt_sim.scenario.validation import SeveralMistakesError, validate_model
from lbt_sim.scenario.yaml import read_yaml

HEAD = "models: {small: {engine: simulated}}\ntask: {name: reviews}\n"


def mistake(body: str) -> ScenarioError:
    with pytest.raises(ScenarioError) as caught:
        validate_model(read_yaml(HEAD + body, "s.yaml"), ScenarioFile)
    assert caught.value.status == 2
    return caught.value


@pytest.mark.parametrize(
    ("body", "key", "says"),
    [
        ("sede: 3", "sede", "'sede' is not a key here; did you mean 'seed'?"),
        ("method: {raunds: 3}", "method.raunds", "did you mean 'rounds'?"),
        ("method: {rounds: many}", "method.rounds", "found 'many'; wanted a whole number"),
        ("method: {rounds: '3'}", "method.rounds", "found '3'; wanted a whole number"),
        ("method: {rounds: true}", "method.rounds", "found true; wanted a whole number"),
        ("method: {rounds: 2.5}", "method.rounds", "found 2.5; wanted a whole number"),
        ("method: {rounds: -1}", "method.rounds", "found -1; wanted at least 0"),
        ("method: {exam: -3}", "method.exam.problems", "found -3; wanted more than 0"),
        ("method: {exam: true}", "method.exam", "found true; wanted a mapping"),
        ("method: {revise: [rewrit]}", "method.revise.operators[0]", "did you mean 'rewrite'?"),
        ("method: {revise: {feedback: shufled}}", "method.revise.feedback", "did you mean 'shuffled'?"),
        ("cast: {students: [{knowledge: {share: 2.0}}]}", "cast.students[0].knowledge.share", "wanted at most 1"),
        ("method: {exam: ten}", "method.exam", "found 'ten'; wanted a whole number of problems, or a mapping"),
        ("method: {exam: 2.5}", "method.exam", "wanted a whole number of problems"),
        ("method: {select: {by: students_}}", "method.select.by", "did you mean 'students'?"),
        ("budget: {calls: -5}", "budget.calls", "found -5; wanted more than 0"),
        ("budget: {failed: 1.5}", "budget.failed", "found 1.5; wanted at most 1"),
        ("title: 3", "title", "found 3; wanted text (in quotes)"),
        ("title: {a: 1}", "title", "found a mapping; wanted text"),
        ("classroom: 3", "classroom", "found 3; wanted text, or a mapping"),
        ("classroom: {seats: {pupil: 3}}", "classroom.seats.pupil", "'pupil' is not valid here"),
        ("classroom: {seats: {student: x}}", "classroom.seats.student", "wanted a whole number, or '*'"),
        ("classroom: {seats: {student: 0}}", "classroom.seats.student", "found 0; wanted more than 0"),
        ("classroom: {edges: [{kind: teaches}]}", "classroom.edges[0]", "either `among`, or both `from` and `to`"),
        ("cast: {students: techer}", "cast.students", "did you mean 'teacher'?"),
        ("cast: {teacher: {persna: x}}", "cast.teacher.persna", "did you mean 'persona'?"),
        ("cast: {teacher: [{count: 0}]}", "cast.teacher[0].count", "found 0; wanted more than 0"),
        ("cast: {teacher: x}", "cast.teacher", "found 'x'; wanted a mapping, or a list"),
        ("cast: {students: [{name: 1x}]}", "cast.students[0].name", "cannot be used as a name"),
        ("lesson: {discussion: -1}", "lesson.discussion.turns", "found -1; wanted at least 0"),
        ("kind: classroom", "kind", "'classroom' is not valid here"),
        ("version: 2", "version", "2 is not valid here"),
    ],
)
def test_one_mistake(body: str, key: str, says: str) -> None:
    error = mistake(body)
    assert not isinstance(error, SeveralMistakesError)
    assert says in error.what
    assert error.where is not None
    assert (error.where.file, error.where.line, error.where.key) == ("s.yaml", 3, key)
    assert error.remedy


def test_an_unknown_key_lists_the_valid_ones() -> None:
    assert mistake("budget: {cals: 1}").valid == ("calls", "failed", "tokens")


def test_aliases_are_listed_as_they_are_written() -> None:
    assert "from" in mistake("classroom: {edges: [{frm: teacher, to: student, kind: teaches}]}").valid


def test_a_wrong_choice_lists_the_choices() -> None:
    assert mistake("method: {select: {metric: precision}}").valid == ("accuracy", "probability", "f1")


def test_a_missing_key_says_what_it_is_for() -> None:
    with pytest.raises(ScenarioError) as caught:
        validate_model(read_yaml("models: {small: {model: x}}\ntask: {name: reviews}", "s.yaml"), ScenarioFile)
    error = caught.value
    assert str(error.where) == "s.yaml:1  models.small.engine"
    assert error.what == "the key 'engine' is missing"
    assert "`llamacpp`" in error.remedy


def test_a_value_says_what_its_key_means() -> None:
    assert "Rounds of revision" in mistake("method: {rounds: x}").remedy


def test_several_mistakes_are_told_together_in_the_order_of_the_file() -> None:
    error = mistake("sede: 1\nmethod:\n  beam: x\n  rounds: -1\nbudget: {calls: 0}")
    assert isinstance(error, SeveralMistakesError)
    keys = [one.where.key for one in error.mistakes if one.where]
    assert keys == ["sede", "method.beam", "method.rounds", "budget.calls"]
    assert [one.where.line for one in error.mistakes if one.where] == [3, 5, 6, 7]
    told = str(error)
    assert all(one.what in told for one in error.mistakes)
    assert told.endswith("4 mistakes")


def test_no_more_than_twenty_mistakes_are_told() -> None:
    told = str(mistake("\n".join(f"key{n}: 1" for n in range(30))))
    assert told.count("is not a key here") == 20
    assert told.endswith("30 mistakes, 10 of them not shown")


def test_a_union_tells_only_of_the_alternative_that_was_meant() -> None:
    error = mistake("cast:\n  students:\n    - {persona: 3}\n    - {count: x}")
    assert isinstance(error, SeveralMistakesError)
    assert [one.what for one in error.mistakes] == [
        "found 3; wanted text (in quotes)",
        "found 'x'; wanted a whole number",
    ]


def test_the_words_are_not_pydantics() -> None:
    told = str(
        mistake("classroom: 3\ncast: {students: 4, teacher: 5}\nlesson: 6\nmethod: {exam: x, revise: 3}\nseed: []")
    )
    for word in ("Input should", "validation", "pydantic", "type=", "literal[", "function-before", "Extra inputs"):
        assert word not in told


def test_a_found_value_is_shown_short_and_without_control_characters() -> None:
    error = mistake('method: {preset: "\\e[31m' + "x" * 5000 + '"}')
    assert "\x1b" not in str(error)
    assert len(error.what) < 120


def test_topologies_may_be_written_short() -> None:
    for form in ("ring", "{name: ring}", "{watts_strogatz: {k: 4, p: 0.1}}", "{name: groups, size: 3, complete: true}"):
        text = f"edges: [{{among: student, kind: discusses, topology: {form}}}]"
        assert validate_model(read_yaml(text, "c.yaml"), ClassroomFile).edges[0].topology.name


def test_a_part_of_a_document_is_told_with_its_full_key() -> None:
    document = read_yaml("arms:\n  one:\n    budget: {calls: x}\n" + HEAD, "s.yaml")
    from lbt_sim.scenario.schema import BudgetSpec

    with pytest.raises(ScenarioError) as caught:
        validate_model(document, BudgetSpec, ("arms", "one", "budget"))
    assert str(caught.value.where) == "s.yaml:3  arms.one.budget.calls"
