"""Measurements of the machine: rate of matrix products, peak memory of a function."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch

from tshsr.evaluation.compile import tf32_products
from tshsr.system import trim

SIZES = ((2048, 2048, 2048), (4608, 1024, 1024), (8192, 1024, 256))
"""Rows, inner width and columns of the timed products: a square one, and shapes like those of scoring."""
GPU_SIZES = ((8192, 8192, 8192), (16384, 4096, 4096))
"""The same for a GPU."""
WARM_UP = 3
"""Warm-up rounds: thread start, and processor clock."""
STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has finished its queue; no-op on other devices."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call."""
    synchronise(device)
    start = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - start


class Products:
    """Large matrix products in one precision, for repeated measurements of their rate; `tf32` of float32 alone."""

    def __init__(self, device: torch.device, dtype: torch.dtype, *, tf32: bool = False) -> None:
        self.device = device
        self.tf32 = tf32
        sizes = GPU_SIZES if device.type == "cuda" else SIZES
        self.operands = [
            (torch.randn(rows, inner, device=device).to(dtype), torch.randn(inner, columns, device=device).to(dtype))
            for rows, inner, columns in sizes
        ]
        self.best = 0.0
        for _ in range(WARM_UP):
            self.rate()

    @torch.inference_mode()
    def rate(self) -> float:
        """Floating-point operations per second of the fastest shape."""
        found = 0.0
        for left, right in self.operands:
            with tf32_products() if self.tf32 else nullcontext():
                taken = seconds_of(partial(torch.matmul, left, right), self.device)
            found = max(found, 2 * left.shape[0] * left.shape[1] * right.shape[1] / taken)
        self.best = max(self.best, found)
        return found


def peak_of(work: Callable[[], object], device: torch.device) -> int | None:
    """Peak memory that a call adds, in bytes; None where the system does not report it."""
    gc.collect()
    trim()  # freed memory kept by the allocator would hide the allocations of the call
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    if not clear_peak():
        return None
    before = resident("VmRSS")
    work()
    return max(0, resident("VmHWM") - before)


def clear_peak() -> bool:
    """Reset VmHWM of this process to VmRSS; False where the system does not allow it."""
    try:
        CLEAR.write_text("5", encoding="ascii")
    except OSError:  # no such file, or not allowed in a container
        return False
    return True


def resident(name: str) -> int:
    """VmRSS (now) or VmHWM (peak) of this process in bytes."""
    line = next(line for line in STATUS.read_text(encoding="ascii").splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024
