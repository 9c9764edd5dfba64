"""A vision network inside a matcher: pixels -> the regions of a grid, with its last blocks trained.

The regions are those of the extractor `grid`: the whole picture, then cells x cells cells in reading order.

Axes: images | height, width (of pixels, or of patches) | regions | features.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tshsr.boxes import grid_boxes, interval_weights
from tshsr.config.models import VisionConfig
from tshsr.data.batches import ImageBatch, PixelBatch
from tshsr.errors import DataError, SettingsError
from tshsr.pretrained.names import VISION_WEIGHTS
from tshsr.pretrained.networks import (
    Preprocessing,
    fingerprint,
    load_config,
    load_network,
    load_preprocessing,
    resolve_weights,
    transformers,
    unusual_settings,
)
from tshsr.pretrained.packages import (
    EFFICIENTNET_LITE2,
    EfficientNetMaps,
    efficientnet_lite2_preprocessing,
    empty_efficientnet_lite2,
    load_efficientnet_lite2,
)

EXPECTED = "expected a vision network such as CLIP, SigLIP or DINOv2 (object detectors go with --extractor detector)."
POOLER = "pooler"
CLIP_KINDS = ("clip", "clip_vision_model", "metaclip_2")
JOINT_KINDS = ("clip", "metaclip_2", "siglip", "siglip2")
"""Kinds of networks with a text encoder in the same space."""
NAFLEX = "siglip2"
"""Kind of network whose input is patches of a picture in its own aspect ratio, and has no fixed size."""
PLACES = ("_name_or_path", "transformers_version")
"""Settings of a network that depend on where it was loaded."""
EFFICIENTNET_LITE2_SIZE = 288
"""Width and height of its input in pixels."""


@dataclass(frozen=True)
class Design:
    """What is needed to build a vision network again, without its weights; `VisionConfig.architecture` as JSON.

    Attributes:
        kind: As in the name of the extractor `grid`.
        network: Its settings, for `transformers`.
        pools: Whether it has a trained pooler.
        projection: Widths of the projection of the pooled output into the space of a text encoder; empty where the
            pooled output lies in it already (SigLIP), None where there is no such space.
    """

    kind: str
    network: Mapping[str, Any]
    preprocessing: Preprocessing
    pools: bool
    projection: tuple[int, int] | tuple[()] | None

    @classmethod
    def of(cls, architecture: Mapping[str, Any]) -> Design:
        """From JSON values."""
        given = dict(architecture["preprocessing"])
        given |= {name: tuple(given[name]) for name in ("mean", "deviation")}
        widths = architecture["projection"]
        return cls(
            kind=architecture["kind"],
            network=architecture["network"],
            preprocessing=Preprocessing(**given),
            pools=architecture["pools"],
            projection=None if widths is None else (widths[0], widths[1]) if widths else (),
        )

    def values(self) -> dict[str, Any]:
        """As JSON values."""
        given = {**self.preprocessing.values(), "mean": list(self.preprocessing.mean)}
        given["deviation"] = list(self.preprocessing.deviation)
        return {
            "kind": self.kind,
            "network": dict(self.network),
            "preprocessing": given,
            "pools": self.pools,
            "projection": None if self.projection is None else list(self.projection),
        }

    def build_projection(self) -> nn.Module | None:
        """The projection, with random weights."""
        if self.projection is None:
            return None
        return nn.Linear(*self.projection, bias=False) if self.projection else nn.Identity()


class VisionEncoder(nn.Module):
    """Pixels -> vision network -> whole picture and mean of each cell: the regions of an `ImageBatch`.

        x_0 = whole( I ),   x_ij = sum_yx area(patch_yx ∩ cell_ij) f_yx( I ) / sum_yx area(patch_yx ∩ cell_ij)

    Joint encoders (CLIP, SigLIP) give the projected vector of each image, too. Of the parameters only those of the last
    `tuned_blocks` blocks, and of what follows them, require gradients; the other parts stay in evaluation mode and
    store no activations.
    """

    def __init__(self, network: nn.Module, projection: nn.Module | None, design: Design, config: VisionConfig) -> None:
        super().__init__()
        self.network, self.projection, self.design, self.config = network, projection, design, config
        depths, self.blocks = parameter_depths(network)
        self.depths = {f"network.{name}": depth for name, depth in depths.items()}
        first = self.blocks - config.tuned_blocks
        for name, parameter in self.named_parameters():
            depth = self.depths.setdefault(name, self.blocks + 1)  # of the projection
            unused = not design.pools and name.startswith(f"network.{POOLER}.")
            trained = config.tuned_blocks > 0 and (depth > first or first <= 0)
            parameter.requires_grad_(trained and not unused)
        if config.gradient_checkpointing:
            for block in find_blocks(network)[1]:
                block.forward = partial(recomputed, type(block).forward, block)
        preprocessing = design.preprocessing
        for name, values in (("mean", preprocessing.mean or (0.0,)), ("deviation", preprocessing.deviation or (1.0,))):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)
        boxes = np.concatenate([np.array([[0, 0, 1, 1]], np.float32), grid_boxes(config.cells)])
        self.register_buffer("boxes", torch.from_numpy(boxes), persistent=False)
        self.mean: Tensor
        self.deviation: Tensor
        self.boxes: Tensor

    @property
    def extractor_name(self) -> str:
        """Name of the extractor `grid` with the current weights."""
        digest = design_fingerprint(self.network, self.design)
        return name_of(self.config, self.design, digest)

    @torch.no_grad()
    def widths(self) -> tuple[int, int]:
        """Width of a region's features and of the projected vectors (0: there are none), by an empty picture."""
        size = self.design.preprocessing
        pixels = torch.zeros(1, 3, size.height, size.width, dtype=torch.uint8, device=self.boxes.device)
        found = self.encode(pixels)
        return found.regions.shape[-1], 0 if found.pooled is None else found.pooled.shape[-1]

    def train(self, mode: bool = True) -> VisionEncoder:
        """Training mode for the trained parts alone: frozen ones keep their statistics and have no dropout."""
        super().train(mode)
        set_training(self.network, mode=mode)
        return self

    def forward(self, batch: PixelBatch) -> ImageBatch:
        """The regions of pictures at the size of the network's input."""
        return self.encode(batch.pixels)

    def encode(self, pixels: UInt8[Tensor, "images 3 height width"]) -> ImageBatch:
        """The regions of pixels."""
        values = (pixels.float() * self.design.preprocessing.scale - self.mean) / self.deviation
        maps, wholes = patch_features(
            self.network,
            {"pixel_values": values},
            kind=self.design.kind,
            pools=self.design.pools,
            where=self.config.weights,
        )
        cells, whole = pool_grid(torch.stack(maps), self.config.cells), torch.stack(wholes)
        regions = torch.cat([whole[:, None], cells], dim=1)
        mask = torch.ones(regions.shape[:2], dtype=torch.bool, device=regions.device)
        pooled = None if self.projection is None else self.projection(whole)
        return ImageBatch.unchecked(regions, mask, self.boxes.expand(len(regions), -1, -1), pooled)

    def rate_factors(self, factor: float, decay: float) -> dict[str, float]:
        """Factor on the learning rate of each trained parameter, by its name in this module.

            factor * decay^(blocks - d)     block d from 1; d = 0 before the first block, d = blocks after the last one

        (Layer-wise decay of BEiT, Bao et al. 2022.)
        """
        return {
            name: factor * decay ** max(self.blocks - self.depths[name], 0)
            for name, parameter in self.named_parameters()
            if parameter.requires_grad
        }


