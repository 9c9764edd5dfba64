"""Ways to score all pairs of a block on one device, into `benchmarks/results/kernels-DEVICE.json`.

    python -m benchmarks.kernels
    python -m benchmarks.kernels --ways compiled

The modules of the network, the fused kernels with several launches, CUDA graphs of both, and torch.compile; TSHSR at
the sizes of tshsr-coco and of tshsr-flickr8k-photos (words of a GRU in place of MiniLM's: the scoring is the same).
Random weights and features, captions of real lengths. The file is written after every row, and a later run with other
ways adds to it where block and machine are the same. --toy runs everything at a tiny size, on a CPU in Triton's
interpreter.
"""

from __future__ import annotations

import gzip
import json
import logging
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from torch import Tensor

from benchmarks.tables import RESULTS
from tshsr.bench.machine import Products, peak_of, seconds_of
from tshsr.bench.speed import LENGTHS, multiply_adds
from tshsr.cli.options import choose_device
from tshsr.config.models import EncoderConfig, ReasoningConfig, TshsrConfig
from tshsr.data.batches import ImageBatch, pad_sequences
from tshsr.errors import TshsrError
from tshsr.evaluation.compile import CompiledMatcher, CompileOptions, tf32_products
from tshsr.files import write_text
from tshsr.models.base import ItemEncoding, Matcher
from tshsr.models.tshsr import Tshsr
from tshsr.scoring.all_pairs import Budget, CaptionLengths, score_block
from tshsr.scoring.fused import FusedMatcher, refusal
from tshsr.scoring.fused_stream import Launch
from tshsr.scoring.precision import cast_matcher
from tshsr.system import provenance

LOG = logging.getLogger("benchmarks.kernels")
FEATURES, VOCABULARY = 64, 1000
"""Encoding is not measured."""
COCO = TshsrConfig(encoder=EncoderConfig(feature_dim=FEATURES, vocabulary=VOCABULARY))
PHOTOS = TshsrConfig(
    encoder=EncoderConfig(dim=256, feature_dim=FEATURES, vocabulary=VOCABULARY),
    similarity_dim=32,
    comparison_dim=64,
    products=True,
    reasoning=ReasoningConfig(context_inverse_temperature=8.0),
)
"""The networks of tshsr-coco and of tshsr-flickr8k-photos, but for the encoders."""
WayName = Literal[
    "eager", "fused", "fused, 8 warps", "fused, 3 stages", "eager, CUDA graph", "fused, CUDA graph", "compiled"
]
LAUNCHES: dict[str, Launch | None] = {
    "fused": None,
    "fused, 8 warps": Launch(warps=8, compared=64),
    "fused, 3 stages": Launch(stages=3),
    "fused, CUDA graph": None,
}
"""Ways with the kernels; None: the launch by the network's width."""
FAST_PRODUCTS = ("eager", "compiled")
"""Ways that are measured with TF32 products too."""
BLOCK = ("images", "captions", "byte_budget", "toy", "hardware")
"""What the rows of one file have in common."""
MOST_KERNELS = 15
"""Rows of a profile."""


@dataclass(frozen=True)
class Kernels:
    """What to measure."""

    device: str = "cuda"
    """Where."""
    ways: tuple[WayName, ...] = (
        "eager",
        "fused",
        "fused, 8 warps",
        "fused, 3 stages",
        "fused, CUDA graph",
        "eager, CUDA graph",
    )
    """In this order."""
    images: int = 256
    """Images of the block."""
    captions: int = 256
    """Captions of the block."""
    byte_budget: int = 2**34
    """Bound on the temporaries of a tile."""
    repeats: int = 5
    """Timed calls; medians are reported."""
    seconds: float = 100.0
    """No row is begun after that."""
    backend: str = "inductor"
    """Backend of torch.compile."""
    out: Path = RESULTS
    """Folder of the results and the traces."""
    toy: bool = False
    """Tiny networks, to rehearse."""


@dataclass(frozen=True)
class Case:
    """A network with an encoded block."""

    name: str
    network: Tshsr
    images: ItemEncoding
    captions: ItemEncoding
    multiply_adds: float


