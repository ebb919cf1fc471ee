"""What a vLLM server says of itself at `/metrics`: how busy it is, and what it has computed.

Names as of vLLM 0.32 (https://docs.vllm.ai/en/latest/usage/metrics/); those that a version lacks are None, never 0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

__all__ = ["Snapshot", "block_size", "read_metrics"]

_LINE = re.compile(r"^(vllm:\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

_NAMES = {
    "vllm:num_requests_running": "running",
    "vllm:num_requests_waiting": "waiting",
    "vllm:kv_cache_usage_perc": "cache_use",
    "vllm:gpu_cache_usage_perc": "cache_use",
    "vllm:prompt_tokens_total": "prompt_tokens",
    "vllm:generation_tokens_total": "generated",
    "vllm:request_success_total": "finished",
    "vllm:num_preemptions_total": "preempted",
    "vllm:prefix_cache_queries_total": "queried",
    "vllm:prefix_cache_hits_total": "hit",
}
_MOST = 1e15
"""More than any server counts: what is told beyond it is no count."""
_LARGEST = frozenset({"cache_use"})


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A server's figures at one moment; counters are since its start.

    Attributes:
        running: Requests being computed.
        waiting: Requests queued in the server.
        cache_use: Share of the key-value cache in use, of its fullest engine.
        prompt_tokens: Tokens of the prompts sent to it.
        generated: Tokens generated.
        finished: Requests finished.
        preempted: Requests put back since the cache was full.
        queried: Tokens looked up in the prefix cache.
        hit: Those of them that were there.
        computed: Prompt tokens that were computed, not found in a cache.
    """

    running: float | None = None
    waiting: float | None = None
    cache_use: float | None = None
    prompt_tokens: float | None = None
    generated: float | None = None
    finished: float | None = None
    preempted: float | None = None
    queried: float | None = None
    hit: float | None = None
    computed: float | None = None

    def since(self, earlier: Snapshot) -> Snapshot:
        """The counters' growth since `earlier`; gauges as they are now.

        A counter that is lower than it was belongs to a server that was started anew: it grew from nothing.
        """
        grown = {}
        for field in fields(self):
            now, before = getattr(self, field.name), getattr(earlier, field.name)
            gauge = field.name in ("running", "waiting", "cache_use")
            grown[field.name] = now if gauge or now is None or before is None or now < before else now - before
        return Snapshot(**grown)

    def plus(self, other: Snapshot) -> Snapshot:
        """Both servers' figures together, the fuller cache's use."""
        both = {}
        for field in fields(self):
            known = [value for value in (getattr(self, field.name), getattr(other, field.name)) if value is not None]
            both[field.name] = (max if field.name in _LARGEST else sum)(known) if known else None
        return Snapshot(**both)


def read_metrics(text: str) -> Snapshot:
    """The figures in an answer of `/metrics`, over all engines of the server."""
    found: dict[str, float] = {}
    for line in _LINE.finditer(text):
        name, value = _NAMES.get(line[1]), _number(line[3])
        if line[1] == "vllm:prompt_tokens_by_source_total" and 'source="local_compute"' in (line[2] or ""):
            name = "computed"
        if name is None or value is None:
            continue
        total = max(found.get(name, value), value) if name in _LARGEST else found.get(name, 0.0) + value
        found[name] = min(total, _MOST)
    if "computed" not in found and {"queried", "hit", "prompt_tokens"} <= set(found):
        # Older versions do not tell; every prompt token is looked up once, so what was no hit was computed.
        found["computed"] = found["prompt_tokens"] - found["hit"]
    return Snapshot(**found)


def block_size(text: str) -> int | None:
    """Tokens of a block of the prefix cache: only whole blocks are shared."""
    for line in _LINE.finditer(text):
        if line[1] == "vllm:cache_config_info":
            size = dict(_LABEL.findall(line[2] or "")).get("block_size", "")
            return int(size) if size.isdecimal() else None
    return None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0.0 <= value <= _MOST else None
