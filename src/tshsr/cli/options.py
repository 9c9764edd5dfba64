"""Command-line options: the fields of a dataclass, read by argparse; every error is one sentence.

A field's name, type, default and docstring are the option's; a field that is a dataclass is a group with a dotted
prefix (`--model.encoder.dim`). docs/decisions/0007-command-line-parser.md compares this with tyro and typer.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import errno
import inspect
import itertools
import os
import re
import textwrap
import types
import typing
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, TypeVar, get_args, get_origin, get_type_hints

from tshsr.errors import SettingsError
from tshsr.files import explained

if TYPE_CHECKING:
    from tshsr.engines.work import Engine
    from tshsr.retriever import Retriever
    from tshsr.scoring.candidates import Depth

Command = TypeVar("Command")


@dataclass(frozen=True)
class Argument:
    """How a field is written on the command line, in its `Annotated` type; by default `--name VALUE`.

    Attributes:
        metavar: Name of the value in the help.
        positional: The value is given without a name.
        alias: A second name, such as -k.
        append: Several values are given as `--text A --text B`; otherwise as `--text A B`.
        negatable: A bool has a negative form, `--no-name`.
        output: The value is a file that the command writes.
    """

    metavar: str = ""
    positional: bool = False
    alias: str = ""
    append: bool = False
    negatable: bool = True
    output: bool = False


Flag = Annotated[bool, Argument(negatable=False)]
Name = Annotated[str | None, Argument("NAME")]
Folder = Annotated[str | None, Argument("DIR")]
File = Annotated[str | None, Argument("FILE")]
Output = Annotated[str | None, Argument("FILE", output=True)]
"""A file to write; - is stdout."""
OptionalPath = Annotated[Path | None, Argument("PATH")]
OutputPath = Annotated[Path | None, Argument("PATH", output=True)]
"""A file to write, never stdout."""

EngineName = Literal["none", "ray"]
Workers = Annotated[int | None, Argument("N")]
Shard = Annotated[int | None, Argument("N")]

METAVARS: dict[type, str] = {int: "INT", float: "FLOAT", Path: "PATH"}
NUMBERS: dict[type, str] = {int: "a whole number", float: "a number"}


@dataclass(frozen=True)
class Option:
    """One option of a command.

    Attributes:
        path: Names of the fields from the command's dataclass to the value.
        several: Whether the field is a tuple of values.
        default: `MISSING` where a value is required.
    """

    path: tuple[str, ...]
    kind: Any
    several: bool
    mark: Argument
    default: Any
    text: str
    group: str = field(default="", compare=False)

    @property
    def dest(self) -> str:
        """The attribute of argparse's namespace."""
        return ".".join(self.path)

    @property
    def names(self) -> tuple[str, ...]:
        """Every name of the option; empty for a positional argument."""
        if self.mark.positional:
            return ()
        *prefix, last = self.dest.replace("_", "-").split(".")
        off = (f"--{'.'.join([*prefix, f'no-{last}'])}",) if self.kind is bool and self.mark.negatable else ()
        return (f"--{'.'.join([*prefix, last])}", *([self.mark.alias] if self.mark.alias else ()), *off)

    @property
    def metavar(self) -> str:
        """The value in the help."""
        if get_origin(self.kind) is Literal:
            return f"{{{','.join(get_args(self.kind))}}}"
        return self.mark.metavar or METAVARS.get(self.kind, "TEXT")

    @property
    def help(self) -> str:
        """The docstring and the default, with % escaped for argparse."""
        if self.default is MISSING:
            return f"{self.text} (required)".replace("%", "%%")
        shown = self.default if not isinstance(self.default, tuple) else " ".join(map(str, self.default))
        hidden = shown in (None, "") or (self.kind is bool and not self.mark.negatable)
        return (self.text if hidden else f"{self.text} (default: {shown})").replace("%", "%%")

    def add_to(self, parser: argparse._ActionsContainer) -> None:
        """Declare the option to argparse; its attribute is None where it is not given."""
        how: dict[str, Any] = {"dest": self.dest, "help": self.help, "default": None}
        if self.kind is bool:
            on, *off = self.names
            parser.add_argument(on, action="store_true", **how)
            for name in off:
                parser.add_argument(name, action="store_false", **how | {"help": f"The opposite of {on}."})
            return
        how |= {"type": reader(self.kind), "metavar": self.metavar}
        if self.mark.positional:
            parser.add_argument(how.pop("dest"), nargs="*" if self.several else "?", **how)
        elif self.mark.append:
            parser.add_argument(*self.names, action="append", **how)
        else:
            parser.add_argument(*self.names, nargs="+" if self.several else None, **how)


