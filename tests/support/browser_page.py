"""The page of the server in a browser."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement

PATIENCE = 120.0
"""Seconds for what comes at once on a quiet machine."""
QUERY = "a red circle and a blue square"


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

    def drag(self, start: tuple[int, int], end: tuple[int, int]) -> None:
        """Press the pointer at one place of the window and release it at another."""
        from selenium.webdriver.common.actions.action_builder import ActionBuilder

        actions = ActionBuilder(self.chrome)
        actions.pointer_action.move_to_location(*start).pointer_down().move_to_location(*end).pointer_up()
        actions.perform()

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
