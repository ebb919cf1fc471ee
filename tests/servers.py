"""A local OpenAI-compatible server in a thread of its own, whose answers a test decides."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import IO, Any

from aiohttp import web

Answer = Callable[[dict[str, Any]], Awaitable[web.StreamResponse]]


def completion(content: Any, **more: Any) -> dict[str, Any]:
    """A chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 10, "completion_tokens": 1}
    return {"id": "x", "object": "chat.completion", "choices": [choice | more], "usage": usage}


class Server:
    """Serves the model `tiny`. A context manager.

    Attributes:
        answer: What a call gets; without one, `fine`.
        hold_after: After so many calls, the others wait until `release`.
    """

    def __init__(self) -> None:
        self.url = ""
        self.asked = 0
        self.held = 0
        self.hold_after: int | None = None
        self.answer: Answer = self.fine
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._released: asyncio.Event | None = None

    async def fine(self, body: dict[str, Any]) -> web.StreamResponse:
        """The first of the numbers offered, or a label by the question's length."""
        last = body["messages"][-1]["content"]
        text = "1" if "number" in last.lower() else ("positive", "negative")[len(last) % 2]
        return web.json_response(completion(text))

    def release(self) -> None:
        """Lets go of the calls that are held, and holds no more."""
        self.hold_after = None
        assert self._released is not None
        self._loop.call_soon_threadsafe(self._released.set)

    @staticmethod
    def wait_for_line(stream: IO[str] | None, says: str) -> None:
        """Reads a process's output up to a line that says this."""
        assert stream is not None
        end = time.monotonic() + 60
        for line in stream:
            if says in line:
                return
            assert time.monotonic() < end
        raise AssertionError(f"it never said {says!r}")

    def __enter__(self) -> Server:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        self._released = asyncio.Event()
        app = web.Application(client_max_size=1 << 24)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._models)
        self._runner = web.AppRunner(app, shutdown_timeout=0.05, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def _stop(self) -> None:
        await self._runner.cleanup()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "tiny"}]})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        body = await request.json()
        if self.hold_after is not None and self.asked > self.hold_after and self._released is not None:
            self.held += 1
            await self._released.wait()
        return await self.answer(body)
