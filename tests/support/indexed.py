"""A small run and small data with boxes and pictures, for the tests of the index."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.data_files import random_boxes
from tests.support.small_runs import run, small_config, small_split
from tshsr.data.dataset import Split
from tshsr.data.layouts import open_split
from tshsr.data.store import StoreCaption, StoreImage, write_store
from tshsr.index.collection import Index
from tshsr.retriever import Retriever


@dataclass(frozen=True)
class Small:
    """A trained network and its data as a store.

    Attributes:
        run: The run's folder.
        store: 12 pictures with 2 captions each, in the splits train (8) and test (4); some have fewer regions.
    """

    run: Path
    store: Path

    def retriever(self) -> Retriever:
        """The network."""
        return Retriever.from_pretrained(self.run)

    def split(self, name: str = "all") -> Split:
        """A split of the store."""
        return open_split(self.store, name)


def make_small(folder: Path) -> Small:
    """Train for two epochs and write the store."""
    data = small_split(folder / "data", "train", 12), small_split(folder / "data", "dev", 12)
    run(small_config(), data, folder / "run")
    write_small_store(folder / "store", data[0])
    return Small(folder / "run", folder / "store")


def write_small_store(folder: Path, split: Split, *, pictures: bool = True) -> Path:
    """A split as a store, with boxes, masks and one-coloured pictures; the last third of it is split test."""
    images = len(split.regions)
    mask = np.ones((images, split.regions.regions), bool)
    mask[1::3, -1] = False
    names = [f"p{number}" for number in range(images)]
    parts = ["test" if 3 * number >= 2 * images else "train" for number in range(images)]
    write_store(
        folder,
        extractor=split.extractor,
        settings={"windows": 3},
        images=[StoreImage(name, f"{name}.png", 8, 6) for name in names],
        captions=[
            StoreCaption(f"c{number}", names[image], text, parts[image])
            for number, (text, image) in enumerate(zip(split.captions, split.image_of_caption.tolist(), strict=True))
        ],
        regions=split.regions.read_array(np.arange(images)),
        boxes=random_boxes(images, split.regions.regions),
        mask=mask,
    )
    if pictures:
        (folder / "pictures").mkdir()
        for number, name in enumerate(names):
            Image.new("RGB", (8, 6), (20 * number % 256, 0, 0)).save(folder / "pictures" / f"{name}.png")
    return folder


def built(small: Small, folder: Path, split: str = "all") -> Index:
    """An index of the small store."""
    return Index.build(folder, small.retriever(), small.split(split), run=small.run, settings={"windows": 3})
