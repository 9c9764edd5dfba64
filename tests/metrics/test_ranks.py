"""The ranks of every query: whole and in folds, in reports, and errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from tshsr.errors import InputError
from tshsr.metrics.multi_positive import ranking_metrics, rankings, sorted_places
from tshsr.metrics.ranks import QueryRanks, metrics_by_fold, query_ranks
from tshsr.metrics.recall import image_to_text_ranks, score_metrics, text_to_image_ranks


def case(images: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores with ties, and captions in random order."""
    random = np.random.default_rng(seed)
    owners = random.permutation(np.concatenate([np.arange(images), random.integers(0, images, size=2 * images)]))
    return random.integers(0, 9, size=(images, 3 * images)) / 8, owners


def test_ranks_of_the_whole_are_those_of_the_metrics() -> None:
    scores, owners = case()
    ranks = query_ranks(scores, owners)
    np.testing.assert_array_equal(ranks.image_to_text, image_to_text_ranks(scores, owners))
    np.testing.assert_array_equal(ranks.text_to_image, text_to_image_ranks(scores, owners))
    assert ranks.folds == 1


def test_the_figures_of_ranks_are_those_of_the_scores() -> None:
    scores, owners = case()
    assert metrics_by_fold(query_ranks(scores, owners)) == (score_metrics(scores, owners),)


def test_ranks_in_folds_give_the_metrics_of_the_folds() -> None:
    scores, owners = case()
    found = metrics_by_fold(query_ranks(scores, owners, folds=3))
    assert len(found) == 3
    for number, fold in enumerate(found):
        rows, own = slice(4 * number, 4 * number + 4), owners // 4 == number
        assert fold == score_metrics(scores[rows][:, own], owners[own] - 4 * number)


def test_folds_rank_inside_the_fold_and_captions_follow_their_image() -> None:
    scores = np.array(
        [  # captions of image 3, 0, 2 and 1: the columns of the two folds are interleaved
            [9.0, 0.8, 9.0, 0.1],  # fold 0: rank 1; the 9.0 are another fold's captions
            [0.0, 0.2, 0.0, 0.3],  # fold 0: rank 1
            [0.9, 0.0, 0.1, 0.0],  # fold 1: rank 2
            [0.8, 9.0, 0.7, 9.0],  # fold 1: rank 1
        ]
    )
    ranks = query_ranks(scores, np.array([3, 0, 2, 1]), folds=2)
    assert ranks.image_to_text.tolist() == [1, 1, 2, 1]
    # The caption of image 2: 0.1 against 0.7; that of image 3: 0.8 against 0.9.
    assert ranks.text_to_image.tolist() == [2, 1, 2, 1]
    first, second = metrics_by_fold(ranks)
    assert (first.rsum, second.image_to_text.meanr, second.text_to_image.r1) == (600.0, 1.5, 0.0)


