"""Appearance and accessibility of the page: dark and light, narrow screens, names for screen readers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.browser_page import QUERY, Page


def test_dark_mode_follows_the_system_and_the_switch_and_is_kept(page: Page) -> None:
    def paper() -> str:
        return page.run("return getComputedStyle(document.body).backgroundColor")

    light = paper()
    page.prefer("dark")
    dark = paper()
    assert dark != light
    assert page.run("return matchMedia('(prefers-color-scheme: dark)').matches")
    page.one("#theme").click()
    assert paper() == light
    assert page.one("#theme").get_attribute("aria-pressed") == "false"
    page.open()
    assert paper() == light, "kept when the page is opened again"
    page.one("#theme").click()
    assert paper() == dark


@pytest.mark.parametrize("width", [320, 390, 768])
def test_the_page_fits_a_narrow_screen(page: Page, width: int, picture: Path) -> None:
    page.size(width, 700)

    def fits() -> bool:
        return page.run("return document.documentElement.scrollWidth") <= width

    page.open()
    assert fits()
    page.search(QUERY)
    assert fits()
    page.all("#words .word")[0].click()
    assert page.has(".box"), "a tap lights a word"
    page.one(".open").click()
    page.wait(lambda: page.has("#why[open]"))
    assert fits()
    assert page.run("const why = document.getElementById('why'); return why.scrollWidth <= why.clientWidth")
    page.one("#close").click()
    page.send(picture)
    page.wait(lambda: page.has(".sentence"))
    assert fits()


def test_every_control_has_a_name(page: Page) -> None:
    page.search(QUERY)
    page.one(".open").click()
    page.wait(lambda: page.has("#why[open]"))
    nameless = """
    const named = (it) => it.getAttribute("aria-label") || it.textContent.trim() || it.labels?.length;
    const controls = [...document.querySelectorAll("button, input:not([type=file]), a")];
    return controls.filter((it) => !named(it)).map((it) => it.outerHTML);
    """
    assert page.run(nameless) == []
    assert page.run("return [...document.images].every((image) => image.alt)")


def test_the_api_reference_is_a_page_on_which_requests_can_be_tried(page: Page) -> None:
    page.chrome.get(page.address + "docs")
    page.wait(lambda: page.has(".opblock"))
    listed = [line.text for line in page.all(".opblock-summary-path")]
    assert {"/api/search", "/api/score", "/api/explain", "/healthz"} <= set(listed)
    page.one("#operations-API-search_api_search_get button.opblock-summary-control").click()
    page.wait(lambda: page.has(".try-out__btn"))
    page.one(".try-out__btn").click()
    page.wait(lambda: page.has("input[placeholder=q]:not([disabled])"))
    page.one("input[placeholder=q]").send_keys("a red circle")
    page.one(".execute").click()
    page.wait(lambda: '"query": "a red circle"' in page.text(".live-responses-table"))
