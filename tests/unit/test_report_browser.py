# SPDX-License-Identifier: BSD-2-Clause
"""The page about a run in a real browser: headless Chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from reported import HOSTILE, HOSTILE_LABEL, STRICT, write_run

from pympi.report import gather, page

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("chromium", "chromium-browser", "google-chrome")
EDITOR_TO_PRINTD = '.edge[aria-label^="editor to printd"]'


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    program = os.environ.get("PYMPI_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("no Chromium here: apt-get install chromium, or PYMPI_CHROMIUM=its path")
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="no playwright here: pip install 'pympi-mach[browser]'"
    )
    with playwright.sync_playwright() as driver:
        sandbox = [] if os.geteuid() else ["--no-sandbox"]  # root has none
        browser = driver.chromium.launch(executable_path=program, args=sandbox)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("browser")
    write_run(directory)
    other = directory / "strict.other"
    other.write_text(STRICT)
    path = directory / "report.html"
    path.write_bytes(page(gather(directory, other=other)))
    return path.as_uri()


class Seen:
    """A page that was opened, and what happened meanwhile."""

    def __init__(self, browser: Any, url: str, **options: Any) -> None:
        self.context = browser.new_context(
            **{"viewport": {"width": 1400, "height": 900}, "color_scheme": "light"} | options
        )
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.goto(url)

    def count(self, selector: str) -> int:
        """How many elements are to be seen."""
        return int(self.page.locator(selector).filter(visible=True).count())

    def text(self, selector: str) -> str:
        return str(self.page.locator(selector).first.text_content())


@pytest.fixture
def seen(chromium: Any, report: str) -> Iterator[Seen]:
    seen = Seen(chromium, report)
    yield seen
    assert seen.complaints == []
    assert seen.requests == [report]
    seen.context.close()


def test_it_renders_and_asks_for_nothing(seen: Seen) -> None:
    assert seen.count(".node") == 3
    assert seen.count(EDITOR_TO_PRINTD) == 1
    assert seen.text("#shown") == "4 of 5 arrows"
    (ROOT / "build").mkdir(exist_ok=True)
    for scheme in ("light", "dark"):
        seen.page.emulate_media(color_scheme=scheme)
        picture = seen.page.screenshot(path=ROOT / "build" / f"report-{scheme}.png", full_page=True)
        assert picture.startswith(b"\x89PNG")


def test_a_click_filters(seen: Seen) -> None:
    assert seen.count(EDITOR_TO_PRINTD) == 1
    seen.page.click(".chip.denied")
    assert seen.count(EDITOR_TO_PRINTD) == 0
    assert seen.text("#shown") == "3 of 5 arrows"
    assert seen.count("#edges tbody tr") == 3
    seen.page.click(".chip.denied")
    assert seen.count(EDITOR_TO_PRINTD) == 1
    seen.page.click(".chip.unused")
    assert seen.text("#shown") == "5 of 5 arrows"


def test_labels_methods_and_names_filter(seen: Seen) -> None:
    seen.page.select_option("#label", f"{HOSTILE_LABEL}, stranger")
    assert seen.text("#shown") == "1 of 5 arrows"
    seen.page.select_option("#label", "")
    seen.page.select_option("#method", "print_page")
    assert seen.text("#shown") == "1 of 5 arrows"
    assert seen.count("#edges tbody tr") == 1
    seen.page.select_option("#method", "")
    seen.page.fill("#search", "EDIT")
    assert seen.count(".node.found") == 1
    assert seen.text("#shown") == "3 of 5 arrows"


def test_hostile_names_show_as_text(seen: Seen) -> None:
    assert seen.page.evaluate("window.hacked") is None
    assert seen.page.evaluate("document.images.length") == 0
    stranger = seen.page.locator(".node").filter(has_text="<img src=x")
    stranger.hover()
    shown = seen.text("#detail")
    assert HOSTILE.partition("\n")[0] in shown
    assert HOSTILE_LABEL in shown
    seen.page.fill("#search", "<svg onload")
    assert seen.count(".node.found") == 1
    assert seen.page.evaluate("window.hacked") is None


def test_pointing_tells_counts_and_rights(seen: Seen) -> None:
    seen.page.locator("#edges tbody tr").filter(has_text="refused").first.hover()
    told = seen.text("#detail")
    for words in (
        "editor → printd",
        "10 messages",
        "mi_printing:cancel",
        "copy_send",
        "print_page",
    ):
        assert words in told


def test_the_keyboard_gets_there(seen: Seen) -> None:
    seen.page.locator(EDITOR_TO_PRINTD).focus()
    assert "editor → printd" in seen.text("#detail")
    before = seen.page.get_attribute("#graph", "viewBox")
    seen.page.keyboard.press("+")
    assert seen.page.get_attribute("#graph", "viewBox") != before
    seen.page.keyboard.press("0")
    assert seen.page.get_attribute("#graph", "viewBox") == before


def test_tables_sort(seen: Seen) -> None:
    column = "#edges tbody tr td:nth-child(3)"
    for order in ("descending", "ascending"):
        seen.page.get_by_role("button", name="Messages").click()
        head = seen.page.locator("#edges th[aria-sort]")
        assert head.get_attribute("aria-sort") == order
        shown = [int(text or 0) for text in seen.page.locator(column).all_text_contents()]
        assert shown == sorted([10, 1, 1, 0], reverse=order == "descending")


def test_rates_tell_what_was_when(seen: Seen) -> None:
    seen.page.locator("#rates").focus()
    seen.page.keyboard.press("ArrowRight")
    assert seen.text("#moment").startswith("From 0 ns: ")


def test_without_its_script_it_is_read_all_the_same(chromium: Any, report: str) -> None:
    seen = Seen(chromium, report, java_script_enabled=False)
    assert seen.count(".edge") == 4
    assert seen.count(".controls") == 0
    assert seen.count("#denials tbody tr") == 1
    seen.page.click(".chip.denied")  # by style alone
    assert seen.count(".edge") == 3
    seen.context.close()


@pytest.mark.parametrize("width", [390, 768, 1400])
def test_no_screen_is_too_narrow(chromium: Any, report: str, width: int) -> None:
    seen = Seen(chromium, report, viewport={"width": width, "height": 844})
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
    seen.context.close()


def test_paper_has_no_controls(seen: Seen) -> None:
    seen.page.emulate_media(media="print", color_scheme="dark")
    assert seen.count(".controls") == 0
    assert seen.count("#denials tbody tr") == 1
    background = "getComputedStyle(document.body).backgroundColor"
    assert seen.page.evaluate(background) == "rgb(255, 255, 255)"
