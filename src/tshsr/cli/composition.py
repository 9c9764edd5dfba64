"""`tshsr composition`: who does what to whom, and which thing has which attribute."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tshsr.cli.options import Argument, Flag, Folder, Name, OptionalPath, Output, choose_device, load_retriever, parse
from tshsr.cli.screen import Screen
from tshsr.errors import SettingsError

if TYPE_CHECKING:
    from tshsr.data.composition import CompositionCase
    from tshsr.evaluation.composition import Accuracy, CompositionFigures, PictureSource
    from tshsr.retriever import Retriever

EXAMPLE = "tshsr composition RUN --annotation sugarcrepe/data --pictures val2017"
TITLES = {"pooled": "v·t", "maxsim": "MaxSim", "fused": "fused"}


@dataclass(frozen=True)
class Composition:
    """Does a true caption score above one with the same words in other places?

    v·t, MaxSim over the same tokens and the run, on SugarCrepe, ARO, Winoground, or on the false captions of scenes.
    """

    run: Annotated[str, Argument("RUN", positional=True)]
    """A run's folder, or owner/name on the Hugging Face hub."""
    annotation: OptionalPath = None
    """Annotation of SugarCrepe, ARO or Winoground: a file or its folder; without it, the false captions of --data."""
    layout: Literal["auto", "sugarcrepe", "aro", "winoground"] = "auto"
    """Layout of the annotation; auto: by the names of its files."""
    pictures: OptionalPath = None
    """Folder of the picture files, whose regions are computed with the run's extractor."""
    data: Folder = None
    """A store of the pictures' regions (tshsr features), or data with false captions, such as the word scenes."""
    split: str = ""
    """Which split of the data; by default all of a store, and test where there is no annotation."""
    limit: Annotated[int | None, Argument("INT")] = None
    """Number of cases, evenly spaced; by default all."""
    json: Output = None
    """Write the figures to this file; - writes them to stdout, in place of the table."""
    device: Name = None
    """cpu, cuda or mps; by default the best one of this machine."""
    quiet: Flag = False
    """Show no progress, neither a bar nor lines."""


def main(arguments: Sequence[str], screen: Screen) -> None:
    """Evaluate."""
    wanted = parse(Composition, "tshsr composition", arguments, example=EXAMPLE)
    check(wanted)
    from tshsr.evaluation.composition import evaluate_composition
    from tshsr.system import provenance

    device = choose_device(wanted.device)
    retriever = load_retriever(wanted.run, device)
    cases, source = cases_and_pictures(wanted, retriever)
    if wanted.limit is not None and wanted.limit < len(cases):
        cases = [cases[number * len(cases) // wanted.limit] for number in range(wanted.limit)]
    with screen.progress(quiet=wanted.quiet) as begin:
        found = evaluate_composition(retriever, cases, source, device=device, progress=begin("scoring", "cases"))
    if wanted.json != "-":
        show(screen, found)
    if wanted.json is not None:
        named = f"--data {wanted.data}" if wanted.annotation is None else f"--annotation {wanted.annotation.name}"
        command = f"tshsr composition {retriever.name} {named}"
        values = {"command": command, **provenance(), "model": retriever.name}
        values |= {"cases": len(cases), "composition": asdict(found)}
        screen.json(json.dumps(values, indent=1, ensure_ascii=False), wanted.json)


def check(wanted: Composition) -> None:
    """Refuse options that do not fit.

    Raises:
        SettingsError: Where there are any; the message says which are needed.
    """
    if wanted.annotation is None and (wanted.data is None or wanted.pictures is not None):
        raise SettingsError(
            f"expected --annotation PATH with --pictures DIR or --data STORE, or --data scenes; for example: {EXAMPLE}."
        )
    if wanted.annotation is not None and (wanted.pictures is None) == (wanted.data is None):
        raise SettingsError("--annotation needs its pictures: give either --pictures DIR or --data STORE.")
    if wanted.annotation is None and wanted.layout != "auto":
        raise SettingsError(
            f"--layout {wanted.layout} is of --annotation, which is missing; give it, or leave both out."
        )
    if wanted.limit is not None and wanted.limit < 1:
        raise SettingsError(f"--limit is {wanted.limit}; expected at least 1.")


def cases_and_pictures(wanted: Composition, retriever: Retriever) -> tuple[list[CompositionCase], PictureSource]:
    """The cases, and where the regions of their pictures come from.

    Raises:
        TshsrError: Where a file is missing or damaged, or the regions are of another extractor.
    """
    from tshsr.data.composition import foil_cases, read_composition
    from tshsr.data.layouts import find_data, open_split
    from tshsr.data.truth import Truth, read_truth
    from tshsr.evaluation.composition import PictureFiles, StoredPictures
    from tshsr.features.catalog import extractor_named

    if wanted.annotation is None:
        data, name = str(wanted.data), wanted.split or "test"
        split = retriever.readable(open_split(data, name))
        truth = read_truth(find_data(data), split.name) or Truth((), ())
        return foil_cases(split, truth), StoredPictures.of(split)
    cases = read_composition(wanted.annotation, None if wanted.layout == "auto" else wanted.layout)
    if wanted.data is not None:
        return cases, StoredPictures.of(retriever.readable(open_split(wanted.data, wanted.split or "all")))
    folder = Path(str(wanted.pictures))
    if retriever.matcher.vision is not None:
        return cases, PictureFiles(folder, retriever.extractor())
    return cases, PictureFiles(folder, extractor_named(retriever.config.extractor, device=str(retriever.device)))


def show(screen: Screen, found: CompositionFigures) -> None:
    """Accuracies by kind, and the lead of the network."""
    measures = ("text", "image", "group") if found.overall["fused"].group is not None else ("text",)
    heads = [
        f"{TITLES[name]}\n{measure}" if len(measures) > 1 else TITLES[name]
        for measure in measures
        for name in found.overall
    ]
    rows = [row_of(kind, by_score, measures) for kind, by_score in found.kinds.items()]
    rows.append(row_of("all", found.overall, measures))
    screen.table(("kind", "cases", *heads), rows)
    macro = ", ".join(f"{TITLES[name]} {100 * value:.1f}" for name, value in found.macro.items())
    screen.say(f"in percent; chance: {'25, 25 and 16.7' if len(measures) > 1 else '50'}. Mean over groups: {macro}.")
    for name, each in found.over.items():
        screen.say(
            f"fused minus {TITLES[name]}: {100 * each.mean:+.1f} points "
            f"[{100 * each.low:+.1f}, {100 * each.high:+.1f}], 95 % interval over pictures."
        )


def row_of(kind: str, by_score: Mapping[str, Accuracy], measures: Sequence[str]) -> tuple[str, ...]:
    """A line of the table."""
    cases = next(iter(by_score.values())).cases
    return (
        kind,
        f"{cases:,}",
        *(f"{100 * getattr(each, measure):.1f}" for measure in measures for each in by_score.values()),
    )
