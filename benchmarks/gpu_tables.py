"""Tables of `benchmarks/gpu.sh` and `benchmarks.traffic`: ways to score a block, their traffic, training steps."""

from __future__ import annotations

from typing import Any

from benchmarks.cells import made


def ways_table(values: dict[str, Any]) -> str:
    """Ways to score a block on a GPU, one row for each network, way and precision."""
    lines = ["| network | way | precision | pairs/s (slowest … fastest) | share of the GEMM rate, GFLOP/s "]
    lines[0] += "| first call | memory | largest difference from float32 |"
    lines.append("|---" * 8 + "|")
    for row in values["ways"]:
        start = f"| {row['network']} | {row['way']} | {row['precision']} "
        if "failed" in row:
            lines.append(f"{start}| failed: {row['failed']} | | | | |")
            continue
        pairs = row["pairs_per_s"] * row["seconds"]
        slow, fast = (pairs / seconds for seconds in reversed(row["seconds_spread"]))
        memory = "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 2**30:.1f} GiB"
        lines.append(
            f"{start}| {row['pairs_per_s']:,.0f} ({slow:,.0f} … {fast:,.0f}) | {row['gemm_fraction']:.0%} of "
            f"{row['gemm_gflops']:,.0f} | {row['first_seconds']:.0f} s | {memory} | {row['largest_difference']:.0e} |"
        )
    size = values["settings"]
    return "\n".join(lines) + f"\n\n{size['images']} images x {size['captions']} captions; {made(values)}."


def gpu_steps_table(values: dict[str, Any]) -> str:
    """Seconds of a training step on a GPU, one row for each precision and number of candidates."""
    lines = ["| precision | candidates | seconds a step | peak memory |", "|---" * 4 + "|"]
    for row in values["gpu_steps"]:
        memory = "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 2**30:.1f} GiB"
        lines.append(f"| {row['precision']} | {row['candidates'] or 'all'} | {row['seconds']:.3f} | {memory} |")
    return "\n".join(lines) + f"\n\n{values['recipe']}, batch {values['batch']}, D {values['dim']}; {made(values)}."


def traffic_table(values: dict[str, Any]) -> str:
    """Operations of a tile and bytes of a pair, by the modules and by the kernels."""
    lines = ["| network | operations of a tile, modules | with kernels | KiB a pair, modules | with kernels | ratio |"]
    lines.append("|---" * 6 + "|")
    for row in values["traffic"]:
        modules, kernels = row["modules"], row["kernels"]
        bytes_of = [each["bytes"] / 1024 for each in (modules, kernels)]
        count = f"{kernels['operations']}, of them {kernels['launches']} kernels"
        ratio = f"{bytes_of[0]:,.0f} | {bytes_of[1]:,.0f} | {bytes_of[0] / bytes_of[1]:.1f}"
        lines.append(f"| {row['network']}, {row['regions']} regions | {modules['operations']} | {count} | {ratio} |")
    return "\n".join(lines) + f"\n\nbfloat16, captions of {values['words']} words; counted, not timed; {made(values)}."
