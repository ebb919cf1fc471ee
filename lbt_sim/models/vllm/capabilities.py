"""What a vLLM server can, found out once when it is up, by asking it for each thing in the smallest way.

Versions differ. A server that lacks something is asked in another way (`ask.py`), with the same answers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from secrets import token_hex
from typing import Any

from lbt_sim.models import completions
from lbt_sim.models.replica import Failure
from lbt_sim.models.vllm.metrics import block_size, read_metrics

__all__ = ["Capabilities", "Post", "Thinking", "probe"]

Post = Callable[[str, Mapping[str, Any] | None], Awaitable[Any]]
"""One attempt: (path below the root, body or None for GET) -> JSON, of `/metrics` its text. Raises `Failure`."""

_HELLO = [{"role": "user", "content": "Hello"}]
_SWITCHES = ("enable_thinking", "thinking")
"""Keywords of chat templates: Qwen's and most others', and that of DeepSeek and Granite. What a template does without
being told is left as it is: where it thinks only when told to, there is nothing to switch off."""
_TAIL = 8
"""Tokens at a rendered prompt's end in which a template may open a thought."""


@dataclass(frozen=True, slots=True)
class Thinking:
    """Whether the model's chat template lets it think, and whether that can be switched off.

    Attributes:
        switch: The template's keyword that keeps the model from thinking when it is false; '' without one.
        forced: The rendered prompt ends inside a thought that cannot be switched off.
    """

    switch: str = ""
    forced: bool = False


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What one server can.

    Attributes:
        version: vLLM's version; '' where it is not told.
        context: Tokens that prompt and reply may have together; None where it is not told.
        batches: `/v1/chat/completions/batch` is there.
        named_logprobs: `logprob_token_ids` gives the log-probabilities of the tokens that are named.
        token_ids: Tokens can be told as ids (`return_tokens_as_token_ids`).
        structured: Replies can be constrained to choices.
        counts: `/tokenize` counts a chat prompt's tokens.
        samples: n samples of one prompt come from one request.
        shares_in_flight: A prefix that one call is computing serves the others at once, so that none need wait for it;
            None where that could not be seen.
        block: Tokens of a block of the prefix cache; None where it is not told.
        thinking: What its chat template does.
    """

    version: str = ""
    context: int | None = None
    batches: bool = False
    named_logprobs: bool = False
    token_ids: bool = False
    structured: bool = False
    counts: bool = False
    samples: bool = False
    shares_in_flight: bool | None = None
    block: int | None = None
    thinking: Thinking = Thinking()

    def as_data(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)

    def serves_as(self, other: Capabilities) -> bool:
        """Whether what is asked of one that can `other` may be asked of this one."""
        mine, others = self.as_data(), other.as_data()
        asked = ("batches", "named_logprobs", "token_ids", "structured", "counts", "samples")
        fits = self.context is None or (other.context is not None and self.context >= other.context)
        return fits and self.thinking == other.thinking and all(mine[key] or not others[key] for key in asked)

    def shared_with(self, other: Capabilities) -> Capabilities:
        """What two replicas both can: a call may go to either."""
        mine, theirs = self.as_data(), other.as_data()
        both = {key: mine[key] and theirs[key] for key in mine if isinstance(mine[key], bool)}
        both |= {"shares_in_flight": self.shares_in_flight and other.shares_in_flight}
        contexts = [value for value in (self.context, other.context) if value is not None]
        versions = sorted({self.version, other.version})
        return Capabilities(
            **both | {"version": ", ".join(versions), "context": min(contexts, default=None), "block": self.block},
            thinking=Thinking(
                self.thinking.switch if self.thinking.switch == other.thinking.switch else "",
                self.thinking.forced or other.thinking.forced,
            ),
        )


async def probe(post: Post, model: str) -> Capabilities:
    """Ask a server what it can, for the model that it calls `model`.

    Raises:
        Failure: It cannot be reached at all.
    """
    models = await post("/v1/models", None)
    context = _context(models, model)
    version = await _tried(post, "/version", None)
    said = {"model": model, "messages": _HELLO, "max_tokens": 1, "temperature": 0}
    ids = await _first_ids(post, model)
    named = await _tried(post, "/v1/chat/completions", {**said, "logprobs": True, "logprob_token_ids": ids, **_AS_IDS})
    batch = {**said, "messages": [_HELLO, _HELLO], "logprobs": True, "top_logprobs": 1}
    structured = await _tried(
        post, "/v1/chat/completions", {**said, "max_tokens": 8, "structured_outputs": {"choice": ["yes", "no"]}}
    )
    samples = await _tried(post, "/v1/chat/completions", {**said, "temperature": 1, "n": 2, "seed": 0})
    rendered = await _rendered(post, model, {})
    answered = _tokens_of(named)
    batches = _choices(await _tried(post, "/v1/chat/completions/batch", batch)) == 2
    block = block_size(str(await _tried(post, "/metrics", None)))
    return Capabilities(
        version=completions.clean(str(version.get("version", "")))[:60] if isinstance(version, Mapping) else "",
        context=context,
        batches=batches,
        named_logprobs=bool(ids) and {f"token_id:{id_}" for id_ in ids} <= answered,
        token_ids=any(token.startswith("token_id:") for token in answered),
        structured=_text(structured) in ("yes", "no"),
        counts=rendered is not None,
        samples=_choices(samples) == 2,
        shares_in_flight=await _shares(post, said, block, context) if batches and block else None,
        block=block,
        thinking=await _thinking(post, model, rendered),
    )


_AS_IDS = {"top_logprobs": 2, "return_tokens_as_token_ids": True}


async def _tried(post: Post, path: str, body: Mapping[str, Any] | None) -> Any:
    """The answer, None where the server refuses or does not know the request."""
    try:
        return await post(path, body)
    except Failure as failure:
        if failure.status in (0, 502, 503):
            raise  # it is not there any more: that says nothing about what it can
        return None


def _context(models: Any, model: str) -> int | None:
    entries = models.get("data") if isinstance(models, Mapping) else None
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, Mapping) and entry.get("id") == model:
            length = entry.get("max_model_len")
            return length if isinstance(length, int) and length > 0 else None
    return None


async def _first_ids(post: Post, model: str) -> list[int]:
    """The ids of the tokens that begin two words."""
    ids = []
    for word in ("yes", "no"):
        told = await _tried(post, "/tokenize", {"model": model, "prompt": word, "add_special_tokens": False})
        tokens = told.get("tokens") if isinstance(told, Mapping) else None
        if not isinstance(tokens, list) or not tokens or not isinstance(tokens[0], int):
            return []
        ids.append(tokens[0])
    return ids


async def _rendered(post: Post, model: str, kwargs: Mapping[str, Any]) -> list[str] | None:
    """The tokens of a small chat prompt as the template renders it."""
    body = {"model": model, "messages": _HELLO, "return_token_strs": True}
    told = await _tried(post, "/tokenize", {**body, "chat_template_kwargs": dict(kwargs)} if kwargs else body)
    strings = told.get("token_strs") if isinstance(told, Mapping) else None
    if not isinstance(strings, list) or not all(isinstance(text, str) for text in strings):
        return None
    return strings


async def _thinking(post: Post, model: str, rendered: list[str] | None) -> Thinking:
    if rendered is None:
        return Thinking()
    for switch in _SWITCHES:
        off = await _rendered(post, model, {switch: False})
        if off is not None and off != rendered:
            return Thinking(switch, _opens(off))
    return Thinking("", _opens(rendered))


def _opens(rendered: list[str]) -> bool:
    """Whether a rendered prompt ends inside a thought."""
    tail = "".join(rendered[-_TAIL:])
    return "<think>" in tail and "</think>" not in tail.rpartition("<think>")[2]


async def _shares(post: Post, said: Mapping[str, Any], block: int, context: int | None) -> bool | None:
    """Whether two prompts that arrive together compute what they have in common once."""
    words = 3 * block  # at least as many tokens
    if context is not None and context < 2 * words:
        return None
    common = {"role": "system", "content": "one " * words}
    prompts = [[common, {"role": "user", "content": word}] for word in ("yes", "no")]
    before = read_metrics(str(await post("/metrics", None)))
    # A salt of its own: nothing of it is in the cache yet.
    told = await _tried(post, "/v1/chat/completions/batch", {**said, "messages": prompts, "cache_salt": token_hex(8)})
    if told is None:
        return None
    grown = read_metrics(str(await post("/metrics", None))).since(before)
    if not grown.computed or not grown.prompt_tokens:
        return None
    return grown.computed < 0.75 * grown.prompt_tokens


def _choices(answer: Any) -> int:
    choices = answer.get("choices") if isinstance(answer, Mapping) else None
    return len(choices) if isinstance(choices, list) else 0


def _text(answer: Any) -> str | None:
    try:
        return completions.read_completion(answer).text if answer is not None else None
    except completions.Malformed:
        return None


def _tokens_of(answer: Any) -> set[str]:
    """The first position's tokens, as the server tells them."""
    try:
        return {token for token, _ in completions.top_logprobs(answer) or ()} if answer is not None else set()
    except completions.Malformed:
        return set()
