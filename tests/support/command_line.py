"""The command line in this process, and small data and a small run to use it on."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tshsr.cli.main import main
from tshsr.errors import DataError

TINY = (
    *("--model.encoder.dim", "8", "--model.encoder.word-dim", "6", "--model.similarity-dim", "4"),
    *("--model.reasoning.levels", "1", "--model.reasoning.seeds", "2", "--training.epochs", "1"),
    *("--training.batch", "16", "--training.candidates", "0", "--training.minimum-count", "1"),
    *("--loss.relations-warmup-epochs", "0", "--device", "cpu"),
)
"""Settings of a network that trains in no time."""


@dataclass(frozen=True)
class Said:
    """What a command came to."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Its output, which must be JSON and nothing else."""
        assert self.code == 0, self.err
        return json.loads(self.out)


def tshsr(*arguments: str | Path) -> Said:
    """Run a command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    return Said(code, out.getvalue(), err.getvalue())


def refused(*arguments: str | Path) -> str:
    """The sentence of a command that must refuse."""
    said = tshsr(*arguments)
    assert said.code == 2, said
    lines = said.err.splitlines()
    assert lines[-1].startswith("tshsr: "), said.err
    assert not any(line.startswith("tshsr: ") for line in lines[:-1]), said.err
    assert "Traceback" not in said.err
    return lines[-1]


REPORT = {"version", "data", "split", "protocol", "images", "captions", "models", "scores", "hardware", "commit"}
REPORT |= {"rankings", "ranks", "captions_digest"}
"""Keys of every report."""
NAMES = {"fused", "word_stream", "region_stream", "pooled", "level_0", "level_1"}
"""Scores of a TSHSR with two levels."""


def full_disk(path: Path, _text: str) -> None:
    """In the place of a function that writes a file."""
    raise DataError(f"Cannot write {path.name}: the disk is full.")
