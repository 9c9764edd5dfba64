"""What words of the command line stand for: a device, a number of bytes, of candidates, a picture."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from tshsr.data.batches import ImageBatch
from tshsr.data.dataset import Split
from tshsr.data.layouts import open_split
from tshsr.errors import DataError, SettingsError
from tshsr.features.pictures import read_picture
from tshsr.features.scenes import ScenesExtractor
from tshsr.retriever import Retriever, as_batch
from tshsr.scenes.descriptor import EXTRACTOR
from tshsr.scoring.candidates import Depth

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True)
class Shown:
    """A picture that a network can look at.

    Attributes:
        name: How to call it.
        batch: Its regions, a batch of one.
        picture: The picture itself, where it is at hand.
    """

    name: str
    batch: ImageBatch
    picture: Image.Image | None


def choose_device(name: str | None) -> str:
    """The device of that name, or the best one here.

    Raises:
        SettingsError: Where this machine does not have it.
    """
    there = ["cpu"]
    if torch.cuda.is_available():
        there.append("cuda")
    if torch.backends.mps.is_available():
        there.append("mps")
    if name is None:
        return there[-1]
    if name not in there:
        raise SettingsError(f"device {name!r} is not to be had here; this machine has {', '.join(there)}.")
    return name


def read_bytes(text: str) -> int:
    """A number of bytes: 500M, 2G, 1.5GiB; units are powers of 1,024.

    Raises:
        SettingsError: Where it is none, or none above 0.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    size = int(float(match[1]) * UNITS[match[2].upper()]) if match else 0
    if size < 1:
        raise SettingsError(f"--bytes is {text!r}; expected a size like 500M or 2G.")
    return size


def read_depth(text: str) -> Depth | None:
    """Candidates of a query: 40, or 100,40 for those of an image and of a caption; None for auto.

    Raises:
        SettingsError: Where it is neither, or a number below 1.
    """
    if text == "auto":
        return None
    match = re.fullmatch(r"(-?\d+)(?:,(-?\d+))?", text.strip())
    if match is None:
        raise SettingsError(
            f"--rerank is {text!r}; expected a number of candidates such as 40, two such as 100,40 (of an image, of a "
            "caption), or auto."
        )
    return Depth(int(match[1]), int(match[2] or match[1]))


def load_retriever(run: str, device: str | None) -> Retriever:
    """A trained network on a device.

    Raises:
        CheckpointError: Where there is none.
        SettingsError: Where the machine lacks the device.
    """
    return Retriever.from_pretrained(run).to(choose_device(device))


def find_picture(retriever: Retriever, image: str, data: str | None, split: str) -> Shown:
    """The image of a data set, or a picture file that the network's extractor can be run on here.

    Args:
        retriever: Who will look at it.
        image: Its id or row number in the data, or a file.
        data: The data set.
        split: The split of the data set.

    Raises:
        DataError: Where there is no such image, or the network needs features of another extractor.
    """
    if data is None:
        return picture_file(retriever, Path(image))
    opened = open_split(data, split)
    retriever.check_extractor(opened.extractor)
    number = image_number(opened, image)
    path = opened.picture(number)
    return Shown(opened.image_ids[number], opened.regions.read([number]), None if path is None else read_picture(path))


def image_number(split: Split, image: str) -> int:
    """The row of an image, by its id, or else by that number.

    Raises:
        DataError: Where there is none, with the nearest id.
    """
    if image in split.image_ids:
        return split.image_ids.index(image)
    if image.isdecimal() and int(image) < len(split.image_ids):
        return int(image)
    near = difflib.get_close_matches(image, split.image_ids, n=1, cutoff=0.5)
    raise DataError(
        f"{split.data}, split {split.name} has no image {image!r}; expected an id such as "
        f"{(near or split.image_ids)[0]!r}, or a row number up to {len(split.image_ids) - 1}."
    )


def picture_file(retriever: Retriever, path: Path) -> Shown:
    """A picture described here, for networks that were trained on the built-in scenes.

    Raises:
        DataError: Where the network needs features of another extractor, or the file is no picture.
    """
    if retriever.config.extractor != EXTRACTOR:
        raise DataError(
            f"{retriever.name} needs features of {retriever.config.extractor!r}, which can't be made here from a "
            "picture; name the data that holds them with --data DIR, and --image by its id or row number."
        )
    picture = read_picture(path)
    (found,) = ScenesExtractor().extract([picture])
    return Shown(path.name, as_batch(found.features, found.boxes), picture)
