"""Replies written down beforehand: a language model for tests, and for trying a scenario without one.

A prompt that the script does not know fails loudly: the reply is `failed` and its error quotes the prompt.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Callable, Iterable

from pydantic import Field, field_validator

from lbt_sim.models.base import ChatRequest, ModelInfo, Reply
from lbt_sim.models.limits import Gate, in_completion_order
from lbt_sim.scenario.schema import Spec

__all__ = ["ScriptedModel", "ScriptedSpec"]

IN_FLIGHT = 64

Handler = Callable[[ChatRequest], Reply | str]


class ScriptedSpec(Spec):
    """Options of the engine `scripted`."""

    replies: list[str] | dict[str, str] = Field(default_factory=list)
    """A list: the replies in the order of the calls. A mapping: a purpose (`answer`, `reflect`, …), or a regular
    expression that is searched in the prompt's last turn -> the reply; the first that fits is given."""
    delay: float = Field(default=0.0, ge=0.0, le=60.0)
    """Seconds that each call takes."""

    @field_validator("replies")
    @classmethod
    def _patterns(cls, value: list[str] | dict[str, str]) -> list[str] | dict[str, str]:
        for pattern in value if isinstance(value, dict) else ():
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
        return value


class ScriptedModel:
    """Answers by a `ScriptedSpec`, or by a function of the request.

    Attributes:
        requests: Every request so far, in order of arrival.
    """

    reads_facts = False

    def __init__(self, script: ScriptedSpec | Handler, *, delay: float = 0.0) -> None:
        self.requests: list[ChatRequest] = []
        self._gate = Gate(IN_FLIGHT)
        if isinstance(script, ScriptedSpec):
            text = json.dumps(script.replies)
            self._identity = f"scripted:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"
            self._handler = _handler(script)
            self._delay = script.delay or delay
        else:
            self._identity = "scripted:handler"
            self._handler = script
            self._delay = delay

    async def ready(self) -> ModelInfo:
        """Always is."""
        return ModelInfo(self._identity, {"context": None})

    async def create(self, request: ChatRequest) -> Reply:
        """The script's reply. An exception of a handler written in Python is the test's own and is raised."""
        self.requests.append(request)
        reply = self._handler(request)
        if self._delay:
            await asyncio.sleep(self._delay)
        return Reply(reply) if isinstance(reply, str) else reply

    def create_many(self, requests: Iterable[ChatRequest]) -> AsyncIterator[tuple[int, Reply]]:
        """As `create`, `IN_FLIGHT` at a time."""
        return in_completion_order(self.create, requests, self._gate)

    async def close(self) -> None:
        """Nothing to close."""


def _handler(script: ScriptedSpec) -> Handler:
    if isinstance(script.replies, dict):
        rules = [(key, re.compile(key), reply) for key, reply in script.replies.items()]

        def by_rule(request: ChatRequest) -> Reply | str:
            for key, pattern, reply in rules:
                if key == request.purpose or pattern.search(request.last):
                    return reply
            return _unexpected(request, "no rule of the script fits")

        return by_rule

    rest = iter(script.replies)

    def in_order(request: ChatRequest) -> Reply | str:
        reply = next(rest, None)
        if reply is None:
            return _unexpected(request, f"the script's {len(script.replies)} replies are used up")
        return reply

    return in_order


def _unexpected(request: ChatRequest, why: str) -> Reply:
    return Reply("", "failed", error=f"{why}: {request.path} ({request.purpose}) asked {request.last[:200]!r}")
