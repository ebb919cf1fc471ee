"""Rounds: in short for the story of a run, and one of them in full."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from lbt_sim.transcript.figures import interval, plural, share
from lbt_sim.transcript.grid import exam_grid, is_scaled, item_row
from lbt_sim.transcript.material import changes, origin, standing, whole
from lbt_sim.transcript.page import Page
from lbt_sim.transcript.read import CallFilter

__all__ = ["show_round", "tell_round"]

Data = Mapping[str, Any]
_GRID = 12
_GRID_FULL = 40
_SHORT = 3


def tell_round(page: Page, round_: int) -> None:
    """A round in short: exam, feedback, candidates, beam, what changed, what the teacher then scored."""
    page.heading(f"round {round_}", _teacher(page, round_))
    if round_ == 0:
        _start(page, full=False)
    grades = page.record.grades(round_)
    _exam(page, round_, grades, _GRID)
    for material, data in list(page.record.feedback(round_).items())[:1]:
        _feedback(page, material, data, _SHORT)
    _candidates(page, round_)
    _beam(page, round_)


def show_round(page: Page, round_: int) -> None:
    """A round in full."""
    page.heading(f"round {round_}", _teacher(page, round_))
    if round_ == 0:
        _start(page, full=True)
    _lesson(page, round_)
    grades = page.record.grades(round_)
    _exam(page, round_, grades, _GRID_FULL)
    _failures(page, round_, grades)
    for material, data in page.record.feedback(round_).items():
        _feedback(page, material, data, None)
    _reflections(page, round_)
    _candidates(page, round_)
    _beam(page, round_)
    _held_out(page, round_)
    number = page.record.count(CallFilter(round=round_))
    page.gap()
    page.hint(f"{plural(number, 'call')}: {page.command('--round', str(round_), '--calls')}")


def _held_out(page: Page, round_: int) -> None:
    """Which held-out problems the teacher gained and lost since the round before."""
    record = page.record
    now, before = record.reported(round_)[:1], record.reported(round_ - 1)[:1]
    if not now or not before:
        return
    pairs = zip(record.held_out["items"], before[0]["outcomes"], now[0]["outcomes"], strict=True)
    changed = [(item, was == "c") for item, was, is_ in pairs if (was == "c") != (is_ == "c")]
    _section(page, "held-out", f"against round {round_ - 1}: {plural(len(changed), 'answer')} changed")
    for title, lost in (("now right", False), ("no longer", True)):
        items = [item for item, was_right in changed if was_right is lost]
        if items:
            shown, left = page.some(items)
            more = f" and {left:,} more" if left else ""
            page.out(page.columns([(Text(title, "lbt.label"), page.look.text(", ".join(shown) + more))]), indent=2)
    if changed:
        page.hint(f"  one of them: {page.command('--item', changed[0][0])}")


def _section(page: Page, title: str, detail: str = "") -> None:
    page.gap()
    text = page.look.line(title, page.width, "lbt.title")
    page.out(
        text.append("  ").append(page.look.plain(detail, newlines="fold"), "not bold lbt.label") if detail else text
    )


def _teacher(page: Page, round_: int) -> str:
    report = page.record.reports.get(round_)
    if report is None:
        return "not reported yet"
    teacher, look = report["teacher"], page.look
    found = interval(teacher)
    ci = f" (95 % {share(found[0])}{look.glyph('dash')}{share(found[1])})" if found else ""
    accuracy = share(teacher["accuracy"], teacher["n"], look=look)
    return f"teacher on held-out: accuracy {accuracy}{ci}, F1 {share(teacher['f1'], teacher['n'], look=look)}"


def _start(page: Page, *, full: bool) -> None:
    for name in page.record.taught(0):
        material = page.record.materials[name]
        _section(page, f"first material {name}", origin(material))
        rows = whole(page, material)
        page.out(*(rows if full else rows[:_SHORT]), indent=2)
        if not full and len(rows) > _SHORT:
            more = f"{len(rows) - _SHORT} more: {page.command('--material', name)}"
            page.hint(f"  {page.look.glyph('ellipsis')} {more}")


def _lesson(page: Page, round_: int) -> None:
    lessons = page.record.utterances(round_)
    for material, said in lessons.items():
        _section(page, f"lesson with {material}", plural(len(said), "utterance"))
        shown, left = page.some(said)
        for utterance in shown:
            hearers = utterance["hearers"]
            to = ", ".join(hearers[:8]) + (f" and {len(hearers) - 8:,} more" if len(hearers) > 8 else "")
            head = page.look.text(utterance["speaker"], page.role_style(utterance["speaker"]) + " bold")
            head.append(f" {page.look.glyph('to')} {page.look.plain(to)}", "not bold lbt.label")
            head.append(f"  {utterance['kind']}", "not bold lbt.label")
            page.out(head, indent=2)
            if utterance["text"]:
                page.out(page.prose(utterance["text"]), indent=6)
            if utterance.get("exemplars"):
                page.out(Text(f"with {plural(utterance['exemplars'], 'exemplar')}", "lbt.label"), indent=6)
        page.more(left, "utterances")


def _exam(page: Page, round_: int, grades: Mapping[str, Sequence[Data]], height: int) -> None:
    exam = page.record.exams.get(round_)
    if exam is None:
        return
    _section(page, "exam", f"{plural(len(exam['items']), 'problem')}, {exam['set_by']}")
    seen: set[str] = set()
    for material, sat in grades.items():
        rows = [(data["student"], data["outcomes"]) for data in sat]
        shares = "; a row is too short for all items and shows shares" if is_scaled(rows, page.width - 4) else ""
        page.out(Text(f"taught with {material}{shares}", "lbt.label"), indent=2)
        seen.update(*(letters for _, letters in rows))
        page.out(*exam_grid(rows, page.width - 4, height, page.look), indent=4)
        if height > _GRID and len(rows) > 1:
            steps = item_row([letters for _, letters in rows], page.look)
            page.out(
                Text("each item, share correct  ", "lbt.label").append(page.look.cut(steps, page.width - 30)), indent=4
            )
    if seen:
        page.out(page.look.legend(letter for letter in "cwitf" if letter in seen), indent=4)


def _failures(page: Page, round_: int, grades: Mapping[str, Sequence[Data]]) -> None:
    """Each item that someone did not get right: who, and what they answered."""
    exam = page.record.exams.get(round_)
    for material, sat in grades.items() if exam is not None else ():
        assert exam is not None  # noqa: S101 - for the type checker; the loop is empty without an exam
        missed = [(at, _who(page, sat, at)) for at in range(len(exam["items"]))]
        missed = [(at, who) for at, who in missed if who]
        if not missed:
            continue
        _section(page, f"failures with {material}", f"{len(missed)} of {plural(len(exam['items']), 'problem')}")
        shown, left = page.some(missed)
        for at, who in shown:
            head = page.look.text(str(exam["items"][at]), "lbt.label").append("  ")
            head.append_text(page.prose(str(exam["questions"][at])))
            head.append(f" {page.look.glyph('to')} ", "lbt.label").append(
                page.look.plain(str(exam["answers"][at])), "bold"
            )
            page.out(head, indent=2)
            page.out(who, indent=6)
        page.more(left, "failures")


def _who(page: Page, sat: Sequence[Data], at: int) -> Text:
    """`□ negative: literal, sceptic-1   ! invalid: guesser`."""
    groups: dict[tuple[str, str], list[str]] = {}
    for data in sat:
        letter = data["outcomes"][at]
        if letter != "c":
            answer = data["answers"][at]
            groups.setdefault((letter, "" if answer is None else str(answer)), []).append(data["student"])
    text = Text()
    for (letter, answer), names in groups.items():
        text.append("   " if text else "").append_text(page.look.mark(letter)).append(" ")
        text.append_text(page.look.line(answer, 40) if answer else Text("no answer read"))
        listed = ", ".join(names[:6]) + (f" and {len(names) - 6:,} more" if len(names) > 6 else "")
        text.append(f": {page.look.plain(listed)}", "lbt.label")
    return text


def _feedback(page: Page, material: str, data: Data, lines: int | None) -> None:
    _section(page, "feedback", f"on {material}: {plural(len(data['failures']), 'failure')}")
    _report(page, str(data["text"]), lines)
    if told := data.get("told"):
        failures = plural(len(told["failures"]), "failure")
        what = f"{told['run']}, round {told['round']}, {told['material']}: {failures}"
        page.out(page.prose(f"The teacher was told of another class instead ({what}):"), indent=2)
        _report(page, str(told["text"]), lines)


def _report(page: Page, text: str, lines: int | None) -> None:
    if lines is not None:
        kept = [line for line in text[:2000].splitlines() if line.strip()]
        text = "\n".join(page.look.cut(line, page.width - 6) for line in kept[:lines])
        text += f"\n{page.look.glyph('ellipsis')}" if len(kept) > lines else ""
    page.out(page.prose(text), indent=2)


def _reflections(page: Page, round_: int) -> None:
    which = CallFilter(round=round_, step="reflect/*")
    total = page.record.count(which)
    if not total:
        return
    _section(page, "reflections", plural(total, "call"))
    limit = page.options.limit or -1
    shown = 0
    for call in page.record.calls(which, limit=limit):
        head = page.look.text(call.agent, page.role_style(call.agent) + " bold")
        head.append(f" on {page.look.plain(call.step.removeprefix('reflect/'))}", "not bold lbt.label")
        page.out(head, indent=2)
        page.out(page.prose(call.text or call.error or "(an empty reply)"), indent=6)
        shown += 1
    page.more(total - shown, "reflections")


def _candidates(page: Page, round_: int) -> None:
    """Each parent with what was made of it, and how each fared."""
    made = page.record.candidates.get(round_, [])
    selection = page.record.selections.get(round_)
    if not made and selection is None:
        return
    detail = f"selected by {selection['strategy']} with {plural(selection['answers'], 'answer')}" if selection else ""
    _section(page, "candidates", f"{len(made)} made; {detail}" if detail else f"{len(made)} made")
    rows = {row["id"]: row for row in selection["candidates"]} if selection else {}
    parents = list(dict.fromkeys([*page.record.taught(round_), *(str(data["parent"]) for data in made)]))
    for parent in parents:
        score = f"  {standing(page, rows[parent], selection)}" if selection and parent in rows else ""
        page.out(_star(page, parent, selection).append(f"{page.look.plain(parent)}{score}"), indent=2)
        for data in (data for data in made if data["parent"] == parent):
            page.out(_candidate(page, data, rows, selection), indent=4)


def _star(page: Page, name: str | None, selection: Data | None) -> Text:
    kept = selection is not None and name in selection["beam"]
    return Text(page.look.glyph("beam") + " " if kept else "  ", "lbt.added")


def _candidate(page: Page, data: Data, rows: Mapping[str, Data], selection: Data | None) -> Text:
    name = str(data.get("material") or "")
    new = data["status"] == "new"
    line = _star(page, name if new else None, selection).append(page.look.glyph("branch"), "lbt.border")
    line.append(f"{data['operator']} ").append(page.look.glyph("to") + " ", "lbt.label")
    if not new:
        line.append(data["status"], "lbt.label" if data["status"] == "duplicate" else "lbt.invalid")
    if name:
        line.append(f" of {page.look.plain(name)}" if data["status"] == "duplicate" else page.look.plain(name))
    if new and selection and name in rows:
        line.append(f"  {standing(page, rows[name], selection)}", "lbt.label")
    if data.get("why") and data["status"] != "duplicate":
        line.append("  ").append_text(
            page.look.line(str(data["why"]), max(page.width - line.cell_len - 10, 10), "lbt.label")
        )
    return line


def _beam(page: Page, round_: int) -> None:
    """The materials kept, and what is new in them against their parents."""
    selection = page.record.selections.get(round_)
    if selection is None:
        return
    scores = {row["id"]: share(row["score"], look=page.look) for row in selection["candidates"]}
    beam = ", ".join(f"{name} {scores.get(name, '')}".strip() for name in selection["beam"])
    again = selection.get("rescore")
    detail = f"the first, scored anew on {again['n']}: {share(again['score'], look=page.look)}" if again else ""
    _section(page, f"beam  {beam}", detail)
    before = page.record.taught(round_)
    for name in selection["beam"]:
        material = page.record.materials.get(name)
        parents = [p for p in (material or {}).get("parents", []) if p in page.record.materials]
        if material is None or name in before or not parents:
            continue
        title = f"{name} against {parents[0]} ({origin(material)})"
        page.out(page.look.text(title, "lbt.label"), indent=2)
        page.out(*changes(page, page.record.materials[parents[0]], material), indent=4)
    if page.options.round is not None:
        page.hint(f"  all of the first: {page.command('--material', str(selection['beam'][0]))}")
