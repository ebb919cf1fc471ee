"""Posting JSON to one server or several replicas of it: limits, retries, replicas that are down.

Errors that may pass (429, 500, 502 to 504, connections that break, time-outs, half a JSON) are tried again with growing
pauses; a request that the server refuses is not. Nothing waits for ever: every attempt has a time limit.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import math
import random
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from hashlib import blake2b
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import tenacity

from lbt_sim.models.completions import server_error
from lbt_sim.models.limits import Gate

__all__ = ["BODY_LIMIT", "Failure", "Replica", "Transport", "decode"]

BODY_LIMIT = 8 << 20
"""Bytes of an answer; the rest is not read."""
RETRY_AFTER_LIMIT = 60.0
QUARANTINE = 5.0
"""Seconds during which a replica that cannot be reached is passed over, where there is another."""
AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
CONFIGURATION = frozenset({401, 403, 404, 407})
"""Not worth another attempt now, but once somebody has put something right."""
HEADS = 4096
TRY = 15.0


class Failure(Exception):
    """An attempt failed.

    Attributes:
        retry: Whether to try again.
        transient: Whether a later run may succeed.
        status: The HTTP status, if there was one.
        after: Seconds that the server asks to wait.
    """

    def __init__(
        self, what: str, *, retry: bool = False, transient: bool = False, status: int = 0, after: float = 0.0
    ) -> None:
        super().__init__(what)
        self.retry = retry
        self.transient = transient or retry
        self.status = status
        self.after = after


class Replica:
    """A server, its limit, and how it is."""

    def __init__(self, url: str, gate: Gate) -> None:
        self.url = url
        self.gate = gate
        self.down_until = 0.0
        self.resume_at = 0.0

    def quarantine(self) -> None:
        """Pass it over for a while."""
        self.down_until = time.monotonic() + QUARANTINE

    def rank(self, digest: bytes) -> bytes:
        """Rendezvous hashing: each head has its own order of replicas, and losing one moves only its heads."""
        return blake2b(self.url.encode() + digest, digest_size=8).digest()


@dataclass(frozen=True, slots=True)
class Limits:
    """How long and how often."""

    timeout: float
    retries: int


class Transport:
    """Posts to replicas. Lives on one event loop."""

    def __init__(self, replicas: Sequence[Replica], limits: Limits, key: str | None) -> None:
        self.replicas = replicas
        self._limits = limits
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        self._session = aiohttp.ClientSession(
            headers=headers,
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
            timeout=aiohttp.ClientTimeout(
                total=limits.timeout, sock_connect=min(10.0, limits.timeout), sock_read=limits.timeout
            ),
            # A proxy from the environment must not stand between us and a server on this machine.
            trust_env=not all(_loopback(replica.url) for replica in replicas),
        )
        self._order: OrderedDict[bytes, list[Replica]] = OrderedDict()

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def post(self, path: str, body: bytes, digest: bytes) -> Any:
        """The JSON that a replica answers to `body`.

        Args:
            path: Below the replica's URL, with a leading slash.
            body: JSON.
            digest: Of the prompt's head: requests with the same head go to the same replica while it has room.

        Raises:
            Failure: All attempts failed, or the request was refused.
        """
        try:
            return await self._attempt(path, body, digest)
        except Failure as failure:
            if not failure.retry or not self._limits.retries:
                raise
            first = failure
        await asyncio.sleep(min(first.after, RETRY_AFTER_LIMIT) or random.uniform(0.1, 0.5))
        async for attempt in tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, Failure) and error.retry),
            stop=tenacity.stop_after_attempt(self._limits.retries),
            wait=_pause,
            reraise=True,
        ):
            with attempt:
                return await self._attempt(path, body, digest)
        raise first  # not reached: tenacity raises what the last attempt raised

    async def try_once(self, replica: Replica, path: str, body: bytes | None = None) -> Any:
        """What one replica answers to GET, or to POST where there is a body; one attempt, of `TRY` seconds at most.

        Raises:
            Failure: It answers nothing that can be used.
        """
        seconds = min(TRY, self._limits.timeout)
        try:
            async with asyncio.timeout(seconds):
                return await self._exchange(replica, "GET" if body is None else "POST", path, body)
        except TimeoutError:
            raise Failure(f"{replica.url} did not answer within {seconds:g} s", retry=True) from None

    async def _attempt(self, path: str, body: bytes, digest: bytes) -> Any:
        replica = self._choose(digest)
        if (pause := replica.resume_at - time.monotonic()) > 0:
            await asyncio.sleep(pause)
        async with replica.gate:
            try:
                answer = await self._exchange(replica, "POST", path, body)
            except Failure as failure:
                if failure.after:
                    replica.resume_at = time.monotonic() + min(failure.after, RETRY_AFTER_LIMIT)
                if failure.retry and failure.status in (0, 502, 503):
                    replica.quarantine()
                raise
            replica.down_until = 0.0
            return answer

    def _choose(self, digest: bytes) -> Replica:
        """The head's replica, or, if it is down or full, the next one of the head's order that is not."""
        if len(self.replicas) == 1:
            return self.replicas[0]
        order = self._order.get(digest)
        if order is None:
            order = sorted(self.replicas, key=lambda replica: replica.rank(digest))
            self._order[digest] = order
            if len(self._order) > HEADS:
                self._order.popitem(last=False)
        now = time.monotonic()
        up = [replica for replica in order if replica.down_until <= now and replica.resume_at <= now]
        if not up:
            return min(order, key=lambda replica: max(replica.down_until, replica.resume_at))
        return next((replica for replica in up if not replica.gate.full), up[0])

    async def _exchange(self, replica: Replica, method: str, path: str, body: bytes | None) -> Any:
        url = replica.url + path
        try:
            async with self._session.request(method, url, data=body, allow_redirects=False) as response:
                data = await _read(response)
                status, headers = response.status, response.headers
        except TimeoutError:
            raise Failure(f"{replica.url} did not answer within {self._limits.timeout:g} s", retry=True) from None
        except aiohttp.ClientConnectorError as error:
            raise Failure(f"{replica.url} cannot be reached: {error.strerror or error.os_error}", retry=True) from error
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, OSError) as error:
            raise Failure(f"{replica.url} broke the connection: {error or type(error).__name__}", retry=True) from error
        except (aiohttp.ClientError, ValueError) as error:
            raise Failure(f"{replica.url}: {type(error).__name__}: {error}"[:300], transient=True) from error
        if status != 200:
            raise _refusal(replica.url, status, headers, data)
        return decode(data, replica.url)


def decode(data: bytes, url: str) -> Any:
    """The answer's JSON; NaN and infinities, which JSON does not have, become None.

    Raises:
        Failure: It is cut off, not UTF-8, or nested without end.
    """
    try:
        return json.loads(data, parse_constant=_nothing)
    except (ValueError, RecursionError) as error:
        what = "nothing" if not data.strip() else f"no JSON ({error})"
        raise Failure(f"{url} answered {what}"[:300], retry=True) from None


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The body. A body over the limit is left unread and its connection dropped."""
    length = response.content_length
    if length is None or length <= BODY_LIMIT:
        parts: list[bytes] = []
        size = 0
        async for part in response.content.iter_any():
            parts.append(part)
            size += len(part)
            if size > BODY_LIMIT:
                break
        else:
            return parts[0] if len(parts) == 1 else b"".join(parts)
    response.close()
    raise Failure(f"{response.url.origin()} answered more than {BODY_LIMIT >> 20} MiB, which was not read")


