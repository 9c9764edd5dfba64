"""The caption-token store: states of a frozen text network, computed once for a list of captions and kept on disk.

A list has a folder of its own in the cache, named by the network, the kind of nodes and the captions. States lie there
in the order of the captions, appended block by block; the manifest, replaced atomically after each block, says how much
of the files is whole. So a job that was stopped goes on after its last block, and nothing half-written is read.

Axes: captions | nodes (of all captions, one after another) | width (of a state) | pooled (width of a caption's vector).
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError

from tshsr.data.batches import CaptionBatch
from tshsr.data.tokens import CaptionTokens
from tshsr.errors import DataError
from tshsr.files import exclusive_lock, explained, write_text
from tshsr.system import Progress

VERSION = 2
"""2: a vector of every caption, of networks without a joint space too."""
MANIFEST = "manifest.json"
LENGTHS, STATES, POOLED = "lengths.bin", "states.bin", "pooled.bin"
BLOCK = 1024
"""Captions per block: 9 MB of MiniLM's states."""
WAIT = 1.0
"""Seconds between two readings of another process's progress."""
BUSY = "another process computes these token states."


@dataclass(frozen=True)
class StateBlock:
    """States of consecutive captions.

    Attributes:
        lengths: int64, captions: nodes of each.
        states: float16, nodes x width.
        pooled: float32, captions x pooled: vectors of the captions.
    """

    lengths: np.ndarray
    states: np.ndarray
    pooled: np.ndarray


@dataclass(frozen=True)
class BlockRecord:
    """What the manifest has of a block; `checksum` is a CRC-32 of its content."""

    captions: int
    nodes: int
    checksum: int


@dataclass(frozen=True)
class TokenManifest:
    """Content of `manifest.json`.

    Attributes:
        network: Fingerprint of network, tokenizer and layers.
        nodes: words or pieces.
        digest: SHA-256 of the captions.
        captions: Number of all captions.
        width: Of a node's state.
        pooled: Width of a caption's vector.
        blocks: The finished blocks, in order.
    """

    network: str
    nodes: str
    digest: str
    captions: int
    width: int
    pooled: int
    blocks: tuple[BlockRecord, ...] = ()
    version: int = VERSION

    @property
    def done(self) -> int:
        """Number of captions in finished blocks."""
        return sum(block.captions for block in self.blocks)

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each file that belong to finished blocks."""
        nodes = sum(block.nodes for block in self.blocks)
        return {LENGTHS: 8 * self.done, STATES: 2 * self.width * nodes, POOLED: 4 * self.pooled * self.done}

    def is_for(self, other: TokenManifest) -> bool:
        """Whether it describes the same computation."""
        return replace(self, blocks=()) == replace(other, blocks=())


class TokenStates(CaptionTokens):
    """States of captions, in memory or memory-mapped.

    Args:
        block: All captions.
        blocks: For states on disk, the records of their blocks; each is compared with its checksum at its first use.
        folder: Of the states on disk, for messages.
    """

    def __init__(self, block: StateBlock, blocks: Sequence[BlockRecord] = (), folder: Path | None = None) -> None:
        self.lengths, self.states, self.pooled = block.lengths, block.states, block.pooled
        self.starts = np.concatenate([[0], np.cumsum(self.lengths)])
        self.blocks, self.folder = blocks, folder
        self.first_of_block = np.cumsum([0, *(block.captions for block in blocks)])
        self.checked = np.zeros(len(blocks), bool)

    def read(self, rows: np.ndarray) -> CaptionBatch:
        """The captions of these rows, padded to the longest, with states in float32.

        Raises:
            InputError: Where there is no row.
            DataError: Where the states on disk are damaged.
        """
        self._check(rows)
        lengths = self.lengths[rows]
        mask = np.arange(max(lengths, default=0)) < lengths[:, None]
        states = np.zeros((*mask.shape, self.states.shape[1]), np.float32)
        if len(rows):
            states[mask] = np.concatenate([self.states[self.starts[row] : self.starts[row + 1]] for row in rows])
        return CaptionBatch(
            torch.zeros(len(rows), 0, dtype=torch.int64),
            torch.from_numpy(mask),
            torch.from_numpy(states),
            pooled=torch.from_numpy(self.pooled[rows]),
        )

    def _check(self, rows: np.ndarray) -> None:
        """Compare the blocks of these rows with their checksums, once each."""
        if self.checked.all():
            return
        for number in np.unique(np.searchsorted(self.first_of_block, rows, side="right") - 1):
            if self.checked[number]:
                continue
            start, stop = self.starts[self.first_of_block[number : number + 2]]
            first, last = self.first_of_block[number : number + 2]
            parts = StateBlock(self.lengths[first:last], self.states[start:stop], self.pooled[first:last])
            if _checksum(parts) != self.blocks[number].checksum:
                raise DataError(
                    f"{self.folder} is damaged; delete the folder, and its token states are computed again."
                )
            self.checked[number] = True


def _checksum(block: StateBlock) -> int:
    checksum = 0
    for values in (block.lengths, block.states, block.pooled):
        checksum = zlib.crc32(np.ascontiguousarray(values).data.cast("B") if values.size else b"", checksum)
    return checksum


def cache_folder() -> Path:
    """Where computed token states are kept: $TSHSR_CACHE, or tshsr in the user's folder of caches."""
    named = os.environ.get("TSHSR_CACHE")
    if named:
        return Path(named)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "tshsr"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tshsr"


