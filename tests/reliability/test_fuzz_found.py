"""What `make fuzz` found, each as the smallest input: refused by a sentence where it was once a traceback or a hang."""

from __future__ import annotations

import io
import json
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_tensors

from reliability.fuzzing.data_readers import boxes, karpathy_document, lines, precomp_seeds, saved, store_files
from reliability.fuzzing.model_readers import save_run, settings, token_store
from tshsr.config.models import DsgslConfig
from tshsr.config.run import RunConfig, read_config, write_config
from tshsr.data.check import check_data
from tshsr.data.composition import read_composition
from tshsr.data.karpathy import read_images
from tshsr.data.npy import NpyFile
from tshsr.data.precomp import read_boxes
from tshsr.data.store import open_store
from tshsr.data.text import Tokenizer
from tshsr.errors import CheckpointError, DataError, InputError, SettingsError, TshsrError, parse_json
from tshsr.evaluation.matrix import evaluate_matrix
from tshsr.evaluation.score_files import read_image_of_caption, read_scores
from tshsr.features.extractor import PictureRegions
from tshsr.features.resume import FinishedPicture, WorkFolder, read_existing
from tshsr.index.about import IndexInfo, locate_run
from tshsr.index.database import LANCE_ERRORS, without_panics
from tshsr.index.metadata import read_metadata
from tshsr.knowledge.graph import ConceptGraph
from tshsr.metrics.coco import read_annotation
from tshsr.metrics.human import read_judgements
from tshsr.metrics.report import read_report
from tshsr.metrics.scan_logs import audit
from tshsr.pretrained.word_vectors import read_word_vectors
from tshsr.retriever import Retriever
from tshsr.scoring.calibration import Calibration
from tshsr.server.guard import check_address
from tshsr.training.checkpoints import load_run
from tshsr.training.log import lines_until
from tshsr.training.state import optimiser_tensors, set_optimiser_tensors

DEEP = "[" * 100_000 + "]" * 100_000
LONG = "9" * 5000


def npy(header: str) -> bytes:
    """A .npy file with this header and a few values."""
    encoded = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(encoded)) + encoded + bytes(64)


def described(shape: str, descr: str = "'<f4'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}"


def archive(**members: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as opened:
        for name, content in members.items():
            opened.writestr(name.replace("_", "."), content)
    return made.getvalue()


HEADERS = (
    described(f"(1, {10**30}, 4)"),
    described("(2, -1, 4)"),
    described("(2, True, 4)"),
    described("(" * 4000 + ")" * 4000),
    described("[" * 300),
    described("(1, 2, 4)", "'" * 3),
    "-" * 4000 + "1",
)


@pytest.mark.parametrize("header", HEADERS)
def test_headers_of_arrays(tmp_path: Path, header: str) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(npy(header))
    with pytest.raises(DataError, match=r"header"):
        NpyFile.open(path, axes=3)
    with pytest.raises(DataError, match="holds no readable scores"):
        read_scores(path)
    (tmp_path / "a.txt").write_text("dog\n")
    with pytest.raises(DataError, match="is no array of numpy"):
        read_word_vectors(str(path), {"dog": 0}, 4)
    (tmp_path / "boxes.npz").write_bytes(archive(boxes_npy=npy(header)))
    with pytest.raises(DataError, match="cannot read an array named boxes"):
        read_boxes(tmp_path / "boxes")


@pytest.mark.parametrize("content", [b"no array", saved(np.float32(1)), saved(np.ones((5, 3, 4), np.complex64))])
def test_members_of_archives(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "boxes.npz").write_bytes(archive(boxes_npy=content))
    with pytest.raises(DataError, match=r"boxes\.npz holds boxes of"):
        read_boxes(tmp_path / "boxes")
    (tmp_path / "s.npz").write_bytes(archive(scores_npy=content))
    with pytest.raises(DataError, match=r"the magic string|expected floats"):
        read_scores(tmp_path / "s.npz")


def test_an_array_of_another_kind_of_boxes_is_a_problem_of_the_data(tmp_path: Path) -> None:
    for name, content in precomp_seeds(tmp_path)[0].files.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "test_boxes.npz").write_bytes(archive(boxes_npy=saved(boxes()[0])))
    assert "expected floats of shape images x regions x 4" in check_data(tmp_path)[0][0]


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "karpathy": ("d.json", read_images),
    "vocabulary": ("t.json", Tokenizer.from_file),
    "sugarcrepe": ("swap_att.json", read_composition),
    "winoground": ("examples.jsonl", read_composition),
    "metadata": ("m.jsonl", read_metadata),
    "report": ("r.json", read_report),
    "judgements": ("j.jsonl", lambda path: read_judgements(path, {}, {})),
    "coco": ("a.json", read_annotation),
    "settings": ("config.json", read_config),
    "calibration": ("calibration.json", lambda path: Calibration.load(path.parent)),
    "captions": ("c.json", lambda path: read_image_of_caption(path, 1, 1)),
}


