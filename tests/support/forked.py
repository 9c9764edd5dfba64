"""Processes of their own that start fast: forked from one that has imported torch, for tests that kill or interrupt.

An interpreter that imports torch takes two seconds of a core. A process from here runs a function of a module in
`tests.support`, a program or a command, with the test's environment, as a new interpreter would after its imports.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

PRELOADED = (
    *(
        "torch",
        "torch._dynamo",
        "tshsr.training.fit",
        "tshsr.evaluation.run",
        "tshsr.retriever",
        "torch.distributed.launcher.api",
    ),
    # Most of the time of lancedb's import; lancedb itself starts a thread, and threads do not survive a fork.
    *("pyarrow.dataset", "lance_namespace_urllib3_client", "fastapi", "uvicorn"),
)
"""Modules that are imported once; those that are not installed are left out."""
LINUX = sys.platform.startswith("linux")
STARTS = multiprocessing.get_context("forkserver" if LINUX else "spawn")
"""Elsewhere a fork after imports is not safe, or there is none."""


@dataclass
class Forked:
    """A running process, with the names of `subprocess.Popen`."""

    process: BaseProcess
    stdout: TextIOWrapper
    stderr: TextIOWrapper

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code; minus the signal that ended the process; None while it runs."""
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.process.kill()

    def wait(self, timeout: float = 600) -> int | None:
        self.process.join(timeout)
        assert self.process.exitcode is not None, "still running"
        return self.process.exitcode

    def communicate(self, timeout: float = 600) -> tuple[str, str]:
        """Wait for the end; returns the rest of stdout and stderr, each at most what a pipe holds."""
        self.wait(timeout)
        return self.stdout.read(), self.stderr.read()


@contextmanager
def forked(run: Callable[..., object], *arguments: object) -> Iterator[Forked]:
    """Run a function in a process of its own; afterwards, the process is killed if it still runs."""
    STARTS.set_forkserver_preload(list(PRELOADED))
    (out, out_end), (err, err_end) = STARTS.Pipe(duplex=False), STARTS.Pipe(duplex=False)
    process = STARTS.Process(target=in_child, args=(out_end, err_end, dict(os.environ), run, arguments))
    process.start()
    out_end.close()
    err_end.close()
    with out, err, open(out.fileno(), closefd=False) as stdout, open(err.fileno(), closefd=False) as stderr:
        try:
            yield Forked(process, stdout, stderr)
        finally:
            process.kill()
            process.join()


def in_child(
    out: Connection,
    err: Connection,
    environment: Mapping[str, str],
    run: Callable[..., object],
    arguments: tuple[object, ...],
) -> None:
    """What the process does: take the test's environment and the pipes, answer to Ctrl-C, run the function."""
    os.environ.clear()
    os.environ.update(environment)
    for stream, end in ((sys.stdout, out), (sys.stderr, err)):
        stream.flush()
        os.dup2(end.fileno(), stream.fileno())
        end.close()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    run(*arguments)


def program(code: str, *words: str) -> None:
    """`python -c CODE WORDS`, as a process."""
    sys.argv = ["-c", *words]
    exec(code, {"__name__": "__main__"})


def command(*words: str) -> None:
    """`tshsr` with these words, as a process."""
    from tshsr.cli.main import main

    sys.argv = ["tshsr", *words]
    sys.exit(main())


def answer_of(run: Callable[..., object], *arguments: Any) -> tuple[int | None, str, str]:
    """Run a function in a process of its own until it ends: its exit code, stdout and stderr."""
    with forked(run, *arguments) as process:
        said = process.communicate()
    return process.returncode, *said
