"""What holds for every test: one thread a process, checked shapes, a fixed seed, and the shared fixtures."""

import gc
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support.shapes import check_on_import

# Before torch is imported, and inherited by the processes that tests start: each worker has a core of its own, and
# threads that wait for others spin. Tests about threads set the number that they need.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[variable] = "1"

# Before triton is imported: its kernels run on the processor, unless the run is for a GPU and says so.
os.environ.setdefault("TRITON_INTERPRET", "1")

pytest_plugins = ["tests.support.fixtures"]

check_on_import()

SHARED = Path(__file__).parent.parent.parent / "shared"


# What is imported and collected never becomes garbage: the collector need not look for any among it, then or later.
gc.disable()


def pytest_collection_finish() -> None:
    import hypothesis  # noqa: F401 - its plugin imports it at the end of a run, and asks the collector for an object then

    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # triton reports what is never collected


def pytest_xdist_auto_num_workers() -> int:
    """One worker per usable core for `-n auto` (the default counts cores that this process may not use)."""
    from tshsr.system import usable_cores

    return usable_cores()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _no_flushes() -> Iterator[None]:
    """What the system keeps for the disk is what a test reads: no test can cut the power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)  # which refuses a closed file too
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_commit() -> Iterator[None]:
    """The checkout stays as it is while the tests run: git is asked once."""
    from tshsr import system

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(system, "commit_of", cache(system.commit_of))
        yield


@pytest.fixture(autouse=True)
def _seeded() -> None:
    import torch

    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _bfloat16_is_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests of bfloat16 measure it on every processor, also without instructions for it."""
    monkeypatch.setattr("tshsr.scoring.precision.product_speed", lambda *_: 1.0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real data next to the checkout; tests that need it are skipped without it."""
    if not SHARED.is_dir():
        pytest.skip("the folder of shared data is not beside this checkout")
    return SHARED
