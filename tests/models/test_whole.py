"""v and t with vectors of the encoders: the formulas, and what must hold whatever the numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
import torch

from tests.support import oracles, tiny
from tshsr.config.models import (
    DsgslConfig,
    EncoderConfig,
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
from tshsr.data.batches import CaptionBatch, ImageBatch
from tshsr.errors import InputError, SettingsError
from tshsr.explain.attribution import relevance_maps, whole_term
from tshsr.index.rows import boxes_column, encoding_columns, encoding_of
from tshsr.models.base import Matcher
from tshsr.models.build import build_matcher
from tshsr.models.pooling import AttentionPooling
from tshsr.models.roles import view_name
from tshsr.models.whole import SHARE, WholeVector

KINDS = ("added", "frozen", "adapter")
IMAGES, LENGTHS, WIDTH, TEXT = 3, (4, 1, 6), 9, 5
OF_ROLES = {view_name(stream, role) for stream in ("word_stream", "region_stream") for role in ("queries", "context")}
METHODS: dict[str, Any] = {
    "tshsr": lambda encoder: tiny.config(encoder=encoder),
    "tshsr, global node, joint space": lambda encoder: tiny.config(encoder=encoder, global_node=True, comparison_dim=0),
    "tshsr, pooled by channel": lambda encoder: tiny.config(encoder=encoder, pooling="esa"),
    "scan": lambda encoder: ScanConfig(encoder=encoder, streams="both", aggregation="logsumexp"),
    "sgr": lambda encoder: SgrafConfig(encoder=encoder, similarity_dim=6),
    "saf": lambda encoder: SgrafConfig(encoder=encoder, similarity_dim=6, reasoning="saf", comparison_dim=5),
    "two-stream sgr": lambda encoder: TwoStreamSgrConfig(encoder=encoder, similarity_dim=6),
    "rcar": lambda encoder: RcarConfig(encoder=encoder, similarity_dim=6, streams="both"),
    "chan": lambda encoder: HardAlignmentConfig(encoder=encoder, streams="both"),
    "hrem": lambda encoder: HremConfig(encoder=encoder, heads=3),
    "dsgsl": lambda encoder: DsgslConfig(encoder=encoder, similarity_dim=6, comparison_dim=5),
    "imram": lambda encoder: ImramConfig(encoder=encoder),
    "shan": lambda encoder: ShanConfig(encoder=encoder),
    "vse": lambda encoder: VseConfig(encoder=encoder),
}


def encoder(kind: str) -> EncoderConfig:
    """With `added` both sides have widths of their own."""
    text = TEXT if kind == "added" else WIDTH
    return replace(tiny.ENCODER, pooled_vectors=kind, image_pooled_width=WIDTH, text_pooled_width=text)


def images(**changes: Any) -> ImageBatch:
    vectors = torch.randn(IMAGES, WIDTH, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    return replace(tiny.images(IMAGES, 5, real=[5, 2, 4]), **{"pooled": vectors, **changes})


def captions(kind: str, **changes: Any) -> CaptionBatch:
    width = TEXT if kind == "added" else WIDTH
    vectors = torch.randn(len(LENGTHS), width, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return replace(tiny.captions(LENGTHS), **{"pooled": vectors, **changes})


def network(method: str, kind: str) -> Matcher:
    """In float64, with every weight away from zero."""
    torch.manual_seed(3)
    config: ModelConfig = METHODS[method](encoder(kind))
    matcher = build_matcher(config).double().eval()
    for values in matcher.parameters():
        values.data.add_(torch.randn_like(values) * 0.1)
    return matcher


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_v_and_t_are_the_formula(kind: str) -> None:
    matcher: Any = network("tshsr", kind)
    sides = (
        (matcher.encode_images(images()), images(), matcher.region_pooling, matcher.region_whole),
        (matcher.encode_captions(captions(kind)), captions(kind), matcher.word_pooling, matcher.word_whole),
    )
    for encoding, batch, pooling, whole in sides:
        pooled = torch.zeros(len(batch), 12) if pooling is None else pooling(encoding.items, encoding.mask)
        weight, bias = ([], []) if whole.projection is None else (whole.projection.weight, whole.projection.bias)
        for row in range(len(batch)):
            parts = [torch.as_tensor(part).tolist() for part in (pooled[row], batch.pooled[row], weight, bias)]
            expected = torch.tensor(oracles.whole_vector(kind, *parts), dtype=torch.float64)
            torch.testing.assert_close(encoding.pooled[row].double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_all_pairs_are_the_pairs_one_by_one_and_padding_is_invisible(method: str, kind: str) -> None:
    matcher = network(method, kind)
    left, right = matcher.encode_images(images()), matcher.encode_captions(captions(kind))
    every = matcher.score_all(left, right)
    assert every.keys() == matcher.score_names
    for name, scores in matcher.score_pairs(
        left[torch.tensor([0, 1, 2, 0])], right[torch.tensor([0, 1, 2, 1])]
    ).items():
        torch.testing.assert_close(scores, every[name][[0, 1, 2, 0], [0, 1, 2, 1]], rtol=0, atol=1e-9)
    alone = ImageBatch(images().regions[1:2, :2], images().mask[1:2, :2], None, images().pooled[1:2])
    for name, scores in matcher.score_all(matcher.encode_images(alone), right).items():
        torch.testing.assert_close(scores[0], every[name][1], rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", [method for method in METHODS if method not in ("vse", "hrem")])
@torch.no_grad()
def test_explanations_are_complete(method: str, kind: str) -> None:
    """The terms of words and regions, of the whole picture and caption, and the bias make the score."""
    matcher = network(method, kind)
    left, right = matcher.encode_images(images()), matcher.encode_captions(captions(kind))
    scores = matcher.score_pairs(left, right)
    for name, trace in matcher.trace(left, right).items():
        maps = relevance_maps(name, trace, right.mask, left.mask)
        logit = maps.sum(dim=(1, 2)) + whole_term(trace) + trace.bias
        found = logit if method in ("scan", "chan", "imram", "shan") else torch.sigmoid(logit)
        torch.testing.assert_close(found, scores[name], rtol=0, atol=1e-6)
        torch.testing.assert_close(trace.score, scores[name], rtol=0, atol=1e-6)
        if kind != "added":
            assert trace.pooled_terms is None
            assert trace.pooled_whole is not None
            assert (trace.pooled_whole != 0).all()


@pytest.mark.parametrize("method", ["scan", "chan", "imram", "shan"])
@torch.no_grad()
def test_every_level_is_in_proportion_to_alpha(method: str) -> None:
    matcher: Any = network(method, "frozen")
    sides = matcher.encode_images(images()), matcher.encode_captions(captions("frozen"))
    before = matcher.trace(*sides)
    for stream in matcher.streams.values():
        stream.alpha.mul_(3)
    for name, trace in matcher.trace(*sides).items():
        torch.testing.assert_close(trace.contributions, 3 * before[name].contributions)
        torch.testing.assert_close(trace.node_contributions, 3 * before[name].node_contributions)


@torch.no_grad()
def test_the_share_of_the_items_is_that_of_the_formula() -> None:
    matcher: Any = network("tshsr", "added")
    left = matcher.encode_images(images())
    rest = matcher.region_whole.projection(torch.nn.functional.normalize(images().pooled.double(), dim=-1))
    pooled = matcher.region_pooling(left.items, left.mask)
    torch.testing.assert_close(left.views[SHARE][:, 0] * (pooled + rest), left.pooled)
    right = matcher.encode_captions(captions("added"))
    trace = matcher.trace(left, right)["region_stream"]
    assert trace.pooled_terms is not None
    assert (trace.pooled_terms.sum(dim=(1, 2)) - trace.pooled).abs().min() > 1e-4, "the whole has a term"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_an_index_scores_and_explains_alike(method: str, kind: str) -> None:
    matcher = network(method, kind).float()
    batch, texts = images(boxes=None), captions(kind)
    batch = replace(batch, regions=batch.regions.float(), pooled=batch.pooled.float())
    left, right = matcher.encode_images(batch), matcher.encode_captions(replace(texts, pooled=texts.pooled.float()))
    again = []
    for side, is_picture in ((left, True), (right, False)):
        columns = encoding_columns(side)
        if is_picture:
            columns["boxes"] = boxes_column(None, side.mask)
        again.append(encoding_of(matcher, pa.table(columns), torch.device("cpu")))
    for side, back in zip((left, right), again, strict=True):
        assert torch.equal(back.pooled, side.pooled)
        assert back.views.keys() == side.views.keys() - OF_ROLES, "these are computed again where they are used"
    for name, scores in matcher.score_all(*again).items():
        torch.testing.assert_close(scores, matcher.score_all(left, right)[name], rtol=0, atol=5e-3)
    traces = matcher.trace(left, right)
    for name, trace in matcher.trace(*again).items():
        maps = [relevance_maps(name, one, right.mask, left.mask) for one in (trace, traces[name])]
        torch.testing.assert_close(*maps, rtol=0, atol=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_without_vectors_or_with_others_are_refused(kind: str) -> None:
    matcher = network("tshsr", kind)
    with pytest.raises(InputError, match=r"^the images have no vector of the whole picture; .* 9 wide\. Read both"):
        matcher.encode_images(images(pooled=None))
    text = TEXT if kind == "added" else WIDTH
    with pytest.raises(
        InputError, match=rf"^the captions have a vector 3 wide; .* of the whole caption, {text} wide\."
    ):
        matcher.encode_captions(captions(kind, pooled=torch.ones(len(LENGTHS), 3)))


@pytest.mark.parametrize("kind", ["frozen", "adapter"])
def test_different_widths_cannot_be_compared(kind: str) -> None:
    other = replace(encoder(kind), text_pooled_width=4)
    with pytest.raises(
        SettingsError, match=rf"pooled_vectors is {kind}, .* are 9 and 4 wide; take both from one joint"
    ):
        build_matcher(tiny.config(encoder=other))


def test_v_t_cannot_be_left_out_of_its_own_ranking() -> None:
    with pytest.raises(SettingsError, match=r"frozen starts at the ranking by v·t, and model\.pooled-term is off"):
        build_matcher(tiny.config(encoder=encoder("frozen"), pooled_term=False))


def test_pooled_items_alone_have_no_more_weights() -> None:
    names = {name for name, _ in tiny.network().named_parameters()}
    assert not any("whole" in name and "pooling" not in name for name in names)
    assert isinstance(tiny.network().region_pooling, AttentionPooling)
    frozen: Any = network("tshsr", "frozen")
    assert frozen.region_pooling is None
    assert isinstance(frozen.region_whole, WholeVector)
