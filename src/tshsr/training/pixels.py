"""Training from pixels: the vision network of a run, and batches of decoded and augmented pictures from processes."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from tshsr.config.run import AugmentationConfig, RunConfig
from tshsr.data.augmentation import draw_augmentation, may_mirror
from tshsr.data.batches import PixelBatch
from tshsr.data.dataset import Split
from tshsr.errors import DataError
from tshsr.features.computed import compute_regions, picture_paths
from tshsr.features.decoding import decode, initialise_worker
from tshsr.features.pixels import VisionExtractor, prepare_pixels
from tshsr.pretrained.networks import Preprocessing
from tshsr.pretrained.vision import VisionEncoder, build_vision, name_of, open_vision
from tshsr.scoring.processes import ALONE, Processes
from tshsr.system import interrupts_held, main_hidden, usable_cores
from tshsr.training.batching import Reader, TrainingBatch

Request = tuple[int, np.ndarray]
"""Epoch and image numbers of a batch."""
AHEAD = 2
"""Batches prepared in advance, per process."""


@dataclass(frozen=True)
class PictureInputs:
    """What a run reads.

    Attributes:
        vision: The vision network, with pretrained weights, or random ones where the run's own are loaded later; None
            for a run on stored features.
        train: With regions by the vision network, where there is one.
        dev: As train.
    """

    config: RunConfig
    vision: VisionEncoder | None
    train: Split
    dev: Split


def open_pictures(config: RunConfig, train: Split, dev: Split, begun: RunConfig | None) -> PictureInputs:
    """Open the vision network of the settings, and replace the regions of both splits by those that it computes.

    Args:
        begun: Settings of the run to resume, whose weights replace the pretrained ones; None: a new run.

    Raises:
        SettingsError: As `open_vision`.
        DataError: As `open_vision`, and where a split has no pictures.
    """
    wanted = config.model.encoder.vision
    if not wanted.weights:
        return PictureInputs(config, None, train, dev)
    if begun is not None and begun.model.encoder.vision.architecture:
        saved = begun.model.encoder.vision
        wanted = replace(wanted, architecture=saved.architecture, fingerprint=wanted.fingerprint or saved.fingerprint)
        with torch.random.fork_rng(devices=[]):
            vision = build_vision(wanted)
    else:
        wanted, vision = open_vision(wanted)
    extractor, name = VisionExtractor(vision), name_of(wanted, vision.design, wanted.fingerprint)
    encoder = replace(config.model.encoder, vision=wanted)
    return PictureInputs(
        config=replace(config, model=replace(config.model, encoder=encoder)),
        vision=vision,
        train=compute_regions(train, extractor, name),
        dev=compute_regions(dev, extractor, name),
    )


@dataclass(frozen=True)
class PictureBatches(Dataset[np.ndarray | str]):
    """Decodes the pictures of a batch; picklable, for worker processes.

    Attributes:
        may_mirror: For each picture whether a mirror image agrees with its captions.
        seed: Of the run.
    """

    paths: tuple[Path, ...]
    preprocessing: Preprocessing
    augmentation: AugmentationConfig
    may_mirror: tuple[bool, ...]
    seed: int

    @classmethod
    def of(cls, split: Split, preprocessing: Preprocessing, augmentation: AugmentationConfig, seed: int) -> Any:
        """Of the training split."""
        captions: list[list[str]] = [[] for _ in split.image_ids]
        for caption, image in zip(split.captions, split.image_of_caption.tolist(), strict=True):
            captions[image].append(caption)
        mirror = tuple(may_mirror(each) for each in captions)
        return cls(picture_paths(split), preprocessing, augmentation, mirror, seed)

    def __getitem__(self, request: Request) -> np.ndarray | str:
        """Pixels, uint8, images x 3 x height x width; or the problem of a picture that can't be decoded."""
        epoch, images = request
        rows = []
        for image in images.tolist():
            change = draw_augmentation(
                self.augmentation, seed=self.seed, epoch=epoch, image=image, may_mirror=self.may_mirror[image]
            )
            prepare = partial(prepare_pixels, preprocessing=self.preprocessing, augmentation=change)
            decoded = decode(self.paths[image], prepare)
            if decoded.problem:
                return f"{self.paths[image]} {decoded.problem}"
            rows.append(decoded.prepared)
        return np.stack(rows)


class Requests(Sampler[Request]):
    """The requests of the next epoch, in order."""

    def __init__(self) -> None:
        self.requests: Sequence[Request] = ()

    def __iter__(self) -> Iterator[Request]:
        """The requests."""
        return iter(self.requests)

    def __len__(self) -> int:
        """Number of requests."""
        return len(self.requests)


class PixelLoader:
    """Batches of training pictures, decoded in processes that stay for all epochs.

    Order and content of the batches do not depend on the number of processes.

    Args:
        workers: Processes, at most one per core; 0: the calling thread.
    """

    def __init__(self, dataset: PictureBatches, workers: int) -> None:
        self.requests, workers = Requests(), min(workers, usable_cores())
        options: dict[str, Any] = {}
        if workers:
            # Spawned, not forked: a fork would copy the locks of torch's threads.
            options = {"prefetch_factor": AHEAD, "persistent_workers": True, "multiprocessing_context": "spawn"}
        self.loader: DataLoader[np.ndarray | str] | None = DataLoader(
            dataset,
            batch_size=None,
            sampler=self.requests,
            num_workers=workers,
            collate_fn=unchanged,  # arrays go through pipes; tensors would need shared memory, which is often small
            worker_init_fn=prepare_worker,
            generator=torch.Generator(),  # not the global one, which is the run's
            **options,
        )

    def steps(
        self, epoch: int, steps: Iterable[list[np.ndarray]], reader: Reader, processes: Processes = ALONE
    ) -> Generator[list[TrainingBatch], None, None]:
        """The batches of the rest of an epoch.

        Args:
            epoch: 0-based.
            steps: For each step the caption numbers of its batches.
            processes: Those that share each batch.

        Raises:
            DataError: Where a picture can't be decoded; names the file.
        """
        if self.loader is None:
            raise RuntimeError("the loader is closed")
        captions = list(steps)
        self.requests.requests = [(epoch, reader.images_of(batch, processes)) for step in captions for batch in step]
        with interrupts_held(), main_hidden():
            stream = iter(self.loader)
        for step in captions:
            yield [reader.read(batch, lambda _: next_batch(stream), processes) for batch in step]

    def close(self) -> None:
        """End the processes."""
        self.loader = None


def next_batch(stream: Iterator[np.ndarray | str]) -> PixelBatch:
    """The next batch of a loader.

    Raises:
        DataError: Where a picture can't be decoded, or a process ended.
    """
    try:
        pixels = next(stream)
    except RuntimeError as error:
        raise DataError(
            f"a process that decodes training pictures ended ({' '.join(str(error).split())[:200]}); find damaged "
            "pictures with tshsr data check, or lower training.workers where the memory is full."
        ) from error
    if isinstance(pixels, str):
        raise DataError(pixels)
    return PixelBatch(torch.from_numpy(pixels))


def unchanged(batch: Any) -> Any:
    """The batch, as the dataset made it."""
    return batch


def prepare_worker(number: int) -> None:
    """Set up a worker process."""
    del number
    initialise_worker()
