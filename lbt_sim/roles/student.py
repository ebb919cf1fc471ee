"""Students and assistants: they hear, ask, talk, pass on, and keep notes."""

from __future__ import annotations

from lbt_sim.models.base import CallPath
from lbt_sim.roles.agent import ClassroomAgent
from lbt_sim.roles.values import Notes, Utterance, exemplar_values

__all__ = ["Assistant", "Student"]


class Student(ClassroomAgent):
    """A student agent. What it has heard is its notes, and its notes are the context of its exam."""

    async def ask(self, path: CallPath, notes: Notes, number: int) -> str:
        """A question about what was taught; '' when it has none or could not be asked."""
        values = {"number": number, **self._knows(notes)}
        return (await self.write(path, "ask", self.head(notes), **values)).text.strip()

    async def discuss(self, path: CallPath, notes: Notes, turn: int, peers: tuple[str, ...]) -> str:
        """What it says to its peers."""
        values = {"turn": turn, "peers": list(peers), **self._knows(notes)}
        return (await self.write(path, "discuss", self.head(notes), **values)).text.strip()

    async def keep(self, path: CallPath, notes: Notes) -> Notes:
        """The notes it takes into the exam, by its agent's `notes` policy."""
        policy = self.seat.agent.notes
        if policy.keep == "last":
            return Notes(notes.heard[-policy.last :])
        if policy.keep == "summary" and notes.remarks(self.name):
            summary = await self.write(path, "summarise", self.head(notes), **self._knows(notes))
            return Notes(
                (
                    Utterance(self.name, (), "summary", "", notes.exemplars),
                    Utterance(self.name, (), "summary", summary.text.strip()),
                )
            )
        return notes

    def _knows(self, notes: Notes) -> dict[str, object]:
        return {"exemplars": exemplar_values(notes.exemplars), "heard": notes.remarks(self.name)}


class Assistant(Student):
    """An assistant: hears the teacher (or another assistant) and passes on what it heard."""

    async def reword(self, path: CallPath, notes: Notes, pupils: tuple[str, ...]) -> str:
        """What it heard, in its own words."""
        values = {"pupils": list(pupils), **self._knows(notes)}
        return (await self.write(path, "pass_on", self.head(notes), **values)).text.strip()

    async def reply(self, path: CallPath, notes: Notes, asker: str, question: str) -> str:
        """The answer to a pupil's question."""
        values = {"asker": asker, "question": question, **self._knows(notes)}
        return (await self.write(path, "reply", self.head(notes), **values)).text.strip()
