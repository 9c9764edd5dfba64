"""Scoring of all pairs by fused Triton kernels on a GPU: only similarity vectors and context nodes reach its memory.

The modules in `models` compute each step for all pairs of a tile at once, so that every step reads and writes the
temporaries of all pairs. A kernel computes many steps for one pair, in registers (`tile_kernels.py`). The modules stay
the reference: at the first tile of each size of blocks both score some pairs, and the kernels are used if they are as
exact.

Axes: images | captions.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from subprocess import SubprocessError

import torch

from tshsr.config.models import TshsrConfig
from tshsr.errors import SettingsError, first_line_in
from tshsr.models.base import ItemEncoding, Matcher, Scores
from tshsr.models.tshsr import Tshsr
from tshsr.models.wrapped import WrappedMatcher
from tshsr.scoring.fused_stream import Launch, block, fused_scores, interpreted, kernels, launch_of
from tshsr.scoring.options import KernelName
from tshsr.scoring.precision import cast_matcher

LOG = logging.getLogger(__name__)

MOST_NUMBERS = {torch.bfloat16: 2**14, torch.float32: 2**12}
"""Most numbers of a block of similarity vectors, by precision: more leave the registers (compiled for compute
capability 9.0; docs/log.md)."""
MOST_WEIGHTS = {torch.bfloat16: 2**12, torch.float32: 2**10}
"""Most attention weights of a block, likewise."""
MOST_SEEDS = 64
"""Most context nodes of a level."""
CHECKED_ROWS = 16
"""Images and captions of the first tile that both ways score."""
TIMES_AS_INEXACT, ROUNDING = 4.0, 1e-6
"""Largest error of the kernels: a multiple of that of the modules, as few pairs tell of either, and the rounding of
scores in float32. Errors are root mean squares of the difference from scores in twice the precision."""


class FusedMatcher(WrappedMatcher):
    """A network whose `score_all` is computed by fused kernels; all else is the network's own.

    Tiles with more regions or words than fit into registers are scored by the network's modules.

    Args:
        network: A network for which `refusal` is None.
        strict: Whether kernels that fail a check are an error, not a warning in the log.
        launch: None: `launch_of` the network.

    Attributes:
        checked: Blocks of regions and words, each with compiled programs of its own, that were checked.
    """

    network: Tshsr

    def __init__(self, network: Tshsr, *, strict: bool, launch: Launch | None = None) -> None:
        super().__init__(network)
        self.strict, self.launch = strict, launch or launch_of(network.config)
        self.checked: set[tuple[int, int]] = set()
        self.usable, self.logged = True, False

    def bytes_per_pair(self, regions: int, words: int) -> int:
        """Similarity vectors and seven values per context node and width in the larger stream; q·c in both."""
        if not self._applies(regions, words):
            return self.network.bytes_per_pair(regions, words)
        config, size = self.network.config, self._dtype().itemsize
        nodes = max(config.reasoning.seeds[: config.reasoning.levels], default=0)
        shares = 2 * nodes * max(regions, words)
        return ((max(regions, words) + 7 * nodes) * config.similarity_dim + 2 * regions * words + shares) * size

    def score_all(self, images: ItemEncoding, captions: ItemEncoding) -> Scores:
        """Score every image with every caption.

        Raises:
            SettingsError: If `strict`, where the kernels fail or are less exact than the modules at the first tile of
                its size of blocks.
        """
        regions, words = images.mask.shape[-1], captions.mask.shape[-1]
        if not self._applies(regions, words):
            return self.network.score_all(images, captions)
        blocks = block(regions), block(words)
        if blocks not in self.checked:
            self._check(images[:CHECKED_ROWS], captions[:CHECKED_ROWS])
            self.checked.add(blocks)  # after the check, which is repeated where memory runs out in it
            return self.score_all(images, captions)
        return fused_scores(self.network, images, captions, self.launch)

    def _applies(self, regions: int, words: int) -> bool:
        """Whether the kernels score pairs of this size; the first tile that is too large is logged."""
        held = fits(self.network.config, self._dtype(), regions, words)
        if self.usable and not held and not self.logged:
            self.logged = True
            LOG.warning(
                "the fused kernels do not hold %d regions and %d words in %s; such tiles are scored without them",
                regions,
                words,
                str(self._dtype()).removeprefix("torch."),
            )
        return self.usable and held

    def _dtype(self) -> torch.dtype:
        return next(self.network.parameters()).dtype

    def _check(self, images: ItemEncoding, captions: ItemEncoding) -> None:
        """Score some pairs both ways, and drop the kernels where they are less exact, or fail."""
        try:
            reason = inexactness(self.network, images, captions, self.launch)
        except torch.OutOfMemoryError:
            raise
        except (kernels().TritonError, RuntimeError, OSError, SubprocessError) as error:
            reason = f"they fail here ({first_line_in(error)})"
        if reason is None:
            return
        self.usable = False
        if self.strict:
            raise SettingsError(f"the fused kernels are not used: {reason}; score without them (kernel eager).")
        LOG.warning("the fused kernels are not used: %s; scoring continues without them", reason)


def with_kernel(matcher: Matcher, kernel: KernelName, device: torch.device, regions: int = 1) -> Matcher:
    """The network as it scores all pairs: itself, or a `FusedMatcher`.

    Args:
        device: Where scoring runs.
        regions: Of the block of images with the fewest, padding included.

    Raises:
        SettingsError: Where `kernel` is "triton" and the kernels do not apply.
    """
    if kernel == "eager":
        return matcher
    reason = refusal(matcher, device, regions)
    if reason is None and isinstance(matcher, Tshsr):
        return FusedMatcher(matcher, strict=kernel == "triton")
    if kernel == "triton":
        raise SettingsError(f"the fused kernels do not apply: {reason}; score without them (kernel eager).")
    if device.type == "cuda":
        LOG.info("the fused kernels do not apply: %s", reason)
    return matcher


def refusal(matcher: Matcher, device: torch.device, regions: int = 1) -> str | None:
    """Reason why the kernels cannot score any pairs of a network on a device; None where they can."""
    if not isinstance(matcher, Tshsr):
        return f"they are for TSHSR, uncompiled, and this is a {type(matcher).__name__}"
    if device.type != "cuda" and not interpreted():
        return f"they run on CUDA devices, and scoring runs on {device.type}"
    if find_spec("triton") is None:
        return "the package triton is not installed (pip install 'tshsr[triton]')"
    try:
        kernels()
    except ImportError as error:
        return f"the package triton cannot be imported ({error})"
    dtype, config = next(matcher.parameters()).dtype, matcher.config
    name = str(dtype).removeprefix("torch.")
    if dtype not in MOST_NUMBERS:
        return f"they compute in float32 or bfloat16, and the network is in {name}"
    unknown = {
        "model.global_node": config.global_node,
        "model.knowledge.node": config.knowledge.method != "none" and config.knowledge.node,
        "model.gated_queries": config.gated_queries,
    }
    for setting in (setting for setting, on in unknown.items() if on):
        return f"the network has {setting}, which they do not compute"
    if not fits(config, dtype, 1, 1):
        most = MOST_NUMBERS[dtype] // block(max(config.reasoning.seeds[: config.reasoning.levels], default=1))
        return f"model.similarity_dim is {config.similarity_dim}, and in {name} they hold at most {most}"
    if not fits(config, dtype, regions, 1):
        return f"in {name} they do not hold {regions} regions with model.similarity_dim {config.similarity_dim}"
    if max(config.reasoning.seeds[: config.reasoning.levels], default=0) > MOST_SEEDS:
        return f"model.reasoning.seeds are {config.reasoning.seeds}, and they hold at most {MOST_SEEDS}"
    return None


def fits(config: TshsrConfig, dtype: torch.dtype, regions: int, words: int) -> bool:
    """Whether the blocks of a pair fit into registers."""
    nodes = block(max(regions, words, *config.reasoning.seeds[: config.reasoning.levels]))
    numbers, weights = nodes * block(config.similarity_dim), block(regions) * block(words)
    return numbers <= MOST_NUMBERS[dtype] and weights <= MOST_WEIGHTS[dtype]


@torch.no_grad()
def inexactness(network: Tshsr, images: ItemEncoding, captions: ItemEncoding, launch: Launch) -> str | None:
    """Reason why the kernels are less exact than the modules on these pairs; None where they are as exact."""
    own = next(network.parameters()).dtype
    twice = torch.float64 if own == torch.float32 else torch.float32
    wide = [each.each(lambda part: part.to(twice) if part.is_floating_point() else part) for each in (images, captions)]
    exact = cast_matcher(network, twice).score_all(*wide)
    modules, fused = network.score_all(images, captions), fused_scores(network, images, captions, launch)
    names = [name for name in exact if name != "pooled"]
    errors = [
        float(torch.stack([scores[name].double() - exact[name].double() for name in names]).square().mean().sqrt())
        for scores in (modules, fused)
    ]
    if errors[1] <= TIMES_AS_INEXACT * errors[0] + ROUNDING:
        return None
    return f"their scores are off by {errors[1]:.1e}, those of the modules by {errors[0]:.1e}"
