"""Help and comparisons load no network library, which takes a second or two."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tshsr.cli.main import COMMANDS

HEAVY = ("accelerate", "lancedb", "pyarrow", "scipy.stats", "tensorboard", "tokenizers", "torch", "transformers")
SCRIPT = """
import contextlib, io, sys
from tshsr.cli.main import main

for words in {words}:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main(words) == 0, words
    assert out.getvalue(), words
    loaded = [name for name in {heavy} if name in sys.modules]
    assert not loaded, (words, loaded)
"""


def run_without_torch(words: list[list[str]], *, heavy: tuple[str, ...] = HEAVY) -> None:
    """Run commands in a process of their own, which fails where one loads a heavy library."""
    script = SCRIPT.format(words=words, heavy=heavy)
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr


def test_the_help_of_every_command_loads_no_network_library() -> None:
    commands = [*COMMANDS, "data info", "data check", "data convert", "train tshsr-scenes", "knowledge build"]
    run_without_torch([["--help"], ["--version"], *([*command.split(), "--help"] for command in commands)])


def test_the_help_loads_neither_numpy_nor_pydantic() -> None:
    run_without_torch([["--help"]], heavy=(*HEAVY, "numpy", "pydantic", "PIL"))


def test_comparing_two_reports_loads_no_torch(rivals: Path) -> None:
    reports = [str(rivals / "a0.json"), str(rivals / "b0.json")]
    run_without_torch([["compare", *reports, "--resamples", "400"]], heavy=("torch", "transformers", "lancedb"))


def test_auditing_a_log_loads_no_torch(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("rsum: 500.0\n")
    run_without_torch([["audit-log", str(log)]], heavy=("torch", "transformers", "lancedb"))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_a_module_of_its_name(command: str) -> None:
    assert (Path(__file__).parents[2] / "src" / "tshsr" / "cli" / f"{command.replace('-', '_')}.py").is_file()