def patch_features(
    network: nn.Module, inputs: Mapping[str, Tensor], *, kind: str, pools: bool, where: str
) -> tuple[list[Tensor], list[Tensor]]:
    """One pass of a vision network.

    Args:
        inputs: By name, with `pixel_values` (images x 3 x height x width, or for NaFlex images x patches x numbers).
        kind: `model_type` of its settings.
        pools: Whether it has a trained pooler.
        where: Its weights, for messages.

    Returns:
        For each picture a map, height x width x features over the whole picture; and a vector, features: the pooled
        output, or the mean of the map.

    Raises:
        DataError: Where the network does not return one vector per patch.
    """
    given = network(**inputs)
    found = getattr(given, "last_hidden_state", None)
    if found is None or found.ndim not in (3, 4):
        raise DataError(f"{where}: a {type(network).__name__} returns no patch features; {EXPECTED}")
    if kind in CLIP_KINDS and isinstance(norm := getattr(network, "post_layernorm", None), nn.Module):
        found = norm(found)  # CLIP normalises its class token alone
    maps = _unfold(network, found, inputs, where)
    pooled = getattr(given, "pooler_output", None) if pools else None
    return maps, [one.mean(dim=(0, 1)) for one in maps] if pooled is None else list(pooled.flatten(1))


