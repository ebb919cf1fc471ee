from __future__ import annotations

import pytest
from runs_by_hand import exam_event, run_event, stored_call, write_run

from lbt_sim.errors import InputError
from lbt_sim.transcript.read import CallFilter, RunRecord


@pytest.fixture
def record(run_folder):
    with RunRecord(run_folder) as opened:
        yield opened


def test_the_run_as_a_whole(record):
    assert record.status == "done"
    assert record.rounds == [0, 1, 2]
    assert list(record.materials) == ["m0", "m1", "m2"]
    assert record.candidate_counts() == {1: (3, 1), 2: (3, 1)}
    assert next(iter(record.seats)) == "teacher"


def test_the_result_is_what_the_run_printed(record):
    result = record.result()
    assert [entry["round"] for entry in result["rounds"]] == [0, 1, 2]
    assert result["status"] == "done"
    assert result["calls"] == {"made": 29, "shared": 0, "failed": 2}
    assert result["tokens"]["completion"] == 29


def test_what_was_taught_is_the_beam_of_the_round_before(record):
    assert [record.taught(round_) for round_ in (0, 1, 2)] == [["m0"], ["m0"], ["m1"]]


@pytest.mark.parametrize(
    ("which", "number"),
    [
        (CallFilter(), 29),
        (CallFilter(round=1), 14),
        (CallFilter(agent="literal"), 8),
        (CallFilter(agent="literal", round=2), 4),
        (CallFilter(item="p2"), 6),
        (CallFilter(material="m1"), 13),
        (CallFilter(step="reflect/*"), 2),
        (CallFilter(agent="literal", item="p2", material="m0"), 1),
        (CallFilter(agent="nobody"), 0),
    ],
)
def test_calls_are_found_by_any_part_of_their_path(record, which, number):
    assert record.count(which) == number
    assert len(list(record.calls(which))) == number


def test_pages_follow_each_other_in_order(record):
    every = [call.path for call in record.calls(CallFilter(agent="sceptic-1"))]
    pages = [[call.path for call in record.calls(CallFilter(agent="sceptic-1"), limit=3, skip=at)] for at in (0, 3, 6)]
    assert [path for page in pages for path in page] == every


async def test_calls_come_in_the_order_in_which_they_were_made(tmp_path):
    made = [(1, "write", "teacher", item, 0) for item in "cab"] + [(0, "ask", "literal", "", 0)]
    folder = await write_run(tmp_path / "run", iter([stored_call(path, "x") for path in made]))
    with RunRecord(folder) as record:
        assert [call.path for call in record.calls(CallFilter())] == made
        assert [call.path for call in record.calls(CallFilter(), limit=2, skip=1)] == made[1:3]


def test_a_material_is_not_found_by_a_part_of_its_name(record):
    assert record.count(CallFilter(material="m")) == 0


@pytest.mark.parametrize(
    ("check", "found", "near", "valid"),
    [
        ("agent", "litral", "literal", "sceptic-2"),
        ("item", "p22", "p2", "p4"),
        ("material", "m11", "m1", "m2"),
        ("round", 9, None, "2"),
    ],
)
def test_an_unknown_name_is_told_with_the_valid_ones(record, check, found, near, valid):
    with pytest.raises(InputError) as caught:
        getattr(record, f"check_{check}")(found)
    assert near is None or f"did you mean '{near}'?" in str(caught.value)
    assert valid in caught.value.valid
    assert caught.value.status == 2


@pytest.mark.parametrize(("check", "known"), [("agent", "teacher"), ("item", "h1"), ("item", "p1"), ("round", 0)])
def test_known_names_pass(record, check, known):
    getattr(record, f"check_{check}")(known)


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(InputError, match="there is no ledger"):
        RunRecord(tmp_path)


async def test_a_run_that_has_only_begun(tmp_path):
    folder = await write_run(tmp_path / "run", iter([run_event(), exam_event(1)]))
    with RunRecord(folder) as record:
        assert record.status == ""
        assert record.rounds == [1]
        assert record.result()["rounds"] == []
