import json
import sys
from importlib.metadata import EntryPoint

import pytest

from lbt_sim.errors import Place, TaskError
from lbt_sim.scenario.schema import TaskSpec
from lbt_sim.tasks import Problem, Task, load, load_task
from lbt_sim.tasks.split import normalise


@pytest.fixture
def data(tmp_path):
    """Writes files of rows and loads tasks from them."""

    class Data:
        def write(self, name, rows):
            text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
            (tmp_path / name).write_text(text, encoding="utf-8")

        def load(self, **spec):
            def place(key):
                return Place("s.yaml", 3, key)

            return load_task(TaskSpec(**spec), seed=1, find_data=lambda name: tmp_path / name, place=place)

        def fails(self, **spec):
            with pytest.raises(TaskError) as caught:
                self.load(**spec)
            return caught.value

    return Data()


def questions(count, start=0):
    return [{"question": f"Is {start + n} even?", "answer": "Yes" if n % 2 == 0 else "No"} for n in range(count)]


YES_NO = {"labels": ["Yes", "No"]}


def test_two_files_are_train_and_held_out_in_order(data):
    data.write("even_train.jsonl", questions(6))
    data.write("test.jsonl", questions(4, start=100))
    task = data.load(jsonl=["even_train.jsonl", "test.jsonl"], **YES_NO)
    assert [problem.id for problem in task.train] == ["t1", "t2", "t3", "t4", "t5", "t6"]
    assert [problem.question for problem in task.held_out] == [f"Is {n} even?" for n in range(100, 104)]
    assert (task.name, task.labels, task.positive, task.grader) == ("even", ("Yes", "No"), "Yes", "labels")
    assert set(task.sources) == {"even_train.jsonl", "test.jsonl"}
    assert task.notices == ()


def test_one_file_is_split_without_overlap_and_the_run_seed_changes_nothing(data, tmp_path):
    data.write("all.jsonl", questions(50))
    task = data.load(jsonl="all.jsonl", **YES_NO)
    assert (len(task.train), len(task.held_out)) == (40, 10)
    assert {p.id[0] for p in task.train} | {p.id[0] for p in task.held_out} == {"t", "h"}
    assert not {p.question for p in task.train} & {p.question for p in task.held_out}
    spec = TaskSpec(jsonl="all.jsonl", **YES_NO)
    assert load_task(spec, seed=99, find_data=lambda name: tmp_path / name) == task
    assert data.load(jsonl="all.jsonl", seed=5, **YES_NO) != task


def test_same_text_in_one_file_stays_in_one_split(data):
    rows = [{"question": f"Q{n // 3}", "answer": "Yes" if n % 2 else "No"} for n in range(60)]
    data.write("all.jsonl", rows)
    task = data.load(jsonl="all.jsonl", held_out=12, **YES_NO)
    assert len(task.held_out) == 12
    assert not {normalise(p.question) for p in task.train} & {normalise(p.question) for p in task.held_out}
    assert any("contradictory answers in all.jsonl" in notice for notice in task.notices)


def test_sampled_sizes_keep_file_order_and_ids(data):
    data.write("a.jsonl", questions(30))
    data.write("b.jsonl", questions(30, start=100))
    task = data.load(jsonl=["a.jsonl", "b.jsonl"], train=10, held_out=5, **YES_NO)
    numbers = [int(problem.id[1:]) for problem in task.train]
    assert len(numbers) == 10
    assert numbers == sorted(numbers)
    assert all(problem.question == f"Is {int(problem.id[1:]) - 1} even?" for problem in task.train)
    assert data.load(jsonl=["a.jsonl", "b.jsonl"], train=10, held_out=5, seed=7, **YES_NO).train != task.train


@pytest.mark.parametrize(
    ("spec", "key", "says"),
    [
        ({"train": 31}, "task.train", "`train: 31` is more than there is: 30 problems."),
        ({"held_out": 6}, "task.held_out", "`held_out: 6` is more than there is: 5 problems."),
    ],
)
def test_sizes_larger_than_the_data_say_how_many_there_are(data, spec, key, says):
    data.write("a.jsonl", questions(30))
    data.write("b.jsonl", questions(5, start=100))
    error = data.fails(jsonl=["a.jsonl", "b.jsonl"], **YES_NO, **spec)
    assert error.what == says
    assert error.where == Place("s.yaml", 3, key)


def test_held_out_of_one_file_leaves_something_for_train(data):
    data.write("a.jsonl", questions(5))
    assert "5 problems in the file" in data.fails(jsonl="a.jsonl", held_out=5, **YES_NO).what


@pytest.mark.parametrize(
    "spec", [{}, {"name": "reviews", "jsonl": "a.jsonl"}, {"csv": "a.csv", "dataset": "x"}, {"jsonl": []}]
)
def test_a_task_has_exactly_one_source(data, spec):
    error = data.fails(**spec)
    assert "exactly one source" in error.what
    assert error.valid == ("name", "jsonl", "csv", "dataset")


