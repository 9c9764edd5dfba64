"""Scores recorded from the authors' own code, in float64, against ours with the same inputs and weights.

The authors divide by norm + 1e-8 and we by max(norm, 1e-12): that is what the tolerance of 1e-6 is for. A caption of
one word needs 2e-5: its q·c, normalised over that one word, are divided by their own size, which may be near 0.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tshsr.config.models import EncoderConfig, HardAlignmentConfig, RcarConfig, ScanConfig, SgrafConfig
from tshsr.data.batches import CaptionBatch, ImageBatch
from tshsr.models.base import Matcher, Scores
from tshsr.models.hard_alignment import HardAlignment
from tshsr.models.pooling import GeneralisedPooling
from tshsr.models.rcar import Rcar
from tshsr.models.scan import Scan
from tshsr.models.sgraf import Sgraf
from tshsr.models.streams import StreamMatcher

NEAR = {"rtol": 0, "atol": 1e-6}
ONE_WORD = {"rtol": 0, "atol": 2e-5}
DIM, WIDTH, REGIONS = 32, 16, 36
ENCODER = EncoderConfig(dim=DIM, feature_dim=DIM, vocabulary=2, word_dim=4)
AGGREGATIONS = {"Mean": "mean", "LogSumExp": "logsumexp", "Max": "max", "Sum": "sum"}
NORMALISATIONS = ("clipped_l2norm", "l2norm", "clipped", "no_norm", "softmax")
FACTORS = {"word": 6.0, "region": 5.0}

SGRAF_NAMES = {
    "v_global_w.embedding_local.0": "region_pooling.item",
    "v_global_w.embedding_global.0": "region_pooling.whole",
    "v_global_w.embedding_common.0": "region_pooling.weight",
    "v_global_w.embedding_local.1": "region_pooling.item_norm",
    "v_global_w.embedding_global.1": "region_pooling.whole_norm",
    "t_global_w.embedding_local.0": "word_pooling.item",
    "t_global_w.embedding_global.0": "word_pooling.whole",
    "t_global_w.embedding_common.0": "word_pooling.weight",
    "sim_tranloc_w": "streams.word_stream.local_similarity.projection",
    "sim_tranglo_w": "streams.word_stream.global_similarity.projection",
    "sim_eval_w": "streams.word_stream.score",
    "SAF_module.attn_sim_w": "streams.word_stream.reasoning.opening",
    "SAF_module.bn": "streams.word_stream.reasoning.norm",
    **{
        f"SGR_module.{step}.{theirs}": f"streams.word_stream.reasoning.{ours}.{part}"
        for step, ours in enumerate(("steps.0", "steps.1", "last"))
        for theirs, part in {"graph_query_w": "query", "graph_key_w": "key", "sim_graph_w": "update"}.items()
    },
}
RCAR_NAMES = {
    "sim_eval_w": "score",
    **{f"alv_modules.{step}.sim_transform_w": f"alignments.{step}.projection" for step in range(2)},
    **{
        f"rar_modules.{step}.{theirs}.0": f"aggregations.{step}.{ours}"
        for step in range(2)
        for theirs, ours in {"rar_k_w": "item", "rar_q_w": "whole", "rar_v_w": "weight"}.items()
    },
    **{
        f"rcr_modules.0.{theirs}.{layer}": f"regulators.0.{ours}.{layer}"
        for theirs, ours in {"rcr_matrix_w": "gate", "rcr_smooth_w": "sharpness"}.items()
        for layer in (0, 2)
    },
}
"""The authors' names of weights and ours, of a stream."""
WITHOUT_EFFECT = ("graph_key_w.bias", "embedding_common.0.bias", "rar_v_w.0.bias", "num_batches_tracked")
"""What adds a constant under a softmax, or only counts."""


class Given(nn.Module):
    """Stands for an encoder: gives the rows that were recorded."""

    def __init__(self, recorded: Tensor) -> None:
        super().__init__()
        self.recorded = recorded

    def inputs(self, batch: ImageBatch) -> Tensor:
        return self.recorded

    def states(self, batch: CaptionBatch) -> tuple[Tensor, None]:
        return self.recorded, None

    def rows(self, recorded: Tensor, mask: Tensor) -> Tensor:
        return recorded * mask[..., None]


@pytest.fixture
def recorded(shared: Path, request: pytest.FixtureRequest) -> Mapping[str, Tensor]:
    """A file of recorded tensors, by name; skips where it is missing."""
    path = shared / "parity" / f"{request.param}.npz"
    if not path.is_file():
        pytest.skip(f"the recorded scores {path.name} are not beside this checkout")
    with np.load(path) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def real_rows(rows: Tensor, lengths: Tensor) -> Tensor:
    return torch.arange(rows.shape[1]) < lengths[:, None]


def score_recorded(network: StreamMatcher, recorded: Mapping[str, Tensor]) -> tuple[Scores, Tensor]:
    """Scores of the recorded regions and words, and the pooled regions; padding is filled with garbage first."""
    network.double().eval()
    regions, words = recorded["regions"], recorded["words"]
    mask = real_rows(words, recorded["lengths"])
    network.region_encoder, network.word_encoder = Given(regions), Given(torch.where(mask[..., None], words, 3.0))
    whole = torch.ones(regions.shape[:2], dtype=torch.bool)
    with torch.no_grad():
        images = network.encode_images(ImageBatch(regions, whole))
        captions = network.encode_captions(CaptionBatch(mask.long(), mask))
        return network.score_all(images, captions), images.pooled


