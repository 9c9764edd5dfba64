"""The form of the token, and the API reference, under the content security policy of a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.browser_page import Page
from tests.support.fake_index import make_index
from tests.support.listening import listening
from tshsr.server.guard import Limits
from tshsr.server.server import create_app

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

TOKEN = "a-token-of-some-length"


@pytest.fixture
def page(chrome: Chrome, tmp_path: Path) -> Iterator[Page]:
    limits = Limits()
    with listening(create_app(make_index(tmp_path), limits, token=TOKEN), limits) as port:
        yield Page(chrome, f"http://127.0.0.1:{port}/")
        chrome.delete_all_cookies()


def test_the_token_opens_the_page_and_the_api_reference(page: Page) -> None:
    chrome = page.chrome
    chrome.get_log("browser")
    chrome.get(page.address)
    for text in ("a wrong token", TOKEN):
        page.one("#token").send_keys(text)
        page.one("form button").click()
        page.wait(lambda: page.has("#welcome:not([hidden])") or "That is not the token" in page.text("[role=alert]"))
    assert "6 pictures are indexed." in page.text("#collection")
    assert "tshsr-session" not in page.run("return document.cookie"), "scripts do not read it"
    refused = [entry["message"] for entry in chrome.get_log("browser") if entry["level"] == "SEVERE"]
    assert all("status of 401" in message for message in refused), refused
    chrome.get(page.address + "docs")
    page.wait(lambda: page.has(".opblock"))
    assert [entry for entry in chrome.get_log("browser") if "Content Security Policy" in entry["message"]] == []
