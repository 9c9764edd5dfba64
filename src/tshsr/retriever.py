"""A trained network as a Python object: `Retriever.from_pretrained(...)` encodes and scores images and captions.

retriever = Retriever.from_pretrained("runs/flickr30k")
retriever.score(features, ["a dog runs", "two people talk"])      # images x captions
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from huggingface_hub import ModelCard, ModelHubMixin, snapshot_download
from huggingface_hub.constants import ENDPOINT
from huggingface_hub.errors import HFValidationError
from jaxtyping import Float
from torch import Tensor

from tshsr.config.models import EncoderConfig
from tshsr.config.run import RunConfig
from tshsr.data.arrays import as_array
from tshsr.data.batches import ImageBatch
from tshsr.data.dataset import Split
from tshsr.data.text import TOKENIZER
from tshsr.data.tokens import CaptionTokenizer
from tshsr.errors import CheckpointError, DataError, InputError
from tshsr.features.catalog import extractor_named
from tshsr.features.extractor import Extractor
from tshsr.features.pixels import VisionExtractor, with_own_regions
from tshsr.files import complete_folder, explained, replacing_folder
from tshsr.models.base import ItemEncoding, Matcher, StreamTrace, join_encodings
from tshsr.pretrained.pieces import TEXT_FOLDER
from tshsr.pretrained.text_weights import install_command
from tshsr.scoring.all_pairs import ENCODE_BLOCK, blocks, score_encoded
from tshsr.scoring.calibration import CALIBRATION, Calibration, settings_digest, weights_digest
from tshsr.scoring.options import BYTE_BUDGET
from tshsr.system import is_reachable
from tshsr.training.checkpoints import CONFIG, WEIGHTS, Which, load_run, save_model
from tshsr.training.state import BEST, LAST, STATE

FILES = [CONFIG, TOKENIZER, WEIGHTS, CALIBRATION, f"{TEXT_FOLDER}/*"]
"""Files of a model on the hub."""
CARD = """---
{{ card_data }}
---

# {{ name }}

A network for image-text matching, saved by `tshsr`.

```python
import tshsr

retriever = tshsr.load("OWNER/NAME")
retriever.score(features, ["a dog runs", "two people talk"])  # images x captions
```