def our_weights(recorded: Mapping[str, Tensor], names: Mapping[str, str]) -> Iterator[tuple[str, Tensor]]:
    """The recorded weights under our names and in our shapes."""
    ends = {"running_var": "running_variance"}
    for name, value in recorded.items():
        if name.startswith("w/") and not name.endswith(WITHOUT_EFFECT):
            module, _, end = name.removeprefix("w/").rpartition(".")
            slots = value[:, None] if names[module].endswith("item_norm") else value
            yield f"{names[module]}.{ends.get(end, end)}", slots


def take_weights(network: Matcher, recorded: Mapping[str, Tensor], names: Mapping[str, str]) -> None:
    """Put the recorded weights into a network, all of them, and leave none of its own but the encoders'."""
    weights = dict(our_weights(recorded, names))
    own = {name for name in network.state_dict() if "encoder" not in name}
    assert weights.keys() == own
    network.double().load_state_dict(weights, strict=False)


@pytest.mark.parametrize(("recorded", "reasoning"), [("sgraf_sgr", "sgr"), ("sgraf_saf", "saf")], indirect=["recorded"])
def test_sgraf_scores_as_the_authors_code(recorded: Mapping[str, Tensor], reasoning: str) -> None:
    network = Sgraf(SgrafConfig(encoder=ENCODER, similarity_dim=WIDTH, reasoning=reasoning, region_slots=REGIONS))
    take_weights(network, recorded, SGRAF_NAMES)
    scores, image_global = score_recorded(network, recorded)
    torch.testing.assert_close(image_global, recorded["image_global"], **NEAR)
    assert_near(scores["fused"], recorded)


def assert_near(scores: Tensor, recorded: Mapping[str, Tensor]) -> None:
    """Equal to the recorded scores, and these differ."""
    several = recorded["lengths"] > 1
    torch.testing.assert_close(scores[:, several], recorded["scores"][:, several], **NEAR)
    torch.testing.assert_close(scores[:, ~several], recorded["scores"][:, ~several], **ONE_WORD)
    assert recorded["scores"].std() > 1e-3, "equal scores would prove nothing"


@pytest.mark.parametrize(("recorded", "stream"), [("rcar_t2i", "word"), ("rcar_i2t", "region")], indirect=["recorded"])
def test_rcar_scores_as_the_authors_code(recorded: Mapping[str, Tensor], stream: str) -> None:
    network = Rcar(RcarConfig(encoder=ENCODER, similarity_dim=WIDTH, streams=stream))
    names = {theirs: f"streams.{stream}_stream.{ours}" for theirs, ours in RCAR_NAMES.items()}
    take_weights(network, recorded, names)
    scores, _ = score_recorded(network, recorded)
    assert_near(scores["fused"], recorded)


@pytest.mark.parametrize("recorded", ["chan"], indirect=True)
@pytest.mark.parametrize(("pooling", "aggregation"), [("lse", "logsumexp"), ("mean", "mean")])
@pytest.mark.parametrize(("name", "stream"), [("words_best_region", "word"), ("regions_best_word", "region")])
def test_chan_scores_as_the_authors_code(
    recorded: Mapping[str, Tensor], name: str, stream: str, pooling: str, aggregation: str
) -> None:
    config = HardAlignmentConfig(encoder=ENCODER, streams=stream, aggregation=aggregation)
    scores, _ = score_recorded(HardAlignment(config), recorded)
    torch.testing.assert_close(scores["fused"], recorded[f"scores/{name}/{pooling}"], **NEAR)


@pytest.mark.parametrize("recorded", ["scan"], indirect=True)
@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("stream", FACTORS)
def test_scan_scores_as_the_authors_code(
    recorded: Mapping[str, Tensor], stream: str, aggregation: str, normalisation: str
) -> None:
    config = ScanConfig(
        encoder=ENCODER, streams=stream, aggregation=AGGREGATIONS[aggregation], normalisation=normalisation
    )
    scores, _ = score_recorded(Scan(config), recorded)
    torch.testing.assert_close(scores["fused"], recorded[f"{stream}/{aggregation}/{normalisation}"], **NEAR)


@pytest.mark.parametrize("recorded", ["gpo"], indirect=True)
def test_generalised_pooling_pools_as_the_authors_code(recorded: Mapping[str, Tensor]) -> None:
    pooling = GeneralisedPooling().double()
    names = {name.removeprefix("w/").replace("linear", "score"): value for name, value in recorded.items()}
    pooling.load_state_dict({name: names[name] for name in pooling.state_dict()})
    real = real_rows(recorded["features"], recorded["lengths"])
    with torch.no_grad():
        torch.testing.assert_close(pooling.weights(real)[..., None], recorded["weights"], **NEAR)
        filled = torch.where(real[..., None], recorded["features"], 9.0)
        pooled = nn.functional.normalize(recorded["pooled"], dim=-1)
        torch.testing.assert_close(pooling(filled, real), pooled, **NEAR)
