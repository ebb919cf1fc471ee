from __future__ import annotations

from collections.abc import Callable

import pytest
from pydantic import ValidationError

from lbt_sim.models.base import ChatRequest, Reply
from lbt_sim.models.scripted import ScriptedModel, ScriptedSpec

Ask = Callable[..., ChatRequest]


async def test_a_list_is_given_in_order_and_then_fails_loudly(ask: Ask) -> None:
    model = ScriptedModel(ScriptedSpec(replies=["one", ""]))
    replies = [await model.create(ask("who?")) for _ in range(3)]
    assert [reply.text for reply in replies] == ["one", "", ""]
    assert [reply.finish for reply in replies] == ["stop", "stop", "failed"]
    assert replies[2].error is not None
    assert "who?" in replies[2].error


async def test_a_rule_fits_the_purpose_or_the_last_turn(ask: Ask) -> None:
    model = ScriptedModel(ScriptedSpec(replies={"reflect": "because", r"film\b": "positive"}))
    assert (await model.create(ask("anything", purpose="reflect"))).text == "because"
    assert (await model.create(ask("A fine film."))).text == "positive"


async def test_an_unexpected_prompt_fails_and_is_quoted(ask: Ask) -> None:
    reply = await ScriptedModel(ScriptedSpec(replies={"film": "x"})).create(ask("a book"))
    assert reply.finish == "failed"
    assert reply.error is not None
    assert "a book" in reply.error


async def test_a_handler_sees_the_requests_and_they_are_recorded(ask: Ask) -> None:
    model = ScriptedModel(lambda request: request.last.upper() if request.last != "b" else Reply("", "length"))
    got = {index: reply async for index, reply in model.create_many(map(ask, "abc"))}
    assert [got[n].text for n in range(3)] == ["A", "", "C"]
    assert got[1].finish == "length"
    assert [request.last for request in model.requests] == ["a", "b", "c"]


async def test_what_the_script_says_is_part_of_the_identity() -> None:
    one, other = [await ScriptedModel(ScriptedSpec(replies=[text])).ready() for text in "ab"]
    assert (one.identity.startswith("scripted:"), one.identity != other.identity) == (True, True)


def test_a_bad_regular_expression_is_refused() -> None:
    with pytest.raises(ValidationError, match="regular expression"):
        ScriptedSpec(replies={"(": "x"})
