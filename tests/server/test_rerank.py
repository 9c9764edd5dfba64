"""`POST /rerank`: the forms of Cohere, Jina and TEI, and what is refused."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.support.fake_index import CAPTIONS, Colours, FakeIndex, make_index, network
from tests.support.service import LIMITS, RED, jpeg, refusal, serving
from tshsr.reranking.candidates import batch_of
from tshsr.scoring.calibration import Calibration

QUERY = "a red square"


@pytest.fixture
def index(tmp_path: Path) -> FakeIndex:
    return make_index(tmp_path)


@pytest.fixture
def client(index: FakeIndex) -> Iterator[TestClient]:
    with serving(index) as opened:
        yield opened


def post(client: TestClient, **body: Any) -> Any:
    return client.post("/rerank", json=body)


def data_url(content: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"


def expected(index: FakeIndex, ids: list[str], query: str = QUERY) -> dict[int, float]:
    scores = index.retriever.score(batch_of([index.regions[name] for name in ids]), query)[:, 0]
    return dict(enumerate(scores.tolist()))


def test_ids_of_the_index_are_ranked_by_the_network(client: TestClient, index: FakeIndex) -> None:
    ids = list(index.regions)
    answer = post(client, model="any", query=QUERY, documents=ids, top_n=4).json()
    assert set(answer) == {"model", "results"}
    assert answer["model"] == index.retriever.name
    scores = expected(index, ids)
    best = sorted(scores, key=scores.__getitem__, reverse=True)[:4]
    assert [result["index"] for result in answer["results"]] == best
    for result in answer["results"]:
        assert set(result) == {"index", "relevance_score"}
        assert result["relevance_score"] == pytest.approx(scores[result["index"]], abs=1e-6)
    assert len(post(client, query=QUERY, documents=ids).json()["results"]) == len(ids), "all without top_n"


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
def test_clients_of_other_services_find_their_path(client: TestClient, path: str) -> None:
    body = {"model": "x", "query": QUERY, "documents": [RED], "return_documents": True, "max_tokens_per_doc": 9}
    answer = client.post(path, json=body).json()
    assert answer["results"][0]["document"] == {"text": RED}


def test_texts_get_an_answer_in_the_form_of_tei(client: TestClient, index: FakeIndex) -> None:
    ids = list(index.regions)[:3]
    found = post(client, query=QUERY, texts=ids, raw_scores=False, truncate=True).json()
    assert {result["index"]: result["score"] for result in found} == pytest.approx(expected(index, ids), abs=1e-6)
    assert all(set(result) == {"index", "score"} for result in found)
    shown = post(client, query=QUERY, texts=ids, return_text=True).json()
    assert [result["text"] for result in shown] == [ids[result["index"]] for result in shown]


def test_pictures_in_the_request_are_ranked_with_indexed_ones(client: TestClient, index: FakeIndex) -> None:
    file = index.files[RED]
    assert file is not None
    content = file.read_bytes()
    documents = [RED, data_url(content), {"image": base64.b64encode(content).decode()}, {"id": RED}, {"text": RED}]
    results = post(client, query=QUERY, documents=documents).json()["results"]
    scores = {result["relevance_score"] for result in results}
    assert max(scores) - min(scores) < 1e-5, "one picture in five forms"
    assert sorted(result["index"] for result in results) == [0, 1, 2, 3, 4]


def test_a_picture_ranks_sentences(client: TestClient, index: FakeIndex) -> None:
    content = jpeg()
    answer = post(client, query={"image": data_url(content)}, documents=[*CAPTIONS[:3], {"text": CAPTIONS[3]}]).json()
    service = client.app.state.backend.service
    scores = index.retriever.score(batch_of([service.regions(content)]), list(CAPTIONS[:4]))[0]
    assert [result["index"] for result in answer["results"]] == scores.argsort(descending=True).tolist()


def test_a_calibrated_model_answers_with_probabilities(
    client: TestClient, index: FakeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibration = Calibration("platt", 3.0, 0.0, -1.0, len(index), 5, "small", "dev", "")
    monkeypatch.setattr(network(), "calibration", calibration)
    (result,) = post(client, query=QUERY, documents=[RED]).json()["results"]
    score = index.retriever.score(batch_of([index.regions[RED]]), QUERY)
    assert result["relevance_score"] == pytest.approx(float(calibration.probability(score)), abs=1e-6)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"query": QUERY}, 422, "documents is missing or empty; expected ids of indexed pictures"),
        ({"query": QUERY, "documents": []}, 422, "documents is missing or empty"),
        ({"documents": [RED]}, 422, "query: Field required; expected JSON as /docs describes for /rerank"),
        ({"query": QUERY, "documents": [1]}, 422, "expected JSON as /docs describes"),
        ({"query": QUERY, "documents": [RED] * 9}, 422, "documents has 9 entries; expected at most 8"),
        ({"query": QUERY, "documents": [RED], "top_n": 0}, 422, "top_n is 0; expected 1 or more"),
        ({"query": "...", "documents": [RED]}, 422, "the query has no word"),
        ({"query": "a" * 99, "documents": [RED]}, 422, "the query has 99 characters; expected at most 80"),
        ({"query": QUERY, "documents": ["nothing.jpg"]}, 404, "the index has no picture 'nothing.jpg'"),
        ({"query": QUERY, "documents": [""]}, 422, "documents[0] is empty; expected an id"),
        ({"query": QUERY, "documents": [RED, "x" * 4097]}, 422, "the id has 4,097 characters; expected at most 4,096"),
        (
            {"query": QUERY, "documents": [RED, "https://a.b/c.jpg"]},
            422,
            "documents[1] is a URL, and URLs are not fetched",
        ),
        ({"query": QUERY, "documents": ["data:image/jpeg,abc"]}, 422, "documents[0] is no data URL in base64"),
        ({"query": QUERY, "documents": ["data:image/png;base64,!"]}, 422, "documents[0] has base64 that can't be read"),
        ({"query": QUERY, "documents": [data_url(b"no picture")]}, 422, "the picture is no readable picture"),
        ({"query": QUERY, "documents": [data_url(jpeg())] * 3}, 422, "documents has 3 pictures; expected at most 2"),
        (
            {"query": {"text": "x"}, "documents": ["a dog"]},
            422,
            "query is an object without image; expected a sentence",
        ),
        ({"query": {"image": data_url(jpeg())}, "documents": [{"id": RED}]}, 422, "the query has no word"),
    ],
)
def test_requests_that_cannot_be_used_are_refused(
    index: FakeIndex, body: dict[str, Any], status: int, message: str
) -> None:
    from dataclasses import replace

    with serving(index, replace(LIMITS, documents=8, pictures=2)) as client:
        assert message in refusal(client.post("/rerank", json=body), status)


def test_a_large_picture_is_refused_before_it_is_decoded(client: TestClient) -> None:
    answer = post(client, query=QUERY, documents=[data_url(jpeg(1200, 1000))])
    assert "1200 x 1000 pixels; expected at most 1,000,000" in refusal(answer, 422)


def test_a_request_that_cannot_be_used_describes_no_picture(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    described: list[Any] = []
    monkeypatch.setattr(Colours, "extract", lambda self, pictures: described.append(pictures))
    pictures = [data_url(jpeg(colour=f"#0000{number:02x}")) for number in range(LIMITS.pictures + 1)]
    assert "documents has 17 pictures; expected at most 16" in refusal(
        post(client, query=QUERY, documents=pictures), 422
    )
    assert "the query has no word" in refusal(post(client, query="...", documents=pictures[:2]), 422)
    assert "the query has no word" in refusal(post(client, query={"image": pictures[0]}, documents=["..."]), 422)
    assert described == []


def test_a_body_that_is_no_json_and_requests_of_other_sites_are_refused(client: TestClient) -> None:
    headers = {"content-type": "application/json"}
    assert "expected JSON as /docs describes" in refusal(client.post("/rerank", content=b"{", headers=headers), 422)
    foreign = client.post("/rerank", json={"query": QUERY, "documents": [RED]}, headers={"origin": "https://a.b"})
    assert "accepts requests of its own page only" in refusal(foreign, 403)


def test_pictures_that_cannot_be_described_here_are_refused(tmp_path: Path) -> None:
    with serving(make_index(tmp_path, uploads=False)) as client:
        answer = post(client, query=QUERY, documents=[data_url(jpeg())])
        assert "pictures can't be uploaded: the features of this index" in refusal(answer, 422)
        assert post(client, query=QUERY, documents=[RED]).status_code == 200


@pytest.mark.parametrize("provider", ["cohere", "jina", "text-embeddings-inference"])
def test_the_clients_of_the_package_rerankers_read_the_answers(
    provider: str, client: TestClient, index: FakeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rerankers.models import api_rankers

    monkeypatch.setattr(
        api_rankers.requests, "post", lambda url, headers, data: client.post(url, headers=headers, content=data)
    )
    path = "rerank" if provider == "text-embeddings-inference" else "v1/rerank"
    ranker = api_rankers.APIRanker("any", "no key", provider, url=f"http://127.0.0.1/{path}")
    ids = list(index.regions)[:4]
    found = ranker.rank(QUERY, ids)
    scores = expected(index, ids)
    assert {result.doc_id: result.score for result in found} == pytest.approx(scores, abs=1e-6)
    assert [result.rank for result in found] == [1, 2, 3, 4]
