"""Multiply-adds of a pair, counted while it is scored, are those of the formulas, written out here by hand.

D: joint space, m: similarity vector, k: comparison, R: regions, L: words, s: seeds of a level.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.support import tiny
from tshsr.bench import plain
from tshsr.bench.speed import TILE, multiply_adds, multiply_adds_of
from tshsr.config.models import (
    DsgslConfig,
    EncoderConfig,
    HardAlignmentConfig,
    HremConfig,
    ImramConfig,
    ModelConfig,
    RcarConfig,
    ReasoningConfig,
    ScanConfig,
    SgrafConfig,
    ShanConfig,
    TshsrConfig,
)
from tshsr.models.build import build_matcher

SIZES = [
    {"D": 12, "m": 6, "k": 5, "R": 7, "L": 4, "seeds": (4, 2)},
    {"D": 20, "m": 8, "k": 16, "R": 3, "L": 9, "seeds": (3, 3)},
    {"D": 1024, "m": 256, "k": 256, "R": 36, "L": 17, "seeds": (8, 3)},
]


def encoder(size: dict) -> EncoderConfig:
    return EncoderConfig(dim=size["D"], feature_dim=7, vocabulary=20, word_dim=8)


def counted(config: ModelConfig, size: dict) -> float:
    network = build_matcher(config).train()
    count = multiply_adds(network, features=7, regions=size["R"], words=size["L"])
    assert network.training, "its mode is put back"
    return count


def alignment(queries: int, context: int, compared: int, m: int) -> int:
    """Norms of the sums by the Gram matrix, differences in the compared space, W of their squares."""
    return queries * context**2 + queries * context * compared + queries * compared * m


def reasoning(nodes: int, m: int, seeds: tuple[int, ...]) -> int:
    """Read-out of the similarity vectors; at each level extraction, co-exploitation at its few nodes, read-out."""
    total = 2 * nodes * m
    for s in seeds:
        extraction = s * m * nodes + s * nodes * m  # Q S^T;  C = A S
        attention = s * m * m + s * m * nodes  # C W;  times S^T
        through_context = s * nodes * s + s * s * nodes  # times A^T;  q A
        message = s * nodes * m + s * m * m  # (p + q A) S;  O
        gate = s * 2 * m * m  # G [C ; M]
        total += extraction + attention + through_context + message + gate + 2 * s * m
        nodes = s
    return total


@pytest.mark.parametrize("size", SIZES)
def test_a_pair_of_tshsr_costs_what_its_formula_says(size: dict) -> None:
    D, m, k, R, L, seeds = size.values()  # noqa: N806
    config = TshsrConfig(
        encoder=encoder(size), similarity_dim=m, comparison_dim=k, reasoning=ReasoningConfig(levels=2, seeds=seeds)
    )
    shared = R * L * D + D  # q·c once for both streams;  v·t
    word_stream = alignment(L, R, k, m) + reasoning(L, m, seeds)
    region_stream = alignment(R, L, k, m) + reasoning(R, m, seeds)
    assert counted(config, size) == shared + word_stream + region_stream
    assert counted(replace(config, streams="word"), size) == shared + word_stream
    assert counted(replace(config, streams="region"), size) == shared + region_stream


@pytest.mark.parametrize("size", SIZES)
def test_context_nodes_that_attend_and_products_cost_what_their_formula_says(size: dict) -> None:
    _, m, k, R, L, seeds = size.values()  # noqa: N806
    levels = ReasoningConfig(levels=2, seeds=seeds)
    config = TshsrConfig(encoder=encoder(size), similarity_dim=m, comparison_dim=k, reasoning=levels)
    products = counted(replace(config, products=True), size)
    assert products - counted(config, size) == (L + R) * k * m
    attending = replace(config, products=True, reasoning=replace(levels, context_inverse_temperature=8.0))
    assert counted(attending, size) - products == looks(L, R, k, m, seeds) + looks(R, L, k, m, seeds)


def looks(queries: int, context: int, compared: int, m: int, seeds: tuple[int, ...]) -> int:
    """Context nodes as queries: shares, norms by both Gram matrices, cosines, P q_s, s(q_s, a_s), Z."""
    total, below = 0, 0
    for s in seeds:
        shares = s * below * queries  # A_l B of the level below; A_1 is B itself
        query = s * queries**2 + s * queries * context + s * queries * compared
        attended = s * context**2 + s * context * compared
        total += shares + query + attended + 2 * s * compared * m + s * 2 * m * m
        below = s
    return total


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("steps", [1, 3])
def test_a_pair_of_sgr_costs_what_its_formula_says(size: dict, steps: int) -> None:
    assert counted(SgrafConfig(encoder=encoder(size), similarity_dim=size["m"], steps=steps), size) == (
        similarity_nodes(size) + graph(size, steps) + folding(size, steps)
    )


def similarity_nodes(size: dict) -> int:
    """q·c, v·t, and the similarity vectors of the words and of the whole, in all D dimensions; w·r + b."""
    D, m, _, R, L, _ = size.values()  # noqa: N806
    return R * L * D + D + alignment(L, R, D, m) + D * m + m


def graph(size: dict, steps: int) -> int:
    """[Wk^T Wq ; W] S, edges and their sums over L + 1 nodes; of the last step the first node alone."""
    m, nodes = size["m"], size["L"] + 1
    whole = 2 * nodes * m * m + 2 * nodes * nodes * m
    last = 2 * m * m + 2 * nodes * m
    return (steps - 1) * whole + last


def folding(size: dict, steps: int) -> float:
    """Wk^T Wq of every step, once a tile."""
    return steps * size["m"] ** 3 / TILE**2


@pytest.mark.parametrize("size", SIZES)
def test_a_pair_of_saf_costs_what_its_formula_says(size: dict) -> None:
    m, nodes = size["m"], size["L"] + 1
    config = SgrafConfig(encoder=encoder(size), similarity_dim=m, reasoning="saf")
    assert counted(config, size) == similarity_nodes(size) + 2 * nodes * m  # the openings;  their sum


@pytest.mark.parametrize("size", SIZES)
def test_a_pair_of_scan_costs_its_products_alone(size: dict) -> None:
    D, _, _, R, L, _ = size.values()  # noqa: N806
    assert counted(ScanConfig(encoder=encoder(size)), size) == R * L * D + D + L * R**2


def test_a_pair_of_tshsr_costs_no_more_than_one_of_the_sgraf_ensemble() -> None:
    size = SIZES[-1]
    sgraf = SgrafConfig(encoder=encoder(size))
    tshsr, sgr, saf = (
        counted(config, size) for config in (TshsrConfig(encoder=encoder(size)), sgraf, replace(sgraf, reasoning="saf"))
    )
    assert (TshsrConfig().similarity_dim, sgraf.similarity_dim) == (size["m"], size["m"])
    assert tshsr <= sgr - folding(size, 3) + saf
    assert tshsr < 11e6


@torch.no_grad()
def test_the_plain_reference_costs_more_than_twice_as_much() -> None:
    network = build_matcher(TshsrConfig(encoder=replace(tiny.ENCODER, dim=1024))).eval()
    batch = tiny.images(2, 36)
    images = network.encode_images(replace(batch, regions=batch.regions.float(), boxes=None))
    captions = network.encode_captions(tiny.captions((17,)))
    reference = multiply_adds_of(lambda: plain.loop_over_captions(plain.tshsr(network), images, captions)) / 2
    assert reference > 2 * multiply_adds(network, features=7, regions=36, words=17)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_pair_of_rcar_costs_what_its_formula_says(size: dict, steps: int) -> None:
    D, m, _, R, L, _ = size.values()  # noqa: N806
    first = R * L * D + D + alignment(L, R, D, m)  # q·c;  v·t;  similarity vectors
    aggregation = L * m * m + m * m + L * m + L * m  # K s;  Q r;  logits;  their sum
    half = max(1, m // 2)
    regulation = L * (m * 2 * m + 2 * m * D) + L * (m * half + half)  # gate;  sharpness
    again = regulation + L * R * D + alignment(L, R, D, m) + aggregation  # gated q·c
    config = RcarConfig(encoder=encoder(size), similarity_dim=m, steps=steps)
    assert counted(config, size) == first + aggregation + (steps - 1) * again + m


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("streams", ["word", "both"])
def test_a_pair_of_chan_and_of_late_interaction_costs_its_cosines_alone(size: dict, streams: str) -> None:
    D, _, _, R, L, _ = size.values()  # noqa: N806
    assert counted(HardAlignmentConfig(encoder=encoder(size), streams=streams), size) == R * L * D + D


def test_a_pair_of_hrem_costs_the_product_of_its_embeddings() -> None:
    size = SIZES[0]
    assert counted(HremConfig(encoder=encoder(size), heads=3), size) == size["D"]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_pair_of_imram_costs_what_its_formula_says(size: dict, steps: int) -> None:
    D, _, _, R, L, _ = size.values()  # noqa: N806
    total = R * L * D + D  # q·c;  v·t
    for queries, context in ((L, R), (R, L)):
        total += steps * queries * context**2  # lengths of attended vectors
        refined = queries * context * 2 * D + queries * context * D  # the context's part of the memory;  new q·c
        total += (steps - 1) * refined
        total += max(0, steps - 2) * queries * D * 2 * D  # the query's part: that of the first step is the item's
    assert counted(ImramConfig(encoder=encoder(size), steps=steps), size) == total


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("last", ["local_local", "global_global"])
def test_a_pair_of_shan_costs_what_its_formula_says(size: dict, last: str) -> None:
    D, _, _, R, L, _ = size.values()  # noqa: N806
    total = R * L * D + D  # q·c;  v·t
    for queries, context in ((L, R), (R, L)):
        total += queries * context * D + queries * context**2  # q·(M c);  lengths of attended vectors
        if last == "global_global":
            total += 2 * queries * context * D  # the context's part of the gates;  attended vectors
            total += 3 * queries * D + 2 * context * D  # u·f, their sum, terms;  x·c, y
    total += D if last == "global_global" else 0
    assert counted(ShanConfig(encoder=encoder(size), last_alignment=last), size) == total


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("steps", [0, 2])
def test_a_pair_of_dsgsl_costs_what_its_formula_says(size: dict, steps: int) -> None:
    D, m, k, R, L, _ = size.values()  # noqa: N806
    total = R * L * D + D  # q·c;  v·t
    for queries, context in ((L, R), (R, L)):
        total += alignment(queries, context, k, m)
        total += queries * k * k + queries * k * k / TILE  # gate: of x - y, and of x once an item
        total += D + k * m + 2 * D * k / TILE  # v·t, s(v, t);  P v, P t once an item
        local = 2 * queries * m * m + 2 * queries**2 * m  # W, L;  relations, their sums
        total += steps * (local + 3 * m * m + 2 * queries * m)  # U, K, O;  edges, their sum
        total += 2 * (queries + 1) * m + m  # u·S, their sum;  w·r
    config = DsgslConfig(encoder=encoder(size), similarity_dim=m, comparison_dim=k, graph_steps=steps)
    assert counted(config, size) == pytest.approx(total, rel=1e-12)
