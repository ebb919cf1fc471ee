from __future__ import annotations

import re
from itertools import islice

import pytest
from runs_by_hand import Screen, a_round, material_event, report_event, run_event, stored_call, whole_run, write_run

from lbt_sim.errors import InputError
from lbt_sim.events import Event
from lbt_sim.transcript.show import ShowOptions, show_run

PAGES = {
    "overview": ShowOptions(),
    "round": ShowOptions(round=1),
    "round 0": ShowOptions(round=0),
    "agent": ShowOptions(agent="sceptic-2"),
    "teacher": ShowOptions(agent="teacher", full=True),
    "item": ShowOptions(item="p2"),
    "held-out item": ShowOptions(item="h1"),
    "item, calls": ShowOptions(item="p2", calls=True, limit=0),
    "material": ShowOptions(material="m1"),
    "material, calls": ShowOptions(material="m1", calls=True),
    "calls": ShowOptions(calls=True, limit=0),
}


def shown(folder, options, *, color=False, width=100):
    screen = Screen(color=color, width=width, height=30)
    show_run(folder, screen.console, options)
    return screen.text


@pytest.mark.parametrize("page", PAGES)
def test_no_page_lets_model_text_act_on_the_terminal(run_folder, page):
    text = shown(run_folder, PAGES[page], color=True)
    assert "\x1b]" not in text
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert all(line.isprintable() for line in plain.split("\n"))
    assert "\u202e" not in plain


@pytest.mark.parametrize("width", [40, 60, 200])
@pytest.mark.parametrize("page", PAGES)
def test_every_page_keeps_to_the_width(run_folder, page, width):
    for line in shown(run_folder, PAGES[page], width=width).splitlines():
        assert len(line) <= width or "lbt-sim " in line


def test_markup_in_model_text_is_shown_as_it_is(run_folder):
    text = shown(run_folder, ShowOptions(round=1), width=200)
    assert "[red]tag[/red] [link=http://x]y[/link] ⟨U+202E⟩over ⟨U+200B⟩zero" in text
    assert "␛[31mred" in text


def test_the_overview_tells_the_story(run_folder):
    text = shown(run_folder, ShowOptions())
    for part in (
        "a small run",
        "seed 7 · m3, 2 rounds · reviews: 40 to teach, 10 held out · done",
        "● teacher",
        "round 1  teacher on held-out: accuracy 0.60 (95 % 0.50–0.70), F1 0.60",
        "sceptic-1 ■□!□ 1/4  1!",
        "sceptic-2 ■✂✗□ 1/3  1✂ 1✗",
        "feedback  on m0: 3 failures",
        "★ └─ rewrite → m1  0.75 on 8 answers, kept",
        "└─ rewrite → duplicate of m0",
        "└─ rewrite → invalid  unreadable",
        "beam  m1 0.75",
        "m1 against m0 (rewrite by teacher)",
        "− exemplar 0 → positive  t0",
        "+ swapped 1 → negative",
        "= 1 kept",
        "note        2 rows were dropped",
        f"lbt-sim show {run_folder}",
    ):
        assert part in text, part


def test_a_round_in_full(run_folder):
    text = shown(run_folder, ShowOptions(round=2), width=160)
    for part in (
        "lesson with m1  1 utterance",
        "teacher → literal, sceptic-1, sceptic-2  teaches",
        "with 3 exemplars",
        "failures with m1  3 of 4 problems",
        "□ positive: sceptic-1   ✂ no answer read: sceptic-2",
        "reflections  1 call",
        "Because of 'not'.",
    ):
        assert part in text, part


def test_an_agent_with_the_exact_prompt_behind_every_reply(run_folder):
    text = shown(run_folder, ShowOptions(agent="sceptic-2", round=1), width=160)
    for part in (
        "sceptic-2  student  model small  plain",
        "r1/exam/m0/sceptic-2/p1  answer · scripted:none",
        "system      You are sceptic-2.",
        "user        question p1",
        "(3 turns as in the call above)",
        "positive      ▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇░░░░  80.0 %",
        "anything else",
        "✂ cut off at the limit",
        "✗ gave up: the server said 500",
        "greedy, at most 4 tokens · no seed needed · 40 prompt tokens (30 cached) · 1 token written · 0.5 s",
        "4 calls",
    ):
        assert part in text, part


def test_calls_come_in_pages_and_say_how_to_see_the_next(run_folder):
    text = shown(run_folder, ShowOptions(agent="literal", limit=3))
    assert "calls 1 to 3 of 8" in text
    assert f"5 more (--limit 0 for all): lbt-sim show {run_folder} --agent literal --limit 3 --skip 3\n" in text
    text = shown(run_folder, ShowOptions(agent="literal", limit=3, skip=6))
    assert "calls 7 to 8 of 8" in text
    assert "more (" not in text


def test_the_same_turns_are_told_again_only_when_asked(run_folder):
    once = shown(run_folder, ShowOptions(agent="literal", round=1))
    full = shown(run_folder, ShowOptions(agent="literal", round=1, full=True))
    assert once.count("You are literal.") == 1
    assert full.count("You are literal.") == 4


