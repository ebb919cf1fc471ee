from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lbt_sim.classroom import Classroom, build_classroom
from lbt_sim.errors import Place
from lbt_sim.scenario.schema import ClassroomFile
from lbt_sim.seeds import Seeds

LIBRARY = Path(__file__).parents[2] / "classrooms"


def cast_of(teachers: int, assistants: int, students: int) -> list[tuple[str, str]]:
    counts = {"teacher": teachers, "assistant": assistants, "student": students}
    return [(f"{role}_{number}", role) for role, count in counts.items() for number in range(1, count + 1)]


@pytest.fixture(scope="session")
def build() -> Callable[..., Classroom]:
    """Builds a classroom from rules and head counts; `files` are what `file:` can name."""

    def make(
        *edges: dict[str, Any],
        heads: tuple[int, int, int] = (1, 0, 3),
        cast: list[tuple[str, str]] | None = None,
        seed: int = 7,
        files: dict[str, str] | None = None,
        place: Callable[[str], Place] | None = None,
        **keys: Any,
    ) -> Classroom:
        everyone = {"teacher": "*", "assistant": "*", "student": "*"}
        file = ClassroomFile.model_validate({"seats": everyone, "edges": list(edges), **keys})
        known = files or {}

        def read_file(name: str) -> str:
            if name not in known:
                raise FileNotFoundError(f"no file {name}")
            return known[name]

        sitting = cast_of(*heads) if cast is None else cast
        return build_classroom(file, sitting, seed=Seeds(seed).at("classroom"), read_file=read_file, place=place)

    return make


@pytest.fixture(scope="session")
def built_in() -> Callable[..., Classroom]:
    """Builds one of the repository's classrooms by name and head counts."""

    def make(name: str, *heads: int, seed: int = 7) -> Classroom:
        file = ClassroomFile.model_validate(yaml.safe_load((LIBRARY / f"{name}.yaml").read_text("utf-8")))
        return build_classroom(
            file, cast_of(*heads), seed=Seeds(seed), read_file=lambda path: (LIBRARY / path).read_text("utf-8")
        )

    return make
