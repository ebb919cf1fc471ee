"""Seeds form a tree: every random choice is derived from (run seed, path), never from the order of events."""

from __future__ import annotations

import random
from dataclasses import dataclass
from hashlib import blake2b

__all__ = ["Seeds"]


@dataclass(frozen=True, slots=True)
class Seeds:
    """A node of the seed tree.

    `Seeds(7).at("r1", "exam").rng()` gives the same generator in every run with seed 7,
    whatever else has happened before.
    """

    run: int
    path: tuple[str, ...] = ()

    def at(self, *parts: object) -> Seeds:
        """The node below this one that `parts` name."""
        return Seeds(self.run, self.path + tuple(map(str, parts)))

    def number(self) -> int:
        """This node's seed: an integer in [0, 2**31), the range every engine accepts."""
        digest = blake2b(repr((self.run, self.path)).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") >> 33

    def sample(self, number: int) -> int:
        """The seed of sample `number` of what is drawn at this node: consecutive numbers, from this node's own on.

        So an engine may draw n samples of one prompt in one request, as servers do it (sample i of a request with
        seed s is drawn with s + i), and each is the sample that a call of its own would have given.
        """
        return (self.number() + number) % 2**31

    def rng(self) -> random.Random:
        """A generator of its own for this node."""
        digest = blake2b(repr((self.run, self.path)).encode(), digest_size=16).digest()
        return random.Random(digest)
