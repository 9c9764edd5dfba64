"""Approximate first stage for large tables: an IVF index of LanceDB, and the number of partitions a query reads.

Axes: queries | rows | dim (joint space).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from lancedb.index import IvfFlat
from torch import Tensor

from tshsr.index.about import read_info, update_info
from tshsr.index.database import restored_on_failure
from tshsr.index.rows import POOLED, pooled_of
from tshsr.retriever import Retriever

LOG = logging.getLogger(__name__)
MIN_ROWS = 50_000
"""Minimum rows for an ANN index; below it, exact search in memory."""
ROWS_PER_PARTITION = 4096
MAX_UNINDEXED = 0.25
"""Share of rows outside the ANN index (searched exactly) above which it is rebuilt."""
SAMPLE_QUERIES = 32
"""Queries on which the number of probed partitions is chosen."""
SAMPLE_WORDS = 8
"""Words of a random query."""
RECALL_DEPTH, TARGET_RECALL = 100, 0.995
"""The chosen number of partitions reaches this recall of the exact nearest rows, at this depth."""
ROW = "_rowid"


def maintain(folder: Path, name: str, table: Any, queries: Callable[[], Float[Tensor, "queries dim"]]) -> None:
    """Build or rebuild the ANN index of a table that has become large.

    Args:
        folder: The user's index.
        queries: Returns sample queries: pooled vectors of the other side.

    Raises:
        DataError: Where it cannot be written.
    """
    rows, names = table.count_rows(), ann_indices(table)
    stale = table.index_stats(names[0]).num_unindexed_rows if names else rows
    measured = name in read_info(folder).probes
    if rows < MIN_ROWS or (measured and stale <= MAX_UNINDEXED * rows):
        return
    LOG.info("building an ANN index of %d %s", rows, name)
    partitions = max(1, rows // ROWS_PER_PARTITION)
    with restored_on_failure(folder, table):
        table.create_index(POOLED, config=IvfFlat(distance_type="dot", num_partitions=partitions), replace=True)
    probes = choose_probes(table, queries(), partitions)
    update_info(folder, probes={**read_info(folder).probes, name: probes})


def ann_indices(table: Any) -> list[str]:
    """Names of the ANN indices of a table."""
    return [index.name for index in table.list_indices() if POOLED in index.columns]


def choose_probes(table: Any, queries: Float[Tensor, "queries dim"], partitions: int) -> int:
    """The smallest power of two of partitions that reaches `TARGET_RECALL` on sample queries."""
    wanted = exact_search(table, queries, RECALL_DEPTH)
    probes = 1
    while probes < partitions:
        found = [ann_search(table, query.numpy(), RECALL_DEPTH, probes) for query in queries]
        recalls = [len(set(a) & set(b)) / len(b) for a, b in zip(found, wanted, strict=True)]
        if np.mean(recalls) >= TARGET_RECALL:
            break
        probes *= 2
    return min(probes, partitions)


def ann_search(table: Any, query: np.ndarray, count: int, probes: int, where: str | None = None) -> list[int]:
    """Row ids with the highest v·t, best first, by the ANN index, which reads `probes` partitions.

    Where these have too few rows, because of a filter or a large count, it reads as many as are needed.
    """
    request = table.search(query, vector_column_name=POOLED).distance_type("dot").limit(count)
    if where is not None:
        request = request.where(where, prefilter=True)
    request = request.select(["id", "_distance"]).with_row_id(True)
    found: list[int] = request.nprobes(probes).to_arrow()[ROW].to_pylist()
    if len(found) < count:
        # LanceDB reads every partition where the maximum is 0, also where the minimum has enough rows.
        found = request.maximum_nprobes(0).to_arrow()[ROW].to_pylist()
    return found


def exact_search(table: Any, queries: Float[Tensor, "queries dim"], count: int) -> list[list[int]]:
    """Row ids with the highest v·t among all rows, read in batches."""
    scores, numbers = torch.empty(len(queries), 0), torch.empty(len(queries), 0, dtype=torch.int64)
    for batch in table.search().select([POOLED]).with_row_id(True).to_batches():
        more = queries @ pooled_of(batch).T
        ids = torch.from_numpy(batch[ROW].to_numpy().astype(np.int64)).expand(len(queries), -1)
        scores, numbers = torch.cat([scores, more], dim=1), torch.cat([numbers, ids], dim=1)
        best = scores.topk(min(count, scores.shape[1]))
        scores, numbers = best.values, numbers.gather(1, best.indices)
    rows: list[list[int]] = numbers.tolist()
    return rows


def sample_rows(table: Any) -> Float[Tensor, "queries dim"]:
    """Pooled vectors of evenly spread rows."""
    places: Sequence[int] = np.unique(np.linspace(0, table.count_rows() - 1, SAMPLE_QUERIES).astype(np.int64)).tolist()
    return pooled_of(table.take_offsets(places).select([POOLED]).to_arrow())


def sample_sentences(retriever: Retriever) -> Float[Tensor, "queries dim"]:
    """Pooled vectors of random sentences, for an index without captions."""
    words = retriever.tokenizer.known_words()
    chosen = np.random.default_rng(0).choice(words, (SAMPLE_QUERIES, SAMPLE_WORDS))
    return retriever.encode_captions([" ".join(sentence) for sentence in chosen]).pooled.float().cpu()
