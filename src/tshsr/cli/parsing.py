"""From words on the command line to a dataclass, by tyro; what is wrong becomes one sentence."""

from __future__ import annotations

import contextlib
import io
import itertools
import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import tyro
from tyro.conf import FlagCreatePairsOff, arg

from tshsr.cli.options import is_option, listed, missing, mistake, names, options_of, plain, refusal
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
    example: str = "",
) -> Command:
    """Read a command's arguments; `--help` prints them and exits.

    Args:
        command: A dataclass: its fields are the options, their docstrings the help.
        program: How the help calls the command.
        arguments: What stands after the command's name.
        default: Values that the options have when they are not given.
        description: What the help says first; the docstring of the dataclass without it.
        example: A whole command, told where options are missing.

    Raises:
        SettingsError: Names the first thing that is wrong, with the nearest valid name.
    """
    said, options = io.StringIO(), options_of(command, default)
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
        # A misspelt name comes first: it is why the right one is missing.
        unknown = [word for word in arguments if is_option(word) and plain(word) not in names(options)]
        if not unknown:
            known = mistake(options, arguments) or lacking(missing(options, arguments), example)
            raise SettingsError(f"{known or sentence(said.getvalue())} See {program} --help.") from None
    # A row of numbers may be empty for tyro; here a name without its values is a slip.
    if wrong := refusal(options, arguments, unknown) if unknown else mistake(options, arguments):
        raise SettingsError(f"{wrong} See {program} --help.")
    return cast(Command, values)


def given(wanted: Any, names: Sequence[str]) -> list[str]:
    """Which of these fields of a command have another value than by default, as the command line calls them."""
    changed = [
        each.name for each in fields(wanted) if each.name in names and getattr(wanted, each.name) != each.default
    ]
    return [name if name == "runs" else f"--{name.replace('_', '-')}" for name in changed]


def lacking(absent: Sequence[str], example: str) -> str:
    """What to say where options are missing; nothing where none is."""
    if not absent:
        return ""
    verb = "is" if len(absent) == 1 else "are"
    return f"{listed(absent, 'and')} {verb} missing{f'; for example: {example}' if example else ''}."


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
