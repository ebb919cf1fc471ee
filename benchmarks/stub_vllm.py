"""A stand-in for a vLLM server: its API as of 0.32, a model of its latency and prefix cache, and faults on demand.

    python benchmarks/stub_vllm.py --model tiny --served-model-name tiny --port 8000 --seconds 0.05 --slots 64

Flags of `vllm serve` that it does not know are accepted and ignored. It answers by rule, not by a language model.

**Answers** depend on the prompt's tokens, on the LoRA adapter's folder and, at a temperature above 0, on the seed
(sample i of n: seed + i; without a seed: 0), never on the way they are asked for: alone, in a batch, as one of n
samples, held to choices. One distribution over first tokens is behind them all. Labels that stand as assistant turns
in the prompt, or are named by its system turn or its last line, are likely. Where there are such, a reply is one of
them; where a set of problems is asked for ("Write 4 examples"), it is a JSON list made of those in the prompt; else
it is `--output-tokens` of prose. `top_p`, `top_k` and penalties are ignored; there is no streaming and no tool use.

**Time.** A conversation waits, first in first out, for one of `--slots`; a batch of N takes N, n samples take n. It
holds its slot for `--seconds`, plus `--seconds-per-prompt-token` for each prompt token that is not in the prefix
cache, plus `--seconds-per-output-token` for each token of the reply. A slot that comes free is taken at that very
time, however late this process gets to it: what it needs itself costs latency, not slots.

**Prefix cache.** Whole blocks; the least recently used leave first, of one prompt the deepest; those of running calls
are not pinned. As in vLLM the block with a prompt's last token is always computed. What a call computes can be used
when its prefill is done (`--seconds` belong to it), or at once with `--share-in-flight`, which is what vLLM does; n
samples of one prompt always share it.

`GET /stub/stats` tells, since the start or `POST /stub/reset` (which forgets the cache as well, unless told
`{"keep_cache": true}`):

| key | counts |
| --- | --- |
| `calls`, `batches` | requests taken on, on either path; those of them that were batches |
| `conversations` | prompts that got a slot: N for a batch of N, n for n samples |
| `prompt_tokens`, `cached_tokens`, `computed_tokens` | of all conversations, when their prefill is done |
| `generated_tokens` | of all that are finished |
| `unique_tokens` | nodes of the token-level trie of all prompts: what they have if no beginning is counted twice |
| `unique_block_tokens` | the least that any order computes, with an endless cache (below) |
| `most_running`, `refused`, `aborted` | most slots taken at once; calls refused for the queue; conversations given up |
| `busy_seconds` | slot time of all that started; divided by `slots`, what the server alone needs |
| `cpu_seconds` | of this process, since it started |

`unique_block_tokens` counts each distinct whole block, together with all that stands before it, once; and for each
conversation, repeated ones too, the 1 to `--block` tokens from its last block's begin. A salt or an adapter makes
another prompt of the same tokens.

`POST /stub/faults` switches faults on (`FAULTS`), `{"fault": "none"}` all off.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import random
import re
import secrets
import signal
import socket
import sys
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from zlib import crc32

from aiohttp import web

Json = dict[str, Any]

VERSION = "0.32.0"
FAULTS = {
    "none": "",
    "hang": "no call finishes and no counter moves, while /health stays 200",
    "crash": "the process exits when the `after`-th further call arrives",
    "poison": "the process exits `seconds` after a call came that holds `word`",
    "reset": "the connection breaks in the middle of the answer, `count` times",
    "half_json": "the answer's JSON is cut off, `count` times",
    "error": "calls are answered with `status`, `count` times",
    "engine_dead": "/health answers 503, calls 500",
    "slow": "calls take `seconds` more",
}
KEPT = 20_000
"""Texts, and beginnings of prompts, whose tokens are kept."""
_MASK = (1 << 64) - 1


# --- tokens -----------------------------------------------------------------------------------------------

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


# --- prompts ----------------------------------------------------------------------------------------------

_NEWLINE = encode("\n")
_NO_THOUGHT = (THINK, *encode("\n\n"), THOUGHT, *encode("\n\n"))
_NAMED = re.compile(
    r"\b(?:positive|negative|neutral|correct|incorrect|wrong|yes|no|Yes|No|true|True|false|False|[A-D](?=[,. )]|$))\b"
)
_COUNTED = re.compile(r"\b[Ww]rite (?:it again, |a better set of )?(\d+) (?:worked |new )?(?:examples|problems)\b")
_PROSE = re.compile(
    r"\bin (?:at most|one or) [\w ]{1,24}(?:sentences|words|lines)\b|\bWrite (?:only|the lesson|it again|down)\b"
    r"|\bat most (?:\w+ ){1,2}(?:sentences|words|lines)\b|\bsentences\."
)
_LABELS = re.compile(r"(?:one of|each of the answers) (.+?)(?: among them|, as a JSON list|\.?$|\. )", re.MULTILINE)
_PAIR = re.compile(r"^(?:- |\d+\. )(.+?) -> (.+?)(?: \(answered: .*\))?$", re.MULTILINE)
_FILLER = (
    "the", "set", "of", "them", "all", "may", "need", "more", "or", "less", "than", "one", "case", "that", "they",
    "did", "not", "know", "so", "we", "show", "it", "once", "and", "say", "why",
)  # fmt: skip


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
        if _COUNTED.search(self.last) or "JSON list" in self.last:
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


# --- answers ----------------------------------------------------------------------------------------------

_LABELLING = (
    *"ABCD", *"123456789", "positive", "negative", "neutral", "yes", "no", "Yes", "No", "true", "false", "True",
    "False", "correct", "wrong", "I", "It",
)  # fmt: skip
_COMMON = tuple(dict.fromkeys(encode(text)[0] for text in _LABELLING))
_SPACED = -3.0
_THE, _LIST = encode("The")[0], encode("[")[0]
_RARE = -9.0
_FORBIDDEN = -9999.0


@dataclass(frozen=True, slots=True)
class Draw:
    """How replies are drawn, of one request."""

    temperature: float
    seed: int
    most: int
    stop: tuple[str, ...]
    choices: tuple[str, ...]
    output: int
    """Tokens of free text."""
    apart: bool
    """Thoughts are kept apart, so that choices bind only what comes after them."""


class First:
    """The distribution of a prompt's first token after any thought: log-probabilities, the same on every path."""

    def __init__(self, prompt: Prompt) -> None:
        self._digest = prompt.digest
        likely = (_LIST if prompt.wanted == "set" else _THE,) if prompt.wanted else ()
        self.texts: dict[int, list[str]] = {}
        """Token -> the labels that begin with it."""
        for label in prompt.labels:
            self.texts.setdefault(encode(label)[0], []).append(label)
        logits = {id_: self._logit(id_, -2.0) for id_ in _COMMON}
        logits |= {id_: self._logit(id_, 4.0) for id_ in self.texts}
        for id_, texts in list(self.texts.items()):
            # As with real models: the same after a space, a twentieth as likely.
            spaced = encode(f" {decode(id_)}")
            if len(spaced) == 1:
                logits[spaced[0]] = logits[id_] + _SPACED
                self.texts[spaced[0]] = [f" {text}" for text in texts]
        logits |= {id_: self._logit(id_, 12.0) for id_ in likely}
        # One per cent is for all that is not listed.
        self._norm = math.log(1.01 * sum(map(math.exp, logits.values())))
        self.known = {id_: logit - self._norm for id_, logit in logits.items()}

    def of(self, token: int) -> float:
        """The log-probability of any token."""
        known = self.known.get(token)
        return self._logit(token, _RARE) - self._norm if known is None else known

    def _logit(self, token: int, base: float) -> float:
        return base + 4.0 * share(self._digest, token)


