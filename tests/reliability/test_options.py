"""Wrong options of a campaign end it in a sentence, before any work."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from pathlib import Path

import pytest

from reliability.options import above_zero, existing_folder, from_least, named


@pytest.mark.parametrize("text", ["-1", "0", "1.5", "", "x", "--2"])
def test_a_number_below_the_least_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError) as caught:
        from_least(1)(text)
    assert str(caught.value) == f"expected a whole number from 1 up, got {text!r}"
    assert from_least(0)("0") == 0


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "x", ""])
def test_a_duration_is_above_zero(text: str) -> None:
    with pytest.raises(ArgumentTypeError) as caught:
        above_zero(text)
    assert str(caught.value) == f"expected a number above 0, got {text!r}"
    assert above_zero("0.5") == 0.5


def test_results_go_to_a_folder_that_exists(tmp_path: Path) -> None:
    assert existing_folder(str(tmp_path)) == tmp_path
    with pytest.raises(ArgumentTypeError, match=r"missing' is no folder; make it, or name another one$"):
        existing_folder(str(tmp_path / "missing"))


def test_a_word_in_no_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    parser, names = ArgumentParser(), ["store", "token store", "config"]
    assert named(parser, "--kind", None, names) == names
    assert named(parser, "--kind", ["config", "token"], names) == ["token store", "config"]
    with pytest.raises(SystemExit):
        named(parser, "--kind", ["store", "nothing"], names)
    expected = "'nothing' is in no name; expected a part of one of: store, token store, config\n"
    assert capsys.readouterr().err.endswith(f"error: argument --kind: {expected}")
