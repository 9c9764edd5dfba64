"""A report: the metrics of one evaluation and their provenance, as JSON (version 1) and as a table.

The JSON format is stable; reading validates it strictly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from tshsr.config.strict import STRICT
from tshsr.errors import DataError, InputError, first_invalid, parse_json
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
    """Effect of a lower precision on a sample, measured before it is used, without rescoring of the best results.

    Attributes:
        dtype: The precision, such as bfloat16, or another acceleration: tf32, compiled.
        used: Whether it was used: it was faster, and no recall of the sample changed by more than one query.
        max_difference: Largest change of a fused score.
        rank_agreement: Queries of both directions with an unchanged best result, in percent.
        recall_change: Largest change of a recall on the sample, in points.
        speedup: Pairs per second relative to the network's own precision.
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
    """The mean normalised area under a curve, with its 95 % interval; 1: the full score at every step.

    The interval is None for fewer than `LEAST_PAIRS` pairs.
    """

    __pydantic_config__ = STRICT

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class AreaDifference:
    """The area of ranking `a` minus that of `b`, on the same pairs, with its 95 % interval as in `Area`."""

    __pydantic_config__ = STRICT

    a: str
    b: str
    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Curve:
    """Areas under a curve for several rankings.

    Attributes:
        areas: By ranking.
        differences: The first ranking minus each of the others.
    """

    __pydantic_config__ = STRICT

    areas: Mapping[str, Area]
    differences: tuple[AreaDifference, ...]


@dataclass(frozen=True)
class Faithfulness:
    """Faithfulness of rankings of regions or of words.

    Attributes:
        deletion: Items are removed from the highest-ranked on; lower is better.
        insertion: Items are added from the highest-ranked on; higher is better.
    """

    __pydantic_config__ = STRICT

    deletion: Curve
    insertion: Curve


@dataclass(frozen=True)
class ExplanationFigures:
    """Evaluation of a model's explanations.

    Attributes:
        pairs: Number of images, each with one of its captions.
        full_score: Mean of this score over the pairs.
        regions: Faithfulness of rankings of regions.
        words: Faithfulness of rankings of words.
        level_shares: By stream, the mean absolute share of each level, and of v·t, in the logit of a pair.
        agreement: Overlap of the two streams' maps of a word, 0..1; None without two streams.
        agreement_by_chance: The same with the regions of one map shuffled.
        pointing: By stream, the share of words whose highest-weighted region is a true one, if regions are known.
        pointing_by_attention: `pointing` by attention only.
        pointing_by_chance: `pointing` for a random region.
        pointing_words: Number of these words.
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
    """A two-stage search: v·t selects candidates, and the network scores only those.

    Attributes:
        k_images: Mean number of candidate captions per image.
        k_captions: Mean number of candidate images per caption.
        reasoned_pairs: Pairs that the network scored.
        ceiling_image_to_text: Images with a relevant caption among their candidates, in percent: bounds every recall.
        ceiling_text_to_image: Captions with their image among their candidates, in percent.
        chosen_on: The validation split of both K; None where they were given.
        lost: By split, the points that R@1, R@5, R@10 of image to text, then of text to image, lose against scoring
            all pairs; negative is a gain.
        all_pairs_seconds: Duration of encoding and scoring all pairs, where that was done for comparison.
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
    """Figures in addition to recalls, as in `Report`: several relevant items, further annotation, human ratings."""

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
    """Metrics of one evaluation.

    Attributes:
        protocol: `flickr` and `coco-5k` rank all images together; `coco-1k` is a mean over folds of 1,000.
        models: Names of the models; more than one is an ensemble.
        scores: Metrics by the name of the score: `fused`, `word_stream`, `region_stream`, `pooled`, `level_0`...
        seconds: Duration of encoding and scoring.
        pointing: By stream, the share of words whose highest-weighted region is a true one.
        binding: By score, the share of true captions that score above a foil with other bindings of the same words.
        binding_by_kind: The same for the fused score, by kind of foil: attribute, relation.
        folds: By score, the metrics of each fold (`coco-1k`).
        precision: Measurements of lower precisions and compilation, one per model.
        rerank: The two-stage search; None where all pairs were scored.
        rankings: By score, metrics for several relevant items per query: true recall, mAP@R, R-Precision, MRR.
        annotations: The fused score by further annotations of COCO: `eccv`, `cxc`, `pmrp`.
        judgements: Correlation of the fused score with human ratings.
        explanations: Evaluation of the model's explanations.
        ranks: By score, the rank of every query and the position of every caption; `tshsr compare` resamples them.
        captions_digest: SHA-256 of the captions and their images; None where the texts are unknown.
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
        """The report as JSON text of version 1, without blocks that are None."""
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
        if self.ranks is not None:  # thousands of numbers, on one line
            ranks = json.dumps({name: each.to_json() for name, each in self.ranks.items()}, separators=(",", ":"))
            text = f'{text.removesuffix("}").rstrip()},\n  "ranks": {ranks}\n}}'
        return text + "\n"

    def write(self, path: Path) -> None:
        """Write the JSON atomically.

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
        DataError: Where the file is missing, is no JSON, has another version, lacks a key or has an unknown one, or
            where an rsum is not the sum of its recalls.
    """
    try:
        values = parse_json(path.read_text(encoding="utf-8"), parse_constant=refuse_constant)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); expected a report of `evaluate --json`.") from None
    except ValueError as error:  # not UTF-8, not JSON, or NaN
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
    """The JSON values of one score."""
    return {**asdict(metrics), "rsum": metrics.rsum}


def metrics_from_json(values: Mapping[str, Any]) -> ScoreMetrics:
    """The inverse of `metrics_to_json`."""
    return ScoreMetrics(RetrievalMetrics(**values["image_to_text"]), RetrievalMetrics(**values["text_to_image"]))


def take_rsums(values: dict[str, Any]) -> list[object]:
    """Remove the rsums, which the recalls determine, from the values of a report; in the order of `check_rsums`."""
    folds = values.get("folds")
    lists = folds.values() if isinstance(folds, dict) else ()
    scores = values.get("scores")
    blocks = list(scores.values()) if isinstance(scores, dict) else []
    blocks += [block for fold in lists if isinstance(fold, list) for block in fold]
    return [block.pop("rsum", None) if isinstance(block, dict) else None for block in blocks]


def check_rsums(path: Path, report: Report, rsums: list[object]) -> None:
    """Reject a report with an rsum that is not the sum of its recalls.

    Raises:
        DataError: Names the first one.
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
    """Reject NaN and Infinity, which JSON does not allow.

    Raises:
        ValueError: Always.
    """
    raise ValueError(f"{constant} is no number")
