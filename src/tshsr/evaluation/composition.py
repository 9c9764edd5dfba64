"""Accuracy on benchmarks of composition: pooled cosine, MaxSim over the same tokens, and the network.

Scores of one picture: s_c, of caption c. Of two pictures: s_ic. Ties count against the model.

    one picture    text    s_0 > s_1
    two pictures   text    s_00 > s_01 and s_11 > s_10          the caption of each picture
                   image   s_00 > s_10 and s_11 > s_01          the picture of each caption
                   group   both                                 (Thrush et al., CVPR 2022)

Axes: cases | pictures (1 or 2) | captions (2).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from tshsr.data.batches import ImageBatch
from tshsr.data.composition import CompositionCase, PictureRef
from tshsr.data.dataset import Split
from tshsr.data.pictures import read_picture
from tshsr.errors import DataError
from tshsr.evaluation.run import Scorer
from tshsr.features.extractor import Extractor, PictureRegions
from tshsr.models.base import join_encodings
from tshsr.scoring.all_pairs import evaluation_mode
from tshsr.scoring.maxsim import maxsim
from tshsr.system import Progress, no_progress

CHUNK = 64
"""Cases that are scored together."""
MAXSIM = "maxsim"
SCORES = ("pooled", MAXSIM, "fused")
"""Scores in the order of the tables."""
SUFFIXES = ("", ".png", ".jpg", ".jpeg")
"""Endings of picture files whose annotation leaves them out, as Winoground's does."""


class PictureSource(Protocol):
    """Where the regions of pictures come from."""

    def read(self, refs: Sequence[PictureRef]) -> ImageBatch:
        """The regions of pictures, in their order."""


@dataclass(frozen=True)
class StoredPictures:
    """Regions of a store, by image id, file name, or file name without its ending.

    Attributes:
        rows: By name the images that have it: one for an id, several for a file name that folders share.
    """

    split: Split
    rows: Mapping[str, Sequence[int]]

    @classmethod
    def of(cls, split: Split) -> StoredPictures:
        """With the names of all images of a split."""
        rows: dict[str, list[int]] = {}
        for row, name in enumerate(split.image_ids):
            rows.setdefault(Path(name).stem, []).append(row)
        return cls(split, rows | {name: [row] for row, name in enumerate(split.image_ids)})

    def read(self, refs: Sequence[PictureRef]) -> ImageBatch:
        """The regions of pictures.

        Raises:
            DataError: Where a picture is not in the store, two have its name, or only a part of it is wanted.
        """
        for ref in refs:
            if ref.box is not None:
                raise DataError(
                    f"the case of {ref.name} shows a part of the picture, and a store has regions of whole pictures; "
                    "name the folder of the pictures with --pictures DIR."
                )
        return self.split.regions.read([self._row(ref.name) for ref in refs])

    def _row(self, name: str) -> int:
        rows = self.rows.get(name) or self.rows.get(Path(name).stem)
        if not rows:
            raise DataError(f"{self.split.data} has no picture {name}; add it with tshsr features.")
        if len(rows) > 1:
            first, second = (self.split.image_ids[row] for row in rows[:2])
            raise DataError(
                f"picture {name} names both {first} and {second} of {self.split.data}; give the image id of one."
            )
        return rows[0]


@dataclass(frozen=True)
class PictureFiles:
    """Regions of picture files, computed when they are needed."""

    folder: Path
    extractor: Extractor

    def read(self, refs: Sequence[PictureRef]) -> ImageBatch:
        """The regions of pictures, cut to their boxes.

        Raises:
            DataError: Where a file is missing or no picture.
        """
        found = self.extractor.extract([self._open(ref) for ref in refs])
        return padded_batch(found)

    def _open(self, ref: PictureRef) -> Image.Image:
        places = [self.folder / f"{ref.name}{suffix}" for suffix in SUFFIXES]
        places += [self.folder / f"{Path(ref.name).name}{suffix}" for suffix in SUFFIXES]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            raise DataError(f"{self.folder} has no picture {ref.name}; name its folder with --pictures DIR.")
        picture = read_picture(path)
        if ref.box is None:
            return picture
        left, top, right, bottom = ref.box
        box = max(0, int(left)), max(0, int(top)), min(picture.width, int(right)), min(picture.height, int(bottom))
        if box[0] >= box[2] or box[1] >= box[3]:
            raise DataError(f"{path} is {picture.width} x {picture.height}; the box of its case is outside of it.")
        return picture.crop(box)


def padded_batch(found: Sequence[PictureRegions]) -> ImageBatch:
    """Pictures with any number of regions as one batch."""
    most = max(len(each.features) for each in found)
    mask = torch.arange(most) < torch.tensor([len(each.features) for each in found])[:, None]
    features = torch.zeros(len(found), most, found[0].features.shape[1])
    boxes = torch.zeros(len(found), most, 4)
    for row, each in enumerate(found):
        features[row, : len(each.features)] = torch.from_numpy(np.asarray(each.features, np.float32))
        boxes[row, : len(each.boxes)] = torch.from_numpy(np.asarray(each.boxes, np.float32))
    vectors = [each.pooled for each in found if each.pooled is not None]
    pooled = torch.from_numpy(np.stack(vectors).astype(np.float32)) if len(vectors) == len(found) else None
    return ImageBatch(features, mask, boxes, pooled)


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of one score on one group of cases, 0..1.

    Attributes:
        text, image, group: As in the module's formulas; the last two are None for cases with one picture.
    """

    cases: int
    text: float
    image: float | None = None
    group: float | None = None


@dataclass(frozen=True)
class AccuracyDifference:
    """Difference in text accuracy of two scores, 0..1, with its 95 % interval over pictures."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class CompositionFigures:
    """Accuracy by score.

    Attributes:
        kinds: By kind of case, then by score.
        overall: By score, over all cases.
        macro: By score, the mean of text accuracy over groups (relations or pairs of attributes in ARO).
        over: The network's text accuracy minus that of the other scores, over all cases.
    """

    kinds: Mapping[str, Mapping[str, Accuracy]]
    overall: Mapping[str, Accuracy]
    macro: Mapping[str, float]
    over: Mapping[str, AccuracyDifference]


