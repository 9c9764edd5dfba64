"""`tshsr train`: train a recipe on a data set."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from tshsr.cli.options import Argument, Flag, Name, choose_device, parse
from tshsr.cli.screen import Screen, duration
from tshsr.config.knowledge import KnowledgeConfig
from tshsr.config.models import ModelConfig, knowledge_of
from tshsr.config.recipes import RECIPES, recipe
from tshsr.config.run import LossConfig, OptimiserConfig, RunConfig, TrainingConfig
from tshsr.errors import SettingsError

EXAMPLE = "tshsr train tshsr-scenes --data scenes --out runs/first"
OF_BUILT_GRAPHS = ("count", "lexicon", "vectors", "vectors_width")
"""Settings of concepts that the file of a graph has decided."""


@dataclass(frozen=True)
class Train:
    """Train a network on the splits train and dev of a data set; the same settings give the same weights."""

    data: Annotated[str, Argument("DIR")]
    """A folder of data (see tshsr data info), or the word scenes."""
    out: Annotated[Path, Argument("RUN")]
    """Folder of the run: settings, weights and log."""
    model: ModelConfig
    """The network."""
    loss: LossConfig
    """The losses."""
    optimiser: OptimiserConfig
    """Optimiser and schedule."""
    training: TrainingConfig
    """Epochs, batches, seeds."""
    extractor: str = ""
    """Required extractor of the features; empty accepts any."""
    noise: Annotated[float | None, Argument("SHARE")] = None
    """Short for --training.noise: the share of the training captions that get wrong images."""
    resume: Flag = False
    """Continue the run in the folder; starts one where there is none."""
    quiet: Flag = False
    """Show no progress but a line for each epoch and each evaluation."""
    device: Name = None
    """cpu, cuda or mps; by default the best one of this machine."""


def main(arguments: Sequence[str], screen: Screen) -> None:
    """Train."""
    wanted, config = read_arguments(list(arguments))
    from tshsr.cli.watching import watching
    from tshsr.data.layouts import open_split
    from tshsr.training.checks import check_training
    from tshsr.training.fit import fit

    check_training(config)  # before a file is opened or a scene is drawn
    device = choose_device(wanted.device)
    train, dev = (open_split(wanted.data, name) for name in ("train", "dev"))
    screen.note(f"{train.data}: {len(train.regions):,} images, {len(train.captions):,} captions to train on")
    if config.training.noise:
        screen.note(f"noise: the images of {config.training.noise:.0%} of these captions are shuffled among them")
    elif config.training.noise_index:
        screen.note(f"noise: these captions have the images that {config.training.noise_index} gives them")
    with watching(screen, config.training.epochs, quiet=wanted.quiet) as listen:
        result = fit(config, train=train, dev=dev, out=wanted.out, resume=wanted.resume, device=device, listen=listen)
    if result.already_finished:
        screen.say(f"{result.folder} was finished already, after {result.steps} steps; there is nothing to do.")
    elif result.stopped:  # by SIGTERM to another of its processes
        screen.say(
            f"{result.folder} was stopped after {result.steps} steps; its state is saved: continue with --resume."
        )
        return
    else:
        screen.say(f"{result.folder} is trained: {result.steps} steps in {duration(result.seconds)}.")
    screen.say(f"Best on {dev.name} after epoch {result.best_epoch}: rSum {result.best_rsum:.1f}.")
    then = ["tshsr", "evaluate", str(wanted.out), "--data", wanted.data, "--split", "test"]
    screen.say(f"Next: {shlex.join(then)}")


def read_arguments(arguments: list[str]) -> tuple[Train, RunConfig]:
    """The options, and the recipe with their changes.

    Raises:
        SettingsError: Where the first word is no recipe, or an option is wrong.
    """
    listed = "\n".join(f"  {name}: {(make.__doc__ or '').splitlines()[0]}" for name, make in RECIPES.items())
    description = f"{Train.__doc__}\n\nRecipes:\n{listed}\n\nThe defaults below are those of the recipe named."
    if arguments and arguments[0] in ("-h", "--help"):
        parse(
            Train,
            "tshsr train RECIPE",
            ["--help"],
            defaults=defaults(RunConfig()),
            description=description,
            example=EXAMPLE,
        )
    if not arguments or arguments[0].startswith("-"):
        raise SettingsError(
            f"expected a recipe first: tshsr train RECIPE --data DIR --out RUN. The recipes are {', '.join(RECIPES)}."
        )
    config = recipe(arguments[0])
    wanted = parse(
        Train,
        f"tshsr train {arguments[0]}",
        arguments[1:],
        defaults=defaults(config),
        description=description,
        example=f"tshsr train {arguments[0]} --data DIR --out runs/first",
    )
    check_graph(config, wanted)
    return wanted, RunConfig(
        recipe=config.recipe,
        model=wanted.model,
        loss=wanted.loss,
        optimiser=wanted.optimiser,
        training=training_of(wanted),
        extractor=wanted.extractor,
    )


def check_graph(config: RunConfig, wanted: Train) -> None:
    """Refuse settings of a graph that is built, beside the file of one.

    Args:
        config: The recipe, whose own settings of a graph give way to the file.

    Raises:
        SettingsError: Names the first one.
    """
    before, now = knowledge_of(config.model), knowledge_of(wanted.model)
    if now is None or not now.graph:
        return
    for name in OF_BUILT_GRAPHS:
        value = getattr(now, name)
        if value != getattr(before or KnowledgeConfig(), name):
            raise SettingsError(
                f"--model.knowledge.{name.replace('_', '-')} {value} is for a graph that is built, and "
                f"--model.knowledge.graph names one; leave one of them out."
            )


def training_of(wanted: Train) -> TrainingConfig:
    """The training settings, with --noise.

    Raises:
        SettingsError: Where --training.noise gives another share.
    """
    if wanted.noise is None:
        return wanted.training
    if wanted.training.noise not in (0, wanted.noise):
        raise SettingsError(
            f"--noise {wanted.noise} and --training.noise {wanted.training.noise} mean the same; give one of them."
        )
    return replace(wanted.training, noise=wanted.noise)


def defaults(config: RunConfig) -> dict[str, object]:
    """The default of each option that a recipe sets."""
    return {name: value for name, value in vars(config).items() if name != "recipe"}
