"""Which pairs are scored in training, and how the losses add up."""

import pytest
import torch

from tests import tiny
from tshsr.batches import CaptionBatch, ImageBatch
from tshsr.config import LossConfig
from tshsr.losses import hinge
from tshsr.mining import candidate_pairs
from tshsr.objective import Objective

IMAGE_OF_CAPTION = torch.tensor([0, 1, 2, 2])


def batch() -> tuple[ImageBatch, CaptionBatch, torch.Tensor]:
    return tiny.images(3), tiny.captions((4, 1, 6, 2)), IMAGE_OF_CAPTION


def test_candidates_hold_every_positive_and_the_hardest_of_each_row_and_column() -> None:
    pooled = torch.rand(6, 8)
    image_of_caption = torch.tensor([0, 1, 2, 3, 4, 5, 0, 1])
    chosen = candidate_pairs(pooled, image_of_caption, count=2, seed=0)
    own = image_of_caption[None, :] == torch.arange(6)[:, None]
    assert chosen[own].all()
    hidden = pooled.masked_fill(own, -1)
    assert all(chosen[row, hidden[row].argmax()] for row in range(6))
    assert all(chosen[hidden[:, column].argmax(), column] for column in range(8))
    assert ((chosen & ~own).sum(dim=1) >= 2).all()
    assert ((chosen & ~own).sum(dim=0) >= 2).all()
    assert chosen.sum() < chosen.numel()


def test_the_same_seed_chooses_the_same_candidates() -> None:
    pooled = torch.rand(20, 20)
    first, again, other = (candidate_pairs(pooled, torch.arange(20), count=6, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_more_candidates_than_a_batch_has_means_all_pairs() -> None:
    assert candidate_pairs(torch.rand(3, 4), IMAGE_OF_CAPTION, count=100, seed=0).all()


@pytest.mark.parametrize("hardest", [True, False])
def test_scoring_every_candidate_gives_the_loss_of_all_pairs(hardest: bool) -> None:
    network = tiny.network()
    every = Objective(network, LossConfig(levels=0.5))(*batch(), hardest=hardest, seed=0)
    candidates = Objective(network, LossConfig(levels=0.5), candidates=100)(*batch(), hardest=hardest, seed=0)
    for name in every:
        torch.testing.assert_close(every[name], candidates[name])


def test_the_losses_are_weighted_by_kind_of_score() -> None:
    network = tiny.network()
    config = LossConfig(margin=0.3, fused=1.0, streams=0.5, levels=0.25, pooled=2.0)
    result = Objective(network, config)(*batch(), hardest=True, seed=0)
    scores = network.score_all(network.encode_images(batch()[0]), network.encode_captions(batch()[1]))
    weights = {"fused": 1.0, "word_stream": 0.5, "region_stream": 0.5, "pooled": 2.0}
    weights |= {f"level_{level}": 0.25 for level in range(3)}
    total = sum(
        weight * hinge(scores[name], IMAGE_OF_CAPTION, margin=0.3, hardest=True) for name, weight in weights.items()
    )
    torch.testing.assert_close(result["loss"], total)
    torch.testing.assert_close(result["spread"], scores["fused"].detach().float().std())


def test_candidates_cut_the_pairs_that_are_reasoned_about(monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny.network()
    counted = []
    original = network.score_pairs
    monkeypatch.setattr(network, "score_pairs", lambda i, c: counted.append(len(i)) or original(i, c))
    images, captions = tiny.images(12), tiny.captions((3,) * 12)
    result = Objective(network, LossConfig(), candidates=2)(images, captions, torch.arange(12), hardest=True, seed=0)
    result["loss"].backward()
    assert counted[0] <= 12 + 2 * 2 * 12 < 144


def test_the_loss_of_a_network_that_scores_all_alike_is_twice_the_margin() -> None:
    assert hinge(torch.full((3, 4), 0.5), IMAGE_OF_CAPTION, margin=0.2, hardest=True).item() == pytest.approx(0.4)
