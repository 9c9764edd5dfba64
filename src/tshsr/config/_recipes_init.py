"""Recipes: functions that return one complete run; any field can be overridden on the command line.

The Flickr30K and COCO recipes have the full size of the field (D 1024, m 256, batch 128). Those data sets cannot be had
where this was built: the recipes are tested on files of the same layout, and their results are unknown to us.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable

from tshsr.config.recipes_baselines import BASELINES
from tshsr.config.recipes_tshsr import tshsr_coco, tshsr_flickr8k, tshsr_flickr30k, tshsr_scenes
from tshsr.config.run import RunConfig
from tshsr.errors import SettingsError

RECIPES: dict[str, Callable[[], RunConfig]] = {
    "tshsr-flickr30k": tshsr_flickr30k,
    "tshsr-coco": tshsr_coco,
    "tshsr-flickr8k": tshsr_flickr8k,
    "tshsr-scenes": tshsr_scenes,
    **{make().recipe: make for make in BASELINES},
}
"""Every recipe by its name on the command line."""


def recipe(name: str) -> RunConfig:
    """The run that a recipe's name stands for.

    Raises:
        SettingsError: For an unknown name, with the nearest known one.
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=1)
        hint = f"; did you mean {near[0]}?" if near else "."
        raise SettingsError(f"there is no recipe {name!r}{hint} The recipes are {', '.join(RECIPES)}.")
    return RECIPES[name]()
