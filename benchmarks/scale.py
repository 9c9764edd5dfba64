"""Cost of an index from 1,000 to 1,000,000 pictures with random encodings: `benchmarks/results/scale.json`.

    python -m benchmarks.scale

Rows are written as `tshsr index` writes them, but with random encodings in the shapes of a network: it measures the
index and the search, not the quality of results. v is uniform on the sphere, the hard case for approximate search; with
`--around-centres` also sizes where it lies around 1,000 centres, and queries are near pictures. Regions repeat after
`BATCH` pictures; only their number matters for the cost. The file is written after every size.

Every duration is given twice: on the clock, and as processor time of all threads, which other work on the machine
changes little.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import tyro

from benchmarks.search import bytes_of
from benchmarks.tables import RESULTS
from tshsr.bench.machine import clear_peak, resident
from tshsr.files import write_text
from tshsr.index.about import update_info
from tshsr.index.ann import ROWS_PER_PARTITION, ann_indices, maintain
from tshsr.index.building import write_rows
from tshsr.index.collection import Index
from tshsr.index.database import compact
from tshsr.index.rows import ITEMS, PICTURES, POOLED, POOLED_SHARE
from tshsr.index.search import CANDIDATES, find_pictures
from tshsr.index.snapshot import Snapshot
from tshsr.retriever import Retriever
from tshsr.system import provenance

LOG = logging.getLogger("benchmarks.scale")
BATCH = 4096
"""Pictures that are written together."""
CENTRES, NOISE = 1000, 0.8
"""Of v in the last row; the noise is relative to the centre."""
SAMPLE = 32
"""Queries with which the number of partitions is chosen."""
WORDS = 8
"""Words of a query."""
WARMUP = 3
"""Untimed queries at the start."""
LARGE = 1_000_000
"""Pictures from which on a commit, which reads all ids back, takes a second."""


@dataclass(frozen=True)
class Scale:
    """Sizes of the index, and the network."""

    run: str = "checkpoints/flickr8k-photos"
    """The network of the queries and of the second stage."""
    sizes: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)
    """Pictures."""
    around_centres: tuple[int, ...] = (100_000,)
    """Pictures, where v lies around centres."""
    regions: int = 16
    """Regions of a picture."""
    regions_when_large: int = 2
    """Regions from 1,000,000 pictures on: the first stage does not read them, and the disk holds less."""
    queries: int = 50
    """Timed searches."""
    commits: int = 250
    """Additions of one picture each, before the table is compacted; a tenth of them from 1,000,000 pictures on, which
    leaves too few fragments for a compaction."""
    folder: Path | None = None
    """Parent of the temporary folders; default: that of the system."""


@dataclass(frozen=True)
class Encodings:
    """Random encodings.

    Attributes:
        centres: Of v; none: v is uniform on the sphere.
        items: Of `BATCH` pictures, float16.
    """

    schema: pa.Schema
    regions: int
    width: int
    centres: np.ndarray | None
    items: np.ndarray

    @classmethod
    def of(cls, retriever: Retriever, schema: pa.Schema, regions: int, *, clustered: bool) -> Encodings:
        """In the shapes of a network."""
        generator, width = np.random.default_rng(0), schema.field(POOLED).type.list_size
        items = unit(generator.standard_normal((BATCH, regions, retriever.config.model.encoder.dim), np.float32))
        centres = unit(generator.standard_normal((CENTRES, width), np.float32)) if clustered else None
        return cls(schema, regions, width, centres, items.astype(np.float16))

    def vectors(self, count: int, generator: np.random.Generator) -> np.ndarray:
        """V of random pictures."""
        noise = unit(generator.standard_normal((count, self.width), np.float32))
        if self.centres is None:
            return noise
        return unit(self.centres[generator.integers(0, CENTRES, count)] + NOISE * noise)

    def rows(self, start: int, count: int) -> pa.RecordBatch:
        """Pictures from a number on."""
        generator = np.random.default_rng(start + 1)
        pooled, items = self.vectors(count, generator), self.items[:count]
        ends = np.arange(count + 1, dtype=np.int32) * items[0].size
        columns = {
            "id": pa.array([f"picture-{number}" for number in range(start, start + count)]),
            POOLED: pa.FixedSizeListArray.from_arrays(pa.array(pooled.ravel()), self.width),
            ITEMS: pa.ListArray.from_arrays(pa.array(ends), pa.array(items.ravel())),
            POOLED_SHARE: pa.array(np.full(count, 0.5, np.float32)),
        }
        empty = [columns.get(field.name, pa.nulls(count, field.type)) for field in self.schema]
        return pa.RecordBatch.from_arrays(empty, schema=self.schema)

    def batches(self, count: int) -> Iterator[pa.RecordBatch]:
        """All pictures."""
        for start in range(0, count, BATCH):
            yield self.rows(start, min(BATCH, count - start))


def main() -> None:
    """Measure every size, and write the results file."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    wanted = tyro.cli(Scale, description=__doc__)
    made = {**provenance(), "load": os.getloadavg()[0]}
    retriever = Retriever.from_pretrained(wanted.run)
    values: dict[str, Any] = {"command": " ".join(["python -m benchmarks.scale", *sys.argv[1:]]), **made}
    values |= {name: getattr(wanted, name) for name in ("run", "regions", "queries", "commits")}
    values |= {"dim": retriever.config.model.encoder.dim, "candidates": CANDIDATES}
    values |= {"threads": torch.get_num_threads(), "growth": []}
    for size, clustered in [(s, False) for s in wanted.sizes] + [(s, True) for s in wanted.around_centres]:
        with tempfile.TemporaryDirectory(dir=wanted.folder) as folder:
            row: dict[str, Any] = {"pictures": size, "clustered": clustered}
            row |= measure(wanted, retriever, Path(folder) / "index", size, clustered=clustered)
        LOG.info("%s", row)
        values["growth"] = sorted([*values["growth"], row], key=lambda each: (each["pictures"], each["clustered"]))
        write_text(RESULTS / "scale.json", json.dumps(values, indent=2) + "\n")


