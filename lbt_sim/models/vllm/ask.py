"""How requests are put to a vLLM server, and how what comes back is read. Pure functions: bodies and replies.

A request with choices is answered by one of them, on every way that a server may know:

- `look`: one token is generated and the log-probabilities of the tokens that begin each choice are read. They are
  exact where the server gives those of named tokens; else they are looked for among its likeliest.
- `constrain`: the reply is held to the choices while it is generated, where one token cannot tell them apart.
- `text`: the model writes freely, and whoever grades reads it: where a server can neither, and for models that cannot
  but think first.

The way depends on the request and the server alone, and the shape (alone, in a batch, as one of n samples) changes
nothing of what is asked: a run that was resumed, or grouped otherwise, asks the same.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

from lbt_sim.models import completions, labels
from lbt_sim.models.base import ChatRequest, Reply
from lbt_sim.models.vllm.capabilities import Capabilities

__all__ = [
    "Choices",
    "Shape",
    "Way",
    "body_of",
    "first_token",
    "most_tokens",
    "read_alone",
    "read_batch",
    "read_samples",
    "reply_tokens",
    "together",
    "way_of",
]

Way = Literal["look", "constrain", "text", "count"]
Shape = Literal["alone", "batch", "samples"]

TOP = 20
"""Likeliest first tokens that are asked for where named ones cannot be: vLLM's default allows no more."""
MOST_NAMED = 128
"""Tokens whose log-probabilities vLLM tells by name."""
THOUGHT = 2048
"""Tokens that a model which cannot but think gets on top for a label."""
_PER_TURN, _PER_PROMPT = 16, 128  # some templates put in a system turn of their own
_CLOSED = re.compile(r"^(.*)</think>\s*", re.DOTALL)
_ID = "token_id:"
_SPACES = "\u0120\u2581\u010a \t\n"
"""As tokenizers write white space: byte-level ones, SentencePiece, and those that write it as it is."""


@dataclass(frozen=True, slots=True)
class Choices:
    """The choices of a request as the model's tokenizer sees them.

    Attributes:
        texts: The choices.
        apart: Whether their first tokens tell them apart.
        ids: The tokens that begin each, and no other; None where the tokenizer is out of reach.
    """

    texts: tuple[str, ...]
    apart: bool
    ids: tuple[tuple[int, ...], ...] | None = None

    @classmethod
    def of(cls, texts: tuple[str, ...], ids: Sequence[int | None] | None, spaced: Sequence[int | None] = ()) -> Choices:
        """Choices that begin with the tokens `ids`, and with `spaced` after a space; None where the server tells none.

        A space before a choice changes nothing (`labels.read_choices`). Such a token counts where it begins one choice
        alone, and only while all of them can be named together.
        """
        known = [id_ for id_ in ids or () if id_ is not None]
        if len(known) < len(texts):
            return cls(texts, labels.distinct(texts))
        uses = Counter([*known, *spaced])
        others = [() if id_ is None or uses[id_] > 1 else (id_,) for id_ in spaced or [None] * len(known)]
        if len(known) + sum(map(len, others)) > MOST_NAMED:
            others = [()] * len(known)
        every = tuple((id_, *more) for id_, more in zip(known, others, strict=True))
        return cls(texts, len(set(known)) == len(known), every)


def way_of(request: ChatRequest, choices: Choices | None, can: Capabilities) -> Way:
    """How a request is asked."""
    if request.purpose == "count":
        return "count"
    if choices is None or can.thinking.forced:
        return "text"
    if choices.apart and not (can.named_logprobs and choices.ids is not None and len(choices.ids) > MOST_NAMED):
        return "look"
    return "constrain" if can.structured else "text"


def together(group: Sequence[ChatRequest], other: ChatRequest, way: Way, can: Capabilities) -> Shape | None:
    """How `other` may go out in one request with a group; None: not at all.

    A batch has one seed and one way to draw, so it is for calls whose reply does not depend on the server's seed:
    greedy ones, and labels, which are drawn here. Samples of one prompt have seeds that follow each other.
    """
    first = group[0]
    if first.head.digest != other.head.digest or first.sampling != other.sampling or first.choices != other.choices:
        return None
    if way == "count" or first.purpose != other.purpose:
        return None
    if can.batches and (way == "look" or first.deterministic):
        return "batch"
    if can.samples and first.last == other.last and other.seed == group[-1].seed + 1:
        return "samples"
    return None


