"""Tasks: problems with answers, split into train and held-out, from files, the hub or seeded generators."""

from lbt_sim.tasks.base import Exemplar, Problem, Task
from lbt_sim.tasks.load import load_task
from lbt_sim.tasks.split import HeldOutGuard, normalise, same_problem

__all__ = ["Exemplar", "HeldOutGuard", "Problem", "Task", "load_task", "normalise", "same_problem"]
