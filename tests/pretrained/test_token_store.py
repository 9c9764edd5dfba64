"""The caption-token store: computed once, in blocks, whole or not at all."""

from __future__ import annotations

import errno
import json
import threading
import time
import tracemalloc
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from tshsr.errors import DataError
from tshsr.files import exclusive_lock
from tshsr.pretrained import token_store
from tshsr.pretrained.token_store import (
    BUSY,
    StateBlock,
    TokenManifest,
    TokenStates,
    TokenStore,
    cache_folder,
    captions_hash,
)
from tshsr.system import no_progress

CAPTIONS = [" ".join(["word"] * (1 + number % 7)) + f" {number}" for number in range(26)]
WIDTH, POOLED, SMALL = 6, 3, 8


def states_of(captions: Sequence[str]) -> StateBlock:
    """Made-up states that depend on the caption alone."""
    lengths = np.array([len(caption.split()) for caption in captions], np.int64)
    numbers = [int(caption.split()[-1]) for caption in captions]
    states = [
        np.random.default_rng(number).normal(size=(length, WIDTH))
        for number, length in zip(numbers, lengths, strict=True)
    ]
    pooled = np.array([[number / 3] * POOLED for number in numbers], np.float32)
    return StateBlock(lengths, np.concatenate(states).astype(np.float16), pooled)


