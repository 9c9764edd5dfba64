"""Execution of the code blocks of a page: Python in one namespace a page, `tshsr` commands in this process."""

from __future__ import annotations

import re
import shlex
import tomllib
from functools import cache
from pathlib import Path

from tests.support.command_line import TINY, tshsr
from tests.support.markdown import ROOT, Block, blocks_of
from tshsr.cli.main import COMMANDS

SHOWN = ("", "text", "{toctree}", "{eval-rst}", "bibtex")
"""Languages of blocks that hold nothing to execute."""
SMALLER = {"train=500, dev=100, test=100": "train=16, dev=6, test=10"}
"""Sizes of data in the pages, and those that are used to test the examples."""
SETTINGS = re.compile(r"--training\.epochs \d+")


def run_blocks(page: Path) -> int:
    """Execute the blocks of a page in the current folder.

    Returns:
        The number of blocks that were executed.
    """
    names: dict[str, object] = {"__name__": "__main__"}
    count = 0
    for block in blocks_of(page):
        if block.reason is not None or block.language in SHOWN:
            continue
        if block.language == "python":
            source = "\n" * block.line + smaller(block.text)  # so that a traceback shows the line of the page
            exec(compile(source, str(page), "exec"), names)
        elif block.language == "sh":
            for line in commands_of(block):
                run_line(line, block)
        else:
            raise AssertionError(f"{block.place}: no rule to execute a block in {block.language!r}")
        count += 1
    return count


def smaller(text: str) -> str:
    """An example with less data."""
    for shown, used in SMALLER.items():
        text = text.replace(shown, used)
    return text


def commands_of(block: Block) -> list[str]:
    """The commands of a block, without comments; a backslash continues a line."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [line for line in lines if shlex.split(line, comments=True)]


def run_line(line: str, block: Block) -> None:
    """Run a command of this project, and check one of another program against what it refers to."""
    words = shlex.split(line, comments=True)
    match words:
        case ["tshsr", "train", recipe, *options] if "--help" not in options:
            run_command(
                ["train", recipe, *SETTINGS.sub("", shlex.join(options)).split(), *tiny(recipe, options)], block
            )
        case ["tshsr", *arguments]:
            run_command(arguments, block)
        case _:
            check_line(words, block)


def check_line(words: list[str], block: Block) -> None:
    """Check a command that is not run: its target, extras, module, command and options exist."""
    match words:
        case ["make", target, *_]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE), block.place
        case ["pip", "install", *arguments]:
            check_install(arguments, block)
        case ["python", "-m", module, *_]:
            assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), f"{block.place}: {module}"
        case ["tshsr", command, *arguments]:
            assert command in COMMANDS, f"{block.place}: {command}"
            known = help_of(*(words[1:3] if command in ("train", "data") else [command]))
            for option in (word for word in arguments if word.startswith("-")):
                assert re.search(rf"(?<![\w-]){option}\b", known), f"{block.place}: {option}"
        case ["torchrun", *options]:
            start = options.index("-m") + 1
            check_line(options[start:], block)
        case ["curl", *_]:
            pass
        case _:
            raise AssertionError(f"{block.place}: no rule for {shlex.join(words)!r}")


@cache
def help_of(*words: str) -> str:
    """The help of a command."""
    said = tshsr(*words, "--help")
    assert said.code == 0, said.err
    return said.out


def tiny(recipe: str, options: list[str]) -> list[str]:
    """Settings of a small network; baselines have no hierarchy, and weights of noisy pairs begin after the warm-up."""
    warmup = ("--loss.warmup-epochs", "0.5") if "--loss.robust" in options else ()
    pairs = zip((*TINY, *warmup)[::2], (*TINY, *warmup)[1::2], strict=True)
    return [word for pair in pairs if recipe.startswith("tshsr-") or ".reasoning." not in pair[0] for word in pair]


def run_command(arguments: list[str], block: Block) -> None:
    """Run `tshsr`; it must succeed."""
    said = tshsr(*arguments)
    assert said.code == 0, f"{block.place}: tshsr {shlex.join(arguments)}\n{said.err}"


def check_install(arguments: list[str], block: Block) -> None:
    """The extras and files that an installation names exist."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    for word in arguments:
        for names in re.findall(r"\[(.*)\]", word):
            assert set(names.split(",")) <= set(extras), f"{block.place}: {word}"
        assert not word.endswith(".txt") or (ROOT / word).is_file(), f"{block.place}: {word}"
