"""Readers of data: .npy files, every layout of data, captions, vocabularies, pictures, annotations."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from reliability.fuzzing.campaign import Reader, Refusal, Seed
from tshsr.data.check import check_data
from tshsr.data.composition import read_composition
from tshsr.data.convert import convert
from tshsr.data.entities import read_entities
from tshsr.data.layouts import open_split
from tshsr.data.npy import NpyFile
from tshsr.data.pictures import read_picture
from tshsr.data.store import StoreCaption, StoreImage, write_store
from tshsr.data.text import Tokenizer, WordRules, read_captions
from tshsr.data.truth import Foil, Truth, read_truth, write_truth
from tshsr.index.metadata import read_metadata, size_of

IMAGES, REGIONS, FEATURES = 5, 3, 4
WORDS = (
    "a brown dog's ball",
    "two men (in red) run",
    "caf\u00e9 at 10:30, isn't it?",
    "the t-shirt is black/white",
    "snow!",
)
SENTENCES = tuple(f"{text} {number}" for number in range(2) for text in WORDS)


def features(images: int = IMAGES, kind: str = "float32") -> np.ndarray:
    """Regions that differ everywhere."""
    return np.random.default_rng(0).normal(size=(images, REGIONS, FEATURES)).astype(kind)


def boxes(images: int = IMAGES) -> np.ndarray:
    """Boxes in the picture."""
    corners = np.random.default_rng(1).random((images, REGIONS, 2, 2), dtype=np.float32)
    return np.sort(corners, axis=2).reshape(images, REGIONS, 4)


def saved(array: np.ndarray) -> bytes:
    """A .npy file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def lines(texts: Sequence[str]) -> bytes:
    """A text file of lines."""
    return "".join(f"{text}\n" for text in texts).encode()


def json_lines(values: Sequence[object]) -> bytes:
    """A file of JSON lines."""
    return lines([json.dumps(value, ensure_ascii=False) for value in values])


def npy_seeds(folder: Path) -> list[Seed]:
    """Arrays of each kind that the package reads."""
    del folder
    arrays = (features(), features(kind="<f8"), features(kind=">f4"), features(kind="float16"))
    found = [Seed({"a.npy": saved(array)}, partial(read_npy, axes=3)) for array in arrays]
    mask = Seed({"a.npy": saved(np.ones((4, 3), bool))}, partial(read_npy, axes=2, kinds="b"))
    return [*found, mask, Seed({"a.npy": saved(np.arange(9))}, partial(read_npy, axes=1, kinds="iu"))]


def read_npy(folder: Path, axes: int, kinds: str = "f") -> object:
    """All rows."""
    return NpyFile.open(folder / "a.npy", axes=axes, kinds=kinds).read_all()


def checked(folder: Path) -> object:
    """All of a data set, as `tshsr data check` reads it."""
    problems, _ = check_data(folder)
    if problems:
        raise Refusal(problems[0])
    return None


def precomp_seeds(folder: Path) -> list[Seed]:
    """SCAN's files: with boxes, ids and image vectors; and with repeated rows."""
    del folder
    packed = io.BytesIO()
    np.savez(packed, boxes=boxes())
    whole = {
        "test_ims.npy": saved(features()),
        "test_caps.txt": lines(SENTENCES),
        "test_ids.txt": lines([f"{number}.jpg" for number in range(IMAGES)]),
        "test_boxes.npz": packed.getvalue(),
        "test_pooled.npy": saved(np.ones((IMAGES, 2), np.float32)),
        "extractor.txt": b"a name\n",
    }
    repeated = {
        "dev_ims.npy": saved(np.repeat(features(), 5, axis=0)),
        "dev_caps.txt": lines([f"caption {number}" for number in range(5 * IMAGES)]),
        "dev_boxes.npy": saved(boxes()),
    }
    converted = Seed(whole, lambda data: convert(data, data / "store"), writes=True)
    return [Seed(whole, checked), Seed(whole, checked), Seed(repeated, checked), converted]


