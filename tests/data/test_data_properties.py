"""Properties for all values: written data is read back, truncated data is refused."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.support.data_files import random_regions, write_precomp
from tshsr.data.convert import convert
from tshsr.data.layouts import open_split, select_images
from tshsr.data.npy import NpyFile
from tshsr.data.store import StoreCaption, StoreImage, open_store, write_store
from tshsr.data.text import Tokenizer
from tshsr.errors import DataError

FEW = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
WORDS = st.text(min_size=1, max_size=12).filter(lambda text: any(letter.isalnum() for letter in text))
COUNTS = st.lists(st.integers(1, 6), min_size=1, max_size=7)


@st.composite
def region_arrays(draw: st.DrawFn) -> np.ndarray:
    dtype = draw(st.sampled_from(["<f2", "<f4", ">f4"]))
    shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(1, 5)))
    width = 16 if dtype == "<f2" else 32
    return draw(hnp.arrays(dtype, shape, elements=st.floats(width=width, allow_nan=False, allow_infinity=False)))


@FEW
@given(regions=region_arrays(), texts=st.lists(WORDS, min_size=1, max_size=5), data=st.data())
def test_a_written_store_is_read_back(regions: np.ndarray, texts: list[str], data: st.DataObject) -> None:
    images = [StoreImage(f"image {i}") for i in range(len(regions))]
    of = data.draw(st.lists(st.integers(0, len(regions) - 1), min_size=len(texts), max_size=len(texts)))
    mask = data.draw(hnp.arrays(np.bool_, regions.shape[:2]))
    mask[:, 0] = True
    captions = [
        StoreCaption(str(n), f"image {i}", text, "x") for n, (i, text) in enumerate(zip(of, texts, strict=True))
    ]
    with tempfile.TemporaryDirectory() as folder:
        write_store(
            Path(folder), extractor="e", settings={}, images=images, captions=captions, regions=regions, mask=mask
        )
        everything, split = open_store(Path(folder), "all"), open_store(Path(folder), "x")
        batch = everything.regions.read(range(len(regions)))
    kept = batch.regions.shape[1]
    assert np.array_equal(batch.regions.numpy(), np.where(mask[..., None], regions, 0)[:, :kept].astype(np.float32))
    assert np.array_equal(batch.mask.numpy(), mask[:, :kept])
    assert not mask[:, kept:].any()
    assert split.captions == everything.captions == tuple(texts)
    assert [split.image_ids[i] for i in split.image_of_caption] == [f"image {i}" for i in of]


@FEW
@given(images=st.sampled_from([5, 10, 15]), seed=st.integers(0, 99), order=st.randoms(use_true_random=False))
def test_repeated_rows_mean_the_same_as_plain_ones(images: int, seed: int, order: object) -> None:
    regions = random_regions(images, seed=seed)
    wanted = np.random.default_rng(seed).integers(0, images, 4)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_precomp(folder, "plain", regions, each=5)
        write_precomp(folder, "repeated", np.repeat(regions, 5, axis=0), each=1)
        plain, repeated = open_split(folder, "plain"), open_split(folder, "repeated")
        assert np.array_equal(plain.regions.read(wanted).regions, repeated.regions.read(wanted).regions)
    assert np.array_equal(plain.image_of_caption, repeated.image_of_caption)
    assert plain.image_ids == repeated.image_ids


@FEW
@given(images=st.integers(1, 12), each=st.integers(1, 9))
@example(images=5, each=1)
@example(images=25, each=1)
def test_any_number_of_captions_an_image_is_accepted(images: int, each: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "scan"
        write_precomp(folder, "train", random_regions(images), each=each)
        scan = open_split(folder, "train")
        store = open_split(convert(folder, Path(name) / "store"), "train")
    for split in (scan, store):
        assert np.bincount(split.image_of_caption).tolist() == [each] * images
        assert all(
            caption.startswith(f"image {image} ")
            for caption, image in zip(split.captions, split.image_of_caption, strict=True)
        )


@FEW
@given(counts=COUNTS, data=st.data())
def test_selected_images_keep_exactly_their_captions(counts: list[int], data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.integers(0, len(counts) - 1), min_size=1, unique=True))
    images = [StoreImage(str(i)) for i in range(len(counts))]
    captions = [StoreCaption(f"{i}#{j}", str(i), f"c {i} {j}", "x") for i, n in enumerate(counts) for j in range(n)]
    with tempfile.TemporaryDirectory() as folder:
        regions = random_regions(len(counts))
        write_store(Path(folder), extractor="e", settings={}, images=images, captions=captions, regions=regions)
        part = select_images(open_store(Path(folder), "x"), chosen)
    found = {(part.image_ids[i], caption) for i, caption in zip(part.image_of_caption, part.captions, strict=True)}
    assert found == {(caption.image, caption.text) for caption in captions if int(caption.image) in chosen}
    assert part.image_ids == tuple(str(i) for i in chosen)


def test_a_file_cut_at_any_byte_is_refused() -> None:
    content = io.BytesIO()
    np.save(content, random_regions(2, 2, 3))
    whole = content.getvalue()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cut.npy"
        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            with pytest.raises(DataError, match=r"cut\.npy is (truncated|no \.npy file)"):
                NpyFile.open(path, axes=3)
        path.write_bytes(whole)
        assert NpyFile.open(path, axes=3).shape == (2, 2, 3)


@settings(max_examples=300, deadline=None)
@example(position=22, value=97)  # numpy's former name of bytes, of which it warns
@given(position=st.integers(0, 127), value=st.integers(0, 255))
def test_a_damaged_header_is_read_or_refused_in_one_sentence(position: int, value: int) -> None:
    content = io.BytesIO()
    np.save(content, random_regions(2, 2, 3))
    damaged = bytearray(content.getvalue())
    damaged[position] = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "damaged.npy"
        path.write_bytes(damaged)
        refused = ""
        try:
            values = NpyFile.open(path, axes=3).read_all().size
        except DataError as error:
            refused = str(error)
    assert "damaged.npy" in refused or values <= 12


@settings(max_examples=200, deadline=None)
@example(captions=["0:\u0898"])  # an accent to Python, a separate mark to the tokenizer
@given(captions=st.lists(WORDS, min_size=1, max_size=4))
def test_every_caption_with_a_word_has_one_spelling_for_each_number(captions: list[str]) -> None:
    tokenizer = Tokenizer.build(captions, 1)
    for caption, numbers in zip(captions, tokenizer.encode(captions).rows(), strict=True):
        words = tokenizer.words(caption)
        assert len(words) == len(numbers) > 0
        assert min(numbers) > 1  # in the vocabulary: neither padding nor unknown
        position = 0
        for word in words:  # in order, as spelled in the caption
            position = caption.index(word, position) + len(word)
