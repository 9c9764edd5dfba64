"""First stage of a search, exact or approximate, on one version of a table; retries when a version is replaced.

Axes: rows (pictures or captions) | dim (joint space).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float
from torch import Tensor

from tshsr.errors import DataError
from tshsr.index.ann import ROW, ann_indices, ann_search
from tshsr.index.database import (
    LANCE_ERRORS,
    cause_of,
    check_filter,
    empty_table,
    failing_filter,
    is_damage,
    open_table,
    without_panics,
)
from tshsr.index.rows import BOXES, ITEMS, POOLED, POOLED_SHARE, WEIGHTS, pooled_of

Found = TypeVar("Found")
HIDDEN_COLUMNS = ("folder", POOLED, ITEMS, BOXES, POOLED_SHARE, WEIGHTS)
"""Columns that filters cannot use."""
ASK_AGAIN = 1.0
"""Seconds after which a reader asks again how many partitions a query reads."""


class Snapshot:
    """A version of a table.

    Args:
        table: A separate handle, checked out at the version.
        probes: Number of partitions of the ANN index that a query reads; 0: exact search.
    """

    def __init__(self, table: Any, probes: int) -> None:
        self.table, self.probes = table, probes
        self.version: int = table.version
        self.count: int = table.count_rows()

    @cached_property
    def all_pooled(self) -> tuple[np.ndarray, Float[Tensor, "rows dim"]]:
        """Row ids and pooled vectors of all rows, read once."""
        rows = self.table.search().select([POOLED]).with_row_id(True).to_arrow()
        return rows[ROW].to_numpy(), pooled_of(rows)

    @cached_property
    def files(self) -> dict[str, Path]:
        """Files of pictures by id."""
        rows = self.table.search().select(["id", "folder", "file"]).to_arrow().to_pylist()
        return {row["id"]: Path(row["folder"]) / row["file"] for row in rows if row["folder"] and row["file"]}

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Row id of each id, read once."""
        rows = self.table.search().select(["id"]).with_row_id(True).to_arrow()
        return dict(zip(rows["id"].to_pylist(), rows[ROW].to_pylist(), strict=True))

    @cached_property
    def visible(self) -> Any:
        """An empty table with the columns that filters can use."""
        return empty_table(
            pa.schema([field for field in self.table.schema if field.name.lower() not in HIDDEN_COLUMNS])
        )

    def sample(self, column: str, count: int) -> list[str]:
        """Values of a column at evenly spaced rows."""
        places = np.unique(np.linspace(0, self.count - 1, min(count, self.count)).astype(np.int64))
        rows: list[str] = self.table.take_offsets(places.tolist()).select([column]).to_arrow()[column].to_pylist()
        return rows

    def candidates(self, query: Float[Tensor, " dim"], count: int, where: str | None = None) -> pa.Table:
        """The rows with the highest v·t, best first.

        Raises:
            FilterError: Where the filter cannot be used.
        """
        numbers = self.nearest(query, count, where)
        return self.take(numbers) if numbers else self.table.schema.empty_table()

    def nearest(self, query: Float[Tensor, " dim"], count: int, where: str | None) -> Sequence[int]:
        """Row ids with the highest v·t, best first.

        Raises:
            FilterError: Where the filter cannot be used.
        """
        if where is not None:
            check_filter(self.visible, where)
        if not self.count:
            return []
        count = min(count, self.count)
        return self._approximate(query, count, where) if self.probes else self._exact(query, count, where)

    def take(self, numbers: Sequence[int]) -> pa.Table:
        """Rows by row id, in that order."""
        rows = self.table.take_row_ids(list(numbers)).with_row_id().to_arrow()
        position = {number: i for i, number in enumerate(rows[ROW].to_pylist())}
        return rows.take(pa.array([position[number] for number in numbers]))

    def _exact(self, query: Float[Tensor, " dim"], count: int, where: str | None) -> Sequence[int]:
        numbers, pooled = self.all_pooled
        scores = pooled @ query
        if where is not None:
            with failing_filter(self.table, self.visible, where):
                filtered = self.table.search().where(f"({where})")  # exactly what was checked
                kept = filtered.select(["id"]).with_row_id(True).to_arrow()[ROW].to_numpy()
            allowed = torch.from_numpy(np.isin(numbers, kept))
            count = min(count, int(allowed.sum()))
            scores.masked_fill_(~allowed, -torch.inf)
        best = scores.topk(min(count, len(scores))).indices.numpy()
        found: list[int] = numbers[best].tolist()
        return found

    def _approximate(self, query: Float[Tensor, " dim"], count: int, where: str | None) -> Sequence[int]:
        with failing_filter(self.table, self.visible, where):
            brackets = None if where is None else f"({where})"
            return ann_search(self.table, query.numpy(), count, self.probes, brackets)


class TableReader:
    """Reads the newest version of a table.

    LanceDB caches metadata of every version that a handle has seen, up to 7 GiB of them, so each new version gets a new
    handle.

    Args:
        probes: Returns the number of partitions of the ANN index that a query reads; raises an error where the table is
            not that of the reader's network any more.
    """

    def __init__(self, folder: Path, name: str, probes: Callable[[], int]) -> None:
        self.folder, self.name, self.probes = folder, name, probes
        self.live = self.new_handle()
        self.lock = threading.Lock()
        self.cached: Snapshot | None = None
        self.has_ann, self.asked = False, 0.0

    def __len__(self) -> int:
        """Number of rows.

        Raises:
            DataError: Where the table cannot be read.
        """
        return self.read(lambda table: table.count)

    def read(self, query: Callable[[Snapshot], Found]) -> Found:
        """Run a query on the newest version, and once more where that version was deleted meanwhile.

        Raises:
            DataError: Where the table cannot be read.
        """
        for retry in (True, False):
            try:
                with without_panics():
                    return query(self.snapshot())
            except LANCE_ERRORS as error:
                with self.lock:
                    self.cached = None
                if not retry:
                    advice = "run tshsr index on it again, which removes what is truncated"
                    if not is_damage(error):
                        advice = "remove this cause, then try again"
                    raise DataError(f"{self.folder} cannot be read ({cause_of(error)}); {advice}.") from error
        raise AssertionError("unreachable")

    def snapshot(self) -> Snapshot:
        """The newest version."""
        self._follow_probes()
        with self.lock:
            version = self.live.version
            if self.cached is None or self.cached.version != version:
                table = self.new_handle()
                table.checkout(version)
                probes, self.has_ann = self.probes(), bool(ann_indices(table))
                self.cached = Snapshot(table, probes if self.has_ann else 0)
                self.live = self.new_handle()
            return self.cached

    def _follow_probes(self) -> None:
        """Take over the number of partitions, which is measured after the version is written."""
        cached, now = self.cached, time.monotonic()
        if cached is None or not self.has_ann or now < self.asked + ASK_AGAIN:
            return
        self.asked = now
        with suppress(DataError):  # where index.json cannot be read for a moment, the former number serves
            cached.probes = self.probes()

    def new_handle(self) -> Any:
        """A handle with empty caches, for one version or one write."""
        return open_table(self.folder, self.name)
