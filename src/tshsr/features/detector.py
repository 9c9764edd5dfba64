"""Detector extractors: boxes of an object detector, with its query states or another network's map as features.

RT-DETR, DETR, D-FINE, YOLOS and similar ones (`AutoModelForObjectDetection`), OWLv2 (class-agnostic, by its
objectness) and Grounding DINO (with a text prompt).

Axes of arrays: queries | features; boxes x1, y1, x2, y2 as fractions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tshsr.boxes import centre_to_corners, non_maximum_suppression, pool_boxes
from tshsr.errors import DataError, SettingsError
from tshsr.features.backbone import Backbone
from tshsr.features.extractor import WHOLE, PictureRegions
from tshsr.pretrained.networks import (
    Fit,
    fingerprint,
    load_config,
    load_network,
    load_preprocessing,
    load_tokenizer,
    resolve_weights,
    unusual_settings,
)

PROMPT = "person. animal. vehicle. furniture. food. plant. building. sign. toy. clothing. object."
"""Default text prompt: phrases, each with a full stop."""
OWLV2 = "owlv2"
PROMPTED = ("grounding-dino", "mm-grounding-dino")
"""Kinds of detectors with a text prompt, whose logits are over its tokens instead of classes."""


@dataclass(frozen=True, eq=False)
class Detections:
    """Detections of one picture, one per query, unordered.

    Attributes:
        boxes: float32, queries x 4, as fractions of the network's input.
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
        prompt: Text prompt of detectors that take one; None for `PROMPT`.

    Raises:
        SettingsError: Where transformers is not installed, or the detector takes no prompt.
        DataError: Where the weights can't be used, or are no detector's.
    """

    def __init__(self, weights: str, prompt: str | None, device: str) -> None:
        self.weights, self.prompt, self.device = resolve_weights(weights), PROMPT if prompt is None else prompt, device
        config = load_config(self.weights)
        self.kind = str(config.model_type)
        self.prompted = self.kind in PROMPTED
        if prompt is not None and not self.prompted:
            raise SettingsError(
                f"prompt is {prompt!r}, but {self.weights} is a {self.kind}, which takes no text prompt; leave the "
                f"prompt out, or take one of {', '.join(PROMPTED)}."
            )
        patch = getattr(config, "patch_size", None)
        fit: Fit = "square" if self.kind == OWLV2 else "stretch"
        self.preprocessing = load_preprocessing(self.weights, fit=fit, multiple=patch if isinstance(patch, int) else 1)
        zero_shot = self.prompted or self.kind == OWLV2
        auto = "AutoModelForZeroShotObjectDetection" if zero_shot else "AutoModelForObjectDetection"
        network, _ = load_network(auto, self.weights)
        self.network = network.to(device)
        self.prompt_tokens = self._tokenize_prompt() if self.prompted else {}

    @cached_property
    def fingerprint(self) -> str:
        """Of the weights, the preprocessing, the prompt and unusual settings."""
        settings = {**self.preprocessing.values(), **({"prompt": self.prompt} if self.prompted else {})}
        return fingerprint(self.network, settings | unusual_settings(self.network))

    def _tokenize_prompt(self) -> dict[str, Tensor]:
        tokenizer = load_tokenizer(self.weights)
        return {name: values.to(self.device) for name, values in tokenizer(self.prompt, return_tensors="pt").items()}

    @torch.inference_mode()
    def detect(self, pixels: Sequence[np.ndarray]) -> list[Detections]:
        """Detections in preprocessed pictures of one shape.

        Args:
            pixels: Each 3 x height x width.

        Raises:
            DataError: Where the network returns no features of its queries.
        """
        inputs = torch.from_numpy(np.stack(pixels)).to(self.device)
        boxes, scores, features = self._objectness(inputs) if self.kind == OWLV2 else self._queries(inputs)
        if features is None or features.shape[:2] != boxes.shape[:2]:
            raise DataError(f"{self.weights}: a {type(self.network).__name__} returns no features of its queries.")
        return [
            Detections(centre_to_corners(box), score.clip(1e-6), feature)
            for box, score, feature in zip(
                *(each.float().cpu().numpy() for each in (boxes, scores, features)), strict=True
            )
        ]

    def _queries(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Boxes (by centre and size), scores and last hidden states of the queries."""
        prompt = {name: values.expand(len(inputs), -1) for name, values in self.prompt_tokens.items()}
        found: Any = self.network(pixel_values=inputs, **prompt)
        queries = found.logits.shape[1]
        hidden = getattr(found, "last_hidden_state", None)
        if hidden is not None and hidden.ndim == 3:  # YOLOS puts its query tokens after the patches
            hidden = hidden[:, hidden.shape[1] - queries :]
        return found.pred_boxes, self._scores(found.logits), hidden

    def _scores(self, logits: Tensor) -> Tensor:
        """Each query's probability of its best class."""
        config: Any = self.network.config
        if not self.prompted and logits.shape[-1] == config.num_labels + 1:  # the last class is "nothing"
            return logits.softmax(dim=-1)[..., :-1].amax(dim=-1)
        return logits.sigmoid().amax(dim=-1)

    def _objectness(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """OWLv2's boxes (by centre and size), objectness, and embeddings in the joint space with text."""
        network: Any = self.network
        found, _ = network.image_embedder(inputs)
        patches = found.flatten(1, 2)
        _, embeddings = network.class_predictor(patches)
        return network.box_predictor(patches, found), network.objectness_predictor(patches).sigmoid(), embeddings


@dataclass(frozen=True, eq=False)
class Prepared:
    """One preprocessed picture.

    Attributes:
        pixels: The detector's input: float32, 3 x height x width.
        size: Width and height of the picture, in pixels.
        backbone: The backbone's inputs, where there is one.
    """

    pixels: np.ndarray
    size: tuple[int, int]
    backbone: dict[str, np.ndarray] | None


class DetectorExtractor:
    """The whole picture, and a detector's boxes after class-agnostic non-maximum suppression.

    Args:
        weights: Of the detector: a folder, or a name on the Hugging Face hub.
        regions: Largest number of boxes, in addition to that of the whole picture.
        overlap: Intersection over union above which the weaker of two boxes is dropped.
        prompt: Text prompt of a detector that takes one; None for `PROMPT`.
        features_from: Weights of a vision network, whose map is pooled inside the boxes; None for the detector's own
            query states.

    Raises:
        SettingsError: Where a number is out of range, the detector takes no prompt, or transformers is not installed.
        DataError: Where the weights can't be used.
    """

    in_processes = False

    def __init__(
        self,
        weights: str,
        *,
        regions: int = 36,
        overlap: float = 0.7,
        prompt: str | None = None,
        features_from: str | None = None,
        device: str = "cpu",
    ) -> None:
        if regions < 1:
            raise SettingsError(f"regions is {regions}; expected at least 1 box per picture.")
        if not 0 < overlap <= 1:
            raise SettingsError(f"overlap is {overlap:g}; expected more than 0 and at most 1.")
        self.boxes, self.overlap = regions, overlap
        self.detector = Detector(weights, prompt, device)
        self.backbone = None if features_from is None else Backbone(features_from, device)
        # Run once now, so that an unsuitable network is refused at once.
        self.joint_dim = 0 if self.backbone is None else self.backbone.joint_dim
        self.feature_dim = self.extract([Image.new("RGB", (64, 64))])[0].features.shape[1]

    @cached_property
    def name(self) -> str:
        """The networks, the number of regions, the overlap, and the fingerprints."""
        other = "" if self.backbone is None else f"-{self.backbone.kind}-{self.backbone.fingerprint}"
        return f"detector-{self.detector.kind}-{self.boxes}-{self.overlap:g}-{self.detector.fingerprint}{other}"

    @property
    def settings(self) -> dict[str, Any]:
        """JSON values, enough to build the extractor again."""
        values = {
            "family": "detector",
            "weights": self.detector.weights,
            "regions": self.boxes,
            "overlap": self.overlap,
        }
        if self.detector.prompted:
            values["prompt"] = self.detector.prompt
        return values if self.backbone is None else {**values, "features_from": self.backbone.weights}

    @property
    def regions(self) -> int:
        """Maximum number of regions per picture."""
        return self.boxes + 1

    def prepare(self, picture: Image.Image) -> Prepared:
        """The networks' inputs for one RGB picture."""
        other = None if self.backbone is None else self.backbone.prepare(picture)
        return Prepared(self.detector.preprocessing.apply(picture), picture.size, other)

    def compute(self, prepared: Sequence[Prepared]) -> list[PictureRegions]:
        """The regions of prepared pictures; the detector takes those of one shape together, without padding."""
        by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for number, one in enumerate(prepared):
            by_shape[one.pixels.shape].append(number)
        found: dict[int, PictureRegions] = {}
        for numbers in by_shape.values():
            found |= zip(numbers, self._detect([prepared[number] for number in numbers]), strict=True)
        return [found[number] for number in range(len(prepared))]

    def extract(self, pictures: Sequence[Image.Image]) -> list[PictureRegions]:
        """The regions of RGB pictures."""
        return self.compute([self.prepare(picture) for picture in pictures])

    def _detect(self, prepared: Sequence[Prepared]) -> list[PictureRegions]:
        regions = []
        for one, found in zip(prepared, self.detector.detect([one.pixels for one in prepared]), strict=True):
            boxes = self.detector.preprocessing.boxes_on_picture(found.boxes, one.size)
            kept = non_maximum_suppression(boxes, found.scores, overlap=self.overlap, most=self.boxes)
            boxes, joint = np.concatenate([np.array([WHOLE], np.float32), boxes[kept]]), None
            if self.backbone is None:
                weights = found.scores / found.scores.sum()
                features = np.concatenate([(weights @ found.features)[None], found.features[kept]])
            else:
                feature_map = self.backbone.maps([one.backbone or {}])[0]
                joint = feature_map.joint
                features = np.concatenate([feature_map.whole[None], pool_boxes(feature_map.patches, boxes[1:])])
            regions.append(PictureRegions(features.astype(np.float32), boxes, joint))
        return regions
