"""The reference pages name what exists: commands, recipes, packages."""

from __future__ import annotations

import ast
import re

import tshsr
from tests.support.markdown import DOCS, ROOT, read
from tshsr.cli.main import COMMANDS

DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)


def test_the_page_of_commands_lists_every_command() -> None:
    listed = re.findall(r"^\| `tshsr ([\w-]+)", read(DOCS / "reference" / "commands.md"), flags=re.MULTILINE)
    assert sorted(listed) == sorted(COMMANDS)


def test_recipes_that_pages_name_exist() -> None:
    for page in DOCS.rglob("*.md"):
        for name in re.findall(
            r"`((?:tshsr|scan|sgr|saf|vse|two-stream-sgr)-(?:scenes|flickr8k|flickr30k|coco)[\w-]*)`", read(page)
        ):
            assert name in tshsr.RECIPES, f"{page.name}: {name}"


def test_code_in_docstrings_ends_before_a_letter() -> None:
    """A word that goes on after its backtick is no inline literal in reStructuredText."""
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(read(path))):
            text = ast.get_docstring(node) or "" if isinstance(node, DOCUMENTED) else ""
            found = [name for name, rest in re.findall(r"(`[^`]+`)(\w?)", text) if rest]
            assert found == [], path


def test_the_page_about_the_code_names_every_package() -> None:
    section = read(DOCS / "code.md").partition("## Packages")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]*) \|", section, flags=re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    there = {path.stem for path in (ROOT / "src" / "tshsr").iterdir() if path.suffix in ("", ".py")}
    assert named == {name for name in there if not name.startswith("_")}


def test_every_module_of_the_networks_is_in_the_figure_of_the_model() -> None:
    figure = read(DOCS / "model.md").partition("## Overview")[2].partition("## 1.")[0]
    modules = {path.stem for path in (ROOT / "src" / "tshsr" / "models").glob("*.py")} - {"__init__"}
    assert {name for name in modules if not re.search(rf"\b{name}\b", figure)} == set()
