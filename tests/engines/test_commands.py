"""The commands on an engine and on object storage: features, index, evaluate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.command_line import refused, tshsr
from tests.support.extractors import Means
from tests.support.indexed import Small
from tests.support.object_storage import upload
from tests.support.picture_files import write_rubbish
from tshsr.data.check import check_data, inspect
from tshsr.data.layouts import open_split
from tshsr.errors import DataError
from tshsr.features.extraction import extract_folder
from tshsr.files import place_of
from tshsr.index.collection import Index

pytestmark = pytest.mark.filterwarnings("ignore")  # of Ray's own code, and of the storage's packages


def test_pictures_on_object_storage_become_the_same_store(
    storage: str, pictures: Path, out: Path, tmp_path: Path
) -> None:
    write_rubbish(pictures)
    url = upload(pictures, f"{storage}/{tmp_path.name}/pictures")
    done = extract_folder(place_of(url), out, Means())
    local = extract_folder(pictures, tmp_path / "local", Means())
    assert done.pictures == local.pictures == 10
    reasons = {one.file: one.reason for one in local.skipped}
    assert {one.file: one.reason for one in done.skipped}.items() <= reasons.items()
    for name in ("regions.npy", "boxes.npy", "images.jsonl"):
        assert (out / name).read_bytes() == (tmp_path / "local" / name).read_bytes()
    assert extract_folder(place_of(url), out, Means()).reused == 10, "known by size and time"
    assert open_split(out, "all").pictures is None


def test_a_store_on_object_storage_reads_like_a_local_one(storage: str, small: Small, tmp_path: Path) -> None:
    url = upload(small.store, f"{storage}/{tmp_path.name}/store")
    remote, local = open_split(url, "all"), small.split()
    for rows in ([0, 1, 2, 11], [5, 3, 3], [7]):
        np.testing.assert_array_equal(remote.regions.read_array(rows), local.regions.read_array(rows))
    assert remote.captions == local.captions
    assert remote.pictures is None
    assert check_data(url)[0] == []
    assert (inspect(url).layout, inspect(url).bytes) == ("store", inspect(small.store).bytes)
    (place_of(url) / "regions.npy").write_bytes(b"short")
    with pytest.raises(DataError, match=r"regions\.npy has 5 bytes; manifest\.json expects"):
        open_split(url, "all")
    with pytest.raises(DataError, match=r"nothing is no feature store: it has no manifest\.json\. Other layouts are"):
        open_split(f"{storage}/nothing", "all")


@pytest.mark.slow
def test_all_three_commands_work_on_an_engine_from_object_storage(
    cluster: None, storage: str, small: Small, pictures: Path, out: Path, tmp_path: Path
) -> None:
    place = f"{storage}/{tmp_path.name}"
    engine = ("--engine", "ray", "--engine-workers", "1", "--quiet")
    url = upload(pictures, f"{place}/pictures")
    said = tshsr("features", url, "--extractor", "scenes", "--out", out, *engine, "--shard", "4")
    assert (said.code, "10 pictures, features of scenes" in said.out) == (0, True), said.err
    assert check_data(str(out))[0] == []
    store = upload(small.store, f"{place}/store")
    said = tshsr("index", small.run, "--data", store, "--out", f"{place}/index", *engine, "--shard", "5")
    assert (said.code, "12 pictures added; 24 captions written" in said.out) == (0, True), said.err
    assert len(Index.open(f"{place}/index").search("one red dog", k=12)) == 12
    evaluated = [
        tshsr("evaluate", small.run, "--data", data, "--json", "-", "--device", "cpu", *more).json()
        for data, more in ((store, engine), (small.store, ()))
    ]
    assert evaluated[0]["scores"] == evaluated[1]["scores"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--shard", "4"), "--shard is for --engine ray; give both, or neither"),
        (
            ("--engine", "ray", "--dtype", "bfloat16"),
            "--engine ray scores all pairs in float32; leave --dtype bfloat16",
        ),
        (("--engine", "ray", "--rerank", "4"), "--engine ray scores all pairs in float32; leave --rerank out"),
    ],
)
def test_options_that_do_not_go_together_are_refused(small: Small, words: tuple[str, ...], message: str) -> None:
    assert message in refused("evaluate", small.run, "--data", small.store, *words)


def test_a_store_is_written_to_a_folder(pictures: Path) -> None:
    assert "--out is s3://bucket/store; expected a folder of this machine" in refused(
        "features", pictures, "--extractor", "scenes", "--out", "s3://bucket/store"
    )
