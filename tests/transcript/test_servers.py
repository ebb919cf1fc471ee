"""What the summary says of a run's servers."""

from __future__ import annotations

from typing import Any

from lbt_sim.transcript.servers import servers_told
from lbt_sim.transcript.theme import UNICODE


def told(time: Any = None, **servers: Any) -> list[tuple[str, str]]:
    return list(servers_told({"time": time, "servers": servers}, UNICODE))


FIGURES = {
    "prompt_tokens": 1000,
    "computed": 250,
    "prefix_hit_rate": 0.75,
    "tokens_per_second": 99.6,
    "requests": 1,
    "in_flight_at_most": 64,
    "restarts": [],
}


def test_without_servers_nothing_is_said() -> None:
    assert told({"starting": 1, "waiting": 2, "own": 3}) == []
    assert list(servers_told({}, UNICODE)) == []
    assert told(small={}) == []


def test_what_was_computed_and_what_the_time_went_into() -> None:
    (time, _), (name, line) = told({"starting": 60.0, "waiting": 30.0, "own": 0.5}, small=FIGURES)
    assert (time, name) == ("time", "small")
    assert "1,000 prompt tokens sent, 250 computed (75 % from the prefix cache)" in line
    assert "100 tokens/s" in line
    assert "1 request " in line
    assert "at most 64 calls in flight" in line


def test_what_a_server_did_not_tell_is_left_out_and_never_a_zero() -> None:
    ((_, line),) = told(small={"prompt_tokens": None, "computed": None, "requests": 3})
    assert line == "3 requests"


def test_restarts_thin_labels_and_determinism_stand_beside() -> None:
    comparison = {"what": "alone, 8 at a time", "labels": 16, "labels_changed": 1, "texts": 16, "texts_changed": 5}
    more = {
        "restarts": ["was killed\x1b[31m"],
        "labels": {"read": 40, "thin": 7},
        "determinism": {"date": "2026-11-24", "comparisons": [comparison]},
    }
    _, *beside = told(small=FIGURES | more)
    assert [name for name, _ in beside] == ["", "", ""]
    restarted, thin, determinism = (text for _, text in beside)
    assert restarted.startswith("started anew: it was killed")
    assert "\x1b" not in restarted
    assert thin.startswith("7 of 40 labels had less than 1 % of the probability")
    assert "alone, 8 at a time: 1 of 16 labels, 5 of 16 texts" in determinism
