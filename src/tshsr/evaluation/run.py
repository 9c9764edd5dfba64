"""Evaluation of models on a split, or of score matrices: protocols and ensembles (docs/metrics.md).

An `Evaluation` holds scores and ranks; its `report` is the only place where a `Report` is made.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch

from tshsr.data.dataset import Split
from tshsr.data.tokens import CaptionTokenizer, by_length
from tshsr.engines.work import Engine
from tshsr.errors import InputError, SettingsError
from tshsr.evaluation.sharded import score_split_sharded
from tshsr.features.pixels import with_own_regions
from tshsr.metrics.ranks import QueryRanks, metrics_by_fold, query_ranks
from tshsr.metrics.recall import check_captioned, mean_metrics
from tshsr.metrics.report import Details, PointingAndBinding, PrecisionCheck, ProtocolName, Report, Rerank
from tshsr.models.base import Matcher
from tshsr.scoring.all_pairs import evaluation_mode, score_encoded
from tshsr.scoring.fused import with_kernel
from tshsr.scoring.options import DEFAULT_OPTIONS, ScoringOptions
from tshsr.scoring.precision import cast_matcher, compare_precisions, usable_dtype
from tshsr.scoring.rerank import score_split_rescored
from tshsr.scoring.storage import common_shape, ensemble
from tshsr.system import provenance

FOLD = 1000
"""Images of a COCO 1K fold."""
MIN_SAMPLE, MAX_SAMPLE = 20, 100
"""Bounds on the sample on which a lower precision is measured, a tenth of the images of a split."""


class Scorer(Protocol):
    """A named network with its tokenizer: one member of an ensemble."""

    @property
    def name(self) -> str:
        """Name in reports."""

    @property
    def matcher(self) -> Matcher:
        """The network."""

    @property
    def tokenizer(self) -> CaptionTokenizer:
        """The network's tokenizer."""


@dataclass(frozen=True)
class Evaluation:
    """Scores and ranks on one split.

    Attributes:
        scores: By score name the matrices, images x captions.
        ranks: By score name the ranks of all queries.
        models: Names of the models; more than one is an ensemble.
        seconds: Duration of encoding and scoring.
        precision: Measurements of lower precisions.
        rerank: The two-stage search of the scores.
    """

    scores: Mapping[str, np.ndarray]
    ranks: Mapping[str, QueryRanks]
    protocol: ProtocolName
    data: str
    split: str
    models: tuple[str, ...]
    seconds: float
    captions_digest: str | None = None
    precision: tuple[PrecisionCheck, ...] = ()
    rerank: Rerank | None = None

    def report(self, *, details: Details | None = None, known_truth: PointingAndBinding | None = None) -> Report:
        """The report: recalls from the ranks, provenance, and further measurements."""
        metrics = {name: metrics_by_fold(each) for name, each in self.ranks.items()}
        some_ranks, origin = next(iter(self.ranks.values())), provenance()
        return Report(
            data=self.data,
            split=self.split,
            protocol=self.protocol,
            images=len(some_ranks.image_to_text),
            captions=len(some_ranks.text_to_image),
            models=self.models,
            scores={name: mean_metrics(each) for name, each in metrics.items()},
            hardware=origin["hardware"],
            commit=origin["commit"],
            seconds=self.seconds,
            folds=metrics if self.protocol == "coco-1k" else None,
            precision=self.precision or None,
            rerank=self.rerank,
            **vars(details or Details()),
            **vars(known_truth or PointingAndBinding()),
            ranks=self.ranks,
            captions_digest=self.captions_digest,
        )


def evaluate(
    retrievers: Sequence[Scorer],
    split: Split,
    *,
    protocol: ProtocolName | Literal["auto"] = "auto",
    options: ScoringOptions = DEFAULT_OPTIONS,
) -> tuple[Report, Mapping[str, np.ndarray]]:
    """Score every image of a split with every caption, and report, in a single process.

    Args:
        retrievers: One model, or several whose scores are averaged.
        split: Images and captions to evaluate on.
        protocol: See `choose_protocol`.
        options: A lower precision is measured on a sample first, and used if it is faster without loss of recall.
            Progress restarts at 0 for each model.

    Returns:
        The report, and by score name the (mean) matrices, images x captions.

    Raises:
        SettingsError: Where there is no model, or there are several processes.
        InputError: Where the protocol does not fit the split, a score is not finite, or an image has no caption.
    """
    if options.processes.count > 1:
        raise SettingsError(
            f"evaluate reports in a single process, options.processes has {options.processes.count}; call "
            "evaluate_models, which reports in the main one."
        )
    found = evaluate_models(retrievers, split, protocol=protocol, options=options)
    return found.report(), found.scores


