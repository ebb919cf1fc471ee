"""Bad files: each ends with status 2 and a message that says what, where and what to do; nothing is started."""

from __future__ import annotations

import gc
import itertools
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from commands import SMALL, lbt_sim

from lbt_sim.errors import ModelUnavailable
from lbt_sim.ledger import LedgerReader
from lbt_sim.models.base import Reply
from lbt_sim.models.simulated import SimulatedModel

Change = Callable[[Path], None]


def with_line(line: str) -> Change:
    """The scenario and a line more."""
    return lambda folder: _write(folder / "small.yaml", SMALL + line + "\n")


def instead(old: str, new: str) -> Change:
    """The scenario, and this in place of that."""
    assert old in SMALL
    return lambda folder: _write(folder / "small.yaml", SMALL.replace(old, new))


def whole(text: str | bytes) -> Change:
    return lambda folder: _write(folder / "small.yaml", text)


def student_says(template: str) -> Change:
    """The student's answer template."""

    def change(folder: Path) -> None:
        _write(folder / "agents" / "student" / "answer.md.j2", template)

    return change


def task_of(*rows: dict[str, Any], task: str = "labels: [yes, no]") -> Change:
    def change(folder: Path) -> None:
        _write(folder / "data.jsonl", "\n".join(map(json.dumps, rows)))
        source = "{name: reviews, train: 40, held_out: 8}"
        _write(folder / "small.yaml", SMALL.replace(source, f"{{jsonl: data.jsonl, {task}}}"))

    return change


def file(name: str, text: str) -> Change:
    return lambda folder: _write(folder / name, text)


def both(*changes: Change) -> Change:
    def change(folder: Path) -> None:
        for one in changes:
            one(folder)

    return change


def _change(folder: Path, old: str, new: str) -> None:
    text = (folder / "small.yaml").read_text(encoding="utf-8")
    assert old in text
    _write(folder / "small.yaml", text.replace(old, new))


def _write(file: Path, text: str | bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())


REVIEWS = "task: {name: reviews, train: 40, held_out: 8}"
MODELS = "models: {small: {engine: simulated}}"
STUDENTS = "cast: {students: [{persona: literal}, {persona: sceptic}]}"
TEACHES = "- {from: teacher, to: student, kind: teaches}"
TALK = "- {among: student, kind: discusses, topology: rign}"
BOMB = "a: &a [x, x, x, x]\nb: &b [*a, *a, *a, *a]\nc: &c [*b, *b, *b, *b]\nd: [*c, *c, *c, *c]\n"
ROWS = [{"question": f"question number {n}", "answer": ("yes", "no")[n % 2]} for n in range(30)]

