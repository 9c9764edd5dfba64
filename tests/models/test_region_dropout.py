"""Region dropout: every method can leave out some of a picture's regions while it trains."""

from dataclasses import replace

import pytest
import torch

from tests.support import tiny
from tshsr.config.models import (
    DsgslConfig,
    HardAlignmentConfig,
    HremConfig,
    ImramConfig,
    ModelConfig,
    RcarConfig,
    ScanConfig,
    SgrafConfig,
    ShanConfig,
    TwoStreamSgrConfig,
    VseConfig,
)
from tshsr.data.batches import ImageBatch
from tshsr.models.build import build_matcher
from tshsr.models.encoders import drop_items

ENCODER = replace(tiny.ENCODER, region_dropout=0.4)
METHODS: dict[str, ModelConfig] = {
    "tshsr": tiny.config(encoder=ENCODER),
    "vse": VseConfig(encoder=ENCODER, size_augmentation=0.0),
    "rcar": RcarConfig(encoder=ENCODER, similarity_dim=6, streams="both", pooling_dropout=0.0),
    "chan": HardAlignmentConfig(encoder=ENCODER, streams="both"),
    "hrem": HremConfig(encoder=ENCODER, heads=3, size_augmentation=0.0, pooling_dropout=0.0),
    "dsgsl": DsgslConfig(encoder=ENCODER, similarity_dim=6, comparison_dim=5),
    "imram": ImramConfig(encoder=ENCODER),
    "shan": ShanConfig(encoder=ENCODER),
    "scan": ScanConfig(encoder=ENCODER, streams="both"),
    "sgr": SgrafConfig(encoder=ENCODER, similarity_dim=6, pooling_dropout=0.0),
    "saf": SgrafConfig(encoder=ENCODER, similarity_dim=6, pooling_dropout=0.0, reasoning="saf"),
    "two-stream-sgr": TwoStreamSgrConfig(encoder=ENCODER, similarity_dim=6, pooling_dropout=0.0),
}


@pytest.mark.parametrize("method", METHODS)
def test_a_share_of_the_regions_is_left_out_while_training_and_none_after(method: str) -> None:
    matcher = build_matcher(METHODS[method]).double().train()
    images = tiny.images(200, 10)
    assert matcher.encode_images(images).mask.sum() / 2000 == pytest.approx(0.6, abs=0.05)
    assert matcher.encode_images(tiny.images(50, 1)).mask.all(), "one region is always left"
    assert matcher.eval().encode_images(images).mask.all()


@pytest.mark.parametrize("method", METHODS)
def test_what_is_left_out_is_as_if_it_were_not_there(method: str) -> None:
    matcher = build_matcher(METHODS[method]).double().train()
    images, captions = tiny.images(6, 8), tiny.captions((4, 3, 6))
    torch.manual_seed(1)
    found = matcher.encode_images(images)
    assert not found.mask.all()
    left = ImageBatch(images.regions, found.mask, images.boxes)
    torch.manual_seed(1)
    normal = build_matcher(replace(METHODS[method], encoder=tiny.ENCODER)).double().train()
    normal.load_state_dict(matcher.state_dict())
    expected = normal.encode_images(left)
    texts = normal.encode_captions(captions)
    scores, wanted = (normal.score_all(each, texts)["fused"] for each in (found, expected))
    torch.testing.assert_close(scores, wanted)


def test_padding_is_never_brought_back() -> None:
    mask = torch.tensor([[True, True, True, False, False], [True, False, False, False, False]])
    for seed in range(20):
        torch.manual_seed(seed)
        left = drop_items(mask, 0.9)
        assert not (left & ~mask).any()
        assert left.any(dim=1).all()
