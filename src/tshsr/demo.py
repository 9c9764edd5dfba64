"""The demo: generate scenes, train, evaluate, probe, write a report, and index the scenes."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from tshsr.config.recipes import recipe
from tshsr.config.run import RunConfig
from tshsr.data.dataset import Split
from tshsr.data.generated import scenes_folder
from tshsr.data.layouts import open_split
from tshsr.data.manifest import read_manifest
from tshsr.data.truth import Truth, read_truth
from tshsr.errors import DataError, SettingsError, parse_json
from tshsr.evaluation.run import evaluate_models
from tshsr.explain.attribution import explain_pair
from tshsr.explain.binding import pointing_and_binding
from tshsr.explain.pointing_game import pointing_chance
from tshsr.files import write_text
from tshsr.metrics.recall import image_to_text_ranks, text_to_image_ranks
from tshsr.metrics.report import Report
from tshsr.pages.charts import training_charts
from tshsr.pages.report import (
    ReportPage,
    Search,
    WordMaps,
    first_examples,
    render_report,
    search_captions,
    search_pictures,
)
from tshsr.retriever import Retriever
from tshsr.scoring.options import ScoringOptions
from tshsr.system import one_thread
from tshsr.training.checks import check_training
from tshsr.training.events import Event, Scoring
from tshsr.training.fit import FitResult, fit
from tshsr.training.log import LOG

FOUND, MISSED = 2, 2
"""Successful and failed searches on the page, in each direction."""


def make_page(
    report: Report,
    retriever: Retriever,
    test: Split,
    truth: Truth,
    scores: np.ndarray,
    facts: Mapping[str, str],
    log: list[Mapping[str, object]],
) -> ReportPage:
    """The report page, with the first searches that succeeded and failed, not selected by hand."""
    names = test.image_ids
    captions = first_examples(text_to_image_ranks(scores, test.image_of_caption), found=FOUND, missed=MISSED)
    images = first_examples(image_to_text_ranks(scores, test.image_of_caption), found=FOUND, missed=MISSED)
    by_caption = tuple(search_pictures(scores, test, caption, names=names) for caption in captions)
    by_picture = tuple(search_captions(scores, test, image, names=names) for image in images)
    explained = [caption for caption in captions if truth.regions_of_word[caption]][: FOUND + 1]
    maps = tuple(word_maps_of(retriever, test, truth, caption) for caption in explained)
    used = used_pictures(by_caption, by_picture, maps)
    return ReportPage(
        title="TSHSR on built-in scenes: results and explanations",
        report=report,
        facts=facts,
        charts=training_charts(log),
        pointing_chance=pointing_chance(test, truth),
        pictures={name: open_picture(test, names.index(name)) for name in used},
        text_to_image=by_caption,
        image_to_text=by_picture,
        maps=maps,
    )


def word_maps_of(retriever: Retriever, test: Split, truth: Truth, caption: int) -> WordMaps:
    """The explanation of a caption with its own image, and the true regions."""
    image = int(test.image_of_caption[caption])
    explanation = explain_pair(retriever, test.regions.read([image]), test.captions[caption])
    return WordMaps(test.image_ids[image], explanation, truth.regions_of_word[caption])


def used_pictures(
    by_caption: tuple[Search, ...], by_picture: tuple[Search, ...], maps: tuple[WordMaps, ...]
) -> list[str]:
    """Ids of all pictures on the page, each once."""
    names = [hit.item for search in by_caption for _, hit in search.shown()]
    names += [search.query for search in by_picture]
    names += [entry.picture for entry in maps]
    return list(dict.fromkeys(names))


def open_picture(split: Split, image: int) -> Image.Image:
    """The picture of an image.

    Raises:
        DataError: Where its file is missing.
    """
    path = split.picture(image)
    if path is None:
        raise DataError(
            f"{split.data} has no picture of {split.image_ids[image]}; remove its folder, and run the demo again."
        )
    with Image.open(path) as opened:
        return opened.convert("RGB")


RECIPE = "tshsr-scenes"
RUN, PAGE, REPORT, MARK, INDEX = "run", "report.html", "report.json", "demo.json", "index"
SEARCH = "lancedb"
"""The library of the index, an optional extra."""


@dataclass(frozen=True)
class Sizes:
    """Number of scenes of each split, and their seed."""

    train: int = 3000
    dev: int = 500
    test: int = 500
    seed: int = 0


@dataclass(frozen=True)
class Stage:
    """Event: a stage of the demo begins."""

    name: str


@dataclass(frozen=True)
class DemoResult:
    """Results of the demo.

    Attributes:
        folder: Folder of the run, `report.html` and `report.json`.
        index: The index of the test scenes; None where its library is not installed.
        data: The folder of the scenes.
        report: The figures on the test split.
        image: Id of a test image, as an example.
    """

    folder: Path
    index: Path | None
    data: Path
    report: Report
    image: str
    caption: str
    picture: Path
    seconds: float


Listener = Callable[[Event | Stage], None]


def ignore_event(_event: Event | Stage, /) -> None:
    """No-op listener."""


def check_demo(out: Path, config: RunConfig, sizes: Sizes) -> None:
    """Check the settings, before scenes are generated and an earlier demo is removed.

    Raises:
        DataError: Where the folder is a file.
        SettingsError: Where a split has no scene, or a training setting is out of range.
    """
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file; name a folder with --out.")
    for name in ("train", "dev", "test"):
        if getattr(sizes, name) < 1:
            raise SettingsError(f"{name} is {getattr(sizes, name)} scenes; expected at least 1.")
    check_training(config)


def run_demo(
    out: Path,
    sizes: Sizes = Sizes(),
    *,
    config: RunConfig | None = None,
    device: str = "cpu",
    listen: Listener = ignore_event,
) -> DemoResult:
    """Run the demo in a folder; the files of an earlier demo are replaced, all others stay.

    Args:
        out: Receives `run`, `index`, `report.html` and `report.json`; the reports are written at the end.
        sizes: The scenes, generated once and cached (call `scenes_folder` before for its progress).
        config: Training settings; by default the recipe tshsr-scenes with the seed of the scenes.
        device: Device of training and evaluation.
        listen: Called with each stage of the demo and each event of training.

    Raises:
        DataError: Where `out` holds a run, an index or a report that no demo wrote, or a folder can't be written.
        SettingsError: Where a size or setting is out of range.
        CollapseError: Where training fails.
    """
    start = time.perf_counter()
    config = config or demo_config(sizes.seed)
    check_demo(out, config, sizes)
    data = scenes_folder(**asdict(sizes))
    train, dev, test = (open_split(data, name) for name in ("train", "dev", "test"))
    clear(out, config, sizes)
    listen(Stage(f"training {config.recipe} on {len(train.captions):,} captions"))
    # The network is narrow (D 128, m 32): on two cores a training step takes 0.23 s with one thread, and 0.29 s to
    # 0.34 s with two, which mostly wait for each other.
    with one_thread():
        trained = fit(config, train=train, dev=dev, out=out / RUN, resume=True, device=device, listen=listen)
    listen(Stage(f"evaluating on {len(test.regions):,} unseen images"))
    retriever = Retriever.from_pretrained(out / RUN).to(device)
    epochs = trained.config.training.epochs
    found = evaluate_models(
        [retriever],
        test,
        protocol="flickr",
        options=ScoringOptions(device=device, progress=lambda done, pairs: listen(Scoring(epochs, done, pairs))),
    )
    truth = read_truth(data, test.name)
    if truth is None:
        raise DataError(f"{data} has no ground truth of {test.name}; remove the folder, and run the demo again.")
    report = found.report(known_truth=pointing_and_binding(retriever, test, truth))
    listen(Stage("writing the report"))
    facts = describe_run(trained, retriever, sizes)
    page = make_page(report, retriever, test, truth, found.scores["fused"], facts, read_log(out / RUN / LOG))
    write_text(out / PAGE, render_report(page))
    report.write(out / REPORT)
    index = None
    if find_spec(SEARCH) is not None:
        listen(Stage(f"indexing {len(test.regions):,} test scenes"))
        index = index_scenes(out / INDEX, retriever, test, data, out / RUN)
    return finished(out, index, data, report, test, time.perf_counter() - start)


def index_scenes(folder: Path, retriever: Retriever, test: Split, data: Path, run: Path) -> Path:
    """Make an index of the test scenes; returns its folder."""
    from tshsr.index.collection import Index  # needs an extra

    Index.build(folder, retriever, test, run=run, settings=read_manifest(data).settings)
    return folder


def demo_config(seed: int) -> RunConfig:
    """The demo's recipe with a seed."""
    config = recipe(RECIPE)
    # Dev is scored twice in four epochs, for the curve and the choice between the two; few images keep that short.
    return replace(config, training=replace(config.training, seed=seed, dev_images=100))


