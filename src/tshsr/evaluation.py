"""From models and a split, or from score matrices alone, to a report: protocols and ensembles (docs/metrics.md)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import numpy as np

from tshsr.data.dataset import Split
from tshsr.data.tokens import Tokenizer
from tshsr.errors import InputError, SettingsError
from tshsr.metrics import BLOCK, check_captioned, fold_metrics, mean_metrics, score_metrics
from tshsr.models.matcher import Matcher
from tshsr.provenance import provenance
from tshsr.reports import ProtocolName, Report
from tshsr.scoring import BYTE_BUDGET, Progress, score_split

FOLD = 1000
"""Images of a COCO 1K fold."""


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
    byte_budget: int = BYTE_BUDGET,
    device: str | None = None,
    progress: Progress | None = None,
) -> tuple[Report, dict[str, np.ndarray]]:
    """Score every image of a split with every caption, and report.

    Args:
        retrievers: One model, or several whose scores are averaged.
        split: What to evaluate on.
        protocol: See `choose_protocol`.
        byte_budget: Bound on the temporaries of scoring, in bytes; the score matrices come on top (4 bytes a pair,
            score and model).
        device: Where to compute; None: where each network is.
        progress: Called with (pairs done, pairs in all), for each model from 0 on.

    Returns:
        The report, and by score name the (mean) matrices, images x captions.

    Raises:
        SettingsError: Where there is no model.
        InputError: Where the protocol does not fit the split, a score is not finite, or an image has no caption.
    """
    if not retrievers:
        raise SettingsError("there is no model to evaluate; name at least one run.")
    # Refuse before hours of scoring, not after.
    chosen = choose_protocol(protocol, len(split.regions))
    check_captioned(len(split.regions), split.image_of_caption)
    start = time.perf_counter()
    scores = ensemble(
        [
            score_split(
                retriever.matcher,
                retriever.tokenizer,
                split,
                byte_budget=byte_budget,
                device=device,
                progress=progress,
            )
            for retriever in retrievers
        ]
    )
    report = evaluate_scores(
        scores,
        split.image_of_caption,
        protocol=chosen,
        data=split.data,
        split=split.name,
        models=[retriever.name for retriever in retrievers],
        seconds=time.perf_counter() - start,
    )
    return report, scores


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
    """Report on score matrices.

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
    if chosen == "coco-1k":
        folds = {name: fold_metrics(matrix, image_of_caption, images_per_fold=FOLD) for name, matrix in scores.items()}
        metrics = {name: mean_metrics(each) for name, each in folds.items()}
    else:
        folds = None
        metrics = {name: score_metrics(matrix, image_of_caption) for name, matrix in scores.items()}
    origin = provenance()
    return Report(
        data=data,
        split=split,
        protocol=chosen,
        images=images,
        captions=captions,
        models=tuple(models),
        scores=metrics,
        hardware=origin["hardware"],
        commit=origin["commit"],
        seconds=seconds,
        folds=folds,
    )


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


def ensemble(members: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The mean of several models' matrices, for the score names that all of them have.

    Sums are taken in float64, so equal members average to themselves exactly. One member is given back as it is.

    Raises:
        InputError: Where there is no member, the members share no name, or their shapes differ.
    """
    common_shape(members)
    if len(members) == 1:
        return dict(members[0])
    names = [name for name in members[0] if all(name in member for member in members)]
    if not names:
        given = "; ".join(", ".join(member) for member in members)
        raise InputError(f"the models share no score name ({given}); an ensemble averages scores of the same name.")
    return {name: mean_matrix([member[name] for member in members]) for name in names}


def mean_matrix(matrices: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of matrices of one shape, in blocks of rows."""
    mean = np.empty(matrices[0].shape, dtype=np.result_type(*matrices))
    rows = max(1, BLOCK // mean.shape[1])
    for start in range(0, len(mean), rows):
        block = slice(start, start + rows)
        mean[block] = np.mean([matrix[block] for matrix in matrices], axis=0, dtype=np.float64)
    return mean


def common_shape(members: Sequence[Mapping[str, np.ndarray]]) -> tuple[int, int]:
    """Images and captions, which every matrix must share.

    Raises:
        InputError: Where there is no matrix, or a shape differs or is not images x captions.
    """
    named = [(name, matrix.shape) for member in members for name, matrix in member.items()]
    if not named or not all(members):
        raise InputError("expected at least one score matrix of every model; got none.")
    first, shape = named[0]
    for name, other in named:
        if other != shape or len(other) != 2:
            raise InputError(
                f"scores {name!r} have shape {other}, {first!r} have {shape}; expected images x captions, all alike."
            )
    return shape[0], shape[1]