def evaluate_models(
    retrievers: Sequence[Scorer],
    split: Split,
    *,
    protocol: ProtocolName | Literal["auto"] = "auto",
    options: ScoringOptions = DEFAULT_OPTIONS,
    engine: Engine | None = None,
) -> Evaluation:
    """Score every image of a split with every caption, and rank the queries; arguments and errors as of `evaluate`.

    Of several processes the main one calls this, and the others call `score_models`.

    Args:
        engine: As of `score_models`.
    """
    found = score_models(retrievers, split, protocol=protocol, options=options, engine=engine)
    chosen = choose_protocol(protocol, len(split.regions))
    scores = ensemble(found.members, options.folder)
    seconds = time.perf_counter() - found.start
    return Evaluation(
        scores=scores,
        ranks=rank_queries(scores, split.image_of_caption, chosen),
        protocol=chosen,
        data=split.data,
        split=split.name,
        models=tuple(retriever.name for retriever in retrievers),
        seconds=seconds,
        captions_digest=split.captions_digest,
        precision=found.checks,
    )


@dataclass(frozen=True)
class ScoredModels:
    """Scores of several models on a split.

    Attributes:
        members: By score name the matrices of each model, images x captions.
        start: Time of the begin, by `time.perf_counter`.
        checks: Measurements of a lower precision, one per model.
    """

    members: list[Mapping[str, np.ndarray]]
    start: float
    checks: tuple[PrecisionCheck, ...]


def score_models(
    retrievers: Sequence[Scorer],
    split: Split,
    *,
    protocol: ProtocolName | Literal["auto"] = "auto",
    options: ScoringOptions = DEFAULT_OPTIONS,
    engine: Engine | None = None,
) -> ScoredModels:
    """Score every image of a split with every caption; of several processes each scores its share.

    Args:
        engine: Scores on its workers, in the precision of the network; None: in this process.

    Raises:
        SettingsError: Where there is no model, or an engine with a precision or kernel of the options.
        InputError: Where the protocol does not fit the split, or an image has no caption.
        ProcessError: Where another process was lost.
    """
    if not retrievers:
        raise SettingsError("there is no model to evaluate; name at least one run.")
    given = {"dtype": options.dtype is not None, "kernel": options.kernel != "eager"}
    if engine is not None and any(given.values()):
        option = next(name for name, there in given.items() if there)
        raise SettingsError(f"an engine scores all pairs in float32; leave options.{option} out.")
    choose_protocol(protocol, len(split.regions))  # raises before hours of scoring
    check_captioned(len(split.regions), split.image_of_caption)
    options = usable_options(retrievers[0].matcher, options)
    start = time.perf_counter()
    checks = [agreed_check(each, split, options) for each in retrievers] if options.dtype is not None else []
    members = []
    for number, retriever in enumerate(retrievers):
        member_options = replace(
            options,
            dtype=options.dtype if checks and checks[number].used else None,
            folder=member_folder(options, number, len(retrievers)),
        )
        own = with_own_regions(split, retriever.matcher.vision)
        score = score_split_rescored if engine is None else partial(score_split_sharded, engine)
        members.append(score(retriever.matcher, retriever.tokenizer, own, member_options))
    return ScoredModels(members, start, tuple(checks))


def usable_options(matcher: Matcher, options: ScoringOptions) -> ScoringOptions:
    """The options, without a precision whose matrix products are too slow on the device (logged)."""
    device = next(matcher.parameters()).device if options.device is None else torch.device(options.device)
    return replace(options, dtype=options.processes.from_main(usable_dtype(options.dtype, device)))


def member_folder(options: ScoringOptions, number: int, members: int) -> Path | None:
    """Folder of a member's matrices: that of the options for a single member, else a subfolder; None: in memory."""
    if options.folder is None or members == 1:
        return options.folder
    return subfolder(options.folder, str(number))


