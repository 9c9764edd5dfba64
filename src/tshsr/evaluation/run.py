"""From models and a split, or from score matrices alone, to a report: protocols and ensembles (docs/metrics.md)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch

from tshsr.data.batches import pad_sequences
from tshsr.data.dataset import Split
from tshsr.data.text import Tokenizer
from tshsr.errors import InputError, SettingsError
from tshsr.metrics.ranks import metrics_by_fold, query_ranks
from tshsr.metrics.recall import check_captioned, mean_metrics
from tshsr.metrics.report import Guard, ProtocolName, Report
from tshsr.models.base import Matcher
from tshsr.scoring.all_pairs import by_length, ready, score_encoded
from tshsr.scoring.options import DEFAULT_OPTIONS, ScoringOptions
from tshsr.scoring.precision import lowered, measure
from tshsr.scoring.rerank import score_split_rescored
from tshsr.scoring.storage import common_shape, ensemble
from tshsr.system import provenance

FOLD = 1000
"""Images of a COCO 1K fold."""
LEAST, SAMPLE = 20, 100
"""Images on which a lower precision is measured before it is used: a tenth of the split, within these bounds."""


class Scorer(Protocol):
    """A named network with its tokenizer: one member of an ensemble."""

    @property
    def name(self) -> str:
        """How the report calls it."""

    @property
    def matcher(self) -> Matcher:
        """The network."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The network's tokenizer."""


def evaluate(
    retrievers: Sequence[Scorer],
    split: Split,
    *,
    protocol: ProtocolName | Literal["auto"] = "auto",
    options: ScoringOptions = DEFAULT_OPTIONS,
) -> tuple[Report, Mapping[str, np.ndarray]]:
    """Score every image of a split with every caption, and report.

    Args:
        retrievers: One model, or several whose scores are averaged.
        split: What to evaluate on.
        protocol: See `choose_protocol`.
        options: A lower precision is measured on a sample first, and used where it is faster and as good.
            Progress starts at 0 for each model.

    Returns:
        The report, and by score name the (mean) matrices, images x captions.

    Raises:
        SettingsError: Where there is no model.
        InputError: Where the protocol does not fit the split, a score is not finite, or an image has no caption.
    """
    if not retrievers:
        raise SettingsError("there is no model to evaluate; name at least one run.")
    chosen = choose_protocol(protocol, len(split.regions))  # refused before hours of scoring, not after
    check_captioned(len(split.regions), split.image_of_caption)
    start = time.perf_counter()
    guards = [guard(each, split, options) for each in retrievers] if options.dtype is not None else []
    members = []
    for number, retriever in enumerate(retrievers):
        own = replace(
            options,
            dtype=options.dtype if guards and guards[number].used else None,
            folder=own_folder(options.folder, number, len(retrievers)),
        )
        members.append(score_split_rescored(retriever.matcher, retriever.tokenizer, split, own))
    scores = ensemble(members, options.folder)
    report = evaluate_scores(
        scores,
        split.image_of_caption,
        protocol=chosen,
        data=split.data,
        split=split.name,
        models=[retriever.name for retriever in retrievers],
        seconds=time.perf_counter() - start,
    )
    return replace(report, precision=tuple(guards) or None, captions_digest=split.captions_digest), scores


def own_folder(folder: Path | None, number: int, members: int) -> Path | None:
    """The folder of one member's matrices: all of it for a single one; None where nothing is kept in files."""
    if folder is None or members == 1:
        return folder
    own = folder / str(number)
    own.mkdir(exist_ok=True)
    return own


