"""The examiner: writes exams, judges open answers, reports to the teacher. It hears nobody and nobody hears it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any

from lbt_sim.grading.base import Grade
from lbt_sim.models.base import CallPath, ChatRequest, Head, Reply
from lbt_sim.models.labels import LEAST_MASS, mass
from lbt_sim.roles.agent import ClassroomAgent
from lbt_sim.tasks.base import Problem

__all__ = ["VERDICTS", "Examiner"]

VERDICTS = ("correct", "wrong")


class Examiner(ClassroomAgent):
    """The examiner agent. Its model is asked only where an exam is written or an open answer is judged."""

    def new_problems(self, path: CallPath, count: int, examples: Sequence[Problem]) -> ChatRequest:
        """Writes exam problems like the examples."""
        shown = [{"question": p.question, "answer": p.answer} for p in examples]
        return self.request(path, "set_exam", self.head(), {"count": count, "examples": shown})

    def solve(self, path: CallPath, problems: Sequence[Problem], choices: tuple[str, ...]) -> list[ChatRequest]:
        """Solves problems itself, to check that a written problem has the answer it claims.

        They are solved greedily the first time and drawn later: the same answer again would check nothing.
        """
        requests = self.exam_requests(path, self.head(), problems, choices)
        if path.sample == 0:
            return requests
        return [
            replace(r, sampling=replace(r.sampling, temperature=0.7), seed=self.seed(r.path))
            for r in requests
            if not r.sampling.temperature
        ] or requests

    async def judge(self, path: CallPath, answers: Sequence[tuple[str, Problem, Reply]]) -> list[Grade]:
        """Grades open answers, given as (student, problem, reply), by the rubric.

        The verdict is constrained to `VERDICTS` and read from log-probabilities where there are any. The student's
        text stands between two fences that it cannot know or close, so nothing that it says is outside them.
        """
        head = self.head()
        asked: list[int] = []
        requests: list[ChatRequest] = []
        for index, (student, problem, reply) in enumerate(answers):
            if reply.finish != "failed" and reply.text.strip():
                asked.append(index)
                requests.append(self.judgement(path, head, student, problem, reply.text))
        grades = [_unjudged(reply) for _, _, reply in answers]
        for index, verdict in zip(asked, await self.write_many(requests), strict=True):
            grades[index] = _verdict(verdict, answers[index][2])
        return grades

    def judgement(self, path: CallPath, head: Head, student: str, problem: Problem, text: str) -> ChatRequest:
        """The request that judges one answer."""
        values = {
            "question": problem.question,
            "reference": problem.answer,
            "rubric": self.task.rubric or "",
            **fenced(text, self._seeds.at("fence", *path, student, problem.id).number()),
        }
        return self.request(path._replace(item=f"{student}/{problem.id}"), "judge", head, values, choices=VERDICTS)

    def report(self, values: Mapping[str, Any]) -> str:
        """The report that becomes the teacher's feedback; a template, no model."""
        return self.render("report", **values)


def fenced(text: str, secret: int) -> dict[str, str]:
    """`reply` between lines that it cannot contain: {reply, fence}.

    The fence is drawn from the run's seed and the text together: the text was written before it existed.
    """
    fence = "=" * 8 + blake2b(f"{secret}\x00{text}".encode(), digest_size=8).hexdigest() + "=" * 8
    return {"reply": text, "fence": fence}


def _unjudged(reply: Reply) -> Grade:
    if reply.finish == "failed":
        return Grade("failed")
    return Grade("truncated" if reply.finish == "length" else "invalid")


def _verdict(verdict: Reply, answer: Reply) -> Grade:
    """Only the judge's own constrained reply counts; anything else is `invalid`, never a pass."""
    if verdict.finish == "failed":
        return Grade("failed", read_from="judge")
    words = re.findall("[a-z]+", verdict.text.casefold())
    named = [word for word in words if word in VERDICTS]
    # 'Correct.' is a verdict; 'not correct' and 'correct or wrong' are none.
    word = named[0] if named and named == words[:1] else ""
    logprobs = verdict.choice_logprobs or ()
    if not verdict.drawn and mass(logprobs) >= LEAST_MASS:
        known = zip(logprobs, VERDICTS, strict=True)
        word = max((value, name) for value, name in known if value is not None and math.isfinite(value))[1]
    if word == "correct":
        return Grade("correct", answer.text, "judge")
    return Grade("wrong", answer.text, "judge") if word == "wrong" else Grade("invalid", answer.text, "judge")
