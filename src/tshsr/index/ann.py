"""An approximate first stage for large tables: an index of LanceDB, and how far a query must look into it.

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

from tshsr.index.about import change_about, read_about
from tshsr.index.database import written
from tshsr.index.rows import POOLED, pooled_of
from tshsr.retriever import Retriever

LOG = logging.getLogger(__name__)
FROM = 50_000
"""Rows from which on an index is worth its while; fewer are compared one and all, in memory."""
PART = 4096
"""About how many rows a part of the index holds."""
STALE = 0.25
"""Rows that are not in the index are compared one by one; it is made again where they are more than this share."""
SAMPLE = 32
"""Queries on which the number of parts is chosen."""
WORDS = 8
"""Words of a query that is made up."""
DEPTH = 100
"""Their best rows, of which nearly all should be found."""
RECALL = 0.995
"""Which share of them."""
ROW = "_rowid"


def maintain(folder: Path, name: str, table: Any, queries: Callable[[], Float[Tensor, "queries dim"]]) -> None:
    """Make or renew the index of a table where it has become large.

    Args:
        folder: The index of the user.
        name: The table's name.
        table: The table.
        queries: Gives vectors of the other side, such as those that will be searched for.

    Raises:
        DataError: Where it cannot be written.
    """
    rows, names = table.count_rows(), indices(table)
    stale = table.index_stats(names[0]).num_unindexed_rows if names else rows
    measured = name in read_about(folder).probes
    if rows < FROM or (measured and stale <= STALE * rows):
        return
    LOG.info("making an index of %d %s", rows, name)
    parts = max(1, rows // PART)
    with written(folder, table):
        table.create_index(POOLED, config=IvfFlat(distance_type="dot", num_partitions=parts), replace=True)
    probes = choose_probes(table, queries(), parts)
    change_about(folder, probes={**read_about(folder).probes, name: probes})


def indices(table: Any) -> list[str]:
    """Names of the ANN indices of a table."""
    return [index.name for index in table.list_indices() if POOLED in index.columns]


def choose_probes(table: Any, queries: Float[Tensor, "queries dim"], parts: int) -> int:
    """The fewest parts, by powers of two, in which nearly all of the best rows of some queries are found."""
    wanted = best_rows(table, queries, DEPTH)
    probes = 1
    while probes < parts:
        found = [search(table, query.numpy(), DEPTH, probes) for query in queries]
        shares = [len(set(a) & set(b)) / len(b) for a, b in zip(found, wanted, strict=True)]
        if np.mean(shares) >= RECALL:
            break
        probes *= 2
    return min(probes, parts)


def search(table: Any, query: np.ndarray, count: int, probes: int, where: str | None = None) -> list[int]:
    """The numbers of rows with a high v·t, best first, by the index, which looks into so many parts, or more."""
    asked = table.search(query, vector_column_name=POOLED).distance_type("dot").limit(count)
    asked = asked.minimum_nprobes(probes).maximum_nprobes(0)  # 0: a filter or a large count takes as many as it needs
    if where is not None:
        asked = asked.where(where, prefilter=True)
    found: list[int] = asked.select(["id", "_distance"]).with_row_id(True).to_arrow()[ROW].to_pylist()
    return found


def best_rows(table: Any, queries: Float[Tensor, "queries dim"], count: int) -> list[list[int]]:
    """The numbers of the rows with the highest v·t, of all of them, read in pieces."""
    scores, numbers = torch.empty(len(queries), 0), torch.empty(len(queries), 0, dtype=torch.int64)
    for batch in table.search().select([POOLED]).with_row_id(True).to_batches():
        more = queries @ pooled_of(batch).T
        own = torch.from_numpy(batch[ROW].to_numpy().astype(np.int64)).expand(len(queries), -1)
        scores, numbers = torch.cat([scores, more], dim=1), torch.cat([numbers, own], dim=1)
        best = scores.topk(min(count, scores.shape[1]))
        scores, numbers = best.values, numbers.gather(1, best.indices)
    rows: list[list[int]] = numbers.tolist()
    return rows


def sample_rows(table: Any) -> Float[Tensor, "queries dim"]:
    """Pooled vectors of evenly spread rows."""
    places: Sequence[int] = np.unique(np.linspace(0, table.count_rows() - 1, SAMPLE).astype(np.int64)).tolist()
    return pooled_of(table.take_offsets(places).select([POOLED]).to_arrow())


def sample_sentences(retriever: Retriever) -> Float[Tensor, "queries dim"]:
    """Pooled vectors of sentences of random words, where there are no captions."""
    words = sorted(word for word in retriever.tokenizer.rules.get_vocab() if word.isalnum())
    chosen = np.random.default_rng(0).choice(words, (SAMPLE, WORDS))
    return retriever.encode_captions([" ".join(sentence) for sentence in chosen]).pooled.float().cpu()