def karpathy_document() -> dict[str, object]:
    """Karpathy's JSON of five images."""
    images = [
        {
            "filename": f"p{number}.png",
            "filepath": "",
            "imgid": number,
            "cocoid": 1000 + number,
            "split": split,
            "sentences": [{"raw": WORDS[number], "tokens": ["a", "dog"], "imgid": number, "sentid": number}],
            "sentids": [number],
        }
        for number, split in enumerate(("train", "restval", "val", "test", "test"))
    ]
    return {"images": images, "dataset": "small"}


def karpathy_seeds(folder: Path) -> list[Seed]:
    """Karpathy's JSON with one array of features, and with one a picture."""
    del folder
    document = json.dumps(karpathy_document()).encode()
    one = {"dataset_small.json": document, "features.npy": saved(features()), "boxes.npy": saved(boxes())}
    single = {f"features/p{number}.npy": saved(array) for number, array in enumerate(features())}
    many = {"dataset_small.json": document, **single}
    converted = Seed(many, lambda data: convert(data, data / "store"), writes=True)
    weighted = ("dataset_small.json",) * 3
    return [Seed(one, checked, (*weighted, *one)), Seed(many, checked, (*weighted, *many)), converted]


def store_files(folder: Path) -> None:
    """A store with boxes, a mask, image vectors and the truth of its scenes."""
    mask = np.ones((IMAGES, REGIONS), bool)
    mask[1, -1] = False
    write_store(
        folder,
        extractor="small",
        settings={"windows": 3, "pictures": "pictures"},
        images=[StoreImage(f"i{number}", f"i{number}.png", 8, 6) for number in range(IMAGES)],
        captions=[
            StoreCaption(
                f"i{number % IMAGES}#{number}", f"i{number % IMAGES}", text, ("test", "train")[number % IMAGES % 2]
            )
            for number, text in enumerate(SENTENCES)
        ],
        regions=features(),
        boxes=boxes(),
        mask=mask,
        pooled=[np.ones((IMAGES, 2), np.float32)],
    )


def store_seeds(folder: Path) -> list[Seed]:
    """A store: its manifest and lists, which say how to read the arrays; and all of its files."""
    store_files(folder)
    names = ("manifest.json",) * 5 + ("images.jsonl", "captions.jsonl")
    seed = Seed.of(folder, checked)
    return [Seed(seed.files, checked, names), unhashed(seed.files)]


def unhashed(files: dict[str, bytes] | object) -> Seed:
    """The same store, of which arrays and lists may change their size: the manifest says what is there."""
    assert isinstance(files, dict)  # noqa: S101 - for mypy alone

    def read(data: Path) -> object:
        manifest = json.loads(files["manifest.json"])
        for one in manifest["files"].values():
            path = data / one["name"]
            one["bytes"] = path.stat().st_size if path.is_file() else 0
        (data / "manifest.json").write_text(json.dumps(manifest))
        for split in ("test", "all"):
            open_split(data, split).regions.check(range(2))
        return None

    return Seed(files, read, tuple(name for name in files if name != "manifest.json"))


def truth_seeds(folder: Path) -> list[Seed]:
    """The truth of generated scenes."""
    foils = (Foil(0, 0, "a red cube", "attribute"), Foil(1, 2, "a cube left of a ball", "relation"))
    write_truth(folder, "test", Truth(({1: (0, 2), 3: (1,)}, {0: (1,)}, {}), foils))
    return [Seed.of(folder, lambda data: read_truth(data, "test"))]


def caption_seeds(folder: Path) -> list[Seed]:
    """Lines of captions, tokenised as for training."""
    del folder
    return [Seed({"caps.txt": lines(SENTENCES)}, read_tokens)]


