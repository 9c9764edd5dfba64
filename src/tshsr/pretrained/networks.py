"""Networks of `transformers` from a folder or the hub, their tokenizers, and the preprocessing of pictures."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import nn

from tshsr.errors import DataError, SettingsError, TshsrError, reason_in
from tshsr.files import recorded_path
from tshsr.system import is_reachable

OUTPUT_SETTINGS = ("_act", "activation", "activation_function", "_eps", "_epsilon")
"""Endings of the names of settings that change a network's outputs, beside its weights."""
Fit = Literal["stretch", "keep", "square"]


@dataclass(frozen=True)
class Preprocessing:
    """From a picture to a network's input. Its fields and values enter the fingerprints of extractors.

    Attributes:
        fit: stretch: every picture to height x width; keep: aspect ratio kept, shorter side to `height` unless the
            longer one would pass `width`; square: padded to a square at the right or the bottom, then stretched.
        height: Pixels.
        width: Pixels.
        resample: Pillow's number of the filter.
        scale: Factor of pixel values of 0 to 255.
        mean: Subtracted after scaling, one number per channel; empty for none.
        deviation: Divisor after that, one number per channel; empty for none.
        multiple: With `keep`, both sides are multiples of it, in pixels: a patch embedding drops the remainder.
    """

    fit: Fit
    height: int
    width: int
    resample: int
    scale: float
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    multiple: int = 1

    @classmethod
    def from_processor(
        cls, processor: Mapping[str, Any], where: str, *, fit: Fit = "stretch", multiple: int = 1
    ) -> Preprocessing:
        """From an image processor's settings; a centre crop becomes a stretch to the crop's size.

        Args:
            processor: size, crop_size, do_center_crop, resample, do_normalize, image_mean, ...
            where: The source of the settings, for messages.
            fit: For processors with height and width.
            multiple: For processors with edges.

        Raises:
            DataError: Where they have no size, mean or deviation.
        """
        size = _size(processor.get("size"))
        if processor.get("do_center_crop") and processor.get("crop_size"):
            size = _size(processor["crop_size"])
        if "longest_edge" in size and "shortest_edge" in size:
            fit, height, width = "keep", size["shortest_edge"], size["longest_edge"]
        elif "shortest_edge" in size:
            height = width = size["shortest_edge"]
        elif "height" in size and "width" in size:
            height, width = size["height"], size["width"]
        else:
            raise DataError(f"{where}: the image processor has size {size}; expected height and width, or edges.")
        normal = processor.get("do_normalize", True)
        return cls(
            fit=fit,
            height=height,
            width=width,
            resample=int(Image.Resampling.BILINEAR if processor.get("resample") is None else processor["resample"]),
            scale=float(processor.get("rescale_factor") or 1 / 255) if processor.get("do_rescale", True) else 1.0,
            mean=_channels(processor, "image_mean", where) if normal else (),
            deviation=_channels(processor, "image_std", where) if normal else (),
            multiple=multiple,
        )

    def values(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    def size_for(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the input for a picture of this width and height, in pixels."""
        if self.fit != "keep":
            return self.width, self.height
        scale = min(self.height / min(width, height), self.width / max(width, height))
        sides = (max(1, round(side * scale)) for side in (width, height))
        across, down = (max(side - side % self.multiple, self.multiple) for side in sides)
        return across, down

    def resize(self, picture: Image.Image) -> Image.Image:
        """An RGB picture at the size of the network's input."""
        size = self.size_for(*picture.size)
        if self.fit == "square":
            # The square around a panorama would take gigabytes. Reduced to twice the input's size, the filter gives
            # nearly the same result (Pillow's `reducing_gap`).
            factor = max(picture.size) // (2 * max(self.height, self.width))
            picture = picture.reduce(factor) if factor > 1 else picture
            side = max(picture.size)
            padded = Image.new("RGB", (side, side))
            padded.paste(picture, (0, 0))
            picture = padded
        return picture.resize(size, Image.Resampling(self.resample))

    def apply(self, picture: Image.Image) -> np.ndarray:
        """The network's input for an RGB picture: float32, 3 x height x width."""
        pixels = np.asarray(self.resize(picture), np.float32) * self.scale
        mean, deviation = (np.array(one, np.float32) for one in (self.mean or (0.0,), self.deviation or (1.0,)))
        return np.ascontiguousarray(np.moveaxis((pixels - mean) / deviation, 2, 0), dtype=np.float32)

    def boxes_on_picture(self, boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Boxes as fractions of the input -> fractions of a picture of this width and height, clipped to it."""
        if self.fit == "square":
            boxes = boxes * (max(size) / np.array([*size, *size], np.float32))
        return np.asarray(np.clip(boxes, 0, 1), np.float32)


def _size(given: Any) -> dict[str, int]:
    """A processor's size, a number, height and width, or a mapping, without unset entries."""
    if isinstance(given, int):
        return {"height": given, "width": given}
    if isinstance(given, list | tuple):
        given = dict(zip(("height", "width"), given, strict=True))
    return {name: int(value) for name, value in dict(given or {}).items() if value is not None}


T = TypeVar("T")
LFS = b"version https://git-lfs"
"""Start of a file that Git LFS puts in the place of a large one."""
INSTALL = "pip install 'tshsr[features]'"


def transformers() -> Any:
    """The library, with its log messages and progress bars switched off.

    Raises:
        SettingsError: Where it is not installed.
    """
    try:
        import transformers as library
    except ImportError:
        raise SettingsError(f"a pretrained network needs transformers, which is not installed: {INSTALL}.") from None
    logging: Any = library.utils.logging
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return library


def _channels(processor: Mapping[str, Any], name: str, where: str) -> tuple[float, ...]:
    """A number for each channel.

    Raises:
        DataError: Where there is none.
    """
    values = processor.get(name)
    if not isinstance(values, list | tuple) or not all(isinstance(value, int | float) for value in values):
        raise DataError(f"{where}: the image processor has {name} {values!r:.80}; expected a number for each channel.")
    return tuple(values)


def resolve_weights(weights: str | Path) -> str:
    """The absolute path of a folder, for a store's manifest; or the name on the hub.

    Raises:
        DataError: Where the path is not UTF-8.
    """
    path = Path(weights)
    return recorded_path(path) if path.exists() else str(weights)


def download_options(weights: str) -> dict[str, bool]:
    """Arguments of `from_pretrained`: no download where weights are a folder, or the hub cannot be reached."""
    from huggingface_hub.constants import ENDPOINT

    return {"local_files_only": Path(weights).exists() or not is_reachable(ENDPOINT)}


def load_config(weights: str) -> Any:
    """A network's configuration.

    Raises:
        DataError: Where there is none.
    """
    options = download_options(weights)
    auto = transformers().AutoConfig
    return load_pretrained(weights, lambda: auto.from_pretrained(weights, trust_remote_code=False, **options))


def load_network(kind: str, weights: str, *, optional: str = "nothing") -> tuple[nn.Module, bool]:
    """A network with its weights in float32, in evaluation mode.

    Args:
        kind: Name of its Auto class.
        weights: A folder, or a name on the hub.
        optional: The submodule whose weights may be missing.

    Returns:
        The network, and whether all its weights were there.

    Raises:
        DataError: Where it can't be loaded, or some of its weights are missing: they would be random.
    """
    auto = getattr(transformers(), kind)
    options = {"dtype": torch.float32, "output_loading_info": True, **download_options(weights)}
    network, found = load_pretrained(weights, lambda: auto.from_pretrained(weights, trust_remote_code=False, **options))
    missing = sorted(found["missing_keys"]) + sorted(str(key) for key in found["mismatched_keys"])
    needed = [key for key in missing if not key.startswith(f"{optional}.")]
    if needed:
        raise DataError(
            f"{weights} lacks {len(needed)} weights of a {type(network).__name__}, for example {needed[0]}; name "
            "weights that were trained for this kind of network."
        )
    network.eval().requires_grad_(False)
    return network, not missing


def load_preprocessing(weights: str, *, fit: Fit = "stretch", multiple: int = 1) -> Preprocessing:
    """A network's preprocessing, from its image processor, or from the file of one that requires torchvision.

    Raises:
        DataError: Where there is none, or it has no size.
    """
    library, options = transformers(), download_options(weights)

    def read() -> Mapping[str, Any]:
        try:
            auto = library.AutoImageProcessor
            found = auto.from_pretrained(weights, backend="pil", trust_remote_code=False, **options)
            return found.to_dict()  # type: ignore[no-any-return]
        except (ImportError, ValueError):
            return library.ImageProcessingMixin.get_image_processor_dict(weights, **options)[0]  # type: ignore[no-any-return]

    return load_pretrained(weights, lambda: Preprocessing.from_processor(read(), weights, fit=fit, multiple=multiple))


def fingerprint(network: nn.Module, settings: Mapping[str, Any], *, exclude: str = "nothing") -> str:
    """Ten hexadecimal digits of a hash of weights and settings, independent of paths and tensor names.

    Args:
        network: Its state is hashed.
        settings: JSON values.
        exclude: A submodule whose weights are left out.
    """
    digests = []
    for values in (values for key, values in network.state_dict().items() if not key.startswith(f"{exclude}.")):
        digests.append(hashlib.sha256(values.contiguous().cpu().numpy().tobytes()).hexdigest())
    content = json.dumps([sorted(digests), settings], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:10]


def unusual_settings(network: nn.Module) -> dict[str, Any]:
    """The settings of a network that change its outputs, beside its weights, and differ from those of its class.

    Empty for usual networks, so that they keep the fingerprints of earlier versions.

    Returns:
        Activations, epsilons, and the width of an attention head, by name under `network`.
    """
    config = getattr(network, "config", None)
    found = {} if config is None else _unusual(config)
    return {"network": found} if found else {}


def _unusual(config: Any) -> dict[str, Any]:
    """The outputs' settings of a configuration and its parts, where they are not those of their classes."""
    try:
        usual = _outputs(type(config)())
    except Exception:  # noqa: BLE001 - a class without default settings
        usual = {}
    found = {name: value for name, value in _outputs(config).items() if usual.get(name) != value}
    for name, part in vars(config).items():
        if isinstance(part, transformers().PretrainedConfig):
            found |= {f"{name}.{inner}": value for inner, value in _unusual(part).items()}
    return found


def _outputs(config: Any) -> dict[str, Any]:
    """Activations, epsilons, and the width of an attention head."""
    values = vars(config)
    found = {name: value for name, value in values.items() if name.endswith(OUTPUT_SETTINGS)}
    width = next((values[name] for name in ("hidden_size", "d_model", "embed_dim") if name in values), None)
    for name in values if isinstance(width, int) else ():
        if name.endswith("heads"):
            heads = values[name]
            # Of a list, one number for each stage; networks of all sizes have heads of one width.
            found[name] = [width / one for one in (heads[:1] if isinstance(heads, list | tuple) else [heads]) if one]
    return found


def load_tokenizer(weights: str) -> Any:
    """A network's tokenizer.

    Raises:
        DataError: Where there is none.
    """
    options, auto = download_options(weights), transformers().AutoTokenizer
    return load_pretrained(
        weights,
        lambda: auto.from_pretrained(weights, trust_remote_code=False, **options),
        rules="its tokenizer's files",
    )


def load_pretrained(weights: str, load: Callable[[], T], *, rules: str = "preprocessor_config.json") -> T:
    """The result of `load`, which reads files of a network.

    Args:
        rules: The files, beside configuration and weights, that it needs.

    Raises:
        DataError: Where it fails.
    """
    try:
        return load()
    except (TshsrError, MemoryError):
        raise
    except Exception as error:  # of damaged files, the libraries raise any exception
        reason = reason_in(error).partition(". ")[0].rstrip(".")
        if damaged := _damaged_weights(Path(weights)):
            reason = damaged
        elif not isinstance(error, OSError | ValueError | ImportError | RuntimeError | EOFError):
            reason = f"one of its files is damaged ({type(error).__name__}: {reason:.200})"
        if isinstance(error, pickle.UnpicklingError):  # torch's message recommends unsafe loading
            reason = "its weights have pickled objects other than tensors, which are never loaded"
        if reason.startswith("Unrecognized configuration class"):
            reason = f"its network is of another kind than {reason.rpartition(' ')[2]}"
        raise DataError(
            f"cannot load {weights}: {reason}. Expected a folder with config.json, model.safetensors and "
            f"{rules}, or the name of one on the Hugging Face hub."
        ) from error


def _damaged_weights(folder: Path) -> str:
    """A clause on the first file of weights in a folder that is damaged; empty where there is none."""
    for path in sorted(folder.glob("*.safetensors")) if folder.is_dir() else ():
        with path.open("rb") as file:
            start = file.read(len(LFS))
        if start == LFS:
            return f"{path.name} is a pointer of Git LFS instead of the weights: fetch them with `git lfs pull`"
        try:
            with safe_open(path, "pt"):
                pass
        except SafetensorError as error:
            return (
                f"{path.name} is damaged or cut short ({path.stat().st_size} bytes, {reason_in(error)}): copy it again"
            )
    return ""
