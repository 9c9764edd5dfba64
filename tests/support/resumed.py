"""A run that is started or resumed by processes of its own."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests.support.small_runs import small_config, small_split
from tshsr.config.run import RunConfig
from tshsr.training.events import Event
from tshsr.training.fit import fit


def config() -> RunConfig:
    """Its settings."""
    return small_config(epochs=4, candidates=2)


def train(config: RunConfig, folder: Path, **more: Any) -> None:
    """Start or resume the run under `folder`, with its data in the same folder."""
    data = folder / f"data-{os.getpid()}"
    splits = {"train": small_split(data, "train"), "dev": small_split(data, "dev", images=6)}
    fit(config, **splits, out=folder / "run", resume=True, device="cpu", **more)


def train_until_killed(folder: Path, operations: int) -> None:
    """Start or resume; the process kills itself before the operation of that number on files, none for 0."""
    warnings.simplefilter("error")
    done = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*arguments: Any, **named: Any) -> Any:
            nonlocal done
            done += 1
            if done == operations:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **named)

        return operation

    for owner, name in ((os, "fsync"), (Path, "rename"), (Path, "replace"), (Path, "unlink")):
        setattr(owner, name, counted(getattr(owner, name)))

    def listen(_: Event) -> None:
        sys.stdout.write("event\n")
        sys.stdout.flush()

    train(config(), folder, listen=listen)
    sys.stdout.write("finished\n")


def train_together(folder: Path) -> None:
    """Train in two processes, as `torchrun --standalone --nproc-per-node 2` starts them, but forked."""
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    where = {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "run_id": str(uuid4())}
    elastic_launch(LaunchConfig(1, 1, 2, **where, start_method="fork", max_restarts=0), train_as_one_of_them)(folder)


def train_as_one_of_them(folder: Path) -> None:
    """One of the two; it writes how many events it saw."""
    events: list[Event] = []
    train(small_config(epochs=2, batch=10), folder, listen=events.append)
    (folder / f"events{os.environ['RANK']}").write_text(str(len(events)))
