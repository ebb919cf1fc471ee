"""Students and assistants: they hear, ask, talk, pass on, and keep notes."""

from __future__ import annotations

from collections.abc import Sequence

from lbt_sim.models.base import CallPath, Purpose
from lbt_sim.models.recorded import Asks
from lbt_sim.roles.agent import ClassroomAgent
from lbt_sim.roles.fitting import Fitting
from lbt_sim.roles.knowledge import Knowledge
from lbt_sim.roles.values import Notes, Utterance, exemplar_values
from lbt_sim.scenario.load import Seat
from lbt_sim.seeds import Seeds
from lbt_sim.tasks.base import Exemplar, Task

__all__ = ["Assistant", "Student"]


class Student(ClassroomAgent):
    """A student agent. What it has heard is its notes, and its notes are the context of its exam.

    Args:
        seat, task, caller, seeds, fitting: As for every agent.
        knowledge: Which of the worked examples that it hears stay with it; None: all.
    """

    def __init__(
        self,
        seat: Seat,
        task: Task,
        caller: Asks,
        seeds: Seeds,
        fitting: Fitting | None = None,
        knowledge: Knowledge | None = None,
    ) -> None:
        super().__init__(seat, task, caller, seeds, fitting)
        self._knowledge = knowledge

    def take_in(self, heard: Sequence[Utterance], taught: Sequence[Exemplar] = ()) -> tuple[Utterance, ...]:
        """What stays with it of what it hears in a lesson on the exemplars `taught`."""
        return tuple(heard) if self._knowledge is None else self._knowledge.of(heard, taught)

    async def ask(self, path: CallPath, notes: Notes, number: int) -> str:
        """A question about what was taught; '' when it has none or could not be asked."""
        return await self._say(path, "ask", notes, number=number)

    async def discuss(self, path: CallPath, notes: Notes, turn: int, peers: tuple[str, ...]) -> str:
        """What it says to its peers."""
        return await self._say(path, "discuss", notes, turn=turn, peers=list(peers))

    async def keep(self, path: CallPath, notes: Notes) -> Notes:
        """The notes it takes into the exam, by its agent's `notes` policy. A summary that fails leaves them whole."""
        if self.seat.agent.notes.keep == "summary" and notes.remarks(self.name):
            summary = await self.say(path, "summarise", notes, self._knows)
            if summary.finish == "failed":
                return notes
            return Notes(
                (
                    Utterance(self.name, (), "summary", "", notes.exemplars),
                    Utterance(self.name, (), "summary", summary.text.strip()),
                )
            )
        return self._recalled(notes)

    async def _say(self, path: CallPath, use: Purpose, notes: Notes, **values: object) -> str:
        """Free text, said with the notes in mind."""
        reply = await self.say(path, use, self._recalled(notes), lambda kept: {**values, **self._knows(kept)})
        return reply.text.strip()

    def _recalled(self, notes: Notes) -> Notes:
        """What it still has in mind: with `keep: last` the last utterances only, else all."""
        policy = self.seat.agent.notes
        return Notes(notes.heard[-policy.last :]) if policy.keep == "last" else notes

    def _knows(self, notes: Notes) -> dict[str, object]:
        return {"exemplars": exemplar_values(notes.exemplars), "heard": notes.remarks(self.name)}


class Assistant(Student):
    """An assistant: hears the teacher (or another assistant) and passes on what it heard."""

    async def reword(self, path: CallPath, notes: Notes, pupils: tuple[str, ...]) -> str:
        """What it heard, in its own words."""
        return await self._say(path, "pass_on", notes, pupils=list(pupils))

    async def reply(self, path: CallPath, notes: Notes, asker: str, question: str) -> str:
        """The answer to a pupil's question."""
        return await self._say(path, "reply", notes, asker=asker, question=question)
