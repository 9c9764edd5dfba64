"""The built-in data: a feature store of generated scenes, and its cache.

In `tshsr.scenes`, `world` samples a scene, `drawing` paints it, `meaning` and `grammar` caption it, `descriptor`
replaces a detector's features, and `generate` combines these.
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
from tshsr.files import exclusive_lock, replacing_folder
from tshsr.scenes.descriptor import CONTEXT, CROP, EXTRACTOR
from tshsr.scenes.generate import Chunk, GeneratedScene, generate_chunk
from tshsr.scenes.world import SIDE
from tshsr.system import Progress, end_with_parent, interrupts_held, main_hidden, no_progress, usable_cores

CHUNK_SCENES = 50
"""Scenes per chunk."""
UNFINISHED = ".scenes-"
"""Prefix of unfinished folders in the cache; host and process follow."""
STALE_SECONDS = 3600.0
"""Age of the last change from which an unfinished folder is abandoned, unless its lock is held."""
LOCK = ".lock"
"""Lock file of an unfinished folder."""
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

    The same sizes and seed give the same bytes for any number of processes. The folder is created atomically.

    Args:
        folder: Must be missing or empty.
        train: Number of training scenes, each with five captions.
        test: Number of test scenes; a fifth of them form pairs of twins that differ in one swapped property.
        seed: Other seeds give other scenes.
        processes: Number of drawing processes; None for one per usable core.
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
        chunks = [
            Chunk(seed, split, start, min(start + CHUNK_SCENES, size), pictures)
            for split, size in sizes.items()
            for start in range(0, size, CHUNK_SCENES)
        ]
        made: list[GeneratedScene] = []
        for scenes in generate_chunks(chunks, processes or usable_cores()):
            made += scenes
            progress(len(made), sum(sizes.values()))
        write_scenes(partial, made)
    return folder


def scenes_folder(
    *, train: int = 3000, dev: int = 500, test: int = 500, seed: int = 0, progress: Progress = no_progress
) -> Path:
    """The cached generated scenes; generates them where they are missing.

    The folder is $XDG_CACHE_HOME (or ~/.cache) `/tshsr/scenes-v1-SIZES-SEED`. Concurrent processes all generate;
    the folder of the first one to finish is kept.

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
        remove_stale(cache)
        prefix = f"{UNFINISHED}{socket.gethostname()}-{os.getpid()}-"
        with (
            tempfile.TemporaryDirectory(dir=cache, prefix=prefix) as unfinished,
            exclusive_lock(Path(unfinished) / LOCK, f"{unfinished} is locked by another process; run this again."),
        ):
            made = make_scenes(
                Path(unfinished) / folder.name, train=train, dev=dev, test=test, seed=seed, progress=progress
            )
            if not folder.is_dir():
                made.rename(folder)
    except OSError as error:
        if not folder.is_dir():  # else another process was faster
            raise DataError(
                f"Cannot write {folder}: {error.strerror}. Set XDG_CACHE_HOME to another folder."
            ) from error
    return folder


def remove_stale(cache: Path) -> None:
    """Delete unfinished folders of killed processes from the cache."""
    for unfinished in cache.glob(f"{UNFINISHED}*"):
        if is_stale(unfinished):
            LOG.info("removing %s, left by a killed process", unfinished)
            shutil.rmtree(unfinished, ignore_errors=True)


def is_stale(unfinished: Path) -> bool:
    """Whether an unfinished folder is abandoned: its process has ended, or nothing in it has changed for an hour.

    Processes of other machines that share the cache are not visible from here; their folders are judged by age. As a
    clock can jump, no age counts while the lock of the folder is held.
    """
    host, _, process = unfinished.name.removeprefix(UNFINISHED).rpartition("-")[0].rpartition("-")
    if host == socket.gethostname() and os.name == "posix":  # on Windows, os.kill would end the process
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:  # or one of another container
            return not is_held(unfinished / LOCK)
        except (PermissionError, ValueError):  # another user's, or a name of another program
            pass
    try:
        changed = max(path.stat().st_mtime for path in (unfinished, *unfinished.rglob("*")))
    except FileNotFoundError:  # it is being renamed
        return False
    return time.time() - changed > STALE_SECONDS and not is_held(unfinished / LOCK)


def is_held(lock: Path) -> bool:
    """Whether a process holds a lock, or one that cannot be opened; False where there is no lock file."""
    if not lock.exists():
        return False
    try:
        with exclusive_lock(lock, "held"):
            return False
    except DataError:
        return True


def check_settings(sizes: dict[str, int], seed: int, processes: int | None) -> None:
    """Refuse numbers out of range.

    Raises:
        SettingsError: Where one is; the message names it.
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


def generate_chunks(chunks: list[Chunk], processes: int) -> Iterator[list[GeneratedScene]]:
    """Generate chunks in parallel processes; the results keep the order of the chunks."""
    processes = min(processes, len(chunks))
    done = 0
    if processes > 1:
        # Spawned, not forked: a fork would copy the locks of torch's threads.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, mp_context=context, initializer=end_with_parent) as pool:
            try:
                with interrupts_held(), main_hidden():
                    results = pool.map(generate_chunk, chunks)
                for scenes in results:
                    yield scenes
                    done += 1
            except BrokenProcessPool:
                LOG.warning("the drawing processes ended early; continuing in this process, which takes longer")
            finally:
                pool.shutdown(cancel_futures=True)  # after Ctrl-C, no further chunk starts
    yield from map(generate_chunk, chunks[done:])


def write_scenes(folder: Path, made: list[GeneratedScene]) -> None:
    """Write the store, and the truth of each split."""
    # Imports torch, which the drawing processes do not need.
    from tshsr.data.store import StoreCaption, StoreImage, write_store

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
        write_truth(
            folder, split, gather_truth(scene for scene, name in zip(made, splits, strict=True) if name == split)
        )


def gather_truth(scenes: Iterable[GeneratedScene]) -> Truth:
    """The truth of one split's scenes."""
    regions_of_word: list[dict[int, tuple[int, ...]]] = []
    foils: list[Foil] = []
    for image, scene in enumerate(scenes):
        first = len(regions_of_word)
        foils += [Foil(image, first + number, text, kind) for number, kind, text in scene.foils]
        regions_of_word += scene.regions_of_word
    return Truth(tuple(regions_of_word), tuple(foils))
