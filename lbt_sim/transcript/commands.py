"""Commands that are told to be copied: they work where they are read."""

from __future__ import annotations

import os
import shlex

__all__ = ["command_line", "program"]


def command_line(*arguments: str) -> str:
    """An `lbt-sim` command, quoted for a shell; with `uv run` before it where this one was started so."""
    return shlex.join([*program(), *arguments])


def program() -> list[str]:
    """How `lbt-sim` was called: with `uv run` before it where this process was started so."""
    return ["uv", "run", "lbt-sim"] if os.environ.get("UV_RUN_RECURSION_DEPTH") else ["lbt-sim"]
