"""Batches that several processes share, and how far their loss and gradients are from those of one process."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.support import methods, tiny
from tshsr.config.knowledge import KnowledgeConfig
from tshsr.config.models import HremConfig, ModelConfig, ReasoningConfig, SgrafConfig, VseConfig
from tshsr.config.run import LossConfig
from tshsr.data.batches import CaptionBatch, ImageBatch
from tshsr.models.base import Matcher
from tshsr.models.build import build_matcher
from tshsr.scoring.processes import ALONE, Processes
from tshsr.training import objective
from tshsr.training.exchange import GatherRows, sum_gradients
from tshsr.training.hard_captions import WordSwaps
from tshsr.training.objective import Objective

REGIONS = (2, 3, 2, 1, 5, 4, 5)
"""Regions of each image: the first images have fewer than the last ones."""
LENGTHS = (4, 1, 3, 2, 6, 2, 5, 4, 3, 7, 5)
IMAGE_OF_CAPTION = torch.tensor([0, 1, 2, 3, 4, 5, 6, 0, 3, 6, 1])
WIDTH = 9
"""Width of the states, and of the vectors, of encoders that the batch comes from."""
RESIDUAL = replace(tiny.ENCODER, region_projection="residual")
KNOWLEDGE: KnowledgeConfig = replace(methods.GRAPH, method="progressive")
FROZEN = replace(
    tiny.ENCODER,
    text="pretrained",
    text_width=WIDTH,
    text_pooled_width=WIDTH,
    image_pooled_width=WIDTH,
    pooled_vectors="added",
)


@dataclass(frozen=True)
class Case:
    """Settings of a loss.

    Attributes:
        weighted: Whether captions have weights, as with the robust loss.
        recomputed: Whether pairs are scored again in the backward pass.
        images: Number of images of the batch, from the first.
        text: Folder of a text encoder that is tuned; empty: none.
    """

    model: ModelConfig
    loss: LossConfig = LossConfig()  # noqa: RUF009 - frozen
    candidates: int = 2
    hardest: bool = True
    weighted: bool = False
    recomputed: bool = False
    images: int = len(REGIONS)
    text: str = ""


ALIKE = (
    "ekdm without boxes or node",
    "vse mean",
    "scan, residual projection",
    "scan region stream, logsumexp",
    "scan both, sum, softmax",
    "scan without norm",
    "sgr one step",
    "saf compared in a narrow space",
    "two streams, compared in a narrow space",
    "rcar region stream, three steps",
    "hard alignment of regions, sum",
    "two streams, slots",
)
"""Methods that are left out: others differ from them in the score of a pair alone."""


def fixed(config: ModelConfig) -> ModelConfig:
    """The settings without size augmentation, which each process draws for its share."""
    return replace(config, size_augmentation=0) if isinstance(config, VseConfig | HremConfig) else config


TSHSR: Mapping[str, ModelConfig] = {
    "tshsr": tiny.config(),
    "tshsr, all terms": tiny.config(
        encoder=replace(RESIDUAL, boxes=True),
        global_node=True,
        place_term=True,
        fusion="learned",
        products=True,
        reasoning=ReasoningConfig(seeds=(4, 2), context_inverse_temperature=8.0),
    ),
    "tshsr, terms of rivals": tiny.config(
        global_node=True, gated_queries=True, dual_graph=True, neighbours=2, knowledge=KNOWLEDGE
    ),
}
METHODS: Mapping[str, ModelConfig] = {
    **TSHSR,
    **{name: fixed(each) for name, each in {**methods.METHODS, **methods.CONCEPTS}.items() if name not in ALIKE},
    "saf, slots of regions": SgrafConfig(encoder=tiny.ENCODER, similarity_dim=6, reasoning="saf", region_slots=6),
}
ALL_PAIRS = (
    "tshsr",
    "vse gpo",
    "scan both, maximum",
    "saf",
    "two streams",
    "rcar both, one step",
    "chan",
    "shan",
    "csrc",
)
"""Methods whose scores of all pairs are shared too: one of each way to score them."""
EVERYTHING = LossConfig(swapped=0.5, contrastive=0.7, late_interaction=0.3, temperature=0.2, relations=0.6)
CASES: Mapping[str, Case] = {
    **{f"{name}: every loss": Case(model, EVERYTHING, weighted=True) for name, model in METHODS.items()},
    **{f"{name}: all pairs": Case(METHODS[name], candidates=0, hardest=False) for name in ALL_PAIRS},
    "mined candidates": Case(tiny.config()),
    "random candidates": Case(tiny.config(), hardest=False),
    "swapped captions": Case(tiny.config(), LossConfig(swapped=1), candidates=0),
    "noisy pairs": Case(tiny.config(), weighted=True, candidates=0),
    "contrastive": Case(tiny.config(), LossConfig(fused=0.0, streams=0.0, levels=0.0, pooled=0.0, contrastive=1)),
    "contrastive scores": Case(tiny.config(), LossConfig(scores="contrastive")),
    "late interaction": Case(
        tiny.config(), LossConfig(fused=0.0, streams=0.0, levels=0.0, pooled=0.0, late_interaction=1, temperature=0.2)
    ),
    "frozen text": Case(tiny.config(encoder=FROZEN), LossConfig(contrastive=1)),
    "recomputed": Case(METHODS["saf"], EVERYTHING, recomputed=True),
    "all pairs, recomputed": Case(METHODS["saf"], candidates=0, recomputed=True),
    "fewer images than processes": Case(METHODS["saf"], EVERYTHING, images=1),
    "two images": Case(METHODS["saf"], EVERYTHING, images=2),
}
"""By what is special about it."""


@dataclass(frozen=True)
class Batch:
    """A whole batch."""

    images: ImageBatch
    captions: CaptionBatch
    image_of_caption: Tensor
    weights: Tensor | None

    @classmethod
    def of(cls, case: Case) -> Batch:
        """The batch of a case, in float64."""
        chosen = (case.images > IMAGE_OF_CAPTION).nonzero().flatten()
        images = tiny.images(case.images, max(REGIONS[: case.images]), real=list(REGIONS[: case.images]))
        generator = torch.Generator().manual_seed(5)
        vectors = torch.randn(case.images, WIDTH, generator=generator, dtype=torch.float64)
        images = ImageBatch(images.regions, images.mask, images.boxes, vectors)
        captions = captions_of(case, chosen, generator)
        weights = torch.rand(len(chosen), generator=generator) if case.weighted else None
        return cls(images, captions, IMAGE_OF_CAPTION[chosen], weights)

    def shared(self, processes: Processes) -> tuple[ImageBatch, CaptionBatch]:
        """The images and captions of one process, without padding that is common to all of them."""
        rows = processes.share(len(self.images)).rows
        part = self.images.rows(rows.start, rows.stop)
        regions = int(part.mask.sum(dim=1).max())
        boxes = None if part.boxes is None else part.boxes[:, :regions]
        images = ImageBatch(part.regions[:, :regions], part.mask[:, :regions], boxes, part.pooled)
        return images, rows_of(self.captions, processes.share(len(self.captions)).rows)


def captions_of(case: Case, chosen: Tensor, generator: torch.Generator) -> CaptionBatch:
    """The captions of a case: words of a vocabulary, states of a frozen encoder, or pieces for a tuned one."""
    if case.text:
        from tshsr.pretrained.pieces import PieceTokenizer

        words = ("a", "red", "dog", "and", "unlikely", "men", "run")
        texts = [" ".join(words[: LENGTHS[row]]) for row in chosen.tolist()]
        return PieceTokenizer.load(case.text, "words").encode(texts).read(np.arange(len(texts)))
    words = rows_of(tiny.captions(LENGTHS), chosen)
    if case.model.encoder.text != "pretrained":
        return words
    states = torch.randn(*words.mask.shape, WIDTH, generator=generator, dtype=torch.float64)
    vectors = torch.randn(len(words), WIDTH, generator=generator, dtype=torch.float64)
    return CaptionBatch(words.tokens, words.mask, states * words.mask[..., None], pooled=vectors)


def rows_of(captions: CaptionBatch, rows: slice | Tensor) -> CaptionBatch:
    """Some captions of a batch, padded to the longest of them."""
    mask = captions.mask[rows]
    words = int(mask.sum(dim=1).max())
    nodes = None if captions.word_of_token is None else captions.word_of_token[rows]
    return CaptionBatch(
        captions.tokens[rows] if nodes is not None else captions.tokens[rows, :words],
        mask[:, :words],
        None if captions.states is None else captions.states[rows, :words],
        nodes,
        None if captions.pooled is None else captions.pooled[rows],
    )


def network_of(case: Case) -> Matcher:
    """The network of a case in training mode, without dropout, so that a batch has one loss."""
    torch.manual_seed(3)
    matcher = build_matcher(case.model).double().train()
    for module in matcher.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return matcher


def learned(case: Case, processes: Processes) -> dict[str, Tensor]:
    """The losses of a case, the gradients of all parameters, and the statistics of the network afterwards."""
    batch, matcher = Batch.of(case), network_of(case)
    images, captions = batch.shared(processes)
    known = torch.randint(1, 20, (300, 8), generator=torch.Generator().manual_seed(1)).tolist()
    swapped = None
    if case.loss.swapped:
        total = len(batch.captions)
        swapped = WordSwaps(known).of_batch(captions, seed=9, total=total, processes=processes)
        assert swapped is not None
    losses = Objective(matcher, case.loss, case.candidates, processes)(
        images,
        captions,
        batch.image_of_caption,
        hardest=case.hardest,
        seed=11,
        total_images=len(batch.images),
        weights=batch.weights,
        swapped=swapped,
    )
    losses["loss"].backward()
    sum_gradients(matcher.parameters(), processes)
    gradients = {name: value.grad for name, value in matcher.named_parameters() if value.grad is not None}
    return {name: value.detach() for name, value in {**losses, **gradients, **dict(matcher.named_buffers())}.items()}


def learned_apart(case: Case, processes: Processes) -> dict[str, Tensor]:
    """As `learned`, without the exchange: each process takes its negatives in its own share, as before."""
    batch, matcher = Batch.of(case), network_of(case)
    rows = processes.share(len(batch.captions)).rows
    images, own = np.unique(batch.image_of_caption[rows].numpy(), return_inverse=True)
    whole = batch.images
    part = ImageBatch(
        whole.regions[images], whole.mask[images], whole.boxes[images] if whole.boxes is not None else None
    )
    captions = rows_of(batch.captions, rows)
    losses = Objective(matcher, case.loss, case.candidates)(
        part, captions, torch.from_numpy(own), hardest=case.hardest, seed=11
    )
    (losses["loss"] / processes.count).backward()
    sum_gradients(matcher.parameters(), processes)
    return {name: value.grad for name, value in matcher.named_parameters() if value.grad is not None}


def distance(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """The largest difference of two results; infinite where one has a value that the other has not."""
    if one.keys() != other.keys():
        return float("inf")
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


def by_one_process(file: Path, cases: Mapping[str, Case]) -> None:
    """Write what one process learns from each case."""
    torch.save({name: limited(learned, case, ALONE) for name, case in cases.items()}, file)


def limited(
    learn: Callable[[Case, Processes], dict[str, Tensor]], case: Case, processes: Processes
) -> dict[str, Tensor]:
    """What a function learns with the case's bounds on memory."""
    with pytest.MonkeyPatch.context() as patch:
        if case.recomputed:
            patch.setattr(objective, "ACTIVATION_BYTES", -1)
            patch.setattr(objective, "PART_BYTES", 2**10)
        return learn(case, processes)


