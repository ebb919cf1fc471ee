"""One item: what everyone answered to it in every round, and what each answer was read from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from lbt_sim.ledger import StoredCall
from lbt_sim.transcript.figures import count, plural
from lbt_sim.transcript.page import Page
from lbt_sim.transcript.read import CallFilter
from lbt_sim.transcript.theme import OUTCOMES

__all__ = ["show_item"]

Data = Mapping[str, Any]


def show_item(page: Page, item: str) -> None:
    """The question, the right answer, and everyone's answers, exam by exam; then where else it was asked."""
    record, options = page.record, page.options
    rounds = [number for number in record.rounds if options.round in (None, number)]
    exams = [
        (number, record.exams[number]) for number in rounds if item in record.exams.get(number, {}).get("items", [])
    ]
    held_out = item in record.held_out.get("items", [])
    page.heading(f"item {item}", f"asked in {plural(len(exams), 'exam')}" if exams else "held out" if held_out else "")
    if exams or held_out:
        asked = exams[0][1] if exams else record.held_out
        at = asked["items"].index(item)
        page.fact("question", page.prose(asked["questions"][at]))
        page.fact("answer", page.look.text(str(asked["answers"][at]), "bold"))
    if held_out:
        _reported(page, item, rounds)
    for number, _ in exams:
        for material, sat in record.grades(number).items():
            if options.material in (None, material):
                _answers(page, number, item, material, sat)
    _elsewhere(page, item)
    page.gap()
    page.hint(f"the prompts: {page.command('--item', item, '--calls')}")


def _answers(page: Page, round_: int, item: str, material: str, sat: list[Data]) -> None:
    rows = []
    for exam in sat:
        if item in exam["items"]:
            at = exam["items"].index(item)
            rows.append((exam["student"], exam["outcomes"][at], exam["answers"][at], exam["read_from"][at]))
    if not rows:
        return
    page.gap()
    page.out(Text(f"round {round_}, taught with {material}", "lbt.title").append("  ").append_text(_tally(page, rows)))
    shown, left = page.some(rows)
    calls = _calls(page, CallFilter(round=round_, item=item, step=f"exam/{material}"), len(shown))
    table = Table(box=box.SIMPLE_HEAD if page.look.unicode else box.ASCII, header_style="lbt.label", pad_edge=False)
    for head in ("student", "", "answer", "read from"):
        table.add_column(Text(head), overflow="fold")
    for student, outcome, answer, source in shown:
        table.add_row(
            page.look.line(student, 24, page.role_style(student)),
            page.look.mark(outcome).append(f" {OUTCOMES.get(outcome, outcome)}"),
            _answer(page, answer, calls.get(student)),
            Text(source, "lbt.label"),
        )
    page.out(table)
    page.more(left, "students")


def _calls(page: Page, which: CallFilter, limit: int) -> dict[str, StoredCall]:
    return {call.agent: call for call in page.record.calls(which, limit=max(limit, 1) * 2)}


def _reported(page: Page, item: str, rounds: Sequence[int]) -> None:
    """What the teachers answered to a held-out problem, round by round."""
    at = page.record.held_out["items"].index(item)
    table = Table(box=box.SIMPLE_HEAD if page.look.unicode else box.ASCII, header_style="lbt.label", pad_edge=False)
    for head in ("round", "teacher", "material", "", "answer", "read from"):
        table.add_column(Text(head), overflow="fold")
    for number in rounds:
        calls = _calls(page, CallFilter(round=number, item=item, step="report"), len(page.record.reported(number)))
        for told in page.record.reported(number):
            outcome = told["outcomes"][at]
            table.add_row(
                Text(str(number)),
                page.look.line(told["teacher"], 24, "lbt.teacher"),
                page.look.line(told["material"], 24),
                page.look.mark(outcome).append(f" {OUTCOMES.get(outcome, outcome)}"),
                _answer(page, told["answers"][at], calls.get(told["teacher"])),
                Text(told["read_from"][at], "lbt.label"),
            )
    page.gap()
    page.out(table)


def _tally(page: Page, rows: list[tuple[str, str, str | None, str]]) -> Text:
    """How often each answer was given, the commonest first."""
    given = Counter(answer if answer is not None else OUTCOMES.get(outcome, outcome) for _, outcome, answer, _ in rows)
    words = ", ".join(
        f"{count(number)} {page.look.plain(answer, newlines='fold')}" for answer, number in given.most_common(5)
    )
    return Text(page.look.cut(words, page.width // 2), "lbt.label")


def _answer(page: Page, answer: str | None, call: StoredCall | None) -> Text:
    if answer is not None:
        return page.look.line(answer, 40)
    if call is None:
        return Text(page.look.glyph("dash"), "lbt.label")
    if call.finish == "failed":
        return page.look.line(call.error or "gave up", 60, "lbt.label")
    return page.look.said(call.text, 60, "lbt.label")


def _elsewhere(page: Page, item: str) -> None:
    """Calls about this item outside exams and reports: selection, judgement."""
    options = page.options
    which = CallFilter(round=options.round, item=item, agent=options.agent, material=options.material)
    tally: Counter[tuple[int, str, str, str]] = Counter()
    for call in page.record.calls(which, limit=2000):
        if not call.step.startswith("exam/") and call.step != "report":
            tally[call.round, call.step, call.agent, call.text[:60]] += 1
    if not tally:
        return
    page.gap()
    page.out(Text("also asked", "lbt.title"))
    shown, left = page.some(list(tally))
    for round_, step, agent, text in shown:
        line = (
            Text(f"round {round_}  ", "lbt.label")
            .append(f"{step}  ")
            .append_text(page.look.line(agent, 24, page.role_style(agent)))
        )
        page.out(line.append("  ").append_text(page.look.said(text, 60)), indent=2)
    page.more(left, "calls")
