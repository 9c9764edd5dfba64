"""Networks of `transformers`: loaded from a folder or the hub, with what can go wrong said in one sentence."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tshsr.errors import DataError, SettingsError
from tshsr.features.preparation import Fit, Frame

INSTALL = "pip install 'tshsr[features]'"


def transformers() -> Any:
    """The library, kept from writing on the screen.

    Raises:
        SettingsError: Where it is not installed.
    """
    try:
        import transformers as library
    except ImportError:
        raise SettingsError(f"this extractor needs transformers, which is not installed: {INSTALL}.") from None
    logging: Any = library.utils.logging
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return library


def place_of(weights: str | Path) -> str:
    """A folder as its whole path, so that a store can name it; or the name on the hub."""
    path = Path(weights)
    return str(path.resolve()) if path.exists() else str(weights)


def load_config(weights: str) -> Any:
    """A network's configuration.

    Raises:
        DataError: Where there is none.
    """
    return explained(weights, lambda: transformers().AutoConfig.from_pretrained(weights, trust_remote_code=False))


def load_network(kind: str, weights: str, *, dispensable: str = "nothing") -> tuple[nn.Module, bool]:
    """A network with its weights in float32, for use only.

    Args:
        kind: Which of the Auto classes makes it.
        weights: A folder, or a name on the hub.
        dispensable: The part of the network that may lack its weights.

    Returns:
        The network, and whether all of it is there.

    Raises:
        DataError: Where it can't be loaded, or some of its weights are missing: they would be random.
    """
    auto = getattr(transformers(), kind)
    network, found = explained(
        weights,
        lambda: auto.from_pretrained(weights, dtype=torch.float32, output_loading_info=True, trust_remote_code=False),
    )
    missing = sorted(found["missing_keys"]) + sorted(str(key) for key in found["mismatched_keys"])
    needed = [key for key in missing if not key.startswith(f"{dispensable}.")]
    if needed:
        raise DataError(
            f"{weights} lacks {len(needed)} weights of a {type(network).__name__}, for example {needed[0]}; name "
            "weights that were trained for this kind of network."
        )
    network.eval().requires_grad_(False)
    return network, not missing


def load_frame(weights: str, *, fit: Fit = "stretch", multiple: int = 1) -> Frame:
    """How a network wants its pictures, by its image processor, or by that one's file where it needs torchvision.

    Raises:
        DataError: Where there is none, or it tells no size.
    """
    library = transformers()

    def read() -> Mapping[str, Any]:
        try:
            return library.AutoImageProcessor.from_pretrained(weights, backend="pil").to_dict()  # type: ignore[no-any-return]
        except (ImportError, ValueError):
            return library.ImageProcessingMixin.get_image_processor_dict(weights)[0]  # type: ignore[no-any-return]

    return Frame.of(explained(weights, read), weights, fit=fit, multiple=multiple)


def fingerprint(network: nn.Module, settings: Mapping[str, Any], *, without: str = "nothing") -> str:
    """Ten letters for weights and settings: the same wherever the weights lie and whatever they are called there."""
    digests = []
    for values in (values for key, values in network.state_dict().items() if not key.startswith(f"{without}.")):
        digests.append(hashlib.sha256(values.contiguous().cpu().numpy().tobytes()).hexdigest())
    whole = json.dumps([sorted(digests), settings], sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()[:10]


def explained(weights: str, load: Any) -> Any:
    """What a loading gives, its failure as one sentence.

    Raises:
        DataError: Where it fails.
    """
    try:
        return load()
    except (OSError, ValueError, ImportError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split()).partition(". ")[0].rstrip(".")
        if reason.startswith("Unrecognized configuration class"):
            reason = f"its network is of another kind than {reason.rpartition(' ')[2]}"
        raise DataError(
            f"cannot load {weights}: {reason}. Expected a folder with config.json, model.safetensors and "
            "preprocessor_config.json, or the name of one on the Hugging Face hub."
        ) from error