@pytest.mark.parametrize(
    ("spec", "key"),
    [
        ({"name": "reviews", "question": "text"}, "question"),
        ({"name": "reviews", "labels": ["a", "b"]}, "labels"),
        ({"jsonl": "a.jsonl", "options": {"plain": 1}}, "options"),
        ({"jsonl": "a.jsonl", "splits": ["train"]}, "splits"),
        ({"csv": "a.csv", "revision": "abc"}, "revision"),
    ],
)
def test_keys_of_another_source_are_refused(data, spec, key):
    assert data.fails(**spec).where.key == f"task.{key}"


def test_files_are_one_or_two_different_ones(data):
    assert "Found 3" in data.fails(jsonl=["a", "b", "c"]).what
    assert "Found 2: a, a" in data.fails(jsonl=["a", "a"]).what


def test_missing_field_names_line_fields_and_the_nearest_match(data):
    data.write("a.jsonl", [{"text": "one", "label": 1}, {"txet": "two", "label": 0}])
    error = data.fails(jsonl="a.jsonl", question="text", answer="label")
    assert str(error.where) == "a.jsonl:2"
    assert "no field 'text'; did you mean 'txet'?" in error.what
    assert error.valid == ("txet", "label")


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"question": "  ", "answer": "Yes"}, "The question is empty"),
        ({"question": "x", "answer": ""}, "The answer is empty"),
        ({"question": "x", "answer": None}, "holds null where"),
        ({"question": ["x"], "answer": "Yes"}, "where text or a number"),
        ('{"question": "x", "answer": 1e999}', "holds 'inf' where"),
        ('{"question": "half \\ud800", "answer": "Yes"}', "half a character"),
    ],
)
def test_unusable_rows_are_named(data, row, says):
    data.write("a.jsonl", [*questions(3), row])
    error = data.fails(jsonl="a.jsonl")
    assert says in error.what
    assert str(error.where).startswith("a.jsonl:4")


def test_empty_file_is_an_error(data):
    data.write("a.jsonl", ["", "  "])
    assert data.fails(jsonl="a.jsonl").what == "There are no rows."


def test_labels_are_translated_whatever_type_the_data_has(data):
    values = [1, "1", 1.0, True, "TRUE", 0, "0", False]
    data.write("a.jsonl", [{"question": f"q{n}", "answer": value} for n, value in enumerate(values)])
    data.write("b.jsonl", [{"question": "z", "answer": 1}])
    labels = {"1": "Yes", "0": "No", "true": "Yes", "false": "No"}
    task = data.load(jsonl=["a.jsonl", "b.jsonl"], labels=labels, positive="no")
    assert [p.answer for p in task.train] == ["Yes", "Yes", "Yes", "Yes", "Yes", "No", "No", "No"]
    assert (task.labels, task.positive) == (("Yes", "No"), "No")
    assert task.notices == ("No held-out problem has the label 'No'.",)


def test_answer_outside_the_label_set_names_rows_value_and_labels(data):
    data.write("a.jsonl", [*questions(3), *({"question": f"q{n}", "answer": "Yess"} for n in range(12))])
    error = data.fails(jsonl="a.jsonl", **YES_NO)
    assert str(error.where) == "a.jsonl:4  answer"
    assert error.what.startswith("'Yess' is not a label. Did you mean 'Yes'? 12 rows are like that: a.jsonl:4,")
    assert error.what.endswith("and 2 more.")
    assert error.valid == ("Yes", "No")


@pytest.mark.parametrize("labels", [["Yes"], {"1": "Yes", "0": "yes"}, ["Yes", " "], ["a\nb", "c"], ["A", "a"]])
def test_unusable_label_sets_are_errors(data, labels):
    data.write("a.jsonl", questions(5))
    assert data.fails(jsonl="a.jsonl", labels=labels).where.key == "task.labels"


def test_two_values_may_share_a_label_and_one_label_may_begin_another(data):
    rows = [{"question": f"q{n}", "answer": value} for n, value in enumerate(("a", "b", "c", "a", "c"))]
    data.write("a.jsonl", rows)
    task = data.load(jsonl="a.jsonl", labels={"a": "true", "b": "true", "c": "true in part"})
    assert task.labels == ("true", "true in part")


@pytest.mark.parametrize(
    ("spec", "key"),
    [
        ({**YES_NO, "positive": "Maybe"}, "task.positive"),
        ({"positive": "Yes"}, "task.positive"),
        ({"grader": "labels"}, "task.grader"),
        ({**YES_NO, "grader": "exact"}, "task.grader"),
        ({"grader": "rubric"}, "task.grader"),
        ({"rubric": "It says why."}, "task.rubric"),
        ({"answer_pattern": "("}, "task.answer_pattern"),
        ({"answer_pattern": "x"}, "task.answer_pattern"),
    ],
)
def test_what_does_not_go_together_is_refused(data, spec, key):
    data.write("a.jsonl", questions(5))
    assert data.fails(jsonl="a.jsonl", **spec).where.key == key


