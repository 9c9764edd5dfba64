"""The built-in data: generated pictures of coloured shapes, with captions that are known to be true.

`world` samples what is in a scene, `drawing` paints it, `meaning` and `grammar` caption it, `regions` and `descriptor`
stand in for a detector, `generate` makes one scene of all that. This module makes a feature store of many.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np

from tshsr.data.truth import Foil, Truth, write_truth
from tshsr.errors import DataError, SettingsError
from tshsr.files import replacing_folder
from tshsr.scenes.descriptor import CONTEXT, CROP, EXTRACTOR
from tshsr.scenes.generate import Job, MadeScene, run_job
from tshsr.scenes.world import SIDE
from tshsr.system import Progress, end_with_parent, no_progress, usable_cores

CHUNK = 50
"""Scenes a job."""
WORKSHOP = ".scenes-"
"""How the names of unfinished folders in the cache begin; host and process follow."""
STILL = 3600.0
"""Seconds without a change after which an unfinished folder is nobody's."""
LOG = logging.getLogger(__name__)


def make_scenes(
    folder: str | Path,
    *,
    train: int = 3000,
    dev: int = 500,
    test: int = 500,
    seed: int = 0,
    processes: int | None = None,
    progress: Progress = no_progress,
) -> Path:
    """Generate scenes as a feature store with the splits train, dev and test.

    The same sizes and seed give the same bytes, whatever the number of processes. The folder appears when everything
    is in it.

    Args:
        folder: Must be missing or empty.
        train: Number of training scenes, each with five captions.
        dev: Number of dev scenes.
        test: Number of test scenes; a fifth of them form pairs of twins that differ in one swapped property.
        seed: Other seeds give other scenes.
        processes: How many draw; None takes one for each processor core.
        progress: Called after every few scenes.

    Returns:
        The folder.

    Raises:
        SettingsError: Where a number is out of range.
        DataError: Where the folder is not empty or cannot be written.
    """
    folder = Path(folder)
    sizes = {"train": train, "dev": dev, "test": test}
    check_settings(sizes, seed, processes)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} is already there and not empty; name a new folder for the scenes, or remove it.")
    with replacing_folder(folder) as partial:
        pictures = partial / "pictures"
        pictures.mkdir()
        jobs = [
            Job(seed, split, start, min(start + CHUNK, size), pictures)
            for split, size in sizes.items()
            for start in range(0, size, CHUNK)
        ]
        made: list[MadeScene] = []
        for scenes in run_jobs(jobs, processes or usable_cores()):
            made += scenes
            progress(len(made), sum(sizes.values()))
        write_scenes(partial, made)
    return folder


