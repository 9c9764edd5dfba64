"""Extractors by name: the families, and short names for common weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, assert_never, get_args

from tshsr.errors import DataError, SettingsError
from tshsr.features.extractor import Extractor
from tshsr.pretrained.names import VISION_WEIGHTS
from tshsr.scenes.descriptor import EXTRACTOR

Family = Literal["scenes", "grid", "detector", "efficientnet-lite2"]
FAMILIES: tuple[Family, ...] = get_args(Family)
"""Families of extractors."""
WITHOUT_WEIGHTS: tuple[Family, ...] = ("scenes", "efficientnet-lite2")
"""The families that take no weights: they have none, or come with them."""
CHOICES: dict[Family, tuple[str, ...]] = {
    "scenes": (),
    "grid": ("cells",),
    "detector": ("regions", "overlap", "prompt", "features_from"),
    "efficientnet-lite2": ("size", "cells", "windows", "window_size"),
}
"""The options of each family."""
WEIGHTS = {
    **{name: ("grid", place) for name, place in VISION_WEIGHTS.items()},
    "rt-detr": ("detector", "PekingU/rtdetr_v2_r50vd"),
    "owlv2": ("detector", "google/owlv2-base-patch16-ensemble"),
    "grounding-dino": ("detector", "IDEA-Research/grounding-dino-base"),
}
"""Short names: a family, and its default weights on the hub."""


def open_extractor(name: str, *, weights: str | Path | None = None, device: str = "cpu", **choices: Any) -> Extractor:
    """An extractor by its name.

    Args:
        name: A family (scenes, grid, detector, efficientnet-lite2) or a short name of `WEIGHTS`.
        weights: A folder or a name on the Hugging Face hub; grid and detector need it.
        **choices: Options of the family, as in `CHOICES`: cells for grid; regions, overlap, prompt, features_from for
            detector; size, cells, windows, window_size for efficientnet-lite2.

    Raises:
        SettingsError: Where there is no such extractor, it lacks weights, or it has no such option.
        DataError: Where the weights can't be used.
    """
    family, default = WEIGHTS.get(name, (name, None))
    source = default if weights is None else str(weights)
    if family not in FAMILIES:
        raise SettingsError(f"there is no extractor {name!r}; expected one of {', '.join((*FAMILIES, *WEIGHTS))}.")
    unknown = [choice for choice in choices if choice not in CHOICES[family]]
    if unknown or (family in WITHOUT_WEIGHTS and weights is not None):
        known = ", ".join(CHOICES[family]) or "no options and no weights"
        raise SettingsError(f"the extractor {name} has no {(*unknown, 'weights')[0]}; it has {known}.")
    if family not in WITHOUT_WEIGHTS and source is None:
        raise SettingsError(
            f"the extractor {name} needs weights: a folder of a network for transformers, or its name on the hub."
        )
    # Imported here: torch takes seconds to load, which drawing and decoding processes do not need.
    match family:
        case "grid":
            from tshsr.features.backbone import GridExtractor

            return GridExtractor(str(source), device=device, **choices)
        case "detector":
            from tshsr.features.detector import DetectorExtractor

            return DetectorExtractor(str(source), device=device, **choices)
        case "scenes":
            from tshsr.features.scenes import ScenesExtractor

            return ScenesExtractor()
        case "efficientnet-lite2":
            from tshsr.features.efficientnet import EfficientNetExtractor

            return EfficientNetExtractor(device=device, **choices)
        case _:
            assert_never(family)


def rebuild_extractor(name: str, settings: Mapping[str, Any], *, device: str = "cpu") -> Extractor:
    """The extractor that made a store, from its manifest.

    Args:
        name: `Manifest.extractor`.
        settings: `Manifest.settings`.

    Raises:
        DataError: Where another tool made the features, or the weights are missing or have changed.
        SettingsError: Where transformers is not installed.
    """
    if name == EXTRACTOR:
        return open_extractor("scenes")
    family = settings.get("family")
    if family not in FAMILIES:
        raise DataError(
            f"features of {name!r} were made by another tool, which can't be run here on a new picture; "
            "make the store with tshsr features to search with pictures."
        )
    choices = {choice: settings[choice] for choice in CHOICES[family] if choice in settings}
    extractor = open_extractor(family, weights=settings.get("weights"), device=device, **choices)
    if extractor.name != name:
        raise DataError(
            f"{settings.get('weights') or family} now gives features of {extractor.name!r}; the store has those of "
            f"{name!r}. Restore the weights that it was made with; or make the store again, where it is of an earlier "
            "version of tshsr, whose names left out settings such as hidden_act."
        )
    return extractor


def extractor_named(name: str, *, device: str = "cpu") -> Extractor:
    """The extractor of a name alone, such as that of a checkpoint, which has no manifest.

    Raises:
        DataError: Where the name does not say all of its settings, as with weights from a folder or the hub.
        SettingsError: Where a package is missing.
    """
    if name == EXTRACTOR:
        return open_extractor("scenes")
    from tshsr.features.efficientnet import settings_of_name

    settings = settings_of_name(name)
    if settings is None:
        raise DataError(
            f"the extractor {name!r} can't be opened by its name, because its weights are elsewhere; make a store with "
            "tshsr features, and use tshsr index and tshsr serve."
        )
    return rebuild_extractor(name, settings, device=device)
