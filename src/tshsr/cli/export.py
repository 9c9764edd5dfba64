"""`tshsr export`: a network as ONNX graphs or `torch.export` programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tshsr.cli.options import Argument, Flag, load_retriever, parse
from tshsr.cli.screen import Screen

EXAMPLE = "tshsr export runs/first --out exported"


@dataclass(frozen=True)
class Export:
    """Write the parts of a network as graphs that run without this package: images, text, and the head that scores."""

    run: Annotated[str, Argument("RUN", positional=True)]
    """A run's folder, or owner/name on the Hugging Face hub."""
    out: Annotated[Path, Argument("DIR")]
    """Folder of the graphs; made where it is missing."""
    format: Literal["onnx", "torch"] = "onnx"
    """ONNX, or programs of torch.export."""
    parts: tuple[Literal["head", "images", "text"], ...] = ()
    """The parts to write; by default all that the network has. A GRU over words has no part text."""
    int8: Flag = False
    """Also write ONNX graphs with weights in int8."""


def main(arguments: Sequence[str], screen: Screen) -> None:
    """Export.

    Raises:
        SettingsError: Where a package is missing, or the network has no such part.
        DataError: Where the folder cannot be written.
    """
    wanted = parse(Export, "tshsr export", arguments, example=EXAMPLE)
    from tshsr.export.files import export

    retriever = load_retriever(wanted.run, "cpu")
    made = export(retriever, wanted.out, parts=wanted.parts, format=wanted.format, int8=wanted.int8)
    rows = [(name, str(path), f"{path.stat().st_size / 1e6:.1f} MB") for name, path in made.files.items()]
    screen.table(("part", "file", "size"), rows)
