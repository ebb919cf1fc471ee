"""M3 as a whole, on the simulated engine: its rounds, its presets, its counts of calls."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rooms import below, material, prepared, seated

from lbt_sim.events import Event
from lbt_sim.ledger import LedgerReader, StoredCall
from lbt_sim.methods.m3 import Start, m3
from lbt_sim.models.base import ChatRequest
from lbt_sim.runs import Run, create_run
from lbt_sim.scenario.schema import DiscussionSpec, LessonSpec, M3Spec

SIMULATED = {"models": {"sim": {"engine": "simulated"}}}
SMALL = {"rounds": 2, "exemplars": 4, "beam": 2, "exam": 6, "select": {"budget": 60}}
CHOOSE = {"operators": ["choose"], "chosen": 3, "menu": 4}


async def execute(folder: Path, **scenario: Any) -> tuple[dict[str, Any], list[StoredCall], list[Event]]:
    """Runs a scenario; its result, its calls, its events."""
    value = {**SIMULATED, "method": {**SMALL, "revise": CHOOSE}, **scenario}
    run = Run(create_run(prepared(folder, **value), folder / "run"))
    result = await run.execute()
    with LedgerReader(folder / "run") as ledger:
        return result, list(ledger.calls()), list(ledger.events())


def by_step(calls: list[StoredCall], round_: int) -> Counter[str]:
    return Counter(call.step.split("/")[0] for call in calls if call.round == round_)


async def test_a_run_reports_round_0_and_every_round(tmp_path: Path) -> None:
    result, _, events = await execute(tmp_path)
    assert [row["round"] for row in result["rounds"]] == [0, 1, 2]
    assert result["rounds"][0]["students"] == {}
    assert set(result["rounds"][1]["students"]) == {"ann", "bob"}
    chosen = {event.data["round"]: event.data["beam"] for event in events if event.kind == "selection"}
    assert all(result["rounds"][n]["material"] == chosen[n][0] for n in (1, 2))
    assert all(len(beam) == 2 for beam in chosen.values())


async def test_what_is_set_aside_for_scoring_anew_is_used_for_nothing_else(tmp_path: Path) -> None:
    method = {**SMALL, "revise": CHOOSE, "select": {"budget": 60, "rescore": 6}}
    result, calls, events = await execute(tmp_path, method=method)
    again = [row["train"]["rescored"] for row in result["rounds"][1:]]
    assert [one["n"] for one in again] == [6, 6]
    winner = result["rounds"][1]["material"]
    mine, others = (
        {
            c.item
            for c in calls
            if c.round == 1 and c.step.startswith("select/") and (c.step == f"select/{winner}") is own
        }
        for own in (True, False)
    )
    reserve = mine - others
    assert len(reserve) == 6
    losers = {c.item for c in calls if c.step.startswith("select/") and c.step.split("/")[1] != winner and c.round == 1}
    exams = {item for event in events if event.kind == "exam" for item in event.data["items"]}
    shown = {e["source"] for event in events if event.kind == "material" for e in event.data["exemplars"]}
    assert not reserve & (losers | exams | shown)


async def test_the_students_exam_is_reported_with_the_material_that_they_were_taught(tmp_path: Path) -> None:
    result, _, _ = await execute(tmp_path)
    rows = result["rounds"]
    assert rows[0]["students_material"] is None
    assert [row["students_material"] for row in rows[1:]] == [row["material"] for row in rows[:-1]]


async def test_no_rounds_report_the_initial_material(tmp_path: Path) -> None:
    result, calls, _ = await execute(tmp_path, method={**SMALL, "rounds": 0, "revise": CHOOSE})
    assert [row["round"] for row in result["rounds"]] == [0]
    assert {call.step for call in calls} == {"report"}
    assert len(calls) == 10


async def test_held_out_problems_are_asked_for_reporting_and_for_nothing_else(tmp_path: Path) -> None:
    revise = {"operators": ["rewrite", "choose"], "chosen": 2, "reflections": 2}
    result, calls, _ = await execute(tmp_path, method={**SMALL, "revise": revise})
    held_out = {problem.id for problem in prepared(below(tmp_path, "again"), **SIMULATED).task.held_out}
    assert {call.item for call in calls if call.step == "report"} == held_out
    assert not [call for call in calls if call.item in held_out and call.step != "report"]
    assert result["calls"]["made"] + result["calls"]["shared"] == len(calls)


async def test_no_candidate_is_scored_on_its_own_exemplars(tmp_path: Path) -> None:
    _, calls, events = await execute(tmp_path)
    shown = {e.data["id"]: {x["source"] for x in e.data["exemplars"]} for e in events if e.kind == "material"}
    scored = [call for call in calls if call.step.startswith("select/")]
    assert scored
    for call in scored:
        assert call.item not in shown[call.step.split("/")[1]]


async def test_the_beam_grows_and_each_of_it_is_taught(tmp_path: Path) -> None:
    _, _, events = await execute(tmp_path, method={**SMALL, "rounds": 3, "beam": 3, "revise": CHOOSE})
    taught = Counter((e.data["round"], e.data["student"]) for e in events if e.kind == "grades")
    assert [taught[round_, "ann"] for round_ in (1, 2, 3)] == [1, 3, 3]
    parents = {e.data["parent"] for e in events if e.kind == "candidate" and e.data["round"] == 3}
    assert len(parents) == 3


async def test_several_teachers_are_reported_one_by_one(tmp_path: Path) -> None:
    cast = {"teacher": [{"name": "one"}, {"name": "two", "persona": "guesser"}], "students": [{"name": "ann"}]}
    result, _, events = await execute(tmp_path, cast=cast, classroom="two-teachers")
    row = result["rounds"][-1]
    assert set(row["teachers"]) == {"one", "two"}
    assert row["teachers"]["one"] == row["teacher"]
    assert {event.data["by"] for event in events if event.kind == "candidate"} == {"one", "two"}


async def test_the_teacher_can_be_its_own_student(tmp_path: Path) -> None:
    result, calls, _ = await execute(tmp_path, cast={"students": "teacher"})
    assert set(result["rounds"][1]["students"]) == {"student"}
    assert {call.agent for call in calls if call.step.startswith("exam/")} == {"student"}


async def test_students_can_choose_the_material(tmp_path: Path) -> None:
    """They are taught anew for it, and the round's own lesson and exam stay as they were told."""
    method = {**SMALL, "revise": CHOOSE, "select": {"by": "students", "budget": 60, "block": 4}}
    lesson = {"questions": 1, "discussion": 1}
    cast = {"students": [{"name": "ann"}, {"name": "bob"}]}
    classroom = "seminar"
    result, calls, events = await execute(tmp_path, method=method, lesson=lesson, cast=cast, classroom=classroom)
    assert len(result["rounds"]) == 3
    assert {call.agent for call in calls if call.step.startswith("select/m")} == {"ann", "bob"}
    exams = [event for event in events if event.kind == "grades"]
    assert all(len(event.data["items"]) == 6 for event in exams)


