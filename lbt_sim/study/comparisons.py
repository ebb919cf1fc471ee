"""What a study's conditions are called, and which of them are compared with which."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from lbt_sim.errors import ScenarioError, nearest
from lbt_sim.scenario.study import StudyFile
from lbt_sim.study.results import Condition

__all__ = ["called", "comparisons_of", "condition_name"]

Coordinates = Mapping[str, str]
"""Factor -> its level; arms are a factor too, called ''."""


def called(factors: Sequence[str]) -> dict[str, str]:
    """What each factor is called: the last part of its key, or the whole of it where two end alike."""
    last = [factor.rsplit(".", 1)[-1] for factor in factors]
    return {factor: short if last.count(short) == 1 else factor for factor, short in zip(factors, last, strict=True)}


def condition_name(arm: str, levels: Mapping[str, str], names: Mapping[str, str]) -> str:
    """`several/exam=12`: the arm, then the level of each factor."""
    return "/".join(([arm] if arm else []) + [f"{names[factor]}={level}" for factor, level in levels.items()])


def comparisons_of(
    file: StudyFile, conditions: Sequence[Condition], error: Callable[..., ScenarioError]
) -> tuple[tuple[str, str], ...]:
    """Pairs of conditions' names.

    Args:
        file: The study.
        conditions: In order.
        error: Makes an error of a key of the study file, what is wrong, valid choices and a remedy.

    Raises:
        ScenarioError: A name under `compare` means no condition, or the two of a pair never meet.
    """
    where = {one.name: {**({"": one.arm} if one.arm else {}), **one.levels} for one in conditions}
    if file.compare is None:
        first = conditions[0]
        wanted = {"": first.arm} if len(file.arms) > 1 else where[first.name]
        return tuple(_pairs(where, {}, wanted))
    names = called(list(file.factors))
    parts = {arm: ("", arm) for arm in file.arms}
    parts |= {
        f"{said}={level}": (factor, level)
        for factor, levels in file.factors.items()
        for level in levels
        for said in (factor, names[factor])
    }
    found: list[tuple[str, str]] = []
    for number, pair in enumerate(file.compare):
        left, right = (_meant(name, ("compare", number, place), parts, where, error) for place, name in enumerate(pair))
        met = list(_pairs(where, left, right))
        if not met:
            raise error(
                ("compare", number),
                f"'{pair[0]}' and '{pair[1]}' have no two conditions that are alike but for what is named",
                list(where),
                "Compare two conditions, or add the combinations that are missing.",
            )
        found += met
    pairs = tuple(dict.fromkeys(found))
    for a, b in pairs:
        if (b, a) in pairs:
            raise error(
                ("compare",),
                f"'{a}' and '{b}' are compared both ways, which is one comparison",
                remedy="Take one of the two away: p is corrected for how many there are.",
            )
    return pairs


def _meant(
    name: str,
    at: Sequence[str | int],
    parts: Mapping[str, tuple[str, str]],
    where: Mapping[str, Coordinates],
    error: Callable[..., ScenarioError],
) -> Coordinates:
    """What a name asks of a condition."""
    wanted = {}
    for part in name.split("/"):
        if part.strip() not in parts:
            valid = list(dict.fromkeys([*parts, *where]))
            near = nearest(name, valid)
            what = f"'{name}' is not an arm or a level" + (f"; did you mean '{near}'?" if near else "")
            raise error(at, what, valid, "Correct the name; join several by /: `several/exam=12`.")
        factor, level = parts[part.strip()]
        if factor in wanted:
            raise error(at, f"'{name}' names two of a kind", remedy="Name one arm, and one level of a factor.")
        wanted[factor] = level
    return wanted


def _pairs(where: Mapping[str, Coordinates], left: Coordinates, right: Coordinates) -> Iterator[tuple[str, str]]:
    """Each condition that is as `left` says with the one that is as `right` says and like it in all else."""
    for name, own in where.items():
        if left.items() <= own.items():
            other = {**own, **right}
            yield from ((name, one) for one, its in where.items() if its == other and one != name)
