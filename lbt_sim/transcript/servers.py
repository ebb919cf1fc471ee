"""A run's executions and what its servers did, in a line or two each: what the prefix cache saved, where time went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lbt_sim.executions import Entry, models_of, together, unlike, version_of
from lbt_sim.transcript.figures import count, duration, plural
from lbt_sim.transcript.theme import Look

__all__ = ["servers_told"]


def servers_told(executions: Sequence[Entry], look: Look) -> Iterator[tuple[str, str]]:
    """(label, text) lines about a run's executions, which are told together.

    How they ended stands there where that is not obvious, how their models differed where they did; time and figures
    where a server told any.
    """
    if not executions:
        return
    total = together(executions)
    dot = f" {look.glyph('dot')} "
    if len(executions) > 1 or executions[-1].get("how") != "done":
        yield "executed", look.plain(_ends(executions, total), newlines="fold")
    if changes := unlike(executions):
        yield "", look.plain(f"not alike: {'; '.join(changes)}", newlines="fold")
    if not total["servers"]:
        return
    time = total["time"]
    parts = [
        f"{duration(time['waiting'])} waiting on models",
        f"{duration(time['own'])} of our own",
        f"{duration(time['starting'])} until they were ready",
    ]
    yield "time", dot.join(parts)
    for name, told in total["servers"].items():
        parts = [*_version(executions, name), *_did(told)]
        yield look.plain(name, newlines="fold"), look.plain(dot.join(parts), newlines="fold")
        yield from (("", text) for text in _beside(told, look))


def _ends(executions: Sequence[Entry], total: Mapping[str, Any]) -> str:
    """How the executions ended, and of which of them the figures are."""
    how = Counter(str(one.get("how")) if one.get("ended") else "killed or still running" for one in executions)
    ends = ", ".join(f"{number} {end}" for end, number in how.items())
    told = f"{plural(len(executions), 'time')}: {ends}" if len(executions) > 1 else f"once: {next(iter(how))}"
    if total["servers"] and total["ended"] < len(executions):
        told += f"; the figures are of the {total['ended']} that ended"
    error = executions[-1].get("error")
    return f"{told} ({error})" if error else told


def _version(executions: Sequence[Entry], name: str) -> Iterator[str]:
    """The server's version, where it was the same each time."""
    models = [models_of(one).get(name) for one in executions]
    versions = {version_of(model["detail"]) if model else None for model in models}
    if len(versions) == 1 and (version := versions.pop()):
        yield f"vLLM {version}"


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
    if labels.get("thin") and labels.get("read"):
        yield (
            f"{count(labels['thin'])} of {plural(labels['read'], 'label')} had less than 1 % of the probability: the "
            "model was about to say something else"
        )
    if told.get("lost"):
        yield f"{plural(told['lost'], 'server')} lost on the way"
    for measured in told.get("determinism") or ():
        parts = [
            f"{one['what']}: {one['labels_changed']} of {one['labels']} labels, "
            f"{one['texts_changed']} of {one['texts']} texts"
            for one in measured["comparisons"]
        ]
        of = f" (in {plural(measured['executions'], 'execution')})" if len(told["determinism"]) > 1 else ""
        yield look.plain(f"greedy answers that change ({measured['date']}) {'; '.join(parts)}{of}", newlines="fold")
