"""`lbt-sim doctor`."""

from __future__ import annotations

import typer

__all__ = ["doctor"]


def doctor() -> None:
    """Say what works on this machine, what is missing, and how to get it.

    Example: lbt-sim doctor
    """
    from rich.console import Console
    from rich.text import Text

    from lbt_sim.doctor import diagnose

    console = Console(highlight=False)
    marks = {"ok": ("✓", "green"), "missing": ("–", "yellow"), "broken": ("✗", "red")}
    broken = False
    for finding in diagnose():
        mark, style = marks[finding.status]
        line = Text.assemble((f"{mark} ", style), (finding.name, "bold"), f"  {finding.detail}")
        console.print(line, soft_wrap=True)
        if finding.remedy and finding.status != "ok":
            for part in finding.remedy.splitlines():
                console.print(Text(f"    {part.strip()}"), soft_wrap=True)
        broken |= finding.status == "broken"
    if broken:
        raise typer.Exit(2)
