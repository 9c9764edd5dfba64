"""Pairs per second of every network, package against plain reference: same pairs, process, weights and scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from statistics import median
from typing import Any, Literal, assert_never, cast

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from tshsr.bench import plain, plain_related
from tshsr.bench.machine import Products, peak_of, seconds_of
from tshsr.config.models import (
    DsgslConfig,
    EncoderConfig,
    HardAlignmentConfig,
    ImramConfig,
    ModelConfig,
    RcarConfig,
    ScanConfig,
    SgrafConfig,
    ShanConfig,
    TshsrConfig,
    TwoStreamSgrConfig,
)
from tshsr.config.recipes import recipe
from tshsr.data.batches import CaptionBatch, ImageBatch, pad_sequences
from tshsr.errors import SettingsError
from tshsr.evaluation.compile import NOT_COMPILED, CompiledMatcher, CompileOptions, compile_failure
from tshsr.models.base import ItemEncoding, Matcher
from tshsr.models.build import build_matcher
from tshsr.models.dsgsl import Dsgsl
from tshsr.models.hard_alignment import HardAlignment
from tshsr.models.imram import Imram
from tshsr.models.rcar import Rcar
from tshsr.models.scan import Scan
from tshsr.models.sgraf import Sgraf, TwoStreamSgr
from tshsr.models.shan import Shan
from tshsr.models.tshsr import Tshsr
from tshsr.scoring.all_pairs import score_encoded
from tshsr.scoring.options import BYTE_BUDGET
from tshsr.scoring.precision import cast_matcher, skip_reason
from tshsr.system import keep_freed_memory, release_freed_memory

IN_PLACE = {torch.ops.aten.addmm_: lambda _, left, right, **__: 2 * left[0] * left[1] * right[1]}
"""Operations of products that torch's FLOP counter lacks, by the shapes of their arguments."""
TILE = 16
"""Images and captions of the counted tile."""


def multiply_adds_of(work: Callable[[], object]) -> float:
    """Multiply-adds of the matrix products of one call."""
    with FlopCounterMode(display=False, custom_mapping=IN_PLACE) as counter:
        work()
    return float(counter.get_total_flops()) / 2


@torch.no_grad()
def multiply_adds(matcher: Matcher, *, features: int, regions: int, words: int) -> float:
    """Multiply-adds of the matrix products for scoring one pair of a tile, without encoding.

    Elementwise operations (exponentials, roots, sums) are not counted, as usual.

    Args:
        features: Width of region features.
    """
    device = next(matcher.parameters()).device
    boxes = torch.rand(TILE, regions, 4).sort(dim=-1).values
    images = ImageBatch(torch.rand(TILE, regions, features), torch.ones(TILE, regions, dtype=torch.bool), boxes)
    captions = CaptionBatch(torch.ones(TILE, words, dtype=torch.long), torch.ones(TILE, words, dtype=torch.bool))
    training = matcher.training
    matcher.eval()
    try:
        left, right = matcher.encode_images(images.to(device)), matcher.encode_captions(captions.to(device))
        return multiply_adds_of(lambda: matcher.score_all(left, right)) / TILE**2
    finally:
        matcher.train(training)


Name = Literal[
    "tshsr", "tshsr_photos", "sgr", "saf", "scan", "two_stream_sgr", "rcar", "chan", "dsgsl", "imram", "shan"
]
NAMES: tuple[Name, ...] = ("tshsr", "sgr", "saf", "scan")
"""Networks measured by default."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
FEATURES, VOCABULARY = 2048, 1000
LENGTHS = (
    *(8, 8, 9, 9, 10, 10, 10, 11, 11, 11, 11, 11, 12, 12, 12, 12, 13, 13, 13, 13, 13, 14, 14, 14, 14),
    *(15, 15, 15, 15, 16, 16, 16, 16, 17, 17, 17, 18, 18, 18, 19, 19, 20, 20, 21, 22, 23, 25, 26, 29, 35),
)
"""Lengths of captions: fifty quantiles of Flickr30K's test captions, with start and end tokens."""


@dataclass(frozen=True)
class Workload:
    """Size of a measurement.

    Attributes:
        images: Images, scored against every caption.
        captions: Captions, of real lengths.
        dim: Width of the joint space (D).
        width: Width of a similarity vector (m).
        compared: Width of the comparison space of TSHSR (k); 0: m.
        repeats: Number of alternating measurements; medians are reported.
    """

    images: int = 100
    captions: int = 100
    regions: int = 36
    dim: int = 1024
    width: int = 256
    repeats: int = 5
    compared: int = 0


