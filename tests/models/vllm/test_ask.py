"""What is sent to a vLLM server, and how its answers are read."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbt_sim.models.base import ChatRequest, Sampling
from lbt_sim.models.completions import Malformed
from lbt_sim.models.vllm import ask
from lbt_sim.models.vllm.ask import Choices, body_of, read_alone, read_batch, read_samples, together, way_of
from lbt_sim.models.vllm.capabilities import Capabilities, Thinking

Ask = Callable[..., ChatRequest]
ALL = Capabilities(
    batches=True, named_logprobs=True, token_ids=True, structured=True, counts=True, samples=True, context=4096
)
LABELS = ("positive", "negative")
DRAWN = Sampling(temperature=0.7, max_tokens=20)


def body(requests: list[ChatRequest], way: ask.Way, choices: Choices | None = None, **more: Any) -> dict[str, Any]:
    can = more.pop("can", ALL)
    written = [json.dumps({"role": "user", "content": request.last}).encode() for request in requests]
    whole: dict[str, Any] = json.loads(b"{" + body_of(requests, written, way, choices, can, **more))
    return whole


def choice(index: int, text: str = "x", ids: list[int] | None = None, **logprobs: float) -> dict[str, Any]:
    top = [{"token": name, "logprob": value} for name, value in logprobs.items()]
    first = {"content": [{"token": "?", "logprob": -9.0, "top_logprobs": top}]} if top else None
    message = {"role": "assistant", "content": text}
    return {"index": index, "message": message, "finish_reason": "stop", "logprobs": first, "token_ids": ids}


def ids(**by_name: float) -> dict[str, float]:
    return {f"token_id:{name[1:]}": value for name, value in by_name.items()}


# --- which way --------------------------------------------------------------------------------------------


def test_labels_that_begin_differently_are_looked_up_others_constrained(ask: Ask) -> None:
    request = ask(choices=LABELS)
    assert way_of(request, Choices.of(LABELS, [1, 2]), ALL) == "look"
    assert way_of(request, Choices.of(LABELS, [1, 1]), ALL) == "constrain"
    assert way_of(request, Choices.of(LABELS, [1, 1]), replace(ALL, structured=False)) == "text"
    assert way_of(request, Choices.of(("1", "10"), None), ALL) == "constrain"
    assert way_of(ask(), None, ALL) == "text"
    assert way_of(replace(request, purpose="count"), None, ALL) == "count"


def test_a_model_that_cannot_but_think_is_read_from_its_text(ask: Ask) -> None:
    can = replace(ALL, thinking=Thinking(forced=True))
    labels = Choices.of(LABELS, [1, 2])
    assert way_of(ask(choices=LABELS), labels, can) == "text"
    sent = body([ask(choices=LABELS)], "text", labels, can=can)
    assert sent["max_tokens"] > 2000
    assert "structured_outputs" not in sent
    reply = read_alone({"choices": [choice(0, "It is good.\n</think>\n\npositive")]}, ask(), "text", labels, can)
    assert reply is not None
    assert (reply.text, reply.reasoning) == ("positive", "It is good.")
    cut = {**choice(0, "It is go"), "finish_reason": "length"}
    reply = read_alone({"choices": [cut]}, ask(), "text", labels, can)
    assert reply is not None
    assert (reply.text, reply.reasoning, reply.finish) == ("", "It is go", "length")


@pytest.mark.parametrize("switch", ["enable_thinking", "thinking"])
def test_labels_are_never_thought_about_where_that_can_be_switched_off(ask: Ask, switch: str) -> None:
    can = replace(ALL, thinking=Thinking(switch))
    off = {switch: False}
    for way in ("look", "constrain", "count"):
        assert body([ask(choices=LABELS)], way, Choices.of(LABELS, [1, 2]), can=can)["chat_template_kwargs"] == off
    assert "chat_template_kwargs" not in body([ask()], "text", can=can)
    assert body([ask()], "text", can=can, thinking=False)["chat_template_kwargs"] == off


# --- what goes together -----------------------------------------------------------------------------------


def test_items_of_one_exam_make_a_batch_and_samples_of_one_prompt_one_request(ask: Ask) -> None:
    one, two = ask("a", choices=LABELS, seed=1), ask("b", choices=LABELS, seed=9)
    assert together([one], two, "look", ALL) == "batch"
    drawn = [ask("a", sampling=DRAWN, seed=seed) for seed in (5, 6, 7)]
    assert together(drawn[:2], drawn[2], "text", ALL) == "samples"
    assert together(drawn[:1], drawn[2], "text", ALL) is None, "seeds that do not follow each other"
    assert together(drawn[:1], ask("b", sampling=DRAWN, seed=6), "text", ALL) is None
    assert together([one], two, "look", replace(ALL, batches=False)) is None
    other = ask("a", choices=LABELS, sampling=Sampling(max_tokens=9))
    assert together([one], other, "look", ALL) is None


def test_a_batch_and_its_calls_alone_ask_the_same(ask: Ask) -> None:
    requests = [ask("a", choices=LABELS, seed=3), ask("b", choices=LABELS, seed=3)]
    labels = Choices.of(LABELS, [1, 2])
    whole = body(requests, "look", labels, shape="batch")
    alone = [body([request], "look", labels) for request in requests]
    assert whole["messages"] == [one["messages"] for one in alone]
    assert [whole | {"messages": one["messages"]} for one in alone] == alone
    assert (whole["logprob_token_ids"], whole["temperature"], whole["max_tokens"]) == ([1, 2], 0, 1)


def test_samples_are_asked_for_with_the_first_seed(ask: Ask) -> None:
    requests = [ask("a", sampling=DRAWN, seed=seed) for seed in (5, 6)]
    sent = body(requests, "text", shape="samples")
    assert (sent["n"], sent["seed"], len(sent["messages"])) == (2, 5, 1)


def test_a_choice_is_never_cut_short(ask: Ask) -> None:
    labels = ("a label of many words", "a label of other words")
    request = ask(choices=labels, sampling=Sampling(max_tokens=4))
    sent = body([request], "constrain", Choices.of(labels, [1, 1]))
    assert sent["max_tokens"] >= len(labels[0])
    assert sent["structured_outputs"] == {"choice": list(labels)}


# --- what comes back --------------------------------------------------------------------------------------


def test_log_probabilities_belong_to_the_tokens_by_their_ids(ask: Ask) -> None:
    labels = Choices.of(LABELS, [11, 12])
    top = ids(_11=-2.0, _12=-0.5)
    reply = read_alone({"choices": [choice(0, **top)]}, ask(choices=LABELS), "look", labels, ALL)
    assert reply is not None
    assert (reply.text, reply.choice_logprobs, reply.finish) == ("negative", (-2.0, -0.5), "stop")
    assert read_alone({"choices": [choice(0, **ids(_7=-0.1))]}, ask(), "look", labels, ALL) is None
    half = read_alone({"choices": [choice(0, **ids(_11=-3.0))]}, ask(choices=LABELS), "look", labels, ALL)
    assert half is not None
    assert half.choice_logprobs == (-3.0, None)


def test_a_space_before_a_choice_changes_nothing(ask: Ask) -> None:
    labels = Choices.of(LABELS, [11, 12], [21, 22])
    sent = body([ask(choices=LABELS)], "look", labels)
    assert (sent["logprob_token_ids"], sent["top_logprobs"]) == ([11, 21, 12, 22], 1)
    by_id = ids(_11=math.log(0.2), _12=math.log(0.3), _21=math.log(0.25), _9=-0.1)
    by_text = {"positive": math.log(0.2), "negative": math.log(0.3), " positive": math.log(0.25)}
    for can, top in (
        (ALL, by_id),
        (replace(ALL, named_logprobs=False), by_id),
        (replace(ALL, token_ids=False), by_text),
    ):
        reply = read_alone({"choices": [choice(0, **top)]}, ask(choices=LABELS), "look", labels, can)
        assert reply is not None
        assert reply.text == "positive"
        assert reply.choice_logprobs == pytest.approx((math.log(0.45), math.log(0.3)))


def test_a_token_that_begins_several_choices_tells_of_none() -> None:
    three = ("positive", "possible", "no")
    shared = Choices.of(three, [1, 2, 3], [8, 8, 9])
    assert (shared.apart, shared.ids) == (True, ((1,), (2,), (3, 9)))
    crossed = Choices.of(three, [1, 2, 3], [2, 7, 3])  # as another begins, and as it begins itself
    assert (crossed.apart, crossed.ids) == (True, ((1,), (2, 7), (3,)))
    assert Choices.of(three, [1, 1, 3], [7, 8, 9]).apart is False


def test_spaces_are_left_out_where_there_are_none_or_too_many() -> None:
    assert Choices.of(LABELS, [1, 2], [None, 8]).ids == ((1,), (2, 8))
    assert Choices.of(LABELS, [1, 2]).ids == ((1,), (2,))
    many = tuple(f"label{n}" for n in range(65))
    assert Choices.of(many[:64], range(64), range(100, 164)).ids == tuple((n, n + 100) for n in range(64))
    assert Choices.of(many, range(65), range(100, 165)).ids == tuple((n,) for n in range(65))


@pytest.mark.parametrize(
    ("strings", "expected"),
    [
        (["\u0120positive"], 5),
        ([" pos", "itive"], 5),
        (["\u2581positive"], 5),
        (["\u0120", "1"], None),
        (["\u2581", "1"], None),
        ([" ", "1"], None),
        (None, None),
        ([7], None),
    ],
)
def test_a_space_that_is_a_token_of_its_own_begins_no_choice(strings: Any, expected: int | None) -> None:
    told = {"tokens": [5, 6], "token_strs": strings}
    assert ask.first_token(told, " positive") == expected
    assert ask.first_token(told, "positive") == 5


@pytest.mark.parametrize("told", [None, [], {}, {"tokens": []}, {"tokens": ["5"]}, {"tokens": 5}])
def test_a_tokenizer_that_tells_no_token_is_out_of_reach(told: Any) -> None:
    assert ask.first_token(told, "positive") is None


def test_a_batch_is_read_by_its_indices_and_its_tokens_add_up(ask: Ask) -> None:
    requests = [ask("short", choices=LABELS), ask("a much longer item " * 9, choices=LABELS)]
    labels = Choices.of(LABELS, [1, 2])
    answers = [choice(1, **ids(_1=-0.1, _2=-3.0)), choice(0, **ids(_1=-3.0, _2=-0.1))]
    data = {"choices": answers, "usage": {"prompt_tokens": 101, "completion_tokens": 2}}
    first, second = read_batch(data, requests, "look", labels, ALL)
    assert first is not None
    assert second is not None
    assert (first.text, second.text) == ("negative", "positive")
    assert (first.prompt_tokens or 0) + (second.prompt_tokens or 0) == 101
    assert (second.prompt_tokens or 0) > (first.prompt_tokens or 0)
    assert first.completion_tokens == second.completion_tokens == 1


def test_samples_share_their_prompt_and_have_their_own_lengths(ask: Ask) -> None:
    requests = [ask("a", sampling=DRAWN, seed=seed) for seed in (5, 6)]
    data = {"choices": [choice(0, "x", [1, 2]), choice(1, "y", [1])], "usage": {"prompt_tokens": 30}}
    one, two = read_samples(data, requests, "text", None, ALL)
    assert one is not None
    assert two is not None
    assert [(r.text, r.prompt_tokens, r.cached_tokens, r.completion_tokens) for r in (one, two)] == [
        ("x", 30, None, 2),
        ("y", 30, 30, 1),
    ]


@pytest.mark.parametrize("indices", [[0], [0, 0], [0, 2], [0, 1, 2], [None, 1], []])
def test_an_answer_with_other_indices_than_asked_for_is_refused(ask: Ask, indices: list[Any]) -> None:
    with pytest.raises(Malformed):
        read_batch({"choices": [choice(index) for index in indices]}, [ask("a"), ask("b")], "text", None, ALL)


@pytest.mark.parametrize("data", [None, [], {}, {"choices": None}, {"choices": [3]}, {"choices": [{"index": 0}]}, "x"])
def test_nonsense_is_refused(ask: Ask, data: Any) -> None:
    with pytest.raises(Malformed):
        read_batch(data, [ask("a")], "text", None, ALL)


@pytest.mark.parametrize("data", [{}, {"count": -1}, {"count": True}, {"count": "3"}, [], None])
def test_a_count_is_a_number_or_refused(ask: Ask, data: Any) -> None:
    with pytest.raises(Malformed):
        read_alone(data, ask(), "count", None, ALL)


@given(st.one_of(st.none(), st.integers(0, 10**6)), st.lists(st.integers(1, 5000), min_size=1, max_size=40))
def test_shares_are_whole_and_add_up(total: int | None, weights: list[int]) -> None:
    shares = ask._shares(total, weights)
    if total is None:
        assert shares == [None] * len(weights)
        return
    known = [share for share in shares if share is not None]
    assert sum(known) == total
    assert all(abs(share - total * weight / sum(weights)) < 1 for share, weight in zip(known, weights, strict=True))


def test_the_bound_counts_bytes_not_letters(ask: Ask) -> None:
    assert ask_bound(ask, "é" * 50) - ask_bound(ask, "") == 100
    assert math.isfinite(ask_bound(ask, "\ud800"))


def ask_bound(make: Ask, last: str) -> int:
    return ask.most_tokens(make(last))


# --- what servers cannot be trusted with ------------------------------------------------------------------


def test_more_labels_than_tokens_can_be_named_are_constrained(ask: Ask) -> None:
    many = tuple(f"label{n}" for n in range(129))
    assert way_of(ask(choices=many), Choices.of(many, list(range(129))), ALL) == "constrain"
    assert way_of(ask(choices=many[:128]), Choices.of(many[:128], list(range(128))), ALL) == "look"


def test_a_probability_above_one_is_one_and_what_is_no_number_is_left_out(ask: Ask) -> None:
    labels = Choices.of(LABELS, [11, 12])
    wild = read_alone({"choices": [choice(0, **ids(_11=1000.0, _12=-1.0))]}, ask(choices=LABELS), "look", labels, ALL)
    assert wild is not None
    assert wild.choice_logprobs == (0.0, -1.0)
    huge = {"choices": [choice(0, **ids(_11=10**400, _12=-1.0))]}
    read = read_alone(huge, ask(choices=LABELS), "look", labels, ALL)
    assert read is not None
    assert read.choice_logprobs == (None, -1.0)


def test_an_index_that_is_no_number_is_refused(ask: Ask) -> None:
    with pytest.raises(Malformed):
        read_batch({"choices": [{"index": [0]}, {"index": 1}]}, [ask("a"), ask("b")], "text", None, ALL)


def test_tokens_beyond_counting_are_unknown(ask: Ask) -> None:
    data = {"choices": [choice(0)], "usage": {"prompt_tokens": 10**30}}
    reply = read_alone(data, ask(), "text", None, ALL)
    assert reply is not None
    assert reply.prompt_tokens is None


def test_a_thought_has_room_in_the_context(ask: Ask) -> None:
    can = replace(ALL, thinking=Thinking(forced=True))
    request = ask(choices=LABELS, sampling=Sampling(max_tokens=4))
    assert ask_tokens(request, can) == 4 + 2048
    assert ask_tokens(request, ALL) == 4


def ask_tokens(request: ChatRequest, can: Capabilities) -> int:
    return ask.reply_tokens(request, can)