@dataclass(frozen=True, slots=True)
class Reply:
    """What was generated: the tokens, and the log-probabilities of which the first position's tokens come.

    Attributes:
        thought: Tokens of the thought, its marks included.
        ids: Tokens of the rest, the end included unless it was cut off.
        first: The distribution at the first position after the thought.
        allowed: Of held replies: first token -> its log-probability among those that are allowed.
        finish: As the API has it.
        stopped: The stop string that ended it.
        text: Of the rest.
    """

    thought: tuple[int, ...]
    ids: tuple[int, ...]
    first: First
    allowed: Mapping[int, float] | None
    finish: str
    stopped: str | None
    text: str

    @property
    def tokens(self) -> tuple[int, ...]:
        """All of them."""
        return self.thought + self.ids


def reply_to(prompt: Prompt, first: First, draw: Draw, sample: int) -> Reply:
    """What the model says."""
    seed = mixed(prompt.digest, draw.seed + sample) if draw.temperature > 0 else None
    thought: tuple[int, ...] = ()
    if prompt.thinks and not (draw.choices and not draw.apart):
        thought = (THINK, *_prose(mixed(prompt.digest, 1), 8), THOUGHT)
    allowed = None
    if draw.choices:
        text, allowed = _held(first, draw, prompt.digest, seed)
    elif prompt.wanted == "set":
        text = _written_set(prompt, random.Random(seed))
    elif prompt.wanted:
        text = "".join(map(decode, (_THE, *_prose(mixed(prompt.digest, seed or 0), draw.output - 1))))
    else:
        token = _pick(first.known, draw.temperature, seed)
        if token in first.texts:
            text = _one_of(first.texts[token], prompt.digest, seed)
        else:
            text = decode(token)
            if not first.texts:
                text += "".join(map(decode, _prose(mixed(prompt.digest, token, seed or 0), draw.output - 1)))
    stopped = next((stop for stop in draw.stop if stop in text), None)
    if stopped is not None:
        text = text[: text.find(stopped)]
    ids = (*encode(text), END)
    room = draw.most - len(thought)
    if len(ids) <= room:
        return Reply(thought, ids, first, allowed, "stop", stopped, text)
    ids = ids[: max(room, 0)]
    text = "".join(decode(id_) for id_ in ids if id_ != END)
    return Reply(thought[: draw.most], ids, first, allowed, "length", None, text)


def _held(first: First, draw: Draw, digest: int, seed: int | None) -> tuple[str, Mapping[int, float]]:
    """One of the choices, by its first token and then as a whole; and what the first tokens' shares are among them."""
    texts: dict[int, list[str]] = {}
    for choice in draw.choices:
        texts.setdefault((*encode(choice), END)[0], []).append(choice)
    values = {id_: first.of(id_) for id_ in texts}
    best = max(values.values())
    norm = best + math.log(sum(math.exp(value - best) for value in values.values()))
    allowed = {id_: value - norm for id_, value in values.items()}
    token = _pick(allowed, draw.temperature, seed)
    return _one_of(texts[token], digest, seed), allowed


def _pick(logprobs: Mapping[int, float], temperature: float, seed: int | None) -> int:
    """The likeliest, or one drawn."""
    if seed is None:
        return max(logprobs, key=lambda token: (logprobs[token], -token))
    best = max(logprobs.values())
    weights = [math.exp((value - best) / temperature) for value in logprobs.values()]
    left = share(seed, 7) * sum(weights)
    for token, weight in zip(logprobs, weights, strict=True):
        left -= weight
        if left < 0:
            return token
    return next(iter(logprobs))


