"""The ledger: what is put is kept, in groups, in order; what cannot be kept is told to whoever waits."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbt_sim.errors import InputError, RunError
from lbt_sim.events import Event
from lbt_sim.ledger import LEDGER_FILE, Ledger, LedgerReader, StoredCall, at_server
from lbt_sim.manifest import MANIFEST_FILE


def call(item: str = "p1", /, **changes: Any) -> StoredCall:
    values: dict[str, Any] = {
        "round": 1, "step": "exam/m0", "agent": "ann", "item": item, "sample": 0,
        "key": blake2b(item.encode("utf-8", "surrogatepass"), digest_size=16).digest(), "shared": 0,
        "model": "scripted:x", "purpose": "answer", "sampling": "greedy", "choices": "[]",
        "head_digest": b"head", "head_turns": '[["system", "Be brief."]]', "last": f"question {item}", "seed": None,
        "text": "yes", "finish": "stop", "logprobs": None, "prompt_tokens": 10, "cached_tokens": 4,
        "completion_tokens": 1, "reasoning": None, "error": None, "seconds": 0.25,
    }  # fmt: skip
    return StoredCall(**(values | changes))


def note(path: str, text: str = "") -> Event:
    return Event(path, "notice", {"text": text})


def read(folder: Path) -> tuple[list[StoredCall], list[Event]]:
    with LedgerReader(folder) as ledger:
        return list(ledger.calls()), list(ledger.events())


# --- what is put is kept ------------------------------------------------------------------------------------


async def test_what_was_flushed_is_on_disk_while_the_ledger_is_still_open(tmp_path: Path) -> None:
    async with Ledger(tmp_path) as ledger:
        ledger.put(call("p1"))
        ledger.put(note("r1/x", "hello"))
        await ledger.flush()
        assert read(tmp_path) == ([call("p1")], [note("r1/x", "hello")])


async def test_closing_commits_what_nobody_waited_for(tmp_path: Path) -> None:
    async with Ledger(tmp_path) as ledger:
        for number in range(500):
            ledger.put(call(f"p{number}"))
    assert [found.item for found in read(tmp_path)[0]] == [f"p{number}" for number in range(500)]


async def test_an_error_in_the_run_still_commits(tmp_path: Path) -> None:
    async def broken_run() -> None:
        async with Ledger(tmp_path) as ledger:
            ledger.put(call())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await broken_run()
    assert read(tmp_path)[0] == [call()]


async def test_what_comes_in_during_a_commit_is_committed_together(tmp_path: Path) -> None:
    begins: list[str] = []
    async with Ledger(tmp_path) as ledger:
        await ledger.flush()  # the writer waits for work now
        ledger._connection.set_trace_callback(lambda sql: begins.append(sql) if sql.startswith("BEGIN") else None)
        for number in range(2000):
            ledger.put(call(f"p{number}"))
        await ledger.flush()
        ledger._connection.set_trace_callback(None)
    assert 1 <= len(begins) < 500
    assert len(read(tmp_path)[0]) == 2000


async def test_an_event_told_again_keeps_its_place_and_takes_the_new_words(tmp_path: Path) -> None:
    async with Ledger(tmp_path) as ledger:
        for event in (note("a", "1"), note("b", "2"), note("a", "3"), Event("a", "report", {})):
            ledger.put(event)
    async with Ledger(tmp_path) as again:
        again.put(note("c", "4"))
        again.put(note("b", "5"))
    assert read(tmp_path)[1] == [note("a", "3"), note("b", "5"), Event("a", "report", {}), note("c", "4")]


@given(st.text(st.characters(), max_size=20))
@settings(max_examples=40, deadline=None)
async def test_any_text_is_kept(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.mktemp("run")
    row = call("p1", text=text, last=text, reasoning=text, error=text, head_turns=f"[{text}]")
    async with Ledger(folder) as ledger:
        ledger.put(row)
        ledger.put(note("n", text))
    kept = text.encode("utf-8", "replace").decode()
    calls, events = read(folder)
    assert calls == [call("p1", text=kept, last=kept, reasoning=kept, error=kept, head_turns=f"[{kept}]")]
    assert events == [note("n", kept)]


async def test_half_characters_and_nul_cost_only_themselves(tmp_path: Path) -> None:
    async with Ledger(tmp_path) as ledger:
        ledger.put(call("p1", text="a\ud83db\x00c"))
        ledger.put(call("p2"))
        ledger.put(note("n", "x\udc00"))
        await ledger.flush()
    calls, events = read(tmp_path)
    assert [found.text for found in calls] == ["a?b\x00c", "yes"]
    assert events == [note("n", "x?")]


async def test_a_head_is_kept_once(tmp_path: Path) -> None:
    async with Ledger(tmp_path) as ledger:
        ledger.put(call("p1"))
        ledger.put(call("p2"))
    async with Ledger(tmp_path) as again:
        again.put(call("p3"))
        again.put(call("p4", head_digest=b"other"))
    with sqlite3.connect(tmp_path / LEDGER_FILE) as raw:
        assert raw.execute("SELECT count(*) FROM heads").fetchone() == (2,)
    raw.close()
    assert {found.item: found.head_digest for found in read(tmp_path)[0]}["p3"] == b"head"


# --- finding ------------------------------------------------------------------------------------------------


async def test_calls_are_found_by_path_also_those_just_put(tmp_path: Path) -> None:
    here, other = call("p1"), call("p1", agent="bob")
    async with Ledger(tmp_path) as ledger:
        for row in (here, other, call("p2")):
            ledger.put(row)
        missing = (*here.path[:4], 1)
        assert await ledger.find([here.path, other.path, missing]) == {here.path: here, other.path: other}
        assert await ledger.find([]) == {}


async def test_calls_are_found_by_content_only_where_they_are_deterministic_and_paid(tmp_path: Path) -> None:
    paid, shared, sampled = call("paid"), call("shared", shared=1), call("sampled", seed=7)
    many = [call(f"n{number}") for number in range(1200)]
    async with Ledger(tmp_path) as ledger:
        for row in (paid, shared, sampled, *many):
            ledger.put(row)
        keys = [paid.key, shared.key, sampled.key, b"unknown"]
        assert await ledger.find_keys(keys, "scripted:x") == {paid.key: paid}
        assert len(await ledger.find_keys([row.key for row in many], "scripted:x")) == 1200


async def test_what_two_models_said_to_the_same_is_kept_apart(tmp_path: Path) -> None:
    here, there = call("p1", model=at_server("m", "http://a/v1")), call("p2", model=at_server("m", "http://b/v1"))
    there = there._replace(key=here.key)
    async with Ledger(tmp_path) as ledger:
        ledger.put(here)
        ledger.put(there)
        assert await ledger.find_keys([here.key], here.model) == {here.key: here}
        assert await ledger.find_keys([here.key], there.model) == {here.key: there}
        assert await ledger.find_keys([here.key], "m") == {}


async def test_a_reader_knows_which_models_were_asked_wherever_they_are(tmp_path: Path) -> None:
    async with Ledger(tmp_path) as ledger:
        ledger.put(call("p1", model=at_server("openai:m", "http://a/v1")))
        ledger.put(call("p2", model=at_server("simulated:1", "")))
    with LedgerReader(tmp_path) as found:
        asked = [found.asked(identity) for identity in ("openai:m", "simulated:1", "openai:%", "openai:", "other")]
    assert asked == [True, True, False, False, False]


async def test_an_opened_ledger_knows_what_it_holds(tmp_path: Path) -> None:
    async with Ledger(tmp_path) as ledger:
        assert (ledger.committed_at_open, ledger.paid_at_open, ledger.tokens_at_open) == (0, 0, 0)
        ledger.put(call("p1"))
        ledger.put(call("p2", shared=1))
        ledger.put(call("p3", prompt_tokens=None, completion_tokens=None))
    async with Ledger(tmp_path) as again:
        assert (again.committed_at_open, again.paid_at_open, again.tokens_at_open) == (3, 2, 11)


@pytest.mark.parametrize(
    ("row", "cached"),
    [
        ({"cached_tokens": None}, None),
        ({"cached_tokens": None, "shared": 1}, 4),
        ({"cached_tokens": None, "prompt_tokens": None, "finish": "failed"}, 4),
    ],
)
async def test_a_part_of_the_cached_tokens_is_no_total(tmp_path: Path, row: dict[str, Any], cached: int | None) -> None:
    async with Ledger(tmp_path) as ledger:
        ledger.put(call("p1"))
        ledger.put(call("p2", **row))
    with LedgerReader(tmp_path) as found:
        assert found.totals()["cached_tokens"] == cached


async def test_a_reader_counts_and_selects(tmp_path: Path) -> None:
    async with Ledger(tmp_path) as ledger:
        for row in (call("p1"), call("p2", shared=1), call("p3", finish="failed"), call("p4", round=2)):
            ledger.put(row)
        ledger.put(note("r1/a"))
        ledger.put(Event("r2/a", "report", {}))
    with LedgerReader(tmp_path) as found:
        assert found.count() == 4
        assert found.count("c.round = ?", (2,)) == 1
        assert [row.item for row in found.calls("c.round = ?", (1,), limit=2)] == ["p1", "p2"]
        totals = {"calls": 4, "shared": 1, "failed": 1, "prompt_tokens": 30, "cached_tokens": 12}
        assert found.totals() == {**totals, "completion_tokens": 3}
        assert [event.path for event in found.events("report")] == ["r2/a"]
        assert [event.path for event in found.events(path="r1/*")] == ["r1/a"]


# --- what is refused ----------------------------------------------------------------------------------------


async def test_a_path_is_taken_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.put(call("p1"))
    ledger.put(call("p1", text="another answer"))
    with pytest.raises(RunError, match="UNIQUE"):
        await ledger.flush()
    with pytest.raises(RunError):
        ledger.close()


async def test_two_writers_cannot_both_record_a_call(tmp_path: Path) -> None:
    async with Ledger(tmp_path) as first:
        first.put(call("p1", text="the first"))
        await first.flush()
        second = Ledger(tmp_path)
        second.put(call("p1", text="the second"))
        with pytest.raises(RunError, match="resume"):
            await second.flush()
        with pytest.raises(RunError):
            second.close()
    assert [row.text for row in read(tmp_path)[0]] == ["the first"]


def _garbage(file: Path) -> None:
    file.write_bytes(b"this is no database at all" * 100)


def _folder(file: Path) -> None:
    file.mkdir()


def _version(file: Path) -> None:
    Ledger(file.parent).close()
    with sqlite3.connect(file) as raw:
        raw.execute("PRAGMA user_version=99")
    raw.close()


def _of_another_program(file: Path) -> None:
    with sqlite3.connect(file) as raw:
        raw.execute("CREATE TABLE precious (x)")
    raw.close()


@pytest.mark.parametrize(
    ("make", "says"),
    [(_garbage, "not a database"), (_folder, "cannot be opened"), (_version, "99"), (_of_another_program, "not a run")],
)
def test_what_is_no_ledger_is_refused_and_left_alone(tmp_path: Path, make: Any, says: str) -> None:
    file = tmp_path / LEDGER_FILE
    make(file)
    before = None if file.is_dir() else file.read_bytes()
    with pytest.raises(InputError, match=says) as caught:
        Ledger(tmp_path)
    assert caught.value.remedy
    assert str(file) in str(caught.value)
    if before is not None:
        with pytest.raises(InputError):
            LedgerReader(tmp_path)
        assert file.read_bytes() == before


def test_a_folder_without_a_ledger_says_where_run_folders_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no ledger") as caught:
        LedgerReader(tmp_path)
    assert "lbt-sim run" in caught.value.remedy


def test_an_empty_ledger_can_be_started_and_not_read(tmp_path: Path) -> None:
    (tmp_path / LEDGER_FILE).touch()
    with pytest.raises(InputError, match="before its first call"):
        LedgerReader(tmp_path)
    Ledger(tmp_path).close()
    assert read(tmp_path) == ([], [])


async def test_a_damaged_ledger_is_told_as_such(tmp_path: Path) -> None:
    async with Ledger(tmp_path) as ledger:
        for number in range(3000):
            ledger.put(call(f"p{number}", text="x" * 200))
    file = tmp_path / LEDGER_FILE
    data = bytearray(file.read_bytes())
    data[8 * 4096 : -4096] = b"\xa5" * (len(data) - 9 * 4096)
    file.write_bytes(data)
    with pytest.raises(InputError, match="damaged") as caught:
        read(tmp_path)
    assert "recover" in caught.value.remedy
    with pytest.raises((InputError, RunError), match="damaged"):
        async with Ledger(tmp_path) as ledger:
            await ledger.find([call(f"p{number}").path for number in range(3000)])


# --- a disk that takes no more ------------------------------------------------------------------------------


@pytest.fixture
async def full(tmp_path: Path) -> AsyncIterator[Ledger]:
    """A ledger with one call on a disk that then takes little more."""
    ledger = Ledger(tmp_path)
    ledger.put(call("before"))
    await ledger.flush()
    ledger._connection.execute("PRAGMA max_page_count=12")  # SQLite's own full disk
    yield ledger
    with pytest.raises(RunError):
        ledger.close()


async def fill(ledger: Ledger) -> None:
    for number in range(50):
        ledger.put(call(f"p{number}", text="x" * 5000))
    await ledger.flush()


async def test_a_full_disk_reaches_whoever_waits(full: Ledger, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="full") as caught:
        await fill(full)
    assert "Free disk space" in caught.value.remedy
    assert "resume" in caught.value.remedy
    for asks in (full.flush(), full.find([call().path]), full.find_keys([b"x"], "m")):
        with pytest.raises(RunError, match="full"):
            await asks
    assert [row.item for row in read(tmp_path)[0]] == ["before"]


async def test_whatever_the_writer_meets_is_told_as_one_error_with_its_cause(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.put(call("before"))
    await ledger.flush()
    ledger.put(Event("a", "notice", {"what": object()}))  # no JSON
    for asks in (ledger.flush(), ledger.find([call().path])):
        with pytest.raises(RunError, match="cannot be written: TypeError") as caught:
            await asks
        assert isinstance(caught.value.__cause__, TypeError)
        assert "resume" in caught.value.remedy
        assert "disk" not in caught.value.remedy
    with pytest.raises(RunError):
        ledger.close()
    assert [row.item for row in read(tmp_path)[0]] == ["before"]


async def test_whatever_goes_wrong_in_reading_is_told_as_an_error_of_the_run(tmp_path: Path) -> None:
    async with Ledger(tmp_path) as ledger:
        with pytest.raises(RunError, match="cannot be read: ZeroDivisionError") as caught:
            await ledger._ask(lambda _: 1 / 0)
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        ledger.put(call())
    assert read(tmp_path)[0] == [call()]


async def test_after_the_disk_has_room_again_the_ledger_goes_on(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.put(call("before"))
    await ledger.flush()
    ledger._connection.execute("PRAGMA max_page_count=12")
    with pytest.raises(RunError):
        await fill(ledger)
    with pytest.raises(RunError):
        ledger.close()
    async with Ledger(tmp_path) as again:
        await fill(again)
    assert len(read(tmp_path)[0]) == 51


def test_a_run_that_stopped_before_it_asked_anything_is_told_as_one(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_FILE).write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="had asked nothing when it stopped") as caught:
        LedgerReader(tmp_path)
    assert caught.value.remedy == f"Go on with it: lbt-sim resume {tmp_path}"
