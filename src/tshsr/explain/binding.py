"""Binding: does the true caption score above a foil with the same words in another order?

Results are shares in 0..1; ties count against the model.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from tshsr.data.dataset import Split
from tshsr.data.truth import Truth
from tshsr.errors import DataError
from tshsr.explain.pointing_game import chunks, encode_pairs, pointing_accuracy
from tshsr.metrics.report import PointingAndBinding
from tshsr.models.base import ItemEncoding
from tshsr.retriever import Retriever


def pointing_and_binding(retriever: Retriever, split: Split, truth: Truth) -> PointingAndBinding:
    """Pointing accuracy (methods with traces) and binding accuracy (truth with foils).

    Raises:
        DataError: Where the truth belongs to other data.
    """
    if len(truth.regions_of_word) != len(split.captions):
        raise DataError(
            f"the truth of {split.data}, split {split.name} is of {len(truth.regions_of_word)} captions; the split has "
            f"{len(split.captions)}. Generate the data again."
        )
    pointing = pointing_accuracy(retriever, split, truth)
    if not truth.foils:
        return PointingAndBinding(pointing=pointing or None)
    wins = foils_beaten(retriever, split, truth)
    binding = {name: float(won.mean()) for name, won in wins.items()}
    kinds = np.array([foil.kind for foil in truth.foils])
    by_kind = {str(kind): float(wins["fused"][kinds == kind].mean()) for kind in np.unique(kinds)}
    return PointingAndBinding(pointing=pointing or None, binding=binding, binding_by_kind=by_kind)


def foils_beaten(retriever: Retriever, split: Split, truth: Truth) -> dict[str, Bool[np.ndarray, " foils"]]:
    """Whether the true caption scores strictly higher than each foil for the same image.

    A foil has (nearly) the words of the true caption, but binds attributes to other objects or reverses a relation.

    Returns:
        By score name, True for each foil that scores lower; False where a score is not finite.

    Raises:
        DataError: Where the truth has no foils.
    """
    foils = truth.foils
    if not foils:
        raise DataError("the truth has no foils; binding needs at least one. Was the split written without them?")
    wins: dict[str, list[np.ndarray]] = {}
    for rows in chunks(np.arange(len(foils))):
        chunk = [foils[int(row)] for row in rows]
        numbers = np.array([foil.image for foil in chunk])
        true = [split.captions[foil.caption] for foil in chunk]
        images, texts = encode_pairs(retriever, split, numbers, true + [foil.text for foil in chunk])
        true_scores = _scores(retriever, images, texts[: len(chunk)])
        foil_scores = _scores(retriever, images, texts[len(chunk) :])
        for name, score in true_scores.items():
            wins.setdefault(name, []).append((score > foil_scores[name]).cpu().numpy())
    return {name: np.concatenate(parts) for name, parts in wins.items()}


def _scores(retriever: Retriever, images: ItemEncoding, texts: ItemEncoding) -> dict[str, Tensor]:
    with torch.inference_mode():
        return retriever.matcher.score_pairs(images, texts)
