"""The report in a real browser, on a desk and on a phone, in light and dark."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from goldpath.reporting.report import SECTIONS
from tests.reporting import samples

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None and not os.environ.get("CI"):
    pytest.skip(
        "no Chromium here: `apt-get install chromium` to test the report in it", allow_module_level=True
    )

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SCREENS = {"desktop": (1280, 900), "tablet": (768, 1024), "phone": (390, 844), "small phone": (320, 640)}
CONTRAST = """
() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((c) => { c /= 255; return c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4; });
    return .2126 * x + .7152 * y + .0722 * z;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const found = parse(getComputedStyle(at).backgroundColor);
      if (found.length === 3 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
    if (element.closest('script,style,title,desc')) continue;
    const style = getComputedStyle(element);
    const [a, b] = [light(parse(element.closest('svg') ? style.fill : style.color)), light(behind(element))];
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) poor.push([walker.currentNode.data.trim().slice(0, 40), ratio.toFixed(2)]);
  }
  return poor;
}
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM, "no Chromium: `apt-get install chromium`"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield started
        started.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    return {kind: samples.page(folder / f"{kind}.html", kind) for kind in ("promoted", "rejected", "failed")}


def visit(
    browser: Browser, file: Path, screen: str = "desktop", scheme: Any = "light"
) -> tuple[Page, list[str]]:
    """An open page, and whatever it complained about or asked the network for."""
    width, height = SCREENS[screen]
    page = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme).new_page()
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: trouble.append(f"error: {error}"))
    page.on(
        "request", lambda request: request.url == file.as_uri() or trouble.append(f"asked for {request.url}")
    )
    page.goto(file.as_uri())
    return page, trouble


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("kind", ["promoted", "rejected", "failed"])
def test_the_page_fits_and_is_quiet(browser: Browser, pages: dict[str, Path], kind: str, screen: str) -> None:
    page, trouble = visit(browser, pages[kind], screen)
    page.evaluate("document.querySelectorAll('details').forEach((block) => { block.open = true; })")
    assert trouble == []
    assert page.evaluate("document.documentElement.scrollWidth") <= SCREENS[screen][0]
    for ident, title in SECTIONS:
        assert page.locator(f"#{ident} h2").inner_text() == title
        assert page.locator(f"#{ident} .body").bounding_box()["height"] > 20  # type: ignore[index]
    page.context.close()


@pytest.mark.parametrize("screen", SCREENS)
def test_charts_are_seen_and_their_text_can_be_read(
    browser: Browser, pages: dict[str, Path], screen: str
) -> None:
    page, _ = visit(browser, pages["promoted"], screen)
    seen = page.locator("svg.chart:visible")
    assert seen.count() == 8
    for chart in seen.all():
        box = chart.bounding_box()
        assert box
        assert min(box["width"], box["height"]) > 100
    sizes = page.evaluate(
        """() => [...document.querySelectorAll('svg.chart text')].filter((text) => text.checkVisibility())
        .map((text) => parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().a)"""
    )
    assert len(sizes) > 30
    assert min(sizes) >= 9
    page.context.close()


