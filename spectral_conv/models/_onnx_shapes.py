"""Sizes of the values of an ONNX graph, through operators that are retired or not ONNX's own too.

`onnx.shape_inference` comes first and stops at the first operator that it does not know; the rules of
`_onnx_rules` then go through the whole graph and fill what it left open. A node without a rule leaves its results
unknown and stops nothing.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from spectral_conv.models._onnx_nodes import Network, Op, Shape, stated_shapes
from spectral_conv.models._onnx_rules import result_shapes
from spectral_conv.models._onnx_values import Value, constant, evaluate, formal_names

_LARGE = 4096  # bytes; shape inference reads the numbers of small tensors only
_MOST_AXES = 16
# What a rule may raise on attributes that make no sense.
NONSENSE = (
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    OverflowError,
    AttributeError,
    ZeroDivisionError,
)


def infer(model: Any, path: Path) -> dict[str, Shape]:
    """Return what `onnx.shape_inference` says; its own failure says nothing. The weights of `model` are dropped."""
    import onnx

    _drop_weights(model.graph)
    try:
        return stated_shapes(onnx.shape_inference.infer_shapes(model), path)
    except Exception:  # whatever it dislikes in the file, the rules of our own go on
        return {}


def propagate(network: Network, stated: dict[str, Shape]) -> None:
    """Complete `network.shapes`; put inputs that are constants into the nodes' attributes.

    Parameters
    ----------
    network : Network
        Its nodes in order.
    stated : mapping
        Shapes to start from.
    """
    shapes = network.shapes
    shapes.update(stated)
    values: dict[str, Value] = {}
    for weight in network.weights.values():
        shapes[weight.name] = weight.shape
        known = None if weight.values is None else constant(weight.values)
        if known is not None:
            values[weight.name] = known
    for op in network.ops:
        attributes = _resolved(op, values)
        inputs = [shapes.get(name) for name in op.inputs]
        try:
            found = _branches(op, shapes, values) if op.bodies else result_shapes(op, attributes, inputs)
        except NONSENSE:
            found = ()
        for name, shape in zip(op.outputs, found, strict=False):
            merged = _merged(shapes.get(name), shape)
            if name and merged is not None:
                shapes[name] = merged
        try:
            value = evaluate(op.op, attributes, [values.get(name) for name in op.inputs], inputs)
        except NONSENSE:
            value = None
        if value is not None and op.outputs:
            values[op.outputs[0]] = value
        op.attributes = {name: entry for name, entry in attributes.items() if _known(entry)}


def _drop_weights(graph: Any) -> None:
    """Inference copies the model several times; large tensors keep their shapes only."""
    fields = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data")
    for tensor in graph.initializer:
        if tensor.ByteSize() > _LARGE:
            for field in fields:
                tensor.ClearField(field)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t") and attribute.t.ByteSize() > _LARGE:
                for field in fields:
                    attribute.t.ClearField(field)
            for body in (attribute.g,) if attribute.HasField("g") else attribute.graphs:
                _drop_weights(body)


def _resolved(op: Op, values: dict[str, Value]) -> dict[str, Any]:
    attributes = dict(op.attributes)
    for name, source in zip(formal_names(op.op, len(op.inputs)), op.inputs, strict=False):
        if not name or not source:
            continue
        attributes.pop(name, None)
        if source not in values:
            attributes[name] = (math.nan,)  # given, but not known: no rule may take the default for it
        else:
            value = values[source]
            numbers = value.array.ravel().tolist()
            attributes[name] = tuple(int(x) if value.whole and math.isfinite(x) else x for x in numbers)
    return attributes


def _known(entry: Any) -> bool:
    return not (isinstance(entry, tuple) and any(isinstance(x, float) and math.isnan(x) for x in entry))


def _branches(op: Op, shapes: dict[str, Shape], values: dict[str, Value]) -> list[Shape | None]:
    """Of If: the branch that a known condition takes, or else what both branches agree on."""
    if op.op != "If" or len(op.bodies) != 2:
        return []
    branches = dict(op.bodies)
    condition = values.get(op.inputs[0])
    if condition is not None and np.isfinite(condition.array).all():
        taken = branches["then_branch" if condition.array.ravel()[0] else "else_branch"]
        return [shapes.get(name) for name in taken]
    pairs = zip(branches["then_branch"], branches["else_branch"], strict=False)
    return [_agreed(shapes.get(first), shapes.get(second)) for first, second in pairs]


def _agreed(first: Shape | None, second: Shape | None) -> Shape | None:
    if first is None or second is None or len(first) != len(second):
        return None
    return tuple(a if a == b else None for a, b in zip(first, second, strict=True))


def _merged(first: Shape | None, second: Shape | None) -> Shape | None:
    """Return `first` with its unknown sizes filled from `second`."""
    if second is not None and (len(second) > _MOST_AXES or any(size is not None and size < 0 for size in second)):
        second = None
    if first is None or second is None:
        return second if first is None else first
    if len(first) != len(second):
        return first
    return tuple(b if a is None else a for a, b in zip(first, second, strict=True))
