"""The scripts of `benchmarks/gpu.sh` at tiny sizes, and what makes it safe to run: bounds on every step."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu, gpu_step, kernels, tables, traffic
from tshsr.bench import machine
from tshsr.models.tshsr import Tshsr

SCRIPT = Path(gpu.__file__).with_suffix(".sh")


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where results go, instead of into the checkout."""
    for module in (gpu, gpu_step, tables, traffic):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    monkeypatch.setattr(traffic, "update_readme", lambda: None)
    monkeypatch.setattr(machine, "SIZES", ((32, 32, 32),))
    monkeypatch.setattr(kernels, "trace", lambda *_: None)  # a profiler takes seconds to start
    for module in (kernels, gpu_step):
        monkeypatch.setattr(module, "peak_of", lambda work, _: (work(), None)[1])  # collects garbage first
    return tmp_path


def written(module: Any, path: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict[str, Any]:
    """What a script writes; a table is made of it."""
    monkeypatch.setattr(sys, "argv", [module.__name__, *arguments])
    module.main()
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    assert values["command"] == f"python -m {module.__name__}"
    assert tables.with_tables(f"<!-- results {path.stem} -->\n<!-- end -->").count("\n| ") >= 1
    return values


def test_every_step_on_a_gpu_is_bounded_and_all_end_within_nine_minutes() -> None:
    text = SCRIPT.read_text(encoding="utf-8")
    assert 'timeout --kill-after="$grace" "$seconds"' in text
    first, of_photos = (int(found) for found in re.findall(r"\bgrace=(\d+)", text))
    on_gpu = text.split("\nelse\n")[-1].split("\nfi\n")[0]
    bounds = [int(found) for found in re.findall(r"^  step (\d+) ", on_gpu, flags=re.MULTILINE)]
    assert len(bounds) == 6
    assert sum(bounds) + len(bounds) * first < 540
    assert int(re.findall(r"step (\d+) photos", text)[0]) + of_photos < 540


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("photos",), "photos expects one store of Flickr8k; name its folder: benchmarks/gpu.sh photos STORE"),
        (("scenes",), "expected nothing, or photos STORE; got scenes"),
        ((), "no-such-python cannot import torch ({out}/python.log); name another one by PYTHON=..."),
    ],
)
def test_the_script_refuses_by_a_sentence(tmp_path: Path, arguments: tuple[str, ...], sentence: str) -> None:
    environment = {**os.environ, "OUT": str(tmp_path), "PYTHON": "no-such-python", "TOY": ""}
    answer = subprocess.run(["bash", SCRIPT, *arguments], env=environment, capture_output=True, text=True)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr == f"benchmarks/gpu.sh: {sentence.format(out=tmp_path)}\n"


def test_a_step_that_fails_fails_the_script(tmp_path: Path) -> None:
    environment = {**os.environ, "OUT": str(tmp_path), "PYTHON": "false", "TOY": "1"}
    answer = subprocess.run(["bash", SCRIPT, "photos", "store"], env=environment, capture_output=True, text=True)
    assert answer.stdout.startswith("== photos: exit 1, ")
    assert answer.returncode == 1


@pytest.mark.parametrize("module", [gpu, gpu_step, kernels])
def test_a_device_that_is_not_there_is_refused(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [module.__name__, "--device", "cuda:9"])
    with pytest.raises(SystemExit, match=r"^device 'cuda:9' is not available; this machine has cpu"):
        module.main()


