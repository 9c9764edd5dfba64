"""Flickr30K Entities (Plummer et al., ICCV 2015): boxes of the phrases of captions.

A folder with `Sentences/ID.txt`, one caption per line with marked phrases, and `Annotations/ID.xml`, the boxes:

    [/EN#283585/people Two young guys] with [/EN#283586/bodyparts shaggy hair] look at their hands .
    <object><name>283585</name><bndbox><xmin>..</xmin><ymin>..</ymin><xmax>..</xmax><ymax>..</ymax></bndbox></object>
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np

from tshsr.boxes import intersection_over_union
from tshsr.data.dataset import Split
from tshsr.data.text import END, START
from tshsr.data.truth import Truth
from tshsr.errors import DataError

LOG = logging.getLogger(__name__)

OVERLAP = 0.5
"""Smallest intersection over union of a region and a box that it shows, as usual in the field."""
FOLDERS = ("", "flickr30k_entities", "Flickr30kEntities")
"""Places of the two folders, relative to the data."""
PHRASE = re.compile(r"\[/EN#(\d+)(?:/[^\s/\]]+)+ ([^\]]*)\]")
Words = Callable[[str], Sequence[str]]
Boxes = Mapping[str, np.ndarray]
"""By phrase id, boxes x 4 as fractions of the picture."""


@dataclass(frozen=True)
class Sentence:
    """A caption as segments of text, each with the id of its phrase, or None outside phrases."""

    segments: tuple[tuple[str, str | None], ...]

    @property
    def key(self) -> str:
        """The normalised text, which identifies a caption."""
        return normalised(" ".join(text for text, _ in self.segments))


def find_entities(place: Path) -> Path | None:
    """The folder of the annotation in or beside the data, where there is one."""
    folder = place if place.is_dir() else place.parent
    for name in FOLDERS:
        if all((folder / name / part).is_dir() for part in ("Annotations", "Sentences")):
            return folder / name
    return None


def read_entities(place: Path, split: Split, words: Words) -> Truth | None:
    """The true regions of the last word of each phrase (the noun, as a rule), for annotated captions.

    A region is true where it overlaps one of the phrase's boxes (`OVERLAP`). Phrases without a box, or without an
    overlapping region, are left out.

    Args:
        split: The split, with boxes of its regions.
        words: From a text to its words, as tokenised for the network.

    Returns:
        None where there is no annotation, or the regions have no boxes.

    Raises:
        DataError: Where a file is damaged, or the annotation is of other pictures.
    """
    folder = find_entities(place)
    if folder is None:
        return None
    if split.regions.boxes is None:
        LOG.warning("%s is not used: the regions of %s have no boxes to compare it with", folder, split.data)
        return None
    annotation = match_images(folder, split)
    if not annotation:
        raise DataError(
            f"{folder} annotates no image of {split.data}, split {split.name}: neither an image id nor a caption is "
            "found there. Remove it, or copy the annotation of these pictures."
        )
    sentences = {image: read_sentences(folder, name) for image, name in annotation.items()}
    boxes = {image: read_phrase_boxes(folder, name) for image, name in annotation.items()}
    truths = []
    for caption, image in zip(split.captions, split.image_of_caption.tolist(), strict=True):
        same = next((each for each in sentences.get(image, ()) if each.key == normalised(caption)), None)
        truths.append({} if same is None else regions_of_words(caption, same, boxes[image], split, image, words))
    return Truth(tuple(truths), ())


def match_images(folder: Path, split: Split) -> dict[int, str]:
    """Annotation name of each annotated image: its id, or the annotated image that shares most captions with it."""
    known = {path.stem for path in (folder / "Sentences").glob("*.txt")}
    names = {image: Path(name).stem for image, name in enumerate(split.image_ids)}
    if any(name in known for name in names.values()):
        return {image: name for image, name in names.items() if name in known}
    named: dict[str, str] = {}
    for name in sorted(known):
        named |= {sentence.key: name for sentence in read_sentences(folder, name)}
    votes: dict[int, Counter[str]] = {}
    for caption, image in zip(split.captions, split.image_of_caption.tolist(), strict=True):
        if normalised(caption) in named:
            votes.setdefault(image, Counter())[named[normalised(caption)]] += 1
    return {image: counter.most_common(1)[0][0] for image, counter in votes.items()}


def read_sentences(folder: Path, name: str) -> list[Sentence]:
    """The captions of an image.

    Raises:
        DataError: Where the file cannot be read.
    """
    path = folder / "Sentences" / f"{name}.txt"
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # captions contain Unicode's other line separators
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}); copy the annotation again.") from None
    return [Sentence(tuple(split_phrases(line))) for line in lines if line.strip()]


def split_phrases(line: str) -> Iterator[tuple[str, str | None]]:
    """The segments of a line of a sentence file."""
    end = 0
    for phrase in PHRASE.finditer(line):
        yield line[end : phrase.start()], None
        yield phrase[2], phrase[1]
        end = phrase.end()
    yield line[end:], None


def read_phrase_boxes(folder: Path, name: str) -> Boxes:
    """Boxes of an image's phrases as fractions of the picture; the file's pixels are 1-based and inclusive.

    Raises:
        DataError: Where the file is missing or damaged.
    """
    path = folder / "Annotations" / f"{name}.xml"
    try:
        root = ET.parse(path).getroot()  # noqa: S314 (expat bounds the expansion of entities)  # nosec B314
        width, height = (float(root.findtext(f"size/{side}", "")) for side in ("width", "height"))
        found: dict[str, list[list[float]]] = {}
        for thing in root.iter("object"):
            for box in thing.iter("bndbox"):
                x1, y1, x2, y2 = (float(box.findtext(side, "")) for side in ("xmin", "ymin", "xmax", "ymax"))
                corners = [(x1 - 1) / width, (y1 - 1) / height, x2 / width, y2 / height]
                for phrase in thing.iter("name"):
                    found.setdefault((phrase.text or "").strip(), []).append(corners)
    except (OSError, ET.ParseError, ValueError, ZeroDivisionError) as error:
        raise DataError(
            f"{path} is no annotation of Flickr30K Entities ({error}); expected a size in pixels and objects with "
            "names and boxes. Copy the annotation again."
        ) from None
    return {phrase: np.clip(boxes, 0, 1) for phrase, boxes in found.items()}


def regions_of_words(
    caption: str, sentence: Sentence, boxes: Boxes, split: Split, image: int, words: Words
) -> dict[int, tuple[int, ...]]:
    """By position of a phrase's last word, the regions that overlap one of its boxes."""
    positions = [place for place, word in enumerate(words_without_ends(caption, words)) if normalised(word)]
    found, read = {}, 0
    for text, phrase in sentence.segments:
        read += sum(1 for word in words_without_ends(text, words) if normalised(word))
        if phrase is not None and phrase in boxes and 0 < read <= len(positions):
            regions = overlapping_regions(boxes[phrase], split, image)
            if regions:
                found[positions[read - 1]] = regions
    # Where segments are tokenised differently from the whole caption, positions are unreliable.
    return found if read == len(positions) else {}


def words_without_ends(text: str, words: Words) -> list[str]:
    """The words of a text, without boundary tokens; none of punctuation alone."""
    return [word for word in words(text) if word not in (START, END)] if any(map(str.isalnum, text)) else []


def overlapping_regions(boxes: np.ndarray, split: Split, image: int) -> tuple[int, ...]:
    """The real regions of an image that overlap a box."""
    if split.regions.boxes is None:
        return ()
    overlaps = intersection_over_union(split.regions.boxes[image].astype(np.float64), boxes)
    if split.regions.mask is not None:
        overlaps[~split.regions.mask[image]] = 0
    return tuple(np.flatnonzero((overlaps >= OVERLAP).any(axis=1)).tolist())


def normalised(text: str) -> str:
    """The words of a text, without case, spacing and punctuation."""
    return " ".join(re.findall(r"\w+", text.lower()))
