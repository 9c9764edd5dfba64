"""Private words do not come back: names and prose use the terms of the field (docs/glossary.md)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.markdown import PAGES, ROOT

BANNED = (
    "Believer",
    "Nobody",
    "Quick",
    "Shortcuts",
    "are told",
    "believer",
    "is told",
    "nobody",
    "quickened",
    "settling",
    "so many",
    "so-manieth",
    "stand_alone",
    "told_why",
    "untold",
    "witness",
    "witnesses",
)
"""Words that readers of the code stumbled over; `docs/decisions/0009-restructuring.md` has what replaced them."""
HISTORY = ("docs/decisions/0009-restructuring.md", "CHANGELOG.md")
"""Pages that name old words on purpose."""
SOURCES = tuple(
    path
    for folder in ("src", "tests", "benchmarks")
    for suffix in ("py", "js", "css", "html", "jinja", "j2")
    for path in sorted((ROOT / folder).rglob(f"*.{suffix}"))
)


def found_in(path: Path) -> list[str]:
    """Every banned word of a file, with its line."""
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, BANNED))})\b")
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
    return [
        f"{path.relative_to(ROOT)}:{number}: {match[0]}" for number, line in lines for match in pattern.finditer(line)
    ]


def test_no_file_uses_a_banned_word() -> None:
    pages = [page for page in PAGES if str(page.relative_to(ROOT)) not in HISTORY]
    found = [place for path in (*SOURCES, *pages) if path != Path(__file__) for place in found_in(path)]
    assert not found, "\n".join(found)


def test_files_are_searched() -> None:
    assert len(SOURCES) > 200


def test_a_banned_word_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.docs.test_words.ROOT", tmp_path)
    (tmp_path / "page.md").write_text("the so-manieth caption\nretold, settlings\n")
    assert found_in(tmp_path / "page.md") == ["page.md:1: so-manieth"]
