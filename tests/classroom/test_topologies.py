from __future__ import annotations

from random import Random
from typing import Any

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbt_sim.classroom.bits import indices, transpose
from lbt_sim.classroom.topologies import TOPOLOGIES, wire
from lbt_sim.errors import ClassroomError, Place

HERE = Place(key="edges[0].topology")


def graph(name: str, n: int, /, seed: int = 1, **given: Any) -> nx.Graph[int]:
    rows = wire(name, n, given, Random(seed), HERE)
    assert list(transpose(rows)) == rows, "neighbours are mutual"
    drawn: nx.Graph[int] = nx.Graph()
    drawn.add_nodes_from(range(n))
    drawn.add_edges_from((i, j) for i, row in enumerate(rows) for j in indices(row))
    assert nx.number_of_selfloops(drawn) == 0
    return drawn


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_simple_topologies_are_networkx_graphs(n: int) -> None:
    same = nx.utils.graphs_equal
    assert same(graph("complete", n), nx.complete_graph(n))
    assert same(graph("path", n), nx.path_graph(n))
    assert same(graph("star", n), nx.star_graph(n - 1))
    if n > 2:
        assert same(graph("ring", n), nx.cycle_graph(n))


def test_rings_of_one_and_two_have_no_loops() -> None:
    assert graph("ring", 1).size() == 0
    assert graph("ring", 2).size() == 1


@given(st.integers(1, 30), st.integers(1, 10))
def test_groups_are_complete_and_only_the_last_is_smaller(n: int, size: int) -> None:
    drawn = graph("groups", n, size=size)
    groups = sorted(map(sorted, nx.connected_components(drawn)))
    assert groups == [list(range(first, min(first + size, n))) for first in range(0, n, size)]
    assert drawn.size() == sum(len(group) * (len(group) - 1) // 2 for group in groups)


def test_groups_can_be_rings() -> None:
    assert graph("groups", 10, size=5, complete=False).size() == 10


@given(st.integers(1, 40))
def test_a_grid_is_connected_and_about_square(n: int) -> None:
    drawn = graph("grid", n)
    assert nx.is_connected(drawn)
    assert max(dict(drawn.degree()).values(), default=0) <= 4


def test_a_full_grid_is_networkx_grid() -> None:
    expected = nx.convert_node_labels_to_integers(nx.grid_2d_graph(3, 4, periodic=True), ordering="sorted")
    assert nx.utils.graphs_equal(graph("grid", 12, m=3, n=4, periodic=True), expected)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("watts_strogatz", {"k": 4, "p": 0.3}),
        ("barabasi_albert", {"m": 2}),
        ("erdos_renyi", {"p": 0.3}),
        ("random_regular", {"d": 3}),
        ("random_regular", {"d": 15}),
    ],
)
def test_random_topologies_come_from_their_seed(name: str, params: dict[str, Any]) -> None:
    same = nx.utils.graphs_equal
    first = graph(name, 20, seed=1, **params)
    assert same(first, graph(name, 20, seed=1, **params))
    assert any(not same(first, graph(name, 20, seed=seed, **params)) for seed in range(2, 6))


@given(st.integers(1, 20).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1))))
def test_regular_graphs_are_regular_or_refused(case: tuple[int, int]) -> None:
    n, d = case
    if n * d % 2:
        with pytest.raises(ClassroomError, match="cannot be drawn") as error:
            graph("random_regular", n, d=d)
        assert "even" in error.value.remedy
    else:
        assert set(dict(graph("random_regular", n, d=d).degree()).values()) == {d}


@given(st.integers(5, 25), st.floats(0, 1))
def test_small_worlds_are_connected(n: int, p: float) -> None:
    assert nx.is_connected(graph("watts_strogatz", n, k=4, p=p))


@pytest.mark.parametrize(
    ("name", "n", "params", "says"),
    [
        ("watts_strogatz", 4, {"k": 4, "p": 0.1}, "at least 5 seats"),
        ("watts_strogatz", 1, {"k": 4, "p": 0.1}, "at least 5 seats"),
        ("watts_strogatz", 300, {"k": 2, "p": 1.0, "tries": 1}, "raise `k`"),
        ("barabasi_albert", 2, {"m": 2}, "lower `m`"),
        ("random_regular", 4, {"d": 4}, "lower `d`"),
        ("grid", 10, {"m": 3, "n": 3}, "raise `m` or `n`"),
        ("random_regular", 5, {"d": 3}, "even"),
    ],
)
def test_impossible_values_say_what_to_change(name: str, n: int, params: dict[str, Any], says: str) -> None:
    with pytest.raises(ClassroomError, match=f"among {n} seats") as error:
        wire(name, n, params, Random(3), HERE)
    assert says in error.value.remedy
    assert error.value.where == HERE


@pytest.mark.parametrize(
    ("name", "params", "says"),
    [
        ("watts_strogatz", {"k": 4}, "lacks `p`"),
        ("groups", {}, "lacks `size`"),
        ("groups", {"sise": 3}, "did you mean 'size'"),
        ("ring", {"k": 4}, "not a parameter of 'ring'"),
        ("watts_strogatz", {"k": 4, "p": 0.1, "n": 20}, "put in by themselves"),
        ("watts_strogatz", {"k": 4.0, "p": 0.1}, "k: 4.0"),
        ("watts_strogatz", {"k": True, "p": 0.1}, "k: True"),
        ("watts_strogatz", {"k": 4, "p": 1.5}, "p: 1.5"),
        ("watts_strogatz", {"k": 4, "p": float("nan")}, "p: nan"),
        ("groups", {"size": 0}, "size: 0"),
        ("groups", {"size": 3, "complete": 1}, "complete: 1"),
        ("random_regular", {"d": -1}, "d: -1"),
    ],
)
def test_wrong_parameters_list_the_valid_ones(name: str, params: dict[str, Any], says: str) -> None:
    with pytest.raises(ClassroomError) as error:
        wire(name, 10, params, Random(3), HERE)
    assert says in error.value.what
    assert error.value.remedy.startswith(f"'{name}' takes")


def test_an_unknown_topology_lists_all_and_the_nearest() -> None:
    with pytest.raises(ClassroomError, match="did you mean 'watts_strogatz'") as error:
        wire("wats_strogatz", 10, {}, Random(3), HERE)
    assert error.value.valid == tuple(sorted(TOPOLOGIES))
