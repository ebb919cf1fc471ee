"""Rule-based learners: seeded, instant, and never presented as a language model.

A learner answers by the nearest worked example that it has heard, over the words it knows; a teacher of this kind
picks exemplars near the failures. They read the same prompts as a language model does (worked examples are chat
turns, or lines `- question -> answer` in anything said), and, for writing, the values behind the prompt. They are
there to try a design before spending GPU hours, and to test at scale; what they show about teaching is about them.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import re
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

from pydantic import Field

from lbt_sim.models.base import ChatRequest, Head, ModelInfo, Reply
from lbt_sim.models.limits import Gate, in_completion_order
from lbt_sim.scenario.schema import Spec

__all__ = ["SimulatedModel", "SimulatedSpec"]

_LINE = re.compile(r"- (?P<question>.+?) -> (?P<answer>[^\n]+?)[ \t]*$", re.MULTILINE)
_WORD = re.compile(r"[\w']+")
_HEADS_KEPT = 4_096


class SimulatedSpec(Spec):
    """Options of the engine `simulated`."""

    latency: float = Field(0.0, ge=0.0, le=60.0)
    """Seconds that each call takes, to try the timing of a design."""
    concurrency: int = Field(64, ge=1, le=10_000)
    """Calls in flight at a time, all batches together, where `latency` is not 0."""
    failures: float = Field(0.0, ge=0.0, le=1.0)
    """Share of calls that give up, to see how a scenario bears it."""
    logprobs: bool = True
    """Whether answers come with the log-probabilities of the labels."""


@dataclass(frozen=True, slots=True)
class _Example:
    words: frozenset[str]
    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class _Mind:
    """What a learner brings to a question: who it is and what it has heard."""

    name: str
    """Whose vocabulary and slips these are: the seat's, or the `mind` that several seats share."""
    labels: tuple[str, ...]
    blind: float
    slip: float
    bias: str | None
    talk: str
    examples: tuple[_Example, ...]
    index: Mapping[str, tuple[tuple[int, int], ...]]
    """Word that it knows -> (number of an example with this word, the word's weight). Weights are whole numbers: sums
    do not depend on the order of a set."""

    def knows(self, word: str) -> bool:
        """Whether the word is in this learner's vocabulary: fixed for the learner, drawn by its name or its mind."""
        return self.blind == 0 or _draw(self.name, word) >= self.blind

    def nearest(self, question: str) -> _Example | None:
        """The most similar example heard; None when it shares no known word with any.

        How like two questions are: the words that they share and the learner knows, rare ones counting more. Of
        equally similar examples it is the first that was heard.
        """
        likeness = [0] * len(self.examples)
        for word in _words(question):
            for index, weight in self.index.get(word, ()):
                likeness[index] += weight
        best = max(likeness, default=0)
        return self.examples[likeness.index(best)] if best else None


