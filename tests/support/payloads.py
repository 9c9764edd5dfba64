"""Files that leave a mark when something in them is executed."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch


class Leave:
    """An object whose pickle makes a folder when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@dataclass(frozen=True)
class Payloads:
    """Contents of files that leave the mark.

    Attributes:
        mark: The folder that would be made.
    """

    mark: Path

    def contents(self) -> Iterator[tuple[str, bytes]]:
        """Names and bytes: pickles of every protocol, arrays of objects, archives of them, files of torch."""
        payload = Leave(self.mark)
        for protocol in (0, 2, pickle.HIGHEST_PROTOCOL):
            yield f"pickle-{protocol}", pickle.dumps(payload, protocol)
        objects = np.empty((2, 2, 2), dtype=object)
        objects[:] = payload
        for name, shape in (("array-1", (8,)), ("array-2", (4, 2)), ("array-3", (2, 2, 2))):
            yield name, self._saved(lambda file, shape=shape: np.save(file, objects.reshape(shape), allow_pickle=True))
        for name, save in (("npz", np.savez), ("npz-compressed", np.savez_compressed)):
            yield (
                name,
                self._saved(lambda file, save=save: save(file, **dict.fromkeys(("fused", "boxes", "scores"), objects))),
            )
        for name, zipped in (("torch-zip", True), ("torch-legacy", False)):
            for inner, value in (("", payload), ("-beside-a-tensor", {"fused": torch.zeros(2, 2), "more": payload})):
                yield (
                    name + inner,
                    self._saved(
                        lambda file, zipped=zipped, value=value: torch.save(
                            value, file, _use_new_zipfile_serialization=zipped
                        )
                    ),
                )

    @staticmethod
    def _saved(save: Any) -> bytes:
        file = io.BytesIO()
        save(file)
        return file.getvalue()


def escaping_archive(names: tuple[str, ...], content: bytes) -> bytes:
    """A zip archive with members of these names."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, content)
    return file.getvalue()
