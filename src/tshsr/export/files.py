"""Files of exported graphs: ONNX, `torch.export`, and ONNX with weights in int8."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind

from tshsr.data.batches import NO_WORD, UNREAD
from tshsr.data.tokens import CaptionTokenizer
from tshsr.errors import SettingsError, parse_json
from tshsr.export.graphs import GRAPHS, Graph, exportable
from tshsr.files import explained, flush_folder, remove, write_bytes, write_text
from tshsr.pretrained.frozen_text import FrozenText
from tshsr.pretrained.pieces import PretrainedTokenizer
from tshsr.retriever import Retriever
from tshsr.system import package_version

Format = Literal["onnx", "torch"]
SUFFIX = {"onnx": ".onnx", "torch": ".pt2"}
"""Ending of the files of each format."""
DESCRIPTION = "export.json"
"""File that names the graphs with their inputs and outputs, and every file with its SHA-256."""
LARGEST = 2**31 - 1
"""Most bytes of an ONNX file (protobuf)."""
INSTALL = "pip install 'tshsr[export]'"


@dataclass(frozen=True)
class Exported:
    """Written files by graph, `head`, `images`, `text`, and for int8 with `.int8` after it."""

    folder: Path
    files: dict[str, Path]


def export(
    retriever: Retriever,
    folder: Path,
    *,
    parts: Sequence[str] | None = None,
    format: Format = "onnx",  # noqa: A002 - the name of the option
    int8: bool = False,
) -> Exported:
    """Write the graphs of a network, their description and, with the text, the files of its tokenizer.

    They replace a former export as a whole; what else lies in the folder stays.

    Args:
        folder: Made where it is missing.
        parts: Of head, images, text; by default all that the network has.
        format: ONNX, or a program of `torch.export`.
        int8: Also write ONNX graphs with the weights of matrix products in int8.

    Raises:
        SettingsError: Where there is no such part, or a package is missing.
        DataError: Where the folder cannot be written.
    """
    known = exportable(retriever.config.model)
    chosen = tuple(parts or known)
    unknown = next((part for part in chosen if part not in GRAPHS), None)
    if unknown is not None:
        raise SettingsError(f"there is no part {unknown!r}; expected some of {', '.join(GRAPHS)}.")
    if int8 and format != "onnx":
        raise SettingsError("int8 is for ONNX; leave it out, or export to onnx.")
    if format == "onnx":
        check_packages()
    own = on_cpu(retriever)
    graphs = [GRAPHS[part](own) for part in chosen]
    with replacing_export(folder) as partial:
        files: dict[str, Path] = {}
        for graph in graphs:
            files[graph.name] = partial / f"{graph.name}{SUFFIX[format]}"
            write_graph(graph, files[graph.name], format)
            if int8:
                files[f"{graph.name}.int8"] = partial / f"{graph.name}.int8.onnx"
                quantise(files[graph.name], files[f"{graph.name}.int8"])
        if "text" in chosen:
            save_tokenizer(retriever.tokenizer, partial)
        write_text(partial / DESCRIPTION, json.dumps(describe(retriever, graphs, files, partial), indent=2) + "\n")
    return Exported(folder, {name: folder / path.name for name, path in files.items()})


def on_cpu(retriever: Retriever) -> Retriever:
    """A copy on the CPU, with its frozen text encoder; switching off its gradients leaves those of the original."""
    own = copy.copy(retriever)
    own.matcher = copy.deepcopy(retriever.matcher).cpu()
    if isinstance(retriever.tokenizer, FrozenText):
        own.tokenizer = tokenizer = copy.copy(retriever.tokenizer)
        tokenizer.network = copy.deepcopy(tokenizer.network).cpu()
    return own


@contextmanager
def replacing_export(folder: Path) -> Iterator[Path]:
    """Make a hidden folder whose files replace the export in `folder` when the block succeeds.

    The files of the former export are removed first, then `export.json` is replaced, then come the files that it lists:
    after a kill at any moment the folder holds files of one network, all or some of those that `export.json` lists.

    Raises:
        DataError: Where the disk is full or the folder cannot be written.
    """
    partial = folder / f".export.{os.getpid()}.partial"
    with explained(folder, partial):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for left in folder.glob(".export.*.partial"):  # by a killed export
                remove(left)
            partial.mkdir()
            yield partial
            made = {path.name for path in partial.iterdir()} - {DESCRIPTION}
            for name in listed(folder) | made:
                (folder / name).unlink(missing_ok=True)
            flush_folder(folder)
            for name in (DESCRIPTION, *sorted(made)):
                (partial / name).replace(folder / name)
            flush_folder(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def listed(folder: Path) -> set[str]:
    """Names of the files that the export in a folder lists; none where its description can't be read."""
    try:
        values = parse_json((folder / DESCRIPTION).read_text(encoding="utf-8"))
        names = [*values.get("sha256", ()), *(name for one in values["graphs"].values() for name in one["files"])]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()
    plain = (name for name in names if isinstance(name, str) and Path(name).name == name != DESCRIPTION)
    return {name for name in plain if (folder / name).is_file()}


def program(graph: Graph) -> ExportedProgram:
    """The graph as a program of `torch.export`, with free axes and the weights that it reads."""
    free = {name: graph.limits.get(name, (1, None)) for names in graph.axes.values() for name in names}
    axes = {name: Dim(name, min=smallest, max=largest) for name, (smallest, largest) in free.items()}
    shapes = {name: {at: axes[axis] for at, axis in enumerate(names)} for name, names in graph.axes.items()}
    device = next(graph.module.parameters()).device
    with torch.no_grad(), quiet():
        exported = torch.export.export(
            graph.module, (), {name: one.to(device) for name, one in graph.inputs.items()}, dynamic_shapes=shapes
        )
    drop_unread(exported)
    return exported


