"""Exemplars read from what a model wrote: what can be read is, and of what cannot it is said why."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbt_sim.parsing import parse_exemplars
from lbt_sim.tasks.base import Exemplar

LABELS = ("yes", "no")
TWO = [Exemplar("Is it hot?", "yes"), Exemplar("Is it cold?", "no")]
LIST = json.dumps([{"question": e.question, "answer": e.answer} for e in TWO])


@pytest.mark.parametrize(
    "text",
    [
        LIST,
        f"Here is a better set:\n{LIST}\nI hope it helps.",
        f"```json\n{LIST}\n```",
        f"As note [1] says, {{so}}: {LIST}",
        '{"examples": ' + LIST + "}",
        '{"topics": ["heat"], "examples": ' + LIST + "}",
        "Q: Is it hot?\nA: yes\n\nQ: Is it cold?\nA: no",
        "**Question:** Is it hot?\n**Answer:** Yes.\n\n**Question:** Is it cold?\n**Answer:** 'No'",
        "- Q: Is it hot?\n- A: yes\n- Q: Is it cold?\n- A: no\nThat is all.",
    ],
)
def test_lists_fences_and_blocks_are_read(text: str) -> None:
    assert parse_exemplars(text, LABELS) == TWO


def test_a_question_of_several_lines_ends_at_its_answer() -> None:
    read = parse_exemplars("Q: One line\nand another\n\nA: yes\nAnything else\nQ: next?\nA: no", LABELS)
    assert read == [Exemplar("One line\nand another", "yes"), Exemplar("next?", "no")]


def test_a_rationale_is_kept() -> None:
    text = json.dumps([{"question": "1 + 1?", "answer": 2, "rationale": " count "}])
    assert parse_exemplars(text, ()) == [Exemplar("1 + 1?", "2", "count")]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no exemplars found"),
        ("I cannot help with that.", "no exemplars found"),
        ("[]", "no exemplars found"),
        ('["a", "b"]', "no exemplars found"),
        (LIST[:-5], "no exemplars found"),
        (LIST[:-1], "no exemplars found"),
        ('[{"answer": "yes"}]', "exemplar 1: it has no question"),
        ('[{"question": " ", "answer": "yes"}]', "exemplar 1: it has no question"),
        ('[{"question": "a"}]', "exemplar 1: it has no answer"),
        ('[{"question": "a", "answer": ["yes"]}]', "exemplar 1: it has no answer"),
        (
            '[{"question": "a", "answer": "yes"}, {"question": "b", "answer": "perhaps"}]',
            "exemplar 2: its answer 'perhaps'",
        ),
        (json.dumps([{"question": "a" * 5000, "answer": "yes"}]), "exemplar 1: its question has 5000 characters"),
        ("Q: no answer follows", "no exemplars found"),
    ],
)
def test_what_cannot_be_read_is_said(text: str, why: str) -> None:
    read = parse_exemplars(text, LABELS)
    assert isinstance(read, str)
    assert read.startswith(why)


def test_an_answer_that_is_no_number_is_refused() -> None:
    assert parse_exemplars('[{"question": "a", "answer": NaN}]', ()) == "exemplar 1: its answer nan is no number"


def test_a_question_stands_once() -> None:
    assert parse_exemplars("Q: a\nA: yes\nQ: a\nA: no", LABELS) == [Exemplar("a", "yes")]


def test_more_than_wanted_is_cut_off_and_fewer_are_taken() -> None:
    assert parse_exemplars(LIST, LABELS, 1) == TWO[:1]
    assert parse_exemplars(LIST, LABELS, 9) == TWO


@pytest.mark.parametrize(
    "text",
    [
        "[" * 1_000_000,
        "{" * 1_000_000,
        '[{"a":' * 100_000,
        "Q: a\n" * 1_000_000,
        "[" + "1" * 10_000 + "]",
        '[{"question": "a", "answer": ' + "1" * 10_000 + "}]",
        "x" * 10_000_000,
        "*" * 1_000_000 + "Q: a",
    ],
    ids=["brackets", "braces", "nested", "questions", "long number", "long answer", "ten megabytes", "stars"],
)
def test_text_made_to_be_slow_or_to_break_the_reader_is_refused(text: str) -> None:
    assert isinstance(parse_exemplars(text, ()), str)


@given(st.text(max_size=400), st.sampled_from([(), LABELS]))
def test_any_text_is_either_read_or_explained(text: str, labels: tuple[str, ...]) -> None:
    read = parse_exemplars(text, labels)
    if isinstance(read, str):
        assert read
    else:
        assert all(e.question and e.answer for e in read)
        assert not labels or all(e.answer in labels for e in read)


@given(
    st.lists(
        st.tuples(st.text(min_size=1, max_size=60).filter(str.strip), st.sampled_from(LABELS)),
        min_size=1,
        max_size=8,
        unique_by=lambda row: row[0].strip(),
    )
)
def test_what_is_written_as_json_is_read_as_it_was(rows: list[tuple[str, str]]) -> None:
    text = json.dumps([{"question": question, "answer": answer} for question, answer in rows])
    assert parse_exemplars(f"Sure.\n{text}", LABELS) == [Exemplar(q.strip(), a) for q, a in rows]
