"""A run's vLLM servers, all together: planned before any is started, shared by the models that say the same.

A server is one that this run starts and stops, one that `lbt-sim models serve` keeps for many runs, or one whose
address the scenario gives; only the first kind is ever signalled.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from lbt_sim.concurrency import cancelled, together
from lbt_sim.errors import LbtError, ModelUnavailable, Place
from lbt_sim.models.openai_transport import Limits, Transport, decode
from lbt_sim.models.replica import Failure, Replica
from lbt_sim.models.surroundings import Surroundings
from lbt_sim.models.vllm import records
from lbt_sim.models.vllm.capabilities import probe
from lbt_sim.models.vllm.check import check_agreement
from lbt_sim.models.vllm.group import Group, adapter_name, told
from lbt_sim.models.vllm.life import Attached, Managed
from lbt_sim.models.vllm.metrics import Snapshot, read_metrics
from lbt_sim.models.vllm.plan import Wanted, plan
from lbt_sim.models.vllm.reserve import Reservations
from lbt_sim.models.vllm.server import Rules, Server
from lbt_sim.models.vllm.spec import VllmSpec
from lbt_sim.models.vllm.station import Party, Station

__all__ = ["Fleet"]

LOOK = 0.25
"""Seconds between two looks at a server's metrics while calls are in flight."""
NO_FIGURES = frozenset({401, 403, 404, 405, 501})
"""What a server answers that has none, or none for us."""
BACK = 5.0
"""Seconds between two looks whether a server that is away is back."""
READ = 5.0
"""Seconds for such a look, at most."""
PROBE_SECONDS = 120.0
"""For one question while it is found out what a server can: the first of a kind may compile something."""


