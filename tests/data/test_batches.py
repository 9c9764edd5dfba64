"""Batches: checked by their constructors, and not again."""

from __future__ import annotations

import pytest
import torch

from tests.support import tiny
from tshsr.data.batches import CaptionBatch, ImageBatch, join_captions, pad_sequences
from tshsr.errors import InputError
from tshsr.models.encoders import drop_regions

ONE = torch.ones(1, 2, dtype=torch.bool)


def test_images_are_checked_by_the_constructor() -> None:
    with pytest.raises(InputError, match=r"regions have shape \(2, 7\); expected 3 axes"):
        ImageBatch(torch.zeros(2, 7), ONE)
    with pytest.raises(InputError, match=r"regions\[0, 1\] \(image, region\) holds a value that is not finite"):
        ImageBatch(torch.tensor([[[0.0, 1.0], [float("nan"), 0.0]]]), ONE)
    with pytest.raises(InputError, match="row 0 of regions is all padding"):
        ImageBatch(torch.zeros(1, 2, 7), ~ONE)


def test_boxes_are_checked_by_the_constructor() -> None:
    with pytest.raises(InputError, match=r"boxes have shape \(1, 2, 3\); expected \(1, 2, 4\)"):
        ImageBatch(torch.zeros(1, 2, 7), ONE, torch.zeros(1, 2, 3))
    boxes = torch.tensor([[[0.0, 0.0, 1.0, 1.0], [0.5, 0.0, 0.2, 1.0]]])
    with pytest.raises(InputError, match=r"boxes\[0, 1\] \(image, region\) is \[0\.5, 0\.0, 0\.2, 1\.0\]; expected x1"):
        ImageBatch(torch.zeros(1, 2, 7), ONE, boxes)


def test_projected_vectors_are_checked_by_the_constructor() -> None:
    regions = torch.zeros(1, 2, 7)
    with pytest.raises(InputError, match=r"pooled has shape \(2, 3\); expected one vector for each of 1 images"):
        ImageBatch(regions, ONE, pooled=torch.zeros(2, 3))
    with pytest.raises(InputError, match=r"pooled\[0\] holds a value that is not finite; extract this image again"):
        ImageBatch(regions, ONE, pooled=torch.tensor([[0.0, float("nan")]]))


def test_projected_vectors_follow_their_images() -> None:
    given = tiny.images(3, 4)
    pooled = torch.rand(3, 5)
    batch = ImageBatch(given.regions, given.mask, given.boxes, pooled)
    for derived in (drop_regions(batch, 0.5), drop_regions(batch, 0.0), batch.to("cpu"), batch.rows(0, 3)):
        assert derived.pooled is not None
        assert torch.equal(derived.pooled, pooled)
    assert torch.equal(batch.rows(1, 2).pooled, pooled[1:2])  # type: ignore[arg-type]
    assert batch.rows(1, 2).regions.shape == (1, 4, 7)
    assert given.rows(1, 9).pooled is None


def test_captions_are_checked_by_the_constructor() -> None:
    with pytest.raises(InputError, match=r"the mask of tokens is torch\.float32 of shape \(1, 2\)"):
        CaptionBatch(torch.ones(1, 2, dtype=torch.long), ONE.float())
    with pytest.raises(InputError, match="row 0 of tokens is all padding"):
        CaptionBatch(torch.ones(1, 2, dtype=torch.long), ~ONE)
    with pytest.raises(InputError, match=r"tokens have shape \(0, 0\)"):
        pad_sequences([])


def test_a_checked_batch_moves_and_drops_regions_without_reading_values() -> None:
    # The meta device has no values: reading one fails there.
    images, captions = tiny.images(3, 4).to("meta"), pad_sequences([[2, 3], [4]]).to("meta")
    assert drop_regions(images, 0.5).mask.shape == images.mask.shape
    assert {tensor.device.type for tensor in (images.regions, images.mask, captions.tokens, captions.mask)} == {"meta"}
    with pytest.raises(NotImplementedError, match="meta"):
        ImageBatch(images.regions, images.mask)


def test_joined_captions_are_padded_to_the_longest() -> None:
    short, long = pad_sequences([[3, 4], [5]]), pad_sequences([[6, 7, 8, 9]])
    for first, second, rows in ((short, long, [[3, 4, 0, 0], [5, 0, 0, 0], [6, 7, 8, 9]]), (long, short, None)):
        joined = join_captions(first, second)
        assert len(joined) == len(first) + len(second)
        assert torch.equal(joined.mask, joined.tokens > 0)
        assert rows is None or joined.tokens.tolist() == rows
