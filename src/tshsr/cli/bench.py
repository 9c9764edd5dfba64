"""`tshsr bench`: pairs per second on this machine, of this package and of a plain implementation, in one process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tshsr.cli.options import Flag, Name, Output, check_tf32, choose_device, parse
from tshsr.cli.screen import Screen
from tshsr.errors import SettingsError
from tshsr.system import provenance

HEADER = (
    "network",
    "precision",
    "pairs/s",
    "plain\npairs/s",
    "ratio",
    "M multiply-adds\nper pair",
    "of GEMM",
    "MiB",
    "difference",
)

SIZES = ("images", "captions", "regions", "dim", "width", "repeats")
"""Options that are sizes of the measurement."""


@dataclass(frozen=True)
class Bench:
    """Pairs of an image and a caption that this machine scores per second, against a plain implementation.

    The plain implementation loops over captions, as the published code of these networks does. Features are random,
    captions have real lengths, encoding is not timed. About a minute on two processor cores; more images, captions and
    repeats give steadier figures.
    """

    names: tuple[
        Literal[
            "tshsr", "tshsr_photos", "sgr", "saf", "scan", "two_stream_sgr", "rcar", "chan", "dsgsl", "imram", "shan"
        ],
        ...,
    ] = ("tshsr", "sgr", "saf", "scan")
    """Networks to measure; rcar and chan in the word stream; tshsr_photos has the parts of tshsr-flickr8k-photos."""
    dtypes: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")
    """Precisions of this package; the plain implementation is always in float32."""
    images: int = 50
    """Images, each scored with every caption."""
    captions: int = 50
    """Captions, each scored with every image."""
    regions: int = 36
    """Regions of an image."""
    dim: int = 1024
    """Width of the joint space (D)."""
    width: int = 256
    """Width of a similarity vector (m)."""
    repeats: int = 3
    """Repetitions, alternating between this package and the plain implementation; medians are shown."""
    tf32: Flag = False
    """Multiply float32 matrices of this package in TF32, on a GPU that supports it."""
    compile: Flag = False
    """Compile the networks of this package, which takes minutes each."""
    json: Output = None
    """Write the figures to this file; - writes them to stdout, in place of the table."""
    device: Name = None
    """cpu, cuda or mps; by default the best one of this machine."""
    quiet: Flag = False
    """Show no progress."""


def main(arguments: Sequence[str], screen: Screen) -> None:
    """Measure, and print the table or JSON."""
    wanted = parse(Bench, "tshsr bench", arguments)
    from tshsr.bench.speed import Workload, bench
    from tshsr.evaluation.compile import CompileOptions

    device = choose_device(wanted.device)
    if wanted.tf32:
        check_tf32("--tf32", device)
    sizes = {name: getattr(wanted, name) for name in SIZES}
    for name, value in sizes.items():
        if value < 1:
            raise SettingsError(f"--{name} is {value}; expected at least 1.")
    work = Workload(**sizes)
    if not wanted.names or not wanted.dtypes:
        raise SettingsError("there is nothing to measure; name at least one network and one precision.")

    def progress(name: str) -> None:
        if not wanted.quiet:
            screen.note(f"measuring {name}")

    compile_options = CompileOptions(tf32=wanted.tf32, compiled=wanted.compile)
    found = bench(
        work,
        names=wanted.names,
        dtypes=wanted.dtypes,
        device=device,
        compile_options=compile_options,
        announce=progress,
    )
    for each in found["skipped"]:
        screen.note(each["reason"])
    if wanted.json != "-":
        screen.say(f"{provenance()['hardware']}; matrix products {found['gemm_gflops']:.0f} GFLOP/s in float32")
        screen.table(HEADER, [row(each) for each in found["rows"]])
    if wanted.json is not None:
        screen.json(json.dumps({**provenance(), **found}, indent=2), wanted.json)


def row(values: dict[str, Any]) -> tuple[str, ...]:
    """A row of the table."""
    peak = values["peak_bytes"]
    return (
        values["name"],
        values["dtype"],
        f"{values['pairs_per_s']:,.0f}",
        f"{values['reference_pairs_per_s']:,.0f}",
        f"{values['ratio']:.2f}",
        f"{values['macs_per_pair'] / 1e6:.1f}",
        f"{values['gemm_fraction']:.0%}",
        "?" if peak is None else f"{peak / 2**20:.0f}",
        f"{values['max_difference']:.0e}",
    )
