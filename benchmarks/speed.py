"""Pairs per second at full size against a plain reference, into `benchmarks/results/speed-DEVICE.json`.

    python -m benchmarks.speed

Package and reference run alternately in one process. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass

import torch
import tyro

from benchmarks.tables import RESULTS, update_readme
from tshsr.bench.speed import Workload, bench
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


def main() -> None:
    """Measure, and write the results file and the tables."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    wanted = tyro.cli(Speed, description=__doc__)
    found = bench(
        Workload(captions=wanted.captions, repeats=wanted.repeats),
        device=wanted.device,
        announce=logging.getLogger().info,
    )
    values = {"command": f"python -m benchmarks.speed --captions {wanted.captions}", **provenance(), **found}
    write_text(RESULTS / f"speed-{wanted.device}.json", json.dumps(values, indent=2) + "\n")
    update_readme()


if __name__ == "__main__":
    main()
