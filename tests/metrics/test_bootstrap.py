"""The bootstrap: every metric of every resample equals plain loops over the drawn images."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.populations import small
from tests.support.ranked import looped
from tshsr.metrics import bootstrap as resampling
from tshsr.metrics.bootstrap import (
    CUTOFFS,
    FIGURES,
    IMAGE_TO_TEXT,
    SEVERAL,
    SEVERAL_RIGHT,
    bootstrap_counts,
    contributions,
    figures,
    medians,
    sample_of,
)
from tshsr.metrics.multi_positive import rankings
from tshsr.metrics.ranks import QueryRanks, query_ranks


def case(seed: int, images: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Scores with many ties, and captions in random order, one to four per image."""
    owners = np.random.default_rng(5).permutation(np.repeat(np.arange(images), 1 + np.arange(images) % 4))
    scores = np.random.default_rng(seed).integers(0, 9, size=(images, len(owners))).astype(float)
    scores[owners, np.arange(len(owners))] += 3
    return scores, owners


def drawn_counts(images: int, folds: int, resamples: int) -> np.ndarray:
    """Counts of drawn images; the first resample has every image once."""
    (counts,) = bootstrap_counts(images, folds, resamples, np.random.default_rng(1))
    counts[0] = 1
    return counts


def plain(scores: np.ndarray, owners: np.ndarray, drawn: list[int]) -> dict[str, float]:
    """The metrics of the drawn images with their captions, by loops over sorted lists of all items."""
    found: dict[str, float] = {}
    captions = [caption for image in drawn for caption in range(len(owners)) if owners[caption] == image]
    right = {image: np.flatnonzero(owners == image).tolist() for image in range(len(scores))}
    for direction, table, asked, answers in (
        ("image_to_text", scores, drawn, right),
        ("text_to_image", scores.T, captions, {caption: [int(image)] for caption, image in enumerate(owners)}),
    ):
        each = [looped(table, {query: answers[query]}) for query in asked]  # one query after the other
        ranks = [round(1 / query["mrr"]) for query in each]
        found |= {f"{direction}_{name}": np.mean([query[name] for query in each]) for name in each[0]}
        found |= {f"{direction}_medr": float(np.median(ranks)), f"{direction}_meanr": float(np.mean(ranks))}
    found["rsum"] = sum(found[f"{side}_r{k}"] for side in ("image_to_text", "text_to_image") for k in CUTOFFS)
    return found


@pytest.mark.parametrize("folds", [1, 3])
def test_every_figure_of_every_resample_is_that_of_plain_loops(folds: int) -> None:
    scores, owners = case(1)
    sample = sample_of([query_ranks(*case(2), folds=folds), query_ranks(scores, owners, folds=folds)])
    assert set(sample.figures) == set(FIGURES)
    counts, size = drawn_counts(12, folds, 6), 12 // folds
    for row, drawn in zip(figures(counts, sample)[:, 1], counts, strict=True):
        parts = []
        for fold in range(folds):
            rows, own = slice(fold * size, (fold + 1) * size), owners // size == fold
            images = [image for image, count in enumerate(drawn[rows]) for _ in range(int(count))]
            parts.append(plain(scores[rows][:, own], owners[own] - fold * size, images))
        expected = [np.mean([part[figure.name] for part in parts]) for figure in sample.figures]
        np.testing.assert_allclose(row, expected)


def test_metrics_of_the_original_images_are_those_of_reports() -> None:
    scores, owners = case(3)
    sample = sample_of([query_ranks(scores, owners)])
    (seen,) = figures(np.ones((1, 12)), sample)[0]
    found = dict(zip([figure.name for figure in sample.figures], seen, strict=True))
    several = rankings(scores, owners)
    for name in SEVERAL:
        assert found[f"image_to_text_{name}"] == pytest.approx(getattr(several.image_to_text, name))
    assert found["image_to_text_mrr"] == pytest.approx(several.image_to_text.mrr)
    assert found["text_to_image_mrr"] == pytest.approx(several.text_to_image.mrr)


