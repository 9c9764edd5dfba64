"""Display names of scores and streams, and their order."""

from __future__ import annotations

LABELS = {
    "fused": "Both streams, fused",
    "word_stream": "Word stream alone",
    "region_stream": "Region stream alone",
    "pooled": "Pooled vectors, v·t",
}
"""Display names of scores, in display order; `label` derives the others."""

STREAM_CHOICES = {"word_stream": "Words attend to regions", "region_stream": "Regions attend to words"}
"""Labels of the stream selector on explanation pages."""


def label(name: str) -> str:
    """Display name of a score or stream: `level_0` becomes `Level 0`."""
    return LABELS.get(name, name.replace("_", " ").capitalize())


def stream_label(name: str) -> str:
    """Display name of a stream outside comparisons: `Word stream`."""
    return label(name).removesuffix(" alone")


def reading_order(name: str) -> tuple[int, str]:
    """Sort key of score names: the fused score, its streams, the pooled score, then the others."""
    order = list(LABELS)
    return (order.index(name) if name in order else len(order), name)
