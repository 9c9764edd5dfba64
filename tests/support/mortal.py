"""Engines for tests: in this process, and one whose worker is killed in the middle of its work."""

from __future__ import annotations

import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tshsr.engines.work import Engine
from tshsr.errors import TshsrError


@dataclass(frozen=True)
class OwnProcess:
    """An engine with one worker, this process; what it sends there is pickled, as between processes.

    Attributes:
        interrupted: Number of results after which Ctrl-C is pressed.
    """

    shard: int
    pickled: bool = True
    interrupted: int = 10**9

    def run(self, prepare: Any, shards: Sequence[Any], *, ordered: bool = False) -> Iterator[tuple[int, Any]]:
        work = (pickle.loads(pickle.dumps(prepare)) if self.pickled else prepare)()
        for number, shard in enumerate(shards):
            if number == self.interrupted:
                raise KeyboardInterrupt
            yield number, work(shard)


@dataclass
class Mortal:
    """Prepares a worker that kills itself after the work on its second shard, where the mark is still missing."""

    prepare: Callable[[], Callable[[Any], Any]]
    mark: Path

    def __call__(self) -> Callable[[Any], Any]:
        work, done = self.prepare(), 0

        def run(shard: Any) -> Any:
            nonlocal done
            done += 1
            found = work(shard)
            if done >= 2 and not self.mark.exists():
                self.mark.write_text(str(os.getpid()))
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(60)
            return found

        return run


@dataclass
class KillingEngine:
    """An engine, one of whose workers is killed after the work on its second shard, before the result is returned.

    Attributes:
        results: Number of results of each shard.
    """

    engine: Engine
    mark: Path
    results: dict[int, int] = field(default_factory=dict)

    @property
    def shard(self) -> int:
        return self.engine.shard

    def run(self, prepare: Any, shards: Sequence[Any], *, ordered: bool = False) -> Iterator[tuple[int, Any]]:
        for number, found in self.engine.run(Mortal(prepare, self.mark), shards, ordered=ordered):
            self.results[number] = self.results.get(number, 0) + 1
            yield number, found


@dataclass
class Doubling:
    """Doubles numbers; at 3 it dies or raises."""

    kills: bool = False
    raises: type[TshsrError] | None = None

    def __call__(self) -> Callable[[int], int]:
        def double(number: int) -> int:
            if number == 3 and self.kills:
                os.kill(os.getpid(), signal.SIGKILL)
            if number == 3 and self.raises is not None:
                raise self.raises("three is refused.")
            return 2 * number

        return double
