"""The quick form of `make fuzz`: a few mutated inputs for every reader; all are read, or refused by a sentence."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from reliability.fuzz import READERS, WHOLE
from tests.support.forked import answer_of, program

WHOLE_ONLY = ("uploads", "requests by schemathesis")
"""Readers of the whole campaign alone: their processes load the server anew, and `requests` has pictures, too."""
pytestmark = pytest.mark.skipif(os.name != "posix", reason="limits of processes are those of POSIX")


def test_every_reader_survives_mutated_inputs(tmp_path: Path) -> None:
    quick = [reader.name for reader in READERS if reader.name not in WHOLE_ONLY]
    words = ["--share", "0.003", "--out", str(tmp_path), "--seed", "100"]
    words += [word for name in quick for word in ("--reader", name)]
    code, out, err = answer_of(program, f"import sys; from reliability.fuzz import main; sys.exit(main({words!r}))")
    assert code == 0, out + err
    values = json.loads((tmp_path / "fuzz.json").read_text())
    assert values["command"] == "make fuzz"
    assert [row["what"] for row in values["rows"]] == quick
    assert sum(row["tried"] for row in values["rows"]) > 250
    assert not any(row["lost"] for row in values["rows"])


def test_a_whole_campaign_has_its_number_of_inputs() -> None:
    assert sum(reader.inputs for reader in READERS) >= WHOLE
