"""Selection: the better candidate is found more often than by chance, fairly, and within the budget."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rooms import material, problems

from lbt_sim.errors import ScenarioError
from lbt_sim.events import Event
from lbt_sim.roles.room import Context
from lbt_sim.roles.values import Material
from lbt_sim.scenario.schema import SelectSpec
from lbt_sim.seeds import Seeds
from lbt_sim.selection import STRATEGIES, Scored, Selection, Standing, paired_difference, select
from lbt_sim.tasks.base import Problem

EVERY = [*sorted(STRATEGIES), "ucb"]
POOL = problems("t", 400)


@dataclass
class Students:
    """Answers rightly with a candidate's own probability; problems are easy or hard for everyone alike."""

    quality: dict[str, float]
    seed: int = 0
    failing: Callable[[str, str], bool] = lambda material, problem: False
    asked: list[tuple[str, list[str]]] = field(default_factory=list)

    async def __call__(self, one: Material, batch: Sequence[Problem]) -> list[Scored | None]:
        self.asked.append((one.id, [problem.id for problem in batch]))
        return [self._answer(one.id, problem.id) for problem in batch]

    def _answer(self, one: str, problem: str) -> Scored | None:
        if self.failing(one, problem):
            return None
        hard = random.Random(f"{self.seed} {problem}").random()
        own = random.Random(f"{self.seed} {problem} {one}").random()
        correct = 0.5 * hard + 0.5 * own < self.quality[one]
        return Scored(correct, float(correct), correct, True)

    def of(self, one: str) -> list[str]:
        return [problem for who, batch in self.asked for problem in batch if who == one]


def candidates(count: int) -> list[Material]:
    return [material(2, prefix=f"c{number}") for number in range(count)]


def context(seed: int = 0) -> tuple[Context, list[Event]]:
    events: list[Event] = []
    nobody: Any = None
    return Context(Seeds(seed), events.append, nobody), events


async def chosen(
    among: Sequence[Material],
    scorer: Any,
    spec: SelectSpec,
    beam: int = 1,
    pool: Sequence[Problem] = POOL,
    seed: int = 0,
    **more: Any,
) -> Selection:
    return await select(among, pool, scorer, spec, beam, 1, context(seed)[0], **more)


@pytest.mark.parametrize("strategy", EVERY)
async def test_the_best_of_eight_is_found_far_more_often_than_by_chance(strategy: str) -> None:
    found = 0
    for seed in range(40):
        among = candidates(8)
        best = among[seed % 8]
        scorer = Students({one.id: 0.75 if one is best else 0.5 for one in among}, seed)
        spec = SelectSpec(strategy=strategy, budget=320, block=8)
        found += (await chosen(among, scorer, spec, seed=seed)).beam[0] is best
    assert found >= 24, f"{found} of 40; chance finds 5"


@pytest.mark.parametrize("strategy", ["race", "halving", "successive_rejects"])
async def test_dropping_early_finds_the_best_at_least_as_often_as_spending_evenly(strategy: str) -> None:
    async def found(by: str) -> int:
        right = 0
        for seed in range(40):
            among = candidates(10)
            scorer = Students({one.id: 0.68 if one is among[4] else 0.5 for one in among}, seed)
            spec = SelectSpec(strategy=by, budget=300, block=8)
            right += (await chosen(among, scorer, spec, seed=seed)).beam[0] is among[4]
        return right

    assert await found(strategy) >= await found("uniform") - 3


@pytest.mark.parametrize("strategy", EVERY)
@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(1, 12),
    beam=st.integers(1, 4),
    budget=st.integers(1, 400),
    block=st.integers(1, 20),
    pool=st.integers(0, 60),
    rescore=st.integers(0, 10),
    seed=st.integers(0, 5),
)
async def test_no_budget_is_overspent_and_a_stages_problems_are_common(
    strategy: str, count: int, beam: int, budget: int, block: int, pool: int, rescore: int, seed: int
) -> None:
    among = candidates(count)
    scorer = Students({one.id: 0.5 for one in among}, seed)
    spec = SelectSpec(strategy=strategy, budget=budget, block=block, rescore=rescore)
    result = await chosen(among, scorer, spec, beam, POOL[:pool], seed)
    if result.rescored:
        who, anew = scorer.asked.pop()
        assert who == result.beam[0].id
        assert not {*anew} & {*scorer.of(who)}
    answered = {one.id: scorer.of(one.id) for one in among}
    assert sum(map(len, answered.values())) == result.spent <= budget
    assert len(result.beam) == min(beam, count)
    assert len({one.id for one in result.beam}) == len(result.beam)
    assert all(len(set(problems_)) == len(problems_) for problems_ in answered.values()), "nobody answers one twice"
    # Everyone's problems are the beginning of one common order.
    longest = max(answered.values(), key=len)
    assert all(longest[: len(problems_)] == problems_ for problems_ in answered.values())
    if strategy != "ucb":
        for standing in result.standings:
            if standing.dropped is not None and len(standing.answers) < pool:
                assert len(standing.answers) >= min(block, pool), "dropped on fewer problems than a block"


