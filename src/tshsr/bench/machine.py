"""The machine's own limits: how fast it multiplies matrices, how much memory a piece of work takes at its peak."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path

import torch

from tshsr.allocator import trim

SIZES = ((2048, 2048, 2048), (9216, 1024, 2048), (8192, 1024, 256))
"""Rows, inner width and columns of the products that are timed: a square one, and shapes like those of scoring."""
REPEATS = 5
STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """How long a piece of work takes."""
    synchronise(device)
    start = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - start


@torch.inference_mode()
def gemm_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of large matrix products: the best of several shapes and tries."""
    best = 0.0
    for rows, inner, columns in SIZES:
        left = torch.randn(rows, inner, device=device).to(dtype)
        right = torch.randn(inner, columns, device=device).to(dtype)
        out = left @ right
        for _ in range(REPEATS):
            took = seconds_of(lambda a=left, b=right, o=out: torch.matmul(a, b, out=o), device)  # type: ignore[misc]
            best = max(best, 2 * rows * inner * columns / took)
    return best


def peak_of(work: Callable[[], object], device: torch.device) -> int | None:
    """Bytes that a piece of work adds at its peak to what was there; None where the system does not tell."""
    gc.collect()
    trim()  # what is free but kept would hide what the work takes
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    if not (STATUS.exists() and CLEAR.exists()):
        return None
    CLEAR.write_text("5", encoding="ascii")  # the peak begins anew
    before = resident("VmRSS")
    work()
    return max(0, resident("VmHWM") - before)


def resident(name: str) -> int:
    """VmRSS (now) or VmHWM (peak) of this process in bytes."""
    line = next(line for line in STATUS.read_text(encoding="ascii").splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024