@dataclass(frozen=True)
class Row:
    """Figures of one network in one precision.

    Attributes:
        dtype: Precision of the package; the reference is always float32.
        pairs_per_s: Package, median.
        pairs_per_s_spread: Slowest and fastest repeat of the package.
        reference_pairs_per_s: Plain reference, median.
        reference_pairs_per_s_spread: Slowest and fastest repeat of the reference.
        ratio: Package to reference, median over the repeats.
        macs_per_pair: Multiply-adds of the package, mean over the lengths of captions.
        gemm_gflops: Rate of large matrix products in this precision between the repeats, median.
        gemm_fraction: Rate of the package's operations relative to the matrix products just after; median.
        peak_bytes: Peak memory added by the package; None where the system does not report it.
        reference_peak_bytes: The same for the reference.
        max_difference: Largest difference between the scores of both.
    """

    name: str
    dtype: str
    pairs_per_s: float
    pairs_per_s_spread: tuple[float, float]
    reference_pairs_per_s: float
    reference_pairs_per_s_spread: tuple[float, float]
    ratio: float
    macs_per_pair: float
    reference_macs_per_pair: float
    gemm_gflops: float
    gemm_fraction: float
    peak_bytes: int | None
    reference_peak_bytes: int | None
    max_difference: float


@dataclass(frozen=True)
class Comparison:
    """One network with encoded inputs, scored by the reference and by the package.

    Attributes:
        captions: Encoded captions, shortest first.
        byte_budget: Bound on the temporaries of the package.
        compile_options: Compilation and TF32 of the package.
    """

    name: str
    network: Matcher
    images: ItemEncoding
    captions: ItemEncoding
    byte_budget: int
    compile_options: CompileOptions = NOT_COMPILED

    def reference(self) -> Callable[[], Tensor]:
        """Scoring by the plain reference."""
        return partial(plain.loop_over_captions, plain_score(self.network), self.images, self.captions)

    def package(self, dtype: torch.dtype) -> Callable[[], Tensor]:
        """Scoring by the package in a precision."""
        network, images, captions = cast_matcher(self.network, dtype), self.images.at(dtype), self.captions.at(dtype)
        if str(self.compile_options):
            network = CompiledMatcher(network, self.compile_options)
        return lambda: score_encoded(network, images, captions, byte_budget=self.byte_budget)["fused"]


@dataclass(frozen=True)
class Repeat:
    """One repeat: reference and package in sequence, so that other load affects both.

    Attributes:
        gemm: Operations per second of large matrix products just after.
    """

    reference: float
    package: float
    gemm: float


