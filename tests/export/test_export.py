"""Exported graphs give our scores, for any number of pairs, regions and words."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.support import tiny
from tests.support.command_line import refused, tshsr
from tests.support.methods import METHODS
from tests.support.methods import network as method_network
from tests.support.tiny_text import CAPTIONS, save_text
from tshsr.config.models import EncoderConfig, ReasoningConfig
from tshsr.config.run import RunConfig
from tshsr.data.batches import ImageBatch
from tshsr.data.text import Tokenizer
from tshsr.errors import DataError, SettingsError
from tshsr.export import files
from tshsr.export.files import describe_tokenizer, export, program, quantise, write_graph
from tshsr.export.graphs import GRAPHS, Graph, exportable, head_graph, images_graph, text_graph
from tshsr.files import write_bytes
from tshsr.models.base import ItemEncoding
from tshsr.models.build import build_matcher
from tshsr.pretrained.frozen_text import FrozenText
from tshsr.pretrained.layers import Layers
from tshsr.pretrained.text import token_batch
from tshsr.retriever import Retriever

SAME = 1e-5
"""Largest difference of a score in 0..1 from ours: rounding of float32 in another order of operations."""
SIZES = ((3, 5, 4), (1, 5, 4), (7, 1, 2), (2, 9, 1), (1, 1, 1))
"""Pairs, regions and words."""

pytestmark = pytest.mark.slow  # the exporter takes seconds to load, and for each graph


def session(file: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(file, options)


def arrays(tensors: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: one.numpy() for name, one in tensors.items()}


def retriever_of(encoder: EncoderConfig, **changes: Any) -> Retriever:
    """An untrained network with a vocabulary."""
    tokenizer = Tokenizer.build([" ".join(f"word{number}" for number in range(17))], 1)
    config = tiny.config(encoder=replace(encoder, vocabulary=len(tokenizer)), **changes)
    return Retriever(build_matcher(config), tokenizer, RunConfig("tiny", config, extractor="any"), "tiny")


@torch.no_grad()
def head_inputs(retriever: Retriever, pairs: int, regions: int, words: int) -> dict[str, torch.Tensor]:
    """Encoded pairs with padding, the inputs of the head."""
    real = [max(1, regions - pair) for pair in range(pairs)]
    batch = tiny.images(pairs, regions, real=real)
    boxes = None if batch.boxes is None else batch.boxes.float()
    images = retriever.matcher.encode_images(ImageBatch(batch.regions.float(), batch.mask, boxes))
    captions = retriever.matcher.encode_captions(tiny.captions(tuple(max(1, words - pair) for pair in range(pairs))))
    given = {"regions": images.items, "region_mask": images.mask, "v": images.pooled}
    given |= {"words": captions.items, "word_mask": captions.mask, "t": captions.pooled}
    return given | ({"boxes": batch.boxes.float()} if retriever.matcher.compares_places else {})


@torch.inference_mode()
def our_scores(retriever: Retriever, given: Mapping[str, torch.Tensor]) -> np.ndarray:
    matcher = retriever.matcher
    images = matcher.complete(given["regions"], given["region_mask"], given["v"], given.get("boxes"))
    captions: ItemEncoding = matcher.complete(given["words"], given["word_mask"], given["t"])
    return matcher.score_pairs(images, captions)["fused"].numpy()


@pytest.fixture(scope="module")
def placed() -> Retriever:
    """A network with every part of scoring: global node, places, products, attending context nodes, late terms."""
    torch.manual_seed(0)
    encoder = replace(tiny.ENCODER, boxes=True)
    reasoning = ReasoningConfig(levels=1, seeds=(3,), context_inverse_temperature=6.0)
    options = {"place_term": True, "global_node": True, "products": True, "fusion": "learned"}
    options |= {"pooling": "esa", "late_weight": 6.0, "late_mean": 3.0}
    retriever = retriever_of(encoder, reasoning=reasoning, **options)
    with torch.no_grad():
        for values in retriever.matcher.parameters():
            values.add_(torch.randn_like(values) / 10)
    return retriever


@pytest.fixture(scope="module")
def exported(placed: Retriever, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(placed, tmp_path_factory.mktemp("exported"), int8=True).folder


def test_the_head_gives_our_scores_for_any_number_of_regions_and_words(placed: Retriever, exported: Path) -> None:
    head = session(exported / "head.onnx")
    for sizes in SIZES:
        given = head_inputs(placed, *sizes)
        score, pooled = head.run(None, arrays(given))
        assert np.abs(score - our_scores(placed, given)).max() < SAME, sizes
        assert np.abs(pooled - (given["v"] * given["t"]).sum(dim=-1).numpy()).max() < SAME


def test_padding_does_not_change_what_the_head_gives(placed: Retriever, exported: Path) -> None:
    head, given = session(exported / "head.onnx"), head_inputs(placed, 3, 5, 4)
    wide = dict(given)
    for items, mask in (("regions", "region_mask"), ("words", "word_mask"), ("boxes", "")):
        wide[items] = torch.nn.functional.pad(given[items], (0, 0, 0, 3), value=0.25)
        wide |= {mask: torch.nn.functional.pad(given[mask], (0, 3))} if mask else {}
    assert np.abs(head.run(None, arrays(wide))[0] - head.run(None, arrays(given))[0]).max() < SAME


def test_the_images_are_those_of_the_network(placed: Retriever, exported: Path) -> None:
    images = session(exported / "images.onnx")
    for count, regions in ((3, 5), (1, 1), (4, 2)):
        batch = tiny.images(count, regions, real=[max(1, regions - row) for row in range(count)])
        ours = placed.matcher.encode_images(ImageBatch(batch.regions.float(), batch.mask, batch.boxes.float()))
        given = {"features": batch.regions.float(), "region_mask": batch.mask, "boxes": batch.boxes.float()}
        found, v = images.run(None, arrays(given))
        assert np.abs(found - ours.items.detach().numpy()).max() < SAME
        assert np.abs(v - ours.pooled.detach().numpy()).max() < SAME


def test_int8_scores_are_near_ours_and_their_files_are_graphs(placed: Retriever, exported: Path) -> None:
    given = head_inputs(placed, 3, 5, 4)
    score, _ = session(exported / "head.int8.onnx").run(None, arrays(given))
    assert 0 < np.abs(score - our_scores(placed, given)).max() < 0.1


def test_the_description_names_inputs_with_their_axes(placed: Retriever, exported: Path) -> None:
    values = json.loads((exported / "export.json").read_text())
    assert (values["model"], values["extractor"]) == ("tiny", "any")
    assert values["graphs"]["head"]["files"] == ["head.onnx", "head.int8.onnx"]
    assert values["graphs"]["head"]["inputs"]["regions"] == {"type": "float32", "shape": ["pairs", "regions", 12]}
    assert values["graphs"]["head"]["inputs"]["word_mask"] == {"type": "bool", "shape": ["pairs", "words"]}
    assert values["graphs"]["head"]["outputs"] == ["score", "pooled"]
    assert list(values["graphs"]) == ["head", "images"], "the words are those of a GRU"
    found = session(exported / "head.onnx").get_inputs()
    assert [one.name for one in found] == list(values["graphs"]["head"]["inputs"])


def test_an_export_leaves_the_network_trainable_and_on_its_device(placed: Retriever) -> None:
    assert all(values.requires_grad for values in placed.matcher.parameters())


def test_a_program_of_torch_export_gives_our_scores_without_the_word_encoder(placed: Retriever, tmp_path: Path) -> None:
    made = export(placed, tmp_path / "programs", parts=("head",), format="torch")
    stored = torch.export.load(made.files["head"])
    assert any(name.startswith("word_encoder.") for name in placed.matcher.state_dict())
    assert not any(name.startswith("matcher.word_encoder.") for name in stored.state_dict)
    loaded = stored.module()
    for sizes in SIZES:
        given = head_inputs(placed, *sizes)
        assert np.abs(loaded(**given)[0].detach().numpy() - our_scores(placed, given)).max() < SAME


def test_a_full_disk_leaves_the_former_files(
    placed: Retriever, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("images.pt2", "images.int8.onnx"):
        (tmp_path / name).write_bytes(b"former")

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"^Cannot write .*images\.pt2: No space left on device"):
        write_graph(images_graph(placed), tmp_path / "images.pt2", "torch")
    with pytest.raises(DataError, match=r"^Cannot write .*images\.int8\.onnx: No space left on device"):
        quantise(exported / "images.onnx", tmp_path / "images.int8.onnx")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(DataError, match=r"^Cannot write .*missing: No such file or directory"):
        quantise(exported / "images.onnx", tmp_path / "images.int8.onnx")
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {b"former"}


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Graph]:
    """The graphs of exports whose files name their network: the exporter is left out."""
    graphs: list[Graph] = []

    def write(graph: Graph, path: Path, format: str) -> None:  # noqa: A002
        graphs.append(graph)
        write_bytes(path, f"{graph.name} with weights {next(graph.module.parameters()).sum()}".encode())

    monkeypatch.setattr(files, "write_graph", write)
    return graphs


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Killed(BaseException):
    """Ends an export as a signal does."""


def test_an_export_is_of_one_network_after_a_kill_at_any_moment(
    written: list[Graph], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (retriever_of(replace(tiny.ENCODER, text="transformer")) for _ in range(2))
    out, real, steps = tmp_path / "out", (os.replace, os.unlink), [0]
    seen = set()

    def step(*arguments: Any) -> None:
        if not str(arguments[0]).endswith(".partial"):
            steps[0] -= 1
            if steps[0] == 0:
                raise Killed

    monkeypatch.setattr(Path, "replace", lambda *names: (step(*names), real[0](*names)))
    monkeypatch.setattr(Path, "unlink", lambda path, missing_ok=False: (step(path), path.exists() and real[1](path)))
    for moment in range(1, 100):
        steps[0] = 0
        export(first, out, format="torch")
        (out / "notes.txt").write_bytes(b"mine")
        steps[0] = moment
        try:
            export(second, out, parts=("head",), format="torch")
        except Killed:
            listed = json.loads((out / "export.json").read_text())["sha256"]
            found = contents(out)
            assert found.pop("notes.txt") == b"mine"
            found.pop("export.json")
            assert all(hashlib.sha256(content).hexdigest() == listed[name] for name, content in found.items())
            seen.add(len(found))
        else:
            break
    assert seen >= {0, 3, 4}, "it was stopped before, between and after its steps"
    assert sorted(contents(out)) == ["export.json", "head.pt2", "notes.txt"], "no file of the other network is left"


def test_an_export_that_fails_leaves_the_former_one_and_the_next_clears_up(
    written: list[Graph], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    retriever = retriever_of(replace(tiny.ENCODER, text="transformer"))
    before = contents(export(retriever, tmp_path, format="torch").folder)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(files, "save_tokenizer", full)
        with pytest.raises(DataError, match=r"^Cannot write .*: No space left on device"):
            export(retriever_of(replace(tiny.ENCODER, text="transformer")), tmp_path, format="torch")
    assert contents(tmp_path) == before
    (tmp_path / ".export.1.partial").mkdir()  # of a process that was killed
    export(retriever, tmp_path, format="torch")
    assert contents(tmp_path) == before


def test_files_outside_the_folder_are_not_removed_whatever_a_description_lists(
    written: list[Graph], tmp_path: Path
) -> None:
    out, retriever = tmp_path / "out", retriever_of(tiny.ENCODER)
    out.mkdir()
    (tmp_path / "mine").touch()
    for text in ('{"sha256": {"../mine": ""}, "graphs": {}}', '{"sha256": ["..", 3, "."], "graphs": {}}', "[1]", "{"):
        (out / "export.json").write_text(text)
        export(retriever, out, parts=("head",), format="torch")
        assert (tmp_path / "mine").is_file()


def test_a_vocabulary_comes_with_the_text(written: list[Graph], tmp_path: Path) -> None:
    retriever = retriever_of(replace(tiny.ENCODER, text="transformer"))
    export(retriever, tmp_path, format="torch")
    text = json.loads((tmp_path / "export.json").read_text())["graphs"]["text"]
    assert text["limits"] == {"words": [1, 256]}
    assert text["tokenizer"] == {"files": ["tokenizer.json"], "nodes": "words", "padding": {"tokens": 0}}
    assert Tokenizer.from_file(tmp_path / "tokenizer.json").identity() == retriever.tokenizer.identity()


def test_weights_beyond_an_onnx_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = torch.empty(2**29, device="meta")
    monkeypatch.setattr(files, "program", lambda _: SimpleNamespace(state_dict={"weight": large}))
    with pytest.raises(SettingsError, match=r"the graph head take 2\.0 GiB, .* export it to the format torch"):
        write_graph(head_graph(retriever_of(tiny.ENCODER)), tmp_path / "head.onnx", "onnx")


@pytest.mark.parametrize("method", ["vse gpo", "scan both, maximum", "sgr", "dsgsl", "imram", "shan", "ekdm"])
def test_the_heads_of_other_methods_give_our_scores(method: str, tmp_path: Path) -> None:
    matcher = method_network(method).float()
    config = RunConfig(method, METHODS[method], extractor="any")
    retriever = Retriever(matcher, Tokenizer.build(["a word"], 1), config, method)
    write_graph(head_graph(retriever), tmp_path / "head.onnx", "onnx")
    head = session(tmp_path / "head.onnx")
    for sizes in SIZES[:3]:
        given = head_inputs(retriever, *sizes)
        assert np.abs(head.run(None, arrays(given))[0] - our_scores(retriever, given)).max() < SAME


@pytest.mark.parametrize("method", ["ekdm", "csrc", "sgr slots"])
def test_images_of_other_methods_are_those_of_the_network(method: str, tmp_path: Path) -> None:
    matcher = method_network(method).float()
    retriever = Retriever(
        matcher, Tokenizer.build(["a word"], 1), RunConfig(method, METHODS[method], extractor="any"), "x"
    )
    write_graph(images_graph(retriever), tmp_path / "images.onnx", "onnx")
    images = session(tmp_path / "images.onnx")
    batch = tiny.images(3, 5, real=[5, 2, 4])
    ours = matcher.encode_images(ImageBatch(batch.regions.float(), batch.mask, batch.boxes.float()))
    given = {"features": batch.regions.float(), "region_mask": batch.mask}
    given |= {"boxes": batch.boxes.float()} if method == "ekdm" else {}  # those of u_v
    _, v = images.run(None, arrays(given))
    assert np.abs(v - ours.pooled.detach().numpy()).max() < SAME


def test_generalised_pooling_is_refused_and_left_out() -> None:
    retriever = Retriever(method_network("cvse"), Tokenizer.build(["a word"], 1), RunConfig("x", METHODS["cvse"]), "x")
    for graph in (images_graph, text_graph):
        with pytest.raises(
            SettingsError, match=r"x pools regions and words with a GRU over their ranks .* export its h"
        ):
            graph(retriever)
    assert exportable(METHODS["cvse"]) == ("head",)
    assert exportable(METHODS["ekdm"]) == ("head", "images")


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Retriever:
    """A network over two layers of a tiny frozen BERT."""
    text = FrozenText(str(save_text("bert", tmp_path_factory.mktemp("text") / "bert")), layers=Layers((1, 2)))
    encoder = replace(
        tiny.ENCODER, text="pretrained", text_weights=text.weights, text_width=text.width, vocabulary=len(text)
    )
    config = tiny.config(encoder=encoder)
    return Retriever(build_matcher(config), text, RunConfig("tiny", config, extractor="any"), "frozen")


def test_the_text_tower_gives_our_words(frozen: Retriever, tmp_path: Path) -> None:
    made = export(frozen, tmp_path / "exported", parts=("text",))
    assert (made.folder / "tokenizer.json").is_file()
    text = session(made.files["text"])
    for captions in (CAPTIONS, CAPTIONS[:1], CAPTIONS[-1:]):
        tokenizer = frozen.tokenizer.tokenizer
        batch = token_batch(tokenizer.encode(captions), tokenizer.pad_id)
        given = {"tokens": batch.tokens, "word_mask": batch.mask, "word_of_token": batch.word_of_token}
        words, t = text.run(None, arrays(given))
        ours = frozen.encode_captions(captions)
        # A state at the border of two numbers in half precision may be rounded to either: 1 part in 2048.
        assert np.abs(words - ours.items.numpy()).max() < 1e-3
        assert np.abs(t - ours.pooled.numpy()).max() < 1e-3


def test_the_description_says_what_the_text_tower_reads(
    frozen: Retriever, written: list[Graph], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(frozen, tmp_path, parts=("text",), format="torch")
    values = json.loads((tmp_path / "export.json").read_text())
    assert values["sha256"].keys() == {"text.pt2", "tokenizer.json", "tokenizer_config.json"}
    text, rules = values["graphs"]["text"], frozen.tokenizer.tokenizer
    assert text["limits"] == {"tokens": [2, rules.length]}
    assert text["tokenizer"] == {
        "files": ["tokenizer.json", "tokenizer_config.json"],
        "nodes": "words",
        "padding": {"tokens": rules.pad_id, "word_of_token": -2},
        "special_tokens": {"word_of_token": -1},
    }
    monkeypatch.setattr(rules, "fixed", True)
    assert describe_tokenizer(frozen.tokenizer, ())["padding"]["word_of_token"] == -1, "padding that is read"


def test_a_full_disk_leaves_the_tokenizer_of_the_former_export(
    frozen: Retriever, written: list[Graph], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(export(frozen, tmp_path, parts=("text",), format="torch").folder)

    def full(folder: str) -> None:
        (Path(folder) / "tokenizer.json").write_text("{")
        raise Exception("No space left on device (os error 28)")  # noqa: TRY002 - as the library

    monkeypatch.setattr(frozen.tokenizer.tokenizer.rules, "save_pretrained", full)
    with pytest.raises(DataError, match=r"^Cannot write .*: No space left on device"):
        export(frozen, tmp_path, parts=("text",), format="torch")
    assert contents(tmp_path) == before


def test_a_network_on_a_gpu_is_exported_from_copies_on_the_cpu(
    frozen: Retriever, written: list[Graph], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = copy.deepcopy(frozen.tokenizer.network).to("meta")  # in place of a GPU
    monkeypatch.setattr(frozen.tokenizer, "network", network)
    monkeypatch.setattr(torch.nn.Module, "cpu", lambda module: module.to_empty(device="cpu"))
    export(frozen, tmp_path, parts=("text",), format="torch")
    assert {values.device.type for values in written[0].module.parameters()} == {"cpu"}
    assert {values.device.type for values in network.parameters()} == {"meta"}


def test_the_text_tower_of_a_transformer_trained_from_scratch_is_exported() -> None:
    retriever = retriever_of(replace(tiny.ENCODER, text="transformer"))
    module = program(text_graph(retriever)).module()
    batch = tiny.captions((3, 1))
    words, t = module(tokens=batch.tokens, word_mask=batch.mask)
    ours = retriever.matcher.encode_captions(batch)
    assert torch.allclose(words, ours.items, atol=SAME)
    assert torch.allclose(t, ours.pooled, atol=SAME)


def test_the_command_writes_the_graphs(small: Any, tmp_path: Path) -> None:
    for _ in range(2):  # the second time into the folder of the first
        said = tshsr("export", small.run, "--out", tmp_path / "exported", "--parts", "images")
        assert said.code == 0, said.err
        assert "images" in said.out
        assert sorted(path.name for path in (tmp_path / "exported").iterdir()) == ["export.json", "images.onnx"]
    (tmp_path / "file").touch()
    assert refused("export", small.run, "--out", tmp_path / "file", "--parts", "images") == (
        f"tshsr: Cannot write {tmp_path / 'file'}: File exists. Make room or name another folder, then run this again."
    )


def test_what_cannot_be_exported_is_refused(placed: Retriever, small: Any, tmp_path: Path) -> None:
    sentence = refused("export", small.run, "--out", tmp_path / "x", "--parts", "text")
    assert "reads words with a GRU, which can't be exported for captions of any length" in sentence
    with pytest.raises(SettingsError, match="there is no part 'tail'; expected some of head, images, text"):
        export(placed, tmp_path, parts=("tail",))
    with pytest.raises(SettingsError, match="int8 is for ONNX; leave it out, or export to onnx"):
        export(placed, tmp_path, format="torch", int8=True)


def test_packages_that_are_missing_are_named(
    placed: Retriever, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        SettingsError, match=r"needs onnx, onnxruntime, onnxscript; install them: pip install 'tshsr\[export\]'"
    ):
        export(placed, tmp_path / "x")


def test_every_graph_has_its_function() -> None:
    assert {"head": head_graph, "images": images_graph, "text": text_graph} == GRAPHS
    assert callable(quantise)
