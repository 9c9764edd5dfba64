"""One version of a table, for a search that sees no other while it lasts; the first stage, exact or approximate.

Axes: rows (pictures or captions) | dim (joint space).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float
from torch import Tensor

from tshsr.errors import DataError
from tshsr.index.ann import ROW, indices, search
from tshsr.index.database import FAILURES, check_filter, empty_table, open_table, reason
from tshsr.index.rows import BOXES, ITEMS, POOLED, pooled_of

Found = TypeVar("Found")
HIDDEN = ("folder", POOLED, ITEMS, BOXES)
"""Columns that no filter is for."""


class Snapshot:
    """A version of a table.

    Args:
        table: A handle of its own, checked out at the version.
        probes: How many parts of the ANN index a query looks into; 0: no index is used, every row is compared.
    """

    def __init__(self, table: Any, probes: int) -> None:
        self.table, self.probes = table, probes
        self.version: int = table.version
        self.count: int = table.count_rows()

    @cached_property
    def all_pooled(self) -> tuple[np.ndarray, Float[Tensor, "rows dim"]]:
        """Numbers and pooled vectors of all rows, read once."""
        rows = self.table.search().select([POOLED]).with_row_id(True).to_arrow()
        return rows[ROW].to_numpy(), pooled_of(rows)

    @cached_property
    def files(self) -> dict[str, Path]:
        """By id the file of each picture that has one."""
        rows = self.table.search().select(["id", "folder", "file"]).to_arrow().to_pylist()
        return {row["id"]: Path(row["folder"]) / row["file"] for row in rows if row["folder"] and row["file"]}

    @cached_property
    def visible(self) -> Any:
        """An empty table with the columns that filters are for."""
        return empty_table(pa.schema([field for field in self.table.schema if field.name.lower() not in HIDDEN]))

    def sample(self, column: str, count: int) -> list[str]:
        """Some values of a column, from evenly spread rows."""
        places = np.unique(np.linspace(0, self.count - 1, min(count, self.count)).astype(np.int64))
        rows: list[str] = self.table.take_offsets(places.tolist()).select([column]).to_arrow()[column].to_pylist()
        return rows

    def candidates(self, query: Float[Tensor, " dim"], count: int, where: str | None = None) -> pa.Table:
        """The rows with the highest v·t, best first.

        Raises:
            DataError: Where the filter cannot be used.
        """
        numbers = self.nearest(query, count, where)
        return self.take(numbers) if numbers else self.table.schema.empty_table()

    def nearest(self, query: Float[Tensor, " dim"], count: int, where: str | None) -> Sequence[int]:
        """The numbers of the rows with the highest v·t, best first.

        Raises:
            DataError: Where the filter cannot be used.
        """
        if where is not None:
            check_filter(self.table, self.visible, where)
            where = f"({where})"  # what was checked, and no more, is asked
        if not self.count:
            return []
        return self._approximate(query, count, where) if self.probes else self._exact(query, count, where)

    def take(self, numbers: Sequence[int]) -> pa.Table:
        """Rows by their numbers, in that order."""
        rows = self.table.take_row_ids(list(numbers)).with_row_id().to_arrow()
        place = {number: i for i, number in enumerate(rows[ROW].to_pylist())}
        return rows.take(pa.array([place[number] for number in numbers]))

    def _exact(self, query: Float[Tensor, " dim"], count: int, where: str | None) -> Sequence[int]:
        numbers, pooled = self.all_pooled
        scores = pooled @ query
        if where is not None:
            kept = self.table.search().where(where).select(["id"]).with_row_id(True).to_arrow()[ROW].to_numpy()
            allowed = torch.from_numpy(np.isin(numbers, kept))
            count = min(count, int(allowed.sum()))
            scores.masked_fill_(~allowed, -torch.inf)
        best = scores.topk(min(count, len(scores))).indices.numpy()
        found: list[int] = numbers[best].tolist()
        return found

    def _approximate(self, query: Float[Tensor, " dim"], count: int, where: str | None) -> Sequence[int]:
        return search(self.table, query.numpy(), count, self.probes, where)


class Reader:
    """The newest version of a table, whenever it is asked for.

    Args:
        folder: The index.
        name: The table.
        probes: Tells how many parts of the ANN index a query looks into.
    """

    def __init__(self, folder: Path, name: str, probes: Callable[[], int]) -> None:
        self.folder, self.name, self.probes = folder, name, probes
        self.live = open_table(folder, name)
        self.lock = threading.Lock()
        self.known: Snapshot | None = None

    def __len__(self) -> int:
        """Number of rows."""
        return int(self.live.count_rows())

    def read(self, question: Callable[[Snapshot], Found]) -> Found:
        """Ask the newest version; where it is put away meanwhile, ask the one after it.

        Raises:
            DataError: Where the table cannot be read.
        """
        for again in (True, False):
            snapshot = self.snapshot()
            try:
                return question(snapshot)
            except FAILURES as error:
                with self.lock:
                    self.known = None
                if not again:
                    raise DataError(
                        f"{self.folder} cannot be read ({reason(error)}); run tshsr index on it again, which takes "
                        "back what was cut short."
                    ) from error
        raise AssertionError("unreachable")

    def snapshot(self) -> Snapshot:
        """The newest version."""
        with self.lock:
            version = self.live.version
            if self.known is None or self.known.version != version:
                table = open_table(self.folder, self.name)
                table.checkout(version)
                self.known = Snapshot(table, self.probes() if indices(table) else 0)
            return self.known
