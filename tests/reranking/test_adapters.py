"""The adapters inside the libraries whose interfaces they have."""

from __future__ import annotations

import base64
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.camera import Camera
from tests.support.indexed import Small
from tshsr.errors import DataError, InputError
from tshsr.reranking.cross_encoder import PictureCrossEncoder
from tshsr.reranking.reranker import Reranker

QUERY = "a red dog here"
IDS = ["p3", "p0", "p8", "p5"]


@pytest.fixture
def best(reranker: Reranker) -> list[str]:
    """The ids in the network's order."""
    return [one.id for one in reranker.rank(QUERY, IDS)]


@pytest.fixture
def table(tmp_path: Path) -> Any:
    """A LanceDB table with vectors of another encoder and captions."""
    import lancedb

    dice = np.random.default_rng(0)
    rows = [
        {"id": name, "picture": name, "vector": dice.standard_normal(4).tolist(), "text": f"a picture {name}"}
        for name in IDS
    ]
    return lancedb.connect(tmp_path).create_table("clip", rows)


def test_a_vector_search_of_lancedb_is_reranked(table: Any, reranker: Reranker, best: list[str]) -> None:
    from tshsr.reranking.lancedb import LanceReranker

    search = table.search([1.0, 0, 0, 0]).rerank(LanceReranker(reranker), query_string=QUERY)
    rows = search.limit(4).to_list()
    assert [row["id"] for row in rows] == best
    expected = [one.score for one in reranker.rank(QUERY, IDS)]
    assert [row["_relevance_score"] for row in rows] == pytest.approx(expected, abs=1e-6)
    assert set(rows[0]) == {"id", "picture", "vector", "text", "_relevance_score"}


def test_lancedb_limits_the_candidates(table: Any, reranker: Reranker, best: list[str]) -> None:
    from tshsr.reranking.lancedb import LanceReranker

    first = [row["id"] for row in table.search([1.0, 0, 0, 0]).limit(2).to_list()]
    rows = table.search([1.0, 0, 0, 0]).limit(2).rerank(LanceReranker(reranker), query_string=QUERY).to_list()
    assert [row["id"] for row in rows] == [name for name in best if name in first]


def test_the_distance_of_lancedb_weighs_in_the_order(table: Any, reranker: Reranker) -> None:
    from tshsr.reranking.lancedb import LanceReranker

    by_distance = [row["id"] for row in table.search([1.0, 0, 0, 0]).limit(4).to_list()]
    adapter = LanceReranker(reranker, column="picture", weight=1.0, return_score="all")
    rows = table.search([1.0, 0, 0, 0]).limit(4).rerank(adapter, query_string=QUERY).to_list()
    assert [row["id"] for row in rows] == by_distance
    assert [row["_distance"] for row in rows] == sorted(row["_distance"] for row in rows)


@pytest.mark.parametrize("kept", ["relevance", "all"])
def test_full_text_and_hybrid_searches_of_lancedb_are_reranked(
    table: Any, reranker: Reranker, best: list[str], kept: str
) -> None:
    from lancedb.index import FTS

    from tshsr.reranking.lancedb import LanceReranker

    table.create_index("text", config=FTS())
    adapter = LanceReranker(reranker, return_score=kept)
    found = table.search("picture", query_type="fts").rerank(adapter).limit(4).to_list()
    assert {row["id"] for row in found} == set(IDS)
    hybrid = table.search(query_type="hybrid").vector([1.0, 0, 0, 0]).text(QUERY).rerank(adapter).limit(4).to_list()
    assert [row["id"] for row in hybrid] == best
    assert ("_distance" in hybrid[0]) == (kept == "all")


def test_searches_of_lancedb_that_cannot_be_reranked_say_why(table: Any, reranker: Reranker) -> None:
    from tshsr.reranking.lancedb import LanceReranker

    search = table.search([1.0, 0, 0, 0])
    with pytest.raises(
        InputError, match=r"no query in words; expected search\(vector\).rerank\(reranker, query_string="
    ):
        LanceReranker(reranker).rerank_vector(None, search.to_arrow())
    with pytest.raises(InputError, match="the results have no column 'name' with the ids of pictures; they have id"):
        search.rerank(LanceReranker(reranker, column="name"), query_string=QUERY).to_list()
    with pytest.raises(DataError, match="has no picture 'a picture p"):
        search.rerank(LanceReranker(reranker, column="text"), query_string=QUERY).to_list()
    empty = table.search([1.0, 0, 0, 0]).where("id = 'nothing'").rerank(LanceReranker(reranker), query_string=QUERY)
    assert empty.to_list() == []


def test_the_package_rerankers_gets_its_results(reranker: Reranker, best: list[str]) -> None:
    from rerankers.models.ranker import BaseRanker

    from tshsr.reranking.rerankers import PictureRanker

    ranker = PictureRanker(reranker)
    assert isinstance(ranker, BaseRanker)
    found = ranker.rank(QUERY, IDS, doc_ids=[10, 11, 12, 13], metadata=[{"place": name} for name in IDS])
    assert [result.text for result in found] == best
    assert [result.rank for result in found] == [1, 2, 3, 4]
    assert found.top_k(1)[0].doc_id == 10 + IDS.index(best[0])
    assert found[0].metadata == {"place": best[0]}
    assert found.get_score_by_docid(12) == pytest.approx(ranker.score(QUERY, IDS[2]), abs=1e-6)
    assert ranker.rank(QUERY, "p3")[0].doc_id == 0
    with pytest.raises(InputError, match="there are no documents; give at least one picture"):
        ranker.rank(QUERY, [])


