"""Reading a chat completion as OpenAI-compatible servers (and llama.cpp) write it: from JSON to a `Reply`.

A server's answer is foreign data: every access checks what it finds, nothing is taken on trust.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from lbt_sim.models.base import Finish, Reply

__all__ = [
    "Malformed",
    "by_index",
    "clean",
    "counted_with",
    "read_completion",
    "server_error",
    "top_logprobs",
    "usage_count",
]

_FAR = 1e300
"""No log-probability is so large; nor does it compare with what is no number."""
_DIRT = re.compile("[\x00\ud800-\udfff]")
_THINK = re.compile(r"\s*<think>(.*?)(?:</think>\s*|\Z)", re.DOTALL)


class Malformed(Exception):
    """The answer is JSON, but not a chat completion."""


def clean(text: str) -> str:
    """The text without what no file, database or terminal takes: NUL and lone surrogates become U+FFFD."""
    return text if text.isprintable() else _DIRT.sub("\ufffd", text)


def read_completion(data: object) -> Reply:
    """The reply that a chat completion holds: its first choice, reasoning kept apart, tokens counted.

    Raises:
        Malformed: It is not a chat completion.
    """
    choice = _choice(data)
    message = choice.get("message")
    if not isinstance(message, Mapping):
        raise Malformed("the choice holds no message")
    text, reasoning = _reasoning(message, _text(message.get("content")))
    finish: Finish = "length" if choice.get("finish_reason") == "length" else "stop"
    usage = _usage(data)
    details = usage.get("prompt_tokens_details")
    return Reply(
        text,
        finish,
        prompt_tokens=_count(usage.get("prompt_tokens")),
        cached_tokens=_count(details.get("cached_tokens")) if isinstance(details, Mapping) else None,
        completion_tokens=_count(usage.get("completion_tokens")),
        reasoning=reasoning,
    )


def top_logprobs(data: object) -> list[tuple[str, float]] | None:
    """(token, log-probability) of the likeliest first tokens; None where the server gave none.

    Values that are no numbers (NaN arrives as null) are left out.

    Raises:
        Malformed: It is not a chat completion.
    """
    found = _choice(data).get("logprobs")
    content = found.get("content") if isinstance(found, Mapping) else None
    if not isinstance(content, list) or not content or not isinstance(content[0], Mapping):
        return None
    top = content[0].get("top_logprobs")
    if not isinstance(top, list) or not top:
        return None
    return [
        (entry["token"], float(entry["logprob"]))
        for entry in top
        if isinstance(entry, Mapping)
        and isinstance(entry.get("token"), str)
        and isinstance(entry.get("logprob"), (int, float))
        and -_FAR < entry["logprob"] < _FAR
    ]


def by_index(data: object, count: int) -> list[Mapping[str, Any]]:
    """The choices of an answer that holds `count` of them, in the order of their indices.

    Raises:
        Malformed: One is missing or there twice.
    """
    _choice(data)
    choices = data["choices"] if isinstance(data, Mapping) else []
    found = {
        choice["index"]: choice
        for choice in choices
        if isinstance(choice, Mapping) and isinstance(choice.get("index"), int)
    }
    if len(choices) != count or set(found) != set(range(count)):
        raise Malformed(f"it holds {len(choices)} choices, {len(found)} of them different, for {count} asked")
    return [found[index] for index in range(count)]


def usage_count(data: object, key: str) -> int | None:
    """A count under `usage`, None where it is not told."""
    return _count(_usage(data).get(key))


def _usage(data: object) -> Mapping[str, Any]:
    usage = data.get("usage") if isinstance(data, Mapping) else None
    return usage if isinstance(usage, Mapping) else {}


def counted_with(reply: Reply, earlier: Iterable[Reply]) -> Reply:
    """The reply, with the tokens of the attempts before it added: they were paid for too."""
    for other in earlier:
        reply = replace(
            reply,
            prompt_tokens=_total(reply.prompt_tokens, other.prompt_tokens),
            cached_tokens=_total(reply.cached_tokens, other.cached_tokens),
            completion_tokens=_total(reply.completion_tokens, other.completion_tokens),
        )
    return reply


def _total(a: int | None, b: int | None) -> int | None:
    return None if a is None and b is None else (a or 0) + (b or 0)


def server_error(data: object) -> str | None:
    """The message of an error that a server sent as JSON, shortened; None where there is none."""
    if not isinstance(data, Mapping):
        return None
    error = data.get("error", data)
    message = error.get("message") or error.get("detail") if isinstance(error, Mapping) else error
    return clean(message)[:500] if isinstance(message, str) and message else None


def _choice(data: object) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise Malformed("it is not a JSON object")
    choices = data.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], Mapping):
        raise Malformed(server_error(data) or "it holds no choices")
    return choices[0]


def _text(content: object) -> str:
    """Content is a string, null (nothing was said), or a list of parts."""
    if content is None:
        return ""
    if isinstance(content, list):
        content = "".join(
            part["text"] for part in content if isinstance(part, Mapping) and isinstance(part.get("text"), str)
        )
    if not isinstance(content, str):
        raise Malformed(f"the message's content is {type(content).__name__}, not text")
    return clean(content)


def _reasoning(message: Mapping[str, Any], text: str) -> tuple[str, str | None]:
    """Split thinking from the answer: a field of its own, or `<think>…</think>` at the start of the text."""
    for key in ("reasoning_content", "reasoning"):
        apart = message.get(key)
        if isinstance(apart, str) and apart:
            return text, clean(apart)
    if found := _THINK.match(text):
        return text[found.end() :], found[1].strip()
    return text, None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53 else None
