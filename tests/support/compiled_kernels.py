"""Compile the fused kernels for a GPU that is not at hand: python -m tests.support.compiled_kernels CAPABILITY.

Prints for each kernel: name, bytes of shared memory, registers of a thread, bytes of spilled registers of a thread.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SIZES = {"width": 256, "width_block": 256, "seed_count": 8, "seeds_block": 16, "widen": False, "precision": "tf32x3"}
STREAM = {**SIZES, "compared": 256, "compared_block": 32, "queries_block": 64, "context_block": 32}
KERNELS: dict[str, dict[str, Any]] = {
    "similarity_vectors": {**STREAM, "product_weight": None, "query_places": None, "context_places": None}
    | {"place_weight": None},
    "context_vectors": {**STREAM, "product_weight": None},
    "exchange": {**SIZES, "local": True, "through_context": True, "nodes_block": 64},
    "update": {**SIZES, "node_count": 8, "nodes_block": 16},
}
"""Constants of each kernel: region stream of tshsr-coco, 36 regions and 17 to 32 words."""
FLOAT32 = ("gram", "query_gram", "terms")
WHOLE = re.compile(r".*(_row|_rows|_count|_item)|similarity_(query|context)")
"""Names of whole numbers."""


def signature(names: list[str], constants: dict[str, Any]) -> dict[str, str]:
    """The type of each argument."""
    found = {}
    for name in names:
        kinds = {"constexpr": name in constants, "fp32": name == "inverse_temperature", "i32": WHOLE.fullmatch(name)}
        kinds |= {"*i1": "mask" in name, "*fp32": name in FLOAT32, "*bf16": True}
        found[name] = next(kind for kind, is_it in kinds.items() if is_it)
    return found


def usage(name: str, capability: int) -> str:
    """What a kernel uses."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from tshsr.scoring import tile_kernels

    kernel = getattr(tile_kernels, name)
    source = ASTSource(kernel, signature(kernel.arg_names, KERNELS[name]), KERNELS[name])
    options = {"num_warps": 4, "num_stages": 2}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(compiled.asm["cubin"])
        answer = subprocess.run([str(tool), "-res-usage", str(file)], capture_output=True, text=True)
    registers, stack = re.search(r"REG:(\d+) STACK:(\d+)", answer.stdout + answer.stderr).groups()
    return f"{name} {compiled.metadata.shared} {registers} {stack}"


if __name__ == "__main__":
    for kernel_name in KERNELS:
        sys.stdout.write(usage(kernel_name, int(sys.argv[1])) + "\n")
