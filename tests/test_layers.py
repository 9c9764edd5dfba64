"""Imports point one way: each package imports the packages below it and nothing above."""

from __future__ import annotations

import ast
import graphlib
import importlib
from pathlib import Path

import pytest

from tests.support.shapes import CHECKED

SOURCE = Path(__file__).resolve().parents[1] / "src"
LAYERS = (
    ("errors", "system"),
    ("files", "config", "boxes", "engines"),
    ("scenes", "metrics"),
    ("data",),
    ("pretrained",),
    ("knowledge",),
    ("features", "models"),
    ("scoring",),
    ("evaluation",),
    ("training",),
    ("retriever",),
    ("explain", "bench"),
    ("index", "pages"),
    ("export", "reranking"),
    ("server", "demo"),
    ("cli",),
    ("__init__", "__main__"),
)
"""From the bottom to the top; a module imports from layers below its own, and a package from itself."""
HEIGHT = {name: height for height, layer in enumerate(LAYERS) for name in layer}
TOP_MODULES = 8
"""Modules directly in `tshsr`, at most."""


def module_name(path: Path) -> str:
    """The dotted name of a source file."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


MODULES = {module_name(path): path for path in sorted(SOURCE.glob("tshsr/**/*.py"))}


def imports(path: Path) -> set[str]:
    """The modules of the package that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {resolved(alias.name) for alias in node.names if alias.name.split(".")[0] == "tshsr"}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            if node.module is not None and node.module.split(".")[0] == "tshsr":
                # `from tshsr.data import check` names a module, `from tshsr.data.check import inspect` a thing in it.
                found |= {resolved(f"{node.module}.{alias.name}", node.module) for alias in node.names}
    return found


def resolved(name: str, parent: str = "") -> str:
    """The module that an import loads."""
    if name in MODULES:
        return name
    return "tshsr.__init__" if (parent or name) == "tshsr" else parent or name


def part(module: str) -> str:
    """The file or package directly in `tshsr`."""
    return module.split(".")[1]


EDGES = {name: imports(path) for name, path in MODULES.items()}


def test_every_module_has_its_place_in_the_order() -> None:
    assert {part(name) for name in MODULES} == set(HEIGHT)


def test_few_modules_lie_outside_the_packages() -> None:
    assert len(list(SOURCE.glob("tshsr/*.py"))) <= TOP_MODULES


def test_the_imports_are_found() -> None:
    assert "tshsr.errors" in EDGES["tshsr.config.run"]
    assert "tshsr.data.generated" in EDGES["tshsr.data.layouts"], "inside a function"
    assert "tshsr.models.base" in EDGES["tshsr.scoring.all_pairs"]
    assert set().union(*EDGES.values()) <= set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_no_module_imports_upwards(module: str) -> None:
    own = part(module)
    for other in EDGES[module]:
        if part(other) != own:
            assert HEIGHT[part(other)] < HEIGHT[own], f"{module} imports {other}, which is not below it"


def test_there_are_no_circles() -> None:
    ordered = {name: edges - {name} for name, edges in EDGES.items()}
    assert set(graphlib.TopologicalSorter(ordered).static_order()) == set(MODULES)


def test_losses_and_metrics_import_no_model() -> None:
    modules = [name for name in MODULES if part(name) == "metrics"]
    for module in ("tshsr.training.losses", "tshsr.training.negatives", *modules):
        assert {part(other) for other in EDGES[module]} <= {"config", "errors", "files", "metrics"}, module


def test_only_the_command_line_prints() -> None:
    for name, path in MODULES.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        prints = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "print"]
        words = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        words |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        draws = any(word.split(".")[0] in ("rich", "tyro") for word in words)
        assert not prints, name
        assert not draws or part(name) == "cli", name


@pytest.mark.parametrize("name", CHECKED)
def test_modules_with_checked_shapes_exist(name: str) -> None:
    importlib.import_module(name)
