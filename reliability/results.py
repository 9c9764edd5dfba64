"""Results of a campaign: what was tried, what survived; one JSON file each, with its provenance."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tshsr.errors import DataError, InputError
from tshsr.files import write_text
from tshsr.system import provenance

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Row:
    """One line of a campaign.

    Attributes:
        what: A noun phrase, lower case, without a full stop.
        lost: Trials that left something torn, went on wrongly or ended without a sentence.
        note: A short clause; may be empty.
    """

    what: str
    tried: int
    survived: int
    lost: int
    note: str = ""

    def __post_init__(self) -> None:
        """Refuse counts that do not add up.

        Raises:
            InputError: Where they do not.
        """
        if min(self.tried, self.survived, self.lost) < 0 or self.tried != self.survived + self.lost:
            raise InputError(
                f"{self.what}: {self.tried} tried, {self.survived} survived and {self.lost} lost; expected counts that "
                "add up."
            )


@dataclass(frozen=True)
class Figure:
    """A measured value beside the counts.

    Attributes:
        what: As in a row.
        unit: "ms", "MiB"; may be empty.
    """

    what: str
    value: float
    unit: str


def write_result(
    name: str, title: str, command: str, rows: Sequence[Row], figures: Sequence[Figure] = (), folder: Path = RESULTS
) -> Path:
    """Write a campaign's result with the provenance of this machine.

    Args:
        name: Of the file, NAME.json.
        title: Of its section on the page.
        command: What a user types to repeat it.

    Returns:
        The file.

    Raises:
        DataError: Where nothing was tried in a row, which would read as nothing lost, or it cannot be written.
    """
    for row in rows:
        if not row.tried:
            raise DataError(f"{name}: 0 tried of {row.what!r}, expected 1 or more; find out why, and repeat {command}.")
    values = {
        "name": name,
        "title": title,
        "command": command,
        "rows": [asdict(row) for row in rows],
        "figures": [asdict(figure) for figure in figures],
        "provenance": provenance(),
    }
    path = folder / f"{name}.json"
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")
    return path


def summary(rows: Sequence[Row]) -> str:
    """The line that a campaign prints at its end."""
    return f"survived {sum(row.survived for row in rows):,} of {sum(row.tried for row in rows):,} tried"


def with_left_out(note: str, trials: int) -> str:
    """A note that also names the number of trials that were left out, where there are any."""
    return f"{note}, {trials} left out" if trials else note