@torch.inference_mode()
def guard(retriever: Scorer, split: Split, options: ScoringOptions, *, quick: Matcher | None = None) -> Guard:
    """What a precision does to the first images of a split and their captions: about one pair in a hundred.

    Args:
        retriever: The model.
        split: Where the sample is from.
        options: Precision, memory and device of scoring.
        quick: Measure this network, which takes the same encodings, in place of the model's own in that precision.
    """
    few = min(len(split.regions), max(LEAST, min(SAMPLE, len(split.regions) // 10)))
    (captions,) = np.nonzero(split.image_of_caption < few)
    tokens = retriever.tokenizer.encode([split.captions[i] for i in captions])
    order = by_length(tokens)
    dtype = options.dtype or next(retriever.matcher.parameters()).dtype
    with ready(retriever.matcher, options.device) as place:
        images = retriever.matcher.encode_images(split.regions.read(np.arange(few)).to(place))
        texts = retriever.matcher.encode_captions(pad_sequences([tokens[i] for i in order]).to(place))
        low, left, right = quick or lowered(retriever.matcher, dtype), images.at(dtype), texts.at(dtype)
        return measure(
            lambda: score_encoded(retriever.matcher, images, texts, byte_budget=options.byte_budget),
            lambda: score_encoded(low, left, right, byte_budget=options.byte_budget),
            split.image_of_caption[captions[order]],
            dtype,
        )


def score_bytes(retrievers: Sequence[Scorer], split: Split) -> int:
    """Bytes of the score matrices of an evaluation: 4 a pair, score and model, and those of the means of several."""
    names = [retriever.matcher.score_names for retriever in retrievers]
    means = frozenset.intersection(*names) if len(names) > 1 else set()
    return 4 * len(split.regions) * len(split.captions) * (sum(map(len, names)) + len(means))


def evaluate_scores(
    scores: Mapping[str, np.ndarray],
    image_of_caption: np.ndarray,
    *,
    protocol: ProtocolName | Literal["auto"],
    data: str,
    split: str,
    models: Sequence[str],
    seconds: float,
) -> Report:
    """Report on score matrices: the rank of every query by every score, and the figures that follow from the ranks.

    Args:
        scores: By score name, floats of shape images x captions; may be memory-mapped.
        image_of_caption: For each caption the row of its image.
        protocol: See `choose_protocol`.
        data: Name of the data set.
        split: Name of the split.
        models: Names of the models; more than one is an ensemble.
        seconds: How long encoding and scoring took.

    Raises:
        InputError: Where there is no matrix, shapes differ, the protocol does not fit, a score is not finite, or an
            image has no caption.
    """
    images, captions = common_shape([scores])
    chosen = choose_protocol(protocol, images)
    folds = folds_of(chosen, images)
    ranks = {name: query_ranks(matrix, image_of_caption, folds=folds) for name, matrix in scores.items()}
    metrics = {name: metrics_by_fold(each) for name, each in ranks.items()}
    origin = provenance()
    return Report(
        data=data,
        split=split,
        protocol=chosen,
        images=images,
        captions=captions,
        models=tuple(models),
        scores={name: mean_metrics(each) for name, each in metrics.items()},
        hardware=origin["hardware"],
        commit=origin["commit"],
        seconds=seconds,
        folds=metrics if chosen == "coco-1k" else None,
        ranks=ranks,
    )


def folds_of(protocol: ProtocolName, images: int) -> int:
    """Into how many folds of consecutive images a protocol cuts so many images."""
    return images // FOLD if protocol == "coco-1k" else 1


def choose_protocol(protocol: ProtocolName | Literal["auto"], images: int) -> ProtocolName:
    """The protocol that `auto` stands for, or the named one where it fits.

    - `flickr`: each query ranks all images or all captions of the split (Flickr30K, Flickr8k, your own).
    - `coco-5k`: the same, for the 5,000 images of COCO's test split.
    - `coco-1k`: the mean over folds of 1,000 consecutive images; a query ranks its own fold only.
    - `auto`: 5,000 images are `coco-5k`, anything else is `flickr`; never `coco-1k`, whose figures are higher.

    Raises:
        SettingsError: Where there is no such protocol.
        InputError: Where the named protocol does not fit the number of images.
    """
    if protocol == "auto":
        return "coco-5k" if images == 5 * FOLD else "flickr"
    if protocol not in ("flickr", "coco-1k", "coco-5k"):
        raise SettingsError(f"protocol {protocol!r} is unknown; expected auto, flickr, coco-1k or coco-5k.")
    if protocol == "coco-5k" and images != 5 * FOLD:
        raise InputError(f"coco-5k is for 5000 images; the split has {images}. Use the protocol flickr for it.")
    if protocol == "coco-1k" and images % FOLD:
        raise InputError(f"coco-1k is for a multiple of 1000 images; the split has {images}. Use flickr for it.")
    return protocol
