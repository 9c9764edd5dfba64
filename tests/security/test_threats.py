"""The threat table of SECURITY.md: each row names tests that exist."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from reliability.results import Row
from reliability.security import ROOT, Threat, counted, threats_of
from tshsr.errors import DataError

THREATS = threats_of((ROOT / "SECURITY.md").read_text(encoding="utf-8"))


def test_the_table_is_read() -> None:
    assert len(THREATS) >= 10
    table = (
        "| threat | defence | tests |\n|---|---|---|\n| a file, read | none | `tests/a.py`, `tests/b.py::test_c` |\n"
    )
    assert threats_of(table) == [Threat("a file, read", ("tests/a.py", "tests/b.py::test_c"))]


@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.what[:30])
def test_the_tests_of_a_threat_exist(threat: Threat) -> None:
    assert threat.tests
    for one in threat.tests:
        path, _, name = one.partition("::")
        functions = [node.name for node in ast.parse(Path(ROOT / path).read_text()).body if hasattr(node, "name")]
        assert any(function.startswith("test_") for function in functions), path
        assert not name or name in functions, one


def test_passed_and_failed_tests_are_counted_and_skipped_ones_are_not(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(
        "import pytest\ndef test_passes(): pass\ndef test_fails(): assert False\n"
        "@pytest.mark.skip\ndef test_skipped(): pass\n"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    assert counted("a threat", [str(tmp_path)]) == Row("a threat", 2, 1, 1, "test_fails")
    with pytest.raises(
        DataError, match=r"^the tests of 'a threat' did not run: pytest ended with code 4; see above\.$"
    ):
        counted("a threat", [str(tmp_path), str(tmp_path / "test_renamed.py")])