def measure(wanted: Scale, retriever: Retriever, folder: Path, size: int, *, clustered: bool) -> dict[str, Any]:
    """Build an index of this size, search it, change it."""
    cleared = clear_peak()  # earlier sizes had peaks of their own
    index = Index.create(folder, retriever, extractor=retriever.features_of, run=wanted.run)
    table = index._pictures.live
    regions = wanted.regions if size < LARGE else wanted.regions_when_large
    encodings = Encodings.of(retriever, table.schema, regions, clustered=clustered)
    written = Stopwatch()
    table.add(pa.RecordBatchReader.from_batches(table.schema, encodings.batches(size)))
    seconds, size_on_disk = written.seconds(), bytes_of(folder)
    generator = np.random.default_rng(0)
    sample = torch.from_numpy(queries(encodings, SAMPLE, generator))
    built = Stopwatch()
    maintain(folder, PICTURES, table, lambda: sample)
    found: dict[str, Any] = {
        "regions": regions,
        "write_seconds": seconds,
        "bytes": size_on_disk,
        "ann_seconds": built.seconds(),
        "ann_bytes": bytes_of(folder) - size_on_disk,
        "partitions": max(1, size // ROWS_PER_PARTITION) if ann_indices(table) else 0,
        "probes": index.about.probes.get(PICTURES, 0),
    }
    del index, table  # with what LanceDB keeps in memory for them
    opened = Stopwatch()
    index = Index(folder, retriever)
    found["opening_seconds"] = opened.seconds()
    found |= search(index, torch.from_numpy(queries(encodings, wanted.queries + WARMUP, generator)))
    found |= change(index, encodings, size, wanted.commits if size < LARGE else wanted.commits // 10)
    found["peak_bytes"] = resident("VmHWM") if cleared else None
    return found


def queries(encodings: Encodings, count: int, generator: np.random.Generator) -> np.ndarray:
    """T of random queries: as v are, so that around centres some pictures are near."""
    return encodings.vectors(count, generator)


def search(index: Index, vectors: torch.Tensor) -> dict[str, Any]:
    """Milliseconds of the parts of a search; the exact first stage reads all v into memory first."""
    words = index.retriever.tokenizer.known_words()
    chosen = np.random.default_rng(0).choice(words, (len(vectors), WORDS))
    texts = [" ".join(sentence) for sentence in chosen]
    first = Stopwatch()
    index.search(texts[0])
    first_search = first.seconds()
    table = index._pictures.snapshot()
    numbers = [table.nearest(vector, CANDIDATES, None) for vector in vectors]
    rows = [table.take(each) for each in numbers]
    captions = [index.retriever.encode_captions(text) for text in texts]
    exact = Snapshot(table.table, 0)
    load = Stopwatch()
    exact.nearest(vectors[0], CANDIDATES, None)
    loaded = load.seconds()
    second = [partial(find_pictures, index.retriever, *each, 10) for each in zip(rows, texts, captions, strict=True)]
    parts: dict[str, list[Callable[[], object]]] = {
        "encoding": [partial(index.retriever.encode_captions, text) for text in texts],
        "first_stage": [partial(table.nearest, vector, CANDIDATES, None) for vector in vectors],
        "exact_first_stage": [partial(exact.nearest, vector, CANDIDATES, None) for vector in vectors],
        "reading": [partial(table.take, each) for each in numbers],
        "second_stage": [*second],
        "search": [partial(index.search, text) for text in texts],
    }
    return {
        "first_search_seconds": first_search,
        "exact_load_seconds": loaded,
        "exact_bytes": int(exact.all_pooled[1].nbytes),
        "milliseconds": {name: milliseconds([timed(call) for call in calls]) for name, calls in parts.items()},
    }


def change(index: Index, encodings: Encodings, size: int, count: int) -> dict[str, Any]:
    """Small additions, each a version that readers notice, and the compaction of what they leave."""
    table, commits = index._pictures.live, []
    vector = torch.from_numpy(encodings.vectors(1, np.random.default_rng(0))[0])
    for number in range(count):
        rows = pa.Table.from_batches([encodings.rows(size + number, 1)])
        commits.append(timed(partial(write_rows, index.folder, table, rows, is_new=True)))
    fragmented = after_change(index, vector)
    fragments = table.stats()["fragment_stats"]["num_fragments"]
    compacted = Stopwatch()
    compact(index.folder, table)
    seconds = compacted.seconds()
    update_info(index.folder, unfinished=None)
    return {
        "commit_milliseconds": milliseconds(commits),
        "fragments": fragments,
        "fragments_compacted": table.stats()["fragment_stats"]["num_fragments"],
        "compaction_seconds": seconds,
        "after_change_milliseconds": {"fragmented": fragmented, "compacted": after_change(index, vector)},
    }


def after_change(index: Index, vector: torch.Tensor) -> dict[str, dict[str, float]]:
    """Milliseconds of the first stage of the first search after a change, and of the next one."""
    nearest = partial(index._pictures.read, lambda table: table.nearest(vector, CANDIDATES, None))
    return {name: milliseconds([timed(nearest)]) for name in ("first", "next")}


class Stopwatch:
    """Measures from its construction."""

    def __init__(self) -> None:
        self.wall, self.processor = time.perf_counter(), time.process_time()

    def seconds(self) -> dict[str, float]:
        """Seconds since, on the clock and of the processor."""
        return {"wall": time.perf_counter() - self.wall, "processor": time.process_time() - self.processor}


def timed(call: Callable[[], object]) -> dict[str, float]:
    """Seconds of a call."""
    watch = Stopwatch()
    call()
    return watch.seconds()


def milliseconds(calls: list[dict[str, float]]) -> dict[str, float]:
    """Medians over calls, without those of the warm-up where there are more, and the 95th percentile of the clock."""
    kept = calls[WARMUP:] or calls
    wall, processor = (1000 * np.array([call[name] for call in kept]) for name in ("wall", "processor"))
    medians = {"p50": float(np.median(wall)), "processor": float(np.median(processor))}
    return {**medians, "p95": float(np.quantile(wall, 0.95)), "fastest": float(wall.min())}


def unit(vectors: np.ndarray) -> np.ndarray:
    """Unit rows, float32."""
    scaled: np.ndarray = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return scaled.astype(np.float32)


if __name__ == "__main__":
    main()
