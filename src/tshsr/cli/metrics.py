"""`tshsr metrics`: recalls of score matrices, without a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tshsr.cli.evaluate import check_scores_file, extras_of, show_result
from tshsr.cli.options import Argument, OptionalPath, Output, parse
from tshsr.cli.screen import Screen
from tshsr.errors import SettingsError

EXAMPLE = "tshsr metrics SCORES.npy --captions FILE"


@dataclass(frozen=True)
class Metrics:
    """Recalls of a matrix of scores from any program; several matrices are an ensemble, whose scores are averaged."""

    scores: Annotated[tuple[Path, ...], Argument("SCORES", positional=True)]
    """Matrices, images x captions: .npy, .npz, .pt."""
    captions: Annotated[str, Argument("FILE")]
    """The image of each caption: a file with one line per caption, JSON lines, or a folder of data."""
    split: str = "test"
    """Which split of a folder of data."""
    key: str = "scores"
    """Name of the matrix in an .npz, or in a dictionary of tensors."""
    protocol: Literal["auto", "flickr", "coco-1k", "coco-5k"] = "auto"
    """flickr: rank among all images; coco-1k: mean of five folds; auto: coco-5k for 5,000 images, else flickr."""
    json: Output = None
    """Write the report to this file; - writes it to stdout, in place of the table."""
    save_scores: OptionalPath = None
    """Write the scores, of an ensemble their mean, as .npy: float32, or float64 where a matrix is."""
    coco_ids: OptionalPath = None
    """File with COCO's id of each caption, one per line; adds ECCV Caption and CxC (extra eccv)."""
    pmrp: OptionalPath = None
    """Folder with PMRP's annotation; needs --coco-ids."""
    judgements: OptionalPath = None
    """Human ratings, lines of image, caption and rating: their rank correlation with the score."""


def main(arguments: Sequence[str], screen: Screen) -> None:
    """Evaluate matrices."""
    wanted = parse(Metrics, "tshsr metrics", arguments, example=EXAMPLE)
    from tshsr.evaluation.matrix import evaluate_matrix, read_matrices
    from tshsr.evaluation.score_files import save_scores

    check_key(wanted.key, wanted.scores)
    check_scores_file(wanted.save_scores)
    report = evaluate_matrix(
        wanted.scores,
        wanted.captions,
        protocol=wanted.protocol,
        split=wanted.split,
        key=wanted.key,
        extras=extras_of(wanted.coco_ids, wanted.pmrp, wanted.judgements),
    )
    if wanted.save_scores is not None:
        save_scores(wanted.save_scores, read_matrices(wanted.scores, wanted.key)[1])
    show_result(report, wanted.json, screen)


def check_key(key: str, matrices: Sequence[Path]) -> None:
    """Refuse the name of a matrix where every file holds a single one.

    Raises:
        SettingsError: Where it is given.
    """
    if key != Metrics.key and all(path.suffix == ".npy" for path in matrices):
        raise SettingsError(f"--key {key} names a matrix in an .npz or .pt, and an .npy holds one alone; leave it out.")
