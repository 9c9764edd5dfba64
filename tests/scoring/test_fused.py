"""The fused kernels, in Triton's interpreter where there is no GPU: equal to the modules, or refused by a sentence."""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.support import tiny
from tests.support.methods import GRAPH, METHODS
from tshsr.config.models import EncoderConfig, ReasoningConfig, TshsrConfig
from tshsr.data.batches import ImageBatch
from tshsr.data.tokens import TokenIds
from tshsr.errors import SettingsError
from tshsr.models.base import ItemEncoding, Scores
from tshsr.models.build import build_matcher
from tshsr.models.tshsr import Tshsr
from tshsr.scoring import fused
from tshsr.scoring.all_pairs import score_all_pairs
from tshsr.scoring.fused import FusedMatcher, refusal, with_kernel
from tshsr.scoring.fused_stream import interpreted
from tshsr.scoring.options import KernelName, ScoringOptions
from tshsr.scoring.precision import cast_matcher

pytest.importorskip("triton", reason="the package triton is not installed")

TOLERANCE = 2e-6 if interpreted() else 2e-5
"""Float32 on a GPU has other exponentials and another order of sums."""
DEVICE = torch.device("cpu" if interpreted() else "cuda")
BOXES = replace(tiny.ENCODER, boxes=True)
LOOKS = {"products": True, "reasoning": ReasoningConfig(seeds=(3, 2), context_inverse_temperature=3.0)}
VARIANTS = {
    "default": {},
    "context nodes that attend": LOOKS,
    "places, and context nodes alone": {
        "encoder": BOXES,
        "place_term": True,
        "reasoning": ReasoningConfig(seeds=(4, 2), local=False),
    },
    "the joint space, and local nodes alone, without a gate": {
        "comparison_dim": 0,
        "reasoning": ReasoningConfig(levels=1, seeds=(4,), context=False, gate=False),
    },
    "flat, one stream": {"streams": "word", "reasoning": ReasoningConfig(levels=0), "fusion": "learned"},
}
CONCEPTS = replace(GRAPH, method="progressive")
runs_kernels = pytest.mark.skipif(
    not interpreted() and not torch.cuda.is_available(), reason="there is no CUDA device, and no TRITON_INTERPRET=1"
)


@pytest.fixture(autouse=True)
def _no_gradients() -> object:
    with torch.no_grad():
        yield


def encoded(
    network: Tshsr, real: list[int], words: tuple[int, ...], regions: int | None = None
) -> tuple[ItemEncoding, ItemEncoding]:
    """Images with these numbers of real regions, and captions with these numbers of words."""
    batch = tiny.images(len(real), regions or max(real), real=real)
    batch = ImageBatch(batch.regions.float(), batch.mask, batch.boxes.float())
    network.to(DEVICE)
    return network.encode_images(batch.to(DEVICE)), network.encode_captions(tiny.captions(words).to(DEVICE))


def largest_difference(found: Scores, expected: Scores) -> float:
    assert found.keys() == expected.keys()
    assert all(found[name].dtype == expected[name].dtype for name in expected)
    return max(float((found[name] - expected[name]).abs().max()) for name in expected)


def checked(network: Tshsr, *, strict: bool = True) -> FusedMatcher:
    """The fused network, its checks done."""
    matcher = FusedMatcher(network, strict=strict)
    matcher.checked |= {(regions, words) for regions in (16, 32) for words in (16, 32)}
    return matcher


@runs_kernels
@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_kernels_score_as_the_modules_on_cuda_or_interpreted(variant: str) -> None:
    """Ragged on both sides: two regions and one, with a third that is padding; two words and one."""
    network = tiny.network(torch.float32, **VARIANTS[variant])
    images, captions = encoded(network, [2, 1], (2, 1), regions=3)
    exact = network.score_all(images, captions)
    assert largest_difference(checked(network).score_all(images, captions), exact) < TOLERANCE


@runs_kernels
@pytest.mark.slow
def test_sizes_beyond_a_block_score_as_the_modules_on_cuda_or_interpreted() -> None:
    """17 regions and words in blocks of 32, similarity vectors 20 wide, and 40 compared dimensions in two steps."""
    network = tiny.network(torch.float32, **LOOKS, similarity_dim=20, comparison_dim=40)
    network = Tshsr(replace(network.config, encoder=replace(tiny.ENCODER, dim=48))).eval()
    images, captions = encoded(network, [17], (17,))
    exact = network.score_all(images, captions)
    assert largest_difference(checked(network).score_all(images, captions), exact) < 2 * TOLERANCE


@runs_kernels
@pytest.mark.slow
def test_bfloat16_is_as_exact_as_the_modules_on_cuda_or_interpreted() -> None:
    network = tiny.network(torch.float32, **LOOKS)
    images, captions = encoded(network, [2, 1], (2,))
    low, sides = cast_matcher(network, torch.bfloat16), [each.at(torch.bfloat16) for each in (images, captions)]
    found = checked(low).score_all(*sides)
    assert found["fused"].dtype == torch.float32
    assert largest_difference(found, network.score_all(images, captions)) < 0.01
    assert fused.inexactness(low, *sides, fused.launch_of(low.config)) is None


