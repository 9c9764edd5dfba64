"""A report: the figures of one evaluation and where they come from, as JSON (version 1) and as a table.

The JSON is a contract: results pages, tests and users' scripts read it. It is read back strictly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from tshsr.config.models import STRICT
from tshsr.errors import DataError, InputError, first_invalid
from tshsr.files import write_text
from tshsr.metrics.human import Agreement
from tshsr.metrics.labels import reading_order
from tshsr.metrics.multi_positive import Rankings
from tshsr.metrics.ranks import QueryRanks
from tshsr.metrics.recall import RetrievalMetrics, ScoreMetrics

VERSION = 1
ProtocolName = Literal["flickr", "coco-1k", "coco-5k"]
HEADER = (
    "score",
    *(f"{direction} {figure}" for direction in ("image to text", "text to image") for figure in ("R@1", "R@5", "R@10")),
    "rSum",
)


@dataclass(frozen=True)
class PrecisionCheck:
    """What a lower precision did to a sample, measured before it was used, and before the best answers are scored anew.

    Attributes:
        dtype: The precision, such as bfloat16, or another short cut: tf32, compiled.
        used: Whether it was used: it was faster, and no recall of the sample moved by more than one query.
        images: Images of the sample.
        captions: Captions of the sample.
        max_difference: Largest change of a fused score.
        rank_agreement: Queries of both directions whose best answer stayed the same, in percent.
        recall_change: Largest change of a recall on the sample, in points.
        speedup: Pairs a second against the network's own precision.
    """

    __pydantic_config__ = STRICT

    dtype: str
    used: bool
    images: int
    captions: int
    max_difference: float
    rank_agreement: float
    recall_change: float
    speedup: float


@dataclass(frozen=True)
class Area:
    """The normalised area under a curve, over all pairs, with its 95 % interval; 1 is the full score throughout.

    Fewer than `LEAST_PAIRS` pairs give no interval: None.
    """

    __pydantic_config__ = STRICT

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class AreaDifference:
    """The area of ranking `a` minus that of `b`, on the same pairs, with its 95 % interval, or None as above."""

    __pydantic_config__ = STRICT

    a: str
    b: str
    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Curve:
    """What one curve says of several rankings.

    Attributes:
        areas: By ranking.
        differences: The first ranking against each of the others.
    """

    __pydantic_config__ = STRICT

    areas: Mapping[str, Area]
    differences: tuple[AreaDifference, ...]


@dataclass(frozen=True)
class Faithfulness:
    """How true rankings of regions, or of words, are.

    Attributes:
        deletion: What ranks highest is taken away first; a small area is good.
        insertion: What ranks highest is there first; a large area is good.
    """

    __pydantic_config__ = STRICT

    deletion: Curve
    insertion: Curve


@dataclass(frozen=True)
class ExplanationFigures:
    """What a report says of a model's explanations.

    Attributes:
        pairs: Images, each with one of its captions.
        score: The score that is explained.
        full_score: Its mean over the pairs.
        regions: How true rankings of regions are.
        words: How true rankings of words are.
        level_shares: By stream, the mean absolute share of each level, and of v·t, in the logit of a pair.
        agreement: What the two streams' maps of a word have in common, 0..1; None without two streams.
        agreement_by_chance: The same where the regions of one map are shuffled.
        pointing: By stream, how often the heaviest region of a word is a true one, where the truth is known.
        pointing_by_attention: The same by attention alone.
        pointing_by_chance: The same for a blind guess.
        pointing_words: How many words that is of.
        seconds: How long all that took.
    """

    __pydantic_config__ = STRICT

    pairs: int
    score: str
    full_score: float
    regions: Faithfulness
    words: Faithfulness
    level_shares: Mapping[str, Mapping[str, float]]
    agreement: float | None = None
    agreement_by_chance: float | None = None
    pointing: Mapping[str, float] | None = None
    pointing_by_attention: Mapping[str, float] | None = None
    pointing_by_chance: float | None = None
    pointing_words: int | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Rerank:
    """A two-stage search: v·t chose the candidates, only they were reasoned about.

    Attributes:
        k_images: Candidates of each image: captions.
        k_captions: Candidates of each caption: images.
        reasoned_pairs: Pairs that were reasoned about.
        all_pairs: Images times captions.
        ceiling_image_to_text: Images with a right caption among the candidates, in percent: no recall can be higher.
        ceiling_text_to_image: Captions with their image among the candidates, in percent.
        chosen_on: The split on which both K were chosen; None where they were given.
        lost: By the split on which all pairs are known, the points that R@1, R@5, R@10 of image to text, then of text
            to image, lose against all pairs; below 0 is a gain.
        all_pairs_seconds: Time of encoding and scoring all pairs, where that was done for comparison.
    """

    __pydantic_config__ = STRICT

    k_images: int
    k_captions: int
    reasoned_pairs: int
    all_pairs: int
    ceiling_image_to_text: float
    ceiling_text_to_image: float
    chosen_on: str | None = None
    lost: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    all_pairs_seconds: float | None = None


@dataclass(frozen=True)
class Details:
    """Figures beside the recalls, as in `Report`: several right answers, denser annotation, human ratings."""

    rankings: Mapping[str, Rankings] | None = None
    annotations: Mapping[str, Rankings] | None = None
    judgements: Agreement | None = None


@dataclass(frozen=True)
class PointingAndBinding:
    """Figures that require known regions of words and known foils, as in `Report`."""

    pointing: Mapping[str, float] | None = None
    binding: Mapping[str, float] | None = None
    binding_by_kind: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Report:
    """Figures of one evaluation.

    Attributes:
        data: Name of the data set.
        split: Name of the split.
        protocol: `flickr` and `coco-5k` rank among all images at once; `coco-1k` is a mean over folds of 1,000.
        images: Images of the split.
        captions: Captions of the split.
        models: Names of the models; more than one is an ensemble.
        scores: Metrics by the name of the score: `fused`, `word_stream`, `region_stream`, `pooled`, `level_0`...
        hardware: The machine.
        commit: The code.
        seconds: Time of encoding and scoring.
        pointing: By stream, the fraction of words whose heaviest region is the right one (the demo).
        binding: By score, the accuracy on pairs that differ only in which word goes with which (the demo).
        binding_by_kind: Of the fused score, by kind of these pairs: attribute, relation.
        folds: By score, the metrics of each fold (`coco-1k`).
        precision: For each model, what scoring in a lower precision did to a sample.
        rerank: The two-stage search that gave the scores; without it all pairs were scored.
        rankings: By score, what several right answers a query allow: true recall, mAP@R, R-Precision, MRR.
        annotations: The fused score by denser annotations of COCO: `eccv`, `cxc`, `pmrp`.
        judgements: How the fused score agrees with ratings by people.
        explanations: How true the model's explanations are.
        ranks: By score, the rank of every query and the place of every caption: what `tshsr compare` resamples.
        captions_digest: SHA-256 of the captions and whose they are; None where their texts are unknown.
    """

    __pydantic_config__ = STRICT

    data: str
    split: str
    protocol: ProtocolName
    images: int
    captions: int
    models: tuple[str, ...]
    scores: Mapping[str, ScoreMetrics]
    hardware: str
    commit: str
    seconds: float
    pointing: Mapping[str, float] | None = None
    binding: Mapping[str, float] | None = None
    binding_by_kind: Mapping[str, float] | None = None
    folds: Mapping[str, tuple[ScoreMetrics, ...]] | None = None
    precision: tuple[PrecisionCheck, ...] | None = None
    rerank: Rerank | None = None
    rankings: Mapping[str, Rankings] | None = None
    annotations: Mapping[str, Rankings] | None = None
    judgements: Agreement | None = None
    explanations: ExplanationFigures | None = None
    ranks: Mapping[str, QueryRanks] | None = None
    captions_digest: str | None = None

    def to_json(self) -> str:
        """The report as JSON text of version 1; blocks that were not measured are left out."""
        values: dict[str, Any] = {"version": VERSION}
        values |= {name: value for name, value in vars(self).items() if value is not None and name != "ranks"}
        values["scores"] = {name: metrics_to_json(metrics) for name, metrics in self.scores.items()}
        if self.folds is not None:
            values["folds"] = {name: [metrics_to_json(fold) for fold in folds] for name, folds in self.folds.items()}
        if self.precision is not None:
            values["precision"] = [asdict(guard) for guard in self.precision]
        if self.rerank is not None:
            values["rerank"] = asdict(self.rerank)
        for name in ("rankings", "annotations"):
            if name in values:
                values[name] = {score: asdict(each) for score, each in values[name].items()}
        if self.explanations is not None:
            values["explanations"] = asdict(self.explanations)
        if self.judgements is not None:
            values["judgements"] = asdict(self.judgements)
        text = json.dumps(values, indent=2, allow_nan=False)
        if self.ranks is not None:  # thousands of numbers, which are not for reading: on one line
            ranks = json.dumps({name: each.to_json() for name, each in self.ranks.items()}, separators=(",", ":"))
            text = f'{text.removesuffix("}").rstrip()},\n  "ranks": {ranks}\n}}'
        return text + "\n"

    def write(self, path: Path) -> None:
        """Write the JSON, whole or not at all.

        Raises:
            DataError: Where the file cannot be written.
        """
        write_text(path, self.to_json())

    def table(self) -> list[tuple[str, ...]]:
        """`recall_table` as text, under `HEADER`."""
        return [(name, *(f"{figure:.1f}" for figure in row)) for name, row in recall_table(self.scores).items()]


def recall_table(scores: Mapping[str, ScoreMetrics]) -> dict[str, tuple[float, ...]]:
    """R@1, R@5 and R@10 of image to text, then of text to image, and rSum, rounded to one decimal, in reading order."""
    return {
        name: tuple(round(figure, 1) for figure in (*scores[name].recalls, scores[name].rsum))
        for name in sorted(scores, key=reading_order)
    }


def read_report(path: Path) -> Report:
    """Read a report strictly.

    Raises:
        DataError: Where the file is missing, is no JSON, is of another version, lacks a name or holds an unknown one,
            or where an rsum is not the sum of its recalls.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse_constant)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); expected a report of `evaluate --json`.") from None
    except ValueError as error:  # no UTF-8, no JSON, or NaN
        raise DataError(f"{path} is not valid JSON ({error}); write the report again.") from None
    version = values.pop("version", None) if isinstance(values, dict) else None
    if version != VERSION:
        raise DataError(f"{path} is a report of version {version}; expected {VERSION}. Write it with this tshsr.")
    rsums = take_rsums(values)
    try:
        report = TypeAdapter(Report).validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        invalid = first_invalid(error)
        raise DataError(f"{path}: {invalid}; got {invalid.value!r:.80}. Write the report again.") from None
    except InputError as error:
        raise DataError(f"{path}: its ranks do not fit: {error} Write the report again.") from None
    check_rsums(path, report, rsums)
    return report


