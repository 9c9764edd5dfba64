"""`tshsr index`: create, extend, update and prune an index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tshsr.cli.options import (
    Argument,
    EngineName,
    Flag,
    Folder,
    Name,
    OptionalPath,
    Shard,
    Workers,
    chosen_engine,
    load_retriever,
    parse,
)
from tshsr.cli.screen import Screen
from tshsr.errors import DataError, SettingsError

if TYPE_CHECKING:
    from tshsr.data.dataset import Split
    from tshsr.engines.work import Engine
    from tshsr.index.building import Added
    from tshsr.index.collection import Index
    from tshsr.index.metadata import Metadata
    from tshsr.retriever import Retriever
    from tshsr.scoring.compression import RegionPooling
    from tshsr.system import Begin

EXAMPLE = "tshsr index runs/first --data DIR --out INDEX"


TRAIN = "train"
"""The split on which learned regions are fitted, where the data have it."""
OF_REMOVING = ("run", "out", "delete", "data", "device", "quiet")
"""Options that have a meaning where nothing is added."""


@dataclass(frozen=True)
class IndexCommand:
    """Make an index of pictures and captions for tshsr search, or extend one: existing entries stay.

    Run an interrupted command again to continue it. Searches may run meanwhile.
    """

    run: Annotated[str, Argument("RUN", positional=True)]
    """The run that encodes them: a folder, or owner/name on the Hugging Face hub."""
    out: Annotated[str, Argument("INDEX")]
    """Folder of the index, or a URL of object storage such as s3://bucket/index."""
    data: Folder = None
    """What to add: a folder of data, or the word scenes."""
    split: str = "all"
    """Which split of the data; all is every picture."""
    pictures: OptionalPath = None
    """Folder of the picture files; by default the one beside the data, if any."""
    metadata: OptionalPath = None
    """Metadata for --where: CSV with a header, or JSON lines, with a column id or file that names the picture."""
    tokens: Literal["float16", "int8"] | None = None
    """Numbers of the regions: float16, or int8 for half of their bytes; by default those of an existing index, else
    float16."""
    regions: Annotated[int | None, Argument("INT")] = None
    """Pool the regions of a picture to this number of learned ones, fitted to the run's scores on captions of the
    data (split train, where there is one); by default as an existing index has them, else all regions."""
    captions: bool = True
    """Index captions too, for searches by picture."""
    replace: Flag = False
    """Encode pictures again that are in the index already."""
    delete: Annotated[tuple[str, ...], Argument("ID")] = ()
    """Remove these pictures and their captions."""
    engine: EngineName = "none"
    """ray: encode in shards by workers, on the cluster at RAY_ADDRESS or on this machine; a worker that dies is
    replaced, and its shard repeated. What is new becomes visible at once, at the end."""
    engine_workers: Workers = None
    """With --engine ray: number of workers; by default one for each GPU, or as many as the cores allow."""
    shard: Shard = None
    """With --engine ray: pictures, or captions, of a shard; default 256."""
    device: Name = None
    """cpu, cuda or mps; by default the best one of this machine."""
    quiet: Flag = False
    """Show no progress, neither a bar nor lines."""


def main(arguments: Sequence[str], screen: Screen) -> None:
    """Make or change an index.

    Raises:
        SettingsError: Where there is nothing to add or remove, or an option is for adding alone.
    """
    wanted = parse(IndexCommand, "tshsr index", arguments, example=EXAMPLE)
    check(wanted)
    from tshsr.index.collection import Index

    retriever = load_retriever(wanted.run, "cpu" if wanted.engine == "ray" else wanted.device)
    removed = tuple(dict.fromkeys(wanted.delete))
    if wanted.data is None:
        index = Index(wanted.out, retriever)
        index.delete(removed)
    else:
        # A new index keeps its first settings, so that none is made where something cannot be read or removed.
        if removed:
            Index(wanted.out, retriever)
        splits = [retriever.readable(split) for split in open_all(wanted.data, wanted.split)]
        check_pictures(wanted.pictures, splits)
        metadata = metadata_by_split(wanted.metadata, splits)
        chosen = chosen_engine(wanted.engine, wanted.engine_workers, wanted.shard, device=wanted.device)
        with chosen as engine, screen.progress(quiet=wanted.quiet) as begin:
            index = prepared(wanted, retriever, splits[0], begin)
            index.delete(removed)
            done = add_all(wanted, index, splits, metadata, begin, engine)
        for split, added in done:
            screen.say(f"{split.data}, split {split.name}: {summary(added)}.")
    if removed:
        screen.say(f"{len(removed):,} pictures removed.")
    screen.say(f"{wanted.out} holds {len(index):,} pictures and {index.captions:,} captions.")


def check(wanted: IndexCommand) -> None:
    """Refuse a command without work, and options of adding where nothing is added.

    Raises:
        SettingsError: In these cases; the message names the first option.
    """
    if wanted.data is not None:
        return
    if not wanted.delete:
        raise SettingsError(
            f"expected something to add, --data DIR, or to remove, --delete ID; for example: {EXAMPLE}."
        )
    for each in fields(IndexCommand):
        if each.name not in OF_REMOVING and getattr(wanted, each.name) != each.default:
            name = "no-captions" if each.name == "captions" else each.name.replace("_", "-")
            raise SettingsError(f"--{name} is for pictures that are added; name them with --data, or leave it out.")


