"""Lines of a frame: boxes and columns, put together cell by cell.

rich's own layouts split and measure everything at each frame, 20 to 40 ms for a large terminal; these lines are
made to measure, so that a frame costs a few.
"""

from __future__ import annotations

from itertools import zip_longest

from rich.text import Text

from lbt_sim.transcript.theme import Look

__all__ = ["beside", "boxed"]

_ROUND = "╭╮╰╯─│"
_ASCII = "++++-|"


def boxed(lines: list[Text], title: Text, size: tuple[int, int], look: Look) -> list[Text]:
    """The lines in a box of `size` (cells, lines), with a title in its upper edge; cut or padded to fit."""
    width, height = size
    corners = _ROUND if look.unicode else _ASCII
    inner = max(width - 4, 0)
    name = Text(look.cut(f" {title.plain} ", inner), title.style)
    rows = [
        Text(no_wrap=True)
        .append(corners[0] + corners[4], "lbt.border")
        .append_text(name)
        .append(corners[4] * (width - 3 - name.cell_len) + corners[1], "lbt.border")
    ]
    for at in range(height - 2):
        line = lines[at] if at < len(lines) else Text()
        if line.cell_len > inner:
            line = line.copy()
            line.truncate(inner)
        row = Text(no_wrap=True).append(f"{corners[5]} ", "lbt.border").append_text(line)
        rows.append(row.append(" " * (inner - line.cell_len)).append(f" {corners[5]}", "lbt.border"))
    rows.append(Text(corners[2] + corners[4] * (width - 2) + corners[3], "lbt.border", no_wrap=True))
    return rows


def beside(*columns: list[Text]) -> list[Text]:
    """Columns of equal lines, side by side."""
    rows = []
    for parts in zip_longest(*columns, fillvalue=Text()):
        row = Text(no_wrap=True)
        for part in parts:
            row.append_text(part)
        rows.append(row)
    return rows
