"""Features of generated pictures in one process and by workers, one of which is killed: `benchmarks/results/bulk.json`.

    python -m benchmarks.bulk

The store of the disturbed job is compared with that of one process, byte for byte. Then, for a network for
photographs, processor time and bytes of a picture: decoding, extraction, encoding, and what the feature store holds of
it; `--picture-only` measures these again and leaves the rest of the file.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image

from benchmarks.tables import RESULTS
from tshsr.data.pictures import read_picture
from tshsr.engines.ray import ray_engine
from tshsr.features.catalog import extractor_named, open_extractor
from tshsr.features.extraction import ExtractionResult, extract_folder
from tshsr.features.extractor import Extractor, PictureRegions
from tshsr.features.shards import ExtractionOptions
from tshsr.files import write_text
from tshsr.retriever import Retriever, as_batch
from tshsr.system import provenance

LOG = logging.getLogger("benchmarks.bulk")
SIDE = 48
"""Width and height of a picture."""
BOXES = 4
PHOTOGRAPH, BATCH = (375, 500), 16
FILES = ("regions.npy", "boxes.npy", "mask.npy", "images.jsonl", "captions.jsonl", "files.jsonl", "manifest.json")
"""Files of a store that are compared; one that neither store has is equal."""


@dataclass(frozen=True)
class Bulk:
    """Size of the job."""

    pictures: int = 2000
    """Generated pictures: coloured boxes on a light ground."""
    workers: int = 2
    """Workers of the engine."""
    shard: int = 128
    """Pictures of a shard."""
    run: str = "checkpoints/flickr8k-photos"
    """A network for photographs, whose extractor comes with its weights."""
    photographs: int = 48
    """Pictures of the size of a photograph, 500 x 375, for the seconds of one."""
    picture_only: bool = False
    """Measure the seconds and bytes of a picture only."""
    folder: Path | None = None
    """Parent of the temporary folder; default: that of the system."""


class Mortal:
    """The extractor of the scenes, in a worker that is killed once, after these many pictures.

    Args:
        mark: A file that the killed worker leaves, so that no other one is killed.
    """

    in_processes = False

    def __init__(self, mark: Path, after: int) -> None:
        self.inner, self.mark, self.left = open_extractor("scenes"), mark, after

    def __getattr__(self, name: str) -> Any:
        """Everything else is the extractor's."""
        return getattr(self.inner, name)

    def compute(self, prepared: Sequence[Any]) -> list[PictureRegions]:
        """The regions; the kill comes in the middle of a shard."""
        self.left -= len(prepared)
        if self.left <= 0 and not self.mark.exists():
            self.mark.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return self.inner.compute(prepared)


def mortal(mark: Path, after: int) -> Extractor:
    """Open such an extractor, in a worker."""
    extractor: Any = Mortal(mark, after)
    opened: Extractor = extractor
    return opened


def main() -> None:
    """Measure, compare, and write the results file."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    wanted = tyro.cli(Bulk, description=__doc__)
    made = {**provenance(), "load": os.getloadavg()[0]}
    command = " ".join(["python -m benchmarks.bulk", *sys.argv[1:]])
    with tempfile.TemporaryDirectory(dir=wanted.folder) as folder:
        values: dict[str, Any] = {"command": command, **made}
        if wanted.picture_only:
            values = json.loads((RESULTS / "bulk.json").read_text(encoding="utf-8"))
        else:
            values |= {name: getattr(wanted, name) for name in ("pictures", "workers", "shard", "run")}
            values |= measure(wanted, Path(folder))
        values["per_picture"] = {"command": command, **made, **per_picture(wanted, Path(folder))}
    write_text(RESULTS / "bulk.json", json.dumps(values, indent=2) + "\n")


def measure(wanted: Bulk, folder: Path) -> dict[str, Any]:
    """Seconds of each job, and whether the stores are equal."""
    draw(wanted.pictures, folder / "pictures")
    options = ExtractionOptions(workers=1)
    extractor = mortal(folder / "alive", sys.maxsize)
    found: dict[str, Any] = {"seconds": {}}

    def job(name: str, **how: Any) -> None:
        start = time.perf_counter()
        done: ExtractionResult = extract_folder(folder / "pictures", folder / name, extractor, options=options, **how)
        found["seconds"][name] = time.perf_counter() - start
        LOG.info("%s: %d pictures in %.1f s", name, done.pictures, found["seconds"][name])

    job("one process")
    start = time.perf_counter()
    with ray_engine(workers=wanted.workers, shard=wanted.shard) as engine:
        found["seconds"]["start of the engine"] = time.perf_counter() - start
        job("engine", engine=engine, open_extractor=partial(mortal, folder / "alive", sys.maxsize))
        mark, after = folder / "killed", wanted.pictures // (4 * wanted.workers)
        job("one worker killed", engine=engine, open_extractor=partial(mortal, mark, after))
    found["killed"] = mark.exists()
    for name in ("engine", "one worker killed"):
        found[f"{name}: equal"] = all(same(folder / "one process" / file, folder / name / file) for file in FILES)
    return found


def per_picture(wanted: Bulk, folder: Path) -> dict[str, Any]:
    """Processor time and bytes of a picture: decoding and preparing, extraction, encoding; medians over batches."""
    retriever = Retriever.from_pretrained(wanted.run)
    extractor = extractor_named(retriever.features_of)
    draw(wanted.photographs, folder / "photographs", PHOTOGRAPH, ".jpg")
    paths = sorted((folder / "photographs").iterdir())
    seconds: dict[str, list[float]] = {"decoding": [], "extraction": [], "encoding": []}
    for start in range(0, len(paths), BATCH):
        part, times = paths[start : start + BATCH], [time.process_time()]
        prepared = [extractor.prepare(read_picture(path)) for path in part]
        times.append(time.process_time())
        regions = extractor.compute(prepared)
        times.append(time.process_time())
        vectors = [one.pooled for one in regions if one.pooled is not None]
        features = np.stack([one.features for one in regions]).astype(np.float16).astype(np.float32)
        retriever.encode_images(as_batch(features, None, np.stack(vectors) if vectors else None))
        times.append(time.process_time())
        for name, (before, after) in zip(seconds, pairwise(times), strict=True):
            seconds[name].append((after - before) / len(part))
    one = regions[0]
    size = 2 * one.features.size + one.boxes.nbytes + (0 if one.pooled is None else one.pooled.nbytes)
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    return {"extractor": retriever.features_of, "seconds": medians, "store_bytes": size, "regions": len(one.features)}


def same(first: Path, second: Path) -> bool:
    """Whether two files have the same bytes, or both are missing."""
    contents = [path.read_bytes() if path.exists() else None for path in (first, second)]
    return contents[0] == contents[1]


def draw(count: int, folder: Path, size: tuple[int, int] = (SIDE, SIDE), ending: str = ".png") -> None:
    """Pictures of coloured boxes, of this height and width."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(count):
        pixels = np.full((*size, 3), 230, np.uint8)
        for colour in generator.integers(0, 256, (BOXES, 3)):
            left, top, width, height = generator.integers(8, min(size) // 2, 4).tolist()
            pixels[top : top + height, left : left + width] = colour
        Image.fromarray(pixels).save(folder / f"{number:06d}{ending}")


if __name__ == "__main__":
    main()
