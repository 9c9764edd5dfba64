"""Wrong pairs that are made on purpose: how many, which, and from what files."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.command_line import TINY, refused
from tests.support.command_line import tshsr as call
from tests.support.data_files import random_regions, write_precomp
from tests.support.small_runs import run, small_config, small_split, with_loss
from tshsr.cli.train import read_arguments
from tshsr.config.run import LossConfig, RunConfig, TrainingConfig, read_config, write_config
from tshsr.data.dataset import Split
from tshsr.errors import CheckpointError, DataError, SettingsError
from tshsr.training.checks import captions_checksum, check_training
from tshsr.training.noisy_pairs import permute_images, with_noise

OWNERS = np.repeat(np.arange(400), 5)
"""2,000 captions of 400 images."""


@pytest.fixture
def train(tmp_path: Path) -> Split:
    return small_split(tmp_path / "data", "train")


@given(share=st.floats(0, 1), seed=st.integers(0, 2**32))
def test_the_images_of_a_share_are_shuffled_and_the_others_stay(share: float, seed: int) -> None:
    noisy = permute_images(OWNERS, share, seed)
    wrong = int((noisy != OWNERS).sum())
    assert wrong <= int(share * 2000)
    assert wrong >= int(share * 2000) - 40  # 1 + 4 * share of them get their own image back on average
    assert sorted(noisy.tolist()) == OWNERS.tolist(), "every image keeps its number of captions"


def test_the_permutation_is_no_derangement() -> None:
    back = [400 - int((permute_images(OWNERS, 0.2, seed) != OWNERS).sum()) for seed in range(200)]
    assert np.mean(back) == pytest.approx(1 + 4 * 0.2, abs=0.5)
    assert min(back) == 0


def test_the_noise_follows_from_the_seed_and_is_not_the_order_of_an_epoch() -> None:
    noisy = permute_images(OWNERS, 0.4, 7)
    assert np.array_equal(noisy, permute_images(OWNERS, 0.4, 7))
    assert not np.array_equal(noisy, permute_images(OWNERS, 0.4, 8))
    for words in ([7], [7, 0], [7, 0, 0, 0]):
        first = np.random.default_rng(words).permutation(2000)[:800]
        assert set(np.flatnonzero(noisy != OWNERS).tolist()) - set(first.tolist())


def test_without_noise_the_split_is_as_it_was(train: Split) -> None:
    assert with_noise(train, TrainingConfig()) is train


def test_noise_changes_only_image_of_caption(train: Split) -> None:
    before = train.image_of_caption.copy()
    noisy = with_noise(train, TrainingConfig(noise=0.6))
    assert not np.array_equal(noisy.image_of_caption, before)
    assert replace(noisy, image_of_caption=before).captions == train.captions
    assert np.array_equal(train.image_of_caption, before), "the caller's split is unchanged"
    assert captions_checksum(noisy) != captions_checksum(train)


def test_noise_changes_training_and_leaves_dev_clean(train: Split, tmp_path: Path) -> None:
    dev, seen = small_split(tmp_path / "data", "dev", images=6), []
    before = dev.image_of_caption.copy()
    for noise in (0.0, 0.8):
        out = tmp_path / f"noise-{noise}"
        run(small_config(epochs=1, noise=noise), (train, dev), out)
        seen.append((out / "last" / "model.safetensors").read_bytes())
        assert read_config(out / "config.json").training.noise == noise
    assert seen[0] != seen[1]
    assert np.array_equal(dev.image_of_caption, before)


def test_an_index_file_has_an_image_for_each_caption(train: Split, tmp_path: Path) -> None:
    path, index = tmp_path / "0.4_noise_index.npy", np.roll(train.image_of_caption, 3)
    for kind in (np.int64, np.int32, np.uint16):
        np.save(path, index.astype(kind))
        noisy = with_noise(train, TrainingConfig(noise_index=str(path)))
        assert noisy.image_of_caption.dtype == np.int64
        assert np.array_equal(noisy.image_of_caption, index)


def test_or_an_image_for_each_image(train: Split, tmp_path: Path) -> None:
    path, index = tmp_path / "images.npy", np.array([1, 0, 2, 3, 4, 5, 6, 7, 9, 8])
    np.save(path, index)
    noisy = with_noise(train, TrainingConfig(noise_index=str(path)))
    assert noisy.image_of_caption.tolist() == [1, 1, 0, 0, *np.repeat(np.arange(2, 8), 2), 9, 9, 8, 8]


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (
            np.zeros(7, int),
            r"index\.npy has 7 numbers; expected one for each of the 20 training captions \(its image\)",
        ),
        (
            np.full(20, 10),
            r"index\.npy: number 0 \(counting from 0\) is 10; there are training images 0 to 9\. Is it of",
        ),
        (np.array([0] * 9 + [-1]), r"index\.npy: number 9 \(counting from 0\) is -1; there are training images 0 to 9"),
        (np.zeros(20), r"index\.npy holds float64; expected whole numbers"),
        (np.zeros((20, 2), int), r"index\.npy has shape \(20, 2\); expected 1 axes"),
        (np.array([{}] * 20), r"index\.npy holds pickled Python objects, which are never loaded"),
    ],
)
def test_an_index_file_that_does_not_fit_is_refused(
    train: Split, tmp_path: Path, index: np.ndarray, message: str
) -> None:
    np.save(tmp_path / "index.npy", index, allow_pickle=True)
    with pytest.raises(DataError, match=message):
        with_noise(train, TrainingConfig(noise_index=str(tmp_path / "index.npy")))


def test_an_index_file_that_is_not_there_is_refused(train: Split, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Cannot read .*nowhere\.npy: No such file"):
        with_noise(train, TrainingConfig(noise_index=str(tmp_path / "nowhere.npy")))


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(SettingsError, match=rf"training\.noise is {share}; expected 0 or more, below 1\."):
        check_training(small_config(noise=share))


def test_noise_is_drawn_or_read() -> None:
    message = (
        r"training\.noise is 0\.2 and training\.noise_index 'a\.npy'; set one of them: draw the noise, or read it\."
    )
    with pytest.raises(SettingsError, match=message):
        check_training(small_config(noise=0.2, noise_index="a.npy"))


def test_a_run_is_resumed_with_the_noise_it_was_begun_with(train: Split, tmp_path: Path) -> None:
    dev, path, out = small_split(tmp_path / "data", "dev", images=6), tmp_path / "index.npy", tmp_path / "run"
    np.save(path, np.roll(train.image_of_caption, 3))
    run(small_config(epochs=1, noise_index=str(path)), (train, dev), out)
    with pytest.raises(CheckpointError, match=r"was begun with training\.noise = 0\.0, now it is 0\.4"):
        run(small_config(epochs=2, noise=0.4), (train, dev), out, resume=True)
    np.save(path, np.roll(train.image_of_caption, 4))
    with pytest.raises(CheckpointError, match=r"was begun on other training captions \(checksum \w{8}\)"):
        run(small_config(epochs=2, noise_index=str(path)), (train, dev), out, resume=True)


def test_the_settings_are_kept_and_those_of_earlier_runs_are_read(tmp_path: Path) -> None:
    config = with_loss(RunConfig(training=TrainingConfig(noise=0.4, noise_index="a.npy")), robust="mixture")
    path = tmp_path / "config.json"
    path.write_text(write_config(config))
    assert read_config(path) == config
    values = asdict(RunConfig())
    for part, names in (("training", ("noise", "noise_index")), ("loss", ("robust",))):
        for name in names:
            del values[part][name]
    path.write_text(json.dumps(values))
    read = read_config(path)
    assert read == RunConfig()
    assert (read.training.noise, read.loss.robust) == (0.0, LossConfig().robust) == (0.0, "none")


TRAIN = ("train", "tshsr-flickr8k", "--data", "x", "--out", "y")


def test_the_short_option_is_the_long_one() -> None:
    for name in ("--noise", "--training.noise"):
        assert read_arguments([*TRAIN[1:], name, "0.4"])[1].training.noise == 0.4
    assert read_arguments([*TRAIN[1:], "--noise", "0.4", "--training.noise", "0.4"])[1].training.noise == 0.4
    assert read_arguments([*TRAIN[1:]])[1].training.noise == 0.0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--noise x", "--noise expects a number, got 'x'."),
        ("--noise", "--noise expects one argument."),
        ("--noise 40", "training.noise is 40.0; expected 0 or more, below 1."),
        ("--noise 0.4 --training.noise 0.2", "--noise 0.4 and --training.noise 0.2 mean the same; give one of them."),
        ("--loss.robust mixtur", "--loss.robust expects none or mixture, got 'mixtur'; did you mean mixture?"),
        (
            "--noise 0.2 --training.noise-index a.npy",
            "training.noise is 0.2 and training.noise_index 'a.npy'; set one of them: draw the noise, or read it.",
        ),
    ],
)
def test_wrong_noise_is_refused_in_one_sentence(given: str, said: str) -> None:
    assert refused(*TRAIN, *given.split()).startswith(f"tshsr: {said}")


def test_train_says_which_pairs_are_wrong(tmp_path: Path) -> None:
    for seed, split in enumerate(("train", "dev")):
        write_precomp(tmp_path, split, random_regions(4, seed=seed))
    np.save(tmp_path / "index.npy", np.array([1, 0, 2, 3]))
    for options, note in (
        (("--noise", "0.5"), "noise: the images of 50% of these captions are shuffled among them"),
        (("--training.noise-index", str(tmp_path / "index.npy")), "noise: these captions have the images that"),
    ):
        out = tmp_path / options[0].strip("-")
        said = call(*TRAIN[:2], "--data", tmp_path, "--out", out, *TINY, *options)
        assert said.code == 0, said.err
        assert note in said.err
