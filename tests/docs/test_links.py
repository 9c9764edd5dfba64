"""Every link of the README and the documentation leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlparse

import pytest

from tests.support.markdown import DOCS, PAGES, ROOT, anchor_of, anchors_of, blocks_of, links_of, read

IDS = [str(page.relative_to(ROOT)) for page in PAGES]


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_to_files_and_headings_lead_somewhere(page: Path) -> None:
    for link in links_of(page):
        target, _, anchor = link.partition("#")
        if urlparse(link).scheme:
            continue
        file = page if not target else (page.parent / target).resolve()
        assert file.is_file(), f"{page.name}: {link}"
        assert file.is_relative_to(ROOT), f"{page.name}: {link} leaves the project"
        if DOCS in page.parents and file.suffix == ".md":
            assert DOCS in file.parents, f"{page.name}: {link} is no page of the site"
        if anchor:
            assert anchor in anchors_of(file), f"{page.name}: {link}; headings: {sorted(anchors_of(file))}"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_to_other_sites_are_well_formed(page: Path) -> None:
    for link in links_of(page):
        parts = urlparse(link)
        if parts.scheme:
            assert parts.scheme == "https", f"{page.name}: {link}"
            assert re.fullmatch(r"[a-z0-9.-]+\.[a-z]{2,}", parts.netloc), f"{page.name}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_a_page_has_one_title_and_no_heading_twice(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", read(page), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^(#+) (.*)$", text, flags=re.MULTILINE)
    assert [level for level, _ in headings].count("#") == 1
    if page.name != "CHANGELOG.md":
        names = [anchor_of(name) for _, name in headings]
        assert len(names) == len(set(names)), page.name


def test_every_page_is_in_the_navigation() -> None:
    linked = {DOCS / "index.md"}
    for page in sorted(DOCS.rglob("*.md")):
        for block in blocks_of(page):
            if block.language == "{toctree}":
                lines = [line for line in block.text.splitlines() if line and not line.startswith(":")]
                linked |= {path for line in lines for path in page.parent.glob(f"{line}.md")}
    assert linked == set(DOCS.rglob("*.md"))


def test_the_readme_is_short_and_links_to_every_section() -> None:
    text = read(ROOT / "README.md")
    assert len(text.splitlines()) <= 120
    linked = {link.split("#")[0] for link in links_of(ROOT / "README.md")}
    top = {f"docs/{page.relative_to(DOCS)}" for page in DOCS.glob("*.md")} - {"docs/index.md"}
    assert top <= linked
    assert {"CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "CITATION.cff"} <= linked


def test_docs_named_in_the_source_exist() -> None:
    for path in sorted((ROOT / "src").rglob("*.py")):
        for name in re.findall(r"\bdocs/[\w/.-]+\.md", path.read_text(encoding="utf-8")):
            assert (ROOT / name).is_file(), f"{path.name}: {name}"
