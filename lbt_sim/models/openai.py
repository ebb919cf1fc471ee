"""Any OpenAI-compatible server (vLLM, SGLang, llama.cpp, Ollama, Ray Serve, a hosted one), or replicas of one.

Choices are read from first-token log-probabilities where the server gives them; a reply in which no choice can be found
that way is asked for again as text. Which way was taken depends on the request and the server alone, never on
what was answered before, so that a resumed run takes the same.
"""

from __future__ import annotations

import json
import os
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from hashlib import blake2b
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, PositiveInt, field_validator, model_validator

from lbt_sim.errors import ModelUnavailable, Place, nearest
from lbt_sim.models import completions, labels
from lbt_sim.models.base import ChatRequest, Head, ModelInfo, Reply
from lbt_sim.models.limits import Gates, in_completion_order
from lbt_sim.models.openai_transport import Limits, Transport
from lbt_sim.models.replica import Failure, Replica
from lbt_sim.scenario.schema import Spec

__all__ = ["OpenAIModel", "OpenAISpec", "address", "api_key"]

TOP = 20
"""First tokens that are asked for: the most that OpenAI's API and vLLM's default allow."""
RESERVED = frozenset({"messages", "model", "stream", "n", "seed", "logprobs", "top_logprobs"})
CHAT = "/chat/completions"
_PORTS = {"http": 80, "https": 443}


