"""What an index remembers of the model that made it: `index.json` beside the tables."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError

from tshsr.errors import CheckpointError, DataError, first_invalid
from tshsr.files import write_text
from tshsr.retriever import Retriever

VERSION = 1
ABOUT = "index.json"


@dataclass(frozen=True)
class About:
    """An index in short.

    Attributes:
        version: Of this layout.
        model: Name of the model that encoded everything.
        weights: Fingerprint of its weights.
        dim: Width of the joint space.
        extractor: Who made the features.
        settings: How (JSON values), enough to build the extractor again where that is possible.
        run: Where the model is: a folder, or owner/name on the hub; None where nobody said.
        beside: The same folder as seen from the index, so that both can move together.
        unfinished: What is being added, or was when it was interrupted; None where nothing is.
        probes: By table, how many parts of its ANN index a query looks into.
    """

    version: int
    model: str
    weights: str
    dim: int
    extractor: str
    settings: dict[str, Any]
    run: str | None = None
    beside: str | None = None
    unfinished: str | None = None
    probes: dict[str, int] = field(default_factory=dict)


def about_model(retriever: Retriever, extractor: str, settings: dict[str, Any], run: str | None, folder: Path) -> About:
    """What a new index in a folder remembers of a model."""
    absolute, beside = run, None
    if run is not None and Path(run).exists():
        absolute = str(Path(run).resolve())
        beside = os.path.relpath(absolute, folder.resolve())
    dim = retriever.config.model.encoder.dim
    weights = fingerprint(retriever)
    return About(VERSION, retriever.name, weights, dim, extractor, settings, absolute, beside)


def fingerprint(retriever: Retriever) -> str:
    """A hash of the weights and the vocabulary: models with the same one encode everything alike."""
    digest = hashlib.blake2b(retriever.tokenizer.rules.to_str().encode(), digest_size=16)
    for name, tensor in sorted(retriever.matcher.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_about(folder: Path) -> About:
    """Read what an index remembers.

    Raises:
        DataError: Where there is no index, or its file is damaged or of a newer version.
    """
    path = folder / ABOUT
    try:
        about = TypeAdapter(About).validate_json(path.read_bytes())
    except OSError:
        missing = "does not exist" if not folder.exists() else f"is no index: it has no {ABOUT}"
        raise DataError(f"{folder} {missing}; make one with tshsr index RUN --data DIR --out {folder}.") from None
    except ValidationError as error:
        raise DataError(
            f"{path} is damaged ({first_invalid(error)}); make the index again in another folder."
        ) from None
    if about.version != VERSION:
        raise DataError(f"{path} has version {about.version}, this tshsr reads {VERSION}; update tshsr.")
    return about


def write_about(folder: Path, about: About) -> None:
    """Write it, whole or not at all.

    Raises:
        DataError: Where the disk is full or the folder cannot be written.
    """
    write_text(folder / ABOUT, json.dumps(asdict(about), indent=2, ensure_ascii=False) + "\n")


def change_about(folder: Path, **changes: Any) -> None:
    """Write some of it anew; who writes to an index holds its lock."""
    write_about(folder, replace(read_about(folder), **changes))


def place_of_run(folder: Path, about: About, run: str | None) -> str:
    """Where the model of an index is.

    Args:
        folder: The index.
        about: What it remembers.
        run: Where the user says it is; None: where it was, or where it is if it moved together with the index.

    Raises:
        CheckpointError: Where nobody knows.
    """
    if run is not None:
        return run
    if about.run is None:
        raise CheckpointError(f"{folder} does not know where its model {about.model} is; name the run with --run RUN.")
    if about.beside is None or Path(about.run).exists():
        return about.run
    beside = folder / about.beside
    if beside.is_dir():
        return str(beside)
    raise CheckpointError(f"{folder} was made with the run {about.run}, which is gone; name it with --run RUN.")


def check_model(folder: Path, about: About, retriever: Retriever) -> None:
    """Refuse a model that did not make the index: its queries would mean something else.

    Raises:
        CheckpointError: Names both.
    """
    if fingerprint(retriever) != about.weights:
        raise CheckpointError(
            f"{folder} was made with other weights (those of {about.model}) than {retriever.name} has now; name the "
            "run that made it, or index again into another folder."
        )