def _one_of(texts: Sequence[str], digest: int, seed: int | None) -> str:
    """Of texts that begin with the same token; greedily always the same one."""
    if len(texts) == 1:
        return texts[0]
    return max(texts, key=lambda text: share(digest, crc32(text.encode("utf-8", "replace")), seed or 0))


def _prose(digest: int, count: int) -> tuple[int, ...]:
    """So many tokens of words."""
    return tuple(encode(" " + _FILLER[mixed(digest, place) % len(_FILLER)])[0] for place in range(max(0, count)))


def _written_set(prompt: Prompt, rng: random.Random) -> str:
    """A set as `parse_exemplars` reads it: of the problems in the prompt, and made up where there are too few."""
    text = prompt.last
    counted = _COUNTED.search(text)
    count = int(counted[1]) if counted else 4
    named = _LABELS.findall(text)
    labels = [label.strip() for label in named[-1].split(",")] if named else []
    valid = {label.casefold() for label in labels}
    pairs = {asked: answer for asked, answer in _PAIR.findall(text) if not labels or answer.casefold() in valid}
    chosen = rng.sample(sorted(pairs.items()), min(count, len(pairs)))
    for number in range(len(chosen), count):
        words = " ".join(rng.choices(_FILLER, k=6))
        chosen.append((f"Case {rng.randrange(10_000)}: {words}.", labels[number % len(labels)] if labels else "1"))
    return json.dumps([{"question": asked, "answer": answer} for asked, answer in chosen], ensure_ascii=False)


# --- the engine -------------------------------------------------------------------------------------------


class Uniques:
    """How many tokens there are to compute if nothing is computed twice."""

    def __init__(self, block: int) -> None:
        self._block = block
        self._roots: dict[int, dict[int, Any]] = {}
        self._inner: set[int] = set()
        self._last: set[int] = set()
        self._overlap = 0
        self._tails = 0
        self.tokens = 0

    @property
    def block_tokens(self) -> int:
        """The least that an endless cache of blocks computes: see the module's text."""
        return self._tails + self._block * (len(self._inner) - self._overlap)

    def add(self, prompt: Prompt, blocks: Sequence[int]) -> None:
        """Count a prompt."""
        self._count_tokens(prompt.root, prompt.ids)
        inner = (len(prompt.ids) - 1) // self._block
        self._tails += len(prompt.ids) - inner * self._block
        for block in reversed(blocks[:inner]):
            if block in self._inner:
                break  # then all before it are
            self._inner.add(block)
            self._overlap += block in self._last
        # A whole last block is computed by each prompt that ends with it, and then serves those that go on.
        if len(blocks) > inner and blocks[inner] not in self._last:
            self._last.add(blocks[inner])
            self._overlap += blocks[inner] in self._inner

    def _count_tokens(self, root: int, ids: tuple[int, ...]) -> None:
        """Into the trie, whose edges hold runs of tokens: first token -> [run, edges]."""
        edges: dict[int, Any] = self._roots.setdefault(root, {})
        at = 0
        while at < len(ids):
            found = edges.get(ids[at])
            if found is None:
                edges[ids[at]] = [ids[at:], {}]
                self.tokens += len(ids) - at
                return
            run, below = found
            if ids[at : at + len(run)] != run:
                same = next((i for i, (a, b) in enumerate(zip(run, ids[at:], strict=False)) if a != b), len(ids) - at)
                below = {run[same]: [run[same:], below]}
                edges[ids[at]] = [run[:same], below]
                run = run[:same]
            at += len(run)
            edges = below


class Ticket:
    """One request: it is answered when its last conversation is done."""

    __slots__ = ("done", "jobs", "left")

    def __init__(self, done: asyncio.Future[None]) -> None:
        self.done = done
        self.jobs: list[Job] = []
        self.left = 0


class Job:
    """One conversation, or one of n samples."""

    __slots__ = (
        "arrived", "blocks", "cached", "end", "finish", "output", "prefilled", "prompt", "sibling", "slot", "ticket",
        "timer",
    )  # fmt: skip

    def __init__(self, ticket: Ticket, prompt: Prompt, reply: Reply, blocks: list[int], *, sibling: bool) -> None:
        self.ticket, self.prompt, self.blocks, self.sibling = ticket, prompt, blocks, sibling
        self.output, self.finish = len(reply.tokens), reply.finish
        self.arrived = self.prefilled = self.end = 0.0
        self.cached = 0
        self.slot = False
        self.timer: asyncio.TimerHandle | None = None


@dataclass(slots=True)
class Stats:
    """Counters."""

    calls: int = 0
    batches: int = 0
    conversations: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    computed_tokens: int = 0
    generated_tokens: int = 0
    most_running: int = 0
    refused: int = 0
    aborted: int = 0
    busy_seconds: float = 0.0


