"""Region files: reading, and messages of refusals."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.data_files import random_boxes, random_regions
from tshsr.data.npy import NpyFile, NpyFolder
from tshsr.data.regions import RegionFeatures
from tshsr.errors import DataError, InputError


def saved(folder: Path, array: np.ndarray) -> Path:
    np.save(folder / "regions.npy", array)
    return folder / "regions.npy"


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4", ">f2"])
def test_rows_are_read_in_the_requested_order(tmp_path: Path, dtype: str) -> None:
    array = random_regions(7).astype(dtype)
    features = RegionFeatures.open(saved(tmp_path, array))
    batch = features.read([5, 0, 6, 5])
    assert batch.regions.dtype == torch.float32
    assert np.array_equal(batch.regions.numpy(), array[[5, 0, 6, 5]].astype(np.float32))
    assert bool(batch.mask.all())
    assert (len(features), features.regions, features.feature_dim) == (7, 3, 4)
    assert features.read_array([5]).dtype == np.dtype(dtype)


def test_a_selection_takes_boxes_and_masks_with_it(tmp_path: Path) -> None:
    array, boxes = random_regions(5), random_boxes(5)
    mask = np.ones((5, 3), np.bool_)
    mask[3, 1:] = False
    features = RegionFeatures.open(saved(tmp_path, array), boxes=boxes, mask=mask).select([3, 1]).select([1, 0])
    batch = features.read([0, 1])
    assert np.array_equal(batch.regions[0].numpy(), array[1])
    assert np.array_equal(batch.regions[1, 0].numpy(), array[3, 0])
    assert batch.mask.tolist() == [[True] * 3, [True, False, False]]
    assert not batch.regions[1, 1:].any()
    assert batch.boxes is not None
    assert np.array_equal(batch.boxes[0].numpy(), boxes[1])
    assert not batch.boxes[1, 1:].any()


def test_a_selection_takes_image_vectors_with_it(tmp_path: Path) -> None:
    vectors = np.arange(10, dtype=np.float32).reshape(5, 2)
    np.save(tmp_path / "pooled.npy", vectors)
    pooled = NpyFile.open(tmp_path / "pooled.npy", axes=2)
    features = RegionFeatures.open(saved(tmp_path, random_regions(5)), pooled=pooled).select([3, 1, 4]).select([2, 0])
    assert np.array_equal(features.read([1, 0]).pooled, vectors[[3, 4]])  # type: ignore[arg-type]
    assert [block.tolist() for block in features.pooled_blocks(1)] == [[[8.0, 9.0]], [[6.0, 7.0]]]


def test_padding_that_all_images_of_a_batch_share_is_left_out(tmp_path: Path) -> None:
    mask = np.array([[True, False, False], [True, True, False], [True, True, True]])
    features = RegionFeatures.open(saved(tmp_path, random_regions(3)), mask=mask, boxes=random_boxes(3))
    assert features.read([0, 1]).regions.shape == (2, 2, 4)
    assert features.read([0, 1]).boxes.shape == (2, 2, 4)  # type: ignore[union-attr]
    assert features.read([0, 2]).regions.shape == (2, 3, 4)


def test_values_in_padding_do_not_matter(tmp_path: Path) -> None:
    array, boxes = random_regions(2), random_boxes(2)
    array[0, 2], boxes[0, 2] = np.nan, 7
    mask = np.array([[True, True, False], [True, True, True]])
    batch = RegionFeatures.open(saved(tmp_path, array), mask=mask, boxes=boxes).read([0, 1])
    assert not batch.regions[0, 2].any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_feature_that_is_not_finite_is_named(tmp_path: Path, bad: float) -> None:
    array = random_regions(4)
    array[2, 1, 3] = bad
    features = RegionFeatures.open(saved(tmp_path, array))
    features.read([0, 1, 3])
    with pytest.raises(DataError, match=r"regions\.npy, image row 2, region 1: a feature is not finite"):
        features.read([3, 2])


def test_a_number_too_large_for_float32_is_refused(tmp_path: Path) -> None:
    array = random_regions(2).astype(np.float64)
    array[1, 0, 0] = 1e300
    with pytest.raises(DataError, match=r"image row 1, region 0: a feature is not finite .or too large for float32"):
        RegionFeatures.open(saved(tmp_path, array)).read([0, 1])


def test_large_finite_numbers_are_no_error(tmp_path: Path) -> None:
    array = np.full((2, 3, 4), 3e38, np.float32)  # their sum is infinite
    assert np.array_equal(RegionFeatures.open(saved(tmp_path, array)).read([0, 1]).regions.numpy(), array)


def test_an_image_whose_regions_are_all_masked_is_refused(tmp_path: Path) -> None:
    mask = np.array([[True, True, False], [False, False, False]])
    with pytest.raises(DataError, match="image 1: every region is masked"):
        RegionFeatures.open(saved(tmp_path, random_regions(2)), mask=mask)


@pytest.mark.parametrize("mask", [np.ones((2, 2), np.bool_), np.ones((2, 3), np.int64)])
def test_a_mask_that_does_not_fit_is_refused(tmp_path: Path, mask: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"expected bool \(2, 3\), True where real"):
        RegionFeatures.open(saved(tmp_path, random_regions(2)), mask=mask)


@pytest.mark.parametrize("box", [[0, 0, 640, 480], [0.5, 0, 0.4, 1], [-0.1, 0, 1, 1], [0, 0, np.nan, 1]])
def test_boxes_that_are_no_fractions_are_refused(tmp_path: Path, box: list[float]) -> None:
    boxes = random_boxes(2)
    boxes[1, 2] = box
    with pytest.raises(DataError, match=r"the box of image 1, region 2 is .*divide pixels by its width and height"):
        RegionFeatures.open(saved(tmp_path, random_regions(2)), boxes=boxes)


def test_boxes_of_another_shape_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected floats of shape \(2, 3, 4\)"):
        RegionFeatures.open(saved(tmp_path, random_regions(2)), boxes=random_boxes(2, regions=2))


@pytest.mark.parametrize("images", [[], [4], [-1], [[0]]])
def test_unknown_image_numbers_are_refused(tmp_path: Path, images: list[int]) -> None:
    features = RegionFeatures.open(saved(tmp_path, random_regions(4)))
    with pytest.raises(InputError, match="expected a list of image numbers from 0 to 3"):
        features.read(images)


def test_a_file_that_is_cut_or_replaced_after_opening_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, random_regions(4))
    features = RegionFeatures.open(path)
    opened = path.stat().st_mtime_ns
    saved(tmp_path, random_regions(4, seed=1))
    os.utime(path, ns=(opened, opened + 1000))  # the clock may not have ticked
    with pytest.raises(DataError, match="has changed since it was opened; open the data again"):
        features.read([0])
    features = RegionFeatures.open(path)
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size - 1)
    with pytest.raises(DataError, match="has changed since it was opened"):
        features.read([0])
    path.unlink()
    with pytest.raises(DataError, match=r"Cannot read .*No such file"):
        features.read([0])


def test_a_truncated_npy_is_refused_with_expected_and_found_bytes(tmp_path: Path) -> None:
    path = saved(tmp_path, random_regions(4))
    whole = path.stat().st_size
    with path.open("rb+") as file:
        file.truncate(whole - 7)
    with pytest.raises(DataError, match=rf"truncated: its header promises {whole} bytes .*found {whole - 7}"):
        NpyFile.open(path, axes=3)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((2, 3, 4), np.int64), "holds int64; expected float16, float32 or float64"),
        (np.ones((2, 3, 4), np.longdouble), "expected float16, float32 or float64"),
        (np.ones((2, 3, 4), np.complex64), "holds complex64; expected float16, float32 or float64"),
        (np.ones((2, 3)), r"has shape \(2, 3\); expected 3 axes"),
        (np.ones((2, 0, 4)), r"has shape \(2, 0, 4\); expected 3 axes, none of them empty"),
        (np.asfortranarray(np.ones((2, 3, 4))), "is in Fortran order; save it again"),
        (np.array([{"a": 1}]), "holds pickled Python objects"),
    ],
)
def test_an_npy_of_the_wrong_kind_is_refused(tmp_path: Path, array: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        RegionFeatures.open(saved(tmp_path, array))


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"PK\x03\x04 a zip", pickle.dumps([1, 2])])
def test_a_file_that_is_no_npy_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.npy is no \.npy file, or its header is damaged"):
        RegionFeatures.open(tmp_path / "x.npy")


def test_an_npy_of_an_unknown_version_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, random_regions(1))
    content = path.read_bytes()
    path.write_bytes(content[:6] + b"\x03" + content[7:])
    with pytest.raises(DataError, match=r"version \(3, 0\); expected 1.0 or 2.0"):
        RegionFeatures.open(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Cannot read .*none\.npy: No such file"):
        RegionFeatures.open(tmp_path / "none.npy")


def test_one_file_an_image_is_padded_to_the_longest(tmp_path: Path) -> None:
    arrays = [random_regions(1, regions)[0] for regions in (2, 4, 1)]
    for number, array in enumerate(arrays):
        np.save(tmp_path / f"{number}.npy", array)
    source = NpyFolder.open(tmp_path, ["0.npy", "1.npy", "2.npy"])
    assert source.shape == (3, 4, 4)
    assert source.counts.tolist() == [2, 4, 1]
    read = source.read(np.array([2, 1]))
    assert np.array_equal(read[0, :1], arrays[2])
    assert not read[0, 1:].any()
    assert np.array_equal(read[1], arrays[1])
    assert source.place(1) == str(tmp_path / "1.npy")


def test_one_file_an_image_must_agree_in_width(tmp_path: Path) -> None:
    np.save(tmp_path / "0.npy", np.ones((2, 4)))
    np.save(tmp_path / "1.npy", np.ones((2, 5)))
    with pytest.raises(DataError, match=r"1\.npy has features of width 5; expected 4 as in 0\.npy"):
        NpyFolder.open(tmp_path, ["0.npy", "1.npy"])


def test_features_travel_to_worker_processes_and_other_machines(tmp_path: Path) -> None:
    path = saved(tmp_path, random_regions(3))
    features = RegionFeatures.open(path)
    read = features.read([2]).regions
    os.utime(path, ns=(0, 0))  # a copy on another machine has its own time
    copy = pickle.loads(pickle.dumps(features))
    assert torch.equal(copy.read([2]).regions, read)
