"""The table of rerankers: rows derived from matrices are those of a search query by query."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.indexed import Small
from tshsr.errors import InputError, SettingsError
from tshsr.evaluation.first_stage import (
    FUSED,
    MAXSIM,
    POOLED,
    Matrices,
    SearchClock,
    compare_first_stages,
    eccv_of,
    reranked,
    reranked_ranks,
)
from tshsr.metrics.multi_positive import Rankings, rankings
from tshsr.metrics.ranks import query_ranks
from tshsr.scoring.options import ScoringOptions


def matrices(seed: int = 0, images: int = 20) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """v·t, a better second score, and the image of each caption, two each."""
    dice = np.random.default_rng(seed)
    owner = np.repeat(np.arange(images), 2)
    right = owner == np.arange(images)[:, None]
    first = (dice.normal(size=right.shape) + 1.0 * right).astype(np.float32)
    return first, (dice.normal(size=right.shape) + 2.0 * right).astype(np.float32), owner


def searched(first: np.ndarray, second: np.ndarray, depth: int) -> list[int]:
    """Items of one query in the order of a search with two stages."""
    order = sorted(range(len(first)), key=lambda item: -first[item])
    return sorted(order[:depth], key=lambda item: -second[item]) + order[depth:]


@pytest.mark.parametrize("depth", [1, 3, 10, 19])
def test_ranks_are_those_of_a_search_of_every_query(depth: int) -> None:
    first, second, owner = matrices()
    found = reranked_ranks(first, (second, second), owner, depth)
    for caption, image in enumerate(owner):
        order = searched(first[:, caption], second[:, caption], depth)
        assert found.text_to_image[caption] == 1 + order.index(image)
    for image in range(len(first)):
        order = searched(first[image], second[image], depth)
        best = min(order.index(caption) for caption in np.flatnonzero(owner == image))
        assert found.image_to_text[image] == 1 + best


def test_all_candidates_are_the_second_score_alone() -> None:
    first, second, owner = matrices()
    assert reranked(first, second, None, 0) is second
    assert reranked(first, second, 20, 0) is second
    assert reranked_ranks(first, (second, second), owner, None) == query_ranks(second, owner)


def test_a_depth_of_one_keeps_the_order_of_the_first_stage() -> None:
    first, second, owner = matrices()
    kept = reranked_ranks(first, (second, second), owner, 1)
    assert kept.text_to_image.tolist() == query_ranks(first, owner).text_to_image.tolist()


def test_large_second_scores_keep_the_order_of_the_first_stage() -> None:
    first, second, owner = matrices()
    expected = reranked_ranks(0.01 * first, (second, second), owner, 3)
    assert reranked_ranks(0.01 * first, (second * 1e6, second * 1e6), owner, 3) == expected


def test_the_table_has_every_reranker_at_every_depth(small: Small) -> None:
    split, other = small.split(), np.random.default_rng(0).random((12, 24))
    found = compare_first_stages(small.retriever(), split, depths=(3, 8, 50), others={"other": other})
    rows = {(row.score, row.depth): row for row in found.rows}
    assert list(rows) == [(POOLED, None)] + [
        (name, depth) for name in (MAXSIM, FUSED, "other") for depth in (3, 8, None)
    ]
    retriever = small.retriever()
    scores = retriever.score(split, split.captions).numpy()
    assert rows[FUSED, None].rsum == pytest.approx(
        sum(100 * (query_ranks(scores, split.image_of_caption).text_to_image <= k).mean() for k in (1, 5, 10))
        + sum(100 * (query_ranks(scores, split.image_of_caption).image_to_text <= k).mean() for k in (1, 5, 10))
    )
    base = rows[POOLED, None]
    assert base.gain is None
    for row in found.rows[1:]:
        assert row.gain is not None
        assert row.gain.mean == pytest.approx(row.rsum - base.rsum)
        assert row.gain.low <= row.gain.mean <= row.gain.high
        assert (row.milliseconds is None) == (row.score == "other")
        assert (row.over_maxsim is None) == (row.score == MAXSIM)
    assert {each.pictures for each in found.growth} == {2, 3, 6, 12}
    whole = next(each for each in found.growth if each.pictures == 12 and each.depth is None)
    assert whole.gain_rsum == pytest.approx(rows[FUSED, None].rsum - base.rsum)


def test_a_timed_search_returns_the_best_pictures_of_the_matrix(small: Small) -> None:
    retriever, split = small.retriever(), small.split()
    clock = SearchClock.of(retriever, split, ScoringOptions())
    query = retriever.encode_captions(split.captions[:1])
    scores = retriever.score(split, split.captions[:1])[:, 0]
    assert clock._search(clock.images, query, clock._fused, None) == scores.topk(10).indices.tolist()
    assert len(clock._search(clock.images, query, clock._fused, 4)) == 4


def test_depths_and_other_scores_are_checked(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"--depths is 0 5; expected numbers of candidates such as 10 100\."):
        compare_first_stages(small.retriever(), small.split(), depths=(0, 5))
    with pytest.raises(InputError, match=r"theirs has shape \(2, 2\); expected 12 images x 24 captions\."):
        compare_first_stages(small.retriever(), small.split(), others={"theirs": np.zeros((2, 2))})
    broken = np.full((12, 24), np.nan)
    monkeypatch.setattr("tshsr.evaluation.first_stage.score_split_rescored", lambda *_: pytest.fail("scored"))
    with pytest.raises(
        InputError, match=r"^theirs: the score of image 0 \(row\) and caption 0 \(column\), counted from"
    ):
        compare_first_stages(small.retriever(), small.split(), others={"theirs": broken})


def test_map_at_r_by_other_annotation_is_that_of_each_direction(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, owner = matrices()
    seen = []

    def annotated(scores: np.ndarray, *_: object) -> dict[str, Rankings]:
        seen.append(scores)
        return {"eccv": rankings(scores, owner)}

    monkeypatch.setattr("tshsr.evaluation.first_stage.coco.annotated_rankings", annotated)
    found = eccv_of(Matrices(first, {FUSED: (second, second)}, owner), (second, second), 3, np.arange(40))
    by_image, by_caption = reranked(first, second, 3, 1), reranked(first, second, 3, 0)
    assert found == (
        rankings(by_image, owner).image_to_text.map_at_r,
        rankings(by_caption, owner).text_to_image.map_at_r,
    )
    assert len(seen) == 2


def test_a_score_may_differ_by_direction() -> None:
    first, second, owner = matrices()
    third = matrices(seed=5)[1]
    found = reranked_ranks(first, (second, third), owner, None)
    assert found.image_to_text.tolist() == query_ranks(second, owner).image_to_text.tolist()
    assert found.text_to_image.tolist() == query_ranks(third, owner).text_to_image.tolist()
