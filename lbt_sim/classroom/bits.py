"""Sets of seats as integers: bit `i` of a row stands for seat `i`.

A thousand students who all talk with each other are 10^6 edges: 0.1 MB as a thousand integers, hundreds of MB as
a networkx graph. Union, reachability and membership are single operations on whole rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import compress
from typing import TypeVar

__all__ = ["closure", "indices", "mask_of", "pick", "transpose"]

T = TypeVar("T")

_FLAGS = bytes(i & 1 for i in range(256))  # b"0" -> 0, b"1" -> 1

_DENSE = 8
"""Above one edge in `_DENSE` possible ones, transposing whole columns is faster than walking the edges."""


def mask_of(seats: Iterable[int]) -> int:
    """The row in which exactly these seats are set."""
    mask = 0
    for seat in seats:
        mask |= 1 << seat
    return mask


def pick(values: Sequence[T], mask: int) -> tuple[T, ...]:
    """The values whose seats are set, in seat order."""
    return tuple(compress(values, f"{mask:b}"[::-1].encode().translate(_FLAGS)))


def indices(mask: int) -> Iterator[int]:
    """The seats that are set, in order."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def transpose(rows: Sequence[int]) -> tuple[int, ...]:
    """Rows of sources for rows of targets: bit `i` of row `j` becomes bit `j` of row `i`."""
    size = len(rows)
    if sum(row.bit_count() for row in rows) * _DENSE > size * size:
        # zip turns the highest bit of each row into the first column, so both orders are reversed.
        columns = zip(*(f"{row:0{size}b}" for row in reversed(rows)), strict=True)
        return tuple(int("".join(column), 2) for column in columns)[::-1]
    result = [0] * size
    for source, row in enumerate(rows):
        bit = 1 << source
        for target in indices(row):
            result[target] |= bit
    return tuple(result)


def closure(start: int, rows: Sequence[int]) -> int:
    """Every seat that some path along `rows` reaches from the seats in `start`, these included."""
    reached = new = start
    while new:
        found = 0
        for seat in indices(new):
            found |= rows[seat]
        new = found & ~reached
        reached |= new
    return reached
