"""Between requests and replies and the ledger's rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from lbt_sim.ledger import StoredCall
from lbt_sim.models.base import CallPath, ChatRequest, Finish, Reply

__all__ = ["Batch", "as_row", "cleaned", "from_row"]


class Batch:
    """Requests on their way to replies."""

    def __init__(self, requests: Sequence[ChatRequest], identity: str) -> None:
        self.requests = requests
        self.identity = identity
        self.replies: list[Reply | None] = [None] * len(requests)
        self.open = list(range(len(requests)))
        self.counted = 0
        self.failed: list[int] = []
        """Calls that gave up and count against the tolerance."""
        self._keys: list[bytes | None] = [None] * len(requests)

    def key(self, index: int) -> bytes:
        """The content's key, made once."""
        found = self._keys[index]
        if found is None:
            found = self._keys[index] = self.requests[index].key(self.identity)
        return found

    def reply(self, index: int) -> Reply:
        """A reply that is in."""
        reply = self.replies[index]
        if reply is None:
            raise RuntimeError(f"no reply for {self.requests[index].path}")
        return reply

    def complete(self) -> list[Reply]:
        """All replies, in the order of the requests."""
        return [self.reply(index) for index in range(len(self.replies))]


def cleaned(reply: Reply) -> Reply:
    """Text that SQLite and UTF-8 can hold: lone surrogates become question marks, now as when it is read back."""
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
        batch.identity,
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
    )
