"""Accelerated scoring: measured before use, restores global switches, no synchronisation with a GPU."""

from __future__ import annotations

import copy
import logging
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support import tiny
from tests.support.forked import answer_of, program
from tests.support.members import Member, member
from tests.support.small_runs import small_split
from tshsr.data.batches import ImageBatch
from tshsr.data.dataset import Split
from tshsr.evaluation import compile as compilation
from tshsr.evaluation.compile import CompiledMatcher, CompileOptions, compile_members
from tshsr.evaluation.run import evaluate
from tshsr.metrics.report import PrecisionCheck
from tshsr.models.base import ItemEncoding, Matcher
from tshsr.scoring.all_pairs import Budget, CaptionLengths, score_block, score_encoded
from tshsr.scoring.options import ScoringOptions
from tshsr.scoring.rerank import score_listed

CHECK = PrecisionCheck("float32", True, 20, 40, 0.0, 100.0, 0.0, 1.5)


@pytest.fixture
def split(tmp_path: Path) -> Split:
    return small_split(tmp_path / "data", "test", images=30)


@pytest.fixture
def one(split: Split) -> Member:
    return member("one", split, 1)


def encoded(network: Matcher) -> tuple[ItemEncoding, ItemEncoding]:
    """Three images and four captions, two of them of one length."""
    batch = tiny.images(3, 5)
    with torch.no_grad():
        images = network.encode_images(ImageBatch(batch.regions.float(), batch.mask, batch.boxes))
        return images, network.encode_captions(tiny.captions((3, 3, 5, 7)))


def test_tf32_is_on_while_a_tile_is_scored_and_off_again_after_an_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny.network(torch.float32)
    images, captions = encoded(network)
    seen: list[str] = []
    score_all = network.score_all

    def watched(*sides: ItemEncoding) -> object:
        seen.append(torch.get_float32_matmul_precision())
        if len(seen) > 1:
            raise ArithmeticError
        return score_all(*sides)

    monkeypatch.setattr(network, "score_all", watched)
    compiled = CompiledMatcher(network, CompileOptions(tf32=True))
    compiled.score_all(images, captions)
    assert torch.get_float32_matmul_precision() == "highest"
    with pytest.raises(ArithmeticError):
        compiled.score_all(images, captions)
    assert seen == ["high", "high"]
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_compiled_matcher_scores_as_its_network_and_can_be_cast() -> None:
    network = tiny.network(torch.float32)
    images, captions = encoded(network)
    exact, found = (
        score_encoded(each, images, captions) for each in (network, CompiledMatcher(network, CompileOptions(tf32=True)))
    )
    assert found.keys() == exact.keys()
    torch.testing.assert_close(found["fused"], exact["fused"])
    low = copy.deepcopy(CompiledMatcher(network, CompileOptions(tf32=True))).to(torch.bfloat16)
    assert next(network.parameters()).dtype == torch.float32
    assert next(low.parameters()).dtype == torch.bfloat16
    rough = score_encoded(low, images.at(torch.bfloat16), captions.at(torch.bfloat16))["fused"]
    torch.testing.assert_close(rough.float(), exact["fused"], atol=0.02, rtol=0)


@pytest.mark.slow
def test_compiled_scores_are_the_same_and_sizes_share_a_program() -> None:
    """In a process of its own: a compiler cannot trace the shape checks that are active in the tests."""
    code = """
import torch
from torch._dynamo.utils import counters
from tests.support import tiny
from tshsr.data.batches import ImageBatch
from tshsr.evaluation.compile import CompiledMatcher, CompileOptions
from tshsr.scoring.all_pairs import score_encoded
network = tiny.network(torch.float32)
compiled = CompiledMatcher(network, CompileOptions(compiled=True, backend="eager"))
with torch.inference_mode():
    for count, lengths in ((3, (4, 4)), (5, (6, 6, 6, 6)), (1, (5,)), (6, (9, 9, 9)), (4, (8, 8)), (2, (3, 3, 3))):
        batch = tiny.images(count, 5)
        images = network.encode_images(ImageBatch(batch.regions.float(), batch.mask))
        captions = network.encode_captions(tiny.captions(lengths))
        exact, found = (score_encoded(each, images, captions) for each in (network, compiled))
        assert exact.keys() == found.keys()
        for name in exact:
            torch.testing.assert_close(found[name], exact[name])
assert not counters["graph_break"], counters
assert 1 <= counters["stats"]["unique_graphs"] <= 2, "few programs for five sizes; a single pair takes none"
"""
    ended, _, errors = answer_of(program, code)
    assert ended == 0, errors


