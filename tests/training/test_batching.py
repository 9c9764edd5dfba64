from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.support.small_runs import small_split
from tshsr.data.text import Tokenizer
from tshsr.errors import DataError, SettingsError
from tshsr.scoring.processes import Processes
from tshsr.training.batching import Order, Reader, derived_seed, prefetch


@given(captions=st.integers(12, 200), batch=st.integers(8, 50), accumulate=st.integers(1, 2), epoch=st.integers(0, 3))
def test_an_epoch_passes_over_every_caption_once_in_batches_of_nearly_one_size(
    captions: int, batch: int, accumulate: int, epoch: int
) -> None:
    order = Order(captions, batch, accumulate, seed=0)
    steps = list(order.steps(epoch))
    assert len(steps) == order.steps_per_epoch
    batches = [batch for step in steps for batch in step]
    assert sorted(np.concatenate(batches).tolist()) == list(range(captions))
    sizes = [len(batch) for batch in batches]
    assert max(sizes) - min(sizes) <= 2
    assert max(sizes) <= batch


def test_the_order_follows_from_seed_and_epoch() -> None:
    order = Order(60, 20, 1, seed=4)

    def first(order: Order, epoch: int) -> list[int]:
        return next(order.steps(epoch))[0].tolist()

    assert first(order, 0) == first(replace(order), 0)
    assert first(order, 0) != first(order, 1)
    assert first(order, 0) != first(replace(order, seed=5), 0)


def test_an_epoch_goes_on_from_any_step() -> None:
    order = Order(60, 10, 2, seed=0)
    whole, rest = list(order.steps(1)), list(order.steps(1, first=2))
    assert [[b.tolist() for b in step] for step in rest] == [[b.tolist() for b in step] for step in whole[2:]]


def test_too_few_captions_for_a_batch_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"5 training captions in batches of 2 \(accumulate 2\) leave a batch"):
        Order(5, 2, 2, seed=0)


def test_derived_seeds_differ_for_neighbours_and_fit_torch() -> None:
    seeds = {derived_seed(seed, step, batch) for seed in range(3) for step in range(30) for batch in range(3)}
    assert len(seeds) == 270
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derived_seed(1, 2) == derived_seed(1, 2)


def test_a_batch_holds_its_captions_and_their_images_once(tmp_path: Path) -> None:
    split = small_split(tmp_path, "train", images=4)
    tokenizer = Tokenizer.build(split.captions, minimum_count=1)
    batch = Reader(split, tokenizer).read(np.array([7, 0, 6, 3]))
    assert batch.image_of_caption.tolist() == [2, 0, 2, 1]
    assert torch.equal(batch.images.regions, split.regions.read([0, 1, 3]).regions)
    expected = [*tokenizer.encode([split.captions[i] for i in (7, 0, 6, 3)]).rows()]
    rows = [row[mask].tolist() for row, mask in zip(batch.captions.tokens, batch.captions.mask, strict=True)]
    assert rows == expected


def test_a_caption_without_a_word_names_its_split(tmp_path: Path) -> None:
    split = small_split(tmp_path, "train", images=2)
    split = replace(split, captions=(*split.captions[:3], " !? "))
    with pytest.raises(DataError, match=r"small, split train, counting from caption 0: caption 3 has no word: ' !\? '"):
        Reader(split, Tokenizer.build(split.captions, minimum_count=1))


def test_items_come_ahead_in_their_order_and_errors_with_them() -> None:
    assert list(prefetch(iter([3, 1, 2]))) == [3, 1, 2]
    assert list(prefetch(iter([]))) == []
    items = prefetch(10 // number for number in (5, 2, 0, 1))
    assert (next(items), next(items)) == (2, 5)
    with pytest.raises(ZeroDivisionError):
        next(items)


def test_processes_read_the_whole_batch_together(tmp_path: Path) -> None:
    split = small_split(tmp_path, "train")
    reader = Reader(split, Tokenizer.build(split.captions, minimum_count=1))
    captions = np.array([7, 0, 6, 3, 12])
    whole = reader.read(captions)
    parts = [reader.read(captions, processes=Processes(number, 3)) for number in range(3)]
    assert [len(part.images) for part in parts] == [2, 1, 1]
    assert [len(part.captions) for part in parts] == [2, 2, 1]
    assert torch.equal(torch.cat([part.images.regions for part in parts]), whole.images.regions)
    for part in parts:
        assert torch.equal(part.image_of_caption, whole.image_of_caption)
        assert (part.total_images, part.numbers.tolist()) == (4, captions.tolist())
    images = [reader.images_of(captions, Processes(number, 3)).tolist() for number in range(3)]
    assert images == [[0, 1], [3], [6]]


@given(total=st.integers(1, 40), count=st.integers(1, 5))
def test_shares_are_consecutive_and_of_nearly_one_size(total: int, count: int) -> None:
    shares = [Processes(number, count).share(total) for number in range(count)]
    assert all(share.sizes == shares[0].sizes for share in shares)
    assert sum(shares[0].sizes) == total
    if total < count:  # all work on all rows, and the first one's results count
        assert all((share.rows, share.divided) == (slice(0, total), False) for share in shares)
        assert shares[0].sizes[0] == total
    else:
        assert [row for share in shares for row in range(share.rows.start, share.rows.stop)] == [*range(total)]
        assert max(shares[0].sizes) - min(shares[0].sizes) <= 1
        assert all(share.divided == (count > 1) for share in shares)
