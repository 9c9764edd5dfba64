"""TF32 products and compilation for scoring, used only if a sample shows that they are faster and accurate.

Axes: images | captions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch

from tshsr.data.dataset import Split
from tshsr.data.tokens import CaptionTokenizer
from tshsr.errors import first_line_in
from tshsr.evaluation.run import Scorer, check_precision
from tshsr.metrics.report import PrecisionCheck
from tshsr.models.base import ItemEncoding, Matcher, Scores
from tshsr.models.wrapped import WrappedMatcher
from tshsr.scoring.all_pairs import is_out_of_memory
from tshsr.scoring.options import ScoringOptions

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class CompileOptions:
    """Options of accelerated scoring.

    Attributes:
        tf32: Matrix products of float32 with 10 instead of 23 bits of mantissa, on hardware with TF32 units.
        compiled: Compile the scoring of a tile; on a GPU with CUDA graphs.
    """

    tf32: bool = False
    compiled: bool = False
    backend: str = "inductor"

    def __str__(self) -> str:
        """Name in reports."""
        return " ".join(name for name in ("tf32", "compiled") if getattr(self, name))


NOT_COMPILED = CompileOptions()
"""No acceleration."""


@dataclass(frozen=True)
class CompiledMember:
    """A model with a `CompiledMatcher`."""

    name: str
    matcher: Matcher
    tokenizer: CaptionTokenizer


class CompiledMatcher(WrappedMatcher):
    """A network with accelerated scoring; encoding, weights and their precision are those of the network."""

    def __init__(self, network: Matcher, compile_options: CompileOptions) -> None:
        super().__init__(network)
        self.compile_options = compile_options
        self.run: Callable[[Matcher, ItemEncoding, ItemEncoding, bool], Scores] = score
        if compile_options.compiled:
            on_gpu = next(network.parameters()).device.type == "cuda" and compile_options.backend == "inductor"
            # One dynamic program for all caption lengths and tile sizes, not one per shape.
            self.run = torch.compile(
                score, dynamic=True, backend=compile_options.backend, mode="reduce-overhead" if on_gpu else None
            )

    def score_pairs(self, images: ItemEncoding, captions: ItemEncoding) -> Scores:
        """Score pairs one by one."""
        return self._score(images, captions, all_pairs=False)

    def score_all(self, images: ItemEncoding, captions: ItemEncoding) -> Scores:
        """Score every image with every caption."""
        return self._score(images, captions, all_pairs=True)

    def _score(self, images: ItemEncoding, captions: ItemEncoding, *, all_pairs: bool) -> Scores:
        # torch.compile specialises on size 1, so single rows run uncompiled.
        run = self.run if min(len(images), len(captions)) > 1 else score
        with tf32_products() if self.compile_options.tf32 else nullcontext():
            return run(self.network, images, captions, all_pairs)


def score(network: Matcher, images: ItemEncoding, captions: ItemEncoding, all_pairs: bool) -> Scores:
    """The function to compile: scores of all pairs, or pair by pair."""
    return network.score_all(images, captions) if all_pairs else network.score_pairs(images, captions)


@contextmanager
def tf32_products() -> Iterator[None]:
    """Context with TF32 products of float32 matrices."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def compile_members(
    retrievers: Sequence[Scorer], split: Split, compile_options: CompileOptions, options: ScoringOptions
) -> tuple[tuple[Scorer, ...], tuple[PrecisionCheck, ...]]:
    """The models, accelerated if that is faster without loss of recall on a sample, and the measurements.

    Where compilation fails, the models are returned unchanged, with a warning in the log. Of several processes all have
    the measurements of the main one.
    """
    if not str(compile_options):
        return tuple(retrievers), ()
    members: list[Scorer] = []
    checks: list[PrecisionCheck] = []
    for retriever in retrievers:
        compiled = CompiledMatcher(retriever.matcher, compile_options)
        found = options.processes.from_main(compile_check(retriever, split, compiled, options))
        if found is None:
            return tuple(retrievers), ()
        checks.append(replace(found, dtype=str(compile_options)))
        members.append(CompiledMember(retriever.name, compiled, retriever.tokenizer) if found.used else retriever)
    return tuple(members), tuple(checks)


def compile_check(
    retriever: Scorer, split: Split, compiled: CompiledMatcher, options: ScoringOptions
) -> PrecisionCheck | None:
    """Measure accelerated scoring on a sample; None, with a warning in the log, where it can't be compiled."""
    try:
        return check_precision(retriever, split, replace(options, dtype=None), compiled=compiled)
    except RuntimeError as error:
        reason = compile_failure(error, compiled.compile_options)
        if reason is None:
            raise
        LOG.warning("this machine can't compile the scoring (%s); scoring continues uncompiled", reason)
        return None


def compile_failure(error: RuntimeError, compile_options: CompileOptions) -> str | None:
    """Why this machine can't compile, by the error of the first scoring; None where it failed otherwise."""
    return first_line_in(error) if compile_options.compiled and not is_out_of_memory(error) else None
