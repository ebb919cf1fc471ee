"""Templates are rendered once, reach nothing, and end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbt_sim.errors import Place, TemplateError
from lbt_sim.library import Library, built_in
from lbt_sim.prompts import MAX_OUTPUT, MAX_TEMPLATE, Template


def render(text: str, **values: Any) -> str:
    return Template(text, "t.md.j2").render(**values)


def refusal(text: str, **values: Any) -> TemplateError:
    with pytest.raises(TemplateError) as caught:
        render(text, **values)
    error = caught.value
    assert error.status == 2
    assert error.where is not None
    assert error.where.file == "t.md.j2"
    assert error.remedy
    return error


@dataclass(frozen=True)
class Exemplar:
    question: str
    answer: str
    _hidden: str = "hidden"


def test_values_loops_and_conditions() -> None:
    text = (
        "{% if title %}\n# {{ title | upper }}\n{% endif %}\n"
        "{% for e in exemplars %}\n{{ loop.index }}. {{ e.question }} -> {{ e.answer }}\n{% endfor %}\nend"
    )
    exemplars = [Exemplar("q1", "a1"), {"question": "q2", "answer": "a2"}]
    assert render(text, title="t", exemplars=exemplars) == "# T\n1. q1 -> a1\n2. q2 -> a2\nend"


def test_filters() -> None:
    text = (
        "{{ x | map(attribute='a') | join(', ') }}|{{ y | replace('b', 'c') | indent(2, true) }}|{{ y | wordwrap(20) }}"
    )
    assert render(text, x=[{"a": "1"}, {"a": 2}], y="b\nbbb bbb") == "1, 2|  c\n  ccc ccc|b\nbbb bbb"
    assert render("{{ x | selectattr('a', 'equalto', 1) | list | length }}", x=[{"a": 1}, {"a": 2}]) == "1"
    assert render("{{ x | join('; ', attribute='a.b') }}", x=[{"a": {"b": "c"}}, {"a": {"b": "d"}}]) == "c; d"


def test_nothing_prints_nothing_and_a_list_is_not_printed() -> None:
    assert render("[{{ x }}]", x=None) == "[]"
    assert "a list" in refusal("{{ x }}", x=["a"]).what
    assert "a mapping" in refusal("{{ x }}", x={"a": 1}).what


def test_keys_of_a_mapping_come_before_its_methods() -> None:
    assert render("{{ x.items }} {{ x.keys }}", x={"items": "i", "keys": "k"}) == "i k"
    assert "'items' is not there" in refusal("{{ x.items }}", x={}).what


@settings(deadline=None, max_examples=50)
@given(st.text())
def test_a_value_comes_out_as_it_is(value: str) -> None:
    assert render("{{ x }}", x=value) == value


@pytest.mark.parametrize("value", ["{{ 7*7 }}", "{% for x in y %}", "{# a #}", "{{ ''.__class__ }}", "<b>&amp;", "{{"])
def test_a_value_is_never_a_template(value: str) -> None:
    assert render("a {{ x }} b", x=value) == f"a {value} b"
    assert render("{% for y in x %}{{ y ~ '' }}{% endfor %}", x=[value]) == value


def test_a_name_that_is_not_given_is_told_with_its_line() -> None:
    template = Template("a\n{% if x %}\n{{ exemplers }}\n{% endif %}\n{{ foo.bar }}", "t.md.j2")
    assert template.variables == {"x", "exemplers", "foo"}
    with pytest.raises(TemplateError) as caught:
        template.check({"x", "exemplars"})
    error = caught.value
    assert error.where == Place("t.md.j2", 3)
    assert error.what == (
        "'exemplers' is not given to this template (did you mean 'exemplars'?); nor is 'foo' (line 5)"
    )
    assert error.valid == ("exemplars", "x")
    template.check({"x", "exemplers", "foo"})


def test_names_of_loops_are_its_own() -> None:
    assert Template("{% for e in es %}{{ e }}{{ loop.index }}{% endfor %}", "t").variables == {"es"}


def test_an_undefined_name_is_told_when_it_is_rendered_too() -> None:
    error = refusal("a\n\n{{ nme }}", name="x")
    assert error.what == "'nme' is undefined; did you mean 'name'?"
    assert error.where == Place("t.md.j2", 3)
    assert "'b' is not there" in refusal("{{ a.b }}", a={"c": 1}).what
    assert "'x' is undefined" in refusal("{% for y in x %}{% endfor %}").what


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__ }}",
        "{{ ''['__class__'] }}",
        "{{ x['__cl' ~ 'ass__'] }}",
        "{{ x | map(attribute='__class__') | list }}",
        "{{ x | map(attribute='a.__class__') | first }}",
        "{{ x | selectattr('__class__') | list }}",
        "{{ x | join(attribute='__class__') }}",
        "{{ x | first | attr('__class__') }}",
        "{{ e._hidden }}",
        "{{ e['_hidden'] }}",
        "{{ _secret }}",
        "{{ self }}",
        "{{ self._TemplateReference__context }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ x.append }}",
        "{{ x.append(1) }}",
        "{{ e.answer.format }}",
        "{{ '{0.__class__}'.format(e) }}",
        "{{ '{0.__class__}' | format(e) }}",
        "{{ e.__class__ }}",
        "{{ lipsum() }}",
        "{{ range }}",
        "{{ namespace }}",
    ],
)
def test_nothing_of_python_is_reached(text: str) -> None:
    refusal(text, x=["a"], e=Exemplar("q", "a"), _secret="s")


@pytest.mark.parametrize(
    "text",
    [
        "{% macro m() %}{% endmacro %}",
        "{% call m() %}{% endcall %}",
        "{% include 'x' %}",
        "{% import 'x' as y %}",
        "{% from 'x' import y %}",
        "{% extends 'x' %}",
        "{% block x %}{% endblock %}",
        "{% set x = 1 %}",
        "{% set x %}{% endset %}",
        "{% with a = 1 %}{% endwith %}",
        "{% filter upper %}{% endfilter %}",
        "{% for x in xs recursive %}{{ loop(x) }}{% endfor %}",
        "{% for x in range(10) %}{% endfor %}",
        "{% for x in 'abc' %}{% endfor %}",
        "{% for x in [1, 2] %}{% endfor %}",
        "{% for a in x %}" * 4 + "{% endfor %}" * 4,
        "{{ 'a' * 1000000000 }}",
        "{{ 2 ** 100000000 }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ 10000000000 }}",
        "{{ x | indent(1000000) }}",
        "{{ x | wordwrap(1) }}",
        "{{ 1 | round(1000000, 'ceil') }}",
        "{{ 1 | round(-1000000) }}",
        "{{ x | batch(2) }}",
        "{{ x | tojson }}",
        "{{ x | join(*y) }}",
        "{{ x is callable }}",
        "{% autoescape true %}{% endautoescape %}",
        "{{ unclosed",
        "{% if x %}",
        "{{ x | }}",
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{{ " + "-" * 50_000 + "1 }}",
        "{% if a %}" * 500 + "{% endif %}" * 500,
        "a" * (MAX_TEMPLATE + 1),
    ],
)
def test_what_may_not_end_or_is_no_template_is_refused(text: str) -> None:
    refusal(text, x="x", xs=["x"], y=[], a=1)


def test_refusals_name_the_line_and_the_nearest_filter() -> None:
    error = refusal("a\nb\n{{ x | uper }}", x="x")
    assert error.where == Place("t.md.j2", 3)
    assert "did you mean 'upper'?" in error.what
    assert "upper" in error.valid
    assert refusal("a\n{% set x = 1 %}").where == Place("t.md.j2", 2)
    assert refusal("a\n\n{% if x %}").where == Place("t.md.j2", 3)


@pytest.mark.parametrize(
    "text",
    [
        "{% for a in xs %}{% for b in xs %}{% for c in xs %}{% endfor %}{% endfor %}{% endfor %}",
        "{% for a in xs %}{{ long }}{% endfor %}",
        "{{ long ~ long ~ long }}",
        "{{ long + long + long }}",
        "{{ [long, long, long] | join }}",
        "{{ xs | join(long) }}",
        "{{ long | replace('x', 'xxxx') }}",
        "{{ long | replace('', 'xxxx') }}",
        "{{ long | replace('x', 'x\n') | indent(100) }}",
        "{{ xs | map('replace', 'x', long) | join }}",
        "{% for a in xs %}{% for b in xs %}{{ loop.index }}{% for c in xs %}{% if c == long %}{% endif %}{% endfor %}"
        "{% endfor %}{% endfor %}",
    ],
)
def test_a_text_that_grows_without_end_is_stopped(text: str) -> None:
    assert (
        "more than" in (what := refusal(text, xs=["x"] * 100, long="x" * (MAX_OUTPUT // 2 - 1)).what)
        or "beyond" in what
    )


def test_a_loop_over_a_text_is_a_mistake() -> None:
    assert "a loop goes over a text" in refusal("{% for c in x %}{{ c }}{% endfor %}", x="abc").what


def test_a_filter_that_meets_a_wrong_value_is_told_with_its_line() -> None:
    assert refusal("a\n{{ x | round }}", x="many").where == Place("t.md.j2", 2)
    assert "ZeroDivisionError" in refusal("{{ 1 / 0 }}").what


def test_a_template_keeps_nothing_between_renderings() -> None:
    template = Template("{% for x in xs %}{{ x }}{% endfor %}", "t")
    for _ in range(3):
        assert template.render(xs=["a"] * 60_000) == "a" * 60_000


def test_values_may_have_any_name() -> None:
    assert Template("{{ text }}{{ file }}", "t").render(text="a", file="b", self="c", values="d") == "ab"


def test_every_built_in_template_compiles() -> None:
    root = built_in().root
    library = Library([built_in()])
    templates = [str(file.relative_to(root)) for file in (root / "agents").rglob("*.j2")]
    assert templates
    for path in templates:
        Template(library.read(path).text, path)
