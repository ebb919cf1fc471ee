"""Rows out of a Hugging Face dataset (extra `hub`)."""

from __future__ import annotations

import hashlib
import json

from lbt_sim.errors import Place, TaskError
from lbt_sim.tasks.files import Row, Table

__all__ = ["read_dataset"]


def read_dataset(name: str, split: str, *, config: str | None, revision: str | None, where: Place) -> Table:
    """Read one split of a dataset, out of the cache or the hub.

    Args:
        name: Dataset id ('openai/gsm8k'), or a local folder that `datasets` can read.
        split: Which split.
        config: The configuration, where the dataset has several.
        revision: A commit to pin.
        where: Where the scenario names the dataset.

    Raises:
        TaskError: The package is missing, or the dataset cannot be had; says why.
    """
    try:
        import datasets
    except ImportError:
        what = "A Hugging Face dataset needs the package `datasets`, which is not installed."
        remedy = "Install the extra: `uv sync --extra hub`, or `pip install 'lbt-sim[hub]'`."
        raise TaskError(what, where=where, remedy=remedy) from None
    try:
        data = datasets.load_dataset(name, name=config, split=split, revision=revision)
        source = f"{name}/{split}"
        rows = tuple(Row(number, dict(values), source, None) for number, values in enumerate(data, 1))
    except Exception as error:  # the library and those beneath it raise dozens of unrelated types
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        remedy = "Check id, configuration, split and network; HF_HUB_OFFLINE=1 reads the cache only."
        raise TaskError(f"Dataset '{name}', split '{split}': {reason}", where=where, remedy=remedy) from error
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row.values, sort_keys=True, default=repr).encode())
    return Table(rows, source, digest.hexdigest())
