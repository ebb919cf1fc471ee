"""The ledger: every model call and every event of a run, in one SQLite file with one writer.

A call is committed before anyone uses its reply. `put` never waits: rows go to a thread that owns the only
connection and commits whatever has come in since its last commit as one transaction; `flush` waits until all
that was put before is committed. After SIGKILL nothing committed is lost (WAL, synchronous=NORMAL: after a power
cut the last calls may be, and resuming makes them again).
"""

from __future__ import annotations

import asyncio
import json
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from lbt_sim.errors import InputError, Place, RunError
from lbt_sim.events import Event
from lbt_sim.ledger_file import LEDGER_FILE, connect, damaged
from lbt_sim.manifest import MANIFEST_FILE

__all__ = ["LEDGER_FILE", "Ledger", "LedgerReader", "PathTuple", "StoredCall", "at_server"]

_CALL_COLUMNS = (
    "round, step, agent, item, sample, key, shared, kind, head, last, seed, text, finish, logprobs, prompt_tokens, "
    "cached_tokens, completion_tokens, reasoning, error, seconds"
)
_INSERT_CALL = f"INSERT INTO calls ({_CALL_COLUMNS}) VALUES ({', '.join('?' * 20)})"  # noqa: S608 - no outside text
_SELECT_CALL = (
    "SELECT c.round, c.step, c.agent, c.item, c.sample, c.key, c.shared, k.model, k.purpose, k.sampling, k.choices, "
    "h.digest, h.turns, c.last, c.seed, c.text, c.finish, c.logprobs, c.prompt_tokens, c.cached_tokens, "
    "c.completion_tokens, c.reasoning, c.error, c.seconds "
    "FROM calls c JOIN kinds k ON k.id = c.kind JOIN heads h ON h.id = c.head "
)

_AT = " at "
_COUNTS = "(SELECT id FROM kinds WHERE purpose = 'count')"
"""Kinds of calls that only asked how long a prompt is: no model has answered them."""

T = TypeVar("T")
PathTuple = tuple[int, str, str, str, int]
"""(round, step, agent, item, sample)."""


def at_server(identity: str, server: str) -> str:
    """Who answers and where, as it stands with each call; the identity alone for what needs no server."""
    return f"{identity}{_AT}{server}" if server else identity


class StoredCall(NamedTuple):
    """A recorded call: what was asked and what came back, in plain values."""

    round: int
    step: str
    agent: str
    item: str
    sample: int
    key: bytes
    shared: int
    """1 where the reply was taken from an identical deterministic call."""
    model: str
    """Its identity, and where it is a server's, `at_server`."""
    purpose: str
    sampling: str
    choices: str
    head_digest: bytes
    head_turns: str
    """JSON: [[role, content], …]."""
    last: str
    seed: int | None
    """None for deterministic calls, whose reply does not depend on it."""
    text: str
    finish: str
    logprobs: str | None
    prompt_tokens: int | None
    cached_tokens: int | None
    completion_tokens: int | None
    reasoning: str | None
    error: str | None
    seconds: float

    @property
    def path(self) -> PathTuple:
        """Where in the run the call stands."""
        return self[:5]


@dataclass(frozen=True, slots=True)
class _Job:
    """A read for the writer's thread to do between commits, or (work None) a flush."""

    work: Callable[[sqlite3.Connection], Any] | None
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]

    def resolve(self, result: Any = None, error: BaseException | None = None) -> None:
        def deliver() -> None:
            if self.future.cancelled():
                return
            if error is None:
                self.future.set_result(result)
            else:
                self.future.set_exception(error)

        with suppress(RuntimeError):  # the loop is closed: nobody waits any more, and the writer goes on
            self.loop.call_soon_threadsafe(deliver)


