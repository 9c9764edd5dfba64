"""A real browser and a real server. Without a browser these tests are skipped; `make test-browser` installs one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.browser_page import Page
from tests.support.served import Served, make_index, serving

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # a container's root has none
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


@pytest.fixture(scope="session")
def chrome() -> Iterator[Chrome]:
    """The browser, headless."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed; run make test-browser")
    driver = shutil.which("chromedriver")
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if driver is None or browser is None:
        pytest.skip("no chromium with its chromedriver is installed here; run make test-browser")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for option in OPTIONS:
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        yield opened
    finally:
        opened.quit()


@pytest.fixture(scope="session")
def served(chrome: Chrome, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server over generated scenes; skipped without a browser."""
    with serving(make_index(tmp_path_factory.mktemp("served")), "--upload-mib", "1") as running:
        yield running


@pytest.fixture
def page(chrome: Chrome, served: Served) -> Iterator[Page]:
    """The opened page; afterwards, console errors and foreign requests fail the test."""
    page = Page(chrome, served.address)
    page.size(1200, 900)
    page.prefer("light")
    for log in ("browser", "performance"):
        chrome.get_log(log)
    page.open()
    page.run("localStorage.clear()")
    yield page
    assert page.console_errors() == []
    assert page.foreign_requests() == []
    assert page.requests


@pytest.fixture
def picture(served: Served) -> Path:
    """A picture file of the scenes."""
    return min(served.pictures.rglob("*.png"))
