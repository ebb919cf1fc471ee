"""The room drawn: header, classroom, exam grid, learning curve, what was said; for any width and height."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from rich.text import Text

from lbt_sim.models.recorded import Meter
from lbt_sim.transcript.curve import learning_curve
from lbt_sim.transcript.figures import bar, count, duration, plural
from lbt_sim.transcript.grid import exam_grid, is_scaled
from lbt_sim.transcript.panels import beside, boxed
from lbt_sim.transcript.room import Pace, Room, Said
from lbt_sim.transcript.theme import UNICODE, Look

__all__ = ["RoomView"]

_THREE_PANELS = 112
_TWO_PANELS = 72
_CURVE_WIDTH = 34
_CURVE_HEIGHT = 14
_CLASSROOM_WIDTH = 36
_GAP = "   "
_CROWD = 12
"""Up to so many seats are drawn as a picture."""


@dataclass(slots=True)
class RoomView:
    """Draws a room. Holds nothing but the picture of the classroom, which never changes."""

    look: Look = UNICODE
    _pictures: dict[int, list[str]] = field(default_factory=dict)

    def draw(self, room: Room, meter: Meter, pace: Pace, size: tuple[int, int], now: float) -> list[Text]:
        """The whole view for a terminal of `size` (columns, lines): that many lines, each at most that wide."""
        width, height = size
        head = self._header(room, meter, pace, width, now)
        foot = self._footer(room, width)
        body = self._body(room, meter, width, max(height - len(head) - len(foot), 0))
        return [*head, *body, *foot][:height]

    # --- lines at the top and the bottom ----------------------------------------------------------------------

    def _header(self, room: Room, meter: Meter, pace: Pace, width: int, now: float) -> list[Text]:
        look = self.look
        fraction = room.fraction(meter)
        where = f"round {room.round} of {room.rounds}" if room.rounds else f"round {room.round}"
        title = look.line(room.title or "lbt-sim", max(width // 3, 12), "lbt.title")
        first = [title, Text(f"seed {room.seed}" if room.seed is not None else "", "lbt.label")]
        first += [Text(where), Text(room.status or room.stage, "lbt.label")]
        left = room.seconds_left(now)
        progress = bar(fraction, 20 if width >= 100 else 12, look).append(f" {fraction * 100:3.0f} %")
        calls, tokens = pace.per_second()
        figures = [plural(meter.made, "call"), f"{calls:,.0f}/s", f"{count(tokens)} tokens/s"]
        waiting = max(meter.planned - meter.in_flight, 0)
        figures.append(f"{meter.in_flight:,} in flight" + (f" +{waiting:,}" if waiting else ""))
        if meter.replayed:
            figures.append(f"{meter.replayed:,} replayed")
        if meter.failed:
            figures.append(f"{meter.failed:,} failed")
        second = [progress, *map(Text, figures)]
        if room.began is not None:
            gone = duration(now - room.began)
            second.insert(1, Text(f"{gone}, ~{duration(left)} left" if left is not None else gone, "lbt.figure"))
        rows = [[*first, *second]] if _width([*first, *second]) <= width else [first, second]
        return [_joined(row, width) for row in rows]

    def _footer(self, room: Room, width: int) -> list[Text]:
        lines = []
        if room.notices:
            lines.append(self.look.line(room.notices[-1], width - 2, "lbt.notice"))
        if room.not_understood:
            lines.append(Text(f"{room.not_understood} events were not understood by this view", "lbt.notice"))
        return [Text(" ", no_wrap=True).append_text(line) for line in lines]

    # --- panels -----------------------------------------------------------------------------------------------

    def _body(self, room: Room, meter: Meter, width: int, height: int) -> list[Text]:
        """Exactly `height` lines."""
        students = max(len(room.students), 1)
        if width >= _THREE_PANELS and height >= 9:
            tall = min(max(students + 2, 11), max(height - 5, 9))
            lines = beside(
                self._classroom(room, _CLASSROOM_WIDTH, tall),
                self._exam(room, meter, width - _CLASSROOM_WIDTH - _CURVE_WIDTH, tall),
                self._curve(room, _CURVE_WIDTH, tall),
            )
        elif width >= _TWO_PANELS and height >= 18:
            top = min(max(height // 3, 7), 11)
            half = width // 2
            lines = beside(self._classroom(room, half, top), self._curve(room, width - half, top))
            lines += self._exam(room, meter, width, min(students + 2, height - top - 4))
        else:
            # One column: the curve in a line, the grid, and what was said as far as there is room.
            curve = learning_curve(room.reports, room.baselines, width - 1, 1, self.look) if height > 4 else []
            lines = [_indented(line) for line in curve]
            lines += self._exam(room, meter, width, min(students + 2, max(height - 5, 3)))
        lines += self._said(room, width, height - len(lines))
        return (lines + [Text()] * height)[:height]

    def _panel(self, lines: list[Text], title: Text, width: int, height: int) -> list[Text]:
        return boxed(lines, title, (width, height), self.look)

    def _classroom(self, room: Room, width: int, height: int) -> list[Text]:
        inner = width - 4
        if not 0 < len(room.roles) <= _CROWD:
            lines = self._crowd(room, inner)
        else:
            lines = [Text(line, no_wrap=True) for line in self._picture(room, inner)]
            for name, role in room.roles.items():
                _paint(lines, name, f"lbt.{role}")
            if room.said and not room.status and room.stage == "lesson":
                _paint(lines, room.said[-1].speaker, "lbt.speaking")
        return self._panel(lines, Text("classroom"), width, height)

    def _picture(self, room: Room, width: int) -> list[str]:
        if width not in self._pictures:
            from lbt_sim.classroom.draw import draw
            from lbt_sim.classroom.graph import Classroom

            seats = Classroom.from_edges(
                [(name, role) for name, role in room.roles.items() if role != "examiner"], room.edges
            )
            lines = draw(seats, width, ascii_only=not self.look.unicode)
            self._pictures[width] = [self.look.plain(line) for line in lines]
        return self._pictures[width]

    def _crowd(self, room: Room, width: int) -> list[Text]:
        seats = Counter(room.roles.values())
        lines = [Text(plural(number, role), f"lbt.{role}") for role, number in seats.items() if role in _ROLES]
        lines += [Text(f"{plural(number, 'edge')} {kind}", "lbt.label") for kind, number in room.edge_counts.items()]
        if room.said and room.stage == "lesson" and not room.status:
            lines.append(self.look.line(f"{room.said[-1].speaker} speaks", width, "lbt.title"))
        return lines

    def _exam(self, room: Room, meter: Meter, width: int, height: int) -> list[Text]:
        material = room.focus(meter)
        title = Text("exam")
        rows: list[tuple[str, str]] = []
        if room.items and material is not None:
            title.append(f" ({plural(room.items, 'item')}")
            if len(room.taught) > 1 and material in room.taught:
                title.append(f", material {room.taught.index(material) + 1} of {len(room.taught)}")
            rows = room.outcomes(meter, material)
            title.append(", as shares" if is_scaled(rows[:1], width - 4) else "").append(")")
        lines = exam_grid(rows, width - 4, max(height - 2, 0), self.look)
        if not lines:
            lines = [Text("no exam yet", "lbt.label")]
        return self._panel(lines, title, width, height)

    def _curve(self, room: Room, width: int, height: int) -> list[Text]:
        inner, look = width - 4, self.look
        last = [f"beam {len(room.beam)}"] if room.beam else []
        if tried := sum(room.candidates.values()):
            last.append(plural(tried, "candidate"))
        lines = learning_curve(room.reports, room.baselines, inner, min(height - 2 - bool(last), _CURVE_HEIGHT), look)
        if last:
            lines.append(Text(look.cut(f" {look.glyph('dot')} ".join(last), inner), "lbt.label", no_wrap=True))
        return self._panel(lines, Text("teacher, held-out"), width, height)

    def _said(self, room: Room, width: int, height: int) -> list[Text]:
        recent = list(room.said)[-height:] if height > 0 else []
        return [_indented(self._utterance(said, room, width - 2)) for said in recent]

    def _utterance(self, said: Said, room: Room, width: int) -> Text:
        look = self.look
        role = room.roles.get(said.speaker, "student")
        head = Text(no_wrap=True).append_text(look.line(said.speaker, 20, f"lbt.{role}"))
        head.append(f" {look.glyph('to')} ", "lbt.label").append_text(look.line(_hearers(said, room), 28, "lbt.label"))
        head.append("  ")
        if not said.text:
            return head.append(f"({plural(said.exemplars, 'exemplar')})", "lbt.label")
        return head.append_text(look.said(said.text, max(width - head.cell_len, 0)))


_ROLES = ("teacher", "assistant", "student", "examiner")


def _hearers(said: Said, room: Room) -> str:
    if len(said.hearers) > 1 and len(said.hearers) >= len(room.roles) - 2:
        return "all"
    if len(said.hearers) > 2:
        return f"{said.hearers[0]}, {said.hearers[1]} +{len(said.hearers) - 2}"
    return ", ".join(said.hearers)


def _paint(lines: list[Text], name: str, style: str) -> None:
    pattern = re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])")
    for line in lines:
        line.highlight_regex(pattern, style)


def _width(parts: list[Text]) -> int:
    return 1 + sum(part.cell_len + len(_GAP) for part in parts if part)


def _joined(parts: list[Text], width: int) -> Text:
    """As many of the parts as fit, from the left."""
    line = Text(" ", no_wrap=True)
    for part in parts:
        if part and line.cell_len + part.cell_len + len(_GAP) <= width:
            line.append(_GAP if line.cell_len > 1 else "").append_text(part)
    return line


def _indented(line: Text) -> Text:
    return Text(" ", no_wrap=True).append_text(line)