@pytest.mark.parametrize("text", [DEEP, LONG, '{"a":' * 100_000], ids=["deep", "long", "open"])
@pytest.mark.parametrize("reader", READERS)
def test_json_that_pythons_parser_gives_up_on(tmp_path: Path, reader: str, text: str) -> None:
    name, read = READERS[reader]
    (tmp_path / name).write_text(text)
    with pytest.raises(TshsrError) as caught:
        read(tmp_path / name)
    assert name in str(caught.value)


@pytest.mark.parametrize("text", [DEEP, LONG, '"\\ud800"'], ids=["deep", "long", "half"])
def test_a_concept_graph_with_json_that_pythons_parser_gives_up_on(tmp_path: Path, text: str) -> None:
    path = tmp_path / "concepts.safetensors"
    save_file({"counts": np.zeros(1)}, path, {"tshsr": text})
    with pytest.raises(DataError, match=r"concepts\.safetensors is damaged, or no concept graph \("):
        ConceptGraph.load(path)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float8_e5m2])
def test_a_concept_graph_with_values_of_a_type_that_numpy_lacks(tmp_path: Path, kind: torch.dtype) -> None:
    path = tmp_path / "concepts.safetensors"
    save_tensors({"edges": torch.zeros(4).to(kind)}, path)
    with pytest.raises(DataError, match=r"concepts\.safetensors is damaged, or no concept graph \("):
        ConceptGraph.load(path)


def test_json_is_read_or_a_value_error() -> None:
    assert parse_json(b'{"a": [1.5, null]}') == {"a": [1.5, None]}
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json(DEEP)


def test_infinity_in_an_annotation_of_coco(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"1": [1e999]}')
    with pytest.raises(DataError, match="is no annotation"):
        read_annotation(tmp_path / "a.json")


def test_a_store_that_names_an_image_twice_and_another_not_at_all(tmp_path: Path) -> None:
    store_files(tmp_path)
    for text, message in (("i0", "1 images with captions are missing"), ("i9", "1 images with captions are missing")):
        changed = (tmp_path / "images.jsonl").read_text().replace('"i4"', f'"{text}"')
        (tmp_path / "images.jsonl").write_text(changed)
        with pytest.raises(DataError, match=message):
            open_store(tmp_path, "all")


