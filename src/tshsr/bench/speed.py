"""Pairs a second of every network, ours against the plain reference: the same pairs, process, weights and scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from statistics import median
from typing import Any, Literal, assert_never

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from tshsr.bench import plain
from tshsr.bench.machine import Products, peak_of, seconds_of
from tshsr.config.models import EncoderConfig, ModelConfig, ScanConfig, SgrafConfig, TshsrConfig, TwoStreamSgrConfig
from tshsr.data.batches import CaptionBatch, ImageBatch, pad_sequences
from tshsr.evaluation.compile import NOT_COMPILED, CompiledMatcher, CompileOptions
from tshsr.models.base import ItemEncoding, Matcher
from tshsr.models.build import build_matcher
from tshsr.models.scan import Scan
from tshsr.models.sgraf import Sgraf, TwoStreamSgr
from tshsr.models.tshsr import Tshsr
from tshsr.scoring.all_pairs import score_encoded
from tshsr.scoring.options import BYTE_BUDGET
from tshsr.scoring.precision import cast_matcher, skip_reason
from tshsr.system import keep_freed_memory, release_freed_memory

IN_PLACE = {torch.ops.aten.addmm_: lambda _, left, right, **__: 2 * left[0] * left[1] * right[1]}
"""Products that torch's counter does not know: from the shapes of the arguments to operations."""
TILE = 16
"""Images and captions of the tile that is counted."""


def multiply_adds_of(work: Callable[[], object]) -> float:
    """Multiply-adds of the matrix products of a piece of work."""
    with FlopCounterMode(display=False, custom_mapping=IN_PLACE) as counter:
        work()
    return float(counter.get_total_flops()) / 2


@torch.no_grad()
def multiply_adds(matcher: Matcher, *, features: int, regions: int, words: int) -> float:
    """Multiply-adds of the matrix products that scoring one pair of a tile takes; encoding is apart.

    Elementwise work (exponentials, roots, sums) is not counted, as in the figures of the field.

    Args:
        matcher: The network.
        features: Width of its region features.
        regions: Regions of each image.
        words: Words of each caption.
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


Name = Literal["tshsr", "sgr", "saf", "scan", "two_stream_sgr"]
NAMES: tuple[Name, ...] = ("tshsr", "sgr", "saf", "scan")
"""The networks that are measured when none is named."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
FEATURES, VOCABULARY = 2048, 1000
LENGTHS = (
    *(8, 8, 9, 9, 10, 10, 10, 11, 11, 11, 11, 11, 12, 12, 12, 12, 13, 13, 13, 13, 13, 14, 14, 14, 14),
    *(15, 15, 15, 15, 16, 16, 16, 16, 17, 17, 17, 18, 18, 18, 19, 19, 20, 20, 21, 22, 23, 25, 26, 29, 35),
)
"""Lengths of captions: fifty quantiles of Flickr30K's test captions, with the start and end tokens of this field."""


@dataclass(frozen=True)
class Workload:
    """What is scored.

    Attributes:
        images: Images, scored against every caption.
        captions: Captions, of real lengths.
        regions: Regions of an image.
        dim: Width of the joint space (D).
        width: Width of a similarity vector (m), and of the space in which TSHSR compares (k).
        repeats: How often reference and ours take turns; medians are reported.
    """

    images: int = 100
    captions: int = 100
    regions: int = 36
    dim: int = 1024
    width: int = 256
    repeats: int = 5


