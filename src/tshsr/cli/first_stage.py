"""`tshsr evaluate --first-stage`: rerankers on the candidates of v·t, in one table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tshsr.cli.options import choose_device, load_retriever, read_bytes

if TYPE_CHECKING:
    from tshsr.cli.screen import Screen
    from tshsr.data.dataset import Split
    from tshsr.evaluation.first_stage import FirstStageTable, Gain, RerankRow

ALL = "all"
"""The depth of a score on all pairs."""


@dataclass(frozen=True)
class StagesOptions:
    """The options of `tshsr evaluate` that the table uses, as there."""

    run: str
    data: str
    split: str
    depths: tuple[int, ...]
    other_scores: tuple[Path, ...]
    coco_ids: Path | None
    bytes: str
    device: str | None
    json: str | None
    quiet: bool


def compare_stages(wanted: StagesOptions, screen: Screen) -> None:
    """Score, and show or write the table.

    Raises:
        TshsrError: Where data, run or other scores cannot be read or do not fit.
    """
    import torch

    from tshsr.data.layouts import open_split
    from tshsr.evaluation.first_stage import check_depths, compare_first_stages
    from tshsr.evaluation.ground_truth import split_ground_truth
    from tshsr.evaluation.matrix import Extras, read_extras
    from tshsr.evaluation.score_files import read_scores
    from tshsr.scoring.options import ScoringOptions
    from tshsr.system import provenance

    check_depths(wanted.depths)
    device = choose_device(wanted.device)
    names = [path.name for path in wanted.other_scores]
    unique = len(set(names)) == len(names)
    others = {path.name if unique else str(path): read_scores(path) for path in wanted.other_scores}
    split = open_split(wanted.data, wanted.split)
    ids = read_extras(Extras(wanted.coco_ids), split_ground_truth(split)).caption_ids
    retriever = load_retriever(wanted.run, device)
    split = retriever.readable(split)
    options = ScoringOptions(byte_budget=read_bytes(wanted.bytes), device=device)
    with screen.progress(quiet=wanted.quiet) as begin:
        found = compare_first_stages(
            retriever, split, depths=wanted.depths, others=others, caption_ids=ids, options=options, begin=begin
        )
    size = f"{len(split.regions):,} images, {len(split.captions):,} captions"
    if wanted.json is not None:
        values = {"command": command_of(wanted, retriever.name, split), **provenance()}
        values |= {
            "model": retriever.name,
            "data": split.data,
            "threads": torch.get_num_threads(),
            "split": split.name,
            "pictures": len(split.regions),
            "first_stage": asdict(found),
        }
        screen.json(json.dumps(values, indent=1, ensure_ascii=False), wanted.json)
    if wanted.json != "-":
        screen.say(f"{split.data}, split {split.name}: {size}; model {retriever.name}; candidates by v·t")
        show(screen, found)


def command_of(wanted: StagesOptions, model: str, split: Split) -> str:
    """The command of a report, with names in place of folders."""
    options = [
        f"tshsr evaluate {model} --data {split.data} --split {split.name} --first-stage",
        f"--depths {' '.join(map(str, wanted.depths))}",
        *(["--other-scores", *(path.name for path in wanted.other_scores)] if wanted.other_scores else []),
        *([f"--coco-ids {wanted.coco_ids.name}"] if wanted.coco_ids is not None else []),
    ]
    return " ".join(options)


def show(screen: Screen, found: FirstStageTable) -> None:
    """The rows, and the growth of gain and cost."""
    base = found.rows[0]
    annotated = base.eccv is not None
    heads = ("score", "top", "image→text\nR@1", "text→image\nR@1", "gain", "rSum", "gain over v·t", "over MaxSim")
    heads = (*heads, *(("ECCV mAP@R",) if annotated else ()), "ms a query")
    screen.table(heads, [cells_of(row, base) for row in found.rows])
    screen.say("gain: R@1 of text to image above that of v·t; in brackets 95 % intervals of rSum over images.")
    sizes = sorted({each.pictures for each in found.growth})
    depths = list(dict.fromkeys(each.depth for each in found.growth))
    cells = {(each.pictures, each.depth): each for each in found.growth}
    rows = []
    for depth in (*sorted(depth for depth in depths if depth is not None), None):
        known = [cells.get((size, depth)) for size in sizes]
        shown = ("" if cell is None else f"{cell.gain_rsum:+.1f} in {cell.milliseconds:.0f} ms" for cell in known)
        rows.append((ALL if depth is None else str(depth), *shown))
    screen.say("gain in rSum of the network over v·t, and time a query, by candidates and size of the collection:")
    screen.table(("top", *(f"{size:,} pictures" for size in sizes)), rows)


def cells_of(row: RerankRow, base: RerankRow) -> Sequence[str]:
    """A line of the table."""
    gain = row.text_to_image[0] - base.text_to_image[0]
    return (
        row.score,
        ALL if row.depth is None else str(row.depth),
        f"{row.image_to_text[0]:.1f}",
        f"{row.text_to_image[0]:.1f}",
        "" if row is base else f"{gain:+.1f}",
        f"{row.rsum:.1f}",
        interval(row.gain),
        interval(row.over_maxsim),
        *([] if row.eccv is None else [f"{row.eccv[0]:.1f} {row.eccv[1]:.1f}"]),
        "" if row.milliseconds is None else f"{row.milliseconds:.1f}",
    )


def interval(gain: Gain | None) -> str:
    """A difference with its interval."""
    return "" if gain is None else f"{gain.mean:+.1f} [{gain.low:+.1f}, {gain.high:+.1f}]"
