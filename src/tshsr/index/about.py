"""`index.json` beside the tables: which model and which features an index was built with."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError

from tshsr.config.models import knowledge_of
from tshsr.errors import CheckpointError, DataError, first_invalid
from tshsr.files import is_remote, is_there, reachable, write_text
from tshsr.models.concepts import has_shares, pooled_width
from tshsr.models.whole import starts_at_encoder
from tshsr.retriever import Retriever
from tshsr.scoring.compression import RegionPooling, TokenFormat
from tshsr.training.checkpoints import load_tensors

VERSION = 1
INFO_FILE = "index.json"
PROBING = 1
"""Meaning of `probes`: the number of partitions that a query reads; before, LanceDB read all, whatever their number."""


@dataclass(frozen=True)
class IndexInfo:
    """Contents of `index.json`.

    Attributes:
        weights: Digest of its weights and vocabulary.
        dim: Width of the joint space.
        extractor: Name of the extractor of the features.
        settings: Settings of the extractor (JSON values).
        run: The model's folder, or owner/name on the hub; None where unknown.
        beside: The same folder relative to the index, so that both can move together.
        unfinished: The splits whose addition is in progress or was interrupted, joined by "; "; None otherwise.
        probes: By table, number of partitions of its ANN index that a query reads.
        pooled_width: Width of v and t; 0: `dim`.
        shares: Whether the tables have the share of pooled items in v and t.
        probing: `PROBING` when `probes` were chosen; others are not used, so that the search is exact.
        tokens: Numbers of the regions of pictures.
        regions: Number of learned regions (`regions.safetensors`) that those of a picture are pooled to; 0: no pooling.
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
    pooled_width: int = 0
    shares: bool = False
    probing: int = 0
    tokens: TokenFormat = "float16"
    regions: int = 0


@dataclass(frozen=True)
class Smaller:
    """How a new index stores regions.

    Attributes:
        tokens: Their numbers; None: those of an existing index, float16 in a new one.
        pooling: Learned regions; None: those of an existing index, all regions in a new one.
    """

    tokens: TokenFormat | None = None
    pooling: RegionPooling | None = None


WHOLE = Smaller()
"""All regions, in float16."""
POOLING = "regions.safetensors"
"""File of the learned vectors of an index."""


def read_pooling(folder: Path) -> RegionPooling | None:
    """The learned regions of an index; None where it has all regions.

    Raises:
        CheckpointError: Where the file is missing or damaged.
    """
    if not read_info(folder).regions:
        return None
    tensors = load_tensors(folder / POOLING)
    pooling = RegionPooling(tensors["vectors"])
    pooling.load_state_dict(tensors)
    return pooling.requires_grad_(False)


def new_info(
    retriever: Retriever,
    extractor: str,
    settings: dict[str, Any],
    run: str | None,
    folder: Path,
    smaller: Smaller = WHOLE,
) -> IndexInfo:
    """The contents of `index.json` for a new index in a folder."""
    absolute, beside = run, None
    if run is not None and Path(run).exists():
        absolute = str(Path(run).resolve())
        beside = None if is_remote(folder) else os.path.relpath(absolute, folder.resolve())
    model = retriever.config.model
    return IndexInfo(
        version=VERSION,
        model=retriever.name,
        weights=weights_digest(retriever),
        dim=model.encoder.dim,
        extractor=extractor,
        settings=settings,
        run=absolute,
        beside=beside,
        pooled_width=pooled_width(model) if starts_at_encoder(model.encoder) or knowledge_of(model) else 0,
        shares=has_shares(model),
        probing=PROBING,
        tokens=smaller.tokens or "float16",
        regions=0 if smaller.pooling is None else len(smaller.pooling.vectors),
    )


def weights_digest(retriever: Retriever) -> str:
    """Digest of the weights and the vocabulary; models with equal digests produce equal encodings."""
    digest = hashlib.blake2b(retriever.tokenizer.identity().encode(), digest_size=16)
    for name, tensor in sorted(retriever.matcher.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_info(folder: Path) -> IndexInfo:
    """Read `index.json`.

    Raises:
        DataError: Where there is no index, or its file is damaged or of a newer version.
    """
    path = folder / INFO_FILE
    try:
        info = TypeAdapter(IndexInfo).validate_json(_content(folder))
    except ValidationError as error:
        raise DataError(
            f"{path} is damaged ({first_invalid(error)}); make the index again in another folder."
        ) from None
    if info.version != VERSION:
        raise DataError(f"{path} has version {info.version}, this tshsr reads {VERSION}; update tshsr.")
    return info if info.probing == PROBING else replace(info, probes={}, probing=PROBING)


def _content(folder: Path) -> bytes:
    """The bytes of `index.json`.

    Raises:
        DataError: Where there are none, or object storage cannot be read.
    """
    with reachable(folder):
        try:
            return (folder / INFO_FILE).read_bytes()
        except OSError as error:
            if is_remote(folder) and not isinstance(error, FileNotFoundError):
                raise
            missing = "does not exist" if not folder.exists() else f"is no index: it has no {INFO_FILE}"
            raise DataError(f"{folder} {missing}; make one with tshsr index RUN --data DIR --out {folder}.") from None


def has_info(folder: Path) -> bool:
    """Whether a folder holds an index.

    Raises:
        DataError: Where object storage cannot be read.
    """
    with reachable(folder):
        return (folder / INFO_FILE).exists()


def write_info(folder: Path, info: IndexInfo) -> None:
    """Write `index.json` atomically.

    Raises:
        DataError: Where the disk is full or the folder cannot be written.
    """
    write_text(folder / INFO_FILE, json.dumps(asdict(info), indent=2, ensure_ascii=False) + "\n")


def update_info(folder: Path, **changes: Any) -> None:
    """Change some fields; the caller holds the write lock."""
    write_info(folder, replace(read_info(folder), **changes))


def locate_run(folder: Path, info: IndexInfo, run: str | None) -> str:
    """The folder or hub name of the model of an index.

    Args:
        info: Its `index.json`.
        run: Named by the user; None: the recorded place, or the same place relative to the index if both moved.

    Raises:
        CheckpointError: Where it is unknown or does not exist any more.
    """
    if run is not None:
        return run
    if info.run is None:
        raise CheckpointError(f"{folder} does not record where its model {info.model} is; name the run with --run RUN.")
    if info.beside is None or is_remote(folder) or is_there(Path(info.run)):
        return info.run
    beside = folder / info.beside
    if is_there(beside) and beside.is_dir():
        return str(beside)
    raise CheckpointError(f"{folder} was made with the run {info.run}, which is gone; name it with --run RUN.")


def check_model(folder: Path, info: IndexInfo, retriever: Retriever) -> None:
    """Refuse a model other than that of the index, which has another joint space.

    Raises:
        CheckpointError: Where they differ; the message names both.
    """
    if weights_digest(retriever) != info.weights:
        raise CheckpointError(
            f"{folder} was made with other weights (those of {info.model}) than {retriever.name} has now; name the "
            "run that made it, or index again into another folder."
        )