@pytest.mark.parametrize("strategy", EVERY)
async def test_of_equally_good_ones_the_earlier_is_kept(strategy: str) -> None:
    among = candidates(6)

    async def alike(one: Material, batch: Sequence[Problem]) -> list[Scored]:
        return [Scored(problem.id[-1] in "02468", 0.5) for problem in batch]

    # UCB gives candidates different numbers of problems, so equal quality is not an equal score there.
    result = await chosen(among, alike, SelectSpec(strategy=strategy, budget=48, block=8), beam=2)
    assert list(result.beam) == among[:2] or strategy == "ucb"
    always = Students({one.id: 1.1 for one in among})
    assert (await chosen(among, always, SelectSpec(strategy=strategy, budget=48, block=8))).beam[0] is among[0]


async def test_nothing_that_can_be_paid_keeps_the_beam_as_it_is() -> None:
    among = candidates(5)
    scorer = Students({one.id: 0.5 for one in among})
    result = await chosen(among, scorer, SelectSpec(strategy="race", budget=4), beam=2)
    assert list(result.beam) == among[:2]
    assert (result.spent, result.rescored, scorer.asked) == (0, None, [])


@pytest.mark.parametrize("strategy", EVERY)
async def test_the_winner_is_scored_anew_on_the_reserve_and_nobody_else_is(strategy: str) -> None:
    among, reserve = candidates(4), problems("r", 12)
    scorer = Students({one.id: 0.5 + 0.1 * n for n, one in enumerate(among)})
    result = await chosen(among, scorer, SelectSpec(strategy=strategy, budget=80, block=4), reserve=reserve)
    who, problems_ = scorer.asked[-1]
    before = {problem for _, batch in scorer.asked[:-1] for problem in batch}
    assert who == result.beam[0].id
    assert problems_ == [problem.id for problem in reserve]
    assert not before & set(problems_)
    assert sum(len(batch) for _, batch in scorer.asked[:-1]) == result.spent <= 80
    assert result.rescored is not None
    assert result.rescored[0] == 12


async def test_the_selected_score_is_too_good_and_the_rescored_one_is_not() -> None:
    """Why there is a rescore: the best of many equals looks better than it is."""
    picked, fresh = [], []
    for seed in range(30):
        among = candidates(10)
        scorer = Students({one.id: 0.5 for one in among}, seed)
        reserve = problems("r", 60)
        result = await chosen(among, scorer, SelectSpec(strategy="uniform", budget=160), seed=seed, reserve=reserve)
        picked.append(next(s for s in result.standings if s.material is result.beam[0]).score("accuracy"))
        assert result.rescored is not None
        fresh.append(result.rescored[1])
    assert sum(picked) / 30 > 0.58
    assert abs(sum(fresh) / 30 - 0.5) < 0.05


@pytest.mark.parametrize("strategy", EVERY)
async def test_a_budget_counts_every_answer_where_several_have_a_say(strategy: str) -> None:
    among = candidates(3)
    scorer = Students({one.id: 0.5 for one in among})
    result = await chosen(among, scorer, SelectSpec(strategy=strategy, budget=240, block=4), width=8)
    scored = sum(len(batch) for _, batch in scorer.asked)
    assert result.spent == 8 * scored
    assert 0 < result.spent <= 240


async def test_a_race_goes_on_among_the_beam_until_its_first_is_sure() -> None:
    among = candidates(3)
    scorer = Students({one.id: quality for one, quality in zip(among, (0.7, 0.75, 0.2), strict=True)})
    result = await chosen(among, scorer, SelectSpec(strategy="race", budget=300, block=10), beam=2)
    assert {one.id for one in result.beam} == {among[0].id, among[1].id}
    assert result.spent > 260


@pytest.mark.parametrize("strategy", EVERY)
async def test_answers_that_did_not_come_back_are_left_out_and_not_wrong(strategy: str) -> None:
    among = candidates(2)
    unlucky = among[1].id
    scorer = Students(
        {among[0].id: 0.3, unlucky: 0.7},
        failing=lambda one, problem: one == unlucky and int(problem[1:]) % 2 == 0,
    )
    spec = SelectSpec(strategy=strategy, budget=160, block=16)
    result = await chosen(among, scorer, spec)
    assert result.beam[0].id == unlucky
    standing = next(s for s in result.standings if s.material.id == unlucky)
    assert all(int(problem[1:]) % 2 for problem in standing.answers)


async def test_ucb_spends_more_on_the_better_candidates() -> None:
    among = candidates(4)
    scorer = Students({one.id: quality for one, quality in zip(among, (0.2, 0.2, 0.9, 0.2), strict=True)})
    result = await chosen(among, scorer, SelectSpec(strategy="ucb", budget=400, block=8))
    spent = [len(standing.answers) for standing in result.standings]
    assert spent[2] == max(spent)
    assert spent[2] > 2 * spent[0]


