"""Texts as tokens, and chats as prompts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

KEPT = 20_000
"""Texts, and beginnings of prompts, whose tokens are kept."""
_MASK = (1 << 64) - 1


# --- tokens ----------------------------------------------------------------------------------------------

END, START, THINK, THOUGHT = 0, 1, 2, 3
_SPECIAL = {END: "<|im_end|>", START: "<|im_start|>", THINK: "<think>", THOUGHT: "</think>"}
_WORDS = (
    "positive", "negative", "neutral", "correct", "wrong", "incorrect", "false", "False", "Positive", "Negative",
    "mostly", "barely", "system", "user", "assistant",
)  # fmt: skip
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_WORD_0, _CHUNK_0 = 16, 1024
_CHUNKS = 53**4
_CHAR_0 = _CHUNK_0 + 2 * _CHUNKS
VOCABULARY = _CHAR_0 + 0x110000
_PIECE = re.compile(r" ?[A-Za-z]+|.", re.DOTALL)


class _Pieces(dict[str, tuple[int, ...]]):
    """Piece of text -> its tokens, found out once."""

    def __missing__(self, piece: str) -> tuple[int, ...]:
        ids = self[piece] = tuple(_encode_piece(piece))
        return ids


def _encode_piece(piece: str) -> Iterator[int]:
    letters = piece.removeprefix(" ")
    spaced = letters != piece
    if not letters or letters[0] not in _LETTERS:
        yield from (_CHAR_0 + ord(char) for char in piece)
    elif letters in _WORDS:
        yield _WORD_0 + 2 * _WORDS.index(letters) + spaced
    else:
        for begin in range(0, len(letters), 4):
            number = 0
            for letter in letters[begin : begin + 4]:
                number = number * 53 + _LETTERS.index(letter) + 1
            yield _CHUNK_0 + number + (_CHUNKS if spaced and begin == 0 else 0)


_pieces = _Pieces()
_texts: dict[str, tuple[int, ...]] = {}


def encode(text: str) -> tuple[int, ...]:
    """A text's tokens: some words, else up to four letters, with the space before them; other characters singly.

    The vocabulary is fixed, so that replicas, and a server started anew, have the same ids.
    """
    ids = _texts.get(text)
    if ids is None:
        if len(_texts) >= KEPT:
            _texts.clear()
        if len(_pieces) >= 10 * KEPT:
            _pieces.clear()
        ids = _texts[text] = tuple(id_ for piece in _PIECE.findall(text) for id_ in _pieces[piece])
    return ids


def decode(token: int) -> str:
    """A token's text."""
    if token < _WORD_0:
        return _SPECIAL.get(token, "")
    if token < _CHUNK_0:
        place, spaced = divmod(token - _WORD_0, 2)
        return " " * spaced + _WORDS[place] if place < len(_WORDS) else ""
    if token >= _CHAR_0:
        return chr(token - _CHAR_0)
    spaced, number = divmod(token - _CHUNK_0, _CHUNKS)
    letters = ""
    while number:
        number, letter = divmod(number, 53)
        letters = (_LETTERS[letter - 1] if letter else "") + letters
    return " " * spaced + letters


def mixed(*numbers: int) -> int:
    """64 bits that depend on all of them, and on nothing else (splitmix64)."""
    state = 0
    for number in numbers:
        state = (state ^ number) * 0x9E3779B97F4A7C15 & _MASK
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        state = (state ^ state >> 27) * 0x94D049BB133111EB & _MASK
        state ^= state >> 31
    return state


def share(*numbers: int) -> float:
    """A number in [0, 1) that depends on all of them."""
    return mixed(*numbers) / 2**64


# --- prompts ---------------------------------------------------------------------------------------------

_NEWLINE = encode("\n")
_NO_THOUGHT = (THINK, *encode("\n\n"), THOUGHT, *encode("\n\n"))
_NAMED = re.compile(
    r"\b(?:positive|negative|neutral|correct|incorrect|wrong|yes|no|Yes|No|true|True|false|False|[A-D](?=[,. )]|$))\b"
)
COUNTED = re.compile(r"\b[Ww]rite (?:it again, |a better set of )?(\d+) (?:worked |new )?(?:examples|problems)\b")
_PROSE = re.compile(
    r"\bin (?:at most|one or) [\w ]{1,24}(?:sentences|words|lines)\b|\bWrite (?:only|the lesson|it again|down)\b"
    r"|\bat most (?:\w+ ){1,2}(?:sentences|words|lines)\b|\bsentences\."
)


