"""The pages in a real browser: nothing runs, nothing is asked for, nothing sticks out, in light and dark."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import CHROMIUM, Browser, chromium
from made import HOSTILE, hostile_analysis, hostile_study, make_analysis

from lbt_sim.report import report_run, report_study
from lbt_sim.study.results import StudyResults

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (apt-get install chromium)")


@pytest.fixture(scope="module")
def pages(
    tmp_path_factory: pytest.TempPathFactory, results: StudyResults, run_folder: Path, ill_folder: Path
) -> dict[str, str]:
    """Their addresses: good and hostile reports of a run and a study, and hostile text that nobody escaped."""
    folder, ill = tmp_path_factory.mktemp("pages"), hostile_study(results)
    texts = {
        "run": report_run(run_folder),
        "study": report_study(results, make_analysis(results)),
        "ill-run": report_run(ill_folder),
        "ill-study": report_study(ill, hostile_analysis(make_analysis(ill))),
        "raw": f"<!doctype html><title>raw</title><body>{HOSTILE}</body>",
    }
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8", errors="replace")
    return {name: (folder / f"{name}.html").as_uri() for name in texts}


async def look_at(browser: Browser, page: str) -> None:
    await browser.open(page)
    assert await browser.value("document.scripts.length") == 0
    assert await browser.value("document.title") != "pwned"
    assert await browser.value("document.images.length + document.querySelectorAll('iframe,object,embed').length") == 0
    asked = [told["request"]["url"] for told in browser.told("Network.requestWillBeSent")]
    assert asked == [page]
    # The policy had nothing to forbid either: no handler, no style, no image came through for it to stop.
    assert not browser.told("Log.entryAdded")
    assert not browser.told("Runtime.consoleAPICalled")


async def test_hostile_text_runs_nothing_and_asks_for_nothing(pages: dict[str, str], tmp_path: Path) -> None:
    async with chromium(tmp_path / "profile") as browser:
        for name in ("ill-run", "ill-study", "run", "study"):
            await look_at(browser, pages[name])
        # What would have been: the same text without escaping acts, so the test can see it.
        await browser.open(pages["raw"])
        assert await browser.value("document.title") == "pwned"
        assert any("evil.example" in told["request"]["url"] for told in browser.told("Network.requestWillBeSent"))


async def test_links_open_what_they_lead_to(pages: dict[str, str], tmp_path: Path) -> None:
    async with chromium(tmp_path / "profile") as browser:
        await browser.open(pages["run"])
        missing = "[...document.querySelectorAll('a')].filter(a => !document.getElementById(a.hash.slice(1))).length"
        assert await browser.value(missing) == 0
        assert await browser.value("document.querySelectorAll('nav a').length") >= 8


@pytest.mark.parametrize("width", [360, 1280])
async def test_nothing_sticks_out_of_the_page(pages: dict[str, str], tmp_path: Path, width: int) -> None:
    async with chromium(tmp_path / "profile") as browser:
        await browser.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False
        )
        for name in ("run", "study", "ill-run"):
            await browser.open(pages[name])
            assert await browser.value("document.documentElement.scrollWidth") <= width, name


_FIRST_COLUMNS = """[...document.querySelectorAll('.scroll')].filter(box => {
  const table = box.querySelector('table:not(.facts)');
  return table && table.offsetParent && !table.classList.contains('forest') && box.scrollWidth > box.clientWidth + 40;
}).map(box => {
  const cell = box.querySelector('tbody tr:last-child > :first-child'), left = () => cell.getBoundingClientRect().left;
  const before = left();
  box.scrollLeft = 9999;
  return [box.scrollLeft, left() - before];
})"""


async def test_on_a_phone_tables_move_under_their_first_column(pages: dict[str, str], tmp_path: Path) -> None:
    async with chromium(tmp_path / "profile") as browser:
        await browser.call(
            "Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=False
        )
        await browser.open(pages["study"])
        await browser.value("document.querySelectorAll('details').forEach(one => one.open = true)")
        moved = await browser.value(_FIRST_COLUMNS)
        assert len(moved) >= 2
        for by, first in moved:
            assert by > 40
            assert abs(first) < 1
        forests = "[...document.querySelectorAll('.forest')].map(one => one.getBoundingClientRect().right)"
        found = await browser.value(forests)
        assert len(found) == 2
        assert max(found) <= 390
        plots = await browser.value("[...document.querySelectorAll('.forest td.plot svg')].map(one => one.clientWidth)")
        assert min(width for width in plots if width) > 300


_CONTRAST = """(() => {
  const parse = text => { const m = text.match(/[\\d.]+/g).map(Number); return m.length > 3 && m[3] === 0 ? null : m };
  const bright = c => { const f = c.slice(0, 3).map(v => { v /= 255; return v <= .03928 ? v / 12.92 :
    ((v + .055) / 1.055) ** 2.4 }); return .2126 * f[0] + .7152 * f[1] + .0722 * f[2] };
  const behind = e => { while (e) { const c = getComputedStyle(e).backgroundColor;
    if (c.startsWith('rgb') && parse(c)) return parse(c); e = e.parentElement } return [255, 255, 255] };
  return [...document.querySelectorAll('p,h1,h2,th,td.n,caption,figcaption,small,summary,nav a')]
    .filter(e => e.textContent.trim() && !e.closest('.grid,.shares')).map(e => {
      const a = bright(parse(getComputedStyle(e).color)), b = bright(behind(e));
      return (Math.max(a, b) + .05) / (Math.min(a, b) + .05) }).reduce((x, y) => Math.min(x, y), 99) })()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_text_can_be_read_in_light_and_dark(pages: dict[str, str], tmp_path: Path, scheme: str) -> None:
    async with chromium(tmp_path / "profile") as browser:
        feature = {"name": "prefers-color-scheme", "value": scheme}
        await browser.call("Emulation.setEmulatedMedia", features=[feature])
        await browser.open(pages["study"])
        paper = await browser.value("getComputedStyle(document.body).backgroundColor")
        assert (paper == "rgb(253, 252, 250)") is (scheme == "light")
        assert await browser.value(_CONTRAST) >= 4.5
