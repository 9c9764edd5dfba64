"""The options of a command as data, and what is wrong with words that were given for them, each in one sentence."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

import tyro

KINDS: dict[type, str] = {int: "a whole number", float: "a number"}
"""What else than text an option takes, in words."""


@dataclass(frozen=True)
class Option:
    """What may, or must, stand on the command line.

    Attributes:
        name: As it is written, --model.encoder.dim; of a positional what the help calls it, RUN.
        kind: The type of its value, or of each of them.
        several: Whether it takes any number of values.
        positional: Whether it has no name.
        required: Whether it must be given.
        off: The name that switches it off; empty where there is none.
        aliases: Its other names, such as -k.
    """

    name: str
    kind: Any
    several: bool
    positional: bool
    required: bool
    off: str = ""
    aliases: tuple[str, ...] = ()

    @property
    def places(self) -> int | None:
        """How many words may follow it; None: any number."""
        return None if self.several else int(self.kind is not bool)


def options_of(command: Any, default: object = None, prefix: str = "") -> list[Option]:
    """The options of a dataclass, with those of the dataclasses in it."""
    found: list[Option] = []
    plain, marked = get_type_hints(command), get_type_hints(command, include_extras=True)
    for field in fields(command):
        value = getattr(default, field.name, None)
        inner = type(value) if is_dataclass(value) else next(dataclasses_in(plain[field.name]), None)
        name = f"{prefix}{field.name}".replace("_", "-")
        if inner is None:
            found.append(option_of(field, name, plain[field.name], marked[field.name], default))
        else:
            found += options_of(inner, value, f"{name}.")
    return found


def option_of(field: Field[Any], name: str, kind: Any, marked: Any, default: object) -> Option:
    """One option: from a field, its type without and with its marks, and the values that need not be given."""
    marks = getattr(marked, "__metadata__", ())
    parts = [part for part in get_args(kind) if part not in (type(None), ...)]
    several = get_origin(kind) is tuple
    if several or get_origin(kind) in (typing.Union, types.UnionType):
        kind = parts[0]
    open_ = field.default is MISSING and field.default_factory is MISSING
    required = open_ if default is None else getattr(default, field.name) is tyro.MISSING
    if tyro.conf.Positional in marks:
        metavar = next((mark.metavar for mark in marks if getattr(mark, "metavar", None)), name)
        return Option(metavar, kind, several, True, required)
    group, _, last = name.rpartition(".")
    paired = kind is bool and tyro.conf.FlagCreatePairsOff not in marks
    off = f"--{group}{'.' if group else ''}no-{last}" if paired else ""
    aliases = next((tuple(mark.aliases) for mark in marks if getattr(mark, "aliases", None)), ())
    return Option(f"--{name}", kind, several, False, required, off, aliases)


def dataclasses_in(kind: Any) -> Iterator[type]:
    """The dataclasses that a type is, or is a union of."""
    if isinstance(kind, type) and is_dataclass(kind):
        yield kind
    elif get_origin(kind) is not None:
        for part in get_args(kind):
            yield from dataclasses_in(part)


def is_option(word: str) -> bool:
    """Whether a word of the command line is an option's name, and no negative number."""
    return word.startswith("-") and not re.fullmatch(r"-(\d.*|\.\d.*|)", word)


def plain(word: str) -> str:
    """An option's name without its value, in tyro's spelling."""
    return word.partition("=")[0].replace("_", "-")


def names(options: Sequence[Option]) -> set[str]:
    """Everything that may stand on the command line with a - before it."""
    offs = {option.off for option in options if option.off}
    return {"--help", *by_names(options), *offs}


def by_names(options: Sequence[Option]) -> dict[str, Option]:
    """The options that have a name, by each of their names."""
    named = [option for option in options if not option.positional]
    return {name: option for option in named for name in (option.name, *option.aliases)}


