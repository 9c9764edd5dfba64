"""Checks of every page: well-formed, complete, without foreign resources."""

from __future__ import annotations

import re
from html.parser import HTMLParser

EVIL = "a <script>alert(\"1\")</script> & 'red' square </script>"
"""A caption that breaks a page without escaping."""

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Every element of a page; fails on a tag that is not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def of(self, tag: str, css: str | None = None) -> list[dict[str, str | None]]:
        """The elements of a tag, optionally of one class."""
        found = [attributes for name, attributes in self.elements if name == tag]
        return [each for each in found if css is None or css in (each.get("class") or "").split()]


def assert_whole(text: str) -> Page:
    """Assert that a page is well-formed, ids are unique, references are internal, and nothing is loaded."""
    page = Page(text)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    references = re.findall(r'(?:href="|url\()#([^")]+)', text)
    assert set(references) <= set(ids)
    assert not re.search(r"https?:|@import|url\((?!#)", text)
    for _, attributes in page.elements:
        assert (attributes.get("href") or "#").startswith(("#", "data:image/"))
        assert not any(name == "src" or name.startswith("on") for name in attributes)
    return page
