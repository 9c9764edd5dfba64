"""The index update beside the load: pictures are removed and added again, until stdin ends.

python -m reliability.load_update INDEX DATA SPLIT PAUSE
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Sequence

from tshsr.data.layouts import open_split
from tshsr.errors import TshsrError
from tshsr.index.collection import Index


def main(words: Sequence[str]) -> None:
    """Update, and print the counts as JSON."""
    folder, data, split, pause = words
    ended = threading.Event()
    threading.Thread(target=wait_for_end, args=(ended,), daemon=True).start()
    print(json.dumps(updates(folder, data, split, float(pause), ended)), flush=True)  # noqa: T201


def wait_for_end(ended: threading.Event) -> None:
    """Set the event at the end of stdin."""
    sys.stdin.read()
    ended.set()


def updates(folder: str, data: str, name: str, pause: float, ended: threading.Event) -> dict[str, int]:
    """Remove and add the pictures of a split until the event; every state must have the expected size.

    Returns:
        Number of updates tried and survived.
    """
    index, split = Index.open(folder), open_split(data, name)
    before, tried, survived = len(index), 0, 0
    print("ready", flush=True)  # noqa: T201
    while not ended.wait(pause):
        for expected, change in (
            (before - len(split.image_ids), lambda: index.delete(split.image_ids)),
            (before, lambda: index.add(split)),
        ):
            tried += 1
            try:
                change()
                survived += len(index) == expected
            except TshsrError as error:
                sys.stderr.write(f"{error}\n")
    return {"tried": tried, "survived": survived}


if __name__ == "__main__":
    main(sys.argv[1:])
