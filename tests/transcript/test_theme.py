from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.color import Color
from rich.console import Console
from rich.text import Text

from lbt_sim.transcript.theme import COLOURS, OUTCOMES, Look, dressed, look_of, make_console


def luminance(number: int) -> float:
    def linear(value: int) -> float:
        part = value / 255
        return part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4

    red, green, blue = Color.from_ansi(number).get_truecolor()
    return 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue)


@pytest.mark.parametrize("name", COLOURS)
def test_every_colour_can_be_read_on_black_and_on_white(name):
    light = luminance(COLOURS[name])
    assert (light + 0.05) / 0.05 >= 3.5
    assert 1.05 / (light + 0.05) >= 3.5


@pytest.mark.parametrize("unicode", [True, False])
def test_every_outcome_has_a_shape_of_its_own_one_cell_wide(unicode):
    shapes = [Look(unicode).mark(letter) for letter in OUTCOMES]
    assert len({shape.plain for shape in shapes}) == len(OUTCOMES)
    assert all(shape.cell_len == 1 for shape in shapes)
    assert unicode or all(shape.plain.isascii() for shape in shapes)


@given(st.text(st.characters(exclude_categories=()), max_size=80), st.integers(0, 40), st.booleans())
def test_a_line_is_never_wider_than_asked(text, width, unicode):
    line = Look(unicode).line(text, width)
    assert line.cell_len <= width
    assert "\n" not in line.plain


def test_what_is_cut_off_is_marked():
    assert Look().cut("a long line", 6) == "a lon…"
    assert Look().cut("short", 6) == "short"
    assert Look().cut("日本語日本語", 5) == "日本…"
    assert Look(unicode=False).cut("a long line", 6) == "a lo.."


def test_megabytes_are_cut_before_they_are_cleaned():
    assert Look().line("é" * 10_000_000, 20).cell_len == 20


def test_a_console_reads_no_markup_no_emoji_code_no_links():
    stream = io.StringIO()
    make_console(stream, color=True).print("[red]x[/red] :smile: [link=http://x]y[/link] http://z 42")
    assert stream.getvalue() == "[red]x[/red] :smile: [link=http://x]y[/link] http://z 42\n"


def test_colours_go_into_a_pipe_only_when_asked():
    plain, coloured = io.StringIO(), io.StringIO()
    make_console(plain).print(Text("x", "lbt.correct"))
    make_console(coloured, color=True).print(Text("x", "lbt.correct"))
    assert plain.getvalue() == "x\n"
    assert coloured.getvalue() == "\x1b[38;5;28mx\x1b[0m\n"


def test_any_console_can_be_dressed():
    stream = io.StringIO()
    console = dressed(dressed(Console(file=stream)))
    console.print(Text("x", "lbt.label"))
    assert stream.getvalue() == "x\n"


def test_letters_that_a_terminal_lacks_do_not_stop_us():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    console = make_console(stream)
    assert not look_of(console).unicode
    console.print(Text("é"))
    stream.flush()
    assert raw.getvalue() == b"?\n"