def _unfold(network: nn.Module, found: Tensor, inputs: Mapping[str, Tensor], where: str) -> list[Tensor]:
    """Patch vectors as grids: height x width x features per picture.

    Raises:
        DataError: Where their number fits no grid.
    """
    if found.ndim == 4:  # convolutions: pictures x features x height x width
        return list(found.movedim(1, -1))
    if "spatial_shapes" in inputs:
        shapes = inputs["spatial_shapes"].tolist()
        return [row[: y * x].reshape(y, x, -1) for row, (y, x) in zip(found, shapes, strict=True)]
    y, x = _grid(network, found.shape[1], *inputs["pixel_values"].shape[2:], where=where)
    return list(found[:, found.shape[1] - y * x :].reshape(len(found), y, x, -1))


def _grid(network: nn.Module, tokens: int, height: int, width: int, *, where: str) -> tuple[int, int]:
    """Rows and columns of the patches; class and register tokens come before them."""
    patch = getattr(network.config, "patch_size", None)
    if isinstance(patch, int):
        y, x = height // patch, width // patch
        if 0 <= tokens - y * x <= 64:
            return y, x
    side = math.isqrt(tokens)  # networks such as Swin merge patches
    if side * side == tokens and height == width:
        return side, side
    raise DataError(
        f"{where}: a {type(network).__name__} gives {tokens} tokens for {height} x {width} pixels, "
        f"which form no grid; {EXPECTED}"
    )


def pool_grid(
    maps: Float[Tensor, "images height width features"], cells: int
) -> Float[Tensor, "images regions features"]:
    """The mean of feature maps in each of cells x cells cells, row by row: `boxes.pool_boxes` of `boxes.grid_boxes`.

    pooled_ij = sum_yx r_iy c_jx features_yx,     r_iy: share of cell row i in patch row y, c_jx of columns
    """
    edges = np.linspace(0, 1, cells + 1)
    rows, columns = (
        torch.from_numpy(interval_weights(edges[:-1], edges[1:], side)).to(maps.device, maps.dtype)
        for side in maps.shape[1:3]
    )
    return torch.einsum("iy,jx,nyxf->nijf", rows, columns, maps).flatten(1, 2)


def find_blocks(network: nn.Module) -> tuple[str, nn.ModuleList]:
    """The list of the network's blocks (layers, stages), and its name: the module list with the most parameters.

    Raises:
        DataError: Where it has no list of modules.
    """
    lists = {name: module for name, module in network.named_modules() if isinstance(module, nn.ModuleList)}
    if not lists:
        raise DataError(f"a {type(network).__name__} has no list of blocks to train; {EXPECTED}")
    # Of nested lists with equal numbers the outer one, which comes first.
    name = max(lists, key=lambda name: sum(parameter.numel() for parameter in lists[name].parameters()))
    return name, lists[name]


def parameter_depths(network: nn.Module) -> tuple[dict[str, int], int]:
    """Depth of each parameter, and the number of blocks.

    Returns:
        0 for what is registered before the blocks (embeddings), d for block d (from 1), number of blocks + 1 for what
        follows them (norms, poolers).
    """
    prefix, blocks = find_blocks(network)
    depths: dict[str, int] = {}
    depth = 0
    for name, _ in network.named_parameters():
        if name.startswith(f"{prefix}."):
            depth = len(blocks) + 1
            depths[name] = int(name[len(prefix) + 1 :].partition(".")[0]) + 1
        else:
            depths[name] = depth
    return depths, len(blocks)


def set_training(module: nn.Module, *, mode: bool) -> None:
    """Set the mode of a module and its parts.

    Evaluation mode for those whose parameters are all frozen, and for batch normalisation, which keeps the statistics
    of its pretraining: those of small batches are poor, and gradient checkpointing would count every batch twice.
    """
    parameters = list(module.parameters())
    mode = mode and (not parameters or any(parameter.requires_grad for parameter in parameters))
    mode = mode and not isinstance(module, nn.modules.batchnorm._BatchNorm)
    module.training = mode
    for child in module.children():
        set_training(child, mode=mode)


