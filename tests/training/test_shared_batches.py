"""Several processes have the loss and the gradients that one process has for the same batch, in float64."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import tiny
from tests.support.shared_batches import CASES, Case, measure
from tests.support.tiny_text import save_text
from tests.support.together import together

pytestmark = pytest.mark.slow  # processes start, and wait for each other
TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def distances(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Of two processes."""
    folder = tmp_path_factory.mktemp("two")
    together(2, measure, folder, folder / "distances.json", CASES)
    measured: dict[str, float] = json.loads((folder / "distances.json").read_text())
    return measured


@pytest.mark.parametrize("case", CASES)
def test_two_processes_learn_as_one(case: str, distances: dict[str, float]) -> None:
    assert distances[case] <= TOLERANCE


def test_without_the_exchange_they_would_not(distances: dict[str, float]) -> None:
    assert distances["without the exchange"] > 1000 * TOLERANCE


def test_three_processes_learn_as_one(tmp_path: Path) -> None:
    weights = str(save_text("bert", tmp_path / "bert"))
    tuned = replace(tiny.ENCODER, text="pretrained", text_weights=weights, text_tuned_layers=1)
    cases = {**CASES, "tuned text": Case(tiny.config(encoder=tuned), text=weights)}
    together(3, measure, tmp_path, tmp_path / "distances.json", cases)
    measured = json.loads((tmp_path / "distances.json").read_text())
    assert measured.pop("without the exchange") > 1000 * TOLERANCE
    assert measured.keys() == cases.keys()
    assert {name: away for name, away in measured.items() if not away <= TOLERANCE} == {}
