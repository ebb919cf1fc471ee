"""Grading: answers are read from replies and compared with the right ones."""

from lbt_sim.grading.base import OUTCOMES, Grade, Grader, Outcome
from lbt_sim.grading.load import GRADERS, open_grader

__all__ = ["GRADERS", "OUTCOMES", "Grade", "Grader", "Outcome", "open_grader"]