def test_every_caption_has_its_place_in_the_ranking_of_its_image_as_in_plain_loops() -> None:
    scores, owners = case(seed=3)
    for folds in (1, 3):
        ranks = query_ranks(scores, owners, folds=folds)
        assert ranks.caption_places is not None
        for image, row in enumerate(scores):
            beside = np.flatnonzero(owners // (12 // folds) == image // (12 // folds))
            own = {int(column) for column in beside if owners[column] == image}
            order = sorted(beside.tolist(), key=lambda column: (-row[column], column in own))
            for place, column in enumerate(order, 1):
                assert column not in own or ranks.caption_places[column] == place


def test_the_figures_of_several_right_answers_follow_from_the_places() -> None:
    scores, owners = case(seed=4)
    ranks = query_ranks(scores, owners)
    assert ranks.caption_places is not None
    found = ranking_metrics(sorted_places(ranks.caption_places, owners))
    assert found == rankings(scores, owners).image_to_text


def test_ranks_of_older_reports_have_no_places_and_are_written_as_they_were() -> None:
    values = query_ranks(*case()).to_json()
    older = {name: value for name, value in values.items() if name != "caption_places"}
    read = TypeAdapter(QueryRanks).validate_python(older)
    assert read.caption_places is None
    assert read.to_json() == older
    assert read != query_ranks(*case()) == TypeAdapter(QueryRanks).validate_python(values)


def test_equal_ranks_are_equal_and_others_are_not() -> None:
    scores, owners = case()
    assert query_ranks(scores, owners) == query_ranks(scores.copy(), owners.copy())
    assert query_ranks(scores, owners) != query_ranks(scores, owners, folds=2)
    assert query_ranks(scores, owners) != query_ranks(*case(seed=1))
    assert query_ranks(scores, owners) != 3


def test_lists_tensors_and_unsigned_rows_are_read() -> None:
    scores, owners = case()
    expected, metrics = query_ranks(scores, owners), score_metrics(scores, owners)
    for given in (scores.tolist(), torch.from_numpy(scores)):
        for rows in (owners.tolist(), torch.from_numpy(owners), owners.astype(np.uint8)):
            assert query_ranks(given, rows) == expected
            assert score_metrics(given, rows) == metrics
    with pytest.raises(
        InputError, match=r"cannot be read as an array \(.*requires grad.*\); give numpy arrays, or lists"
    ):
        query_ranks(torch.from_numpy(scores).requires_grad_(), owners)
    with pytest.raises(InputError, match="image_of_caption is float64 of shape "):
        score_metrics(scores, owners / 2)


def test_a_nan_outside_of_the_folds_is_refused_with_its_place() -> None:
    scores, owners = case()
    column = int(np.flatnonzero(owners == 0)[0])
    scores[11, column] = np.nan
    with pytest.raises(InputError, match=rf"image 11 \(row\) and caption {column} \(column\)"):
        query_ranks(scores, owners, folds=3)


@pytest.mark.parametrize("folds", [0, 5, 13])
def test_uneven_folds_are_refused(folds: int) -> None:
    with pytest.raises(InputError, match=f"12 images cannot be cut into {folds} folds of equal size"):
        query_ranks(*case(), folds=folds)


@pytest.mark.parametrize(
    ("image_to_text", "text_to_image", "owners", "folds", "sentence"),
    [
        ([], [], [], 1, "ranks of at least one image and one for each of the 0 captions; got 0 and 0"),
        ([1, 1], [1], [0, 1], 1, "one for each of the 2 captions; got 2 and 1"),
        ([0, 1], [1, 1], [0, 1], 1, "a rank is below 1"),
        ([1, 1], [1, 0], [0, 1], 1, "a rank is below 1"),
        ([1, 1], [1, 1], [0, 2], 1, "rows outside 0 to 1"),
        ([1, 1], [1, 1], [0, 0], 1, r"image 1 has no caption \(1 of 2"),
        ([1, 1], [1, 1], [0, 1], 3, "2 images cannot be cut into 3 folds"),
    ],
)
def test_ranks_that_do_not_fit_are_refused(
    image_to_text: list[int], text_to_image: list[int], owners: list[int], folds: int, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        QueryRanks(*(np.array(each, dtype=np.int64) for each in (image_to_text, text_to_image, owners)), folds)


@pytest.mark.parametrize(
    ("places", "sentence"),
    [
        ([1, 2], "expected a position for each of the 3 captions; got 2"),
        ([2, 1, 4], "the captions of image 1 need distinct positions, the best equal to the rank of the image"),
        ([3, 2, 5], "captions of image 0"),
        ([1, 1, 5], "captions of image 0"),
        ([0, 1, 5], "captions of image 0"),
    ],
)
def test_places_that_are_not_those_of_the_ranks_are_refused(places: list[int], sentence: str) -> None:
    ranks = (np.array([1, 5]), np.array([1, 1, 2]), np.array([0, 0, 1]))
    assert QueryRanks(*ranks, caption_places=np.array([3, 1, 5])).caption_places is not None
    with pytest.raises(InputError, match=sentence):
        QueryRanks(*ranks, caption_places=np.array(places))
