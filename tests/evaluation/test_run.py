"""Protocols, ensembles and evaluation of a real (untrained) network on a small split."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.indexed import Small
from tests.support.members import member
from tests.support.mortal import OwnProcess
from tshsr.data.dataset import Split
from tshsr.data.regions import RegionFeatures
from tshsr.errors import InputError, SettingsError
from tshsr.evaluation import run as evaluation
from tshsr.evaluation.run import choose_protocol, evaluate, evaluate_scores
from tshsr.metrics.ranks import metrics_by_fold, query_ranks
from tshsr.metrics.recall import score_metrics
from tshsr.scoring import storage as matrices
from tshsr.scoring.all_pairs import score_split
from tshsr.scoring.options import ScoringOptions
from tshsr.scoring.storage import ensemble


def test_a_network_that_an_engine_scored_trains_on(small: Small) -> None:
    retriever = small.retriever()
    retriever.matcher.train()
    found = evaluation.evaluate_models([retriever], small.split(), engine=OwnProcess(24))
    assert retriever.matcher.training
    expected = evaluation.evaluate_models([small.retriever()], small.split())
    np.testing.assert_array_equal(found.scores["fused"], expected.scores["fused"])


@pytest.mark.parametrize("settings", [{"dtype": torch.bfloat16}, {"kernel": "auto"}])
def test_an_engine_scores_in_float32_alone(small: Small, settings: dict[str, Any]) -> None:
    options, (name,) = ScoringOptions(**settings), settings
    with pytest.raises(SettingsError, match=rf"an engine scores all pairs in float32; leave options\.{name} out"):
        evaluation.evaluate_models([small.retriever()], small.split(), options=options, engine=OwnProcess(24))


def report_on(scores, owners, protocol="auto"):
    return evaluate_scores(scores, owners, protocol=protocol, data="d", split="test", models=["m"], seconds=2.5)


def random_scores(images, captions, seed=0):
    return np.random.default_rng(seed).random((images, captions), dtype=np.float32)


@pytest.mark.parametrize(
    ("protocol", "images", "chosen"),
    [
        ("auto", 1000, "flickr"),
        ("auto", 5000, "coco-5k"),
        ("auto", 7, "flickr"),
        ("flickr", 5000, "flickr"),
        ("coco-5k", 5000, "coco-5k"),
        ("coco-1k", 5000, "coco-1k"),
        ("coco-1k", 1000, "coco-1k"),
    ],
)
def test_auto_never_takes_the_easier_protocol(protocol, images, chosen):
    assert choose_protocol(protocol, images) == chosen


@pytest.mark.parametrize(
    ("protocol", "images", "error", "sentence"),
    [
        ("coco-5k", 1000, InputError, "coco-5k is for 5000 images; the split has 1000. Use the protocol flickr"),
        ("coco-1k", 1500, InputError, "coco-1k is for a multiple of 1000 images; the split has 1500. Use flickr"),
        ("coco", 1000, SettingsError, "protocol 'coco' is unknown; expected auto, flickr, coco-1k or coco-5k"),
    ],
)
def test_a_protocol_that_does_not_fit_is_refused(protocol, images, error, sentence):
    with pytest.raises(error, match=sentence):
        choose_protocol(protocol, images)


def test_a_report_of_scores_has_its_origin_and_metrics():
    owners = np.array([0, 1, 1, 2])
    scores = {"fused": random_scores(3, 4), "pooled": random_scores(3, 4, seed=1)}
    report = report_on(scores, owners)
    assert (report.data, report.split, report.protocol, report.models) == ("d", "test", "flickr", ("m",))
    assert (report.images, report.captions, report.seconds) == (3, 4, 2.5)
    assert report.scores == {name: score_metrics(matrix, owners) for name, matrix in scores.items()}
    assert report.ranks == {name: query_ranks(matrix, owners) for name, matrix in scores.items()}
    assert report.folds is None
    assert report.hardware
    assert report.commit


def test_coco_1k_is_the_mean_of_folds_and_keeps_them(monkeypatch):
    monkeypatch.setattr(evaluation, "FOLD", 10)
    owners = np.random.default_rng(1).permutation(np.repeat(np.arange(50), 2))
    scores = random_scores(50, 100)
    scores[owners, np.arange(100)] += 0.2
    report = report_on({"fused": scores}, owners, "coco-1k")
    folds = metrics_by_fold(query_ranks(scores, owners, folds=5))
    assert report.folds == {"fused": folds}
    assert len(folds) == 5
    assert report.scores["fused"].rsum == pytest.approx(np.mean([fold.rsum for fold in folds]))
    assert report.scores["fused"].text_to_image.r5 == pytest.approx(np.mean([fold.text_to_image.r5 for fold in folds]))
    assert report.ranks == {"fused": query_ranks(scores, owners, folds=5)}
    whole = report_on({"fused": scores}, owners, "flickr")
    assert whole.scores["fused"].rsum < report.scores["fused"].rsum  # fewer images to confuse with
    assert (report.images, report.captions) == (50, 100)


def test_a_fold_is_1000_images():
    owners = np.arange(2000)
    scores = np.zeros((2000, 2000), dtype=np.float32)
    scores[owners, owners] = 1
    scores[:1000, 1000:] = 2  # across folds only: coco-1k does not see it
    assert report_on({"fused": scores}, owners, "coco-1k").scores["fused"].rsum == 600
    assert report_on({"fused": scores}, owners, "flickr").scores["fused"].rsum == 300


@pytest.mark.parametrize(
    ("scores", "sentence"),
    [
        ({}, "expected at least one score matrix of every model; got none"),
        ({"a": np.zeros((2, 3)), "b": np.zeros((3, 2))}, r"'b' have shape \(3, 2\), 'a' have \(2, 3\); expected"),
        ({"a": np.zeros(3)}, r"'a' have shape \(3,\)"),
    ],
)
def test_matrices_that_do_not_fit_are_refused(scores, sentence):
    with pytest.raises(InputError, match=sentence):
        report_on(scores, np.array([0, 1, 1]))


def test_an_ensemble_is_the_mean_by_name(monkeypatch):
    monkeypatch.setattr(matrices, "BLOCK", 4)  # one row a block
    first = {"fused": np.array([[1.0, 2.0], [3.0, 4.0]]), "pooled": np.ones((2, 2)), "word_stream": np.ones((2, 2))}
    second = {"word_stream": np.full((2, 2), 3.0), "fused": np.array([[3.0, 2.0], [1.0, 0.0]])}
    mean = ensemble([first, second])
    assert list(mean) == ["fused", "word_stream"]
    assert mean["fused"].tolist() == [[2.0, 2.0], [2.0, 2.0]]
    assert mean["word_stream"].tolist() == [[2.0, 2.0], [2.0, 2.0]]


def test_equal_members_average_to_themselves_exactly():
    scores = {"fused": random_scores(30, 70)}
    mean = ensemble([scores, scores, scores])["fused"]
    assert mean.dtype == np.float32
    assert np.array_equal(mean, scores["fused"])


def test_an_ensemble_of_one_is_that_model():
    scores = {"fused": random_scores(3, 4)}
    assert ensemble([scores])["fused"] is scores["fused"]


def test_members_without_a_common_name_are_refused():
    with pytest.raises(InputError, match=r"share no score name \(fused; word_stream, pooled\)"):
        ensemble([{"fused": np.ones((1, 1))}, {"word_stream": np.ones((1, 1)), "pooled": np.ones((1, 1))}])


@pytest.mark.parametrize("members", [[], [{}], [{"fused": np.ones((1, 1))}, {}]])
def test_members_without_scores_are_refused(members):
    with pytest.raises(InputError, match="at least one score matrix of every model"):
        ensemble(members)


def test_members_of_different_splits_are_refused():
    with pytest.raises(InputError, match=r"shape \(2, 4\), 'fused' have \(2, 3\)"):
        ensemble([{"fused": np.ones((2, 3))}, {"fused": np.ones((2, 4))}])


@pytest.fixture
def split(tmp_path):
    """Four images with one to three captions, not in order."""
    regions = np.random.default_rng(0).standard_normal((4, 5, 6)).astype(np.float32)
    np.save(tmp_path / "regions.npy", regions)
    return Split(
        data="small",
        name="dev",
        regions=RegionFeatures.open(tmp_path / "regions.npy"),
        captions=("a red dog", "two cats", "a dog", "the blue car", "a cat", "car", "red car"),
        image_of_caption=np.array([2, 0, 2, 3, 0, 1, 2]),
        image_ids=("0", "1", "2", "3"),
        extractor="random",
    )


def test_a_model_is_scored_on_a_split_and_reported(split):
    calls = []
    one = member("runs/one", split, 1)
    options = ScoringOptions(progress=lambda done, total: calls.append((done, total)))
    report, scores = evaluate([one], split, options=options)
    expected = score_split(one.matcher, one.tokenizer, split)
    assert set(scores) == set(expected) >= {"fused", "pooled", "word_stream", "region_stream"}
    for name, matrix in scores.items():
        assert np.array_equal(matrix, expected[name])
        assert report.scores[name] == score_metrics(matrix, split.image_of_caption)
    assert (report.data, report.split, report.models) == ("small", "dev", ("runs/one",))
    assert (report.images, report.captions, report.protocol) == (4, 7, "flickr")
    assert report.seconds > 0
    assert calls[-1] == (28, 28)


def test_several_models_are_an_ensemble_and_named_as_one(split):
    members = [member("one", split, 1), member("two", split, 2)]
    report, scores = evaluate(members, split)
    each = [score_split(one.matcher, one.tokenizer, split)["fused"] for one in members]
    assert not np.allclose(each[0], each[1])
    assert np.allclose(scores["fused"], (each[0] + each[1]) / 2)
    assert report.models == ("one", "two")


def test_what_does_not_fit_is_refused_before_scoring(split):
    calls = []
    options = ScoringOptions(progress=lambda *done: calls.append(done))

    def refused(split, protocol, sentence):
        with pytest.raises(InputError, match=sentence):
            evaluate([member("one", split, 1)], split, protocol=protocol, options=options)

    refused(split, "coco-5k", "coco-5k is for 5000 images; the split has 4")
    # A store's split "all" also holds images without captions.
    bare = replace(split, captions=split.captions[:3], image_of_caption=split.image_of_caption[:3])
    refused(bare, "auto", r"image 1 has no caption \(2 of 4 images have none\)")
    assert not calls


def test_no_model_is_refused(split):
    with pytest.raises(SettingsError, match="no model to evaluate; name at least one run"):
        evaluate([], split)
