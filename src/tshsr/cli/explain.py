"""`tshsr explain`: a page for one picture and some sentences."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tshsr.cli.options import Argument, File, Folder, Name, load_retriever, parse
from tshsr.cli.score import find_picture
from tshsr.cli.screen import Screen
from tshsr.errors import SettingsError
from tshsr.files import write_text

if TYPE_CHECKING:
    from tshsr.explain.attribution import Explanation

EXAMPLE = 'tshsr explain runs/first --data DIR --image 0 --text "a red circle"'


@dataclass(frozen=True)
class Explain:
    """A page that shows which word met which region: both streams, every level."""

    run: Annotated[str, Argument("RUN", positional=True)]
    """A run's folder, or owner/name on the Hugging Face hub."""
    image: Annotated[str, Argument("IMAGE")]
    """Id or row number of an image of the data; without --data a picture file, for runs on the built-in scenes."""
    text: Annotated[tuple[str, ...], Argument("TEXT", append=True)] = ()
    """A sentence, in quotes; give --text again for each further one."""
    out: Path = Path("explanation.html")
    """The page: one file that needs no network."""
    data: Folder = None
    """A folder of data, or the word scenes."""
    split: str = "test"
    """Which split of the data."""
    json: File = None
    """Write the explanations as data to this file too; - writes them to stdout."""
    device: Name = None
    """cpu, cuda or mps; the best one here without it."""


def main(arguments: Sequence[str], screen: Screen) -> None:
    """Explain.

    Raises:
        SettingsError: Where there is no sentence.
    """
    wanted = parse(Explain, "tshsr explain", arguments, example=EXAMPLE)
    if not wanted.text:
        raise SettingsError('expected a sentence to explain: --text "a red circle". See tshsr explain --help.')
    from tshsr.explain.attribution import explain_pair
    from tshsr.pages.explanation import render_explanations

    retriever = load_retriever(wanted.run, wanted.device)
    shown = find_picture(retriever, wanted.image, wanted.data, wanted.split)
    explanations = [explain_pair(retriever, shown.batch, text) for text in wanted.text]
    write_text(wanted.out, render_explanations(explanations, [shown.picture] * len(explanations)))
    if wanted.json is not None:
        values = [asdict(explanation) for explanation in explanations]
        screen.json(json.dumps(values, ensure_ascii=False), wanted.json)
    if wanted.json == "-":
        return
    for explanation in explanations:
        screen.say(f"{shown.name}: {explanation.caption}")
        screen.table(("word", *map(who_looks, explanation.streams)), heaviest(explanation))
    screen.say(f"Open {wanted.out} to see them in the picture.")


def who_looks(stream: str) -> str:
    """The heading of a stream's column."""
    return {"word_stream": "word looks at region", "region_stream": "region looks at word"}.get(stream, stream)


def heaviest(explanation: Explanation) -> list[tuple[str, ...]]:
    """For each word the region that it met most, in each stream, with its share."""
    rows = []
    for number, word in enumerate(explanation.words):
        cells = []
        for stream in explanation.streams.values():
            row = stream.word_regions[number]
            region = max(range(len(row)), key=row.__getitem__)
            cells.append(f"{region} ({100 * row[region]:.0f} %)")
        rows.append((word, *cells))
    return rows