class OpenAISpec(Spec):
    """Options of the engine `openai`."""

    url: str | None = None
    """The server's base address, as for OpenAI's own client: `http://localhost:8000/v1`."""
    urls: list[str] = Field(default_factory=list)
    """In place of `url`: replicas, all serving the same model."""
    model: str
    """The name under which the server serves the model."""
    api_key_env: str | None = None
    """The environment variable that holds the API key; the key itself never stands in a file."""
    concurrency: PositiveInt = 32
    """Calls in flight at each replica, from all entries under `models:` that name it; the smallest limit holds."""
    timeout: float = Field(default=120.0, gt=0.0, le=86_400.0)
    """Seconds that an attempt may take, and that the server may be silent."""
    retries: int = Field(default=5, ge=0, le=100)
    """Further attempts after an error that may pass."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Put into every request's body: what this server takes beyond OpenAI's API."""
    logprobs: bool | Literal["auto"] = "auto"
    """Whether choices are read from log-probabilities. `auto`: where the server gives them; `true`: a server that
    gives none is an error; `false`: from the text."""

    @field_validator("url", "urls")
    @classmethod
    def _addresses(cls, value: str | list[str] | None) -> str | list[str] | None:
        if value is None:
            return None
        return address(value) if isinstance(value, str) else [address(url) for url in value]

    @field_validator("extra")
    @classmethod
    def _free_keys(cls, value: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted(RESERVED & set(value)):
            raise ValueError(f"`extra` may not set {', '.join(taken)}: lbt-sim does")
        json.dumps(value, allow_nan=False)
        return value

    @model_validator(mode="after")
    def _one_of(self) -> OpenAISpec:
        if (self.url is None) == (not self.urls):
            raise ValueError("give either `url` or `urls`")
        return self

    @property
    def replicas(self) -> tuple[str, ...]:
        """The addresses, each once."""
        return tuple(dict.fromkeys(self.urls or [self.url or ""]))


class OpenAIModel:
    """A model behind an OpenAI-compatible API."""

    reads_facts = False

    def __init__(self, spec: OpenAISpec) -> None:
        self._spec = spec
        self._transport: Transport | None = None
        self._heads: OrderedDict[bytes, bytes] = OrderedDict()
        extra = json.dumps(spec.extra)[1:-1]
        self._start = f'{{"model":{json.dumps(spec.model)},{extra + "," if extra else ""}"messages":['.encode()
        self._no_logprobs = spec.logprobs is False
        self.share(Gates())

    def share(self, gates: Gates) -> None:
        """Takes its limits from `gates`, before it gets ready.

        There are two: at the first a request waits before it is taken on, at the second each attempt waits for the
        replica that it goes to, since that may be full or down while another has room.
        """
        spec = self._spec
        self._at = {url: gates.of("at", url, limit=spec.concurrency) for url in spec.replicas}
        self._into = gates.of("into", *sorted(spec.replicas), limit=spec.concurrency * len(spec.replicas))

    async def ready(self) -> ModelInfo:
        """Reach the servers and see that they serve the model.

        Raises:
            ModelUnavailable: No key, no server in reach, another model, or no permission.
        """
        spec = self._spec
        if self._transport is None:
            replicas = [Replica(url, gate) for url, gate in self._at.items()]
            self._transport = Transport(replicas, Limits(spec.timeout, spec.retries), api_key(spec.api_key_env))
        try:
            found = [await self._look(n) for n in range(len(self._transport.replicas))]
        except ModelUnavailable:
            await self.close()
            raise
        problems = [problem for problem in found if isinstance(problem, Failure)]
        if len(problems) == len(found):
            await self.close()
            raise _unreachable(spec, problems[0])
        served = [entry for entry in found if not isinstance(entry, Failure)]
        detail: dict[str, Any] = {"urls": list(spec.replicas), "concurrency": spec.concurrency, "extra": spec.extra}
        if served[0]:
            detail["served"] = served[0]
        if roots := sorted({str(entry["root"]) for entry in served if entry.get("root", spec.model) != spec.model}):
            detail["root"] = roots[0] if len(roots) == 1 else roots
        if problems:
            detail["out of reach"] = [str(problem) for problem in problems]
        return ModelInfo(_identity(spec), detail, server=", ".join(sorted(spec.replicas)))

    async def create(self, request: ChatRequest) -> Reply:
        """One reply."""
        if self._transport is None:
            return Reply("", "failed", error="the model is not ready, or was closed", transient=True)
        started = time.perf_counter()
        try:
            reply = await self._answer(self._transport, request)
        except Failure as failure:
            reply = Reply("", "failed", error=str(failure), transient=failure.transient)
        except completions.Malformed as error:
            reply = Reply("", "failed", error=f"the server's answer is no chat completion: {error}")
        return replace(reply, seconds=time.perf_counter() - started)

    def create_many(self, requests: Iterable[ChatRequest]) -> AsyncIterator[tuple[int, Reply]]:
        """As many at a time as the replicas take."""
        return in_completion_order(self.create, requests, self._into)

    async def close(self) -> None:
        """Close the connections."""
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.close()

    async def _answer(self, transport: Transport, request: ChatRequest) -> Reply:
        looked: Reply | None = None
        if labels.distinct(request.choices) and not self._no_logprobs:
            try:
                data = await transport.post(CHAT, self._body(request, look=True), request.head.digest)
            except Failure as failure:
                if failure.status not in (400, 422, 501) or self._spec.logprobs is True:
                    raise
            else:
                looked = completions.read_completion(data)
                top = completions.top_logprobs(data)
                found = labels.read_choices(top, request.choices) if top else None
                if found is not None and labels.mass(found) >= labels.LEAST_MASS:
                    text = labels.pick(request.choices, found, request.sampling.temperature, request.seed)
                    return replace(looked, text=text, finish="stop", choice_logprobs=found)
                if top is None and self._spec.logprobs is True:
                    raise Failure("the server gives no log-probabilities, and the model says `logprobs: true`")
                # Nothing is remembered: what one reply lacked must not change how the next one is read, or the order
                # of completion would matter. A server that never gives any costs a second call; `logprobs: false`
                # saves it.
        data = await transport.post(CHAT, self._body(request, look=False), request.head.digest)
        return completions.counted_with(completions.read_completion(data), [looked] if looked else [])

    def _body(self, request: ChatRequest, *, look: bool) -> bytes:
        """The request as JSON. The head's turns are written once and kept: they are most of it."""
        sampling = request.sampling
        rest: dict[str, Any] = {
            # Only the first token's distribution is read; at 1 it is the model's own with every server.
            "temperature": 1 if look else sampling.temperature,
            "max_tokens": 1 if look else sampling.max_tokens,
            "seed": request.seed,
        }
        if look:
            rest |= {"logprobs": True, "top_logprobs": TOP}
        else:
            if sampling.top_p != 1.0:
                rest["top_p"] = sampling.top_p
            if sampling.top_k is not None:
                rest["top_k"] = sampling.top_k
            if sampling.stop:
                rest["stop"] = list(sampling.stop)
        last = json.dumps({"role": "user", "content": completions.clean(request.last)})
        return b"".join((self._start, self._head(request.head), f"{last}],{json.dumps(rest)[1:]}".encode()))

    def _head(self, head: Head) -> bytes:
        known = self._heads.get(head.digest)
        if known is None:
            turns = ({"role": turn.role, "content": completions.clean(turn.content)} for turn in head.turns)
            known = "".join(json.dumps(turn) + "," for turn in turns).encode()
            self._heads[head.digest] = known
            if len(self._heads) > 256:
                self._heads.popitem(last=False)
        return known

    async def _look(self, number: int) -> dict[str, Any] | Failure:
        """What a replica says of the model; the failure if it is out of reach.

        Raises:
            ModelUnavailable: It answers, and will not do.
        """
        assert self._transport is not None  # noqa: S101 - for the type checker; `ready` made it
        replica = self._transport.replicas[number]
        try:
            try:
                data = await self._transport.try_once(replica, "/models")
            except Failure as failure:
                if failure.status not in (404, 405, 501):
                    raise
                # Some servers have no list of models: a first call tells whether this one answers.
                body = b'{"role":"user","content":"Hello"}],"max_tokens":1}'
                completions.read_completion(await self._transport.try_once(replica, CHAT, self._start + body))
                return {}
        except completions.Malformed as error:
            raise _useless(replica.url, str(error)) from None
        except Failure as failure:
            if failure.status in (401, 403):
                raise _forbidden(self._spec, failure) from None
            if 300 <= failure.status < 500 and failure.status != 429:
                raise _useless(replica.url, str(failure)) from None
            replica.quarantine()
            return failure
        entries = data.get("data") if isinstance(data, dict) else None
        if not isinstance(entries, list):
            return {}
        served = {
            entry["id"]: entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)
        }
        if served and self._spec.model not in served:
            near = nearest(self._spec.model, served)
            raise ModelUnavailable(
                f"{replica.url} does not serve {self._spec.model!r}" + (f"; did you mean {near!r}?" if near else ""),
                valid=sorted(served)[:20],
                remedy="Correct the model's name, or start the server with it.",
            )
        entry = served.get(self._spec.model, {})
        told = {key: entry[key] for key in ("root", "max_model_len", "owned_by") if entry.get(key) is not None}
        return {key: value if isinstance(value, int) else completions.clean(str(value)) for key, value in told.items()}