def test_pattern_takes_the_answer_and_leaves_the_rationale(data):
    data.write("a.jsonl", [{"question": f"{n} + 1?", "answer": f"Add them.\n#### {n + 1}"} for n in range(5)])
    task = data.load(jsonl="a.jsonl", answer_pattern="#### (.*)", grader="number")
    assert {(p.question, p.answer, p.rationale) for p in task.train} <= {
        (f"{n} + 1?", str(n + 1), "Add them.") for n in range(5)
    }


def test_pattern_without_a_match_names_the_row(data):
    data.write("a.jsonl", [{"question": "a", "answer": "#### 1"}, {"question": "b", "answer": "2"}])
    error = data.fails(jsonl="a.jsonl", answer_pattern="#### (.*)")
    assert str(error.where).startswith("a.jsonl:2")


def test_question_and_family_may_be_templates_over_the_fields(data):
    data.write("a.jsonl", [{"text": f"s{n}", "who": "Ada", "label": "Yes", "n": n} for n in range(5)])
    spec = {"question": "{{ who }} says: {{ text }}", "answer": "label", "rationale": "text"}
    task = data.load(jsonl="a.jsonl", family="{{ 'low' if n < 3 else 'high' }}", **spec)
    problem = next(p for p in task.train + task.held_out if p.id[1:] == "5")
    assert (problem.question, problem.rationale, problem.family) == ("Ada says: s4", "s4", "high")


def test_template_with_an_unknown_field_names_row_and_fields(data):
    data.write("a.jsonl", [{"text": "s", "label": "Yes"}])
    error = data.fails(jsonl="a.jsonl", question="{{ txt }}", answer="label")
    assert "a.jsonl:1" in error.what
    assert error.valid == ("text", "label")


def test_overlap_is_an_error_unless_dropped(data):
    data.write("a.jsonl", questions(6))
    data.write("b.jsonl", [*questions(1), *questions(4, start=100)])
    assert "a.jsonl:1 = b.jsonl:1" in data.fails(jsonl=["a.jsonl", "b.jsonl"], **YES_NO).what
    task = data.load(jsonl=["a.jsonl", "b.jsonl"], duplicates="drop", **YES_NO)
    assert [p.id for p in task.train] == ["t2", "t3", "t4", "t5", "t6"]
    assert task.notices == ("1 row dropped from train, held out too: a.jsonl:1 = b.jsonl:1.",)


def test_overlap_of_everything_leaves_no_train_problems(data):
    data.write("a.jsonl", questions(2))
    data.write("b.jsonl", questions(2))
    error = data.fails(jsonl=["a.jsonl", "b.jsonl"], duplicates="drop", **YES_NO)
    assert error.what == "There are no train problems."


def test_csv_reads_like_jsonl(data):
    data.write("a.csv", ["question,answer", *(f"Is {n} even?,{'Yes' if n % 2 == 0 else 'No'}" for n in range(10))])
    task = data.load(csv="a.csv", **YES_NO)
    assert (len(task.train), len(task.held_out)) == (8, 2)


@pytest.mark.parametrize("name", ["reviews", "arithmetic"])
def test_generators_are_reached_by_name(data, name):
    task = data.load(name=name, train=20, held_out=6, title="Mine", instruction="Do it.")
    assert (len(task.train), len(task.held_out)) == (20, 6)
    assert (task.name, task.instruction) == ("Mine", "Do it.")
    assert data.load(name=name, train=20, held_out=6, seed=3).train != task.train


def test_errors_of_a_generator_say_where_in_the_scenario(data):
    error = data.fails(name="reviews", options={"ironie": 1.0})
    assert error.where == Place("s.yaml", 3, "task.options")
    assert "'ironie' is not an option of 'reviews'; did you mean 'irony'?" in error.what
    assert "did you mean 'trays'" in data.fails(name="arithmetic", options={"family": "tray"}).what


def test_unknown_generator_names_the_nearest(data):
    error = data.fails(name="review")
    assert "did you mean 'reviews'?" in error.what
    assert error.valid == ("arithmetic", "reviews")


def leaky(*, train, held_out, seed, options):
    problem = Problem("t1", "Same?", "Yes")
    return Task("leaky", "", ("Yes", "No"), "Yes", "labels", (problem,), (problem,))


def test_installed_generators_are_found_and_checked_like_our_own(data, monkeypatch):
    entry = EntryPoint("leaky", f"{__name__}:leaky", "lbt_sim.tasks")
    monkeypatch.setitem(sys.modules, __name__, sys.modules[leaky.__module__])
    monkeypatch.setattr(load, "entry_points", lambda group: [entry] if group == "lbt_sim.tasks" else [])
    assert "1 train row has a text that is held out too" in data.fails(name="leaky").what
