"""Prompt templates: Jinja in its sandbox, cut down until rendering is certain to end.

A template is text with `{{ values }}`, `{% if %}` and `{% for %}`. It cannot call anything, assign, define or include,
and each step that could make a long text out of a short one is measured before it is taken. A template is rendered
once: a value that itself looks like a template comes out as it is.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NoReturn, cast

import jinja2
from jinja2 import meta, nodes
from jinja2.filters import do_round
from jinja2.runtime import Context, StrictUndefined, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from lbt_sim.errors import Place, TemplateError, nearest

__all__ = ["MAX_ITERATIONS", "MAX_OUTPUT", "MAX_TEMPLATE", "Template"]

MAX_TEMPLATE = 100_000
"""Characters of a template."""
MAX_OUTPUT = 1_000_000
"""Characters of what it renders to, and of any text on the way there."""
MAX_ITERATIONS = 100_000
"""Turns of all its loops together."""
REMEMBERED = 20_000
"""Rendered texts that `render_once` keeps for each template."""
MAX_LOOP_DEPTH = 3
MAX_NUMBER = 1_000_000

_FLATTER = "Write it flatter."
_DUNDER = re.compile(r"__[A-Za-z]\w*")
_COUNTER = "_lbt_sim_turns"

_FILTERS = (
    "capitalize", "default", "first", "last", "length", "list", "lower", "map", "rejectattr", "reverse", "selectattr",
    "sort", "title", "trim", "truncate", "unique", "upper",
)  # fmt: skip
"""Jinja's own filters whose result is no longer than what goes in. `indent`, `join`, `replace`, `round`,
`wordwrap` are ours."""

_TESTS = (
    "==", "!=", "<", "<=", ">", ">=", "boolean", "defined", "divisibleby", "eq", "equalto", "even", "false", "ge", "gt",
    "in", "iterable", "le", "lt", "mapping", "ne", "none", "number", "odd", "sequence", "string", "true", "undefined",
)  # fmt: skip

_ALLOWED = (
    nodes.Add, nodes.And, nodes.Compare, nodes.Concat, nodes.CondExpr, nodes.Const, nodes.Dict, nodes.Div, nodes.Filter,
    nodes.FloorDiv, nodes.For, nodes.Getattr, nodes.Getitem, nodes.If, nodes.Keyword, nodes.List, nodes.Name, nodes.Neg,
    nodes.Not, nodes.Operand, nodes.Or, nodes.Output, nodes.Pair, nodes.Pos, nodes.Slice, nodes.Sub, nodes.Template,
    nodes.TemplateData, nodes.Test, nodes.Tuple,
)  # fmt: skip

_REFUSED: Mapping[type[nodes.Node], tuple[str, str]] = {
    nodes.Macro: ("macros are not allowed", "Write the text out, or loop over it."),
    nodes.CallBlock: ("call blocks are not allowed", "Write the text out."),
    nodes.FilterBlock: ("filter blocks are not allowed", "Use the filter on a value: {{ value | upper }}."),
    nodes.Include: ("templates cannot include others", "Write the text out."),
    nodes.Import: ("templates cannot import others", "Write the text out."),
    nodes.FromImport: ("templates cannot import others", "Write the text out."),
    nodes.Extends: ("templates cannot extend others", "Write the text out."),
    nodes.Block: ("blocks are not allowed", "Write the text out."),
    nodes.Assign: ("`set` is not allowed", "Write the expression where it is used."),
    nodes.AssignBlock: ("`set` is not allowed", "Write the text where it is used."),
    nodes.With: ("`with` is not allowed", "Write the expression where it is used."),
    nodes.Call: ("nothing can be called in a template", "Use a filter: {{ value | trim }}."),
    nodes.Mul: ("'*' is not allowed", "Write the text or number out."),
    nodes.Pow: ("'**' is not allowed", "Write the number out."),
    nodes.Mod: ("'%' is not allowed", "Use the test `is divisibleby(n)`."),
}


class Template:
    """A prompt template, compiled and checked.

    Args:
        text: The template.
        file: Its file, as shown to people.

    Raises:
        TemplateError: It cannot be parsed, or uses something that templates may not; with file and line.
    """

    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file
        if len(text) > MAX_TEMPLATE:
            raise TemplateError(
                f"the template has {len(text):,} characters; at most {MAX_TEMPLATE:,} are allowed",
                where=Place(file),
                remedy="Give long texts as values: exemplars, notes, a persona.",
            )
        environment = _environment()
        try:
            tree = environment.parse(text, filename=file)
            _Check(file).visit(tree)
            self.variables: frozenset[str] = frozenset(meta.find_undeclared_variables(tree))
            """The names that it uses and does not define itself."""
            self._lines = _first_lines(tree, self.variables)
            code = environment.compile(_measured(tree), filename=file)
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(
                f"this is not a template: {error.message}",
                where=Place(file, error.lineno),
                remedy="Look for an unclosed '{{', '{%' or quote, or a missing endif or endfor.",
            ) from None
        except (RecursionError, MemoryError, SyntaxError):
            raise TemplateError("the template is nested too deep", where=Place(file), remedy=_FLATTER) from None
        self._template = environment.template_class.from_code(environment, code, {})
        self._rendered: dict[Hashable, str] = {}

    def check(self, allowed: Collection[str]) -> None:
        """Makes sure that it uses no other names than these.

        Raises:
            TemplateError: It does; names each, with its line.
        """
        unknown = sorted(self.variables - set(allowed), key=lambda name: (self._lines.get(name, 0), name))
        if not unknown:
            return
        near = nearest(unknown[0], allowed)
        more = "".join(f"; nor is '{name}' (line {self._lines.get(name, 0)})" for name in unknown[1:10])
        hint = f" (did you mean '{near}'?)" if near else ""
        raise TemplateError(
            f"'{unknown[0]}' is not given to this template{hint}{more}",
            where=Place(self.file, self._lines.get(unknown[0])),
            valid=sorted(allowed),
            remedy="Correct the name in the template.",
        )

    def render(self, /, **values: Any) -> str:
        """The text, with `values` put in as they are.

        Raises:
            TemplateError: A name is not given, a value has not the shape that is expected, or the text grows too long.
        """
        parts: list[str] = []
        size = 0
        try:
            for part in self._template.generate({**values, _COUNTER: [0]}):
                size += len(part)
                if size > MAX_OUTPUT:
                    raise _TooMuchError(f"the text grows beyond {MAX_OUTPUT:,} characters")
                parts.append(part)
        except jinja2.UndefinedError as error:
            self._fail(error, self._undefined(str(error.message), values), "Correct the name in the template.")
        except _TooMuchError as error:
            self._fail(error, str(error), "Loop over less, or give shorter values.")
        except (
            Exception
        ) as error:  # a filter or test met a value that it is not for; whatever it raises is the template's
            self._fail(error, f"{type(error).__name__}: {error}", "Check what this line does with its values.")
        return "".join(parts)

    def render_once(self, key: Hashable, /, **values: Any) -> str:
        """As `render`, and kept: the same `key` gives the same text.

        Args:
            key: Stands for all of `values` that this template reads. The last `REMEMBERED` texts are kept.
            values: As for `render`.
        """
        text = self._rendered.get(key)
        if text is None:
            text = self._rendered[key] = self.render(**values)
            if len(self._rendered) > REMEMBERED:
                del self._rendered[next(iter(self._rendered))]
        return text

    def _undefined(self, message: str, values: Mapping[str, Any]) -> str:
        name = message.removesuffix(" is undefined").strip("'")
        near = nearest(name, values)
        return message + (f"; did you mean '{near}'?" if near and message.endswith(" is undefined") else "")

    def _fail(self, error: Exception, what: str, remedy: str) -> NoReturn:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == self.file]
        raise TemplateError(what, where=Place(self.file, lines[-1] if lines else None), remedy=remedy) from None


# --- what a template may hold ------------------------------------------------------------------------------


class _Check:
    """Walks the syntax tree once and refuses what could reach into Python, or not end."""

    def __init__(self, file: str) -> None:
        self._file = file

    def visit(self, node: nodes.Node, loops: int = 0) -> None:
        self._check(node)
        if isinstance(node, nodes.For):
            loops += 1
            self._check_loop(node, loops)
        for child in node.iter_child_nodes():
            self.visit(child, loops)

    def _refuse(self, node: nodes.Node, what: str, remedy: str, valid: Sequence[str] = ()) -> NoReturn:
        raise TemplateError(what, where=Place(self._file, node.lineno), valid=valid, remedy=remedy)

    def _check(self, node: nodes.Node) -> None:
        if type(node) in _REFUSED:
            self._refuse(node, *_REFUSED[type(node)])
        if not isinstance(node, _ALLOWED):
            name = type(node).__name__.lower()
            self._refuse(node, f"'{name}' is not allowed in a template", "Use {{ values }}, `if` and `for`.")
        if isinstance(node, nodes.Getattr):
            self._check_name(node, node.attr)
        elif isinstance(node, nodes.Name):
            self._check_name(node, node.name)
        elif isinstance(node, nodes.Const):
            self._check_constant(node)
        elif isinstance(node, nodes.Filter):
            self._known(node, "filter", (*_FILTERS, *_OWN_FILTERS))
        elif isinstance(node, nodes.Test):
            self._known(node, "test", _TESTS)

    def _check_name(self, node: nodes.Node, name: str) -> None:
        if name.startswith("_") or name == "self":
            remedy = (
                "Templates see the values that they are given, and nothing of Python. `lbt-sim prompts` shows them."
            )
            self._refuse(node, f"'{name}' cannot be used: it is closed to templates", remedy)

    def _check_constant(self, node: nodes.Const) -> None:
        value = node.value
        if isinstance(value, str) and (inner := _DUNDER.search(value)):
            # As in map(attribute="__class__") or value["__class__"]. The sandbox refuses it too; this says where.
            self._check_name(node, inner[0])
        if isinstance(value, (int, float)) and not -MAX_NUMBER <= value <= MAX_NUMBER:
            self._refuse(node, f"the number is beyond {MAX_NUMBER:,}", "Use a smaller number.")

    def _known(self, node: nodes.Filter | nodes.Test, kind: str, valid: Sequence[str]) -> None:
        if node.name not in valid:
            near = nearest(node.name, valid)
            hint = f"; did you mean '{near}'?" if near else ""
            self._refuse(node, f"'{node.name}' is not a {kind} of templates{hint}", "Use another.", sorted(valid))
        if node.dyn_args is not None or node.dyn_kwargs is not None:
            self._refuse(node, "'*' is not allowed in arguments", "Write the arguments out.")

    def _check_loop(self, node: nodes.For, loops: int) -> None:
        if node.recursive:
            self._refuse(node, "recursive loops are not allowed", "Loop without `recursive`.")
        if loops > MAX_LOOP_DEPTH:
            self._refuse(node, f"loops are nested more than {MAX_LOOP_DEPTH} deep", _FLATTER)
        over: nodes.Node | None = node.iter
        while isinstance(over, (nodes.Filter, nodes.Getattr, nodes.Getitem)):
            over = over.node
        if not isinstance(over, nodes.Name):
            self._refuse(
                node, "a loop goes over something that was not given", "Loop over a name: {% for x in names %}."
            )


def _first_lines(tree: nodes.Template, names: Collection[str]) -> dict[str, int]:
    lines: dict[str, int] = {}
    for node in tree.find_all(nodes.Name):
        if node.name in names:
            lines[node.name] = min(node.lineno, lines.get(node.name, node.lineno))
    return lines


def _measured(tree: nodes.Template) -> nodes.Template:
    """The tree with a count at every loop, and a measure at every joining of texts."""
    for loop in list(tree.find_all(nodes.For)):
        loop.iter = _filtered(cast(nodes.Expr, loop.iter), "_counted")
    _measure_joins(tree)
    return tree


def _measure_joins(node: nodes.Node) -> None:
    for name, value in node.iter_fields():
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, nodes.Node):
                _measure_joins(child)
        setattr(node, name, [_measure_join(one) for one in value] if isinstance(value, list) else _measure_join(value))


def _measure_join(node: Any) -> Any:
    concat = isinstance(node, nodes.Concat)
    return _filtered(nodes.List(node.nodes, lineno=node.lineno), "_joined") if concat else node


def _filtered(node: nodes.Expr, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


# --- the environment ---------------------------------------------------------------------------------------


class _TooMuchError(Exception):
    """A limit of rendering is reached."""


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, in which attributes of mappings are their keys and other built-in values have none."""

    intercepted_binops = frozenset({"+"})

    def getattr(self, obj: Any, attribute: str) -> Any:
        if type(obj) is dict or isinstance(obj, Mapping):  # the first is far the faster question
            return obj[attribute] if attribute in obj else self.undefined(_no_such_key(obj, attribute))
        if isinstance(obj, (str, bytes, int, float, list, tuple, set, frozenset)):
            return self.undefined(obj=obj, name=attribute)
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(argument, str):
            return self.getattr(obj, argument)
        return super().getitem(obj, argument)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if isinstance(left, (str, list, tuple)) and isinstance(right, (str, list, tuple)):
            _measure(len(left) + len(right))
        return super().call_binop(context, operator, left, right)


