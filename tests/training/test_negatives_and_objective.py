"""Which pairs are scored in training, and how the losses add up."""

import pytest
import torch

from tests.support import tiny
from tshsr.config.models import ScanConfig
from tshsr.config.run import LossConfig
from tshsr.data.batches import CaptionBatch, ImageBatch
from tshsr.errors import SettingsError
from tshsr.models.attention import late_interaction
from tshsr.models.build import build_matcher
from tshsr.training.losses import contrastive, hinge
from tshsr.training.negatives import candidate_pairs
from tshsr.training.objective import Objective, positives

IMAGE_OF_CAPTION = torch.tensor([0, 1, 2, 2])
AS_FLOAT32 = {"rtol": 1e-5, "atol": 1e-6, "check_dtype": False}  # losses are added up in float32


def batch() -> tuple[ImageBatch, CaptionBatch, torch.Tensor]:
    return tiny.images(3), tiny.captions((4, 1, 6, 2)), IMAGE_OF_CAPTION


def test_half_of_the_candidates_are_the_hardest_of_each_row_and_column() -> None:
    pooled = torch.rand(6, 8)
    image_of_caption = torch.tensor([0, 1, 2, 3, 4, 5, 0, 1])
    mined, random = candidate_pairs(pooled, image_of_caption, count=3, seed=0)
    own = image_of_caption[None, :] == torch.arange(6)[:, None]
    hidden = pooled.masked_fill(own, -1)
    expected = torch.zeros_like(own)
    expected[torch.arange(6), hidden.argmax(dim=1)] = True
    expected[hidden.argmax(dim=0), torch.arange(8)] = True
    assert torch.equal(mined, expected)
    assert (random.sum(dim=1) >= 2).all()
    assert (random.sum(dim=0) >= 2).all()
    assert not (mined & random).any()
    assert not ((mined | random) & own).any()


def test_the_same_seed_chooses_the_same_candidates() -> None:
    pooled = torch.rand(20, 20)
    first, again, other = (candidate_pairs(pooled, torch.arange(20), count=6, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])
    assert torch.equal(first[0], other[0])


def test_more_candidates_than_a_batch_has_are_all_its_negatives() -> None:
    mined, random = candidate_pairs(torch.rand(3, 4), IMAGE_OF_CAPTION, count=100, seed=0)
    assert torch.equal(mined, ~positives(IMAGE_OF_CAPTION, 3))
    assert not random.any()


def test_positives_are_each_caption_in_the_row_of_its_image() -> None:
    assert positives(IMAGE_OF_CAPTION, 3).nonzero().tolist() == [[0, 0], [1, 1], [2, 2], [2, 3]]


@pytest.mark.parametrize("hardest", [True, False])
def test_the_loss_of_candidates_is_the_mean_of_the_mined_and_the_random_hinge(hardest: bool) -> None:
    network = tiny.network()
    result = Objective(network, LossConfig(), candidates=2)(*batch(), hardest=hardest, seed=3)
    images, captions = network.encode_images(batch()[0]), network.encode_captions(batch()[1])
    scores = network.score_all(images, captions)
    drawn = candidate_pairs(scores["pooled"], IMAGE_OF_CAPTION, count=2, seed=3, mine=hardest)
    groups = [group for group in drawn if group.any()]  # the warm-up mines none
    for name in ("fused", "word_stream", "region_stream"):
        expected = [
            hinge(scores[name], IMAGE_OF_CAPTION, margin=0.2, hardest=hardest, scored=group) for group in groups
        ]
        torch.testing.assert_close(result[name], sum(expected) / len(groups), **AS_FLOAT32)
    pooled = hinge(scores["pooled"], IMAGE_OF_CAPTION, margin=0.2, hardest=hardest)
    torch.testing.assert_close(result["pooled"], pooled, **AS_FLOAT32)


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
    torch.testing.assert_close(result["loss"], total, **AS_FLOAT32)
    torch.testing.assert_close(result["spread"], scores["fused"].detach().float().std())


