"""`tshsr features`: a feature store from a folder of pictures."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tshsr.cli.options import (
    Argument,
    EngineName,
    File,
    Flag,
    Name,
    Shard,
    Workers,
    choose_device,
    chosen_engine,
    load_retriever,
    parse,
)
from tshsr.cli.screen import Screen
from tshsr.errors import SettingsError
from tshsr.files import is_remote, place_of
from tshsr.system import usable_cores

if TYPE_CHECKING:
    from tshsr.data.pictures import SkippedFile
    from tshsr.features.extraction import ExtractionResult
    from tshsr.features.extractor import Extractor

EXAMPLE = "tshsr features PICTURES --extractor scenes --out STORE"
SHOWN = 3
"""Skipped files named on the screen, at most."""


@dataclass(frozen=True)
class Features:
    """Make a feature store of a folder of pictures; run an interrupted command again to continue it."""

    pictures: Annotated[str, Argument("PICTURES", positional=True)]
    """A folder, or a URL such as s3://bucket/pictures, read recursively. Files that are no pictures are skipped and
    listed."""
    out: Annotated[str, Argument("STORE")]
    """Folder of the store."""
    extractor: Annotated[str, Argument("NAME")]
    """efficientnet-lite2 (photographs, comes with its weights), scenes (drawn pictures), grid or detector (with
    --weights), or one of clip, siglip2, dinov2, dinov3, rt-detr, owlv2, grounding-dino, which take weights from the
    hub; or the folder of a run that was trained from pixels, whose vision network then makes the features."""
    weights: Name = None
    """A folder with a network for transformers, or its name on the Hugging Face hub."""
    cells: Annotated[int | None, Argument("N")] = None
    """Rows and columns of regions; default 6 for grid, 0 (no grid) for efficientnet-lite2."""
    size: Annotated[int | None, Argument("PIXELS")] = None
    """efficientnet-lite2: width and height of the network's input; default 416."""
    windows: Literal["none", "pooled", "crops"] | None = None
    """efficientnet-lite2: two halves, four windows of side 0.6 and nine of side 0.45: none, pooled from the pass of the
    whole picture, or crops (default), each of which passes the network by itself."""
    window_size: Annotated[int | None, Argument("PIXELS")] = None
    """efficientnet-lite2: width and height of the network's input for crops; default 192."""
    regions: Annotated[int | None, Argument("N")] = None
    """Detector: boxes per picture, at most; default 36."""
    overlap: Annotated[float | None, Argument("X")] = None
    """Detector: intersection over union above which the lower-scoring of two boxes is dropped; default 0.7."""
    prompt: Annotated[str | None, Argument("TEXT")] = None
    """Detector with a text prompt: phrases with full stops."""
    features_from: Name = None
    """Detector: take features from this network (CLIP, DINOv2, ...), pooled inside the boxes."""
    captions: File = None
    """Captions to train on: lines of picture, tab, caption (and tab, split), or Karpathy's JSON."""
    dtype: Literal["float32", "float16"] = "float32"
    """Precision of the features in the store."""
    batch: int = 16
    """Pictures in a batch of the network."""
    workers: Annotated[int | None, Argument("N")] = None
    """Pictures decoded in parallel, by each worker of an engine; by default one for each processor core, with an engine
    1."""
    engine: EngineName = "none"
    """ray: extract in shards by workers, on the cluster at RAY_ADDRESS or on this machine; a worker that dies is
    replaced, and its shard repeated."""
    engine_workers: Workers = None
    """With --engine ray: number of workers; by default one for each GPU, or as many as the cores allow."""
    shard: Shard = None
    """With --engine ray: pictures of a shard; default 256."""
    device: Name = None
    """cpu, cuda or mps; by default the best one of this machine."""
    quiet: Flag = False
    """Show no progress, neither a bar nor lines."""


