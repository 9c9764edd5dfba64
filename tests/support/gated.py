"""A command in a process of its own that waits at a chosen point until a test lets it go on.

A `sitecustomize` module on the path runs at the start of every interpreter of the command, before any of our code. It
hooks the chosen point: there the process writes a file and waits for another one. Nothing depends on speed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

WAIT = """
import os, pathlib, sys, time

def wait():
    folder = pathlib.Path(os.environ["GATE"])
    (folder / "reached").touch()
    while not (folder / "open").exists():
        time.sleep(0.01)

WORKER = "spawn_main" in " ".join(sys.orig_argv)
"""
"""`wait()`: report that the point is reached, and wait for the test."""
ON_IMPORT = """
class Gate:
    def find_spec(self, name, path=None, target=None):
        if name == MODULE:
            sys.meta_path.remove(self)
            wait()

if WORKER == IN_WORKER:
    sys.meta_path.insert(0, Gate())
"""
"""Wait where a module is imported."""


def on_import(module: str, *, worker: bool) -> str:
    """The gate at the import of a module, in a worker process or in the command's first process."""
    return f"MODULE, IN_WORKER = {module!r}, {worker}\n{ON_IMPORT}"


WORKER_STARTS = "if WORKER:\n    wait()\n"
"""The first instruction of a worker process."""
WORKER_READS = on_import("PIL.JpegImagePlugin", worker=True)
"""The first picture of a worker process: Pillow imports its decoders when it opens a file."""


@dataclass
class Gated:
    """A command that waits at its gate."""

    process: subprocess.Popen[str]
    folder: Path

    @property
    def code(self) -> int | None:
        """The exit code."""
        return self.process.returncode

    def interrupt(self) -> None:
        """Ctrl-C: SIGINT to every process of the command."""
        os.killpg(self.process.pid, signal.SIGINT)

    def kill(self) -> None:
        """Kill the first process alone, and wait for its end."""
        self.process.kill()
        self.process.wait(timeout=60)

    def children(self) -> list[psutil.Process]:
        """Processes that the command has started."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def open_gate(self) -> None:
        """Let the command go on."""
        (self.folder / "open").touch()

    def end(self) -> str:
        """Wait for the end; returns stderr."""
        return self.process.communicate(timeout=120)[1]


@contextmanager
def at_gate(tmp_path: Path, gate: str, words: Sequence[str], *, module: str = "tshsr") -> Iterator[Gated]:
    """Start `python -m MODULE WORDS` in a process group of its own, and wait until it has reached its gate."""
    folder = tmp_path / "gate"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(WAIT + gate)
    paths = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [sys.executable, "-m", module, *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, "GATE": str(folder)},
        # A shell starts what runs in its background with SIGINT ignored, and children inherit that.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.default_int_handler),
    )
    gated = Gated(process, folder)
    try:
        while not (folder / "reached").exists():
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.01)
        yield gated
    finally:
        gated.open_gate()
        process.kill()
        process.communicate(timeout=60)
