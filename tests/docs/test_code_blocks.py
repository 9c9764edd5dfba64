"""Every code block of the README and the documentation is executed, or says why not."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest

import tshsr
from tests.support.documentation import SHOWN, SMALLER, check_line, commands_of, run_blocks
from tests.support.markdown import DOCS, PAGES, ROOT, Block, blocks_of, read

CODE = [page for page in PAGES if any(block.language not in SHOWN for block in blocks_of(page))]
BLOCKS = [block for page in PAGES for block in blocks_of(page)]


@pytest.mark.parametrize("page", CODE, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_blocks_run(page: Path, docs_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(docs_folder)
    if page != DOCS / "tutorial.md":  # it has run when the folder was made
        run_blocks(page)


def test_the_tutorial_leaves_what_the_guides_use(docs_folder: Path) -> None:
    for name in ("scenes-small/manifest.json", "runs/first/config.json", "first.json", "page.html", "index-small"):
        assert (docs_folder / name).exists(), name


def test_every_kind_of_block_is_known() -> None:
    for block in BLOCKS:
        assert block.language in (*SHOWN, "python", "sh"), block.place


def test_a_block_that_is_not_run_says_why() -> None:
    for block in BLOCKS:
        assert block.reason is None or len(block.reason.split()) >= 3, block.place


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.language == "sh" and block.reason], ids=lambda block: block.place
)
def test_commands_that_are_not_run_exist_with_their_options(block: Block) -> None:
    for line in commands_of(block):
        check_line(shlex.split(line, comments=True), block)


def test_no_code_hides_in_an_indented_block() -> None:
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", read(page), flags=re.MULTILINE | re.DOTALL)
        hidden = re.findall(r"^    (?:tshsr|make|pip|python|import|from) .*$", text, flags=re.MULTILINE)
        assert not hidden, f"{page.name}: {hidden}"


def test_the_sizes_that_tests_reduce_are_those_of_the_pages() -> None:
    for shown in SMALLER:
        assert any(shown in block.text for block in BLOCKS), shown


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.language == "python"], ids=lambda block: block.place
)
def test_examples_import_public_names_only(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tshsr":
            assert node.module == "tshsr" or node.module in public_modules(), block.place
            if node.module == "tshsr":
                assert {alias.name for alias in node.names} <= {*tshsr.__all__, "Index"}, block.place
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "tshsr":
            assert node.attr in {*tshsr.__all__, "Index"}, f"{block.place}: tshsr.{node.attr}"


def public_modules() -> set[str]:
    """The modules with a section in the reference."""
    pages = "".join(read(page) for page in (DOCS / "reference").glob("*.md"))
    return set(re.findall(r"^\.\. automodule:: (\S+)$", pages, flags=re.MULTILINE))
