"""Transcripts: a run while it happens (`LiveRoom`, `PlainLines`) and afterwards (`show_run`, `summary`).

Model text reaches a terminal only through `safe.plain_text`; colours and marks stand in `theme`.
"""

from __future__ import annotations

from lbt_sim.transcript.live import LiveRoom, can_be_live
from lbt_sim.transcript.plain import PlainLines
from lbt_sim.transcript.safe import plain_text
from lbt_sim.transcript.show import ShowOptions, show_run
from lbt_sim.transcript.summary import print_summary, summary
from lbt_sim.transcript.theme import make_console

__all__ = [
    "LiveRoom",
    "PlainLines",
    "ShowOptions",
    "can_be_live",
    "make_console",
    "plain_text",
    "print_summary",
    "show_run",
    "summary",
]
