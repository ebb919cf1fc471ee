"""Statistics: of one report, and of a study's many. Imports nothing of ours."""

from __future__ import annotations

from lbt_sim.stats.diversity import MEASURES, diversity
from lbt_sim.stats.dose import Response, dose_response
from lbt_sim.stats.effects import (
    detectable_difference,
    hedges_g,
    holm,
    mean_interval,
    paired_p,
    seeds_to_find,
    sign_flip_p,
)
from lbt_sim.stats.estimate import Estimate
from lbt_sim.stats.mixed import MixedFit, mixed_model
from lbt_sim.stats.paired import Contrast, Scores, contrast, per_seed, strata_of
from lbt_sim.stats.scores import bootstrap_mean, f1_interval, f1_score, wilson_interval

__all__ = [
    "MEASURES",
    "Contrast",
    "Estimate",
    "MixedFit",
    "Response",
    "Scores",
    "bootstrap_mean",
    "contrast",
    "detectable_difference",
    "diversity",
    "dose_response",
    "f1_interval",
    "f1_score",
    "hedges_g",
    "holm",
    "mean_interval",
    "mixed_model",
    "paired_p",
    "per_seed",
    "seeds_to_find",
    "sign_flip_p",
    "strata_of",
    "wilson_interval",
]
