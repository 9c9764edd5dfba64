"""The methods `rank` and `predict` of sentence-transformers' `CrossEncoder`, for pictures as documents.

Requires no other package.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from tshsr.reranking.candidates import Picture
from tshsr.reranking.reranker import Reranker


class PictureCrossEncoder:
    """A stand-in for a `CrossEncoder` in code that calls `rank` or `predict` with a query and documents.

    Arguments that concern the text network of a `CrossEncoder` (`prompt`, `activation_fn`, `pool`, ...) are accepted
    and have no effect.
    """

    def __init__(self, reranker: Reranker) -> None:
        self.reranker = reranker

    def rank(
        self,
        query: str,
        documents: Sequence[Picture],
        top_k: int | None = None,
        return_documents: bool = False,  # noqa: FBT001, FBT002, RUF100 - the interface of CrossEncoder
        **unused: Any,
    ) -> list[dict[str, Any]]:
        """Documents by score, best first: `corpus_id` (place in the list), `score`, and with `return_documents` `text`.

        Raises:
            InputError: Where the query has no word, or there is no document.
            DataError: Where an id is unknown, or a picture can't be read.
        """
        del unused
        ranked = self.reranker.rank(query, documents, k=max(1, len(documents)) if top_k is None else top_k, words=False)
        results: list[dict[str, Any]] = [{"corpus_id": one.index, "score": one.score} for one in ranked]
        if return_documents:
            results = [{**result, "text": documents[result["corpus_id"]]} for result in results]
        return results

    def predict(
        self,
        inputs: Sequence[Sequence[Any]] | Sequence[Any],
        convert_to_numpy: bool = True,  # noqa: FBT001, FBT002, RUF100
        convert_to_tensor: bool = False,  # noqa: FBT001, FBT002, RUF100
        **unused: Any,
    ) -> np.ndarray | torch.Tensor | list[torch.Tensor]:
        """The score of each pair of a query and a document, or of one pair; consecutive pairs of a query are one batch.

        Raises:
            InputError: Where a query has no word.
            DataError: Where an id is unknown, or a picture can't be read.
        """
        del unused
        single = len(inputs) == 2 and isinstance(inputs[0], str)
        listed: Sequence[Any] = [inputs] if single else inputs
        pairs: list[tuple[str, Picture]] = [(one[0], one[1]) for one in listed]
        found: list[torch.Tensor] = []
        start = 0
        while start < len(pairs):
            query, stop = pairs[start][0], start + 1
            while stop < len(pairs) and pairs[stop][0] == query:
                stop += 1
            found.append(self.reranker.scores(query, [document for _, document in pairs[start:stop]]))
            start = stop
        scores = torch.cat(found) if found else torch.zeros(0)
        scores = scores[0] if single else scores
        if convert_to_tensor:
            return scores
        return scores.numpy() if convert_to_numpy else list(scores)
