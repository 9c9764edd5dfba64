"""`tshsr bench` at tiny sizes: JSON, table and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.support.command_line import refused, tshsr
from tshsr.bench import machine

TINY = (
    *("--images", "2", "--captions", "3", "--regions", "3", "--dim", "16", "--width", "8", "--repeats", "1"),
    *("--device", "cpu"),
)
ROW = {
    *("name", "dtype", "pairs_per_s", "reference_pairs_per_s", "ratio", "macs_per_pair", "gemm_fraction"),
    *("peak_bytes", "max_difference"),
}
"""What every row must have; there may be more."""


@pytest.fixture(autouse=True)
def _small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "SIZES", ((32, 32, 32),))


@pytest.mark.slow
def test_the_figures_of_every_network_in_every_precision_come_as_json_alone() -> None:
    said = tshsr("bench", *TINY, "--json", "-")
    values = said.json()
    assert values["gemm_gflops"] > 0
    assert set(values) >= {"commit", "hardware", "threads", "workload"}
    assert values["workload"]["captions"] == 3
    assert [(row["name"], row["dtype"]) for row in values["rows"]] == [
        (name, dtype) for name in ("tshsr", "sgr", "saf", "scan") for dtype in ("float32", "bfloat16")
    ]
    for row in values["rows"]:
        assert set(row) >= ROW
        assert row["ratio"] == pytest.approx(row["pairs_per_s"] / row["reference_pairs_per_s"])
        assert row["macs_per_pair"] > 0
        assert row["gemm_fraction"] > 0
        assert row["peak_bytes"] is None or row["peak_bytes"] >= 0
        assert row["max_difference"] < (1e-5 if row["dtype"] == "float32" else 0.1), "the same scores"
    assert said.err.splitlines() == [f"measuring {name}" for name in ("tshsr", "sgr", "saf", "scan")]


def test_a_precision_without_instructions_is_skipped_with_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tshsr.scoring.precision.product_speed", lambda dtype, _: 0.1 if dtype.itemsize == 2 else 1.0)
    said = tshsr("bench", *TINY, "--names", "scan", "--quiet")
    (line,) = said.err.splitlines()
    assert line.startswith("bfloat16 is skipped: its matrix products take 10 times as long as those of float32")
    assert [row.split()[1] for row in said.out.splitlines() if row.startswith("scan")] == ["float32"]


def test_the_table_shows_the_chosen_rows_and_the_file_all_values(tmp_path: Path) -> None:
    place = tmp_path / "bench.json"
    said = tshsr("bench", *TINY, "--names", "scan", "--dtypes", "float32", "--json", place, "--quiet")
    assert said.code == 0, said.err
    assert said.err == ""
    lines = said.out.splitlines()
    assert "matrix products" in lines[0]
    assert [line.split()[:2] for line in lines if line.startswith(("scan", "tshsr"))] == [["scan", "float32"]]
    values = json.loads(place.read_text(encoding="utf-8"))
    (row,) = values["rows"]
    assert f"{row['pairs_per_s']:,.0f}" in lines[-1]


def test_a_machine_that_can_not_compile_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\n  with its traceback")

    monkeypatch.setattr(torch, "compile", lambda *_, **options: fail)
    assert refused("bench", *TINY, "--names", "scan", "--dtypes", "float32", "--compile") == (
        "tshsr: this machine can't compile the scoring (InvalidCxxCompiler: No working C++ compiler found); "
        "leave --compile out."
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--images", "0"), "--images is 0; expected at least 1."),
        (("--repeats", "-2"), "--repeats is -2; expected at least 1."),
        (("--device", "tpu"), "device 'tpu' is not available"),
    ],
)
def test_what_can_not_be_measured_is_refused(arguments: tuple[str, ...], message: str) -> None:
    assert message in refused("bench", *arguments)