def scenes_folder(
    *, train: int = 3000, dev: int = 500, test: int = 500, seed: int = 0, progress: Progress = no_progress
) -> Path:
    """Where the generated scenes are cached; generates them when they are not there yet, telling the progress.

    The place is $XDG_CACHE_HOME (or ~/.cache) `/tshsr/scenes-v1-SIZES-SEED`. When two processes come at once, both
    generate, and the first one to finish wins.

    Raises:
        SettingsError: Where a number is out of range.
        DataError: Where the folder cannot be written.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tshsr"
    folder = cache / f"scenes-v1-{train}-{dev}-{test}-{seed}"
    if folder.is_dir():
        return folder
    LOG.info("drawing %d scenes into %s", train + dev + test, folder)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        remove_leftovers(cache)
        prefix = f"{WORKSHOP}{socket.gethostname()}-{os.getpid()}-"
        with tempfile.TemporaryDirectory(dir=cache, prefix=prefix) as workshop:
            place = Path(workshop) / folder.name
            made = make_scenes(place, train=train, dev=dev, test=test, seed=seed, progress=progress)
            if not folder.is_dir():
                made.rename(folder)
    except OSError as error:
        if not folder.is_dir():  # else another process was faster
            raise DataError(
                f"Cannot write {folder}: {error.strerror}. Set XDG_CACHE_HOME to another folder."
            ) from error
    return folder


def remove_leftovers(cache: Path) -> None:
    """Delete what killed generations left in the cache."""
    for workshop in cache.glob(f"{WORKSHOP}*"):
        if is_left(workshop):
            LOG.info("removing %s, which a generation that was killed left", workshop)
            shutil.rmtree(workshop, ignore_errors=True)


def is_left(workshop: Path) -> bool:
    """Whether nobody works in a folder any more: its process has ended, or nothing in it has changed for an hour.

    Other machines that share the cache have processes that can't be seen from here; their folders are given the hour.
    """
    host, _, process = workshop.name.removeprefix(WORKSHOP).rpartition("-")[0].rpartition("-")
    if host == socket.gethostname() and os.name == "posix":  # elsewhere the question would stop the process
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            return True
        except (PermissionError, ValueError):  # another user's, or a name that is not ours
            pass
    try:
        changed = max(path.stat().st_mtime for path in (workshop, *workshop.rglob("*")))
    except FileNotFoundError:  # it is moving
        return False
    return time.time() - changed > STILL


def check_settings(sizes: dict[str, int], seed: int, processes: int | None) -> None:
    """Refuse numbers that make no data.

    Raises:
        SettingsError: Names the number.
    """
    for split, size in sizes.items():
        if not 0 <= size <= 99_999:
            raise SettingsError(f"{split} is {size} scenes; expected 0 to 99999.")
    if not sum(sizes.values()):
        raise SettingsError("train, dev and test are all 0 scenes; expected at least one scene in all.")
    if seed < 0:
        raise SettingsError(f"seed is {seed}; expected 0 or more.")
    if processes is not None and processes < 1:
        raise SettingsError(f"processes is {processes}; expected at least 1.")


def run_jobs(jobs: list[Job], processes: int) -> Iterator[list[MadeScene]]:
    """Run jobs in some processes; the results come in the order of the jobs."""
    processes = min(processes, len(jobs))
    done = 0
    if processes > 1:
        # Spawned, not forked: a fork would copy the locks of torch's threads.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, mp_context=context, initializer=end_with_parent) as pool:
            try:
                for scenes in pool.map(run_job, jobs):
                    yield scenes
                    done += 1
            except BrokenProcessPool:
                LOG.warning("the drawing processes ended early; going on in this one, which takes longer")
    yield from map(run_job, jobs[done:])


def write_scenes(folder: Path, made: list[MadeScene]) -> None:
    """Write the store and the truth of its splits."""
    from tshsr.data.store import (
        StoreCaption,
        StoreImage,
        write_store,
    )  # needs torch, which drawing processes do without

    splits = [scene.name.split("-")[0] for scene in made]
    write_store(
        folder,
        extractor=EXTRACTOR,
        settings={"crop": CROP, "context": CONTEXT},
        images=[StoreImage(scene.name, f"{scene.name}.png", SIDE, SIDE) for scene in made],
        captions=[
            StoreCaption(f"{scene.name}-{number}", scene.name, text, split)
            for scene, split in zip(made, splits, strict=True)
            for number, text in enumerate(scene.captions)
        ],
        regions=np.stack([scene.features for scene in made]),
        boxes=np.stack([scene.boxes for scene in made]),
    )
    for split in dict.fromkeys(splits):
        write_truth(folder, split, gather_truth(scene for scene, own in zip(made, splits, strict=True) if own == split))


def gather_truth(scenes: Iterable[MadeScene]) -> Truth:
    """The truth of one split's scenes."""
    regions_of_word: list[dict[int, tuple[int, ...]]] = []
    foils: list[Foil] = []
    for image, scene in enumerate(scenes):
        first = len(regions_of_word)
        foils += [Foil(image, first + number, text, kind) for number, kind, text in scene.foils]
        regions_of_word += scene.regions_of_word
    return Truth(tuple(regions_of_word), tuple(foils))
