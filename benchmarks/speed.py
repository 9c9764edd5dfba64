"""Pairs per second at full size against a plain reference, into `benchmarks/results/speed-DEVICE.json`.

    python -m benchmarks.speed
    python -m benchmarks.speed --photos     # the network of tshsr-flickr8k-photos, into speed-photos-DEVICE.json

Package and reference run alternately in one process. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from typing import Any

import torch
import tyro

from benchmarks.tables import RESULTS, update_readme
from tshsr.bench.speed import Name, Workload, bench
from tshsr.files import write_text
from tshsr.system import provenance


@dataclass(frozen=True)
class Speed:
    """Size of the measurement."""

    captions: int = 100
    """Captions, scored with 100 images."""
    repeats: int = 5
    """Repeats of each measurement."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Device of both."""
    photos: bool = False
    """Measure the network of the recipe tshsr-flickr8k-photos, at full size and at that of the recipe."""


RECIPE_SIZE = Workload(regions=16, dim=256, width=32, compared=64)
"""Size of tshsr-flickr8k-photos."""


def main() -> None:
    """Measure, and write the results file and the tables."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    wanted = tyro.cli(Speed, description=__doc__)
    command = f"python -m benchmarks.speed --captions {wanted.captions}" + " --photos" * wanted.photos
    values = {"command": command, **provenance(), **measured(wanted)}
    name = "speed-photos" if wanted.photos else "speed"
    write_text(RESULTS / f"{name}-{wanted.device}.json", json.dumps(values, indent=2) + "\n")
    update_readme()


def measured(wanted: Speed) -> dict[str, Any]:
    """The default networks, or that of the recipe in two sizes."""
    say = logging.getLogger().info
    full = Workload(captions=wanted.captions, repeats=wanted.repeats)
    if not wanted.photos:
        return bench(full, device=wanted.device, announce=say)
    small = replace(RECIPE_SIZE, captions=wanted.captions, repeats=wanted.repeats)
    names: tuple[Name, ...] = ("tshsr_photos",)
    sizes = {"full": full, "recipe": small}
    return {
        "speed_photos": {n: bench(size, names=names, device=wanted.device, announce=say) for n, size in sizes.items()}
    }


if __name__ == "__main__":
    main()
