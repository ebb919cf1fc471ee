"""Revision: what becomes of a teacher's replies, and what the teacher is told before it writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rooms import Seated, below, material, prompt, seated, small_task, star

from lbt_sim.classroom import Classroom
from lbt_sim.feedback import Failure, Feedback
from lbt_sim.models.base import ChatRequest, Reply
from lbt_sim.models.recorded import Limits
from lbt_sim.revision import Candidate, distinct, first_beam, revise
from lbt_sim.roles.values import Material
from lbt_sim.scenario.schema import M3Spec

NEW = [{"question": f"a new one {word}", "answer": "yes"} for word in ("apple", "river", "stone", "cloud")]
GOOD = json.dumps(NEW)
MALFORMED = "I would change a few of them."
LEAK = json.dumps([*NEW[:3], {"question": "hquestion1001x of1001x kind1001x", "answer": "no"}])


def spec(operator: str = "rewrite", **values: Any) -> M3Spec:
    method = {key: values.pop(key) for key in ("material", "start") if key in values}
    return M3Spec(exemplars=4, **method, revise={"operators": [operator], **values})


def told(here: Seated, failures: int = 6, parent: Material | None = None) -> Feedback:
    """Feedback in which the first problems went wrong: the first of them for both students."""
    wrong = here.room.task.train[:failures]
    both, one = (("ann", "no"), ("bob", "no")), (("ann", "no"),)
    given = tuple(Failure(problem, one if n else both) for n, problem in enumerate(wrong))
    return Feedback(parent or material(), given, "the examiner's report")


async def revised(
    folder: Path, handler: Callable[[ChatRequest], Any], method: M3Spec, classroom: Classroom | None = None, **more: Any
) -> tuple[list[Candidate], list[ChatRequest]]:
    failures, parent = more.pop("failures", 6), more.pop("parent", None)
    async with seated(folder, handler, classroom=classroom, limits=Limits(failed=1.0), **more) as here:
        candidates = await revise(here.room, told(here, failures, parent), method, 2, here.ctx)
        return candidates, here.model.requests


def writing(
    rewrite: Any, repair: Any = MALFORMED, reflection: Any = "They never saw it."
) -> Callable[[ChatRequest], Any]:
    return lambda request: {"reflect": reflection, "rewrite": rewrite, "repair": repair}[request.purpose]


# --- rewrite ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply", [GOOD, f"```json\n{GOOD}\n```", "\n".join(f"Q: {row['question']}\nA: {row['answer']}" for row in NEW)]
)
async def test_a_rewritten_set_is_a_child_of_the_material(tmp_path: Path, reply: str) -> None:
    candidates, asked = await revised(tmp_path, writing(reply), spec(reflections=1))
    (candidate,) = candidates
    assert candidate.material is not None
    assert [e.question for e in candidate.material.exemplars] == [row["question"] for row in NEW]
    assert candidate.material.parents == (material().id,)
    assert (candidate.material.operator, candidate.material.by, candidate.status) == ("rewrite", "teacher", "new")
    assert [request.purpose for request in asked] == ["reflect", "rewrite"]
    assert "They never saw it." in asked[1].last


async def test_a_malformed_set_is_repaired_once(tmp_path: Path) -> None:
    candidates, asked = await revised(tmp_path, writing(MALFORMED, GOOD), spec(reflections=1))
    assert candidates[0].status == "new"
    repair = asked[-1]
    assert repair.purpose == "repair"
    assert MALFORMED in repair.last
    assert "no exemplars found" in repair.last
    assert "4 examples" in repair.last


async def test_what_cannot_be_repaired_is_invalid_and_counted(tmp_path: Path) -> None:
    def reply(request: ChatRequest) -> str:
        return f"{MALFORMED} {request.path}"  # no two alike: repairs are greedy, and equal ones would be one call

    candidates, asked = await revised(tmp_path, reply, spec(reflections=3))
    assert [candidate.status for candidate in candidates] == ["invalid"] * 3
    assert all("no exemplars found" in candidate.why for candidate in candidates)
    assert len([request for request in asked if request.purpose == "repair"]) == 3


async def test_a_held_out_problem_among_the_exemplars_is_refused_and_counted(tmp_path: Path) -> None:
    candidates, asked = await revised(tmp_path, writing(LEAK, GOOD), spec(reflections=2))
    assert [(c.status, c.why) for c in candidates] == [("leak", "it contains the held-out problem h1001")] * 2
    assert not [request for request in asked if request.purpose == "repair"], "a leak is no slip of form"


async def test_a_held_out_problem_in_a_lecture_is_refused(tmp_path: Path) -> None:
    lecture = material(lecture="Rules.")
    method = spec(reflections=1, material="lecture")
    handler = writing("Mind this: hquestion1001x of1001x kind1001x is no.")
    candidates, _ = await revised(tmp_path, handler, method, parent=lecture)
    assert candidates[0].status == "leak"


async def test_a_lecture_is_rewritten_and_an_empty_one_repaired(tmp_path: Path) -> None:
    lecture = material(lecture="Old rules.")
    candidates, asked = await revised(
        tmp_path, writing("  ", "New rules."), spec(reflections=1, material="lecture"), parent=lecture
    )
    assert candidates[0].material is not None
    assert candidates[0].material.lecture == "New rules."
    assert candidates[0].material.parents == (lecture.id,)
    assert all("Old rules." in request.last for request in asked if request.purpose != "repair")


async def test_calls_that_gave_up_are_failed_and_not_invalid(tmp_path: Path) -> None:
    gone = Reply("", "failed", error="no server")
    for number, handler in enumerate((writing(gone), writing(GOOD, reflection=gone), writing(MALFORMED, gone))):
        candidates, _ = await revised(below(tmp_path, str(number)), handler, spec(reflections=2))
        assert [(c.status, c.why) for c in candidates] == [("failed", "no server")] * 2


async def test_a_set_that_shrank_may_grow_again(tmp_path: Path) -> None:
    candidates, asked = await revised(tmp_path, writing(GOOD), spec(reflections=1), parent=material(2))
    assert "set of 4 examples" in asked[-1].last
    assert candidates[0].material is not None
    assert len(candidates[0].material.exemplars) == 4


async def test_each_reflection_gives_its_rewrites_and_sees_its_own_sample(tmp_path: Path) -> None:
    _, asked = await revised(tmp_path, writing(GOOD), spec(reflections=3, rewrites=2, failures=2))
    reflections = [request for request in asked if request.purpose == "reflect"]
    assert len(reflections) == 3
    assert len([request for request in asked if request.purpose == "rewrite"]) == 6
    shown = [tuple(n for n in range(6) if f"tquestion{n}x" in request.last) for request in reflections]
    assert all(len(sample) == 2 for sample in shown)
    assert len(set(shown)) > 1


@pytest.mark.parametrize("mix", [1, 2, 3, 9])
async def test_reflections_are_mixed_into_one_rewrite(tmp_path: Path, mix: int) -> None:
    def reply(request: ChatRequest) -> str:
        return f"thought {request.path.sample}." if request.purpose == "reflect" else GOOD

    _, asked = await revised(tmp_path, reply, spec(reflections=3, mix=mix))
    for request in asked:
        if request.purpose == "rewrite":
            read = [n for n in range(3) if f"thought {n}." in request.last]
            assert sorted((request.path.sample + step) % 3 for step in range(min(mix, 3))) == read


async def test_the_likelier_failure_is_the_one_of_more_students(tmp_path: Path) -> None:
    method = spec(reflections=60, failures=1)
    _, asked = await revised(tmp_path, writing(GOOD), method, failures=4)
    first = sum("tquestion0x" in request.last for request in asked if request.purpose == "reflect")
    assert first > 60 / 4, "it stands twice in a pool of five"


async def test_several_teachers_take_turns(tmp_path: Path) -> None:
    two = Classroom.from_edges(
        [("one", "teacher"), ("two", "teacher"), ("ann", "student")],
        [("one", "ann", "teaches"), ("two", "ann", "teaches")],
    )
    candidates, asked = await revised(tmp_path, writing(GOOD), spec(reflections=4), two)
    assert [candidate.by for candidate in candidates] == ["one", "two", "one", "two"]
    assert [r.path.agent for r in asked if r.purpose == "reflect"] == ["one", "two", "one", "two"]
    folder = below(tmp_path, "choose")
    candidates, _ = await revised(folder, lambda r: "1", spec("choose", chosen=3), two)
    assert [candidate.by for candidate in candidates] == ["one", "two", "one"]


async def test_keep_caps_usable_candidates_and_hides_no_broken_one(tmp_path: Path) -> None:
    def reply(request: ChatRequest) -> str:
        if request.purpose != "rewrite" or request.path.sample % 3:
            return GOOD.replace("apple", f"apple {request.path}")
        return MALFORMED

    def broken(request: ChatRequest) -> str:
        return MALFORMED if request.purpose == "repair" else reply(request)

    candidates, _ = await revised(tmp_path, broken, spec(reflections=9, keep=2))
    assert sorted(candidate.status for candidate in candidates) == ["invalid"] * 3 + ["new"] * 2
    numbers = [candidate.number for candidate in candidates]
    assert numbers == sorted(numbers)


# --- feedback none ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("operator", ["rewrite", "choose"])
async def test_the_control_makes_as_many_calls_and_tells_of_no_failure(tmp_path: Path, operator: str) -> None:
    def reply(request: ChatRequest) -> str:
        return {"choose": "1", "reflect": "A thought."}.get(request.purpose, GOOD)

    _, with_feedback = await revised(below(tmp_path, "a"), reply, spec(operator, failures=3, menu=4))
    _, control = await revised(below(tmp_path, "b"), reply, spec(operator, failures=3, menu=4, feedback="none"))
    assert [r.purpose for r in with_feedback] == [r.purpose for r in control]
    assert any("went wrong" in r.last or "failed on" in r.last for r in with_feedback)
    for request in control:
        assert "the examiner's report" not in prompt(request)
        assert "went wrong" not in request.last
        assert "failed on" not in request.last
        assert "answered:" not in request.last


async def test_the_controls_problems_are_drawn_from_all_of_train(tmp_path: Path) -> None:
    _, asked = await revised(tmp_path, writing(GOOD), spec(reflections=40, feedback="none"), failures=2)
    shown = {n for n in range(24) for r in asked if r.purpose == "reflect" and f"tquestion{n}x" in r.last}
    assert len(shown) > 20


# --- choose -----------------------------------------------------------------------------------------------


async def test_choosing_exchanges_a_few_exemplars_for_problems_of_the_menu(tmp_path: Path) -> None:
    candidates, asked = await revised(tmp_path, lambda r: "2", spec("choose", chosen=6, swaps=3, menu=5))
    old = {e.question for e in material().exemplars}
    for candidate in candidates:
        assert candidate.material is not None
        new = [e for e in candidate.material.exemplars if e.question not in old]
        assert 1 <= len(new) <= 3
        assert len({e.question for e in candidate.material.exemplars}) == 4
        assert all(e.source and e.source.startswith("t") for e in new)
    assert all(request.choices == ("1", "2", "3", "4", "5") for request in asked)


async def test_the_menu_is_led_by_the_failures(tmp_path: Path) -> None:
    _, asked = await revised(tmp_path, lambda r: "1", spec("choose", chosen=8, swaps=1, menu=3), failures=6)
    for request in asked:
        menu = request.last[request.last.index("Which of these") :]
        assert sum(f"tquestion{n}x " in menu for n in range(6)) == 3
    _, asked = await revised(
        below(tmp_path, "few"), lambda r: "1", spec("choose", chosen=4, swaps=1, menu=5), failures=2
    )
    for request in asked:
        menu = request.last[request.last.index("Which of these") :]
        assert menu.count("tquestion") == 5
        assert all(f"tquestion{n}x " in menu for n in (0, 1))


@pytest.mark.parametrize("reply", ["0", "7", "-1", "", "two", "1.5", "²", "9" * 6000, "1 2", "{{ 1 }}"])
async def test_a_choice_that_is_not_on_the_menu_is_invalid(tmp_path: Path, reply: str) -> None:
    candidates, _ = await revised(tmp_path, lambda r: reply, spec("choose", chosen=2, swaps=1, menu=6))
    assert [candidate.status for candidate in candidates] == ["invalid"] * 2
    assert all("of 1 to 6" in candidate.why for candidate in candidates)


async def test_a_choice_that_gave_up_is_failed(tmp_path: Path) -> None:
    candidates, _ = await revised(tmp_path, lambda r: Reply("", "failed", error="gone"), spec("choose", chosen=2))
    assert [(c.status, c.why) for c in candidates] == [("failed", "gone")] * 2


async def test_nothing_on_the_menu_leaks_a_held_out_problem(tmp_path: Path) -> None:
    task = small_task()
    leaky = replace(task.train[1], question=task.held_out[0].question + "!")
    task = replace(task, train=(task.train[0], leaky, *task.train[2:]))
    _, asked = await revised(tmp_path, lambda r: "1", spec("choose", chosen=12, swaps=1, menu=9), task=task)
    assert asked
    for request in asked:
        assert "hquestion" not in request.last[request.last.index("Which of these") :]


# --- the first material and the list of candidates --------------------------------------------------------


async def test_the_first_exemplars_are_sampled_from_train_by_seed(tmp_path: Path) -> None:
    async def first(name: str, seed: int) -> Material:
        async with seated(below(tmp_path, name), lambda r: "", seed=seed) as here:
            (beam,) = await first_beam(here.room, spec(), here.ctx)
            assert not here.model.requests
            return beam

    one, again, other = await first("a", 1), await first("b", 1), await first("c", 2)
    assert one == again
    assert one != other
    assert len(one.exemplars) == 4
    assert all(e.source and e.source.startswith("t") for e in one.exemplars)


@pytest.mark.parametrize("reply", [MALFORMED, LEAK, Reply("", "failed", error="gone")])
async def test_a_first_material_that_cannot_be_used_is_sampled_and_said(tmp_path: Path, reply: Any) -> None:
    async with seated(tmp_path, lambda r: reply, limits=Limits(failed=1.0)) as here:
        (beam,) = await first_beam(here.room, spec(start="written"), here.ctx)
        assert beam.operator == "sampled"
        assert len(here.of_kind("notice")) == 1
        assert [event.data["id"] for event in here.of_kind("material")] == [beam.id]


async def test_the_teacher_writes_the_first_material_from_the_task_alone(tmp_path: Path) -> None:
    async with seated(tmp_path, lambda r: GOOD, classroom=star("ann")) as here:
        (beam,) = await first_beam(here.room, spec(start="written"), here.ctx)
        assert beam.operator == "written"
        assert not beam.parents
        assert "question" not in prompt(here.model.requests[0]).replace('"question"', "")


async def test_duplicates_are_told_and_kept_once(tmp_path: Path) -> None:
    old, new = material(2), material(3)
    made = [
        Candidate("rewrite", "teacher", old.id, 0, new),
        Candidate("rewrite", "teacher", old.id, 1, replace(new, parents=("m0",))),
        Candidate("choose", "teacher", old.id, 0, old),
        Candidate("rewrite", "teacher", old.id, 2, None, "invalid", "because"),
    ]
    async with seated(tmp_path, lambda r: "") as here:
        assert distinct([old], made, 3, here.ctx) == [old, new]
        told_ = {event.path.split("/", 2)[2]: event.data["status"] for event in here.of_kind("candidate")}
        assert told_ == {
            f"{old.id}/rewrite/0": "new",
            f"{old.id}/rewrite/1": "duplicate",
            f"{old.id}/choose/0": "duplicate",
            f"{old.id}/rewrite/2": "invalid",
        }
        assert len(here.of_kind("material")) == 1