class Parser(argparse.ArgumentParser):
    """argparse whose errors are exceptions with one sentence."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print.

        Raises:
            SettingsError: Always.
        """
        end = "" if message.endswith((".", "?")) else "."
        sentence = re.sub(r"^argument (\S+): expected", r"\1 expects", message).removeprefix("argument ")
        raise SettingsError(f"{sentence}{end} See {self.prog} --help.")


def parse(
    command: type[Command],
    program: str,
    arguments: Sequence[str],
    *,
    defaults: Mapping[str, object] | None = None,
    description: str = "",
    example: str = "",
) -> Command:
    """Read a command's arguments; `--help` prints the help and exits.

    Args:
        program: The command in the usage line.
        arguments: The words after the command's name.
        defaults: Values of fields, in place of the dataclass's own.
        description: Head of the help; by default the docstring of the dataclass.
        example: A whole command, shown in the help and where required options are missing.

    Raises:
        SettingsError: Where one is invalid; the message has the nearest valid name.
        DataError: Where a file that the command would write after its work cannot be written.
    """
    options = list(options_of(command, defaults or {}))
    head = description or inspect.cleandoc(command.__doc__ or "")
    parser = parser_of(options, program, f"{head}\n\nexample: {example}" if example else head)
    known = {"-h", "--help", *(name for option in options for name in option.names)}
    named = list(itertools.takewhile(lambda word: word != "--", arguments))
    words = [*map(normal, named), *arguments[len(named) :]]
    for word in words[: len(named)]:
        if is_option(word) and word.partition("=")[0] not in known:
            given = arguments[words.index(word)].partition("=")[0]
            parser.error(f"there is no option {given}{suggestion(word.partition('=')[0], known)}")
    # Intermixed: options may stand between positional arguments, as in `tshsr search INDEX -k 5 "a dog"`.
    namespace, extra = parser.parse_known_intermixed_args(words)
    if extra:
        before = words[max(words.index(extra[0]) - 1, 0)]
        valueless = any(before in option.names for option in options if option.kind is bool)
        hint = f": {before} takes no value" if valueless else "; put a text of several words in quotes"
        parser.error(f"{extra[0]!r} is one argument too many{hint}")
    found = {dest: value for dest, value in vars(namespace).items() if value is not None and value != []}
    absent = [option for option in options if option.default is MISSING and option.dest not in found]
    if absent:
        names = listed([option.metavar if option.mark.positional else option.names[0] for option in absent], "and")
        verb = "is" if len(absent) == 1 else "are"
        parser.error(f"{names} {verb} missing{f'; for example: {example}' if example else ''}")
    for option in options:
        if option.mark.output and found.get(option.dest, "-") != "-":
            if Path(found[option.dest]).is_dir():
                parser.error(f"Cannot write {found[option.dest]}: Is a directory. Name a file for {option.names[0]}")
            check_place(Path(found[option.dest]))
    return build(command, defaults or {}, found)