class Fleet:
    """All vLLM servers of a run, or of the runs that a worker executes.

    Opened when the first of its models gets ready, ended with the last. A model that joins later finds the servers that
    answer it, or has its own opened; the others go on.

    Args:
        surroundings: The run.
        kept: Keep the servers for other runs, and start them even where there are kept ones.
    """

    def __init__(self, surroundings: Surroundings, *, kept: bool = False) -> None:
        self._surroundings = surroundings
        self._kept = kept
        self._groups: dict[str, Group] = {}
        self._members: dict[str, VllmSpec] = {}
        self._one_by_one = asyncio.Lock()
        self._parties: list[Party] = []
        self._watch: asyncio.Task[None] | None = None
        self._awaited: dict[Station, asyncio.Future[None]] = {}
        self._transport: Transport | None = None
        self._folder: Path | None = None
        self._opened = False

    def join(self, name: str, spec: VllmSpec) -> str:
        """Takes account of an entry under `models:`, before it is opened.

        Returns:
            What it is called here: its name, numbered where a model of another run has it.
        """
        member, number = name, 1
        while member in self._members:
            number += 1
            member = f"{name}-{number}"
        self._members[member] = spec
        self._groups.setdefault(spec.server_key, Group(member, spec)).members[member] = spec
        return member

    async def open(self, name: str) -> Party:
        """The servers of an entry, up and known; the first call opens those of all that have joined.

        Raises:
            ModelUnavailable: One of them cannot be had; then none of those is left running.
        """
        spec = self._members[name]
        group = self._groups[spec.server_key]
        opening = group.opening
        if opening is None:
            fresh = [one for one in self._groups.values() if one.opening is None]
            opening = asyncio.ensure_future(self._open(fresh))
            for one in fresh:
                one.opening = opening
        try:
            await asyncio.shield(opening)
            await self._admit(name, group)
        except asyncio.CancelledError:
            await self._end()
            raise
        adapter = adapter_name(spec)
        detail = dict(group.detail)
        party = Party(
            group.stations,
            self._look,
            weights=str(detail.pop("identity", spec.model)),
            answers_as=adapter,
            adapter=str(dict(detail.get("adapters", {})).get(adapter, adapter)) if adapter else "",
            detail=detail,
            server=", ".join(sorted(spec.urls)),
        )
        self._parties.append(party)
        return party

    def servers_of(self, name: str) -> list[Server]:
        """The servers of an entry that were started here."""
        return list(self._groups[self._members[name].server_key].servers)

    def model_of(self, name: str) -> str:
        """What an entry's servers serve."""
        return str(self._groups[self._members[name].server_key].detail.get("identity", self._members[name].model))

    async def leave(self, name: str) -> None:
        """An entry is closed; with the last of them the servers that were started here are stopped."""
        spec = self._members.pop(name, None)
        if not self._members:
            await self._end()
        elif spec is not None and (group := self._groups.get(spec.server_key)) is not None:
            group.members.pop(name, None)
            group.follow_caps()
            if not group.members and group.opening is None:
                del self._groups[spec.server_key]

    async def _end(self) -> None:
        """Ends all of it; whoever joins after that begins anew."""
        groups, self._groups = list(self._groups.values()), {}
        openings = {group.opening for group in groups if group.opening is not None}
        if not openings:  # a run that is over starts nothing, and yet ends what it has left behind
            with suppress(LbtError):
                await asyncio.to_thread(records.sweep, self._surroundings.tell)
        watch, self._watch = self._watch, None
        await cancelled([*openings, *([watch] if watch is not None else [])])
        await cancelled(list(self._awaited.values()))
        self._parties.clear()
        await asyncio.gather(*(server.stop() for group in groups for server in group.servers))
        lives = [station.life for group in groups for station in group.stations]
        await asyncio.gather(*(life.close() for life in lives if isinstance(life, Attached)))
        await self._hang_up()
        if self._folder is not None:
            if self._opened:  # else its logs are what is wanted now
                shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    async def _hang_up(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.close()

    # --- opening ------------------------------------------------------------------------------------------

    async def _open(self, groups: Sequence[Group]) -> None:
        async with self._one_by_one:
            if self._transport is None:
                self._transport = Transport([], Limits(PROBE_SECONDS, 0), None)
            try:
                await self._open_all(groups)
            except BaseException:
                await asyncio.gather(*(server.stop() for group in groups for server in group.servers))
                for group in groups:  # whoever asks next tries anew
                    group.opening = None
                    group.stations, group.servers = [], []
                if self._watch is None:
                    await self._hang_up()
                raise
            self._opened = True
            if self._watch is None:
                self._watch = asyncio.ensure_future(self._keep_looking())

    async def _open_all(self, groups: Sequence[Group]) -> None:
        check_agreement(self._members)
        await asyncio.to_thread(records.sweep, self._surroundings.tell)
        for group in groups:
            if group.spec.urls:
                urls = dict.fromkeys(group.spec.urls)
                group.stations = [group.given(number, url) for number, url in enumerate(urls)]
            elif not self._kept:
                self._attach(group)
            group.verified = {adapter_name(spec) or "" for spec in group.members.values()}
        wanted = [group for group in groups if not group.stations]
        with Reservations() as reservations:
            await self._start(wanted, reservations)
        for group in groups:
            group.detail = {**group.detail, "servers": [told(station) for station in group.stations]}
            await self._find_out_all(group)
            await together(self._look(station) for station in group.stations)  # from here on it is counted

    async def _admit(self, name: str, group: Group) -> None:
        """Sees that servers that were opened for others answer an entry too.

        Raises:
            ModelUnavailable: They do not know its adapter.
        """
        adapter = adapter_name(self._members[name]) or ""
        group.follow_caps()
        if adapter in group.verified:
            return
        if group.servers:
            raise ModelUnavailable(
                "its servers were started for other models, without its adapter",
                where=Place(key=f"models.{name}.lora"),
                remedy="Keep servers for all of them: lbt-sim models serve.",
            )
        await self._find_out_all(group)
        group.verified.add(adapter)

    def _attach(self, group: Group) -> None:
        """Takes servers that `models serve` keeps for this entry, where there are."""
        found = records.find_kept(group.spec.server_key)
        fitting = [record for record in found if group.adapters.items() <= dict(record.adapters).items()]
        if not fitting:
            return
        for number, record in enumerate(fitting[: group.spec.replicas]):
            life = Attached(record, group.spec.start_timeout)
            group.stations.append(Station(str(number), life.url, record.served, record.api_key, life, group.most))
        group.detail = {**dict(fitting[0].detail), "attached": True}
        urls, wanted = [station.url for station in group.stations], group.spec.replicas
        which = "the server that is kept running" if wanted == 1 else f"{len(urls)} of {wanted} servers, kept running"
        self._surroundings.tell(f"{group.name}: using {which} ({', '.join(urls)})")

    async def _start(self, groups: Sequence[Group], reservations: Reservations) -> None:
        wanted = [Wanted(group.name, group.spec, group.adapters) for group in groups]
        if not wanted:
            return
        launches = await asyncio.to_thread(plan, wanted, self._surroundings.tell, reservations)
        for group in groups:
            spec = group.spec
            rules = Rules(spec.patience, spec.start_timeout, spec.restarts)
            group.detail = dict(launches[group.name][0].detail)
            for number, launch in enumerate(launches[group.name]):
                station = Station(str(number), "", "", most=group.most, kept=self._kept)
                server = Server(
                    launch,
                    self._logs(),
                    rules,
                    tell=self._surroundings.tell,
                    busy=station.busy,
                    server_key=spec.server_key,
                    kept=self._kept,
                )
                group.servers.append(server)
                group.stations.append(station)
        await together(self._started(group, server) for group in groups for server in group.servers)
        for group in groups:
            for station, server in zip(group.stations, group.servers, strict=True):
                station.life = Managed(server)
                station.url, station.served, station.key = station.life.url, server.served, server.api_key

    async def _started(self, group: Group, server: Server) -> None:
        begun, detail = time.monotonic(), group.detail
        where = {"cpu": "the CPU", "cuda": "GPUs"}.get(str(detail.get("device")), "this machine")
        what = " ".join(filter(None, ("vLLM", str(detail.get("vllm") or ""))))
        self._surroundings.tell(f"{group.name}: starting {what} on {where}; log: {server.log}")
        await server.start()
        self._surroundings.tell(f"{group.name}: ready after {time.monotonic() - begun:.0f} s")

    def _logs(self) -> Path:
        if self._surroundings.logs is not None:
            return self._surroundings.logs
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="lbt-sim-vllm-"))
        return self._folder

    async def _find_out_all(self, group: Group) -> None:
        """What a group's servers can; of those that run somewhere, some may be down for now."""
        if not group.spec.urls:
            await together(self._find_out(group, station) for station in group.stations)
            return

        async def tried(station: Station) -> _Away | None:
            try:
                await self._find_out(group, station)
            except _Away as error:
                return error
            return None

        away = await together(tried(station) for station in group.stations)
        there = [station for station, error in zip(group.stations, away, strict=True) if error is None]
        for station, error in zip(group.stations, away, strict=True):
            if error is not None and not there:
                raise error
            if error is not None:
                self._surroundings.tell(f"{group.name}: {error.what}; it is passed over until it answers")
                station.can = there[0].can  # its calls are asked as those of the others
                station.away = True

    async def _find_out(self, group: Group, station: Station) -> None:
        """What a server can. A server that was not started here is verified so: it has to know the model."""
        assert self._transport is not None  # noqa: S101 - `_open` made it
        replica = Replica(station.url, station.gate, key=station.key)
        place = Place(key=f"models.{group.name}" + (".urls" if group.spec.urls else ""))
        read = partial(self._transport.read_once, replica, seconds=PROBE_SECONDS)

        async def post(path: str, body: Mapping[str, Any] | None) -> Any:
            data = await read(path, None if body is None else json.dumps(body).encode())
            return data.decode("utf-8", "replace") if path == "/metrics" else decode(data, station.url)

        try:
            if group.spec.urls or isinstance(station.life, Attached):
                names = {adapter_name(spec) or station.served for spec in group.members.values()}
                await _verify(post, station, names, place)
            station.can = await probe(post, station.served)
        except Failure as failure:
            remedy = f"Is it running? Try: curl {station.url}/v1/models"
            if isinstance(station.life, Attached):
                remedy = (
                    "`lbt-sim models serve` keeps it: see what that tells, or end that, and the run starts its own."
                )
            kind = _Away if failure.retry and failure.status in (0, 502, 503, 504) else ModelUnavailable
            raise kind(f"no vLLM server: {failure}", where=place, remedy=remedy) from None

    # --- while it runs ------------------------------------------------------------------------------------

    async def _keep_looking(self) -> None:
        """Looks at the servers for as long as the run goes on."""
        try:
            await self._look_again_and_again()
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
            self._surroundings.tell(f"the servers are no longer looked at, calls in flight stay as they are ({told})")
            raise

    async def _look_again_and_again(self) -> None:
        stations = [station for group in self._groups.values() for station in group.stations]
        before: list[tuple[int, int] | None] = [None] * len(stations)
        while True:
            await asyncio.sleep(LOOK)
            now = [station.busy() for station in stations]
            active = [s for s, n, b in zip(stations, now, before, strict=True) if n != b or n[0] or s.kept]
            await asyncio.gather(*(self._look(station) for station in active if not station.gone))
            before = list(now)
            self._await_those_away()
            for party in self._parties:
                party.widen()

    def _await_those_away(self) -> None:
        """Sees to it that somebody looks whether each server that is away is back."""
        for group in self._groups.values():
            for station in group.stations:
                if station.away and station not in self._awaited:
                    self._awaited[station] = asyncio.ensure_future(self._await_back(group, station))

    async def _await_back(self, group: Group, station: Station) -> None:
        """Takes a server on again once it answers, as the one that it was."""
        wanted, told = station.can, ""
        try:
            while True:
                await asyncio.sleep(BACK)
                try:
                    await self._find_out(group, station)
                except ModelUnavailable as error:
                    wrong = "" if isinstance(error, _Away) else error.what
                else:
                    wrong = "" if station.can.serves_as(wanted) else f"{station.url} can less than it should"
                    if not wrong:
                        break
                if wrong and wrong != told:
                    self._surroundings.tell(f"{group.name}: {wrong}; it is still passed over")
                    told = wrong
            station.back()
            self._surroundings.tell(f"{group.name}: {station.url} answers again")
        finally:
            station.can = wanted
            del self._awaited[station]

    async def _look(self, station: Station) -> None:
        assert self._transport is not None  # noqa: S101 - `_open` made it
        url = station.life.url if station.life else station.url
        replica = Replica(url, station.gate, key=station.key)
        now = None
        if not station.silent:
            try:
                text = await self._transport.read_once(replica, "/metrics", seconds=READ)
                now = read_metrics(text.decode("utf-8", "replace"))
            except Failure as failure:  # what is wrong with it shows in its calls, and to its watch
                station.silent = failure.status in NO_FIGURES and not station.tells
            else:
                station.silent = now == Snapshot() and not station.tells
        station.look(None if station.silent else now)


class _Away(ModelUnavailable):
    """A server is not in reach now."""


async def _verify(post: Any, station: Station, names: Collection[str], place: Place) -> None:
    """Sees that a server knows the model and its adapters by these names, and answers one token for each.

    Raises:
        ModelUnavailable: It does not.
    """
    models = await post("/v1/models", None)
    entries = models.get("data") if isinstance(models, Mapping) else None
    served = [e.get("id") for e in entries if isinstance(e, Mapping)] if isinstance(entries, list) else []
    for name in sorted(names):
        if name not in served:
            raise ModelUnavailable(
                f"{station.url} does not serve {name!r}",
                where=place,
                valid=[str(one) for one in served[:20]],
                remedy="Correct the address or the model's name.",
            )
        said = {"model": name, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
        await post("/v1/chat/completions", said)
