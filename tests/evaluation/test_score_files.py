"""Files of score matrices and captions: formats, and errors."""

import json
import pickle

import numpy as np
import pytest
import torch

from tshsr.errors import DataError, SettingsError
from tshsr.evaluation.score_files import read_image_of_caption, read_scores, save_scores

SCORES = np.arange(6, dtype=np.float32).reshape(2, 3) / 4


def write(path, content):
    path.write_text(content, encoding="utf-8")
    return path


def test_saved_scores_are_read_back_memory_mapped(tmp_path):
    save_scores(tmp_path / "new" / "scores.npy", SCORES)
    scores = read_scores(tmp_path / "new" / "scores.npy")
    assert isinstance(scores, np.memmap)
    assert not scores.flags.writeable
    assert scores.dtype == np.float32
    assert np.array_equal(scores, SCORES)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["scores.npy"]


@pytest.mark.parametrize(("given", "kept"), [("<f2", "<f4"), (">f4", "<f4"), ("<f8", "<f8"), (">f8", "<f8")])
def test_scores_are_saved_in_their_precision_but_float32_at_least(tmp_path, given, kept):
    scores = (np.float64(1 + 2**-40) * SCORES).astype(given)
    save_scores(tmp_path / "scores.npy", scores)
    saved = read_scores(tmp_path / "scores.npy")
    assert saved.dtype == np.dtype(kept)
    assert np.array_equal(saved, scores)


def test_scores_are_saved_as_npy_only(tmp_path):
    with pytest.raises(SettingsError, match=r"scores are saved as \.npy; .*scores\.csv .* Name it scores\.npy"):
        save_scores(tmp_path / "scores.csv", SCORES)


def test_a_transposed_matrix_is_read_as_it_was_saved(tmp_path):
    np.save(tmp_path / "scores.npy", SCORES.T)  # numpy keeps such an array in Fortran order
    assert np.array_equal(read_scores(tmp_path / "scores.npy"), SCORES.T)


def test_npz_is_read_by_the_name_scores(tmp_path):
    np.savez(tmp_path / "s.npz", scores=SCORES, other=np.ones(1))
    assert np.array_equal(read_scores(tmp_path / "s.npz"), SCORES)


def test_an_uncompressed_array_of_an_archive_is_memory_mapped(tmp_path):
    arrays = {"first": np.ones(7), "sims": SCORES.T.copy().T, "scores": np.zeros((1, 1))}
    np.savez(tmp_path / "plain.npz", **arrays)
    np.savez_compressed(tmp_path / "packed.npz", **arrays)
    plain, packed = (read_scores(tmp_path / f"{name}.npz", key="sims") for name in ("plain", "packed"))
    assert isinstance(plain, np.memmap)
    assert not isinstance(packed, np.memmap)
    assert np.array_equal(plain, SCORES)
    assert np.array_equal(packed, SCORES)


def test_a_tensor_of_a_dictionary_is_read_by_its_name_and_in_torchs_older_layout(tmp_path):
    torch.save({"sims": torch.tensor(SCORES)}, tmp_path / "s.pt")
    assert np.array_equal(read_scores(tmp_path / "s.pt", key="sims"), SCORES)
    torch.save(torch.tensor(SCORES), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert np.array_equal(read_scores(tmp_path / "old.pt"), SCORES)


@pytest.mark.parametrize("content", [torch.tensor(SCORES), {"scores": torch.tensor(SCORES, requires_grad=True)}])
def test_tensors_are_read(tmp_path, content):
    torch.save(content, tmp_path / "s.pt")
    assert np.array_equal(read_scores(tmp_path / "s.pt"), SCORES)


def test_bfloat16_becomes_float32(tmp_path):
    torch.save(torch.tensor(SCORES).bfloat16(), tmp_path / "s.pth")
    scores = read_scores(tmp_path / "s.pth")
    assert scores.dtype == np.float32
    assert np.array_equal(scores, SCORES)


@pytest.mark.parametrize("content", [torch.tensor(SCORES).to(torch.float8_e4m3fn), torch.tensor(SCORES).to_sparse()])
def test_a_tensor_that_no_array_can_hold_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "s.pt")
    with pytest.raises(DataError, match=r"s\.pt holds no readable scores \(.*\); save or copy the file again"):
        read_scores(tmp_path / "s.pt")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"none\.npy is missing; expected a score matrix"):
        read_scores(tmp_path / "none.npy")


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(SettingsError, match=r"scores\.csv: scores are read from \.npy, \.npz, \.pt and \.pth"):
        read_scores(write(tmp_path / "scores.csv", "1,2"))


