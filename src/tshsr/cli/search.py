"""`tshsr search`: pictures for a sentence, or sentences for a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tshsr.cli.options import Argument, Name, OptionalPath, Output, choose_device, listed, parse
from tshsr.cli.screen import Screen
from tshsr.errors import PictureError, SettingsError
from tshsr.files import write_text

if TYPE_CHECKING:
    from PIL import Image

    from tshsr.explain.attribution import Explanation
    from tshsr.explain.word_boxes import WordBoxes
    from tshsr.index.collection import Index
    from tshsr.index.search import CaptionResult, Result

EXAMPLE = 'tshsr search INDEX "a red circle" -k 5'


@dataclass(frozen=True)
class Search:
    """Find pictures for a sentence, with the regions of its words; with --image, sentences for a picture."""

    index: Annotated[str, Argument("INDEX", positional=True)]
    """Folder that tshsr index made."""
    query: Annotated[str, Argument("QUERY", positional=True)] = ""
    """The sentence, in quotes."""
    k: Annotated[int, Argument(alias="-k")] = 10
    """Number of results."""
    image: OptionalPath = None
    """A picture file: find sentences for it."""
    where: Annotated[str | None, Argument("CONDITION")] = None
    """A condition on the metadata of pictures, as in "year > 2010 AND place = 'Oslo'"."""
    candidates: Annotated[int | None, Argument("INT")] = None
    """Candidates by v·t that the network scores; default 100."""
    min_probability: float = 0.0
    """Leave out results that match with a lower probability (0..1); needs a run with tshsr calibrate."""
    json: Output = None
    """Write the results to this file; - writes them to stdout, in place of the table."""
    explain: Annotated[Path | None, Argument("PATH", output=True)] = None
    """Write a page that explains each result: one file that needs no network."""
    run: Name = None
    """The run, where it has moved since the index was made."""
    device: Name = None
    """cpu, cuda or mps; by default the best one of this machine."""


def main(arguments: Sequence[str], screen: Screen) -> None:
    """Search."""
    wanted = parse(Search, "tshsr search", arguments, example=EXAMPLE)
    check(wanted)
    from tshsr.index.collection import Index

    index = Index.open(wanted.index, run=wanted.run, device=choose_device(wanted.device))
    if index.about.unfinished is not None:
        screen.note(
            f"The addition of {index.about.unfinished} is in progress or was interrupted: results are incomplete."
        )
    if wanted.candidates is not None:
        index.candidates = wanted.candidates
    if wanted.image is None:
        by_text(wanted, index, screen)
    else:
        by_picture(wanted, wanted.image, index, screen)


def check(wanted: Search) -> None:
    """Refuse options that exclude each other.

    Raises:
        SettingsError: Where two are given; the message names them.
    """
    if wanted.image is None and not wanted.query.strip():
        raise SettingsError(f"expected a sentence to search for, or --image FILE; for example: {EXAMPLE}.")
    if wanted.image is not None and wanted.query:
        raise SettingsError("a search has one query: give the sentence or --image FILE, not both.")
    if wanted.image is not None and wanted.where is not None:
        raise SettingsError("--where filters pictures, and --image FILE finds sentences; leave one of them out.")
    for name, number in (("-k", wanted.k), ("--candidates", wanted.candidates)):
        if number is not None and number < 1:
            raise SettingsError(f"{name} is {number}; expected at least 1.")


def by_text(wanted: Search, index: Index, screen: Screen) -> None:
    """Pictures for a sentence."""
    unknown = index.unknown_words(wanted.query)
    if unknown:
        screen.note(f"Not in the vocabulary of {index.retriever.name}, and without regions: {listed(unknown, 'and')}.")
    results = index.search(wanted.query, wanted.k, where=wanted.where, min_probability=wanted.min_probability)
    if wanted.explain is not None and results:
        explanations = [index.explain(wanted.query, result.id) for result in results]
        write_page(wanted.explain, explanations, [opened(index.picture_file(result.id)) for result in results])
    if wanted.json is not None:
        values = {"query": wanted.query, "results": [as_json(result) for result in results]}
        screen.json(json.dumps(values, ensure_ascii=False, default=str), wanted.json)
    if wanted.json != "-":
        if results:
            show_pictures(screen, results)
        finish(wanted, screen, found=bool(results))


def by_picture(wanted: Search, file: Path, index: Index, screen: Screen) -> None:
    """Sentences for a picture.

    Raises:
        SettingsError: Where the index has no captions.
    """
    from tshsr.data.pictures import read_picture
    from tshsr.explain.attribution import explain_pair
    from tshsr.retriever import as_batch

    picture = read_picture(file)
    if not index.captions:
        raise SettingsError(f"{wanted.index} holds no captions; index some, without --no-captions.")
    regions = index.extractor().extract([picture])[0]
    results = index.search_picture(regions, wanted.k, min_probability=wanted.min_probability)
    if wanted.explain is not None and results:
        batch = as_batch(regions.features, regions.boxes, regions.pooled)
        explanations = [explain_pair(index.retriever, batch, result.caption) for result in results]
        write_page(wanted.explain, explanations, [picture] * len(results))
    if wanted.json is not None:
        values = {"image": str(file), "results": [caption_json(result) for result in results]}
        screen.json(json.dumps(values, ensure_ascii=False), wanted.json)
    if wanted.json != "-":
        if results:
            show_captions(screen, results)
        finish(wanted, screen, found=bool(results))


def finish(wanted: Search, screen: Screen, *, found: bool) -> None:
    """Print the line under a table."""
    if not found and wanted.min_probability > 0:
        screen.say(f"Nothing matches: no result has a probability of {wanted.min_probability:g} or more.")
    elif not found:
        screen.say("No results: the index holds nothing that matches the query.")
    elif wanted.explain is not None:
        screen.say(f"Open {wanted.explain} to see why.")


def as_json(result: Result) -> Mapping[str, Any]:
    """A result as JSON values."""
    words = [{"word": word.word, "boxes": [list(box) for box in word.boxes]} for word in result.words]
    more: dict[str, Any] = {"metadata": result.metadata} if result.metadata else {}
    chance = {} if result.probability is None else {"probability": result.probability}
    return {"id": result.id, "file": result.file, "score": result.score, **chance, "words": words, **more}


def caption_json(result: CaptionResult) -> Mapping[str, Any]:
    """A caption result as JSON values, without a probability that is unknown."""
    return {name: value for name, value in asdict(result).items() if name != "probability" or value is not None}


def score_cells(result: Result | CaptionResult) -> tuple[str, ...]:
    """The score and, where it is known, the probability of a match."""
    return (f"{result.score:.4f}", *([] if result.probability is None else [f"{result.probability:.3f}"]))


def score_heads(results: Sequence[Result | CaptionResult]) -> tuple[str, ...]:
    """Titles of `score_cells`."""
    return ("score", "probability") if results[0].probability is not None else ("score",)


def show_pictures(screen: Screen, results: Sequence[Result]) -> None:
    """Pictures as a table, with a line for each word and its heaviest box."""
    boxed = any(word.boxes for result in results for word in result.words)
    width = max((len(word.word) for result in results for word in result.words), default=0)
    rows = []
    for result in results:
        places = [place_of(word, width) for word in result.words if word.boxes] or [""]
        cells = score_cells(result)
        rows.append((result.id, *cells, places[0], short(result.file)))
        rows += [("", *[""] * len(cells), place, "") for place in places[1:]]
    heads = score_heads(results)
    if not boxed:
        screen.table(("picture", *heads, "file"), [(*row[:-2], row[-1]) for row in rows])
        return
    screen.table(("picture", *heads, "where its words are", "file"), rows)
    screen.say("For each word the weight of its heaviest box, and that box: left, top, right and bottom in percent.")


def show_captions(screen: Screen, results: Sequence[CaptionResult]) -> None:
    """Sentences as a table."""
    rows = [(result.caption, *score_cells(result), result.image) for result in results]
    screen.table(("sentence", *score_heads(results), "picture"), rows)


def place_of(word: WordBoxes, width: int) -> str:
    """A word with its heaviest box."""
    *corners, weight = word.boxes[0]
    return f"{word.word:<{width}} {100 * weight:3.0f} %  " + " ".join(f"{100 * corner:3.0f}" for corner in corners)


def short(file: str | None) -> str:
    """A path relative to the working directory, where it is inside."""
    if file is None:
        return "-"
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file


def opened(file: Path | None) -> Image.Image | None:
    """The picture in a file; None where there is none, or it is damaged."""
    from tshsr.data.pictures import read_picture

    try:
        return None if file is None else read_picture(file)
    except PictureError:
        return None


def write_page(path: Path, explanations: Sequence[Explanation], pictures: Sequence[Image.Image | None]) -> None:
    """Write the page that explains results."""
    from tshsr.pages.explanation import render_explanations

    write_text(path, render_explanations(explanations, pictures))
