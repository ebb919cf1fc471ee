"""A researcher's workspace: the same three folders as the built-in library, with something of each to change."""

from __future__ import annotations

from pathlib import Path

from lbt_sim.errors import InputError, Place
from lbt_sim.library import Library, built_in
from lbt_sim.scenario.json_schema import write_schemas

__all__ = ["make_workspace"]

_FIRST = """\
# yaml-language-server: $schema=../.schemas/scenario.schema.json
kind: scenario
version: 1
title: My first classroom
description: >
  Simulated learners, so that it ends in seconds. For a language model change the engine to
  {engine: llamacpp, model: smollm2-135m}. `lbt-sim prompts first` shows what each agent is sent.

models:
  mine: {engine: simulated}

task: {name: reviews, train: 200, held_out: 100}

classroom: pairs            # classrooms/pairs.yaml, beside this folder

cast:
  teacher: {agent: teacher, model: mine}
  students:
    - {agent: student, persona: curious, count: 2}      # agents/personas/curious.yaml
    - {agent: student, persona: sceptic, count: 2}      # built in

lesson: {discussion: 1}

method:
  name: m3
  rounds: 3
  exam: 20
  revise: [choose]
  select: {budget: 200}

seed: 1
"""
_PAIRS = """\
# yaml-language-server: $schema=../.schemas/classroom.schema.json
kind: classroom
version: 1
title: Pairs
description: One teacher; students talk in pairs.
seats: {teacher: 1, student: "*"}
edges:
  - {from: teacher, to: student, kind: teaches}
  - {among: student, kind: discusses, topology: {name: groups, size: 2}}
"""
_README = """\
# A workspace for lbt-sim

| folder | holds |
| --- | --- |
| `scenarios/` | what is run: task, cast, classroom, method, budget |
| `classrooms/` | who teaches, assists and talks to whom |
| `agents/` | agents with their prompt templates, and personas |
| `runs/` | what was run: everything that was asked and answered |

    lbt-sim validate first       # checks it and all that it names
    lbt-sim prompts first        # what each agent would be sent
    lbt-sim run first            # runs it
    lbt-sim show runs/first-1    # the transcript

What is not found here is looked up in the built-in library: `lbt-sim run quickstart` works here too. `.schemas/` lets
editors complete the files; `lbt-sim schema` prints them.
"""
_CURIOUS = """\
# yaml-language-server: $schema=../../.schemas/persona.schema.json
kind: persona
version: 1
title: Curious
text: You like to know why, and you look at the details of every example.
traits: {blind: 0.2, slip: 0.05}
"""


def make_workspace(folder: Path) -> list[Path]:
    """Writes a workspace and returns its files.

    The student agent and its templates are copied, to be changed; everything else is found in the built-in library.

    Raises:
        InputError: The folder holds something already, or cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not empty", where=Place(str(folder)), remedy="Name a new folder.")
    library = Library([built_in()])
    student = library.find("agents", "student")
    texts = {
        "README.md": _README,
        ".gitignore": "runs/\n",
        "scenarios/first.yaml": _FIRST,
        "classrooms/pairs.yaml": _PAIRS,
        "agents/personas/curious.yaml": _CURIOUS,
        "agents/student.yaml": "# yaml-language-server: $schema=../.schemas/agent.schema.json\n" + student.text,
    }
    for use in ("system", "answer", "worked", "ask", "discuss", "summarise"):
        path = f"agents/student/{use}.md.j2"
        texts[path] = library.read(path).text
    try:
        for path, text in texts.items():
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        schemas = write_schemas(folder / ".schemas")
    except OSError as error:
        raise InputError(
            f"the workspace cannot be written: {error.strerror or error}",
            where=Place(str(folder)),
            remedy="Name a folder that you may write to.",
        ) from error
    return [folder / path for path in sorted(texts)] + schemas