class Engine:
    """Slots, their queue, the prefix cache, and the clock."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self.capacity = args.cache_tokens // args.block
        self._cache: OrderedDict[int, None] = OrderedDict()
        self._waiting: deque[Job] = deque()
        self._stuck: list[tuple[Callable[[Job], None], Job]] = []
        self.running = self.waiting = self.held_blocks = 0
        self.finished: Counter[str] = Counter()
        self.hung = False
        self.extra_seconds = 0.0
        self.stats = Stats()
        self.uniques = Uniques(args.block)

    def has_room(self, conversations: int) -> bool:
        """Whether so many may be added."""
        free = max(0, self._args.slots - self.running)
        return self._args.queue is None or self.waiting + max(0, conversations - free) <= self._args.queue

    def submit(self, work: Iterable[tuple[Prompt, Reply]], *, siblings: bool) -> Ticket:
        """Take on a request."""
        loop = asyncio.get_running_loop()
        ticket, now = Ticket(loop.create_future()), loop.time()
        for number, (prompt, reply) in enumerate(work):
            blocks = prompt.blocks(self._args.block)
            job = Job(ticket, prompt, reply, blocks, sibling=siblings and number > 0)
            job.arrived = now
            ticket.jobs.append(job)
        ticket.left = len(ticket.jobs)
        for job in ticket.jobs:
            if self.running < self._args.slots and not self.waiting:
                self._start(job, now)
            else:
                self._waiting.append(job)
                self.waiting += 1
        return ticket

    def abort(self, ticket: Ticket) -> None:
        """Give up what is not done of a request; while it hangs, nothing is."""
        if self.hung:
            return
        for job in ticket.jobs:
            if job.finish == "done":
                continue
            self.stats.aborted += 1
            self.finished["abort"] += 1
            if job.slot:
                if job.timer is not None:
                    job.timer.cancel()
                self._leave(job, asyncio.get_running_loop().time())
            else:
                self.waiting -= 1  # it stays in the queue, and is passed over
                job.finish = "done"

    def resume(self) -> None:
        """Hang no more."""
        self.hung = False
        stuck, self._stuck = self._stuck, []
        for step, job in stuck:
            if job.finish != "done":
                step(job)

    def forget(self, *, keep_cache: bool) -> None:
        """Count anew."""
        self.stats, self.uniques = Stats(), Uniques(self._args.block)
        if not keep_cache:
            self._cache.clear()

    def _start(self, job: Job, at: float) -> None:
        args, stats = self._args, self.stats
        job.slot = True
        self.running += 1
        self.held_blocks += -(-(len(job.prompt.ids) + job.output) // args.block)
        stats.most_running = max(stats.most_running, self.running)
        stats.conversations += 1
        self.uniques.add(job.prompt, job.blocks)
        job.cached = args.block * self._reusable(job)
        if args.share_in_flight:
            self._keep(job.blocks)
        computed = len(job.prompt.ids) - job.cached
        job.prefilled = at + args.seconds + self.extra_seconds + computed * args.seconds_per_prompt_token
        job.end = job.prefilled + job.output * args.seconds_per_output_token
        stats.busy_seconds += job.end - at
        two = job.end > job.prefilled
        self._later(job.prefilled, self._prefilled if two else self._finished, job)

    def _reusable(self, job: Job) -> int:
        """Whole blocks that need not be computed: never the one with the last token."""
        inner = (len(job.prompt.ids) - 1) // self._args.block
        if not self.capacity:
            return 0
        found = inner if job.sibling else 0
        if not job.sibling:
            for block in job.blocks[:inner]:
                if block not in self._cache:
                    break
                found += 1
        for block in reversed(job.blocks[:found]):
            if block in self._cache:
                self._cache.move_to_end(block)
        return found

    def _keep(self, blocks: list[int]) -> None:
        cache = self._cache
        for block in reversed(blocks):  # a prefix is of use to more prompts than what follows it
            cache[block] = None
            cache.move_to_end(block)
        while len(cache) > self.capacity:
            cache.popitem(last=False)

    def _later(self, when: float, step: Callable[[Job], None], job: Job) -> None:
        job.timer = asyncio.get_running_loop().call_at(when, self._step, step, job)

    def _step(self, step: Callable[[Job], None], job: Job) -> None:
        job.timer = None
        if self.hung:
            self._stuck.append((step, job))
        else:
            step(job)

    def _prefilled(self, job: Job) -> None:
        self._count_prompt(job)
        self._later(job.end, self._generated, job)

    def _finished(self, job: Job) -> None:
        self._count_prompt(job)
        self._generated(job)

    def _count_prompt(self, job: Job) -> None:
        if not self._args.share_in_flight:
            self._keep(job.blocks)
        self.stats.prompt_tokens += len(job.prompt.ids)
        self.stats.cached_tokens += job.cached
        self.stats.computed_tokens += len(job.prompt.ids) - job.cached

    def _generated(self, job: Job) -> None:
        self.stats.generated_tokens += job.output
        self.finished[job.finish] += 1
        job.ticket.left -= 1
        if not job.ticket.left and not job.ticket.done.done():
            job.ticket.done.set_result(None)
        self._leave(job, job.end)

    def _leave(self, job: Job, at: float) -> None:
        """Its slot goes to the next one, at that time."""
        job.finish = "done"
        self.running -= 1
        self.held_blocks -= -(-(len(job.prompt.ids) + job.output) // self._args.block)
        while self._waiting and self.running < self._args.slots:
            following = self._waiting.popleft()
            if following.finish != "done":
                self.waiting -= 1
                self._start(following, max(at, following.arrived))


# --- what goes over the wire ------------------------------------------------------------------------------


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, message: str, kind: str = "BadRequestError", param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": status}}


@dataclass(frozen=True, slots=True)
class Asked:
    """A chat request that was understood."""

    prompts: list[Prompt]
    draw: Draw
    n: int
    logprobs: bool
    top: int
    named: tuple[int, ...]
    as_ids: bool
    tell_ids: bool


_bytes: dict[int, list[int]] = {}


def _entry(token: int, logprob: float, *, as_id: bool, main: bool) -> Json:
    """One token's log-probability; of alternatives that read `token_id:…` vLLM tells the bytes of that text."""
    text = f"token_id:{token}" if as_id else decode(token)
    if as_id and not main:
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}
    told = _bytes.get(token)
    if told is None:
        if len(_bytes) >= KEPT:
            _bytes.clear()
        told = _bytes[token] = list(decode(token).encode("utf-8", "replace"))
    return {"token": text, "logprob": logprob, "bytes": told}


