"""Prompts that do not fit into a model's context: found before they are sent, shortened as the scenario says.

What may be left out is what was heard: the oldest remarks, or the worked examples heard first, as few as will do. How
long a prompt is, is asked of the engine (purpose `count`), through the ledger: a resumed run and a replay decide as the
run did. Almost nothing is ever asked: a bound that needs no tokenizer says of most prompts that they fit.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lbt_sim.errors import CallsFailed, Place
from lbt_sim.events import Event, EventSink
from lbt_sim.models.base import CallPath, ChatRequest, Head, Sampling
from lbt_sim.models.recorded import Asks
from lbt_sim.roles.values import Notes
from lbt_sim.scenario.schema import TooLong

__all__ = ["PER_PROMPT", "PER_TURN", "Fitting", "at_most", "counting"]

PER_TURN = 16
"""Tokens that a chat template puts around a turn, at most: 4 or 5 in the usual ones."""
PER_PROMPT = 128
"""Tokens that a chat template adds once, at most. Some put in a system turn of their own where there is none, or say
what day it is: 25 to 70 tokens in the usual ones."""

_COUNTING = Sampling(max_tokens=1)

Make = Callable[[Notes], Sequence[ChatRequest]]
"""The requests that share notes, made with these: one for each item of an exam, or one alone."""


def at_most(request: ChatRequest) -> int:
    """A bound on the tokens of a prompt that needs no tokenizer.

    Byte-level tokenizers, and those that fall back to bytes, make at most one token of a byte; the chat template adds
    a few. Ordinary English has 4 or 5 bytes a token, so whatever takes up less than a fifth of a context is never
    counted. (A tokenizer that first rewrites the text into a longer one could break the bound. Then the engine finds
    the prompt too long when it is sent, and the call gives up, as with `fail`.)
    """
    return _head_at_most(request.head) + _last_at_most(request)


def counting(request: ChatRequest, mark: str) -> ChatRequest:
    """The call that asks how many tokens a request's prompt has; `mark` tells its path from others of the request."""
    path = request.path
    item = f"{path.item}/{mark}" if path.item else mark
    return replace(
        request,
        path=path._replace(step=f"count/{path.step}", item=item),
        sampling=_COUNTING,
        seed=0,
        choices=(),
        purpose="count",
        facts=None,
    )


class Fitting:
    """Makes prompts fit.

    Args:
        policy: What a scenario says under `too_long`.
        caller: The way to the models.
        emit: Takes a notice each time something is left out.
    """

    def __init__(self, policy: TooLong, caller: Asks, emit: EventSink) -> None:
        self._policy = policy
        self._caller = caller
        self._emit = emit

    async def fit(self, model: str, path: CallPath, notes: Notes, make: Make) -> Notes:
        """`notes`, with as little left out as makes all requests fit that `make` makes of them.

        A request that does not fit even with nothing left in the notes has no say: the engine will refuse it.

        Args:
            model: Who will be asked.
            path: Who asks, and where in the run: without an item where there are several requests.
            notes: What may be left out of.
            make: Makes the requests. More left out makes each of them shorter, or leaves it as it is.

        Raises:
            CallsFailed: The engine did not say how long a prompt is. Resuming asks again.
        """
        context = self._caller.context(model) if self._policy != "fail" else None
        if context is None:
            return notes
        cuts = _Cuts(notes, self._policy)
        search = _Search(self._caller, model, context, cuts, make)
        left_out = await search.least()
        if left_out:
            before, after = search.lengths(left_out)
            self._tell(path, cuts, left_out, (before, after, context))
        return cuts.without(left_out)

    def _tell(self, path: CallPath, cuts: _Cuts, left_out: int, tokens: tuple[int, int, int]) -> None:
        before, after, context = tokens
        data = {
            "round": path.round,
            "who": path.agent,
            "what": cuts.what,
            "left_out": left_out,
            "of": cuts.most,
            "tokens": [before, after],
            "context": context,
            "text": f"{path}: {left_out} of {cuts.most} {cuts.what} left out, from {cuts.which} on, so that the prompt "
            f"fits: {before:,} tokens became {after:,}; with the reply {context:,} is the most",
        }
        self._emit(Event(f"{path}/too_long", "notice", data))


@dataclass(frozen=True)
class _Cuts:
    """Notes and what may be left out of them."""

    notes: Notes
    policy: TooLong

    @property
    def what(self) -> str:
        return "remarks" if self.policy == "drop_notes" else "worked examples"

    @property
    def which(self) -> str:
        return "the oldest" if self.policy == "drop_notes" else "the first heard"

    @property
    def most(self) -> int:
        """How much there is to leave out."""
        if self.policy == "drop_notes":
            return sum(bool(utterance.text) for utterance in self.notes.heard)
        return len(self.notes.exemplars)

    def without(self, number: int) -> Notes:
        """The notes without the first `number` remarks or worked examples."""
        if not number:
            return self.notes
        heard = []
        if self.policy == "drop_notes":
            for utterance in self.notes.heard:
                silent = bool(utterance.text) and number > 0
                number -= silent
                heard.append(replace(utterance, text="") if silent else utterance)
        else:
            gone = {exemplar.question for exemplar in self.notes.exemplars[:number]}
            for utterance in self.notes.heard:
                kept = tuple(exemplar for exemplar in utterance.exemplars if exemplar.question not in gone)
                heard.append(replace(utterance, exemplars=kept))
        return Notes(tuple(heard))


