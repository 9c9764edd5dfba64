"""Several processes have the loss and the gradients that one process has for the same batch, in float64."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from tests.support import tiny
from tests.support.shared_batches import CASES, CONTROLS, EVERYTHING, Case, by_one_process, measure
from tests.support.tiny_text import save_text
from tests.support.together import together
from tshsr.config.knowledge import KnowledgeConfig
from tshsr.config.models import KINDS, knowledge_of

TOLERANCE = 1e-6
Distances = Mapping[str, float]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Case]:
    """All cases; one of them tunes a text encoder."""
    weights = str(save_text("bert", tmp_path_factory.mktemp("text") / "bert"))
    tuned = replace(tiny.ENCODER, text="pretrained", text_weights=weights, text_tuned_layers=1)
    return {**CASES, "tuned text": Case(tiny.config(encoder=tuned), text=weights)}


@pytest.fixture(scope="module")
def reference(cases: Mapping[str, Case], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process learns."""
    file = tmp_path_factory.mktemp("one") / "learned.pt"
    by_one_process(file, cases)
    return file


@pytest.fixture(scope="module", params=[2, 3])
def distances(
    request: pytest.FixtureRequest, cases: Mapping[str, Case], reference: Path, tmp_path_factory: pytest.TempPathFactory
) -> Distances:
    """Of two and of three processes from one."""
    folder = tmp_path_factory.mktemp("several")
    together(request.param, measure, folder, folder / "distances.json", cases, reference)
    measured: Distances = json.loads((folder / "distances.json").read_text())
    return measured


@pytest.mark.slow  # processes start, and wait for each other
def test_several_processes_learn_as_one(cases: Mapping[str, Case], distances: Distances) -> None:
    assert distances.keys() == {*cases, *CONTROLS}
    assert {name: away for name, away in distances.items() if name in cases and not away <= TOLERANCE} == {}


@pytest.mark.slow
def test_without_a_part_of_the_exchange_they_would_not(distances: Distances) -> None:
    assert {name: distances[name] for name in CONTROLS if not distances[name] > 1000 * TOLERANCE} == {}


def test_every_method_is_compared_with_every_loss() -> None:
    compared = [case.model for case in CASES.values() if case.loss == EVERYTHING and case.hardest and case.candidates]
    assert {model.kind for model in compared} == {*KINDS}
    concepts = [knowledge.method for model in compared if (knowledge := knowledge_of(model)) is not None]
    assert {"none", *concepts} == {*get_args(get_type_hints(KnowledgeConfig)["method"])}
