"""A study's records as arrays: which answers were right, by round, seed and problem."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lbt_sim.stats import Scores, strata_of
from lbt_sim.study.record import RoundRecord, RunResult
from lbt_sim.study.results import StudyResults

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Letters = NDArray[np.uint8]

__all__ = ["OUTCOMES", "ConditionScores", "count_outcomes", "same_problems", "scores_of"]

OUTCOMES: Mapping[str, str] = {"c": "correct", "w": "wrong", "i": "invalid", "t": "truncated", "f": "failed"}
"""Letter -> outcome."""


@dataclass(frozen=True, slots=True)
class ConditionScores:
    """One condition's finished runs.

    Attributes:
        runs: Seed -> run, in the order of the study's seeds.
        letters: Rounds x seeds x problems: the outcome letters as bytes, 0 where there is none.
        hits: The same shape: what counts in the numerator of the metric.
        base: What counts in its denominator.
        last: For each seed the index of its last round.
        rows: Seed -> its place in the arrays.
        strata: As in `Scores`; None where the metric is not F1, or runs have problems of their own.
    """

    runs: Mapping[int, RunResult]
    letters: Letters
    hits: Letters
    base: Letters
    last: NDArray[np.intp]
    rows: Mapping[int, int] = field(default_factory=dict)
    strata: NDArray[np.intp] | None = None

    def at(self, round_: int, seeds: Sequence[int]) -> Scores:
        """The scores of one round; nothing where a run has no such round."""
        import numpy as np

        rows = np.array([self.rows[seed] for seed in seeds], dtype=np.intp)
        if round_ < len(self.letters):
            return self._scores(np.array([[round_]]), rows[None, :])
        return self._as_scores(*(np.zeros((1, len(rows), self.letters.shape[2]), dtype=np.uint8) for _ in range(3)))

    def outcome(self, kind: str, seeds: Sequence[int], rounds: int) -> Scores:
        """The scores that a study compares: of each run's last round, or of all from round 1 on.

        Args:
            kind: `last` or `area`.
            seeds: Which runs.
            rounds: How many rounds there are places for in `area`. A run with round 0 alone has its score in round 1's.
        """
        import numpy as np

        rows = np.array([self.rows[seed] for seed in seeds], dtype=np.intp)
        if kind == "last":
            return self._scores(self.last[rows][None, :], rows[None, :])
        index = np.arange(1, max(rounds, 1) + 1)[:, None] * np.ones_like(rows)[None, :]
        index[0] = np.where(self.last[rows] == 0, 0, 1)
        there = index <= self.last[rows]
        there[0] = True
        return self._scores(np.where(there, index, 0), rows[None, :], there[:, :, None])

    def compared(self, kind: str, seeds: Sequence[int]) -> dict[str, int]:
        """Outcome name -> how many of the answers behind `outcome` had it; those left out in pairs are counted too."""
        records = []
        for seed in seeds:
            rounds = sorted(self.runs[seed].rounds, key=lambda record: record.round)
            records += rounds[-1:] if kind == "last" else [one for one in rounds if one.round] or rounds[-1:]
        return count_outcomes(records)

    def _scores(
        self, rounds: NDArray[np.intp], rows: NDArray[np.intp], there: NDArray[np.bool_] | None = None
    ) -> Scores:
        parts = [array[rounds, rows] for array in (self.hits, self.base, self.letters)]
        return self._as_scores(*(part if there is None else part * there for part in parts))

    def _as_scores(self, hits: Letters, base: Letters, letters: Letters) -> Scores:
        back = (letters != 0) & (letters != ord("f"))
        return Scores(hits.astype(float), base.astype(float), back, self.strata)


def scores_of(results: StudyResults, condition: str, problems: int) -> ConditionScores:
    """The finished runs of one condition that reported anything.

    Args:
        results: The study's results.
        condition: Its name.
        problems: Room for how many problems; at least as many as any run has.
    """
    import numpy as np

    runs = {
        seed: run
        for seed in results.seeds
        if (run := results.runs.get((condition, seed))) is not None and run.status == "done" and run.rounds
    }
    rounds = 1 + max((record.round for run in runs.values() for record in run.rounds), default=0)
    shape = (rounds, len(runs), problems)
    letters, said = np.zeros(shape, dtype=np.uint8), np.zeros(shape, dtype=np.uint8)
    positive = np.zeros((1, len(runs), problems), dtype=bool)
    for row, run in enumerate(runs.values()):
        positive[0, row, : len(run.positive)] = run.positive
        for record in run.rounds:
            letters[record.round, row, : len(record.outcomes)] = _bytes(record.outcomes)
            said[record.round, row, : len(record.said)] = _bytes(record.said)
    back, strata = (letters != 0) & (letters != ord("f")), None
    if results.metric == "accuracy":
        hits, base = (letters == ord("c")).astype(np.uint8), back.astype(np.uint8)
    else:
        # What cannot be read is an error, whatever was right: it says neither.
        labelled = np.array([[[bool(run.positive)]] for run in runs.values()], dtype=bool).reshape(1, len(runs), 1)
        back &= labelled  # a task without a positive label has no F1
        hit = back & positive & (said == ord("P"))
        error = back & ~hit & ~(~positive & (said == ord("N")))
        hits, base = 2 * hit.astype(np.uint8), 2 * hit.astype(np.uint8) + error.astype(np.uint8)
        alike = runs and same_problems(runs.values()) and {len(run.positive) for run in runs.values()} == {problems}
        strata = strata_of(positive[0, 0]) if alike else None
    last = np.array([max(record.round for record in run.rounds) for run in runs.values()], dtype=np.intp)
    return ConditionScores(runs, letters, hits, base, last, {seed: row for row, seed in enumerate(runs)}, strata)


def _bytes(text: str) -> Letters:
    import numpy as np

    return np.frombuffer(text.encode("ascii"), dtype=np.uint8)


def same_problems(runs: Iterable[RunResult]) -> bool:
    """Whether all were examined on the same problems."""
    return len({run.problems for run in runs}) <= 1


def count_outcomes(records: Iterable[RoundRecord]) -> dict[str, int]:
    """Outcome name -> how many held-out answers of these rounds."""
    text = "".join(record.outcomes for record in records)
    return {name: text.count(letter) for letter, name in OUTCOMES.items()}
