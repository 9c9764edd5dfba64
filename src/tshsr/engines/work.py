"""Work in shards: what an engine runs, and where.

A shard is a part of the work whose result depends on nothing else, so that it can run anywhere and again. The function
of one shard is the same for every engine; the commands without an engine call it in their own process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

Shard = TypeVar("Shard")
Found = TypeVar("Found")

SHARD = 256
"""Items of a shard, by default: what is repeated after the death of a worker, at most."""


class Engine(Protocol):
    """Runs a function of one shard on many shards."""

    @property
    def shard(self) -> int:
        """Items of a shard."""

    def run(
        self, prepare: Callable[[], Callable[[Shard], Found]], shards: Sequence[Shard], *, ordered: bool = False
    ) -> Iterator[tuple[int, Found]]:
        """The results of all shards, as they finish.

        Args:
            prepare: Called once by each worker; returns the function of one shard. Picklable, with all it refers to.
            shards: Picklable.
            ordered: Whether results keep the order of the shards.

        Yields:
            The number of a shard and its result, each shard once.

        Raises:
            TshsrError: That of the first shard which fails with one.
            DataError: Where the engine fails, or workers die on one shard again and again.
        """
