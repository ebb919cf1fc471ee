"""Imports go downward only, heavy packages are imported late, and every module says what it offers."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import lbt_sim

ROOT = Path(lbt_sim.__file__).parent

LAYERS: list[list[str]] = [
    ["errors"],
    ["events", "seeds", "stats", "concurrency"],
    ["ledger", "ledger_file", "manifest", "models.base"],
    ["scenario.yaml", "scenario.schema", "scenario.validation", "scenario.overrides", "scenario.presets"],
    ["tasks", "grading", "models", "prompts", "library"],
    ["scenario"],
    ["classroom", "parsing"],
    ["roles"],
    ["lesson", "exam", "feedback", "donor", "revision", "selection", "reporting"],
    ["methods", "setup"],
    ["preview", "check_file", "executions", "folders", "runs", "transcript", "workspace"],
    ["determinism", "doctor"],
    ["study"],
    ["report"],
    ["cli", "__main__"],
]
"""From the bottom up; modules of one layer may import each other. The longest prefix of a module's name counts."""

RANK = {prefix: rank for rank, layer in enumerate(LAYERS) for prefix in layer}


def modules() -> list[str]:
    files = (path.relative_to(ROOT) for path in ROOT.rglob("*.py") if "_library" not in path.parts)
    return sorted(".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in files)


def source(module: str) -> Path:
    if module == "__init__":
        return ROOT / "__init__.py"
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(source(module).read_text(encoding="utf-8"))


def imported(module: str) -> Iterator[str]:
    """Everything that a module imports, late imports too; `from a import b` gives `a` and `a.b`."""
    guarded = {
        inner
        for node in ast.walk(tree(module))
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree(module)):
        if node in guarded:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            assert node.module
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(module: str) -> set[str]:
    known = set(modules())
    return {name for full in imported(module) if (name := full.removeprefix("lbt_sim.")) in known and full != name}


def rank(module: str) -> int:
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        if (prefix := ".".join(parts[:length])) in RANK:
            return RANK[prefix]
    raise AssertionError(f"{module} has no layer: add it to LAYERS")


def test_the_decision_record_draws_these_layers() -> None:
    record = (ROOT.parent / "docs" / "decisions" / "0007-layers.md").read_text(encoding="utf-8")
    drawn = [line.split(", ") for line in record.split("```")[1].strip().splitlines()]
    assert [sorted(line) for line in drawn] == [sorted(layer) for layer in reversed(LAYERS)]


EVERY = [module for module in modules() if module != "__init__"]


@pytest.mark.parametrize("module", EVERY)
def test_imports_go_downward_only(module: str) -> None:
    upward = {other for other in ours(module) if rank(other) > rank(module)}
    assert not upward, f"{module} imports from a layer above its own"


@pytest.mark.parametrize("module", EVERY)
def test_only_roles_import_autogen(module: str) -> None:
    uses = {name.split(".")[0] for name in imported(module)} & {"autogen_agentchat", "autogen_core", "autogen_ext"}
    assert not uses or module.startswith("roles.")


@pytest.mark.parametrize("module", [name for name in EVERY if name.split(".")[0] == "stats"])
def test_statistics_import_nothing_of_ours(module: str) -> None:
    assert not {other for other in ours(module) if other.split(".")[0] != "stats"}


@pytest.mark.parametrize("module", EVERY)
def test_every_module_says_what_it_offers_in_order(module: str) -> None:
    assigned = [
        node.value
        for node in tree(module).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    body = tree(module).body
    if module == "__main__" or (len(body) == 1 and isinstance(body[0], ast.Expr)):
        return  # the entry point, and packages that hold a docstring alone
    assert len(assigned) == 1, f"{module} has no __all__"
    names = ast.literal_eval(assigned[0])

    def place(name: str) -> tuple[int, str]:  # constants, classes, functions: the order that the linter keeps
        return (0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2, name)

    assert names == sorted(names, key=place)
    assert len(names) == len(set(names))


HEAVY = ("autogen_agentchat", "autogen_core", "xllamacpp", "aiohttp", "numpy", "networkx", "datasets", "math_verify")


@pytest.mark.parametrize(
    ("module", "late"),
    [
        ("lbt_sim.cli", HEAVY),
        ("lbt_sim.scenario.load", HEAVY),
        ("lbt_sim.models.registry", HEAVY),
        ("lbt_sim.models.simulated", HEAVY),
        ("lbt_sim.runs", ("xllamacpp", "aiohttp", "datasets", "math_verify")),
    ],
)
def test_what_is_heavy_is_imported_when_it_is_needed(module: str, late: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print(*[name for name in {late!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
