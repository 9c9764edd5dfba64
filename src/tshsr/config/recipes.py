"""Every recipe: settings of a run by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from tshsr.config.baseline_recipes import BASELINES
from tshsr.config.knowledge_recipes import KNOWLEDGE_RECIPES
from tshsr.config.related_recipes import RELATED
from tshsr.config.run import RunConfig
from tshsr.config.tshsr_recipes import (
    tshsr_coco,
    tshsr_coco_bert,
    tshsr_coco_siglip2,
    tshsr_flickr8k,
    tshsr_flickr8k_photos,
    tshsr_flickr30k,
    tshsr_flickr30k_bert,
    tshsr_flickr30k_clip,
    tshsr_scenes,
)
from tshsr.errors import SettingsError

RECIPES: dict[str, Callable[[], RunConfig]] = {
    "tshsr-flickr30k": tshsr_flickr30k,
    "tshsr-coco": tshsr_coco,
    "tshsr-flickr30k-bert": tshsr_flickr30k_bert,
    "tshsr-coco-bert": tshsr_coco_bert,
    "tshsr-flickr30k-clip": tshsr_flickr30k_clip,
    "tshsr-coco-siglip2": tshsr_coco_siglip2,
    "tshsr-flickr8k": tshsr_flickr8k,
    "tshsr-flickr8k-photos": tshsr_flickr8k_photos,
    "tshsr-scenes": tshsr_scenes,
    **{make().recipe: make for make in (*BASELINES, *RELATED, *KNOWLEDGE_RECIPES)},
}
"""Every recipe by its name on the command line."""


def recipe(name: str) -> RunConfig:
    """The settings of a recipe.

    Raises:
        SettingsError: For an unknown name, with the nearest known one.
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=1)
        hint = f"; did you mean {near[0]}?" if near else "."
        raise SettingsError(f"there is no recipe {name!r}{hint} The recipes are {', '.join(RECIPES)}.")
    return RECIPES[name]()
