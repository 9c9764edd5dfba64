"""Bulk work on Ray Data: a pool of workers, on this machine or on a cluster.

A worker that dies is replaced, and its shard runs again: its result arrives once, because the worker returns it whole.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, cast

from tshsr.engines.work import SHARD, Found, Shard
from tshsr.errors import DataError, SettingsError, TshsrError

ATTEMPTS = 4
"""Workers that may die on one shard, by default; one that kills every worker would run for ever."""
ADDRESS = "RAY_ADDRESS"
"""Environment variable with the address of a running cluster."""
STATISTICS = "RAY_USAGE_STATS_ENABLED"
"""Environment variable of Ray's usage statistics, which are off unless the user has set it."""


@dataclass(frozen=True)
class RayEngine:
    """Workers of Ray Data.

    Attributes:
        workers: Their number, each with one task at a time.
        shard: Items of a shard.
        cpus: Processor cores that a worker reserves.
        gpus: GPUs that a worker reserves.
        attempts: Workers that may die on one shard.
    """

    workers: int
    shard: int = SHARD
    cpus: int = 1
    gpus: int = 0
    attempts: int = ATTEMPTS

    def run(
        self, prepare: Callable[[], Callable[[Shard], Found]], shards: Sequence[Shard], *, ordered: bool = False
    ) -> Iterator[tuple[int, Found]]:
        """The results of all shards; see `Engine.run`."""
        import ray
        import ray.data
        from ray import cloudpickle
        from ray.exceptions import RayError

        if not shards:
            return
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors are raised, too
        with data_settings(ordered=ordered):
            # Both are kept until the end: a worker that replaces another one reads them again.
            work = ray.put(cloudpickle.dumps(prepare))  # type: ignore[no-untyped-call]
            attempts = ray.remote(num_cpus=0)(Attempts).remote()
            rows = [{"number": number, "shard": pickle.dumps(shard)} for number, shard in enumerate(shards)]
            results = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
                cast(Any, Worker),
                fn_constructor_args=([work, attempts], self.attempts),
                compute=ray.data.ActorPoolStrategy(size=min(self.workers, len(rows)), max_tasks_in_flight_per_actor=1),
                num_cpus=self.cpus,
                num_gpus=self.gpus,
            )
            try:
                for row in results.iter_rows():
                    # Written by a worker of this program.
                    found = pickle.loads(row["found"])  # noqa: S301  # nosec B301
                    if isinstance(found, TshsrError):
                        raise found
                    yield int(row["number"]), found
            except RayError as error:
                raise failure(error) from error
            finally:
                del work, attempts


@contextmanager
def data_settings(*, ordered: bool) -> Iterator[None]:
    """Ray Data without progress bars, and with results in order where wanted; the caller's settings come back."""
    import ray.data

    context = ray.data.DataContext.get_current()
    options = context.execution_options
    before = context.enable_progress_bars, options.preserve_order
    context.enable_progress_bars, options.preserve_order = False, ordered
    try:
        yield
    finally:
        context.enable_progress_bars, options.preserve_order = before


class Attempts:
    """Counts how often each shard was begun; outlives the workers."""

    def __init__(self) -> None:
        self.begun: Counter[int] = Counter()

    def begin(self, shard: int) -> int:
        """The number of this attempt, from 1."""
        self.begun[shard] += 1
        return self.begun[shard]


class Worker:
    """A process of the pool; Ray repeats the shard of one that dies, without end.

    Args:
        shared: References to the pickled function that returns the function of one shard, and to the attempts.
        most: Attempts.
    """

    def __init__(self, shared: Sequence[Any], most: int) -> None:
        import ray
        from ray import cloudpickle

        self.attempts, self.most = shared[1], most
        self.failed: TshsrError | None = None
        try:
            self.work: Callable[[Any], Any] = cloudpickle.loads(ray.get(shared[0]))()
        except TshsrError as error:  # a worker that does not start would be started again and again
            self.failed = error

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """The result of a shard, or its error."""
        import ray

        try:
            attempt = ray.get(self.attempts.begin.remote(int(row["number"])))
            if attempt > self.most:
                raise DataError(
                    f"{self.most} workers of Ray died on shard {row['number']}; give them more memory, or less work at "
                    "a time with --shard."
                )
            # Written by the process that started this one.
            found = self.failed or self.work(pickle.loads(row["shard"]))  # noqa: S301  # nosec B301
        except TshsrError as error:
            found = error
        return {"number": row["number"], "found": pickle.dumps(found)}


@contextmanager
def ray_engine(
    *, workers: int | None = None, shard: int = SHARD, cpus: int = 1, gpu: bool = True
) -> Iterator[RayEngine]:
    """An engine on the cluster at RAY_ADDRESS, or on one that is started on this machine and stopped at the end.

    Args:
        workers: Their number; None: one a GPU where there are GPUs, else as many as the cores allow.
        shard: Items of a shard.
        cpus: Processor cores of a worker.
        gpu: Whether workers use GPUs, one each, where the cluster has any.

    Raises:
        SettingsError: Where Ray is not installed, a number is below 1, or too few cores on the cluster's machines.
        DataError: Where there is no cluster at the address.
    """
    for name, value in (("--engine-workers", 1 if workers is None else workers), ("--shard", shard), ("cpus", cpus)):
        if value < 1:
            raise SettingsError(f"{name} is {value}; expected at least 1.")
    if find_spec("ray") is None:
        raise SettingsError("the engine ray needs Ray, which is not installed: pip install 'tshsr[ray]'.")
    os.environ.setdefault(STATISTICS, "0")
    import ray

    own = not ray.is_initialized()
    if own:
        start()
    try:
        machines = machines_of(ray.nodes())  # type: ignore[no-untyped-call]
        with_gpu = gpu and any(gpus for gpus, _ in machines)
        # A worker is on one machine: the sums of the cluster don't count.
        rooms = [min(gpus, cores // cpus) if with_gpu else cores // cpus for gpus, cores in machines]
        most = sum(rooms)
        if most < (workers or 1):
            gpus, cores = max(machines, default=(0, 0), key=lambda each: each if with_gpu else each[1:])
            units = f"{gpus} GPUs and {cores} cores" if with_gpu else f"{cores} cores"
            raise SettingsError(
                f"{workers or 1} workers of {cpus} cores{' and a GPU' if with_gpu else ''} each do not fit the cluster "
                f"of {len(machines)} machines, the largest with {units}; ask for fewer or smaller ones."
            )
        yield RayEngine(workers or most, shard, cpus, 1 if with_gpu else 0)
    finally:
        if own:
            ray.shutdown()


def machines_of(nodes: Sequence[dict[str, Any]]) -> list[tuple[int, int]]:
    """GPUs and cores of each machine of a cluster that is alive, from the list of Ray."""
    found = [node["Resources"] for node in nodes if node["Alive"]]
    return [(int(each.get("GPU", 0)), int(each.get("CPU", 0))) for each in found]


def start() -> None:
    """Connect to the cluster at RAY_ADDRESS, or start one on this machine.

    Raises:
        DataError: Where there is no cluster at the address.
    """
    import ray

    address = os.environ.get(ADDRESS)
    dashboard = None if address else False
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=dashboard)
    except ConnectionError as error:
        raise DataError(f"there is no Ray cluster at {ADDRESS}={address}: {' '.join(str(error).split())}") from None


def failure(error: Exception) -> DataError:
    """A failure of the engine as a sentence."""
    cause = getattr(error, "cause", error)
    return DataError(f"a worker of Ray failed ({type(cause).__name__}: {' '.join(str(cause).split())[:300]}).")
