"""Shapes stand in the signatures; this switches their checking on for the mathematics while the tests run."""

from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

CHECKED = (
    "tshsr.models",
    "tshsr.explain.attribution",
    "tshsr.explain.binding",
    "tshsr.explain.pointing_game",
    "tshsr.training.hard_captions",
    "tshsr.training.losses",
    "tshsr.training.negatives",
    "tshsr.training.objective",
)
"""Packages and modules whose shape annotations are checked while the tests run."""
pytest_plugins = ["tests.support.fixtures"]

install_import_hook(
    CHECKED,
    "beartype.beartype",
)

SHARED = Path(__file__).parent.parent.parent / "shared"


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _bfloat16_is_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests of bfloat16 measure it on every processor, also without instructions for it."""
    monkeypatch.setattr("tshsr.scoring.precision.product_speed", lambda *_: 1.0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real data beside the checkout; tests on it are skipped where it is missing."""
    if not SHARED.is_dir():
        pytest.skip("the folder of shared data is not beside this checkout")
    return SHARED
