"""Rankings with several relevant items: hand-made cases, plain loops and an independent implementation."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from tests.support.ranked import looped
from tshsr.errors import InputError
from tshsr.metrics import multi_positive as module
from tshsr.metrics.multi_positive import Places, RankingMetrics, ranked, ranking_metrics, rankings, relevant_places
from tshsr.metrics.recall import score_metrics


def case(seed: int, images: int = 14) -> tuple[np.ndarray, np.ndarray]:
    """Scores with many ties, and captions in random order, one to seven per image."""
    random = np.random.default_rng(seed)
    owners = random.permutation(np.concatenate([np.arange(images), random.integers(0, images, size=3 * images)]))
    scores = random.integers(0, 12, size=(images, 4 * images)).astype(np.float32)
    scores[owners, np.arange(4 * images)] += 4
    return scores, owners


def test_positions_of_relevant_items_count_ties_against_the_model() -> None:
    scores = np.array([[0.9, 0.5, 0.5, 0.1, 0.5], [0.2, 0.3, 0.1, 0.0, 0.4]])
    places = relevant_places(scores, np.array([0, 1, 0, 0]), np.array([1, 4, 3, 2]))
    assert places.relevant.tolist() == [3, 1]
    assert places.place.tolist() == [3, 4, 5, 1], "0.9 and the wrong 0.5 go ahead of both right 0.5"


def test_the_figures_of_a_hand_made_query() -> None:
    # R = 4; right answers at places 1, 3, 6 and 12.
    metrics = ranking_metrics(Places(np.array([1, 3, 6, 12]), np.array([4])))
    assert metrics == RankingMetrics(
        *(100.0, 100.0, 100.0),
        mrr=1.0,
        map_at_r=pytest.approx(100 * (1 / 1 + 2 / 3) / 4),
        r_precision=50.0,
        true_r1=25.0,
        true_r5=50.0,
        true_r10=75.0,
        all_r5=0.0,
        all_r10=0.0,
    )


def test_figures_are_means_over_queries_whatever_their_number_of_right_answers() -> None:
    metrics = ranking_metrics(Places(np.array([2, 1, 2, 3]), np.array([1, 3])))
    assert (metrics.r1, metrics.mrr, metrics.r_precision) == (50.0, 0.75, 50.0)
    assert (metrics.map_at_r, metrics.true_r1, metrics.all_r5) == (50.0, pytest.approx(100 / 6), 100.0)


@pytest.mark.parametrize("seed", range(5))
def test_the_figures_are_those_of_plain_loops(seed: int) -> None:
    scores, owners = case(seed)
    found = rankings(scores, owners)
    images = {image: np.flatnonzero(owners == image).tolist() for image in range(14)}
    texts = {caption: [int(image)] for caption, image in enumerate(owners)}
    assert asdict(found.image_to_text) == pytest.approx(looped(scores, images))
    assert asdict(found.text_to_image) == pytest.approx(looped(scores.T, texts))
    plain = score_metrics(scores, owners)
    for side, other in ((found.image_to_text, plain.image_to_text), (found.text_to_image, plain.text_to_image)):
        assert (side.r1, side.r5, side.r10) == (other.r1, other.r5, other.r10)


def test_with_one_relevant_item_all_metrics_agree() -> None:
    side = rankings(*case(1)).text_to_image
    assert side.true_r5 == side.all_r5 == side.r5
    assert side.map_at_r == side.r_precision == side.r1


def test_folds_are_ranked_apart_and_averaged() -> None:
    scores, owners = case(2)
    parts = []
    for start in (0, 7):
        columns = np.flatnonzero(owners // 7 == start // 7)
        parts.append(asdict(rankings(scores[start : start + 7][:, columns], owners[columns] - start).image_to_text))
    found = asdict(rankings(scores, owners, folds=2).image_to_text)
    assert found == pytest.approx({name: (parts[0][name] + parts[1][name]) / 2 for name in found})


def test_the_size_of_a_block_is_invisible(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = rankings(*case(3))
    monkeypatch.setattr(module, "BLOCK", 1)
    assert rankings(*case(3)) == whole


def test_a_model_with_equal_scores_finds_nothing() -> None:
    owners = np.repeat(np.arange(30), 5)
    side = rankings(np.zeros((30, 150)), owners).image_to_text
    assert (side.true_r10, side.map_at_r, side.r_precision, side.all_r10) == (0, 0, 0, 0)
    assert side.mrr == pytest.approx(1 / 146)


def test_a_perfect_model_finds_everything() -> None:
    owners = np.repeat(np.arange(30), 5)
    side = rankings(np.eye(30)[:, owners], owners).image_to_text
    assert (side.true_r1, side.true_r5, side.all_r5, side.map_at_r, side.r_precision, side.mrr) == (20, *[100.0] * 4, 1)


def test_an_unscored_item_is_never_found_but_counts() -> None:
    metrics = ranked(np.array([[3.0, 2.0, 1.0]]), np.array([0, 0]), np.array([0, -1]))
    assert (metrics.r1, metrics.r_precision, metrics.true_r10, metrics.all_r10) == (100.0, 50.0, 50.0, 0.0)


def test_a_nan_is_refused_with_its_place() -> None:
    scores, owners = case(1)
    scores[3, 5] = np.nan
    with pytest.raises(InputError, match=r"image 3 \(row\) and caption 5 \(column\)"):
        rankings(scores, owners)


def test_uneven_folds_and_no_queries_are_refused() -> None:
    with pytest.raises(InputError, match="14 images cannot be cut into 3 folds"):
        rankings(*case(1), folds=3)
    with pytest.raises(InputError, match="at least one query with a relevant item"):
        ranking_metrics(Places(np.array([], dtype=int), np.array([], dtype=int)))


def test_the_figures_equal_those_of_ranx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    from ranx import Qrels, Run, evaluate

    random = np.random.default_rng(7)
    owners = random.permutation(np.repeat(np.arange(30), 5))  # R = 5 for all images, as ranx requires
    scores = random.permutation(np.arange(4500.0)).reshape(30, 150)
    scores[owners, np.arange(150)] += 1000.5
    qrels = Qrels.from_dict({f"i{i}": {f"c{c}": 1 for c in np.flatnonzero(owners == i)} for i in range(30)})
    run = Run.from_dict(
        {f"i{i}": {f"c{c}": float(score) for c, score in enumerate(row)} for i, row in enumerate(scores)}
    )
    names = ["mrr", "r-precision", "map@5", "recall@1", "recall@5", "recall@10"]
    theirs = evaluate(qrels, run, names)
    ours = rankings(scores, owners).image_to_text
    assert 0 < ours.map_at_r < ours.r_precision < 100
    figures = (ours.mrr, *(each / 100 for each in (ours.r_precision, ours.map_at_r)))
    assert figures == pytest.approx([theirs[name] for name in names[:3]], abs=1e-9)
    assert (ours.true_r1, ours.true_r5, ours.true_r10) == pytest.approx([100 * theirs[name] for name in names[3:]])
