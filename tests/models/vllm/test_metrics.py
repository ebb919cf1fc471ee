"""What is read of `/metrics`."""

from __future__ import annotations

import pytest

from lbt_sim.models.vllm.metrics import Snapshot, block_size, read_metrics

TEXT = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 4.0
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 9.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.5
vllm:prompt_tokens_total{engine="0",model_name="m"} 100.0
vllm:prompt_tokens_created{engine="0",model_name="m"} 1.7e+09
vllm:prompt_tokens_by_source_total{engine="0",model_name="m",source="local_compute"} 40.0
vllm:prompt_tokens_by_source_total{engine="0",model_name="m",source="local_cache_hit"} 60.0
vllm:generation_tokens_total{engine="0",model_name="m"} 7.0
vllm:request_success_total{engine="0",finished_reason="stop",model_name="m"} 5.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="m"} 6.0
vllm:cache_config_info{block_size="128",enable_prefix_caching="True",engine="0"} 1.0
"""


def test_engines_add_up_and_the_fullest_cache_counts() -> None:
    found = read_metrics(TEXT)
    assert (found.running, found.waiting, found.cache_use) == (7, 2, 0.5)
    assert (found.prompt_tokens, found.computed, found.generated, found.finished) == (100, 40, 7, 11)
    assert block_size(TEXT) == 128


def test_what_a_version_does_not_tell_is_none_and_not_zero() -> None:
    found = read_metrics('vllm:prompt_tokens_total{engine="0"} 5.0\nvllm:num_requests_running{engine="0"} NaN\n')
    assert found == Snapshot(prompt_tokens=5.0)
    assert block_size("") is None
    assert block_size('vllm:cache_config_info{block_size="None"} 1.0') is None


def test_older_versions_computed_what_was_no_hit() -> None:
    lines = [f"vllm:{name}_total 1{n}0" for n, name in enumerate(("prompt_tokens", "prefix_cache_queries"))]
    assert read_metrics("\n".join([*lines, "vllm:prefix_cache_hits_total 30"])).computed == 70


def test_growth_is_counted_over_a_restart() -> None:
    first, later, restarted = (Snapshot(prompt_tokens=n, running=r) for n, r in ((100, 1), (150, 2), (30, 3)))
    assert later.since(first) == Snapshot(prompt_tokens=50, running=2)
    assert restarted.since(later) == Snapshot(prompt_tokens=30, running=3)
    assert Snapshot(running=1, cache_use=0.2).plus(Snapshot(running=2, cache_use=0.9)) == Snapshot(
        running=3, cache_use=0.9
    )


@pytest.mark.parametrize("text", ["", "nonsense", "vllm:num_requests_running", 'vllm:x{a="b} 1', "\x00"])
def test_nonsense_is_read_as_nothing(text: str) -> None:
    assert read_metrics(text) == Snapshot()
