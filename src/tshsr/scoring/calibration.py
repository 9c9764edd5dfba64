"""Probabilities from scores: a monotone map, fitted on the results of searches and kept beside the weights.

The probability of a pair is that of a match given its score, in a collection where a query has one match:

    ln p / (1 - p) = a ln s - b ln(1 - s) + c + ln (N_0 - 1) / (N - 1)      probabilities (beta calibration)
    ln p / (1 - p) = a s + c + ln (N_0 - 1) / (N - 1)                       other scores (Platt's method)

N_0 and N are the numbers of pictures of the fitted and of the searched collection: a larger one has more wrong pictures
with the same score, and still one match (docs/decisions/0012-probabilities.md).

Beta calibration: Kull, Silva Filho and Flach, AISTATS 2017. Platt: Probabilistic outputs for support vector machines,
1999, also for the smoothed targets. Prior shift: Saerens, Latinne and Decaestecker, Neural Computation 2002.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor

from tshsr.config.strict import STRICT
from tshsr.errors import CheckpointError, InputError, first_invalid, parse_json
from tshsr.files import complete_folder, write_text

LOG = logging.getLogger(__name__)
CALIBRATION = "calibration.json"
"""File of a run or of a flat model folder."""
CONFIG = "config.json"
"""Settings beside the weights."""
WEIGHTS = (Path("best", "model.safetensors"), Path("model.safetensors"))
"""Weights that a calibration belongs to: of a run, of a flat model folder."""
EDGE = 1e-6
"""Scores are kept this far from 0 and 1, where a logarithm is infinite."""
STEPS, TOLERANCE = 100, 1e-10
"""Most Newton steps, and the norm of the gradient at which they end."""

Link = Literal["beta", "platt"]


@dataclass(frozen=True)
class Calibration:
    """A map from scores to probabilities, and what it was fitted on.

    Attributes:
        link: Which of the two formulas.
        low: a, the weight of ln s (beta) or of s (Platt); not negative.
        high: b, the weight of -ln(1 - s); not negative, 0 for Platt.
        intercept: c.
        pictures: N_0, pictures of the collection of the fit.
        candidates: Results per query that entered the fit, the best by v·t.
        data, split: Names of the collection.
        weights: SHA-256 of the weights whose scores these are.
        settings: That of the network's settings, some of which change scores without the weights; empty: unknown.
    """

    __pydantic_config__ = STRICT

    link: Link
    low: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    high: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    intercept: Annotated[float, Field(allow_inf_nan=False)]
    pictures: Annotated[int, Field(ge=2)]
    candidates: Annotated[int, Field(ge=1)]
    data: str
    split: str
    weights: str
    settings: str = ""

    def probability(self, scores: Float[Tensor, "*pairs"], *, pictures: int | None = None) -> Float[Tensor, "*pairs"]:
        """The probability that each pair matches; ranking by it is ranking by score.

        Args:
            scores: Fused scores of the network.
            pictures: N, pictures of the searched collection; None: as many as in the fit.
        """
        s = scores.float()
        if self.link == "beta":
            s = s.clamp(EDGE, 1 - EDGE)
            odds = self.low * s.log() - self.high * torch.log1p(-s)
        else:
            odds = self.low * s
        return torch.sigmoid(odds + self.intercept + self.shift(pictures))

    def shift(self, pictures: int | None) -> float:
        """Ln (N_0 - 1) / (N - 1), the change of the prior log-odds; a collection of one picture counts as two."""
        return 0.0 if pictures is None else math.log((self.pictures - 1) / (max(2, pictures) - 1))

    def save(self, folder: Path) -> None:
        """Write `calibration.json`, atomically.

        Raises:
            DataError: Where the folder cannot be written.
        """
        write_text(folder / CALIBRATION, json.dumps({"version": 1, **asdict(self)}, indent=2) + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> Calibration | None:
        """Read the calibration of a run or of a flat model folder.

        Returns:
            None where there is none, or where it belongs to other weights or settings (with a warning in the log).

        Raises:
            CheckpointError: Where the file is damaged.
        """
        path = Path(folder) / CALIBRATION
        try:
            values = parse_json(path.read_text(encoding="utf-8"))
            version = values.pop("version", None) if isinstance(values, dict) else None
            if version != 1:
                raise CheckpointError(
                    f"{path} has version {version}; expected 1. Delete it and run tshsr calibrate again."
                )
            found = TypeAdapter(cls).validate_python(values)
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise CheckpointError(f"{path}: {first_invalid(error)}; delete it and run tshsr calibrate again.") from None
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{path} cannot be read ({error}); delete it and run tshsr calibrate again."
            ) from None
        if found.weights != weights_digest(Path(folder)):
            LOG.warning("%s is of other weights than those beside it and is not used; run tshsr calibrate again.", path)
            return None
        if found.settings and found.settings != settings_digest(Path(folder)):
            LOG.warning("%s is of other settings than %s has and is not used; run tshsr calibrate again.", path, CONFIG)
            return None
        return found


def settings_digest(folder: Path) -> str:
    """SHA-256 of the network's settings in `config.json`; empty without that file."""
    try:
        values = parse_json((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # who reads the settings themselves refuses them
        return ""
    known = values.get("model") if isinstance(values, dict) else None
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def weights_digest(folder: Path) -> str:
    """SHA-256 of the weights of a run (its best ones) or of a flat model folder; empty without weights."""
    for name in WEIGHTS:
        path = complete_folder(folder / name.parent) / name.name if name.parent.name else folder / name
        if path.is_file():
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
    return ""


def log_odds_terms(scores: np.ndarray, link: Link) -> np.ndarray:
    """The terms of the log-odds that a fit weighs: ln s and -ln(1 - s), or s; pairs x terms, float64."""
    s = np.asarray(scores, np.float64).ravel()
    if link == "platt":
        return s[:, None]
    s = s.clip(EDGE, 1 - EDGE)
    return np.stack([np.log(s), -np.log1p(-s)], axis=1)


def fit_link(scores: np.ndarray, matches: np.ndarray, link: Link) -> tuple[float, float, float]:
    """The parameters a, b, c of the link by maximum likelihood; a and b are not negative.

    A negative weight would rank a lower score above a higher one; such a term is left out and the rest fitted again
    (Kull et al., section 3).

    Raises:
        InputError: Where no pair matches, or all do.
    """
    y = np.asarray(matches, bool).ravel()
    if y.all() or not y.any():
        raise InputError(
            f"{int(y.sum())} of {len(y)} results match; a calibration needs right and wrong results. Use more images."
        )
    terms = log_odds_terms(scores, link)
    kept = list(range(terms.shape[1]))
    weights = fit_logistic(terms, y)
    while kept and (weights[:-1] < 0).any():
        kept.pop(int(weights[:-1].argmin()))
        weights = fit_logistic(terms[:, kept], y)
    full = np.zeros(2)
    full[kept] = weights[:-1]
    return float(full[0]), float(full[1]), float(weights[-1])


def fit_logistic(terms: np.ndarray, matches: np.ndarray) -> np.ndarray:
    """Logistic regression by Newton's method with halved steps.

        minimise  sum_i ln(1 + e^z_i) - t_i z_i,    z = X w + c

    Targets are Platt's: t = (n_+ + 1) / (n_+ + 2) for a match and 1 / (n_- + 2) otherwise, so that weights stay finite
    where scores separate the two.

    Args:
        terms: X, pairs x terms.
        matches: Whether each pair matches.

    Returns:
        The weight of each term, then c.
    """
    x = np.concatenate([terms, np.ones((len(terms), 1))], axis=1)
    right, wrong = int(matches.sum()), int((~matches).sum())
    target = np.where(matches, (right + 1) / (right + 2), 1 / (wrong + 2))

    def loss(weights: np.ndarray) -> float:
        z = x @ weights
        return float((np.logaddexp(0, z) - target * z).mean())

    weights = np.zeros(x.shape[1])
    for _ in range(STEPS):
        p = 1 / (1 + np.exp(-(x @ weights).clip(-500, 500)))
        gradient = x.T @ (p - target) / len(x)
        if np.linalg.norm(gradient) < TOLERANCE:
            break
        curvature = (x * (p * (1 - p))[:, None]).T @ x / len(x)
        step = np.linalg.lstsq(curvature, gradient, rcond=None)[0]  # equal scores make it singular
        size, before = 1.0, loss(weights)
        while size > TOLERANCE and loss(weights - size * step) > before:
            size /= 2
        weights = weights - size * step
    return weights
