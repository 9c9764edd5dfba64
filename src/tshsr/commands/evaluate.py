"""`tshsr evaluate`: runs on a split, or score matrices without a model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from tyro.conf import Positional, arg

from tshsr.commands.choices import choose_device, load_retriever, read_bytes
from tshsr.commands.parsing import File, Flag, Folder, Name, OptionalPath, parse
from tshsr.commands.screen import Screen
from tshsr.commands.tables import show_report
from tshsr.data.layouts import SCENES, find_data, open_split
from tshsr.data.truth import read_truth
from tshsr.errors import DataError, SettingsError
from tshsr.evaluation import evaluate, evaluate_scores
from tshsr.matrices import common_shape, ensemble
from tshsr.probes import add_probes
from tshsr.reports import Report
from tshsr.score_files import check_scores_name, read_image_of_caption, read_scores, save_scores


@dataclass(frozen=True)
class Evaluate:
    """Recalls of a run on a split; several runs are an ensemble, whose scores are averaged.

    Score matrices of any program are evaluated without a model: tshsr evaluate --scores FILE.npy --captions FILE.
    """

    runs: Annotated[Positional[tuple[str, ...]], arg(metavar="[RUN ...]", help_behavior_hint="")] = ()
    """Folders of runs, or owner/name on the Hugging Face hub."""
    data: Folder = None
    """A folder of data, or the word scenes."""
    split: str = "test"
    """Which split of the data."""
    protocol: Literal["auto", "flickr", "coco-1k", "coco-5k"] = "auto"
    """flickr: rank among all images; coco-1k: mean of five folds; auto: coco-5k for 5,000 images, else flickr."""
    json: File = None
    """Write the report to this file; - writes it to stdout, in place of the table."""
    save_scores: OptionalPath = None
    """Keep the fused scores as .npy, float32, images x captions."""
    scores: Annotated[tuple[Path, ...], arg(metavar="FILE ...", help_behavior_hint="")] = ()
    """Evaluate these matrices (images x captions: .npy, .npz, .pt); several are an ensemble."""
    captions: File = None
    """Whose image is which caption, for --scores: a file with a line a caption, JSON lines, or a folder of data."""
    bytes: str = "1GiB"
    """Bound on the temporary memory of scoring."""
    device: Name = None
    """cpu, cuda or mps; the best one here without it."""
    quiet: Flag = False
    """Show no progress, neither a bar nor lines."""


def main(arguments: Sequence[str], screen: Screen) -> None:
    """Evaluate."""
    wanted = parse(Evaluate, "tshsr evaluate", arguments)
    if wanted.save_scores is not None:
        check_scores_name(wanted.save_scores)
    report, scores = from_files(wanted) if wanted.scores else from_runs(wanted, screen)
    if wanted.save_scores is not None:
        save_scores(wanted.save_scores, scores)
    if wanted.json is not None:
        screen.json(report.to_json(), wanted.json)
    if wanted.json != "-":
        show_report(screen, report)


def from_runs(wanted: Evaluate, screen: Screen) -> tuple[Report, np.ndarray]:
    """Score a split with the runs.

    Raises:
        SettingsError: Where runs or data are not named.
    """
    if not wanted.runs or wanted.data is None:
        raise SettingsError(
            "expected a run and its data, tshsr evaluate RUN --data DIR, or a matrix, "
            "tshsr evaluate --scores FILE.npy --captions FILE."
        )
    budget, device = read_bytes(wanted.bytes), choose_device(wanted.device)
    split = open_split(wanted.data, wanted.split)
    retrievers = [load_retriever(run, device) for run in wanted.runs]
    for retriever in retrievers:
        retriever.check_extractor(split.extractor)
    with screen.progress(quiet=wanted.quiet) as begin:
        report, scores = evaluate(
            retrievers,
            split,
            protocol=wanted.protocol,
            byte_budget=budget,
            device=device,
            progress=begin("scoring", "pairs"),
        )
    if len(retrievers) == 1:
        truth = read_truth(find_data(wanted.data), split.name)
        report = report if truth is None else add_probes(report, retrievers[0], split, truth)
    return report, scores["fused"]


def from_files(wanted: Evaluate) -> tuple[Report, np.ndarray]:
    """Evaluate score matrices.

    Raises:
        SettingsError: Where runs are named too, or the captions are not.
    """
    if wanted.runs or wanted.captions is None:
        raise SettingsError(
            "a matrix is evaluated without runs, and needs its captions: "
            "tshsr evaluate --scores FILE.npy --captions FILE (or a folder of data)."
        )
    start = time.perf_counter()
    scores = ensemble([{"fused": read_scores(path)} for path in wanted.scores])
    images, captions = common_shape([scores])
    data, split, image_of_caption = read_correspondence(wanted.captions, wanted.split, images, captions)
    report = evaluate_scores(
        scores,
        image_of_caption,
        protocol=wanted.protocol,
        data=data,
        split=split,
        models=[path.name for path in wanted.scores],
        seconds=time.perf_counter() - start,
    )
    return report, scores["fused"]


def read_correspondence(place: str, split: str, images: int, captions: int) -> tuple[str, str, np.ndarray]:
    """Names of data and split, and for each caption the row of its image.

    Raises:
        DataError: Where the captions are not those of the scores.
    """
    path = Path(place)
    if place != SCENES and not path.is_dir():
        return path.name, split, read_image_of_caption(path, images, captions)
    opened = open_split(place, split)
    if (len(opened.regions), len(opened.captions)) != (images, captions):
        raise DataError(
            f"the scores are of {images} images and {captions} captions; {opened.data}, split {opened.name} has "
            f"{len(opened.regions)} and {len(opened.captions)}. Name the split with --split."
        )
    return opened.data, opened.name, opened.image_of_caption