@pytest.mark.parametrize("used", [True, False])
def test_acceleration_is_used_where_the_sample_is_faster_and_as_good(
    one: Member, split: Split, monkeypatch: pytest.MonkeyPatch, used: bool
) -> None:
    monkeypatch.setattr(compilation, "check_precision", lambda *_, compiled: replace(CHECK, used=used))
    (taken,), guards = compile_members([one], split, CompileOptions(tf32=True), ScoringOptions())
    assert guards == (replace(CHECK, dtype="tf32", used=used),)
    assert isinstance(taken.matcher, CompiledMatcher) is used
    assert (taken.name, taken.tokenizer) == (one.name, one.tokenizer)


def test_the_compiled_matcher_is_measured_on_a_sample(one: Member, split: Split) -> None:
    (taken,), (found,) = compile_members([one], split, CompileOptions(tf32=True), ScoringOptions())
    assert (found.dtype, found.images, found.captions) == ("tf32", 20, 40)
    assert found.max_difference < 1e-2
    report, scores = evaluate([taken], split)
    np.testing.assert_allclose(scores["fused"], evaluate([one], split)[1]["fused"], atol=1e-2)
    assert report.models == ("one",)


def test_without_acceleration_nothing_is_measured(one: Member, split: Split) -> None:
    assert compile_members([one], split, CompileOptions(), ScoringOptions()) == ((one,), ())


@pytest.mark.parametrize(
    ("text", "reason"),
    [("No working C++ compiler found\nand much more", "No working C++ compiler found"), ("", "RuntimeError")],
)
def test_where_nothing_can_be_compiled_one_sentence_says_so_and_scoring_goes_on(
    one: Member, split: Split, text: str, reason: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError(text)

    monkeypatch.setattr(torch, "compile", lambda *_, **__: fail)
    with caplog.at_level(logging.WARNING):
        taken = compile_members([one], split, CompileOptions(compiled=True), ScoringOptions())
    assert taken == ((one,), ())
    assert caplog.messages == [f"this machine can't compile the scoring ({reason}); scoring continues uncompiled"]
    monkeypatch.setattr(compilation, "check_precision", lambda *_, **__: fail())
    with pytest.raises(RuntimeError, match=f"^{re.escape(text)}$"):
        compile_members([one], split, CompileOptions(tf32=True), ScoringOptions())


def test_neither_all_pairs_nor_listed_pairs_synchronise_with_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors on the device "meta" have no values: reading one, which synchronises with a GPU, fails."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)  # it knows no such device
    network = tiny.network(torch.float32)
    images, captions = encoded(network)
    lengths = CaptionLengths.of(captions)
    assert lengths == CaptionLengths([3, 3, 5, 7], holes=False)
    with torch.inference_mode(mode=False), torch.no_grad():
        network.to("meta")
        left, right = images.to("meta"), captions.to("meta")
        with pytest.raises(NotImplementedError, match="meta"):
            CaptionLengths.of(right)  # once a block
        budget = Budget(4 * network.bytes_per_pair(5, 7))
        scores = score_block(network, left, right, lengths, budget)
        assert {(tuple(each.shape), each.device.type) for each in scores.values()} == {((3, 4), "meta")}
        pairs = np.array([0, 1, 2, 2, 0]), np.array([0, 0, 3, 2, 1])
        assert score_listed(network, left, right, lengths, pairs, budget).shape == (5,)


def test_caption_lengths_detect_padding_inside() -> None:
    captions = encoded(tiny.network(torch.float32))[1]
    captions.mask[2, 1] = False
    assert CaptionLengths.of(captions) == CaptionLengths([3, 3, 5, 7], holes=True)
