"""Whether every node of a Ray cluster can execute a study's runs: it has lbt_sim, and sees the study's folder."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

import lbt_sim
from lbt_sim.errors import InputError, Place, RunError

__all__ = ["check_nodes"]

_PATIENCE = 120.0
"""Seconds that a node has to answer: its first process has to start, and to import everything."""


def check_nodes(ray: Any, folder: Path, nodes: Sequence[Mapping[str, Any]]) -> None:
    """Checks each node: it imports lbt_sim of this version, reads what is written here, and heeds locks held here.

    Args:
        ray: The module, connected.
        folder: The study's.
        nodes: As `ray.nodes()` has them.

    Raises:
        InputError: One of them does not.
        RunError: One does not answer.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    token = secrets.token_hex(16)
    file = folder.absolute() / f".ray-{token[:8]}"
    look = ray.remote(_looker())
    try:
        with FileLock(file):
            file.write_text(token, encoding="utf-8")
            asked = {
                look.options(
                    num_cpus=0,
                    max_retries=2,
                    scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False),
                ).remote(str(file), token): node
                for node in nodes
            }
            _, late = ray.wait(list(asked), num_returns=len(asked), timeout=_PATIENCE)
            for answer, node in asked.items():
                _judge(node, "it does not answer" if answer in late else _answer(ray, answer), folder)
    finally:
        file.unlink(missing_ok=True)


def _looker() -> Any:
    """What a node is asked. Made in a function, so that Ray sends its code: lbt_sim may be missing there."""

    def look(file: str, token: str) -> str:
        """What is wrong; '' where nothing is. Begins with `version:`, `folder:` or `locks:`."""
        import fcntl
        import pathlib
        import time

        try:
            import lbt_sim
        except ImportError as error:
            return f"version:cannot import lbt_sim ({error})"
        path, wrong = pathlib.Path(file), ""
        for _ in range(10):  # network file systems show what is new after a while
            try:
                if path.read_text(encoding="utf-8") == token:
                    break
                wrong = "it holds something else there"
            except OSError as error:
                wrong = str(error.strerror)
            time.sleep(0.5)
        else:
            return f"folder:{wrong}"
        with path.open("r+") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return f"version:{lbt_sim.__version__}"
        return "locks:"

    return look


def _answer(ray: Any, reference: Any) -> str:
    try:
        return str(ray.get(reference))
    except ray.exceptions.RayError as error:
        return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _judge(node: Mapping[str, Any], answer: str, folder: Path) -> None:
    name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
    what, _, detail = answer.partition(":")
    if what == "version" and detail == lbt_sim.__version__:
        return
    if what == "version":
        said = detail if detail.startswith("cannot") else f"has lbt_sim {detail}, not {lbt_sim.__version__}"
        raise InputError(
            f"the Ray node {name} {said}",
            where=Place(key="--executor ray"),
            remedy="Install the same version there, in the Python that Ray was started with.",
        )
    if what == "folder":
        raise InputError(
            f"the Ray node {name} does not see the study's folder: {detail}",
            where=Place(str(folder)),
            remedy="With --out, name a folder that lies, under the same path, on a file system that all nodes share.",
        )
    if what == "locks":
        raise InputError(
            f"the Ray node {name} sees the study's folder, but no locks that are held on another node",
            where=Place(str(folder)),
            remedy="Two workers could work in one run. Use a file system with locks for the whole cluster "
            "(NFS 4, Lustre with -o flock), or `--executor local`.",
        )
    raise RunError(
        f"the Ray node {name} cannot be asked: {answer}",
        where=Place(key="--executor ray"),
        remedy="`ray status` tells whether it lives.",
    )