class Ledger:
    """A run's ledger, open for writing. An async context manager; one at a time per folder."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / LEDGER_FILE
        self._connection = connect(self.file, read_only=False)
        self._queue: queue.SimpleQueue[StoredCall | Event | _Job | None] = queue.SimpleQueue()
        try:
            self._take_stock()
        except sqlite3.Error as error:
            self._connection.close()
            raise damaged(self.file, error) from error
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._write, name="ledger", daemon=True)
        self._thread.start()

    def _take_stock(self) -> None:
        """What the file holds already."""
        execute = self._connection.execute
        self._heads: dict[bytes, int] = {digest: number for number, digest in execute("SELECT id, digest FROM heads")}
        self._kinds: dict[tuple[str, str, str, str], int] = {
            (model, purpose, sampling, choices): number
            for number, model, purpose, sampling, choices in execute("SELECT * FROM kinds")
        }
        calls, paid, tokens = execute(
            f"SELECT count(*), total(iif(kind IN {_COUNTS}, 0, 1 - shared)), "  # noqa: S608 - no outside text
            "total(iif(shared, 0, ifnull(prompt_tokens, 0) + ifnull(completion_tokens, 0))) FROM calls"
        ).fetchone()
        self.committed_at_open = int(calls)
        """Calls that the ledger held when it was opened; 0 for a fresh run, which then skips look-ups by path."""
        self.paid_at_open = int(paid)
        """Those of them that a model had answered (not shared)."""
        self.tokens_at_open = int(tokens)
        """Prompt and completion tokens of the paid ones."""

    async def __aenter__(self) -> Ledger:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.close()
        except RunError:
            if kind is None:  # else what went wrong first is what is told
                raise

    def close(self) -> None:
        """Commits what was put and closes the file."""
        self._queue.put(None)
        self._thread.join()
        self._connection.close()
        self._check()

    def put(self, row: StoredCall | Event) -> None:
        """Takes a call or an event to be committed; never waits."""
        self._queue.put(row)

    async def flush(self) -> None:
        """Waits until everything that was put before is committed."""
        await self._ask(None)

    async def find(self, paths: Iterable[PathTuple]) -> dict[PathTuple, StoredCall]:
        """The recorded calls among `paths`."""
        wanted = set(paths)
        groups = {(round_, step, agent) for round_, step, agent, _, _ in wanted}

        def work(connection: sqlite3.Connection) -> dict[PathTuple, StoredCall]:
            found: dict[PathTuple, StoredCall] = {}
            for group in groups:
                rows = connection.execute(_SELECT_CALL + "WHERE c.round = ? AND c.step = ? AND c.agent = ?", group)
                found.update((call.path, call) for call in map(StoredCall._make, rows) if call.path in wanted)
            return found

        return await self._ask(work)

    async def find_keys(self, keys: Sequence[bytes], model: str) -> dict[bytes, StoredCall]:
        """Deterministic calls that `model` (its identity `at_server`) has answered, by content."""
        return await self._ask(lambda connection: _by_key(connection, keys, model))

    async def _ask(self, work: Callable[[sqlite3.Connection], T] | None) -> T:
        self._check()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._queue.put(_Job(work, loop, future))
        try:
            return await future
        except sqlite3.Error as error:
            self._check()  # it could not be written
            raise damaged(self.file, error) from error
        except Exception as error:
            self._check()
            raise self._unusable("read", error) from error

    def _check(self) -> None:
        if self._error is not None:
            raise self._unusable("written", self._error) from self._error

    def _unusable(self, how: str, error: BaseException) -> RunError:
        """Whatever the writer's thread met, told as one error: of the disk, or else of this program."""
        if isinstance(error, sqlite3.Error) and not isinstance(error, sqlite3.IntegrityError):
            why, remedy = str(error), "Free disk space or mend the permissions, then `lbt-sim resume` the run."
        else:
            why = f"{type(error).__name__}: {error}"
            remedy = "What was committed before is kept: `lbt-sim resume` the run. If it comes again, please report it."
        return RunError(f"the ledger cannot be {how}: {why}", where=Place(str(self.file)), remedy=remedy)

    def _write(self) -> None:
        """The writer's thread: one transaction for whatever has come in."""
        while True:
            batch = [self._queue.get()]
            while batch[-1] is not None and len(batch) < 20_000:
                try:
                    batch.append(self._queue.get_nowait())
                except queue.Empty:
                    break
            jobs = [entry for entry in batch if isinstance(entry, _Job)]
            if self._error is None:
                try:
                    self._commit(batch)
                except Exception as error:
                    self._error = error
            for job in jobs:
                if self._error is not None:
                    job.resolve(error=self._error)
                else:
                    try:
                        job.resolve(job.work(self._connection) if job.work else None)
                    except BaseException as error:
                        job.resolve(error=error)
            if batch[-1] is None:
                return

    def _commit(self, batch: Sequence[StoredCall | Event | _Job | None]) -> None:
        calls = [entry for entry in batch if isinstance(entry, StoredCall)]
        events = [entry for entry in batch if isinstance(entry, Event)]
        if not calls and not events:
            return
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.executemany(_INSERT_CALL, map(self._row, calls))
            connection.executemany(
                # An event that happens again (a resumed run) keeps its place in the order.
                "INSERT INTO events VALUES (?, ?, ?) ON CONFLICT (path, kind) DO UPDATE SET data = excluded.data",
                ((event.path, event.kind, _json(event.data)) for event in events),
            )
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # a full disk has rolled it back already
                connection.execute("ROLLBACK")
            raise

    def _row(self, call: StoredCall) -> tuple[Any, ...]:
        head = self._heads.get(call.head_digest)
        if head is None:
            head = self._insert(
                "INSERT INTO heads (digest, turns) VALUES (?, ?)", (call.head_digest, _storable(call.head_turns))
            )
            self._heads[call.head_digest] = head
        kind_key = (call.model, call.purpose, call.sampling, call.choices)
        kind = self._kinds.get(kind_key)
        if kind is None:
            kind = self._insert("INSERT INTO kinds (model, purpose, sampling, choices) VALUES (?, ?, ?, ?)", kind_key)
            self._kinds[kind_key] = kind
        return (*call[:7], kind, head, *map(_storable, call[13:]))

    def _insert(self, sql: str, values: tuple[Any, ...]) -> int:
        number = self._connection.execute(sql, values).lastrowid
        assert number is not None  # noqa: S101 - an INSERT always has one
        return number


