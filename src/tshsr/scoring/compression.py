"""Smaller encodings of pictures: 8 bits a number, and fewer regions.

    int8      q = round(127 x / max |x|),   x' = unit(q): regions are unit rows, so that no scale is kept
    pooled    a_rm = softmax_m(x_r · k_m / t),   y_m = unit( sum_r a_rm x_r ),   k_m: M learned vectors, t: temperature

The second assigns every region to M learned ones without looking at a text, as CoV-Align (CVPR 2026) aggregates patches
before it compares them with words; here the network on top stays as it is, and `training.region_pooling` fits the M
vectors to its scores. Pooled vectors v stay in float32: the first stage does not change. The mean of all regions stays
what it was, as |sum_r a_rm x_r| / regions is kept as the weight of y_m:  sum_m |sum_r a_rm x_r| y_m = sum_r x_r.

Axes: rows (pictures) | regions | pooled (M) | dim (joint space).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int8
from scipy.cluster.hierarchy import fcluster, linkage
from torch import Tensor, nn
from torch.nn.functional import normalize

from tshsr.errors import SettingsError
from tshsr.models.attention import at_least_float32
from tshsr.models.base import ItemEncoding, Matcher
from tshsr.models.whole import SHARE

TokenFormat = Literal["float16", "int8"]
CODES = 127
"""Largest code of int8; -128 is unused, so that codes are symmetric."""
TEMPERATURE = 0.1
"""Initial temperature of the assignment."""
MIN_MASS = 0.02
"""Regions that a pooled region needs, in sum; one with fewer is padding, but for the largest of a picture."""


def quantise(items: Float[Tensor, "*rows dim"]) -> Int8[Tensor, "*rows dim"]:
    """Codes of unit rows: the largest absolute value of a row is 127; zero rows have zero codes."""
    items = at_least_float32(items)  # in bfloat16 127 x / max |x| may be 127.5, which overflows
    largest = items.abs().amax(dim=-1, keepdim=True)
    return (CODES * items / largest.clamp_min(torch.finfo(items.dtype).tiny)).round().to(torch.int8)


def dequantise(codes: Int8[Tensor, "*rows dim"], dtype: torch.dtype = torch.float32) -> Float[Tensor, "*rows dim"]:
    """Unit rows from codes; zero rows stay zero."""
    return normalize(codes.float(), dim=-1).to(dtype)


def stored_items(items: Float[Tensor, "*rows dim"], format: TokenFormat) -> Float[Tensor, "*rows dim"]:  # noqa: A002
    """Items as they come back from an index of that format."""
    return items.half().to(items.dtype) if format == "float16" else dequantise(quantise(items), items.dtype)


def bytes_of_picture(
    regions: int,
    dim: int,
    pooled_dim: int,
    format: TokenFormat,  # noqa: A002
    *,
    pooled: bool = False,
) -> int:
    """Bytes of an encoding in an index: regions, for pooled ones their weights, and v in float32; without boxes."""
    return regions * dim * (2 if format == "float16" else 1) + 4 * pooled_dim + 4 * regions * pooled


@dataclass(frozen=True)
class PooledRegions:
    """Regions that were pooled from those of a picture.

    Attributes:
        items: Unit rows; padding, at the end, is zero.
        mask: Which of them have regions at all.
        weights: Of each in the mean of the regions that were pooled; 0 for padding.
        boxes: Mean boxes; None without boxes.
    """

    items: Float[Tensor, "rows pooled dim"]
    mask: Bool[Tensor, "rows pooled"]
    weights: Float[Tensor, "rows pooled"]
    boxes: Float[Tensor, "rows pooled 4"] | None


class RegionPooling(nn.Module):
    """Regions pooled to M learned ones, without a text.

    Args:
        vectors: k_m, the vectors that regions are assigned by.
    """

    def __init__(self, vectors: Float[Tensor, "pooled dim"]) -> None:
        super().__init__()
        self.vectors = nn.Parameter(vectors.clone())
        self.log_temperature = nn.Parameter(torch.tensor(TEMPERATURE).log())

    def assignment(
        self, items: Float[Tensor, "rows regions dim"], mask: Bool[Tensor, "rows regions"]
    ) -> Float[Tensor, "rows regions pooled"]:
        """Share of each region in each pooled one; the shares of a real region sum to 1, those of padding are 0."""
        similarity = items @ normalize(self.vectors, dim=-1).T
        shares: Tensor = torch.softmax(similarity / self.log_temperature.exp(), dim=-1) * mask[..., None]
        return shares

    def forward(
        self,
        items: Float[Tensor, "rows regions dim"],
        mask: Bool[Tensor, "rows regions"],
        boxes: Float[Tensor, "rows regions 4"] | None = None,
    ) -> PooledRegions:
        """The pooled regions of each picture."""
        shares = self.assignment(items, mask)
        return pooled_by(shares, items, boxes)


def pooled_by(
    shares: Float[Tensor, "rows regions pooled"],
    items: Float[Tensor, "rows regions dim"],
    boxes: Float[Tensor, "rows regions 4"] | None,
) -> PooledRegions:
    """Unit sums of the regions, weighted by their shares; pooled regions without regions are padding, at the end.

    What a region has in pooled ones that become padding goes to its others, so that the mean of all regions stays.
    """
    mass = shares.sum(dim=1)
    real = (mass > MIN_MASS) | ((mass == mass.amax(dim=1, keepdim=True)) & (mass > 0))  # a single region may be spread
    kept = shares * real[:, None]
    shares = kept * (shares.sum(dim=2) / kept.sum(dim=2).clamp_min(torch.finfo(kept.dtype).tiny))[..., None]
    mass = shares.sum(dim=1)
    order = real.int().argsort(dim=1, descending=True, stable=True)
    sums = shares.mT @ items
    pooled = normalize(sums, dim=-1) * real[..., None]
    regions = mass.sum(dim=-1, keepdim=True).clamp_min(1)  # each region has shares that sum to 1
    weights = sums.norm(dim=-1) / regions * real
    places = None if boxes is None else (shares.mT @ boxes) / mass.clamp_min(MIN_MASS)[..., None] * real[..., None]

    def sorted_by_real(values: Tensor) -> Tensor:
        return values.gather(1, order[..., None].expand_as(values))

    return PooledRegions(
        sorted_by_real(pooled),
        real.gather(1, order),
        weights.gather(1, order),
        None if places is None else sorted_by_real(places),
    )


def cluster_shares(
    items: Float[Tensor, "rows regions dim"], mask: Bool[Tensor, "rows regions"], count: int
) -> Float[Tensor, "rows regions pooled"]:
    """Clusters of each picture's regions by Ward's linkage, without learning: the baseline of `RegionPooling`."""
    shares = torch.zeros(*mask.shape, count, dtype=items.dtype)
    for row, (picture, real) in enumerate(zip(items.cpu(), mask.cpu(), strict=True)):
        rows = np.flatnonzero(real.numpy())
        if len(rows) > 1:
            clusters = fcluster(linkage(picture[rows].numpy(), "ward"), count, "maxclust") - 1
        else:
            clusters = np.zeros(len(rows), int)
        shares[row, rows, clusters] = 1.0
    return shares.to(items.device)


def compress(
    matcher: Matcher,
    encoding: ItemEncoding,
    boxes: Float[Tensor, "rows regions 4"] | None = None,
    *,
    pooling: RegionPooling | int | None = None,
    format: TokenFormat = "float16",  # noqa: A002
) -> ItemEncoding:
    """An encoding of pictures as a smaller index would give it back.

    Args:
        matcher: The network that made it.
        boxes: For networks that compare places.
        pooling: Learned regions, a number of clusters, or None: all regions.
        format: Numbers of the regions.

    Raises:
        SettingsError: Where the number of clusters is below 1.
    """
    items, mask = encoding.items, encoding.mask
    if isinstance(pooling, int) and pooling < 1:
        raise SettingsError(f"{pooling} regions were asked for; expected at least 1.")
    few: PooledRegions | None = None
    if isinstance(pooling, int):
        few = pooled_by(cluster_shares(items, mask, pooling), items, boxes)
    elif pooling is not None:
        few = pooling(items, mask, boxes)
    if few is not None:
        items, mask, boxes = few.items, few.mask, few.boxes
    shares = encoding.views.get(SHARE)
    small = matcher.complete(
        stored_items(items, format), mask, encoding.pooled, boxes, None if shares is None else shares[:, 0, 0]
    )
    return small if few is None else small.weighted(few.weights)
