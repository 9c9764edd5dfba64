"""Bulk work on Ray Data: a killed worker loses nothing and repeats nothing; the result is that of one process."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.extractors import Joint, Means, everything, work_folders
from tests.support.indexed import Small
from tests.support.mortal import Doubling, KillingEngine, OwnProcess
from tests.support.picture_files import write_rubbish
from tshsr.engines.ray import STATISTICS, data_settings, ray_engine
from tshsr.errors import DataError, InputError, SettingsError
from tshsr.evaluation.run import evaluate_models
from tshsr.evaluation.sharded import score_split_sharded
from tshsr.features.extraction import extract_folder
from tshsr.features.shards import ExtractionOptions
from tshsr.index.collection import Index
from tshsr.index.rows import CAPTIONS, PICTURES
from tshsr.scoring.all_pairs import score_split
from tshsr.scoring.options import ScoringOptions

pytestmark = pytest.mark.filterwarnings("ignore")  # of Ray's own code


def contents(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.iterdir()}


@pytest.mark.slow
def test_results_arrive_once_each_in_order_where_wanted_and_errors_as_they_are(cluster: None) -> None:
    import ray.data

    with ray_engine(shard=2) as engine:
        assert (engine.workers, engine.gpus, os.environ[STATISTICS]) == (2, 0, "0")
        assert list(engine.run(Doubling(), [], ordered=True)) == []
        before = ray.data.DataContext.get_current().copy()
        assert list(engine.run(Doubling(), range(12), ordered=True)) == [(n, 2 * n) for n in range(12)]
        after = ray.data.DataContext.get_current()
        assert after.enable_progress_bars == before.enable_progress_bars
        assert after.execution_options.preserve_order == before.execution_options.preserve_order
        alone = replace(engine, workers=1, attempts=2)  # a worker takes a second of a core to start
        with pytest.raises(InputError, match=r"^three is refused\.$"):
            list(alone.run(Doubling(raises=InputError), range(12)))
        with pytest.raises(DataError, match="2 workers of Ray died on shard 3; give them more memory, or less work"):
            list(alone.run(Doubling(kills=True), range(5)))


@pytest.mark.slow
def test_a_store_of_which_a_worker_was_killed_is_that_of_an_undisturbed_job(
    cluster: None, pictures: Path, out: Path, tmp_path: Path
) -> None:
    write_rubbish(pictures)
    options = ExtractionOptions(batch=2)
    extract_folder(pictures, tmp_path / "plain", Joint(), options=options)
    with ray_engine(shard=2) as engine:
        killing = KillingEngine(engine, tmp_path / "killed")
        done = extract_folder(pictures, out, Joint(), options=options, engine=killing)
    assert (tmp_path / "killed").exists(), "a worker was killed"
    assert set(killing.results.values()) == {1}
    assert (done.pictures, done.reused) == (10, 0)
    assert contents(out) == contents(tmp_path / "plain")
    assert everything(out).regions.joint_dim == 3
    assert work_folders(out) == []


@pytest.mark.slow
def test_an_index_of_which_a_worker_was_killed_holds_the_same_rows(cluster: None, small: Small, tmp_path: Path) -> None:
    plain = Index.build(tmp_path / "plain", small.retriever(), small.split(), engine=OwnProcess(3))
    with ray_engine(shard=3) as engine:
        killing = KillingEngine(engine, tmp_path / "killed")
        index = Index.build(tmp_path / "index", small.retriever(), small.split(), engine=killing)
    assert (tmp_path / "killed").exists(), "a worker was killed"
    for reader, other in ((index._pictures, plain._pictures), (index._captions, plain._captions)):
        rows, expected = (each.live.search().to_arrow() for each in (reader, other))
        assert rows.equals(expected), "in the same order, too"


@pytest.mark.slow
def test_scores_of_which_a_worker_was_killed_are_those_of_one_process(
    cluster: None, small: Small, tmp_path: Path
) -> None:
    split = small.split()
    expected = evaluate_models([small.retriever()], split)
    with ray_engine(shard=5) as engine:
        killing = KillingEngine(engine, tmp_path / "killed")
        found = evaluate_models([small.retriever()], split, engine=killing)
    assert (tmp_path / "killed").exists(), "a worker was killed"
    assert killing.results == dict.fromkeys(range(5), 1)
    whole = evaluate_models([small.retriever()], split, engine=OwnProcess(len(split.captions)))
    for name, scores in expected.scores.items():
        np.testing.assert_allclose(found.scores[name], scores, atol=1e-6)
        np.testing.assert_array_equal(whole.scores[name], scores, "one shard has the blocks of one process")
    assert found.report().scores == expected.report().scores


@dataclass(frozen=True)
class LastFirst(OwnProcess):
    """Gives the result of the last shard first."""

    def run(self, prepare: Any, shards: Sequence[Any], *, ordered: bool = False) -> Iterator[tuple[int, Any]]:
        yield from reversed([*super().run(prepare, shards, ordered=ordered)])


@pytest.mark.parametrize("in_files", [False, True])
def test_shards_in_any_order_give_the_scores_of_one_process(small: Small, tmp_path: Path, in_files: bool) -> None:
    matcher, tokenizer, split = small.retriever().matcher, small.retriever().tokenizer, small.split()
    done: list[tuple[int, int]] = []
    options = ScoringOptions(
        folder=tmp_path if in_files else None, progress=lambda pairs, total: done.append((pairs, total))
    )
    found = score_split_sharded(LastFirst(10), matcher, tokenizer, split, options)
    assert done == [(12 * captions, 12 * 24) for captions in (4, 14, 24)]
    for name, scores in score_split(matcher, tokenizer, split).items():
        np.testing.assert_allclose(found[name], scores, atol=1e-6)


def test_all_rows_of_an_engine_become_visible_at_once_and_none_twice(small: Small, tmp_path: Path) -> None:
    index = Index.create(tmp_path / "index", small.retriever(), extractor=small.split().extractor)
    before = index._pictures.live.version
    added = index.add(small.split(), engine=OwnProcess(3))
    assert (added.new, added.captions, index._pictures.live.version) == (12, 24, before + 1)
    assert index.add(small.split(), engine=OwnProcess(3)).kept == 12
    assert index.replace(small.split("test"), engine=OwnProcess(3)).replaced == 4
    expected = Index.build(tmp_path / "plain", small.retriever(), small.split())
    for name in (PICTURES, CAPTIONS):
        reader, other = (getattr(each, f"_{name}").live.search().to_arrow().sort_by("id") for each in (index, expected))
        assert reader.drop_columns(["pooled", "items"]) == other.drop_columns(["pooled", "items"])
        for column, close in (("pooled", 1e-6), ("items", 1e-3)):
            got, wanted = (np.concatenate(table[column].to_pylist()) for table in (reader, other))
            np.testing.assert_allclose(got, wanted, atol=close)


def test_a_caption_that_cannot_be_encoded_leaves_the_captions_as_they_were(small: Small, tmp_path: Path) -> None:
    index = Index.create(tmp_path / "index", small.retriever(), extractor=small.split().extractor)
    split = small.split()
    broken = replace(split, captions=(*split.captions[:-1], "..."))
    with pytest.raises(DataError, match=r"has no word: '\.\.\.'; leave it out"):
        index.add(broken, engine=OwnProcess(2))
    assert (len(index), index.captions) == (12, 0)
    assert index.add(split, engine=OwnProcess(2)).captions == 24


def test_an_interrupted_job_on_an_engine_continues(pictures: Path, out: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        extract_folder(pictures, out, Means(), engine=OwnProcess(2, pickled=False, interrupted=2))
    assert not out.exists()
    assert extract_folder(pictures, out, Means(), engine=OwnProcess(2, pickled=False)).reused == 4
    extract_folder(pictures, tmp_path / "plain", Means())
    assert contents(out) == contents(tmp_path / "plain")


def test_a_worker_with_other_weights_is_refused(pictures: Path, out: Path) -> None:
    engine = OwnProcess(2, pickled=False)
    with pytest.raises(DataError, match="a worker has the extractor 'other', this process 'means'; give both the same"):
        extract_folder(pictures, out, Means(), engine=engine, open_extractor=lambda: Means("other"))
    assert not out.exists()


@pytest.mark.slow
def test_workers_have_to_fit_the_cluster(cluster: None) -> None:
    message = "3 workers of 1 cores each do not fit the cluster of 1 machines, the largest with 2 cores; ask for fewer"
    with pytest.raises(SettingsError, match=message), ray_engine(workers=3):
        pass


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """The machines of a cluster that this process is connected to; tests fill them in."""
    listed: list[dict[str, object]] = []
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr("ray.nodes", lambda: listed)
    return listed


def machine(*, cores: float, gpus: float = 0, alive: bool = True) -> dict[str, object]:
    """A machine as Ray lists it."""
    return {"Alive": alive, "Resources": {"CPU": cores, **({"GPU": gpus} if gpus else {})}}


def test_workers_use_the_gpus_of_the_cluster_one_each(nodes: list[dict[str, object]]) -> None:
    nodes += [machine(cores=8, gpus=2), machine(cores=4, gpus=4, alive=False)]
    with ray_engine(cpus=3) as engine:
        assert (engine.workers, engine.cpus, engine.gpus) == (2, 3, 1)
    with ray_engine(gpu=False) as engine:
        assert (engine.workers, engine.gpus) == (8, 0)
    message = "3 workers of 1 cores and a GPU each .* of 1 machines, the largest with 2 GPUs and 8 cores; ask for fewer"
    with pytest.raises(SettingsError, match=message), ray_engine(workers=3):
        pass


def test_a_worker_has_to_fit_one_machine(nodes: list[dict[str, object]]) -> None:
    nodes += [machine(cores=4), machine(cores=6), machine(cores=3)]
    with ray_engine(cpus=3) as engine:
        assert engine.workers == 4
    message = "1 workers of 8 cores each do not fit the cluster of 3 machines, the largest with 6 cores; ask for fewer"
    with pytest.raises(SettingsError, match=message), ray_engine(cpus=8):
        pass


def test_the_callers_settings_of_ray_data_come_back() -> None:
    from ray.data import DataContext

    def settings() -> tuple[bool, bool]:
        context = DataContext.get_current()
        return context.enable_progress_bars, context.execution_options.preserve_order

    before = settings()
    with suppress(DataError), data_settings(ordered=not before[1]):
        assert settings() == (False, not before[1])
        raise DataError("a shard is refused.")
    assert settings() == before


def test_numbers_below_one_and_a_missing_package_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="--shard is 0; expected at least 1"), ray_engine(shard=0):
        pass
    with pytest.raises(SettingsError, match=r"^cpus is 0; expected at least 1\.$"), ray_engine(cpus=0):
        pass
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr("tshsr.engines.ray.find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"the engine ray needs Ray, .* pip install 'tshsr\[ray\]'"), ray_engine():
        pass
