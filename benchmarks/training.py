"""Training with candidates against training with all pairs of a batch: step time, peak memory and quality.

    python -m benchmarks.training --flickr8k DIR

Step times are at full size (D 1024, m 256, batch 128, random features) and at the size of the small recipes; quality
is that of small networks on part of the scenes and of Flickr8k, three seeds each. Finished runs are kept.
"""

from __future__ import annotations

import json
import logging
import statistics
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro

from benchmarks.tables import RESULTS, update_readme
from tshsr.bench.machine import CLEAR, resident
from tshsr.bench.speed import LENGTHS
from tshsr.config.models import TshsrConfig
from tshsr.config.recipes import recipe
from tshsr.config.run import RunConfig
from tshsr.data.batches import CaptionBatch, ImageBatch, pad_sequences
from tshsr.data.layouts import open_split, select_images
from tshsr.files import write_text
from tshsr.models.build import build_matcher
from tshsr.system import keep_freed_memory, provenance, trim
from tshsr.training.fit import fit
from tshsr.training.objective import Objective

LOG = logging.getLogger("benchmarks.training")
BATCH, REGIONS, VOCABULARY = 128, 36, 2000


@dataclass(frozen=True)
class Training:
    """Data and sizes."""

    flickr8k: Path | None = None
    """Folder of Flickr8k; default: scenes alone."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of each run."""
    repeats: int = 5
    """Timed steps of each kind; medians are reported."""
    images: int = 1000
    """Training images of each run."""
    epochs: int = 4
    """Epochs of each run."""
    runs: Path = Path("runs")
    """Folder of the runs."""


def main() -> None:
    """Time steps, train, and write the results file and the table."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    keep_freed_memory()
    settings = tyro.cli(Training, description=__doc__)
    quality = [compare(settings, "tshsr-scenes", "scenes")]
    if settings.flickr8k is not None:
        quality.append(compare(settings, "tshsr-flickr8k", str(settings.flickr8k)))
    sizes = {"tshsr-flickr30k": 2048, "tshsr-flickr8k": 256}
    steps = [time_steps(name, features, settings.repeats) for name, features in sizes.items()]
    command = f"python -m benchmarks.training --flickr8k DIR --images {settings.images}"
    values = {"command": command, **provenance(), "steps": steps, "quality": quality}
    write_text(RESULTS / "training.json", json.dumps(values, indent=2) + "\n")
    update_readme()


def time_steps(name: str, features: int, repeats: int) -> dict[str, Any]:
    """Seconds and peak memory of a step with the recipe's candidates and with all pairs, in turns."""
    config = recipe(name)
    torch.manual_seed(0)
    encoder = replace(config.model.encoder, feature_dim=features, vocabulary=VOCABULARY, boxes=False)
    network = build_matcher(replace(config.model, encoder=encoder)).train()
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-4)
    images, captions = batch(features)
    kinds = {"candidates": config.training.candidates, "all_pairs": 0}
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    peaks = dict.fromkeys(kinds, 0)
    for number in range(repeats + 1):  # the first round warms up and measures memory
        for kind, candidates in kinds.items():
            objective = Objective(network, config.loss, candidates)
            if not number:
                trim()
                CLEAR.write_text("5", encoding="ascii")  # resets VmHWM
            start = time.perf_counter()
            losses = objective(images, captions, torch.arange(BATCH), hardest=True, seed=number)
            losses["loss"].backward()
            optimiser.step()
            optimiser.zero_grad()
            if number:
                seconds[kind].append(time.perf_counter() - start)
            else:
                peaks[kind] = resident("VmHWM")
        LOG.info("%s: round %d", name, number)
    medians = {kind: statistics.median(each) for kind, each in seconds.items()}
    ratios = [slow / fast for slow, fast in zip(seconds["all_pairs"], seconds["candidates"], strict=True)]
    return {
        "recipe": name,
        "batch": BATCH,
        "candidates": kinds["candidates"],
        "seconds": medians,
        "ratio": statistics.median(ratios),
        "ratio_spread": [min(ratios), max(ratios)],
        "peak_bytes": peaks,
    }


def batch(features: int, count: int = BATCH) -> tuple[ImageBatch, CaptionBatch]:
    """Random images and captions of real lengths."""
    generator = torch.Generator().manual_seed(0)
    regions = torch.randn(count, REGIONS, features, generator=generator)
    lengths = [LENGTHS[number % len(LENGTHS)] for number in range(count)]
    rows = [torch.randint(1, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]
    return ImageBatch(regions, torch.ones(count, REGIONS, dtype=torch.bool)), pad_sequences(rows)


def compare(settings: Training, name: str, place: str) -> dict[str, Any]:
    """Dev quality with candidates and with all pairs, over the seeds."""
    base = small(recipe(name), settings.epochs)
    train = select_images(open_split(place, "train"), settings.images)
    dev = select_images(open_split(place, "dev"), 200)
    result: dict[str, Any] = {"data": train.data, "train_images": len(train.regions), "dev_images": len(dev.regions)}
    for kind, candidates in {"candidates": base.training.candidates, "all_pairs": 0}.items():
        rsums, seconds = [], []
        for seed in settings.seeds:
            config = replace(base, training=replace(base.training, seed=seed, candidates=candidates))
            done = fit(config, train=train, dev=dev, out=run_folder(settings, name, kind, seed), resume=True)
            LOG.info("%s, %s, seed %d: dev rSum %.1f in %.0f s", train.data, kind, seed, done.best_rsum, done.seconds)
            rsums.append(done.best_rsum)
            seconds.append(done.seconds)
        result[kind] = {
            "candidates": candidates,
            "dev_rsum": rsums,
            "mean": statistics.mean(rsums),
            "deviation": statistics.stdev(rsums) if len(rsums) > 1 else None,
            "seconds": seconds,
        }
    return result | {"model": asdict(base.model), "seeds": list(settings.seeds)}


def small(config: RunConfig, epochs: int) -> RunConfig:
    """A recipe of TSHSR with smaller widths and fewer epochs."""
    model = config.model
    if not isinstance(model, TshsrConfig):
        raise TypeError(f"{config.recipe} is no recipe of TSHSR")
    encoder = replace(model.encoder, dim=64)
    model = replace(model, encoder=encoder, similarity_dim=16, comparison_dim=32)
    training = replace(config.training, epochs=epochs, evaluate_every=epochs, dev_images=0)
    return replace(config, model=model, training=training, optimiser=replace(config.optimiser, warmup_steps=20))


def run_folder(settings: Training, name: str, kind: str, seed: int) -> Path:
    """Folder of a run."""
    return settings.runs / f"{name}-{kind}-seed{seed}"


if __name__ == "__main__":
    main()
