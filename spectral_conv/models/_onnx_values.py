"""Small numbers that an ONNX graph computes about itself: the shapes, pads and bounds that exporters write as nodes.

Numbers are float64, which is exact for every size; NaN stands for one that is not known, such as a symbolic size, and
spreads by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
MOST = 256  # entries; shapes and pads have a handful


@dataclass(frozen=True, eq=False)
class Value:
    """Known numbers, and whether they are integers: these divide differently."""

    array: Array
    whole: bool


# Inputs that older versions of an operator have as attributes: one table, so that rules look in one place.
_FORMAL: dict[str, tuple[str, ...]] = {
    "Reshape": ("", "shape"),
    "Expand": ("", "shape"),
    "Tile": ("", "repeats"),
    "Pad": ("", "pads", "value", "axes"),
    "Slice": ("", "starts", "ends", "axes", "steps"),
    "Split": ("", "split"),
    "Squeeze": ("", "axes"),
    "Unsqueeze": ("", "axes"),
    "Clip": ("", "min", "max"),
    "Upsample": ("", "scales"),
    "ConstantOfShape": ("shape",),
    "Range": ("start", "limit", "delta"),
    "OneHot": ("", "depth"),
}


def formal_names(op: str, inputs: int) -> tuple[str, ...]:
    """Return the attributes that the inputs of a node stand for, "" for true inputs."""
    if op == "Resize":
        return ("", "scales") if inputs == 2 else ("", "roi", "scales", "sizes")
    if op.startswith("Reduce"):
        return ("", "axes")
    return _FORMAL.get(op, ())


def constant(array: NDArray[Any]) -> Value | None:
    """Return a stored tensor as a value, None where it is large or no number."""
    if array.size > MOST or array.dtype.kind not in "iubf":
        return None
    return Value(array.astype(np.float64), array.dtype.kind != "f")


def evaluate(
    op: str, attributes: Mapping[str, Any], inputs: list[Value | None], shapes: list[tuple[int | None, ...] | None]
) -> Value | None:
    """Return the result of a node whose inputs are known, or whose result is about shapes.

    Raises
    ------
    ValueError, TypeError, IndexError, KeyError, OverflowError
        The node makes no sense.
    """
    if op == "Shape" and shapes and shapes[0] is not None:
        sizes = shapes[0][attributes.get("start", 0) : attributes.get("end")]
        return Value(np.array([math.nan if size is None else size for size in sizes], dtype=np.float64), True)
    if op == "Size" and shapes and shapes[0] is not None and None not in shapes[0]:
        return Value(np.array(float(math.prod(size or 0 for size in shapes[0]))), True)
    if op == "Constant":
        return _stored(attributes)
    if op == "ConstantOfShape":
        fill = attributes.get("value", (0,))
        sizes = _indices(attributes["shape"])
        if math.prod(sizes) > MOST:
            return None
        return Value(np.full(sizes, fill[0], np.float64), not isinstance(fill[0], float))
    if op == "Range":
        start, limit, delta = (float(np.ravel(attributes[name])[0]) for name in ("start", "limit", "delta"))
        if not 0 <= (limit - start) / delta <= MOST:
            return None
        return Value(np.arange(start, limit, delta), True)
    rule = _RULES.get(op)
    known = [value for value in inputs if value is not None]
    if rule is None or not known or known[0] is not inputs[0]:
        return None
    if op in _ALL_INPUTS and len(known) < len(inputs):
        return None
    if op in _ELEMENTWISE and math.prod(np.broadcast_shapes(*(value.array.shape for value in known))) > MOST:
        return None
    result = rule(known, attributes)
    return result if result.array.size <= MOST else None


def _stored(attributes: Mapping[str, Any]) -> Value | None:
    for name in ("value_int", "value_float", "value_ints", "value_floats"):
        if name in attributes and np.size(attributes[name]) <= MOST:
            return Value(np.array(attributes[name], dtype=np.float64), "int" in name)
    return None


def _indices(value: Any) -> tuple[int, ...]:
    return tuple(int(entry) for entry in np.ravel(value))


def _elementwise(function: Callable[..., Array]) -> Callable[[list[Value], Mapping[str, Any]], Value]:
    def rule(inputs: list[Value], attributes: Mapping[str, Any]) -> Value:
        array = inputs[0].array
        if len(inputs) == 1:
            array = function(array)
        for other in inputs[1:]:
            array = np.asarray(function(array, other.array), dtype=np.float64)
            unknown = np.isnan(inputs[0].array) | np.isnan(other.array)  # comparisons lose a NaN
            array = np.where(unknown, np.nan, array)
        return Value(np.asarray(array, dtype=np.float64), all(value.whole for value in inputs))

    return rule


def _divide(inputs: list[Value], attributes: Mapping[str, Any]) -> Value:
    first, second = inputs
    whole = first.whole and second.whole
    quotient = first.array / second.array
    return Value(np.trunc(quotient) if whole else quotient, whole)


def _cast(inputs: list[Value], attributes: Mapping[str, Any]) -> Value:
    whole = attributes.get("to") not in (1, 10, 11, 16)  # float32, float16, float64, bfloat16
    return Value(np.trunc(inputs[0].array) if whole else inputs[0].array, whole)


def _gather(inputs: list[Value], attributes: Mapping[str, Any]) -> Value:
    if inputs[0].array.size * inputs[1].array.size > MOST**2 // 16:
        raise ValueError("too many")
    indices = inputs[1].array.astype(np.int64)
    return Value(np.take(inputs[0].array, indices, axis=attributes.get("axis", 0)), inputs[0].whole)


def _concat(inputs: list[Value], attributes: Mapping[str, Any]) -> Value:
    array = np.concatenate([value.array for value in inputs], axis=attributes["axis"])
    return Value(array, inputs[0].whole)


def _slice(inputs: list[Value], attributes: Mapping[str, Any]) -> Value:
    array = inputs[0].array
    starts, ends = _indices(attributes["starts"]), _indices(attributes["ends"])
    axes = _indices(attributes.get("axes", range(len(starts))))
    steps = _indices(attributes.get("steps", (1,) * len(starts)))
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        picks = slice_indices(array.shape[axis], start, end, step)
        array = np.take(array, np.arange(*picks), axis=axis)
    return Value(array, inputs[0].whole)


def slice_indices(size: int, start: int, end: int, step: int) -> tuple[int, int, int]:
    """Return what a Slice with these bounds takes of an axis, as for `range`.

    Examples
    --------
    >>> len(range(*slice_indices(8, -1, -(2**63), -2)))
    4
    """
    return slice(start, end if end >= -size or step > 0 else None, step).indices(size)


def _unsqueeze(inputs: list[Value], attributes: Mapping[str, Any]) -> Value:
    return Value(np.expand_dims(inputs[0].array, _indices(attributes["axes"])), inputs[0].whole)


def _squeeze(inputs: list[Value], attributes: Mapping[str, Any]) -> Value:
    axes = _indices(attributes["axes"]) if "axes" in attributes else None
    return Value(np.squeeze(inputs[0].array, axes), inputs[0].whole)


def _reshape(inputs: list[Value], attributes: Mapping[str, Any]) -> Value:
    array, sizes = inputs[0].array, _indices(attributes["shape"])
    if not attributes.get("allowzero"):
        sizes = tuple(size or array.shape[i] for i, size in enumerate(sizes))
    return Value(array.reshape(sizes), inputs[0].whole)


def _transpose(inputs: list[Value], attributes: Mapping[str, Any]) -> Value:
    return Value(np.transpose(inputs[0].array, attributes.get("perm")), inputs[0].whole)


def _reduce(function: Callable[..., Any]) -> Callable[[list[Value], Mapping[str, Any]], Value]:
    def rule(inputs: list[Value], attributes: Mapping[str, Any]) -> Value:
        axes = _indices(attributes["axes"]) if "axes" in attributes else None
        array = function(inputs[0].array, axis=axes, keepdims=bool(attributes.get("keepdims", 1)))
        return Value(np.asarray(array, dtype=np.float64), inputs[0].whole)

    return rule


_ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Max": np.maximum,
    "Min": np.minimum,
    "Mod": np.mod,
    "Equal": np.equal,
    "Greater": np.greater,
    "Less": np.less,
    "Neg": np.negative,
    "Abs": np.abs,
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Not": lambda array: np.where(np.isnan(array), np.nan, array == 0),
}
_RULES: dict[str, Callable[[list[Value], Mapping[str, Any]], Value]] = {
    **{name: _elementwise(function) for name, function in _ELEMENTWISE.items()},
    "Identity": lambda inputs, attributes: inputs[0],
    "Div": _divide,
    "Cast": _cast,
    "Gather": _gather,
    "Concat": _concat,
    "Slice": _slice,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "ReduceProd": _reduce(np.prod),
    "ReduceMin": _reduce(np.min),
    "ReduceMax": _reduce(np.max),
    "ReduceSum": _reduce(np.sum),
}
_ALL_INPUTS = {*_ELEMENTWISE, "Div", "Gather", "Concat"}