class Network:
    """Counts the captions that it reads; fails at one of them."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.read: list[int] = []
        self.fails_at = fails_at

    def __call__(self, captions: Sequence[str], first: int) -> StateBlock:
        if self.fails_at is not None and first >= self.fails_at:
            raise KeyboardInterrupt
        self.read += range(first, first + len(captions))
        return states_of(captions)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_store, "BLOCK", SMALL)
    monkeypatch.setattr(token_store, "WAIT", 0.01)


def store(cache: Path, network: Network, captions: Sequence[str] = CAPTIONS, progress=no_progress) -> TokenStore:
    wanted = TokenManifest("abc", "words", captions_hash(captions), len(captions), WIDTH, POOLED)
    return TokenStore(captions, wanted, network, progress, cache)


def check(found: TokenStates, captions: Sequence[str] = CAPTIONS) -> None:
    """The states of all captions, read in another order."""
    expected = states_of(captions)
    rows = np.random.default_rng(0).permutation(len(captions))
    for some in np.array_split(rows, 7):
        batch = found.read(some)
        assert batch.states is not None
        assert batch.pooled is not None
        assert (batch.tokens.shape, batch.states.dtype) == ((len(some), 0), torch.float32)
        starts = np.concatenate([[0], np.cumsum(expected.lengths)])
        for place, row in enumerate(some):
            own = expected.states[starts[row] : starts[row + 1]]
            assert batch.mask[place].sum() == len(own)
            assert np.array_equal(batch.states[place, : len(own)].numpy(), own.astype(np.float32))
            assert not batch.states[place, len(own) :].any()
        assert np.array_equal(batch.pooled.numpy(), expected.pooled[some])


def test_states_are_computed_once_and_memory_mapped(tmp_path: Path) -> None:
    network, reports = Network(), []
    found = store(tmp_path, network, progress=lambda done, total: reports.append((done, total))).open()
    assert network.read == [*range(26)]
    assert reports == [(8, 26), (16, 26), (24, 26), (26, 26)]
    assert isinstance(found.states, np.memmap)
    assert len(found) == 26
    check(found)
    again = Network()
    check(store(tmp_path, again).open())
    assert not again.read


def test_other_captions_nodes_and_networks_have_folders_of_their_own(tmp_path: Path) -> None:
    check(store(tmp_path, Network()).open())
    network = Network()
    check(store(tmp_path, network, CAPTIONS[::-1]).open(), CAPTIONS[::-1])
    assert len(network.read) == 26
    assert len({*tmp_path.glob("tokens/*")}) == 2
    assert captions_hash(["ab", "c"]) != captions_hash(["a", "bc"])


def test_an_interrupted_job_goes_on_after_its_last_block(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        store(tmp_path, Network(fails_at=16)).open()
    folder = store(tmp_path, Network()).folder
    with (folder / "states.bin").open("ab") as file:  # as a kill in the middle of a block leaves it
        file.write(b"half a block")
    network = Network()
    check(store(tmp_path, network).open())
    assert network.read == [*range(16, 26)]


def test_a_full_disk_is_one_sentence_and_what_was_written_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def full(_: int) -> None:
        calls.append(1)
        if len(calls) > 8:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(
        DataError, match=r"^Cannot write .*: No space left on device\. Make room .* TSHSR_CACHE names the"
    ):
        store(tmp_path, Network()).open()
    monkeypatch.undo()
    monkeypatch.setattr(token_store, "BLOCK", SMALL)
    network = Network()
    check(store(tmp_path, network).open())
    assert network.read[0] == SMALL


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataError, match=r"^Cannot write .*file.* The variable TSHSR_CACHE names the folder\.$"):
        store(tmp_path / "file", Network()).open()


@pytest.mark.parametrize("name", ["states.bin", "lengths.bin", "pooled.bin", "manifest.json"])
def test_a_short_or_missing_file_is_computed_again_with_a_warning(name: str, tmp_path: Path) -> None:
    wanted = store(tmp_path, Network())
    wanted.open()
    (wanted.folder / name).write_bytes((wanted.folder / name).read_bytes()[:-5])
    network = Network()
    with pytest.warns(UserWarning, match=rf"{name} is damaged; the token states are computed again\.$"):
        found = store(tmp_path, network).open()
    check(found)
    assert len(network.read) == 26
    (wanted.folder / name).unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if name != "manifest.json" else "error")
        check(store(tmp_path, Network()).open())


@pytest.mark.parametrize("name", ["states.bin", "pooled.bin"])
def test_a_changed_byte_is_found_when_its_block_is_read(name: str, tmp_path: Path) -> None:
    wanted = store(tmp_path, Network())
    wanted.open()
    content = bytearray((wanted.folder / name).read_bytes())
    content[-1] ^= 1
    (wanted.folder / name).write_bytes(content)
    found = store(tmp_path, Network()).open()
    found.read(np.arange(SMALL))
    with pytest.raises(DataError, match=r"is damaged; delete the folder, and its token states are computed again\.$"):
        found.read(np.array([25]))


def test_lengths_that_do_not_fit_the_states_are_computed_again(tmp_path: Path) -> None:
    wanted = store(tmp_path, Network())
    wanted.open()
    lengths = np.fromfile(wanted.folder / "lengths.bin", np.int64)
    lengths[3] += 1
    lengths.tofile(wanted.folder / "lengths.bin")
    with pytest.warns(UserWarning, match=r"lengths\.bin is damaged"):
        check(store(tmp_path, Network()).open())


def test_a_manifest_of_another_version_is_not_used(tmp_path: Path) -> None:
    wanted = store(tmp_path, Network())
    wanted.open()
    path = wanted.folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 99}))
    with pytest.warns(UserWarning, match=r"manifest\.json is damaged"):
        check(store(tmp_path, Network()).open())


def test_a_second_process_waits_and_reports_the_progress_of_the_first(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        store(tmp_path, Network(fails_at=16)).open()
    network, reports, found = Network(), [], []
    second = store(tmp_path, network, progress=lambda done, total: reports.append((done, total)))
    with exclusive_lock(second.folder / "lock", BUSY):
        waiting = threading.Thread(target=lambda: found.append(second.open()))
        waiting.start()
        while not reports:
            time.sleep(0.005)
        assert not found
    waiting.join(10)
    assert reports[0] == (16, 26)
    check(found[0])
    assert network.read == [*range(16, 26)]


def test_memory_does_not_grow_with_the_captions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_store, "BLOCK", 64)
    width = 256

    def compute(captions: Sequence[str], _: int) -> StateBlock:
        lengths = np.full(len(captions), 10, np.int64)
        return StateBlock(
            lengths, np.ones((lengths.sum(), width), np.float16), np.zeros((len(captions), 8), np.float32)
        )

    captions = [f"caption {number}" for number in range(1024)]
    wanted = TokenManifest("abc", "words", captions_hash(captions), len(captions), width, 8)
    tracemalloc.start()
    try:
        found = TokenStore(captions, wanted, compute, no_progress, tmp_path).open()
        for rows in np.array_split(np.arange(1024), 64):
            found.read(rows)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    size = (found.folder or tmp_path).joinpath("states.bin").stat().st_size
    assert size == 1024 * 10 * width * 2
    assert peak < size / 4


def test_the_cache_lies_where_the_system_keeps_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("TSHSR_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr("sys.platform", "linux")
    assert cache_folder() == tmp_path / ".cache" / "tshsr"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "tshsr"
    monkeypatch.setattr("sys.platform", "win32")
    assert cache_folder() == tmp_path / "AppData" / "Local" / "tshsr"
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert cache_folder() == tmp_path / "local" / "tshsr"
    monkeypatch.setenv("TSHSR_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