@runs_kernels
@pytest.mark.slow
def test_a_split_is_scored_by_the_kernels_on_cuda_or_interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    """One region, one word: the whole way from the option to the matrices, with the check at the first tile."""
    calls: list[tuple[int, int]] = []
    score = fused.fused_scores

    def counted(network: Tshsr, images: ItemEncoding, captions: ItemEncoding, launch: fused.Launch) -> Scores:
        calls.append((len(images), len(captions)))
        return score(network, images, captions, launch)

    monkeypatch.setattr(fused, "fused_scores", counted)
    network = tiny.network(torch.float32, reasoning=ReasoningConfig(levels=0)).to(DEVICE)
    batch, tokens = tiny.images(2, 1), TokenIds.of([[3], [4]])
    batch = ImageBatch(batch.regions.float(), batch.mask, batch.boxes)
    options = ScoringOptions(device=DEVICE)
    exact, found = (
        score_all_pairs(network, [batch], tokens, replace(options, kernel=kernel)) for kernel in ("eager", "triton")
    )
    assert calls == [(2, 2), (2, 2)], "the check, and the tile"
    assert abs(found["fused"] - exact["fused"]).max() < TOLERANCE


def test_scores_that_are_less_exact_are_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    network = tiny.network(torch.float32)
    images, captions = encoded(network, [3, 2], (2, 4))
    exact = network.score_all(images, captions)
    wrong = {name: scores + 1e-4 for name, scores in exact.items()}
    monkeypatch.setattr(fused, "fused_scores", lambda *_: wrong)
    with caplog.at_level(logging.WARNING):
        assert largest_difference(FusedMatcher(network, strict=False).score_all(images, captions), exact) == 0
    assert "the fused kernels are not used: their scores are off by 1.0e-04, those of the modules by " in caplog.text
    assert "scoring continues without them" in caplog.text
    with pytest.raises(SettingsError, match=r"not used: their scores are off by .*; score without them \(kernel eager"):
        FusedMatcher(network, strict=True).score_all(images, captions)
    nan = {name: scores * float("nan") for name, scores in exact.items()}
    monkeypatch.setattr(fused, "fused_scores", lambda *_: nan)
    assert largest_difference(FusedMatcher(network, strict=False).score_all(images, captions), exact) == 0


