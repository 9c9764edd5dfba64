"""Processes that form a group, as torchrun starts them, but forked and without its agent: the start is cheap."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests.support.forked import Forked, forked

LONGEST, PATIENCE = 500.0, 20.0
"""Seconds for which a group may run, and after the failure of one process."""


def together(count: int, run: Callable[..., object], folder: Path, *arguments: object) -> None:
    """Run a function in `count` processes of a group; each must end without an error."""
    processes = ended(count, run, folder, *arguments)
    assert not any(code for code, _ in processes), "\n".join(errors for _, errors in processes)


def ended(count: int, run: Callable[..., object], folder: Path, *arguments: object) -> list[tuple[int | None, str]]:
    """Run a function in `count` processes of a group until all end: exit codes and stderr.

    Where one fails, the others have `PATIENCE` seconds to notice.
    """
    store = folder / f"store-{uuid4()}"
    with ExitStack() as stack:
        started: list[Forked] = [
            stack.enter_context(forked(member, number, count, store, run, arguments)) for number in range(count)
        ]
        running = {process.process.sentinel: process for process in started}
        while running:
            failed = any(process.returncode for process in started)
            over = wait(running, PATIENCE if failed else LONGEST)
            for process in [running.pop(each) for each in over] if over else running.values():  # type: ignore[call-overload]
                process.kill()
                process.process.join()
        return [(process.returncode, process.stderr.read()) for process in started]


def member(number: int, count: int, store: Path, run: Callable[..., Any], arguments: tuple[object, ...]) -> None:
    """One process of the group."""
    import torch.distributed as dist

    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    os.environ.update(dict(zip(names, map(str, (number, number, count, count)), strict=True)))
    warnings.simplefilter("error")
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=number, world_size=count)
    try:
        run(*arguments)
    finally:
        dist.destroy_process_group()