@pytest.mark.parametrize("name", ["s.npy", "s.npz", "s.pt"])
def test_a_truncated_file_is_refused(tmp_path, name):
    path = tmp_path / name
    if name == "s.pt":
        torch.save(torch.tensor(SCORES), path)
    else:
        (np.save if name == "s.npy" else np.savez)(path, **{"arr" if name == "s.npy" else "scores": SCORES})
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match=rf"{name} holds no readable scores \(.*\); save or copy the file again"):
        read_scores(path)


@pytest.mark.parametrize("name", ["s.npy", "s.npz", "s.pt"])
def test_a_file_with_a_wrong_suffix_is_refused(tmp_path, name):
    saved = tmp_path / ("s.npz" if name == "s.npy" else "s.npy")
    (np.savez if name == "s.npy" else np.save)(saved, SCORES)
    saved.rename(tmp_path / name)
    with pytest.raises(DataError, match=rf"{name} holds no readable scores"):
        read_scores(tmp_path / name)


def test_pickled_objects_are_never_loaded(tmp_path):
    np.save(tmp_path / "s.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"s\.npy holds no readable scores"):
        read_scores(tmp_path / "s.npy")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("content", [np.random.default_rng(0), SCORES])
def test_what_is_pickled_beside_tensors_is_refused_with_what_to_save(tmp_path, content, zipped):
    torch.save({"scores": content}, tmp_path / "s.pt", _use_new_zipfile_serialization=zipped)
    refuse_pickled(tmp_path / "s.pt")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_plain_pickle_is_refused_with_what_to_save(tmp_path, protocol):
    (tmp_path / "s.pt").write_bytes(pickle.dumps(SCORES, protocol))
    refuse_pickled(tmp_path / "s.pt")


def refuse_pickled(path):
    with pytest.raises(DataError) as refusal:
        read_scores(path)
    assert str(refusal.value) == (
        f"{path} holds no readable scores: it has pickled objects other than tensors, or is no file of torch.save; "
        "save them by torch.save(torch.as_tensor(scores), FILE), or as .npy by np.save."
    )


def test_a_text_file_with_a_suffix_of_tensors_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"s\.pt holds no readable scores"):
        read_scores(write(tmp_path / "s.pt", "hello world"))


@pytest.mark.parametrize("suffix", ["npz", "pt"])
def test_a_file_without_the_name_scores_says_which_names_it_has(tmp_path, suffix):
    path = tmp_path / f"s.{suffix}"
    if suffix == "npz":
        np.savez(path, sims=SCORES)
    else:
        torch.save({"sims": torch.tensor(SCORES)}, path)
    with pytest.raises(DataError, match="holds sims; expected the matrix under the name scores"):
        read_scores(path)


def test_a_file_of_something_else_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / "s.pt")
    with pytest.raises(DataError, match="holds a list; expected a tensor, images x captions"):
        read_scores(tmp_path / "s.pt")


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.zeros((2, 2, 2)), r"holds float64 of shape \(2, 2, 2\); expected floats .* images x captions, not empty\."),
        (np.zeros((0, 100)), r"holds float64 of shape \(0, 100\)"),
        (np.zeros((20, 0)), r"holds float64 of shape \(20, 0\)"),
        (np.zeros((2, 2), dtype=int), r"holds int64 of shape \(2, 2\)"),
    ],
)
def test_a_file_that_holds_no_matrix_of_floats_is_refused(tmp_path, array, sentence):
    np.save(tmp_path / "s.npy", array)
    with pytest.raises(DataError, match=sentence):
        read_scores(tmp_path / "s.npy")