def body_of(
    requests: Sequence[ChatRequest],
    written: Sequence[bytes],
    way: Way,
    choices: Choices | None,
    can: Capabilities,
    *,
    thinking: bool = True,
    shape: Shape = "alone",
    salt: str | None = None,
) -> bytes:
    """The body without its opening brace and model, which are the replica's (`Replica.start`).

    Args:
        requests: One, or several that go `together`.
        written: Each one's messages as JSON, without the list's brackets.
        way: How they are asked.
        choices: Their choices.
        can: What the server can.
        thinking: Whether a reasoning model may think before it writes.
        shape: How they are put together.
        salt: A name for a prefix cache of its own.
    """
    first = requests[0]
    if way == "count":
        rest: dict[str, Any] = {"add_generation_prompt": True}
    elif way == "look":
        # At temperature 0 the likeliest token is generated: at any other a rare one might take another's place.
        rest = {"temperature": 0, "max_tokens": 1, "logprobs": True}
        if choices is not None and choices.ids is not None and can.token_ids:
            rest |= {"return_tokens_as_token_ids": True}
            named = [id_ for ids in choices.ids for id_ in ids]
            rest |= {"logprob_token_ids": named, "top_logprobs": 1} if can.named_logprobs else {}
        rest.setdefault("top_logprobs", TOP)
    else:
        rest = _drawn(first, way, choices, can)
        if shape != "alone":
            rest["return_token_ids"] = True  # else nobody could tell how many tokens each reply has
        if shape == "samples":
            rest["n"] = len(requests)
    if can.thinking.switch and (first.choices or not thinking):
        rest["chat_template_kwargs"] = {can.thinking.switch: False}
    if salt is not None:
        rest["cache_salt"] = salt
    messages = b",".join(b"[" + one + b"]" for one in written) if shape == "batch" else written[0]
    return b"".join((b'"messages":[', messages, b"],", json.dumps(rest).encode()[1:]))


def _drawn(first: ChatRequest, way: Way, choices: Choices | None, can: Capabilities) -> dict[str, Any]:
    sampling = first.sampling
    rest: dict[str, Any] = {"temperature": sampling.temperature, "max_tokens": sampling.max_tokens, "seed": first.seed}
    # All told: what is not, a server takes from the model's own generation_config.json.
    rest |= {"top_p": sampling.top_p, "top_k": sampling.top_k or -1, "min_p": 0.0, "repetition_penalty": 1.0}
    if sampling.stop:
        rest["stop"] = list(sampling.stop)
    if choices is not None:
        # No limit may cut a choice short, nor the thought before it.
        longest = max(len(choice.encode("utf-8", "replace")) for choice in choices.texts)
        rest["max_tokens"] = max(sampling.max_tokens, longest + 2)
        if way == "constrain":
            rest["structured_outputs"] = {"choice": list(choices.texts)}
        elif can.thinking.forced:
            rest["max_tokens"] += THOUGHT
    return rest


# --- lengths ----------------------------------------------------------------------------------------------


def reply_tokens(request: ChatRequest, can: Capabilities) -> int:
    """Tokens that the reply may have: a model that cannot but think has more of them for a label."""
    return request.sampling.max_tokens + (THOUGHT if request.choices and can.thinking.forced else 0)


def most_tokens(request: ChatRequest, head: int | None = None) -> int:
    """A number of tokens that the prompt has at most.

    Tokenizers of language models work on bytes, so a text has no more tokens than bytes; what a chat template puts
    around a turn is a few more.

    Args:
        request: The request.
        head: Tokens of some prompt with the same head, where known: it holds the head's own.
    """
    last = len(request.last.encode("utf-8", "replace")) + _PER_TURN
    if head is not None:
        return head + last
    turns = sum(len(turn.content.encode("utf-8", "replace")) + _PER_TURN for turn in request.head.turns)
    return turns + last + _PER_PROMPT


# --- reading ----------------------------------------------------------------------------------------------


def read_alone(data: Any, request: ChatRequest, way: Way, choices: Choices | None, can: Capabilities) -> Reply | None:
    """The reply to one request; None where no choice can be read that way.

    Raises:
        Malformed: It is not what was asked for.
    """
    if way == "count":
        return _counted(data)
    reply = completions.read_completion(data)
    return _read(data, reply, request, way, choices, can)