- Recipe: `{{ recipe }}`
- Region features: those of the extractor `{{ extractor }}`
- Text: {{ text }}
"""
"""Template of the model card."""
SAVED = (CONFIG, WEIGHTS, TOKENIZER, TEXT_FOLDER, CALIBRATION, "README.md")
"""Names in a saved model that the next saving writes anew; what else lies there stays."""
Images = ImageBatch | np.ndarray | Split
"""A batch; an array images x regions x features (or regions x features: one image); or a split."""

Captions = str | Sequence[str]


class Retriever(ModelHubMixin, library_name="tshsr", tags=["image-text-matching"], model_card_template=CARD):
    """A trained network with its tokenizer and settings, in evaluation mode and without gradients.

    Args:
        name: Name in reports.

    Attributes:
        calibration: Turns fused scores into probabilities; None for a network without `tshsr calibrate`.
    """

    calibration: Calibration | None = None

    def __init__(self, matcher: Matcher, tokenizer: CaptionTokenizer, config: RunConfig, name: str) -> None:
        self.matcher = matcher.eval()
        self.tokenizer = tokenizer
        self.config = config
        self.name = name

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        **model_kwargs: Any,
    ) -> Self:
        """Load a run of `tshsr train`, a folder that `save_pretrained` wrote, or a model of the Hugging Face hub.

        Args:
            pretrained_model_name_or_path: The folder, or "owner/name" on the hub.
            force_download: Ignore the download cache (hub).
            token: Access token (hub).
            cache_dir: Folder of the download cache (hub).
            local_files_only: Use the download cache only (hub).
            revision: Branch, tag or commit (hub).
            model_kwargs: `which="last"` loads the latest weights of a run instead of its best ones.

        Raises:
            CheckpointError: Where there is no such folder or model, or it is incomplete or damaged.
            SettingsError: Where its settings can't be read.
            DataError: Where its tokenizer can't be read.
        """
        # Not the mixin's method, which reads config.json by its own rules first.
        return cls._from_pretrained(
            model_id=str(pretrained_model_name_or_path),
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
            **model_kwargs,
        )

    @classmethod
    def _from_pretrained(cls, *, model_id: str, which: Which = "best", **download: Any) -> Self:
        try:
            folder = complete_folder(Path(model_id).expanduser())
            here = folder.exists()
        except (OSError, RuntimeError, ValueError) as error:  # too long, of an unknown user, with a NUL
            raise CheckpointError(f"{model_id!r} is no name of a folder ({error}); name a run's folder.") from None
        name = folder.resolve().name if here else model_id
        place = folder if here else _download(model_id, download)
        config, tokenizer, matcher = load_run(place, which)
        retriever = cls(matcher, tokenizer, config, name)
        if which == "best":  # the weights that a calibration belongs to
            retriever.calibration = Calibration.load(place)
        return retriever

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> str | None:
        """Write the settings, the tokenizer, the weights and a model card into a folder.

        A model that is there already is replaced as a whole, with its card; other files stay.

        Args:
            kwargs: Of `huggingface_hub.ModelHubMixin.save_pretrained`, such as `push_to_hub=True, repo_id=...`.

        Raises:
            CheckpointError: Where the folder is a run of `tshsr train`, or a part of one.
            DataError: Where the folder cannot be written, or holds a model and the working folder.
        """
        folder = Path(save_directory)
        is_run = any(complete_folder(folder / which).exists() for which in (BEST, LAST))
        if is_run or (complete_folder(folder) / STATE).exists():
            raise CheckpointError(
                f"{folder} is a run of `tshsr train`, or a part of one; save the model to another folder."
            )
        before = complete_folder(folder)
        if not (before / CONFIG).exists():
            return self._save_files(folder, **kwargs)
        pushed = {"repo_id": folder.resolve().name, **kwargs} if kwargs.get("push_to_hub") else kwargs
        with replacing_folder(folder.resolve()) as partial:
            for entry in before.iterdir():
                if entry.name not in SAVED:
                    copy_entry(entry, partial / entry.name)
            return self._save_files(partial, **pushed)

    def _save_files(self, folder: Path, **kwargs: Any) -> str | None:
        """Write into a folder, new or made for this.

        Raises:
            DataError: Where it cannot be written.
        """
        with explained(folder):
            return super().save_pretrained(folder, **kwargs)

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """The card of `save_pretrained`: use, recipe, features, and what reads the captions."""
        fields = {
            "name": self.name,
            "recipe": self.config.recipe,
            "extractor": self.config.extractor,
            "text": describe_text(self.config.model.encoder),
        }
        return super().generate_model_card(*args, **{**fields, **kwargs})

    def _save_pretrained(self, save_directory: Path) -> None:
        save_model(save_directory, self.config, self.tokenizer, self.matcher)
        if self.calibration is not None:
            weights, settings = weights_digest(save_directory), settings_digest(save_directory)
            replace(self.calibration, weights=weights, settings=settings).save(save_directory)

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return next(self.matcher.parameters()).device

    def to(self, device: torch.device | str) -> Self:
        """Move the network, and a frozen text encoder; encodings are on its device."""
        self.matcher.to(device)
        self.tokenizer.to(device)
        return self

    @cached_property
    def features_of(self) -> str:
        """Name of the extractor of the features that the network reads; with a vision network, its own features."""
        vision = self.matcher.vision
        return self.config.extractor if vision is None else vision.extractor_name

    def check_extractor(self, extractor: str) -> None:
        """Refuse features of another extractor than that of the training data.

        Raises:
            DataError: Where they differ; the message names both extractors.
        """
        if extractor == self.features_of:
            return
        if self.matcher.vision is not None:
            raise DataError(
                f"{self.name} reads features of its own vision network ({self.features_of!r}), these are of "
                f"{extractor!r}; make features with tshsr features --extractor RUN, or give the pictures."
            )
        raise DataError(
            f"{self.name} was trained on features of {self.features_of!r}, these are of {extractor!r}; "
            "extract the pictures with the former, or train on the latter."
        )

    def readable(self, split: Split) -> Split:
        """A split with features that the network reads: the split itself, or computed from its pictures.

        Raises:
            DataError: Where the features are of another extractor and there is no vision network, or no pictures.
        """
        if self.matcher.vision is None:
            self.check_extractor(split.extractor)
        return with_own_regions(split, self.matcher.vision)

    def extractor(self) -> VisionExtractor:
        """The vision network of a run that was trained from pixels, as an extractor.

        Raises:
            DataError: Where the run was trained on features.
        """
        if self.matcher.vision is None:
            raise DataError(
                f"{self.name} was trained on features of {self.features_of!r} and has no vision network; make features "
                "with that extractor."
            )
        return VisionExtractor(self.matcher.vision, self.name)

    @torch.inference_mode()
    def encode_images(
        self,
        images: Images,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        boxes: np.ndarray | None = None,
        parts: bool = False,
    ) -> ItemEncoding:
        """Encode images, `ENCODE_BLOCK` at a time.

        Args:
            images: A batch, an array of features, or a split.
            indices: Row numbers of images of a split; None: all.
            boxes: For an array of features: x1, y1, x2, y2 of each region, as fractions of the picture.
            parts: Keep what explanations need to split v·t by regions (`Matcher.with_parts`).

        Raises:
            DataError: Where a split's features are of another extractor, or can't be read.
            InputError: Where an array has a wrong shape, or values that are not finite.
        """
        encoded = []
        for batch in self._batches(images, indices, boxes):
            encoding = self.matcher.encode_images(batch)
            encoded.append(self.matcher.with_parts(encoding, batch) if parts else encoding)
        return join_encodings(encoded)

    @torch.inference_mode()
    def encode_captions(self, captions: Captions, *, parts: bool = False) -> ItemEncoding:
        """Encode captions (one string is one caption).

        Args:
            parts: As in `encode_images`.

        Raises:
            InputError: Where there is no caption, or one has no word.
        """
        tokens = self.tokenizer.encode([captions] if isinstance(captions, str) else captions)
        if not len(tokens):
            raise InputError("there are no captions to encode; give at least one.")
        encoded = []
        for rows in blocks(np.arange(len(tokens)), ENCODE_BLOCK):
            batch = tokens.read(rows).to(self.device)
            encoding = self.matcher.encode_captions(batch)
            encoded.append(self.matcher.with_parts(encoding, batch) if parts else encoding)
        return join_encodings(encoded)

    def score(
        self, images: Images | ItemEncoding, captions: Captions | ItemEncoding, *, byte_budget: int = BYTE_BUDGET
    ) -> Float[Tensor, "images captions"]:
        """The fused score of every image with every caption; pass encodings to avoid encoding a side again.

        Args:
            byte_budget: Bound on the temporaries, in bytes.

        Raises:
            InputError: As in `encode_images` and `encode_captions`.
        """
        return score_encoded(self.matcher, *self._encoded(images, captions), byte_budget=byte_budget)["fused"]

    def score_pair(self, image: Images | ItemEncoding, caption: str | ItemEncoding) -> dict[str, float]:
        """All scores of one image with one caption, by name: `fused`, and those of streams and levels.

        Raises:
            InputError: Where there is not exactly one of each.
        """
        encoded = self._encoded(image, caption)
        if len(encoded[0]) != 1 or len(encoded[1]) != 1:
            raise InputError(f"expected one image and one caption; got {len(encoded[0])} and {len(encoded[1])}.")
        return {name: float(scores) for name, scores in score_encoded(self.matcher, *encoded).items()}

    @torch.inference_mode()
    def trace(self, images: Images | ItemEncoding, captions: Captions | ItemEncoding) -> dict[str, StreamTrace]:
        """The trace of each stream for pairs of images and captions with equal index.

        Encodings with `parts` split v·t by regions and words also where it is pooled by channel.

        Raises:
            InputError: Where the numbers of images and captions differ.
        """
        encoded = self._encoded(images, captions, parts=True)
        if len(encoded[0]) != len(encoded[1]):
            got = f"{len(encoded[0])} images, {len(encoded[1])} captions"
            raise InputError(f"expected one caption for each image; got {got}.")
        return self.matcher.trace(*encoded)

    def _encoded(
        self, images: Images | ItemEncoding, captions: Captions | ItemEncoding, *, parts: bool = False
    ) -> tuple[ItemEncoding, ItemEncoding]:
        """Both sides encoded, on the network's device."""
        left = images if isinstance(images, ItemEncoding) else self.encode_images(images, parts=parts)
        right = captions if isinstance(captions, ItemEncoding) else self.encode_captions(captions, parts=parts)
        return left.to(self.device), right.to(self.device)

    def _batches(
        self, images: Images, indices: Sequence[int] | np.ndarray | None, boxes: np.ndarray | None
    ) -> Iterable[ImageBatch]:
        """Images as batches on the network's device."""
        if isinstance(images, Split):
            images = self.readable(images)
            chosen = np.arange(len(images.regions)) if indices is None else np.asarray(indices)
            if chosen.size and chosen.dtype.kind not in "iu":
                raise InputError(
                    f"indices are of type {chosen.dtype}; expected row numbers, such as np.flatnonzero of a mask."
                )
            for start in range(0, max(1, len(chosen)), ENCODE_BLOCK):
                yield images.regions.read(chosen[start : start + ENCODE_BLOCK]).to(self.device)
            return
        if indices is not None:
            raise InputError("indices choose images of a split; of a batch or an array, give only the images wanted.")
        batch = images if isinstance(images, ImageBatch) else as_batch(images, boxes)
        for start in range(0, len(batch), ENCODE_BLOCK):
            yield batch.rows(start, start + ENCODE_BLOCK).to(self.device)