@pytest.mark.parametrize("end", ["", "\n"])
def test_plain_captions_are_equal_runs_of_lines(tmp_path, end):
    path = write(tmp_path / "test_caps.txt", "one\ntwo\n\nfour\u2028still four\nfive\nsix" + end)
    owners = read_image_of_caption(path, images=2, captions=6)
    assert owners.tolist() == [0, 0, 0, 1, 1, 1]
    assert owners.dtype == np.int64


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
@pytest.mark.parametrize(
    ("keys", "rows"), [([1, 0, 1, 2], [1, 0, 1, 2]), (["b.jpg", "a.jpg", "b.jpg", "c.jpg"], [0, 1, 0, 2])]
)
def test_json_gives_row_numbers_or_names_in_order_of_appearance(tmp_path, suffix, keys, rows):
    entries = [{"image": key, "text": "a caption"} for key in keys]
    content = json.dumps(entries) if suffix == "json" else "\n".join(map(json.dumps, entries)) + "\n"
    owners = read_image_of_caption(write(tmp_path / f"c.{suffix}", content), images=3, captions=4)
    assert owners.tolist() == rows
    assert owners.dtype == np.int64


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("c.txt", "1\n2\n3\n", r"c\.txt has 3 captions, the scores have 4 columns for 2 rows; .*transpose them"),
        ("c.jsonl", '{"image": 0}\n{"image": 1}\n{"image": 0}\n{"image":', r"c\.jsonl, line 4, is not valid JSON"),
        ("c.txt", "", r"c\.txt holds no caption; expected 4, one per column of the scores"),
        ("c.jsonl", "", r"c\.jsonl holds no caption"),
        ("c.json", "[]", r"c\.json holds no caption"),
        ("c.txt", "\n", r"c\.txt has 1 captions, the scores have 4 columns"),
        ("c.json", "[" * 100_000, r"c\.json, the whole file, is not valid JSON \(it is nested too deeply\); fix it"),
        ("c.json", "[", r"c\.json, the whole file, is not valid JSON"),
        ("c.json", "{}", r'c\.json holds a JSON dict; expected a list of \{"image": \.\.\.\}'),
        ("c.json", "[0, 0, 1, 1]", r'caption 0 \(from 0\) has no usable "image": None; expected row numbers'),
        ("c.json", '[{"image": 0}, {"image": "a"}, {"image": 1}, {}]', r"caption 1 \(from 0\) has no usable .*'a'"),
        ("c.json", '[{"image": "a"}, {"image": "b"}, {"image": 1}, {}]', r"caption 2 \(from 0\) has no usable .*1"),
        ("c.json", '[{"image": 0}, {"image": true}, {"image": 1}, {}]', "caption 1 .* True"),
        ("c.json", '[{"image": 0}, {"image": 2}, {"image": 1}, {}]', "caption 1 .* names image 2, but .* rows 0 to 1"),
        ("c.json", '[{"image": "a"}, {"image": "a"}, {"image": "a"}, {"image": "a"}]', "names 1 different images, but"),
    ],
)
def test_captions_that_do_not_fit_are_refused(tmp_path, name, content, sentence):
    with pytest.raises(DataError, match=sentence):
        read_image_of_caption(write(tmp_path / name, content), images=2, captions=4)


def test_plain_captions_must_be_a_multiple_of_the_images(tmp_path):
    path = write(tmp_path / "c.txt", "1\n2\n3\n4\n5\n")
    with pytest.raises(DataError, match="5 captions for 2 images; plain text needs the same number of consecutive"):
        read_image_of_caption(path, images=2, captions=5)


def test_a_missing_captions_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"none\.txt cannot be read \(No such file"):
        read_image_of_caption(tmp_path / "none.txt", images=1, captions=1)


def test_captions_that_are_not_utf8_are_refused(tmp_path):
    (tmp_path / "c.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(DataError, match=r"c\.txt is not UTF-8 .*; convert it first"):
        read_image_of_caption(tmp_path / "c.txt", images=1, captions=1)