def own_gradient(ctx: Any, gradient: Tensor) -> tuple[None, None, Tensor]:
    """`GatherRows.backward` without the gradients of other processes."""
    first = sum(ctx.sizes[: ctx.processes.index])
    return None, None, gradient[first : first + ctx.sizes[ctx.processes.index]]


def learned_without(case: Case, processes: Processes, *, part: str) -> dict[str, Tensor]:
    """As `learned`, without a part of the exchange."""
    with pytest.MonkeyPatch.context() as patch:
        if part == "gradients of encodings":
            patch.setattr(GatherRows, "backward", own_gradient)
        else:
            patch.setattr(Objective, "_statistics", lambda *_: nullcontext())
        return learned(case, processes)


CONTROLS: Mapping[str, tuple[str, Callable[[Case, Processes], dict[str, Tensor]]]] = {
    "without the exchange": ("mined candidates", learned_apart),
    "without the exchange, relations of a batch": ("hrem: every loss", learned_apart),
    "without the exchange, neighbours": ("dsgsl: every loss", learned_apart),
    "without the exchange, concepts": ("csrc: every loss", learned_apart),
    "without gradients of encodings": ("tshsr: every loss", partial(learned_without, part="gradients of encodings")),
    "without common statistics": ("saf: every loss", partial(learned_without, part="statistics")),
}
"""What has to make a difference, by name: the case, and how it is learned."""


def measure(file: Path, cases: Mapping[str, Case], reference: Path) -> None:
    """In every process of a group: write the distance of each case from one process, by the main process.

    Args:
        reference: What one process learns.
    """
    import torch.distributed as dist

    torch.set_num_threads(1)
    processes, alone = Processes(dist.get_rank(), dist.get_world_size()), torch.load(reference)
    runs = {name: (name, learned) for name in cases} | dict(CONTROLS)
    distances: dict[str, float] = {}
    for name, (case, learn) in runs.items():
        found = limited(learn, cases[case], processes)
        away = distance(found, alone[case] if learn is learned else {key: alone[case][key] for key in found})
        distances[name] = float(processes.largest(torch.tensor(away, dtype=torch.float64)))
    if processes.is_main:
        file.write_text(json.dumps(distances))