def recomputed(forward: Any, block: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Gradient checkpointing: the output of a block, whose activations the backward pass computes again."""
    if block.training and torch.is_grad_enabled():
        return checkpoint(forward, block, *args, use_reentrant=False, **kwargs)
    return forward(block, *args, **kwargs)


def design_fingerprint(network: nn.Module, design: Design) -> str:
    """Fingerprint of weights, preprocessing and settings: that of the extractor `grid`."""
    settings = {**design.preprocessing.values(), **unusual_settings(network)}
    return fingerprint(network, settings, exclude="nothing" if design.pools else POOLER)


def name_of(config: VisionConfig, design: Design, digest: str) -> str:
    """Name of the extractor `grid` with weights of this fingerprint."""
    return f"grid-{design.kind}-{config.cells}x{config.cells}-{digest}"


@torch.no_grad()
def open_vision(config: VisionConfig) -> tuple[VisionConfig, VisionEncoder]:
    """A network with its pretrained weights, and the settings completed from it.

    Raises:
        SettingsError: Where a library is not installed, or the network's input has no fixed size.
        DataError: Where the weights can't be loaded, or are not those of the fingerprint in the settings.
    """
    network, projection, design = _load(config.weights)
    digest = design_fingerprint(network, design)
    if config.fingerprint not in ("", digest):
        raise DataError(
            f"{config.weights} has the fingerprint {digest}, the settings require {config.fingerprint}; restore those "
            "weights, or leave model.encoder.vision.fingerprint empty, which in earlier versions of tshsr left out "
            "settings such as hidden_act."
        )
    completed = replace(config, fingerprint=digest, architecture=design.values())
    return completed, VisionEncoder(network, projection, design, completed)


def _load(name: str) -> tuple[nn.Module, nn.Module | None, Design]:
    """Network, projection and design of a short name, a folder, or a name on the hub."""
    if name == EFFICIENTNET_LITE2:
        preprocessing = efficientnet_lite2_preprocessing(EFFICIENTNET_LITE2_SIZE)
        design = Design(EFFICIENTNET_LITE2, {}, preprocessing, pools=False, projection=None)
        return EfficientNetMaps(load_efficientnet_lite2()), None, design
    weights = resolve_weights(VISION_WEIGHTS.get(name, name))
    if str(load_config(weights).model_type) == NAFLEX:
        raise SettingsError(
            f"{name} is a network of the NaFlex kind, whose input has no fixed size; training from pixels "
            "requires one with a fixed size, such as siglip2 (google/siglip2-base-patch16-224)."
        )
    kind, network, pools, projection = load_vision(weights)
    if not pools:  # its pooler is missing from the weights, and would be random
        for parameter in getattr(network, POOLER, nn.Identity()).parameters():
            parameter.zero_()
    settings = json.loads(network.config.to_json_string(use_diff=False))
    for place in PLACES:
        settings.pop(place, None)
    widths = (projection.in_features, projection.out_features) if isinstance(projection, nn.Linear) else ()
    design = Design(kind, settings, load_preprocessing(weights), pools, None if projection is None else widths)
    return network, projection, design


def load_vision(weights: str) -> tuple[str, Any, bool, nn.Module | None]:
    """A vision network of `transformers`; of a joint encoder without its text side.

    Returns:
        Its kind, the network, whether it has a trained pooler (a classifier's weights have none), and the projection of
        the pooled output into the space of a text encoder: None without such a space, the identity for SigLIP.

    Raises:
        DataError: Where the weights can't be loaded.
    """
    kind = str(load_config(weights).model_type)
    loaded, pools = load_network("AutoModel", weights, optional=POOLER)
    projection = getattr(loaded, "visual_projection", nn.Identity()) if kind in JOINT_KINDS and pools else None
    return kind, getattr(loaded, "vision_model", loaded), pools, projection


def build_vision(config: VisionConfig) -> VisionEncoder:
    """The network of completed settings with random weights.

    Raises:
        SettingsError: Where a library is not installed.
    """
    design = Design.of(config.architecture)
    if design.kind == EFFICIENTNET_LITE2:
        return VisionEncoder(EfficientNetMaps(empty_efficientnet_lite2()), None, design, config)
    library, settings = transformers(), dict(design.network)
    loaded = library.AutoModel.from_config(library.AutoConfig.for_model(settings.pop("model_type"), **settings))
    return VisionEncoder(getattr(loaded, "vision_model", loaded), design.build_projection(), design, config)
