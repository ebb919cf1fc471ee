"""Selection: which candidates make the beam, by the teacher's own answers on train problems.

All candidates of a stage answer the same problems, so that differences are paired: what one problem adds to
everyone cancels. Strategies differ in who goes on to the next stage. A strategy is a function from the scores
so far to the candidates that stay; `STRATEGIES` names them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lbt_sim.concurrency import together
from lbt_sim.errors import ScenarioError, nearest
from lbt_sim.events import Event
from lbt_sim.roles.room import Context
from lbt_sim.roles.values import Material
from lbt_sim.scenario.schema import SelectSpec
from lbt_sim.tasks.base import Problem

__all__ = ["STRATEGIES", "Scored", "Scorer", "Selection", "Standing", "keep_all", "select"]


@dataclass(frozen=True, slots=True)
class Scored:
    """One candidate's answer to one problem: right or not, how probable the right one was, and what F1 needs.

    None stands for an answer that did not come back: it is left out, never counted as wrong.
    """

    correct: bool
    probability: float | None
    """Of the right label; None where the engine gives no log-probabilities."""
    said_positive: bool = False
    is_positive: bool = False


Scorer = Callable[[Material, Sequence[Problem]], Coroutine[Any, Any, Sequence[Scored | None]]]


_LEAST = 1e-6
"""A probability that an engine rounds to zero counts as this much."""


def _probability(answer: Scored) -> float:
    return float(answer.correct) if answer.probability is None else answer.probability


@dataclass
class Standing:
    """A candidate's answers so far, by problem."""

    material: Material
    answers: dict[str, Scored] = field(default_factory=dict)
    dropped: int | None = None

    def score(self, metric: str) -> float:
        """Accuracy, mean probability of the right label, or F1 over the answers so far; -1 before there are any."""
        answers = list(self.answers.values())
        if not answers:
            return -1.0
        if metric == "accuracy":
            return sum(a.correct for a in answers) / len(answers)
        if metric == "probability":
            return sum(map(_probability, answers)) / len(answers)
        hits = sum(a.said_positive and a.is_positive for a in answers)
        wrong = sum(a.said_positive != a.is_positive for a in answers)
        if hits + wrong == 0:  # nothing positive, said or right: F1 is undefined, which is not a zero
            return sum(a.correct for a in answers) / len(answers)
        return 2 * hits / (2 * hits + wrong)

    def log_likelihood(self) -> float:
        """Mean logarithm of the right labels' probability, where that is known; 0 where it never is."""
        known = (answer.probability for answer in self.answers.values())
        logs = [math.log(max(probability, _LEAST)) for probability in known if probability is not None]
        return sum(logs) / len(logs) if logs else 0.0


@dataclass(frozen=True, slots=True)
class Selection:
    """What was selected.

    Attributes:
        beam: The materials kept, best first.
        standings: All candidates with their answers.
        metric: What scores are.
        spent: Answers paid for.
        rescored: On how many problems that nothing is selected on the winner was scored anew, and its score there;
            None: not measured.
    """

    beam: tuple[Material, ...]
    standings: tuple[Standing, ...]
    metric: str
    spent: int
    rescored: tuple[int, float] | None


@dataclass(frozen=True, slots=True)
class Stage:
    """What a strategy sees at the end of a stage."""

    standings: Sequence[Standing]
    spec: SelectSpec
    beam: int
    stage: int
    stages: int


def _ranked(standings: Sequence[Standing], spec: SelectSpec) -> list[Standing]:
    """Best first. Ties go to the likelier right labels or (`ties: first`, or still equal) to who came first."""

    def key(standing: Standing) -> tuple[float, float]:
        return -standing.score(spec.metric), -standing.log_likelihood() if spec.ties == "likelihood" else 0.0

    return sorted(standings, key=key)


def uniform(stage: Stage) -> Sequence[Standing]:
    """Everyone stays: all candidates answer the same problems (the published code's default)."""
    return stage.standings


def halving(stage: Stage) -> Sequence[Standing]:
    """The better half stays, never fewer than the beam."""
    keep = max(stage.beam, math.ceil(len(stage.standings) / 2))
    return _ranked(stage.standings, stage.spec)[:keep]


def successive_rejects(stage: Stage) -> Sequence[Standing]:
    """The worst one goes (Audibert and Bubeck, 2010), never below the beam."""
    keep = max(stage.beam, len(stage.standings) - 1)
    return _ranked(stage.standings, stage.spec)[:keep]


def race(stage: Stage) -> Sequence[Standing]:
    """Halving, but nobody goes after the first block, nor who may still be as good as the last one of the beam.

    Those below the cut stay while their paired difference from it is within one standard error (a lenient race:
    with few problems a hard cut drops good candidates by accident); those above it go when it is beyond two.
    """
    ranked = _ranked(stage.standings, stage.spec)
    if len(ranked) <= stage.beam or stage.stage < 2:
        return ranked
    last = ranked[stage.beam - 1]
    half = max(stage.beam, math.ceil(len(ranked) / 2))
    kept = list(ranked[: stage.beam])
    for place, standing in enumerate(ranked[stage.beam :], start=stage.beam):
        behind, error = paired_difference(last, standing, stage.spec.metric)
        if behind <= (2.0 if place < half else 1.0) * error:
            kept.append(standing)
    return kept


