"""Tiny networks of `transformers` with random weights, saved as a user would find them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

transformers: Any = pytest.importorskip("transformers", reason="transformers is not installed (extra features)")
LAYERS = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION = {**LAYERS, "image_size": 56, "patch_size": 14}
WORDS = {**LAYERS, "vocab_size": 99, "bos_token_id": 1, "eos_token_id": 2}
DETECTION = {"d_model": 32, "encoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_queries": 20}
STAGES = {"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "layer_type": "basic"}
EDGES = {"shortest_edge": 64, "longest_edge": 96}
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", "object", "person", "animal"]
GRIDS = ("clip", "siglip", "siglip2", "dinov2", "dinov3", "vit", "convnext", "swin")
DETECTORS = ("detr", "rt-detr", "yolos", "owlv2", "grounding-dino")


def save(kind: str, folder: Path) -> Path:
    """A tiny network of a kind, with its image processor, in a new folder."""
    torch.manual_seed(0)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    network, processor = NETWORKS[kind]()
    with torch.no_grad():
        for name, values in network.named_parameters():
            if "bbox" in name or "box_head" in name:  # so that boxes differ, as those of a trained network do
                values.copy_(torch.randn_like(values) * 0.3)
    network.save_pretrained(folder)
    if processor is None:  # it needs torchvision; this is what its file looks like
        values = {"image_processor_type": "DINOv3ViTImageProcessorFast", "size": {"height": 56, "width": 56}}
        values |= {"do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4], "resample": 2}
        (folder / "preprocessor_config.json").write_text(json.dumps(values))
    else:
        processor.save_pretrained(folder)
    if kind == "grounding-dino":
        (folder / "vocab.txt").write_text("\n".join(VOCABULARY))
        transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def clip() -> tuple[Any, Any]:
    config = transformers.CLIPConfig(vision_config=VISION, text_config=WORDS, projection_dim=16)
    size = {"height": 56, "width": 56}
    return transformers.CLIPModel(config), transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 56}, crop_size=size
    )


def metaclip2() -> tuple[Any, Any]:
    config = transformers.MetaClip2Config(vision_config=VISION, text_config=WORDS, projection_dim=16)
    return transformers.MetaClip2Model(config), transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}
    )


def siglip() -> tuple[Any, Any]:
    network = transformers.SiglipModel(transformers.SiglipConfig(vision_config=VISION, text_config=WORDS))
    return network, transformers.SiglipImageProcessorPil(size={"height": 56, "width": 56})


def siglip2() -> tuple[Any, Any]:
    vision = {**LAYERS, "patch_size": 14, "num_patches": 64}
    network = transformers.Siglip2Model(transformers.Siglip2Config(vision_config=vision, text_config=WORDS))
    return network, transformers.Siglip2ImageProcessorPil(patch_size=14, max_num_patches=64)


def dinov2() -> tuple[Any, Any]:
    config = transformers.Dinov2Config(**{**VISION, "mlp_ratio": 2})
    size = {"height": 56, "width": 56}
    return transformers.Dinov2Model(config), transformers.BitImageProcessorPil(
        size={"shortest_edge": 64}, crop_size=size
    )


def dinov3() -> tuple[Any, Any]:
    return transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**VISION, num_register_tokens=4)), None


def vit() -> tuple[Any, Any]:
    """A classifier: what AutoModel makes of it lacks the pooler's weights."""
    network = transformers.ViTForImageClassification(transformers.ViTConfig(**VISION))
    return network, transformers.ViTImageProcessorPil(size={"height": 56, "width": 56})


def convnext() -> tuple[Any, Any]:
    config = transformers.ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], image_size=64)
    return transformers.ConvNextModel(config), transformers.ConvNextImageProcessorPil(size={"shortest_edge": 64})


def swin_config(**changes: Any) -> Any:
    return transformers.SwinConfig(
        image_size=64, embed_dim=8, depths=[1, 1, 1], num_heads=[1, 2, 4], window_size=4, **changes
    )


def swin() -> tuple[Any, Any]:
    return transformers.SwinModel(swin_config()), transformers.ViTImageProcessorPil(size={"height": 64, "width": 64})


def detr() -> tuple[Any, Any]:
    backbone = transformers.ResNetConfig(**STAGES, out_features=["stage4"])
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "decoder_layers": 1, "num_labels": 5}
    own = {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None, "backbone_config": backbone}
    config = transformers.DetrConfig(**own, **heads, **DETECTION)
    return transformers.DetrForObjectDetection(config), transformers.DetrImageProcessorPil(size=EDGES)


def rt_detr() -> tuple[Any, Any]:
    backbone = transformers.RTDetrResNetConfig(**STAGES, out_features=["stage2", "stage3", "stage4"])
    config = transformers.RTDetrConfig(
        backbone_config=backbone,
        encoder_hidden_dim=32,
        encoder_in_channels=[16, 24, 32],
        encoder_attention_heads=4,
        decoder_in_channels=[32, 32, 32],
        decoder_layers=1,
        decoder_attention_heads=4,
        num_denoising=0,
        num_labels=5,
        **DETECTION,
    )
    return transformers.RTDetrForObjectDetection(config), transformers.RTDetrImageProcessorPil(
        size={"height": 64, "width": 64}
    )


def yolos() -> tuple[Any, Any]:
    config = transformers.YolosConfig(
        **LAYERS, image_size=[64, 64], patch_size=16, num_detection_tokens=20, num_labels=5
    )
    return transformers.YolosForObjectDetection(config), transformers.YolosImageProcessorPil(size=EDGES)


def owlv2() -> tuple[Any, Any]:
    vision = {**LAYERS, "image_size": 64, "patch_size": 16}
    config = transformers.Owlv2Config(vision_config=vision, text_config=WORDS, projection_dim=32)
    return transformers.Owlv2ForObjectDetection(config), transformers.Owlv2ImageProcessorPil(
        size={"height": 64, "width": 64}
    )


def grounding_dino() -> tuple[Any, Any]:
    words = {**LAYERS, "hidden_size": 16, "vocab_size": 120}
    config = transformers.GroundingDinoConfig(
        backbone_config=swin_config(out_features=["stage1", "stage2", "stage3"]),
        text_config=transformers.BertConfig(**words),
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        decoder_layers=2,
        num_feature_levels=4,
        **DETECTION,
    )
    return transformers.GroundingDinoForObjectDetection(config), transformers.GroundingDinoImageProcessorPil(size=EDGES)


NETWORKS = {
    "clip": clip,
    "metaclip2": metaclip2,
    "siglip": siglip,
    "siglip2": siglip2,
    "dinov2": dinov2,
    "dinov3": dinov3,
    "vit": vit,
    "convnext": convnext,
    "swin": swin,
    "detr": detr,
    "rt-detr": rt_detr,
    "yolos": yolos,
    "owlv2": owlv2,
    "grounding-dino": grounding_dino,
}
