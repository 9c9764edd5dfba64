"""Files of exported graphs: ONNX, `torch.export`, and ONNX with weights in int8."""

from __future__ import annotations

import copy
import io
import json
import logging
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

from tshsr.errors import SettingsError
from tshsr.export.graphs import GRAPHS, Graph, exportable
from tshsr.files import explained, write_bytes, write_text
from tshsr.pretrained.pieces import PretrainedTokenizer
from tshsr.retriever import Retriever
from tshsr.system import package_version

Format = Literal["onnx", "torch"]
SUFFIX = {"onnx": ".onnx", "torch": ".pt2"}
"""Ending of the files of each format."""
DESCRIPTION = "export.json"
"""File that names the graphs with their inputs and outputs."""
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
    """Write the graphs of a network, their description, and the files of its text encoder's tokenizer.

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
    own = copy.copy(retriever)
    own.matcher = copy.deepcopy(retriever.matcher).cpu()  # its gradients are switched off
    graphs = [GRAPHS[part](own) for part in chosen]
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, Path] = {}
    for graph in graphs:
        files[graph.name] = folder / f"{graph.name}{SUFFIX[format]}"
        write_graph(graph, files[graph.name], format)
        if int8:
            files[f"{graph.name}.int8"] = folder / f"{graph.name}.int8.onnx"
            quantise(files[graph.name], files[f"{graph.name}.int8"])
    if "text" in chosen and isinstance(retriever.tokenizer, PretrainedTokenizer):
        retriever.tokenizer.tokenizer.save(folder)
    write_text(folder / DESCRIPTION, json.dumps(describe(retriever, graphs, files), indent=2) + "\n")
    return Exported(folder, files)


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


def describe(retriever: Retriever, graphs: Sequence[Graph], files: dict[str, Path]) -> dict[str, Any]:
    """Contents of `export.json`."""
    return {
        "model": retriever.name,
        "extractor": retriever.features_of,
        "versions": {name: package_version(name) for name in ("tshsr", "torch", "onnx")},
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
            }
            for graph in graphs
        },
    }


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
