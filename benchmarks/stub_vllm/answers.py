"""What is said to a prompt, and how likely each beginning is."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from zlib import crc32

from .tokens import COUNTED, END, THINK, THOUGHT, Prompt, decode, encode, mixed, share

_LABELLING = (
    *"ABCD", *"123456789", "positive", "negative", "neutral", "yes", "no", "Yes", "No", "true", "false", "True",
    "False", "correct", "wrong", "I", "It",
)  # fmt: skip
_COMMON = tuple(dict.fromkeys(encode(text)[0] for text in _LABELLING))
_SPACED = -3.0
_THE, _LIST = encode("The")[0], encode("[")[0]
_LABELS = re.compile(r"(?:one of|each of the answers) (.+?)(?: among them|, as a JSON list|\.?$|\. )", re.MULTILINE)
_PAIR = re.compile(r"^(?:- |\d+\. )(.+?) -> (.+?)(?: \(answered: .*\))?$", re.MULTILINE)
_FILLER = (
    "the", "set", "of", "them", "all", "may", "need", "more", "or", "less", "than", "one", "case", "that", "they",
    "did", "not", "know", "so", "we", "show", "it", "once", "and", "say", "why",
)  # fmt: skip
_RARE = -9.0
FORBIDDEN = -9999.0


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
    counted = COUNTED.search(text)
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
