"""Ctrl-C at any moment: one line, exit code 130, no traceback, in the first process and in its workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.gated import WORKER_STARTS, at_gate, on_import
from tshsr.system import interrupts_held

DEMO = ("demo", "--train", "120", "--dev", "1", "--test", "1", "--device", "cpu")


@pytest.mark.parametrize(
    "module", ["tshsr.errors", "rich.console", "tshsr.cli.demo", "numpy", "torch", "tshsr.scoring.all_pairs"]
)
def test_ctrl_c_while_the_program_imports_is_one_line(tmp_path: Path, module: str) -> None:
    gate = on_import(module, worker=False)
    with at_gate(tmp_path, gate, [*DEMO, "--out", str(tmp_path / "demo")]) as process:
        process.interrupt()
        said = process.end()
    assert said == "tshsr: interrupted; run the same command again; it starts from the beginning.\n"
    assert process.code == 130
    assert not (tmp_path / "demo").exists()


def test_ctrl_c_inside_exec_of_a_string_has_the_same_exit_code(tmp_path: Path) -> None:
    gate = on_import("tshsr.cli.demo", worker=False).replace("wait()", "exec('wait()', globals())")
    with at_gate(tmp_path, gate, [*DEMO, "--out", str(tmp_path / "demo")]) as process:
        process.interrupt()
        said = process.end()
    assert said == "tshsr: interrupted; run the same command again; it starts from the beginning.\n"
    assert process.code == 130


def test_ctrl_c_that_an_import_swallows_is_not_an_internal_error(tmp_path: Path) -> None:
    swallow = (
        "\n            try: wait()\n            except KeyboardInterrupt: raise ImportError('half imported') from None"
    )
    gate = on_import("numpy", worker=False).replace("\n            wait()", swallow)
    with at_gate(tmp_path, gate, [*DEMO, "--out", str(tmp_path / "demo")]) as process:
        process.interrupt()
        said = process.end()
    assert said == "tshsr: interrupted; run the same command again; it starts from the beginning.\n"
    assert process.code == 130


def test_ctrl_c_while_a_drawing_process_starts_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with at_gate(tmp_path, WORKER_STARTS, [*DEMO, "--out", str(tmp_path / "demo")]) as process:
        process.interrupt()
        process.open_gate()
        said = process.end()
    assert said.splitlines() == [
        "drawing 122 scenes, unless they are cached",
        "tshsr: interrupted; run the same command again; it starts from the beginning.",
    ]
    assert process.code == 130
    assert list((tmp_path / "cache" / "tshsr").iterdir()) == []


def test_a_held_interrupt_comes_when_the_block_ends() -> None:
    reached = []

    def interrupt_and_go_on() -> None:
        with interrupts_held():
            signal.raise_signal(signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            reached.append("the end of the block")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            interrupt_and_go_on()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    finally:
        signal.signal(signal.SIGINT, before)
    assert reached


def test_a_process_started_meanwhile_never_gets_the_interrupt() -> None:
    script = "import os, signal; os.kill(os.getpid(), signal.SIGINT); print('goes on')"
    with interrupts_held():
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.communicate(timeout=60) == ("goes on\n", None)
