"""Requests as the classroom makes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lbt_sim.models.base import CallPath, ChatRequest, Head, Sampling, Turn

HEAD = Head((Turn("system", "Answer with one word: positive or negative."),))


@pytest.fixture
def ask() -> Callable[..., ChatRequest]:
    """Makes a request out of its last turn and whatever differs from the usual."""

    def make(last: str = "A wonderful film.", **changes: Any) -> ChatRequest:
        values: dict[str, Any] = {"path": CallPath(0, "exam", "ann", "p1"), "head": HEAD, "seed": 7}
        values |= {"sampling": Sampling(max_tokens=8)}
        return ChatRequest(last=last, **(values | changes))

    return make
