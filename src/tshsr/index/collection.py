"""The public index: built from splits, searched by a sentence or a picture, updated and deleted by id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
import torch

from tshsr.data.dataset import Split
from tshsr.engines.work import Engine
from tshsr.errors import CheckpointError, InputError
from tshsr.explain.attribution import Explanation, explain_encoded
from tshsr.index.about import WHOLE, IndexInfo, Smaller, check_model, locate_run, read_info
from tshsr.index.building import Added, Addition
from tshsr.index.database import id_condition, ids_of, index_place
from tshsr.index.metadata import Metadata, check_folder
from tshsr.index.rows import CAPTIONS, PICTURES, boxes_of, encoding_of
from tshsr.index.search import (
    CANDIDATES,
    CaptionResult,
    Result,
    find_captions,
    find_pictures,
    unknown_words,
    with_probabilities,
)
from tshsr.index.snapshot import Snapshot, TableReader
from tshsr.index.updates import MAX_SUGGESTED_FROM, Tables, add_split, create_index, delete_pictures, unknown_picture
from tshsr.models.base import ItemEncoding
from tshsr.retriever import Retriever, as_batch
from tshsr.scoring.query import check_query
from tshsr.system import Begin, begin_no_progress

if TYPE_CHECKING:
    from tshsr.features.extractor import Extractor, PictureRegions


class Index:
    """Encoded pictures and captions, and the network that encoded them.

    Several processes may search while one writes: each search reads one version of the tables. Searches are
    thread-safe.

    Args:
        retriever: The network that encoded it.

    Attributes:
        candidates: Number of candidates, the best by v·t, that a search scores exactly.

    Raises:
        DataError: Where there is no index.
        CheckpointError: Where another network encoded it.
    """

    def __init__(self, folder: str | Path, retriever: Retriever) -> None:
        self.folder, self.retriever = index_place(folder), retriever
        self.candidates = CANDIDATES
        info = self.about
        check_model(self.folder, info, retriever)
        self._weights = info.weights
        self._pictures = TableReader(self.folder, PICTURES, lambda: self._checked_info().probes.get(PICTURES, 0))
        self._captions = TableReader(self.folder, CAPTIONS, lambda: self._checked_info().probes.get(CAPTIONS, 0))

    @classmethod
    def create(
        cls,
        folder: str | Path,
        retriever: Retriever,
        *,
        extractor: str,
        settings: Mapping[str, Any] | None = None,
        run: str | Path | None = None,
        smaller: Smaller = WHOLE,
    ) -> Self:
        """An empty index, or the existing one.

        Args:
            folder: Created where it is missing; may be a URL of object storage, such as s3://bucket/index.
            extractor: Name of the extractor of the features.
            settings: Its settings, from the feature store's manifest, so that `extractor` can build it again.
            run: Folder or hub name of the network, for `open`.
            smaller: Numbers of the regions (float16, or int8 for half of their bytes) and learned regions
                (`training.region_pooling`); by default as an existing index has them.

        Raises:
            DataError: Where the folder holds something else, or an index over features of another extractor or with
                other numbers or regions.
            CheckpointError: Where it holds an index of another network.
        """
        create_index(index_place(folder), retriever, extractor, settings or {}, run, smaller)
        return cls(folder, retriever)

    @classmethod
    def build(
        cls,
        folder: str | Path,
        retriever: Retriever,
        split: Split,
        *,
        run: str | Path | None = None,
        settings: Mapping[str, Any] | None = None,
        smaller: Smaller = WHOLE,
        **how: Any,
    ) -> Self:
        """An index of a split; after an interruption, the same call continues.

        Args:
            folder: Created where it is missing.
            run: Folder or hub name of the network, for `open`.
            settings: Settings of the extractor, from the feature store's manifest.
            smaller: As in `create`.
            how: Further arguments of `add`: pictures, metadata, captions, begin.

        Raises:
            DataError: Where something cannot be read or written.
            CheckpointError: Where the folder holds an index of another network.
        """
        split = retriever.readable(split)
        index = cls.create(folder, retriever, extractor=split.extractor, settings=settings, run=run, smaller=smaller)
        index.add(split, **how)
        return index

    @classmethod
    def open(cls, folder: str | Path, *, run: str | None = None, device: str | None = None) -> Self:
        """Open an index with its network.

        Args:
            run: Folder or hub name of the network; by default the recorded one, or the one that moved with the index.
            device: None: the CPU.

        Raises:
            DataError: Where there is no index, or it is damaged.
            CheckpointError: Where the network is missing, or is not that of the index.
        """
        source = locate_run(index_place(folder), read_info(index_place(folder)), run)
        retriever = Retriever.from_pretrained(source)
        return cls(folder, retriever if device is None else retriever.to(device))

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self._pictures)

    @property
    def captions(self) -> int:
        """Number of captions."""
        return len(self._captions)

    @property
    def about(self) -> IndexInfo:
        """The model, the extractor, and an unfinished addition."""
        return read_info(self.folder)

    def add(
        self,
        split: Split,
        *,
        pictures: Path | None = None,
        metadata: Metadata | None = None,
        captions: bool = True,
        replace: bool = False,
        begin: Begin = begin_no_progress,
        engine: Engine | None = None,
    ) -> Added:
        """Add the pictures of a split; indexed ones are not encoded again.

        Args:
            pictures: Folder of the picture files, also of indexed pictures; by default the split's.
            metadata: Metadata for filters, of new and of indexed pictures.
            captions: Whether captions are indexed, too.
            replace: Encode indexed pictures again.
            begin: Starts the progress of each stage.
            engine: Encodes on its workers, and adds all new pictures as one version; None: in this process.

        Raises:
            DataError: Where something cannot be read or written; earlier commits stay.
        """
        split = self.retriever.readable(split)
        if pictures is not None:
            check_folder(split, pictures)
        folder = pictures or split.pictures
        files = None if folder is None else folder.resolve()  # searches run in other working directories, too
        moved = pictures is not None
        addition = Addition(self.folder, self.retriever, split, files, metadata, replace, begin, moved, engine)
        return add_split(addition, self._tables(), captions=captions)

    def replace(self, split: Split, **how: Any) -> Added:
        """Encode the pictures of a split again, and add new ones; arguments of `add`."""
        return self.add(split, replace=True, **how)

    def delete(self, ids: Sequence[str]) -> None:
        """Delete pictures and their captions.

        Raises:
            DataError: Where an id is unknown (nothing is deleted then), or the index cannot be written.
        """
        delete_pictures(self.folder, self._tables(), self.retriever, ids)

    def search(self, text: str, k: int = 10, *, where: str | None = None, min_probability: float = 0.0) -> list[Result]:
        """Pictures for a sentence, best first: v·t selects candidates, the network scores them exactly.

        Args:
            where: SQL condition on the metadata, such as "year > 2010 AND place = 'Oslo'".
            min_probability: Results with a lower probability of a match are left out; the list may become empty.

        Raises:
            InputError: Where the sentence has no word.
            SettingsError: Where a minimum probability is given and the network has no calibration.
            FilterError: Where the filter cannot be used.
            DataError: Where the index cannot be read.
        """
        check_query(text, k)
        caption = self.retriever.encode_captions(text)
        query, count = caption.pooled[0].float().cpu(), max(self.candidates, k)
        rows = self._pictures.read(lambda table: table.candidates(query, count, where))
        found = find_pictures(self.retriever, rows, text, caption, k)
        return with_probabilities(found, self.retriever, len(self), min_probability)

    def search_picture(
        self, picture: PictureRegions, k: int = 10, *, min_probability: float = 0.0
    ) -> list[CaptionResult]:
        """Captions for a picture, best first.

        Args:
            picture: Its regions, by the extractor of the index.
            min_probability: As in `search`.

        Raises:
            InputError: Where the features are not of the width that the network reads.
            SettingsError: Where a minimum probability is given and the network has no calibration.
        """
        check_query("picture", k)
        image = self.encode_picture(picture)
        query, count = image.pooled[0].float().cpu(), max(self.candidates, k)
        rows = self._captions.read(lambda table: table.candidates(query, count))
        found = find_captions(self.retriever, rows, image, k)
        return with_probabilities(found, self.retriever, len(self), min_probability)

    def encode_picture(self, picture: PictureRegions) -> ItemEncoding:
        """The encoding of a picture.

        Raises:
            InputError: Where the features are not of the width that the network reads.
        """
        expected = self.retriever.config.model.encoder.feature_dim
        if picture.features.ndim != 2 or picture.features.shape[1] != expected:
            raise InputError(f"the picture's features have shape {picture.features.shape}; expected N x {expected}.")
        return self.retriever.encode_images(as_batch(picture.features, picture.boxes, picture.pooled))

    def encoded_pictures(self, ids: Sequence[str]) -> tuple[ItemEncoding, list[np.ndarray | None]]:
        """Encodings and boxes (regions x 4, or None) of pictures, in the order of their ids.

        Raises:
            InputError: Where there is no id.
            UnknownPictureError: Where an id is unknown.
            DataError: Where the index cannot be read.
        """
        if not ids:
            raise InputError("there are no ids of pictures; give at least one.")
        rows = self._pictures.read(lambda table: self._rows(table, ids))
        return encoding_of(self.retriever.matcher, rows, self.retriever.device), boxes_of(rows)

    def explain(self, text: str, id: str) -> Explanation:  # noqa: A002 (the field of results)
        """Explain the score of one picture with a sentence.

        Raises:
            InputError: Where the sentence has no word.
            UnknownPictureError: Where there is no such picture.
            DataError: Where the index cannot be read.
        """
        check_query(text, 1)
        row = self._pictures.read(lambda table: self._row(table, id))
        image = encoding_of(self.retriever.matcher, row, self.retriever.device)
        boxes = boxes_of(row)[0]
        return explain_encoded(self.retriever, image, None if boxes is None else torch.from_numpy(boxes)[None], text)

    def unknown_words(self, text: str) -> tuple[str, ...]:
        """Words of a query outside the vocabulary, each once; all of them are encoded as `<unk>`."""
        check_query(text, 1)
        return unknown_words(self.retriever.tokenizer, text)

    def picture_file(self, id: str) -> Path | None:  # noqa: A002 (the field of results)
        """The file of an indexed picture; None where it has none, or it does not exist any more."""
        file = self._pictures.read(lambda table: table.files.get(id))
        return file if file is not None and file.is_file() else None

    def picture_ids(self) -> list[str]:
        """Ids of all pictures."""
        return self._pictures.read(lambda table: ids_of(table.table))

    def sample_captions(self, count: int) -> list[str]:
        """Captions at evenly spaced rows of the index."""
        return self._captions.read(lambda table: table.sample("caption", count))

    def extractor(self) -> Extractor:
        """The extractor of the indexed features, built from its settings.

        Raises:
            DataError: Where it cannot be built: the features came from elsewhere.
        """
        from tshsr.features.catalog import rebuild_extractor  # its libraries are an extra

        info = self.about
        if self.retriever.matcher.vision is not None:
            return self.retriever.extractor()
        return rebuild_extractor(info.extractor, info.settings, device=str(self.retriever.device))

    def _checked_info(self) -> IndexInfo:
        """`index.json`, as long as it is of this network.

        Raises:
            CheckpointError: Where another network has built the index again.
        """
        info = self.about
        if info.weights != self._weights:
            raise CheckpointError(
                f"{self.folder} was built again, by another network ({info.model}), since it was opened; open it again."
            )
        return info

    def _tables(self) -> Tables:
        self._checked_info()
        return Tables(self._pictures.new_handle(), self._captions.new_handle())

    def _rows(self, table: Snapshot, names: Sequence[str]) -> pa.Table:
        """The rows of pictures, which may be named several times.

        Raises:
            UnknownPictureError: Where an id is unknown.
        """
        unknown = next((name for name in names if name not in table.row_of), None)
        if unknown is not None:
            raise unknown_picture(self.folder, unknown, table.row_of if table.count <= MAX_SUGGESTED_FROM else ())
        place = {name: at for at, name in enumerate(dict.fromkeys(names))}
        rows = table.take([table.row_of[name] for name in place])
        return rows.take(pa.array([place[name] for name in names]))

    def _row(self, table: Snapshot, name: str) -> pa.Table:
        """The row of a picture.

        Raises:
            UnknownPictureError: Where the id is unknown.
        """
        found = table.table.search().where(id_condition("id", [name])).limit(1).to_arrow()
        if not len(found):
            raise unknown_picture(self.folder, name, ids_of(table.table) if table.count <= MAX_SUGGESTED_FROM else ())
        return found