def check_pictures(folder: Path | None, splits: Sequence[Split]) -> None:
    """Refuse a folder without the picture files of a split.

    Raises:
        DataError: Where it is one.
    """
    from tshsr.index.metadata import check_folder

    if folder is not None:
        for split in splits:
            check_folder(split, folder)


def open_all(data: str, split: str) -> list[Split]:
    """The named split; for `all` in a layout without such a split, every split.

    Raises:
        DataError: Where two splits share an id.
    """
    from tshsr.data.layouts import find_data, layout_of, open_split, splits_of
    from tshsr.data.store import EVERYTHING

    place = find_data(data)
    if split != EVERYTHING or layout_of(place) == "store":
        return [open_split(data, split)]
    splits = [open_split(data, name) for name in splits_of(data)]
    seen: dict[str, str] = {}
    for one in splits:
        for name in one.image_ids:
            if seen.setdefault(name, one.name) != one.name:
                raise DataError(
                    f"{data}: the splits {seen[name]} and {one.name} both have a picture {name!r}; "
                    "index one split with --split, the others into separate folders."
                )
    return splits


def prepared(wanted: IndexCommand, retriever: Retriever, split: Split, begin: Begin) -> Index:
    """The index, created where there is none."""
    from tshsr.index.about import Smaller
    from tshsr.index.collection import Index

    return Index.create(
        wanted.out,
        retriever,
        extractor=split.extractor,
        settings=settings_of(wanted.data or ""),
        run=wanted.run,
        smaller=Smaller(wanted.tokens, learned_regions(wanted, retriever, split, begin)),
    )


def learned_regions(wanted: IndexCommand, retriever: Retriever, split: Split, begin: Begin) -> RegionPooling | None:
    """Regions for a new index; those of an existing one, where it has as many.

    Args:
        split: A split of the data, with captions.

    Raises:
        DataError: Where the existing index has another number of regions.
        InputError: Where the data have no captions.
    """
    if wanted.regions is None:
        return None
    from tshsr.data.layouts import open_split, splits_of
    from tshsr.index.about import has_info, read_info, read_pooling
    from tshsr.index.database import index_place
    from tshsr.training.region_pooling import PoolingOptions, fit_region_pooling

    folder = index_place(wanted.out)
    if has_info(folder):
        known = read_info(folder).regions
        if known == wanted.regions:
            return read_pooling(folder)
        raise DataError(
            f"{wanted.out} holds {known or 'all'} regions of a picture, {wanted.regions} were asked for; make another "
            "index in a new folder."
        )
    if TRAIN in splits_of(wanted.data or ""):
        split = retriever.readable(open_split(wanted.data or "", TRAIN))
    return fit_region_pooling(
        retriever.matcher,
        retriever.tokenizer,
        split,
        PoolingOptions(regions=wanted.regions),
        device=retriever.device,
        progress=begin("fitting regions", "steps"),
    )


def settings_of(data: str) -> Mapping[str, Any]:
    """Extractor settings of a feature store; empty for other layouts."""
    from tshsr.data.layouts import find_data, layout_of
    from tshsr.data.manifest import read_manifest

    place = find_data(data)
    return read_manifest(place).settings if layout_of(place) == "store" else {}


def metadata_by_split(file: Path | None, splits: Sequence[Split]) -> list[Metadata | None]:
    """For each split the metadata of its pictures; None where there is none.

    Raises:
        DataError: Where the file cannot be read, or names no picture of any split.
    """
    if file is None:
        return [None] * len(splits)
    from tshsr.index.metadata import read_metadata
    from tshsr.index.updates import metadata_of_splits

    metadata = read_metadata(file)
    known = metadata_of_splits(splits, metadata)
    parts = [{name: known[name] for name in split.image_ids if name in known} for split in splits]
    return [replace(metadata, key="id", rows=part) if part else None for part in parts]


def add_all(
    wanted: IndexCommand,
    index: Index,
    splits: Sequence[Split],
    metadata: Sequence[Metadata | None],
    begin: Begin,
    engine: Engine | None,
) -> list[tuple[Split, Added]]:
    """Add the splits in order."""
    done = []
    for split, known in zip(splits, metadata, strict=True):
        added = index.add(
            split,
            pictures=wanted.pictures,
            metadata=known,
            captions=wanted.captions,
            replace=wanted.replace,
            begin=begin,
            engine=engine,
        )
        done.append((split, added))
    return done


def summary(added: Added) -> str:
    """Counts of an added split, in text."""
    parts = [f"{added.new:,} pictures added"]
    if added.replaced:
        parts.append(f"{added.replaced:,} encoded again")
    if added.kept:
        parts.append(f"{added.kept:,} kept")
    return f"{', '.join(parts)}; {added.captions:,} captions written"
