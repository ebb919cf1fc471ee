"""llama.cpp inside this process (`xllamacpp`), with a GGUF file: laptops, first runs, tests.

The native calls block, so each runs in a worker thread; the event loop only waits. On few cores one call at a time
is fastest, because it keeps the prefix cache warm: requests with the same head are served one after another.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, PositiveInt

from lbt_sim.errors import ModelUnavailable
from lbt_sim.models import completions, labels
from lbt_sim.models.base import ChatRequest, ModelInfo, Reply
from lbt_sim.models.limits import Gate, HeadQueue, in_completion_order
from lbt_sim.models.llamacpp_native import Native, Setup, Stopped
from lbt_sim.models.weights import KNOWN, locate, sha256_of
from lbt_sim.scenario.schema import Spec

__all__ = ["LlamaCppModel", "LlamaCppSpec"]

TOP = 100
"""First tokens that are asked for. 100 cost 5 ms more than 20; 5,000 cost 150 ms more."""
DEEP = 5000
"""Asked for when no choice was among the first `TOP`: the prompt is cached, so it is cheap next to another answer."""


class LlamaCppSpec(Spec):
    """Options of the engine `llamacpp`."""

    model: str
    """A model that `lbt-sim models pull` knows (`smollm2-135m`), or the path of a GGUF file."""
    context: int = Field(default=4096, ge=64, le=1 << 20)
    """Tokens that prompt and reply may have together."""
    threads: PositiveInt | None = None
    """CPU threads; without it one for each CPU that this process may use."""
    parallel: int = Field(default=1, ge=1, le=64)
    """Calls computed at the same time. On few cores 1 is fastest."""
    gpu_layers: int = Field(default=0, ge=0)
    """Layers put on a GPU, where xllamacpp was built for one."""
    cache: bool = True
    """Reuse what prompts have in common. `false` computes every prompt anew: several times slower, but then a reply
    does not depend, in the last digits of its log-probabilities, on what was asked before."""
    cache_mib: int = Field(default=512, ge=0)
    """Memory for the prefixes of prompts that were asked earlier."""


class _Job(NamedTuple):
    request: ChatRequest
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[Reply]


class _Ask(NamedTuple):
    """The native engine, and whether anybody still waits."""

    native: Native
    stopped: Callable[[], bool]

    def __call__(self, body: dict[str, Any]) -> tuple[object, Reply]:
        data = self.native.chat(body, self.stopped)
        if isinstance(data, dict) and "error" in data:
            return data, Reply("", "failed", error=_explain(data["error"]))
        try:
            return data, completions.read_completion(data)
        except completions.Malformed as error:
            return data, Reply("", "failed", error=f"llama.cpp answered no chat completion: {error}")


class LlamaCppModel:
    """A GGUF model in this process."""

    reads_facts = False

    def __init__(self, spec: LlamaCppSpec) -> None:
        self._spec = spec
        self._native: Native | None = None
        self._queue: HeadQueue[_Job] = HeadQueue()
        self._gate = Gate(spec.parallel + 1)
        self._wake = threading.Condition()
        self._closing = False
        self._workers: list[threading.Thread] = []

    async def ready(self) -> ModelInfo:
        """Load the model.

        Raises:
            ModelUnavailable: No xllamacpp, no such file, or it cannot be loaded.
        """
        path = _find(self._spec.model)
        digest = await asyncio.to_thread(_checked, self._spec.model, path)
        threads = self._spec.threads or _cpus()
        if self._native is None:
            spec = self._spec
            setup = Setup(path, spec.context, spec.parallel, threads, spec.gpu_layers, spec.cache_mib)
            self._native = await asyncio.to_thread(Native.load, setup)
            self._workers = [
                threading.Thread(target=self._work, name=f"llamacpp-{n}", daemon=True)
                for n in range(self._spec.parallel)
            ]
            for worker in self._workers:
                worker.start()
            # A process that ends during a native call would crash: whoever forgets to close, does so here.
            atexit.register(self._stop)
        counts = await asyncio.to_thread(self._native.count, [{"role": "user", "content": "Hi"}]) is not None
        name = self._spec.model if self._spec.model in KNOWN else path.stem
        return ModelInfo(
            f"llamacpp:{name}@{digest[:12]}",
            {
                "xllamacpp": self._native.version,
                "file": path.name,
                "sha256": digest,
                "threads": threads,
                "context": self._spec.context,
                "counts_tokens": counts,
                "parallel": self._spec.parallel,
                "gpu_layers": self._spec.gpu_layers,
                "cache": self._spec.cache,
            },
        )

    async def create(self, request: ChatRequest) -> Reply:
        """One reply. Cancelling it gives it up at its next token."""
        loop = asyncio.get_running_loop()
        job = _Job(request, loop, loop.create_future())
        with self._wake:
            if self._native is None or self._closing:
                return _closed()
            self._queue.put(request.head.digest, job)
            self._wake.notify()
        return await job.done

    def create_many(self, requests: Iterable[ChatRequest]) -> AsyncIterator[tuple[int, Reply]]:
        """One request more than are computed is in flight, so that no thread waits for the next."""
        return in_completion_order(self.create, requests, self._gate)

    async def close(self) -> None:
        """Fail what is queued or in flight, and free the model."""
        await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        with self._wake:
            self._closing = True
            while len(self._queue):
                _settle(self._queue.get()[1], _closed())
            self._wake.notify_all()
        for worker in self._workers:
            worker.join()
        self._workers = []
        native, self._native = self._native, None
        if native is not None:
            native.close()
            atexit.unregister(self._stop)

    def _work(self) -> None:
        """A worker thread: serve jobs until the model is closed."""
        last: bytes | None = None
        while True:
            with self._wake:
                while not len(self._queue) and not self._closing:
                    self._wake.wait()
                if self._closing:
                    return
                last, job = self._queue.get(last)
                native = self._native
            if native is not None:
                _settle(job, self._serve(native, job))

    def _serve(self, native: Native, job: _Job) -> Reply:
        started = time.perf_counter()
        ask = _Ask(native, lambda: self._closing or job.done.cancelled())
        try:
            reply = _answer(ask, job.request, self._spec.cache)
        except Stopped:
            reply = _closed()
        except Exception as error:  # whatever the engine does, the run goes on and says so
            reply = Reply("", "failed", error=f"llama.cpp: {type(error).__name__}: {error}"[:500], transient=True)
        return replace(reply, seconds=time.perf_counter() - started)


def _closed() -> Reply:
    return Reply("", "failed", error="the model is not ready, or was closed", transient=True)


def _settle(job: _Job, reply: Reply) -> None:
    """Hand the reply to the task that waits, from another thread."""

    def tell() -> None:
        if not job.done.done():
            job.done.set_result(reply)

    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        job.loop.call_soon_threadsafe(tell)


def _answer(ask: _Ask, request: ChatRequest, cache: bool) -> Reply:
    """The reply to a request: choices by first-token log-probabilities where these can tell them apart."""
    body = _body(request, cache)
    if request.purpose == "count":
        tokens = ask.native.count(body["messages"])
        if tokens is None:
            return Reply("", "failed", error="llama.cpp did not say how many tokens the prompt has", transient=True)
        return Reply(str(tokens))
    if not request.choices:
        return ask(body)[1]
    first = ask.native.first_tokens(request.choices)
    looked: list[Reply] = []
    if labels.distinct(request.choices, first):
        for top in (TOP, DEEP):
            look = {"max_tokens": 1, "temperature": 0, "logprobs": True, "top_logprobs": top}
            data, reply = ask({**body, **look})
            reply = completions.counted_with(reply, looked)
            if reply.finish == "failed":
                return reply
            found = labels.read_choices(completions.top_logprobs(data) or (), request.choices, first)
            if found is not None:
                text = labels.pick(request.choices, found, request.sampling.temperature, request.seed)
                return replace(reply, text=text, finish="stop", choice_logprobs=found)
            looked = [reply]
    # The grammar admits the choices alone; no limit may cut one short.
    longest = max(len(choice.encode("utf-8", "replace")) for choice in request.choices)
    reply = ask({**body, "grammar": _grammar(request.choices), "max_tokens": longest + 2})[1]
    return completions.counted_with(reply, looked)


def _explain(error: object) -> str:
    if isinstance(error, dict) and error.get("type") == "exceed_context_size_error":
        return (
            f"the prompt has {error.get('n_prompt_tokens')} tokens, the context {error.get('n_ctx')}: "
            "raise the model's `context`, or teach with fewer exemplars"
        )
    return f"llama.cpp: {completions.server_error({'error': error}) or error}"


def _body(request: ChatRequest, cache: bool) -> dict[str, Any]:
    sampling = request.sampling
    return {
        "messages": [{"role": turn.role, "content": completions.clean(turn.content)} for turn in request.turns],
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        # Off by number: llama.cpp's own defaults would cut the distribution unasked.
        "top_k": sampling.top_k or 0,
        "min_p": 0.0,
        "max_tokens": sampling.max_tokens,
        "stop": list(sampling.stop),
        "seed": request.seed,
        "cache_prompt": cache,
    }


def _grammar(choices: Sequence[str]) -> str:
    """GBNF for exactly these texts. Every character is escaped by its number: a label is data, not grammar."""

    def quoted(text: str) -> str:
        return '"' + "".join(f"\\U{ord(letter):08X}" for letter in completions.clean(text)) + '"'

    return "root ::= " + " | ".join(map(quoted, choices))


def _find(model: str) -> Path:
    """The GGUF file of a known model or a path."""
    if model in KNOWN:
        path = locate(model)
        if path is None:
            raise ModelUnavailable(
                f"the model {model!r} has not been fetched yet", remedy=f"Run `lbt-sim models pull {model}`."
            )
        return path
    path = Path(model).expanduser()
    if path.is_file():
        return path
    raise ModelUnavailable(
        f"{model!r} is neither a known model nor a GGUF file",
        valid=tuple(sorted(KNOWN)),
        remedy="Correct the path, or name a known model.",
    )


def _checked(model: str, path: Path) -> str:
    """The file's SHA-256.

    Raises:
        ModelUnavailable: It is no GGUF file, cannot be read, or is not the known model that it claims to be.
    """
    again = f"Run `lbt-sim models pull {model}`." if model in KNOWN else "Fetch the file again."
    try:
        with path.open("rb") as file:
            magic = file.read(4)
        digest = sha256_of(path)
    except OSError as error:
        raise ModelUnavailable(f"{path} cannot be read: {error.strerror}", remedy="Check its permissions.") from error
    if magic != b"GGUF":
        raise ModelUnavailable(f"{path} is not a GGUF file", remedy=again)
    if model in KNOWN and digest != KNOWN[model].sha256:
        raise ModelUnavailable(f"{path} is damaged: its SHA-256 is not that of {model!r}", remedy=again)
    return digest


def _cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
