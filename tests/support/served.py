"""The real server in a process of its own, over a small index built by the commands."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.command_line import tshsr
from tests.support.forked import Forked, command, forked
from tests.support.small_runs import save_untrained
from tshsr.data.generated import make_scenes

PICTURES = 10


@dataclass(frozen=True)
class Served:
    """A running server.

    Attributes:
        address: Base URL, with a slash at the end.
        pictures: Folder of the served pictures.
    """

    address: str
    process: Forked
    pictures: Path


def make_index(folder: Path) -> Path:
    """Scenes, an untrained network, and an index of its test pictures.

    Returns:
        The index; the scenes are beside it, in `scenes`.
    """
    scenes = make_scenes(folder / "scenes", train=16, dev=6, test=PICTURES, processes=1)
    run = save_untrained(folder / "run", scenes)
    said = tshsr("index", run, "--data", scenes, "--split", "test", "--out", folder / "index", "--device", "cpu")
    assert said.code == 0, said.err
    return folder / "index"


@contextmanager
def serving(index: Path, *more: str) -> Iterator[Served]:
    """`tshsr serve` on a free port until the block ends."""
    with forked(command, "serve", str(index), "--port", "0", "--device", "cpu", *more) as process:
        try:
            line = process.stdout.readline()
            found = re.search(r"http://\S+/", line)
            if found is None:
                process.kill()
                raise AssertionError(f"no address in {line!r}: {process.communicate()[1]}")
            yield Served(found[0], process, index.parent / "scenes")
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                process.wait()
