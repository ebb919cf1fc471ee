"""The exam grid: students down, items across, a mark for each answer and the score at the end of the row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.cells import cell_len
from rich.text import Text

from lbt_sim.transcript.figures import broken, score
from lbt_sim.transcript.theme import OUTCOMES, UNICODE, Look

__all__ = ["exam_grid", "fit", "is_scaled", "item_row", "spread"]

_ORDER = "".join(OUTCOMES)
_NAME = 16


def spread(total: int, wanted: int) -> list[int]:
    """`wanted` numbers below `total`, evenly spaced, the first and the last among them; all where there are fewer."""
    if wanted >= total:
        return list(range(total))
    if wanted <= 1:
        return [0][:wanted]
    return [round(at * (total - 1) / (wanted - 1)) for at in range(wanted)]


def fit(letters: str, cells: int) -> str:
    """The letters where they fit; else sorted by outcome and scaled, so that every kind that occurs is still seen."""
    if len(letters) <= cells:
        return letters
    return _scaled(Counter(letters), cells)


def _scaled(counts: Counter[str], cells: int) -> str:
    total = sum(counts.values())
    kinds = [letter for letter in _ORDER if counts[letter]]
    if not total or cells < len(kinds):
        return "".join(kinds)[:cells]
    sizes = {letter: max(1, int(counts[letter] * cells / total)) for letter in kinds}
    while (missing := cells - sum(sizes.values())) != 0:
        step = 1 if missing > 0 else -1
        able = kinds if step > 0 else [letter for letter in kinds if sizes[letter] > 1]
        worst = max(able, key=lambda letter: step * (counts[letter] * cells / total - sizes[letter]))
        sizes[worst] += step
    return "".join(letter * sizes[letter] for letter in kinds)


def exam_grid(rows: Sequence[tuple[str, str]], width: int, height: int, look: Look = UNICODE) -> list[Text]:
    """The grid in at most `height` lines of `width` cells.

    Args:
        rows: (student, letters of the outcomes in item order); see `theme.OUTCOMES`.
        width: Cells in a line.
        height: Lines. Where there are more students, the first line is all of them together, then some of them.
        look: What the terminal can show.
    """
    if not rows or height < 1:
        return []
    name = _name_width(rows, width)
    if len(rows) <= height:
        return [_row(student, letters, name, width, look) for student, letters in rows]
    head = f"all {len(rows):,}"
    name = max(name, min(cell_len(head), _NAME))
    lines = [_everyone(head, rows, name, width, look)]
    shown = spread(len(rows), height - 2)
    lines += [_row(*rows[at], name, width, look) for at in shown]
    if height > 1:
        dots = look.glyph("ellipsis")
        lines.append(Text(look.cut(f"{dots} and {len(rows) - len(shown):,} more", width), "lbt.label", no_wrap=True))
    return lines


def is_scaled(rows: Sequence[tuple[str, str]], width: int) -> bool:
    """Whether rows of `width` cells are too short for the items, so that they show shares, not items in order."""
    return any(len(letters) > _cells(letters, _name_width(rows, width), width) for _, letters in rows)


def _name_width(rows: Sequence[tuple[str, str]], width: int) -> int:
    return min(max(cell_len(student) for student, _ in rows), _NAME, max(width // 4, 6))


def _cells(letters: str, name: int, width: int) -> int:
    """How many cells there are for marks, between the name and the score."""
    return max(width - name - 2 * len(str(len(letters))) - 3, 0)


def _row(student: str, letters: str, name: int, width: int, look: Look) -> Text:
    done = len(letters) - letters.count(".") - letters.count("a")
    right, of = score(letters)
    points = f"{right}/{of}" if done else ""
    tail = len(f"{len(letters)}/{len(letters)}")
    cells = _cells(letters, name, width)
    row = look.line(student, name, "lbt.student")
    row.append(" " * (name - row.cell_len + 1))
    marks = look.marks(fit(letters, cells))
    row.append_text(marks)
    room = width - name - 1 - marks.cell_len
    # The score stands beside its row, not at the far end of a wide panel.
    row.append(" " + points.rjust(tail)) if room > tail else row
    trouble = broken(letters, look)
    if trouble and room - tail - 3 >= trouble.cell_len:
        row.append("  ").append_text(trouble)
    return row


def _everyone(head: str, rows: Sequence[tuple[str, str]], name: int, width: int, look: Look) -> Text:
    every = "".join([letters for _, letters in rows])
    counts = Counter({letter: every.count(letter) for letter in OUTCOMES})
    scores = [
        right / of
        for letters, (right, of) in ((letters, score(letters)) for _, letters in rows)
        if of and "a" not in letters and "." not in letters
    ]
    tails = [""]
    if scores:
        mean = f" mean {sum(scores) / len(scores):.2f}"
        whole = f"{mean} ({min(scores):.2f}{look.glyph('dash')}{max(scores):.2f})"
        graded = "" if len(scores) == len(rows) else f" {len(scores):,} graded,"
        tails = [graded + whole, graded + mean, mean, ""]
    tail = next(tail for tail in tails if cell_len(tail) <= max(width - name - 6, 0))
    cells = max(width - name - 1 - cell_len(tail), 0)
    row = Text(look.cut(head, name).ljust(name + 1), "lbt.title", no_wrap=True)
    row.append_text(look.marks(_scaled(counts, min(cells, sum(counts.values()), 40))))
    return row.append(tail)


def item_row(rows: Sequence[str], look: Look = UNICODE) -> str:
    """How many got each item right, as steps: an empty step where nobody did."""
    steps = look.glyph("steps")
    columns = zip(*rows, strict=False)
    return "".join(steps[round(column.count("c") / len(column) * (len(steps) - 1))] for column in columns)