def _no_such_key(found: Mapping[str, Any], key: str) -> str:
    near = nearest(key, found)
    hint = f" (did you mean '{near}'?)" if near else ""
    return f"'{key}' is not there{hint}; what is there: {', '.join(map(str, found)) or 'nothing'}"


def _measure(size: int) -> None:
    if size > MAX_OUTPUT:
        raise _TooMuchError(f"a text grows beyond {MAX_OUTPUT:,} characters")


def _printable(value: Any) -> Any:
    """What `{{ value }}` prints. None prints nothing; a list would print as Python."""
    if type(value) is str or isinstance(value, (str, int, float, Undefined)):
        return value
    if value is None:
        return ""
    kind = "a list" if isinstance(value, (list, tuple)) else "a mapping" if isinstance(value, Mapping) else "no text"
    raise TypeError(f"what is to be printed is {kind}; loop over it, join it, or name a part of it")


def _own_join(value: Iterable[Any], d: str = "", attribute: str | None = None) -> str:
    texts = [str(_printable(item)) for item in (value if attribute is None else _attributes(value, attribute))]
    _measure(sum(map(len, texts)) + len(d) * max(0, len(texts) - 1))
    return d.join(texts)


def _attributes(items: Iterable[Any], attribute: str) -> Iterator[Any]:
    environment = _environment()
    for item in items:
        value = item
        for part in attribute.split("."):
            value = environment.getattr(value, part)
        yield value


