"""The paths that are answered, and the faults."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import time
from collections.abc import Callable, Sequence
from zlib import crc32

from aiohttp import web

from .answers import Draw, First, Reply, reply_to
from .engine import Engine, Stats
from .tokens import THOUGHT, VOCABULARY, Prompt, Template, decode, encode, mixed
from .wire import Asked, Json, Refused, as_json, broken_off, loads, position

VERSION = "0.32.0"
FAULTS = {
    "none": "",
    "hang": "no call finishes and no counter moves, while /health stays 200",
    "crash": "the process exits when the `after`-th further call arrives",
    "poison": "the process exits `seconds` after a call came (`at` this path) that holds `word`",
    "reset": "the connection breaks in the middle of the answer, `count` times",
    "half_json": "the answer's JSON is cut off, `count` times",
    "error": "calls are answered with `status`, `count` times",
    "engine_dead": "/health answers 503, calls 500",
    "slow": "calls take `seconds` more",
}


class Stub:
    """The server's paths."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._key = args.api_key or os.environ.get("VLLM_API_KEY") or ""
        self._names = [args.wrong_name] if args.wrong_name else args.served_model_name or [args.model]
        self._adapters = dict(map(_adapter, args.lora_modules))
        self._template = Template(thinking=args.thinking, switch=args.thinking_switch)
        self.engine = Engine(args)
        self.faults: dict[str, Json] = {}
        self._created = int(time.time())
        self._get: dict[str, Callable[[], web.Response]] = {
            "/health": self._health,
            "/version": lambda: as_json({"version": VERSION}),
            "/v1/models": self._models,
            "/metrics": self._metrics,
            "/stub/stats": self._stats,
        }
        if self._args.no_metrics:
            del self._get["/metrics"]

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request."""
        path = request.path
        try:
            if path.startswith("/v1/") and self._key and request.headers.get("Authorization") != f"Bearer {self._key}":
                return as_json({"error": "Unauthorized"}, 401)
            if request.method == "GET" and path in self._get:
                return self._get[path]()
            if request.method == "POST":
                body = await request.read()
                await self._taste(path, body)
                if path == "/v1/chat/completions":
                    return await self._chat(request, body, batch=False)
                if path == "/v1/chat/completions/batch" and not self._args.no_batch:
                    return await self._chat(request, body, batch=True)
                if path == "/tokenize" and not self._args.no_tokenize:
                    return self._tokenize(loads(body))
                if path == "/stub/faults":
                    self.switch(loads(body))
                    return as_json({"faults": self.faults})
                if path == "/stub/reset":
                    self.engine.forget(keep_cache=bool(body) and bool(loads(body).get("keep_cache")))
                    return as_json({})
        except Refused as refused:
            return as_json(refused.body, refused.status)
        return as_json({"detail": "Not Found"}, 404)

    def switch(self, what: Json) -> None:
        """Switch a fault on, or all off."""
        name = what.get("fault")
        if name not in FAULTS:
            raise Refused(400, f"unknown fault {name!r}: valid are {', '.join(FAULTS)}")
        if name == "none":
            self.faults.clear()
        else:
            self.faults[name] = dict(what)
        self.engine.extra_seconds = float(self.faults.get("slow", {}).get("seconds", 0.0))
        if "hang" in self.faults:
            self.engine.hung = True
        elif self.engine.hung:
            self.engine.resume()

    def _strikes(self, name: str) -> Json | None:
        """The fault, where it is on and has not struck often enough."""
        fault = self.faults.get(name)
        if fault is not None and fault.get("count") is not None:
            fault["count"] -= 1
            if fault["count"] <= 0:
                del self.faults[name]
        return fault

    # --- GET

    def _health(self) -> web.Response:
        return web.Response(status=503 if "engine_dead" in self.faults else 200)

    def _models(self) -> web.Response:
        shared = {"object": "model", "created": self._created, "owned_by": "vllm"}
        length = {"max_model_len": self._args.max_model_len, "permission": []}
        data = [{"id": name, **shared, "root": self._args.model, "parent": None, **length} for name in self._names]
        parent = {"parent": self._names[0], "max_model_len": None, "permission": []}
        data += [{"id": name, **shared, "root": root, **parent} for name, root in self._adapters.items()]
        return as_json({"object": "list", "data": data})

    def _stats(self) -> web.Response:
        engine = self.engine
        values = {name: getattr(engine.stats, name) for name in Stats.__slots__}
        values |= {"unique_tokens": engine.uniques.tokens, "unique_block_tokens": engine.uniques.block_tokens}
        values |= {"running": engine.running, "waiting": engine.waiting, "slots": self._args.slots}
        values |= {"block": self._args.block, "cpu_seconds": time.process_time(), "faults": self.faults}
        return as_json(values)

    def _metrics(self) -> web.Response:
        engine, stats = self.engine, self.engine.stats
        use = min(1.0, engine.held_blocks / engine.capacity) if engine.capacity else 0.0
        lines: list[str] = []

        def tell(name: str, value: float, kind: str = "counter", **labels: str) -> None:
            if not lines or not lines[-1].startswith(f"vllm:{name}{{"):
                lines.append(f"# TYPE vllm:{name} {kind}")
            all_ = {"engine": "0", "model_name": self._names[0], **labels}
            told = ",".join(f'{key}="{label}"' for key, label in sorted(all_.items()))
            lines.append(f"vllm:{name}{{{told}}} {float(value)}")

        tell("num_requests_running", engine.running, "gauge")
        tell("num_requests_waiting", engine.waiting, "gauge")
        tell("kv_cache_usage_perc", use, "gauge")
        tell("prefix_cache_queries_total", stats.prompt_tokens)
        tell("prefix_cache_hits_total", stats.cached_tokens)
        tell("num_preemptions_total", 0)
        tell("prompt_tokens_total", stats.prompt_tokens)
        tell("prompt_tokens_by_source_total", stats.computed_tokens, source="local_compute")
        tell("prompt_tokens_by_source_total", stats.cached_tokens, source="local_cache_hit")
        tell("prompt_tokens_by_source_total", 0, source="external_kv_transfer")
        tell("prompt_tokens_cached_total", stats.cached_tokens)
        tell("generation_tokens_total", stats.generated_tokens)
        for reason in ("stop", "length", "abort", "error", "repetition"):
            tell("request_success_total", engine.finished[reason], finished_reason=reason)
        caching = {"enable_prefix_caching": str(engine.capacity > 0), "num_gpu_blocks": str(engine.capacity)}
        tell("cache_config_info", 1, "gauge", block_size=str(self._args.block), **caching)
        return web.Response(text="\n".join(lines) + "\n")

    # --- POST

    def _tokenize(self, body: Json) -> web.Response:
        self._known(body)
        if "messages" in body:
            ids = self._template.render(body["messages"], body.get("chat_template_kwargs") or {}).ids
        else:
            ids = encode(str(body.get("prompt", "")))
        told = {"count": len(ids), "max_model_len": self._args.max_model_len, "tokens": ids}
        return as_json(told | {"token_strs": [decode(id_) for id_ in ids] if body.get("return_token_strs") else None})

    async def _taste(self, path: str, raw: bytes) -> None:
        """Dies of what it is asked, if it is poison."""
        poison = self.faults.get("poison")
        if poison and path.startswith(poison.get("at", "/v1/chat")) and str(poison["word"]).encode() in raw:
            await asyncio.sleep(float(poison.get("seconds", 0.1)))
            os._exit(1)

    async def _chat(self, request: web.BaseRequest, raw: bytes, *, batch: bool) -> web.StreamResponse:
        engine = self.engine
        if crash := self.faults.get("crash"):
            crash["after"] = crash.get("after", 1) - 1
            if crash["after"] <= 0:
                os._exit(1)
        if "engine_dead" in self.faults:
            issue = "EngineCore encountered an issue. See stack trace (above) for the root cause."
            raise Refused(500, f"{issue} (EngineDeadError)", "InternalServerError")
        if fault := self._strikes("error"):
            raise Refused(int(fault.get("status", 500)), "a fault of the stand-in", "InternalServerError")
        asked = self._understood(loads(raw), batch=batch)
        if not engine.has_room(len(asked.prompts) * asked.n):
            engine.stats.refused += 1
            refused = Refused(self._args.refuse_status, "The request queue is full.", "ServiceUnavailableError")
            return as_json(refused.body, refused.status, {"Retry-After": "1"})
        engine.stats.calls += 1
        engine.stats.batches += batch
        work = []
        for prompt in asked.prompts:
            first = First(prompt)
            work += [(prompt, reply_to(prompt, first, asked.draw, sample)) for sample in range(asked.n)]
        ticket = engine.submit(work, siblings=asked.n > 1)
        try:
            await ticket.done
        except asyncio.CancelledError:
            engine.abort(ticket)
            raise
        cached = None if batch else ticket.jobs[-1].cached
        answer = json.dumps(self._completion(work, asked, cached), separators=(",", ":")).encode()
        if self._strikes("reset"):
            return await broken_off(request, answer)
        if self._strikes("half_json"):
            answer = answer[: len(answer) // 2]
        return web.Response(body=answer, content_type="application/json")

    def _known(self, body: Json) -> str | None:
        """The adapter's folder; None: the model itself."""
        name = body.get("model") or self._names[0]
        if name in self._names:
            return None
        if name not in self._adapters:
            valid = ", ".join(self._names)
            raise Refused(404, f"The model `{name}` does not exist. Valid aliases: {valid}.", "NotFoundError", "model")
        return self._adapters[name]

    def _understood(self, body: Json, *, batch: bool) -> Asked:
        adapter = self._known(body)
        chats = body.get("messages") if batch else [body.get("messages")]
        if not isinstance(chats, list) or not chats or not all(isinstance(chat, list) and chat for chat in chats):
            raise Refused(400, "1 validation error: body.messages: Field required", "Bad Request", "body.messages")
        n = body.get("n") or 1
        if batch and n != 1:
            told = f"Batch chat completions do not support `n > 1`. Please set `n` to 1. (parameter=n, value={n})"
            raise Refused(400, told, param="n")
        if body.get("stream"):
            raise Refused(400, "the stand-in does not stream", param="stream")
        temperature = body.get("temperature")
        temperature = 1.0 if temperature is None else float(temperature)
        if n > 1 and temperature == 0:
            raise Refused(400, f"n must be 1 when using greedy sampling, got {n}.")
        kwargs = body.get("chat_template_kwargs") or {}
        folder = crc32((adapter or "").encode())
        root = mixed(folder, crc32(str(body.get("cache_salt") or "").encode()))
        try:
            prompts = [self._template.render(chat, kwargs, root, folder) for chat in chats]
        except (AttributeError, KeyError, TypeError):
            raise Refused(400, "1 validation error: body.messages", "Bad Request", "body.messages") from None
        draw = self._draw(body, temperature, max(len(prompt.ids) for prompt in prompts))
        logprobs, named = bool(body.get("logprobs")), self._named(body)
        top = int(body.get("top_logprobs") or 0)
        if top > self._args.max_logprobs:
            told = f"Requested sample logprobs of {top}, which is greater than max allowed: {self._args.max_logprobs}"
            raise Refused(400, f"{told} (parameter=logprobs, value={top})", param="logprobs")
        as_ids = bool(body.get("return_tokens_as_token_ids"))
        return Asked(prompts, draw, n, logprobs, top, named, as_ids, bool(body.get("return_token_ids")))

    def _draw(self, body: Json, temperature: float, longest: int) -> Draw:
        most, context = body.get("max_completion_tokens") or body.get("max_tokens"), self._args.max_model_len
        if most is not None and most > context:
            told = (
                f"max_tokens={most} cannot be greater than max_model_len={context}. Please request fewer output tokens."
            )
            raise Refused(400, f"{told} (parameter=max_tokens, value={most})", param="max_tokens")
        if longest > context:
            told = (
                f"This model's maximum context length is {context} tokens. However, your prompt contains {longest} "
                "input tokens, which exceeds this limit even without any output tokens. Please reduce the length of "
                f"the input prompt. (parameter=input_tokens, value={longest})"
            )
            raise Refused(400, told, param="input_tokens")
        if longest == context:
            raise Refused(400, f"Input length ({longest}) exceeds model's maximum context length ({context}).")
        room = context - longest
        stop = body.get("stop") or ()
        held = body.get("structured_outputs") or {}
        if held and (self._args.no_structured or not held.get("choice")):
            raise Refused(400, "structured outputs of this kind are not supported", param="structured_outputs")
        return Draw(
            temperature,
            int(body.get("seed") or 0),
            room if most is None else min(most, room),
            (stop,) if isinstance(stop, str) else tuple(stop),
            tuple(map(str, held.get("choice", ()))),
            self._args.output_tokens,
            apart=self._args.reasoning_parser is not None,
        )

    def _named(self, body: Json) -> tuple[int, ...]:
        named = body.get("logprob_token_ids")
        if not named or self._args.no_logprob_ids:
            return ()
        param = "logprob_token_ids"
        if not body.get("logprobs"):
            told = f"when using `{param}`, `logprobs` must be set to true. (parameter={param})"
            raise Refused(400, told, param=param)
        if len(named) > 128:
            told = f"Requested {param} of length {len(named)}, which is greater than max allowed: 128"
            raise Refused(400, f"{told} (parameter={param}, value={len(named)})", param=param)
        if out := [id_ for id_ in named if not 0 <= id_ < VOCABULARY]:
            told = f"token_id(s) {out} in {param} contain out-of-vocab token ids. Vocabulary size: {VOCABULARY}"
            raise Refused(400, f"{told} (parameter={param}, value={out})", param=param)
        return tuple(named)

    def _completion(self, work: Sequence[tuple[Prompt, Reply]], asked: Asked, cached: int | None) -> Json:
        sent = sum(len(prompt.ids) for prompt in asked.prompts)
        made = sum(len(reply.tokens) for _, reply in work)
        details = None
        if cached is not None and self._args.enable_prompt_tokens_details:
            details = {"cached_tokens": cached, "created_cache_tokens": 0, "multimodal_tokens": None}
        usage = {"prompt_tokens": sent, "total_tokens": sent + made, "completion_tokens": made}
        return {
            "id": f"chatcmpl-{secrets.token_hex(8)}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": self._names[0],
            "choices": [self._choice(index, *one, asked) for index, one in enumerate(work)],
            "service_tier": None,
            "system_fingerprint": f"vllm-{VERSION}-stub",
            "usage": {**usage, "prompt_tokens_details": details, "completion_tokens_details": None},
            "prompt_logprobs": None,
        }

    def _choice(self, index: int, prompt: Prompt, reply: Reply, asked: Asked) -> Json:
        logprobs = None
        if asked.logprobs:
            places = range(len(reply.tokens))
            logprobs = {"content": [position(reply, place, asked, prompt) for place in places]}
        message = {"role": "assistant", **self._told(reply), "refusal": None}
        return {
            "index": index,
            "message": message,
            "logprobs": logprobs,
            "finish_reason": reply.finish,
            "stop_reason": reply.stopped,
            "token_ids": reply.tokens if asked.tell_ids else None,
        }

    def _told(self, reply: Reply) -> Json:
        """The content, and the thought beside it or in it."""
        reasoning = self._args.reasoning_field
        if not reply.thought:
            return {"content": reply.text, reasoning: None}
        thought = "".join(map(decode, reply.thought))
        closed = reply.thought[-1] == THOUGHT
        if self._args.reasoning_parser is None:
            return {"content": f"{thought}\n\n{reply.text}" if closed else thought, reasoning: None}
        inside = thought.removeprefix("<think>").removesuffix("</think>")
        return {"content": (reply.text or None) if closed else None, reasoning: inside}


def _adapter(text: str) -> tuple[str, str]:
    if text.startswith("{"):
        told = json.loads(text)
        return told["name"], told["path"]
    name, _, folder = text.partition("=")
    return name, folder
