from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from lbt_sim.transcript.safe import plain_text

anything = st.text(st.characters(exclude_categories=()), max_size=60)
nasty = st.lists(
    st.sampled_from(
        (
            *("\x1b[2J", "\x1b]0;t\x07", "\x9b31m", "\u202e", "\u2066", "\u200b", "\ufeff", "\U000e0041"),
            *("\u0301" * 6, "\r", "\r\n", "\n", "\t", "\x00", "\x7f", "\ud800", "\u2028", "\u3164"),
            *("a", " ", "é", "日本", "🎓", "👩\u200d🎓", "❤\ufe0f"),
        )
    )
).map("".join)


@given(st.one_of(anything, nasty), st.sampled_from(["keep", "fold"]))
def test_nothing_that_acts_or_hides_is_left(text, newlines):
    shown = plain_text(text, newlines=newlines)
    for char in shown:
        assert char == "\n" or unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    if newlines == "fold":
        assert "\n" not in shown


@given(st.one_of(anything, nasty), st.booleans())
def test_doing_it_twice_changes_nothing(text, ascii_only):
    once = plain_text(text, ascii_only=ascii_only)
    assert plain_text(once, ascii_only=ascii_only) == once


@given(st.one_of(anything, nasty))
def test_a_terminal_that_knows_only_ascii_gets_ascii(text):
    shown = plain_text(text, ascii_only=True)
    assert shown.isascii()
    assert all(char == "\n" or char.isprintable() for char in shown)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_plain_ascii_is_left_alone(text):
    assert plain_text(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mb", "a␛[31mb"),
        ("bell\x07", "bell␇"),
        ("\x7f", "␡"),
        ("\x9b2J", "⟨U+009B⟩2J"),
        ("ab\u202edc", "ab⟨U+202E⟩dc"),
        ("zero\u200bwidth", "zero⟨U+200B⟩width"),
        ("tag\U000e0041", "tag⟨U+E0041⟩"),
        ("a\tb", "a    b"),
        ("a\r\nb", "a\nb"),
        ("no\u00a0break", "no break"),
        ("日本語 é ñ", "日本語 é ñ"),
    ],
)
def test_what_is_shown(text, shown):
    assert plain_text(text) == shown


def test_an_emoji_of_several_parts_is_shown_as_its_parts():
    assert plain_text("👩\u200d🎓 ❤\ufe0f") == "👩🎓 ❤"
    assert cell_len(plain_text("👩\u200d🎓")) == 4


def test_marks_after_the_one_that_an_emoji_needs_are_shown():
    assert plain_text("❤\ufe0f\ufe0e\ufe0f") == "❤⟨U+FE0E⟩⟨U+FE0F⟩"


def test_towers_of_accents_are_taken_apart():
    shown = plain_text("a" + "\u0301" * 50)
    assert shown.count("\u0301") == 3
    assert shown.count("⟨U+0301⟩") == 47


def test_an_accent_cannot_change_what_stands_before_the_text():
    assert plain_text("\u0301x") == "⟨U+0301⟩x"
    assert plain_text("a \u0301x") == "a ⟨U+0301⟩x"


def test_newlines_fold_into_a_visible_sign():
    assert plain_text("one\n\n  two\n", newlines="fold") == "one ⏎ two"


def test_indentation_is_kept():
    assert plain_text("\n  é\n", newlines="fold") == "  é"
