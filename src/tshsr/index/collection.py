"""The index that a user keeps: built from a split, searched by a sentence or by a picture, changed by ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch

from tshsr.data.dataset import Split
from tshsr.errors import InputError
from tshsr.explain.attribution import Explanation, explain_encoded
from tshsr.index.about import About, check_model, place_of_run, read_about
from tshsr.index.building import Added, Job
from tshsr.index.database import ids_of, same
from tshsr.index.metadata import Metadata, check_folder
from tshsr.index.rows import CAPTIONS, PICTURES, boxes_of, encoding_of
from tshsr.index.search import (
    CANDIDATES,
    CaptionResult,
    Result,
    check_question,
    find_captions,
    find_pictures,
    unknown_words,
)
from tshsr.index.snapshot import Reader, Snapshot
from tshsr.index.updates import GUESSED, Tables, add_split, create_index, delete_pictures, unknown_picture
from tshsr.models.base import ItemEncoding
from tshsr.retriever import Retriever, as_batch
from tshsr.system import Begin, begin_no_progress

if TYPE_CHECKING:
    import pyarrow as pa

    from tshsr.features.extractor import Extractor, PictureRegions


class Index:
    """A collection of pictures and captions, and the network that encoded them.

    Several processes may search while one adds: each search sees one version of the tables. Searching is safe from
    several threads.

    Args:
        folder: Where it is.
        retriever: The network that made it.

    Attributes:
        candidates: How many of the best by v·t the network reasons about in a search.

    Raises:
        DataError: Where there is no index.
        CheckpointError: Where another network made it.
    """

    def __init__(self, folder: str | Path, retriever: Retriever) -> None:
        self.folder, self.retriever = Path(folder), retriever
        self.candidates = CANDIDATES
        check_model(self.folder, self.about, retriever)
        self._pictures = Reader(self.folder, PICTURES, lambda: self.about.probes.get(PICTURES, 0))
        self._captions = Reader(self.folder, CAPTIONS, lambda: self.about.probes.get(CAPTIONS, 0))

    @classmethod
    def create(
        cls,
        folder: str | Path,
        retriever: Retriever,
        *,
        extractor: str,
        settings: Mapping[str, Any] | None = None,
        run: str | Path | None = None,
    ) -> Self:
        """An empty index, or the one that is there already.

        Args:
            folder: Made where it is missing.
            retriever: The network that will encode everything.
            extractor: Who makes the features.
            settings: How, from the feature store's manifest: enough to build the extractor again.
            run: Where the network is, so that `open` finds it.

        Raises:
            DataError: Where the folder holds something else, or an index over features of another extractor.
            CheckpointError: Where it holds an index that another network made.
        """
        create_index(Path(folder), retriever, extractor, settings or {}, run)
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
        **how: Any,
    ) -> Self:
        """An index of a split; killed at any moment, the same call goes on where it was.

        Args:
            folder: Made where it is missing.
            retriever: The network.
            split: What to index.
            run: Where the network is, so that `open` finds it.
            settings: How the features were made, from the feature store's manifest.
            how: What else `add` takes: pictures, metadata, captions, begin.

        Raises:
            DataError: Where something cannot be read or written.
            CheckpointError: Where the folder holds an index that another network made.
        """
        index = cls.create(folder, retriever, extractor=split.extractor, settings=settings, run=run)
        index.add(split, **how)
        return index

    @classmethod
    def open(cls, folder: str | Path, *, run: str | None = None, device: str | None = None) -> Self:
        """Open an index with the network that made it.

        Args:
            folder: The index.
            run: Where the network is now; without it where it was, or beside the index if both have moved.
            device: Where to compute; None: the CPU.

        Raises:
            DataError: Where there is no index, or it is damaged.
            CheckpointError: Where the network is missing, or is not the one that made the index.
        """
        place = place_of_run(Path(folder), read_about(Path(folder)), run)
        retriever = Retriever.from_pretrained(place)
        return cls(folder, retriever if device is None else retriever.to(device))

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self._pictures)

    @property
    def captions(self) -> int:
        """Number of captions."""
        return len(self._captions)

    @property
    def about(self) -> About:
        """What the index remembers: its model, its extractor, and whether something is being added."""
        return read_about(self.folder)

    def add(
        self,
        split: Split,
        *,
        pictures: Path | None = None,
        metadata: Metadata | None = None,
        captions: bool = True,
        replace: bool = False,
        begin: Begin = begin_no_progress,
    ) -> Added:
        """Add the pictures of a split; those that are there already stay as they are.

        Args:
            split: What to add.
            pictures: Folder of the picture files, also of pictures that are there already; the split's without it.
            metadata: Facts for filters, of new pictures and of those that are there already.
            captions: Whether captions are indexed too.
            replace: Encode anew what is there already.
            begin: Told of each part of the work.

        Raises:
            DataError: Where something cannot be read or written; what was written before stays.
        """
        self.retriever.check_extractor(split.extractor)
        if pictures is not None:
            check_folder(split, pictures)
        folder = pictures or split.pictures
        place = None if folder is None else folder.resolve()  # searches are asked from other folders too
        job = Job(self.folder, self.retriever, split, place, metadata, replace, begin, moved=pictures is not None)
        return add_split(job, self._tables, captions=captions)

    def replace(self, split: Split, **how: Any) -> Added:
        """Encode the pictures of a split anew, and add those that are not there; takes what `add` takes."""
        return self.add(split, replace=True, **how)

    def delete(self, ids: Sequence[str]) -> None:
        """Take pictures and their captions out; what is not there is refused.

        Raises:
            DataError: Where one is not there (nothing is deleted then), or the index cannot be written.
        """
        delete_pictures(self.folder, self._tables, self.retriever, ids)

    def search(self, text: str, k: int = 10, *, where: str | None = None) -> list[Result]:
        """Pictures for a sentence, best first: v·t finds candidates, the network reasons about those.

        Args:
            text: The sentence.
            k: How many pictures.
            where: A condition on the metadata, such as "year > 2010 AND place = 'Oslo'".

        Raises:
            InputError: Where the sentence has no word.
            DataError: Where the filter cannot be used, or the index cannot be read.
        """
        check_question(text, k)
        caption = self.retriever.encode_captions(text)
        query, count = caption.pooled[0].float().cpu(), max(self.candidates, k)
        rows = self._pictures.read(lambda table: table.candidates(query, count, where))
        return find_pictures(self.retriever, rows, text, caption, k)

    def search_picture(self, picture: PictureRegions, k: int = 10) -> list[CaptionResult]:
        """Sentences for a picture, best first.

        Args:
            picture: Its regions, as the index's own extractor gives them.
            k: How many sentences.

        Raises:
            InputError: Where the features are not of the width that the network reads.
        """
        check_question("picture", k)
        image = self.encode_picture(picture)
        query, count = image.pooled[0].float().cpu(), max(self.candidates, k)
        rows = self._captions.read(lambda table: table.candidates(query, count))
        return find_captions(self.retriever, rows, image, k)

    def encode_picture(self, picture: PictureRegions) -> ItemEncoding:
        """A picture as the network sees it.

        Raises:
            InputError: Where the features are not of the width that the network reads.
        """
        expected = self.retriever.config.model.encoder.feature_dim
        if picture.features.ndim != 2 or picture.features.shape[1] != expected:
            raise InputError(f"the picture's features have shape {picture.features.shape}; expected N x {expected}.")
        return self.retriever.encode_images(as_batch(picture.features, picture.boxes))

    def explain(self, text: str, id: str) -> Explanation:  # noqa: A002 (the name that results carry)
        """All about the score of one picture with a sentence.

        Raises:
            InputError: Where the sentence has no word.
            DataError: Where there is no such picture.
        """
        check_question(text, 1)
        row = self._pictures.read(lambda table: self._row(table, id))
        image = encoding_of(self.retriever.matcher, row, self.retriever.device)
        boxes = boxes_of(row)[0]
        return explain_encoded(self.retriever, image, None if boxes is None else torch.from_numpy(boxes)[None], text)

    def unknown_words(self, text: str) -> tuple[str, ...]:
        """Words of a query that the network has not learned, each once; it reads all of them alike."""
        check_question(text, 1)
        return unknown_words(self.retriever.tokenizer, text)

    def picture_file(self, id: str) -> Path | None:  # noqa: A002 (the name that results carry)
        """The file of a picture of the index; None where it has none, or it is not there any more."""
        place = self._pictures.read(lambda table: table.files.get(id))
        return place if place is not None and place.is_file() else None

    def sample_captions(self, count: int) -> list[str]:
        """Some captions from all over the index."""
        return self._captions.read(lambda table: table.sample("caption", count))

    def extractor(self) -> Extractor:
        """The extractor that made the features of the index, built again.

        Raises:
            DataError: Where it cannot be: the features came from elsewhere.
        """
        from tshsr.features.catalog import rebuild_extractor  # its libraries are an extra

        about = self.about
        return rebuild_extractor(about.extractor, about.settings, device=str(self.retriever.device))

    @property
    def _tables(self) -> Tables:
        return Tables(self._pictures.live, self._captions.live)

    def _row(self, table: Snapshot, name: str) -> pa.Table:
        """One picture.

        Raises:
            DataError: Where there is none of this name.
        """
        found = table.table.search().where(same("id", [name])).limit(1).to_arrow()
        if not len(found):
            raise unknown_picture(self.folder, name, ids_of(table.table) if table.count <= GUESSED else ())
        return found