def _own_replace(value: str, old: str, new: str) -> str:
    value, old, new = str(value), str(old), str(new)
    _measure(len(value) + value.count(old) * max(0, len(new) - len(old)))
    return value.replace(old, new)


def _own_indent(value: str, width: int = 4, first: bool = False, blank: bool = False) -> str:
    if not 0 <= width <= 100:
        raise ValueError("a width of `indent` is between 0 and 100")
    lines = str(value).split("\n")
    _measure(len(value) + width * len(lines))
    pad = " " * width
    padded = [pad + line if line or blank else line for line in lines]
    return "\n".join(padded if first else [*lines[:1], *padded[1:]])


def _own_wordwrap(value: str, width: int = 79) -> str:
    import textwrap

    if not 20 <= width <= 1000:  # narrower, one long word takes time that grows with the square of its length
        raise ValueError("a width of `wordwrap` is between 20 and 1000")
    return "\n".join(textwrap.fill(line, width, break_on_hyphens=False) for line in str(value).splitlines())


def _own_round(value: float, precision: int = 0, method: Any = "common") -> float:
    if not 0 <= precision <= 15:  # 10 to the power of a precision is computed
        raise ValueError("a precision of `round` is between 0 and 15")
    return do_round(value, precision, method)


@jinja2.pass_context
def _counted(context: Context, items: Any) -> Any:
    """What a loop goes over, its turns counted before the first of them."""
    if isinstance(items, Undefined):
        return items  # StrictUndefined tells its name when the loop begins
    if isinstance(items, str):
        raise TypeError("a loop goes over a text; it was to be a list")
    turns = list(items)
    counter: list[int] = context[_COUNTER]
    counter[0] += len(turns)
    if counter[0] > MAX_ITERATIONS:
        raise _TooMuchError(f"its loops take more than {MAX_ITERATIONS:,} turns")
    return turns


_OWN_FILTERS: Mapping[str, Callable[..., Any]] = {
    "indent": _own_indent,
    "join": _own_join,
    "replace": _own_replace,
    "round": _own_round,
    "wordwrap": _own_wordwrap,
}


@cache
def _environment() -> _Environment:
    """The one environment: it holds no state of a template or a run."""
    environment = _Environment(
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
        optimized=False,  # nothing is computed before it has been checked
        cache_size=0,
    )
    environment.globals.clear()
    environment.filters = {name: environment.filters[name] for name in _FILTERS}
    environment.filters.update(_OWN_FILTERS)
    environment.filters.update({"_counted": _counted, "_joined": _own_join})
    environment.tests = {name: environment.tests[name] for name in _TESTS}
    return environment
