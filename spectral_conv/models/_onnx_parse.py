"""An ONNX file as plain data: what the child process does and sends back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectral_conv.graph import Graph, Node
from spectral_conv.models._entry import LayerEntry
from spectral_conv.models._model import ModelError, Skipped
from spectral_conv.models._onnx_convs import find_convolutions
from spectral_conv.models._onnx_functions import inlined
from spectral_conv.models._onnx_nodes import Network, read_network, unread_tensors
from spectral_conv.models._onnx_rules import CONVOLUTIONS
from spectral_conv.models._onnx_shapes import infer, propagate
from spectral_conv.models._onnx_tensors import Weight
from spectral_conv.models._onnx_values import formal_names

_MOST_INDICES = 65536  # entries of a tensor of shapes or indices that are kept


@dataclass(frozen=True, kw_only=True, eq=False)
class Parsed:
    """The file's tensors, convolutions and graph."""

    weights: tuple[Weight, ...]
    entries: tuple[LayerEntry, ...]
    unread: tuple[Skipped, ...]
    graph: Graph
    arguments: dict[str, NDArray[Any]]


def parse(path: Path) -> Parsed:
    """Read an ONNX file.

    Raises
    ------
    ModelError
        It is damaged, cyclic or made to exhaust its reader.
    """
    try:
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
        from onnx import ModelProto
    except ImportError as error:
        raise ModelError(f"{path.name} cannot be read: onnx cannot be imported ({error}).") from error
    model = ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
        if not model.graph.node and not model.graph.initializer:
            raise ModelError(f"{path.name} holds no network: it is no ONNX file, or an empty one. Export it again.")
        with np.errstate(all="ignore"):  # weights may be NaN, sizes unknown: what comes of them says so itself
            return _parsed(inlined(model, path.name), path)
    except (DecodeError, UnicodeDecodeError) as error:
        words = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise ModelError(f"{path.name} is damaged or no ONNX file ({words}). Copy or download it again.") from error


def _parsed(model: Any, path: Path) -> Parsed:
    network = read_network(model, path)
    propagate(network, infer(model, path))
    found = find_convolutions(network)
    arguments = _arguments(network)
    spoiled = {item.name for item in found.unread if item.name not in found.entries}
    weights = tuple(
        weight
        for name, weight in network.weights.items()
        if name in found.entries or (name not in arguments and name not in spoiled)
    )
    return Parsed(
        weights=weights,
        entries=tuple(found.entries.values()),
        unread=(*found.unread, *(item for item in unread_tensors(network) if item.name not in spoiled)),
        graph=_graph(network, {weight.name for weight in weights}, arguments, found.kernels),
        arguments=_known_arguments(network, arguments),
    )


def _arguments(network: Network) -> set[str]:
    """Return the tensors that are shapes, bounds and the like: the rules have made attributes of them."""
    formal: dict[str, bool] = {}
    for op in network.ops:
        names = (*formal_names(op.op, len(op.inputs)), *("" for _ in op.inputs))
        for name, source in zip(names, op.inputs, strict=False):
            formal[source] = formal.get(source, True) and name in op.attributes
    return {
        name
        for name, weight in network.weights.items()
        if len(weight.shape) < 2 and (formal.get(name) or not weight.floating)
    }


def _known_arguments(network: Network, arguments: set[str]) -> dict[str, NDArray[Any]]:
    values = {name: network.weights[name].values for name in arguments}
    return {name: array for name, array in values.items() if array is not None and array.size <= _MOST_INDICES}


def _graph(network: Network, weights: set[str], arguments: set[str], kernels: dict[str, tuple[str, str]]) -> Graph:
    nodes, known = [], weights | arguments
    for op in network.ops:
        # A kernel that is turned or widened on its way is the tensor that the file has.
        value, kernel = kernels.get(op.name, ("", ""))
        operands = tuple(kernel if value and name == value else name for name in op.inputs)
        # A kernel that a convolution reads in another way than the layer has it is none of its weights.
        strange = op.inputs[CONVOLUTIONS[op.op] :][:1] if op.op in CONVOLUTIONS and not value else ()
        read = (*operands, *(name for _, outputs in op.bodies for name in outputs))
        nodes.append(
            Node(
                name=op.name,
                op=op.op if not op.domain else f"{op.domain}.{op.op}",
                inputs=tuple(name for name in read if name and name not in known and name not in strange),
                outputs=tuple(name for name in op.outputs if name),
                weights=tuple(name for name in operands if name in weights and name not in strange),
                attributes=op.attributes,
                operands=operands,
            )
        )
    # A single number has one entry along every axis.
    fronts = {name: shape[0] if shape else 1 for name, shape in network.shapes.items()}
    return Graph(
        nodes=tuple(nodes),
        inputs=network.inputs,
        outputs=network.outputs,
        shapes={name: shape[1:] for name, shape in network.shapes.items()},
        fronts={name: front for name, front in fronts.items() if front is not None},
    )
