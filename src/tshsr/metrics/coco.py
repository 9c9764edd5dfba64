"""Further relevance annotation of MSCOCO's test images: ECCV Caption, CxC and PMRP, if installed.

In COCO only the five captions of an image count as relevant to it, although hundreds of others describe it as well.
These annotations have more relevant items for the same 5,000 images and 25,000 captions, matched by COCO's ids.

ECCV Caption: Chun et al., ECCV 2022 (doi 10.1007/978-3-031-20074-8_1). CxC: Parekh et al., EACL 2021.
PMRP: Chun et al., CVPR 2021. The first two come with the package `eccv_caption`, PMRP's files do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import util
from pathlib import Path

import numpy as np

from tshsr.errors import DataError, InputError, SettingsError, parse_json
from tshsr.metrics.multi_positive import Rankings, ranked
from tshsr.metrics.recall import check_scores, finite_blocks

PACKAGE = "eccv_caption"
SIDES = ("image_to_caption", "caption_to_image")
ABSENT = 0.01
"""Largest share of unscored relevant items: two of ECCV Caption's are sixth captions, which the protocol omits."""


def annotated_rankings(
    scores: np.ndarray, image_of_caption: np.ndarray, caption_ids: np.ndarray, *, plausible: Path | None = None
) -> dict[str, Rankings]:
    """Metrics by each annotation: `eccv`, `cxc`, and `pmrp` if its folder is given.

    Only annotated queries count; each ranks all 5,000 images or all 25,000 captions.

    Args:
        scores: Floats, images x captions: COCO's 5,000 test images, in any order.
        image_of_caption: For each caption the row of its image.
        caption_ids: COCO's id of each caption.
        plausible: Folder with PMRP's `pm_image_to_caption.json` and `pm_caption_to_image.json`.

    Raises:
        SettingsError: Where `eccv_caption` is not installed.
        InputError: Where shapes do not fit, a score is not finite, or the ids do not fit the captions.
        DataError: Where a file of an annotation is missing or damaged.
    """
    check_scores(scores, image_of_caption)
    folder = annotation_folder()
    image_ids = images_of_ids(folder, image_of_caption, caption_ids, len(scores))
    for _ in finite_blocks(scores):
        pass
    places = {"eccv": (folder, "eccv"), "cxc": (folder, "cxc")}
    if plausible is not None:
        places["pmrp"] = (plausible, "pm")
    rows = (row_of(image_ids), row_of(caption_ids))
    return {
        name: Rankings(
            *(
                ranked(matrix, *right_pairs(place / f"{prefix}_{side}.json", *(rows if number == 0 else rows[::-1])))
                for number, (side, matrix) in enumerate(zip(SIDES, (scores, scores.T), strict=True))
            )
        )
        for name, (place, prefix) in places.items()
    }


def annotation_folder() -> Path:
    """The folder of the package's annotation files.

    Raises:
        SettingsError: Where it is not installed.
    """
    found = util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise SettingsError(
            "ECCV Caption and CxC need their annotation, which is not installed; pip install 'tshsr[eccv]'."
        )
    return Path(found.origin).parent / "data"


def read_caption_ids(path: Path, captions: int) -> np.ndarray:
    """Read COCO's caption ids, one per line in the order of the columns (`testall_ids.txt` of the precomp files).

    Raises:
        DataError: Where the file cannot be read, or has other contents than a whole number per caption.
    """
    try:
        words = path.read_text(encoding="utf-8").split()
        ids = np.array([int(word) for word in words], dtype=np.int64)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}); expected COCO's caption ids, one per line."
        ) from None
    except (ValueError, OverflowError) as error:
        raise DataError(f"{path} does not hold COCO's caption ids, one per line ({error}).") from None
    if len(ids) != captions:
        raise DataError(f"{path} holds {len(ids)} ids, the scores have {captions} captions; expected one id each.")
    return ids


def images_of_ids(folder: Path, image_of_caption: np.ndarray, caption_ids: np.ndarray, images: int) -> np.ndarray:
    """COCO's id of each image, from the ids of its captions.

    Raises:
        InputError: Names the first id that is not annotated, duplicate, or of another image.
    """
    owner = {caption: answers[0] for caption, answers in read_annotation(folder / f"original_{SIDES[1]}.json").items()}
    if len(caption_ids) != len(owner):
        raise InputError(
            f"the annotation is of all {len(owner)} captions of COCO's 5,000 test images, five each; there are "
            f"{len(caption_ids)} ids. Score that split (testall of the precomp files), without sixth captions."
        )
    ids, seen = np.full(images, -1, dtype=np.int64), set()
    for column, (caption, row) in enumerate(zip(caption_ids.tolist(), image_of_caption.tolist(), strict=True)):
        if caption not in owner or caption in seen:
            what = "occurs twice" if caption in seen else "is no caption of COCO's test images"
            raise InputError(f"id {caption} of caption {column} (from 0) {what}; give COCO's own caption ids.")
        seen.add(caption)
        if ids[row] not in (-1, owner[caption]):
            raise InputError(
                f"caption {column} (from 0) with id {caption} is COCO's of image {owner[caption]}, and row {row} of "
                f"the scores is image {ids[row]} by its other captions; the ids are in another order than the columns."
            )
        ids[row] = owner[caption]
    return ids


def right_pairs(
    path: Path, query_rows: Mapping[int, int], answer_rows: Mapping[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """The relevant pairs of an annotation, as rows of queries and of answers; -1 for an unscored answer.

    Raises:
        DataError: Where the file cannot be read or does not fit the images and captions.
    """
    right = read_annotation(path)
    unknown = next((query for query in right if query not in query_rows), None)
    pairs = [(query, answer) for query, found in right.items() for answer in dict.fromkeys(found)]
    absent = sum(answer not in answer_rows for _, answer in pairs)
    if unknown is not None or not pairs or absent > ABSENT * len(pairs):
        what = f"names query {unknown}" if unknown is not None else f"has {absent} of {len(pairs)} right answers"
        raise DataError(f"{path} {what} outside of COCO's 5,000 test images and their captions; download it again.")
    queries, answers = np.array([(query_rows[one], answer_rows.get(other, -1)) for one, other in pairs]).T
    return queries, answers


def read_annotation(path: Path) -> dict[int, list[int]]:
    """Relevant items by query, in COCO's ids.

    Raises:
        DataError: Where the file cannot be read.
    """
    try:
        values = parse_json(path.read_text(encoding="utf-8"))
        return {int(query): [int(answer) for answer in answers] for query, answers in values.items()}
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}); install or download the annotation again."
        ) from None
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise DataError(f"{path} is no annotation ({error}); expected lists of ids by id. Download it again.") from None


def row_of(ids: np.ndarray) -> dict[int, int]:
    """The row or column of each id."""
    return {identity: row for row, identity in enumerate(ids.tolist())}
