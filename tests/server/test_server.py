"""The server over an index in memory: responses and errors of every route."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image

from tests.support.fake_index import CAPTIONS, FakeIndex, make_index
from tests.support.service import RED, jpeg, refusal, serving
from tshsr.data.pictures import upright_size
from tshsr.errors import DataError, FilterError
from tshsr.scoring.calibration import Calibration


@pytest.fixture
def index(tmp_path: Path) -> FakeIndex:
    return make_index(tmp_path)


@pytest.fixture
def client(index: FakeIndex) -> Iterator[TestClient]:
    with serving(index) as opened:
        yield opened


def test_a_sentence_finds_pictures_with_the_regions_of_its_words(client: TestClient) -> None:
    answer = client.get("/api/search", params={"q": CAPTIONS[0], "k": 3}).json()
    assert answer["query"] == CAPTIONS[0]
    assert answer["unknown"] == []
    assert answer["pictures"] == len(CAPTIONS)
    assert len(answer["results"]) == 3
    scores = [result["score"] for result in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    first = answer["results"][0]
    assert first["id"].startswith("pictures/")
    assert first["file"] == Path(first["id"]).name, "without its folder"
    assert first["metadata"] == {"place": "Oslo"}
    assert [word["word"] for word in first["words"]] == CAPTIONS[0].split()
    for word in first["words"]:
        weights = [box[4] for box in word["boxes"]]
        assert weights == sorted(weights, reverse=True)
        assert all(0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1 for box in word["boxes"])


def test_results_of_a_calibrated_network_have_probabilities(
    client: TestClient, index: FakeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client.get("/api/search", params={"q": "red"}).json()["results"][0]["probability"] is None
    plain = index.result
    monkeypatch.setattr(index, "result", lambda *given: replace(plain(*given), probability=0.25))
    answer = client.get("/api/search", params={"q": "red"}).json()
    assert [result["probability"] for result in answer["results"]] == [0.25] * len(answer["results"])


def test_explanations_of_a_calibrated_network_have_the_probability_of_the_search(
    client: TestClient, index: FakeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = {"q": "red", "id": RED}
    assert client.get("/api/explain", params=pair).json()["probability"] is None
    calibration = Calibration("platt", 2.0, 0.0, -1.0, pictures=100, candidates=10, data="", split="", weights="")
    monkeypatch.setattr(index.retriever, "calibration", calibration)
    answer = client.get("/api/explain", params=pair).json()
    score = torch.tensor(answer["explanation"]["scores"]["fused"])
    assert answer["probability"] == pytest.approx(float(calibration.probability(score, pictures=len(index))))


def test_unknown_words_are_reported(client: TestClient) -> None:
    assert client.get("/api/search", params={"q": "a red zebra", "k": 1}).json()["unknown"] == ["zebra"]
    assert client.get("/api/explain", params={"q": "a zebra", "id": RED}).json()["unknown"] == ["zebra"]


def test_the_size_of_a_picture_respects_its_orientation(client: TestClient, index: FakeIndex) -> None:
    turned = Image.new("RGB", (90, 30), "red")
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(index.files[RED], exif=exif)
    index.regions = {RED: index.regions[RED]}
    found = client.get("/api/search", params={"q": "red"}).json()["results"][0]
    explained = client.get("/api/explain", params={"q": "red", "id": RED}).json()
    for answer in (found, explained):
        assert (answer["id"], answer["width"], answer["height"]) == (RED, 30, 90)


def test_a_picture_without_a_file_is_found(client: TestClient, index: FakeIndex) -> None:
    index.files[RED] = None
    answer = client.get("/api/explain", params={"q": "red", "id": RED}).json()
    assert (answer["file"], answer["width"], answer["height"]) == (None, None, None)
    assert "there is no picture file of" in refusal(client.get("/api/picture", params={"id": RED}), 404)


def test_a_picture_finds_captions(client: TestClient) -> None:
    answer = client.post("/api/search", files={"picture": ("x.jpg", jpeg())}, data={"k": "4"}).json()
    assert answer["captions"] == len(CAPTIONS)
    assert len(answer["results"]) == 4
    assert {result["caption"] for result in answer["results"]} <= set(CAPTIONS)
    assert set(answer["results"][0]) == {"id", "caption", "image", "score", "probability"}


def test_the_regions_of_uploaded_pictures_are_cached(client: TestClient, index: FakeIndex) -> None:
    service = client.app.state.backend.service
    for number in range(10):
        assert client.post("/api/search", files={"picture": jpeg(60 + number)}).status_code == 200
    assert len(service.uploads) == 8
    service.extractor = None  # extraction would fail now
    service.no_uploads = "gone."
    assert "gone" in refusal(client.post("/api/search", files={"picture": jpeg(60)}), 422)


def test_scores_of_a_pair_are_those_of_its_explanation(client: TestClient, index: FakeIndex) -> None:
    pair = {"q": CAPTIONS[1], "id": RED}
    scores = client.get("/api/score", params=pair).json()["scores"]
    assert scores == pytest.approx(index.explain(CAPTIONS[1], RED).scores)
    explanation = client.get("/api/explain", params=pair).json()["explanation"]
    assert explanation["scores"] == pytest.approx(scores)
    assert set(explanation["streams"]) == {"word_stream", "region_stream"}
    assert len(explanation["boxes"]) == explanation["regions"] == 4


def test_an_uploaded_picture_gets_the_scores_and_the_explanation_of_the_indexed_one(
    client: TestClient, index: FakeIndex
) -> None:
    file = index.files[RED]
    assert file is not None
    sent = {"picture": ("mine.jpg", file.read_bytes())}
    indexed = client.get("/api/score", params={"q": "a red square", "id": RED}).json()
    assert client.post("/api/score", files=sent, data={"q": "a red square"}).json()["scores"] == pytest.approx(
        indexed["scores"], abs=1e-5
    )
    answer = client.post("/api/explain", files=sent, data={"q": "a red square"}).json()
    assert answer["id"] is None
    assert answer["explanation"]["words"] == ["a", "red", "square"]


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/api/search", 422, "q is missing; /docs describes the parameters of /api/search."),
        ("/api/search?q=", 422, "the query has no word; expected a sentence such as 'two dogs in the snow'."),
        ("/api/search?q=%20?!", 422, "the query has no word"),
        ("/api/search?q=" + "dog+" * 30, 422, "the query has 120 characters; expected at most 80."),
        ("/api/search?q=dog&k=0", 422, "k is 0; expected a number from 1 to 5."),
        ("/api/search?q=dog&k=6", 422, "k is 6; expected a number from 1 to 5."),
        ("/api/search?q=dog&k=many", 422, "k is 'many'; expected a whole number."),
        ("/api/search?q=dog&where=" + "x" * 81, 422, "the filter has 81 characters; expected at most 80."),
        ("/api/explain?q=dog", 422, "id is missing;"),
        ("/api/explain?id=x&q=dog", 404, "the index has no picture 'x'."),
        ("/api/score?id=x&q=dog", 404, "the index has no picture 'x'."),
        ("/api/score?id=x&q=.", 422, "the query has no word"),
        ("/api/picture?id=" + "x/" * 200, 404, "there is no picture file of"),
        ("/api/picture?id=" + "x/" * 2049, 422, "the id has 4,098 characters; expected at most 4,096."),
        ("/api/picture?id=x", 404, "there is no picture file of 'x'."),
        ("/api/picture?id=../../etc/passwd", 404, "there is no picture file of"),
        ("/api/picture?id=/etc/passwd", 404, "there is no picture file of"),
        (f"/api/picture?id={RED}&side=9999", 422, "side is 9999; expected 480 or 1600."),
        ("/api/nothing", 404, "there is nothing at '/api/nothing' for GET; the page is at /"),
        ("/../../etc/passwd", 404, "there is nothing at"),
        ("/service.py", 404, "there is nothing at '/service.py'"),
    ],
)
def test_an_invalid_request_is_refused_in_one_sentence(client: TestClient, path: str, status: int, said: str) -> None:
    assert said in refusal(client.get(path), status)


def test_a_wrong_method_is_refused(client: TestClient) -> None:
    assert "there is nothing at '/api/search' for DELETE" in refusal(client.delete("/api/search"), 405)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the picture is empty (0 bytes)"),
        (b"no picture at all", "the picture is no readable picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "the picture is no readable picture"),
        (jpeg()[:200], "the picture is no readable picture"),
        (jpeg(1001, 1000), "the picture has 1001 x 1000 pixels; expected at most 1,000,000"),
    ],
)
@pytest.mark.parametrize("path", ["/api/search", "/api/score", "/api/explain"])
def test_a_file_that_is_no_usable_picture_is_refused(client: TestClient, path: str, content: bytes, said: str) -> None:
    answer = client.post(path, files={"picture": ("x.jpg", content)}, data={"q": "a dog"})
    assert said in refusal(answer, 422)


def test_a_form_without_a_picture_is_refused(client: TestClient) -> None:
    said = "picture is missing; send a file as the field 'picture' of a form (multipart/form-data)."
    assert refusal(client.post("/api/search"), 422) == said
    assert refusal(client.post("/api/search", data={"picture": "https://example.org/x.jpg"}), 422) == said
    broken = {"content-type": "multipart/form-data; boundary=x"}
    assert "the form can't be read" in refusal(client.post("/api/search", content=b"garbage", headers=broken), 400)


def test_an_index_whose_extractor_cannot_run_here_says_so(tmp_path: Path) -> None:
    client = serving(make_index(tmp_path, uploads=False))
    why = "the features of this index were made by another tool; pictures can't be described here."
    assert refusal(client.post("/api/search", files={"picture": jpeg()}), 422) == f"pictures can't be uploaded: {why}"
    assert client.get("/api/about").json()["uploads"] == why


def test_an_index_without_captions_says_so(client: TestClient, index: FakeIndex) -> None:
    index.sentences = ()
    answer = client.post("/api/search", files={"picture": jpeg()})
    assert "this index holds no captions" in refusal(answer, 422)


def test_an_unusable_filter_is_a_client_error_and_a_broken_index_a_server_error(
    client: TestClient, index: FakeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind, status in ((FilterError, 422), (DataError, 500)):

        def fail(*question: object, kind: type[DataError] = kind, **how: object) -> None:
            raise kind("there is something wrong.")

        monkeypatch.setattr(index, "search", fail)
        assert refusal(client.get("/api/search?q=dog&where=x"), status) == "there is something wrong."


@pytest.mark.parametrize("path", ["/api/search?q=dog&where=x", "/api/search?q=dog", "/api/explain?q=dog&id=x"])
def test_the_path_of_the_index_is_redacted(
    client: TestClient, index: FakeIndex, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    absolute = index.folder.resolve()

    def fail(*question: object, **how: object) -> None:
        raise DataError(
            f"{index.folder} cannot be read (Not found: {str(absolute)[1:]}/x); {absolute}/index.json is damaged."
        )

    monkeypatch.setattr(index, "search", fail)
    monkeypatch.setattr(index, "explain", fail)
    monkeypatch.chdir(index.folder.parent)
    for folder in (absolute, Path(index.folder.name), Path()):
        if folder == Path():
            monkeypatch.chdir(index.folder)
        index.folder = folder
        said = client.get(path).json()["error"]
        assert said == "the index cannot be read (Not found: the index/x); the index/index.json is damaged."


def test_an_internal_error_is_a_sentence_without_a_traceback(
    client: TestClient, index: FakeIndex, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(index, "search", lambda *question, **how: 1 / 0)
    answer = client.get("/api/search?q=dog")
    assert refusal(answer, 500) == "internal error; the log of the server holds the details."
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "ZeroDivisionError" in caplog.text


def test_small_pictures_are_sent_unchanged_and_large_ones_scaled(client: TestClient, index: FakeIndex) -> None:
    file = index.files[RED]
    assert file is not None
    answer = client.get("/api/picture", params={"id": RED})
    assert answer.content == file.read_bytes()
    assert answer.headers["content-type"] == "image/jpeg"
    Image.new("RGB", (1200, 600), "red").save(file)
    answer = client.get("/api/picture", params={"id": RED})
    assert Image.open(io.BytesIO(answer.content)).size == (480, 240)


def test_pictures_above_the_limit_of_uploads_are_sent(client: TestClient, index: FakeIndex) -> None:
    file = index.files[RED]
    assert file is not None
    Image.new("RGB", (2000, 1000), "red").save(file)
    answer = client.get("/api/picture", params={"id": RED})
    assert Image.open(io.BytesIO(answer.content)).size == (480, 240)


def test_a_rotated_picture_is_sent_upright_where_browsers_ignore_its_orientation(
    client: TestClient, index: FakeIndex
) -> None:
    file = index.files[RED]
    assert file is not None
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in ("WEBP", "JPEG"):
        Image.new("RGB", (90, 30), "red").save(file, kind, exif=exif)
        content = client.get("/api/picture", params={"id": RED}).content
        assert (content == file.read_bytes()) is (kind == "JPEG")
        assert upright_size(Image.open(io.BytesIO(content))) == (30, 90)


def test_other_formats_are_sent_as_jpeg(client: TestClient, index: FakeIndex) -> None:
    file = index.files[RED]
    assert file is not None
    Image.new("RGB", (30, 20), "red").save(file, "BMP")
    answer = client.get("/api/picture", params={"id": RED})
    assert answer.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(answer.content)).format == "JPEG"


def test_a_file_that_is_no_longer_a_picture_is_not_sent(client: TestClient, index: FakeIndex, tmp_path: Path) -> None:
    file = index.files[RED]
    assert file is not None
    secret = tmp_path / "secret.txt"
    secret.write_text("a secret")
    file.unlink()
    file.symlink_to(secret)
    answer = client.get("/api/picture", params={"id": RED})
    said = refusal(answer, 404)
    assert "red.jpg is no readable picture" in said
    assert str(tmp_path) not in said
    file.unlink()
    assert "red.jpg can't be read (No such file or directory)" in refusal(
        client.get("/api/picture", params={"id": RED}), 404
    )


def test_health_and_about_report_the_sizes(client: TestClient) -> None:
    health = client.get("/healthz").json()
    assert (health["status"], health["pictures"], health["captions"]) == ("ok", 6, 6)
    about = client.get("/api/about").json()
    assert about["examples"] == sorted(CAPTIONS, key=len)
    assert (about["uploads"], about["upload_bytes"], about["query_characters"]) == (None, 200_000, 80)
