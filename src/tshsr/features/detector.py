"""Detector extractors: the boxes of an object detector, with its own queries or another network's map as features.

RT-DETR, DETR, D-FINE, YOLOS and their like (`AutoModelForObjectDetection`), OWLv2 (by its objectness, without words)
and Grounding DINO (with words). Axes of arrays: queries | features, boxes x1, y1, x2, y2 in fractions.
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

from tshsr.boxes import best_distinct, corners, pool_inside
from tshsr.errors import DataError, SettingsError
from tshsr.features.backbone import Backbone
from tshsr.features.extractor import WHOLE, PictureRegions
from tshsr.features.networks import (
    Fit,
    download_options,
    explained,
    fingerprint,
    load_config,
    load_frame,
    load_network,
    place_of,
    transformers,
)

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
        options, auto = download_options(self.weights), transformers().AutoTokenizer
        tokenizer = explained(self.weights, lambda: auto.from_pretrained(self.weights, **options))
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


@dataclass(frozen=True, eq=False)
class Prepared:
    """One picture as the networks take it.

    Attributes:
        pixels: The detector's input: float32, 3 x height x width.
        size: Width and height of the picture.
        backbone: The other network's inputs, where there is one.
    """

    pixels: np.ndarray
    size: tuple[int, int]
    backbone: dict[str, np.ndarray] | None


class DetectorExtractor:
    """The whole picture, and the best boxes that differ, whatever their class.

    Args:
        weights: Of the detector: a folder, or a name on the Hugging Face hub.
        regions: The most boxes that are kept; the whole picture comes to them.
        overlap: A box is left out where its intersection over union with a better one is larger.
        prompt: What a detector that is asked in words looks for; its usual phrases without it.
        features_from: Weights of a vision network, whose map is pooled inside the boxes; the detector's own queries
            without it.
        device: Where the networks compute.

    Raises:
        SettingsError: Where a number is out of range, a prompt is given to a detector that is not asked in words, or
            transformers is not installed.
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
            raise SettingsError(f"regions is {regions}; expected at least 1 box a picture.")
        if not 0 < overlap <= 1:
            raise SettingsError(f"overlap is {overlap:g}; expected more than 0 and at most 1.")
        self.boxes, self.overlap = regions, overlap
        self.detector = Detector(weights, prompt, device)
        self.backbone = None if features_from is None else Backbone(features_from, device)
        # Looked at now, so that an unfit network is refused at once.
        self.feature_dim = self.extract([Image.new("RGB", (64, 64))])[0].features.shape[1]

    @cached_property
    def name(self) -> str:
        """The networks, the number of regions, and the fingerprints of all that features depend on."""
        other = "" if self.backbone is None else f"-{self.backbone.kind}-{self.backbone.fingerprint}"
        return f"detector-{self.detector.kind}-{self.boxes}-{self.overlap:g}-{self.detector.fingerprint}{other}"

    @property
    def settings(self) -> dict[str, Any]:
        """JSON values, enough to build the extractor again."""
        own = {"family": "detector", "weights": self.detector.weights, "regions": self.boxes, "overlap": self.overlap}
        if self.detector.asked:
            own["prompt"] = self.detector.prompt
        return own if self.backbone is None else {**own, "features_from": self.backbone.weights}

    @property
    def regions(self) -> int:
        """The most regions that a picture gets."""
        return self.boxes + 1

    def prepare(self, picture: Image.Image) -> Prepared:
        """The networks' inputs for one RGB picture."""
        other = None if self.backbone is None else self.backbone.prepare(picture)
        return Prepared(self.detector.frame.lay(picture), picture.size, other)

    def compute(self, prepared: Sequence[Prepared]) -> list[PictureRegions]:
        """The regions of prepared pictures; those of one shape go through the detector together, without padding."""
        alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for number, one in enumerate(prepared):
            alike[one.pixels.shape].append(number)
        found: dict[int, PictureRegions] = {}
        for numbers in alike.values():
            found |= zip(numbers, self._detect([prepared[number] for number in numbers]), strict=True)
        return [found[number] for number in range(len(prepared))]

    def extract(self, pictures: Sequence[Image.Image]) -> list[PictureRegions]:
        """The regions of RGB pictures."""
        return self.compute([self.prepare(picture) for picture in pictures])

    def _detect(self, prepared: Sequence[Prepared]) -> list[PictureRegions]:
        regions = []
        for one, found in zip(prepared, self.detector.detect([one.pixels for one in prepared]), strict=True):
            boxes = self.detector.frame.onto_picture(found.boxes, one.size)
            kept = best_distinct(boxes, found.scores, overlap=self.overlap, most=self.boxes)
            boxes = np.concatenate([np.array([WHOLE], np.float32), boxes[kept]])
            if self.backbone is None:
                weights = found.scores / found.scores.sum()
                features = np.concatenate([(weights @ found.features)[None], found.features[kept]])
            else:
                seen = self.backbone.maps([one.backbone or {}])[0]
                features = np.concatenate([seen.whole[None], pool_inside(seen.patches, boxes[1:])])
            regions.append(PictureRegions(features.astype(np.float32), boxes))
        return regions
