"""How the seats of one role are wired among each other: topologies by name.

Parameters have networkx's own names; the random ones are networkx's generators, seeded from the run. The simple
ones are drawn here, since importing networkx takes longer than any of them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lbt_sim.errors import ClassroomError, Place, nearest

if TYPE_CHECKING:
    import networkx as nx

__all__ = ["TOPOLOGIES", "Parameter", "Topology", "wire"]

Value = int | float | bool


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a topology: its type, its smallest value, and whether it may be left out."""

    name: str
    type: type[int] | type[float] | type[bool]
    least: float | None = None
    most: float | None = None
    required: bool = True

    def __str__(self) -> str:
        if self.type is bool:
            form = "true or false"
        else:
            low = "" if self.least is None else f" from {self.least}"
            high = "" if self.most is None else f" to {self.most}"
            form = ("a whole number" if self.type is int else "a number") + low + high
        return f"{self.name} ({form}{'' if self.required else ', optional'})"

    def accepts(self, value: Value) -> bool:
        """Whether `value` is of the type and in the range."""
        if self.type is bool or isinstance(value, bool):
            return self.type is bool and isinstance(value, bool)
        if self.type is int and not isinstance(value, int):
            return False
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)


@dataclass(frozen=True, slots=True)
class Topology:
    """A way to wire `n` seats.

    Attributes:
        draw: (n, parameters, generator) -> for each seat, its neighbours as a row of bits; symmetric. Raises
            `ValueError` with a remedy where the values are impossible for `n` seats.
        parameters: What it takes.
    """

    draw: Callable[[int, Mapping[str, Any], random.Random], list[int]]
    parameters: tuple[Parameter, ...] = ()


