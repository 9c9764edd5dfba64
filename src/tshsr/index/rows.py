"""Encodings as table rows, and back: items in float16 or int8; Gram matrices and views are recomputed from them.

Axes: rows (pictures or captions) | items (regions or words) | dim (joint space).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn.functional import normalize

from tshsr.errors import DataError
from tshsr.models.base import MEAN_WEIGHTS, ItemEncoding, Matcher
from tshsr.models.whole import SHARE
from tshsr.scoring.compression import TokenFormat, quantise

POOLED, ITEMS, BOXES, POOLED_SHARE, WEIGHTS = "pooled", "items", "boxes", "pooled_share", "region_weights"
PICTURES, CAPTIONS = "pictures", "captions"
"""Names of the tables."""


def schema_of(
    table: str, pooled_width: int = 1, *, shares: bool = True, weights: bool = True, tokens: TokenFormat = "float16"
) -> pa.Schema:
    """The columns of a new table; user metadata adds columns to that of pictures.

    Args:
        pooled_width: Of v and t.
        shares: Whether encodings have shares of the pooled items in v and t.
        weights: Whether regions of pictures are pooled, and have weights in the mean of those that were.
        tokens: Numbers of the regions of pictures; words are in float16.
    """
    number = pa.int8() if tokens == "int8" and table == PICTURES else pa.float16()
    encoding = [
        pa.field(POOLED, pa.list_(pa.float32(), pooled_width), nullable=False),
        pa.field(ITEMS, pa.list_(number), nullable=False),
        *([pa.field(POOLED_SHARE, pa.float32(), nullable=False)] if shares else []),
    ]
    name = pa.field("id", pa.string(), nullable=False)
    if table == CAPTIONS:
        texts = [pa.field(column, pa.string(), nullable=False) for column in ("image", "caption")]
        return pa.schema([name, *texts, *encoding])
    file = [
        pa.field("file", pa.string()),
        pa.field("folder", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
    ]
    floats = pa.list_(pa.float32())
    of_regions = [pa.field(WEIGHTS, floats)] if weights else []
    return pa.schema([name, *file, *encoding, *of_regions, pa.field(BOXES, floats)])


def encoding_columns(encoding: ItemEncoding, tokens: TokenFormat = "float16") -> dict[str, pa.Array]:
    """Pooled vectors (float32) and items without padding; with the boxes, they determine the encoding.

    Where the encoding has them, also the shares of the pooled items in the pooled vectors, and the weights of the items
    in their mean.
    """
    mask = encoding.mask.cpu()
    real = encoding.items.cpu()[mask]
    items = (quantise(real.float()) if tokens == "int8" else real.half()).numpy()
    pooled = np.ascontiguousarray(encoding.pooled.float().cpu().numpy())
    ends = np.concatenate([[0], mask.sum(dim=1).numpy().cumsum()]) * items.shape[1]
    shares = encoding.views.get(SHARE)
    weights = encoding.mean_weights().float().cpu() if MEAN_WEIGHTS in encoding.views else None
    return {
        POOLED: pa.FixedSizeListArray.from_arrays(pa.array(pooled.ravel()), pooled.shape[1]),
        ITEMS: pa.ListArray.from_arrays(pa.array(ends.astype(np.int32)), pa.array(items.ravel())),
        **({} if shares is None else {POOLED_SHARE: pa.array(shares[:, 0, 0].float().cpu().numpy())}),
        **({} if weights is None else {WEIGHTS: numbers_column(weights, mask)}),
    }


def tokens_of(schema: pa.Schema) -> TokenFormat:
    """Numbers of the items of a table."""
    return "int8" if schema.field(ITEMS).type.value_type == pa.int8() else "float16"


def boxes_column(boxes: Tensor | None, mask: Tensor) -> pa.Array:
    """Boxes of the regions, without padding, four numbers each; null where there are none."""
    if boxes is None:
        return pa.nulls(len(mask), pa.list_(pa.float32()))
    return numbers_column(boxes, mask)


def numbers_column(numbers: Tensor, mask: Tensor) -> pa.Array:
    """Numbers of the real items, in float32: rows x items, or rows x items x numbers of an item."""
    counts = mask.sum(dim=1).numpy().cumsum() * (numbers.shape[2] if numbers.ndim > 2 else 1)
    ends = np.concatenate([[0], counts])
    return pa.ListArray.from_arrays(pa.array(ends.astype(np.int32)), pa.array(numbers[mask].float().numpy().ravel()))


def encoding_of(matcher: Matcher, rows: pa.Table, device: torch.device) -> ItemEncoding:
    """The encodings of rows; they differ from the network's by the rounding to float16 or int8.

    Raises:
        DataError: Where the network uses boxes and a picture has none.
    """
    pooled = pooled_of(rows)
    lists = rows[ITEMS].combine_chunks()
    ends = lists.offsets.to_numpy() // matcher.dim
    values = lists.values.to_numpy()[lists.offsets[0].as_py() : lists.offsets[-1].as_py()]
    counts = torch.from_numpy(np.diff(ends))
    mask = torch.arange(int(counts.max())) < counts[:, None]
    items = torch.zeros(*mask.shape, matcher.dim)
    real = torch.from_numpy(values.astype(np.float32)).view(-1, matcher.dim)
    items[mask] = normalize(real, dim=-1) if values.dtype == np.int8 else real
    precision = next(matcher.parameters()).dtype
    pictures = BOXES in rows.column_names
    boxes = padded_boxes(rows, mask) if pictures and matcher.compares_places else None
    shares = None
    if POOLED_SHARE in rows.column_names:
        shares = torch.from_numpy(np.array(rows[POOLED_SHARE].to_numpy())).to(device, precision)
    encoding = matcher.complete(
        items.to(device, precision),
        mask.to(device),
        pooled.to(device, precision),
        None if boxes is None else boxes.to(device, precision),
        shares,
    )
    if WEIGHTS not in rows.column_names:
        return encoding
    weights = torch.zeros(*mask.shape)
    weights[mask] = torch.from_numpy(np.array(rows[WEIGHTS].combine_chunks().flatten().to_numpy()))
    return encoding.weighted(weights.to(device))


def padded_boxes(rows: pa.Table, mask: Tensor) -> Tensor:
    """Boxes of pictures, rows x regions x 4, zero for padding.

    Raises:
        DataError: Where a picture has none.
    """
    if rows[BOXES].null_count:
        raise DataError(
            "a picture of this index has no boxes, and its network uses boxes; build the index again, with boxes."
        )
    boxes = torch.zeros(*mask.shape, 4)
    boxes[mask] = torch.from_numpy(np.array(rows[BOXES].combine_chunks().flatten().to_numpy())).view(-1, 4)
    return boxes


def pooled_of(rows: pa.Table | pa.RecordBatch) -> Tensor:
    """Pooled vectors, rows x dim, float32."""
    column = rows[POOLED].combine_chunks() if isinstance(rows, pa.Table) else rows[POOLED]
    return torch.from_numpy(np.array(column.flatten().to_numpy())).view(len(column), -1)


def boxes_of(rows: pa.Table) -> list[np.ndarray | None]:
    """Boxes of each row, regions x 4, or None."""
    lists: Sequence[list[float] | None] = rows[BOXES].to_pylist()
    return [None if numbers is None else np.array(numbers, np.float32).reshape(-1, 4) for numbers in lists]