def _refusal(url: str, status: int, headers: Mapping[str, str], data: bytes) -> Failure:
    try:
        why = server_error(json.loads(data)) or ""
    except (ValueError, RecursionError):
        why = ""
    what = f"{url} answered {status}" + (f": {why}" if why else "")
    if 300 <= status < 400:
        return Failure(f"{what}: it redirects to {headers.get('Location', '?')[:200]}", transient=True, status=status)
    if status in AGAIN:
        return Failure(what, retry=True, status=status, after=_seconds(headers.get("Retry-After", "")))
    return Failure(what, transient=status in CONFIGURATION or status >= 500, status=status)


def _seconds(retry_after: str) -> float:
    """The header's seconds or date as seconds from now; 0 where there is none."""
    text = retry_after.strip()
    if not text:
        return 0.0
    try:
        value = float(text)
    except ValueError:
        try:
            value = parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return max(0.0, value) if math.isfinite(value) else 0.0


_growing = tenacity.wait_random_exponential(multiplier=0.5, min=0.1, max=20.0)


def _pause(state: tenacity.RetryCallState) -> float:
    """What the server asks for, else a random pause that grows from attempt to attempt."""
    error = state.outcome.exception() if state.outcome else None
    after = error.after if isinstance(error, Failure) else 0.0
    return min(after, RETRY_AFTER_LIMIT) or _growing(state)


def _loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _nothing(_: str) -> None:
    return None
