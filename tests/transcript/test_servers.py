"""What the summary says of a run's executions and servers."""

from __future__ import annotations

from typing import Any

from lbt_sim.transcript.servers import servers_told
from lbt_sim.transcript.theme import UNICODE


def execution(time: Any = None, how: str = "done", detail: Any = None, **servers: Any) -> dict[str, Any]:
    models = {name: {"identity": "m", "detail": detail or {}} for name in servers}
    entry = {"ended": "2026-11-24T12:00:00+00:00", "how": how, "calls": {"made": 1}, "models": models}
    return entry | {"time": time or {}, "servers": servers}


def told(time: Any = None, **servers: Any) -> list[tuple[str, str]]:
    return list(servers_told([execution(time, **servers)], UNICODE))


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
    assert list(servers_told([], UNICODE)) == []
    assert told(small={}) == []


def test_what_was_computed_and_what_the_time_went_into() -> None:
    (time, _), (name, line) = told({"starting": 60.0, "waiting": 30.0, "own": 0.5}, small=FIGURES)
    assert (time, name) == ("time", "small")
    assert "1,000 prompt tokens sent, 250 computed (75 % from the prefix cache)" in line
    assert "100 tokens/s" in line
    assert "1 request " in line
    assert "at most 64 calls in flight" in line


def test_what_a_server_did_not_tell_is_left_out_and_never_a_zero() -> None:
    _, (_, line) = told(small={"prompt_tokens": None, "computed": None, "requests": 3})
    assert line == "3 requests"


def test_restarts_thin_labels_and_determinism_stand_beside() -> None:
    comparison = {"what": "alone, 8 at a time", "labels": 16, "labels_changed": 1, "texts": 16, "texts_changed": 5}
    more = {
        "restarts": ["was killed\x1b[31m"],
        "labels": {"read": 40, "thin": 7},
        "determinism": {"date": "2026-11-24", "comparisons": [comparison]},
    }
    _, _, *beside = told(small=FIGURES | more)
    assert [name for name, _ in beside] == ["", "", ""]
    restarted, thin, determinism = (text for _, text in beside)
    assert restarted.startswith("started anew: it was killed")
    assert "\x1b" not in restarted
    assert thin.startswith("7 of 40 labels had less than 1 % of the probability")
    assert "alone, 8 at a time: 1 of 16 labels, 5 of 16 texts" in determinism


def test_several_executions_say_how_they_ended_and_which_of_them_told() -> None:
    killed = {"began": "2026-11-24T11:00:00+00:00", "models": {"small": {"identity": "m", "detail": {}}}}
    entries = [killed, execution({"waiting": 1.0}, "failed", small=FIGURES), execution({"waiting": 2.0}, small=FIGURES)]
    (label, ends), (_, time), (_, line) = servers_told(entries, UNICODE)
    assert label == "executed"
    assert ends == "3 times: 1 killed or still running, 1 failed, 1 done; the figures are of the 2 that ended"
    assert "3.0 s waiting" in time
    assert "2,000 prompt tokens sent, 500 computed (75 % from the prefix cache)" in line


def test_the_version_of_a_server_is_told_where_it_was_one() -> None:
    by_command = {"vllm": None, "can": {"version": "0.31.0"}}
    started = {"vllm": "0.32.0", "can": {"version": "0.32.0"}}
    one = [execution(detail=by_command, small=FIGURES)]
    assert [text for _, text in servers_told(one, UNICODE)][-1].startswith("vLLM 0.31.0 · ")
    lines = [text for _, text in servers_told([*one, execution(detail=started, small=FIGURES)], UNICODE)]
    assert "not alike: small: vLLM 0.31.0, then 0.32.0" in lines
    assert not any(line.startswith("vLLM") for line in lines)


def test_why_the_last_one_ended_cannot_act_on_the_terminal() -> None:
    ((_, line),) = servers_told([execution(how="failed") | {"error": "no\x1b[31m\nroom"}], UNICODE)
    assert line.startswith("once: failed (no")
    assert "\x1b" not in line
    assert "\n" not in line


def test_what_was_measured_of_several_versions_says_of_how_many() -> None:
    one, two = ({"determinism": {"date": f"2026-11-0{n}", "comparisons": []}} | FIGURES for n in (1, 2))
    lines = [text for _, text in servers_told([execution(small=one), execution(small=two)], UNICODE)]
    assert [line.endswith("(in 1 execution)") for line in lines[-2:]] == [True, True]


def test_servers_that_were_lost_are_counted() -> None:
    lines = [text for _, text in servers_told([execution(small={"lost": 1, "replicas": 2})], UNICODE)]
    assert lines[-1] == "1 server lost on the way"
