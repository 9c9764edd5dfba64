"""Tables of README and docs, generated from the files in `benchmarks/results`.

`python -m benchmarks.tables` regenerates them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.cells import lead, made, mebibytes, short, with_spread
from benchmarks.contribution_tables import CONTRIBUTIONS
from benchmarks.gpu_tables import gpu_steps_table, traffic_table, ways_table
from benchmarks.race_tables import PARTS, noise_table
from benchmarks.scale_tables import bulk_table, growth_table, index_table, projection_table
from tshsr.metrics.labels import label
from tshsr.metrics.report import metrics_from_json, recall_table

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGES = tuple(
    ROOT / page
    for page in (
        "README.md",
        "docs/results.md",
        "docs/performance.md",
        "docs/scale.md",
        "docs/guide/search.md",
        "docs/guide/probabilities.md",
        "docs/guide/rerank.md",
    )
)
"""Pages with tables."""
HEADER = "| score | image → text R@1 | R@5 | R@10 | text → image R@1 | R@5 | R@10 | rSum |"


def update_readme() -> None:
    """Write every table between its markers, in all PAGES."""
    for page in PAGES:
        page.write_text(with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")


def with_tables(text: str) -> str:
    """The text with every table filled in.

    The table of `results/NAME.json` goes between `<!-- results NAME -->` and `<!-- end -->`; a word after the name
    chooses one of the tables of a file with several.
    """

    def fill(match: re.Match[str]) -> str:
        name, part = match[1], (match[2] or "").strip()
        values = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        return f"<!-- results {name}{match[2] or ''} -->\n{table_of(values, part)}\n<!-- end -->"

    return re.sub(r"<!-- results (\S+)( \w+)? -->\n.*?<!-- end -->", fill, text, flags=re.DOTALL)


def table_of(values: dict[str, Any], part: str = "") -> str:
    """The table of a results file, recognised by its keys; `part` chooses among several."""
    if "differences" in values:
        return PARTS[part](values)
    if "contributions" in values:
        return CONTRIBUTIONS[part](values)
    for name, table in BY_KEY.items():
        if name in values:
            return table(values)
    if "budgets" in values.get("settings", {}):
        return scale_table(values)
    if "gemm_gflops" in values:
        return speed_table(values)
    if "precision" in values:
        return precision_table(values)
    if "race_steps" in values:
        return steps_table(values)
    if "text_steps" in values:
        return text_table(values)
    if "steps" in values:
        return training_table(values)
    if "rerank" in values:
        return rerank_table(values)
    if "bytes_of_matrices" in values:
        return memory_table(values)
    for key, large in (("growth", index_table), ("check", growth_table), ("killed", bulk_table)):
        if key in values:
            large = projection_table if part == "projection" else large
            return f"{large(values)} {made(values)}."
    if "reranker" in values:
        return {"": reranker_table, "speed": reranker_table, "int8": int8_table}[part](values)
    if "agreement" in values:
        return search_table(values)
    return demo_table(values)


def scale_table(values: dict[str, Any]) -> str:
    """Seconds to score all pairs of a large split on a GPU, one row for each precision."""
    lines = ["| precision | seconds | pairs/s | peak memory of the GPU |", "|---" * 4 + "|"]
    for row in values["rows"]:
        row = {**row, "precision": row["precision"] + (", fused kernels" if row.get("kernel") == "triton" else "")}
        if row["seconds"] is None:
            lines.append(
                f"| {row['precision']} | {row['predicted_seconds']:.0f}, predicted from 1 % of the pairs | | |"
            )
        else:
            memory = "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 2**30:.1f} GiB"
            lines.append(f"| {row['precision']} | {row['seconds']:.0f} | {row['pairs_per_s']:,.0f} | {memory} |")
    first, size = values["rows"][0], values["settings"]
    return "\n".join(lines) + (
        f"\n\n{first['images']:,} images of 36 regions x {first['captions']:,} captions, D {size['dim']}, "
        f"m {size['width']}; encoding and the copy of all score matrices to the host included; {made(values)}."
    )


def speed_table(values: dict[str, Any]) -> str:
    """Package against plain reference, one row for each network and precision."""
    lines = [
        "| network | precision | pairs/s (slowest … fastest) | plain reference, float32 | ratio "
        "| M multiply-adds per pair, package / plain | share of the GEMM rate, GFLOP/s | memory, package / plain "
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
        f"matrix products at the start {rates} GFLOP/s; {made(values)}."
    )


def precision_table(values: dict[str, Any]) -> str:
    """bfloat16 against float32, one row for each trained network."""
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
    """Training with candidates against all pairs: step time, memory and quality."""
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
        kinds = (each[kind] for kind in ("candidates", "all_pairs"))
        figures = [with_spread({"rsum_mean": kind["mean"], "rsum_std": kind["deviation"]}) for kind in kinds]
        where = f"{each['data']}, {each['train_images']:,} training images"
        lines.append(f"| {where} | {' | '.join(figures)} | {len(each['seeds'])} |")
    return "\n".join(lines) + f"\n\n{made(values)}."


def steps_table(values: dict[str, Any]) -> str:
    """Losses and processor time of the first training steps of each method."""
    lines = [
        "| method | negatives per query | loss, first and last steps | of it, on the score | seconds a step | ratio |",
        "|---" * 6 + "|",
    ]
    ours = values["race_steps"][0]["step_seconds"]
    for row in values["race_steps"]:
        falls = (f"{row[f'first_{name}']:.3f} → {row[f'last_{name}']:.3f}" for name in ("loss", "fused"))
        cells = [row["title"], row["candidates"] or "all", *falls, f"{row['step_seconds']:.2f}"]
        lines.append(f"| {' | '.join(map(str, cells))} | {row['step_seconds'] / ours:.2f} |")
    return "\n".join(lines) + f"\n\n{made(values)}, {values['threads']} thread(s)."


def text_table(values: dict[str, Any]) -> str:
    """A training step over a frozen text encoder against one over the GRU."""
    lines = [
        "| step of | width of a state | frozen text, seconds | GRU, seconds | ratio (lowest … highest) |",
        "|---" * 5 + "|",
    ]
    for step in values["text_steps"]:
        low, high = step["ratio_spread"]
        lines.append(
            f"| `{step['recipe']}`, batch {step['batch']} | {step['width']} | {step['seconds']['frozen']:.2f} "
            f"| {step['seconds']['gru']:.2f} | **{step['ratio']:.2f}** ({low:.2f} … {high:.2f}) |"
        )
    return "\n".join(lines) + f"\n\n{made(values)}."


def reranker_table(values: dict[str, Any]) -> str:
    """Milliseconds of a query, whole and in parts."""
    measured = values["reranker"]
    whole = {
        "encoded": "candidates encoded before",
        "index": "ids of an index",
        "index_words": "ids of an index, with boxes of words of the 10 best",
        "store": "ids of a feature store, encoded for each query",
    }
    lines = [
        f"| `rank` of {values['candidates']} candidates | CPU time | wall-clock time | 95 % below |",
        "|---" * 4 + "|",
    ]
    for name, title in whole.items():
        row = measured["milliseconds"][name]
        lines.append(f"| {title} | **{row['cpu']:.0f} ms** | {row['p50']:.0f} ms | {row['p95']:.0f} ms |")
    lines += ["", "| CPU time of | PyTorch | onnxruntime | onnxruntime, int8 |", "|---" * 4 + "|"]
    for name, title in {"text": "reading the query", "head": f"scoring {values['candidates']} candidates"}.items():
        cells = [f"{measured['parts'][name][kind]['cpu']:.1f} ms" for kind in ("torch", "onnx", "int8")]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    threads = f"{values['threads']} thread{'s' * (values['threads'] > 1)}"
    return "\n".join(lines) + (
        f"\n\n{values['run']}, {values['data']}, medians of {values['queries']} queries, {threads}; other jobs of the "
        "machine lengthen wall-clock time. Largest difference of a score from ours in onnxruntime: "
        f"{measured['largest_difference']:.0e}. {made(values)}; onnxruntime {values['versions']['onnxruntime']}."
    )


def int8_table(values: dict[str, Any]) -> str:
    """Recall and size of the graphs in int8, each alone and all."""
    measured = values["reranker"]
    sizes = measured["bytes"]
    parts = ("images", "text", "head")
    megabytes = {
        "onnx": sum(sizes[part] for part in parts),
        **{f"int8 {part}": sum(sizes[f"{one}.int8" if one == part else one] for one in parts) for part in parts},
        "int8": sum(sizes[f"{part}.int8"] for part in parts),
    }
    titles = {"v·t": "`v·t`, the first stage", "onnx": "float32", "int8": "all three in int8"}
    changes = measured["recall_changes"]
    lines = ["| graphs | text → image R@1 | R@5 | R@10 | change of their sum | files |", "|---" * 6 + "|"]
    for name, recalls in measured["recall"].items():
        title = titles.get(name, f"{name.removeprefix('int8 ')} in int8")
        size = f"{megabytes[name] / 1e6:.1f} MB" if name in megabytes else ""
        change = lead({"mean": changes[name]["change"], **changes[name]}) if name in changes else ""
        lines.append(f"| {title} | {' | '.join(f'{recall:.1f}' for recall in recalls)} | {change} | {size} |")
    return "\n".join(lines) + (
        f"\n\n{values['data']}, {values['recall_queries']:,} sentences, each over its {values['candidates']} best "
        "pictures by the `v·t` of the same graphs; in brackets 95 % intervals: bootstrap over pictures. "
        f"{made(values)}."
    )


def rerank_table(report: dict[str, Any]) -> str:
    """Sentence on a two-stage search."""
    stage, fused = report["rerank"], report["scores"]["fused"]
    every = stage.get("all_pairs_seconds")
    compared_with = "" if every is None else f" where all pairs take {every:.0f} s"
    lost = [f"{max(points):.2f} points on {split}" for split, points in stage["lost"].items()]
    return (
        f"{report['data']} {report['split']}: scoring {stage['reasoned_pairs']:,} of {stage['all_pairs']:,} "
        f"pairs ({stage['all_pairs'] / stage['reasoned_pairs']:.1f} times fewer; {stage['k_images']} captions per "
        f"image, {stage['k_captions']} images per caption) gives rSum {fused['rsum']:.1f}; "
        f"the worst recall loses {', '.join(lost)} against all pairs. Right answers among the candidates: "
        f"{stage['ceiling_image_to_text']:.1f} % of the images, {stage['ceiling_text_to_image']:.1f} % of captions. "
        f"{report['seconds']:.0f} s{compared_with}; choosing K takes all pairs of dev once (from then on `--rerank "
        f"{stage['k_images']},{stage['k_captions']}`). {report['hardware']}; commit {short(report['commit'])}."
    )


def memory_table(values: dict[str, Any]) -> str:
    """Sentence on the peak memory of a large evaluation."""
    peak, matrices, budget = (
        f"{values[name] / 2**30:.1f} GiB" for name in ("peak_bytes", "bytes_of_matrices", "byte_budget")
    )
    return (
        f"{values['images']:,} images x {values['captions']:,} captions, {values['score_names']} scores of every pair "
        f"({matrices}, in files): peak memory **{peak}**, of which at most {budget} may be temporaries. {made(values)}."
    )


def search_table(values: dict[str, Any]) -> str:
    """Sentence on a large index."""
    near, all_of_it = (values["milliseconds"][kind] for kind in ("approximate", "exact"))
    size = f"{values['bytes_with_ann'] / 2**30:.2f} GiB on disk"
    return (
        f"{values['images']:,} pictures of {' to '.join(map(str, values['regions']))} regions, D {values['dim']}: "
        f"built in {values['build_seconds']:,.0f} s and {values['ann_seconds']:,.0f} s for the ANN index, {size}; "
        f"a search that scores the {values['candidates']} best candidates of an exact first stage takes "
        f"**{all_of_it['p50']:.0f} ms** (p95 {all_of_it['p95']:.0f} ms); by {values['probes']} "
        f"of the {values['parts']} partitions of the ANN index, chosen by recall, "
        f"{near['p50']:.0f} ms (p95 {near['p95']:.0f} ms), with the same ten best in {values['agreement']:.1%} of "
        f"{values['queries']} queries. {made(values)}."
    )


def demo_table(report: dict[str, Any]) -> str:
    """Recalls of a report, with binding and pointing accuracy."""
    figures = [f"{share:.0%} ({name.replace('_', ' ')})" for name, share in report["pointing"].items()]
    binding, kinds = report["binding"], report["binding_by_kind"]
    return (
        f"{recall_lines(report)}\n\n"
        f"Binding accuracy on captions with swapped attributes and with swapped sides of a relation: "
        f"{kinds['attribute']:.0%} and {kinds['relation']:.0%} by the fused score, "
        f"{binding['pooled']:.0%} by `v·t` alone (random: 50%). Pointing accuracy: {' and '.join(figures)}. "
        f"{report['images']:,} test scenes, {report['captions']:,} captions, scored in {report['seconds']:.0f} s on "
        f"{report['hardware']}; commit {short(report['commit'])}."
    )


def recall_lines(report: dict[str, Any]) -> str:
    """Recalls, one row for each score."""
    lines = [HEADER, "|---" * 8 + "|"]
    rows = recall_table({name: metrics_from_json(values) for name, values in report["scores"].items()})
    for name, figures in rows.items():
        title = f"**{label(name)}**" if name == "fused" else label(name)
        lines.append(f"| {title} | " + " | ".join(f"{figure:.1f}" for figure in figures) + " |")
    return "\n".join(lines)


POPULATIONS = {"first": "the first result", "shown": "the ten shown results", "candidates": "all candidates"}
"""Populations of a calibration, as the guide calls them."""


def calibration_table(values: dict[str, Any]) -> str:
    """Calibration before and after, by population and by size, and queries for which nothing matches."""
    lines = [
        "| results of a search | pairs | match | error before | after | Brier before | after "
        "| log loss before | after |",
        "|---" * 9 + "|",
    ]
    for name, title in POPULATIONS.items():
        one, other = values["before"][name], values["after"][name]
        cells = [f"{each[key]:.4f}" for key in ("error", "brier", "log_loss") for each in (one, other)]
        cells[1] = f"**{cells[1]}**"
        lines.append(f"| {title} | {one['pairs']:,} | {one['matches'] / one['pairs']:.1%} | {' | '.join(cells)} |")
    sizes = [f"{int(size):,} pictures {own:.3f} (without: {kept:.3f})" for size, (kept, own) in values["sizes"].items()]
    lines += ["", f"Error of the shown results with the prior of the collection's size: {', '.join(sizes)}.", ""]
    levels = [each for each in next(iter(values["refusals"].values()))["nothing"] if float(each) <= MAX_LEVEL]
    lines += [
        "| queries for which nothing matches | number | mean of the highest probability | "
        + " | ".join(f"at {float(level):g}" for level in levels)
        + " |",
        "|---" * (3 + len(levels)) + "|",
    ]
    for name, each in values["refusals"].items():
        cells = [f"{each['nothing'][level]:.0%}" for level in levels]
        lines.append(f"| {name} | {each['queries']:,} | {each['highest']:.3f} | {' | '.join(cells)} |")
    fitted = values["calibration"]
    return "\n".join(lines) + (
        f"\n\nFitted on {fitted['split']} ({fitted['pictures']:,} pictures), measured on {values['test']} "
        f"({values['pictures']:,} pictures). {made(values)}."
    )


MAX_LEVEL = 0.3
"""Largest minimum probability of the table."""


def first_stage_table(values: dict[str, Any]) -> str:
    """Rerankers on the candidates of v·t, and growth of gain and time."""
    rows = values["first_stage"]["rows"]
    lines = [
        "| score | candidates | image → text R@1 | text → image R@1 | rSum | gain over v·t | over MaxSim "
        "| ms a query |",
        "|---" * 8 + "|",
    ]
    for row in rows:
        depth = "all" if row["depth"] is None else f"{row['depth']:,}"
        gains = [lead(row[name]) for name in ("gain", "over_maxsim")]
        time = "" if row["milliseconds"] is None else f"{row['milliseconds']:.1f}"
        figures = [f"{each:.1f}" for each in (row["image_to_text"][0], row["text_to_image"][0], row["rsum"])]
        lines.append(f"| {' | '.join([row['score'], depth, *figures, *gains, time])} |")
    growth = values["first_stage"]["growth"]
    sizes = sorted({each["pictures"] for each in growth})
    cells = {(each["pictures"], each["depth"]): each for each in growth}
    lines += ["", "| candidates | " + " | ".join(f"{size:,} pictures" for size in sizes) + " |"]
    lines.append("|---" * (1 + len(sizes)) + "|")
    for depth in dict.fromkeys(each["depth"] for each in growth if each["pictures"] == sizes[-1]):
        known = [cells.get((size, depth)) for size in sizes]
        shown = ["" if one is None else f"{one['gain_rsum']:+.1f} in {one['milliseconds']:.0f} ms" for one in known]
        lines.append(f"| {'all' if depth is None else depth} | {' | '.join(shown)} |")
    return "\n".join(lines) + (
        f"\n\n{values['model']}, {values['split']}: {values['pictures']:,} pictures, "
        f"{values['threads']} threads. The second table has the gain in "
        f"rSum of the network over v·t, and the time of a search, in random parts of the collection. {made(values)}."
    )


def compression_table(values: dict[str, Any]) -> str:
    """Bytes a picture against recall, one row for each kind of index."""
    lines = [
        "| regions | numbers | bytes a picture | text → image R@1 | R@5 | R@10 | change of their sum |",
        "|---" * 7 + "|",
    ]
    for row in values["compression"]:
        title = f"{row['regions']}" if row["title"] == "all" else f"{row['regions']} {row['title']}"
        change = "" if row is values["compression"][0] else lead({"mean": row["change"], **row})
        recalls = " | ".join(f"{figure:.1f}" for figure in row["recalls"])
        lines.append(f"| {title} | {row['tokens']} | {row['bytes']:,} | {recalls} | {change} |")
    return "\n".join(lines) + (
        f"\n\nThe network ranks the {values['candidates']} best pictures by v·t, which is the same in all rows. In "
        f"brackets 95 % intervals over pictures. {made(values)}."
    )


def composition_table(values: dict[str, Any]) -> str:
    """Accuracy on false captions by kind and score."""
    figures = values["composition"]
    names = {"pooled": "v·t", "maxsim": "MaxSim", "fused": "fused"}
    lines = ["| false captions | cases | " + " | ".join(names.values()) + " |", "|---" * 5 + "|"]
    for kind, scores in {**figures["kinds"], "all": figures["overall"]}.items():
        cells = " | ".join(f"{scores[name]['text']:.1%}" for name in names)
        lines.append(f"| {kind} | {scores['fused']['cases']:,} | {cells} |")
    points = {name: {key: 100 * x for key, x in each.items()} for name, each in figures["over"].items()}
    over = [f"{names[name]} {lead(each)}" for name, each in points.items()]
    return "\n".join(lines) + f"\n\nThe fused score minus, in points: {', '.join(over)}. {made(values)}."


SIZES = {"full": "At the size of the other networks:", "recipe": "At the size of the recipe:"}
"""Sizes of the network for photographs, as results files call them."""


def photos_speed_table(values: dict[str, Any]) -> str:
    """Speed of the network for photographs, a table for each size."""
    about = {name: value for name, value in values.items() if name != "speed_photos"}
    return "\n\n".join(
        f"{title}\n\n{speed_table({**about, **values['speed_photos'][size]})}" for size, title in SIZES.items()
    )


def two_stages_table(values: dict[str, Any]) -> str:
    """What two-stage searches lose, one row for each run, then by depth."""
    rows, ladder = values["two_stages"], values["ladder"]
    lines = [
        "| run | K of images, of captions | chosen on dev of | times fewer pairs | rSum of all pairs | lost | largest "
        "loss of a recall, dev | test | right answer among the candidates, images | captions |",
        "|---" * 10 + "|",
    ]
    for row in rows:
        dev = f"{max(row['lost_on_dev']):.2f}" if row["chosen_by"] == row["run"] else ""
        cells = [
            row["run"],
            f"{row['k_images']}, {row['k_captions']}",
            row["chosen_by"],
            f"{row['times_fewer']:.1f}",
            f"{row['full_rsum']:.2f}",
            f"{row['full_rsum'] - row['rsum']:+.2f}",
            dev,
            f"{max(row['lost']):.2f}",
            f"{row['ceiling_image_to_text']:.1f} %",
            f"{row['ceiling_text_to_image']:.1f} %",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| K of both | times fewer pairs | rSum lost, by run | largest loss of a recall |", "|---" * 4 + "|"]
    for each in ladder:
        sums, worst = (", ".join(f"{x:+.2f}" for x in each[name]) for name in ("rsum_lost", "worst_lost"))
        lines.append(f"| {each['k']} | {each['times_fewer']:.1f} | {sums} | {worst} |")
    return "\n".join(lines) + f"\n\nPoints; negative: gained. {values['data']} {values['split']}. {made(values)}."


BY_KEY = {
    "speed_photos": photos_speed_table,
    "two_stages": two_stages_table,
    "calibration": calibration_table,
    "first_stage": first_stage_table,
    "compression": compression_table,
    "composition": composition_table,
    "noise": noise_table,
    "ways": ways_table,
    "gpu_steps": gpu_steps_table,
    "traffic": traffic_table,
}
"""Tables by a key that no other results file has."""

if __name__ == "__main__":
    update_readme()
