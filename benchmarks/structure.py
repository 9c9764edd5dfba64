"""Size and structure of a checkout, for the table in docs/decisions/0009-restructuring.md.

`python -m benchmarks.structure [CHECKOUT]`: the import graph of the files and packages directly in `tshsr`, lines of
Python, long functions. Works on any commit, because it only reads the source.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path

LONG = 60
"""Lines of a function above which it is listed."""


def structure(checkout: Path) -> dict[str, object]:
    """The figures of a checkout."""
    source = checkout / "src"
    files = {
        ".".join(path.relative_to(source).with_suffix("").parts): path for path in sorted(source.glob("tshsr/**/*.py"))
    }
    trees = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in files.items()}
    nodes = {node_of(name) for name in files}
    edges = {(node_of(name), other) for name, tree in trees.items() for other in imported(tree, nodes)}
    functions = [f"{name}.{function}" for name, tree in trees.items() for function in long_functions(tree)]
    lines, tests = (count_lines(folder) for folder in (source, checkout / "tests"))
    return {
        "nodes": len(nodes),
        "edges": len({edge for edge in edges if edge[0] != edge[1]}),
        "top_modules": len(list(source.glob("tshsr/*.py"))),
        "modules": len(files),
        "source_lines": lines,
        "test_lines": tests,
        "long_functions": functions,
    }


def node_of(module: str) -> str:
    """The file or package directly in `tshsr`."""
    return [*module.split("."), "__init__"][1]


def imported(tree: ast.Module, nodes: set[str]) -> Iterator[str]:
    """The nodes that a file imports, inside functions too; names of `tshsr` itself are `__init__`."""
    for part in ast.walk(tree):
        if isinstance(part, ast.Import):
            names = [alias.name for alias in part.names]
        elif isinstance(part, ast.ImportFrom):
            names = [f"{part.module}.{alias.name}" for alias in part.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "tshsr":
                yield node_of(name) if node_of(name) in nodes else "__init__"


def long_functions(tree: ast.Module) -> list[str]:
    """The names of functions of more than `LONG` lines, docstrings included."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [node.name for node in functions if (node.end_lineno or node.lineno) - node.lineno + 1 > LONG]


def count_lines(folder: Path) -> int:
    """Lines of all Python files in a folder."""
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in folder.rglob("*.py"))


if __name__ == "__main__":
    place = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent
    sys.stdout.write(json.dumps(structure(place), indent=2) + "\n")
