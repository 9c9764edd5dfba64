"""benchmarks.precision: effect of bfloat16 on recalls."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.precision import compared, measured
from benchmarks.tables import precision_table
from tests.support.small_runs import run, small_config, small_split

OWNERS = np.array([0, 0, 1, 2])
EXACT = np.array([[0.9, 0.8, 0.1, 0.1], [0.2, 0.1, 0.7, 0.3], [0.1, 0.2, 0.3, 0.6]], np.float32)


def test_changed_results_are_counted_in_queries() -> None:
    rough = EXACT.copy()
    rough[1, 3] = 0.75  # image 1 and caption 3 are wrong now
    found = compared(EXACT, rough, OWNERS)
    assert found["recalls"] == [100.0] * 6
    assert found["recalls_16"][0] == pytest.approx(100 * 2 / 3)
    assert found["recalls_16"][3] == pytest.approx(75.0)
    assert found["lost_and_gained"] == [[1, 0], [0, 0], [0, 0], [1, 0], [0, 0], [0, 0]]
    assert found["rank_agreement"] == pytest.approx(100 * 5 / 7)
    assert found["max_difference"] == pytest.approx(0.45)


def test_a_run_becomes_a_row_of_the_table(tmp_path: Path) -> None:
    data = small_split(tmp_path, "train"), small_split(tmp_path, "dev", images=6)
    run(small_config(epochs=1), data, tmp_path / "run")
    row = measured("tshsr", tmp_path / "run", data[1])
    assert 0 < row["max_difference"] < 0.05
    assert row["distinct_share"] > 0.9
    made = {"hardware": "a machine", "versions": {"torch": "2"}, "commit": "0" * 40, "command": "x"}
    text = precision_table({"precision": [row], **made})
    assert f"| {row['rsum']:.2f} | {row['rsum_16']:.2f} |" in text