def evaluate_composition(
    retriever: Scorer,
    cases: Sequence[CompositionCase],
    source: PictureSource,
    *,
    device: torch.device | str | None = None,
    progress: Progress = no_progress,
) -> CompositionFigures:
    """Score every case and count.

    Args:
        cases: At least one; all with one picture, or all with two.
        source: Regions of their pictures.
        progress: Called with (cases done, cases in total).

    Raises:
        DataError: Where a picture is missing, or cases with one and with two pictures are mixed.
    """
    if len({len(case.pictures) for case in cases}) != 1:
        raise DataError("the cases have one picture in part and two in part; evaluate each benchmark by itself.")
    ordered = sorted(cases, key=lambda case: case.pictures[0].name)  # cases of a picture share its encoding
    parts: dict[str, list[Tensor]] = {name: [] for name in SCORES}
    done = 0
    for chunk in chunks(ordered):
        for name, scores in case_scores(retriever, chunk, source, device).items():
            parts[name].append(scores)
        done += len(chunk)
        progress(done, len(cases))
    return count(ordered, {name: torch.cat(each).numpy() for name, each in parts.items()})


def chunks(cases: Sequence[CompositionCase]) -> Iterator[Sequence[CompositionCase]]:
    """Consecutive slices of `CHUNK` cases."""
    for start in range(0, len(cases), CHUNK):
        yield cases[start : start + CHUNK]


@torch.inference_mode()
def case_scores(
    retriever: Scorer, cases: Sequence[CompositionCase], source: PictureSource, device: torch.device | str | None
) -> dict[str, Float[Tensor, "cases pictures 2"]]:
    """The scores of every picture of a case with each of its captions, by name."""
    matcher = retriever.matcher
    refs = list(dict.fromkeys(ref for case in cases for ref in case.pictures))
    texts = list(dict.fromkeys(text for case in cases for text in case.captions))
    row, column = ({each: number for number, each in enumerate(side)} for side in (refs, texts))
    with evaluation_mode(matcher, device) as place:
        images = matcher.encode_images(source.read(refs).to(place))
        tokens = retriever.tokenizer.encode(texts)
        captions = join_encodings([matcher.encode_captions(tokens.read(np.arange(len(texts))).to(place))])
        pairs = [(row[ref], column[text]) for case in cases for ref in case.pictures for text in case.captions]
        rows, columns = torch.tensor(pairs, device=place).T
        left, right = images[rows], captions[columns].trimmed()
        scores = {**matcher.score_pairs(left, right), MAXSIM: maxsim(left, right)}
    shape = len(cases), len(cases[0].pictures), 2
    return {name: scores[name].float().cpu().view(shape) for name in SCORES}


def count(cases: Sequence[CompositionCase], scores: Mapping[str, np.ndarray]) -> CompositionFigures:
    """Accuracies from the scores of all cases, in their order."""
    kinds, details = (np.array([getattr(case, name) for case in cases]) for name in ("kind", "detail"))
    right = {name: text_right(values) for name, values in scores.items()}
    groups = np.char.add(np.char.add(kinds, "\n"), details)
    pictures = np.unique([case.pictures[0].name for case in cases], return_inverse=True)[1]
    return CompositionFigures(
        kinds={
            str(kind): {name: accuracy(values[kinds == kind]) for name, values in scores.items()}
            for kind in dict.fromkeys(kinds.tolist())
        },
        overall={name: accuracy(values) for name, values in scores.items()},
        macro={name: group_mean(won, groups) for name, won in right.items()},
        over={name: difference(right["fused"], right[name], pictures) for name in scores if name != "fused"},
    )


def group_mean(right: np.ndarray, groups: np.ndarray) -> float:
    """The mean over groups of the share of right cases."""
    return float(np.mean([right[groups == each].mean() for each in np.unique(groups)]))


def text_right(scores: Float[np.ndarray, "cases pictures 2"]) -> np.ndarray:
    """Whether every picture of a case scores higher with its own caption."""
    own = np.arange(scores.shape[1])
    return np.asarray((scores[:, own, own] > scores[:, own, 1 - own]).all(axis=1))


def accuracy(scores: Float[np.ndarray, "cases pictures 2"]) -> Accuracy:
    """The accuracies of cases of one kind."""
    text = text_right(scores)
    if scores.shape[1] == 1:
        return Accuracy(len(scores), float(text.mean()))
    image = text_right(scores.swapaxes(1, 2))
    return Accuracy(len(scores), float(text.mean()), float(image.mean()), float((text & image).mean()))


def difference(a: np.ndarray, b: np.ndarray, pictures: np.ndarray) -> AccuracyDifference:
    """A minus B, paired, with a normal interval whose error counts the cases of a picture as dependent.

    se^2 = sum_g (sum_{i in g} (d_i - mean))^2 / n^2,      d_i = a_i - b_i, g: cases of one picture
    """
    d = a.astype(float) - b
    spread = np.bincount(pictures, weights=d - d.mean())
    half = 1.96 * math.sqrt(float((spread**2).sum())) / len(d)
    return AccuracyDifference(float(d.mean()), float(d.mean()) - half, float(d.mean()) + half)