def main() -> None:
    """Measure."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        measure(tyro.cli(Kernels, description=__doc__))
    except TshsrError as error:
        sys.exit(str(error))


def measure(wanted: Kernels) -> None:
    """Measure every way, and write the results after every row.

    Raises:
        SettingsError: Where this machine does not have the device.
    """
    start, device = time.perf_counter(), torch.device(choose_device(wanted.device))
    path = wanted.out / f"kernels-{wanted.device}.json"
    rows = earlier_rows(path, wanted)
    measured_in = dict.fromkeys(precision for way in wanted.ways for precision in precisions(way))
    products = {name: Products(device, dtype_of(name), tf32=name == "tf32") for name in measured_in}
    for case in cases(wanted, device):
        exact = score_of(case, case.network, wanted)().double()
        for way in wanted.ways:
            for precision in precisions(way):
                if time.perf_counter() - start > wanted.seconds:
                    LOG.warning("%s, %s, %s is left out: %.0f s are over", case.name, way, precision, wanted.seconds)
                    continue
                row: dict[str, Any] = {"network": case.name, "way": way, "precision": precision}
                with tf32_products() if precision == "tf32" else nullcontext():
                    row |= measured(case, way, dtype_of(precision), wanted, exact)
                if "seconds" in row:
                    rate, best = 2 * case.multiply_adds * row["pairs_per_s"], products[precision].best
                    row |= {"gemm_gflops": best / 1e9, "gemm_fraction": rate / best}
                rows.append(row)
                LOG.info("%s", row)
                settings = {**asdict(wanted), "out": None}
                values = {"command": "python -m benchmarks.kernels", **provenance(), "settings": settings}
                write_text(path, json.dumps({**values, "ways": rows}, indent=2) + "\n")


def earlier_rows(path: Path, wanted: Kernels) -> list[dict[str, Any]]:
    """Rows of an earlier run in other ways; none where it was of another block or machine, as a file names one."""
    if not path.exists():
        return []
    values = json.loads(path.read_text(encoding="utf-8"))
    before = {**values["settings"], "hardware": values["hardware"]}
    now = {**asdict(wanted), "hardware": provenance()["hardware"]}
    if any(before.get(name) != now[name] for name in BLOCK):
        LOG.warning("the rows in %s are of another block or machine and are left out", path)
        return []
    return [row for row in values["ways"] if row["way"] not in wanted.ways]


def dtype_of(precision: str) -> torch.dtype:
    """Type of the numbers of a precision."""
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def precisions(way: str) -> tuple[str, ...]:
    """Precisions in which a way is measured; bfloat16 first, the one that counts."""
    return ("bfloat16", "tf32", "float32") if way in FAST_PRODUCTS else ("bfloat16",)


def cases(wanted: Kernels, device: torch.device) -> list[Case]:
    """Both networks with their blocks."""
    sizes = [("tshsr-coco", COCO, 36), ("tshsr-flickr8k-photos", PHOTOS, 16)]
    if wanted.toy:
        sizes = [(name, tiny(config), 3) for name, config, _ in sizes]
    return [case_of(name, config, regions, wanted, device) for name, config, regions in sizes]


def tiny(config: TshsrConfig) -> TshsrConfig:
    """The network with small widths."""
    encoder = replace(config.encoder, dim=16, word_dim=8)
    return replace(config, encoder=encoder, similarity_dim=8, comparison_dim=8)


@torch.inference_mode()
def case_of(name: str, config: TshsrConfig, regions: int, wanted: Kernels, device: torch.device) -> Case:
    """A network with random weights and an encoded block; captions are sorted by length, as in scoring a split."""
    torch.manual_seed(0)
    network = Tshsr(config).eval().to(device)
    lengths = sorted(LENGTHS[number * len(LENGTHS) // wanted.captions] for number in range(wanted.captions))
    lengths = [min(length, 2) for length in lengths] if wanted.toy else lengths
    tokens = pad_sequences([torch.randint(1, VOCABULARY, (length,)).tolist() for length in lengths])
    pictures = ImageBatch(torch.randn(wanted.images, regions, FEATURES), torch.ones(wanted.images, regions).bool())
    images, captions = network.encode_images(pictures.to(device)), network.encode_captions(tokens.to(device))
    words = sum(lengths) / len(lengths)
    return Case(
        name, network, images, captions, multiply_adds(network, features=FEATURES, regions=regions, words=round(words))
    )


def score_of(case: Case, matcher: Matcher, wanted: Kernels) -> Callable[[], Tensor]:
    """Scoring of the block by a matcher: fused scores, images x captions."""
    dtype = next(matcher.parameters()).dtype
    images, captions = case.images.at(dtype), case.captions.at(dtype)
    lengths = CaptionLengths.of(captions)

    @torch.inference_mode()
    def work() -> Tensor:
        return score_block(matcher, images, captions, lengths, Budget(wanted.byte_budget))["fused"]

    return work


def measured(case: Case, way: WayName, dtype: torch.dtype, wanted: Kernels, exact: Tensor) -> dict[str, Any]:
    """Figures of a way, or the reason why it has none."""
    device = torch.device(wanted.device)
    try:
        work, first = prepared(case, way, dtype, wanted)
        seconds = [seconds_of(work, device) for _ in range(wanted.repeats)]
        scores = work().double()
        peak = peak_of(work, device)
    except Exception as error:  # one way that fails must not cost the figures of the others
        LOG.exception("%s, %s", case.name, way)
        return {"failed": f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"}
    trace(case, way, dtype, wanted, work)
    return {
        "seconds": statistics.median(seconds),
        "seconds_spread": [min(seconds), max(seconds)],
        "first_seconds": first,
        "pairs_per_s": exact.numel() / statistics.median(seconds),
        "peak_bytes": peak,
        "largest_difference": float((scores - exact).abs().max()),
        "rms_difference": float((scores - exact).square().mean().sqrt()),
    }


def prepared(case: Case, way: WayName, dtype: torch.dtype, wanted: Kernels) -> tuple[Callable[[], Tensor], float]:
    """The work of a way after its first call, and the seconds of that: compilation, check of the kernels, capture."""
    device, network = torch.device(wanted.device), cast_matcher(case.network, dtype)
    matcher: Matcher = network
    if way in LAUNCHES:
        reason = refusal(network, device)
        if reason is not None or not isinstance(network, Tshsr):
            raise RuntimeError(f"the kernels do not apply: {reason}")
        matcher = FusedMatcher(network, strict=True, launch=LAUNCHES[way])
    if way == "compiled":
        matcher = CompiledMatcher(network, CompileOptions(compiled=True, backend=wanted.backend))
    work = score_of(case, matcher, wanted)
    start = time.perf_counter()
    seconds_of(work, device)
    if way.endswith("CUDA graph"):
        work = captured(work, device)
    return work, time.perf_counter() - start


def captured(work: Callable[[], Tensor], device: torch.device) -> Callable[[], Tensor]:
    """The work as one CUDA graph: its launches cost the processor nothing.

    Raises:
        RuntimeError: Where the device is no GPU.
    """
    if device.type != "cuda":
        raise RuntimeError("CUDA graphs need a CUDA device")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        scores = work()

    def replay() -> Tensor:
        graph.replay()
        return scores

    return replay


def trace(case: Case, way: WayName, dtype: torch.dtype, wanted: Kernels, work: Callable[[], Tensor]) -> None:
    """Profile one call in bfloat16, by the modules and by the kernels: a trace, and the longest operations."""
    if way not in ("eager", "fused") or dtype != torch.bfloat16:
        return
    kinds = [torch.profiler.ProfilerActivity.CPU]
    kinds += [torch.profiler.ProfilerActivity.CUDA] if wanted.device == "cuda" else []
    with torch.profiler.profile(activities=kinds) as profile:
        seconds_of(work, torch.device(wanted.device))
    name = f"profile-{case.name}-{way}"
    key = "self_device_time_total" if wanted.device == "cuda" else "self_cpu_time_total"
    events = sorted(profile.key_averages(), key=lambda event: -getattr(event, key))[:MOST_KERNELS]
    found = [{"name": each.key[:100], "calls": each.count, "microseconds": getattr(each, key)} for each in events]
    write_text(wanted.out / f"{name}.json", json.dumps(found, indent=1) + "\n")
    plain = wanted.out / f"{name}.trace"
    profile.export_chrome_trace(str(plain))
    (wanted.out / f"{name}.trace.gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()


if __name__ == "__main__":
    main()
