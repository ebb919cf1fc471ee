"""Calls as they were: the exact prompt behind every reply, how it was drawn, what it cost."""

from __future__ import annotations

import ast
import json
import math
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from lbt_sim.ledger import StoredCall
from lbt_sim.models.base import CallPath
from lbt_sim.transcript.figures import bar, count, duration, plural
from lbt_sim.transcript.page import Page
from lbt_sim.transcript.read import CallFilter

__all__ = ["show_calls"]

_BAR = 20
_ELSE_SHOWN = 0.005


def show_calls(page: Page, which: CallFilter) -> None:
    """A page of calls, and how to see the next."""
    options, record = page.options, page.record
    total = record.count(which)
    limit = options.limit or -1
    head: bytes | None = None
    shown = 0
    for call in record.calls(which, limit=limit, skip=options.skip):
        _call(page, call, head)
        head = call.head_digest
        shown += 1
    page.gap()
    if not shown:
        skipped = f" after the first {options.skip:,}" if options.skip else ""
        page.out(Text(f"No call was recorded here{skipped}.", "lbt.label"))
        return
    first = options.skip + 1
    said = f"{plural(total, 'call')}"
    if shown < total:
        said = f"calls {first:,} to {first + shown - 1:,} of {count(total)}"
    left = total - options.skip - shown
    page.out(Text(said, "lbt.label"))
    if left > 0:
        command = page.command(*_arguments(page), "--skip", str(options.skip + shown))
        page.hint(f"{count(left)} more (--limit 0 for all): {command}")


def _arguments(page: Page) -> list[str]:
    """The options that this page was asked for, less --skip."""
    options = page.options
    given = [
        ("--round", options.round),
        ("--agent", options.agent),
        ("--item", options.item),
        ("--material", options.material),
        ("--limit", options.limit if options.limit != 20 else None),
    ]
    arguments = [part for name, value in given if value is not None for part in (name, str(value))]
    return [*arguments, *(["--calls"] if options.calls else []), *(["--full"] if options.full else [])]


def _call(page: Page, call: StoredCall, head_above: bytes | None) -> None:
    path = str(CallPath(*call.path))
    page.heading(path, f"{call.purpose} · {call.model}" if page.look.unicode else f"{call.purpose}, {call.model}")
    rows: list[tuple[RenderableType, RenderableType]] = []
    turns = json.loads(call.head_turns)
    if call.head_digest == head_above and not page.options.full:
        rows.append((Text(), Text(f"({plural(len(turns), 'turn')} as in the call above)", "lbt.label")))
    else:
        rows += [(Text(role, "lbt.label"), page.prose(content)) for role, content in turns]
    rows.append((Text("user", "lbt.label"), page.prose(call.last)))
    if call.reasoning:
        rows.append((Text("thinks", "lbt.label"), page.prose(call.reasoning, "lbt.label")))
    rows.append((page.look.line(call.agent, 11, page.role_style(call.agent) + " bold"), _reply(page, call)))
    page.out(page.columns(rows))
    choices = _choices(page, call)
    page.out(*choices, indent=12)
    page.out(Text(_facts(page, call), "lbt.label"), indent=12)


def _reply(page: Page, call: StoredCall) -> Text:
    if call.finish == "failed":
        reason = page.prose(call.error or "no reason was given", "lbt.failed")
        return page.look.mark("f").append(" gave up: ").append_text(reason)
    text = page.prose(call.text) if call.text else Text("(an empty reply)", "lbt.label")
    if call.finish == "length":
        text.append(" ").append_text(page.look.mark("t")).append(" cut off at the limit", "lbt.truncated")
    return text


def _choices(page: Page, call: StoredCall) -> list[Text]:
    """The choices that were given with their probabilities, where the engine told them."""
    choices: list[str] = json.loads(call.choices)
    if not choices:
        return []
    if call.logprobs is None:
        names = " | ".join(page.look.plain(choice, newlines="fold") for choice in choices)
        return [Text(f"choices: {names}", "lbt.label")]
    shares = [None if value is None else math.exp(min(value, 0.0)) for value in json.loads(call.logprobs)]
    wide = min(max(len(choice) for choice in choices), 24)
    lines = [_share(page, name, part, wide) for name, part in zip(choices, shares, strict=False)]
    rest = 1.0 - sum(part for part in shares if part is not None)
    if rest > _ELSE_SHOWN:
        lines.append(_share(page, "anything else", rest, wide, "lbt.label"))
    return lines


def _share(page: Page, name: str, part: float | None, wide: int, style: str = "") -> Text:
    line = page.look.line(name, max(wide, 13), style)
    line.append(" " * (max(wide, 13) - line.cell_len + 1))
    if part is None:
        return line.append("not told", "lbt.label")
    return line.append_text(bar(part, _BAR, page.look)).append(f" {part * 100:5.1f} %")


def _facts(page: Page, call: StoredCall) -> str:
    """Sampling, seed, tokens, time, in one line."""
    facts = [_sampling(call.sampling)]
    facts.append("no seed needed" if call.seed is None else f"seed {call.seed}")
    if call.prompt_tokens is not None:
        cached = f" ({count(call.cached_tokens)} cached)" if call.cached_tokens else ""
        facts.append(f"{plural(call.prompt_tokens, 'prompt token')}{cached}")
    if call.completion_tokens is not None:
        facts.append(f"{plural(call.completion_tokens, 'token')} written")
    facts.append("taken from an identical call" if call.shared else duration(call.seconds))
    return f" {page.look.glyph('dot')} ".join(page.look.plain(fact, newlines="fold") for fact in facts)


def _sampling(stored: str) -> str:
    """`Sampling(temperature=0.7, …)` in words."""
    values: dict[str, Any] = {}
    try:
        call = ast.parse(stored, mode="eval").body
        if not isinstance(call, ast.Call):
            return stored
        values = {part.arg: ast.literal_eval(part.value) for part in call.keywords if part.arg}
        words = ["greedy" if not values["temperature"] else f"temperature {values['temperature']:g}"]
        if values.get("top_p", 1.0) != 1.0:
            words.append(f"top-p {values['top_p']:g}")
        if values.get("top_k"):
            words.append(f"top-k {values['top_k']}")
        words.append(f"at most {plural(int(values['max_tokens']), 'token')}")
        if values.get("stop"):
            words.append(f"stop at {', '.join(map(repr, values['stop']))}")
    except (SyntaxError, ValueError, KeyError, TypeError):
        return stored
    return ", ".join(words)
