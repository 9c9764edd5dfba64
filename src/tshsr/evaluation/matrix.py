"""Evaluation of the score matrix of any program, without a model.

report = tshsr.evaluate_matrix("scores.npy", "captions.jsonl")      # as `tshsr metrics`
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from tshsr.data.arrays import Numbers, as_array, as_matrix
from tshsr.errors import DataError, InputError
from tshsr.evaluation.ground_truth import GroundTruth, read_ground_truth
from tshsr.evaluation.run import Evaluation, choose_protocol, rank_queries
from tshsr.evaluation.score_files import KEY, read_scores
from tshsr.metrics import coco
from tshsr.metrics.human import Judgements, agreement, check_judgements, read_judgements
from tshsr.metrics.multi_positive import rankings
from tshsr.metrics.report import Details, ProtocolName, Report
from tshsr.scoring.storage import common_shape, ensemble

FUSED = "fused"


@dataclass(frozen=True)
class Extras:
    """Files of further annotation of the same images and captions.

    Attributes:
        caption_ids: COCO's id of each caption, one per line: ECCV Caption and CxC (extra `eccv`).
        plausible: Folder with PMRP's annotation; requires `caption_ids`.
        judgements: Human ratings: lines of image, caption and rating.
    """

    caption_ids: Path | None = None
    plausible: Path | None = None
    judgements: Path | None = None


@dataclass(frozen=True)
class Annotation:
    """The contents of `Extras`, checked against the images and captions."""

    caption_ids: np.ndarray | None = None
    plausible: Path | None = None
    judgements: Judgements | None = None


def evaluate_matrix(
    scores: Numbers | str | Path | Sequence[Numbers | str | Path],
    captions: Numbers | str | Path,
    *,
    protocol: ProtocolName | Literal["auto"] = "auto",
    split: str = "test",
    key: str = KEY,
    extras: Extras | None = None,
) -> Report:
    """Evaluate the scores of any program, as `tshsr metrics FILE --captions FILE` does.

    Args:
        scores: A matrix of floats, images x captions (an array, which may be memory-mapped, a tensor or nested lists),
            a file of one (see `read_scores`), or a list of these: an ensemble with the mean scores. Names in the
            report: the file name, "scores" for a matrix, "scores[0]", "scores[1]" ... for matrices of a list.
        captions: For each caption the row of its image (whole numbers: an array, tensor or list); or a file (see
            `read_image_of_caption`) or folder of data.
        protocol: See `choose_protocol`.
        split: Split of a folder of data; otherwise a name for the report.
        key: Name of the matrix in a file of several.

    Returns:
        The report, with the ranks of all queries, which `tshsr compare` reads.

    Raises:
        DataError: Where a file is missing or damaged, or does not fit the scores.
        InputError: Where the protocol does not fit, scores are no finite matrices of floats, captions are no whole
            numbers, or an image has no caption.
        SettingsError: Where a name or a package is missing.
    """
    start = time.perf_counter()
    names, matrix = read_matrices(scores, key)
    truth = read_ground_truth(captions, split, *matrix.shape)
    annotation = read_extras(extras or Extras(), truth)
    chosen = choose_protocol(protocol, len(matrix))
    ranks = rank_queries({FUSED: matrix}, truth.image_of_caption, chosen)
    details = measure_details(matrix, truth, annotation, folds=ranks[FUSED].folds)
    return Evaluation(
        scores={FUSED: matrix},
        ranks=ranks,
        protocol=chosen,
        data=truth.data,
        split=truth.split,
        models=tuple(names),
        seconds=time.perf_counter() - start,
        captions_digest=truth.digest,
    ).report(details=details)


def read_extras(extras: Extras, truth: GroundTruth) -> Annotation:
    """Read further annotation and check it, before hours of scoring.

    Raises:
        DataError: Where a file is missing or damaged, or does not fit the images and captions.
        InputError: Where ids are not those of the captions, or all ratings are equal or of one image.
        SettingsError: Where a package is missing.
    """
    ids = judged = None
    if extras.caption_ids is not None:
        ids = coco.read_caption_ids(extras.caption_ids, len(truth.image_of_caption))
        check_annotated(ids, truth.image_of_caption, extras.plausible)
    if extras.judgements is not None:
        if truth.repeated is not None:
            raise DataError(
                f"{extras.judgements} rates images by id, and {truth.data}, split {truth.split} has several images "
                f"{truth.repeated!r}; give each image its own id."
            )
        judged = read_judgements(extras.judgements, truth.images, truth.captions)
        check_judgements(judged)
    return Annotation(ids, extras.plausible, judged)


def check_annotated(caption_ids: np.ndarray, image_of_caption: np.ndarray, plausible: Path | None) -> None:
    """Reject ids other than those of the annotated captions, and unreadable files of PMRP.

    Raises:
        DataError: Where a file is missing or damaged, or of other images and captions.
        InputError: Where the ids are not those of the captions.
        SettingsError: Where the package of the annotation is missing.
    """
    images = int(image_of_caption.max(initial=-1)) + 1
    image_ids = coco.images_of_ids(coco.annotation_folder(), image_of_caption, caption_ids, images)
    if plausible is not None:
        rows = (coco.row_of(image_ids), coco.row_of(caption_ids))
        for side, of_side in zip(coco.SIDES, (rows, rows[::-1]), strict=True):
            coco.right_pairs(plausible / f"pm_{side}.json", *of_side)


def measure_details(scores: np.ndarray, truth: GroundTruth, annotation: Annotation, *, folds: int) -> Details:
    """Figures with several relevant items per query, and figures by further annotation.

    Args:
        scores: The fused scores, images x captions.
        truth: Ground truth of the scores.

    Raises:
        DataError: Where a file of the annotation is damaged.
        InputError: Where all judged scores are equal.
    """
    owner, ids, annotations = truth.image_of_caption, annotation.caption_ids, None
    if ids is not None:
        annotations = coco.annotated_rankings(scores, owner, ids, plausible=annotation.plausible)
    return Details(
        rankings={FUSED: rankings(scores, owner, folds=folds)},
        annotations=annotations,
        judgements=None if annotation.judgements is None else agreement(scores, annotation.judgements),
    )


def read_matrices(scores: Numbers | str | Path, key: str = KEY) -> tuple[list[str], np.ndarray]:
    """Names of the matrices, and the matrix, or the mean of several.

    Raises:
        DataError: Where a file is missing or damaged.
        InputError: Where an entry is no matrix of floats, shapes differ, or a file is named twice.
    """
    if isinstance(scores, str | Path) or not is_list_of_matrices(scores):
        members = [named_matrix(scores, "scores", key)]
    else:
        check_distinct([each for each in scores if isinstance(each, str | Path)])
        members = [named_matrix(each, f"scores[{number}]", key) for number, each in enumerate(scores)]
    common_shape([{name: matrix} for name, matrix in members])
    return [name for name, _ in members], ensemble([{FUSED: matrix} for _, matrix in members])[FUSED]


def check_distinct(places: Sequence[str | Path]) -> None:
    """Reject an ensemble with a duplicate file or run, which would count twice in the mean.

    Raises:
        InputError: Names the duplicate.
    """
    seen: set[Path] = set()
    for place in places:
        if Path(place).resolve() in seen:
            raise InputError(f"{place} is named twice; an ensemble is of different models.")
        seen.add(Path(place).resolve())


def is_list_of_matrices(scores: Numbers) -> bool:
    """Whether this is a list of files or matrices, not the rows of one matrix."""
    if not isinstance(scores, Sequence):
        return False
    return not scores or isinstance(scores[0], str | Path) or as_array(scores[0]).ndim > 1


def named_matrix(scores: Numbers | str | Path, name: str, key: str) -> tuple[str, np.ndarray]:
    """A matrix and its name in the report: the name of its file, else the given name.

    Raises:
        DataError: Where the file is missing or damaged.
        InputError: Where it is no matrix of floats.
    """
    if isinstance(scores, str | Path):
        return Path(scores).name, read_scores(Path(scores), key=key)
    return name, as_matrix(scores, name)