def _position(reply: Reply, place: int, asked: Asked, prompt: Prompt) -> Json:
    """The log-probabilities at one position: the token's own, then those asked for by name, or the likeliest."""
    token = reply.tokens[place]
    of, known = _distribution(reply, place, prompt)
    if asked.named:
        others: Iterable[int] = asked.named
    else:
        others = sorted(known, key=known.__getitem__, reverse=True) if asked.top else ()
    shown = list(dict.fromkeys((token, *others)))
    if not asked.named:
        shown = shown[: asked.top]
    entry = _entry(token, of(token), as_id=asked.as_ids, main=True)
    entry["top_logprobs"] = [_entry(id_, of(id_), as_id=asked.as_ids, main=False) for id_ in shown]
    return entry


def _distribution(reply: Reply, place: int, prompt: Prompt) -> tuple[Callable[[int], float], Mapping[int, float]]:
    """The log-probability of any token at a position, and those of the likeliest."""
    if place == len(reply.thought) and not reply.thought:
        if reply.allowed is not None:
            allowed = reply.allowed
            return lambda id_: allowed.get(id_, _FORBIDDEN), allowed
        return reply.first.of, reply.first.known
    token = reply.tokens[place]
    own = -0.3 * share(prompt.digest, place, token)
    if token == THINK:  # it is about to think: no label comes first
        own = -0.001

    def of(id_: int) -> float:
        return own if id_ == token else reply.first.of(id_) - 8.0

    return of, {token: own, **{id_: of(id_) for id_ in reply.first.known if id_ != token}}


