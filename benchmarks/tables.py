"""Tables of the README and the documentation, made from the files in `benchmarks/results`, never by hand.

`python -m benchmarks.tables` writes them again.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.noise_tables import noise_table
from benchmarks.race_tables import PARTS, short

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGES = tuple(ROOT / page for page in ("README.md", "docs/results.md", "docs/performance.md", "docs/guide/search.md"))
"""Files with tables between markers."""
HEADER = "| score | image → text R@1 | R@5 | R@10 | text → image R@1 | R@5 | R@10 | rSum |"
ORDER = ("fused", "word_stream", "region_stream")
"""These first; then the levels; the pooled score last."""
NAMES = {
    "fused": "**both streams, fused**",
    "word_stream": "word stream alone",
    "region_stream": "region stream alone",
    "pooled": "`v·t` alone (first stage)",
}


def update_readme() -> None:
    """Write every table between its markers in all of `PAGES`."""
    for page in PAGES:
        page.write_text(with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")


def with_tables(text: str) -> str:
    """The text with the table of every results file that it has markers for.

    A table `NAME` stands between `<!-- results NAME -->` and `<!-- end -->` and comes from `results/NAME.json`; a word
    after the name says which table of the file.
    """

    def fill(match: re.Match[str]) -> str:
        name, part = match[1], (match[2] or "").strip()
        values = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        return f"<!-- results {name}{match[2] or ''} -->\n{table_of(values, part)}\n<!-- end -->"

    return re.sub(r"<!-- results (\S+)( \w+)? -->\n.*?<!-- end -->", fill, text, flags=re.DOTALL)


def table_of(values: dict[str, Any], part: str = "") -> str:
    """The table of a results file, told by what is in it; of several, the part that is asked for."""
    if "differences" in values:
        return PARTS[part](values)
    if "noise" in values:
        return noise_table(values)
    if "gemm_gflops" in values:
        return speed_table(values)
    if "precision" in values:
        return precision_table(values)
    if "steps" in values:
        return training_table(values)
    if "rerank" in values:
        return rerank_table(values)
    if "bytes_of_matrices" in values:
        return memory_table(values)
    if "agreement" in values:
        return search_table(values)
    return demo_table(values)


def speed_table(values: dict[str, Any]) -> str:
    """Ours against the plain reference, a row a network and precision."""
    lines = [
        "| network | precision | pairs/s (slowest … fastest) | plain reference, float32 | ratio "
        "| M multiply-adds a pair, ours / plain | of the GEMM rate just after, GFLOP/s | memory, ours / plain "
        "| largest difference |",
        "|---" * 9 + "|",
    ]
    for row in values["rows"]:
        low, high = row["pairs_per_s_spread"]
        other_low, other_high = row["reference_pairs_per_s_spread"]
        lines.append(
            f"| {row['name']} | {row['dtype']} | {row['pairs_per_s']:,.0f} ({low:,.0f} … {high:,.0f}) "
            f"| {row['reference_pairs_per_s']:,.0f} ({other_low:,.0f} … {other_high:,.0f}) | **{row['ratio']:.2f}** "
            f"| {row['macs_per_pair'] / 1e6:.1f} / {row['reference_macs_per_pair'] / 1e6:.1f} "
            f"| {row['gemm_fraction']:.0%} of {row['gemm_gflops']:,.0f} "
            f"| {mebibytes(row['peak_bytes'])} / {mebibytes(row['reference_peak_bytes'])} "
            f"| {row['max_difference']:.0e} |"
        )
    work = values["workload"]
    rates = ", ".join(
        f"{name} {rate:,.0f}" for name, rate in sorted(values["gemm_gflops_by_dtype"].items(), reverse=True)
    )
    return "\n".join(lines) + (
        f"\n\n{work['images']} images x {work['captions']} captions of real lengths, {work['regions']} regions, "
        f"D {work['dim']}, m {work['width']}, medians of {work['repeats']}; "
        f"matrix products before all else {rates} GFLOP/s; {made(values)}."
    )


def precision_table(values: dict[str, Any]) -> str:
    """What bfloat16 does to trained networks, a row each."""
    lines = [
        "| network | rSum, float32 | rSum, bfloat16 | largest change of a recall | images, captions in or out of the "
        "first 1, 5, 10 | best answer the same | largest difference |",
        "|---" * 7 + "|",
    ]
    for row in values["precision"]:
        changes = [abs(after - before) for before, after in zip(row["recalls"], row["recalls_16"], strict=True)]
        moved = [sum(pair) for pair in row["lost_and_gained"]]
        lines.append(
            f"| {row['title']} | {row['rsum']:.2f} | {row['rsum_16']:.2f} | {max(changes):.2f} "
            f"| {', '.join(map(str, moved[:3]))}; {', '.join(map(str, moved[3:]))} "
            f"| {row['rank_agreement']:.1f} % | {row['max_difference']:.0e} |"
        )
    return "\n".join(lines) + f"\n\nFlickr8k test, 1,000 images, 5,000 captions, seed 0 of the race. {made(values)}."


def training_table(values: dict[str, Any]) -> str:
    """A step with candidates against one with all pairs, and the quality of both."""
    lines = [
        "| step of | candidates | seconds | all pairs, seconds | ratio | peak memory, candidates / all pairs |",
        "|---" * 6 + "|",
    ]
    for step in values["steps"]:
        peaks = [f"{step['peak_bytes'][kind] / 2**30:.1f} GiB" for kind in ("candidates", "all_pairs")]
        lines.append(
            f"| `{step['recipe']}`, batch {step['batch']} | {step['candidates']} | {step['seconds']['candidates']:.2f} "
            f"| {step['seconds']['all_pairs']:.2f} | **{step['ratio']:.1f}** | {' / '.join(peaks)} |"
        )
    lines += ["", "| small networks on | candidates, dev rSum | all pairs, dev rSum | seeds |", "|---" * 4 + "|"]
    for each in values["quality"]:
        figures = [f"{each[kind]['mean']:.1f} ± {each[kind]['deviation']:.1f}" for kind in ("candidates", "all_pairs")]
        where = f"{each['data']}, {each['train_images']:,} training images"
        lines.append(f"| {where} | {' | '.join(figures)} | {len(each['seeds'])} |")
    return "\n".join(lines) + f"\n\n{made(values)}."


def rerank_table(report: dict[str, Any]) -> str:
    """One sentence on a two-stage search."""
    stage, fused = report["rerank"], report["scores"]["fused"]
    every = stage.get("all_pairs_seconds")
    compared_with = "" if every is None else f" where all pairs take {every:.0f} s"
    lost = [f"{max(points):.2f} points on {split}" for split, points in stage["lost"].items()]
    return (
        f"{report['data']} {report['split']}: reasoning about {stage['reasoned_pairs']:,} of {stage['all_pairs']:,} "
        f"pairs ({stage['all_pairs'] / stage['reasoned_pairs']:.1f} times fewer; {stage['k_images']} captions an "
        f"image, {stage['k_captions']} images a caption) gives rSum {fused['rsum']:.1f}; "
        f"the worst recall loses {', '.join(lost)} against all pairs. Right answers among the candidates: "
        f"{stage['ceiling_image_to_text']:.1f} % of the images, {stage['ceiling_text_to_image']:.1f} % of captions. "
        f"{report['seconds']:.0f} s{compared_with}; choosing K takes all pairs of dev once (from then on `--rerank "
        f"{stage['k_images']},{stage['k_captions']}`). {report['hardware']}; commit {short(report['commit'])}."
    )


def memory_table(values: dict[str, Any]) -> str:
    """One sentence on the peak memory of a large evaluation."""
    peak, matrices, budget = (
        f"{values[name] / 2**30:.1f} GiB" for name in ("peak_bytes", "bytes_of_matrices", "byte_budget")
    )
    return (
        f"{values['images']:,} images x {values['captions']:,} captions, {values['score_names']} scores of every pair "
        f"({matrices}, in files): peak memory **{peak}**, of which at most {budget} may be temporaries. {made(values)}."
    )


def search_table(values: dict[str, Any]) -> str:
    """One sentence on a large index."""
    near, all_of_it = (values["milliseconds"][kind] for kind in ("approximate", "exact"))
    size = f"{values['bytes_with_ann'] / 2**30:.2f} GiB on disk"
    return (
        f"{values['images']:,} pictures of {' to '.join(map(str, values['regions']))} regions, D {values['dim']}: "
        f"built in {values['build_seconds']:,.0f} s and {values['ann_seconds']:,.0f} s for the ANN index, {size}; "
        f"a search that reasons about the {values['candidates']} best by an exact first stage takes "
        f"**{all_of_it['p50']:.0f} ms** (p95 {all_of_it['p95']:.0f} ms); by the {values['probes']} parts of the ANN "
        f"index's {values['parts']} that its recall asks for, {near['p50']:.0f} ms (p95 {near['p95']:.0f} ms), "
        f"with the same ten best in {values['agreement']:.1%} of {values['queries']} queries. {made(values)}."
    )


def mebibytes(count: int | None) -> str:
    """A number of bytes, where it is known."""
    return "?" if count is None else f"{count / 2**20:,.0f} MiB"


def made(values: dict[str, Any]) -> str:
    """Where figures come from."""
    torch = values["versions"]["torch"]
    return f"{values['hardware']}; torch {torch}; commit {short(values['commit'])}; `{values['command']}`"


def demo_table(report: dict[str, Any]) -> str:
    """The recalls of a report with the accuracy on binding foils, and where words point."""
    figures = [f"{share:.0%} ({name.replace('_', ' ')})" for name, share in report["pointing"].items()]
    binding, kinds = report["binding"], report["binding_by_kind"]
    return (
        f"{recall_table(report)}\n\n"
        f"Captions with swapped attributes or sides of a relation told apart: {kinds['attribute']:.0%} and "
        f"{kinds['relation']:.0%} by the fused score, {binding['pooled']:.0%} by `v·t` alone (guessing: 50%). "
        f"Words whose region is the right one: {' and '.join(figures)}. "
        f"{report['images']:,} test scenes, {report['captions']:,} captions, scored in {report['seconds']:.0f} s on "
        f"{report['hardware']}; commit {short(report['commit'])}."
    )


def recall_table(report: dict[str, Any]) -> str:
    """One row a score."""
    lines = [HEADER, "|---" * 8 + "|"]
    for name in sorted(report["scores"], key=order_of):
        score = report["scores"][name]
        sides = score["image_to_text"], score["text_to_image"]
        figures = [side[key] for side in sides for key in ("r1", "r5", "r10")] + [score["rsum"]]
        lines.append(f"| {label(name)} | " + " | ".join(f"{figure:.1f}" for figure in figures) + " |")
    return "\n".join(lines)


def order_of(name: str) -> tuple[int, str]:
    """Fused first, then streams, levels, v·t."""
    if name in ORDER:
        return ORDER.index(name), name
    return (len(ORDER) + (name == "pooled"), name)


def label(name: str) -> str:
    """A score's name in words."""
    return NAMES.get(name, f"{name.replace('_', ' ')} alone")


if __name__ == "__main__":
    update_readme()