def main(arguments: Sequence[str], screen: Screen) -> None:
    """Extract."""
    wanted = parse(Features, "tshsr features", arguments, example=EXAMPLE)
    own = wanted.engine == "none"
    workers = (usable_cores() if own else 1) if wanted.workers is None else wanted.workers
    for name, value in (("batch", wanted.batch), ("workers", workers)):
        if value < 1:
            raise SettingsError(f"--{name} is {value}; expected at least 1.")
    extractor = chosen_extractor(wanted if own else replace(wanted, device="cpu"))  # the workers have their own
    from tshsr.data.picture_captions import read_picture_captions
    from tshsr.features.extraction import extract_folder
    from tshsr.features.shards import ExtractionOptions

    captions = None if wanted.captions is None else partial(read_picture_captions, Path(wanted.captions))
    options = ExtractionOptions(workers, wanted.batch, wanted.dtype)
    if is_remote(wanted.out):
        raise SettingsError(f"--out is {wanted.out}; expected a folder of this machine: copy the store afterwards.")
    chosen = chosen_engine(
        wanted.engine, wanted.engine_workers, wanted.shard, cpus=options.workers, device=wanted.device
    )
    with chosen as engine, screen.progress(quiet=wanted.quiet) as begin:
        done = extract_folder(
            place_of(wanted.pictures),
            Path(wanted.out),
            extractor,
            options=options,
            captions=captions,
            begin=begin,
            engine=engine,
            open_extractor=partial(chosen_extractor, wanted),
        )
    show(screen, Path(wanted.out), extractor, done)


def chosen_extractor(wanted: Features) -> Extractor:
    """The extractor of the options.

    Raises:
        SettingsError: Where there is no such extractor, or it lacks an option.
        DataError: Where a run was trained on features.
    """
    from tshsr.features.catalog import CHOICES, FAMILIES, WEIGHTS, WITHOUT_WEIGHTS, open_extractor

    choices: dict[str, Any] = {
        name: getattr(wanted, name)
        for name in {choice for options in CHOICES.values() for choice in options}
        if getattr(wanted, name) is not None
    }
    if wanted.extractor not in (*FAMILIES, *WEIGHTS) and Path(wanted.extractor).is_dir():
        if unused := [*choices, *(["weights"] if wanted.weights is not None else [])]:
            raise SettingsError(f"--{unused[0].replace('_', '-')} is not for runs: {wanted.extractor} has its own.")
        return load_retriever(wanted.extractor, wanted.device).extractor()
    if wanted.extractor not in (*FAMILIES, *WEIGHTS):
        raise SettingsError(
            f"there is no extractor {wanted.extractor!r}{nearest(wanted.extractor)} The extractors are "
            f"{', '.join((*FAMILIES, *WEIGHTS))}."
        )
    name = "cpu" if wanted.device is None and wanted.extractor in WITHOUT_WEIGHTS else wanted.device
    return open_extractor(wanted.extractor, weights=wanted.weights, device=choose_device(name), **choices)


def nearest(name: str) -> str:
    """The suffix of an error message: the nearest extractor name."""
    from tshsr.features.catalog import FAMILIES, WEIGHTS

    near = difflib.get_close_matches(name.lower(), (*FAMILIES, *WEIGHTS), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else "."


def show(screen: Screen, out: Path, extractor: Extractor, done: ExtractionResult) -> None:
    """The result on the screen."""
    from tshsr.features.resume import SKIPPED

    reused = f", {done.reused:,} of them extracted earlier" if done.reused else ""
    captions = f", {done.captions:,} captions" if done.captions else ""
    screen.say(f"{out}: {done.pictures:,} pictures{reused}, features of {extractor.name}{captions}.")
    show_skipped(screen.say, out / SKIPPED, done.skipped)


def show_skipped(say: Callable[[str], None], listed: Path, skipped: Sequence[SkippedFile]) -> None:
    """The number of skipped files and the first of them; nothing where there are none."""
    if skipped:
        files = "file" if len(skipped) == 1 else "files"
        say(f"{len(skipped):,} {files} skipped, listed in {listed}:")
        for one in skipped[:SHOWN]:
            say(f"  {one.file}: {one.reason}")
        if len(skipped) > SHOWN:
            say("  ...")
