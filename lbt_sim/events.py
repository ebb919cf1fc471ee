"""What happens in a run, as data: emitted by the steps, kept in the run folder, read by transcripts and reports.

An event is identified by (path, kind): a resumed run that emits it again replaces it, so a run folder never tells
a thing twice. Kinds and what their `data` holds:

- `run`, at `run`: title, seed, method, rounds, task {name, labels, positive, grader, train, held_out}, seats [{name,
  role, model, engine, persona; where they are given also mind, knowledge {share, without}}], edges [[from, to, kind]]
  (empty where there are too many), edge_counts {kind: n}, baselines {always_positive {accuracy, f1}, majority
  {accuracy, f1}}, notices [text]
- `material`, at `material/<id>`: id, kind, parents [id], operator, by, exemplars [{question, answer, rationale,
  source}] or lecture
- `utterance`, at `r<k>/<material>/<stage>/<speaker>/<n>`: round, material, speaker, hearers [name], kind (teaches,
  assists, question, answer, discusses), text, exemplars (how many go with it)
- `exam`, at `r<k>/exam`: round, set_by, items [id], questions [text], answers [right answer], families [kind of
  problem; '' where it is not known]
- `grades`, at `r<k>/<material>/grades/<student>`: round, material, student, items [id], outcomes (a letter each:
  c w i t f), answers [text or null], read_from [source; '' where nothing was read]
- `held_out`, at `r0/held_out`: items [id], questions [text], answers [right answer], families [as in `exam`]: what
  every report is about
- `reported`, at `r<k>/report/<teacher>`: round, material, teacher, and for the items of `held_out` outcomes, answers,
  read_from as in `grades`
- `feedback`, at `r<k>/<material>/feedback`: round, material, failures [id], text: of its own class. Where the teacher
  was told of another run's class instead also told {run (the donor's folder), round, material (the donor's), failures
  [id], text}
- `candidate`, at `r<k>/candidate/<parent>/<operator>/<n>`: round, parent, operator, by, status (new, duplicate,
  invalid, failed, leak), material (id or null), why
- `selection`, at `r<k>/selection`: round, strategy, metric, candidates [{id, n, correct, score, dropped (the block it
  was dropped after, or null), likelihood}], answers (spent), beam [id], rescore {n, score} or null
- `report`, at `r<k>/report`: one entry of `rounds` in `--json`
- `notice`, anywhere: text. At `<a call's path>/too_long`, where something was left out of a prompt: also round, who,
  what (remarks, worked examples), left_out (how many), of (how many there were), tokens [before, after], context
- `done`, at `done`: status
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

__all__ = ["Event", "EventKind", "EventSink"]

EventKind = Literal[
    "run",
    "material",
    "utterance",
    "exam",
    "grades",
    "held_out",
    "reported",
    "feedback",
    "candidate",
    "selection",
    "report",
    "notice",
    "done",
]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. `data` is JSON: strings, numbers, booleans, lists, mappings."""

    path: str
    kind: EventKind
    data: Mapping[str, Any]


class EventSink(Protocol):
    """Where events go. Never blocks and never raises."""

    def __call__(self, event: Event) -> None:
        """Takes an event."""
        ...
