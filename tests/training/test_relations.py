"""Losses on the relations of a batch, by HREM and by batch graphs: what is added, from when on, for which method."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support import tiny
from tests.support.float64 import shaken
from tests.support.methods import GRAPH
from tests.support.small_runs import small_config, with_loss
from tshsr.config.models import DsgslConfig, HremConfig, ModelConfig, ScanConfig
from tshsr.config.run import LossConfig
from tshsr.errors import SettingsError
from tshsr.models.base import Matcher
from tshsr.models.build import build_matcher
from tshsr.training.checks import check_training
from tshsr.training.losses import hinge
from tshsr.training.objective import Objective
from tshsr.training.trainer import uses_relations

HREM = HremConfig(encoder=tiny.ENCODER, heads=3)
IMAGE_OF_CAPTION = torch.tensor([0, 1, 2, 2])


def network(config: ModelConfig = HREM) -> Matcher:
    torch.manual_seed(5)
    return shaken(build_matcher(config))


def losses(matcher: Matcher, weight: float, **more: Any) -> dict[str, Tensor]:
    objective = Objective(matcher, LossConfig(relations=weight))
    batch = tiny.images(3), tiny.captions((4, 1, 6, 2)), IMAGE_OF_CAPTION
    return objective(*batch, **{"hardest": True, "seed": 0, **more})


@pytest.mark.parametrize("hardest", [True, False])
def test_the_loss_is_the_sum_of_three_hinges_and_the_penalty(hardest: bool) -> None:
    matcher = network()
    images, captions = matcher.encode_images(tiny.images(3)), matcher.encode_captions(tiny.captions((4, 1, 6, 2)))
    found = matcher.related_scores(images, captions, IMAGE_OF_CAPTION)
    assert found is not None
    expected = found.penalty.float() + sum(
        hinge(score.float(), IMAGE_OF_CAPTION, margin=0.2, hardest=hardest) for score in found.scores.values()
    )
    without, added = losses(matcher, 0.0, hardest=hardest), losses(matcher, 0.5, hardest=hardest)
    torch.testing.assert_close(added["relations"].float(), expected.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close((added["loss"] - without["loss"]).float(), 0.5 * expected, rtol=1e-5, atol=1e-5)
    assert "relations" not in without


def test_before_relations_begin_the_loss_is_without_them_under_the_same_names() -> None:
    matcher = network()
    before, without = losses(matcher, 1.0, related=False), losses(matcher, 0.0)
    assert before.keys() == losses(matcher, 1.0).keys()
    assert before["relations"] == 0
    torch.testing.assert_close(before["loss"], without["loss"])


@pytest.mark.parametrize(("step", "begun"), [(0, False), (14, False), (15, True), (99, True)])
def test_relations_begin_after_their_warm_up(step: int, begun: bool) -> None:
    config = LossConfig(relations=1.0, relations_warmup_epochs=1.5)
    assert uses_relations(config, step, steps_per_epoch=10) == begun
    assert not uses_relations(replace(config, relations=0.0), step, steps_per_epoch=10)


def test_a_method_without_relations_has_no_scores_of_them_and_refuses_their_loss() -> None:
    scan = ScanConfig(encoder=tiny.ENCODER)
    matcher = network(scan).float()
    encoded = matcher.encode_images(tiny.images(3)), matcher.encode_captions(tiny.captions((4, 1, 6, 2)))
    assert matcher.related_scores(*encoded, IMAGE_OF_CAPTION) is None
    config = replace(small_config(), model=scan, loss=LossConfig(levels=0, relations=1.0))
    with pytest.raises(SettingsError, match=r"^loss\.relations is 1, and scan has no relations among .* hrem-\.\.\.$"):
        check_training(config)
    for name in ("relations", "relations_warmup_epochs"):
        wrong = replace(config, model=HREM, loss=replace(config.loss, **{name: -1.0}))
        with pytest.raises(SettingsError, match=rf"^loss\.{name} is -1\.0; expected 0 or more"):
            check_training(wrong)


@pytest.mark.parametrize("config", [DsgslConfig(encoder=tiny.ENCODER, neighbours=2), tiny.config(neighbours=2)])
def test_a_batch_graph_adds_three_hinges(config: ModelConfig) -> None:
    matcher = network(config)
    images, captions = matcher.encode_images(tiny.images(3)), matcher.encode_captions(tiny.captions((4, 1, 6, 2)))
    found = matcher.related_scores(images, captions, IMAGE_OF_CAPTION)
    assert found is not None
    expected = sum(hinge(score.float(), IMAGE_OF_CAPTION, margin=0.2, hardest=True) for score in found.scores.values())
    torch.testing.assert_close(losses(matcher, 0.5)["relations"].float(), expected.detach(), rtol=1e-5, atol=1e-6)


def test_a_batch_graph_beside_concepts_adds_the_scores_of_both() -> None:
    matcher = network(tiny.config(neighbours=2, knowledge=replace(GRAPH, method="consistent")))
    images, captions = matcher.encode_images(tiny.images(3)), matcher.encode_captions(tiny.captions((4, 1, 6, 2)))
    found = matcher.related_scores(images, captions, IMAGE_OF_CAPTION)
    assert found is not None
    assert found.scores.keys() == {"instances", "concepts", "related", "related_images", "related_captions"}
    assert found.penalty > 0


def test_relations_need_a_batch_graph_or_those_of_hrem() -> None:
    loss = LossConfig(relations=1.0)
    for model in (tiny.config(), DsgslConfig(encoder=tiny.ENCODER, neighbours=0)):
        sentence = (
            rf"^loss\.relations is 1, and {model.kind} has no relations .* model\.neighbours of tshsr or dsgsl to 1"
        )
        with pytest.raises(SettingsError, match=sentence):
            check_training(replace(small_config(), model=model, loss=replace(loss, levels=0)))
        check_training(replace(small_config(), model=replace(model, neighbours=1), loss=replace(loss, levels=0)))


def test_relations_that_would_never_be_trained_are_refused() -> None:
    config = with_loss(replace(small_config(epochs=3), model=HREM), levels=0.0, relations=1.0)
    check_training(with_loss(config, relations_warmup_epochs=2.5))
    late = r"^loss\.relations begins after loss\.relations_warmup_epochs, which is 3 of 3 epochs; set fewer than those"
    with pytest.raises(SettingsError, match=late):
        check_training(with_loss(config, relations_warmup_epochs=3.0))
    check_training(with_loss(config, relations=0.0, relations_warmup_epochs=3.0))


def test_neighbours_in_a_batch_without_their_loss_are_refused() -> None:
    config = replace(small_config(), model=replace(small_config().model, neighbours=2))
    with pytest.raises(SettingsError, match=r"^model\.neighbours is 2, and only loss\.relations trains with them"):
        check_training(config)
    check_training(with_loss(config, relations=1.0))
