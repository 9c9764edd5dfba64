"""`tshsr demo`: training, evaluation, explanation and search on built-in scenes."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tshsr.cli.options import Argument, Flag, Name, choose_device, parse
from tshsr.cli.screen import Screen, duration

if TYPE_CHECKING:
    from tshsr.demo import DemoResult, Sizes, Stage
    from tshsr.training.events import Event

QUERY = "a small red circle"


@dataclass(frozen=True)
class Demo:
    """Generate scenes, train, evaluate on unseen scenes, write a report as a page, and index them for a search."""

    out: Path = Path("demo")
    """Folder for the run, its index, report.html and report.json; an earlier demo in it is replaced."""
    train: int = 3000
    """Scenes to train on, each with five captions."""
    dev: int = 500
    """Scenes that select the best weights."""
    test: int = 500
    """Scenes to evaluate on."""
    seed: int = 0
    """Seed of the scenes and of training."""
    epochs: Annotated[int | None, Argument("INT")] = None
    """Passes over the captions; by default those of the recipe tshsr-scenes."""
    device: Name = None
    """cpu, cuda or mps; by default the best one of this machine."""
    quiet: Flag = False
    """Show no progress but a line for each epoch and each evaluation."""


def main(arguments: Sequence[str], screen: Screen) -> None:
    """Run the demo."""
    wanted = parse(Demo, "tshsr demo", arguments)
    from tshsr.cli.tables import show_report
    from tshsr.cli.watching import watching
    from tshsr.data.generated import scenes_folder
    from tshsr.demo import PAGE, REPORT, Sizes, Stage, check_demo, demo_config, run_demo

    sizes = Sizes(wanted.train, wanted.dev, wanted.test, wanted.seed)
    config = demo_config(wanted.seed)
    if wanted.epochs is not None:
        config = replace(config, training=replace(config.training, epochs=wanted.epochs))
    check_demo(wanted.out, config, sizes)
    device = choose_device(wanted.device)
    screen.note(f"drawing {sizes.train + sizes.dev + sizes.test:,} scenes, unless they are cached")
    with screen.progress(quiet=wanted.quiet) as begin:
        scenes_folder(**asdict(sizes), progress=begin("drawing", "scenes"))
    with watching(screen, config.training.epochs, quiet=wanted.quiet) as watch:

        def listen(event: Event | Stage) -> None:
            if isinstance(event, Stage):
                screen.note(event.name)
            else:
                watch(event)

        done = run_demo(wanted.out, sizes, config=config, device=device, listen=listen)
    show_report(screen, done.report)
    screen.say(
        f"\nThe report: {done.folder / PAGE} (figures: {done.folder / REPORT}); {duration(done.seconds)} in all."
    )
    screen.say("\nWhat to try next:")
    for line in suggestions(done, sizes):
        screen.say(f"  {line}")
    if done.index is None:
        screen.say("\nTo search the scenes on a page: pip install 'tshsr[search,serve]', and run the demo again.")
    else:
        screen.say(f"\nSearch the scenes on a page: {shlex.join(['tshsr', 'serve', str(done.index), '--open'])}")


def suggestions(done: DemoResult, sizes: Sizes) -> list[str]:
    """Commands to try next, quoted for a shell."""
    from tshsr.data.layouts import SCENES
    from tshsr.demo import RUN, Sizes

    run, data = str(done.folder / RUN), SCENES if sizes == Sizes() else str(done.data)
    pair = ["--image", done.image, "--text", done.caption]
    page = str(done.folder / "explanation.html")
    found = [] if done.index is None else [["tshsr", "search", str(done.index), QUERY]]
    commands = [
        *found,
        ["tshsr", "explain", run, "--data", data, *pair, "--out", page],
        ["tshsr", "score", run, "--image", str(done.picture), "--text", QUERY],
        ["tshsr", "evaluate", run, "--data", data, "--split", "dev"],
        ["tshsr", "data", "info", data],
    ]
    return [shlex.join(command) for command in commands]