def metrics_to_json(metrics: ScoreMetrics) -> dict[str, Any]:
    """The block of one score."""
    return {**asdict(metrics), "rsum": metrics.rsum}


def metrics_from_json(values: Mapping[str, Any]) -> ScoreMetrics:
    """The inverse of `metrics_to_json`."""
    return ScoreMetrics(RetrievalMetrics(**values["image_to_text"]), RetrievalMetrics(**values["text_to_image"]))


def take_rsums(values: dict[str, Any]) -> list[object]:
    """Take the rsums, which follow from the recalls, out of a report's values, in the order of `all_metrics`."""
    folds = values.get("folds")
    lists = folds.values() if isinstance(folds, dict) else ()
    scores = values.get("scores")
    blocks = list(scores.values()) if isinstance(scores, dict) else []
    blocks += [block for fold in lists if isinstance(fold, list) for block in fold]
    return [block.pop("rsum", None) if isinstance(block, dict) else None for block in blocks]


def check_rsums(path: Path, report: Report, rsums: list[object]) -> None:
    """Refuse a report whose sums do not add up.

    Raises:
        DataError: Names the first such sum.
    """
    named = list(report.scores.items())
    named += [(f"{name} (a fold)", fold) for name, folds in (report.folds or {}).items() for fold in folds]
    for (name, metrics), rsum in zip(named, rsums, strict=True):
        if not isinstance(rsum, int | float) or abs(rsum - metrics.rsum) > 1e-6:
            raise DataError(
                f"{path}: rsum of {name} is {rsum}, but its six recalls add up to {metrics.rsum:.6g}; "
                "the file was changed by hand. Write the report again."
            )


def refuse_constant(constant: str) -> float:
    """Refuse NaN and Infinity, which are no JSON.

    Raises:
        ValueError: Always.
    """
    raise ValueError(f"{constant} is no number")