def test_a_store_that_names_an_image_twice(tmp_path: Path) -> None:
    store_files(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    for name in ("images", "captions"):
        path = tmp_path / manifest["files"][name]["name"]
        path.write_text(path.read_text().replace('"i4"', '"i0"'))
    with pytest.raises(DataError, match="two images share an id"):
        open_store(tmp_path, "all")


def run(folder: Path, **changes: Any) -> Path:
    """A small run with other settings of its model; dots are underscores."""
    save_run(folder, settings("sgraf"))
    values = json.loads((folder / "config.json").read_text())
    for place, value in changes.items():
        *parts, last = place.split("__")
        inner = values["model"]
        for part in parts:
            inner = inner[part]
        inner[last] = value
    (folder / "config.json").write_text(json.dumps(values))
    return folder


def test_settings_that_ask_for_any_amount_of_memory(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has shape .*, the settings require"):
        load_run(run(tmp_path / "a", similarity_dim=10**7))
    with pytest.raises(CheckpointError, match=r"config\.json describes no network"):
        load_run(run(tmp_path / "b", similarity_dim=10**18))
    with pytest.raises(CheckpointError, match=r"config\.json describes no network"):
        load_run(run(tmp_path / "c", encoder__word_dim=-1))
    with pytest.raises(SettingsError, match=r"'model\.steps' is 1000000000; expected at most 1,000"):
        load_run(run(tmp_path / "d", steps=10**9))
    (tmp_path / "e.json").write_text(write_config(RunConfig(model=DsgslConfig(graph_steps=10**9))))
    with pytest.raises(SettingsError, match=r"'model\.graph_steps' is 1000000000; expected at most 1,000"):
        read_config(tmp_path / "e.json")


def test_settings_that_are_a_long_list(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps([list(range(5000))]))
    with pytest.raises(SettingsError) as caught:
        read_config(tmp_path / "config.json")
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


def test_lines_of_a_log_that_are_no_steps(tmp_path: Path) -> None:
    good = '{"step": 1}\n'
    (tmp_path / "log.jsonl").write_text(f'{good}7\n[]\n{{"step": "1"}}\n{{}}\n{LONG}\n{DEEP}\n{{"step": 9}}\n')
    assert lines_until(tmp_path / "log.jsonl", 5) == [good]


@pytest.mark.parametrize("text", [f"rsum: {'9' * 100_000} ", "image to text (" * 20_000, "rsum: " + "1" * 50_000 + "."])
def test_a_long_line_of_a_log_takes_time_in_proportion(text: str) -> None:
    started = time.process_time()
    audit(text)
    assert time.process_time() - started < 5


def test_a_list_of_files_that_is_a_folder(tmp_path: Path) -> None:
    store_files(tmp_path)
    (tmp_path / "files.jsonl").mkdir()
    assert read_existing(tmp_path, "small", "float32", 2).split is None


@pytest.mark.parametrize("base", [Exception, BaseException])
def test_a_panic_of_rust_code_is_an_error_of_the_table(base: type[BaseException]) -> None:
    panic = type("RustPanic" if base is Exception else "PanicException", (base,), {})
    with pytest.raises(LANCE_ERRORS, match="a file is damaged"), without_panics():
        raise panic("range end index 2097553560 out of range")
    with pytest.raises(KeyboardInterrupt), without_panics():
        raise KeyboardInterrupt


def test_names_of_runs_that_no_folder_can_have(tmp_path: Path) -> None:
    info = IndexInfo(1, "model", "weights", 8, "small", {}, run="x" * 5000, beside="../run")
    with pytest.raises(CheckpointError, match="which is gone; name it with --run RUN"):
        locate_run(tmp_path, info, None)
    for name in ("x" * 5000, "~nosuchuser/run", "a\0b"):
        with pytest.raises(CheckpointError, match="name"):
            Retriever.from_pretrained(name)


def test_an_address_with_raw_bytes_is_refused() -> None:
    from starlette.exceptions import HTTPException

    with pytest.raises(HTTPException, match="expected UTF-8 with percent signs"):
        check_address({"type": "http", "query_string": b"q=\xff"})
    check_address({"type": "http", "query_string": b"q=caf%C3%A9"})


def test_the_seeds_of_the_campaign_are_what_the_readers_accept(tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text(json.dumps(karpathy_document()))
    assert len(read_images(tmp_path / "d.json")) == 5
    assert lines(["a", "b"]) == b"a\nb\n"


def test_a_split_of_karpathys_json_that_is_a_list(tmp_path: Path) -> None:
    document: Any = karpathy_document()
    document["images"][1]["split"] = ["train"]
    (tmp_path / "d.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"images\[1\] has split \['train'\]; expected one of"):
        read_images(tmp_path / "d.json")


@pytest.mark.parametrize("number", [2**31, 7])
def test_a_vocabulary_with_a_number_that_it_has_no_words_for(tmp_path: Path, number: int) -> None:
    Tokenizer.build(["a dog"], 1).save(tmp_path / "tokenizer.json")
    values = json.loads((tmp_path / "tokenizer.json").read_text())
    values["model"]["vocab"]["dog"] = number
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    with pytest.raises(DataError, match=rf"has 4 words and the number {number}; expected each number from 0 once"):
        Tokenizer.from_file(tmp_path / "tokenizer.json")


def test_figures_of_a_log_that_are_no_numbers_in_any_case() -> None:
    found = audit("Image to text: NaN INF -Inf 1.0 2.0\nrsum: \u0131nf\n").findings
    assert [finding.note for finding in found] == ["a recall is no number between 0 and 100"]


def test_links_in_a_cache_of_token_states_are_not_followed(tmp_path: Path) -> None:
    store = token_store(tmp_path / "cache")
    store.open()
    kept = tmp_path / "kept.bin"
    kept.write_bytes(b"must stay")
    for name in ("pooled.bin", "manifest.json"):
        (store.folder / name).unlink()
        (store.folder / name).symlink_to(kept)
        with pytest.warns(UserWarning, match="is damaged; the token states are computed again"):
            assert len(token_store(tmp_path / "cache").open()) == 10
        assert kept.read_bytes() == b"must stay"


def test_a_part_of_interrupted_work_that_is_a_folder_or_lacks_boxes(tmp_path: Path) -> None:
    regions = PictureRegions(np.ones((2, 4), np.float32), np.zeros((2, 4), np.float32), np.ones(2, np.float32))
    WorkFolder(tmp_path, 2).add([FinishedPicture("p.png", 9, 1, 8, 6, 2)], [regions])
    part = tmp_path / "part-000000.safetensors"
    part.write_bytes(part.read_bytes().replace(b'"boxes"', b'"faxes"'))
    assert not WorkFolder(tmp_path, 2).pictures
    part.unlink(missing_ok=True)
    part.mkdir()
    assert not WorkFolder(tmp_path, 2).pictures


def test_half_a_character_in_a_sentence() -> None:
    with pytest.raises(InputError, match=r"caption 0 has half a character: 'a \\ud800'"):
        Tokenizer.build(["a dog"], 1).encode(["a \ud800"])


def test_tables_of_judgements_with_short_lines_and_long_values(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("more,image,caption,rating\n1,a,b,2\n1,a,b\n")
    with pytest.raises(DataError, match=r"line 3 has 3 columns; expected image, caption and rating"):
        read_judgements(tmp_path / "r.csv", {"a": 0}, {"b": 0})
    (tmp_path / "r.csv").write_text(f"a,b,{'1' * 200_000}\n")
    with pytest.raises(DataError, match=r"is no table \(field larger than field limit"):
        read_judgements(tmp_path / "r.csv", {"a": 0}, {"b": 0})


HALF = '{"a": "\\ud800"}'


@pytest.mark.parametrize(
    "text", [HALF, HALF.encode(), '["a \ud800"]', '{"\\udcff": 1}', '[[{"a": ["\\uDC00\\ud83d"]}]]']
)
def test_json_with_half_a_character_is_no_json(text: str | bytes) -> None:
    with pytest.raises(ValueError, match="it holds half a character"):
        parse_json(text)


def test_json_with_whole_characters_beyond_16_bits_is_read() -> None:
    assert parse_json('["\\ud83d\\ude00", "\U0001f600", "\\\\ud800"]') == ["\U0001f600", "\U0001f600", "\\ud800"]
    assert "é" in str(parse_json('{"a":' * 400 + '"é"' + "}" * 400))


@pytest.mark.parametrize("name", ["a\0b", "n" * 5000])
def test_files_and_folders_of_a_store_that_no_system_has(tmp_path: Path, name: str) -> None:
    store_files(tmp_path)
    values = json.loads((tmp_path / "manifest.json").read_text())
    values["settings"]["pictures"] = name
    (tmp_path / "manifest.json").write_text(json.dumps(values))
    assert open_store(tmp_path, "all").pictures is None
    values["files"]["boxes"]["name"] = name
    (tmp_path / "manifest.json").write_text(json.dumps(values))
    with pytest.raises(DataError, match=r"which no system allows|File name too long"):
        open_store(tmp_path, "all")


@pytest.mark.parametrize("number", ["1e999", "9" * 400])
def test_figures_of_a_report_that_are_not_finite(tmp_path: Path, number: str) -> None:
    report = evaluate_matrix(np.eye(2, dtype=np.float32), np.arange(2)).to_json()
    assert '"seconds": 0.0' in report
    (tmp_path / "r.json").write_text(report.replace('"seconds": 0.0', f'"seconds": {number}'))
    with pytest.raises(DataError, match=r"r\.json: seconds: Input should be a finite number"):
        read_report(tmp_path / "r.json")


@pytest.mark.parametrize(("name", "value"), [("step", 1e30), ("step", -1.0), ("step", 0.5), ("step", float("nan"))])
def test_a_number_of_steps_that_adam_can_not_have_made(name: str, value: float) -> None:
    optimiser, tensors = stepped()
    with pytest.raises(CheckpointError, match="holds no state of this optimiser"):
        set_optimiser_tensors(optimiser, {**tensors, f"0.{name}": torch.tensor(value)}, Path("o"))


@pytest.mark.parametrize("missing", ["step", "exp_avg", "exp_avg_sq"])
def test_a_state_of_adam_that_lacks_a_part(missing: str) -> None:
    optimiser, tensors = stepped()
    del tensors[f"0.{missing}"]
    with pytest.raises(CheckpointError, match="holds no state of this optimiser"):
        set_optimiser_tensors(optimiser, tensors, Path("o"))


def stepped() -> tuple[torch.optim.Optimizer, dict[str, torch.Tensor]]:
    """An optimiser after a step, and its tensors, which it takes back."""
    parameter = torch.nn.Parameter(torch.ones(2))
    optimiser = torch.optim.Adam([parameter])
    parameter.sum().backward()
    optimiser.step()
    tensors = {name: tensor.clone() for name, tensor in optimiser_tensors(optimiser).items()}
    set_optimiser_tensors(optimiser, tensors, Path("o"))
    return optimiser, tensors