def clear(out: Path, config: RunConfig, sizes: Sizes) -> None:
    """Remove the files of an earlier demo, finished or killed; reports first: none describes a removed run.

    Raises:
        DataError: Where the folder of the run, the index or a report was not made by a demo.
    """
    run = out / RUN
    there = [path.name for path in run.iterdir() if not path.name.startswith(".")] if run.is_dir() else []
    if there and MARK not in there:
        raise DataError(f"{run} holds something that no demo wrote ({there[0]}); name another folder with --out.")
    for path in (out / REPORT, out / PAGE):
        if path.exists() and not there:  # a demo writes its reports at the end, beside its run
            raise DataError(f"{path} was written by no demo; name another folder with --out.")
    clear_index(out / INDEX, run)
    (out / REPORT).unlink(missing_ok=True)
    (out / PAGE).unlink(missing_ok=True)
    for path in sorted(run.iterdir() if run.is_dir() else [], key=lambda path: path.name == MARK):
        # The mark goes last: if this process is killed, the next demo still recognises the folder.
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    write_text(run / MARK, json.dumps({"recipe": config.recipe, **asdict(sizes)}) + "\n")


def clear_index(index: Path, run: Path) -> None:
    """Remove the index of an earlier demo.

    Raises:
        DataError: Where the folder is not one that a demo made.
    """
    if not index.is_dir() or not any(index.iterdir()):
        return
    about = index / "index.json"
    beside = parse_json(about.read_text(encoding="utf-8")).get("beside") if about.is_file() else None
    if beside is None or (index / beside).resolve() != run.resolve():
        raise DataError(f"{index} holds something that no demo wrote; name another folder with --out.")
    shutil.rmtree(index)


def read_log(path: Path) -> list[Mapping[str, object]]:
    """The lines of a run's log."""
    return [parse_json(line) for line in path.read_text(encoding="utf-8").splitlines()]


def describe_run(trained: FitResult, retriever: Retriever, sizes: Sizes) -> dict[str, str]:
    """Scenes, network and training, for the head of the page."""
    parameters = sum(parameter.numel() for parameter in retriever.matcher.parameters())
    training = trained.config.training
    return {
        "Scenes": f"{sizes.train:,} train, {sizes.dev:,} dev, {sizes.test:,} test, seed {sizes.seed}",
        "Network": f"recipe {trained.config.recipe}, {parameters:,} parameters",
        "Training": f"{training.epochs} epochs, {trained.steps:,} steps of {training.batch}, {trained.seconds:,.0f} s, "
        f"best after epoch {trained.best_epoch}",
    }


def finished(out: Path, index: Path | None, data: Path, report: Report, test: Split, seconds: float) -> DemoResult:
    """The results, with an example image."""
    picture = test.picture(0)
    return DemoResult(
        folder=out,
        index=index,
        data=data,
        report=report,
        image=test.image_ids[0],
        caption=test.captions[0],
        picture=picture or data,
        seconds=seconds,
    )