@dataclass(frozen=True, slots=True)
class Head:
    """All turns but the last: what many prompts share, so that its tokens are worked out once."""

    ids: tuple[int, ...]
    digest: int
    labels: tuple[str, ...]
    """What assistant turns said, and the labels that the system turn names."""
    chains: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    """(root, block size) -> the hashes of its whole blocks."""

    def chain(self, root: int, block: int) -> list[int]:
        """The hash of each whole block and all before it."""
        known = self.chains.get((root, block))
        if known is None:
            known = self.chains[root, block] = list(_chain(root, self.ids, block))
        return known


@dataclass(frozen=True)
class Prompt:
    """A rendered chat.

    Attributes:
        head: Its beginning.
        ids: All tokens.
        root: Stands for the salt and the adapter: what makes another prompt of the same tokens.
        digest: Stands for the tokens and the adapter.
        last: The last turn's text.
        thinks: The model will think first.
    """

    head: Head
    ids: tuple[int, ...]
    root: int
    digest: int
    last: str
    thinks: bool

    def blocks(self, size: int) -> list[int]:
        """The hash of each whole block and all before it."""
        begun = self.head.chain(self.root, size)
        rest = self.ids[len(begun) * size :]
        return [*begun, *_chain(begun[-1] if begun else self.root, rest, size)] if len(rest) >= size else begun

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """What a reply is likely to be; none where something else is to be written."""
        if self.wanted:
            return ()
        line = self.last[self.last.rfind("\n") + 1 :]
        named = _NAMED.findall(line) if "nswer" in line else []
        if "number only" in line:
            named += [f"{n}" for n in range(1, 10) if f"\n{n}. " in self.last]
        return (*self.head.labels, *named) if named else self.head.labels

    @cached_property
    def wanted(self) -> str:
        """What is to be written: '' (an answer), 'set' or 'prose'."""
        if "rite " not in self.last and " at most " not in self.last and "sentences" not in self.last:
            return ""
        if COUNTED.search(self.last) or "JSON list" in self.last:
            return "set"
        return "prose" if _PROSE.search(self.last) else ""


def _chain(root: int, ids: Sequence[int], block: int) -> Iterator[int]:
    for begin in range(0, len(ids) - block + 1, block):
        root = hash((root, *ids[begin : begin + block]))  # hashes of numbers are the same in every process
        yield root


class Template:
    """A chat template like ChatML, with a keyword where the model can think."""

    def __init__(self, *, thinking: bool, switch: str = "enable_thinking") -> None:
        self._thinking, self._switch = thinking, switch
        self._heads: dict[tuple[tuple[str, str], ...], Head] = {}

    def render(self, messages: Any, kwargs: Mapping[str, Any], root: int = 0, adapter: int = 0) -> Prompt:
        """Render a chat, up to where the reply begins."""
        turns = tuple(_turn(message) for message in messages)
        head = self._head(turns[:-1])
        thinks = self._thinking and kwargs.get(self._switch) is not False
        tail = (*_rendered(turns[-1:]), START, *encode("assistant"), *_NEWLINE)
        if self._thinking and not thinks:
            tail += _NO_THOUGHT
        digest = mixed(head.digest, hash(tail) & _MASK, adapter)
        return Prompt(head, head.ids + tail, root, digest, turns[-1][1], thinks)

    def _head(self, turns: tuple[tuple[str, str], ...]) -> Head:
        head = self._heads.get(turns)
        if head is None:
            if len(self._heads) >= KEPT // 10:
                self._heads.clear()
            said = [text.strip() for role, text in turns if role == "assistant" and 0 < len(text.strip()) < 80]
            named = [name for role, text in turns if role == "system" for name in _NAMED.findall(text)]
            labels = tuple(dict.fromkeys(said[-64:] + named))
            ids = tuple(_rendered(turns))
            head = self._heads[turns] = Head(ids, hash(ids) & _MASK, labels)
        return head


def _turn(message: Any) -> tuple[str, str]:
    content = message.get("content") or ""
    if not isinstance(content, str):
        content = "".join(part.get("text", "") for part in content)
    return str(message["role"]), content


def _rendered(turns: Iterable[tuple[str, str]]) -> Iterator[int]:
    for role, text in turns:
        yield from (START, *encode(role), *_NEWLINE, *encode(text), END, *_NEWLINE)