def drop_unread(exported: ExportedProgram) -> None:
    """Take the weights that a program never reads out of it: `torch.export` keeps those of the whole network."""
    inputs = {node.name: node for node in exported.graph.nodes if node.op == "placeholder"}
    kept = []
    for spec in exported.graph_signature.input_specs:
        if spec.kind not in (InputKind.PARAMETER, InputKind.BUFFER) or inputs[spec.arg.name].users:
            kept.append(spec)
            continue
        exported.graph.erase_node(inputs[spec.arg.name])
        for values in (exported.state_dict, exported.constants):  # the second holds buffers that no file has
            values.pop(str(spec.target), None)
    exported.graph_signature.input_specs[:] = kept
    exported.graph_module.recompile()


def write_graph(graph: Graph, path: Path, format: Format) -> None:  # noqa: A002
    """Write a graph.

    Raises:
        DataError: Where the file cannot be written.
        SettingsError: Where its weights are larger than an ONNX file.
    """
    exported = program(graph)
    size = sum(one.nbytes for one in exported.state_dict.values())
    if format == "onnx" and size > LARGEST:
        raise SettingsError(
            f"the weights of the graph {graph.name} take {size / 2**30:.1f} GiB, and an ONNX file holds 2 GiB; export "
            "it to the format torch."
        )
    with explained(path), quiet():
        if format == "torch":
            held = io.BytesIO()  # on a full disk, torch would leave half a file in place of the former one
            torch.export.save(exported, held)
            write_bytes(path, held.getvalue())
            return
        made: Any = torch.onnx.export(
            exported, input_names=list(graph.inputs), output_names=list(graph.outputs), dynamo=True, verbose=False
        )
        write_bytes(path, made.model_proto.SerializeToString())


def quantise(source: Path, target: Path) -> None:
    """Weights of matrix products in int8, by column; activations are quantised at run time (onnxruntime, dynamic).

    Raises:
        DataError: Where the file cannot be written.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = onnx.load(source).graph
    vectors = {one.name for one in graph.initializer if len(one.dims) < 2}
    products = [node.name for node in graph.node if node.op_type == "MatMul" and vectors & {*node.input}]
    system = Path(tempfile.gettempdir())  # onnxruntime writes there, too, so that errors name this folder
    with quiet(), explained(system), tempfile.TemporaryDirectory(dir=system) as place:
        made = Path(place) / target.name
        # onnxruntime has no products with a vector in int8
        quantize_dynamic(source, made, per_channel=True, weight_type=QuantType.QInt8, nodes_to_exclude=products)
        content = made.read_bytes()
    write_bytes(target, content)


def save_tokenizer(tokenizer: CaptionTokenizer, folder: Path) -> None:
    """Write a vocabulary, or the files of a text encoder's tokenizer.

    Raises:
        DataError: Where they cannot be written.
    """
    if isinstance(tokenizer, PretrainedTokenizer):
        tokenizer.tokenizer.save(folder)
    else:
        tokenizer.save_into(folder)


def describe(retriever: Retriever, graphs: Sequence[Graph], files: dict[str, Path], folder: Path) -> dict[str, Any]:
    """Contents of `export.json`.

    Args:
        folder: Of all the files, those of the tokenizer too.
    """
    names = sorted(path.name for path in folder.iterdir())
    of_tokenizer = sorted({*names} - {path.name for path in files.values()})
    return {
        "model": retriever.name,
        "extractor": retriever.features_of,
        "versions": {name: package_version(name) for name in ("tshsr", "torch", "onnx")},
        "sha256": {name: digest_of(folder / name) for name in names},
        "graphs": {
            graph.name: {
                "files": [path.name for name, path in files.items() if name.partition(".")[0] == graph.name],
                "inputs": {
                    name: {
                        "type": str(one.dtype).removeprefix("torch."),
                        "shape": [*graph.axes[name], *one.shape[len(graph.axes[name]) :]],
                    }
                    for name, one in graph.inputs.items()
                },
                "outputs": list(graph.outputs),
                "limits": {
                    axis: list(sizes)
                    for axis, sizes in graph.limits.items()
                    if any(axis in axes for axes in graph.axes.values())
                },
                **(
                    {"tokenizer": describe_tokenizer(retriever.tokenizer, of_tokenizer)} if graph.name == "text" else {}
                ),
            }
            for graph in graphs
        },
    }


def describe_tokenizer(tokenizer: CaptionTokenizer, files: Sequence[str]) -> dict[str, Any]:
    """The files of a tokenizer, and what the inputs of the text graph hold beside the words of a caption."""
    if not isinstance(tokenizer, PretrainedTokenizer):
        return {"files": list(files), "nodes": "words", "padding": {"tokens": 0}}
    rules = tokenizer.tokenizer
    return {
        "files": list(files),
        "nodes": rules.nodes,
        # A network of fixed length reads its padding.
        "padding": {"tokens": rules.pad_id, "word_of_token": NO_WORD if rules.fixed else UNREAD},
        "special_tokens": {"word_of_token": NO_WORD},
    }


def digest_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_packages() -> None:
    """Check that the packages of the extra are installed.

    Raises:
        SettingsError: Where one is missing.
    """
    import importlib.util

    missing = [name for name in ("onnx", "onnxruntime", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise SettingsError(f"export to ONNX needs {', '.join(missing)}; install them: {INSTALL}.")


@contextmanager
def quiet() -> Iterator[None]:
    """Hide warnings of the exporters about packages and interfaces that are not the user's."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
