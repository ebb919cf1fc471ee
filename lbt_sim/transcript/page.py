"""What every page of `show` shares: the run, the console, the options, and a few ways to set text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from lbt_sim.transcript.commands import command_line
from lbt_sim.transcript.figures import count
from lbt_sim.transcript.read import RunRecord
from lbt_sim.transcript.theme import Look

__all__ = ["Page", "ShowOptions"]

T = TypeVar("T")
_LONG = 4000
"""So much of one text is shown without `--full`."""


@dataclass(frozen=True, slots=True)
class ShowOptions:
    """What to show of a run.

    Attributes:
        round: That round.
        agent: What this agent was sent and said.
        item: What everyone answered to this item.
        material: This teaching material, or with the others what concerns it.
        calls: The calls themselves: prompt and reply.
        limit: At most so many calls, utterances or failures; 0: all.
        skip: So many calls are left out first.
        full: Long texts in full, and prompts also where they are the same as above.
    """

    round: int | None = None
    agent: str | None = None
    item: str | None = None
    material: str | None = None
    calls: bool = False
    limit: int = 20
    skip: int = 0
    full: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """A run being shown."""

    record: RunRecord
    console: Console
    look: Look
    options: ShowOptions = field(default_factory=ShowOptions)

    @property
    def width(self) -> int:
        """Cells in a line."""
        return self.console.width

    def out(self, *parts: RenderableType, indent: int = 0) -> None:
        """Prints."""
        for part in parts:
            self.console.print(Padding(part, (0, 0, 0, indent), expand=False) if indent else part)

    def hint(self, text: str) -> None:
        """A line of ours that names a command: never broken, since commands are copied."""
        self.console.print(Text(text, "lbt.label"), soft_wrap=True)

    def gap(self) -> None:
        """An empty line."""
        self.console.print()

    def heading(self, title: str, detail: str = "") -> None:
        """A title across the page."""
        text = self.look.line(title, self.width - 8, "lbt.title")
        if detail:
            text.append("  ").append_text(self.look.line(detail, self.width - text.cell_len - 8, "not bold lbt.label"))
        rule = self.look.glyph("rule")
        self.gap()
        self.console.print(Rule(text, characters=rule, style="lbt.border", align="left"))

    def fact(self, name: str, *values: RenderableType) -> None:
        """A name in the margin and what belongs to it beside it."""
        names = [Text(name, "lbt.label"), *[Text()] * (len(values) - 1)]
        self.out(self.columns(zip(names, values, strict=True)))

    def columns(self, rows: Iterable[tuple[RenderableType, RenderableType]], margin: int = 11) -> Table:
        """Rows of (margin, text): the text keeps its indent over its lines."""
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=margin, overflow="fold")
        grid.add_column(ratio=1, overflow="fold")
        for head, body in rows:
            grid.add_row(head, body)
        return grid

    def prose(self, text: str, style: str = "") -> Text:
        """Text from outside, cut where it is very long."""
        if self.options.full or len(text) <= _LONG:
            return self.look.text(text, style)
        shown = self.look.text(text[:_LONG], style)
        dots = self.look.glyph("ellipsis")
        return shown.append(f"\n{dots} {count(len(text) - _LONG)} more characters; --full shows them", "lbt.label")

    def some(self, things: Sequence[T]) -> tuple[Sequence[T], int]:
        """The first `limit` things and how many are left."""
        limit = self.options.limit or len(things)
        return things[:limit], max(len(things) - limit, 0)

    def more(self, left: int, noun: str) -> None:
        """Says how many were left out and how to see them."""
        if left > 0:
            dots = self.look.glyph("ellipsis")
            self.out(Text(f"{dots} {count(left)} more {noun}; --limit 0 shows all", "lbt.label"), indent=2)

    def command(self, *arguments: str) -> str:
        """A `show` command for this run."""
        run = self.look.plain(str(self.record.folder), newlines="fold")
        return command_line("show", run, *arguments)

    def role_style(self, agent: str) -> str:
        """The colour of an agent's role."""
        role = self.record.seats.get(agent, {}).get("role", "student")
        return f"lbt.{role}" if role in {"teacher", "assistant", "student", "examiner"} else ""