def subfolder(folder: Path, name: str) -> Path:
    """A folder inside another one, made where it does not exist."""
    made = folder / name
    made.mkdir(exist_ok=True)
    return made


def agreed_check(retriever: Scorer, split: Split, options: ScoringOptions) -> PrecisionCheck:
    """`check_precision`; of several processes all have the measurement of the main one."""
    main = options.processes.is_main
    measured = check_precision(retriever, split, options) if main else None
    return options.processes.from_main(measured)  # type: ignore[return-value]  # the main process has one


@torch.inference_mode()
def check_precision(
    retriever: Scorer, split: Split, options: ScoringOptions, *, compiled: Matcher | None = None
) -> PrecisionCheck:
    """Measure a precision on the first images of a split and their captions, about 1 % of the pairs.

    Args:
        options: Precision, memory and device of scoring.
        compiled: A network with the same encodings to measure instead, such as a `CompiledMatcher`.
    """
    split = with_own_regions(split, retriever.matcher.vision)
    sample = min(len(split.regions), max(MIN_SAMPLE, min(MAX_SAMPLE, len(split.regions) // 10)))
    (captions,) = np.nonzero(split.image_of_caption < sample)
    tokens = retriever.tokenizer.encode([split.captions[i] for i in captions])
    order = by_length(tokens)
    dtype = options.dtype or next(retriever.matcher.parameters()).dtype
    with evaluation_mode(retriever.matcher, options.device) as device:
        images = retriever.matcher.encode_images(split.regions.read(np.arange(sample)).to(device))
        texts = retriever.matcher.encode_captions(tokens.read(order).to(device))
        regions = images.mask.shape[-1]
        low = compiled or with_kernel(cast_matcher(retriever.matcher, dtype), options.kernel, device, regions)
        left, right = images.at(dtype), texts.at(dtype)
        return compare_precisions(
            lambda: score_encoded(retriever.matcher, images, texts, byte_budget=options.byte_budget),
            lambda: score_encoded(low, left, right, byte_budget=options.byte_budget),
            split.image_of_caption[captions[order]],
            dtype,
        )


def score_bytes(retrievers: Sequence[Scorer], split: Split) -> int:
    """Bytes of the score matrices of an evaluation: 4 per pair, score and model, and of the means of several models."""
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
    """Report on score matrices: ranks of every query by every score, and the metrics of these ranks.

    Args:
        scores: By score name, floats, images x captions; may be memory-mapped.
        image_of_caption: For each caption the row of its image.
        protocol: See `choose_protocol`.
        models: Names of the models; more than one is an ensemble.
        seconds: Duration of encoding and scoring.

    Raises:
        InputError: Where there is no matrix, shapes differ, the protocol does not fit, a score is not finite, or an
            image has no caption.
    """
    chosen = choose_protocol(protocol, common_shape([scores])[0])
    ranks = rank_queries(scores, image_of_caption, chosen)
    return Evaluation(scores, ranks, chosen, data, split, tuple(models), seconds).report()


def rank_queries(
    scores: Mapping[str, np.ndarray], image_of_caption: np.ndarray, protocol: ProtocolName
) -> dict[str, QueryRanks]:
    """The rank of every query by every score.

    Raises:
        InputError: Where there is no matrix, shapes differ, a score is not finite, or an image has no caption.
    """
    folds = folds_of(protocol, common_shape([scores])[0])
    return {name: query_ranks(matrix, image_of_caption, folds=folds) for name, matrix in scores.items()}


def folds_of(protocol: ProtocolName, images: int) -> int:
    """Number of folds of consecutive images that a protocol ranks separately."""
    return images // FOLD if protocol == "coco-1k" else 1


def choose_protocol(protocol: ProtocolName | Literal["auto"], images: int) -> ProtocolName:
    """Resolve `auto`, and check that a named protocol fits the number of images.

    - `flickr`: each query ranks all images or all captions of the split (Flickr30K, Flickr8k, other data).
    - `coco-5k`: the same, for the 5,000 images of COCO's test split.
    - `coco-1k`: the mean over folds of 1,000 consecutive images; each query ranks the items of its fold only.
    - `auto`: `coco-5k` for 5,000 images, else `flickr`; never `coco-1k`, whose recalls are higher.

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
