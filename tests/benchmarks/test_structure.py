"""The figures of a checkout's structure, on one that is small enough to count by hand."""

from __future__ import annotations

from pathlib import Path

from benchmarks.structure import structure


def test_a_small_checkout_is_counted(tmp_path: Path) -> None:
    package = tmp_path / "src" / "tshsr"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "errors.py").write_text("import json\n")
    (package / "models" / "__init__.py").write_text("")
    (package / "models" / "base.py").write_text("from tshsr.errors import TshsrError\nfrom tshsr.models import base\n")
    (package / "cli.py").write_text(
        "def main():\n    from tshsr import load\n    import tshsr.models.base\n" + "    1\n" * 60
    )
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").write_text("1\n2\n")
    assert structure(tmp_path) == {
        "nodes": 4,
        "edges": 3,  # models -> errors, cli -> __init__, cli -> models
        "top_modules": 3,
        "modules": 5,
        "source_lines": 66,
        "test_lines": 2,
        "long_functions": ["tshsr.cli.main"],
    }