def captions_hash(captions: Sequence[str]) -> str:
    """SHA-256 of texts, in order."""
    digest = hashlib.sha256()
    for caption in captions:
        content = caption.encode("utf-8", "surrogatepass")
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()


@dataclass
class TokenStore:
    """The states of one list of captions on disk.

    Attributes:
        captions: The list.
        wanted: The manifest of an empty store.
        compute: From consecutive captions, and the place of the first one, to their states.
        progress: Called after each block, in captions.
        cache: Folder of all stores.
    """

    captions: Sequence[str]
    wanted: TokenManifest
    compute: Callable[[Sequence[str], int], StateBlock]
    progress: Progress
    cache: Path = field(default_factory=cache_folder)

    @property
    def folder(self) -> Path:
        """Where the files lie."""
        name = f"{self.wanted.network}-{self.wanted.nodes}-{self.wanted.digest[:16]}-{VERSION}"
        return self.cache / "tokens" / name

    def open(self) -> TokenStates:
        """The states, computed as far as they are missing; waits for another process that computes them.

        Raises:
            DataError: Where the disk is full or the cache cannot be written.
        """
        manifest = self._manifest()
        if manifest.done < len(self.captions):
            try:
                with explained(self.folder):
                    self.folder.mkdir(parents=True, exist_ok=True)
                with self._held():
                    manifest = self._complete(self._manifest())
            except DataError as error:
                if not str(error).startswith("Cannot write"):
                    raise
                raise DataError(f"{error} The variable TSHSR_CACHE names the folder.") from error
        return self._mapped(manifest)

    def _manifest(self) -> TokenManifest:
        """What is on disk; the empty manifest where there is nothing, or it is damaged (with a warning)."""
        path = self.folder / MANIFEST
        try:
            found = TypeAdapter(TokenManifest).validate_json(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return self.wanted
        except (OSError, ValidationError):
            return self._damaged(MANIFEST)
        if not found.is_for(self.wanted):
            return self._damaged(MANIFEST)
        for name, size in found.sizes.items():
            file = self.folder / name
            if not file.is_file() or file.stat().st_size < size:
                return self._damaged(name)
        lengths = np.fromfile(self.folder / LENGTHS, np.int64, found.done)
        if lengths.sum() != sum(block.nodes for block in found.blocks):
            return self._damaged(LENGTHS)
        return found

    def _damaged(self, name: str) -> TokenManifest:
        warnings.warn(f"{self.folder / name} is damaged; the token states are computed again.", stacklevel=4)
        return self.wanted

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Hold the store's lock; meanwhile report the progress of another process that has it."""
        with ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(exclusive_lock(self.folder / "lock", BUSY))
                    break
                except DataError as error:
                    if str(error) != BUSY:
                        raise
                self.progress(self._manifest().done, len(self.captions))
                time.sleep(WAIT)
            yield

    def _complete(self, manifest: TokenManifest) -> TokenManifest:
        """Compute the missing blocks and append each to the files."""
        with explained(self.folder), ExitStack() as stack:
            files = {}
            for name in (MANIFEST, *manifest.sizes):
                if (self.folder / name).is_symlink():  # what it names is not ours
                    (self.folder / name).unlink()
            if not manifest.blocks:
                (self.folder / MANIFEST).unlink(missing_ok=True)
            for name, size in manifest.sizes.items():
                (self.folder / name).touch()
                files[name] = stack.enter_context((self.folder / name).open("r+b"))
                files[name].truncate(size)  # what follows was not finished
                files[name].seek(size)
            for start in range(manifest.done, len(self.captions), BLOCK):
                block = self.compute(self.captions[start : start + BLOCK], start)
                contents = {LENGTHS: block.lengths, STATES: block.states, POOLED: block.pooled}
                for name, file in files.items():
                    file.write(np.ascontiguousarray(contents[name]).data)
                    file.flush()
                    os.fsync(file.fileno())
                record = BlockRecord(len(block.lengths), len(block.states), _checksum(block))
                manifest = replace(manifest, blocks=(*manifest.blocks, record))
                write_text(self.folder / MANIFEST, TypeAdapter(TokenManifest).dump_json(manifest, indent=1).decode())
                self.progress(manifest.done, len(self.captions))
        return manifest

    def _mapped(self, manifest: TokenManifest) -> TokenStates:
        nodes = sum(block.nodes for block in manifest.blocks)
        lengths = np.fromfile(self.folder / LENGTHS, np.int64, manifest.captions)
        states = np.memmap(self.folder / STATES, np.float16, "r", shape=(nodes, manifest.width))
        pooled: np.ndarray = np.zeros((manifest.captions, 0), np.float32)
        if manifest.pooled:  # an empty file can't be mapped
            pooled = np.memmap(self.folder / POOLED, np.float32, "r", shape=(manifest.captions, manifest.pooled))
        return TokenStates(StateBlock(lengths, states, pooled), manifest.blocks, self.folder)
