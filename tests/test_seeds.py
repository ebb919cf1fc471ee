"""Seeds form a tree: a node's numbers depend on the run's seed and the node's path alone."""

from __future__ import annotations

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from lbt_sim.seeds import Seeds

paths = st.lists(st.one_of(st.text(max_size=8), st.integers()), max_size=4)


def test_a_node_is_the_same_whatever_was_drawn_before() -> None:
    first = Seeds(7).at("r1", "exam").rng().random()
    other = Seeds(7)
    other.at("r1", "select").rng().random()
    other.at("r1").number()
    assert other.at("r1").at("exam").rng().random() == first


@given(paths, paths)
def test_different_paths_are_different_nodes(one: list[object], two: list[object]) -> None:
    same = list(map(str, one)) == list(map(str, two))
    assert (Seeds(7).at(*one).rng().random() == Seeds(7).at(*two).rng().random()) is same


def test_parts_are_not_glued_together() -> None:
    assert Seeds(7).at("a", "bc").number() != Seeds(7).at("ab", "c").number()
    assert Seeds(7).at("a/b").number() != Seeds(7).at("a", "b").number()


def test_the_runs_seed_counts() -> None:
    assert Seeds(7).at("exam").number() != Seeds(8).at("exam").number()


@given(st.integers(0, 2**31 - 1), paths)
def test_numbers_are_what_every_engine_takes(run: int, path: list[object]) -> None:
    assert 0 <= Seeds(run).at(*path).number() < 2**31


@given(st.integers(0, 2**31 - 1), paths, st.integers(0, 1000))
def test_samples_have_consecutive_seeds_from_the_nodes_own_on(run: int, path: list[object], sample: int) -> None:
    node = Seeds(run).at(*path)
    assert node.sample(0) == node.number()
    assert (node.sample(sample + 1) - node.sample(sample)) % 2**31 == 1
    assert 0 <= node.sample(sample) < 2**31


def test_another_process_draws_the_same() -> None:
    code = "from lbt_sim.seeds import Seeds; print(Seeds(7).at('r1', 2).number(), Seeds(7).at('x').rng().random())"
    said = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONHASHSEED": "99"}, capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == [str(Seeds(7).at("r1", 2).number()), str(Seeds(7).at("x").rng().random())]
