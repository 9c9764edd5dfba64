"""Long jobs that are killed and continued, and what they leave: runs of training, features, an index, photographs."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from uuid import uuid4

import torch

from reliability.writers import digest, index_retriever
from tests.support.extractors import Means
from tests.support.picture_files import drawn, write_pictures
from tests.support.small_runs import small_config, small_split, with_loss
from tests.support.tiny_text import save_text
from tshsr.config.run import RunConfig
from tshsr.data.text import Tokenizer
from tshsr.models.build import build_matcher
from tshsr.retriever import Retriever
from tshsr.training.fit import fit
from tshsr.training.state import is_begun, load_state


@dataclass(frozen=True)
class Job:
    """A job that the same call continues after a kill.

    Attributes:
        name: In results.
        begin: Makes what it reads, and the state that it starts from, in a new folder.
        run: Starts or continues it in that folder.
        end: A digest of all that it leaves, without times.
        progress: What the next run need not do again: steps, pictures, rows.
    """

    name: str
    begin: Callable[[Path], None]
    run: Callable[[Path], None]
    end: Callable[[Path], str]
    progress: Callable[[Path], int]


def nothing(folder: Path) -> None:
    """A job that starts from an empty folder."""
    folder.mkdir(parents=True, exist_ok=True)


def train(config: Callable[[Path], RunConfig], folder: Path, *, images: int = 10, each: int = 2) -> None:
    """Start or resume a run on the CPU; the data lie beside the folder."""
    warnings.simplefilter("error")
    data = folder.parent / f"data-{images}-{os.environ.get('RANK', 0)}"
    split, dev = small_split(data, "train", images, each=each), small_split(data, "dev", 6)
    fit(config(folder), train=split, dev=dev, out=folder / "run", resume=True, device="cpu")


def plain(_: Path) -> RunConfig:
    """Words from a vocabulary; a save after every step."""
    return small_config(epochs=3, candidates=2)


def robust(_: Path) -> RunConfig:
    """The robust loss, from the second epoch on, with wrong pairs."""
    return with_loss(
        small_config(epochs=3, batch=64, noise=0.4, save_every_steps=2), robust="mixture", warmup_epochs=1.0
    )


def pretrained(tuned: int, folder: Path) -> RunConfig:
    """Words of a tiny BERT, whose last layers are tuned."""
    encoder = folder.parent / "bert"
    if not encoder.exists():
        made = save_text("bert", folder.parent / f"bert-{uuid4().hex}")
        made.rename(encoder)
    config = small_config(epochs=2)
    text = {"text": "pretrained", "text_weights": str(encoder), "text_tuned_layers": tuned}
    return replace(config, model=replace(config.model, encoder=replace(config.model.encoder, **text)))  # type: ignore[arg-type]


def train_together(folder: Path) -> None:
    """Train in two processes, as `torchrun --standalone --nproc-per-node 2` starts them, but forked."""
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as torchrun does
    where = {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "run_id": str(uuid4())}
    launch = LaunchConfig(1, 1, 2, **where, start_method="fork", max_restarts=0)  # type: ignore[arg-type]
    elastic_launch(launch, together)(folder)


def together(folder: Path) -> None:
    """One of the two processes."""
    train(lambda _: small_config(epochs=2, batch=10), folder)


def end_of_run(folder: Path) -> str:
    """Weights, states, log, settings and words of a finished run, bit for bit."""
    out = folder / "run"
    names = ("best/model.safetensors", "last/model.safetensors", "last/optimiser.safetensors", "best/state.json")
    more = [name for name in ("tokenizer.json", "last/standings.safetensors") if (out / name).exists()]
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    state = json.loads((out / "last" / "state.json").read_text(encoding="utf-8"))
    files = [(out / name).read_bytes() for name in (*names, *more)]
    log = [{**line, "seconds": 0} for line in lines]
    settings = (out / "config.json").read_text(encoding="utf-8").replace(str(folder.parent), "")
    left = sorted(path.name for path in out.glob(".*.partial"))
    return digest(*files, log, {**state, "seconds": 0}, settings, left)


def saved_steps(folder: Path) -> int:
    """Steps of the saved state."""
    return load_state(folder / "run").step if is_begun(folder / "run") else 0


def write_some_pictures(folder: Path) -> None:
    """A folder of 12 pictures with fixed times."""
    folder.mkdir(parents=True, exist_ok=True)
    write_pictures(folder / "pictures", 12)
    for path in (folder / "pictures").rglob("*.jpg"):
        os.utime(path, ns=(10**18, 10**18))


def features(folder: Path) -> None:
    """Extract them in shards of 4, and write the work folder after every batch."""
    from tshsr.features import extraction, shards

    vars(extraction)["SHARD"] = 4
    shards.PART_SECONDS = 0.0
    options = shards.ExtractionOptions(batch=2)
    extraction.extract_folder(folder / "pictures", folder / "store", Means(), options=options)


def end_of_features(folder: Path) -> str:
    """All files of the store but the place of the pictures, and of the folders beside it."""
    store = folder / "store"
    manifest = json.loads((store / "manifest.json").read_text(encoding="utf-8"))
    manifest["settings"].pop("pictures")
    contents = [hash_of(store / file.pop("name")) for file in manifest["files"].values()]
    return digest(contents, manifest, (store / "files.jsonl").read_bytes(), len(list(folder.glob(".store*"))))


def finished_pictures(store: str, dtype: str, folder: Path) -> int:
    """Pictures, as they are now, whose features are in a store or in its work folder."""
    from safetensors import safe_open

    from tshsr.data.pictures import find_pictures
    from tshsr.features.resume import RECORDS, FinishedPicture, read_existing

    records = []
    for part in (folder / store).parent.glob(f".{Path(store).name}.*.work/part-*.safetensors"):
        with safe_open(part, "numpy") as opened:
            records += [FinishedPicture(**record) for record in json.loads((opened.metadata() or {})[RECORDS])]
    existing = read_existing(folder / store, Means().name, dtype, Means().joint_dim)
    found, _ = find_pictures(folder / "pictures")
    return sum(existing.has(file) or any(record.matches(file) for record in records) for file in found)


def hash_of(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def index(folder: Path) -> None:
    """Index 12 pictures and their captions, two in each commit."""
    from tshsr.index import building
    from tshsr.index.collection import Index

    building.Addition.rows_per_shard = property(lambda _: 2)  # type: ignore[assignment,method-assign]
    split = small_split(folder.parent / "data", "train", 12, each=1)
    Index.build(folder / "index", index_retriever(), split)


def end_of_index(folder: Path) -> str:
    """All columns of all rows, by id, and the description of the index."""
    return digest(rows_of(folder / "index"), (folder / "index" / "index.json").read_bytes())


def rows_of(index_folder: Path) -> str:
    """A hash of the rows of both tables, by id."""
    from tshsr.index.database import open_table

    found = []
    for name in ("pictures", "captions"):
        rows = open_table(index_folder, name).to_arrow().sort_by("id")
        shown = [{key: value for key, value in row.items() if key != "folder"} for row in rows.to_pylist()]
        found.append(shown)
    return digest(found)


def indexed_rows(folder: Path) -> int:
    """Pictures and captions of the index."""
    return sum(len(ids_in(folder / "index", name)) for name in ("pictures", "captions"))


def ids_in(index_folder: Path, table: str) -> set[str]:
    """Ids of the rows of a table; none where there is no table yet."""
    from tshsr.index.database import ids_of, open_table

    if not any((index_folder / f"{table}.lance" / "_versions").glob("*.manifest")):
        return set()
    return set(ids_of(open_table(index_folder, table)))


def changes_of_index(folder: Path) -> None:
    """Encode all pictures of an index again, remove some, and add these again, six times; old versions are deleted."""
    from tshsr.index.collection import Index

    split = small_split(folder.parent / "data", "train", 12, each=1)
    changed = Index(folder / "index", index_retriever())
    for _ in range(6):
        changed.replace(split)
        changed.delete(split.image_ids[:4])
        changed.add(split)


def end_of_rows(folder: Path) -> str:
    """All columns of all rows, by id."""
    return rows_of(folder / "index")


def photographs_retriever() -> Retriever:
    """A tiny network over the features of `Means`, which is its extractor."""
    import tshsr.retriever

    vars(tshsr.retriever)["extractor_named"] = lambda name, **_: replace(Means(), name=name)
    tokenizer = Tokenizer.build(["a red dog", "one blue boat"], 1)
    config = small_config()
    encoder = replace(config.model.encoder, feature_dim=4, vocabulary=len(tokenizer))
    config = replace(config, extractor="means", model=replace(config.model, encoder=encoder))
    torch.manual_seed(0)
    return Retriever(build_matcher(config.model), tokenizer, config, "tiny")


def photographs(folder: Path) -> None:
    """Make or update the collection of the pictures."""
    from tshsr.features import extraction, shards
    from tshsr.index import building
    from tshsr.index.photographs import OPTIONS, update_photographs

    vars(extraction)["SHARD"] = 4
    shards.PART_SECONDS = 0.0
    building.Addition.rows_per_shard = property(lambda _: 4)  # type: ignore[assignment,method-assign]
    options = replace(OPTIONS, batch=2)
    update_photographs(folder / "pictures", folder / "out", photographs_retriever(), run="nowhere", options=options)


def photographs_to_update(folder: Path) -> None:
    """A collection whose pictures have changed since: one is gone, two are others, two are new."""
    write_some_pictures(folder)
    photographs(folder)
    pictures = folder / "pictures"
    (pictures / "p02.jpg").unlink()
    for number, name in enumerate(("p04.jpg", "a/p01.jpg", "new.jpg", "a/newer.jpg")):
        drawn(70 + number, (350, 120)).save(pictures / name)
        os.utime(pictures / name, ns=(2 * 10**18, 2 * 10**18))


def end_of_photographs(folder: Path) -> str:
    """Rows of the index, the list of indexed files, and features of the store by picture."""
    from tshsr.data.store import open_store

    out = folder / "out"
    split = open_store(out / "store", "all")
    rows = {
        name: split.regions.read_array(torch.arange(len(split.regions)).numpy()[at : at + 1]).tobytes()
        for at, name in enumerate(split.image_ids)
    }
    left = sorted(path.name for path in out.glob(".*") if path.name != ".lock")
    return digest(rows_of(out / "index"), (out / "indexed.json").read_bytes(), sorted(rows.items()), left)


def collected_pictures(folder: Path) -> int:
    """Pictures, as they are now, with features, and those with a row of the index."""
    from tshsr.data.pictures import find_pictures

    out = folder / "out"
    made_of = json.loads((out / "indexed.json").read_text(encoding="utf-8")) if (out / "indexed.json").exists() else {}
    files = {name: (file["bytes"], file["changed"]) for name, file in made_of.items()}
    indexed = ids_in(out / "index", "pictures")
    found, _ = find_pictures(folder / "pictures")
    current = [file for file in found if file.id in indexed and files.get(file.id) == (file.bytes, file.changed)]
    return finished_pictures("out/store", "float16", folder) + len(current)


def run_of(name: str, run: Callable[[Path], None]) -> Job:
    """A training."""
    return Job(name, nothing, run, end_of_run, saved_steps)


TRAINING = (
    run_of("training", partial(train, plain)),
    run_of("training with a frozen text encoder", partial(train, partial(pretrained, 0))),
    run_of("training with a tuned text encoder", partial(train, partial(pretrained, 1))),
    run_of("training with the robust loss", partial(train, robust, images=25, each=8)),
    run_of("training by two processes (torchrun)", train_together),
)
COLLECTIONS = (
    Job("features", write_some_pictures, features, end_of_features, partial(finished_pictures, "store", "float32")),
    Job("index", nothing, index, end_of_index, indexed_rows),
    Job("photos", write_some_pictures, photographs, end_of_photographs, collected_pictures),
    Job("photos, an update", photographs_to_update, photographs, end_of_photographs, collected_pictures),
)
