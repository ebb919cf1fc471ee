from __future__ import annotations

import sys
import time

import pytest
from rich.console import Console
from rich.text import Text
from runs_by_hand import EVIL, exam_event, material_event, run_event, utterance_event

from lbt_sim.events import Event
from lbt_sim.models.recorded import Meter
from lbt_sim.transcript.live import LiveRoom, can_be_live
from lbt_sim.transcript.screen import LineScreen

ENTER, LEAVE, HIDE, SHOW = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25l", "\x1b[?25h"


@pytest.fixture
def terminal(screen, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    return screen(color=True, width=80, height=24)


def wait_for(terminal, text):
    for _ in range(400):
        if text in terminal.text:
            return
        time.sleep(0.01)
    pytest.fail(f"{text!r} was never drawn")


def test_the_room_is_drawn_on_a_screen_of_its_own_that_is_given_back(terminal):
    with LiveRoom(Meter(), terminal.console, per_second=50) as room:
        for event in (run_event(), material_event("m0"), exam_event(1), utterance_event(1, "m0", "hello there")):
            room(event)
        wait_for(terminal, "hello there")
    assert terminal.text.startswith(ENTER)
    assert HIDE in terminal.text
    assert terminal.text.endswith(SHOW + LEAVE)


def test_the_terminal_is_given_back_when_the_run_fails(terminal):
    stderr = sys.stderr
    with pytest.raises(KeyboardInterrupt), LiveRoom(Meter(), terminal.console):
        raise KeyboardInterrupt
    assert terminal.text.endswith(SHOW + LEAVE)
    assert sys.stderr is stderr


def test_closing_twice_gives_the_terminal_back_once(terminal):
    with LiveRoom(Meter(), terminal.console) as room:
        room.close()
    assert terminal.text.count(LEAVE) == 1


def test_what_others_write_to_standard_error_is_kept(terminal, capsys):
    with LiveRoom(Meter(), terminal.console):
        sys.stderr.write("a warning\n")
    assert capsys.readouterr().err == "a warning\n"


class BrokenView:
    def draw(self, *_):
        return 1 / 0


def test_the_room_may_be_drawn_on_standard_error_itself(terminal, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal.stream)
    console = Console(stderr=True, force_terminal=True, width=80, height=24)
    with LiveRoom(Meter(), console, per_second=50) as room:
        room(utterance_event(1, "m0", "hello there"))
        wait_for(terminal, "hello there")
    assert terminal.text.endswith(SHOW + LEAVE)


def test_a_fault_of_the_view_does_not_end_the_run(terminal, capsys):
    with LiveRoom(Meter(), terminal.console, per_second=50) as room:
        room._view = BrokenView()
        room._thread.join(5)
        room(run_event())
    assert "the live view failed: ZeroDivisionError" in capsys.readouterr().err
    assert terminal.text.endswith(SHOW + LEAVE)


def test_an_event_never_raises(terminal):
    room = LiveRoom(Meter(), terminal.console)
    room(Event("x", "grades", {"round": "one"}))
    assert room.room.not_understood == 1


def test_a_word_from_the_command_is_shown(terminal):
    with LiveRoom(Meter(), terminal.console, per_second=50) as room:
        room.say("stopping")
        wait_for(terminal, "stopping")


def test_model_text_reaches_the_terminal_disarmed(terminal):
    with LiveRoom(Meter(), terminal.console, per_second=50) as room:
        for event in (run_event(), utterance_event(1, "m0", EVIL)):
            room(event)
        wait_for(terminal, "␛[31mred")
    assert "\x1b]8" not in terminal.text
    assert "\x07" not in terminal.text


def test_only_lines_that_changed_are_written(terminal):
    room = LiveRoom(Meter(), terminal.console)
    lines = room._view.draw(room.room, Meter(), room._pace, (80, 24), 0.0)
    screen = LineScreen(terminal.console)
    screen.open()
    screen.show(lines, (80, 24))
    before = len(terminal.text)
    screen.show(lines, (80, 24))
    assert len(terminal.text) == before
    screen.show([*lines[:3], Text("another"), *lines[4:]], (80, 24))
    assert terminal.text[before:] == "\x1b[4;1Hanother\x1b[0K"
    screen.close()


@pytest.mark.parametrize(
    ("color", "term", "size", "live"),
    [
        (True, "xterm-256color", (80, 24), True),
        (False, "xterm-256color", (80, 24), False),
        (True, "dumb", (80, 24), False),
        (True, "xterm-256color", (30, 24), False),
        (True, "xterm-256color", (80, 5), False),
    ],
)
def test_where_the_room_can_be_live(screen, monkeypatch, color, term, size, live):
    monkeypatch.setenv("TERM", term)
    assert can_be_live(screen(color=color, width=size[0], height=size[1]).console) is live