def check_place(path: Path) -> None:
    """Refuse a file that cannot be written, before hours of work.

    Raises:
        DataError: Where a folder has that name, or its nearest existing parent is no writable folder.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        return  # a device or a pipe, which is written to directly
    path = Path(os.path.realpath(path))  # a symbolic link stays, and its target is replaced
    with explained(path):
        above = next((each for each in path.parents if each.exists()), path.parents[-1])
        wrong = {errno.EISDIR: path.is_dir(), errno.ENOTDIR: not above.is_dir()}
        wrong[errno.EACCES] = not os.access(above, os.W_OK)
        for code in (code for code, found in wrong.items() if found):
            raise OSError(code, os.strerror(code))


def parser_of(options: Sequence[Option], program: str, description: str) -> Parser:
    """The argparse parser of a command."""
    required = [option for option in options if option.default is MISSING]
    parts = [option.metavar if option.mark.positional else f"{option.names[0]} {option.metavar}" for option in required]
    parts += [f"[{option.metavar}]" for option in options if option.mark.positional and option not in required]
    usage = " ".join([program, *parts, "[OPTIONS]"]).replace("%", "%%")
    parser = Parser(
        program,
        usage,
        description.replace("%", "%%"),
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=32),
        allow_abbrev=False,
    )
    for prefix, group in itertools.groupby(options, key=lambda option: option.path[:-1]):
        title = f"{'.'.join(prefix).replace('_', '-')} options"
        members = list(group)
        place = parser.add_argument_group(title, members[0].group) if prefix else parser
        for option in members:
            option.add_to(place)
    return parser


def options_of(
    command: type, defaults: Mapping[str, object], path: tuple[str, ...] = (), group: str = ""
) -> Iterator[Option]:
    """The options of a dataclass, with those of the dataclasses in it."""
    hints, texts = get_type_hints(command, include_extras=True), field_docstrings(command)
    for name, default in values_of(command, defaults).items():
        text = texts.get(name, "")
        if is_dataclass(default) and not isinstance(default, type):
            yield from options_of(type(default), vars(default), (*path, name), text)
        elif not isinstance(default, dict):  # dicts are taken from data, such as the architecture of a network
            yield Option((*path, name), *kind_of(hints[name]), default, text, group)


def values_of(command: type, defaults: Mapping[str, object]) -> dict[str, Any]:
    """The default of each field: the one given, else the dataclass's own, else `MISSING`."""
    return {
        each.name: defaults[each.name]
        if each.name in defaults
        else each.default_factory()
        if each.default_factory is not MISSING
        else each.default
        for each in fields(command)
    }


def build(
    command: type[Command], defaults: Mapping[str, object], found: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Command:
    """The dataclass with the values found on the command line, keyed by dotted path."""
    values = values_of(command, defaults)
    for name, default in values.items():
        inner = (*path, name)
        if is_dataclass(default) and not isinstance(default, type):
            values[name] = build(type(default), vars(default), found, inner)
        elif ".".join(inner) in found:
            value = found[".".join(inner)]
            values[name] = tuple(value) if isinstance(value, list) else value
    return command(**values)


def kind_of(hint: Any) -> tuple[Any, bool, Argument]:
    """The type of one value, whether there are several, and the mark of an annotation."""
    mark = Argument()
    if get_origin(hint) is Annotated:
        hint, *more = get_args(hint)
        mark = next((each for each in more if isinstance(each, Argument)), mark)
    parts = [part for part in get_args(hint) if part not in (type(None), ...)]
    several = get_origin(hint) is tuple
    return (parts[0] if several or get_origin(hint) in (typing.Union, types.UnionType) else hint), several, mark


def field_docstrings(command: type) -> dict[str, str]:
    """The string after each field of a dataclass, in one line."""
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(command))).body
    body = node.body if isinstance(node, ast.ClassDef) else []
    return {
        one.target.id: " ".join(other.value.value.split())
        for one, other in itertools.pairwise(body)
        if isinstance(one, ast.AnnAssign)
        and isinstance(one.target, ast.Name)
        and isinstance(other, ast.Expr)
        and isinstance(other.value, ast.Constant)
        and isinstance(other.value.value, str)
    }


