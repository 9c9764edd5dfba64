"""A local cluster of two workers; one a test process, started for the first test that needs it."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def cluster(storage: str) -> Iterator[None]:  # first the storage, which workers find by the environment
    import gc
    import logging
    import warnings

    import ray

    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")  # of Ray's own code
        patch.setenv("RAY_worker_niceness", "0")  # its default, 15, starves them beside the other tests
        ray.init(
            num_cpus=2,
            object_store_memory=100 * 2**20,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray's processes, which it leaves to the collector
        ray.shutdown()
        gc.collect()