class SimulatedModel:
    """A `ChatModel` by rules."""

    reads_facts = True

    def __init__(self, spec: SimulatedSpec) -> None:
        self._spec = spec
        self._gate = Gate(spec.concurrency)
        self._minds: OrderedDict[bytes, _Mind] = OrderedDict()
        self._writers: Mapping[str, Callable[[_Mind, ChatRequest, random.Random], str]] = {
            "ask": _ask,
            "chat": _talk,
            "choose": _choose,
            "discuss": _talk,
            "judge": _judge,
            "pass_on": _lines,
            "reflect": _reflect,
            "repair": _rewrite,
            "reply": _reply,
            "rewrite": _rewrite,
            "set_exam": _set_exam,
            "summarise": _lines,
            "write": _write,
        }

    async def ready(self) -> ModelInfo:
        """Always is."""
        options = self._spec.model_dump(exclude={"latency", "concurrency"})
        return ModelInfo(f"simulated:1:{json.dumps(options, sort_keys=True)}", {"options": options, "context": None})

    async def create(self, request: ChatRequest) -> Reply:
        """The reply, after `latency` seconds."""
        if self._spec.latency:
            await asyncio.sleep(self._spec.latency)
        return self._answer(request)

    def create_many(self, requests: Iterable[ChatRequest]) -> AsyncIterator[tuple[int, Reply]]:
        """As `create`; without latency one after the other, giving way now and then."""
        if self._spec.latency:
            return in_completion_order(self.create, requests, self._gate)
        return self._at_once(requests)

    async def _at_once(self, requests: Iterable[ChatRequest]) -> AsyncIterator[tuple[int, Reply]]:
        for index, request in enumerate(requests):
            yield index, self._answer(request)
            if index % 256 == 255:
                await asyncio.sleep(0)

    async def close(self) -> None:
        """Nothing to close."""

    def _answer(self, request: ChatRequest) -> Reply:
        # Drawn by the content: identical deterministic calls may share one reply, so they fail alike.
        if self._spec.failures and _draw("failures", request.key("").hex()) < self._spec.failures:
            return Reply("", "failed", error="a simulated call gave up (engine option `failures`)", transient=False)
        mind = self._mind(request.head)
        if request.purpose == "answer":
            return self._exam_answer(mind, request)
        # As above: what is written at temperature 0 must not depend on the seed of whoever happens to pay for it.
        seed = request.key("") if request.deterministic else request.seed
        text = self._writers[request.purpose](mind, request, random.Random(seed))
        return Reply(text, prompt_tokens=_count(request), completion_tokens=len(text.split()))

    def _exam_answer(self, mind: _Mind, request: ChatRequest) -> Reply:
        nearest = mind.nearest(request.last)
        labels = request.choices or mind.labels
        said = nearest.answer if nearest else (mind.bias or (labels[0] if labels else ""))
        if labels and mind.slip and _draw(mind.name, request.last, "slip") < mind.slip:
            others = [label for label in labels if label != said]
            said = others[int(_draw(mind.name, request.last, "which") * len(others))] if others else said
        logprobs = None
        if request.choices and self._spec.logprobs:
            share = 0.9 if nearest else 0.6
            rest = (1 - share) / max(1, len(request.choices) - 1)
            logprobs = tuple(math.log(share if choice == said else rest) for choice in request.choices)
        return Reply(said, choice_logprobs=logprobs, prompt_tokens=_count(request), completion_tokens=1)

    def _mind(self, head: Head) -> _Mind:
        """The mind behind a prompt's head; kept, since a whole exam shares it."""
        known = self._minds.get(head.digest)
        if known is None:
            known = self._minds[head.digest] = _read_mind(head, json.loads(head.learner or "{}"))
            if len(self._minds) > _HEADS_KEPT:
                self._minds.popitem(last=False)
        return known


def _read_mind(head: Head, learner: Mapping[str, Any]) -> _Mind:
    examples = []
    for turn in head.turns:
        if turn.role == "system":
            examples += [
                _Example(_words(m["question"]), m["question"], m["answer"]) for m in _LINE.finditer(turn.content)
            ]
    for asked, answered in zip(head.turns, head.turns[1:], strict=False):
        if (asked.role, answered.role) == ("user", "assistant"):
            examples.append(_Example(_words(asked.content), asked.content, answered.content))
    places: dict[str, list[int]] = {}
    for number, example in enumerate(examples):
        for word in example.words:
            places.setdefault(word, []).append(number)
    mind = _Mind(
        name=learner.get("name", ""),
        labels=tuple(learner.get("labels", ())),
        blind=learner.get("blind", 0.0),
        slip=learner.get("slip", 0.0),
        bias=learner.get("bias"),
        talk=learner.get("talk", "exemplar"),
        examples=tuple(examples),
        index={},
    )
    index = {}
    for word, numbers in places.items():
        weight = round(1000 * math.log((1 + len(examples)) / len(numbers)))
        if weight and mind.knows(word):
            index[word] = tuple((number, weight) for number in numbers)
    return replace(mind, index=index)


# --- what a simulated agent writes ------------------------------------------------------------------------


def _ask(mind: _Mind, request: ChatRequest, rng: random.Random) -> str:
    if not mind.examples:
        return "What is this about?"
    example = rng.choice(mind.examples)
    unknown = [word for word in sorted(example.words) if not mind.knows(word)]
    word = rng.choice(unknown or sorted(example.words))
    return f"What does “{word}” change in an example like this one?"


def _reply(mind: _Mind, request: ChatRequest, rng: random.Random) -> str:
    nearest = mind.nearest(str(_fact(request, "question", "")))
    nearest = nearest or (rng.choice(mind.examples) if mind.examples else None)
    return f"- {_short(nearest.question)} -> {nearest.answer}" if nearest else "I cannot say."


