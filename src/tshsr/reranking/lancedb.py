"""A reranker for searches of a LanceDB table: `table.search(vector).rerank(LanceReranker(reranker), query_string=...)`.

Requires the extra `search`.
"""

from __future__ import annotations

from typing import Any

from tshsr.errors import InputError, SettingsError
from tshsr.reranking.reranker import Reranker

try:
    import pyarrow as pa
    from lancedb.rerankers import Reranker as LanceBase
except ImportError:
    raise SettingsError("the reranker needs LanceDB, which is not installed: pip install 'tshsr[search]'.") from None

RELEVANCE = "_relevance_score"
"""The column that LanceDB requires of a reranker."""


class LanceReranker(LanceBase):
    """Orders the rows of a search by the network; works in vector, full-text and hybrid searches.

    Args:
        reranker: With a source that knows the pictures of the table.
        column: The column with the picture's id in the source, or with its file.
        weight: Of the distance of a vector search in the order, 0..1, as in `Reranker.rank`; other searches are ordered
            by the network alone.
        return_score: relevance: the columns of distances and scores of the search are left out; all: they stay.
    """

    def __init__(
        self, reranker: Reranker, *, column: str = "id", weight: float = 0.0, return_score: str = "relevance"
    ) -> None:
        super().__init__(return_score)
        self.reranker, self.column, self.weight = reranker, column, weight

    def rerank_vector(self, query: str, vector_results: pa.Table) -> pa.Table:
        """Rows of a vector search, best first.

        Raises:
            InputError: Where the search has no query in words, or the rows have no ids.
            DataError: Where an id is unknown, or a picture can't be read.
        """
        return self._reranked(query, vector_results, drop="_distance")

    def rerank_fts(self, query: str, fts_results: pa.Table) -> pa.Table:
        """Rows of a full-text search, best first."""
        return self._reranked(query, fts_results, drop="_score")

    def rerank_hybrid(self, query: str, vector_results: pa.Table, fts_results: pa.Table) -> pa.Table:
        """Rows of both searches, each once, best first."""
        if self.score == "all":
            return self._reranked(query, self._merge_and_keep_scores(vector_results, fts_results), hybrid=True)
        merged = self.merge_results(vector_results, fts_results)
        return self._keep_relevance_score(self._reranked(query, merged, hybrid=True))

    def _reranked(self, query: Any, rows: pa.Table, *, drop: str = "", hybrid: bool = False) -> pa.Table:
        if not len(rows):
            return self._handle_empty_results(rows)
        if not isinstance(query, str):
            raise InputError(
                "the search has no query in words; expected search(vector).rerank(reranker, query_string='a dog')."
            )
        if self.column not in rows.column_names:
            raise InputError(
                f"the results have no column {self.column!r} with the ids of pictures; they have "
                f"{', '.join(rows.column_names)}: select it too, or name the column of the ids."
            )
        distances = rows["_distance"].to_pylist() if self.weight and not hybrid and drop == "_distance" else None
        ranked = self.reranker.rank(
            query,
            rows[self.column].to_pylist(),
            k=len(rows),
            first_stage=None if distances is None else [-distance for distance in distances],
            weight=0.0 if distances is None else self.weight,
            words=False,
        )
        ordered = rows.take(pa.array([one.index for one in ranked]))
        if drop and self.score == "relevance":
            ordered = ordered.drop_columns([drop])
        return ordered.append_column(RELEVANCE, pa.array([one.relevance for one in ranked], pa.float32()))