def test_kernels_that_fail_are_not_used(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    network = tiny.network(torch.float32)
    images, captions = encoded(network, [3], (2,))

    def failing(*_: object) -> Scores:
        raise RuntimeError("Failed to find C compiler.\nMore text.")

    monkeypatch.setattr(fused, "fused_scores", failing)
    with caplog.at_level(logging.WARNING):
        FusedMatcher(network, strict=False).score_all(images, captions)
    assert "not used: they fail here (Failed to find C compiler.); scoring continues" in caplog.text

    def without_memory(*_: object) -> Scores:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(fused, "fused_scores", without_memory)
    matcher = FusedMatcher(network, strict=False)
    with pytest.raises(torch.OutOfMemoryError):
        matcher.score_all(images, captions)
    monkeypatch.setattr(fused, "fused_scores", failing)
    assert largest_difference(matcher.score_all(images, captions), network.score_all(images, captions)) == 0
    assert not matcher.usable, "the check is made again"


def test_each_size_of_blocks_is_checked(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    network = tiny.network(torch.float32)
    images, short = encoded(network, [3], (2,))
    _, long = encoded(network, [3], (17,))
    calls = []

    def failing(matcher: Tshsr, images: ItemEncoding, captions: ItemEncoding, *_: object) -> Scores:
        calls.append(captions.mask.shape[-1])
        if calls[-1] > 16:
            raise RuntimeError("out of resource: shared memory")
        return matcher.score_all(images, captions)

    monkeypatch.setattr(fused, "fused_scores", failing)
    matcher = FusedMatcher(network, strict=False)
    for captions in (short, short, long, short):
        assert largest_difference(matcher.score_all(images, captions), network.score_all(images, captions)) == 0
    assert calls == [2, 2, 2, 17], "the check and two tiles, then a check that ends the use of the kernels"
    assert "not used: they fail here (out of resource: shared memory); scoring continues" in caplog.text
    strict = FusedMatcher(network, strict=True)
    strict.score_all(images, short)
    with pytest.raises(SettingsError, match="they fail here"):
        strict.score_all(images, long)


def test_a_tile_that_registers_do_not_hold_is_scored_by_the_modules(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fused, "fused_scores", lambda *_: pytest.fail("too large for the kernels"))
    network = tiny.network(torch.float32)
    images, captions = encoded(network, [129], (3,))
    matcher = FusedMatcher(network, strict=True)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert largest_difference(matcher.score_all(images, captions), network.score_all(images, captions)) == 0
    assert len(caplog.records) == 1
    assert "do not hold 129 regions and 3 words in float32; such tiles are scored without them" in caplog.text
    assert matcher.bytes_per_pair(129, 3) == network.bytes_per_pair(129, 3)


def test_fused_tiles_need_less_memory() -> None:
    network = Tshsr(TshsrConfig(encoder=EncoderConfig(dim=16, feature_dim=4, vocabulary=5))).to(torch.bfloat16)
    assert FusedMatcher(network, strict=True).bytes_per_pair(36, 17) < network.bytes_per_pair(36, 17) / 1.5
    assert FusedMatcher(network, strict=True).bytes_per_pair(36, 17) > 2 * 36 * 256


@pytest.mark.parametrize(
    ("changes", "dtype", "said"),
    [
        ({"global_node": True}, torch.float32, "the network has model.global_node, which they do not compute"),
        ({"gated_queries": True}, torch.float32, "the network has model.gated_queries, which they do not compute"),
        ({"knowledge": CONCEPTS}, torch.float32, "the network has model.knowledge.node, which they do not compute"),
        ({}, torch.float64, "they compute in float32 or bfloat16, and the network is in float64"),
        ({"similarity_dim": 300}, torch.float32, "model.similarity_dim is 300, and in float32 they hold at most 256"),
        (
            {"reasoning": ReasoningConfig(levels=1, seeds=(65,))},
            torch.float32,
            r"model.reasoning.seeds are \(65,\), and they hold at most 64",
        ),
    ],
)
def test_networks_that_the_kernels_do_not_compute_are_refused(
    changes: dict[str, object], dtype: torch.dtype, said: str
) -> None:
    network = tiny.network(dtype, **changes)
    with pytest.raises(SettingsError, match=f"^the fused kernels do not apply: {said}; score without them"):
        with_kernel(network, "triton", DEVICE)
    assert with_kernel(network, "auto", DEVICE) is network
    assert with_kernel(network, "eager", DEVICE) is network


def test_kernels_that_hold_no_pair_of_the_images_are_refused() -> None:
    network = tiny.network(torch.float32, similarity_dim=256)
    said = "in float32 they do not hold 17 regions with model.similarity_dim 256; score without them"
    batch, tokens = tiny.images(2, 17), TokenIds.of([[3], [4]])
    batch = ImageBatch(batch.regions.float(), batch.mask, batch.boxes)
    with pytest.raises(SettingsError, match=f"^the fused kernels do not apply: {said}"):
        score_all_pairs(network.to(DEVICE), [batch], tokens, ScoringOptions(kernel="triton", device=DEVICE))
    assert with_kernel(network, "auto", DEVICE, 17) is network
    assert isinstance(with_kernel(network, "auto", DEVICE, 16), FusedMatcher)


def test_a_processor_and_other_methods_are_refused(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fused, "interpreted", lambda: False)
    network, cpu = tiny.network(torch.float32), torch.device("cpu")
    assert refusal(network, cpu) == "they run on CUDA devices, and scoring runs on cpu"
    with caplog.at_level(logging.INFO):
        assert with_kernel(network, "auto", cpu) is network
        assert not caplog.records, "the usual case"
        other = build_matcher(METHODS["scan word stream"])
        assert with_kernel(other, "auto", torch.device("cuda")) is other
    assert "do not apply: they are for TSHSR, uncompiled, and this is a Scan" in caplog.text
    assert isinstance(with_kernel(network, "triton", torch.device("cuda")), FusedMatcher)

    def broken() -> None:
        raise ImportError("libtriton.so: no such file")

    monkeypatch.setattr(fused, "kernels", broken)
    assert refusal(network, torch.device("cuda")) == (
        "the package triton cannot be imported (libtriton.so: no such file)"
    )
    monkeypatch.setattr(fused, "find_spec", lambda _: None)
    with pytest.raises(
        SettingsError, match=r"triton is not installed \(pip install 'tshsr\[triton\]'\); score without"
    ):
        with_kernel(network, "triton", torch.device("cuda"))


def test_the_option_is_checked_where_all_pairs_are_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "interpreted", lambda: False)
    network, images = tiny.network(), tiny.images(1, 2)
    kernel: KernelName = "triton"
    with pytest.raises(SettingsError, match="they run on CUDA devices, and scoring runs on cpu"):
        score_all_pairs(network, [images], TokenIds.of([[3, 4]]), ScoringOptions(kernel=kernel))


@pytest.mark.slow
def test_every_kernel_compiles_for_a_gpu_within_its_registers(tmp_path: Path) -> None:
    """Triton and its assembler need no GPU to compile for one; the sizes are those of tshsr-coco in bfloat16."""
    environment = {
        "TRITON_INTERPRET": "0",
        "TRITON_CACHE_DIR": str(tmp_path),
        "PATH": "",
        "PYTHONPATH": ":".join(sys.path),
    }
    command = [sys.executable, "-m", "tests.support.compiled_kernels", "90"]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    usage = [line.split() for line in answer.stdout.splitlines()]
    assert [name for name, *_ in usage] == ["similarity_vectors", "context_vectors", "exchange", "update"]
    for name, shared, registers, stack in usage:
        assert int(shared) <= 100 * 1024, f"{name}: two programs share a multiprocessor"
        assert int(registers) <= 255
        assert int(stack) == 0, f"{name} spills registers"
