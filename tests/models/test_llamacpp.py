"""The embedded engine: what needs no model, then, marked `model`, the real small one."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lbt_sim.errors import ModelUnavailable
from lbt_sim.models.base import ChatRequest, Head, ModelInfo, Sampling, Turn
from lbt_sim.models.llamacpp import LlamaCppModel, LlamaCppSpec, _answer, _Ask, _grammar
from lbt_sim.models.llamacpp_native import Native, Setup, Stopped
from lbt_sim.models.weights import locate, pull
from lbt_sim.roles.fitting import at_most

Ask = Callable[..., ChatRequest]
CHOICES = ("positive", "negative")


class FakeNative:
    """Stands for the native engine: gives prepared answers, records the bodies."""

    def __init__(self, *answers: Any, first: Mapping[str, str] | None = None) -> None:
        self.answers = list(answers)
        self.first = first
        self.bodies: list[Mapping[str, Any]] = []
        self.closed = False
        self.tokens: int | None = 12
        self.version = "0"

    def chat(self, body: Mapping[str, Any], stopped: Callable[[], bool]) -> object:
        if stopped():
            raise Stopped
        self.bodies.append(body)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer() if callable(answer) else answer

    def first_tokens(self, choices: Sequence[str]) -> Mapping[str, str] | None:
        return self.first

    def count(self, messages: Sequence[Mapping[str, str]]) -> int | None:
        return self.tokens

    def close(self) -> None:
        self.closed = True


def said(text: str, **top: float) -> dict[str, Any]:
    choice: dict[str, Any] = {"message": {"content": text}, "finish_reason": "stop"}
    if top:
        entries = [{"token": token, "logprob": value} for token, value in top.items()]
        choice["logprobs"] = {"content": [{"top_logprobs": entries}]}
    usage = {"prompt_tokens": 10, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 4}}
    return {"choices": [choice], "usage": usage}


@pytest.fixture
def open_fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., LlamaCppModel]:
    path = tmp_path / "toy.gguf"
    path.write_bytes(b"GGUF toy")
    monkeypatch.setenv("LBT_SIM_CACHE", str(tmp_path))

    def make(native: FakeNative, **options: Any) -> LlamaCppModel:
        monkeypatch.setattr(Native, "load", lambda setup: native)
        return LlamaCppModel(LlamaCppSpec(model=str(path), **options))

    return make


# --- without a model --------------------------------------------------------------------------------------


def test_choices_are_looked_for_deeper_before_the_text_is_asked_for(ask: Ask) -> None:
    native: Any = FakeNative(said("The", The=-0.1), said("The", The=-0.1, positive=-9.0, negative=-8.0))
    reply = _answer(_Ask(native, lambda: False), ask(choices=CHOICES), cache=True)
    assert (reply.text, reply.choice_logprobs) == ("negative", (-9.0, -8.0))
    assert native.bodies[1]["top_logprobs"] > native.bodies[0]["top_logprobs"]


@pytest.mark.parametrize(
    ("answers", "calls"),
    [
        ([said("negative", negative=-0.1)], 1),
        ([said("The", The=-0.1), said("The", negative=-9.0)], 2),
        ([said("The", The=-0.1), said("The", The=-0.1), said("negative")], 3),
    ],
)
def test_every_look_is_paid_for(ask: Ask, answers: list[Any], calls: int) -> None:
    native: Any = FakeNative(*answers)
    reply = _answer(_Ask(native, lambda: False), ask(choices=CHOICES), cache=True)
    assert reply.text == "negative"
    assert (reply.prompt_tokens, reply.cached_tokens, reply.completion_tokens) == (10 * calls, 4 * calls, calls)


def test_choices_that_share_a_first_token_are_generated_by_grammar(ask: Ask) -> None:
    native: Any = FakeNative(said("half-true"), first={"half-true": "half", "half-false": "half"})
    reply = _answer(_Ask(native, lambda: False), ask(choices=("half-true", "half-false")), cache=True)
    assert (reply.text, reply.choice_logprobs) == ("half-true", None)
    assert "grammar" in native.bodies[0]
    assert native.bodies[0]["max_tokens"] > len("half-false")


def test_llama_cpps_own_sampling_defaults_are_switched_off(ask: Ask) -> None:
    native: Any = FakeNative(said("x"))
    _answer(_Ask(native, lambda: False), ask(sampling=Sampling(temperature=1.0)), cache=False)
    body = native.bodies[0]
    assert (body["top_k"], body["top_p"], body["min_p"], body["cache_prompt"]) == (0, 1.0, 0.0, False)


def test_a_label_cannot_write_grammar() -> None:
    grammar = _grammar(['"', 'a" | root'])
    assert grammar.count('"') == 4
    assert "root" not in grammar.removeprefix("root")


def test_an_error_of_the_engine_is_a_failed_reply(ask: Ask) -> None:
    native: Any = FakeNative({"error": {"message": "no slot", "type": "server_error"}})
    reply = _answer(_Ask(native, lambda: False), ask(), cache=True)
    assert (reply.finish, reply.error) == ("failed", "llama.cpp: no slot")


async def test_an_exception_in_the_worker_is_a_failed_reply_and_the_next_call_works(
    ask: Ask, open_fake: Callable[..., LlamaCppModel]
) -> None:
    model = open_fake(FakeNative(RuntimeError("native trouble"), said("fine")))
    await model.ready()
    broken, fine = await model.create(ask()), await model.create(ask())
    await model.close()
    assert broken.error is not None
    assert "native trouble" in broken.error
    assert fine.text == "fine"


async def test_the_event_loop_stays_free_and_a_cancelled_call_is_left_to_end(
    ask: Ask, open_fake: Callable[..., LlamaCppModel]
) -> None:
    def slow() -> dict[str, Any]:
        time.sleep(0.15)
        return said("late")

    native = FakeNative(slow, said("fine"))
    model = open_fake(native)
    await model.ready()
    first, dropped = (asyncio.create_task(model.create(ask(text))) for text in ("first", "dropped"))
    await asyncio.sleep(0.02)
    first.cancel()
    dropped.cancel()
    assert (await model.create(ask("next"))).text == "fine"
    await model.close()
    assert [body["messages"][-1]["content"] for body in native.bodies] == ["first", "next"]
    assert native.closed


async def test_closing_answers_what_waits_and_later_calls_fail(
    ask: Ask, open_fake: Callable[..., LlamaCppModel]
) -> None:
    def slow() -> dict[str, Any]:
        time.sleep(0.1)
        return said("late")

    model = open_fake(FakeNative(slow))
    await model.ready()
    tasks = [asyncio.create_task(model.create(ask())) for _ in range(3)]
    await asyncio.sleep(0.02)
    await model.close()
    assert [task.result().finish for task in tasks] == ["stop", "failed", "failed"]
    late = await model.create(ask())
    assert (late.finish, late.transient) == ("failed", True)


async def test_many_are_answered_and_taken_as_there_is_room(ask: Ask, open_fake: Callable[..., LlamaCppModel]) -> None:
    taken = 0

    def feed() -> Iterator[ChatRequest]:
        nonlocal taken
        for _ in range(6):
            taken += 1
            yield ask()

    model = open_fake(FakeNative(said("fine")))
    await model.ready()
    done = 0
    async for _ in model.create_many(feed()):
        done += 1
        assert taken <= done + 4
    await model.close()
    assert done == 6


async def test_many_batches_together_take_on_one_call_more_than_are_computed(
    ask: Ask, open_fake: Callable[..., LlamaCppModel]
) -> None:
    ahead = most_ahead = 0

    def feed() -> Iterator[ChatRequest]:
        nonlocal ahead, most_ahead
        for _ in range(3):
            ahead += 1
            most_ahead = max(most_ahead, ahead)
            yield ask()

    async def batch(model: LlamaCppModel) -> None:
        nonlocal ahead
        async for _ in model.create_many(feed()):
            ahead -= 1

    model = open_fake(FakeNative(said("fine")))
    await model.ready()
    await asyncio.gather(*(batch(model) for _ in range(10)))
    await model.close()
    assert most_ahead <= 4  # two at a time, and two that have just been answered


async def test_a_model_that_was_not_fetched_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LBT_SIM_CACHE", str(tmp_path))
    with pytest.raises(ModelUnavailable) as caught:
        await LlamaCppModel(LlamaCppSpec(model="smollm2-135m")).ready()
    assert caught.value.remedy == "Run `lbt-sim models pull smollm2-135m`."


async def test_a_damaged_copy_of_a_known_model_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LBT_SIM_CACHE", str(tmp_path))
    (tmp_path / "SmolLM2-135M-Instruct.Q4_1.gguf").write_bytes(b"GGUF but not the right one")
    with pytest.raises(ModelUnavailable, match="damaged"):
        await LlamaCppModel(LlamaCppSpec(model="smollm2-135m")).ready()


@pytest.mark.parametrize(
    ("data", "match"), [(None, "neither a known model"), (b"", "not a GGUF"), (b"PK", "not a GGUF")]
)
async def test_a_file_that_is_missing_or_no_gguf_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes | None, match: str
) -> None:
    monkeypatch.setenv("LBT_SIM_CACHE", str(tmp_path))
    path = tmp_path / "x.gguf"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ModelUnavailable, match=match) as caught:
        await LlamaCppModel(LlamaCppSpec(model=str(path))).ready()
    assert caught.value.remedy


# --- with the small model ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gguf() -> Path:
    try:
        return locate("smollm2-135m") or pull("smollm2-135m")
    except ModelUnavailable as error:
        pytest.skip(f"the small model cannot be had: {error.what}")


@pytest.fixture(scope="module")
def small(gguf: Path) -> Iterator[tuple[LlamaCppModel, ModelInfo]]:
    model = LlamaCppModel(LlamaCppSpec(model="smollm2-135m", context=512))
    info = asyncio.run(model.ready())
    yield model, info
    asyncio.run(model.close())


Small = tuple[LlamaCppModel, ModelInfo]


@pytest.mark.model
async def test_the_small_model_tells_the_probability_of_each_choice(small: Small, ask: Ask) -> None:
    head = Head(
        (
            Turn("system", "Answer with one word: positive or negative."),
            Turn("user", "Lovely food."),
            Turn("assistant", "positive"),
            Turn("user", "The waiter was rude."),
            Turn("assistant", "negative"),
        )
    )
    reply = await small[0].create(ask("A wonderful film.", head=head, choices=CHOICES))
    assert reply.text in CHOICES
    assert reply.choice_logprobs is not None
    known = [value for value in reply.choice_logprobs if value is not None]
    assert known
    assert all(value <= 0 for value in known)
    assert reply.prompt_tokens is not None
    again = await small[0].create(ask("A dull film.", head=head, choices=CHOICES))
    assert again.cached_tokens is not None
    assert again.cached_tokens > 20


@pytest.mark.model
async def test_the_small_model_keeps_to_choices_that_share_a_beginning(small: Small, ask: Ask) -> None:
    choices = ("half-true", 'half "false"\\')
    reply = await small[0].create(ask("Is the moon made of cheese?", choices=choices))
    assert reply.text in choices
    assert reply.finish == "stop"


@pytest.mark.model
async def test_the_same_seed_writes_the_same_and_another_seed_another_text(small: Small, ask: Ask) -> None:
    warm = Sampling(temperature=1.5, max_tokens=8)
    texts = [(await small[0].create(ask("Tell a story.", seed=seed, sampling=warm))).text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.model
async def test_a_reply_is_cut_off_at_its_limit(small: Small, ask: Ask) -> None:
    reply = await small[0].create(ask("Tell a long story.", sampling=Sampling(max_tokens=3)))
    assert (reply.finish, reply.completion_tokens) == ("length", 3)


@pytest.mark.model
def test_a_long_reply_is_given_up_at_its_next_token(gguf: Path) -> None:
    native = Native.load(Setup(gguf, 256, 1, 1, 0, 0))
    asked = 0

    def stopped() -> bool:
        nonlocal asked
        asked += 1
        return asked > 4

    body = {"messages": [{"role": "user", "content": "Tell a long story."}], "max_tokens": 200, "temperature": 0}
    with pytest.raises(Stopped):
        native.chat(body, stopped)
    whole = native.chat({**body, "max_tokens": 12})
    native.close()
    assert asked == 5
    assert isinstance(whole, dict)
    assert whole["usage"]["completion_tokens"] == 12
    assert whole["choices"][0]["finish_reason"] == "length"
    assert whole["choices"][0]["message"]["content"]


@pytest.mark.model
def test_a_process_that_ends_without_closing_ends_in_good_order(gguf: Path) -> None:
    code = (
        "import asyncio\n"
        "from lbt_sim.models.base import *\n"
        "from lbt_sim.models.llamacpp import *\n"
        "async def main():\n"
        "    model = LlamaCppModel(LlamaCppSpec(model='smollm2-135m', context=512))\n"
        "    await model.ready()\n"
        "    path, sampling = CallPath(0, 'x', 'y'), Sampling(max_tokens=400)\n"
        "    task = asyncio.create_task(model.create(ChatRequest(path, Head(()), 'Tell a long story', sampling, 1)))\n"
        "    await asyncio.sleep(0.5)\n"
        "    raise SystemExit(3)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (3, "")


async def test_a_count_asks_for_tokens_and_not_for_a_reply(ask: Ask, open_fake: Callable[..., LlamaCppModel]) -> None:
    native = FakeNative(said("no"))
    model = open_fake(native)
    info = await model.ready()
    assert (info.context, info.counts_tokens) == (4096, True)
    assert (await model.create(ask(purpose="count"))).text == "12"
    assert not native.bodies
    native.tokens = None
    reply = await model.create(ask(purpose="count"))
    assert (reply.finish, reply.transient) == ("failed", True)
    await model.close()


async def test_where_llama_cpp_does_not_count_the_engine_says_so(open_fake: Callable[..., LlamaCppModel]) -> None:
    native = FakeNative(said("no"))
    native.tokens = None
    model = open_fake(native)
    assert not (await model.ready()).counts_tokens
    await model.close()


@pytest.mark.model
@pytest.mark.parametrize("last", ["A wonderful film.", "Nö <|im_end|>\n日本語 " * 9, ""])
async def test_the_small_model_counts_as_it_will_compute(small: Small, ask: Ask, last: str) -> None:
    for head in (Head(()), ask().head):
        request = ask(last, head=head, sampling=Sampling(max_tokens=1))
        reply = await small[0].create(request)
        counted = int((await small[0].create(replace(request, purpose="count"))).text)
        assert counted == reply.prompt_tokens
        assert counted <= at_most(request)


@pytest.mark.model
@pytest.mark.parametrize("limit", [1, 100])
async def test_a_prompt_that_is_too_long_fails_and_says_so(small: Small, ask: Ask, limit: int) -> None:
    reply = await small[0].create(ask("word " * 600, sampling=Sampling(max_tokens=limit)))
    assert (reply.finish, reply.transient) == ("failed", False)
    assert reply.error is not None
    assert "the context 512" in reply.error


@pytest.mark.model
async def test_a_prompt_with_lone_surrogates_and_nul_is_answered(small: Small, ask: Ask) -> None:
    assert (await small[0].create(ask("a\ud800b\x00"))).finish != "failed"


@pytest.mark.model
def test_the_model_says_exactly_what_it_is(small: Small) -> None:
    identity, detail = small[1].identity, small[1].detail
    assert identity == "llamacpp:smollm2-135m@b179c9523d0e"
    assert {"xllamacpp", "sha256", "threads", "context", "file"} <= set(detail)


@pytest.mark.model
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads Linux's list of sockets")
def test_the_engine_opens_no_port(small: Small) -> None:
    mine = set()
    for link in Path("/proc/self/fd").iterdir():
        try:
            mine.add(str(link.readlink()))
        except FileNotFoundError:
            continue
    listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines() if " 0A " in line]
    assert not [fields for fields in listening if f"socket:[{fields[9]}]" in mine]


@pytest.mark.model
def test_loading_and_failing_to_load_write_nothing_to_the_terminal(
    gguf: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Native.load(Setup(gguf, 128, 1, 1, 0, 0)).close()
    part = tmp_path / "part.gguf"
    part.write_bytes(gguf.read_bytes()[:5_000_000])
    with pytest.raises(ModelUnavailable, match="corrupted or incomplete"):
        Native.load(Setup(part, 128, 1, 1, 0, 0))
    assert capfd.readouterr() == ("", "")
