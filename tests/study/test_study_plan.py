"""A study file becomes a plan: arms, factors, comparisons, equal compute; mistakes are told with their place."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lbt_sim.errors import ScenarioError
from lbt_sim.scenario.schema import ScenarioFile, SeatSpec
from lbt_sim.scenario.study import StudyFile
from lbt_sim.study.equal import load_of
from lbt_sim.study.plan import Plan, load_study
from lbt_sim.study.ready import prepared_conditions

Write = Callable[..., str]
THREE = "students: [{persona: literal}, {persona: sceptic}, {persona: novice}]"


def files(plan: Plan) -> dict[str, ScenarioFile]:
    return {one.condition.name: one.loaded.file for one in plan.conditions}


def seats(file: ScenarioFile) -> list[SeatSpec]:
    assert isinstance(file.cast.students, list)
    return file.cast.students


def test_built_in_arms_are_what_they_are_called(write_study: Write) -> None:
    plan = load_study(write_study("seeds: 2\narms: [self, one, several, clones, resample, shuffled, no_revision]\n"))
    made = files(plan)
    assert made["self"].cast.students == "teacher"
    assert [seat.persona for seat in seats(made["one"])] == ["literal"]
    assert [seat.persona for seat in seats(made["several"])] == ["literal", "sceptic"]
    (clones,) = seats(made["clones"])
    assert (clones.persona, clones.count) == ("literal", 2)
    assert clones.traits is not None
    assert clones.traits.mind  # exact copies, whatever their names
    assert [made[name].method.revise.feedback for name in ("several", "resample", "shuffled")] == [
        "failures",
        "none",
        "shuffled",
    ]
    assert made["no_revision"].method.revise.operators == []
    assert all(made[name].cast == made["several"].cast for name in ("resample", "shuffled", "no_revision"))


def test_an_arm_merges_mappings_and_replaces_lists(write_study: Write) -> None:
    plan = load_study(
        write_study(
            "arms:\n  base: {title: as it is}\n  short: {revise: {swaps: 1}, lesson: {questions: 1}, "
            "students: [{persona: guesser}]}\n  dotted: {set: {method.exam.problems: 9}}\n"
        )
    )
    made = files(plan)
    assert made["short"].method.revise.swaps == 1
    assert made["short"].method.revise.chosen == made["base"].method.revise.chosen == 3
    assert [seat.persona for seat in seats(made["short"])] == ["guesser"]
    assert made["dotted"].method.exam.problems == 9
    assert made["base"].method.exam.problems == 6


def test_full_combinations_are_all_levels_with_all(write_study: Write) -> None:
    plan = load_study(
        write_study(
            "seeds: [4, 9]\nfactors: {method.exam.problems: [4, 8], classroom: [star, ring]}\narms: [one, self]\n"
        )
    )
    names = [one.condition.name for one in plan.conditions]
    assert len(names) == len(set(names)) == 8
    assert "one/problems=4/classroom=ring" in names
    file = files(plan)["self/problems=8/classroom=star"]
    assert (file.method.exam.problems, file.classroom) == (8, "star")
    assert {run.seed for run in plan.runs} == {4, 9}
    assert len(list(plan.runs)) == 16
    assert len({run.folder for run in plan.runs}) == 16


def test_given_combinations_are_those_alone(write_study: Write) -> None:
    rest = "factors: {method.exam.problems: [4, 8], method.exemplars: [2, 3]}\n"
    plan = load_study(write_study(rest + "combinations: [{method.exam.problems: 4, method.exemplars: 3}]\n"))
    assert [one.condition.levels for one in plan.conditions] == [{"method.exam.problems": "4", "method.exemplars": "3"}]


def test_factors_of_every_student(write_study: Write) -> None:
    plan = load_study(write_study("factors: {persona: [novice, expert], temperature: [0, 0.7]}\n"))
    file = files(plan)["persona=novice/temperature=0.7"]
    assert [seat.persona for seat in seats(file)] == ["novice", "novice"]
    assert [seat.sampling["answer"].temperature for seat in seats(file)] == [0.7, 0.7]


def test_composed_students_are_of_as_many_kinds_as_asked(write_study: Write) -> None:
    rest = (
        "arms:\n  mixed: {students: {compose: {count: 4, persona: [literal, sceptic, novice, guesser], "
        "temperature: [0.0, 0.5]}}}\nfactors: {distinct: [1, 2, 4]}\n"
    )
    plan = load_study(write_study(rest))
    minds = {
        name: [(seat.persona, seat.traits.mind if seat.traits else None) for seat in seats(file)]
        for name, file in files(plan).items()
    }
    assert [len(set(kinds)) for kinds in minds.values()] == [1, 2, 4]
    assert all(len(kinds) == 4 for kinds in minds.values())
    assert [seat.sampling["answer"].temperature for seat in seats(files(plan)["mixed/distinct=2"])] == [0, 0.5, 0, 0.5]


def test_without_compare_every_arm_is_compared_with_the_first_at_its_levels(write_study: Write) -> None:
    plan = load_study(write_study("arms: [one, self]\nfactors: {method.exemplars: [2, 3]}\n"))
    assert plan.comparisons == (("self/exemplars=2", "one/exemplars=2"), ("self/exemplars=3", "one/exemplars=3"))
    plan = load_study(write_study("factors: {method.exemplars: [2, 3, 4]}\n"))
    assert plan.comparisons == (("exemplars=3", "exemplars=2"), ("exemplars=4", "exemplars=2"))


def test_levels_are_called_as_they_are_written() -> None:
    levels = StudyFile(base="x", factors={"model": ["Big", "big"], "lesson.x": [True, False]}).factors
    assert levels == {"model": {"Big": "Big", "big": "big"}, "lesson.x": {"true": True, "false": False}}


def test_of_one_arm_every_combination_is_compared_with_the_first(write_study: Write) -> None:
    plan = load_study(write_study("arms: [one]\nfactors: {method.exemplars: [2, 3]}\n"))
    assert plan.comparisons == (("one/exemplars=3", "one/exemplars=2"),)


def test_compare_names_arms_or_conditions(write_study: Write) -> None:
    rest = "arms: [one, self]\nfactors: {method.exemplars: [2, 3]}\n"
    plan = load_study(write_study(rest + "compare: [[one, self], [one/exemplars=3, one/exemplars=2]]\n"))
    assert plan.comparisons == (
        ("one/exemplars=2", "self/exemplars=2"),
        ("one/exemplars=3", "self/exemplars=3"),
        ("one/exemplars=3", "one/exemplars=2"),
    )


def test_a_level_is_compared_at_every_arm_and_one_condition_with_all(write_study: Write) -> None:
    rest = "arms: [one, self]\nfactors: {method.exemplars: [2, 3], method.exam.problems: [4, 6]}\n"
    plan = load_study(write_study(rest + "compare: [[exemplars=3, exemplars=2]]\n"))
    assert plan.comparisons == tuple(
        (f"{arm}/exemplars=3/problems={n}", f"{arm}/exemplars=2/problems={n}")
        for arm in ("one", "self")
        for n in (4, 6)
    )
    plan = load_study(write_study(rest + "compare: [[one/problems=6, self/exemplars=2]]\n"))
    assert plan.comparisons == (
        ("one/exemplars=2/problems=6", "self/exemplars=2/problems=6"),
        ("one/exemplars=3/problems=6", "self/exemplars=2/problems=6"),
    )


def test_factors_that_end_alike_are_called_by_their_whole_keys(write_study: Write) -> None:
    plan = load_study(write_study("factors: {task.train: [40, 50]}\n"))
    assert list(files(plan)) == ["train=40", "train=50"]
    plan = load_study(write_study("factors: {persona: [novice], cast.teacher.persona: [expert]}\n"))
    assert list(files(plan)) == ["persona=novice/cast.teacher.persona=expert"]


def test_two_that_never_meet_are_not_compared_in_silence(write_study: Write) -> None:
    rest = (
        "factors: {method.exemplars: [2, 3], method.exam.problems: [4, 6]}\n"
        "combinations:\n  - {method.exemplars: 2, method.exam.problems: 4}\n"
        "  - {method.exemplars: 3, method.exam.problems: 6}\n"
    )
    with pytest.raises(ScenarioError, match="no two conditions that are alike but for what is named"):
        load_study(write_study(rest + "compare: [[exemplars=3, exemplars=2]]\n"))


def test_an_arm_can_begin_with_another(write_study: Write) -> None:
    plan = load_study(
        write_study(
            "arms:\n  guessers: {students: [{persona: guesser, count: 3}]}\n"
            "  unheard: {of: guessers, like: resample}\n  short: {of: unheard, set: {method.exam.problems: 4}}\n"
            "compare: [[guessers, unheard], [guessers, short]]\n"
        )
    )
    made = files(plan)
    assert made["unheard"].cast == made["short"].cast == made["guessers"].cast
    assert [made[name].method.revise.feedback for name in made] == ["failures", "none", "none"]
    assert made["short"].method.exam.problems == 4
    assert plan.differs == (("feedback",), ("feedback", "exams"))


@pytest.mark.parametrize(
    "students",
    [
        "students: [{persona: novice, count: 2}]",
        "cast: {students: [{persona: novice, count: 2}]}",
        "set: {cast.students: [{persona: novice, count: 2}]}",
    ],
)
@pytest.mark.parametrize("arm", ["self", "one", "clones"])
def test_students_that_an_arm_names_are_its_students_however_it_says_so(
    write_study: Write, arm: str, students: str
) -> None:
    made = files(load_study(write_study(f"arms: {{several: , {arm}: {{{students}}}}}\n")))
    assert [(seat.persona, seat.count) for seat in seats(made[arm])] == [("novice", 2)]


@pytest.mark.parametrize("entry", ["seedz=4", "seed=4"])
def test_a_change_of_no_key_says_which_there_are(write_study: Write, entry: str) -> None:
    with pytest.raises(ScenarioError, match="did you mean 'seeds'") as caught:
        load_study(write_study("arms: [one]\n"), sets=[entry])
    assert {"seeds", "arms", "method"} <= set(caught.value.valid)


def test_clones_are_called_what_they_are(write_study: Write) -> None:
    two = "{like: clones, students: [{persona: novice, count: 2}, {persona: expert}]}"
    plan = load_study(write_study(f"arms: {{clones: , two: {two}, alone: {{of: one, like: clones}}, one: }}\n"))
    titles = {one.condition.name: one.condition.title for one in plan.conditions}
    assert titles["clones"] == "two clones of one student"
    assert titles["two"] == "three clones of two students"
    assert titles["alone"] == "one clone of one student"


def test_a_cast_as_a_factor_is_what_arms_are_made_from(write_study: Write) -> None:
    levels = "{n: [{persona: novice}, {persona: expert}]}"
    for key in ("students", "cast.students"):
        (file,) = files(load_study(write_study(f"arms: [one]\nfactors: {{{key}: {levels}}}\n"))).values()
        assert [seat.persona for seat in seats(file)] == ["novice"]


def test_an_arm_keeps_the_donor_of_the_one_that_it_begins_with(write_study: Write) -> None:
    arms = "{several: , one: , sh: {like: shuffled, donor: one}, sh2: {of: sh, set: {method.exam.problems: 5}}}"
    plan = load_study(write_study(f"arms: {arms}\n"))
    assert {run.condition: run.donor[0] for run in plan.runs if run.donor} == {"sh": "one", "sh2": "one"}


def test_what_equal_compute_sets_is_no_difference(write_study: Write) -> None:
    arms = "arms: [one, several, self]\ncompare: [[several, one], [one, self]]\n"
    assert load_study(write_study("equal_compute: true\n" + arms)).differs == (("students",), ("students",))


def test_equal_compute_does_not_undo_what_is_varied(write_study: Write) -> None:
    plan = load_study(
        write_study("equal_compute: true\narms: [one, several]\nfactors: {method.exam.problems: [4, 8]}\n")
    )
    assert [file.method.exam.problems for file in files(plan).values()] == [4, 8, 4, 8]
    assert len({load_of(file).answers for file in files(plan).values()}) == 1
    assert any("exams differ in length by design" in note for note in plan.notes)
    assert plan.differs == (("students",), ("students",))
    one = "compare: [[one/problems=8, one/problems=4]]\n"
    rest = "equal_compute: true\narms: [one]\nfactors: {method.exam.problems: [4, 8]}\n"
    assert load_study(write_study(rest + one)).differs == (("exams",),)


@pytest.mark.parametrize("by", ["exam", "select"])
def test_equal_compute_is_refused_where_it_would_undo_what_is_varied(write_study: Write, by: str) -> None:
    factors = "method.select.budget: [40, 80]" + (", method.exam.problems: [4, 8]" if by == "exam" else "")
    with pytest.raises(ScenarioError, match="would undo what this study varies") as caught:
        load_study(write_study(f"equal_compute: {{by: {by}}}\narms: [one]\nfactors: {{{factors}}}\n"))
    assert "equal_compute" in str(caught.value)


def test_equal_compute_makes_the_answers_of_a_run_equal(write_study: Write) -> None:
    rest = f"equal_compute: true\narms:\n  three: {{{THREE}}}\n  one:\n  self:\n"
    plan = load_study(write_study(rest))
    loads = {name: load_of(file) for name, file in files(plan).items()}
    assert len({load.answers for load in loads.values()}) == 1
    assert files(plan)["one"].method.exam.problems == 18  # three times the six problems of three students
    assert {file.method.select.spend for file in files(plan).values()} == {"all"}
    assert plan.notes == ()


def test_equal_compute_can_give_the_rest_to_selection(write_study: Write) -> None:
    plan = load_study(write_study(f"equal_compute: {{by: select}}\narms:\n  three: {{{THREE}}}\n  one:\n"))
    one, three = files(plan)["one"], files(plan)["three"]
    assert one.method.exam.problems == three.method.exam.problems == 6
    assert one.method.select.budget == three.method.select.budget + 12


def test_what_equal_compute_cannot_give_is_told(write_study: Write) -> None:
    rest = "equal_compute: true\narms:\n  talk: {lesson: {discussion: 2}}\n  one:\n  no_revision:\n"
    notes = " ".join(load_study(write_study(rest)).notes)
    assert "utterances" in notes
    assert "no_revision 0" in notes


def test_exams_are_no_longer_than_train_allows(write_study: Write) -> None:
    rest = "equal_compute: true\narms:\n  many: {students: [{persona: literal, count: 30}]}\n  one:\n"
    plan = load_study(write_study(rest))
    loads = {name: load_of(file) for name, file in files(plan).items()}
    assert files(plan)["one"].method.exam.problems <= 80
    assert loads["one"].answers == loads["many"].answers
    assert any("one" in note and "train" in note for note in plan.notes)


def test_a_shuffled_arm_is_given_the_failures_of_the_next_seed(write_study: Write) -> None:
    plan = load_study(write_study("seeds: [1, 2, 5]\narms: [one, several, shuffled]\n"))
    donors = {run.seed: run.donor for run in plan.runs if run.condition == "shuffled"}
    assert donors == {1: ("several", 2), 2: ("several", 5), 5: ("several", 1)}


@pytest.mark.parametrize(
    ("rest", "key", "says"),
    [
        ("arms: [one, selv]\n", "arms.selv", "self"),
        ("arms: {mine: {students: [{persona: litteral}]}}\n", "arms.mine.students", "literal"),
        ("arms: {c: {students: {compose: {count: 4, persona: [litteral]}}}}\n", "arms.c", "literal"),
        ("arms: [one]\ncompare: [[one, slef]]\n", "compare[0][1]", "one"),
        ("arms: {a: {title: x}, b: {of: c}}\n", "arms.b.of", "'c' is not an arm"),
        ("factors: {method.exemplars: [2, 2]}\n", "factors", "two levels are called '2'"),
        ("factors: {persona: [true, 'true']}\n", "factors", "two levels are called 'true'"),
        (
            "factors: {method.exemplars: [2, 3]}\ncombinations: [{method.exemplars: 2}, {method.exemplars: 2}]\n",
            "combinations[1]",
            "twice",
        ),
        ("arms: [one, self]\ncompare: [[one/self, one]]\n", "compare[0][0]", "two of a kind"),
        ("arms: {several: , resample: {revise: {feedback: shuffled}}}\n", "arms.resample", "feedback none"),
        (
            "arms: {several: , no_revision: {set: {method.revise.operators: [rewrite]}}}\n",
            "arms.no_revision",
            "rewrite",
        ),
        (
            "arms: [several, resample]\nfactors: {method.revise.feedback: [failures, none]}\n",
            "arms.resample",
            "no 'resample' any more",
        ),
        ("arms: [one, self]\ncompare: [[one, self], [self, one]]\n", "compare", "both ways"),
        ("arms: {a: {of: b}, b: {of: a}}\n", "arms.b.of", "begins with itself"),
        ("arms: [one]\nsmallest_effect: 2\n", "smallest_effect", "less than 1"),
        ("arms: [shuffled]\nseeds: 3\n", "arms.shuffled", "several"),
        ("arms: [several, shuffled]\nseeds: 1\n", "arms.shuffled", "seeds"),
        ("factors: {method.exemplarz: [1, 2]}\n", "factors.method.exemplarz", "exemplars"),
        ("factors: {distnct: [1, 2]}\n", "factors.distnct", "did you mean 'distinct'?"),
        ("factors: {seed: [1, 2]}\n", "factors.seed", "nothing that can be varied"),
        ("factors: {method.exemplars: [1, 2]}\ncombinations: [{method.exemplars: 7}]\n", "combinations", "1, 2"),
        ("arms: {m: {students: {compose: {count: 2, distinct: 3}}}}\n", "arms.m", "kinds"),
        ("seeds: []\narms: [one]\n", "seeds", "seed"),
        ("{}\n", "", "arms"),
        ("arms: [one]\nsedes: 3\n", "sedes", "seeds"),
    ],
)
def test_mistakes_are_told_with_their_place(write_study: Write, rest: str, key: str, says: str) -> None:
    path = write_study("" if rest == "{}\n" else rest)
    with pytest.raises(ScenarioError) as caught:
        prepared_conditions(load_study(path))
    assert key in str(caught.value)
    assert says in str(caught.value)


def test_a_study_that_is_not_there_lists_those_that_are() -> None:
    with pytest.raises(ScenarioError, match="diversity"):
        load_study("divesity")


def test_what_is_wrong_with_all_composed_students_is_told_once(write_study: Write) -> None:
    path = write_study("arms: {c: {students: {compose: {count: 4, persona: [litteral]}}}}\n")
    with pytest.raises(ScenarioError) as caught:
        prepared_conditions(load_study(path))
    assert str(caught.value).count("is not a persona") == 1