CASES: dict[str, tuple[Change, list[str]]] = {
    "unknown key": (with_line("studnets: 3"), ["small.yaml:8", "studnets"]),
    "unknown key deep down": (instead("beam: 2", "baem: 2"), ["small.yaml:7", "method.baem", "beam"]),
    "wrong type": (instead("rounds: 3", "rounds: three"), ["small.yaml:7", "method.rounds", "three"]),
    "true is no number": (instead("rounds: 3", "rounds: true"), ["method.rounds"]),
    "not a number": (instead("rounds: 3", "rounds: .nan"), ["small.yaml:7"]),
    "another kind": (instead("kind: scenario", "kind: study"), ["small.yaml:1", "kind"]),
    "another version": (instead("version: 1", "version: 2"), ["small.yaml:2", "version"]),
    "unknown persona": (instead("persona: sceptic", "persona: scpetic"), ["small.yaml:6", "did you mean 'sceptic'"]),
    "unknown agent": (instead("{persona: literal}", "{agent: studnet}"), ["studnet", "student"]),
    "unknown model": (instead("{persona: literal}", "{model: big}"), ["big", "small"]),
    "unknown engine": (instead("engine: simulated", "engine: simulatde"), ["simulatde", "did you mean", "llamacpp"]),
    "unknown option of an engine": (instead("engine: simulated", "engine: simulated, lag: 1"), ["lag", "latency"]),
    "unknown classroom": (instead("classroom: star", "classroom: stra"), ["stra", "star"]),
    "unknown generator": (instead("name: reviews", "name: review"), ["review", "reviews"]),
    "an import path is no engine": (instead("engine: simulated", "engine: os.system"), ["os.system"]),
    "negative budget": (with_line("budget: {calls: -5}"), ["small.yaml:8", "budget.calls", "-5"]),
    "no budget at all": (with_line("budget: {calls: 0}"), ["budget.calls"]),
    "negative seed": (with_line("seed: -1"), ["small.yaml:8", "seed"]),
    "no teacher": (instead("cast: {", "cast: {teacher: [], "), ["teacher"]),
    "no students": (instead(STUDENTS, "cast: {students: []}"), ["students"]),
    "no models": (instead(MODELS, "models: {}"), ["small.yaml:3", "models"]),
    "duplicate key": (with_line("seed: 1\nseed: 2"), ["small.yaml:9", "seed"]),
    "alias": (with_line("description: &text hello\ntitle: *text"), ["small.yaml:8"]),
    "bomb of aliases": (whole(BOMB), ["small.yaml:1"]),
    "deep nesting": (whole("a: " + "[" * 5000), ["small.yaml"]),
    "python object": (with_line("title: !!python/object/apply:os.system [id]"), ["small.yaml:8"]),
    "no mapping": (whole("- 1\n- 2\n"), ["small.yaml"]),
    "nothing": (whole(""), ["small.yaml"]),
    "no YAML": (whole("kind: [scenario"), ["small.yaml"]),
    "no text": (whole(b"\xff\xfe\x00\x01" * 100), ["small.yaml"]),
    "50 MB": (whole(b"# x\n" * 12_500_000), ["small.yaml", "50,000,000 bytes", "at most"]),
    "data outside the workspace": (
        instead(REVIEWS, "task: {jsonl: ../../../etc/passwd, labels: [a, b]}"),
        ["small.yaml:4", "../../../etc/passwd"],
    ),
    "absolute path": (instead(REVIEWS, "task: {jsonl: /etc/passwd, labels: [a, b]}"), ["/etc/passwd", "--data"]),
    "graph outside the workspace": (
        instead("classroom: star", "classroom: {file: ../../../etc/passwd}"),
        ["../../../etc/passwd"],
    ),
    "data that are not there": (instead(REVIEWS, "task: {jsonl: mine.jsonl, labels: [a, b]}"), ["mine.jsonl"]),
    "undefined name in a template": (student_says("{{ question }} {{ quesiton }}"), ["answer.md.j2:1", "quesiton"]),
    "a template that reaches into Python": (student_says("{{ ''.__class__ }}"), ["answer.md.j2:1", "__class__"]),
    "a template that reaches through a filter": (student_says("{{ question|attr('__class__') }}"), ["answer.md.j2"]),
    "a part of a value that is not there": (
        student_says("{{ question }} {{ task.nam }}"),
        ["answer.md.j2:1", "'nam' is not there", "did you mean 'name'"],
    ),
    "endless template": (student_says("{% for n in range(10**9) %}x{% endfor %}"), ["answer.md.j2:1"]),
    "a template that includes": (student_says("{% include '/etc/passwd' %}"), ["answer.md.j2:1"]),
    "a template that is none": (student_says("{% if %}"), ["answer.md.j2:1"]),
    "empty task": (task_of(), ["data.jsonl"]),
    "one problem": (task_of(ROWS[0]), ["small.yaml:4", "1 problem"]),
    "fewer problems than exemplars": (instead("exemplars: 4", "exemplars: 40"), ["method.exemplars", "40"]),
    "a label outside the set": (task_of(*ROWS, {"question": "q", "answer": "maybe"}), ["data.jsonl:31", "maybe"]),
    "a field that is not there": (task_of({"text": "x", "answer": "yes"}), ["data.jsonl:1", "question", "text"]),
    "rows that are no JSON": (both(task_of(), file("data.jsonl", '{"question": ')), ["data.jsonl:1", "JSON"]),
    "a text in both splits": (
        both(
            file("one.jsonl", "\n".join(map(json.dumps, ROWS))),
            file("two.jsonl", json.dumps(ROWS[3])),
            instead(REVIEWS, "task: {jsonl: [one.jsonl, two.jsonl], labels: [yes, no]}"),
        ),
        ["one.jsonl:4", "two.jsonl:1", "duplicates"],
    ),
    "a student whom nobody teaches": (
        instead("classroom: star", "classroom: {edges: [{from: teacher, to: literal, kind: teaches}]}"),
        ["small.yaml:5  classroom.edges", "sceptic"],
    ),
    "a graph without the cast": (
        both(file("graph.txt", "teacher ann\n"), instead("classroom: star", "classroom: {file: graph.txt}")),
        ["graph.txt"],
    ),
    "more seats than people": (
        instead("classroom: star", "classroom: {seats: {teacher: 2}, edges: []}"),
        ["small.yaml:5  classroom.seats.teacher", "2 teacher seat(s)"],
    ),
    "unknown topology": (
        instead("classroom: star", "classroom: {edges: [{among: student, kind: discusses, topology: rign}]}"),
        ["small.yaml:5  classroom.edges[0].topology", "rign", "did you mean 'ring'"],
    ),
    "unknown topology in a classroom's own file": (
        both(
            file("classrooms/mine.yaml", f"kind: classroom\nedges:\n{TEACHES}\n{TALK}\n"),
            instead("classroom: star", "classroom: mine"),
        ),
        ["classrooms/mine.yaml:4  edges[1].topology", "rign", "did you mean 'ring'"],
    ),
    "a topology without its parameter": (
        instead("classroom: star", "classroom: {edges: [{among: student, kind: discusses, topology: {groups: {}}}]}"),
        ["small.yaml:5  classroom.edges[0].topology", "lacks `size`"],
    ),
    "a lecture dealt out": (
        both(
            instead("classroom: star", "classroom: jigsaw\nlesson: {material: jigsaw}"),
            lambda folder: _change(folder, "exemplars: 4", "exemplars: 4, material: lecture"),
            lambda folder: _change(folder, "[choose]", "[rewrite]"),
        ),
        ["small.yaml:6", "lesson.material", "one text"],
    ),
    "material split among one teacher": (
        instead("classroom: star", "classroom: star\nlesson: {material: split}"),
        ["small.yaml:6", "there is one"],
    ),
    "a lecture that is to be chosen": (
        instead("exemplars: 4", "exemplars: 4, material: lecture"),
        ["small.yaml:7", "method.revise.operators", "rewrite"],
    ),
    "problems of an exam that is not fixed": (
        instead("exam: 6", "exam: {problems: 6, ids: [t1]}"),
        ["small.yaml:7", "method.exam.ids", "fixed"],
    ),
    "a method that does not suit": (instead("rounds: 3", "rounds: 3, start: writen"), ["method.start", "written"]),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_file_is_refused_before_anything_is_started(workspace: Path, case: str) -> None:
    change, says = CASES[case]
    change(workspace)
    said = lbt_sim("run", "small.yaml", "--out", "run", "--json")
    assert (said.status, said.out) == (2, "")
    for part in says:
        assert part in said.err
    assert "Traceback" not in said.err
    assert len(said.err) < 4000
    assert len(said.err.splitlines()) >= 2, "a message has a place and says what to do"
    assert not (workspace / "run").exists()


@pytest.mark.parametrize("case", ["unknown key", "unknown persona", "a label outside the set"])
def test_validate_says_the_same(workspace: Path, case: str) -> None:
    change, says = CASES[case]
    change(workspace)
    said = lbt_sim("validate", "small.yaml")
    assert said.status == 2
    assert all(part in said.err for part in says)


def test_all_mistakes_are_told_at_once_and_each_where_it_was_made(workspace: Path) -> None:
    both(instead("rounds: 3", "rounds: three"), student_says("{{ quesiton }}"))(workspace)
    said = lbt_sim("validate", "small.yaml", "--set", "cast.students[1].persona=scpetic", "--set", "foo.bar=1")
    assert said.status == 2
    for part in ("small.yaml:7", "--set cast.students[1].persona=scpetic", "'sceptic'", "--set foo.bar=1"):
        assert part in said.err
    assert "3 mistakes" in said.err  # templates are looked at when the scenario itself is right


def test_a_mistake_in_a_template_is_told_once_for_all_who_use_it(workspace: Path) -> None:
    student_says("{% if %}")(workspace)
    assert lbt_sim("validate", "small.yaml").err.count("answer.md.j2") == 1


def test_validate_explains_what_the_task_fills_in(workspace: Path) -> None:
    said = lbt_sim("validate", "small.yaml", "--explain", "--set", "seed=4")
    assert "task.labels: [positive, negative]   (the task reviews)" in said.out
    assert "seed: 4   (--set seed=4)" in said.out
    assert "None" not in said.out


def test_a_message_holds_no_terminal_escapes(workspace: Path) -> None:
    with_line('"\\e[31m": 3')(workspace)
    said = lbt_sim("run", "small.yaml", "--out", "run")
    assert said.status == 2
    assert "\x1b" not in said.err


def _talks_twice(folder: Path, template: str) -> None:
    """Students talk two turns as `template` says; what goes wrong in the second shows only in the run."""
    _write(folder / "agents" / "student" / "discuss.md.j2", template)
    _write(folder / "small.yaml", SMALL.replace("classroom: star", "classroom: ring\nlesson: {discussion: 2}"))


SECOND_TURN = "Talk{% if turn > 1 and name == 'literal' %} about {{ task.nam }}{% endif %}."


def test_a_template_that_goes_wrong_in_the_run_stops_it_and_what_was_answered_is_kept(workspace: Path) -> None:
    _talks_twice(workspace, SECOND_TURN)
    assert lbt_sim("validate", "small.yaml").status == 0, "this one is for a mistake that only the run can show"
    said = lbt_sim("run", "small.yaml", "--out", "run", "--json", "-q")
    assert (said.status, said.result["status"]) == (3, "failed")
    for part in ("agents/student/discuss.md.j2:1", "'nam' is not there", "is kept", "start a new run"):
        assert part in said.err
        assert part in said.result["error"]
    with LedgerReader(workspace / "run") as ledger:
        kept = ledger.totals()["calls"]
    assert f"({kept} calls)" in said.err
    assert kept > 0
    again = lbt_sim("resume", "run", "--json", "-q")
    assert again.status == 3
    assert "start a new run" in again.err
    assert lbt_sim("show", "run").status == 0


def test_nobody_is_told_to_resume_what_would_end_at_the_same_place(workspace: Path) -> None:
    _talks_twice(workspace, SECOND_TURN)
    said = lbt_sim("run", "small.yaml", "--out", "run", "-q")
    assert said.status == 3
    assert "Continue with" not in said.err


def test_a_model_that_goes_away_in_the_run_stops_it_and_resume_goes_on(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches, create_many = itertools.count(), SimulatedModel.create_many

    async def goes_away(self: SimulatedModel, requests: Any) -> AsyncIterator[tuple[int, Reply]]:
        if next(batches) == 3:
            raise ModelUnavailable("the server is gone", remedy="Start it again.")
        async for answered in create_many(self, requests):
            yield answered

    with monkeypatch.context() as patched:
        patched.setattr(SimulatedModel, "create_many", goes_away)
        said = lbt_sim("run", "small.yaml", "--out", "run", "--json", "-q")
    assert (said.status, said.result["status"]) == (3, "failed")
    for part in ("the server is gone", "Start it again.", "What was answered so far is kept", "Continue with"):
        assert part in said.err
    done = lbt_sim("resume", "run", "--json", "-q")
    assert done.status == 0
    assert done.result["calls"]["replayed"] > 0


def test_a_mistake_that_several_meet_at_once_leaves_no_error_behind(
    workspace: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _talks_twice(workspace, SECOND_TURN.replace(" and name == 'literal'", ""))
    assert lbt_sim("run", "small.yaml", "--out", "run", "-q").status == 3
    gc.collect()  # asyncio speaks of an error that nobody took when its task goes
    assert [record.message for record in caplog.records] == []
