"""Requests that were understood or refused, and log-probabilities and errors as they are told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from .answers import FORBIDDEN, Draw, Reply
from .tokens import KEPT, THINK, Prompt, decode, share

Json = dict[str, Any]


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, message: str, kind: str = "BadRequestError", param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": status}}


@dataclass(frozen=True, slots=True)
class Asked:
    """A chat request that was understood."""

    prompts: list[Prompt]
    draw: Draw
    n: int
    logprobs: bool
    top: int
    named: tuple[int, ...]
    as_ids: bool
    tell_ids: bool


_bytes: dict[int, list[int]] = {}


def _entry(token: int, logprob: float, *, as_id: bool, main: bool) -> Json:
    """One token's log-probability; of alternatives that read `token_id:…` vLLM tells the bytes of that text."""
    text = f"token_id:{token}" if as_id else decode(token)
    if as_id and not main:
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}
    told = _bytes.get(token)
    if told is None:
        if len(_bytes) >= KEPT:
            _bytes.clear()
        told = _bytes[token] = list(decode(token).encode("utf-8", "replace"))
    return {"token": text, "logprob": logprob, "bytes": told}


def position(reply: Reply, place: int, asked: Asked, prompt: Prompt) -> Json:
    """The log-probabilities at one position: the token's own, then those asked for by name, or the likeliest."""
    token = reply.tokens[place]
    of, known = _distribution(reply, place, prompt)
    if asked.named:
        others: Iterable[int] = asked.named
    else:
        others = sorted(known, key=known.__getitem__, reverse=True) if asked.top else ()
    shown = list(dict.fromkeys((token, *others)))
    if not asked.named:
        shown = shown[: asked.top]
    entry = _entry(token, of(token), as_id=asked.as_ids, main=True)
    entry["top_logprobs"] = [_entry(id_, of(id_), as_id=asked.as_ids, main=False) for id_ in shown]
    return entry


def _distribution(reply: Reply, place: int, prompt: Prompt) -> tuple[Callable[[int], float], Mapping[int, float]]:
    """The log-probability of any token at a position, and those of the likeliest."""
    if place == len(reply.thought) and not reply.thought:
        if reply.allowed is not None:
            allowed = reply.allowed
            return lambda id_: allowed.get(id_, FORBIDDEN), allowed
        return reply.first.of, reply.first.known
    token = reply.tokens[place]
    own = -0.3 * share(prompt.digest, place, token)
    if token == THINK:  # it is about to think: no label comes first
        own = -0.001

    def of(id_: int) -> float:
        return own if id_ == token else reply.first.of(id_) - 8.0

    return of, {token: own, **{id_: of(id_) for id_ in reply.first.known if id_ != token}}


def loads(raw: bytes) -> Json:
    """A body that is a JSON object."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise Refused(400, "1 validation error: body: JSON decode error", "Bad Request", "body.1") from None
    if not isinstance(body, dict):
        raise Refused(400, "1 validation error: body: a JSON object is wanted", "Bad Request", "body")
    return body


def as_json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """An answer."""
    return web.Response(
        body=json.dumps(value).encode(), status=status, headers=headers, content_type="application/json"
    )


async def broken_off(request: web.BaseRequest, answer: bytes) -> web.StreamResponse:
    """Half of an answer, and then the connection breaks."""
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(answer))})
    await response.prepare(request)
    await response.write(answer[: len(answer) // 2])
    if request.transport is not None:
        request.transport.abort()
    return response
