"""Another run's failures: read once, kept in the run's folder, told in place of the own class's."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import SMALL, Said, lasting, lbt_sim
from rooms import below, prompt, seated, small_task

from lbt_sim.donor import DONOR_FILE, Donor, load_donor, read_donor, suited
from lbt_sim.errors import ScenarioError
from lbt_sim.events import Event
from lbt_sim.feedback import Failure, OtherClass
from lbt_sim.ledger import LedgerReader
from lbt_sim.methods.m3 import m3
from lbt_sim.models.base import ChatRequest
from lbt_sim.scenario.schema import LessonSpec, M3Spec, ReviseSpec
from lbt_sim.tasks.base import Problem, Task

SCENARIO = yaml.safe_load(SMALL)
SHUFFLED = ("--set", "method.revise.feedback=shuffled", "--set", "method.revise.donor=other")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two rounds, to be read only: the other run."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "small.yaml").write_text(SMALL, encoding="utf-8")
    said = lbt_sim(
        "run", folder / "small.yaml", "--out", folder / "other", "-q", "--seed", 5, "--set", "method.rounds=2"
    )
    assert said.status == 0, said.err
    return folder / "other"


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(SMALL, encoding="utf-8")
    shutil.copytree(finished, tmp_path / "other")
    return tmp_path


def run(*options: object, out: str = "run") -> Said:
    return lbt_sim("run", "small.yaml", "--out", out, "--json", "-q", *options)


def events(folder: str, kind: str) -> list[Event]:
    with LedgerReader(Path(folder)) as ledger:
        return list(ledger.events(kind))


# --- reading --------------------------------------------------------------------------------------------------


def test_what_is_read_of_a_run_is_what_its_classes_failed(workspace: Path) -> None:
    donor = read_donor("other", ("positive", "negative"))
    feedback = {(e.data["round"], e.data["material"]): e.data for e in events("other", "feedback")}
    exams = {e.data["round"]: e.data for e in events("other", "exam")}
    grades = {(e.data["round"], e.data["material"], e.data["student"]): e.data for e in events("other", "grades")}
    beams = {e.data["round"]: e.data["beam"] for e in events("other", "selection")}
    assert [len(classes) for classes in donor.rounds] == [1, 2]
    assert [one.material for one in donor.rounds[1]] == beams[1], "best first"
    for one in (one for classes in donor.rounds for one in classes):
        told = feedback[one.round, one.material]
        assert (one.report, [f.problem.id for f in one.failures]) == (told["text"], told["failures"])
        exam = exams[one.round]
        for failure in one.failures:
            place = exam["items"].index(failure.problem.id)
            assert failure.problem.question == exam["questions"][place]
            assert failure.problem.answer == exam["answers"][place]
            for who, said in failure.given:
                sat = grades[one.round, one.material, who]
                assert (sat["outcomes"][place], sat["answers"][place]) == ("w", said)
    assert any(one.failures for classes in donor.rounds for one in classes)


def test_a_donor_with_less_is_gone_through_again(workspace: Path) -> None:
    donor = read_donor("other", ("positive", "negative"))
    (first,), (best, second) = donor.rounds
    assert [donor.at(1, place) for place in (0, 1)] == [first, first]
    assert [donor.at(2, place) for place in (0, 1, 2)] == [best, second, best]
    assert [donor.at(round_, 0) for round_ in (3, 4)] == [first, best]


def test_what_a_folder_keeps_is_what_was_read(workspace: Path) -> None:
    donor = read_donor("other", ("positive", "negative"))
    assert load_donor(donor.as_text()) == donor


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "Expecting value"),
        ("[]", "it is not what lbt-sim writes"),
        ("{}", "it is not what lbt-sim writes"),
        ('{"run": "x", "rounds": []}', "it holds nobody's failures"),
        ('{"run": "x", "rounds": [[]]}', "it holds nobody's failures"),
    ],
)
def test_what_was_not_kept_by_a_run_is_no_donor(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        load_donor(text)


def test_a_run_that_gives_no_failures_is_refused_with_the_key(workspace: Path) -> None:
    assert run("--set", "method.rounds=0", out="early").status == 0
    (workspace / "empty").mkdir()
    for folder, why in (("early", "has not finished its round 1"), ("empty", "no ledger"), ("nowhere", "no ledger")):
        said = run("--set", "method.revise.feedback=shuffled", "--set", f"method.revise.donor={folder}")
        assert said.status == 2
        assert why in " ".join(said.err.split())
        assert f"--set method.revise.donor={folder}" in said.err
        assert not (workspace / "run").exists()


def test_a_run_of_another_task_is_refused() -> None:
    with pytest.raises(ScenarioError, match="other labels") as caught:
        read_donor("other", ("yes", "no"))
    assert caught.value.valid == ("yes", "no")


@pytest.mark.parametrize(
    ("sets", "key"),
    [
        ({"feedback": "shuffled"}, "method.revise.donor"),
        ({"donor": "other"}, "method.revise.donor"),
        ({"feedback": "none", "donor": "other"}, "method.revise.donor"),
        ({"operators": [], "feedback": "shuffled", "donor": "other"}, "method.revise.feedback"),
        ({"operators": [], "feedback": "none"}, "method.revise.feedback"),
    ],
)
def test_what_would_have_no_effect_is_refused(workspace: Path, sets: dict[str, Any], key: str) -> None:
    value = {**SCENARIO, "method": {**SCENARIO["method"], "revise": {"operators": ["choose"], **sets}}}
    (workspace / "small.yaml").write_text(yaml.safe_dump(value), encoding="utf-8")
    said = run()
    assert said.status == 2
    assert key in said.err


# --- a run ------------------------------------------------------------------------------------------------------


def purposes(folder: str) -> Counter[tuple[int, str, str]]:
    with LedgerReader(Path(folder)) as ledger:
        return Counter((call.round, call.step.split("/")[0], call.purpose) for call in ledger.calls())


def test_a_shuffled_run_asks_for_as_much_and_is_told_of_the_others(workspace: Path) -> None:
    assert run(out="own").status == 0
    assert run(*SHUFFLED, out="run").status == 0
    assert purposes("run")[1, "exam", "answer"] == purposes("own")[1, "exam", "answer"] > 0
    first = {key: count for key, count in purposes("own").items() if key[0] == 1 and key[1] in ("exam", "choose")}
    assert first == {
        key: count for key, count in purposes("run").items() if key[0] == 1 and key[1] in ("exam", "choose")
    }
    own, told = ([e.data for e in events(folder, "feedback") if e.data["round"] == 1] for folder in ("own", "run"))
    assert [{k: v for k, v in data.items() if k != "told"} for data in told] == own
    theirs = {e.data["round"]: e.data for e in events("other", "feedback") if e.data["round"] == 1}[1]
    assert told[0]["told"]["run"] == "other"
    assert (told[0]["told"]["round"], told[0]["told"]["material"]) == (1, theirs["material"])
    assert told[0]["told"]["text"] == theirs["text"]
    assert not any("told" in data for data in own)


def test_show_says_what_the_teacher_was_told_instead(workspace: Path) -> None:
    assert run(*SHUFFLED).status == 0
    theirs = next(e.data for e in events("other", "feedback") if e.data["round"] == 1)
    told = next(e.data["told"]["failures"] for e in events("run", "feedback") if e.data["round"] == 1)
    shown = " ".join(lbt_sim("show", "run", "--round", 1).out.split())
    what = f"(other, round 1, {theirs['material']}: {len(told)} failures):"
    assert f"The teacher was told of another class instead {what} {' '.join(theirs['text'].split())[:60]}" in shown


def test_over_all_rounds_as_much_is_asked_for_each_purpose(workspace: Path) -> None:
    revise = "{operators: [rewrite], reflections: 3, feedback: %s, donor: %s}"
    for out, feedback, donor in (("own", "failures", "null"), ("run", "shuffled", "other")):
        said = run("--set", f"method.revise={revise % (feedback, donor)}", "--set", "method.select.rescore=0", out=out)
        assert said.status == 0, said.err
    own, told = (
        {key: count for key, count in purposes(folder).items() if key[1] in ("exam", "reflect", "rewrite", "repair")}
        for folder in ("own", "run")
    )
    assert own == told
    assert {purpose for _, _, purpose in own} == {"answer", "reflect", "rewrite"}
    assert {round_ for round_, _, _ in own} == {1, 2, 3}


def test_a_fork_may_be_told_of_its_own_again(workspace: Path) -> None:
    assert run(*SHUFFLED).status == 0
    back = ("--set", "method.revise.feedback=failures")
    refused = lbt_sim("fork", "run", "--from-round", 2, "--out", "forked", "-q", *back)
    assert refused.status == 2
    assert "method.revise.donor=null" in refused.err
    said = lbt_sim(
        "fork", "run", "--from-round", 2, "--out", "forked", "-q", *back, "--set", "method.revise.donor=null"
    )
    assert said.status == 0, said.err
    assert not (workspace / "forked" / DONOR_FILE).exists()
    told = {event.data["round"]: "told" in event.data for event in events("forked", "feedback")}
    assert told == {1: True, 2: False, 3: False}


def test_a_run_goes_on_is_replayed_and_forked_without_the_donor(workspace: Path) -> None:
    whole = run(*SHUFFLED, out="whole")
    stopped = run(*SHUFFLED, "--set", "budget.calls=100")
    assert (whole.status, stopped.status) == (0, 3)
    shutil.rmtree(workspace / "other")
    resumed = lbt_sim("resume", "run", "--json", "-q", "--set", "budget.calls=5000")
    assert resumed.status == 0, resumed.err
    assert lasting(resumed.result) == lasting(whole.result)
    assert lasting(lbt_sim("replay", "whole", "--json", "-q").result) == lasting(whole.result)
    forked = lbt_sim("fork", "whole", "--from-round", 2, "--out", "forked", "--json", "-q")
    assert forked.status == 0, forked.err
    assert forked.result["rounds"] == whole.result["rounds"]
    assert (workspace / "forked" / DONOR_FILE).read_text() == (workspace / "whole" / DONOR_FILE).read_text()
    other = lbt_sim("fork", "whole", "--from-round", 2, "--set", "method.revise.donor=elsewhere", "-q")
    assert other.status == 2
    assert "elsewhere" in other.err


def test_the_manifest_names_what_was_kept_and_a_change_of_it_is_refused(workspace: Path) -> None:
    assert run(*SHUFFLED).status == 0
    manifest = json.loads((workspace / "run" / "manifest.json").read_text(encoding="utf-8"))
    file = workspace / "run" / DONOR_FILE
    kept = load_donor(file.read_text(encoding="utf-8"))
    assert manifest["donor"] == {"run": "other", "sha256": kept.digest}
    file.write_text(file.read_text(encoding="utf-8").replace("positive", "negative", 1), encoding="utf-8")
    said = lbt_sim("replay", "run", "-q")
    assert said.status == 2
    assert "not the one that the run was started with" in said.err
    file.unlink()
    assert lbt_sim("replay", "run", "-q").status == 2


# --- what may be told in a room -----------------------------------------------------------------------------------

TASK = small_task(train=24)
HELD = TASK.held_out[3]


def other(*problems: Problem, report: str = "Exam of 9 problems.", given: str = "no") -> Donor:
    failures = tuple(Failure(problem, (("zoe", given),)) for problem in problems)
    return Donor("elsewhere", ((OtherClass("elsewhere", 1, "m1", failures, report),),))


async def fitted(folder: Path, donor: Donor, task: Task = TASK, reserve: tuple[Problem, ...] = ()) -> OtherClass:
    async with seated(folder, lambda request: "yes", task=task) as here:
        found = suited(donor, ReviseSpec(feedback="shuffled"), here.room, reserve)
        assert found is not None
        return found.at(1, 0)


async def test_a_problem_that_is_held_out_here_is_never_told(tmp_path: Path) -> None:
    nearly = Problem("t2", HELD.question.upper() + "!", HELD.answer)
    said = f"Exam of 9 problems.\n- {HELD.question}: 1\n- family0: 2"
    told = await fitted(
        tmp_path, other(Problem("t1", "something else", "yes"), replace(HELD, id="t9"), nearly, report=said)
    )
    assert [failure.problem.question for failure in told.failures] == ["something else"]
    assert told.report == "Exam of 9 problems.\n- family0: 2"


async def test_a_short_held_out_problem_is_not_told_in_the_report_either(tmp_path: Path) -> None:
    task = replace(TASK, held_out=(Problem("h1", "2 + 2?", "yes"), Problem("h2", "3 + 3?", "no")))
    told = await fitted(tmp_path, other(Problem("t1", "2 + 2?", "yes"), report="Wrong:\n- 2 + 2? -> yes\nSo."), task)
    assert (told.failures, told.report) == ((), "Wrong:\nSo.")


async def test_an_open_answer_does_not_tell_a_held_out_problem(tmp_path: Path) -> None:
    task = replace(TASK, labels=(), positive=None, grader="exact")
    problems = (Problem("t1", "one", f"as in {HELD.question}"), Problem("t2", "two", "right"))
    told = await fitted(tmp_path, other(*problems, given=f"I think of {HELD.question}"), task)
    assert [(f.problem.question, f.given) for f in told.failures] == [("two", (("zoe", None),))]


async def test_no_control_is_silently_none(tmp_path: Path) -> None:
    async with seated(tmp_path, lambda request: "yes", task=TASK) as here:
        with pytest.raises(ValueError, match="needs a donor"):
            suited(None, ReviseSpec(feedback="shuffled"), here.room, ())
        assert suited(other(TASK.train[0]), ReviseSpec(), here.room, ()) is None


async def test_what_is_set_aside_is_not_told(tmp_path: Path) -> None:
    told = await fitted(tmp_path, other(*TASK.train[:3]), reserve=(TASK.train[1],))
    assert [failure.problem for failure in told.failures] == [TASK.train[0], TASK.train[2]]


async def test_as_many_failures_are_told_as_there_were_while_there_are_others(tmp_path: Path) -> None:
    one, two, three, four = (Failure(problem, (("zoe", "no"),)) for problem in TASK.train[:4])
    rounds = tuple(
        (OtherClass("elsewhere", number, "m1", failures, ""),)
        for number, failures in enumerate([(one, two, three), (one, two, four), (two,)], 1)
    )
    async with seated(tmp_path, lambda request: "yes", task=TASK) as here:
        found = suited(Donor("elsewhere", rounds), ReviseSpec(feedback="shuffled"), here.room, TASK.train[1:2])
    assert found is not None
    told = [[failure.problem.id for failure in found.at(round_, 0).failures] for round_ in (1, 2, 3)]
    assert told == [["t0", "t2", "t3"], ["t0", "t3", "t2"], ["t0"]]


async def test_a_train_problem_is_this_runs_own_and_another_gets_a_name_of_its_own(tmp_path: Path) -> None:
    mine = replace(TASK.train[5], id="x77", family=None)
    told = await fitted(tmp_path, other(mine, Problem("t5", "nowhere in train", "no")))
    assert [failure.problem.id for failure in told.failures] == ["t5", "d1_t5"]
    assert told.failures[0].problem.family == TASK.train[5].family


@pytest.mark.parametrize("operator", ["rewrite", "choose"])
async def test_the_teacher_is_told_of_the_other_class_in_the_form_of_its_own(tmp_path: Path, operator: str) -> None:
    """The class fails on everything; what the teacher reads is the other class's failures and report alone."""
    written = json.dumps([{"question": f"a new one {n}", "answer": "yes"} for n in ("apple", "river")])

    def reply(request: ChatRequest) -> str:
        texts = {"choose": "1", "reflect": "So it is.", "rewrite": written}
        return texts.get(request.purpose) or "neither"

    foreign = [
        Problem(f"t{n}", f"foreign {word} thing", "no") for n, word in enumerate(("lamp", "door", "roof", "well"))
    ]
    donor = other(*foreign, replace(HELD, id="t8"), report="What zoe did.")
    spec = M3Spec(
        rounds=1,
        exemplars=2,
        beam=1,
        exam=6,
        select={"budget": 8, "rescore": 0},
        revise={"operators": [operator], "reflections": 2, "chosen": 3, "menu": 4, "failures": 3},
    )
    lesson = LessonSpec()
    asked = []
    for feedback, given in (("shuffled", donor), ("failures", None)):
        revise_ = spec.revise.model_copy(update={"feedback": feedback})
        async with seated(below(tmp_path, feedback), reply, task=TASK) as here:
            async for _ in m3(here.room, lesson, spec.model_copy(update={"revise": revise_}), here.ctx, None, given):
                pass
            asked.append(here.model.requests)
    told, own = ([r for r in requests if r.purpose in ("reflect", "rewrite", "choose")] for requests in asked)
    assert Counter(r.purpose for r in asked[0]) == Counter(r.purpose for r in asked[1])
    assert [str(r.path) for r in told] == [str(r.path) for r in own]
    for request in told:
        text = prompt(request)
        assert "foreign" in text
        assert HELD.question not in text
        assert "What zoe did." in text or request.purpose != "reflect"
    if operator == "choose":
        menus = [request.last.split("Which of these")[1] for request in told]
        assert all(menu.count("foreign") == 4 for menu in menus[:1]), "the menu is led by what the others failed"
    assert not any("foreign" in prompt(request) for request in own)