def _talk(mind: _Mind, request: ChatRequest, rng: random.Random) -> str:
    if mind.talk == "silent" or not mind.examples:
        return ""
    example = rng.choice(mind.examples)
    return f"- {_short(example.question)} -> {example.answer}"


def _lines(mind: _Mind, request: ChatRequest, rng: random.Random) -> str:
    return "\n".join(f"- {_short(example.question)} -> {example.answer}" for example in mind.examples)


def _reflect(mind: _Mind, request: ChatRequest, rng: random.Random) -> str:
    shown = {word for exemplar in _fact(request, "exemplars", []) for word in _words(exemplar["question"])}
    missed = Counter(
        word
        for failure in _fact(request, "failures", [])
        for word in _words(failure["question"])
        if word not in shown and mind.knows(word)
    )
    words = ", ".join(f"“{word}”" for word, _ in missed.most_common(5))
    return f"The examples never show {words}." if words else "The examples show every word that was asked for."


def _rewrite(mind: _Mind, request: ChatRequest, rng: random.Random) -> str:
    """The old set with one or two exemplars exchanged for failures; for a lecture, lines added."""
    failures = list(_fact(request, "failures", []))
    rng.shuffle(failures)
    lecture = _fact(request, "lecture", None)
    if lecture is not None:
        lines = [line for line in str(lecture).splitlines() if line.strip()]
        lines += [f"- {_short(failure['question'])} -> {failure['answer']}" for failure in failures[:2]]
        return "\n".join(lines[-24:])
    exemplars = [dict(exemplar) for exemplar in _fact(request, "exemplars", [])]
    for failure in failures[: rng.randint(1, 2)]:
        new = {"question": failure["question"], "answer": failure["answer"], "rationale": None}
        if exemplars:
            exemplars[rng.randrange(len(exemplars))] = new
        else:
            exemplars.append(new)
    return json.dumps(exemplars, ensure_ascii=False)


def _write(mind: _Mind, request: ChatRequest, rng: random.Random) -> str:
    """It knows nothing of the task but its labels, so its first material says nothing of use."""
    count, labels = int(_fact(request, "count", 1)), mind.labels or ("?",)
    if _fact(request, "lecture", False):
        return "\n".join(f"- case {index + 1} -> {labels[index % len(labels)]}" for index in range(count))
    rows = [{"question": f"case {index + 1}", "answer": labels[index % len(labels)]} for index in range(count)]
    return json.dumps(rows)


def _choose(mind: _Mind, request: ChatRequest, rng: random.Random) -> str:
    """The problem on the menu that is most like the failures, with some chance."""
    failures = [_words(failure["question"]) for failure in _fact(request, "failures", [])]
    menu = _fact(request, "menu", [])

    def appeal(entry: Mapping[str, Any]) -> float:
        words = [word for word in _words(entry["question"]) if mind.knows(word)]
        return sum(len(failure.intersection(words)) for failure in failures) + rng.random() * 4

    best = max(menu, key=appeal)
    return str(best["number"])


def _judge(mind: _Mind, request: ChatRequest, rng: random.Random) -> str:
    """Right when the reply holds every word of the reference."""
    reference, said = _words(str(_fact(request, "reference", ""))), _words(str(_fact(request, "reply", "")))
    return request.choices[0] if reference <= said else request.choices[1]


def _set_exam(mind: _Mind, request: ChatRequest, rng: random.Random) -> str:
    """New problems from the examples: the words of one in another order."""
    rows = []
    for example in _fact(request, "examples", [])[: int(_fact(request, "count", 1))]:
        words = str(example["question"]).split()
        rng.shuffle(words)
        rows.append({"question": " ".join(words), "answer": example["answer"]})
    return json.dumps(rows, ensure_ascii=False)


def _fact(request: ChatRequest, name: str, otherwise: Any) -> Any:
    return (request.facts or {}).get(name, otherwise)


def _short(question: str) -> str:
    """A question on one line."""
    return " ".join(question.split())


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.lower()))


def _count(request: ChatRequest) -> int:
    """Words stand for tokens."""
    return len(request.head.json) // 6 + request.last.count(" ") + 1


def _draw(*parts: object) -> float:
    """A fixed number in [0, 1) for `parts`."""
    digest = blake2b("\x00".join(map(str, parts)).encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