class LedgerReader:
    """A ledger open for reading only: transcripts, reports. Works beside a run that is writing."""

    def __init__(self, folder: Path) -> None:
        file = folder / LEDGER_FILE
        if not file.is_file():
            begun = (folder / MANIFEST_FILE).is_file()
            raise InputError(
                f"there is no ledger in {folder}" + (": the run had asked nothing when it stopped" if begun else ""),
                where=Place(str(file)),
                remedy=f"Go on with it: lbt-sim resume {folder}"
                if begun
                else "Give a run folder: `lbt-sim run` prints where it puts one (runs/… by default).",
            )
        self.file = file
        self._connection = connect(file, read_only=True)

    def __enter__(self) -> LedgerReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def calls(self, where: str = "1", values: Sequence[Any] = (), *, limit: int = -1) -> Iterator[StoredCall]:
        """Recorded calls in the order of their commits; `where` is SQL over `c` (calls), `k` (kinds), `h` (heads)."""
        rows = self._rows(_SELECT_CALL + f"WHERE {where} ORDER BY c.id LIMIT ?", (*values, limit))
        return map(StoredCall._make, rows)

    def count(self, where: str = "1", values: Sequence[Any] = ()) -> int:
        """How many recorded calls there are."""
        sql = f"SELECT count(*) FROM calls c WHERE {where}"  # noqa: S608 - `where` is ours
        return int(next(self._rows(sql, values))[0])

    def asked(self, identity: str) -> bool:
        """Whether calls of the model with this identity were recorded, on whatever server."""
        there = identity + _AT
        sql = "SELECT EXISTS (SELECT 1 FROM calls WHERE kind IN "
        sql += "(SELECT id FROM kinds WHERE model = ? OR substr(model, 1, ?) = ?))"
        return bool(next(self._rows(sql, (identity, len(there), there)))[0])

    def find_keys(self, keys: Sequence[bytes], model: str) -> dict[bytes, StoredCall]:
        """Deterministic calls that `model` (its identity `at_server`) has answered, by content."""
        try:
            return _by_key(self._connection, keys, model)
        except sqlite3.DatabaseError as error:
            raise damaged(self.file, error) from error

    def totals(self) -> Mapping[str, Any]:
        """Calls, shared calls, failed calls and tokens of the whole run; calls that only counted tokens are none.

        `cached_tokens` is None where not every answer told it: a part is no sum.
        """
        names = ("calls", "shared", "failed", "prompt_tokens", "cached_tokens", "completion_tokens")
        sql = (
            "SELECT count(*), total(shared), total(finish = 'failed'), total(iif(shared, 0, prompt_tokens)), "
            "iif(total(NOT shared AND prompt_tokens > 0 AND cached_tokens IS NULL), NULL, "
            "total(iif(shared, 0, cached_tokens))), total(iif(shared, 0, completion_tokens)) FROM calls "
        )
        row = next(self._rows(sql + f"WHERE kind NOT IN {_COUNTS}"))
        return {name: None if value is None else int(value) for name, value in zip(names, row, strict=True)}

    def spent(self) -> list[tuple[str, str, int, int, int, int, int]]:
        """(purpose, stage, calls, shared, failed, prompt tokens, completion tokens), shared calls' tokens included."""
        sql = (
            "SELECT k.purpose, iif(instr(c.step, '/'), substr(c.step, 1, instr(c.step, '/') - 1), c.step) AS stage, "
            "count(*), sum(c.shared), sum(c.finish = 'failed'), total(c.prompt_tokens), total(c.completion_tokens) "
            "FROM calls c JOIN kinds k ON k.id = c.kind GROUP BY k.purpose, stage ORDER BY k.purpose, stage"
        )
        return [(purpose, stage, *map(int, numbers)) for purpose, stage, *numbers in self._rows(sql)]

    def events(self, *kinds: str, path: str = "*") -> Iterator[Event]:
        """Events in the order in which they first happened; `path` is a GLOB."""
        marks = f"AND kind IN ({', '.join('?' * len(kinds))})" if kinds else ""
        rows = self._rows(
            f"SELECT path, kind, data FROM events WHERE path GLOB ? {marks} ORDER BY rowid",  # noqa: S608
            (path, *kinds),
        )
        return (Event(path, kind, json.loads(data)) for path, kind, data in rows)

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> Iterator[Any]:
        try:
            yield from self._connection.execute(sql, values)
        except sqlite3.OperationalError:
            raise  # SQL that is wrong is a bug of ours
        except sqlite3.DatabaseError as error:
            raise damaged(self.file, error) from error


def _by_key(connection: sqlite3.Connection, keys: Sequence[bytes], model: str) -> dict[bytes, StoredCall]:
    found: dict[bytes, StoredCall] = {}
    for start in range(0, len(keys), 500):
        part = keys[start : start + 500]
        marks = ", ".join("?" * len(part))
        sql = f"WHERE c.key IN ({marks}) AND c.seed IS NULL AND c.shared = 0 AND k.model = ?"
        rows = connection.execute(_SELECT_CALL + sql, (*part, model))
        found.update((call.key, call) for call in map(StoredCall._make, rows))
    return found


def _storable(value: Any) -> Any:
    """The value; half characters (lone surrogates), which UTF-8 cannot hold, become question marks."""
    if isinstance(value, str) and not value.isascii():
        return value.encode("utf-8", "replace").decode()
    return value


def _json(data: Mapping[str, Any]) -> str:
    text: str = _storable(json.dumps(data, ensure_ascii=False, separators=(",", ":")))
    return text
