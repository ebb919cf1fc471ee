"""What a table and its columns are."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Column", "Table"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column.

    Attributes:
        name: Its name.
        type: `string`, `int64`, `float64`, `bool`, `strings` (a list), `exemplars` (a list of structures).
        text: What it is.
        unit: What its numbers are of; '' where it has none.
    """

    name: str
    type: str
    text: str
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table: one Parquet file.

    Attributes:
        name: Its file's name, without `.parquet`.
        text: What a row is.
        columns: In order.
        key: The columns that tell one row from all others.
        rows: About how many rows go into a row group.
    """

    name: str
    text: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    rows: int = 50_000
