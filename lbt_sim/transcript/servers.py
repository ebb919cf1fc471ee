"""What a run's servers did, in a line or two each: how much the prefix cache saved, what the time went into."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lbt_sim.transcript.figures import count, duration, plural
from lbt_sim.transcript.theme import Look

__all__ = ["servers_told"]


def servers_told(result: Mapping[str, Any], look: Look) -> Iterator[tuple[str, str]]:
    """(label, text) lines about a result's `time` and `servers`; none where no server was asked."""
    servers = {name: told for name, told in (result.get("servers") or {}).items() if told}
    if not servers:
        return
    dot = f" {look.glyph('dot')} "
    time = result.get("time") or {}
    if time:
        parts = [
            f"{duration(float(time['waiting']))} waiting on models",
            f"{duration(float(time['own']))} of our own",
            f"{duration(float(time['starting']))} until they were ready",
        ]
        yield "time", dot.join(parts)
    for name, told in servers.items():
        yield look.plain(name, newlines="fold"), dot.join(_did(told))
        yield from (("", text) for text in _beside(told, look))


def _did(told: Mapping[str, Any]) -> Iterator[str]:
    sent, computed = told.get("prompt_tokens"), told.get("computed")
    if sent is not None and computed is not None:
        saved = told.get("prefix_hit_rate")
        share = f" ({100 * saved:.0f} % from the prefix cache)" if saved is not None else ""
        yield f"{count(sent)} prompt tokens sent, {count(computed)} computed{share}"
    if told.get("tokens_per_second") is not None:
        yield f"{count(round(told['tokens_per_second']))} tokens/s"
    if told.get("requests") is not None:
        yield plural(told["requests"], "request")
    if told.get("in_flight_at_most") is not None:
        yield f"at most {count(told['in_flight_at_most'])} calls in flight"


def _beside(told: Mapping[str, Any], look: Look) -> Iterator[str]:
    """What a reader has to know beside the figures."""
    for why in told.get("restarts") or ():
        yield f"started anew: it {look.plain(str(why), newlines='fold')}"
    labels = told.get("labels") or {}
    if labels.get("thin"):
        yield (
            f"{count(labels['thin'])} of {plural(labels['read'], 'label')} had less than 1 % of the probability: the "
            "model was about to say something else"
        )
    if measured := told.get("determinism"):
        parts = [
            f"{one['what']}: {one['labels_changed']} of {one['labels']} labels, "
            f"{one['texts_changed']} of {one['texts']} texts"
            for one in measured["comparisons"]
        ]
        yield f"greedy answers that change ({measured['date']}) {'; '.join(parts)}"
