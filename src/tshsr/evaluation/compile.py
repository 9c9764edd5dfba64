"""Short cuts of scoring that leave the weights as they are, measured before they are used: TF32 products, compilation.

Axes: images | captions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch

from tshsr.data.batches import CaptionBatch, ImageBatch
from tshsr.data.dataset import Split
from tshsr.data.text import Tokenizer
from tshsr.evaluation.run import Scorer, check_precision
from tshsr.metrics.report import PrecisionCheck
from tshsr.models.base import ItemEncoding, Matcher, Scores
from tshsr.scoring.all_pairs import is_out_of_memory
from tshsr.scoring.options import ScoringOptions

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class CompileOptions:
    """Which short cuts to try.

    Attributes:
        tf32: Let matrix products of float32 numbers take 10 of their 23 bits, where the machine has units for that.
        compiled: Compile the scoring of a tile (on a GPU: with its kernels captured as graphs).
        backend: Who compiles, a name that `torch.compile` knows.
    """

    tf32: bool = False
    compiled: bool = False
    backend: str = "inductor"

    def __str__(self) -> str:
        """How reports call them."""
        return " ".join(name for name in ("tf32", "compiled") if getattr(self, name))


NOT_COMPILED = CompileOptions()
"""No short cut."""


@dataclass(frozen=True)
class Member:
    """A model whose network takes short cuts."""

    name: str
    matcher: Matcher
    tokenizer: Tokenizer


class CompiledMatcher(Matcher):
    """A network whose scoring takes short cuts; encoding, weights and their precision are its own.

    Args:
        network: The network.
        compile_options: Which.
    """

    def __init__(self, network: Matcher, compile_options: CompileOptions) -> None:
        super().__init__()
        self.network, self.compile_options = network, compile_options
        self.run: Callable[[Matcher, ItemEncoding, ItemEncoding, bool], Scores] = score
        if compile_options.compiled:
            on_gpu = next(network.parameters()).device.type == "cuda" and compile_options.backend == "inductor"
            # Captions differ in length and tiles in size: one program for all, not one for each.
            self.run = torch.compile(
                score, dynamic=True, backend=compile_options.backend, mode="reduce-overhead" if on_gpu else None
            )

    @property
    def score_names(self) -> frozenset[str]:
        """The network's."""
        return self.network.score_names

    def encode_images(self, batch: ImageBatch) -> ItemEncoding:
        """The network's."""
        return self.network.encode_images(batch)

    def encode_captions(self, batch: CaptionBatch) -> ItemEncoding:
        """The network's."""
        return self.network.encode_captions(batch)

    def bytes_per_pair(self, regions: int, words: int) -> int:
        """The network's."""
        return self.network.bytes_per_pair(regions, words)

    def score_pairs(self, images: ItemEncoding, captions: ItemEncoding) -> Scores:
        """Score pairs one by one."""
        return self._score(images, captions, all_pairs=False)

    def score_all(self, images: ItemEncoding, captions: ItemEncoding) -> Scores:
        """Score every image with every caption."""
        return self._score(images, captions, all_pairs=True)

    def _score(self, images: ItemEncoding, captions: ItemEncoding, *, all_pairs: bool) -> Scores:
        # A single row is a case of its own for a compiler, and not worth a program.
        run = self.run if min(len(images), len(captions)) > 1 else score
        with tf32_products() if self.compile_options.tf32 else nullcontext():
            return run(self.network, images, captions, all_pairs)


def score(network: Matcher, images: ItemEncoding, captions: ItemEncoding, all_pairs: bool) -> Scores:
    """What is compiled."""
    return network.score_all(images, captions) if all_pairs else network.score_pairs(images, captions)


@contextmanager
def tf32_products() -> Iterator[None]:
    """Products of float32 matrices in TF32 for the length of a block."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def compile_members(
    retrievers: Sequence[Scorer], split: Split, compile_options: CompileOptions, options: ScoringOptions
) -> tuple[tuple[Scorer, ...], tuple[PrecisionCheck, ...]]:
    """Each model with the short cuts where they are faster on a sample and as good, and what was measured.

    Where this machine can't compile, the models come back as they are, and the log says why.
    """
    if not str(compile_options):
        return tuple(retrievers), ()
    members: list[Scorer] = []
    guards: list[PrecisionCheck] = []
    for retriever in retrievers:
        compiled = CompiledMatcher(retriever.matcher, compile_options)
        try:
            found = check_precision(retriever, split, replace(options, dtype=None), compiled=compiled)
        except RuntimeError as error:
            if not compile_options.compiled or is_out_of_memory(error):
                raise
            reason = str(error).strip().splitlines()[0]
            LOG.warning("this machine can't compile the scoring (%s); going on without the short cuts", reason)
            return tuple(retrievers), ()
        guards.append(replace(found, dtype=str(compile_options)))
        members.append(Member(retriever.name, compiled, retriever.tokenizer) if found.used else retriever)
    return tuple(members), tuple(guards)