def test_candidates_reduce_the_scored_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny.network()
    counted = []
    original = network.score_listed
    monkeypatch.setattr(network, "score_listed", lambda *given: counted.append(len(given[0])) or original(*given))
    images, captions = tiny.images(12), tiny.captions((3,) * 12)
    result = Objective(network, LossConfig(), candidates=2)(images, captions, torch.arange(12), hardest=True, seed=0)
    result["loss"].backward()
    assert 12 < sum(counted) <= 12 + 2 * 2 * 12 < 144


def test_equal_scores_have_a_loss_of_twice_the_margin() -> None:
    assert hinge(torch.full((3, 4), 0.5), IMAGE_OF_CAPTION, margin=0.2, hardest=True).item() == pytest.approx(0.4)


def test_losses_are_summed_in_float32_under_mixed_precision() -> None:
    network = tiny.network(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = Objective(network, LossConfig(), candidates=2)(*batch(), hardest=True, seed=0)
    assert {value.dtype for value in result.values()} == {torch.float32}


def test_a_single_candidate_is_random_and_gives_its_hinge_alone() -> None:
    network = tiny.network()
    result = Objective(network, LossConfig(), candidates=1)(*batch(), hardest=True, seed=3)
    scores = network.score_all(network.encode_images(batch()[0]), network.encode_captions(batch()[1]))
    mined, random = candidate_pairs(scores["pooled"], IMAGE_OF_CAPTION, count=1, seed=3)
    assert not mined.any()
    expected = hinge(scores["fused"], IMAGE_OF_CAPTION, margin=0.2, hardest=True, scored=random)
    torch.testing.assert_close(result["fused"], expected, **AS_FLOAT32)


def test_a_batch_of_one_image_has_no_negatives_and_costs_nothing() -> None:
    objective = Objective(tiny.network(), LossConfig(), candidates=2)
    result = objective(tiny.images(1), tiny.captions((4, 1)), torch.tensor([0, 0]), hardest=True, seed=0)
    assert result["loss"].item() == 0.0


def test_weights_on_scores_that_a_method_has_not_are_refused() -> None:
    network = build_matcher(ScanConfig(encoder=tiny.ENCODER)).double()
    objective = Objective(network, LossConfig(fused=0.0, streams=0.0, levels=1.0, pooled=0.0))
    with pytest.raises(SettingsError, match=r"every score of this method \(word_stream, fused, pooled\) is 0; set one"):
        objective(*batch(), hardest=True, seed=0)


def test_the_warm_up_takes_random_negatives_alone() -> None:
    pooled, own = torch.randn(9, 9), torch.arange(9)
    mined, random = candidate_pairs(pooled, own, count=4, seed=0, mine=False)
    assert not mined.any()
    assert (random.sum(dim=1) >= 4).all()
    assert not random.diagonal().any()
    network, given = tiny.network(), (tiny.images(9), tiny.captions((3,) * 9), own)
    objective = Objective(network, LossConfig(), candidates=4)
    groups = {mine: objective._negatives(pooled, own, 0, mine=mine) for mine in (True, False)}
    assert [len(each) for each in groups.values()] == [2, 1]
    assert objective(*given, hardest=False, seed=0)["loss"].isfinite()


def test_the_contrastive_loss_is_that_of_the_pooled_vectors() -> None:
    network = tiny.network()
    hinges = Objective(network, LossConfig())(*batch(), hardest=True, seed=0)
    result = Objective(network, LossConfig(contrastive=2.0, temperature=0.1))(*batch(), hardest=True, seed=0)
    pooled = network.encode_images(batch()[0]).pooled @ network.encode_captions(batch()[1]).pooled.T
    expected = contrastive(pooled.float(), IMAGE_OF_CAPTION, temperature=0.1)
    torch.testing.assert_close(result["contrastive"], expected, **AS_FLOAT32)
    torch.testing.assert_close(result["loss"], hinges["loss"] + 2 * expected, **AS_FLOAT32)
    assert "contrastive" not in hinges


def test_contrastive_scores_are_infonce_on_their_logits_over_the_scored_pairs() -> None:
    network, config = tiny.network(), LossConfig(scores="contrastive", pooled=0.0, streams=0.5, levels=0.0)
    objective = Objective(network, config, candidates=1)
    result = objective(*batch(), hardest=True, seed=0)
    images, captions = network.encode_images(batch()[0]), network.encode_captions(batch()[1])
    scores = network.score_all(images, captions)
    groups = objective._negatives(images.pooled @ captions.pooled.T, IMAGE_OF_CAPTION, 0, mine=True)
    known = torch.stack(groups).any(dim=0)
    assert not (known | positives(IMAGE_OF_CAPTION, len(images))).all(), "some pairs are not scored"
    for name in ("fused", "word_stream", "region_stream"):
        expected = contrastive(torch.logit(scores[name]), IMAGE_OF_CAPTION, temperature=1.0, scored=known)
        torch.testing.assert_close(result[name].double(), expected, **AS_FLOAT32)
    torch.testing.assert_close(
        result["loss"], result["fused"] + 0.5 * (result["word_stream"] + result["region_stream"]), **AS_FLOAT32
    )


def test_the_loss_on_late_interaction_is_infonce_of_both_directions() -> None:
    network, config = tiny.network(), LossConfig(fused=0.0, streams=0.0, levels=0.0, pooled=0.0, late_interaction=2.0)
    result = Objective(network, config)(*batch(), hardest=True, seed=0)
    images, captions = network.encode_images(batch()[0]), network.encode_captions(batch()[1])
    similarity = torch.einsum("ird,cwd->ircw", images.items, captions.items).float()
    directions = late_interaction(similarity, images.mask, captions.mask)
    costs = [contrastive(each, IMAGE_OF_CAPTION, temperature=0.05) for each in directions]
    torch.testing.assert_close(result["late_interaction"], sum(costs) / 2, **AS_FLOAT32)
    torch.testing.assert_close(result["loss"], sum(costs), **AS_FLOAT32)


def test_every_contrastive_loss_weighs_the_captions() -> None:
    network, weights = tiny.network(), torch.tensor([1.0, 0.5, 0.25, 0.75])
    config = LossConfig(scores="contrastive", pooled=0.0, contrastive=1.0, late_interaction=1.0, temperature=0.1)
    result = Objective(network, config)(*batch(), hardest=True, seed=0, weights=weights)
    images, captions = network.encode_images(batch()[0]), network.encode_captions(batch()[1])
    given = {"image_of_caption": IMAGE_OF_CAPTION, "weights": weights}
    for name in ("fused", "word_stream", "region_stream"):
        logits = torch.logit(network.score_all(images, captions)[name])
        torch.testing.assert_close(result[name], contrastive(logits, temperature=1.0, **given), **AS_FLOAT32)
    pooled = contrastive(images.pooled @ captions.pooled.T, temperature=0.1, **given)
    torch.testing.assert_close(result["contrastive"], pooled, **AS_FLOAT32)
    similarity = torch.einsum("ird,cwd->ircw", images.items, captions.items)
    costs = [contrastive(s, temperature=0.1, **given) for s in late_interaction(similarity, images.mask, captions.mask)]
    torch.testing.assert_close(result["late_interaction"], sum(costs) / 2, **AS_FLOAT32)


def test_contrastive_scores_of_a_batch_of_one_image_cost_nothing() -> None:
    config = LossConfig(scores="contrastive", pooled=0.0)
    one = tiny.images(1), tiny.captions((3, 2)), torch.zeros(2, dtype=torch.long)
    assert Objective(tiny.network(), config, candidates=2)(*one, hardest=True, seed=0)["loss"].item() == 0


def test_contrastive_scores_of_a_method_that_scores_by_cosines_are_refused() -> None:
    scan = build_matcher(ScanConfig(encoder=tiny.ENCODER))
    with pytest.raises(SettingsError, match="needs scores that are probabilities, and this method's are cosines"):
        Objective(scan, LossConfig(scores="contrastive"))
