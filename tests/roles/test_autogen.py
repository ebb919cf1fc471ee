"""Our agents in an AutoGen team, beside AutoGen's own agent on our engines and our ledger."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.conditions import MaxMessageTermination
from autogen_agentchat.messages import TextMessage
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_core import CancellationToken, FunctionCall
from autogen_core.models import AssistantMessage, SystemMessage, UserMessage
from rooms import Seated, complete, prompt, seated

from lbt_sim.classroom import Classroom
from lbt_sim.errors import RunError
from lbt_sim.ledger import LedgerReader
from lbt_sim.models.base import ChatRequest, Reply
from lbt_sim.models.recorded import Limits
from lbt_sim.roles.client import LedgerChatClient


def speak(request: ChatRequest) -> Reply:
    return Reply(f"{request.path.agent} says {request.path.sample}", prompt_tokens=7, completion_tokens=3)


def client(here: Seated, agent: str = "guest") -> LedgerChatClient:
    return LedgerChatClient(here.caller, here.room.lead.seat.model, agent, here.ctx.seeds)


def text(content: str, source: str = "user") -> TextMessage:
    return TextMessage(content=content, source=source)


def with_assistant() -> Classroom:
    """A teacher, an assistant whom it teaches, and a student whom the assistant teaches."""
    seats = [("teacher", "teacher"), ("aide", "assistant"), ("ann", "student")]
    return Classroom.from_edges(seats, [("teacher", "aide", "teaches"), ("aide", "ann", "assists")])


async def test_every_role_sits_in_a_team_beside_an_assistant_agent(tmp_path: Path) -> None:
    async with seated(tmp_path, speak, classroom=with_assistant()) as here:
        room = here.room
        guest = AssistantAgent("guest", client(here), system_message="You are a guest.")
        members = [room.lead, room.assistants["aide"], room.students["ann"], room.examiner, guest]
        assert [type(member).__name__ for member in members[:4]] == ["Teacher", "Assistant", "Student", "Examiner"]
        team = RoundRobinGroupChat(members, termination_condition=MaxMessageTermination(11))
        result = await team.run(task="What makes a review negative?")
        asked = {member.name: here.asked("chat", member.name) for member in members}
    names = ("teacher", "aide", "ann", "examiner", "guest")
    said = [(m.source, m.content) for m in result.messages[1:]]  # type: ignore[union-attr]
    assert [name for name, _ in said] == [*names, *names]
    ours = [turn for turn in said if turn[0] != "guest"]
    assert ours == [(name, f"{name} says {number}") for number in (0, 1) for name in names[:4]]
    assert prompt(asked["guest"][0]).startswith("You are a guest.")
    heard = ["What makes a review negative?", *(words for _, words in said)]
    for place, name in enumerate(names):  # each answers the one before it
        first, second = asked[name]
        assert first.last.endswith(heard[place])
        assert second.last.endswith(heard[place + len(names)])
    with LedgerReader(tmp_path) as ledger:
        recorded = sorted((call.agent, call.text) for call in ledger.calls())
    assert recorded == sorted(said)


@pytest.mark.parametrize("who", ["teacher", "aide", "ann", "examiner"])
async def test_in_a_team_every_role_hears_all_that_was_said_since_its_last_turn(tmp_path: Path, who: str) -> None:
    async with seated(tmp_path, speak, classroom=with_assistant()) as here:
        room = here.room
        everyone = {**room.teachers, **room.assistants, **room.students, room.examiner.name: room.examiner}
        await everyone[who].on_messages([text("first"), text("second", "bob")], CancellationToken())
        await everyone[who].on_messages([text("third")], CancellationToken())
        first, second = here.asked("chat", who)
    assert "first" in prompt(first)
    assert all(words in prompt(second) for words in ("first", "second", f"{who} says 0", "third"))


async def test_in_a_team_one_hears_what_was_said_before(tmp_path: Path) -> None:
    async with seated(tmp_path, speak) as here:
        ann = here.room.students["ann"]
        await ann.on_messages([text("first"), text("second", "bob")], CancellationToken())
        await ann.on_messages([text("third")], CancellationToken())
        first, second = here.asked("chat", "ann")
    assert first.last == "second"
    assert "first" in prompt(first)
    assert second.last == "third"
    assert all(words in prompt(second) for words in ("first", "second", "ann says 0"))


async def test_a_saved_state_is_taken_up_by_another_agent(tmp_path: Path) -> None:
    async with seated(tmp_path, speak, classroom=complete("ann", "bob")) as here:
        ann = here.room.students["ann"]
        await ann.on_messages([text("remember the milk")], CancellationToken())
        state = json.loads(json.dumps(await ann.save_state()))
        await ann.on_reset(CancellationToken())
        assert (await ann.save_state())["heard"] == []
        await ann.load_state(state)
        assert await ann.save_state() == state
        await ann.on_messages([text("well?")], CancellationToken())
        assert "remember the milk" in prompt(here.asked("chat", "ann")[-1])


async def test_an_older_state_does_not_overwrite_what_stands_in_the_ledger(tmp_path: Path) -> None:
    async with seated(tmp_path, speak) as here:
        ann = here.room.students["ann"]
        before = await ann.save_state()
        await ann.on_messages([text("one")], CancellationToken())
        await ann.load_state(before)
        reply = await ann.on_messages([text("two")], CancellationToken())
        assert reply.chat_message.to_text() == "ann says 1"
        assert "one" not in prompt(here.asked("chat", "ann")[-1])


async def test_a_turn_that_gave_up_was_not_heard(tmp_path: Path) -> None:
    replies = iter([Reply("", "failed", error="no server"), Reply("yes?")])
    async with seated(tmp_path, lambda r: next(replies), limits=Limits(failed=1)) as here:
        ann = here.room.students["ann"]
        with pytest.raises(RuntimeError, match="no server"):
            await ann.on_messages([text("only once")], CancellationToken())
        assert (await ann.save_state())["heard"] == []
        await ann.on_messages([text("only once")], CancellationToken())
        assert [words for _, words in (await ann.save_state())["heard"]] == ["only once", "yes?"]


async def test_a_client_in_another_process_finds_its_calls_again_and_makes_new_ones(tmp_path: Path) -> None:
    hello = [UserMessage(content="hello", source="ann")]
    async with seated(tmp_path, speak) as here:
        first = client(here)
        said = [(await first.create(hello)).content for _ in range(2)]
    assert said == ["guest says 0", "guest says 1"]
    async with seated(tmp_path, speak) as here:
        restored = client(here)
        assert [(await restored.create(hello)).content for _ in range(2)] == said
        assert here.model.requests == []
        await restored.create([UserMessage(content="and now?", source="ann")])
        assert len(here.model.requests) == 1


async def test_reset_forgets_what_was_heard(tmp_path: Path) -> None:
    async with seated(tmp_path, speak) as here:
        ann = here.room.students["ann"]
        await ann.on_messages([text("a secret")], CancellationToken())
        await ann.on_reset(CancellationToken())
        await ann.on_messages([text("and now?")], CancellationToken())
        assert "a secret" not in prompt(here.asked("chat", "ann")[-1])


@pytest.mark.parametrize("who", ["ann", "guest"])
async def test_a_cancelled_turn_ends_and_says_nothing(tmp_path: Path, who: str) -> None:
    asked = asyncio.Event()

    async def never(request: ChatRequest) -> str:
        asked.set()
        await asyncio.Event().wait()
        return ""

    async with seated(tmp_path, never) as here:
        agent = here.room.students["ann"] if who == "ann" else AssistantAgent("guest", client(here))
        before = asyncio.all_tasks()
        token = CancellationToken()
        turn = asyncio.ensure_future(agent.on_messages([text("hello")], token))
        await asked.wait()
        token.cancel()
        with pytest.raises(asyncio.CancelledError):
            await turn
        assert asyncio.all_tasks() == before
        if who == "ann":
            state = await here.room.students["ann"].save_state()
            assert state["heard"] == []
            assert state["said"] == 1  # its place in the ledger is taken, whatever became of the call


async def test_a_call_that_gave_up_is_an_error_of_the_team(tmp_path: Path) -> None:
    gone = Reply("", "failed", error="no server")
    async with seated(tmp_path, lambda r: gone, limits=Limits(failed=1)) as here:
        with pytest.raises(RuntimeError, match="ann could not answer: no server"):
            await here.room.students["ann"].on_messages([text("hello")], CancellationToken())
        with pytest.raises(RunError, match="guest could not answer: no server"):
            await client(here).create([UserMessage(content="hello", source="user")])


async def test_the_client_counts_tokens_and_streams_whole_replies(tmp_path: Path) -> None:
    async with seated(tmp_path, speak) as here:
        guest = client(here)
        await guest.create([SystemMessage(content="Be brief."), UserMessage(content="hello", source="ann")])
        chunks = [chunk async for chunk in guest.create_stream([AssistantMessage(content="I said so", source="guest")])]
        assert chunks[0] == "guest says 0"
        assert chunks[1].content == "guest says 0"  # type: ignore[union-attr]
        assert (guest.actual_usage().prompt_tokens, guest.total_usage().prompt_tokens) == (7, 14)
        assert guest.total_usage().completion_tokens == 6
        first, second = here.asked("chat", "guest")
    assert [turn.role for turn in first.turns] == ["system", "user"]
    assert first.last == "ann: hello"
    assert [turn.role for turn in second.turns] == ["assistant", "user"]
    assert first.seed != second.seed


async def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    called = FunctionCall(id="1", arguments="{}", name="look_up")
    async with seated(tmp_path, speak) as here:
        with pytest.raises(TypeError, match="a tool call"):
            await client(here).create([AssistantMessage(content=[called], source="guest")])


@pytest.mark.parametrize("extra", [{"json_output": True}, {"extra_create_args": {"n": 2}}])
async def test_what_not_every_engine_has_is_refused(tmp_path: Path, extra: dict[str, object]) -> None:
    async with seated(tmp_path, speak) as here:
        with pytest.raises(ValueError, match="text only"):
            await client(here).create([UserMessage(content="hello", source="user")], **extra)  # type: ignore[arg-type]
        assert not here.model.requests