async def test_one_seed_is_one_result_and_another_is_another(tmp_path: Path) -> None:
    one, _, _ = await execute(below(tmp_path, "a"), seed=1)
    again, _, _ = await execute(below(tmp_path, "b"), seed=1)
    other, _, _ = await execute(below(tmp_path, "c"), seed=2)
    assert one["rounds"] == again["rounds"]
    assert one["rounds"] != other["rounds"]


PUBLISHED = {
    "task": {"name": "reviews", "train": 500, "held_out": 200},
    "cast": {"students": [{"name": "ann", "persona": "literal"}, {"name": "bob", "persona": "sceptic"}]},
}


async def test_a_round_of_the_published_codes_size_is_2581_calls(tmp_path: Path) -> None:
    """2 × 200 test answers, 2 students × 64, 4 reflections, 4 rewrites, 5 candidates × 409 (docs: method)."""
    method = {"preset": "published-code", "rounds": 1}
    result, calls, events = await execute(tmp_path, method=method, **PUBLISHED)
    new = [e for e in events if e.kind == "candidate" and e.data["status"] == "new"]
    repairs = [call for call in calls if call.purpose == "repair"]
    assert (len(new), repairs) == (4, [])
    assert by_step(calls, 0) == {"report": 200}
    assert by_step(calls, 1) == {"exam": 128, "reflect": 4, "rewrite": 4, "select": 2045, "report": 200}
    assert len(calls) == 2581
    assert result["calls"]["made"] + result["calls"]["shared"] == 2581


