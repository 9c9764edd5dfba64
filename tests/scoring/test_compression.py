"""Smaller encodings: int8, clusters and learned regions."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from tests.support import tiny
from tshsr.data.batches import ImageBatch
from tshsr.errors import SettingsError
from tshsr.models.base import ItemEncoding
from tshsr.models.tshsr import Tshsr
from tshsr.scoring.compression import (
    RegionPooling,
    bytes_of_picture,
    cluster_shares,
    compress,
    dequantise,
    pooled_by,
    quantise,
    stored_items,
)


def float32(batch: ImageBatch) -> ImageBatch:
    """A batch in the precision of trained networks."""
    return replace(batch, regions=batch.regions.float(), boxes=None)


@pytest.fixture
def network() -> Tshsr:
    """A tiny network in the precision of trained ones."""
    return tiny.network(torch.float32)


@pytest.fixture
def encoding(network: Tshsr) -> ItemEncoding:
    """Three pictures with five, two and four regions."""
    with torch.no_grad():
        return network.encode_images(float32(tiny.images(real=[5, 2, 4])))


def rows(seed: int = 0) -> Tensor:
    """Unit rows, one of them padding."""
    items = normalize(torch.randn(4, 3, 12, generator=torch.Generator().manual_seed(seed)), dim=-1)
    items[1, 2] = 0
    return items


def test_codes_are_those_of_a_plain_loop() -> None:
    items = rows()
    codes, back = quantise(items), dequantise(quantise(items))
    assert codes.dtype == torch.int8
    for row, code, decoded in zip(items.flatten(0, 1), codes.flatten(0, 1), back.flatten(0, 1), strict=True):
        largest = max(abs(float(x)) for x in row)
        wanted = [round(127 * float(x) / largest) if largest else 0 for x in row]
        assert [abs(a - b) <= 1 for a, b in zip(code.tolist(), wanted, strict=True)], "ties may round otherwise"
        length = math.sqrt(sum(number**2 for number in code.tolist()))
        assert decoded.tolist() == pytest.approx([number / length if length else 0 for number in code.tolist()])


def test_decoded_rows_are_unit_rows_close_to_the_items() -> None:
    items, back = rows(), dequantise(quantise(rows()))
    lengths = back.norm(dim=-1)
    assert lengths[items.abs().sum(-1) > 0].tolist() == pytest.approx([1.0] * 11)
    assert back[1, 2].abs().sum() == 0
    assert (back - items).abs().max() < 1 / 127
    assert torch.equal(stored_items(items, "int8"), back)
    assert torch.equal(stored_items(items, "float16"), items.half().float())


def test_codes_of_low_precision_are_those_of_float32() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        items = torch.randn(200, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
        codes = quantise(items)
        assert torch.equal(codes, quantise(items.float()))
        assert int(codes.min()) >= -127
        assert not dequantise(torch.zeros(2, 4, dtype=torch.int8), dtype).any()


def test_bytes_of_a_picture() -> None:
    assert bytes_of_picture(36, 1024, 1024, "float16") == 2 * 36 * 1024 + 4 * 1024
    assert bytes_of_picture(8, 256, 256, "int8") == 8 * 256 + 4 * 256


def test_learned_regions_are_those_of_a_plain_loop() -> None:
    items, mask = rows()[:2], torch.tensor([[True, True, True], [True, True, False]])
    vectors = torch.randn(2, 12, generator=torch.Generator().manual_seed(1))
    pooling = RegionPooling(vectors)
    few = pooling(items, mask)
    found = few.items
    assert few.mask.all()
    temperature = float(pooling.log_temperature.detach().exp())
    for picture in range(2):
        sums = [[0.0] * 12 for _ in range(2)]
        for region in range(3):
            if not mask[picture, region]:
                continue
            cosines = [float(items[picture, region] @ v / v.norm()) / temperature for v in vectors]
            total = sum(math.exp(c) for c in cosines)
            for number, cosine in enumerate(cosines):
                for axis in range(12):
                    sums[number][axis] += math.exp(cosine) / total * float(items[picture, region, axis])
        for number in range(2):
            length = math.sqrt(sum(x**2 for x in sums[number]))
            assert float(few.weights[picture, number].detach()) == pytest.approx(length / (3 - picture), abs=1e-5)
            assert found[picture, number].tolist() == pytest.approx([x / length for x in sums[number]], abs=1e-5)


def test_padding_is_invisible() -> None:
    items, mask = rows(), torch.tensor([[True, True, True], [True, True, False]] * 2)
    pooling = RegionPooling(torch.randn(2, 12))
    noise = torch.where(mask[..., None], items, torch.full_like(items, 3.0))
    known, noisy = (pooling(each * mask[..., None], mask) for each in (items, noise))
    assert torch.allclose(known.items, noisy.items)
    assert torch.allclose(known.weights, noisy.weights)
    assert torch.equal(pooling.assignment(noise, mask)[1, 2], torch.zeros(2))


def test_a_pooled_region_without_regions_is_padding_at_the_end() -> None:
    items = rows()[:1]
    shares = torch.zeros(1, 3, 3)
    shares[0, :, 1] = torch.tensor([1.0, 0.5, 0.5])
    shares[0, 1:, 2] = 0.5
    boxes = torch.rand(1, 3, 4)
    few = pooled_by(shares, items, boxes)
    places = few.boxes
    assert few.mask.tolist() == [[True, True, False]]
    assert few.items[0, 2].abs().sum() == 0
    assert few.weights[0, 2] == 0
    assert places is not None
    assert torch.allclose(places[0, 1], boxes[0, 1:].mean(dim=0)), "the mean box of its regions"
    assert places[0, 2].abs().sum() == 0


def test_few_regions_spread_over_many_learned_ones_keep_their_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    items = torch.nn.functional.normalize(torch.randn(20, 2, 12, generator=generator), dim=-1)
    mask = torch.tensor([[True, True], [True, False]] * 10)
    items = items * mask[..., None]
    mean = items.sum(dim=1) / mask.sum(dim=1, keepdim=True)
    pooling = RegionPooling(torch.randn(64, 12, generator=generator)).requires_grad_(False)
    for temperature in (-2.3, 5.0):  # learned; and so even that no pooled region has a fiftieth of a region
        pooling.log_temperature.fill_(temperature)
        few = pooling(items, mask)
        assert few.mask.any(dim=1).all()
        assert not few.mask.all()
        assert torch.allclose((few.weights[..., None] * few.items).sum(dim=1), mean, atol=1e-6)


def test_pooled_regions_have_the_mean_of_all_regions(network: Tshsr, encoding: ItemEncoding) -> None:
    for pooling in (2, RegionPooling(torch.randn(3, encoding.items.shape[-1])).requires_grad_(False)):
        few = compress(network, encoding, pooling=pooling, format="float16")
        assert torch.allclose(few.mean(), encoding.mean(), atol=1e-3), "float16"
        assert torch.equal(few.unsqueeze(0).mean()[0], few.mean())
        assert torch.equal(few.mean_weights() > 0, few.mask)
        even = replace(few, views={})
        assert not torch.allclose(even.mean(), encoding.mean(), atol=1e-2)
        assert torch.allclose(even.mean_weights().sum(dim=-1), torch.ones(3))


def test_clusters_put_every_region_into_one() -> None:
    items = normalize(torch.tensor([[[1.0, 0, 0], [0.99, 0.1, 0], [0, 1, 0], [0, 0, 0]]]), dim=-1)
    mask = torch.tensor([[True, True, True, False]])
    shares = cluster_shares(items, mask, 2)
    assert shares.sum(dim=-1).tolist() == [[1, 1, 1, 0]]
    assert torch.equal(shares[0, 0], shares[0, 1])
    assert not torch.equal(shares[0, 0], shares[0, 2])
    alone = cluster_shares(items[:, :1], mask[:, :1], 2)
    assert alone.sum() == 1


@pytest.mark.parametrize("pooling", [None, 2])
def test_a_compressed_encoding_scores(network: Tshsr, encoding: ItemEncoding, pooling: int | None) -> None:
    with torch.no_grad():
        captions = network.encode_captions(tiny.captions())
        before = network.score_all(encoding, captions)
        small = compress(network, encoding, pooling=pooling, format="int8")
        after = network.score_all(small, captions)
    assert torch.equal(after["pooled"], before["pooled"]), "the first stage does not change"
    assert small.items.shape[1] == (5 if pooling is None else 2)
    if pooling is None:
        assert torch.allclose(after["fused"], before["fused"], atol=0.01)


def test_as_many_clusters_as_regions_change_nothing(network: Tshsr, encoding: ItemEncoding) -> None:
    with torch.no_grad():
        captions = network.encode_captions(tiny.captions())
        before = network.score_all(encoding, captions)["fused"]
        after = network.score_all(compress(network, encoding, pooling=5), captions)["fused"]
    assert torch.allclose(after, before, atol=2e-3)
    with pytest.raises(SettingsError, match="0 regions were asked for; expected at least 1"):
        compress(network, encoding, pooling=0)