def read_tokens(data: Path) -> object:
    """Captions, their vocabulary and their tokens."""
    captions = read_captions(data / "caps.txt")
    WordRules().spans(captions)
    return Tokenizer.build(captions, 1).encode(captions)


def picture_folder_seeds(folder: Path) -> list[Seed]:
    """Pictures with captions in each of the three files."""
    del folder
    pictures = {f"p{number}.png": picture("PNG", (9 + number, 8)) for number in range(IMAGES)}
    plain = lines([f"p{number % IMAGES}.png#{number}\t{text}" for number, text in enumerate(SENTENCES)])
    splits = ("train", "train", "dev", "test", "test")
    split = lines([f"p{number}.png\t{text}\t{splits[number]}" for number, text in enumerate(WORDS)])
    document = json.dumps(karpathy_document()).encode()
    every = {"captions.txt": plain}, {"captions.tsv": split}, {"captions.json": document}
    return [Seed({**pictures, **one}, checked, (*one, *one, *one, "p1.png")) for one in every]


def vocabulary_seeds(folder: Path) -> list[Seed]:
    """A tokenizer of the package, and the list of words of published checkpoints."""
    Tokenizer.build(SENTENCES, 1).save(folder / "tokenizer.json")
    own = {"tokenizer.json": (folder / "tokenizer.json").read_bytes()}
    words = {word: number for number, word in enumerate(("<pad>", "<start>", "<end>", "<unk>", "dog", "a", "man"))}
    listed = {"words.json": json.dumps({"word2idx": words, "idx": 7}).encode()}
    return [
        Seed(own, lambda data: use_vocabulary(Tokenizer.from_file(data / "tokenizer.json"))),
        Seed(listed, lambda data: use_vocabulary(Tokenizer.from_file(data / "words.json", boundaries=True))),
    ]


def use_vocabulary(tokenizer: Tokenizer) -> object:
    """What a run does with its vocabulary."""
    tokenizer.words(WORDS[0])
    return tokenizer.encode(WORDS), tokenizer.are_known(WORDS[2]), tokenizer.known_words(), len(tokenizer)


def picture(kind: str, size: tuple[int, int] = (13, 11), **options: object) -> bytes:
    """A picture of a format."""
    mode = str(options.pop("mode", "RGB"))
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind, **options)
    return file.getvalue()


def pictures() -> dict[str, bytes]:
    """Small pictures of every format that this Pillow writes."""
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = [Image.new("P", (9, 7), colour) for colour in range(3)]
    animated = io.BytesIO()
    frames[0].save(animated, "GIF", save_all=True, append_images=frames[1:])
    made = {
        "a.jpg": picture("JPEG", exif=exif),
        "grey.jpg": picture("JPEG", mode="L", progressive=True),
        "cmyk.jpg": picture("JPEG", mode="CMYK"),
        "a.png": picture("PNG"),
        "clear.png": picture("PNG", mode="RGBA"),
        "palette.png": picture("PNG", mode="P", transparency=3),
        "deep.png": picture("PNG", mode="I;16"),
        "a.webp": picture("WEBP"),
        "a.gif": animated.getvalue(),
        "a.bmp": picture("BMP"),
        "a.tif": picture("TIFF", compression="tiff_lzw"),
        "plain.tif": picture("TIFF"),
        "a.ppm": picture("PPM"),
        "a.tga": picture("TGA", compression="tga_rle"),
        "a.ico": picture("ICO", (16, 16)),
    }
    for name, kind in (("a.jp2", "JPEG2000"), ("a.avif", "AVIF")):
        try:
            made[name] = picture(kind)
        except (KeyError, OSError):
            continue
    return made


def picture_seeds(folder: Path) -> list[Seed]:
    """A picture of each format, from a file and from bytes."""
    del folder
    found = []
    for name, content in pictures().items():
        found.append(Seed({name: content}, partial(decoded, name=name)))
    return found