def paired_difference(a: Standing, b: Standing, metric: str = "accuracy") -> tuple[float, float]:
    """Mean of a's minus b's score on the problems that both answered, and its standard error (ddof 1).

    F1 is no mean over problems; correctness stands for it.
    """

    def worth(answer: Scored) -> float:
        return _probability(answer) if metric == "probability" else float(answer.correct)

    common = [key for key in a.answers if key in b.answers]
    if len(common) < 2:
        return 0.0, math.inf
    differences = [worth(a.answers[key]) - worth(b.answers[key]) for key in common]
    mean = sum(differences) / len(differences)
    variance = sum((d - mean) ** 2 for d in differences) / (len(differences) - 1)
    return mean, math.sqrt(variance / len(differences))


Strategy = Callable[[Stage], Sequence[Standing]]
STRATEGIES: Mapping[str, Strategy] = {
    "halving": halving,
    "race": race,
    "successive_rejects": successive_rejects,
    "uniform": uniform,
}


async def select(
    candidates: Sequence[Material],
    pool: Sequence[Problem],
    scorer: Scorer,
    spec: SelectSpec,
    beam: int,
    round_: int,
    ctx: Context,
    *,
    width: int = 1,
    reserve: Sequence[Problem] = (),
) -> Selection:
    """Chooses the beam.

    Args:
        candidates: Distinct materials; earlier ones win ties.
        pool: Train problems to score on; problems are drawn from it by seed, the same for all candidates.
        scorer: Answers of a material's teacher (or students) to problems.
        spec: Strategy, metric, budget of answers, least block.
        beam: How many to keep.
        round_: The round.
        ctx: Seeds and events.
        width: Answers that scoring one problem takes: one of each teacher, or of each student, who has a say.
        reserve: Problems that nothing is ever selected on; the winner is scored anew on them.
    """
    share = min(spec.budget // width // max(1, len(candidates)), len(pool))
    if share < spec.block and len(candidates) > 1:
        text = (
            f"round {round_}: a budget of {spec.budget} answers and {len(pool)} problems to score on are {share} "
            f"problems for each of {len(candidates)} candidates, fewer than the least block of {spec.block}: "
            "the choice is little better than chance"
        )
        ctx.emit(Event(f"r{round_}/selection", "notice", {"text": text}))
    spec = spec.model_copy(update={"budget": spec.budget // width})
    order = ctx.seeds.at("select", round_).rng().sample(pool, len(pool))
    standings = [Standing(material) for material in candidates]
    if len(standings) == 1:
        spent = 0  # there is nothing to choose
    elif spec.strategy == "ucb":
        spent = width * await _ucb(standings, order, scorer, spec)
    else:
        spent = width * await _staged(standings, order, scorer, spec, beam)
    best = _ranked([s for s in standings if s.dropped is None], spec)
    best += [s for s in _ranked(standings, spec) if s.dropped is not None]
    chosen = tuple(standing.material for standing in best[:beam])
    if spec.spend == "all":
        spent += width * await _spend_rest(best[0], order, scorer, spec.budget - spent // width, round_, ctx)
    rescored = await _rescored(chosen[0], reserve, scorer, spec)
    _report(standings, chosen, spec, (round_, spent, rescored), ctx)
    return Selection(chosen, tuple(standings), spec.metric, spent, rescored)


async def keep_all(
    beam: Sequence[Material],
    pool: Sequence[Problem],
    scorer: Scorer,
    spec: SelectSpec,
    round_: int,
    ctx: Context,
    *,
    width: int = 1,
) -> Selection:
    """The selection of a round in which nothing is revised: the beam as it was, in its order.

    Nobody is asked, but where all of the budget has to be spent: that is answered with the first of the beam, and
    changes nothing. Arguments as for `select`.
    """
    standings, spent = [Standing(material) for material in beam], 0
    if spec.spend == "all":
        order = ctx.seeds.at("select", round_).rng().sample(pool, len(pool))
        spent = width * await _spend_rest(standings[0], order, scorer, spec.budget // width, round_, ctx)
    _report(standings, beam, spec, (round_, spent, None), ctx)
    return Selection(tuple(beam), tuple(standings), spec.metric, spent, None)


async def _answer(standings: Sequence[Standing], problems: Sequence[Problem], scorer: Scorer) -> None:
    """Everyone answers the same problems, a candidate's together (its prompt's head is computed once)."""
    scored = await together(scorer(standing.material, problems) for standing in standings)
    for standing, answers in zip(standings, scored, strict=True):
        for problem, answer in zip(problems, answers, strict=True):
            if answer is not None:
                standing.answers[problem.id] = answer


async def _staged(
    standings: Sequence[Standing], order: Sequence[Problem], scorer: Scorer, spec: SelectSpec, beam: int
) -> int:
    """Runs the stages of a strategy; returns how many problems were scored, over all candidates."""
    strategy = STRATEGIES.get(spec.strategy)
    if strategy is None:
        close = nearest(spec.strategy, STRATEGIES)
        raise ScenarioError(
            f"'{spec.strategy}' is not a selection strategy" + (f"; did you mean '{close}'?" if close else ""),
            valid=sorted([*STRATEGIES, "ucb"]),
            remedy="Correct method.select.strategy.",
        )
    alive, spent, used, stage = list(standings), 0, 0, 0
    stages = _stages(spec, len(standings), beam)
    while alive:
        affordable = (spec.budget - spent) // len(alive)
        share = (spec.budget - spent) // (stages - stage) // len(alive)
        size = spec.block if spec.strategy == "race" else max(spec.block, share)
        size = min(size, affordable, len(order) - used)
        if size < 1:
            break
        await _answer(alive, order[used : used + size], scorer)
        used, spent, stage = used + size, spent + size * len(alive), stage + 1
        # Fewer problems than a block tell nobody apart: then nobody goes.
        enough = used >= min(spec.block, len(order))
        kept = list(strategy(Stage(alive, spec, beam, stage, stages))) if enough else alive
        for standing in alive:
            if standing not in kept:
                standing.dropped = stage
        alive = kept
        # A race goes on among the beam: the first of it is the one that is reported.
        settled = len(alive) == 1 if spec.strategy == "race" else len(alive) <= beam < len(standings)
        if stage >= stages or settled:
            break
    return spent


def _stages(spec: SelectSpec, candidates: int, beam: int) -> int:
    """How many stages a strategy has at most."""
    if spec.strategy == "uniform":
        return 1
    if spec.strategy == "halving":
        return max(1, math.ceil(math.log2(max(candidates, 1) / beam)))
    if spec.strategy == "successive_rejects":
        return max(1, candidates - beam)
    return max(1, spec.budget // spec.block)


async def _ucb(standings: Sequence[Standing], order: Sequence[Problem], scorer: Scorer, spec: SelectSpec) -> int:
    """Upper confidence bound (Auer et al., 2002): blocks go to whoever may be best; the problems stay common."""
    spent = 0
    taken = dict.fromkeys((id(standing) for standing in standings), 0)
    while spent + spec.block <= spec.budget:
        open_ = [s for s in standings if taken[id(s)] + spec.block <= len(order)]
        if not open_:
            break

        def bound(standing: Standing, total: int = spent) -> float:
            n = taken[id(standing)]
            return math.inf if n == 0 else standing.score(spec.metric) + math.sqrt(2 * math.log(total) / n)

        best = max(open_, key=bound)
        start = taken[id(best)]
        await _answer([best], order[start : start + spec.block], scorer)
        taken[id(best)] += spec.block
        spent += spec.block
    return spent


async def _spend_rest(
    winner: Standing, order: Sequence[Problem], scorer: Scorer, left: int, round_: int, ctx: Context
) -> int:
    """The winner answers `left` more problems, for nothing; returns how many it was asked."""
    asked = [problem for problem in order if problem.id not in winner.answers][:left]
    if len(asked) < left:
        text = (
            f"round {round_}: {left - len(asked)} answers of the budget could not be spent: train has no more problems"
        )
        ctx.emit(Event(f"r{round_}/selection/spend", "notice", {"text": text}))
    if asked:
        await scorer(winner.material, asked)
    return len(asked)


async def _rescored(
    winner: Material, problems: Sequence[Problem], scorer: Scorer, spec: SelectSpec
) -> tuple[int, float] | None:
    """The winner's score on problems that nothing is selected on: its selection score is too good by selection."""
    if not problems:
        return None
    standing = Standing(winner)
    await _answer([standing], problems, scorer)
    return (len(standing.answers), standing.score(spec.metric)) if standing.answers else None


def _report(
    standings: Sequence[Standing],
    chosen: Sequence[Material],
    spec: SelectSpec,
    result: tuple[int, int, tuple[int, float] | None],
    ctx: Context,
) -> None:
    round_, spent, rescored = result
    data = {
        "round": round_,
        "strategy": spec.strategy,
        "metric": spec.metric,
        "candidates": [
            {
                "id": standing.material.id,
                "n": len(standing.answers),
                "correct": sum(a.correct for a in standing.answers.values()),
                "score": standing.score(spec.metric) if standing.answers else None,
                "likelihood": math.exp(standing.log_likelihood()) if standing.answers else None,
                "dropped": standing.dropped,
            }
            for standing in standings
        ],
        "answers": spent,
        "beam": [material.id for material in chosen],
        "rescore": {"n": rescored[0], "score": rescored[1]} if rescored else None,
    }
    ctx.emit(Event(f"r{round_}/selection", "selection", data))