def test_documents_of_rerankers_can_be_pictures(small: Small) -> None:
    from rerankers.documents import Document

    from tshsr.reranking.rerankers import PictureRanker

    files = sorted((small.store / "pictures").iterdir())[:2]
    ranker = PictureRanker(Reranker(small.retriever(), source=Camera()))
    documents = [
        Document(document_type="image", image_path=str(files[0]), doc_id="file"),
        Document(document_type="image", base64=base64.b64encode(files[1].read_bytes()).decode(), doc_id="bytes"),
    ]
    found = {result.doc_id: result.score for result in ranker.rank(QUERY, documents)}
    expected = ranker.reranker.scores(QUERY, files).tolist()
    assert found == pytest.approx({"file": expected[0], "bytes": expected[1]}, abs=1e-6)
    with pytest.raises(InputError, match="document 7 has neither image_path nor base64; expected one of them"):
        ranker.rank(QUERY, Document(document_type="image", doc_id=7))
    with pytest.raises(InputError, match="document 8 has base64 that can't be read; encode its file again"):
        ranker.rank(QUERY, Document(document_type="image", base64="!", doc_id=8))


def test_a_compressor_of_langchain_keeps_the_best_documents(reranker: Reranker, best: list[str]) -> None:
    from langchain_core.documents import BaseDocumentCompressor, Document

    from tshsr.reranking.langchain import PictureCompressor

    compressor = PictureCompressor(reranker=reranker, k=2)
    assert isinstance(compressor, BaseDocumentCompressor)
    documents = [Document(page_content="", metadata={"id": name, "place": "Oslo"}) for name in IDS[:2]]
    documents += [Document(page_content="", id=name) for name in IDS[2:]]
    kept = compressor.compress_documents(documents, QUERY)
    assert [document.metadata.get("id", document.id) for document in kept] == best[:2]
    scores = [document.metadata["relevance_score"] for document in kept]
    assert scores == sorted(scores, reverse=True)
    assert all("relevance_score" not in document.metadata for document in documents), "the caller's stay as they are"
    assert compressor.compress_documents([], QUERY) == []
    with pytest.raises(InputError, match="document 1 has no 'id' in its metadata and no id; name the key of pictures"):
        compressor.compress_documents([documents[0], Document(page_content="x")], QUERY)


def test_ranking_has_the_shape_of_a_cross_encoder(reranker: Reranker, best: list[str]) -> None:
    encoder = PictureCrossEncoder(reranker)
    ranked = encoder.rank(QUERY, IDS, top_k=2, return_documents=True, batch_size=8, show_progress_bar=False)
    assert [one["text"] for one in ranked] == best[:2]
    assert [IDS[one["corpus_id"]] for one in ranked] == best[:2]
    assert [set(one) for one in encoder.rank(QUERY, IDS)] == [{"corpus_id", "score"}] * 4
    pairs = [[QUERY, "p0"], [QUERY, "p3"], ["one blue boat", "p0"]]
    scores = encoder.predict(pairs)
    assert isinstance(scores, np.ndarray)
    assert scores.tolist() == pytest.approx(
        [float(reranker.scores(*pair[:1], pair[1:])[0]) for pair in pairs], abs=1e-6
    )
    assert torch.equal(encoder.predict(pairs, convert_to_tensor=True), torch.from_numpy(scores))
    assert encoder.predict((QUERY, "p3")) == pytest.approx(scores[1], abs=1e-6)
    assert [float(one) for one in encoder.predict(pairs, convert_to_numpy=False)] == scores.tolist()
    assert encoder.predict([]).shape == (0,)
    with pytest.raises(InputError, match="there are no candidates"):
        encoder.rank(QUERY, [])


@pytest.mark.slow  # sentence-transformers takes seconds to load
def test_the_evaluator_of_sentence_transformers_takes_it_for_a_cross_encoder(
    reranker: Reranker, best: list[str]
) -> None:
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator

    ours = PictureCrossEncoder(reranker)
    theirs = inspect.signature(CrossEncoder.rank).parameters
    own = [name for name in inspect.signature(ours.rank).parameters if name != "unused"]
    assert own == [name for name in theirs if name != "self"][: len(own)], "the same arguments in the same order"
    assert {name: theirs[name].default for name in own[2:]} == {"top_k": None, "return_documents": False}
    samples = [{"query": QUERY, "positive": [best[1]], "documents": IDS}]
    evaluator = CrossEncoderRerankingEvaluator(samples, at_k=4, name="pictures", write_csv=False)
    evaluator.store_metrics_in_model_card_data = lambda *_: None  # a model card is no part of ranking
    assert evaluator(ours)["pictures_mrr@4"] == pytest.approx(0.5)


def test_a_search_of_qdrant_is_reranked(reranker: Reranker, best: list[str]) -> None:
    from qdrant_client import QdrantClient, models

    client = QdrantClient(":memory:")
    client.create_collection("clip", models.VectorParams(size=4, distance=models.Distance.COSINE))
    dice = np.random.default_rng(0)
    points = [
        models.PointStruct(id=number, vector=dice.standard_normal(4).tolist(), payload={"picture": name})
        for number, name in enumerate(IDS)
    ]
    client.upsert("clip", points)
    found = client.query_points("clip", query=[1.0, 0, 0, 0], limit=4).points
    ranked = reranker.rank(
        QUERY, [point.payload["picture"] for point in found], first_stage=[point.score for point in found]
    )
    assert [one.id for one in ranked] == best
    assert [one.first_stage for one in ranked] == [found[one.index].score for one in ranked]
    client.close()
