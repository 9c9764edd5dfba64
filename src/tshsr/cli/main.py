"""The command line: `tshsr COMMAND ...`. Errors are one sentence, exit code 2; a traceback only with --debug."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from tshsr.cli.screen import Screen
from tshsr.errors import SettingsError, TshsrError
from tshsr.system import keep_freed_memory, package_version

COMMANDS = {
    "demo": "Train, evaluate and explain on built-in scenes, with a report as a page; takes a few minutes.",
    "train": "Train a network: tshsr train RECIPE --data DIR --out RUN.",
    "evaluate": "Recalls of a run, of several as an ensemble, or of a matrix of scores.",
    "compare": "Is A better than B? Intervals and tests over images, from reports or matrices.",
    "score": "All scores of one picture with one sentence.",
    "explain": "A page that shows which word met which region.",
    "features": "Regions of a folder of pictures: tshsr features PICTURES --extractor NAME --out STORE.",
    "index": "Make a collection that can be searched: tshsr index RUN --data DIR --out INDEX.",
    "search": "Find pictures for a sentence, or sentences for a picture.",
    "serve": "A page and a REST interface over a collection, on this machine.",
    "bench": "Pairs a second of this machine, ours against the plain way.",
    "data": "Look at data, check it, or convert it: tshsr data info|check|convert.",
}
"""Every command, with its line in the help; each is the module of that name in `tshsr.cli`."""
AGAIN = {
    "train": "run the same command with --resume, and it goes on from the last saved step.",
    "demo": "run the same command again; it starts afresh.",
    "features": "run the same command again, and it goes on where it was.",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: What stands after `tshsr`; those of the process without it.

    Returns:
        The exit code: 0, 2 for an error that the user can mend, 130 for an interruption, 1 for a fault of ours.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    screen = Screen()
    if arguments is None:  # called from a program, the process is its own affair
        keep_freed_memory()
    try:
        return run(words, screen)
    except KeyboardInterrupt:
        screen.note(f"tshsr: interrupted; {AGAIN.get(words[0], 'nothing was left half-written.')}")
        return 130
    except BrokenPipeError:
        # Who read our output has gone; so that Python does not stumble over it again at its end:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (TshsrError, OSError) as error:
        if debug:
            raise
        screen.note(f"tshsr: {' '.join(str(error).split())}")
        return 2
    except Exception as error:
        if debug:
            raise
        what = " ".join(f"{type(error).__name__}: {error}".split())
        screen.note(f"tshsr: this should not have happened: {what} (the same command with --debug tells where).")
        return 1


def run(words: list[str], screen: Screen) -> int:
    """Run the command that the first word names.

    Raises:
        SettingsError: Where there is no such command.
    """
    if not words or words[0] in ("-h", "--help", "help"):
        show_help(screen)
        return 0
    if words[0] in ("-V", "--version"):
        screen.say(f"tshsr {package_version()}")
        return 0
    name, *rest = words
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"; did you mean {near[0]}?" if near else "."
        raise SettingsError(f"there is no command {name!r}{hint} The commands are {', '.join(COMMANDS)}.")
    try:
        # Imported only now: the network's libraries take a second or two to load.
        import_module(f"tshsr.cli.{name}").main(rest, screen)
    except SystemExit as stop:  # the help of a command
        return stop.code if isinstance(stop.code, int) else 0
    return 0


def show_help(screen: Screen) -> None:
    """The commands, one a line."""
    screen.say("usage: tshsr COMMAND ...\n\nImage-text matching with two-stream hierarchical similarity reasoning.\n")
    for name, line in COMMANDS.items():
        screen.say(f"  {name:<9} {line}")
    screen.say("\ntshsr COMMAND --help tells the options of a command, tshsr --version the version.")
    screen.say("--debug shows where an error was raised. Begin with: tshsr demo")