def bench(
    work: Workload,
    *,
    names: Sequence[Name] = NAMES,
    dtypes: Sequence[str] = ("float32", "bfloat16"),
    device: str = "cpu",
    byte_budget: int = BYTE_BUDGET,
    compile_options: CompileOptions = NOT_COMPILED,
    announce: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Time every network.

    Args:
        dtypes: Precisions of the package; those without instructions on the device are skipped.
        byte_budget: Bound on the temporaries of the package.
        compile_options: Compilation and TF32 of the package; compilation time is not measured. With TF32 the rates of
            matrix products in float32 are those of TF32.
        announce: Called with the name of each network before its measurement.

    Returns:
        `gemm_gflops` (float32) and `gemm_gflops_by_dtype`, the best rates, `threads`, `shortcuts`, `workload`,
        `skipped` (precision and reason) and `rows`.

    Raises:
        SettingsError: Where this machine can't compile.
    """
    place = torch.device(device)
    reasons = {name: skip_reason(DTYPES[name], place) for name in dtypes}
    skipped = {name: reason for name, reason in reasons.items() if reason is not None}
    dtypes = [name for name in dtypes if name not in skipped]
    tf32 = compile_options.tf32
    products = {name: Products(place, DTYPES[name], tf32=tf32) for name in dict.fromkeys(("float32", *dtypes))}
    rows: list[Row] = []
    for name in names if dtypes else ():
        announce(name)
        comparison = replace(prepared(name, work, place, byte_budget), compile_options=compile_options)
        rows += rows_of(comparison, products, dtypes, work.repeats)
    return {
        "gemm_gflops": products["float32"].best / 1e9,
        "gemm_gflops_by_dtype": {name: each.best / 1e9 for name, each in products.items()},
        "threads": torch.get_num_threads(),
        "shortcuts": str(compile_options),
        "workload": asdict(work),
        "skipped": [{"dtype": name, "reason": reason} for name, reason in skipped.items()],
        "rows": [asdict(row) for row in rows],
    }


@torch.inference_mode()
def rows_of(comparison: Comparison, products: Mapping[str, Products], dtypes: Sequence[str], repeats: int) -> list[Row]:
    """Rows of one network; reference and package run twice, for scores and peak memory, before they are timed."""
    device, reference = comparison.images.items.device, comparison.reference()
    release_freed_memory()
    expected, reference_peak = reference(), peak_of(reference, device)
    pairs = expected.numel()
    counted = replace(comparison, compile_options=NOT_COMPILED).package(
        expected.dtype
    )  # a compiled program is not counted
    macs, reference_macs = (multiply_adds_of(work) / pairs for work in (counted, reference))
    rows = []
    for dtype in dtypes:
        package = comparison.package(DTYPES[dtype])
        keep_freed_memory()
        found, peak = first_scores(package, comparison.compile_options), peak_of(package, device)
        measured = [time_both(reference, package, products[dtype]) for _ in range(repeats)]
        rates = [pairs / each.package for each in measured]
        reference_rates = [pairs / each.reference for each in measured]
        rows.append(
            Row(
                name=comparison.name,
                dtype=dtype,
                pairs_per_s=median(rates),
                pairs_per_s_spread=(min(rates), max(rates)),
                reference_pairs_per_s=median(reference_rates),
                reference_pairs_per_s_spread=(min(reference_rates), max(reference_rates)),
                ratio=median(each.reference / each.package for each in measured),
                macs_per_pair=macs,
                reference_macs_per_pair=reference_macs,
                gemm_gflops=median(each.gemm for each in measured) / 1e9,
                gemm_fraction=median(2 * macs * pairs / each.package / each.gemm for each in measured),
                peak_bytes=peak,
                reference_peak_bytes=reference_peak,
                max_difference=float((found.float() - expected).abs().max()),
            )
        )
    return rows


def first_scores(package: Callable[[], Tensor], compile_options: CompileOptions) -> Tensor:
    """The scores of the package, whose first scoring compiles it.

    Raises:
        SettingsError: Where this machine can't compile.
    """
    try:
        return package()
    except RuntimeError as error:
        reason = compile_failure(error, compile_options)
        if reason is None:
            raise
        raise SettingsError(f"this machine can't compile the scoring ({reason}); leave --compile out.") from error


def time_both(reference: Callable[[], Tensor], package: Callable[[], Tensor], products: Products) -> Repeat:
    """Time both: the reference with the default allocator, the package with that of the command line."""
    release_freed_memory()
    seconds = seconds_of(reference, products.device)
    keep_freed_memory()
    return Repeat(seconds, seconds_of(package, products.device), products.rate())


def prepared(name: Name, work: Workload, device: torch.device, byte_budget: int) -> Comparison:
    """Build a network and its inputs."""
    network = build_matcher(settings(name, work)).eval().to(device)
    return Comparison(name, network, *inputs(network, work, device), byte_budget)


def settings(name: Name, work: Workload) -> ModelConfig:
    """Configuration of a network at the size of the workload."""
    encoder = EncoderConfig(dim=work.dim, feature_dim=FEATURES, vocabulary=VOCABULARY)
    match name:
        case "tshsr":
            return TshsrConfig(encoder=encoder, similarity_dim=work.width, comparison_dim=work.compared or work.width)
        case "tshsr_photos":
            return replace(
                cast(TshsrConfig, recipe("tshsr-flickr8k-photos").model),
                encoder=encoder,
                similarity_dim=work.width,
                comparison_dim=work.compared or work.width,
                late_centre=0.0,  # v·t of random vectors is around 0; at the recipe's centre every score would be too
            )
        case "sgr" | "saf":
            return SgrafConfig(encoder=encoder, similarity_dim=work.width, reasoning=name)
        case "scan":
            return ScanConfig(encoder=encoder)
        case "two_stream_sgr":
            return TwoStreamSgrConfig(encoder=encoder, similarity_dim=work.width)
        case "rcar":
            return RcarConfig(encoder=encoder, similarity_dim=work.width)
        case "chan":
            return HardAlignmentConfig(encoder=encoder)
        case "dsgsl":
            return DsgslConfig(encoder=encoder, similarity_dim=work.width, comparison_dim=work.compared or work.width)
        case "imram":
            return ImramConfig(encoder=encoder)
        case "shan":
            return ShanConfig(encoder=encoder)
        case _:
            assert_never(name)


def plain_score(network: Matcher) -> plain.PlainScore:
    """The plain reference of a network.

    Raises:
        TypeError: For a network without a reference.
    """
    match network:
        case Tshsr():
            return plain.tshsr(network)
        case Sgraf() | TwoStreamSgr():
            return plain.sgraf(network)
        case Scan():
            return plain.scan(network)
        case Rcar():
            return plain.rcar(network)
        case HardAlignment():
            return plain.hard_alignment(network)
        case Dsgsl():
            return plain_related.dsgsl(network)
        case Imram():
            return plain_related.imram(network)
        case Shan():
            return plain_related.shan(network)
        case _:
            raise TypeError(f"{type(network).__name__} has no plain reference")


@torch.inference_mode()
def inputs(network: Matcher, work: Workload, device: torch.device) -> tuple[ItemEncoding, ItemEncoding]:
    """Random images and captions, encoded (not timed)."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(work.images, work.regions, FEATURES, generator=generator)
    images = ImageBatch(features, torch.ones(features.shape[:2], dtype=torch.bool))
    lengths = sorted(LENGTHS[i % len(LENGTHS)] for i in range(work.captions))
    rows = [torch.randint(1, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]
    return network.encode_images(images.to(device)), network.encode_captions(pad_sequences(rows).to(device))
