"""Object detectors of `transformers`: pixels -> boxes, scores and features of all their queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tshsr.errors import DataError, SettingsError
from tshsr.features.boxes import corners
from tshsr.features.networks import (
    explained,
    fingerprint,
    load_config,
    load_frame,
    load_network,
    place_of,
    transformers,
)
from tshsr.features.preparation import Fit

PROMPT = "person. animal. vehicle. furniture. food. plant. building. sign. toy. clothing. object."
"""What detectors that are asked in words look for: phrases, each with a full stop."""
OWLV2 = "owlv2"
ASKED = ("grounding-dino", "mm-grounding-dino")
"""Kinds that are asked in words, with a word of the prompt in the place of a class."""


@dataclass(frozen=True, eq=False)
class Detections:
    """What a detector found in one picture: a row for each query, in no order.

    Attributes:
        boxes: float32, queries x 4, fractions of the network's input.
        scores: float32, queries; above 0.
        features: float32, queries x features.
    """

    boxes: np.ndarray
    scores: np.ndarray
    features: np.ndarray


class Detector:
    """A detector with its weights.

    Args:
        weights: A folder, or a name on the hub.
        prompt: For those that are asked in words; `PROMPT` without it.
        device: Where it computes.

    Raises:
        SettingsError: Where transformers is not installed, or a prompt is given to one that is not asked in words.
        DataError: Where the weights can't be used, or are no detector's.
    """

    def __init__(self, weights: str, prompt: str | None, device: str) -> None:
        self.weights, self.prompt, self.device = place_of(weights), PROMPT if prompt is None else prompt, device
        config = load_config(self.weights)
        self.kind = str(config.model_type)
        self.asked = self.kind in ASKED
        if prompt is not None and not self.asked:
            raise SettingsError(
                f"prompt is {prompt!r}, but {self.weights} is a {self.kind}, which is not asked in words; leave the "
                f"prompt out, or take one of {', '.join(ASKED)}."
            )
        patch = getattr(config, "patch_size", None)
        fit: Fit = "square" if self.kind == OWLV2 else "stretch"
        self.frame = load_frame(self.weights, fit=fit, multiple=patch if isinstance(patch, int) else 1)
        auto = (
            "AutoModelForZeroShotObjectDetection" if self.asked or self.kind == OWLV2 else "AutoModelForObjectDetection"
        )
        network, _ = load_network(auto, self.weights)
        self.network = network.to(device)
        self.question = self._question() if self.asked else {}

    @cached_property
    def fingerprint(self) -> str:
        """Of the weights, the prompt, and how pictures are laid before the network."""
        settings = {**self.frame.values(), **({"prompt": self.prompt} if self.asked else {})}
        return fingerprint(self.network, settings)

    def _question(self) -> dict[str, Tensor]:
        """The prompt in the network's words."""
        tokenizer = explained(self.weights, lambda: transformers().AutoTokenizer.from_pretrained(self.weights))
        return {name: values.to(self.device) for name, values in tokenizer(self.prompt, return_tensors="pt").items()}

    @torch.inference_mode()
    def detect(self, pixels: Sequence[np.ndarray]) -> list[Detections]:
        """What it finds in pictures of one shape (each 3 x height x width).

        Raises:
            DataError: Where the network gives no features of its queries.
        """
        inputs = torch.from_numpy(np.stack(pixels)).to(self.device)
        boxes, scores, features = self._look_for_anything(inputs) if self.kind == OWLV2 else self._look(inputs)
        if features is None or features.shape[:2] != boxes.shape[:2]:
            raise DataError(f"{self.weights}: a {type(self.network).__name__} gives no features of its queries.")
        return [
            Detections(corners(box), score.clip(1e-6), feature)
            for box, score, feature in zip(
                *(each.float().cpu().numpy() for each in (boxes, scores, features)), strict=True
            )
        ]

    def _look(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Boxes (centred), scores and last hidden states of the queries."""
        question = {name: values.expand(len(inputs), -1) for name, values in self.question.items()}
        found: Any = self.network(pixel_values=inputs, **question)
        queries = found.logits.shape[1]
        hidden = getattr(found, "last_hidden_state", None)
        if hidden is not None and hidden.ndim == 3:  # those of YOLOS come after its patches
            hidden = hidden[:, hidden.shape[1] - queries :]
        return found.pred_boxes, self._scores(found.logits), hidden

    def _scores(self, logits: Tensor) -> Tensor:
        """Of each query, how sure it is of its best class."""
        config: Any = self.network.config
        if not self.asked and logits.shape[-1] == config.num_labels + 1:  # the last class is "nothing"
            return logits.softmax(dim=-1)[..., :-1].amax(dim=-1)
        return logits.sigmoid().amax(dim=-1)

    def _look_for_anything(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """OWLv2's boxes (centred), its objectness, and the embeddings that it compares with words."""
        network: Any = self.network
        found, _ = network.image_embedder(inputs)
        patches = found.flatten(1, 2)
        _, embeddings = network.class_predictor(patches)
        return network.box_predictor(patches, found), network.objectness_predictor(patches).sigmoid(), embeddings
