"""The tests themselves: what they share, and which of them are slow."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
FILES = sorted(TESTS.rglob("*.py"))
MOST_SLOW = 60
"""Tests marked slow, parameters counted once, at most."""


def imported(tree: ast.Module) -> set[str]:
    """Modules that a file imports, and the names that it imports from packages."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(TESTS)))
def test_no_file_imports_a_test_module_or_a_conftest(path: Path) -> None:
    own = [name.split(".") for name in imported(ast.parse(path.read_text(encoding="utf-8")))]
    parts = {part for name in own if name[0] == "tests" for part in name}
    assert not {part for part in parts if part.startswith("test_") or part == "conftest"}


def test_few_tests_are_marked_slow(pytestconfig: pytest.Config) -> None:
    assert any(line.startswith("slow:") for line in pytestconfig.getini("markers"))
    marked = sum(path.read_text(encoding="utf-8").count("@pytest.mark." + "slow\n") for path in FILES)
    assert 0 < marked <= MOST_SLOW
