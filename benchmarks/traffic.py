"""Bytes that scoring a pair reads and writes, by the modules and by the fused kernels, into `results/traffic.json`.

    python -m benchmarks.traffic

Counted, not timed, and the same on every machine: the inputs and outputs of every operation of a tile in bfloat16, as
on a GPU, where an operation is a pass over memory. Views are free, and a broadcast input counts once.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import tyro
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.kernels import COCO, FEATURES, PHOTOS, VOCABULARY
from benchmarks.tables import RESULTS, update_readme
from tshsr.config.models import TshsrConfig
from tshsr.data.batches import ImageBatch, pad_sequences
from tshsr.files import write_text
from tshsr.models import similarity
from tshsr.models.tshsr import Tshsr
from tshsr.scoring import fused_stream
from tshsr.system import provenance

VIEWS = ("view", "_unsafe_view", "expand", "permute", "transpose", "t", "unsqueeze", "squeeze", "select", "slice")
FREE = frozenset(
    (*VIEWS, "split", "unbind", "detach", "alias", "as_strided", "empty", "new_empty", "empty_like", "empty_strided")
)
"""Operations that neither read nor write values."""
SIDE, WORDS = 32, 15
"""Images and captions of the tile, and words of each caption, the mean length."""


def size(tensor: Tensor) -> int:
    """Bytes of a tensor; repeated values count once."""
    return math.prod(n for n, step in zip(tensor.shape, tensor.stride(), strict=True) if step) * tensor.element_size()


class Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch's class has no types
    """Counts operations and their bytes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = self.operations = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and count it."""
        found = function(*args, **(kwargs or {}))
        if function.overloadpacket.__name__ not in FREE:
            self.add((args, kwargs, found))
        return found

    def add(self, values: Any) -> None:
        """Count one operation on these values."""
        self.operations += 1
        self.bytes += sum(size(each) for each in tree_leaves(values) if isinstance(each, Tensor))


@dataclass(frozen=True)
class CountedKernels:
    """Stands for the module of the kernels: counts the tensors of each launch, and computes nothing."""

    traffic: Traffic = field(default_factory=Traffic)

    def __getattr__(self, name: str) -> CountedKernels:
        """A kernel."""
        return self

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        """Its launch."""
        return lambda *arguments, **_: self.traffic.add(arguments)


@contextmanager
def counted_kernels() -> Iterator[Traffic]:
    """Context in which launches of kernels are counted in place of run."""
    kernels, stand_in = fused_stream.kernels, CountedKernels()
    fused_stream.kernels = lambda: stand_in  # type: ignore[assignment, return-value]
    try:
        yield stand_in.traffic
    finally:
        fused_stream.kernels = kernels


def main() -> None:
    """Count, and write the results file and the tables."""
    rows = [count("tshsr-coco", COCO, 36), count("tshsr-flickr8k-photos", PHOTOS, 16)]
    values = {"command": "python -m benchmarks.traffic", **provenance(), "words": WORDS, "traffic": rows}
    write_text(RESULTS / "traffic.json", json.dumps(values, indent=2) + "\n")
    update_readme()


@torch.no_grad()
def count(name: str, config: TshsrConfig, regions: int) -> dict[str, Any]:
    """Operations of a tile, and bytes of a pair, both ways."""
    torch.manual_seed(0)
    exact, dtype = Tshsr(config).eval(), torch.bfloat16
    network = copy.deepcopy(exact).to(dtype)
    pictures = ImageBatch(torch.randn(SIDE, regions, FEATURES), torch.ones(SIDE, regions).bool())
    tokens = pad_sequences([torch.randint(1, VOCABULARY, (WORDS,)).tolist()] * SIDE)
    images, captions = exact.encode_images(pictures).at(dtype), exact.encode_captions(tokens).at(dtype)
    chunk = similarity.CHUNK_BYTES
    similarity.CHUNK_BYTES = 2**60  # pieces are for CPUs only
    try:
        with Traffic() as modules:
            network.score_all(images, captions)
    finally:
        similarity.CHUNK_BYTES = chunk
    with counted_kernels() as kernels, Traffic() as rest:
        fused_stream.fused_scores(network, images, captions, fused_stream.launch_of(config))
    pairs = SIDE**2
    return {
        "network": name,
        "regions": regions,
        "modules": {"operations": modules.operations, "bytes": modules.bytes / pairs},
        "kernels": {
            "operations": kernels.operations + rest.operations,
            "launches": kernels.operations,
            "bytes": (kernels.bytes + rest.bytes) / pairs,
        },
    }


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)  # no options: any is an error