def reader(kind: Any) -> Callable[[str], Any]:
    """The function that converts a word into a value of a type; its error says what is expected."""
    choices = get_args(kind) if get_origin(kind) is Literal else ()

    def read(word: str) -> Any:
        if choices:
            if word in choices:
                return word
            near = difflib.get_close_matches(word, choices, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise argparse.ArgumentTypeError(f"expected {listed(choices, 'or')}, got {word!r}{hint}")
        try:
            return kind(word)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected {NUMBERS.get(kind, 'a value')}, got {word!r}") from None

    return read


def normal(word: str) -> str:
    """A word with - for _ in the name of an option."""
    name, equals, value = word.partition("=")
    return f"{name.replace('_', '-')}{equals}{value}" if is_option(name) else word


def is_option(word: str) -> bool:
    """Whether argparse reads a word as the name of an option: no negative number and no text with spaces."""
    return word.startswith("-") and " " not in word and not re.fullmatch(r"-(\d.*|\.\d.*|)", word)


def suggestion(name: str, known: Collection[str]) -> str:
    """The suffix of an error message for an unknown option: the nearest known ones, with or without their group."""
    meant, called = name.lstrip("-"), defaultdict[str, list[str]](list)
    for each in sorted(known):
        whole = each.lstrip("-")  # dashes, which all names have, would count as similarity
        for part in {whole, whole.rpartition(".")[2]}:
            called[part].append(each)
    nearest = [meant] if meant in called else difflib.get_close_matches(meant, called, n=1)
    hint = " or ".join(each for part in nearest for each in called[part])
    return f"; did you mean {hint}?" if hint else ""


def listed(words: Sequence[str], last: str) -> str:
    """An enumeration: a, b and c."""
    return f"{', '.join(words[:-1])} {last} {words[-1]}" if len(words) > 1 else "".join(words)


UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def choose_device(name: str | None) -> str:
    """The device of that name, or the best one of this machine.

    Raises:
        SettingsError: Where this machine does not have it.
    """
    if name == "cpu":
        return name
    import torch

    there = ["cpu"]
    if torch.cuda.is_available():
        there.append("cuda")
    if torch.backends.mps.is_available():
        there.append("mps")
    if name is None:
        return there[-1]
    if name not in there:
        raise SettingsError(f"device {name!r} is not available; this machine has {', '.join(there)}.")
    return name


def check_tf32(option: str, device: str) -> None:
    """Refuse TF32 on a device without it.

    Args:
        option: The option that asks for it.

    Raises:
        SettingsError: Where the device is no GPU of NVIDIA's.
    """
    if device != "cuda":
        raise SettingsError(f"{option} is for GPUs of NVIDIA's, and the device is {device}; leave it out.")


def load_retriever(run: str, device: str | None) -> Retriever:
    """A trained network on a device.

    Raises:
        CheckpointError: Where there is none.
        SettingsError: Where the machine lacks the device.
    """
    from tshsr.retriever import Retriever

    return Retriever.from_pretrained(run).to(choose_device(device))


@contextmanager
def chosen_engine(
    engine: EngineName, workers: int | None, shard: int | None, *, cpus: int = 1, device: str | None = None
) -> Iterator[Engine | None]:
    """The engine of --engine; None for this process.

    Args:
        workers: The number of --engine-workers.
        shard: The items of --shard.
        cpus: Processor cores of a worker.
        device: With cpu, workers use no GPU.

    Raises:
        SettingsError: Where Ray is not installed, or an option needs it.
        DataError: Where there is no cluster.
    """
    if engine == "none":
        for name, value in (("--engine-workers", workers), ("--shard", shard)):
            if value is not None:
                raise SettingsError(f"{name} is for --engine ray; give both, or neither.")
        yield None
        return
    from tshsr.engines.ray import ray_engine
    from tshsr.engines.work import SHARD

    with ray_engine(workers=workers, shard=SHARD if shard is None else shard, cpus=cpus, gpu=device != "cpu") as opened:
        yield opened


def read_bytes(text: str) -> int:
    """A number of bytes: 500M, 2G, 1.5GiB; units are powers of 1,024.

    Raises:
        SettingsError: Where the text is no size, or not above 0.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    size = int(float(match[1]) * UNITS[match[2].upper()]) if match else 0
    if size < 1:
        raise SettingsError(f"--bytes is {text!r}; expected a size like 500M or 2G.")
    return size


def read_depth(text: str) -> Depth | None:
    """Candidates a query: 40, or 100,40 for an image and for a caption; None for auto.

    Raises:
        SettingsError: Where the text is neither, or a number is below 1.
    """
    from tshsr.scoring.candidates import Depth

    if text == "auto":
        return None
    match = re.fullmatch(r"(-?\d+)(?:,(-?\d+))?", text.strip())
    if match is None:
        raise SettingsError(
            f"--rerank is {text!r}; expected a number of candidates such as 40, two such as 100,40 (of an image, of a "
            "caption), or auto."
        )
    return Depth(int(match[1]), int(match[2] or match[1]))
