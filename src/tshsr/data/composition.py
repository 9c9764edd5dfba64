"""Benchmarks of composition: captions that differ in who does what, or in which thing has which attribute.

- SugarCrepe (Hsieh et al., NeurIPS 2023): a folder of `{add,replace,swap}_{obj,att,rel}.json`, each an object of
  `{"filename", "caption", "negative_caption"}`; pictures of COCO val2017.
- ARO (Yüksekgönül et al., ICLR 2023): `visual_genome_relation.json`, `visual_genome_attribution.json`, lists of
  `{"image_path", "true_caption", "false_caption", "bbox_x", "bbox_y", "bbox_w", "bbox_h"}` with `relation_name` or
  `attributes`; the pictures are cut to the box.
- Winoground (Thrush et al., CVPR 2022): `examples.jsonl`, lines of `{"image_0", "image_1", "caption_0", "caption_1"}`
  with `collapsed_tag` or `tag`.

The pictures are not part of these files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from tshsr.data.dataset import Split
from tshsr.data.truth import Truth
from tshsr.errors import DataError, first_invalid, parse_json

Layout = Literal["sugarcrepe", "aro", "winoground"]
ARO_FILES = ("visual_genome_relation.json", "visual_genome_attribution.json")
WINOGROUND_FILE = "examples.jsonl"
Text = Annotated[str, Field(min_length=1)]
Entry = TypeVar("Entry", bound=BaseModel)


@dataclass(frozen=True)
class PictureRef:
    """A picture, or a part of it.

    Attributes:
        name: File name, or id of an image of a store.
        box: Left, top, right and bottom in pixels; None: the whole picture.
    """

    name: str
    box: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class CompositionCase:
    """One picture with a true and a false caption, or two pictures with the caption of each.

    Attributes:
        kind: Group in the tables, such as swap_att.
        detail: Group of the mean over groups (ARO's relation or pair of attributes); the kind where there is none.
        pictures: One, of which the first caption is true; or two.
        captions: Of two pictures, those with equal index match.
    """

    kind: str
    detail: str
    pictures: tuple[PictureRef, ...]
    captions: tuple[str, str]


class SugarCrepeEntry(BaseModel):
    """An entry of a file of SugarCrepe."""

    filename: Text
    caption: Text
    negative_caption: Text

    def case(self, kind: str) -> CompositionCase:
        """As a case."""
        return CompositionCase(kind, kind, (PictureRef(self.filename),), (self.caption, self.negative_caption))


class AroEntry(BaseModel):
    """An entry of a file of ARO."""

    image_path: Text
    true_caption: Text
    false_caption: Text
    bbox_x: float
    bbox_y: float
    bbox_w: Annotated[float, Field(gt=0)]
    bbox_h: Annotated[float, Field(gt=0)]
    relation_name: str | None = None
    attributes: tuple[str, ...] = ()

    def case(self, kind: str) -> CompositionCase:
        """As a case."""
        detail = self.relation_name or " and ".join(sorted(self.attributes)) or kind
        box = (self.bbox_x, self.bbox_y, self.bbox_x + self.bbox_w, self.bbox_y + self.bbox_h)
        return CompositionCase(
            kind, detail, (PictureRef(self.image_path, box),), (self.true_caption, self.false_caption)
        )


class WinogroundEntry(BaseModel):
    """A line of Winoground's file."""

    image_0: Text
    image_1: Text
    caption_0: Text
    caption_1: Text
    collapsed_tag: str | None = None
    tag: str | None = None

    def case(self, kind: str) -> CompositionCase:
        """As a case."""
        kind = self.collapsed_tag or self.tag or kind
        pictures = PictureRef(self.image_0), PictureRef(self.image_1)
        return CompositionCase(kind, kind, pictures, (self.caption_0, self.caption_1))


def layout_of(path: Path) -> Layout:
    """The layout of an annotation file or folder, by its names.

    Raises:
        DataError: Where it is missing or unknown.
    """
    names = {path.name} if path.is_file() else {each.name for each in path.glob("*.json*")}
    if not path.exists():
        raise DataError(f"{path} does not exist; name the annotation of SugarCrepe, ARO or Winoground.")
    if names & set(ARO_FILES):
        return "aro"
    if WINOGROUND_FILE in names:
        return "winoground"
    if any(name.startswith(("add_", "replace_", "swap_")) for name in names):
        return "sugarcrepe"
    raise DataError(
        f"{path} has the files {', '.join(sorted(names)) or 'none'}; expected add_*.json, replace_*.json or "
        f"swap_*.json (SugarCrepe), {' or '.join(ARO_FILES)} (ARO), or {WINOGROUND_FILE} (Winoground)."
    )


def read_composition(path: Path, layout: Layout | None = None) -> list[CompositionCase]:
    """The cases of an annotation file, or of all such files of a folder.

    Args:
        layout: None: by the names of the files.

    Raises:
        DataError: Where a file is missing or damaged, or there is no case.
    """
    layout = layout or layout_of(path)
    match layout:
        case "sugarcrepe":
            files = [path] if path.is_file() else sorted(path.glob("*_*.json"))
            cases = [case for file in files for case in entries_of(file, SugarCrepeEntry, json_values(file), file.stem)]
        case "aro":
            files = [path] if path.is_file() else [path / name for name in ARO_FILES if (path / name).is_file()]
            cases = [
                case
                for file in files
                for case in entries_of(file, AroEntry, json_values(file), file.stem.removeprefix("visual_genome_"))
            ]
        case "winoground":
            file = path if path.is_file() else path / WINOGROUND_FILE
            cases = entries_of(file, WinogroundEntry, json_lines(file), "winoground")
    if not cases:
        raise DataError(f"{path} has no case of {layout}; copy its annotation again.")
    return cases


def foil_cases(split: Split, truth: Truth) -> list[CompositionCase]:
    """The false captions of generated scenes, with swapped attributes and relations, as cases.

    Raises:
        DataError: Where the truth has no false captions, or one of an image or caption that the split lacks.
    """
    if not truth.foils:
        raise DataError(f"{split.data}, split {split.name} has no false captions; generate the scenes again.")
    images, captions = len(split.image_ids), len(split.captions)
    for foil in truth.foils:
        if foil.image >= images or foil.caption >= captions:
            raise DataError(
                f"{split.data}, split {split.name} has {images} images and {captions} captions, "
                f"a false caption is of image {foil.image} and caption {foil.caption}; generate the scenes again."
            )
    return [
        CompositionCase(
            foil.kind, foil.kind, (PictureRef(split.image_ids[foil.image]),), (split.captions[foil.caption], foil.text)
        )
        for foil in truth.foils
    ]


def entries_of(file: Path, entry: type[Entry], values: Iterable[Any], kind: str) -> list[CompositionCase]:
    """Validate entries.

    Raises:
        DataError: Names the first one that does not fit.
    """
    adapter, cases = TypeAdapter(entry), []
    for number, value in enumerate(values):
        try:
            cases.append(adapter.validate_python(value).case(kind))  # type: ignore[attr-defined]
        except ValidationError as error:
            raise DataError(f"{file}, entry {number}: {first_invalid(error)}; copy the file again.") from None
    return cases


def json_values(file: Path) -> Sequence[Any]:
    """The values of a JSON object, or the entries of a list.

    Raises:
        DataError: Where the file cannot be read.
    """
    try:
        values = parse_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read ({error}); copy it again.") from None
    if not isinstance(values, dict | list):
        raise DataError(f"{file} holds a {type(values).__name__}; expected a list or an object of entries.")
    return list(values.values()) if isinstance(values, dict) else values


def json_lines(file: Path) -> list[Any]:
    """The values of a file of JSON lines.

    Raises:
        DataError: Where the file cannot be read.
    """
    try:
        return [parse_json(line) for line in file.read_bytes().splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read ({error}); copy it again.") from None
