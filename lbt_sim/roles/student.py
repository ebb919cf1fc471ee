"""Students and assistants: they hear, ask, talk, pass on, and keep notes."""

from __future__ import annotations

from lbt_sim.models.base import CallPath, Purpose
from lbt_sim.roles.agent import ClassroomAgent
from lbt_sim.roles.values import Notes, Utterance, exemplar_values

__all__ = ["Assistant", "Student"]


class Student(ClassroomAgent):
    """A student agent. What it has heard is its notes, and its notes are the context of its exam."""

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