def _identity(spec: OpenAISpec) -> str:
    """Who answers, wherever it is served: whatever changes the replies is part of it."""
    extra = json.dumps(spec.extra, sort_keys=True).encode()
    sent = f"+{blake2b(extra, digest_size=4).hexdigest()}" if spec.extra else ""
    read = "" if spec.logprobs == "auto" else f";logprobs={str(spec.logprobs).lower()}"
    return f"openai:{spec.model}{sent}{read}"


def address(url: str) -> str:
    """The address in one spelling: two entries that name the same server are to be known as such."""
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is not an address such as http://localhost:8000/v1")
    if parts.username or parts.password:
        raise ValueError("no user name or key in the address: name an environment variable in `api_key_env`")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    port = f":{parts.port}" if parts.port not in (None, _PORTS[parts.scheme]) else ""
    path = parts.path.rstrip("/").removesuffix(CHAT)
    return parts._replace(netloc=host + port, path=path or "/v1", query="", fragment="").geturl()


def api_key(variable: str | None, where: Place | None = None) -> str | None:
    """The API key that an environment variable holds; None where none is named.

    Raises:
        ModelUnavailable: It is not set, or holds what can be no key; `where` is the place of the option.
    """
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise ModelUnavailable(
            f"the environment variable {variable} " + ("does not hold an API key" if key else "is not set"),
            where=where,
            remedy=f"Set it to the server's API key: export {variable}=…",
        )
    return key


def _unreachable(spec: OpenAISpec, failure: Failure) -> ModelUnavailable:
    return ModelUnavailable(
        f"no server: {failure}",
        remedy=f"Is it running, and is the address right? Try: curl {spec.replicas[0]}/models",
    )


def _useless(url: str, why: str) -> ModelUnavailable:
    return ModelUnavailable(
        f"{url} is no OpenAI-compatible server of this model: {why}",
        remedy="Check the address (it usually ends in /v1) and the model's name.",
    )


def _forbidden(spec: OpenAISpec, failure: Failure) -> ModelUnavailable:
    remedy = (
        f"The key in {spec.api_key_env} is not accepted: check it."
        if spec.api_key_env
        else "The server wants an API key: put it into an environment variable and name that in `api_key_env`."
    )
    return ModelUnavailable(f"no permission: {failure}", remedy=remedy)
