"""Calibration: from scores to probabilities that query and candidate belong together, kept with the model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from tshsr.errors import CheckpointError

CALIBRATION = "calibration.json"
"""File of a run's folder."""


@dataclass(frozen=True)
class Calibration:
    """Platt scaling (Platt 1999): p = sigmoid( a s + b )."""

    a: float
    b: float

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """The calibration of a run or of a flat model folder; None where it has none.

        Raises:
            CheckpointError: Where the file is damaged.
        """
        path = folder / CALIBRATION
        if not path.is_file():
            return None
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls(float(values["a"]), float(values["b"]))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise CheckpointError(f"{path} is damaged ({error}); calibrate the model again, or remove it.") from None

    def probability(self, scores: Float[Tensor, "*pairs"]) -> Float[Tensor, "*pairs"]:
        """Probabilities of fused scores."""
        return torch.sigmoid(self.a * scores + self.b)
