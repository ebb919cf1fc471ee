"""Asking one server of ours how it is: whether it is ready, whether it gets on, whether it is ill."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp

from lbt_sim.models.completions import clean, server_error
from lbt_sim.models.vllm.metrics import read_metrics

__all__ = ["SILENT", "Figures", "Probe", "Stranger", "Unfit"]

Figures = tuple[float | None, ...]

LOOK = (0.1, 1.0)
"""Seconds between two looks whether it is up: at first, and later."""
TRY = 10.0
"""Seconds for one of them."""
TRIES = 3
"""Calls that may fail with an error of the server's own, before one is answered."""
LARGEST = 8 << 20
"""Bytes of an answer that are read."""

SILENT = "did not answer /health"
"""Of a server that may yet do it."""

_UNREACHABLE = (aiohttp.ClientError, TimeoutError, OSError)


class Stranger(Exception):
    """Another program answers at the address."""


class Unfit(Exception):
    """The server is up, and refuses a call."""


class Probe:
    """Asks a server. Lives on one event loop.

    Args:
        served: What the server calls its model.
        key: Its key.
        adapters: What it calls its LoRA adapters.
    """

    def __init__(self, served: str, key: str, adapters: frozenset[str]) -> None:
        self._served = served
        self._adapters = adapters
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {key}"},
            # A connection that is kept belongs to a server that may be another one by then.
            connector=aiohttp.TCPConnector(force_close=True),
            trust_env=False,
        )

    async def close(self) -> None:
        """Close it."""
        await self._session.close()

    async def ready(self, url: str) -> None:
        """Returns when the server has answered a call; waits for ever.

        Raises:
            Stranger: Another program answers there.
            Unfit: It refuses the call.
        """
        pause, longest = LOOK
        while (names := await self._names(url)) is None:
            await asyncio.sleep(pause)
            pause = min(longest, pause * 1.2)
        if not names >= {self._served} or names - {self._served} - self._adapters:
            shown = ", ".join(repr(clean(name)[:80]) for name in sorted(names)[:5]) or "none"
            raise Stranger(f"is not who answers at {url}: the models there are {shown}, and ours is {self._served!r}")
        failures = 0
        while (failure := await self._canary(url)) is not None:
            failures += bool(failure)
            if failures >= TRIES:
                raise Unfit(failure)
            await asyncio.sleep(longest)

    async def figures(self, url: str, seconds: float) -> Figures | None:
        """Counters that grow with every token and every call; None where it does not tell."""
        try:
            status, body = await self._get(f"{url.removesuffix('/v1')}/metrics", seconds)
        except _UNREACHABLE:
            return None
        if status != 200:
            return None
        now = read_metrics(body.decode(errors="replace"))
        return now.prompt_tokens, now.generated, now.finished

    async def ill(self, url: str, seconds: float) -> str | None:
        """What is wrong with it, as the end of a sentence that begins with its name; None when it is well."""
        try:
            status, _ = await self._get(f"{url.removesuffix('/v1')}/health", seconds)
        except TimeoutError:
            return SILENT
        except _UNREACHABLE:
            return "does not listen any more"
        return None if status == 200 else f"says that it is not well (/health answers {status})"

    async def _names(self, url: str) -> set[str] | None:
        """What it calls its models; None where nobody answers yet."""
        try:
            status, body = await self._get(f"{url}/models", TRY)
        except _UNREACHABLE:
            return None
        if status >= 500:
            return None
        try:
            return {str(one["id"]) for one in json.loads(body)["data"]} if status == 200 else set()
        except (ValueError, RecursionError, LookupError, TypeError):
            return set()

    async def _canary(self, url: str) -> str | None:
        """None when one token came back, else what is wrong, '' where nothing did. The first call may be slow."""
        call = {"model": self._served, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
        try:
            async with self._session.post(
                f"{url}/chat/completions", json=call, timeout=aiohttp.ClientTimeout(total=None)
            ) as response:
                status, data = response.status, _json(await _read(response))
        except _UNREACHABLE:
            return ""
        if status == 200 and isinstance(data, dict) and data.get("choices"):
            return None
        failure = f"refuses a call ({status}): {clean(server_error(data) or 'no completion')[:400]}"
        if status < 500:
            raise Unfit(failure)
        return failure

    async def _get(self, url: str, seconds: float) -> tuple[int, bytes]:
        total = aiohttp.ClientTimeout(total=seconds)
        async with self._session.get(url, timeout=total, allow_redirects=False) as response:
            return response.status, await _read(response)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The body, or its begin where it is none of a server of ours."""
    parts: list[bytes] = []
    async for part in response.content.iter_chunked(1 << 16):
        parts.append(part)
        if sum(map(len, parts)) > LARGEST:
            response.close()
            break
    return b"".join(parts)


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