@pytest.mark.parametrize("screen", ["desktop", "phone"])
def test_text_in_charts_stays_inside_them_and_apart(
    browser: Browser, pages: dict[str, Path], screen: str
) -> None:
    page, _ = visit(browser, pages["promoted"], screen)
    wrong = page.evaluate(
        """() => [...document.querySelectorAll('svg.chart')].filter((svg) => svg.checkVisibility()).flatMap((svg) => {
          const frame = svg.getBoundingClientRect();
          const boxes = [...svg.querySelectorAll('text')].map((text) =>
            [text.textContent, text.getBoundingClientRect()]);
          const out = boxes.filter(([, b]) => b.left < frame.left - 2 || b.right > frame.right + 2
            || b.top < frame.top - 2 || b.bottom > frame.bottom + 2).map(([text]) => `outside: ${text}`);
          boxes.forEach(([text, a], at) => boxes.slice(at + 1).forEach(([other, b]) => {
            const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
            const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
            if (wide > 2 && high > 5) out.push(`${text} over ${other}`);
          }));
          return out;
        })"""
    )
    assert wrong == []
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_gridlines_stop_before_the_words_of_a_chart(
    browser: Browser, pages: dict[str, Path], scheme: str
) -> None:
    page, _ = visit(browser, pages["promoted"], "desktop", scheme)
    halos = page.evaluate(
        """() => [...document.querySelectorAll('svg.chart text')].filter((text) => text.checkVisibility())
        .map((text) => { const style = getComputedStyle(text);
          return [style.paintOrder.startsWith('stroke'), parseFloat(style.strokeWidth) >= 4, style.stroke]; })"""
    )
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert {tuple(halo) for halo in halos} == {(True, True, paper)}
    page.context.close()


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("kind", ["promoted", "failed"])
def test_ticks_of_the_steps_stand_at_their_lines_and_rows_hold_their_text(
    browser: Browser, pages: dict[str, Path], kind: str, screen: str
) -> None:
    page, _ = visit(browser, pages[kind], screen)
    wrong = page.evaluate(
        """(narrow) => {
          const out = [];
          const lines = [...document.querySelectorAll('.gantt li:first-child i')];
          [...document.querySelectorAll('.gantt .axis i')].forEach((label, place) => {
            const box = label.getBoundingClientRect();
            if (box.width === 0) return;
            const middle = (box.left + box.right) / 2, line = lines[place].getBoundingClientRect().left;
            if (!narrow && Math.abs(middle - line - .5) > 1) out.push(`${label.textContent}: ${middle} for ${line}`);
            if (box.left < 0 || box.right > innerWidth) out.push(`${label.textContent} is cut off`);
          });
          for (const cell of document.querySelectorAll('.gantt .name, .gantt .time')) {
            if (cell.scrollWidth > cell.clientWidth + 1) out.push(`${cell.textContent} does not fit`);
          }
          return out;
        }""",
        screen in ("phone", "small phone"),
    )
    assert wrong == []
    page.context.close()


def test_yaml_in_an_answer_keeps_its_indentation(browser: Browser, pages: dict[str, Path]) -> None:
    page, _ = visit(browser, pages["promoted"], "phone")
    assert "spec:\n  minReadySeconds" in page.locator(".fenced").first.inner_text()
    spaces = page.evaluate(
        "[...document.querySelectorAll('.lines, .fenced')].map((block) => getComputedStyle(block).whiteSpaceCollapse)"
    )
    assert set(spaces) == {"preserve"}
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["promoted", "failed"])
def test_text_has_contrast(browser: Browser, pages: dict[str, Path], kind: str, scheme: str) -> None:
    page, _ = visit(browser, pages[kind], "desktop", scheme)
    assert page.evaluate(CONTRAST) == []
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, paper[4:-1].split(","))) < 150) == (scheme == "dark")
    page.context.close()


def test_the_endpoint_line_can_be_copied(browser: Browser, pages: dict[str, Path]) -> None:
    page, trouble = visit(browser, pages["promoted"])
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    button = page.locator("button[data-copy=curl]")
    button.click()
    page.wait_for_function("document.querySelector('button[data-copy=curl]').textContent === 'Copied'")
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("#curl").inner_text()
    assert trouble == []
    page.context.close()


def test_on_a_phone_things_to_press_are_large_enough(browser: Browser, pages: dict[str, Path]) -> None:
    page, _ = visit(browser, pages["promoted"], "phone")
    for target in page.locator("button:visible, nav a:visible").all():
        assert target.bounding_box()["height"] >= 32  # type: ignore[index]
    page.context.close()


def test_in_print_nothing_is_folded_away(browser: Browser, pages: dict[str, Path]) -> None:
    page, _ = visit(browser, pages["promoted"])
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.locator("nav").is_hidden()
    assert page.locator("details.keep:not([open])").count() == 0
    assert page.locator("svg.wide:visible").count() == 8
    page.context.close()
