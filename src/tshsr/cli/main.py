"""The command line: `tshsr COMMAND ...`. Errors are one sentence, exit code 2; a traceback only with --debug."""

from __future__ import annotations

import io
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tshsr.cli.screen import Screen

COMMANDS = {
    "demo": "Train, evaluate and explain on built-in scenes, with a report as a page; takes a few minutes.",
    "train": "Train a network: tshsr train RECIPE --data DIR --out RUN.",
    "evaluate": "Recalls of a run, or of several as an ensemble, on a split.",
    "calibrate": "Probabilities of a match from the scores of a run.",
    "metrics": "Recalls of a matrix of scores, from any program.",
    "composition": "Is a true caption above one with the words swapped? SugarCrepe, ARO, Winoground, scenes.",
    "compare": "Is A better than B? Intervals and tests over images, from reports or matrices.",
    "faithfulness": "Deletion and insertion curves of a run's explanations.",
    "score": "All scores of one picture with one sentence.",
    "explain": "A page that explains scores by the weights between words and regions.",
    "features": "Regions of a folder of pictures: tshsr features PICTURES --extractor NAME --out STORE.",
    "photos": "Search your own photographs on a page: tshsr photos DIR.",
    "index": "Make a collection that can be searched: tshsr index RUN --data DIR --out INDEX.",
    "search": "Find pictures for a sentence, or sentences for a picture.",
    "serve": "A page and a REST interface over a collection, on this machine.",
    "export": "The parts of a network as ONNX graphs: tshsr export RUN --out DIR.",
    "audit-log": "Check the recalls that a log of SCAN, SGRAF or VSE++ prints.",
    "bench": "Pairs per second on this machine, against a plain implementation.",
    "data": "Show, check or convert data: tshsr data info|check|convert.",
    "knowledge": "A graph of the concepts in captions: tshsr knowledge build DIR --out FILE.",
}
"""Every command, with its line in the help; its module in `tshsr.cli` has the same name, with _ for -."""
RESUMING = {
    "train": "run the same command with --resume to continue from the last saved step.",
    "demo": "run the same command again; it starts from the beginning.",
    "features": "run the same command again to continue.",
    "photos": "run the same command again to continue.",
    "index": "run the same command again to continue.",
}
"""How an interrupted command continues."""
STOPS_WELL = ("train", "features", "photos", "index")
"""Commands that save their work on SIGTERM and end with the exit code 0."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: The words after `tshsr`; by default those of the process.

    Returns:
        The exit code: 0 (also for a job that SIGTERM stopped and that can be continued), 2 for an error that the user
        can correct, 130 for an interruption, 141 for a closed pipe, 1 for an internal error.
    """
    own_process = arguments is None
    try:
        return answer(list(sys.argv[1:] if arguments is None else arguments), own_process=own_process)
    except BrokenPipeError:
        # The reader of stdout or stderr has exited; without this Python fails on flushing them at exit.
        for stream in (sys.stdout, sys.stderr) if own_process else ():
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return 141


def answer(words: list[str], *, own_process: bool) -> int:
    """Run a command and report its errors; returns the exit code.

    Raises:
        BrokenPipeError: Where the reader of the output or of an error has exited.
    """
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    received = record_interrupts(words) if own_process else []
    try:
        # Imports are inside, here and in the commands: Ctrl-C may come while they load, which takes seconds for torch.
        from tshsr.cli.screen import Screen
        from tshsr.errors import TshsrError

        screen = Screen()
        if own_process:  # another program's process keeps its allocator
            from tshsr.system import keep_freed_memory

            keep_freed_memory()
            warnings.showwarning = show_warning
            if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
                sys.stdout.reconfigure(errors="replace")  # a result is worth more than a letter that ASCII lacks
        return run(words, screen)
    except KeyboardInterrupt:
        return interrupted(words, received, own_process=own_process)
    except BrokenPipeError:
        raise
    except (TshsrError, OSError) as error:
        if debug:
            raise
        if received:
            return interrupted(words, received, own_process=True)
        note(" ".join(str(error).split()))
        return 2
    except Exception as error:
        if debug:
            raise
        if received:
            return interrupted(words, received, own_process=True)
        what = " ".join(f"{type(error).__name__}: {error}".split())
        note(f"internal error: {what} (the same command with --debug shows the traceback).")
        return 1


def record_interrupts(words: Sequence[str]) -> list[int]:
    """Record each SIGINT before it raises KeyboardInterrupt; returns the list that receives them.

    For commands that continue, SIGTERM too, which raises `Terminated`.

    Extension modules clear exceptions while they import numpy: an interrupt there surfaces as an ImportError later.
    """
    received: list[int] = []

    def handle(number: int, _: object) -> None:
        received.append(number)
        raise KeyboardInterrupt

    def end(number: int, _: object) -> None:
        from tshsr.system import Terminated

        received.append(number)
        raise Terminated

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a background process ignores SIGINT
        signal.signal(signal.SIGINT, handle)
    if words and words[0] in STOPS_WELL and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, end)
    return received


def interrupted(words: Sequence[str], received: Sequence[int], *, own_process: bool) -> int:
    """Report an interruption and how the command continues; returns the exit code."""
    if own_process:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C would disturb the shutdown
        if words and words[0] in STOPS_WELL:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        # An interrupt inside `exec` of a string, which dataclasses and namedtuples use, makes CPython end by SIGINT
        # instead of with our exit code, although it was caught; the next `exec` clears that.
        exec("")  # noqa: S102  # nosec B102
    after = RESUMING.get(words[0] if words else "", "no file was left incomplete.")
    if signal.SIGTERM in received:
        note(f"stopped by SIGTERM; {after}")
        return 0
    note(f"interrupted; {after}")
    return 130


def note(text: str) -> None:
    """Print a line to stderr with the name of the program."""
    from tshsr.cli.screen import Screen

    Screen().note(f"tshsr: {text}")


def show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning as one line, without the place in the code."""
    note(f"warning: {message}")


def run(words: list[str], screen: Screen) -> int:
    """Run the command that the first word names.

    Raises:
        SettingsError: Where there is no such command.
    """
    import difflib

    from tshsr.errors import SettingsError

    if not words or words[0] in ("-h", "--help", "help"):
        show_help(screen)
        return 0
    if words[0] in ("-V", "--version"):
        from tshsr.system import package_version

        screen.say(f"tshsr {package_version()}")
        return 0
    name, *rest = words
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"; did you mean {near[0]}?" if near else "."
        raise SettingsError(f"there is no command {name!r}{hint} The commands are {', '.join(COMMANDS)}.")
    try:
        import_module(f"tshsr.cli.{name.replace('-', '_')}").main(rest, screen)
    except SystemExit as stop:  # the help of a command
        return stop.code if isinstance(stop.code, int) else 0
    finally:
        screen.out.file.flush()  # here and not at exit, where a closed pipe would be an error of Python's
    return 0


def show_help(screen: Screen) -> None:
    """Print the commands, one per line."""
    screen.say("usage: tshsr COMMAND ...\n\nImage-text matching with two-stream hierarchical similarity reasoning.\n")
    for name, line in COMMANDS.items():
        screen.say(f"  {name:<13} {line}")
    screen.say("\ntshsr COMMAND --help lists the options of a command, tshsr --version shows the version.")
    screen.say("--debug shows where an error was raised. Begin with: tshsr demo")
