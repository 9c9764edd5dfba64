"""`tshsr explain`: a page that explains the scores of one picture with sentences."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tshsr.cli.options import Argument, Folder, Name, Output, load_retriever, parse
from tshsr.cli.score import find_picture
from tshsr.cli.screen import Screen
from tshsr.errors import SettingsError
from tshsr.files import write_text

if TYPE_CHECKING:
    from tshsr.explain.attribution import Explanation

EXAMPLE = 'tshsr explain runs/first --data DIR --image 0 --text "a red circle"'


@dataclass(frozen=True)
class Explain:
    """A page that explains scores by the weights between words and regions, in both streams."""

    run: Annotated[str, Argument("RUN", positional=True)]
    """A run's folder, or owner/name on the Hugging Face hub."""
    image: Annotated[str, Argument("IMAGE")]
    """Id or row number of an image of the data; without --data a picture file, for runs on pixels or scenes."""
    text: Annotated[tuple[str, ...], Argument("TEXT", append=True)] = ()
    """A sentence, in quotes; repeat --text for more."""
    out: Annotated[Path, Argument("PATH", output=True)] = Path("explanation.html")
    """The page: one file that needs no network."""
    data: Folder = None
    """A folder of data, or the word scenes."""
    split: str = "test"
    """Which split of the data."""
    json: Output = None
    """Write the explanations to this file as JSON too; - writes them to stdout, in place of the table."""
    device: Name = None
    """cpu, cuda or mps; by default the best one of this machine."""


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
        screen.table(("word", *map(column_header, explanation.streams)), heaviest(explanation))
    screen.say(f"Open {wanted.out} to see them in the picture.")


def column_header(stream: str) -> str:
    """Column header of a stream."""
    return {"word_stream": "word attends to region", "region_stream": "region attends to word"}.get(stream, stream)


def heaviest(explanation: Explanation) -> list[tuple[str, ...]]:
    """For each word and stream, the region with the largest weight and that weight."""
    rows = []
    for number, word in enumerate(explanation.words):
        cells = []
        for stream in explanation.streams.values():
            row = stream.word_regions[number]
            region = max(range(len(row)), key=row.__getitem__)
            cells.append(f"{region} ({100 * row[region]:.0f} %)")
        rows.append((word, *cells))
    return rows