@dataclass(frozen=True)
class Row:
    """One network in one precision.

    Attributes:
        name: The network.
        dtype: Precision of ours; the reference is always float32.
        pairs_per_s: Ours, median.
        pairs_per_s_spread: Slowest and fastest of ours.
        reference_pairs_per_s: The plain reference, median.
        reference_pairs_per_s_spread: Slowest and fastest of the reference.
        ratio: Median over the repeats of ours to the reference, taken one after the other.
        macs_per_pair: Multiply-adds of ours, mean over the captions' lengths.
        reference_macs_per_pair: Multiply-adds of the reference.
        gemm_gflops: What large matrix products reached between the turns in that precision, median.
        gemm_fraction: What ours multiplied and added a second, of what such a product reached just after; median.
        peak_bytes: Memory that ours adds at its peak; None where the system does not tell.
        reference_peak_bytes: The same of the reference.
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
class Contest:
    """One network with encoded images and captions, to be scored both ways.

    Attributes:
        name: The network's name.
        network: The network.
        images: Images.
        captions: Captions, shortest first.
        byte_budget: Bound on our temporaries.
        compile_options: What else ours may do.
    """

    name: str
    network: Matcher
    images: ItemEncoding
    captions: ItemEncoding
    byte_budget: int
    compile_options: CompileOptions = NOT_COMPILED

    def plainly(self) -> Callable[[], Tensor]:
        """The published way."""
        return partial(plain.loop_over_captions, plain_score(self.network), self.images, self.captions)

    def ours(self, dtype: torch.dtype) -> Callable[[], Tensor]:
        """Ours, in a precision."""
        network, images, captions = cast_matcher(self.network, dtype), self.images.at(dtype), self.captions.at(dtype)
        if str(self.compile_options):
            network = CompiledMatcher(network, self.compile_options)
        return lambda: score_encoded(network, images, captions, byte_budget=self.byte_budget)["fused"]


@dataclass(frozen=True)
class Turn:
    """Both ways once, one after the other, so that what else the machine does meets both.

    Attributes:
        plainly: Seconds of the reference.
        ours: Seconds of ours.
        gemm: Operations a second of a large matrix product just after.
    """

    plainly: float
    ours: float
    gemm: float


def bench(
    work: Workload,
    *,
    names: Sequence[Name] = NAMES,
    dtypes: Sequence[str] = ("float32", "bfloat16"),
    device: str = "cpu",
    byte_budget: int = BYTE_BUDGET,
    compile_options: CompileOptions = NOT_COMPILED,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Time every network.

    Args:
        work: What is scored.
        names: Which networks.
        dtypes: Which precisions of ours.
        device: Where.
        byte_budget: Bound on our temporaries.
        compile_options: What else ours may do; compilation falls into the turns that are not timed.
        tell: Told before each network.

    Returns:
        `gemm_gflops` (float32) and `gemm_gflops_by_dtype`, the best that was seen, `threads`, `compile_options`, `workload`
        and `rows`.
    """
    place = torch.device(device)
    reasons = {name: skip_reason(DTYPES[name], place) for name in dtypes}
    skipped = {name: reason for name, reason in reasons.items() if reason is not None}
    dtypes = [name for name in dtypes if name not in skipped]
    products = {name: Products(place, DTYPES[name]) for name in dict.fromkeys(("float32", *dtypes))}
    rows: list[Row] = []
    for name in names if dtypes else ():
        tell(name)
        contest = replace(prepared(name, work, place, byte_budget), compile_options=compile_options)
        rows += rows_of(contest, products, dtypes, work.repeats)
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
def rows_of(contest: Contest, products: Mapping[str, Products], dtypes: Sequence[str], repeats: int) -> list[Row]:
    """One network in every precision; each way runs twice, for its scores and its peak memory, before it is timed."""
    device, plainly = contest.images.items.device, contest.plainly()
    release_freed_memory()
    expected, plain_peak = plainly(), peak_of(plainly, device)
    pairs = expected.numel()
    counted = replace(contest, compile_options=NOT_COMPILED).ours(expected.dtype)  # a compiled program is not counted
    macs, plain_macs = (multiply_adds_of(work) / pairs for work in (counted, plainly))
    rows = []
    for dtype in dtypes:
        ours = contest.ours(DTYPES[dtype])
        keep_freed_memory()
        found, peak = ours(), peak_of(ours, device)
        turns = [take_turns(plainly, ours, products[dtype]) for _ in range(repeats)]
        rates, plain_rates = [pairs / turn.ours for turn in turns], [pairs / turn.plainly for turn in turns]
        rows.append(
            Row(
                name=contest.name,
                dtype=dtype,
                pairs_per_s=median(rates),
                pairs_per_s_spread=(min(rates), max(rates)),
                reference_pairs_per_s=median(plain_rates),
                reference_pairs_per_s_spread=(min(plain_rates), max(plain_rates)),
                ratio=median(turn.plainly / turn.ours for turn in turns),
                macs_per_pair=macs,
                reference_macs_per_pair=plain_macs,
                gemm_gflops=median(turn.gemm for turn in turns) / 1e9,
                gemm_fraction=median(2 * macs * pairs / turn.ours / turn.gemm for turn in turns),
                peak_bytes=peak,
                reference_peak_bytes=plain_peak,
                max_difference=float((found.float() - expected).abs().max()),
            )
        )
    return rows


def take_turns(plainly: Callable[[], Tensor], ours: Callable[[], Tensor], products: Products) -> Turn:
    """Time both: the reference with the allocator as its users have it, ours as the command line sets it."""
    release_freed_memory()
    reference = seconds_of(plainly, products.device)
    keep_freed_memory()
    return Turn(reference, seconds_of(ours, products.device), products.rate())


def prepared(name: Name, work: Workload, device: torch.device, byte_budget: int) -> Contest:
    """The network of that name, and what it is to score."""
    network = build_matcher(settings(name, work)).eval().to(device)
    return Contest(name, network, *inputs(network, work, device), byte_budget)


def settings(name: Name, work: Workload) -> ModelConfig:
    """The network of that name at the sizes of the workload."""
    encoder = EncoderConfig(dim=work.dim, feature_dim=FEATURES, vocabulary=VOCABULARY)
    match name:
        case "tshsr":
            return TshsrConfig(encoder=encoder, similarity_dim=work.width, comparison_dim=work.width)
        case "sgr" | "saf":
            return SgrafConfig(encoder=encoder, similarity_dim=work.width, reasoning=name)
        case "scan":
            return ScanConfig(encoder=encoder)
        case "two_stream_sgr":
            return TwoStreamSgrConfig(encoder=encoder, similarity_dim=work.width)
        case _:
            assert_never(name)


def plain_score(network: Matcher) -> plain.PlainScore:
    """The plain reference of a network.

    Raises:
        TypeError: Where it has none.
    """
    match network:
        case Tshsr():
            return plain.tshsr(network)
        case Sgraf() | TwoStreamSgr():
            return plain.sgraf(network)
        case Scan():
            return plain.scan(network)
        case _:
            raise TypeError(f"{type(network).__name__} has no plain reference")


@torch.inference_mode()
def inputs(network: Matcher, work: Workload, device: torch.device) -> tuple[ItemEncoding, ItemEncoding]:
    """Random images and captions, encoded; encoding is apart."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(work.images, work.regions, FEATURES, generator=generator)
    images = ImageBatch(features, torch.ones(features.shape[:2], dtype=torch.bool))
    lengths = sorted(LENGTHS[i % len(LENGTHS)] for i in range(work.captions))
    rows = [torch.randint(1, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]
    return network.encode_images(images.to(device)), network.encode_captions(pad_sequences(rows).to(device))
