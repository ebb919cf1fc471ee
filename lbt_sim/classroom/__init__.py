"""The classroom graph: seats and the edges that decide who hears whom.

`build_classroom` reads a classroom file's rules (or the whole graph from a file), wires the seats of the cast and
checks that everyone can be taught. `Classroom` answers the lesson's questions: who hears whom, in which order.
"""

from __future__ import annotations

from lbt_sim.classroom.build import build_classroom
from lbt_sim.classroom.graph import EDGE_KINDS, ROLES, Classroom, EdgeKind, Role, Seat

__all__ = ["EDGE_KINDS", "ROLES", "Classroom", "EdgeKind", "Role", "Seat", "build_classroom"]
