"""Markdown pages as the tests of the documentation read them: code blocks, links, headings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = tuple(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")) + tuple(
    sorted(DOCS.rglob("*.md"))
)
"""Every page; the tutorial makes the data and runs that the guides use."""
FENCE = re.compile(
    r"^(?P<ticks>`{3,})(?P<language>[^\s`]*)[^\n]*\n(?P<text>.*?)^(?P=ticks)[ \t]*$", re.MULTILINE | re.DOTALL
)
REASON = re.compile(r"<!-- not run: (?P<reason>[^>]+) -->\n\Z")


@dataclass(frozen=True)
class Block:
    """A fenced block of code.

    Attributes:
        line: Where it begins in its page, from 1.
        reason: Why it cannot be executed, from the comment `<!-- not run: ... -->` above it.
    """

    page: Path
    line: int
    language: str
    text: str
    reason: str | None

    @property
    def place(self) -> str:
        """Page and line."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = read(page)
    blocks = []
    for match in FENCE.finditer(text):
        before = text[: match.start()]
        reason = REASON.search(before)
        blocks.append(
            Block(page, before.count("\n") + 1, match["language"], match["text"], reason and reason["reason"])
        )
    return blocks


@cache
def read(page: Path) -> str:
    """The text of a page."""
    return page.read_text(encoding="utf-8")


def prose(page: Path) -> str:
    """A page without its fenced blocks and code between backticks."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", read(page)))


def links_of(page: Path) -> list[str]:
    """The targets of all links and images of a page."""
    found = re.findall(r"\]\(<?([^)>\s]+)>?(?:\s+\"[^\"]*\")?\)", prose_with_code(page))
    return [*found, *re.findall(r"<(https?://[^>\s]+)>", prose(page))]


def prose_with_code(page: Path) -> str:
    """A page without its fenced blocks; link texts may be code."""
    return FENCE.sub("", read(page))


def anchors_of(page: Path) -> set[str]:
    """How the headings of a page are linked to."""
    return {anchor_of(heading) for heading in re.findall(r"^#+ (.*)$", prose_with_code(page), flags=re.MULTILINE)}


def anchor_of(heading: str) -> str:
    """GitHub's form of a heading: no markup, lower case, no punctuation, a hyphen a space."""
    words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
    return re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
