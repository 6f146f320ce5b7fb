"""The weight that a node applies, through the nodes that reorder or widen a stored tensor on its way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from spectral_conv.models._layouts import default_layout, known_layouts
from spectral_conv.models._onnx_nodes import Network, Op
from spectral_conv.models._onnx_tensors import Weight

_LONGEST_WAY = 16  # nodes
_DTYPES = {1: "float32", 10: "float16", 11: "float64", 16: "bfloat16"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Applied:
    """A tensor as a convolution applies it, and the meaning of its axes."""

    weight: Weight
    layout: str


class UntraceableError(ValueError):
    """The weight is not a tensor of the file; the message says why, `name` which value it is."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(reason)
        self.name = name


def applied_weight(network: Network, producers: Mapping[str, Op], value: str, *, transposed: bool) -> Applied:
    """Return the tensor behind `value`, under its full name in the file.

    Raises
    ------
    UntraceableError
        It is computed in a way that is not followed, comes from outside, or cannot be read.
    """
    way: list[Op] = []
    while value not in network.weights:
        op = producers.get(value)
        if value in network.unread:
            raise UntraceableError(value, network.unread[value])
        if op is None:
            raise UntraceableError(value, "its weight comes from outside the file")
        if op.op not in _STEPS or op.domain or len(way) == _LONGEST_WAY:
            raise UntraceableError(
                value, f"its weight is computed by the node {op.name!r} ({op.op}); export it as a constant"
            )
        way.append(op)
        value = op.inputs[0] if op.inputs else ""
    weight = network.weights[value]
    order = tuple(range(len(weight.shape)))
    for op in reversed(way):
        try:
            if op.op == "Transpose":
                perm = op.attributes.get("perm", tuple(reversed(range(len(order)))))
                order = tuple(order[i] for i in perm)
                if sorted(order) != list(range(len(weight.shape))):
                    raise ValueError("its `perm` does not fit")
                continue
            if order != tuple(sorted(order)):
                weight = _with(weight, weight.load().transpose(order))
                order = tuple(range(len(weight.shape)))
            weight = _STEPS[op.op](network, weight, op)
            if op.op in ("Reshape", "Unsqueeze", "Squeeze"):
                order = tuple(range(len(weight.shape)))
        except (ValueError, TypeError, IndexError, KeyError, OverflowError, OSError) as error:
            reason = f"its weight cannot be computed by the node {op.name!r} ({op.op}): {error}"
            raise UntraceableError(weight.name, reason) from error
    return _in_layout(weight, order, transposed=transposed)


def quantized_weight(network: Network, op: Op, applied: Applied) -> Applied:
    """Return the numbers that stand for the integers of a QLinearConv."""
    try:
        weight = _scaled(network, applied.weight, op.inputs[4], op.inputs[5], 0)
    except (ValueError, IndexError, OSError) as error:
        raise UntraceableError(applied.weight.name, f"its scale cannot be applied: {error}") from error
    return Applied(weight=weight, layout=applied.layout)


def _in_layout(weight: Weight, order: tuple[int, ...], *, transposed: bool) -> Applied:
    ndim = len(order) - 2
    if not 1 <= ndim <= 3:
        raise UntraceableError(
            weight.name, f"its weight has the shape {list(weight.shape)}; read are 1 to 3 spatial axes"
        )
    ours = default_layout(ndim, transposed)
    letters = [""] * len(order)
    for letter, axis in zip(ours, order, strict=True):
        letters[axis] = letter
    layout = "".join(letters)
    if layout in known_layouts(ndim, transposed):
        return Applied(weight=weight, layout=layout)
    return Applied(weight=_with(weight, weight.load().transpose(order)), layout=ours)


def _with(weight: Weight, values: np.ndarray) -> Weight:
    values = np.ascontiguousarray(values)
    return Weight(name=weight.name, shape=values.shape, dtype=values.dtype.name, values=values)


def _identity(network: Network, weight: Weight, op: Op) -> Weight:
    return weight


def _cast(network: Network, weight: Weight, op: Op) -> Weight:
    dtype = _DTYPES.get(op.attributes.get("to", 0))
    if dtype is None:
        raise ValueError("it makes other numbers than floating-point ones of it")
    if weight.dtype == dtype or (weight.dtype, dtype) in (("float16", "float32"), ("bfloat16", "float32")):
        return weight  # widening changes no number, and every number is used in double precision
    if dtype == "bfloat16":
        import ml_dtypes

        return _with(weight, weight.load().astype(ml_dtypes.bfloat16))
    return _with(weight, weight.load().astype(dtype))


def _reshape(network: Network, weight: Weight, op: Op) -> Weight:
    shape = op.attributes["shape"]
    if not op.attributes.get("allowzero"):
        shape = tuple(size or weight.shape[i] for i, size in enumerate(shape))
    return _with(weight, weight.load().reshape(shape))


def _unsqueeze(network: Network, weight: Weight, op: Op) -> Weight:
    return _with(weight, np.expand_dims(weight.load(), op.attributes["axes"]))


def _squeeze(network: Network, weight: Weight, op: Op) -> Weight:
    return _with(weight, np.squeeze(weight.load(), op.attributes.get("axes")))


def _dequantize(network: Network, weight: Weight, op: Op) -> Weight:
    if op.attributes.get("block_size"):
        raise ValueError("it has one scale per block")
    zero = op.inputs[2] if len(op.inputs) > 2 else ""
    return _scaled(network, weight, op.inputs[1], zero, op.attributes.get("axis", 1))


def _scaled(network: Network, weight: Weight, scale: str, zero: str, axis: int) -> Weight:
    """Return ``(weight - zero) * scale`` with one scale, or one per entry of `axis`."""
    integers = weight.load().astype(np.float64)
    for name in filter(None, (zero, scale)):
        if name not in network.weights:
            raise ValueError(f"{name!r} is not in the file")
        factor = network.weights[name].load().astype(np.float64)
        if factor.size == 1:
            factor = factor.reshape(())
        elif factor.shape == (integers.shape[axis],):
            factor = np.moveaxis(factor.reshape(factor.shape + (1,) * (integers.ndim - 1)), 0, axis)
        else:
            raise ValueError(f"{name!r} has the shape {list(factor.shape)}")
        integers = integers * factor if name == scale else integers - factor
    return _with(weight, integers)


_STEPS = {
    "Identity": _identity,
    "Cast": _cast,
    "Transpose": _identity,  # done by the order of the axes
    "Reshape": _reshape,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "DequantizeLinear": _dequantize,
}
