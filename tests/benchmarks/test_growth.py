"""benchmarks.growth: mixtures of pictures, and the search among them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from benchmarks import growth
from benchmarks.growth import Growth, simulate
from tests.support.small_runs import small_config, small_split
from tshsr.config.models import TshsrConfig
from tshsr.data.dataset import Split
from tshsr.data.regions import RegionFeatures
from tshsr.errors import SettingsError
from tshsr.models.build import build_matcher
from tshsr.training.checkpoints import save_model
from tshsr.training.completion import complete, make_tokenizer

PICTURES, TESTS = 12, 4


def splits(folder: Path) -> dict[str, Split]:
    """All pictures, and the first four as split test."""
    every = small_split(folder, "all", PICTURES)
    path = folder / "test_ims.npy"
    np.save(path, np.load(folder / "all_ims.npy")[:TESTS])
    test = replace(
        every,
        name="test",
        regions=RegionFeatures.open(path),
        captions=every.captions[: 2 * TESTS],
        image_of_caption=every.image_of_caption[: 2 * TESTS],
        image_ids=every.image_ids[:TESTS],
    )
    return {"all": every, "test": test}


def untrained(out: Path, split: Split, pooling: Literal["attention", "esa"]) -> Path:
    """A saved network with random weights; v from the streams' regions, or from a projection of its own."""
    config = small_config()
    assert isinstance(config.model, TshsrConfig)
    config = replace(config, model=replace(config.model, pooling=pooling))
    tokenizer = make_tokenizer(config, split)
    config = complete(config, tokenizer, split, split)
    torch.manual_seed(0)
    save_model(out, config, tokenizer, build_matcher(config.model))
    return out


@pytest.mark.parametrize("pooling", ["attention", "esa"])
def test_the_collection_grows_from_real_pictures_to_mixtures(
    pooling: Literal["attention", "esa"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = splits(tmp_path)
    monkeypatch.setattr(growth, "open_split", lambda _, name: data[name])
    run = untrained(tmp_path / "run", data["all"], pooling)
    sizes = Growth(str(run), "store", sizes=(4, 12, 40), rescored=(4, 40), queries=2, source=6)
    with torch.inference_mode():
        found = simulate(sizes)
    assert (found["real"], found["tests"], found["queries"], found["rescored_queries"]) == (12, 4, 8, 2)
    assert [row["pictures"] for row in found["rows"]] == [4, 12, 40]
    assert found["rows"][0]["first_stage_recall"]["10"] == 100.0
    kept = [row["first_stage_recall"]["10"] for row in found["rows"]]
    assert kept == sorted(kept, reverse=True)
    assert [row.get("pairs") for row in found["rows"]] == [2 * 4, None, 2 * 40]
    assert found["rows"][1]["if_proportional"]["10"] == kept[1]


def test_mixtures_that_the_network_would_encode_otherwise_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = splits(tmp_path)
    monkeypatch.setattr(growth, "open_split", lambda _, name: data[name])
    run = untrained(tmp_path / "run", data["all"], "esa")
    monkeypatch.setattr(growth.Collection, "pooling", property(lambda own: own.items))  # not what v is pooled from
    with torch.inference_mode(), pytest.raises(SettingsError, match=r"mixed regions differ by .* from mixed features"):
        simulate(Growth(str(run), "store", sizes=(4, 12), source=6))
