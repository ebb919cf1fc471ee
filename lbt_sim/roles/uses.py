"""What prompt templates are for, and what each may name. Read by `validate`, `prompts` and agents/README.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lbt_sim.errors import Place, TemplateError, nearest
from lbt_sim.prompts import Template

__all__ = ["COMMON", "MUST", "NEEDED", "USES", "misuses"]

COMMON = frozenset({"name", "role", "persona", "task"})
"""Every template: the seat's name and role, the persona's text ('' without one), and the task: {name, instruction,
labels, rubric}."""

_MATERIAL = frozenset({"exemplars", "count", "lecture"})
_HEARD = frozenset({"exemplars", "heard"})

USES: Mapping[str, frozenset[str]] = {
    "system": frozenset({"heard", "lecture", "exemplars"}),
    "answer": frozenset({"question"}),
    "worked": frozenset({"question", "answer", "rationale"}),
    "ask": _HEARD | {"number"},
    "reply": _HEARD | {"asker", "question"},
    "discuss": _HEARD | {"turn", "peers"},
    "pass_on": _HEARD | {"pupils"},
    "summarise": _HEARD,
    "write": frozenset({"count", "lecture"}),
    "reflect": _MATERIAL | {"failures", "report"},
    "rewrite": _MATERIAL | {"failures", "reflections"},
    "repair": _MATERIAL | {"reply", "why"},
    "choose": _MATERIAL | {"failures", "menu"},
    "set_exam": frozenset({"count", "examples"}),
    "judge": frozenset({"question", "reference", "rubric", "reply", "fence"}),
    "report": frozenset({"problems", "students", "failures", "confusions", "families", "questions"}),
}
"""Use of a template → the names that it may use beside `COMMON`."""

MUST: Mapping[str, frozenset[str]] = {
    "answer": frozenset({"question"}),
    "worked": frozenset({"answer"}),
    "reply": frozenset({"question"}),
    "repair": frozenset({"reply"}),
    "choose": frozenset({"menu"}),
    "judge": frozenset({"reply", "fence"}),
}
"""Use → names without which a template would not do what it is for."""

NEEDED: Mapping[str, tuple[str, ...]] = {
    "teacher": ("system", "answer", "worked"),
    "assistant": ("system", "answer", "worked"),
    "student": ("system", "answer", "worked"),
    "examiner": ("system", "answer", "worked", "report"),
}
"""Role → the uses without which nobody with this role can sit in a classroom; the others are needed only where
the scenario has them: questions need `ask` and `reply`, rewriting `reflect`, `rewrite` and `repair`, and so on."""


def misuses(use: str, template: Template, where: Place | None = None) -> Iterator[TemplateError]:
    """What is wrong with a template for what it is used for.

    Args:
        use: What for, as under an agent's `prompts`.
        template: The template.
        where: The place of that key; the template's file, where it is not known.
    """
    if use not in USES:
        near = nearest(use, USES)
        what = f"'{use}' is not a use of a template" + (f"; did you mean '{near}'?" if near else "")
        remedy = f"Correct the key `prompts.{use}` in the agent's YAML, or remove it."
        yield TemplateError(what, where=where or Place(template.file), valid=sorted(USES), remedy=remedy)
        return
    try:
        template.check(COMMON | USES[use])
    except TemplateError as error:
        yield error
    lacking = sorted(MUST.get(use, frozenset()) - template.variables)
    if lacking:
        yield TemplateError(
            f"the template for '{use}' never says {{{{ {lacking[0]} }}}}",
            where=Place(template.file),
            remedy="Without it the prompt would not hold what it is about. Put it in.",
        )
