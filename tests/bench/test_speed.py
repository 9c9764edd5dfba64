"""The benchmark's parts: the figures of a row, the order of measurements, and the rate of matrix products."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tshsr.bench import machine, speed
from tshsr.bench.machine import Products, peak_of, resident, seconds_of
from tshsr.bench.speed import (
    LENGTHS,
    Workload,
    bench,
    inputs,
    multiply_adds_of,
    plain_score,
    prepared,
    settings,
    time_both,
)
from tshsr.config.models import EncoderConfig, TshsrConfig, VseConfig
from tshsr.data.batches import CaptionBatch
from tshsr.evaluation.compile import CompileOptions
from tshsr.models.base import Matcher
from tshsr.models.build import build_matcher
from tshsr.scoring.all_pairs import score_encoded

CPU = torch.device("cpu")
TINY = Workload(images=2, captions=3, regions=3, dim=16, width=8, repeats=3)


@pytest.fixture(autouse=True)
def _small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "SIZES", ((32, 32, 32), (8, 64, 8)))


def test_a_row_is_made_of_medians_over_the_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six pairs in 2, 3 and 6 seconds; the reference in 6, 30 and 12: ratios of 3, 10 and 2."""
    repeats = iter([speed.Repeat(6.0, 2.0, 1e9), speed.Repeat(30.0, 3.0, 3e9), speed.Repeat(12.0, 6.0, 2e9)])
    monkeypatch.setattr(speed, "time_both", lambda *_: next(repeats))
    found = bench(TINY, names=("scan",), dtypes=("float32",))
    (row,) = found["rows"]
    assert (row["pairs_per_s"], row["pairs_per_s_spread"]) == (2.0, (1.0, 3.0))
    assert (row["reference_pairs_per_s"], row["reference_pairs_per_s_spread"]) == (0.5, (0.2, 1.0))
    assert row["ratio"] == 3.0
    assert row["gemm_gflops"] == 2.0
    operations = 2 * row["macs_per_pair"] * 6
    assert row["gemm_fraction"] == pytest.approx(operations / 3.0 / 3e9), (
        "1/2, 1/9 and 1/12 of the operations in the three repeats: the median"
    )


@pytest.mark.parametrize(
    "name", ["tshsr", "tshsr_photos", "sgr", "saf", "scan", "two_stream_sgr", "rcar", "chan", "dsgsl", "imram", "shan"]
)
def test_reference_and_package_give_equal_scores(name: speed.Name) -> None:
    torch.manual_seed(0)
    with torch.inference_mode():
        scores = prepared(name, TINY, CPU, 2**20).reference()()
    assert scores.std() > 1e-3, "scores that are all alike would agree by themselves"
    torch.manual_seed(0)
    (row,) = bench(TINY, names=(name,), dtypes=("float32",))["rows"]
    assert row["name"] == name
    assert row["max_difference"] < 1e-5
    assert min(row["reference_macs_per_pair"], row["macs_per_pair"]) > 0


def test_the_operations_of_a_row_are_those_that_are_counted_while_scoring() -> None:
    (row,) = bench(TINY, names=("saf",), dtypes=("bfloat16",))["rows"]
    comparison = prepared("saf", TINY, CPU, 2**20)
    with torch.inference_mode():
        counted = multiply_adds_of(lambda: score_encoded(comparison.network, comparison.images, comparison.captions))
    assert row["macs_per_pair"] == counted / 6


def test_compile_options_apply_to_the_package_alone_and_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: set[str] = set()
    monkeypatch.setattr(machine, "seconds_of", lambda *_: (rates.add(torch.get_float32_matmul_precision()), 1.0)[1])
    found = bench(TINY, names=("scan",), dtypes=("float32",), compile_options=CompileOptions(tf32=True))
    assert found["shortcuts"] == "tf32"
    assert rates == {"high"}, "the products to which a rate is compared are in TF32, too"
    assert found["rows"][0]["macs_per_pair"] > 0
    assert found["rows"][0]["max_difference"] < 1e-2
    assert bench(TINY, names=("scan",), dtypes=("float32",))["shortcuts"] == ""


