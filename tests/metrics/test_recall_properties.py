"""Ranks against plain loops, and invariances."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tshsr.metrics.recall as metrics
from tshsr.metrics.ranks import metrics_by_fold, query_ranks
from tshsr.metrics.recall import image_to_text_ranks, mean_metrics, score_metrics, text_to_image_ranks


@st.composite
def cases(draw, *, most_images: int = 6):
    """Scores with many ties, and captions in any order, one to four per image."""
    counts = draw(st.lists(st.integers(1, 4), min_size=1, max_size=most_images))
    owners = draw(st.permutations(np.repeat(np.arange(len(counts)), counts).tolist()))
    cells = st.lists(st.integers(-3, 3), min_size=len(counts) * len(owners), max_size=len(counts) * len(owners))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    return np.array(draw(cells), dtype=dtype).reshape(len(counts), len(owners)) / 4, np.array(owners)


def looped_image_to_text(scores, owners):
    ranks = []
    for image in range(len(scores)):
        best = max(scores[image, c] for c in range(len(owners)) if owners[c] == image)
        ranks.append(1 + sum(owners[c] != image and scores[image, c] >= best for c in range(len(owners))))
    return ranks


def looped_text_to_image(scores, owners):
    ranks = []
    for caption, own in enumerate(owners):
        wrong = [image for image in range(len(scores)) if image != own]
        ranks.append(1 + sum(scores[image, caption] >= scores[own, caption] for image in wrong))
    return ranks


@given(cases())
def test_ranks_are_those_of_plain_loops(case):
    scores, owners = case
    assert image_to_text_ranks(scores, owners).tolist() == looped_image_to_text(scores, owners)
    assert text_to_image_ranks(scores, owners).tolist() == looped_text_to_image(scores, owners)


@given(cases(), st.integers(1, 40))
def test_the_size_of_a_block_is_invisible(case, block):
    whole = score_metrics(*case)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "BLOCK", block)
        assert score_metrics(*case) == whole


@given(cases(), st.randoms(use_true_random=False))
def test_the_order_of_captions_and_images_is_invisible(case, random):
    scores, owners = case
    images, captions = list(range(len(scores))), list(range(len(owners)))
    random.shuffle(images)
    random.shuffle(captions)
    new_row = np.argsort(images)
    shuffled = scores[images][:, captions], new_row[owners[captions]]
    assert image_to_text_ranks(*shuffled).tolist() == image_to_text_ranks(scores, owners)[images].tolist()
    assert text_to_image_ranks(*shuffled).tolist() == text_to_image_ranks(scores, owners)[captions].tolist()


@given(cases())
def test_only_the_order_of_scores_counts(case):
    scores, owners = case
    assert score_metrics(np.exp(scores) * 3 - 7, owners) == score_metrics(scores, owners)


@given(cases())
def test_a_higher_wrong_score_never_helps(case):
    scores, owners = case
    worse = scores + (owners != np.arange(len(scores))[:, None])
    assert (image_to_text_ranks(worse, owners) >= image_to_text_ranks(scores, owners)).all()
    assert (text_to_image_ranks(worse, owners) >= text_to_image_ranks(scores, owners)).all()


@given(st.integers(1, 6), st.data())
def test_with_one_caption_an_image_the_directions_mirror_each_other(images, data):
    cells = st.lists(st.integers(-3, 3), min_size=images**2, max_size=images**2)
    scores = np.array(data.draw(cells), dtype=np.float64).reshape(images, images)
    owners = np.arange(images)
    assert image_to_text_ranks(scores, owners).tolist() == text_to_image_ranks(scores.T, owners).tolist()


@given(st.integers(1, 3), st.integers(1, 3), st.data())
def test_folds_are_the_metrics_of_cut_out_matrices(folds, size, data):
    counts = data.draw(st.lists(st.integers(1, 3), min_size=folds * size, max_size=folds * size))
    owners = np.array(data.draw(st.permutations(np.repeat(np.arange(folds * size), counts).tolist())))
    random = np.random.default_rng(data.draw(st.integers(0, 1000)))
    scores = random.integers(0, 5, size=(folds * size, len(owners))) / 4
    expected = []
    for fold in range(folds):
        columns = [c for c in range(len(owners)) if owners[c] // size == fold]
        cut = np.array([[scores[i, c] for c in columns] for i in range(fold * size, (fold + 1) * size)])
        expected.append(score_metrics(cut, np.array([owners[c] % size for c in columns])))
    got = metrics_by_fold(query_ranks(scores, owners, folds=folds))
    assert list(got) == expected
    assert mean_metrics(got).rsum == pytest.approx(sum(fold.rsum for fold in expected) / folds)
