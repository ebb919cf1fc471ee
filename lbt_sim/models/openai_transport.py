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
from contextlib import nullcontext
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import tenacity

from lbt_sim.concurrency import cancelled
from lbt_sim.errors import ServerLost
from lbt_sim.models.completions import server_error
from lbt_sim.models.replica import CONVICTED, SUSPECT, Failure, Replica

__all__ = ["BODY_LIMIT", "PUSHED_BACK", "Limits", "Transport", "decode"]

BODY_LIMIT = 8 << 20
"""Bytes of an answer; the rest is not read."""
RETRY_AFTER_LIMIT = 60.0
AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
CONFIGURATION = frozenset({401, 403, 404, 407})
"""Not worth another attempt now, but once somebody has put something right."""
PUSHED_BACK = frozenset({429, 503})
"""The server has more than it wants: not the call's fault."""
AWAY = frozenset({0, 502, 503})
"""It is the server that is not there, or not now: 0 is no answer at all."""
HEADS = 4096
TRY = 15.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How long and how often.

    Attributes:
        timeout: Seconds of one attempt.
        retries: Further attempts after an error that may pass.
        push_back: Seconds for which a server may send a call back (429, 503) before that counts as an attempt.
        suspect: Deaths of servers with a call in flight, after which it is sent with no other beside it.
    """

    timeout: float
    retries: int
    push_back: float = 0.0
    suspect: int = SUSPECT


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

    async def post(self, path: str, body: bytes, digest: bytes, calls: int = 1, deaths: int = 0) -> Any:
        """The JSON that a replica answers to `body`.

        Args:
            path: Below the replica's URL, with a leading slash.
            body: JSON.
            digest: Of the prompt's head: requests with the same head go to the same replica while it has room.
            calls: How many calls the body holds.
            deaths: How often a server has died with them in flight.

        Raises:
            Failure: All attempts failed, or the request was refused; or it holds several calls, and the server has more
                than it wants, or keeps dying: to be sent one by one.
            ServerLost: No replica's server can be brought back.
        """
        try:
            return await self._attempt(path, body, digest, calls, deaths)
        except Failure as failure:
            if not failure.retry or not self._limits.retries or (calls > 1 and failure.status in PUSHED_BACK):
                raise
            first = last = failure
        await asyncio.sleep(min(first.after, RETRY_AFTER_LIMIT) or random.uniform(0.1, 0.5))
        async for attempt in tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, Failure) and error.retry),
            stop=tenacity.stop_after_attempt(self._limits.retries),
            wait=_pause,
            reraise=True,
        ):
            with attempt:
                try:
                    return await self._attempt(path, body, digest, calls, last.deaths)
                except Failure as failure:
                    last = failure
                    raise
        raise first  # not reached: tenacity raises what the last attempt raised

    async def try_once(self, replica: Replica, path: str, body: bytes | None = None) -> Any:
        """What one replica answers to GET, or to POST where there is a body; one attempt, of `TRY` seconds at most.

        Raises:
            Failure: It answers nothing that can be used.
        """
        return decode(await self.read_once(replica, path, body), replica.url)

    async def read_once(
        self, replica: Replica, path: str, body: bytes | None = None, seconds: float | None = None
    ) -> bytes:
        """As `try_once`, the answer as it came; with `seconds` in place of `TRY`."""
        seconds = min(seconds or TRY, self._limits.timeout)
        try:
            async with asyncio.timeout(seconds):
                return await self._exchange(replica, "GET" if body is None else "POST", path, body)
        except TimeoutError:
            raise Failure(f"{replica.url} did not answer within {seconds:g} s", retry=True) from None

    async def _attempt(self, path: str, body: bytes, digest: bytes, calls: int, deaths: int) -> Any:
        """An attempt, made again where it was not the call that failed: the server died, or was full.

        Of a server that dies and dies again, one of the calls that were in flight each time may be the reason: they are
        sent with no other beside them, so that one that is has itself alone to pay for it. At a server that nobody
        looks after a call that fails costs an attempt, unless it can be made at another at once.
        """
        begun, pause, kills, others = time.monotonic(), 0.05, 0, len(self.replicas) - 1
        while True:
            replica = await self._up(digest)
            alone = replica.life is not None and deaths >= self._limits.suspect
            if alone and calls > 1:
                raise Failure(f"{replica.url}: the server died {deaths} times", transient=True, deaths=deaths)
            async with replica.gate.alone() if alone else replica.gate.room(calls):
                if replica.life and not replica.life.alive:
                    continue  # it died while they waited for room
                async with replica.life.suspecting() if replica.life and alone else nullcontext():
                    try:
                        generation = await replica.life.up() if replica.life else 0
                        return await self._counted(replica, path, body, calls)
                    except ServerLost:
                        continue  # there may be others
                    except Failure as error:
                        failure = error
                    # Before the next one goes in, which would otherwise be taken for one that was there.
                    died = bool(failure.retry and replica.life and await replica.life.lost(generation))
            if failure.status in PUSHED_BACK:
                replica.pushed_back += 1
            # Several at once may be more than it will ever take: whoever put them together sends fewer.
            waits = failure.status in PUSHED_BACK and calls == 1
            if died:
                deaths, kills = deaths + failure.arrived, kills + (failure.arrived and alone)
                if kills >= CONVICTED:
                    raise _deadly(replica.url, deaths) from failure
            elif others and self._elsewhere(replica, failure):
                others -= 1
            elif waits and time.monotonic() - begun < self._limits.push_back:
                await asyncio.sleep(0 if failure.after else random.uniform(0.5, 1.0) * pause)
                pause = min(2 * pause, 2.0)
            else:
                failure.deaths = deaths
                raise failure

    def _elsewhere(self, replica: Replica, failure: Failure) -> bool:
        """Whether a call that failed since its server is not there can be made at another."""
        if replica.life or not failure.retry or failure.status not in AWAY:
            return False
        now = time.monotonic()
        return any(other.down_until <= now for other in self.replicas)

    async def _up(self, digest: bytes) -> Replica:
        """The replica that a call goes to; waits until there is one.

        Raises:
            ServerLost: No server can be brought back.
        """
        while True:
            replica = self._choose(digest)
            if replica.life and not replica.life.alive:
                await self._any_up()
            elif (rest := replica.resume_at - time.monotonic()) > 0:
                await asyncio.sleep(rest)
            else:
                return replica

    async def _any_up(self) -> None:
        """Waits for the first of the servers that answers again.

        Raises:
            ServerLost: None will.
        """
        waiting = [asyncio.ensure_future(replica.life.up()) for replica in self.replicas if replica.life]
        left = set(waiting)
        try:
            while left:
                done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
                if any(task.exception() is None for task in done):
                    return
            await waiting[0]
        finally:
            await cancelled(waiting)

    async def _counted(self, replica: Replica, path: str, body: bytes, calls: int) -> Any:
        try:
            async with replica.in_flight(calls):
                answer = decode(await self._exchange(replica, "POST", path, replica.start + body), replica.url)
        except Failure as failure:
            if failure.after:
                replica.resume_at = time.monotonic() + min(failure.after, RETRY_AFTER_LIMIT)
            if failure.retry and failure.status in AWAY and not replica.life:
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
        living = [r for r in order if not r.life or r.life.alive]
        up = [r for r in living if r.down_until <= now and r.resume_at <= now]
        if not up:
            return min(living or order, key=lambda replica: max(replica.down_until, replica.resume_at))
        return next((replica for replica in up if not replica.gate.full), up[0])

    async def _exchange(self, replica: Replica, method: str, path: str, body: bytes | None) -> bytes:
        url = replica.url + path
        try:
            sent = self._session.request(method, url, data=body, headers=replica.headers, allow_redirects=False)
            async with sent as response:
                data = await _read(response)
                status, headers = response.status, response.headers
        except TimeoutError:
            raise Failure(f"{replica.url} did not answer within {self._limits.timeout:g} s", retry=True) from None
        except aiohttp.ClientConnectorError as error:
            what = f"{replica.url} cannot be reached: {error.strerror or error.os_error}"
            raise Failure(what, retry=True, arrived=False) from error
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, OSError) as error:
            raise Failure(f"{replica.url} broke the connection: {error or type(error).__name__}", retry=True) from error
        except (aiohttp.ClientError, ValueError) as error:
            raise Failure(f"{replica.url}: {type(error).__name__}: {error}"[:300], transient=True) from error
        if status != 200:
            raise _refusal(replica.url, status, headers, data)
        return data


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


def _deadly(url: str, deaths: int) -> Failure:
    what = (
        f"{url}: the server died {deaths} times with this call in flight, {CONVICTED} of them with no other beside it"
    )
    return Failure(what, transient=True, deaths=deaths)


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
