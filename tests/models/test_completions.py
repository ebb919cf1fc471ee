from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbt_sim.models.completions import Malformed, clean, read_completion, server_error, top_logprobs


def answer(content: Any, **more: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": content}, **more}]}


def test_text_finish_and_tokens_are_read() -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}
    reply = read_completion({**answer("fine", finish_reason="length"), "usage": usage})
    assert (reply.text, reply.finish) == ("fine", "length")
    assert (reply.prompt_tokens, reply.cached_tokens, reply.completion_tokens) == (9, 4, 2)


def test_nothing_said_is_an_empty_reply_and_no_failure() -> None:
    assert read_completion(answer(None, finish_reason="stop")).text == ""
    assert read_completion(answer("")).finish == "stop"


def test_parts_are_joined() -> None:
    assert read_completion(answer([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])).text == "ab"


@pytest.mark.parametrize("content", ["<think>hm</think>\nyes", "  <think>\nhm\n</think>yes"])
def test_thinking_is_kept_apart_from_the_answer(content: str) -> None:
    reply = read_completion(answer(content))
    assert (reply.text, reply.reasoning) == ("yes", "hm")


def test_thinking_that_was_cut_off_is_no_answer() -> None:
    reply = read_completion(answer("<think>well", finish_reason="length"))
    assert (reply.text, reply.reasoning, reply.finish) == ("", "well", "length")


@pytest.mark.parametrize("key", ["reasoning", "reasoning_content"])
def test_thinking_in_a_field_of_its_own_is_read(key: str) -> None:
    data = answer("yes")
    data["choices"][0]["message"][key] = "hm"
    assert read_completion(data).reasoning == "hm"


def test_a_tag_later_in_the_text_is_text() -> None:
    assert read_completion(answer("I <think>so</think>")).text == "I <think>so</think>"


@pytest.mark.parametrize(
    "data", [None, [], "x", {}, {"choices": []}, {"choices": [1]}, {"choices": [{}]}, answer(3), {"choices": None}]
)
def test_what_is_no_chat_completion_is_malformed(data: object) -> None:
    with pytest.raises(Malformed):
        read_completion(data)


def test_an_error_sent_as_success_is_quoted() -> None:
    with pytest.raises(Malformed, match="out of memory"):
        read_completion({"error": {"message": "out of memory"}})


def test_strange_token_counts_are_unknown() -> None:
    reply = read_completion({**answer("x"), "usage": {"prompt_tokens": "9", "completion_tokens": -1}})
    assert (reply.prompt_tokens, reply.completion_tokens) == (None, None)


def test_log_probabilities_that_are_no_numbers_are_left_out() -> None:
    top = [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": None}, {"token": 3, "logprob": -1}, 7]
    logprobs = {"content": [{"token": "a", "logprob": -0.5, "top_logprobs": top}]}
    assert top_logprobs(answer("a", logprobs=logprobs)) == [("a", -0.5)]


@pytest.mark.parametrize("logprobs", [None, {}, {"content": None}, {"content": []}, {"content": [{}]}, "x"])
def test_no_log_probabilities_are_none(logprobs: object) -> None:
    assert top_logprobs(answer("a", logprobs=logprobs)) is None


def test_nul_and_lone_surrogates_do_not_come_through() -> None:
    assert read_completion(answer("a\x00b\ud800c\nd")).text == "a\ufffdb\ufffdc\nd"


@given(st.text(st.characters(codec=None)))
def test_cleaned_text_can_be_stored(text: str) -> None:
    cleaned = clean(text)
    assert "\x00" not in cleaned
    assert cleaned.encode("utf-8").decode() == cleaned
    assert len(cleaned) == len(text)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"error": {"message": "no"}}, "no"),
        ({"error": "no"}, "no"),
        ({"message": "no"}, "no"),
        ({"detail": "no"}, "no"),
        ({"error": {"message": "x" * 9999}}, "x" * 500),
        ([], None),
        ({}, None),
        ({"error": {"message": 5}}, None),
    ],
)
def test_the_message_of_an_error_is_found(data: object, message: str | None) -> None:
    assert server_error(data) == message