class _Search:
    """The search for the least that has to be left out so that every request fits."""

    def __init__(self, caller: Asks, model: str, context: int, cuts: _Cuts, make: Make) -> None:
        self._caller = caller
        self._model = model
        self._context = context
        self._cuts = cuts
        self._make = make
        self._made: dict[int, Sequence[ChatRequest]] = {}
        self._heads: dict[bytes, int] = {}
        self._tokens: dict[tuple[int, int], int] = {}
        """(left out, number of the request) -> tokens, where they were counted."""

    async def least(self) -> int:
        """How much has to be left out: 0 where all fits, or where leaving out helps nobody."""
        most, left_out = self._cuts.most, 0
        doubtful = [n for n in range(len(self._at(0))) if not self._surely_fits(0, n)]
        while doubtful:
            longest = max(doubtful, key=lambda n: (self._tokens.get((left_out, n), 0), _last_at_most(self._at(0)[n])))
            found = await self._first_that_fits(longest, left_out)
            if found is None:
                await self._count(most, doubtful)
                doubtful = [n for n in doubtful if self._known_to_fit(most, n)]
                continue
            left_out = found
            # What the longest leaves free may be enough for the others, by the bytes of their items alone.
            rest = [n for n in doubtful if not self._fits_beside(left_out, n, longest)]
            await self._count(left_out, rest)
            doubtful = [n for n in rest if not self._known_to_fit(left_out, n)]
        return left_out

    def lengths(self, left_out: int) -> tuple[int, int]:
        """Tokens of the longest prompt before and after, as far as prompts were counted."""
        helped = {key: tokens for key, tokens in self._tokens.items() if self._known_to_fit(left_out, key[1])}
        before, after = ([tokens for (out, _), tokens in helped.items() if out == at] for at in (0, left_out))
        return max(before, default=0), max(after, default=0)

    async def _first_that_fits(self, number: int, start: int) -> int | None:
        """The least left out, from `start` on, with which a request fits; None where nothing helps."""
        most = self._cuts.most
        if await self._fits(start, number):
            return start
        steps = range(start + 1, most + 1)
        sure = bisect_left(steps, True, key=lambda out: self._surely_fits(out, number))
        low, high = start, steps[sure] if sure < len(steps) else most
        if high == low or not await self._fits(high, number):
            return None
        while high - low > 1:  # it fits at high, and not at low
            middle = (low + high) // 2
            if await self._fits(middle, number):
                high = middle
            else:
                low = middle
        await self._count(high, [number])  # for the notice, where the bound had been enough
        return high

    async def _fits(self, left_out: int, number: int) -> bool:
        if not self._surely_fits(left_out, number):
            await self._count(left_out, [number])
        return self._known_to_fit(left_out, number)

    def _known_to_fit(self, left_out: int, number: int) -> bool:
        tokens = self._tokens.get((left_out, number))
        return self._surely_fits(left_out, number) if tokens is None else tokens <= self._room(number)

    def _surely_fits(self, left_out: int, number: int) -> bool:
        request = self._at(left_out)[number]
        if request.head.digest not in self._heads:
            self._heads[request.head.digest] = _head_at_most(request.head)
        return self._heads[request.head.digest] + _last_at_most(request) <= self._room(number)

    def _fits_beside(self, left_out: int, number: int, longest: int) -> bool:
        """Whether a request surely fits, knowing how long another one with the same head is."""
        if number == longest or self._surely_fits(left_out, number):
            return True
        tokens = self._tokens.get((left_out, longest))
        # The other's tokens are at least those of the head.
        return tokens is not None and tokens + _last_at_most(self._at(left_out)[number]) <= self._room(number)

    def _room(self, number: int) -> int:
        """Tokens that the prompt may have."""
        return self._context - self._at(0)[number].sampling.max_tokens

    def _at(self, left_out: int) -> Sequence[ChatRequest]:
        if left_out not in self._made:
            self._made[left_out] = self._make(self._cuts.without(left_out))
        return self._made[left_out]

    async def _count(self, left_out: int, numbers: Sequence[int]) -> None:
        """Asks how long these prompts are, in one batch; those that were counted are not asked again."""
        wanted = [number for number in numbers if (left_out, number) not in self._tokens]
        asked = [counting(self._at(left_out)[number], str(left_out)) for number in wanted]
        for number, request, reply in zip(wanted, asked, await self._caller.ask_many(self._model, asked), strict=True):
            if not reply.text.strip().isdecimal():
                raise CallsFailed(
                    f"asked how many tokens a prompt has, {self._model} answered {reply.text[:60]!r}",
                    where=Place(key=str(request.path)),
                    remedy="This is a fault of the engine. `too_long: fail` does without counting.",
                )
            self._tokens[left_out, number] = int(reply.text)


def _head_at_most(head: Head) -> int:
    return PER_PROMPT + sum(PER_TURN + _bytes(turn.content) for turn in head.turns)


def _last_at_most(request: ChatRequest) -> int:
    return PER_TURN + _bytes(request.last)


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
