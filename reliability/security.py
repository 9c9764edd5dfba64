"""The tests of every row of the threat table in SECURITY.md, counted into `results/security.json`.

python -m reliability.security
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from reliability.results import Row, summary, write_result
from tshsr.errors import DataError

ROOT = Path(__file__).resolve().parents[1]
HEADER = "| threat | defence | tests |"


@dataclass(frozen=True)
class Threat:
    """A row of the table.

    Attributes:
        tests: Files, or tests in files, as pytest names them.
    """

    what: str
    tests: tuple[str, ...]


def threats_of(text: str) -> list[Threat]:
    """The rows of the threat table."""
    lines = iter(text.splitlines())
    for line in lines:
        if line == HEADER:
            break
    next(lines, None)
    threats = []
    for line in lines:
        if not line.startswith("|"):
            break
        what, _, tests = (cell.strip() for cell in line.strip("|").split("|"))
        threats.append(Threat(what, tuple(re.findall(r"`([^`]+)`", tests))))
    return threats


def counted(what: str, tests: Sequence[str]) -> Row:
    """Run tests, and count those that passed; a skipped one was not tried.

    Raises:
        DataError: Where pytest did not run them: one wrong name ends it before the first test.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "--quiet", "-p", "no:cacheprovider", f"--junitxml={report}", *tests]
        code = subprocess.run(command, cwd=ROOT, check=False).returncode  # noqa: S603
        if code not in (0, 1):  # 1: tests failed
            raise DataError(f"the tests of {what!r} did not run: pytest ended with code {code}; see above.")
        cases = list(ET.parse(report).getroot().iter("testcase"))  # noqa: S314 - our own report
    tried = [case for case in cases if case.find("skipped") is None]
    failed = [case for case in tried if case.find("failure") is not None or case.find("error") is not None]
    return Row(what, len(tried), len(tried) - len(failed), len(failed), failed[0].get("name", "") if failed else "")


def main() -> None:
    """Run the tests of all rows, and write the result."""
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    threats = threats_of((ROOT / "SECURITY.md").read_text(encoding="utf-8"))
    rows = [counted(threat.what, threat.tests) for threat in threats]
    print(summary(rows))  # noqa: T201
    print(write_result("security", "Threats of SECURITY.md", "make security", rows))  # noqa: T201
    if any(row.lost for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
