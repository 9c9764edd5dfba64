"""Shapes stand in the signatures; this switches their checking on for the mathematics while the tests run."""

from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

install_import_hook(
    [
        "tshsr.alignment",
        "tshsr.encoders",
        "tshsr.explain",
        "tshsr.losses",
        "tshsr.mining",
        "tshsr.models",
        "tshsr.normalisation",
        "tshsr.objective",
        "tshsr.pooling",
        "tshsr.probes",
        "tshsr.reasoning",
        "tshsr.similarity",
        "tshsr.swaps",
    ],
    "beartype.beartype",
)

SHARED = Path(__file__).parent.parent.parent / "shared"


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real data beside the checkout; tests on it are skipped where it is missing."""
    if not SHARED.is_dir():
        pytest.skip("the folder of shared data is not beside this checkout")
    return SHARED
