"""Encodings survive the conversion to table rows and back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from tests.support import tiny
from tests.support.methods import CONCEPTS
from tshsr.config.models import (
    DsgslConfig,
    HardAlignmentConfig,
    HremConfig,
    ModelConfig,
    RcarConfig,
    ScanConfig,
    SgrafConfig,
    TwoStreamSgrConfig,
    VseConfig,
)
from tshsr.errors import DataError
from tshsr.index.rows import boxes_column, boxes_of, encoding_columns, encoding_of
from tshsr.models.base import ItemEncoding
from tshsr.models.build import build_matcher

MODELS: dict[str, ModelConfig] = {
    "tshsr": tiny.config(),
    "tshsr compared in the joint space": tiny.config(comparison_dim=0),
    "tshsr, one stream": tiny.config(streams="word"),
    "tshsr with places": tiny.config(encoder=replace(tiny.ENCODER, boxes=True), place_term=True),
    "scan": ScanConfig(encoder=tiny.ENCODER),
    "sgraf": SgrafConfig(encoder=tiny.ENCODER, similarity_dim=6),
    "two-stream sgr": TwoStreamSgrConfig(encoder=tiny.ENCODER, similarity_dim=6),
    "rcar": RcarConfig(encoder=tiny.ENCODER, similarity_dim=6),
    "chan": HardAlignmentConfig(encoder=tiny.ENCODER),
    "hrem": HremConfig(encoder=tiny.ENCODER, heads=3),
    "dsgsl": DsgslConfig(encoder=tiny.ENCODER, similarity_dim=6, comparison_dim=5),
    "vse": VseConfig(encoder=tiny.ENCODER),
    "csrc": CONCEPTS["csrc"],
    "cvse": CONCEPTS["cvse"],
    "ekdm with places": CONCEPTS["ekdm"],
    "tshsr with places of concepts": CONCEPTS["tshsr with concepts of ekdm"],
}
HALF = 2**-11
"""Rounding error of a number below 1 in float16."""


def round_trip(
    encoding: ItemEncoding, matcher: torch.nn.Module, boxes: torch.Tensor | None = None, *, pictures: bool = True
) -> ItemEncoding:
    """An encoding, converted to table columns and back."""
    columns = encoding_columns(encoding)
    if pictures:
        columns["boxes"] = boxes_column(boxes, encoding.mask)
    return encoding_of(matcher, pa.table(columns), torch.device("cpu"))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", MODELS)
@torch.inference_mode()
def test_encodings_of_every_network_survive_the_table(name: str) -> None:
    matcher = build_matcher(MODELS[name]).eval()
    images = tiny.images(4, 5, real=[5, 2, 4, 1])
    boxes = images.boxes.float() * images.mask[..., None] if "places" in name and images.boxes is not None else None
    images = replace(images, regions=images.regions.float(), boxes=boxes)
    captions = tiny.captions((4, 1, 6))
    sides = matcher.encode_images(images), matcher.encode_captions(captions)
    again = round_trip(sides[0], matcher, boxes), round_trip(sides[1], matcher, pictures=False)
    for side, back in zip(sides, again, strict=True):
        assert torch.equal(back.mask, side.mask)
        assert torch.equal(back.pooled, side.pooled), "the first stage is exact"
        assert back.padded == side.padded
        assert torch.allclose(back.items, side.items, atol=HALF)
        assert torch.allclose(back.gram, side.gram, atol=4 * HALF)
        assert back.views.keys() == side.views.keys()
        for view, expected in side.views.items():
            assert torch.allclose(back.views[view], expected, atol=20 * HALF * float(expected.abs().max()))
    scores, restored = matcher.score_all(*sides), matcher.score_all(*again)
    for score, values in scores.items():
        assert torch.allclose(restored[score], values, atol=5e-3), score


@torch.inference_mode()
def test_a_slice_of_a_table_is_a_slice_of_the_encoding() -> None:
    matcher = build_matcher(tiny.config()).eval()
    images = tiny.images(4, 5, real=[5, 2, 4, 1])
    encoding = matcher.encode_images(replace(images, regions=images.regions.float(), boxes=None))
    rows = pa.table(encoding_columns(encoding))
    part = encoding_of(matcher, rows.slice(1, 2), torch.device("cpu"))
    assert part.mask.tolist() == [[True, True, False, False], [True] * 4]
    assert torch.allclose(part.items[1], encoding.items[2, :4], atol=HALF)
    turned = encoding_of(matcher, rows.take(pa.array([3, 0])), torch.device("cpu"))
    assert torch.allclose(turned.items[1], encoding.items[0], atol=HALF)


def test_boxes_exclude_padding() -> None:
    images = tiny.images(3, 4, real=[4, 1, 2])
    assert images.boxes is not None
    found = boxes_of(pa.table({"boxes": boxes_column(images.boxes, images.mask)}))
    for row, mask, boxes in zip(found, images.mask, images.boxes, strict=True):
        assert row is not None
        assert np.allclose(row, boxes[mask].numpy())
    assert boxes_of(pa.table({"boxes": boxes_column(None, images.mask)})) == [None] * 3


@torch.inference_mode()
def test_a_network_with_a_place_term_refuses_rows_without_boxes() -> None:
    matcher = build_matcher(MODELS["tshsr with places"]).eval()
    images = tiny.images(2, 3)
    assert images.boxes is not None
    encoding = matcher.encode_images(replace(images, regions=images.regions.float(), boxes=images.boxes.float()))
    with pytest.raises(DataError, match="a picture of this index has no boxes, and its network uses boxes"):
        round_trip(encoding, matcher, None)