@pytest.mark.parametrize(
    ("preset", "reflections", "metric", "start"),
    [("paper", 8, "f1", "written"), ("published-code", 4, "accuracy", "sampled")],
)
async def test_presets_run_as_they_are_named(
    tmp_path: Path, preset: str, reflections: int, metric: str, start: str
) -> None:
    method = {"preset": preset, "rounds": 2, "select": {"budget": 200}}
    result, calls, events = await execute(tmp_path, method=method)
    assert len(result["rounds"]) == 3
    assert by_step(calls, 1)["reflect"] == reflections
    unseen = 40 if start == "written" else 40 - 8  # 64 are asked for; what stands in the exemplars is not put
    assert by_step(calls, 1)["exam"] == 2 * unseen
    selection = next(event.data for event in events if event.kind == "selection")
    assert (selection["metric"], selection["strategy"]) == (metric, "uniform")
    assert len({candidate["n"] for candidate in selection["candidates"]}) == 1
    first = next(event.data for event in events if event.kind == "material")
    assert first["operator"] == start


async def test_a_fork_begins_after_its_start(tmp_path: Path) -> None:
    """`Start` is where a fork goes on: no round 0, no earlier round."""

    def reply(request: ChatRequest) -> str:
        return "1" if request.purpose == "choose" else "yes"

    revise = {"operators": ["choose"], "chosen": 1}
    spec = M3Spec(rounds=3, exemplars=4, beam=1, exam=4, revise=revise, select={"budget": 8})
    async with seated(tmp_path, reply) as here:
        lesson = LessonSpec(discussion=DiscussionSpec())
        rows = [row async for row in m3(here.room, lesson, spec, here.ctx, Start(1, (material(),)))]
        assert [row["round"] for row in rows] == [2, 3]
        assert {request.path.round for request in here.model.requests} == {2, 3}
        assert json.dumps(rows)


@pytest.mark.parametrize("revise", ["none", []])
async def test_without_revision_the_class_is_examined_and_the_material_stays(tmp_path: Path, revise: Any) -> None:
    result, calls, events = await execute(tmp_path, method={**SMALL, "revise": revise})
    rows = result["rounds"]
    assert [row["round"] for row in rows] == [0, 1, 2]
    assert len({row["material"] for row in rows}) == 1
    assert rows[1]["teacher"] == rows[2]["teacher"] == rows[0]["teacher"]
    assert {call.step.split("/")[0] for call in calls} == {"exam", "report"}
    for round_ in (1, 2):
        assert by_step(calls, round_) == {"exam": 12, "report": 10}
    assert [e.data["answers"] for e in events if e.kind == "selection"] == [0, 0]
    assert not [event for event in events if event.kind == "candidate"]
    exams = [tuple(event.data["items"]) for event in events if event.kind == "exam"]
    assert exams[0] != exams[1]
    assert rows[1]["train"] == {"n": 0, "score": None, "rescored": None}


