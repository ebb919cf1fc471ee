"""AutoGen's own agents on our engines: a model client whose calls go through the ledger like everyone else's."""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Literal

from autogen_core import CancellationToken
from autogen_core.models import (
    AssistantMessage,
    ChatCompletionClient,
    CreateResult,
    LLMMessage,
    ModelCapabilities,
    ModelFamily,
    ModelInfo,
    RequestUsage,
    SystemMessage,
    UserMessage,
)
from autogen_core.tools import Tool, ToolSchema
from pydantic import BaseModel

from lbt_sim.errors import RunError
from lbt_sim.models.base import CallPath, ChatRequest, Head, Sampling, Turn
from lbt_sim.models.recorded import Asks
from lbt_sim.seeds import Seeds

__all__ = ["LedgerChatClient"]

_INFO: ModelInfo = {
    "vision": False,
    "function_calling": False,
    "json_output": False,
    "family": ModelFamily.UNKNOWN,
    "structured_output": False,
    "multiple_system_messages": True,
}


class LedgerChatClient(ChatCompletionClient):
    """A `ChatCompletionClient` for, say, an `AssistantAgent` that sits in a team beside ours.

    Args:
        caller: The way to the models.
        model: A name under the scenario's `models`.
        agent: Who speaks through this client; with `step` and a hash of what is asked, the call's path.
        seeds: The run's seeds.
        sampling: How replies are drawn.
        step: The step of the calls' paths.

    Text only: tools and JSON modes are refused, since not every engine has them.
    """

    def __init__(
        self,
        caller: Asks,
        model: str,
        agent: str,
        seeds: Seeds,
        sampling: Sampling = Sampling(0.7, max_tokens=256),  # noqa: B008 - frozen
        step: str = "team",
    ) -> None:
        self._caller = caller
        self._model = model
        self._path = CallPath(0, step, agent)
        self._seeds = seeds
        self._sampling = sampling
        self._asked: Counter[str] = Counter()
        self._last = RequestUsage(0, 0)
        self._total = RequestUsage(0, 0)

    async def create(
        self,
        messages: Sequence[LLMMessage],
        *,
        tools: Sequence[Tool | ToolSchema] = (),
        tool_choice: Tool | Literal["auto", "required", "none"] = "auto",
        json_output: bool | type[BaseModel] | None = None,
        extra_create_args: Mapping[str, Any] = {},
        cancellation_token: CancellationToken | None = None,
    ) -> CreateResult:
        """The model's reply.

        Raises:
            ValueError: Tools, JSON or other arguments are asked for.
            RunError: The call gave up.
        """
        if tools or json_output or extra_create_args:
            raise ValueError("LedgerChatClient gives text only: no tools, no JSON output, no extra arguments")
        request = self._request([_turn(message) for message in messages])
        asking = asyncio.ensure_future(self._caller.ask(self._model, request))
        if cancellation_token is not None:
            cancellation_token.link_future(asking)
        reply = await asking
        if reply.finish == "failed":
            raise RunError(f"{self._path.agent} could not answer: {reply.error}")
        self._last = RequestUsage(reply.prompt_tokens or 0, reply.completion_tokens or 0)
        self._total = RequestUsage(
            self._total.prompt_tokens + self._last.prompt_tokens,
            self._total.completion_tokens + self._last.completion_tokens,
        )
        return CreateResult(finish_reason=reply.finish, content=reply.text, usage=self._last, cached=False)

    def _request(self, turns: Sequence[Turn]) -> ChatRequest:
        # A prompt ends with a user turn: AutoGen's may end with an assistant's where an agent speaks twice.
        last = turns[-1].content if turns and turns[-1].role == "user" else "Go on."
        head = turns[:-1] if turns and turns[-1].role == "user" else turns
        # Named by what is asked, not by when: a team that is restored in another process finds its calls again.
        words = json.dumps([(turn.role, turn.content) for turn in turns])
        item = blake2b(words.encode(), digest_size=8).hexdigest()
        path = self._path._replace(item=item, sample=self._asked[item])
        self._asked[item] += 1
        seed = self._seeds.at(*path).number()
        return ChatRequest(path, Head(tuple(head)), last, self._sampling, seed, purpose="chat")

    async def create_stream(
        self,
        messages: Sequence[LLMMessage],
        *,
        tools: Sequence[Tool | ToolSchema] = (),
        tool_choice: Tool | Literal["auto", "required", "none"] = "auto",
        json_output: bool | type[BaseModel] | None = None,
        extra_create_args: Mapping[str, Any] = {},
        cancellation_token: CancellationToken | None = None,
    ) -> AsyncGenerator[str | CreateResult, None]:
        """The whole reply as one chunk, then the result: a reply is committed before anyone sees it."""
        result = await self.create(
            messages,
            tools=tools,
            json_output=json_output,
            extra_create_args=extra_create_args,
            cancellation_token=cancellation_token,
        )
        yield str(result.content)
        yield result

    async def close(self) -> None:
        """Nothing: the model belongs to the run."""

    def actual_usage(self) -> RequestUsage:
        """Tokens of the last call."""
        return self._last

    def total_usage(self) -> RequestUsage:
        """Tokens of all calls."""
        return self._total

    def count_tokens(self, messages: Sequence[LLMMessage], *, tools: Sequence[Tool | ToolSchema] = ()) -> int:
        """A rough guess, four characters a token: engines count for themselves."""
        return sum(math.ceil(len(_turn(message).content) / 4) for message in messages)

    def remaining_tokens(self, messages: Sequence[LLMMessage], *, tools: Sequence[Tool | ToolSchema] = ()) -> int:
        """Not known here; the engine refuses what is too long."""
        return 1_000_000 - self.count_tokens(messages)

    @property
    def capabilities(self) -> ModelCapabilities:
        """AutoGen's old name for `model_info`."""
        return {"vision": False, "function_calling": False, "json_output": False}

    @property
    def model_info(self) -> ModelInfo:
        """Text only."""
        return _INFO


def _turn(message: LLMMessage) -> Turn:
    if isinstance(message, SystemMessage):
        return Turn("system", message.content)
    if isinstance(message, UserMessage):
        if not isinstance(message.content, str):
            raise TypeError("LedgerChatClient reads text only: a message holds an image")
        return Turn("user", f"{message.source}: {message.content}" if message.source else message.content)
    if isinstance(message, AssistantMessage) and isinstance(message.content, str):
        return Turn("assistant", message.content)
    raise TypeError("LedgerChatClient reads text only: a message holds a tool call")
