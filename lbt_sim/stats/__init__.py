"""Statistics: of one report, and of a study's many. Imports nothing of ours."""

from __future__ import annotations

from lbt_sim.stats.diversity import MEASURES, diversity
from lbt_sim.stats.estimate import Estimate
from lbt_sim.stats.scores import bootstrap_mean, f1_interval, f1_score, wilson_interval

__all__ = ["MEASURES", "Estimate", "bootstrap_mean", "diversity", "f1_interval", "f1_score", "wilson_interval"]