def test_reference_and_package_have_their_own_allocator_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(speed, "release_freed_memory", lambda: done.append("release"))
    monkeypatch.setattr(speed, "keep_freed_memory", lambda: done.append("keep"))
    products = Products(CPU, torch.float32)

    def work(name: str) -> torch.Tensor:
        done.append(name)
        return torch.zeros(1)

    repeat = time_both(lambda: work("plain"), lambda: work("package"), products)
    assert done == ["release", "plain", "keep", "package"]
    assert 0 < repeat.gemm <= products.best


def test_a_precision_with_slow_products_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tshsr.scoring.precision.product_speed", lambda dtype, _: 0.1 if dtype.itemsize == 2 else 1.0)
    found = bench(TINY, names=("scan",))
    assert [row["dtype"] for row in found["rows"]] == ["float32"]
    assert list(found["gemm_gflops_by_dtype"]) == ["float32"]
    (skipped,) = found["skipped"]
    assert skipped["dtype"] == "bfloat16"
    assert skipped["reason"].startswith("bfloat16 is skipped: its matrix products take 10 times as long")
    monkeypatch.setattr(speed, "prepared", lambda *_: pytest.fail("prepared a network"))
    assert bench(TINY, names=("scan",), dtypes=("bfloat16",))["rows"] == []


def test_captions_have_real_lengths_shortest_first() -> None:
    lengths: list[int] = []

    class Watched(torch.nn.Module):
        def encode_images(self, batch: object) -> object:
            return batch

        def encode_captions(self, batch: CaptionBatch) -> object:
            lengths.extend(batch.mask.sum(dim=1).tolist())
            return batch

    inputs(Watched(), Workload(images=1, captions=60, regions=1), CPU)  # type: ignore[arg-type]
    assert lengths == sorted([*LENGTHS, *LENGTHS[:10]])


def test_sizes_of_the_workload_are_those_of_the_network() -> None:
    assert settings("tshsr", TINY).encoder.dim == 16
    photos = settings("tshsr_photos", replace(TINY, compared=4))
    assert isinstance(photos, TshsrConfig)
    assert (photos.encoder.dim, photos.similarity_dim, photos.comparison_dim) == (16, 8, 4)
    assert photos.products
    assert photos.reasoning.context_inverse_temperature == 8.0
    network: Matcher = prepared("sgr", TINY, CPU, 2**20).network
    assert not network.training
    assert network.config.similarity_dim == 8  # type: ignore[union-attr]


def test_a_network_without_a_plain_reference_is_refused() -> None:
    network = build_matcher(VseConfig(encoder=EncoderConfig(dim=4, feature_dim=3, vocabulary=5, word_dim=2)))
    with pytest.raises(TypeError, match="has no plain reference"):
        plain_score(network)


def test_the_rate_is_that_of_the_shape_that_goes_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    products = Products(CPU, torch.float32)
    taken = iter([1e-6, 1e-6, 4e-6, 4e-6])
    monkeypatch.setattr(machine, "seconds_of", lambda *_: next(taken))
    products.best = 0.0
    assert products.rate() == pytest.approx(2 * 32**3 / 1e-6)
    assert products.rate() == pytest.approx(2 * 32**3 / 4e-6)
    assert products.best == pytest.approx(2 * 32**3 / 1e-6), "the best that was seen"


def test_a_piece_of_work_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 12.5])
    monkeypatch.setattr("tshsr.bench.machine.time.perf_counter", lambda: next(clock))
    assert seconds_of(lambda: None, CPU) == 2.5


@pytest.mark.skipif(not machine.CLEAR.exists(), reason="peak memory is read from /proc, which only Linux has")
def test_the_peak_is_what_a_piece_of_work_adds() -> None:
    size = 2**26
    peak = peak_of(lambda: torch.ones(size, dtype=torch.uint8), CPU)
    if peak is None:
        pytest.skip("this container does not let a process clear its peak")
    assert size * 0.9 < peak < size * 1.5
    assert resident("VmHWM") >= resident("VmRSS")


def test_the_peak_is_none_where_the_system_does_not_report_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "CLEAR", tmp_path / "none" / "clear_refs")
    assert peak_of(lambda: None, CPU) is None
