"""Streams with projections of the items that depend on a side's role: queries, or context.

Products that are linear in one side alone are taken once per item instead of once per pair:
A [x ; sum_c w_c c] = A1 x + sum_c w_c (A2 c).

Axes: rows (images or captions) | items (regions or words) | dim (joint space).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from tshsr.data.batches import CaptionBatch, ImageBatch
from tshsr.models.base import ItemEncoding
from tshsr.models.streams import MeanPooledMatcher, ScoringStream

Role = Literal["queries", "context"]


class RoleStream(ScoringStream, ABC):
    """A stream with one projection of its queries and one of its context.

    Attributes:
        name: `word_stream` or `region_stream`.
    """

    name: str

    @abstractmethod
    def project(self, items: Float[Tensor, "*rows dim"], role: Role) -> Float[Tensor, "*rows _"]:
        """The projection of items in a role."""

    def projected(self, side: ItemEncoding, role: Role) -> Float[Tensor, "*rows items _"]:
        """The projection that the encoding keeps; computed from the items where an index gave them back alone."""
        view = side.views.get(view_name(self.name, role))
        return self.project(side.items, role) if view is None else view


class RoleMatcher(MeanPooledMatcher):
    """A method whose streams are `RoleStream`: an encoding keeps the projections of its side's role in each stream."""

    def encode_images(self, batch: ImageBatch) -> ItemEncoding:
        """Encode regions: queries of the region stream, context of the word stream."""
        return self._with_projections(super().encode_images(batch), query_stream="region_stream")

    def encode_captions(self, batch: CaptionBatch) -> ItemEncoding:
        """Encode words: queries of the word stream, context of the region stream."""
        return self._with_projections(super().encode_captions(batch), query_stream="word_stream")

    def _with_projections(self, encoding: ItemEncoding, query_stream: str) -> ItemEncoding:
        views = dict(encoding.views)
        for name, stream in self._streams():
            if isinstance(stream, RoleStream):
                role: Role = "queries" if name == query_stream else "context"
                views[view_name(name, role)] = stream.project(encoding.items, role)
        return replace(encoding, views=views)


def view_name(stream: str, role: Role) -> str:
    """Key of a projection in an encoding's views."""
    return f"{role} of {stream}"
