"""`tshsr score`: all scores of one picture with one sentence; finding the picture, for `tshsr explain` too."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tshsr.cli.options import Argument, Folder, Name, Output, load_retriever, parse
from tshsr.cli.screen import Screen
from tshsr.errors import DataError, SettingsError

if TYPE_CHECKING:
    from PIL import Image

    from tshsr.data.batches import ImageBatch
    from tshsr.data.dataset import Split
    from tshsr.retriever import Retriever

EXAMPLE = 'tshsr score runs/first --data DIR --image 0 --text "a red circle"'


@dataclass(frozen=True)
class Score:
    """All scores of one picture with one sentence."""

    run: Annotated[str, Argument("RUN", positional=True)]
    """A run's folder, or owner/name on the Hugging Face hub."""
    image: Annotated[str, Argument("IMAGE")]
    """Id or row number of an image of the data; without --data a picture file, for runs on pixels or scenes."""
    text: Annotated[str, Argument("TEXT")]
    """The sentence, in quotes."""
    data: Folder = None
    """A folder of data, or the word scenes."""
    split: str = "test"
    """Which split of the data."""
    json: Output = None
    """Write the scores to this file; - writes them to stdout, in place of the table."""
    device: Name = None
    """cpu, cuda or mps; by default the best one of this machine."""


def main(arguments: Sequence[str], screen: Screen) -> None:
    """Score."""
    wanted = parse(Score, "tshsr score", arguments, example=EXAMPLE)
    retriever = load_retriever(wanted.run, wanted.device)
    shown = find_picture(retriever, wanted.image, wanted.data, wanted.split)
    scores = retriever.score_pair(shown.batch, wanted.text)
    if wanted.json is not None:
        values = {"model": retriever.name, "image": shown.name, "text": wanted.text, "scores": scores}
        screen.json(json.dumps(values, indent=2, ensure_ascii=False), wanted.json)
    if wanted.json != "-":
        screen.say(f"{shown.name}: {wanted.text}")
        screen.table(("score", "value"), [(name, f"{score:.4f}") for name, score in scores.items()])


@dataclass(frozen=True)
class Shown:
    """A picture as input of a network.

    Attributes:
        name: Id of the image, or name of the file.
        batch: The regions, a batch of one.
        picture: The pixels; None where the data has no picture files.
    """

    name: str
    batch: ImageBatch
    picture: Image.Image | None


def find_picture(retriever: Retriever, image: str, data: str | None, split: str) -> Shown:
    """An image of a data set, or a picture file whose regions the built-in extractor computes.

    Args:
        retriever: The network that reads the regions.
        image: Id or row number in the data, or a file.
        data: Folder of the data set; None for a file.

    Raises:
        DataError: Where there is no such image, or the network needs features of another extractor.
        SettingsError: Where a split is named for a file.
    """
    from tshsr.data.layouts import open_split
    from tshsr.data.pictures import read_picture

    if data is None:
        if split != Score.split:
            raise SettingsError(f"--split {split} is for --data, and --image is a file without it; leave it out.")
        return picture_file(retriever, Path(image))
    opened = retriever.readable(open_split(data, split))
    number = image_number(opened, image)
    path = opened.picture(number)
    return Shown(opened.image_ids[number], opened.regions.read([number]), None if path is None else read_picture(path))


def image_number(split: Split, image: str) -> int:
    """The row of an image, by its id or by its number.

    Raises:
        DataError: Where there is no such image; names the nearest id.
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
    """A picture file with regions of the run's vision network, or of the extractor of the built-in scenes.

    Raises:
        DataError: Where the network needs features of another extractor, or the file is no picture.
    """
    from tshsr.data.pictures import read_picture
    from tshsr.features.scenes import ScenesExtractor
    from tshsr.retriever import as_batch
    from tshsr.scenes.descriptor import EXTRACTOR

    if retriever.matcher.vision is None and retriever.config.extractor != EXTRACTOR:
        raise DataError(
            f"{retriever.name} needs features of {retriever.config.extractor!r}, which can't be made here from a "
            "picture; name the data that holds them with --data DIR, and --image by its id or row number."
        )
    picture = read_picture(path)
    extractor = ScenesExtractor() if retriever.matcher.vision is None else retriever.extractor()
    (found,) = extractor.extract([picture])
    return Shown(path.name, as_batch(found.features, found.boxes, found.pooled), picture)
