"""A document compressor of LangChain: the best pictures among retrieved documents.

Requires the extra `adapters`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tshsr.errors import InputError, SettingsError

try:
    from langchain_core.callbacks import Callbacks
    from langchain_core.documents import BaseDocumentCompressor, Document
except ImportError:
    raise SettingsError(
        "the compressor needs langchain-core, which is not installed: pip install 'tshsr[adapters]'."
    ) from None


class PictureCompressor(BaseDocumentCompressor):
    """Keeps the k documents with the highest scores, with `relevance_score` in their metadata.

    Attributes:
        reranker: A `tshsr.Reranker`.
        key: Metadata with the picture's id in the source, or its file; the document's own id where it lacks that.
    """

    reranker: Any
    k: int = 10
    key: str = "id"

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """The best documents, best first.

        Raises:
            InputError: Where a document names no picture.
            DataError: Where an id is unknown, or a picture can't be read.
        """
        del callbacks
        if not documents:
            return []
        names = [document.metadata.get(self.key, document.id) for document in documents]
        if None in names:
            raise InputError(
                f"document {names.index(None)} has no {self.key!r} in its metadata and no id; name the key of pictures."
            )
        return [
            documents[one.index].model_copy(
                update={"metadata": {**documents[one.index].metadata, "relevance_score": one.score}}
            )
            for one in self.reranker.rank(query, names, k=self.k, words=False)
        ]
