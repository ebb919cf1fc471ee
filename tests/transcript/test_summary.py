from __future__ import annotations

from runs_by_hand import STUDENTS, Screen, report

from lbt_sim.transcript.summary import next_commands, print_summary, summary


def result(*rounds, **more):
    return {
        "run": "runs/a b",
        "status": "done",
        "seconds": 185.2,
        "rounds": list(rounds),
        "baselines": {"always_positive": None, "majority": {"accuracy": 0.6, "f1": None}},
        "calls": {"made": 1204, "replayed": 3, "shared": 0, "failed": 2},
        "tokens": {"prompt": 5000, "cached": 4000, "completion": 90},
    } | more


def printed(result, candidates=None, width=110):
    screen = Screen(color=False, width=width, height=30)
    screen.console.print(summary(result, candidates))
    return [line.rstrip() for line in screen.text.splitlines()]


def test_rounds_down_with_teacher_and_students():
    lines = printed(result(report(0, 0.5), report(1, 0.7, "m1", STUDENTS)), {1: (6, 1)})
    assert lines[0].split() == ["round", "accuracy", "95", "%", "F1", *STUDENTS, "kept", "material"]
    assert lines[2].split() == ["0", "1!", "0.50", "0.40–0.60", "0.50", "–", "–", "–", "–", "m0"]
    assert lines[3].split() == ["1", "1!", "0.70", "0.60–0.80", "0.70", *["0.75"] * 3, *["1", "of", "6"], "m1"]


def test_no_answers_are_a_dash_and_never_zero():
    (line,) = [line for line in printed(result(report(0, None))) if line.strip().startswith("0 ")]
    assert line.split() == ["0", "1!", "–", "–", "–", "m0"]


def test_more_than_six_students_are_mean_and_range():
    students = tuple(f"s{at}" for at in range(7))
    entry = report(1, 0.7, "m1", students)
    entry["students"] = {
        name: {"n": 4, "accuracy": at / 10, "outcomes": {"truncated": 1}} for at, name in enumerate(students)
    }
    lines = printed(result(entry))
    assert "7 students" in lines[0]
    assert "7✂ 0.30  0.00–0.60" in lines[2]


def test_a_narrow_terminal_gets_mean_and_range_rather_than_broken_columns():
    lines = printed(result(report(1, 0.7, "m1", STUDENTS)), {1: (6, 1)}, width=60)
    assert all(len(line) <= 60 for line in lines)
    assert "3 students" in lines[0]


def test_several_teachers_have_a_column_each():
    entry = report(1, 0.7)
    entry["teachers"] = {"teacher-1": entry["teacher"], "teacher-2": {**entry["teacher"], "accuracy": 0.4}}
    lines = printed(result(entry))
    assert "teacher-2" in lines[0]
    assert "0.40" in lines[2]


def test_baselines_and_cost_stand_below():
    text = "\n".join(printed(result(report(0, 0.5)), width=140))
    assert "always the majority label: accuracy 0.60, F1 –" in text
    assert "always the positive" not in text
    assert "1,204 calls made · 3 replayed · 2 failed · 5,000 prompt tokens (4,000 cached) · 90 tokens written" in text
    assert "3 min 05 s" in text


def test_a_result_with_next_to_nothing_in_it():
    assert printed({"run": "x", "status": "failed"})[0] == "No round has been reported yet."


def test_what_the_material_scored_on_the_reserve_has_a_column_where_it_was_measured():
    scored = {**report(1, 0.6), "train": {"n": 40, "score": 0.9, "rescored": {"n": 24, "score": 0.55}}}
    lines = printed(result(report(0, 0.5), scored), width=120)
    assert "train" in lines[0].split()
    assert "0.55" in lines[3].split()
    assert any("24 train problems that nothing is selected on" in line for line in lines)
    assert "train" not in printed(result(report(0, 0.5), report(1, 0.6)), width=120)[0].split()


def test_the_next_commands_can_be_pasted():
    lines = next_commands(result(report(0, 0.5), report(4, 0.6))).plain.splitlines()
    assert len(lines) == 3
    assert lines[0].endswith("  lbt-sim show 'runs/a b'")
    assert lines[1].endswith("  lbt-sim show 'runs/a b' --round 4")
    assert lines[2].endswith("  lbt-sim report 'runs/a b'")


def test_the_next_commands_are_as_this_one_was_given(monkeypatch):
    monkeypatch.setenv("UV_RUN_RECURSION_DEPTH", "1")
    assert next_commands(result(report(0, 0.5))).plain.splitlines()[0].endswith("  uv run lbt-sim show 'runs/a b'")


def test_a_run_that_stopped_is_resumed_first():
    assert next_commands(result(status="failed")).plain.splitlines()[0].endswith("  lbt-sim resume 'runs/a b'")


def test_commands_are_never_broken_over_lines():
    screen = Screen(color=False, width=40, height=30)
    print_summary(screen.console, result(report(0, 0.5), report(1, 0.5)))
    assert any("lbt-sim show 'runs/a b' --round 1" in line for line in screen.text.splitlines())
