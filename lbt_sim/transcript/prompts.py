"""Prompts on a terminal, exactly as they would be sent."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from lbt_sim.preview import Preview
from lbt_sim.transcript.safe import plain_text

__all__ = ["print_prompts"]

_STYLES = {"system": "magenta", "user": "cyan", "assistant": "green"}


def print_prompts(previews: Sequence[Preview], console: Console) -> None:
    """Prints every turn of every prompt, with how the reply would be drawn."""
    for shown in previews:
        request, sampling = shown.request, shown.request.sampling
        console.print(Rule(Text(f"{shown.agent} ({shown.role}): {shown.use}"), align="left"))
        drawn = f"temperature {sampling.temperature:g}, at most {sampling.max_tokens} tokens"
        if request.choices:
            drawn += f", one of: {', '.join(request.choices)}"
        console.print(Text(drawn, style="dim"))
        for turn in request.turns:
            console.print(Text(turn.role, style=f"bold {_STYLES[turn.role]}"))
            console.print(Text(plain_text(turn.content)), soft_wrap=True)
        console.print()