def test_resampled_figures_equal_those_of_ranx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")  # ranx as plain Python: seconds, against a minute of compilation
    from ranx import Qrels, Run, evaluate

    random = np.random.default_rng(7)
    owners = random.permutation(np.repeat(np.arange(20), 5))  # R = 5 for all images, as ranx requires
    scores = random.permutation(np.arange(2000.0)).reshape(20, 100)  # no ties: ranx breaks them as they come
    scores[owners, np.arange(100)] += 500.5
    sample, counts = sample_of([query_ranks(scores, owners)]), drawn_counts(20, 1, 3)[2:]
    ((values,),) = figures(counts, sample)
    found = dict(zip([figure.name for figure in sample.figures], values, strict=True))
    names = {
        "map@5": "map_at_r",
        "r-precision": "r_precision",
        **{f"recall@{k}": f"true_r{k}" for k in CUTOFFS},
        **{f"hit_rate@{k}": f"r{k}" for k in CUTOFFS},
    }
    copies = [(image, copy) for image, count in enumerate(counts[0]) for copy in range(int(count))]
    qrels = Qrels.from_dict({f"{i}.{n}": {f"c{c}": 1 for c in np.flatnonzero(owners == i)} for i, n in copies})
    run = Run.from_dict({f"{i}.{n}": {f"c{c}": float(s) for c, s in enumerate(scores[i])} for i, n in copies})
    theirs = evaluate(qrels, run, [*names, "mrr"])
    assert found["image_to_text_mrr"] == pytest.approx(theirs["mrr"])
    for name, own in names.items():
        assert found[f"image_to_text_{own}"] == pytest.approx(100 * theirs[name])


def test_contributions_of_images_sum_to_every_metric_except_medians() -> None:
    for folds in (1, 3):
        sample = sample_of([query_ranks(*case(seed), folds=folds) for seed in (1, 2)])
        (seen,) = figures(np.ones((1, 12)), sample)
        np.testing.assert_allclose(contributions(sample).sum(axis=0), seen[:, :-2])
        assert [figure.title for figure in sample.figures[-2:]] == ["median rank"] * 2


def test_a_run_without_positions_lacks_only_the_metrics_of_several_relevant_items() -> None:
    older = small(2)
    older = QueryRanks(older.image_to_text, older.text_to_image, older.image_of_caption)
    kept, whole = sample_of([small(1), older]), sample_of([small(1)])
    assert set(whole.figures) - set(kept.figures) == set(SEVERAL_RIGHT)
    assert all(figure.direction == IMAGE_TO_TEXT for figure in SEVERAL_RIGHT)
    counts = drawn_counts(12, 1, 5)
    chosen = [whole.figures.index(figure) for figure in kept.figures]
    np.testing.assert_array_equal(figures(counts, kept)[:, 0], figures(counts, whole)[:, 0, chosen])


def test_medians_of_hand_made_draws() -> None:
    # Image 0 has ranks 1 and 7, image 1 has rank 2, image 2 has ranks 3 and 3.
    drawn = np.array([[1, 1, 1], [3, 0, 0], [0, 2, 1], [1, 0, 2], [0, 3, 0], [0, 1, 2]]).T.astype(float)
    found = medians(drawn, np.array([7, 3, 2, 1, 3]), np.array([0, 2, 1, 0, 2]))
    # 1 2 3 3 7 | 1 1 1 7 7 7 | 2 2 3 3 | 1 3 3 3 3 7 | 2 2 2 | 2 3 3 3 3
    assert found.tolist() == [3, 4, 2.5, 3, 2, 3]


@pytest.mark.parametrize("skew", [0, 3000])
def test_medians_are_those_of_numpy_however_far_from_the_middle(skew: int) -> None:
    random = np.random.default_rng(skew)
    owner = random.permutation(np.concatenate([np.arange(40), random.integers(0, 40, 200), np.zeros(skew, dtype=int)]))
    ranks = np.where(owner == 0, random.integers(1, 9, len(owner)), random.integers(50, 900, len(owner)))
    (counts,) = bootstrap_counts(40, 1, 50, random)  # image 0 has nearly all queries
    expected = [np.median(np.repeat(ranks, row[owner].astype(int))) for row in counts]
    np.testing.assert_array_equal(medians(counts.T, ranks, owner), expected)


def test_images_are_drawn_inside_their_fold() -> None:
    for counts in bootstrap_counts(12, 3, 50, np.random.default_rng(0)):
        np.testing.assert_array_equal(counts.reshape(50, 3, 4).sum(axis=2), 4)
        assert counts.max() > 1


def test_the_size_of_a_piece_is_invisible(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = list(bootstrap_counts(10, 1, 30, np.random.default_rng(0)))
    monkeypatch.setattr(resampling, "CHUNK", 40)
    pieces = list(bootstrap_counts(10, 1, 30, np.random.default_rng(0)))
    assert len(pieces) == 8
    np.testing.assert_array_equal(np.concatenate(pieces), np.concatenate(drawn))
