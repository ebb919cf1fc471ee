from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lbt_sim.classroom.bits import indices, mask_of, pick, transpose


@st.composite
def rows(draw: st.DrawFn) -> list[int]:
    size = draw(st.integers(0, 12))
    return draw(st.lists(st.integers(0, 2**size - 1), min_size=size, max_size=size))


@given(st.sets(st.integers(0, 300)))
def test_a_row_holds_exactly_its_seats(seats: set[int]) -> None:
    mask = mask_of(seats)
    assert list(indices(mask)) == sorted(seats)
    assert pick(range(301), mask) == tuple(sorted(seats))


@given(rows())
def test_transposing_turns_every_edge_around(sources: list[int]) -> None:
    turned = transpose(sources)
    assert {(i, j) for i, row in enumerate(sources) for j in indices(row)} == {
        (i, j) for j, row in enumerate(turned) for i in indices(row)
    }


def test_dense_and_sparse_rows_are_transposed_alike() -> None:
    full = [0b111 ^ (1 << i) for i in range(3)]
    assert transpose(full) == tuple(full)
    assert transpose([0b110, 0, 0]) == (0, 1, 1)
    assert transpose([0] * 20 + [1]) == (1 << 20, *[0] * 20)