def test_an_item_with_everyones_answer_and_what_it_was_read_from(run_folder):
    text = shown(run_folder, ShowOptions(item="p3"))
    assert re.search(r"answer +positive", text)
    assert re.search(r"literal +■ correct +positive +logprobs", text)
    assert re.search(r"sceptic-1 +! invalid +“␛\[31mred", text)
    assert re.search(r"sceptic-2 +✗ failed +the server said 500", text)


def test_a_held_out_item_is_found_in_the_reports(run_folder):
    text = shown(run_folder, ShowOptions(item="h1"))
    assert re.search(r"question +Held out\.", text)
    assert re.search(r"answer +positive", text)
    assert re.search(r"0 +teacher +m0 +□ wrong +negative +logprobs", text)
    assert re.search(r"2 +teacher +m2 +■ correct +positive +logprobs", text)
    assert "also asked" not in text


def test_a_round_tells_which_held_out_answers_changed(run_folder):
    text = shown(run_folder, ShowOptions(round=1))
    assert "against round 0: 1 answer changed" in text
    assert re.search(r"now right +h1", text)
    assert "against round 1: 0 answers changed" in shown(run_folder, ShowOptions(round=2))


def test_a_material_with_its_lineage(run_folder):
    text = shown(run_folder, ShowOptions(material="m2"))
    for part in ("m2 ← m1 ← m0", "round 2: 0.75 on 8 answers, kept", "against m1", "swapped 2 → negative"):
        assert part in text, part


def test_options_combine(run_folder):
    text = shown(run_folder, ShowOptions(agent="sceptic-1", item="p2", round=2))
    assert "r2/exam/m1/sceptic-1/p2" in text
    assert "1 call\n" in text


def test_very_long_texts_are_cut_unless_asked_for(run_folder, tmp_path):
    assert "--full shows them" not in shown(run_folder, ShowOptions(calls=True, limit=0))


async def test_a_reply_of_megabytes(tmp_path):
    rows = [run_event(), stored_call((0, "report", "teacher", "h1", 0), "é" * 3_000_000)]
    folder = await write_run(tmp_path / "run", iter(rows))
    text = shown(folder, ShowOptions(agent="teacher"))
    assert len(text) < 20_000
    assert "3.00 M more characters; --full shows them" in text


@pytest.mark.parametrize("rows", range(0, 46, 5))
@pytest.mark.parametrize("page", ["overview", "round 0", "calls"])
async def test_a_run_that_stopped_anywhere_can_be_read(tmp_path, rows, page):
    folder = await write_run(tmp_path / "run", islice(whole_run(), rows))
    try:
        text = shown(folder, PAGES[page])
    except InputError as error:
        assert page == "round 0"
        assert "round 0 is not in this run" in str(error)  # noqa: PT017
    else:
        assert page != "overview" or f"lbt-sim resume {folder}" in text


async def test_a_long_run_is_told_by_its_first_and_last_rounds(tmp_path):
    def rows():
        yield run_event(rounds=12)
        yield material_event("m0")
        yield report_event(0, 0.5)
        for round_ in range(1, 13):
            yield from a_round(round_, f"m{round_ - 1}", f"m{round_}")

    folder = await write_run(tmp_path / "run", rows())
    text = shown(folder, ShowOptions())
    assert "rounds 2 to 8: lbt-sim show" in text
    assert "round 12  teacher on held-out" in text
    assert "round 5  teacher on held-out" not in text


async def test_a_lecture_is_compared_by_sentence(tmp_path):
    def lecture(name, text, parents=()):
        data = {"id": name, "kind": "lecture", "parents": list(parents), "operator": "rewrite", "by": "teacher"}
        return Event(f"material/{name}", "material", {**data, "exemplars": [], "lecture": text})

    rows = [run_event(), lecture("m0", "Read it. Answer."), lecture("m1", "Read it twice. Answer.", ["m0"])]
    text = shown(await write_run(tmp_path / "run", iter(rows)), ShowOptions(material="m1"))
    for part in ("− Read it.", "+ Read it twice.", "= 1 sentence kept"):
        assert part in text, part


def test_an_ascii_terminal_gets_ascii(run_folder, monkeypatch):
    monkeypatch.setenv("TERM", "linux")
    text = shown(run_folder, ShowOptions())
    ours = [line for line in text.splitlines() if str(run_folder) not in line]
    assert "\n".join(ours).isascii()


@pytest.mark.parametrize(
    "options",
    [ShowOptions(round=7), ShowOptions(agent="x"), ShowOptions(item="x"), ShowOptions(material="x", agent="teacher")],
)
def test_unknown_names_are_refused_before_anything_is_printed(run_folder, options):
    screen = Screen(color=False, width=80, height=24)
    with pytest.raises(InputError):
        show_run(run_folder, screen.console, options)
    assert screen.text == ""