def decoded(data: Path, name: str) -> object:
    """A picture as the package decodes it from a file and from bytes, and its size from the header."""
    path = data / name
    size_of(path)
    return read_picture(path if len(name) % 2 else (path.read_bytes() if path.is_file() else path), max_pixels=10**6)


def entities_seeds(folder: Path) -> list[Seed]:
    """Flickr30K Entities beside SCAN's files."""
    del folder
    text = "[/EN#1/people Two men] (in red) [/EN#2/other/scene run] .\nanother [/EN#1/people man]\n"
    thing = (
        "<object><name>{}</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>60</xmax><ymax>70</ymax></bndbox></object>"
    )
    xml = (
        f"<annotation><size><width>100</width><height>80</height></size>{thing.format(1)}{thing.format(2)}</annotation>"
    )
    files = {
        "test_ims.npy": saved(features()),
        "test_caps.txt": lines(["Two men (in red) run .", *SENTENCES[:4]]),
        "test_ids.txt": lines([f"{number}.jpg" for number in range(IMAGES)]),
        "test_boxes.npy": saved(boxes()),
        "Sentences/0.txt": text.encode(),
        "Annotations/0.xml": xml.encode(),
    }
    targets = ("Sentences/0.txt", "Annotations/0.xml", "Annotations/0.xml")
    words = WordRules().words
    return [Seed(files, lambda data: read_entities(data, open_split(data, "test"), words), targets)]


def composition_seeds(folder: Path) -> list[Seed]:
    """SugarCrepe, ARO and Winoground."""
    del folder
    crepe = {"0": {"filename": "1.jpg", "caption": "a dog", "negative_caption": "a cat"}}
    box = {"bbox_x": 1, "bbox_y": 2, "bbox_w": 3, "bbox_h": 4.5}
    aro = [{"image_path": "1.jpg", "true_caption": "a", "false_caption": "b", **box, "relation_name": "on"}]
    pair = {"image_0": "a", "image_1": "b", "caption_0": "x y", "caption_1": "y x", "tag": "Object", "id": 1}
    files = (
        {"swap_att.json": json.dumps(crepe).encode()},
        {"visual_genome_relation.json": json.dumps(aro).encode()},
        {"examples.jsonl": json_lines([pair, pair])},
    )
    return [Seed(one, read_composition) for one in files]


def metadata_seeds(folder: Path) -> list[Seed]:
    """Metadata of pictures for an index."""
    del folder
    rows = [{"id": f"i{number}", "year": 2000 + number, "place": "Oslo", "indoors": True} for number in range(3)]
    table = b'file,year,place,price\np0.jpg,2001,Oslo,1.5\np1.jpg,2002,"a, b",2\n'
    files = (("m.jsonl", json_lines(rows)), ("m.csv", table), ("m.tsv", table.replace(b",", b"\t")))
    return [Seed({name: content}, partial(read_table, name=name)) for name, content in files]


def read_table(data: Path, name: str) -> object:
    """Metadata, and a column of it as an index takes it."""
    found = read_metadata(data / name)
    return found.columns(found.rows.values(), found.types)


READERS = (
    Reader("npy headers and arrays", 12_000, npy_seeds),
    Reader("precomp folders", 5_000, precomp_seeds),
    Reader("Karpathy's JSON", 4_000, karpathy_seeds),
    Reader("feature stores and manifests", 6_000, store_seeds),
    Reader("truth of scenes", 2_500, truth_seeds),
    Reader("captions", 4_000, caption_seeds),
    Reader("folders of pictures with captions", 3_000, picture_folder_seeds),
    Reader("vocabularies", 5_000, vocabulary_seeds),
    Reader("pictures", 8_000, picture_seeds),
    Reader("phrases and their boxes", 2_500, entities_seeds),
    Reader("benchmarks of composition", 2_500, composition_seeds),
    Reader("metadata of pictures", 3_500, metadata_seeds),
)