def copy_entry(source: Path, target: Path) -> None:
    """Copy a file, a folder, or a link as a link, wherever it leads."""
    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copy2(source, target, follow_symlinks=False)


def describe_text(encoder: EncoderConfig) -> str:
    """The line of a model card that says what reads the captions, and what must be installed for it."""
    if encoder.text != "pretrained":
        return f"a vocabulary of {encoder.vocabulary:,} tokens, `{TOKENIZER}`"
    name = Path(encoder.text_weights).name if Path(encoder.text_weights).is_absolute() else encoder.text_weights
    read = f"layers {', '.join(map(str, encoder.text_layers))}; " if encoder.text_layers else ""
    if encoder.text_tuned_layers:
        return (
            f"the text encoder `{name}`, tuned ({read}last layers: {encoder.text_tuned_layers}), part of these "
            f"weights; its configuration and tokenizer are in `{TEXT_FOLDER}/`. Requires `{install_command(name)}`."
        )
    return (
        f"states of the frozen text encoder `{name}` ({read}fingerprint `{encoder.text_fingerprint}`), which is needed "
        f"to read captions and is **not part of these files**. Requires `{install_command(name)}`."
    )


def as_batch(features: np.ndarray, boxes: np.ndarray | None = None, pooled: np.ndarray | None = None) -> ImageBatch:
    """An array of features as a batch without padding.

    Args:
        features: Images x regions x features, or regions x features: one image.
        boxes: Optional, with the same leading axes: x1, y1, x2, y2 as fractions of the picture.
        pooled: Optional image vectors, images x joint, or joint: one image.

    Raises:
        InputError: Where a shape is wrong, or a value is not finite.
    """
    values = as_array(features)
    one = values.ndim == 2
    regions = torch.from_numpy(np.array(values[None] if one else values, np.float32))
    given = (None if each is None else as_array(each) for each in (boxes, pooled))
    places, vectors = (
        None if each is None else torch.from_numpy(np.array(each[None] if one else each, np.float32)) for each in given
    )
    return ImageBatch(regions, torch.ones(regions.shape[:2], dtype=torch.bool), places, vectors)


