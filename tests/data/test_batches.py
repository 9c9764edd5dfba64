"""Batches: checked by their constructors, and not again."""

from __future__ import annotations

import pytest
import torch

from tests.support import tiny
from tshsr.data.batches import NO_WORD, UNREAD, CaptionBatch, ImageBatch, join_captions, pad_sequences
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


def test_image_vectors_are_checked_by_the_constructor() -> None:
    regions = torch.zeros(1, 2, 7)
    with pytest.raises(InputError, match=r"pooled has shape \(2, 3\); expected one vector for each of 1 images"):
        ImageBatch(regions, ONE, pooled=torch.zeros(2, 3))
    with pytest.raises(InputError, match=r"pooled\[0\] holds a value that is not finite; extract this image again"):
        ImageBatch(regions, ONE, pooled=torch.tensor([[0.0, float("nan")]]))


def test_image_vectors_follow_their_images() -> None:
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


def test_captions_of_pretrained_encoders_are_checked_by_the_constructor() -> None:
    none, states = torch.zeros(1, 0, dtype=torch.long), torch.zeros(1, 2, 5)
    assert len(CaptionBatch(none, ONE, states)) == 1
    with pytest.raises(InputError, match=r"states have shape \(1, 5\); expected 3 axes"):
        CaptionBatch(none, ONE, states[:, 0])
    with pytest.raises(InputError, match="row 0 of states is all padding"):
        CaptionBatch(none, ~ONE, states)
    pieces, nodes = torch.tensor([[101, 7, 8, 102]]), torch.tensor([[NO_WORD, 0, 1, NO_WORD]])
    assert len(CaptionBatch(pieces, ONE, word_of_token=nodes)) == 1
    with pytest.raises(InputError, match=r"the mask of word pieces is torch\.bool of shape \(1, 3\)"):
        CaptionBatch(pieces, ONE, word_of_token=nodes[:, :3])
    with pytest.raises(InputError, match="row 0 of words is all padding"):
        CaptionBatch(pieces, ~ONE, word_of_token=nodes)


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


def test_joined_captions_keep_states_pieces_and_pooled_vectors() -> None:
    none = torch.zeros(1, 0, dtype=torch.long)
    short = CaptionBatch(none, ONE[:, :1], torch.ones(1, 1, 3), pooled=torch.ones(1, 4))
    joined = join_captions(short, CaptionBatch(none, ONE, torch.full((1, 2, 3), 2.0), pooled=torch.zeros(1, 4)))
    assert joined.tokens.shape == (2, 0)
    assert joined.states is not None
    assert joined.states[:, :, 0].tolist() == [[1, 0], [2, 2]]
    assert joined.pooled is not None
    assert joined.pooled[:, 0].tolist() == [1, 0]
    pieces = CaptionBatch(torch.tensor([[9, 5]]), ONE[:, :1], word_of_token=torch.tensor([[NO_WORD, 0]]))
    more = CaptionBatch(torch.tensor([[9, 5, 6]]), ONE, word_of_token=torch.tensor([[NO_WORD, 0, 1]]))
    joined = join_captions(pieces, more)
    assert joined.tokens.tolist() == [[9, 5, 0], [9, 5, 6]]
    assert joined.word_of_token is not None
    assert joined.word_of_token.tolist() == [[NO_WORD, 0, UNREAD], [NO_WORD, 0, 1]]
    assert joined.mask.tolist() == [[True, False], [True, True]]
    assert joined.states is None
