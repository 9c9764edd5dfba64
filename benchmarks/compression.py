"""Bytes a picture against recall, into `benchmarks/results/compression-flickr8k-photos.json`.

    python -m benchmarks.compression --data STORE

Every caption of test searches the pictures by v·t, which does not change, and the network scores the best fifty with
their regions as an index of each kind gives them back: float16, int8, clusters of each picture's regions (Ward), and
regions pooled to learned vectors, fitted to the network's scores on train (`tshsr.training.region_pooling`).
"""

from __future__ import annotations

import json
import logging
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from benchmarks.recall_changes import change_of_recalls
from benchmarks.tables import RESULTS, update_readme
from tshsr.data.dataset import Split
from tshsr.data.layouts import open_split
from tshsr.errors import TshsrError
from tshsr.files import write_text
from tshsr.models.base import ItemEncoding
from tshsr.retriever import Retriever
from tshsr.scoring.all_pairs import ENCODE_BLOCK, CaptionBlocks
from tshsr.scoring.candidate_lists import search_encoded
from tshsr.scoring.compression import RegionPooling, TokenFormat, bytes_of_picture, compress
from tshsr.scoring.options import BYTE_BUDGET, ScoringOptions
from tshsr.system import provenance
from tshsr.training.region_pooling import PoolingOptions, fit_region_pooling

LOG = logging.getLogger("benchmarks.compression")
NAME = "compression-flickr8k-photos"
CANDIDATES = 50


@dataclass(frozen=True)
class Compression:
    """Network, data and kinds of compression."""

    data: Path
    """A store with the splits train and test."""
    run: Path = Path("checkpoints/flickr8k-photos")
    """The network."""
    regions: tuple[int, ...] = (8, 4)
    """Numbers of pooled regions; those at or above the regions of a picture are left out."""
    steps: int = 300
    """Steps of each fit of learned regions."""


def main() -> None:
    """Measure, and write the results file and the tables."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    wanted = tyro.cli(Compression, description=__doc__)
    try:
        rows = measure(wanted)
    except TshsrError as error:
        sys.exit(str(error))
    command = "python -m benchmarks.compression --data STORE"
    values = {"command": command, **provenance(), "candidates": CANDIDATES, "steps": wanted.steps, "compression": rows}
    write_text(RESULTS / f"{NAME}.json", json.dumps(values, indent=1) + "\n")
    update_readme()


def measure(wanted: Compression) -> list[dict[str, Any]]:
    """One row for each kind of index, the plain one first."""
    retriever = Retriever.from_pretrained(wanted.run)
    train, test = (retriever.readable(open_split(wanted.data, name)) for name in ("train", "test"))
    images = retriever.encode_images(test)
    boxes = test.regions.read(np.arange(len(images))).boxes if retriever.matcher.compares_places else None
    known = images.mask.shape[1]
    kinds: list[tuple[str, RegionPooling | int | None, TokenFormat, float]] = [
        ("all", None, "float16", 0.0),
        ("all", None, "int8", 0.0),
    ]
    for count in (count for count in wanted.regions if count < known):
        start = time.perf_counter()
        options = PoolingOptions(regions=count, steps=wanted.steps)
        learned = fit_region_pooling(retriever.matcher, retriever.tokenizer, train, options)
        seconds = time.perf_counter() - start
        kinds += [("clusters", count, "float16", 0.0), ("learned", learned, "float16", seconds)]
        kinds += [("learned", learned, "int8", seconds)]
    plain: np.ndarray | None = None
    rows = []
    for title, pooling, tokens, seconds in kinds:
        with torch.inference_mode():
            small = compress(retriever.matcher, images, boxes, pooling=pooling, format=tokens)
        start = time.perf_counter()
        ranks = ranks_of(retriever, small, test)
        searched = time.perf_counter() - start
        plain = ranks if plain is None else plain
        counted = int(small.mask.sum(dim=1).max())
        size = bytes_of_picture(
            counted, small.items.shape[-1], small.pooled.shape[-1], tokens, pooled=pooling is not None
        )
        rows.append(row_of(title, tokens, counted, size, ranks, plain, test))
        rows[-1] |= {"fit_seconds": seconds, "search_seconds": searched}
        LOG.info("%s %s: %d bytes, R@1 %.2f", title, tokens, size, rows[-1]["recalls"][0])
    return rows


def ranks_of(retriever: Retriever, images: ItemEncoding, test: Split) -> np.ndarray:
    """Rank of each caption's picture among the candidates; CANDIDATES + 1 where it is none of them."""
    captions = CaptionBlocks(
        retriever.matcher, retriever.tokenizer.encode(test.captions), retriever.device, BYTE_BUDGET
    )
    parts = [images[start : start + ENCODE_BLOCK] for start in range(0, len(images), ENCODE_BLOCK)]
    found = search_encoded(retriever.matcher, parts, captions, CANDIDATES, ScoringOptions())
    matches = found.matches(test.image_of_caption)
    ranks: np.ndarray = np.where(matches.any(axis=1), matches.argmax(axis=1) + 1, CANDIDATES + 1)
    return ranks


def row_of(
    title: str, tokens: str, regions: int, size: int, ranks: np.ndarray, plain: np.ndarray, test: Split
) -> dict[str, Any]:
    """Recalls of text to image, and the change of their sum against the plain index with its interval over pictures."""
    recalls = [100 * float((ranks <= k).mean()) for k in (1, 5, 10)]
    return {
        "title": title,
        "tokens": tokens,
        "regions": regions,
        "bytes": size,
        "recalls": recalls,
        **change_of_recalls(ranks, plain, test.image_of_caption),
    }


if __name__ == "__main__":
    main()
