"""Between requests and replies and the ledger's rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

from lbt_sim.ledger import StoredCall, at_server
from lbt_sim.models.base import CallPath, ChatRequest, Finish, ModelInfo, Reply

__all__ = ["Batch", "as_row", "from_row", "received"]


class Batch:
    """Requests on their way to replies."""

    def __init__(self, requests: Sequence[ChatRequest], info: ModelInfo) -> None:
        self.requests = requests
        self.answerer = at_server(info.identity, info.server)
        """Who answers, and where: equal calls share a reply where this is equal too."""
        self.replies: list[Reply | None] = [None] * len(requests)
        self.open = list(range(len(requests)))
        self.counted = 0
        self.written = [False] * len(requests)
        """Which of them this process has put into the ledger."""
        self._identity = info.identity
        self._keys: list[bytes | None] = [None] * len(requests)

    def key(self, index: int) -> bytes:
        """The content's key, made once."""
        found = self._keys[index]
        if found is None:
            found = self._keys[index] = self.requests[index].key(self._identity)
        return found

    def content(self, index: int) -> tuple[str, bytes]:
        """What calls that may share a reply have in common: who answers, and the key."""
        return self.answerer, self.key(index)

    def reply(self, index: int) -> Reply:
        """A reply that is in."""
        reply = self.replies[index]
        if reply is None:
            raise RuntimeError(f"no reply for {self.requests[index].path}")
        return reply

    def unwritten(self) -> Iterator[CallPath]:
        """The paths that this process has put nothing at."""
        return (request.path for request, written in zip(self.requests, self.written, strict=True) if not written)

    def complete(self) -> list[Reply]:
        """All replies, in the order of the requests."""
        return [self.reply(index) for index in range(len(self.replies))]


def received(request: ChatRequest, reply: Reply) -> Reply:
    """A model's reply as it will be read back: text that SQLite and UTF-8 can hold, and whether it was drawn.

    A prompt that was only counted has cost no tokens.
    """
    if request.purpose == "count":
        reply = replace(reply, prompt_tokens=None, cached_tokens=None, completion_tokens=None)
    return replace(_cleaned(reply), drawn=not request.deterministic)


def _cleaned(reply: Reply) -> Reply:
    """Lone surrogates become question marks."""
    parts = (reply.text, reply.reasoning, reply.error)
    if all(part is None or _whole(part) for part in parts):
        return reply
    text, reasoning, error = (None if part is None else part.encode("utf-8", "replace").decode() for part in parts)
    return replace(reply, text=text or "", reasoning=reasoning, error=error)


def _whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def as_row(batch: Batch, index: int, *, shared: bool) -> StoredCall:
    """A request and its reply as the ledger keeps them."""
    request, reply = batch.requests[index], batch.reply(index)
    path: CallPath = request.path
    return StoredCall(
        *path,
        batch.key(index),
        int(shared),
        batch.answerer,
        request.purpose,
        request.sampling.text,
        _choices(request.choices),
        request.head.digest,
        request.head.json,
        request.last,
        None if request.deterministic else request.seed,
        reply.text,
        reply.finish,
        None if reply.choice_logprobs is None else json.dumps(reply.choice_logprobs),
        reply.prompt_tokens,
        reply.cached_tokens,
        reply.completion_tokens,
        reply.reasoning,
        reply.error,
        reply.seconds,
    )


@lru_cache(maxsize=1024)
def _choices(choices: tuple[str, ...]) -> str:
    return json.dumps(choices)


def from_row(call: StoredCall) -> Reply:
    """The reply of a recorded call."""
    finish: Finish = call.finish  # type: ignore[assignment]
    return Reply(
        text=call.text,
        finish=finish,
        choice_logprobs=None if call.logprobs is None else tuple(json.loads(call.logprobs)),
        prompt_tokens=call.prompt_tokens,
        cached_tokens=call.cached_tokens,
        completion_tokens=call.completion_tokens,
        reasoning=call.reasoning,
        error=call.error,
        transient=call.finish == "failed",
        seconds=call.seconds,
        drawn=call.seed is not None,
    )
