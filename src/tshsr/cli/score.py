"""`tshsr score`: one picture, one sentence."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from tshsr.cli.choices import find_picture, load_retriever
from tshsr.cli.parsing import File, Folder, Name, parse
from tshsr.cli.screen import Screen

EXAMPLE = 'tshsr score runs/first --data DIR --image 0 --text "a red circle"'


@dataclass(frozen=True)
class Score:
    """All scores of one picture with one sentence."""

    run: Annotated[Positional[str], arg(metavar="RUN")]
    """A run's folder, or owner/name on the Hugging Face hub."""
    image: Annotated[str, arg(metavar="IMAGE")]
    """Id or row number of an image of the data; without --data a picture file, for runs on the built-in scenes."""
    text: Annotated[str, arg(metavar="TEXT")]
    """The sentence, in quotes."""
    data: Folder = None
    """A folder of data, or the word scenes."""
    split: str = "test"
    """Which split of the data."""
    json: File = None
    """Write the scores to this file; - writes them to stdout, in place of the table."""
    device: Name = None
    """cpu, cuda or mps; the best one here without it."""


def main(arguments: Sequence[str], screen: Screen) -> None:
    """Score."""
    wanted = parse(Score, "tshsr score", arguments, example=EXAMPLE)
    retriever = load_retriever(wanted.run, wanted.device)
    shown = find_picture(retriever, wanted.image, wanted.data, wanted.split)
    scores = retriever.score_pair(shown.batch, wanted.text)
    if wanted.json is not None:
        values = {"model": retriever.name, "image": shown.name, "text": wanted.text, "scores": scores}
        screen.json(json.dumps(values, indent=2, ensure_ascii=False), wanted.json)
    if wanted.json != "-":
        screen.say(f"{shown.name}: {wanted.text}")
        screen.table(("score", "value"), [(name, f"{score:.4f}") for name, score in scores.items()])
