"""Prompts that do not fit: found before they are sent, shortened as the scenario says, decided again the same way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from autogen_agentchat.messages import TextMessage
from autogen_core import CancellationToken
from hypothesis import given, settings
from hypothesis import strategies as st
from rooms import below, complete, material, prepared, prompt, seated, seats_for, small_task, star

from lbt_sim.errors import CallsFailed, LedgerMismatch, ScenarioError
from lbt_sim.exam import Exam, examine
from lbt_sim.ledger import LedgerReader
from lbt_sim.lesson import teach
from lbt_sim.methods.scoring import scorer
from lbt_sim.models.base import CallPath, ChatRequest, Head, ModelInfo, Reply, Sampling, Turn
from lbt_sim.models.recorded import Limits
from lbt_sim.reporting import report_round
from lbt_sim.roles.fitting import Fitting, at_most
from lbt_sim.roles.values import Notes, Utterance
from lbt_sim.scenario.schema import DiscussionSpec, LessonSpec, NotesSpec, SelectSpec, TooLong
from lbt_sim.setup import check_counting
from lbt_sim.tasks.base import Exemplar, Problem

PATH = CallPath(1, "exam/m", "ann")
DROPPING: list[TooLong] = ["drop_notes", "drop_exemplars"]


def tokens_of(request: ChatRequest) -> int:
    """A tokenizer of its own: 5 tokens a turn, and one for each 3 bytes begun."""
    return sum(5 + -(-len(turn.content.encode()) // 3) for turn in request.turns)


def counting_model(request: ChatRequest) -> str:
    return str(tokens_of(request)) if request.purpose == "count" else "yes"


def telling(context: int) -> dict[str, Any]:
    """What a model says of itself that counts and has this context."""
    return {"context": context, "counts_tokens": True}


class Counter:
    """Stands where the way to the models is: counts by a function, and keeps what it was asked, batch by batch."""

    def __init__(self, context: int | None, tokens: Callable[[ChatRequest], int] = tokens_of) -> None:
        self._context, self._tokens = context, tokens
        self.batches: list[list[ChatRequest]] = []

    @property
    def asked(self) -> list[ChatRequest]:
        return [request for batch in self.batches for request in batch]

    def reads_facts(self, model: str) -> bool:
        return False

    def context(self, model: str) -> int | None:
        return self._context

    async def ask(self, model: str, request: ChatRequest) -> Reply:
        return (await self.ask_many(model, [request]))[0]

    async def ask_many(self, model: str, requests: Sequence[ChatRequest]) -> list[Reply]:
        assert all(request.purpose == "count" for request in requests)
        if requests:
            self.batches.append(list(requests))
        return [Reply(str(self._tokens(request))) for request in requests]


def exam_on(lasts: Sequence[str], max_tokens: int = 4) -> Callable[[Notes], list[ChatRequest]]:
    """Makes one request for each last turn; remarks stand in the system turn, exemplars are turns."""

    def make(notes: Notes) -> list[ChatRequest]:
        system = "Answer.\n" + "\n".join(remark["text"] for remark in notes.remarks("ann"))
        worked = [t for e in notes.exemplars for t in (Turn("user", e.question), Turn("assistant", e.answer))]
        head = Head((Turn("system", system), *worked))
        return [
            ChatRequest(PATH._replace(item=f"i{n}"), head, last, Sampling(max_tokens=max_tokens), 0, ("yes", "no"))
            for n, last in enumerate(lasts)
        ]

    return make


def notes_of(remarks: Sequence[str], questions: Sequence[str]) -> Notes:
    """Exemplars by the teacher, then remarks of a peer."""
    exemplars = tuple(Exemplar(question, "yes") for question in questions)
    said = [Utterance("bob", ("ann",), "discusses", remark) for remark in remarks]
    return Notes((Utterance("teacher", ("ann",), "teaches", "", exemplars), *said))


def fit(policy: TooLong, asks: Counter, notes: Notes, make: Any, events: list[Any] | None = None) -> Notes:
    fitting = Fitting(policy, asks, (events if events is not None else []).append)
    return asyncio.run(fitting.fit("small", PATH, notes, make))


def fits(requests: Sequence[ChatRequest], context: int) -> list[bool]:
    return [tokens_of(r) + r.sampling.max_tokens <= context for r in requests]


words = st.text(st.sampled_from("aé日 "), min_size=1, max_size=60)
unlike = st.lists(words.map(lambda w: w + "x"), max_size=9, unique=True)


def droppable(policy: TooLong, notes: Notes) -> Sequence[Any]:
    return notes.remarks("ann") if policy == "drop_notes" else notes.exemplars


def shorter(policy: TooLong, notes: Notes) -> Iterator[Notes]:
    """The notes with 0, 1, 2, … of what may be dropped left out: made here by other means than there."""
    remarks, questions = [r["text"] for r in notes.remarks("ann")], [e.question for e in notes.exemplars]
    for out in range(len(droppable(policy, notes)) + 1):
        yield notes_of(remarks[out:], questions) if policy == "drop_notes" else notes_of(remarks, questions[out:])


# --- the decision -------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(DROPPING), unlike, unlike, st.lists(words, min_size=1, max_size=6), st.integers(20, 700))
def test_what_is_kept_fits_and_is_the_most_that_does(
    policy: TooLong, remarks: list[str], questions: list[str], lasts: list[str], context: int
) -> None:
    notes, make = notes_of(remarks, questions), exam_on(lasts)
    kept = fit(policy, Counter(context), notes, make)
    all_shorter = [make(cut) for cut in shorter(policy, notes)]
    bare = fits(all_shorter[-1], context)  # an item that never fits has no say
    wanted = next(
        cut for cut in all_shorter if all(ok or not b for ok, b in zip(fits(cut, context), bare, strict=True))
    )
    assert make(kept) == wanted


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(DROPPING), unlike, unlike, st.lists(words, min_size=1, max_size=4))
def test_nothing_is_dropped_or_asked_where_the_bound_says_that_it_fits(
    policy: TooLong, remarks: list[str], questions: list[str], lasts: list[str]
) -> None:
    notes, make = notes_of(remarks, questions), exam_on(lasts)
    asks = Counter(max(map(at_most, make(notes))) + 4)
    assert fit(policy, asks, notes, make) is notes
    assert not asks.asked


@given(unlike, unlike, words)
def test_the_bound_is_none_too_low(remarks: list[str], questions: list[str], last: str) -> None:
    (request,) = exam_on([last])(notes_of(remarks, questions))
    byte_for_token = sum(5 + len(turn.content.encode()) for turn in request.turns)
    assert max(byte_for_token, tokens_of(request)) <= at_most(request)


def test_a_long_exam_takes_few_counts() -> None:
    notes = notes_of([f"remark {n} " * 20 for n in range(200)], [])
    make = exam_on([f"question {n}" + "!" * (n % 7) for n in range(100)])
    for context in (2_000, 6_000, 12_000):
        asks = Counter(context)
        kept = fit("drop_notes", asks, notes, make)
        assert 0 < len(kept.remarks("ann")) < 200
        assert len(asks.batches) <= 12, "a search by halves"
        assert len(asks.asked) <= 12 + 100


def test_every_count_has_a_path_of_its_own_beside_the_steps() -> None:
    asks = Counter(900)
    fit("drop_notes", asks, notes_of(["word " * 30] * 20, []), exam_on(["a" * 50, "b" * 40]))
    paths = [request.path for request in asks.asked]
    assert len(set(paths)) == len(paths)
    assert {path.step for path in paths} == {"count/exam/m"}
    assert all(request.deterministic and not request.choices for request in asks.asked)


def test_what_never_fits_takes_nothing_from_the_others() -> None:
    notes, make = notes_of(["word " * 10] * 5, []), exam_on(["short", "endless " * 500])
    events: list[Any] = []
    assert fit("drop_notes", Counter(800), notes, make, events) is notes
    assert not events, "nothing was left out"


def test_only_what_the_policy_names_is_dropped() -> None:
    notes, make = notes_of(["word " * 30] * 8, ["question " * 20 + str(n) for n in range(8)]), exam_on(["?"])
    kept = fit("drop_notes", Counter(700), notes, make)
    assert kept.exemplars == notes.exemplars
    assert len(kept.remarks("ann")) < 8
    kept = fit("drop_exemplars", Counter(700), notes, make)
    assert kept.remarks("ann") == notes.remarks("ann")
    assert kept.exemplars == notes.exemplars[-len(kept.exemplars) :]
    assert 0 < len(kept.exemplars) < 8


@pytest.mark.parametrize(("policy", "context"), [("fail", 50), ("drop_notes", None)])
def test_nothing_is_asked_beforehand_without_a_policy_or_a_limit(policy: TooLong, context: int | None) -> None:
    asks, notes = Counter(context), notes_of(["word " * 100] * 5, [])
    assert fit(policy, asks, notes, exam_on(["?"])) is notes
    assert not asks.batches


def test_a_notice_says_what_was_left_out() -> None:
    notes, make, events = notes_of(["word " * 30] * 10, []), exam_on(["?"]), list[Any]()
    kept = fit("drop_notes", Counter(400), notes, make, events)
    (event,) = events
    left_out = 10 - len(kept.remarks("ann"))
    assert (event.path, event.kind) == ("r1/exam/m/ann/too_long", "notice")
    assert event.data["tokens"] == [tokens_of(make(notes)[0]), tokens_of(make(kept)[0])]
    told = {key: event.data[key] for key in ("round", "who", "what", "left_out", "of", "context")}
    assert told == {"round": 1, "who": "ann", "what": "remarks", "left_out": left_out, "of": 10, "context": 400}
    assert f"{left_out} of 10 remarks left out, from the oldest on" in event.data["text"]


def test_an_engine_that_counts_no_number_is_told_of() -> None:
    class Chatty(Counter):
        async def ask_many(self, model: str, requests: Sequence[ChatRequest]) -> list[Reply]:
            return [Reply("about nine") for _ in requests]

    with pytest.raises(CallsFailed, match="small answered 'about nine'"):
        fit("drop_notes", Chatty(100), notes_of(["word " * 100], []), exam_on(["?"]))


# --- in the classroom ---------------------------------------------------------------------------------------

TALK = LessonSpec(discussion=DiscussionSpec(turns=3), questions=1)
SPEECH = "one two three four five six seven eight nine ten " * 4


def talkative(request: ChatRequest) -> str:
    if request.purpose == "count":
        return str(tokens_of(request))
    return "yes" if request.purpose in ("answer", "judge") else f"{request.path.agent} {request.path.sample} {SPEECH}"


async def one_round(
    folder: Path,
    handler: Any = talkative,
    *,
    too_long: TooLong = "drop_notes",
    context: int = 700,
    **options: Any,
) -> Any:
    """A lesson with questions and talk, and an exam; what was asked and told."""
    room = complete("ann", "bob", "eve")
    options = {"classroom": room, "detail": telling(context), "too_long": too_long} | options
    async with seated(folder, handler, **options) as here:
        taught = material(6)
        exam = Exam(1, here.room.task.train[:6], "fixed")
        await examine(here.room, exam, taught, teach(here.room, taught, TALK, 1, here.ctx), here.ctx)
        await report_round(here.room, 1, taught, here.ctx)
    return here


def sent(here: Any) -> dict[CallPath, str]:
    return {r.path: prompt(r) for r in here.model.requests if r.purpose != "count"}


@pytest.mark.parametrize("policy", DROPPING)
async def test_no_prompt_that_is_sent_is_too_long(tmp_path: Path, policy: TooLong) -> None:
    context = 700 if policy == "drop_notes" else 850
    here = await one_round(tmp_path, too_long=policy, context=context)
    for request in here.model.requests:
        if request.purpose != "count":
            assert tokens_of(request) + request.sampling.max_tokens <= context, request.path
    assert {e.data["who"] for e in here.of_kind("notice")} >= {"ann", "bob", "eve"}


async def test_without_a_policy_the_same_prompts_are_too_long_and_nothing_is_counted(tmp_path: Path) -> None:
    here = await one_round(tmp_path, too_long="fail")
    assert any(tokens_of(r) + r.sampling.max_tokens > 850 for r in here.model.requests)
    assert not here.asked("count")
    assert not here.of_kind("notice")


@pytest.mark.parametrize("policy", DROPPING)
async def test_where_all_fits_the_prompts_are_those_of_no_policy(tmp_path: Path, policy: TooLong) -> None:
    whole = await one_round(below(tmp_path, "whole"), too_long="fail")
    fitted = await one_round(below(tmp_path, "fitted"), too_long=policy, context=100_000)
    assert sent(fitted) == sent(whole)
    assert not fitted.asked("count")


async def test_all_items_of_an_exam_share_one_head(tmp_path: Path) -> None:
    here = await one_round(tmp_path)
    for name in ("ann", "bob", "eve"):
        items = [r for r in here.asked("answer", name) if r.path.step.startswith("exam/")]
        assert len(items) == 6
        assert len({r.head.digest for r in items}) == 1


@pytest.mark.parametrize("by", ["teacher", "students"])
async def test_all_blocks_of_a_scoring_share_one_head(tmp_path: Path, by: Any) -> None:
    def lengthy(prefix: str, number: int) -> Problem:
        return Problem(f"{prefix}{number}", f"{prefix}kind{number}x " * (number + 1), ("yes", "no")[number % 2])

    task = replace(small_task(), train=tuple(lengthy("t", n) for n in range(20)))
    detail = telling(300)
    async with seated(tmp_path, talkative, task=task, detail=detail, too_long="drop_exemplars") as here:
        train = here.room.task.train
        score = scorer(here.room, LessonSpec(), SelectSpec(by=by), 1, here.ctx, train)
        taught = material(20)
        for start in (0, 4, 16):
            await score(taught, train[start : start + 4])
        answers = here.asked("answer")
    for name in ("teacher",) if by == "teacher" else ("ann",):  # bob's prompts are hers, and shared
        heads = {r.head.digest: len(r.head.turns) for r in answers if r.path.agent == name}
        assert len(heads) == 1
        assert 1 < max(heads.values()) < 41, "some exemplars were left out, not all"
    assert max(tokens_of(r) + r.sampling.max_tokens for r in answers) <= 300


async def test_a_teacher_leaves_out_exemplars_when_it_answers_a_question(tmp_path: Path) -> None:
    taught = material(40)
    async with seated(tmp_path, talkative, detail=telling(700), too_long="drop_exemplars") as here:
        said = await here.room.lead.reply(CallPath(1, "lesson/m/reply", "", "ann"), taught, "ann", "Why?")
        (asked,) = here.asked("reply")
    assert said.startswith("teacher 0")
    assert tokens_of(asked) + asked.sampling.max_tokens <= 700
    assert taught.exemplars[-1].question in prompt(asked)
    assert taught.exemplars[0].question not in prompt(asked)


async def test_a_summary_is_made_of_what_fits_and_keeps_the_exemplars(tmp_path: Path) -> None:
    notes = notes_of([SPEECH] * 20, ["why"])
    seats = seats_for([("teacher", "teacher"), ("ann", "student")], tmp_path)
    summing = [replace(s, agent=s.agent.model_copy(update={"notes": NotesSpec(keep="summary")})) for s in seats]
    options: Any = {"classroom": star("ann"), "seats": summing, "detail": telling(900), "too_long": "drop_notes"}
    async with seated(tmp_path, talkative, **options) as here:
        ann = here.room.students["ann"]
        kept = await ann.keep(CallPath(1, "lesson/m/summarise", "ann"), notes)
        (asked,) = here.asked("summarise")
    assert tokens_of(asked) + asked.sampling.max_tokens <= 900
    assert kept.exemplars == notes.exemplars


async def test_in_a_team_the_oldest_of_what_was_said_is_left_out(tmp_path: Path) -> None:
    async with seated(tmp_path, talkative, detail=telling(700), too_long="drop_notes") as here:
        ann = here.room.students["ann"]
        said = [TextMessage(content=f"message {n} {SPEECH}", source="bob") for n in range(12)]
        await ann.on_messages(said, CancellationToken())
        (asked,) = here.asked("chat")
    assert tokens_of(asked) + asked.sampling.max_tokens <= 700
    assert asked.last == said[-1].content
    assert "message 10 " in prompt(asked)
    assert "message 0 " not in prompt(asked)
    assert [event.path for event in here.of_kind("notice")] == ["r0/team/ann/too_long"]


# --- again ---------------------------------------------------------------------------------------------------


async def test_resuming_and_replaying_decide_as_the_run_did(tmp_path: Path) -> None:
    first = await one_round(tmp_path)

    def silent(request: ChatRequest) -> str:
        raise AssertionError(f"{request.path} was asked again")

    again = await one_round(tmp_path, silent)
    replayed = await one_round(tmp_path, silent, replay=True)
    assert first.caller.meter.counted == again.caller.meter.counted == replayed.caller.meter.counted > 0
    assert again.caller.meter.made == replayed.caller.meter.made == 0
    told = [e.data for e in first.of_kind("notice")]
    assert sorted(map(str, told)) == sorted(str(e.data) for e in again.of_kind("notice"))
    with pytest.raises(LedgerMismatch):  # with another context it is another run
        await one_round(tmp_path, silent, replay=True, context=1_200)


async def test_a_run_killed_at_any_count_or_answer_ends_as_one_that_was_not(tmp_path: Path) -> None:
    whole = await one_round(below(tmp_path, "whole"))
    calls = len(whole.model.requests)

    class Killed(Exception):
        pass

    for stop in range(1, calls, max(1, calls // 12)):
        folder = below(tmp_path, f"killed{stop}")
        number = count(1)

        def dies(request: ChatRequest, number: Iterator[int] = number, stop: int = stop) -> str:
            if next(number) > stop:
                raise Killed
            return talkative(request)

        with pytest.raises(Killed):
            await one_round(folder, dies)
        seen: dict[CallPath, str] = {}

        def keeps(request: ChatRequest, seen: dict[CallPath, str] = seen) -> str:
            seen[request.path] = prompt(request)
            return talkative(request)

        rest = await one_round(folder, keeps)
        assert {path: text for path, text in seen.items() if path in sent(whole)}.items() <= sent(whole).items()
        events = {(e.path, e.kind): e.data for e in rest.events}
        assert events == {(e.path, e.kind): e.data for e in whole.events}
        with_ledger = [e.path for e in whole.of_kind("notice")]
        assert len(with_ledger) == len(set(with_ledger))


async def test_counts_are_no_calls_of_the_budget(tmp_path: Path) -> None:
    free = await one_round(below(tmp_path, "free"))
    made = free.caller.meter.made
    assert made == len(sent(free))
    paid = below(tmp_path, "paid")
    await one_round(paid, limits=Limits(calls=made))
    again = await one_round(paid, limits=Limits(calls=made))
    assert again.ledger.paid_at_open == made
    assert again.ledger.committed_at_open > made
    with LedgerReader(paid) as ledger:
        assert ledger.totals()["calls"] == made + free.caller.meter.shared
        assert ledger.count() == ledger.totals()["calls"] + free.caller.meter.counted


async def test_a_count_that_gives_up_stops_the_run_and_is_asked_again(tmp_path: Path) -> None:
    def broken(request: ChatRequest) -> Reply | str:
        return Reply("", "failed", error="no server") if request.purpose == "count" else talkative(request)

    with pytest.raises(CallsFailed, match="how long a prompt is: no server"):
        await one_round(tmp_path, broken, limits=Limits(failed=1.0))
    resumed = await one_round(tmp_path, limits=Limits(failed=0.0))
    assert resumed.caller.meter.failed == 0
    whole = await one_round(below(tmp_path, "whole"))
    assert {e.path: e.data for e in resumed.events} == {e.path: e.data for e in whole.events}


# --- before anything starts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("detail", "refused"),
    [
        ({"context": 4096, "counts_tokens": True}, None),
        ({"context": None}, None),
        ({"context": 4096}, "cannot count a prompt's tokens"),
        ({"counts_tokens": True}, "does not say how long its context is"),
        ({}, "does not say how long its context is"),
    ],
)
def test_a_policy_needs_an_engine_that_counts(tmp_path: Path, detail: Mapping[str, Any], refused: str | None) -> None:
    asking, failing = prepared(tmp_path, too_long="drop_notes"), prepared(below(tmp_path, "f"))
    infos = {"small": ModelInfo("some", detail)}
    check_counting(failing, infos)
    if refused is None:
        check_counting(asking, infos)
        return
    with pytest.raises(ScenarioError, match=refused) as caught:
        check_counting(asking, infos)
    assert caught.value.where is not None
    assert caught.value.where.key == "too_long"
    assert caught.value.where.line


def test_an_unknown_policy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="too_long"):
        prepared(tmp_path, too_long="drop")


async def test_engines_without_a_model_have_no_limit(tmp_path: Path) -> None:
    async with seated(tmp_path, talkative, classroom=star("ann")) as here:
        assert (await here.model.ready()).unlimited
