"""Index of 100,000 images, into `benchmarks/results/search.json`: build time, size, latency, agreement with exact.

    python -m benchmarks.search

Images of 10 to 36 regions with random features (around one centre per image) are encoded by an untrained network. The
same queries run with the exact first stage and with the approximate one; both rescore the same number of candidates.
Random vectors form no clusters, which is the hard case for approximate search: trained encodings need fewer probes.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import tyro

from benchmarks.tables import RESULTS
from tshsr.config.models import EncoderConfig, TshsrConfig
from tshsr.config.run import RunConfig
from tshsr.data.dataset import Split
from tshsr.data.regions import RegionFeatures
from tshsr.data.text import Tokenizer
from tshsr.files import write_text
from tshsr.index import ann
from tshsr.index.collection import Index
from tshsr.index.search import CANDIDATES
from tshsr.models.build import build_matcher
from tshsr.retriever import Retriever
from tshsr.system import keep_freed_memory, provenance

LOG = logging.getLogger("benchmarks.search")
MIN_REGIONS, MAX_REGIONS, BLOCK = 10, 36, 1024
WORDS = tuple(f"word{number}" for number in range(5000))
WARMUP = 3
"""Untimed queries at the start."""


@dataclass(frozen=True)
class Search:
    """Size of the index and of the network."""

    images: int = 100_000
    """Images."""
    queries: int = 200
    """Timed queries."""
    dim: int = 128
    """Width of the joint space."""
    similarity_dim: int = 64
    """Width of a similarity vector."""
    features: int = 64
    """Width of region features."""
    candidates: int = CANDIDATES
    """Images that the network rescores per query."""
    folder: Path | None = None
    """Parent of the temporary folder of features and index; default: that of the system."""


def main() -> None:
    """Build, search exactly and approximately, and write the results file."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    keep_freed_memory()
    wanted = tyro.cli(Search, description=__doc__)
    with tempfile.TemporaryDirectory(dir=wanted.folder) as folder:
        values: dict[str, Any] = {"command": " ".join(["python -m benchmarks.search", *sys.argv[1:]]), **provenance()}
        values |= {name: value for name, value in asdict(wanted).items() if name != "folder"}
        values |= {
            "regions": [MIN_REGIONS, MAX_REGIONS],
            "threads": torch.get_num_threads(),
            **measure(wanted, Path(folder)),
        }
    write_text(RESULTS / "search.json", json.dumps(values, indent=2) + "\n")
    LOG.info("same top 10 in %.1f %% of the queries", 100 * values["agreement"])


def measure(wanted: Search, folder: Path) -> dict[str, Any]:
    """Measure everything."""
    retriever, split = untrained(wanted), random_split(wanted, folder)
    queries = sentences(wanted.queries + WARMUP)
    start = time.perf_counter()
    with patch.object(ann, "MIN_ROWS", sys.maxsize):  # exact
        index = Index.build(folder / "index", retriever, split)
    built, size = time.perf_counter() - start, bytes_of(folder / "index")
    LOG.info("built in %.0f s, %.2f GiB", built, size / 2**30)
    index.candidates = wanted.candidates
    exact, exact_seconds = search_all(index, queries)
    start = time.perf_counter()
    with patch.object(ann, "MIN_ROWS", min(ann.MIN_ROWS, len(index))):
        index.add(split)  # no new rows: builds the ANN index alone
    indexed = time.perf_counter() - start
    found, seconds = search_all(index, queries)
    vectors = [retriever.encode_captions(query).pooled[0] for query in queries]
    table = index._pictures.snapshot()
    first = timed([partial(table.nearest, vector, wanted.candidates, None) for vector in vectors])
    return {
        "build_seconds": built,
        "pictures_per_second": len(index) / built,
        "ann_seconds": indexed,
        "probes": index.about.probes["pictures"],
        "parts": max(1, len(index) // ann.ROWS_PER_PARTITION),
        "bytes": size,
        "bytes_with_ann": bytes_of(folder / "index"),
        "bytes_of_encodings": encoded_bytes(split, wanted.dim),
        "milliseconds": {
            "approximate": quantiles(seconds),
            "approximate_first_stage": quantiles(first),
            "exact": quantiles(exact_seconds),
        },
        "agreement": float(np.mean([set(a) == set(b) for a, b in zip(found, exact, strict=True)])),
        "overlap": float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, exact, strict=True)])),
    }


def untrained(wanted: Search) -> Retriever:
    """A network with initial weights."""
    torch.manual_seed(0)
    tokenizer = Tokenizer.build([" ".join(WORDS)], 1)
    encoder = EncoderConfig(dim=wanted.dim, feature_dim=wanted.features, vocabulary=len(tokenizer))
    config = RunConfig(
        recipe="random", model=TshsrConfig(encoder=encoder, similarity_dim=wanted.similarity_dim), extractor="random"
    )
    return Retriever(build_matcher(config.model), tokenizer, config, "untrained")


def random_split(wanted: Search, folder: Path) -> Split:
    """Images without captions, their features in a file."""
    generator = np.random.default_rng(0)
    shape = (wanted.images, MAX_REGIONS, wanted.features)
    path = folder / "features.npy"
    features = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
    for start in range(0, wanted.images, BLOCK):
        block = features[start : start + BLOCK]
        centres = generator.standard_normal((len(block), 1, wanted.features), np.float32)
        block[:] = centres + generator.standard_normal(block.shape, np.float32)
    features.flush()
    del features
    mask = np.arange(MAX_REGIONS) < generator.integers(MIN_REGIONS, MAX_REGIONS + 1, (wanted.images, 1))
    return Split(
        data="random",
        name="all",
        regions=RegionFeatures.open(path, mask=mask, boxes=random_boxes(generator, mask)),
        captions=(),
        image_of_caption=np.empty(0, np.int64),
        image_ids=tuple(f"picture-{number}" for number in range(wanted.images)),
        extractor="random",
    )


def random_boxes(generator: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    """A random box for each region."""
    corners = generator.random((*mask.shape, 2, 2), dtype=np.float32)
    return np.sort(corners, axis=2).reshape(*mask.shape, 4)


def sentences(count: int) -> list[str]:
    """Random sentences of 4 to 16 words."""
    generator = np.random.default_rng(1)
    return [" ".join(generator.choice(WORDS, generator.integers(4, 17))) for _ in range(count)]


def search_all(index: Index, queries: Sequence[str]) -> tuple[list[list[str]], list[float]]:
    """Top 10 ids and seconds of each query, without the warm-up."""
    found: list[list[str]] = []

    def search(query: str) -> None:
        found.append([result.id for result in index.search(query)])

    seconds = timed([partial(search, query) for query in queries])
    return found[WARMUP:], seconds


def timed(calls: Sequence[Callable[[], object]]) -> list[float]:
    """Seconds of each call, without the warm-up."""
    seconds = []
    for call in calls:
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds[WARMUP:]


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    """Median and 95th percentile in milliseconds."""
    return {"p50": 1000 * float(np.median(seconds)), "p95": 1000 * float(np.quantile(seconds, 0.95))}


def encoded_bytes(split: Split, dim: int) -> int:
    """Size of regions in float16 and pooled vectors in float32."""
    images = len(split.regions)
    regions = images * MAX_REGIONS if split.regions.mask is None else int(split.regions.mask.sum())
    return 2 * regions * dim + 4 * images * dim


def bytes_of(folder: Path) -> int:
    """Size of a folder in bytes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