class Stub:
    """The server's paths."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._key = args.api_key or os.environ.get("VLLM_API_KEY") or ""
        self._names = [args.wrong_name] if args.wrong_name else args.served_model_name or [args.model]
        self._adapters = dict(map(_adapter, args.lora_modules))
        self._template = Template(thinking=args.thinking, switch=args.thinking_switch)
        self.engine = Engine(args)
        self.faults: dict[str, Json] = {}
        self._created = int(time.time())
        self._get: dict[str, Callable[[], web.Response]] = {
            "/health": self._health,
            "/version": lambda: _json({"version": VERSION}),
            "/v1/models": self._models,
            "/metrics": self._metrics,
            "/stub/stats": self._stats,
        }

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request."""
        path = request.path
        try:
            if path.startswith("/v1/") and self._key and request.headers.get("Authorization") != f"Bearer {self._key}":
                return _json({"error": "Unauthorized"}, 401)
            if request.method == "GET" and path in self._get:
                return self._get[path]()
            if request.method == "POST":
                body = await request.read()
                if path == "/v1/chat/completions":
                    return await self._chat(request, body, batch=False)
                if path == "/v1/chat/completions/batch" and not self._args.no_batch:
                    return await self._chat(request, body, batch=True)
                if path == "/tokenize" and not self._args.no_tokenize:
                    return self._tokenize(_loads(body))
                if path == "/stub/faults":
                    self.switch(_loads(body))
                    return _json({"faults": self.faults})
                if path == "/stub/reset":
                    self.engine.forget(keep_cache=bool(body) and bool(_loads(body).get("keep_cache")))
                    return _json({})
        except Refused as refused:
            return _json(refused.body, refused.status)
        return _json({"detail": "Not Found"}, 404)

    def switch(self, what: Json) -> None:
        """Switch a fault on, or all off."""
        name = what.get("fault")
        if name not in FAULTS:
            raise Refused(400, f"unknown fault {name!r}: valid are {', '.join(FAULTS)}")
        if name == "none":
            self.faults.clear()
        else:
            self.faults[name] = dict(what)
        self.engine.extra_seconds = float(self.faults.get("slow", {}).get("seconds", 0.0))
        if "hang" in self.faults:
            self.engine.hung = True
        elif self.engine.hung:
            self.engine.resume()

    def _strikes(self, name: str) -> Json | None:
        """The fault, where it is on and has not struck often enough."""
        fault = self.faults.get(name)
        if fault is not None and fault.get("count") is not None:
            fault["count"] -= 1
            if fault["count"] <= 0:
                del self.faults[name]
        return fault

    # --- GET

    def _health(self) -> web.Response:
        return web.Response(status=503 if "engine_dead" in self.faults else 200)

    def _models(self) -> web.Response:
        shared = {"object": "model", "created": self._created, "owned_by": "vllm"}
        length = {"max_model_len": self._args.max_model_len, "permission": []}
        data = [{"id": name, **shared, "root": self._args.model, "parent": None, **length} for name in self._names]
        parent = {"parent": self._names[0], "max_model_len": None, "permission": []}
        data += [{"id": name, **shared, "root": root, **parent} for name, root in self._adapters.items()]
        return _json({"object": "list", "data": data})

    def _stats(self) -> web.Response:
        engine = self.engine
        values = {name: getattr(engine.stats, name) for name in Stats.__slots__}
        values |= {"unique_tokens": engine.uniques.tokens, "unique_block_tokens": engine.uniques.block_tokens}
        values |= {"running": engine.running, "waiting": engine.waiting, "slots": self._args.slots}
        values |= {"block": self._args.block, "cpu_seconds": time.process_time(), "faults": self.faults}
        return _json(values)

    def _metrics(self) -> web.Response:
        engine, stats = self.engine, self.engine.stats
        use = min(1.0, engine.held_blocks / engine.capacity) if engine.capacity else 0.0
        lines: list[str] = []

        def tell(name: str, value: float, kind: str = "counter", **labels: str) -> None:
            if not lines or not lines[-1].startswith(f"vllm:{name}{{"):
                lines.append(f"# TYPE vllm:{name} {kind}")
            all_ = {"engine": "0", "model_name": self._names[0], **labels}
            told = ",".join(f'{key}="{label}"' for key, label in sorted(all_.items()))
            lines.append(f"vllm:{name}{{{told}}} {float(value)}")

        tell("num_requests_running", engine.running, "gauge")
        tell("num_requests_waiting", engine.waiting, "gauge")
        tell("kv_cache_usage_perc", use, "gauge")
        tell("prefix_cache_queries_total", stats.prompt_tokens)
        tell("prefix_cache_hits_total", stats.cached_tokens)
        tell("num_preemptions_total", 0)
        tell("prompt_tokens_total", stats.prompt_tokens)
        tell("prompt_tokens_by_source_total", stats.computed_tokens, source="local_compute")
        tell("prompt_tokens_by_source_total", stats.cached_tokens, source="local_cache_hit")
        tell("prompt_tokens_by_source_total", 0, source="external_kv_transfer")
        tell("prompt_tokens_cached_total", stats.cached_tokens)
        tell("generation_tokens_total", stats.generated_tokens)
        for reason in ("stop", "length", "abort", "error", "repetition"):
            tell("request_success_total", engine.finished[reason], finished_reason=reason)
        caching = {"enable_prefix_caching": str(engine.capacity > 0), "num_gpu_blocks": str(engine.capacity)}
        tell("cache_config_info", 1, "gauge", block_size=str(self._args.block), **caching)
        return web.Response(text="\n".join(lines) + "\n")

    # --- POST

    def _tokenize(self, body: Json) -> web.Response:
        self._known(body)
        if "messages" in body:
            ids = self._template.render(body["messages"], body.get("chat_template_kwargs") or {}).ids
        else:
            ids = encode(str(body.get("prompt", "")))
        told = {"count": len(ids), "max_model_len": self._args.max_model_len, "tokens": ids}
        return _json(told | {"token_strs": [decode(id_) for id_ in ids] if body.get("return_token_strs") else None})

    async def _chat(self, request: web.BaseRequest, raw: bytes, *, batch: bool) -> web.StreamResponse:
        engine = self.engine
        if crash := self.faults.get("crash"):
            crash["after"] = crash.get("after", 1) - 1
            if crash["after"] <= 0:
                os._exit(1)
        if (poison := self.faults.get("poison")) and str(poison["word"]).encode() in raw:
            await asyncio.sleep(float(poison.get("seconds", 0.1)))
            os._exit(1)
        if "engine_dead" in self.faults:
            issue = "EngineCore encountered an issue. See stack trace (above) for the root cause."
            raise Refused(500, f"{issue} (EngineDeadError)", "InternalServerError")
        if fault := self._strikes("error"):
            raise Refused(int(fault.get("status", 500)), "a fault of the stand-in", "InternalServerError")
        asked = self._understood(_loads(raw), batch=batch)
        if not engine.has_room(len(asked.prompts) * asked.n):
            engine.stats.refused += 1
            refused = Refused(self._args.refuse_status, "The request queue is full.", "ServiceUnavailableError")
            return _json(refused.body, refused.status, {"Retry-After": "1"})
        engine.stats.calls += 1
        engine.stats.batches += batch
        work = []
        for prompt in asked.prompts:
            first = First(prompt)
            work += [(prompt, reply_to(prompt, first, asked.draw, sample)) for sample in range(asked.n)]
        ticket = engine.submit(work, siblings=asked.n > 1)
        try:
            await ticket.done
        except asyncio.CancelledError:
            engine.abort(ticket)
            raise
        cached = None if batch else ticket.jobs[-1].cached
        answer = json.dumps(self._completion(work, asked, cached), separators=(",", ":")).encode()
        if self._strikes("reset"):
            return await _broken_off(request, answer)
        if self._strikes("half_json"):
            answer = answer[: len(answer) // 2]
        return web.Response(body=answer, content_type="application/json")

    def _known(self, body: Json) -> str | None:
        """The adapter's folder; None: the model itself."""
        name = body.get("model") or self._names[0]
        if name in self._names:
            return None
        if name not in self._adapters:
            valid = ", ".join(self._names)
            raise Refused(404, f"The model `{name}` does not exist. Valid aliases: {valid}.", "NotFoundError", "model")
        return self._adapters[name]

    def _understood(self, body: Json, *, batch: bool) -> Asked:
        adapter = self._known(body)
        chats = body.get("messages") if batch else [body.get("messages")]
        if not isinstance(chats, list) or not chats or not all(isinstance(chat, list) and chat for chat in chats):
            raise Refused(400, "1 validation error: body.messages: Field required", "Bad Request", "body.messages")
        n = body.get("n") or 1
        if batch and n != 1:
            told = f"Batch chat completions do not support `n > 1`. Please set `n` to 1. (parameter=n, value={n})"
            raise Refused(400, told, param="n")
        if body.get("stream"):
            raise Refused(400, "the stand-in does not stream", param="stream")
        temperature = body.get("temperature")
        temperature = 1.0 if temperature is None else float(temperature)
        if n > 1 and temperature == 0:
            raise Refused(400, f"n must be 1 when using greedy sampling, got {n}.")
        kwargs = body.get("chat_template_kwargs") or {}
        folder = crc32((adapter or "").encode())
        root = mixed(folder, crc32(str(body.get("cache_salt") or "").encode()))
        try:
            prompts = [self._template.render(chat, kwargs, root, folder) for chat in chats]
        except (AttributeError, KeyError, TypeError):
            raise Refused(400, "1 validation error: body.messages", "Bad Request", "body.messages") from None
        draw = self._draw(body, temperature, max(len(prompt.ids) for prompt in prompts))
        logprobs, named = bool(body.get("logprobs")), self._named(body)
        top = int(body.get("top_logprobs") or 0)
        if top > self._args.max_logprobs:
            told = f"Requested sample logprobs of {top}, which is greater than max allowed: {self._args.max_logprobs}"
            raise Refused(400, f"{told} (parameter=logprobs, value={top})", param="logprobs")
        as_ids = bool(body.get("return_tokens_as_token_ids"))
        return Asked(prompts, draw, n, logprobs, top, named, as_ids, bool(body.get("return_token_ids")))

    def _draw(self, body: Json, temperature: float, longest: int) -> Draw:
        most, context = body.get("max_completion_tokens") or body.get("max_tokens"), self._args.max_model_len
        if most is not None and most > context:
            told = (
                f"max_tokens={most} cannot be greater than max_model_len={context}. Please request fewer output tokens."
            )
            raise Refused(400, f"{told} (parameter=max_tokens, value={most})", param="max_tokens")
        if longest > context:
            told = (
                f"This model's maximum context length is {context} tokens. However, your prompt contains {longest} "
                "input tokens, which exceeds this limit even without any output tokens. Please reduce the length of "
                f"the input prompt. (parameter=input_tokens, value={longest})"
            )
            raise Refused(400, told, param="input_tokens")
        if longest == context:
            raise Refused(400, f"Input length ({longest}) exceeds model's maximum context length ({context}).")
        room = context - longest
        stop = body.get("stop") or ()
        held = body.get("structured_outputs") or {}
        if held and (self._args.no_structured or not held.get("choice")):
            raise Refused(400, "structured outputs of this kind are not supported", param="structured_outputs")
        return Draw(
            temperature,
            int(body.get("seed") or 0),
            room if most is None else min(most, room),
            (stop,) if isinstance(stop, str) else tuple(stop),
            tuple(map(str, held.get("choice", ()))),
            self._args.output_tokens,
            apart=self._args.reasoning_parser is not None,
        )

    def _named(self, body: Json) -> tuple[int, ...]:
        named = body.get("logprob_token_ids")
        if not named or self._args.no_logprob_ids:
            return ()
        param = "logprob_token_ids"
        if not body.get("logprobs"):
            told = f"when using `{param}`, `logprobs` must be set to true. (parameter={param})"
            raise Refused(400, told, param=param)
        if len(named) > 128:
            told = f"Requested {param} of length {len(named)}, which is greater than max allowed: 128"
            raise Refused(400, f"{told} (parameter={param}, value={len(named)})", param=param)
        if out := [id_ for id_ in named if not 0 <= id_ < VOCABULARY]:
            told = f"token_id(s) {out} in {param} contain out-of-vocab token ids. Vocabulary size: {VOCABULARY}"
            raise Refused(400, f"{told} (parameter={param}, value={out})", param=param)
        return tuple(named)

    def _completion(self, work: Sequence[tuple[Prompt, Reply]], asked: Asked, cached: int | None) -> Json:
        sent = sum(len(prompt.ids) for prompt in asked.prompts)
        made = sum(len(reply.tokens) for _, reply in work)
        details = None
        if cached is not None and self._args.enable_prompt_tokens_details:
            details = {"cached_tokens": cached, "created_cache_tokens": 0, "multimodal_tokens": None}
        usage = {"prompt_tokens": sent, "total_tokens": sent + made, "completion_tokens": made}
        return {
            "id": f"chatcmpl-{secrets.token_hex(8)}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": self._names[0],
            "choices": [self._choice(index, *one, asked) for index, one in enumerate(work)],
            "service_tier": None,
            "system_fingerprint": f"vllm-{VERSION}-stub",
            "usage": {**usage, "prompt_tokens_details": details, "completion_tokens_details": None},
            "prompt_logprobs": None,
        }

    def _choice(self, index: int, prompt: Prompt, reply: Reply, asked: Asked) -> Json:
        logprobs = None
        if asked.logprobs:
            places = range(len(reply.tokens))
            logprobs = {"content": [_position(reply, place, asked, prompt) for place in places]}
        message = {"role": "assistant", **self._told(reply), "refusal": None}
        return {
            "index": index,
            "message": message,
            "logprobs": logprobs,
            "finish_reason": reply.finish,
            "stop_reason": reply.stopped,
            "token_ids": reply.tokens if asked.tell_ids else None,
        }

    def _told(self, reply: Reply) -> Json:
        """The content, and the thought beside it or in it."""
        reasoning = self._args.reasoning_field
        if not reply.thought:
            return {"content": reply.text, reasoning: None}
        thought = "".join(map(decode, reply.thought))
        closed = reply.thought[-1] == THOUGHT
        if self._args.reasoning_parser is None:
            return {"content": f"{thought}\n\n{reply.text}" if closed else thought, reasoning: None}
        inside = thought.removeprefix("<think>").removesuffix("</think>")
        return {"content": (reply.text or None) if closed else None, reasoning: inside}


def _loads(raw: bytes) -> Json:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise Refused(400, "1 validation error: body: JSON decode error", "Bad Request", "body.1") from None
    if not isinstance(body, dict):
        raise Refused(400, "1 validation error: body: a JSON object is wanted", "Bad Request", "body")
    return body


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(
        body=json.dumps(value).encode(), status=status, headers=headers, content_type="application/json"
    )


async def _broken_off(request: web.BaseRequest, answer: bytes) -> web.StreamResponse:
    """Half of an answer, and then the connection breaks."""
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(answer))})
    await response.prepare(request)
    await response.write(answer[: len(answer) // 2])
    if request.transport is not None:
        request.transport.abort()
    return response


def _adapter(text: str) -> tuple[str, str]:
    if text.startswith("{"):
        told = json.loads(text)
        return told["name"], told["path"]
    name, _, folder = text.partition("=")
    return name, folder


# --- the process ------------------------------------------------------------------------------------------


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line; what is not known is ignored."""
    parser = argparse.ArgumentParser(
        description="A stand-in for a vLLM server.", allow_abbrev=False, epilog="Other flags are ignored."
    )
    add = parser.add_argument
    add("--model", default="stub")
    add("--served-model-name", nargs="+")
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=8000, help="0: any; it is told on standard error")
    add("--api-key", help="or VLLM_API_KEY in the environment")
    add("--lora-modules", nargs="+", default=[], metavar="NAME=FOLDER")
    add("--max-model-len", type=int, default=4096)
    add("--max-logprobs", type=int, default=20)
    add("--enable-prompt-tokens-details", action="store_true")
    add("--reasoning-parser", help="thoughts are told apart from the content")
    time_ = parser.add_argument_group("time")
    add = time_.add_argument
    add("--seconds", type=float, default=0.0, help="of a call")
    add("--seconds-per-prompt-token", type=float, default=0.0, help="that is not in the prefix cache")
    add("--seconds-per-output-token", type=float, default=0.0)
    add("--slots", "--max-num-seqs", type=int, default=64, help="conversations at a time")
    add("--queue", type=int, help="more than so many waiting are refused")
    add("--refuse-status", type=int, default=503)
    add("--output-tokens", type=int, default=16, help="of free text")
    add("--block", "--block-size", type=int, default=16, help="tokens of a block of the prefix cache")
    add("--cache-tokens", type=int, default=1 << 20, help="0: no prefix cache")
    add("--no-enable-prefix-caching", dest="cache_tokens", action="store_const", const=0)
    add("--share-in-flight", action="store_true", help="what a call computes serves others at once")
    faults = parser.add_argument_group("faults")
    add = faults.add_argument
    add("--fault", type=json.loads, action="append", default=[], metavar="JSON", help='as {"fault": "hang"}')
    add("--once", type=Path, metavar="FILE", help="faults of the command line only where FILE is not there; makes it")
    add("--start-seconds", type=float, default=0.0, help="between taking the port and listening")
    add("--fail-start", metavar="TEXT")
    add("--wrong-name", metavar="NAME", help="serves the model under another name")
    add("--child", action="store_true", help="has a child process, as vLLM has, which SIGKILL of this one leaves")
    add("--ignore-term", action="store_true", help="ignores SIGTERM")
    add("--no-batch", action="store_true")
    add("--no-tokenize", action="store_true")
    add("--no-logprob-ids", action="store_true", help="ignores logprob_token_ids")
    add("--no-structured", action="store_true")
    add("--thinking", action="store_true", help="a reasoning model, whose template can keep it from thinking")
    add("--thinking-switch", default="enable_thinking", metavar="KEYWORD", help="that does so when it is false")
    add("--reasoning-field", default="reasoning", help="reasoning_content: as older versions call it")
    args, _ = parser.parse_known_args(["--model", *argv[1:]] if argv[:1] == ["serve"] else list(argv))
    if args.once is not None:
        if args.once.exists():
            args.fault, args.fail_start, args.wrong_name, args.start_seconds = [], None, None, 0.0
        args.once.touch()
    return args


def _child() -> int:
    """A process of our group that outlives us if we are killed; for ten minutes, so that no test leaves it for ever."""
    child = os.fork()
    if child:
        return child
    end = time.monotonic() + 600
    while time.monotonic() < end:
        time.sleep(1)
    os._exit(0)


def runner_of(stub: Stub) -> web.ServerRunner:
    """The HTTP server around it, for the running event loop."""
    loop = asyncio.get_running_loop()

    def request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=1 << 30)

    # A call whose client is gone is given up, as in vLLM.
    server = web.Server(stub.handle, request_factory=request, handler_cancellation=True, access_log=None)
    return web.ServerRunner(server, shutdown_timeout=0.05)


async def serve(args: argparse.Namespace, port: socket.socket) -> None:
    """Listen on a bound socket until SIGTERM."""
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, ended.set)
    if not args.ignore_term:
        loop.add_signal_handler(signal.SIGTERM, ended.set)
    host, number = port.getsockname()[:2]
    where = f"http://{host}:{number}"
    print(f"INFO:     Process {os.getpid()} has taken {where}", file=sys.stderr, flush=True)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(ended.wait(), args.start_seconds or 0.001)
        return
    if args.fail_start:
        print(f"Traceback (most recent call last):\nRuntimeError: {args.fail_start}", file=sys.stderr)
        sys.exit(1)
    stub = Stub(args)
    for fault in args.fault:
        stub.switch(fault)
    runner = runner_of(stub)
    await runner.setup()
    try:
        await web.SockSite(runner, port, backlog=4096).start()
        print(f"INFO:     Application startup complete. Listening on {where}", file=sys.stderr, flush=True)
        await ended.wait()
    finally:
        await runner.cleanup()


def main(argv: Sequence[str] | None = None) -> None:
    """Run the server."""
    args = arguments(sys.argv[1:] if argv is None else argv)
    if args.ignore_term:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = _child() if args.child else None
    with socket.socket() as port:
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            port.bind((args.host, args.port))  # as vLLM does, long before it listens
            asyncio.run(serve(args, port))
        finally:
            if child is not None:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)


if __name__ == "__main__":
    main()
