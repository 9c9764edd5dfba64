"""A local cluster of two workers; one a test process, started for the first test that needs it."""

from collections.abc import Iterator

import pytest

STARTS = 3
"""Attempts: on a busy machine a start may take longer than the 30 s that Ray allows."""


@pytest.fixture(scope="session")
def cluster(storage: str) -> Iterator[None]:  # first the storage, which workers find by the environment
    import gc
    import warnings

    import ray

    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")  # of Ray's own code
        patch.setenv("RAY_worker_niceness", "0")  # its default, 15, starves them beside the other tests
        for number in range(STARTS):
            try:
                start()
            except Exception:
                ray.shutdown()
                if number == STARTS - 1:
                    raise
            else:
                break
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray's processes, which it leaves to the collector
        ray.shutdown()
        gc.collect()


def start() -> None:
    import logging

    import ray

    ray.init(
        num_cpus=2,
        object_store_memory=100 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
