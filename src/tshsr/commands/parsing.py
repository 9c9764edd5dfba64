"""From words on the command line to a dataclass, by tyro; what is wrong becomes one sentence."""

from __future__ import annotations

import contextlib
import difflib
import io
import itertools
import re
import typing
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast, get_args, get_type_hints

import tyro
from tyro.conf import FlagCreatePairsOff, arg

from tshsr.errors import SettingsError

Command = TypeVar("Command")
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
Flag = Annotated[bool, FlagCreatePairsOff, arg(help_behavior_hint="")]
"""An option that is there or not."""
Name = Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")]
"""An option that may be missing: a name, ..."""
Folder = Annotated[str | None, arg(metavar="DIR", help_behavior_hint="")]
"""... a folder, ..."""
File = Annotated[str | None, arg(metavar="FILE", help_behavior_hint="")]
"""... a file (- is stdout), ..."""
OptionalPath = Annotated[Path | None, arg(metavar="PATH", help_behavior_hint="")]
"""... or a path."""
FRAME = " \t─━│┃╭╮╰╯┌┐└┘├┤-"
"""What tyro draws around its messages."""


def parse(
    command: type[Command],
    program: str,
    arguments: Sequence[str],
    *,
    default: Command | None = None,
    description: str | None = None,
) -> Command:
    """Read a command's arguments; `--help` prints them and exits.

    Args:
        command: A dataclass: its fields are the options, their docstrings the help.
        program: How the help calls the command.
        arguments: What stands after the command's name.
        default: Values that the options have when they are not given.
        description: What the help says first; the docstring of the dataclass without it.

    Raises:
        SettingsError: Names the first thing that is wrong, with the nearest valid name.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            values, unknown = tyro.cli(
                command,
                prog=program,
                description=description,
                args=arguments,
                default=tyro.MISSING_NONPROP if default is None else default,
                return_unknown_args=True,
                config=(tyro.conf.AvoidSubcommands,),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        unknown = [word for word in arguments if is_option(word) and plain(word) not in known_names(command, default)]
        if not unknown:  # else the misspelt name is why the right one is missing
            raise SettingsError(f"{sentence(said.getvalue())} See {program} --help.") from None
    if unknown:
        raise SettingsError(f"{refusal(unknown, known_names(command, default))} See {program} --help.")
    return cast(Command, values)


def is_option(word: str) -> bool:
    """Whether a word of the command line is an option's name, and no negative number."""
    return word.startswith("-") and not re.fullmatch(r"-(\d.*|\.\d.*|)", word)


def plain(word: str) -> str:
    """An option's name without its value, in tyro's spelling."""
    return word.partition("=")[0].replace("_", "-")


def refusal(unknown: Sequence[str], known: set[str]) -> str:
    """What to say of words that mean nothing here."""
    named = next((word.partition("=")[0] for word in unknown if is_option(word)), None)
    if named is None:
        return f"{unknown[0]!r} is one argument too many; put a text of several words in quotes."
    near = difflib.get_close_matches(plain(named), sorted(known), n=1)
    if not near:  # a right name without the group that it is in
        near = [name for name in sorted(known) if name.rpartition(".")[2] == plain(named).lstrip("-")][:1]
    return f"there is no option {named}{f'; did you mean {near[0]}?' if near else '.'}"


def sentence(box: str) -> str:
    """The message of a box of tyro's, in one line."""
    lines = [line for line in ESCAPES.sub("", box).splitlines() if line.strip()][1:]  # the first one is a title
    inside = itertools.dropwhile(is_rule, lines)
    words = " ".join(line.strip(" \t│┃") for line in itertools.takewhile(lambda line: not is_rule(line), inside))
    text = re.sub(r"\s+", " ", words.replace(" (required)", "")).strip().rstrip(".")
    return f"{text[:1].lower()}{text[1:]}." if text else "these arguments cannot be read."


def is_rule(line: str) -> bool:
    """Whether a line is only drawn, not written."""
    return not line.strip(FRAME)


def known_names(command: Any, default: object = None, prefix: str = "") -> set[str]:
    """The options of a dataclass, with those of the dataclasses in it, as they are written: `--model.encoder.dim`."""
    names: set[str] = {"--help"}
    hints = get_type_hints(command)
    for field in fields(command):
        name = f"{prefix}{field.name}".replace("_", "-")
        kind, value = hints[field.name], getattr(default, field.name, None)
        inner = type(value) if is_dataclass(value) else next(dataclasses_in(kind), None)
        if inner is not None:
            names |= known_names(inner, value, f"{name}.")
            continue
        names.add(f"--{name}")
        if kind is bool and prefix:
            names.add(f"--{prefix}no-{field.name}".replace("_", "-"))
    return names


def dataclasses_in(kind: Any) -> Iterator[type]:
    """The dataclasses that a type is, or is a union of."""
    if isinstance(kind, type) and is_dataclass(kind):
        yield kind
    elif typing.get_origin(kind) is not None:
        for part in get_args(kind):
            yield from dataclasses_in(part)
