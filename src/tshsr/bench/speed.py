"""Pairs a second of every network, ours against the plain reference: the same pairs, process, weights and scores."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal, assert_never

import torch

from tshsr.allocator import keep_freed_memory, release_freed_memory
from tshsr.batches import ImageBatch, pad_sequences
from tshsr.bench import plain
from tshsr.bench.machine import gemm_flops, peak_of, seconds_of
from tshsr.config import EncoderConfig, ModelConfig, ScanConfig, SgrafConfig, TshsrConfig
from tshsr.counting import multiply_adds_of
from tshsr.models import ItemEncoding, Matcher, Tshsr, build_matcher
from tshsr.models.scan import Scan
from tshsr.models.sgraf import Sgraf
from tshsr.precision import lowered
from tshsr.scoring import BYTE_BUDGET, score_encoded

Name = Literal["tshsr", "sgr", "saf", "scan"]
NAMES: tuple[Name, ...] = ("tshsr", "sgr", "saf", "scan")
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
        gemm_fraction: What ours multiplies and adds a second, of what large matrix products reach in that precision.
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
    gemm_fraction: float
    peak_bytes: int | None
    reference_peak_bytes: int | None
    max_difference: float


def bench(
    work: Workload,
    *,
    names: Sequence[Name] = NAMES,
    dtypes: Sequence[str] = ("float32", "bfloat16"),
    device: str = "cpu",
    byte_budget: int = BYTE_BUDGET,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Time every network.

    Args:
        work: What is scored.
        names: Which networks.
        dtypes: Which precisions of ours.
        device: Where.
        byte_budget: Bound on our temporaries.
        tell: Told before each network.

    Returns:
        `gemm_gflops` (float32), `gemm_gflops_by_dtype`, `workload` and `rows`.
    """
    place = torch.device(device)
    gemm = {name: gemm_flops(place, DTYPES[name]) for name in {"float32", *dtypes}}
    rows: list[Row] = []
    for name in names:
        tell(name)
        rows += rows_of(name, work, dtypes, gemm, place, byte_budget)
    return {
        "gemm_gflops": gemm["float32"] / 1e9,
        "gemm_gflops_by_dtype": {name: rate / 1e9 for name, rate in gemm.items()},
        "workload": asdict(work),
        "rows": [asdict(row) for row in rows],
    }


@torch.inference_mode()
def rows_of(
    name: Name, work: Workload, dtypes: Sequence[str], gemm: dict[str, float], device: torch.device, byte_budget: int
) -> Iterator[Row]:
    """One network in every precision."""
    network = build_matcher(settings(name, work)).eval().to(device)
    images, captions = inputs(network, work, device)
    score = plain_score(network)

    def published() -> torch.Tensor:
        return plain.loop_over_captions(score, images, captions)

    release_freed_memory()
    expected, peak = published(), peak_of(published, device)
    pairs = expected.numel()
    macs = multiply_adds_of(lambda: score_encoded(network, images, captions, byte_budget=byte_budget)) / pairs
    plain_macs = multiply_adds_of(published) / pairs
    for dtype in dtypes:
        low, left, right = lowered(network, DTYPES[dtype]), images.at(DTYPES[dtype]), captions.at(DTYPES[dtype])
        ours = partial(score_encoded, low, left, right, byte_budget=byte_budget)
        keep_freed_memory()
        found, own_peak = ours()["fused"], peak_of(ours, device)
        theirs_taken, ours_taken = taking_turns(published, ours, work.repeats, device)
        rates, plain_rates = [[pairs / taken for taken in each] for each in (ours_taken, theirs_taken)]
        yield Row(
            name=name,
            dtype=dtype,
            pairs_per_s=statistics.median(rates),
            pairs_per_s_spread=(min(rates), max(rates)),
            reference_pairs_per_s=statistics.median(plain_rates),
            reference_pairs_per_s_spread=(min(plain_rates), max(plain_rates)),
            ratio=statistics.median(own / other for own, other in zip(rates, plain_rates, strict=True)),
            macs_per_pair=macs,
            reference_macs_per_pair=plain_macs,
            gemm_fraction=2 * macs * statistics.median(rates) / gemm[dtype],
            peak_bytes=own_peak,
            reference_peak_bytes=peak,
            max_difference=float((found.float() - expected).abs().max()),
        )


def taking_turns(
    published: Callable[[], object], ours: Callable[[], object], repeats: int, device: torch.device
) -> tuple[list[float], list[float]]:
    """Seconds of both, one after the other, so that what else the machine does meets both.

    The reference runs with the allocator as its users have it, ours as the command line sets it.
    """
    theirs_taken, ours_taken = [], []
    for _ in range(repeats):
        release_freed_memory()
        theirs_taken.append(seconds_of(published, device))
        keep_freed_memory()
        ours_taken.append(seconds_of(ours, device))
    return theirs_taken, ours_taken


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
        case Sgraf():
            return plain.sgraf(network)
        case Scan():
            return plain.scan(network)
        case _:
            raise TypeError(f"{type(network).__name__} has no plain reference")


def inputs(network: Matcher, work: Workload, device: torch.device) -> tuple[ItemEncoding, ItemEncoding]:
    """Random images and captions, encoded; encoding is apart."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(work.images, work.regions, FEATURES, generator=generator)
    images = ImageBatch(features, torch.ones(features.shape[:2], dtype=torch.bool))
    lengths = sorted(LENGTHS[i % len(LENGTHS)] for i in range(work.captions))
    rows = [torch.randint(1, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]
    return network.encode_images(images.to(device)), network.encode_captions(pad_sequences(rows).to(device))
