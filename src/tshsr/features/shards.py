"""Extraction of one shard, the files of a folder that are extracted together: in this process, or by a worker."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from tshsr.data.pictures import PictureFile, SkippedFile
from tshsr.errors import DataError
from tshsr.features.decoding import Decoded, decode_all
from tshsr.features.extractor import Extractor, PictureRegions
from tshsr.features.resume import FinishedPicture
from tshsr.system import Progress, no_progress

Dtype = Literal["float32", "float16"]
Finished = tuple[FinishedPicture, PictureRegions]
PART_SECONDS = 5.0
"""Seconds of work between two writes: the maximum loss after a kill, besides a shard."""


@dataclass(frozen=True)
class ExtractionOptions:
    """Speed and precision of an extraction; of these, only `dtype` affects the features.

    Attributes:
        workers: Pictures decoded at a time.
        batch: Pictures per call of a network.
        dtype: Of the features in the store.
    """

    workers: int = 2
    batch: int = 16
    dtype: Dtype = "float32"


DEFAULT_OPTIONS = ExtractionOptions()
"""Two decoders, batches of 16, float32."""


@dataclass
class ExtractedShard:
    """The result of a shard.

    Attributes:
        skipped: The unreadable files.
    """

    finished: list[Finished] = field(default_factory=list)
    skipped: list[SkippedFile] = field(default_factory=list)


@dataclass(frozen=True)
class ShardExtraction:
    """Prepares a worker: opens the extractor there.

    Attributes:
        folder: Of the pictures, which every worker can read.
        open_extractor: Picklable; by the worker's device and files.
        name: Of the extractor that the store is of.
    """

    folder: Path
    open_extractor: Callable[[], Extractor]
    name: str
    options: ExtractionOptions

    def __call__(self) -> Callable[[Sequence[PictureFile]], ExtractedShard]:
        """The function of one shard.

        Raises:
            DataError: Where the worker has other weights.
        """
        extractor = self.open_extractor()
        if extractor.name != self.name:
            raise DataError(
                f"a worker has the extractor {extractor.name!r}, this process {self.name!r}; give both the same "
                "weights."
            )

        def extract(files: Sequence[PictureFile]) -> ExtractedShard:
            found = ExtractedShard()
            paths = (self.folder / file.file for file in files)
            with (
                warnings.catch_warnings(),
                closing(
                    decode_all(paths, extractor.prepare, workers=self.options.workers, processes=extractor.in_processes)
                ) as decoding,
            ):
                warnings.filterwarnings("ignore", module="PIL")
                found.skipped = extract_shard(files, decoding, extractor, self.options, found.finished.extend)
            return found

        return extract


def extract_shard(
    files: Sequence[PictureFile],
    decoding: Iterator[Decoded],
    extractor: Extractor,
    options: ExtractionOptions,
    write: Callable[[Sequence[Finished]], None],
    progress: Progress = no_progress,
) -> list[SkippedFile]:
    """Extract the files of a shard.

    Args:
        decoding: The decoded files, in the same order; may have more after them.
        write: Receives finished pictures; after Ctrl-C, too.
        progress: Called with (files done, files of the shard).

    Returns:
        The unreadable files.
    """
    skipped: list[SkippedFile] = []
    pending: list[tuple[PictureFile, Decoded]] = []
    finished: list[Finished] = []
    written_at = time.monotonic()
    try:
        for number, file in enumerate(files, start=1):
            decoded = next(decoding)
            if decoded.problem:
                skipped.append(SkippedFile(file.file, decoded.problem))
            else:
                pending.append((file, decoded))
            if len(pending) == options.batch or number == len(files):
                finished += compute(extractor, pending, options.dtype, skipped)
                pending = []
                progress(number, len(files))
            if finished and time.monotonic() - written_at > PART_SECONDS:
                part, finished = finished, []
                write(part)
                written_at = time.monotonic()
    finally:
        if finished:  # also after Ctrl-C
            write(finished)
    return skipped


def compute(
    extractor: Extractor, pending: Sequence[tuple[PictureFile, Decoded]], dtype: Dtype, skipped: list[SkippedFile]
) -> list[Finished]:
    """Regions of decoded pictures; a failing batch is repeated picture by picture, to skip only the failing ones.

    Raises:
        DataError: Where the network fails on any picture, as after an error of its device.
    """
    if not pending:
        return []
    try:
        found = extractor.compute([decoded.prepared for _, decoded in pending])
    except (RuntimeError, ValueError) as error:
        if len(pending) > 1:
            return [one for single in pending for one in compute(extractor, [single], dtype, skipped)]
        reason = " ".join(str(error).split())
        if not _computes(extractor):
            raise DataError(
                f"the network fails on every picture ({reason[:300]}); finished pictures are kept: run this again, or "
                "on another device."
            ) from error
        skipped.append(SkippedFile(pending[0][0].file, f"the network failed on it: {reason[:300]}"))
        return []
    finished = []
    for (file, decoded), regions in zip(pending, found, strict=True):
        with np.errstate(over="ignore"):
            features = regions.features.astype(dtype)
        if not np.isfinite(features).all():
            skipped.append(SkippedFile(file.file, f"one of its features is not finite as {dtype}."))
            continue
        if regions.pooled is not None and not np.isfinite(regions.pooled).all():
            skipped.append(SkippedFile(file.file, "its image vector is not finite."))
            continue
        size = (decoded.width, decoded.height, len(features))
        picture = FinishedPicture(file.file, file.bytes, file.changed, *size)
        finished.append((picture, PictureRegions(features, regions.boxes, regions.pooled)))
    return finished


def _computes(extractor: Extractor) -> bool:
    """Whether the network computes the regions of an empty picture."""
    try:
        extractor.compute([extractor.prepare(Image.new("RGB", (64, 64)))])
    except (RuntimeError, ValueError):
        return False
    return True
