"""Teaching material set in type: exemplars, lectures, what changed, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from lbt_sim.transcript.diff import exemplar_changes, lecture_changes
from lbt_sim.transcript.figures import plural, share
from lbt_sim.transcript.page import Page
from lbt_sim.transcript.read import CallFilter

__all__ = ["changes", "origin", "show_material", "standing", "whole"]

Data = Mapping[str, Any]


def show_material(page: Page, name: str) -> None:
    """One material: where it comes from, what it holds, what became of it."""
    record = page.record
    material = record.materials[name]
    page.heading(f"material {name}", origin(material))
    line = " ← ".join(_ancestors(page, name)) if page.look.unicode else " <- ".join(_ancestors(page, name))
    page.fact("lineage", page.look.text(line))
    page.fact("scored", *(_scores(page, name) or [Text("not yet", "lbt.label")]))
    page.gap()
    page.out(*whole(page, material))
    for parent in material.get("parents", []):
        if parent in record.materials:
            page.gap()
            page.out(Text(f"against {parent}", "lbt.title"))
            page.out(*changes(page, record.materials[parent], material), indent=2)
    children = [other for other, data in record.materials.items() if name in data.get("parents", [])]
    if children:
        page.gap()
        page.fact("led to", page.look.text(", ".join(children)))
    number = record.count(CallFilter(material=name))
    page.gap()
    page.hint(f"{plural(number, 'call')}: {page.command('--material', name, '--calls')}")


def origin(material: Data) -> str:
    """How it was made and by whom."""
    by = f" by {material['by']}" if material.get("by") else ""
    return f"{material.get('operator', '')}{by}"


def whole(page: Page, material: Data) -> list[RenderableType]:
    """All of a material."""
    if material.get("lecture") is not None:
        return [page.prose(material["lecture"])]
    return [
        page.columns([(Text(f"{number:>3}", "lbt.label"), _exemplar(page, exemplar))], margin=4)
        for number, exemplar in enumerate(material.get("exemplars", []), 1)
    ]


def changes(page: Page, before: Data, after: Data) -> list[RenderableType]:
    """What one material has that the other has not: `−` removed, `+` added, `=` kept."""
    if (before.get("lecture") is None) != (after.get("lecture") is None):
        return [Text("of another kind", "lbt.label")]
    if after.get("lecture") is not None:
        return _lecture(page, str(before["lecture"]), str(after["lecture"]))
    found = exemplar_changes(before.get("exemplars", []), after.get("exemplars", []))
    rows: list[RenderableType] = [_signed(page, "-", _exemplar(page, exemplar)) for exemplar in found.removed]
    rows += [_signed(page, "+", _exemplar(page, exemplar)) for exemplar in found.added]
    for old, new in found.altered:
        rows += [_signed(page, "-", _exemplar(page, old)), _signed(page, "+", _exemplar(page, new))]
    order = ", in another order" if found.reordered else ""
    rows.append(_signed(page, "=", Text(f"{found.kept} kept{order}", "lbt.label")))
    return rows


def _lecture(page: Page, before: str, after: str) -> list[RenderableType]:
    rows = []
    for sign, text in lecture_changes(before, after):
        kept = Text(f"{plural(int(text), 'sentence')} kept", "lbt.label") if sign == "=" else page.prose(text)
        rows.append(_signed(page, sign, kept))
    return rows


def _signed(page: Page, sign: str, text: Text) -> RenderableType:
    styles = {"-": "lbt.removed", "+": "lbt.added", "=": "lbt.label"}
    shown = page.look.glyph("minus") if sign == "-" else sign
    text.stylize_before(styles[sign])
    return page.columns([(Text(shown, styles[sign]), text)], margin=1)


def _exemplar(page: Page, exemplar: Data) -> Text:
    text = page.prose(str(exemplar.get("question", "")))
    text.append(f" {page.look.glyph('to')} ", "lbt.label").append_text(
        page.look.text(str(exemplar.get("answer", "")), "bold")
    )
    if exemplar.get("rationale"):
        text.append("\n").append_text(page.prose(str(exemplar["rationale"]), "italic"))
    if exemplar.get("source"):
        text.append(f"  {page.look.plain(str(exemplar['source']))}", "lbt.label")
    return text


def _ancestors(page: Page, name: str) -> list[str]:
    """The line of first parents, from the material to the first one."""
    line: list[str] = []
    while name not in line:
        line.append(name)
        parents = page.record.materials.get(name, {}).get("parents", [])
        if not parents:
            break
        name = parents[0]
    return line


def _scores(page: Page, name: str) -> list[RenderableType]:
    rows: list[RenderableType] = []
    for number, selection in sorted(page.record.selections.items()):
        rows += [
            Text(f"round {number}: {standing(page, row, selection)}")
            for row in selection["candidates"]
            if row["id"] == name
        ]
    for number, report in page.record.reports.items():
        if report.get("material") == name:
            teacher = report["teacher"]
            accuracy = share(teacher["accuracy"], teacher["n"], look=page.look)
            rows.append(Text(f"round {number}: accuracy {accuracy} on {teacher['n']:,} held-out problems"))
    return rows


def standing(page: Page, row: Data, selection: Data) -> str:
    """What a candidate scored in a selection, and whether it was kept."""
    words = f"{share(row['score'], look=page.look)} on {plural(row['n'], 'answer')}"
    if row["id"] in selection["beam"]:
        return f"{words}, kept"
    return f"{words}, dropped after block {row['dropped']}" if row.get("dropped") is not None else f"{words}, not kept"
