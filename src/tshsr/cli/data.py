"""`tshsr data`: describe, check and convert data sets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tshsr.cli.actions import run_action
from tshsr.cli.options import Argument, Flag, OptionalPath, Output, parse
from tshsr.cli.screen import Screen
from tshsr.errors import DataError

if TYPE_CHECKING:
    from tshsr.data.check import DataInfo


@dataclass(frozen=True)
class Info:
    """Contents of a data set; reads captions and headers, no features."""

    data: Annotated[str, Argument("DIR", positional=True)]
    """A folder in SCAN's layout, a Karpathy JSON or its folder, a feature store, or the word scenes."""
    json: Output = None
    """Write it to this file as JSON; - writes it to stdout, in place of the table."""


@dataclass(frozen=True)
class Check:
    """Read all of a data set and list every fault; exit code 2 where there is one."""

    data: Annotated[str, Argument("DIR", positional=True)]
    """As for tshsr data info."""
    quiet: Flag = False
    """Show no progress, neither a bar nor lines."""


@dataclass(frozen=True)
class Convert:
    """Write a data set as a feature store: one folder, with hashes; the features are copied exactly."""

    source: Annotated[str, Argument("SOURCE", positional=True)]
    """A folder in SCAN's layout, or a Karpathy JSON or its folder."""
    out: Annotated[Path, Argument("OUT", positional=True)]
    """Folder of the store."""
    extractor: str = ""
    """Name of the extractor of the features; empty keeps the name given by the source."""
    pictures: OptionalPath = None
    """Folder of the picture files; by default the one beside the features, if any."""
    quiet: Flag = False
    """Show no progress, neither a bar nor lines."""


def main(arguments: Sequence[str], screen: Screen) -> None:
    """Run the named action.

    Raises:
        SettingsError: Where no action is named.
    """
    actions = {
        "info": ("DIR            its contents", info),
        "check": ("DIR           read all of it and list every fault", check),
        "convert": ("SOURCE OUT  into a feature store", to_store),
    }
    run_action("data", actions, arguments, screen)


def info(arguments: Sequence[str], screen: Screen) -> None:
    """Describe a data set."""
    wanted = parse(Info, "tshsr data info", arguments, example="tshsr data info DIR")
    from tshsr.data.check import inspect

    found = inspect(wanted.data)
    if wanted.json is not None:
        screen.json(json.dumps(asdict(found), indent=2), wanted.json)
    if wanted.json != "-":
        show_info(screen, found)


def show_info(screen: Screen, found: DataInfo) -> None:
    """The description on the screen."""
    screen.say(f"{found.data}: layout {found.layout}, {size(found.bytes)}")
    features = f"features of {found.extractor}: {found.feature_dim} x {found.dtype} per region"
    screen.say(features if found.feature_dim else "pictures without features, for training from pixels")
    if found.joint_dim:
        screen.say(f"image vectors: {found.joint_dim} x float32 per image")
    header = ("split", "images", "captions", "regions", "boxes", "variable count")
    rows = [
        (
            split.name,
            f"{split.images:,}",
            f"{split.captions:,}",
            str(split.regions),
            "yes" if split.boxes else "no",
            "yes" if split.masked else "no",
        )
        for split in found.splits
    ]
    screen.table(header, rows)


def size(number: int) -> str:
    """A number of bytes in text, such as 1.5 GiB."""
    for unit, power in (("GiB", 3), ("MiB", 2), ("KiB", 1)):
        if number >= 1024**power:
            return f"{number / 1024**power:.1f} {unit}"
    return f"{number} bytes"


def check(arguments: Sequence[str], screen: Screen) -> None:
    """Check a data set.

    Raises:
        DataError: Where there is a fault.
    """
    wanted = parse(Check, "tshsr data check", arguments, example="tshsr data check DIR")
    from tshsr.data.check import check_data

    with screen.progress(quiet=wanted.quiet) as begin:
        problems, found = check_data(wanted.data, begin("reading", "images"), hashing=begin("hashing", "bytes"))
    if len(problems) == 1:
        raise DataError(problems[0])
    if problems:
        for problem in problems:
            screen.say(problem)
        raise DataError(f"{wanted.data} has {len(problems)} problems, listed above.")
    if found is not None:  # None only where there are problems
        counts = ", ".join(f"{split.name} {split.images:,} images" for split in found.splits)
        screen.say(f"{wanted.data} has no problems: {counts}; every file, feature and caption was read.")


def to_store(arguments: Sequence[str], screen: Screen) -> None:
    """Convert."""
    wanted = parse(Convert, "tshsr data convert", arguments, example="tshsr data convert DIR STORE")
    from tshsr.data.check import inspect
    from tshsr.data.convert import convert

    with screen.progress(quiet=wanted.quiet) as begin:
        out = convert(
            wanted.source,
            wanted.out,
            extractor=wanted.extractor,
            pictures=wanted.pictures,
            opening=begin("opening", "pictures"),
            progress=begin("converting", "images"),
        )
    show_info(screen, inspect(out))