async def test_halving_gives_the_survivors_the_most_problems() -> None:
    among = candidates(8)
    scorer = Students({one.id: 0.3 + 0.05 * n for n, one in enumerate(among)})
    result = await chosen(among, scorer, SelectSpec(strategy="halving", budget=240, block=4))
    assert sorted(standing.dropped or 9 for standing in result.standings) == [1, 1, 1, 1, 2, 2, 3, 9]


async def test_successive_rejects_drops_one_at_a_time() -> None:
    among = candidates(5)
    scorer = Students({one.id: 0.3 + 0.1 * n for n, one in enumerate(among)})
    result = await chosen(among, scorer, SelectSpec(strategy="successive_rejects", budget=200, block=4))
    assert sorted(standing.dropped or 9 for standing in result.standings) == [1, 2, 3, 4, 9]


async def test_everyone_answers_the_same_share_of_a_uniform_budget() -> None:
    among = candidates(5)
    scorer = Students({one.id: 0.5 for one in among})
    result = await chosen(among, scorer, SelectSpec(strategy="uniform", budget=2048), pool=problems("t", 500))
    assert {len(scorer.of(one.id)) for one in among} == {409}
    assert result.spent == 2045


def standing(*answers: Scored) -> Standing:
    return Standing(material(), {str(number): answer for number, answer in enumerate(answers)})


def test_scores_are_what_their_names_say() -> None:
    mixed = standing(
        Scored(True, 0.9, said_positive=True, is_positive=True),
        Scored(False, 0.4, said_positive=True, is_positive=False),
        Scored(False, 0.2, said_positive=False, is_positive=True),
        Scored(True, 0.7, said_positive=False, is_positive=False),
    )
    assert mixed.score("accuracy") == 0.5
    assert mixed.score("probability") == pytest.approx(0.55)
    assert mixed.score("f1") == 0.5
    assert standing().score("accuracy") == -1
    assert standing(Scored(True, 1.0)).score("f1") == 1.0  # F1 is undefined here: the accuracy stands for it


async def among_equals(ties: str, probability: float) -> tuple[list[Material], Selection]:
    """Two candidates with the same answers; the second is surer of the right label by `probability`."""
    among = candidates(2)

    async def scorer(one: Material, batch: Sequence[Problem]) -> list[Scored | None]:
        sure = probability if one is among[1] else 0.0
        return [Scored(n % 2 == 0, (0.6 if n % 2 == 0 else 0.3) + sure) for n, _ in enumerate(batch)]

    return among, await chosen(among, scorer, SelectSpec.model_validate({"strategy": "uniform", "ties": ties}))


async def test_equal_scores_go_to_the_likelier_labels() -> None:
    among, result = await among_equals("likelihood", 0.1)
    assert result.beam == (among[1],)
    among, result = await among_equals("likelihood", -0.1)
    assert result.beam == (among[0],)


async def test_equal_scores_go_to_who_came_first_where_that_is_asked_or_nothing_else_is_known() -> None:
    among, result = await among_equals("first", 0.1)
    assert result.beam == (among[0],)
    among, result = await among_equals("likelihood", 0.0)
    assert result.beam == (among[0],)


def test_a_paired_difference_takes_common_problems_only() -> None:
    a = standing(Scored(True, 1.0), Scored(True, 1.0), Scored(False, 0.0))
    b = Standing(material(), {"0": Scored(False, 0.0), "1": Scored(True, 1.0), "9": Scored(True, 1.0)})
    mean, error = paired_difference(a, b)
    assert mean == 0.5
    assert error == pytest.approx(math.sqrt(0.5 / 2))
    assert paired_difference(a, standing(Scored(True, 1.0)))[1] == math.inf


async def test_what_was_decided_is_told() -> None:
    among = candidates(3)
    scorer = Students({one.id: 0.5 + 0.2 * n for n, one in enumerate(among)})
    ctx, events = context()
    spec = SelectSpec(strategy="halving", budget=90, block=5)
    result = await select(among, POOL, scorer, spec, 1, 4, ctx, reserve=problems("r", 10))
    (event,) = events
    assert (event.path, event.kind) == ("r4/selection", "selection")
    assert event.data["beam"] == [result.beam[0].id]
    assert event.data["answers"] == result.spent
    assert [entry["id"] for entry in event.data["candidates"]] == [one.id for one in among]
    assert event.data["rescore"]["n"] == 10


async def test_an_unknown_strategy_is_refused_with_the_nearest() -> None:
    spec = SelectSpec().model_copy(update={"strategy": "halvng"})
    with pytest.raises(ScenarioError, match="did you mean 'halving'"):
        await chosen(candidates(2), Students({}), spec)