def read_batch(
    data: Any, requests: Sequence[ChatRequest], way: Way, choices: Choices | None, can: Capabilities
) -> list[Reply | None]:
    """The replies of a batch, in the order of the requests.

    The server tells the prompts' tokens of a whole batch alone: each reply gets its share of them by its prompt's
    length, so that sums are right. What a prefix cache saved is told of the server as a whole (`metrics.py`).

    Raises:
        Malformed: Choices are missing, twice there, or not what was asked for.
    """
    by_index = completions.by_index(data, len(requests))
    prompts = _shares(completions.usage_count(data, "prompt_tokens"), [most_tokens(request) for request in requests])
    replies: list[Reply | None] = []
    for request, choice, tokens in zip(requests, by_index, prompts, strict=True):
        one = {"choices": [choice]}
        reply = replace(
            completions.read_completion(one), prompt_tokens=tokens, completion_tokens=_generated(choice, way)
        )
        replies.append(_read(one, reply, request, way, choices, can))
    return replies


def read_samples(
    data: Any, requests: Sequence[ChatRequest], way: Way, choices: Choices | None, can: Capabilities
) -> list[Reply | None]:
    """The replies of n samples of one prompt, whose tokens were computed once.

    Raises:
        Malformed: Choices are missing, twice there, or not what was asked for.
    """
    by_index = completions.by_index(data, len(requests))
    prompt = completions.usage_count(data, "prompt_tokens")
    replies: list[Reply | None] = []
    for number, (request, choice) in enumerate(zip(requests, by_index, strict=True)):
        one = {"choices": [choice]}
        reply = replace(
            completions.read_completion(one),
            prompt_tokens=prompt,
            cached_tokens=prompt if number else None,
            completion_tokens=_generated(choice, way),
        )
        replies.append(_read(one, reply, request, way, choices, can))
    return replies


def _read(
    data: Any, reply: Reply, request: ChatRequest, way: Way, choices: Choices | None, can: Capabilities
) -> Reply | None:
    if way == "look" and choices is not None:
        top = completions.top_logprobs(data)
        found = _found(top, choices, can) if top else None
        if found is None:
            return None
        text = labels.pick(choices.texts, found, request.sampling.temperature, request.seed)
        return replace(reply, text=text, finish="stop", choice_logprobs=found)
    if can.thinking.forced:
        return _after_thought(reply)
    return reply


def _found(top: Sequence[tuple[str, float]], choices: Choices, can: Capabilities) -> tuple[float | None, ...] | None:
    """The log-probability of each choice's first tokens, None for those that the server did not tell."""
    if choices.ids is None or not can.token_ids:
        return labels.read_choices(top, choices.texts)
    # No probability is above 1, whatever a server says.
    told = {token: min(value, 0.0) for token, value in top if not math.isnan(value)}
    values = [[told[name] for id_ in ids if (name := f"{_ID}{id_}") in told] for ids in choices.ids]
    found = tuple(labels.total(some) if some else None for some in values)
    return None if all(value is None for value in found) else found


def _after_thought(reply: Reply) -> Reply:
    """Keeps apart the thought that the prompt itself opened, so that the reply only closes it."""
    if reply.reasoning is not None:
        return reply
    if closed := _CLOSED.match(reply.text):
        return replace(reply, text=reply.text[closed.end() :], reasoning=closed[1].strip())
    if reply.finish == "length":  # cut off while it was thinking: nothing was said
        return replace(reply, text="", reasoning=reply.text.strip())
    return reply


def first_token(told: Any, text: str) -> int | None:
    """The token that begins `text`, as `/tokenize` tells with `return_token_strs`; None where it does not.

    Nor is there one where `text` begins with a space that is a token of its own: it begins everything else, too.
    """
    tokens, strings = (told.get(key) if isinstance(told, Mapping) else None for key in ("tokens", "token_strs"))
    if not isinstance(tokens, list) or not tokens or not isinstance(tokens[0], int):
        return None
    if text.startswith(" "):
        string = strings[0] if isinstance(strings, list) and strings else None
        if not isinstance(string, str) or not string.strip(_SPACES):
            return None
    return tokens[0]


def _counted(data: Any) -> Reply:
    count = data.get("count") if isinstance(data, Mapping) else None
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise completions.Malformed("it tells no count of tokens")
    return Reply(str(count), prompt_tokens=0, completion_tokens=0)


def _generated(choice: Mapping[str, Any], way: Way) -> int | None:
    ids = choice.get("token_ids")
    return 1 if way == "look" else len(ids) if isinstance(ids, list) else None


def _shares(total: int | None, weights: Sequence[int]) -> list[int | None]:
    """`total` dealt out by weight, in whole numbers that sum up to it."""
    if total is None:
        return [None] * len(weights)
    whole, bounds, run = sum(weights) or 1, [0], 0
    for weight in weights:
        run += weight
        bounds.append(total * run // whole)
    return [after - before for before, after in pairwise(bounds)]
