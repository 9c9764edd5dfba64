"""The evaluator takes arrays, tensors and lists, and refuses other inputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.score_matrix import OWNERS, matrix
from tshsr.data.arrays import Numbers
from tshsr.errors import InputError
from tshsr.evaluation.matrix import evaluate_matrix
from tshsr.metrics.ranks import query_ranks


@pytest.mark.parametrize(
    ("scores", "found"),
    [
        (np.zeros(3), "scores are float64 of shape (3,)"),
        (np.zeros((2, 2, 2)), "scores are float64 of shape (2, 2, 2)"),
        (np.zeros((0, 30)), "scores are float64 of shape (0, 30)"),
        (np.zeros((10, 0)), "scores are float64 of shape (10, 0)"),
        (np.zeros((10, 30), int), "scores are int64 of shape (10, 30)"),
        ([[1, 2], [3, 4]], "scores are int64 of shape (2, 2)"),
        ([0.5, 0.25], "scores are float64 of shape (2,)"),
        ([matrix(), np.zeros((10, 30), int)], "scores[1] are int64 of shape (10, 30)"),
        ([matrix(), matrix()[0]], "scores[1] are float32 of shape (30,)"),
    ],
)
def test_scores_that_are_no_matrix_are_refused(scores: np.ndarray, found: str) -> None:
    with pytest.raises(InputError) as refusal:
        evaluate_matrix(scores, OWNERS)
    assert str(refusal.value) == f"{found}; expected floats of shape images x captions, not empty."


@pytest.mark.parametrize("scores", [[[0.5, 0.25], [1.0]], torch.zeros(2, 2).to_sparse()])
def test_ragged_and_sparse_inputs_are_refused(scores: list[list[float]] | torch.Tensor) -> None:
    with pytest.raises(InputError, match=r"cannot be read as an array \(.*\); give a dense array or tensor, or lists"):
        evaluate_matrix(scores, OWNERS)


def test_an_empty_ensemble_and_one_of_several_shapes_are_refused() -> None:
    with pytest.raises(InputError, match="expected at least one score matrix of every model; got none"):
        evaluate_matrix([], OWNERS)
    with pytest.raises(InputError, match=r"scores 'scores\[1\]' have shape \(9, 30\), 'scores\[0\]' have \(10, 30\)"):
        evaluate_matrix([matrix(), matrix()[1:]], OWNERS)


@pytest.mark.parametrize(
    "given",
    [
        np.asmatrix,
        np.ndarray.tolist,
        list,
        torch.tensor,
        lambda scores: torch.tensor(scores, requires_grad=True),
        lambda scores: [*torch.tensor(scores, requires_grad=True)],
    ],
    ids=["matrix", "lists", "rows", "tensor", "gradient", "tensors"],
)
@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_scores_may_be_tensors_and_lists(given: Callable[[np.ndarray], Numbers]) -> None:
    report = evaluate_matrix(given(matrix()), OWNERS)
    assert report.ranks == {"fused": query_ranks(matrix(), OWNERS)}
    assert report.models == ("scores",)


def test_bfloat16_scores_are_read_as_float32() -> None:
    scores = torch.tensor(matrix()).bfloat16()
    assert evaluate_matrix(scores, OWNERS).ranks == {"fused": query_ranks(scores.float().numpy(), OWNERS)}


@pytest.mark.parametrize(
    "given",
    [np.ndarray.tolist, tuple, torch.tensor, *(np.dtype(name).type for name in ("u1", "i2", "i4", "u4", "u8"))],
    ids=["list", "tuple", "tensor", "uint8", "int16", "int32", "uint32", "uint64"],
)
def test_rows_of_images_may_be_any_whole_numbers(given: Callable[[np.ndarray], Numbers]) -> None:
    report = evaluate_matrix(matrix(), given(OWNERS))
    assert report.ranks == {"fused": query_ranks(matrix(), OWNERS)}


@pytest.mark.parametrize(
    ("captions", "found"),
    [
        (OWNERS.astype(float), "float64 of shape (30,)"),
        (torch.tensor(OWNERS).half(), "float16 of shape (30,)"),
        (OWNERS > 4, "bool of shape (30,)"),
        (OWNERS[:, None], "int64 of shape (30, 1)"),
        (["a.jpg", "b.jpg"], "<U5 of shape (2,)"),
    ],
)
def test_rows_of_images_that_are_no_whole_numbers_are_refused(captions: Numbers, found: str) -> None:
    with pytest.raises(InputError) as refusal:
        evaluate_matrix(matrix(), captions)
    assert str(refusal.value) == (
        f"captions are {found}; expected whole numbers, for each caption the row of its image, or one path: convert "
        "them, as in captions.astype(int)."
    )


def test_files_and_arrays_are_an_ensemble_with_names(tmp_path: Path) -> None:
    np.save(tmp_path / "first.npy", matrix(0))
    report = evaluate_matrix([tmp_path / "first.npy", torch.tensor(matrix(1)), matrix(2).tolist()], OWNERS)
    assert report.models == ("first.npy", "scores[1]", "scores[2]")
    mean = np.mean([matrix(seed) for seed in range(3)], axis=0, dtype=np.float64)
    assert report.ranks == {"fused": query_ranks(mean, OWNERS)}
