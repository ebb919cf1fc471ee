"""Whatever models, data and YAML say, the page shows it and nothing of it acts."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import pytest
from made import HOSTILE, hostile_analysis, hostile_study, make_analysis
from pages import Page, read

from lbt_sim.report import report_run, report_study
from lbt_sim.report.html import POLICY
from lbt_sim.study.results import StudyResults

ALLOWED = {
    *("html", "head", "meta", "title", "style", "body", "a", "div", "header", "p", "h1", "h2", "h3", "nav", "ol", "ul"),
    *("li", "main", "section", "footer", "dl", "dt", "dd", "figure", "figcaption", "table", "caption", "thead"),
    *("tbody", "tr", "th", "td", "details", "summary", "small", "span", "b", "i", "pre", "blockquote", "wbr"),
    *("svg", "g", "path", "rect", "circle", "line", "text", "defs", "marker", "use", "clippath"),
}


@pytest.fixture(scope="module")
def ill_run_text(ill_folder: Path) -> str:
    return report_run(ill_folder)


@pytest.fixture(scope="module")
def ill_study_text(results: StudyResults) -> str:
    return report_study(hostile_study(results), hostile_analysis(make_analysis(hostile_study(results))))


@pytest.fixture(params=["run", "study"])
def page(request: pytest.FixtureRequest) -> Page:
    return read(request.getfixturevalue(f"ill_{request.param}_text"))


@pytest.fixture(params=["run", "study"])
def text(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(f"ill_{request.param}_text")
    return found


def test_no_element_but_those_of_the_templates(page: Page) -> None:
    assert set(page.tags) <= ALLOWED
    assert not page.wrong
    assert not page.open


def test_no_event_handlers(page: Page) -> None:
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]


def test_every_address_is_in_the_page_and_there(page: Page) -> None:
    addresses = [
        value for _, name, value in page.attributes if name in {"href", "src", "xlink:href", "action", "srcset"}
    ]
    assert addresses
    assert all(address.startswith("#") for address in addresses)
    assert {address[1:] for address in addresses} <= set(page.ids)


def test_ids_are_unique(page: Page) -> None:
    assert len(page.ids) == len(set(page.ids))


def test_styles_are_ours_and_ask_for_nothing(page: Page) -> None:
    ours = files("lbt_sim.report").joinpath("templates", "style.css").read_text(encoding="utf-8")
    assert "".join(page.styles).split() == ours.split()
    assert "url(" not in ours
    assert "@import" not in ours
    inline = [value for _, name, value in page.attributes if name == "style"]
    assert all(re.fullmatch(r"(?!.*url)[-\w\s:;.,()#%/]*", style) for style in inline), inline


def test_only_our_own_fragments_in_other_attributes(page: Page) -> None:
    links = [value for _, name, value in page.attributes if name not in {"title", "aria-label"} and "url(" in value]
    assert links
    assert all(re.fullmatch(r"url\(#[\w-]+\)", value) for value in links)


def test_the_policy_forbids_all_but_styles(page: Page) -> None:
    assert page.tags[:4] == ["html", "head", "meta", "meta"]
    at = page.attributes.index(("meta", "http-equiv", "Content-Security-Policy"))
    assert page.attributes[at + 1] == ("meta", "content", POLICY)
    assert "script" not in POLICY
    assert POLICY.startswith("default-src 'none';")


def test_nothing_hides_or_reorders(text: str) -> None:
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200b]", text)
    assert "⟨U+202E⟩" in text
    assert "␀" in text


def test_nothing_is_rendered_as_a_template(text: str) -> None:
    assert "1337" not in text
    assert "{{ 7*191 }}" in text


def test_hostile_text_is_shown(page: Page) -> None:
    assert "<script>document.title='pwned'</script>" in page.text
    assert "javascript:document.title='pwned'" in page.text


def test_texts_of_megabytes_are_cut(text: str) -> None:
    assert len(text) < 3_000_000
    assert "characters in all)" in text


def test_markdown_holds_no_markup_of_theirs(ill_folder: Path, results: StudyResults) -> None:
    ill = hostile_study(results)
    for text in (report_run(ill_folder, "md"), report_study(ill, hostile_analysis(make_analysis(ill)), "md")):
        prose = re.sub(r"(?m)^```sh\n.*\n```$", "", text)
        assert not re.search(r"(?<!\\)[<>]", re.sub(r"(?m)^> ", "", prose))
        assert not re.search(r"(?<!\\)\]\(", prose)
        assert not re.search(r"(?i)(https?|javascript):", prose)
        assert prose.count("\n# ") == 0
        assert "1337" not in text


def test_every_row_of_a_markdown_table_has_the_columns_of_its_head(ill_folder: Path, results: StudyResults) -> None:
    ill = hostile_study(results)
    for text in (report_run(ill_folder, "md"), report_study(ill, hostile_analysis(make_analysis(ill)), "md")):
        tables = re.findall(r"(?m)(?:^\|.*\n)+", text)
        assert len(tables) > 4
        for table in tables:
            pipes = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
            assert len(pipes) == 1, table[:300]
            assert re.fullmatch(r"[| :-]+", table.splitlines()[1])


def test_hostile_text_would_act_if_it_were_not_escaped() -> None:
    raw = read(f"<!doctype html><body>{HOSTILE}</body>")
    assert "script" in raw.tags
    assert [name for _, name, _ in raw.attributes if name.startswith("on")]