def test_ways_are_measured_added_to_and_left_out_with_a_reason(
    results: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    toy = ("--device", "cpu", "--toy", "--images", "2", "--captions", "2", "--repeats", "1", "--out", str(results))
    path = results / "kernels-cpu.json"
    rates = products_measured(monkeypatch)
    values = written(kernels, path, monkeypatch, *toy, "--ways", "eager", "eager, CUDA graph")
    assert rates == {("bfloat16", "highest"), ("float32", "high"), ("float32", "highest")}, "high: TF32"
    assert [row["way"] for row in values["ways"]] == 2 * [*3 * ["eager"], "eager, CUDA graph"]
    assert values["ways"][3]["failed"] == "RuntimeError: CUDA graphs need a CUDA device"
    bfloat16, tf32, float32 = values["ways"][:3]
    assert [row["precision"] for row in (bfloat16, tf32, float32)] == ["bfloat16", "tf32", "float32"]
    assert float32["largest_difference"] == 0 < bfloat16["largest_difference"] < 0.02
    assert 0 < bfloat16["gemm_fraction"] < 1
    again = written(kernels, path, monkeypatch, *toy, "--ways", "eager, CUDA graph", "--seconds", "0")
    assert len(again["ways"]) == 8, "nothing is written where nothing is measured"
    assert "tshsr-coco, eager, CUDA graph, bfloat16 is left out: 0 s are over" in caplog.text
    other = written(kernels, path, monkeypatch, *toy, "--images", "1", "--ways", "eager, CUDA graph")
    assert [row["way"] for row in other["ways"]] == 2 * ["eager, CUDA graph"], "rows of another block do not stay"
    assert f"the rows in {path} are of another block or machine and are left out" in caplog.text


def products_measured(monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, str]]:
    """Types and precisions in which the rate of matrix products is measured from now on."""
    found: set[tuple[str, str]] = set()

    def seconds_of(product: Any, _: object) -> float:
        found.add((str(product().dtype).removeprefix("torch."), torch.get_float32_matmul_precision()))
        return 1e-9

    monkeypatch.setattr(machine, "seconds_of", seconds_of)
    return found


def test_the_kernels_are_measured_with_every_launch(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launches: list[object] = []

    def stand_in(network: Tshsr, *, strict: bool, launch: object) -> Tshsr:
        launches.append(launch)
        return network

    monkeypatch.setattr(kernels, "FusedMatcher", stand_in)
    monkeypatch.setattr(kernels, "refusal", lambda *_: None)
    toy = ("--device", "cpu", "--toy", "--images", "1", "--captions", "1", "--repeats", "1", "--out", str(results))
    ways = ("fused", "fused, 8 warps", "fused, 3 stages")
    values = written(kernels, results / "kernels-cpu.json", monkeypatch, *toy, "--ways", *ways)
    assert [row["way"] for row in values["ways"]] == 2 * list(ways)
    assert all(row["largest_difference"] < 0.02 for row in values["ways"])
    assert launches == 2 * [kernels.LAUNCHES[way] for way in ways]


def test_a_split_is_scored_or_predicted_in_every_precision(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "ROWS", (("bfloat16", "triton"), ("tf32", "eager"), ("float32", "eager")))
    monkeypatch.setattr("tshsr.scoring.fused.interpreted", lambda: False)
    toy = ("--device", "cpu", "--images", "2", "--dim", "8", "--width", "8", "--budgets", "1048576", "--toy")
    values = written(gpu, results / "scale-cpu.json", monkeypatch, *toy)
    rows = [(row["precision"], row["kernel"]) for row in values["rows"]]
    assert rows == [("tf32", "eager"), ("float32", "eager")], "without a GPU the kernels do not apply"
    assert all(row["seconds"] > 0 for row in values["rows"])


def test_a_training_step_is_timed(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_step, "FEATURES", 8)
    monkeypatch.setattr(gpu_step, "RECIPE", "tshsr-flickr8k")
    toy = ("--device", "cpu", "--dim", "8", "--batch", "3", "--repeats", "1")
    values = written(gpu_step, results / "step-cpu.json", monkeypatch, *toy)
    assert [(row["precision"], row["candidates"]) for row in values["gpu_steps"]] == [
        (precision, count) for precision in ("float32", "tf32", "bfloat16") for count in (6, 0)
    ]


def test_the_kernels_move_a_fraction_of_the_bytes(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "SIDE", 4)
    for name in ("COCO", "PHOTOS"):
        monkeypatch.setattr(traffic, name, kernels.tiny(getattr(kernels, name)))
    values = written(traffic, results / "traffic.json", monkeypatch)
    for row in values["traffic"]:
        assert row["kernels"]["bytes"] < row["modules"]["bytes"] / 2
        assert row["kernels"]["launches"] < row["kernels"]["operations"] < row["modules"]["operations"] / 3


def test_a_broadcast_tensor_is_read_once() -> None:
    with traffic.Traffic() as found:
        torch.ones(1, 4).expand(3, 4) * torch.ones(3, 4)
    assert found.operations == 3, "two fills and a product; the view is free"
    assert found.bytes == 4 * (4 + 12 + 4 + 12 + 12)
