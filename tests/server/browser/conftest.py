"""A real browser and a real server. Without a browser these tests are skipped; `make test-browser` installs one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.served import Served, make_index, serving

if TYPE_CHECKING:
    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # a container's root has none
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
PATIENCE = 20.0
QUERY = "a red circle and a blue square"


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


@dataclass
class Page:
    """The page in the browser, as a person uses it."""

    chrome: Chrome
    address: str
    refusals: bool = False
    """Whether the test causes error responses, which the browser writes to its console."""
    requests: list[str] = field(default_factory=list)

    def open(self, path: str = "") -> None:
        self.chrome.get(self.address + path)
        self.wait(lambda: self.has("#welcome:not([hidden]), .result, #problem:not([hidden])"))

    def all(self, selector: str) -> list[WebElement]:
        return self.chrome.find_elements("css selector", selector)

    def one(self, selector: str) -> WebElement:
        return self.chrome.find_element("css selector", selector)

    def has(self, selector: str) -> bool:
        return bool(self.all(selector))

    def text(self, selector: str) -> str:
        return self.one(selector).text

    def run(self, script: str, *arguments: Any) -> Any:
        return self.chrome.execute_script(script, *arguments)

    def wait(self, condition: Callable[[], Any]) -> Any:
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.wait import WebDriverWait

        ignored = [StaleElementReferenceException]
        return WebDriverWait(self.chrome, PATIENCE, 0.05, ignored).until(lambda chrome: condition())

    def press(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains

        for key in keys:
            ActionChains(self.chrome).send_keys(key).perform()

    def point_at(self, element: WebElement) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.chrome).move_to_element(element).perform()

    def search(self, text: str) -> None:
        """Type a query and wait until the pictures are there."""
        box = self.one("#q")
        box.clear()
        box.send_keys(text + "\n")
        self.wait(lambda: text in self.chrome.title and self.has(".result"))

    def problem(self) -> str:
        """The displayed error."""
        return str(self.wait(lambda: self.text("#problem")))

    def send(self, file: Path) -> None:
        """Choose a picture in the file dialog."""
        self.one("#file").send_keys(str(file))

    def size(self, width: int, height: int) -> None:
        """The size of the window, as a device reports it."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def prefer(self, scheme: str) -> None:
        """What the system prefers: light or dark."""
        wanted = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self.chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", wanted)

    def console_errors(self) -> list[str]:
        """Errors and warnings in the browser's console."""
        bad = [entry for entry in self.chrome.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
        if self.refusals:
            bad = [entry for entry in bad if entry["source"] != "network"]
        return [entry["message"] for entry in bad]

    def foreign_requests(self) -> list[str]:
        """Requests to anywhere but the server."""
        events = [json.loads(entry["message"])["message"] for entry in self.chrome.get_log("performance")]
        sent = [event for event in events if event["method"] == "Network.requestWillBeSent"]
        self.requests = [event["params"]["request"]["url"] for event in sent]
        return [url for url in self.requests if not url.startswith((self.address, "blob:", "data:"))]


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