def extractor_of(retriever: Retriever) -> Extractor:
    """The extractor of the features that a network reads: its own vision network, or one that its name describes.

    Raises:
        DataError: Where the weights of the extractor are elsewhere.
        SettingsError: Where a package of the extractor is missing.
    """
    if retriever.matcher.vision is not None:
        return retriever.extractor()
    return extractor_named(retriever.features_of, device=str(retriever.device))


def _download(model_id: str, download: dict[str, Any]) -> Path:
    """Download a model of the hub; returns its folder.

    Raises:
        CheckpointError: Where the name is a missing path, or the hub has no such model or can't be reached.
    """
    is_path = model_id.startswith((".", "/", "~")) or "\\" in model_id or model_id.count("/") != 1
    if is_path or Path(model_id).parent.is_dir():  # runs/frist, where runs/ exists, is a typo and no owner on the hub
        raise CheckpointError(f"{model_id} does not exist; expected a run's folder, or owner/name on the hub.")
    if not download.get("local_files_only") and not is_reachable(ENDPOINT):
        download = {**download, "local_files_only": True}
    try:
        # The user may name a revision among `download`.
        return Path(snapshot_download(model_id, allow_patterns=FILES, **download))  # nosec B615
    except (OSError, HFValidationError) as error:
        raise CheckpointError(
            f"{model_id} is no folder here, and the Hugging Face hub returned no model of this name "
            f"({type(error).__name__}); check the name, or the connection."
        ) from error
