"""Rule-based learners: what they answer follows from what they have heard, their traits and their seed alone."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from lbt_sim.models.base import CallPath, ChatRequest, Head, Purpose, Reply, Sampling, Turn
from lbt_sim.models.simulated import SimulatedModel, SimulatedSpec

LABELS = ("yes", "no")
HEARD = [("red apple", "yes"), ("blue stone", "no"), ("blue sky", "no")]


def head(heard: Sequence[tuple[str, str]] = HEARD, system: str = "", **traits: Any) -> Head:
    turns = [Turn("system", system)] if system else []
    for question, answer in heard:
        turns += [Turn("user", question), Turn("assistant", answer)]
    return Head(tuple(turns), json.dumps({"name": "ann", "labels": LABELS, **traits}))


def request(
    last: str,
    purpose: Purpose = "answer",
    knowing: Head | None = None,
    choices: tuple[str, ...] = LABELS,
    facts: Mapping[str, Any] | None = None,
    seed: int = 0,
    temperature: float = 0.0,
) -> ChatRequest:
    path = CallPath(1, "step", "ann", last[:20])
    return ChatRequest(path, knowing or head(), last, Sampling(temperature), seed, choices, purpose, facts)


async def said(last: str, **more: Any) -> str:
    return (await SimulatedModel(SimulatedSpec()).create(request(last, **more))).text


async def written(purpose: Purpose, knowing: Head | None = None, seed: int = 0, **facts: Any) -> str:
    asked = request("", purpose, knowing, (), facts, seed, 0.7)
    return (await SimulatedModel(SimulatedSpec()).create(asked)).text


# --- answers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("question", "answer"), [("a red stone", "yes"), ("the blue apple sky", "no"), ("sky", "no")])
async def test_the_nearest_example_answers(question: str, answer: str) -> None:
    assert await said(question) == answer


async def test_rare_words_count_more_than_frequent_ones() -> None:
    heard = [("it is red", "yes"), ("it is blue", "no"), ("it is green", "no"), ("is it good", "no")]
    assert await said("it is red", knowing=head(heard)) == "yes"


async def test_of_equally_near_examples_the_first_answers() -> None:
    assert await said("apple stone", knowing=head([("one apple", "yes"), ("one stone", "no")])) == "yes"
    assert await said("apple stone", knowing=head([("one stone", "no"), ("one apple", "yes")])) == "no"


async def test_without_anything_like_it_the_bias_answers() -> None:
    assert await said("quite something else") == "yes"
    assert await said("quite something else", knowing=head(bias="no")) == "no"


async def test_lines_of_what_was_said_are_examples_too() -> None:
    heard = head([], system="What you heard in class:\nbob: - red apple -> yes\nteacher: - blue sky -> no")
    assert await said("the sky", knowing=heard) == "no"
    assert await said("an apple", knowing=heard) == "yes"


async def test_more_is_known_with_more_examples() -> None:
    words = ["alpha", "beta", "gamma", "delta", "omega", "sigma", "kappa", "theta"]
    lessons = [(f"{word} thing", "no") for word in words]
    right = [sum([await said(word, knowing=head(lessons[:n])) == "no" for word in words]) for n in (0, 2, 4, 8)]
    assert right == [0, 2, 4, 8]


async def test_a_blind_learner_misses_its_share_of_words_and_always_the_same() -> None:
    words = [f"word{n}" for n in range(400)]
    lessons = [(f"{word} {word}thing", "no") for word in words]

    async def answers(name: str) -> list[str]:
        model, knowing = SimulatedModel(SimulatedSpec()), head(lessons, blind=0.5, name=name)
        return [(await model.create(request(word, knowing=knowing))).text for word in words]

    once = await answers("ann")
    assert once == await answers("ann")
    assert 150 < once.count("no") < 250
    assert await answers("bob") != once


async def test_a_slip_is_a_share_of_answers_and_not_chance_of_the_moment() -> None:
    items = [f"blue sky number {n}" for n in range(400)]
    slipping = head(slip=0.2)
    once = [await said(item, knowing=slipping) for item in items]
    assert once == [await said(item, knowing=slipping, seed=9) for item in items]
    assert 50 < once.count("yes") < 110


async def test_label_probabilities_say_how_sure_it_is() -> None:
    model = SimulatedModel(SimulatedSpec())
    sure, unsure = await model.create(request("sky")), await model.create(request("else"))
    assert sure.choice_logprobs is not None
    assert unsure.choice_logprobs is not None
    assert sum(map(math.exp, filter(None, sure.choice_logprobs))) == pytest.approx(1)
    assert sure.choice_logprobs[1] == pytest.approx(math.log(0.9))
    assert unsure.choice_logprobs[0] == pytest.approx(math.log(0.6))
    silent = SimulatedModel(SimulatedSpec(logprobs=False))
    assert (await silent.create(request("sky"))).choice_logprobs is None
    assert (await model.create(request("sky", choices=()))).choice_logprobs is None


# --- writing ----------------------------------------------------------------------------------------------


async def test_what_it_says_in_talk_is_something_that_it_heard() -> None:
    assert await written("discuss") in {f"- {question} -> {answer}" for question, answer in HEARD}
    assert await written("discuss", head(talk="silent")) == ""
    assert await written("discuss", head([])) == ""


async def test_passing_on_and_summing_up_lose_nothing() -> None:
    everything = "- red apple -> yes\n- blue stone -> no\n- blue sky -> no"
    assert await written("pass_on") == await written("summarise") == everything


async def test_a_question_is_answered_with_the_nearest_example() -> None:
    assert await written("reply", question="What of the sky?") == "- blue sky -> no"
    assert await written("reply", head([]), question="What?") == "I cannot say."


async def test_it_asks_about_a_word_that_it_does_not_know() -> None:
    question = await written("ask", head([("red apple", "yes")], blind=1.0))
    assert "“apple”" in question or "“red”" in question


async def test_rewriting_exchanges_one_or_two_exemplars_for_failures() -> None:
    old = [{"question": q, "answer": a, "rationale": None} for q, a in HEARD]
    failures = [{"question": f"failed {n}", "answer": "yes"} for n in range(4)]
    for seed in range(10):
        new = json.loads(await written("rewrite", seed=seed, exemplars=old, failures=failures, lecture=None))
        assert len(new) == 3
        assert 1 <= sum(row["question"].startswith("failed") for row in new) <= 2
    assert json.loads(await written("rewrite", exemplars=old, failures=[], lecture=None)) == old


async def test_a_lecture_grows_by_failures_and_stays_short() -> None:
    failures = [{"question": "failed  one", "answer": "yes"}]
    lecture = await written("rewrite", exemplars=[], failures=failures, lecture="Rules.\n")
    assert lecture == "Rules.\n- failed one -> yes"
    longest = "\n".join(f"- case {n} -> yes" for n in range(60))
    assert len((await written("rewrite", exemplars=[], failures=failures, lecture=longest)).splitlines()) == 24


async def test_choosing_prefers_what_is_like_the_failures() -> None:
    failures = [{"question": "many green words stand here", "answer": "yes", "given": []}]
    menu = [
        {"number": 1, "question": "nothing of this", "answer": "no"},
        {"number": 2, "question": "many green words stand there", "answer": "yes"},
        {"number": 3, "question": "or that", "answer": "no"},
    ]
    picks = [await written("choose", seed=seed, failures=failures, menu=menu) for seed in range(100)]
    assert picks.count("2") > 70
    picks = [await written("choose", seed=seed, failures=[], menu=menu) for seed in range(90)]
    assert min(picks.count(number) for number in "123") > 10


async def test_what_is_written_at_temperature_0_follows_from_its_prompt_and_not_from_the_seed() -> None:
    async def texts(temperature: float) -> set[str]:
        asked = [request("", "discuss", None, (), {"turn": 1}, seed, temperature) for seed in range(12)]
        return {(await SimulatedModel(SimulatedSpec()).create(each)).text for each in asked}

    assert len(await texts(0.0)) == 1
    assert len(await texts(0.7)) > 1


async def test_the_first_material_knows_nothing_but_the_labels() -> None:
    rows = json.loads(await written("write", count=4, lecture=False))
    assert [row["answer"] for row in rows] == ["yes", "no", "yes", "no"]
    assert (await written("write", count=2, lecture=True)).splitlines() == ["- case 1 -> yes", "- case 2 -> no"]


async def test_the_judge_wants_every_word_of_the_reference() -> None:
    async def verdict(reply: str) -> str:
        asked = request("", "judge", choices=("correct", "wrong"), facts={"reference": "blue light", "reply": reply})
        return (await SimulatedModel(SimulatedSpec()).create(asked)).text

    assert await verdict("the light is BLUE") == "correct"
    assert await verdict("light") == "wrong"


async def test_written_problems_are_the_examples_in_another_order() -> None:
    examples = [{"question": "one two three four five", "answer": "no"}]
    (row,) = json.loads(await written("set_exam", examples=examples, count=4))
    assert sorted(row["question"].split()) == sorted(["one", "two", "three", "four", "five"])
    assert row["answer"] == "no"


# --- the engine -------------------------------------------------------------------------------------------


async def test_many_answers_are_the_same_as_one_by_one_with_and_without_latency() -> None:
    requests = [request(f"blue thing {n}", knowing=head(slip=0.3)) for n in range(20)]
    one_by_one = [await SimulatedModel(SimulatedSpec()).create(each) for each in requests]
    for spec in (SimulatedSpec(), SimulatedSpec(latency=0.001, concurrency=4)):
        found: dict[int, Reply] = {n: reply async for n, reply in SimulatedModel(spec).create_many(iter(requests))}
        assert [found[n] for n in range(20)] == one_by_one


async def test_many_batches_together_keep_the_limit() -> None:
    running = most = 0

    class Counted(SimulatedModel):
        async def create(self, request: ChatRequest) -> Reply:
            nonlocal running, most
            running += 1
            most = max(most, running)
            reply = await super().create(request)
            running -= 1
            return reply

    model = Counted(SimulatedSpec(latency=0.001, concurrency=4))

    async def batch(number: int) -> int:
        return len([reply async for _, reply in model.create_many([request(f"thing {number} {n}") for n in range(5)])])

    assert await asyncio.gather(*map(batch, range(20))) == [5] * 20
    assert most == 4


async def test_the_share_of_calls_that_give_up_is_as_wanted_and_fixed_by_the_path() -> None:
    model = SimulatedModel(SimulatedSpec(failures=0.25))
    requests = [request(f"blue thing {n}") for n in range(400)]
    failed = [(await model.create(each)).finish == "failed" for each in requests]
    assert failed == [(await model.create(each)).finish == "failed" for each in requests]
    assert 70 < sum(failed) < 130


async def test_options_that_change_answers_change_the_identity_and_timing_does_not() -> None:
    async def identity(**options: Any) -> str:
        return (await SimulatedModel(SimulatedSpec(**options)).ready()).identity

    assert await identity() == await identity(latency=1.0, concurrency=3)
    assert await identity() != await identity(logprobs=False)
    assert await identity() != await identity(failures=0.5)