async def test_without_revision_a_budget_that_must_be_spent_is_spent_for_nothing(tmp_path: Path) -> None:
    method = {**SMALL, "revise": "none", "select": {"budget": 11, "spend": "all"}}
    result, calls, events = await execute(tmp_path, method=method)
    assert [by_step(calls, round_)["select"] for round_ in (1, 2)] == [11, 11]
    assert [e.data["answers"] for e in events if e.kind == "selection"] == [11, 11]
    assert len({row["material"] for row in result["rounds"]}) == 1
    assert result["rounds"][2]["train"] == {"n": 0, "score": None, "rescored": None}


async def test_a_lecture_can_stay_as_it_is(tmp_path: Path) -> None:
    result, calls, _ = await execute(tmp_path, method={**SMALL, "material": "lecture", "revise": "none"})
    assert len({row["material"] for row in result["rounds"]}) == 1
    assert {call.purpose for call in calls} == {"write", "answer"}


async def test_a_fork_without_revision_keeps_its_beam_in_order(tmp_path: Path) -> None:
    spec = M3Spec.model_validate({**SMALL, "revise": "none"})
    beam = (material(prefix="x"), material(prefix="y"))
    async with seated(tmp_path, lambda request: "yes") as here:
        rows = [row async for row in m3(here.room, LessonSpec(), spec, here.ctx, Start(0, beam))]
        assert [row["material"] for row in rows] == [beam[0].id] * 2
        assert [e.data["beam"] for e in here.of_kind("selection")] == [[one.id for one in beam]] * 2
        assert not [request for request in here.model.requests if request.path.step.startswith("select")]


CLONES = [{"name": name, "persona": "guesser", "traits": {"mind": "one"}} for name in ("ann", "bob", "cyd")]


async def test_seats_of_one_mind_are_exact_copies_and_pay_once(tmp_path: Path) -> None:
    _, calls, events = await execute(below(tmp_path, "clones"), cast={"students": CLONES})
    assert _answers(events)
    assert all(len({*given}) == 1 for given in _answers(events))
    exams = [call for call in calls if call.step.startswith("exam/")]
    assert sum(not call.shared for call in exams) * 3 <= len(exams)
    seats = next(event.data["seats"] for event in events if event.kind == "run")
    assert [seat.get("mind") for seat in seats] == [None, "one", "one", "one", None]
    alone = [{key: value for key, value in seat.items() if key != "traits"} for seat in CLONES]
    _, _, events = await execute(below(tmp_path, "alone"), cast={"students": alone})
    assert any(len({*given}) > 1 for given in _answers(events)), "without it each has slips and words of its own"


def _answers(events: list[Event]) -> list[list[tuple[str, ...]]]:
    """For each exam the students' answers."""
    found: dict[tuple[int, str], list[tuple[str, ...]]] = {}
    for event in events:
        if event.kind == "grades":
            found.setdefault((event.data["round"], event.data["material"]), []).append(tuple(event.data["answers"]))
    return list(found.values())


async def test_who_knows_less_is_told_of_in_the_run(tmp_path: Path) -> None:
    cast = {"students": [{"name": "ann"}, {"name": "bob", "knowledge": {"share": 0.5, "without": ["irony"]}}]}
    _, _, events = await execute(tmp_path, cast=cast)
    seats = {seat["name"]: seat for event in events if event.kind == "run" for seat in event.data["seats"]}
    assert "knowledge" not in seats["ann"]
    assert seats["bob"]["knowledge"] == {"share": 0.5, "without": ["irony"]}
    assert {seat["engine"] for seat in seats.values()} == {"simulated"}


async def test_exams_and_reports_say_what_kind_each_problem_is(tmp_path: Path) -> None:
    _, _, events = await execute(tmp_path)
    task = prepared(below(tmp_path, "again"), **SIMULATED).task
    families = {problem.id: problem.family for problem in (*task.train, *task.held_out)}
    told = [event.data for event in events if event.kind in ("exam", "held_out")]
    assert len(told) == 3
    assert all(data["families"] == [families[id_] for id_ in data["items"]] for data in told)
    assert {"negation", "plain"} <= {family for data in told for family in data["families"]}
