"""Score matrices in files equal those in memory; a full disk is reported in one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support import tiny
from tests.support.uneven import batches, tokens
from tshsr.errors import DataError
from tshsr.scoring import storage
from tshsr.scoring.all_pairs import score_all_pairs
from tshsr.scoring.options import ScoringOptions
from tshsr.scoring.processes import Processes
from tshsr.scoring.storage import PARTS, MatricesInFiles, MatricesInMemory, MatricesInParts, ensemble

FULL = Path("/dev/full")
NO_FULL_DISK = pytest.mark.skipif(not FULL.exists(), reason="only Linux has /dev/full, the disk that is always full")


def filled(matrices: MatricesInFiles | MatricesInMemory, *, seed: int = 0) -> MatricesInFiles | MatricesInMemory:
    """Two matrices of 4 images and 9 captions, written in blocks of captions in no order."""
    dice = np.random.default_rng(seed)
    for columns in np.split(np.random.default_rng(1).permutation(9), [2, 3, 7]):
        for name in ("fused", "pooled"):
            matrices.write(name, columns, dice.random((4, len(columns)), dtype=np.float32))
    return matrices


def test_matrices_in_files_are_those_in_memory(tmp_path: Path) -> None:
    memory, files = filled(MatricesInMemory((4, 9))).finish(), filled(MatricesInFiles((4, 9), tmp_path)).finish()
    assert list(memory) == list(files) == ["fused", "pooled"]
    assert len(files) == 2
    for name, matrix in files.items():
        np.testing.assert_array_equal(matrix, memory[name])
        assert matrix.dtype == np.float32


def test_a_matrix_in_a_file_is_an_ordinary_npy_with_a_caption_in_one_piece(tmp_path: Path) -> None:
    filled(MatricesInFiles((4, 9), tmp_path)).finish()
    loaded = np.load(tmp_path / "fused.npy")
    np.testing.assert_array_equal(loaded, filled(MatricesInMemory((4, 9))).finish()["fused"])
    assert loaded.flags.f_contiguous
    assert not loaded.flags.c_contiguous
    assert (tmp_path / "fused.npy").stat().st_size == 128 + 4 * 4 * 9


def test_scoring_into_files_is_scoring_in_memory(tmp_path: Path) -> None:
    network = tiny.network()
    memory = score_all_pairs(network, iter(batches((3, 4))), tokens())
    files = score_all_pairs(network, iter(batches((3, 4))), tokens(), ScoringOptions(folder=tmp_path))
    assert set(files) == set(memory) == {path.stem for path in tmp_path.iterdir()}
    for name, matrix in files.items():
        np.testing.assert_array_equal(matrix, memory[name])


class OneAfterTheOther(Processes):
    """Processes whose work a test does in turn."""

    def wait(self) -> None: ...


def test_parts_of_two_processes_are_joined_in_the_order_of_the_captions_without_those_of_a_killed_evaluation(
    tmp_path: Path,
) -> None:
    whole = {name: np.random.default_rng(seed).random((4, 7), np.float32) for seed, name in enumerate("abc")}
    shares = np.array([4, 0, 6, 2]), np.array([5, 1, 3])
    for number in range(3):  # of a killed evaluation
        (tmp_path / PARTS / str(number)).mkdir(parents=True)
        np.save(tmp_path / PARTS / str(number) / "stale.npy", np.zeros((4, 2)))
    parts = [MatricesInParts((4, 7), tmp_path, own, OneAfterTheOther(i, 2)) for i, own in enumerate(shares)]
    for part, columns in zip(parts, shares, strict=True):
        for name, scores in whole.items():
            for chosen in (columns[2:], columns[:2]):
                part.write(name, chosen, scores[:, chosen])
    found = [part.finish() for part in parts[::-1]][-1]  # the main process last, which removes the parts
    assert sorted(found) == ["a", "b", "c"]
    for name, scores in whole.items():
        np.testing.assert_array_equal(found[name], scores)
    assert not (tmp_path / PARTS).exists()


def test_the_mean_of_matrices_in_files_is_that_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "BLOCK", 8)  # two captions a block
    folders = [tmp_path / name for name in ("one", "two", "mean")]
    for folder in folders:
        folder.mkdir()
    files = [filled(MatricesInFiles((4, 9), folder), seed=seed).finish() for seed, folder in enumerate(folders[:2])]
    memory = [filled(MatricesInMemory((4, 9)), seed=seed).finish() for seed in (0, 1)]
    mean = ensemble(files, folders[2])
    for name, expected in ensemble(memory).items():
        np.testing.assert_array_equal(mean[name], expected)
        np.testing.assert_allclose(expected, (memory[0][name] + memory[1][name]) / 2, rtol=1e-6)


@pytest.mark.parametrize("copies", range(2, 12))
def test_equal_members_average_to_themselves_exactly_in_their_precision(tmp_path: Path, copies: int) -> None:
    dice = np.random.default_rng(copies)
    for scores in (1e6 + dice.random((40, 90)), np.exp(-200 - dice.random((40, 90))), 1e39 * dice.random((40, 90))):
        for folder in (None, tmp_path):
            mean = ensemble([{"fused": scores}] * copies, folder)["fused"]
            assert mean.dtype == np.float64
            np.testing.assert_array_equal(mean, scores)


@pytest.mark.parametrize(
    ("one", "two", "expected"), [("f2", "f2", "f4"), ("f2", "f4", "f4"), ("f4", "f8", "f8"), (">f8", "<f4", "f8")]
)
def test_a_mean_has_the_precision_of_the_finest_member(tmp_path: Path, one: str, two: str, expected: str) -> None:
    members = [{"fused": np.ones((4, 9), one)}, {"fused": np.full((4, 9), 2, two)}]
    for mean in (ensemble(members)["fused"], ensemble(members, tmp_path)["fused"]):
        assert mean.dtype == np.dtype(expected)
        assert (mean == 1.5).all()


def test_an_infinite_score_stays_one_in_the_mean() -> None:
    mean = ensemble([{"fused": np.array([[np.inf, 1.0]])}, {"fused": np.array([[np.inf, 3.0]])}])["fused"]
    assert mean.tolist() == [[np.inf, 2.0]]


@NO_FULL_DISK
def test_a_full_disk_is_reported_at_the_begin_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "fused.npy").symlink_to(FULL)
    with pytest.raises(DataError) as caught:
        filled(MatricesInFiles((4, 9), tmp_path))
    assert str(caught.value) == (
        f"{tmp_path / 'fused.npy'} cannot be written (No space left on device); every score takes 0 MiB there. "
        "Free some space or name another folder."
    )


def test_a_disk_that_fills_up_later_is_reported_with_the_size_of_a_matrix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = MatricesInFiles((1000, 5000), tmp_path)
    files.write("fused", np.array([4999]), np.ones((1000, 1)))

    def fail(path: Path, mode: str) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(
        DataError, match=r"fused.npy cannot be written \(No space left on device\); every score takes 19 M"
    ):
        files.write("fused", np.array([0]), np.ones((1000, 1)))
    with pytest.raises(DataError, match="every score takes 38 MiB there"):
        MatricesInFiles((1000, 5000), tmp_path, np.float64).write("fused", np.array([0]), np.ones((1000, 1)))


def test_a_missing_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be written \(No such file or directory\)"):
        filled(MatricesInFiles((4, 9), tmp_path / "gone"))
