"""The contract between the classroom and any language model: a request, a reply, and `ChatModel`.

A prompt is a *head* (system turn, material, notes: what a whole exam shares, byte-identical) and a last turn
(the item). Engines with a prefix cache compute a head once; the ledger stores it once.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal, NamedTuple, Protocol

__all__ = [
    "CallPath",
    "ChatModel",
    "ChatRequest",
    "Finish",
    "Head",
    "ModelInfo",
    "Purpose",
    "Reply",
    "Sampling",
    "Turn",
]

Purpose = Literal[
    "answer", "ask", "reply", "discuss", "pass_on", "summarise", "write", "reflect", "rewrite", "repair", "choose",
    "set_exam", "judge", "chat", "count",
]  # fmt: skip
"""What a call is for. Rule-based engines decide by it what to do; language models never see it.

`count` asks the engine, not the model: the reply's text is the number of tokens that the prompt has as the model would
be given it, chat template included, in decimal. Only engines that say so (`ModelInfo.counts_tokens`) are asked.
"""

Finish = Literal["stop", "length", "failed"]


class CallPath(NamedTuple):
    """Where in the run a call stands: its identity in the ledger.

    `step` may have parts of its own (`select/<material>`); `item` is a problem id or ''.
    """

    round: int
    step: str
    agent: str
    item: str = ""
    sample: int = 0

    def __str__(self) -> str:
        tail = f"/{self.item}" if self.item else ""
        return f"r{self.round}/{self.step}/{self.agent}{tail}" + (f"#{self.sample}" if self.sample else "")


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Head:
    """The turns that many requests share, with a digest computed once.

    `learner` describes the speaker to rule-based engines (traits as JSON); language models never see it.
    """

    turns: tuple[Turn, ...]
    learner: str = ""
    digest: bytes = field(init=False, repr=False, compare=False)
    json: str = field(init=False, repr=False, compare=False)
    """[[role, content], …], as the ledger keeps it."""

    def __post_init__(self) -> None:
        text = json.dumps([[turn.role, turn.content] for turn in self.turns], ensure_ascii=False)
        object.__setattr__(self, "json", text)
        digest = blake2b(f"{self.learner}\x00{text}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
        object.__setattr__(self, "digest", digest)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a reply is drawn. temperature 0 is greedy: such a call is deterministic and may be shared."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    text: str = field(init=False, repr=False, compare=False)
    """As the ledger keeps it, written once for many requests."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", repr(self))


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One model call.

    Attributes:
        path: Its identity in the run.
        head: The turns shared with other requests, first in the prompt.
        last: The text of the final user turn.
        sampling: How the reply is drawn.
        seed: The engine's seed, in [0, 2**31); derived from the run's seed and `path`.
        choices: When not empty, the reply is to be one of these; engines that can, return the
            log-probability of each.
        purpose: What the call is for.
        facts: For writing steps, the values the prompt was rendered from. Rule-based engines read them in
            place of the text; they never hold anything that the text may not.
    """

    path: CallPath
    head: Head
    last: str
    sampling: Sampling
    seed: int
    choices: tuple[str, ...] = ()
    purpose: Purpose = "chat"
    facts: Mapping[str, Any] | None = None

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The whole prompt, as sent."""
        return (*self.head.turns, Turn("user", self.last))

    @property
    def deterministic(self) -> bool:
        """Whether equal requests have equal replies."""
        return self.sampling.temperature == 0.0

    def key(self, model: str) -> bytes:
        """16 bytes that stand for the content: model, turns, sampling, choices, and the seed where it matters."""
        seed = None if self.deterministic else self.seed
        content = (self.choices, self.purpose, seed, self.facts)
        # As repr of one tuple of all would write it; sampling is the slow part and the same for many requests.
        rest = f"({model!r}, {self.last!r}, {self.sampling.text}, {repr(content)[1:]}"
        return blake2b(self.head.digest + rest.encode("utf-8", "surrogatepass"), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back.

    Attributes:
        text: The reply; '' when the call failed.
        finish: 'stop', 'length' (cut off at max_tokens) or 'failed' (gave up; `error` says why).
        choice_logprobs: Natural-log probability of each of the request's choices, in their order, None
            for a choice the engine gave none for; None altogether where the engine gives none, or read the
            text since the choices had hardly any probability together.
        prompt_tokens: Tokens of the prompt, None where unknown.
        cached_tokens: Those of them that a prefix cache saved.
        completion_tokens: Tokens generated.
        reasoning: Thinking that a reasoning model kept apart from its answer.
        error: Why the call gave up.
        transient: Whether a later try may well succeed (server down, overloaded, timed out), in contrast to a
            request that can never be answered (prompt too long, refused). Only with finish 'failed'.
        seconds: Wall time of the call.
        drawn: Whether the text was drawn (temperature above 0), so that it need not be the likeliest choice. Set when
            the reply is recorded; engines need not.
    """

    text: str
    finish: Finish = "stop"
    choice_logprobs: tuple[float | None, ...] | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning: str | None = None
    error: str | None = None
    transient: bool = False
    seconds: float = 0.0
    drawn: bool = False


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What an engine found out about a model when it got ready; goes into the run's manifest.

    Attributes:
        identity: Engine, model and revision: part of every call's content key.
        detail: Versions, flags, file hashes: whatever says what exactly answered. Two keys mean the same for every
            engine: `context`, the tokens that prompt and reply may have together (None: there is no limit; without
            the key it is not known), and `counts_tokens`, whether calls for the purpose `count` are answered.
        server: Where it answers, for engines that only know what a server calls its model: addresses, without
            credentials. Two servers may call different weights by one name, so equal calls share a reply only where
            this is equal too. It is not part of the identity: a run goes on when its server has moved.
    """

    identity: str
    detail: Mapping[str, Any] = field(default_factory=dict)
    server: str = ""

    @property
    def context(self) -> int | None:
        """Tokens that prompt and reply may have together; None where there is no limit, or it is not known."""
        said = self.detail.get("context")
        return said if isinstance(said, int) else None

    @property
    def unlimited(self) -> bool:
        """Whether the engine says that no prompt is too long for it."""
        return "context" in self.detail and self.detail["context"] is None

    @property
    def counts_tokens(self) -> bool:
        """Whether the engine answers calls for the purpose `count`."""
        return self.detail.get("counts_tokens") is True


class ChatModel(Protocol):
    """A model that can be talked to. One object per entry under `models:` in a scenario.

    Contract: `ready` is awaited once before any call and raises `ModelUnavailable` with a remedy. `create` and
    `create_many` never raise for a call that gave up: they return a `Reply` with finish 'failed' and an error.
    An engine that starts servers itself raises `ServerLost` when one of them cannot be brought back: that is no call
    that gave up, and nobody is charged for it. Cancelling is allowed at any await. `create_many` yields (index, reply)
    in order of completion, each index exactly once, and keeps to the engine's own limit of calls in flight: it takes
    the next request from the iterable only when it has room for it, so that whoever feeds it can stop feeding and let
    the rest finish.
    """

    reads_facts: bool
    """Whether the engine is rule-based and wants `ChatRequest.facts` and `Head.learner`."""

    async def ready(self) -> ModelInfo:
        """Gets ready: weights loaded, server reached."""
        ...

    async def create(self, request: ChatRequest) -> Reply:
        """Answers one request."""
        ...

    def create_many(self, requests: Iterable[ChatRequest]) -> AsyncIterator[tuple[int, Reply]]:
        """Answers many, as many at a time as the engine can."""
        ...

    async def close(self) -> None:
        """Frees everything; nothing is left running."""
        ...
