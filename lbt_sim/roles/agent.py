"""What teacher, assistant, student and examiner have in common: an AutoGen agent that speaks through its templates.

The classroom drives these agents directly (`write`, `exam_requests`): that costs a fraction of what a team's
message passing does. The same objects sit in any AutoGen team: `on_messages` hears what is said and replies
(AutoGen's terms: https://microsoft.github.io/autogen/).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from autogen_agentchat.agents import BaseChatAgent
from autogen_agentchat.base import Response
from autogen_agentchat.messages import BaseChatMessage, TextMessage
from autogen_core import CancellationToken

from lbt_sim.errors import Place, TemplateError
from lbt_sim.models.base import CallPath, ChatRequest, Head, Purpose, Reply, Sampling, Turn
from lbt_sim.models.recorded import Asks
from lbt_sim.prompts import Template
from lbt_sim.roles.fitting import Fitting
from lbt_sim.roles.values import Notes, Utterance, exemplar_values
from lbt_sim.scenario.load import Seat
from lbt_sim.scenario.schema import SamplingSpec
from lbt_sim.seeds import Seeds
from lbt_sim.tasks.base import Exemplar, Problem, Task

__all__ = ["WRITING", "ClassroomAgent"]

WRITING = SamplingSpec(temperature=0.7, top_p=1.0, max_tokens=1024)
"""How free text is drawn unless the agent says otherwise (the published code's values)."""
_BUILT_IN_SAMPLING: Mapping[str, SamplingSpec] = {
    "answer": SamplingSpec(temperature=0.0, max_tokens=4),
    "answer_open": SamplingSpec(temperature=0.0, max_tokens=256),
    "choose": SamplingSpec(temperature=1.0, max_tokens=4),
    "judge": SamplingSpec(temperature=0.0, max_tokens=4),
    "ask": SamplingSpec(temperature=0.7, max_tokens=60),
    "reply": SamplingSpec(temperature=0.7, max_tokens=120),
    "discuss": SamplingSpec(temperature=0.7, max_tokens=80),
    "summarise": SamplingSpec(temperature=0.0, max_tokens=160),
}

_SETS_KEPT = 8


class ClassroomAgent(BaseChatAgent):
    """Someone with a seat in the classroom.

    Args:
        seat: Name, role, templates, persona, model and sampling, resolved from the scenario.
        task: What is taught.
        caller: The way to the models.
        seeds: The run's seeds.
        fitting: Makes its prompts fit into its model's context; None: they are sent as they are.
    """

    def __init__(self, seat: Seat, task: Task, caller: Asks, seeds: Seeds, fitting: Fitting | None = None) -> None:
        super().__init__(seat.name, seat.agent.description or f"{seat.role} in a classroom")
        self.seat = seat
        self.task = task
        self._caller = caller
        self._seeds = seeds
        self._fitting = fitting
        self._said = 0
        self._notes = Notes()  # only what AutoGen's on_messages brings; lessons pass notes as values
        self._rule_based = caller.reads_facts(seat.model)
        self._known = {
            "name": self.name,
            "role": seat.role,
            "persona": seat.persona.text if seat.persona else "",
            "task": {
                "name": task.name,
                "instruction": task.instruction,
                "labels": list(task.labels),
                "rubric": task.rubric,
            },
        }
        self._same: dict[str, tuple[str, ...]] = {}  # use -> what of `_known` its template reads
        self._sets: dict[tuple[Exemplar, ...], tuple[Turn, ...]] = {}
        self._samplings: dict[str, Sampling] = {}

    # --- prompts ------------------------------------------------------------------------------------------

    def render(self, use: str, **values: Any) -> str:
        """The template for `use`, rendered with `values` and what every template knows (name, persona, task).

        Raises:
            TemplateError: This agent has no template for `use`.
        """
        return self._template(use).render(**self._known, **values).rstrip("\n")

    def _template(self, use: str) -> Template:
        template = self.seat.templates.get(use)
        if template is None:
            raise TemplateError(
                f"agent '{self.seat.agent.title or self.name}' ({self.seat.role}) has no template for '{use}'",
                where=Place(key=f"prompts.{use}"),
                valid=sorted(self.seat.templates),
                remedy=f"Add `{use}:` under `prompts` in the agent's YAML, with a template file beside it.",
            )
        return template

    def _item(self, use: str, **texts: str | None) -> str:
        """As `render`, for an item or a worked example: rendered once for all agents that would read the same."""
        same = self._same.get(use)
        if same is None:
            names = self._template(use).variables
            same = self._same[use] = tuple(str(value) for name, value in self._known.items() if name in names)
        return self._template(use).render_once((*same, *texts.values()), **self._known, **texts).rstrip("\n")

    def head(self, notes: Notes = Notes(), *, lecture: str | None = None) -> Head:  # noqa: B008 - frozen
        """The part of a prompt that all items of an exam share: who I am, what I have heard, worked examples."""
        as_text = self.seat.agent.exemplars == "text"
        system = self.render(
            "system",
            heard=notes.remarks(self.name),
            lecture=lecture,
            exemplars=exemplar_values(notes.exemplars) if as_text else [],
        )
        first = (Turn("system", system),) if system.strip() else ()
        return Head(first if as_text else first + self._worked(notes.exemplars), self._learner)

    def _worked(self, exemplars: tuple[Exemplar, ...]) -> tuple[Turn, ...]:
        """Worked examples as chat turns. The last few sets are kept: a lesson shows the same one again and again."""
        turns = self._sets.get(exemplars)
        if turns is None:
            turns = self._sets[exemplars] = tuple(turn for e in exemplars for turn in self._worked_example(e))
            if len(self._sets) > _SETS_KEPT:
                del self._sets[next(iter(self._sets))]
        return turns

    def _worked_example(self, exemplar: Exemplar) -> tuple[Turn, Turn]:
        worked = self._item("worked", question=exemplar.question, answer=exemplar.answer, rationale=exemplar.rationale)
        return Turn("user", self._item("answer", question=exemplar.question)), Turn("assistant", worked)

    @cached_property
    def _learner(self) -> str:
        if not self._rule_based:
            return ""
        own = self.seat.traits.model_dump(exclude={"mind"})
        traits = {"name": self.seat.traits.mind or self.name, "labels": self.task.labels, **own}
        return json.dumps(traits, sort_keys=True)

    def sampling(self, use: str) -> Sampling:
        """How replies for `use` are drawn: each value by the scenario, else by the agent, else built in."""
        known = self._samplings.get(use)
        if known is None:
            open_answer = use == "answer" and not self.task.labels
            spec = _BUILT_IN_SAMPLING.get("answer_open" if open_answer else use, WRITING)
            given = self.seat.sampling.get(use)
            if given is not None:
                spec = spec.model_copy(update={name: getattr(given, name) for name in given.model_fields_set})
            known = self._samplings[use] = Sampling(spec.temperature, spec.top_p, spec.top_k, spec.max_tokens)
        return known

    # --- calls --------------------------------------------------------------------------------------------

    def seed(self, path: CallPath) -> int:
        """The seed of a call that draws its reply: consecutive over the samples of one prompt."""
        return self._seeds.at(*path._replace(sample=0)).sample(path.sample)

    def request(
        self,
        path: CallPath,
        use: Purpose,
        head: Head,
        values: Mapping[str, Any],
        *,
        choices: tuple[str, ...] = (),
    ) -> ChatRequest:
        """A request whose last turn is the template for `use`, rendered with `values`."""
        return ChatRequest(
            path=path._replace(agent=self.name),
            head=head,
            last=self.render(use, **values),
            sampling=self.sampling(use),
            seed=self.seed(path._replace(agent=self.name)),
            choices=choices,
            purpose=use,
            facts=dict(values) if self._rule_based else None,
        )

    async def write(self, path: CallPath, use: Purpose, head: Head, **values: Any) -> Reply:
        """Says something in free text."""
        return await self._caller.ask(self.seat.model, self.request(path, use, head, values))

    async def say(
        self,
        path: CallPath,
        use: Purpose,
        notes: Notes,
        values: Callable[[Notes], Mapping[str, Any]],
        *,
        lecture: str | None = None,
    ) -> Reply:
        """Says something in free text with notes in mind, or with as much of them as fits.

        Args:
            path: The call's path.
            use: What for.
            notes: What it has in mind.
            values: Makes the values of the last turn of the notes that are kept.
            lecture: A lecture that it has in mind, whatever is kept.
        """

        def made(kept: Notes) -> ChatRequest:
            return self.request(path, use, self.head(kept, lecture=lecture), values(kept))

        kept = await self._kept(path, notes, lambda kept: [made(kept)])
        return await self._caller.ask(self.seat.model, made(kept))

    async def _kept(self, path: CallPath, notes: Notes, make: Callable[[Notes], Sequence[ChatRequest]]) -> Notes:
        if self._fitting is None:
            return notes
        return await self._fitting.fit(self.seat.model, path._replace(agent=self.name), notes, make)

    async def write_many(self, requests: Sequence[ChatRequest]) -> list[Reply]:
        """Several calls at once."""
        return await self._caller.ask_many(self.seat.model, requests)

    def exam_requests(
        self, path: CallPath, head: Head, problems: Sequence[Problem], choices: tuple[str, ...]
    ) -> list[ChatRequest]:
        """One request for each problem: the head first and byte-identical, the item last."""
        sampling = self.sampling("answer")
        requests = []
        for problem in problems:
            item = path._replace(agent=self.name, item=problem.id)
            seed = 0 if sampling.temperature == 0 else self.seed(item)
            last = self._item("answer", question=problem.question)
            requests.append(ChatRequest(item, head, last, sampling, seed, choices, "answer"))
        return requests

    async def notes_for_exam(
        self,
        path: CallPath,
        notes: Notes,
        problems: Sequence[Problem],
        choices: tuple[str, ...],
        *,
        lecture: str | None = None,
    ) -> Notes:
        """The notes that it can take into an exam: all, or as much as fits with every problem.

        One decision for all problems: they share one head.
        """
        return await self._kept(
            path, notes, lambda kept: self.exam_requests(path, self.head(kept, lecture=lecture), problems, choices)
        )

    # --- AutoGen ------------------------------------------------------------------------------------------

    @property
    def produced_message_types(self) -> Sequence[type[BaseChatMessage]]:
        """Text only."""
        return (TextMessage,)

    async def on_messages(self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken) -> Response:
        """Hears `messages` and replies to the last of them, in any AutoGen team."""
        heard = self.take_in([Utterance(m.source, (self.name,), "discusses", m.to_model_text()) for m in messages])
        before, last = (heard[:-1], heard[-1].text) if heard else ([], "")
        path = CallPath(0, "team", self.name, sample=self._said)
        self._said += 1  # before waiting: a call that is cancelled may be in the ledger all the same
        asking = asyncio.ensure_future(self._chat(path, self._notes.plus(before), last))
        cancellation_token.link_future(asking)
        reply = await asking
        if reply.finish == "failed":
            # Nothing was heard: a team gives the same messages again when it goes on.
            raise RuntimeError(f"{self.name} could not answer: {reply.error}")
        self._notes = self._notes.plus([*heard, Utterance(self.name, (), "discusses", reply.text)])
        return Response(chat_message=TextMessage(content=reply.text, source=self.name))

    def take_in(self, heard: Sequence[Utterance], taught: Sequence[Exemplar] = ()) -> tuple[Utterance, ...]:
        """What stays with it of what it hears: all."""
        return tuple(heard)

    async def _chat(self, path: CallPath, notes: Notes, last: str) -> Reply:
        def made(kept: Notes) -> ChatRequest:
            return ChatRequest(path, self.head(kept), last, self.sampling("discuss"), self.seed(path), purpose="chat")

        kept = await self._kept(path, notes, lambda kept: [made(kept)])
        return await self._caller.ask(self.seat.model, made(kept))

    async def on_reset(self, cancellation_token: CancellationToken) -> None:
        """Forgets what was heard in the team."""
        self._notes = Notes()

    async def save_state(self) -> Mapping[str, Any]:
        """What was heard in the team, as JSON."""
        return {"said": self._said, "heard": [[u.speaker, u.text] for u in self._notes.heard]}

    async def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes up a saved state."""
        # What it has said already stands in the ledger under its number: never the same number again.
        self._said = max(self._said, int(state["said"]))
        self._notes = Notes(
            tuple(Utterance(speaker, (self.name,), "discusses", text) for speaker, text in state["heard"])
        )