def _rows(n: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    rows = [0] * n
    for a, b in pairs:
        if a != b:
            rows[a] |= 1 << b
            rows[b] |= 1 << a
    return rows


def _clique(first: int, size: int) -> list[int]:
    everyone = ((1 << size) - 1) << first
    return [everyone ^ (1 << seat) for seat in range(first, first + size)]


def _complete(n: int, _given: Mapping[str, Any], _rng: random.Random) -> list[int]:
    return _clique(0, n)


def _ring(n: int, _given: Mapping[str, Any], _rng: random.Random) -> list[int]:
    return _rows(n, ((seat, (seat + 1) % n) for seat in range(n)))


def _path(n: int, _given: Mapping[str, Any], _rng: random.Random) -> list[int]:
    return _rows(n, ((seat, seat + 1) for seat in range(n - 1)))


def _star(n: int, _given: Mapping[str, Any], _rng: random.Random) -> list[int]:
    return _rows(n, ((0, seat) for seat in range(1, n)))


def _groups(n: int, given: Mapping[str, Any], rng: random.Random) -> list[int]:
    size = given["size"]
    rows: list[int] = []
    for first in range(0, n, size):
        members = min(size, n - first)
        if given.get("complete", True):
            rows += _clique(first, members)
        else:
            rows += [row << first for row in _ring(members, {}, rng)]
    return rows


def _grid(n: int, given: Mapping[str, Any], _rng: random.Random) -> list[int]:
    import networkx as nx

    columns = given.get("n") or (math.ceil(n / given["m"]) if "m" in given else math.isqrt(n - 1) + 1)
    rows = given.get("m") or math.ceil(n / columns)
    if rows * columns < n:
        raise ValueError(f"{rows} rows of {columns} seats hold {rows * columns}, there are {n}: raise `m` or `n`.")
    columns = min(columns, n)
    rows = math.ceil(n / columns)  # empty rows and columns would only cost time
    graph = nx.grid_2d_graph(rows, columns, periodic=given.get("periodic", False))
    cells = ((a[0] * columns + a[1], b[0] * columns + b[1]) for a, b in graph.edges())
    return _rows(n, ((a, b) for a, b in cells if a < n and b < n))


def _watts_strogatz(n: int, given: Mapping[str, Any], rng: random.Random) -> list[int]:
    import networkx as nx

    if given["k"] >= n:
        raise ValueError(f"k = {given['k']} neighbours need at least {given['k'] + 1} seats, there are {n}: lower `k`.")
    try:
        graph = nx.connected_watts_strogatz_graph(n, given["k"], given["p"], given.get("tries", 100), seed=rng)
    except nx.NetworkXError as error:
        raise ValueError(f"{error}: raise `k` or `tries`, or lower `p`.") from error
    return _rows(n, graph.edges())


def _barabasi_albert(n: int, given: Mapping[str, Any], rng: random.Random) -> list[int]:
    import networkx as nx

    if given["m"] >= n:
        raise ValueError(
            f"m = {given['m']} edges a seat need at least {given['m'] + 1} seats, there are {n}: lower `m`."
        )
    return _rows(n, nx.barabasi_albert_graph(n, given["m"], seed=rng).edges())


def _erdos_renyi(n: int, given: Mapping[str, Any], rng: random.Random) -> list[int]:
    import networkx as nx

    return _rows(n, nx.erdos_renyi_graph(n, given["p"], seed=rng).edges())


def _random_regular(n: int, given: Mapping[str, Any], rng: random.Random) -> list[int]:
    import networkx as nx

    d = given["d"]
    if d >= n:
        raise ValueError(f"d = {d} neighbours need at least {d + 1} seats, there are {n}: lower `d`.")
    if n * d % 2:
        raise ValueError(f"{n} seats with d = {d} neighbours each would need half an edge: make one of them even.")
    if 2 * d < n:
        return _rows(n, nx.random_regular_graph(d, n, seed=rng).edges())
    # The generator pairs at random until all fit, which hardly ever ends for dense graphs; what is left out of a
    # dense regular graph is a sparse one.
    sparse: nx.Graph[int] = nx.random_regular_graph(n - 1 - d, n, seed=rng)
    absent = _rows(n, sparse.edges())
    return [row & ~gone for row, gone in zip(_clique(0, n), absent, strict=True)]


_CHANCE = Parameter("p", float, 0, 1)

TOPOLOGIES: dict[str, Topology] = {
    "barabasi_albert": Topology(_barabasi_albert, (Parameter("m", int, 1),)),
    "complete": Topology(_complete),
    "erdos_renyi": Topology(_erdos_renyi, (_CHANCE,)),
    "grid": Topology(
        _grid,
        (
            Parameter("m", int, 1, required=False),
            Parameter("n", int, 1, required=False),
            Parameter("periodic", bool, required=False),
        ),
    ),
    "groups": Topology(_groups, (Parameter("size", int, 1), Parameter("complete", bool, required=False))),
    "path": Topology(_path),
    "random_regular": Topology(_random_regular, (Parameter("d", int, 0),)),
    "ring": Topology(_ring),
    "star": Topology(_star),
    "watts_strogatz": Topology(
        _watts_strogatz, (Parameter("k", int, 2), _CHANCE, Parameter("tries", int, 1, 10_000, required=False))
    ),
}


def wire(name: str, n: int, given: Mapping[str, Value], rng: random.Random, where: Place) -> list[int]:
    """Wires `n` seats: for each, its neighbours as a row of bits.

    Raises:
        ClassroomError: An unknown topology or parameter, or a value that `n` seats cannot have.
    """
    topology = TOPOLOGIES.get(name)
    if topology is None:
        close = nearest(name, TOPOLOGIES)
        raise ClassroomError(
            f"'{name}' is not a topology" + (f"; did you mean '{close}'?" if close else "."),
            where=where,
            valid=tuple(TOPOLOGIES),
            remedy="Correct the name, or give a graph of your own with `file:`.",
        )
    _check(name, topology, given, where)
    try:
        return topology.draw(n, given, rng)
    except ValueError as error:
        raise ClassroomError(
            f"The topology '{name}' cannot be drawn among {n} seats.", where=where, remedy=str(error)
        ) from error


def _check(name: str, topology: Topology, given: Mapping[str, Value], where: Place) -> None:
    valid = tuple(map(str, topology.parameters))
    known = {parameter.name: parameter for parameter in topology.parameters}
    takes = (
        f"'{name}' takes {', '.join(valid)}." if valid else f"'{name}' takes no parameters: write `topology: {name}`."
    )
    for key, value in given.items():
        parameter = known.get(key)
        if parameter is None:
            close = nearest(key, known)
            hint = "; the seats and the run's seed are put in by themselves" if key in {"n", "seed"} else ""
            raise ClassroomError(
                f"'{key}' is not a parameter of '{name}'" + (f"; did you mean '{close}'?" if close else f"{hint}."),
                where=where,
                valid=valid,
                remedy=takes,
            )
        if not parameter.accepts(value):
            raise ClassroomError(f"{key}: {value!r} cannot be.", where=where, valid=(str(parameter),), remedy=takes)
    missing = [key for key, parameter in known.items() if parameter.required and key not in given]
    if missing:
        raise ClassroomError(
            f"'{name}' lacks {' and '.join(f'`{key}`' for key in missing)}.", where=where, valid=valid, remedy=takes
        )