def groups(arguments: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Each name on the command line with the words behind it; those before the first name have an empty one."""
    found: list[tuple[str, list[str]]] = [("", [])]
    for word in arguments:
        if is_option(word):
            name, given, value = word.partition("=")
            found.append((name, [value] if given else []))
        else:
            found[-1][1].append(word)
    return found


def mistake(options: Sequence[Option], arguments: Sequence[str]) -> str | None:
    """The first value that an option can't take, or that it misses; None where every option has what it needs."""
    by_name = by_names(options)
    for name, words in groups(arguments):
        option = by_name.get(plain(name))
        if option is None or option.places == 0:
            continue
        wrong = [word for word in words[: option.places] if not fits(option.kind, word)]
        if wrong or not words:
            got = repr(wrong[0]) if wrong else "nothing"
            return f"{name} expects {expected(option)}, got {got}{nearest(option, wrong)}"
    return None


def fits(kind: Any, word: str) -> bool:
    """Whether a word can be read as a value of a type."""
    if get_origin(kind) is Literal:
        return word in get_args(kind)
    if kind not in KINDS:
        return True
    try:
        kind(word)
    except ValueError:
        return False
    return True


def expected(option: Option) -> str:
    """What an option takes, in words."""
    if get_origin(option.kind) is Literal:
        return listed([str(choice) for choice in get_args(option.kind)], "or")
    if not option.several:
        return KINDS.get(option.kind, "a value")
    return f"{KINDS[option.kind][2:]}s with spaces between them" if option.kind in KINDS else "one value or more"


def nearest(option: Option, wrong: Sequence[str]) -> str:
    """The end of a sentence: the choice that was meant."""
    choices = get_args(option.kind) if get_origin(option.kind) is Literal else ()
    near = difflib.get_close_matches(wrong[0], choices, n=1) if wrong else []
    return f"; did you mean {near[0]}?" if near else "."


def missing(options: Sequence[Option], arguments: Sequence[str]) -> list[str]:
    """What must be given and is not, as the help calls it."""
    by_name = by_names(options)
    given, free = set(), 0
    for name, words in groups(arguments):
        option = by_name.get(plain(name))
        given.add(option.name if option is not None else plain(name))
        places = 0 if option is None else option.places
        free += 0 if places is None else max(len(words) - places, 0)
    positional = [option.name for option in options if option.positional and option.required]
    named = [option.name for option in options if option.required and not option.positional]
    return [*positional[free:], *(name for name in named if name not in given)]


def refusal(options: Sequence[Option], arguments: Sequence[str], unknown: Sequence[str]) -> str:
    """What to say of words that mean nothing here."""
    known = names(options)
    named = next((word.partition("=")[0] for word in unknown if is_option(word)), None)
    if named is None:
        return f"{unknown[0]!r} is one argument too many{overfull(options, arguments, unknown[0])}"
    meant, called = plain(named).lstrip("-"), defaultdict[str, list[str]](list)
    for name in sorted(known):
        whole = name.lstrip("-")  # dashes, which all have, would count as likeness
        for each in {whole, whole.rpartition(".")[2]}:  # a right name is often given without the group that it is in
            called[each].append(name)
    nearest = [meant] if meant in called else difflib.get_close_matches(meant, called, n=1)
    hint = " or ".join(name for each in nearest for name in called[each])
    return f"there is no option {named}{f'; did you mean {hint}?' if hint else '.'}"


def overfull(options: Sequence[Option], arguments: Sequence[str], word: str) -> str:
    """The end of a sentence about a word too many: what the option before it takes."""
    by_name = by_names(options)
    for name, words in groups(arguments):
        option = by_name.get(plain(name))
        if option is None or option.places is None or word not in words[option.places :]:
            continue
        if option.kind is bool:
            return f": {name} takes no value{f', and {option.off} switches it off' if option.off else ''}."
        if option.kind in KINDS or get_origin(option.kind) is Literal:
            return f": {name} takes one value."
    return "; put a text of several words in quotes."


def listed(words: Sequence[str], last: str) -> str:
    """Words as a sentence lists them: a, b and c."""
    return f"{', '.join(words[:-1])} {last} {words[-1]}" if len(words) > 1 else "".join(words)
