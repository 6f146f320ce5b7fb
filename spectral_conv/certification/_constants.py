"""Constants that a graph computes from small tensors before it applies them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_MOST = 2**20  # entries
# Types under ONNX's numbers; bfloat16 and its like, which NumPy does not have, are not followed.
_FLOATS: dict[Any, type[np.floating]] = {1: np.float32, 10: np.float16, 11: np.float64}
_INTEGERS: dict[Any, type[np.integer]] = {
    2: np.uint8, 3: np.int8, 4: np.uint16, 5: np.int16, 6: np.int32, 7: np.int64, 12: np.uint32, 13: np.uint64,
}  # fmt: skip
_BOOL = 9
_STATED = ("value_float", "value_floats", "value_int", "value_ints", "value")


def constant_value(op: str, attributes: Mapping[str, Any], operands: Sequence[Array | None]) -> Array | None:
    """Return what an operation makes of constants, None where that is not followed.

    Nothing is lost by giving up: whoever needs the numbers says so.
    """
    if op == "Constant":
        stated = next((attributes[name] for name in _STATED if name in attributes), None)
        return None if stated is None else np.asarray(stated)
    known = [array for array in operands if array is not None]
    rule = _RULES.get(op)
    if rule is None or not known or known[0] is not operands[0]:
        return None
    if op in _PAIRS and len(known) != 2:
        return None
    try:
        if op in _PAIRS and math.prod(np.broadcast_shapes(*(array.shape for array in known))) > _MOST:
            return None
        with np.errstate(all="ignore"):  # who uses the numbers checks that they are finite
            return np.asarray(rule(known, attributes))
    except (ValueError, TypeError, IndexError, KeyError):
        return None  # it makes no sense, or not to us


def _cast(inputs: list[Array], attributes: Mapping[str, Any]) -> Array:
    array, to = inputs[0], attributes["to"]
    if to == _BOOL:
        return array != 0
    if to in _FLOATS:
        return array.astype(_FLOATS[to])
    limits, whole = np.iinfo(_INTEGERS[to]), np.trunc(array.astype(np.float64))
    if not np.all((limits.min <= whole) & (whole < float(limits.max) + (limits.bits < 64))):
        raise ValueError("beyond the range, runtimes differ")
    return array.astype(_INTEGERS[to])


def _reshape(inputs: list[Array], attributes: Mapping[str, Any]) -> Array:
    shape = attributes["shape"] if "shape" in attributes else inputs[1].astype(int).tolist()
    if not attributes.get("allowzero"):
        shape = [size or inputs[0].shape[i] for i, size in enumerate(shape)]
    return inputs[0].reshape(shape)


def _flatten(inputs: list[Array], attributes: Mapping[str, Any]) -> Array:
    return inputs[0].reshape(math.prod(inputs[0].shape[: attributes.get("axis", 1)]), -1)


def _on_axes(function: Callable[..., Array]) -> Callable[[list[Array], Mapping[str, Any]], Array]:
    def rule(inputs: list[Array], attributes: Mapping[str, Any]) -> Array:
        axes = attributes.get("axes") or (inputs[1].astype(int).tolist() if len(inputs) > 1 else None)
        return function(inputs[0], axes if axes is None else tuple(axes))

    return rule


_Rule = Callable[[list[Array], Mapping[str, Any]], Array]
_PAIRS = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}
_SINGLE: dict[str, Callable[[Array], Array]] = {
    "Neg": np.negative,
    "Abs": np.abs,
    "Sqrt": np.sqrt,
    "Reciprocal": lambda array: 1.0 / array,
    "Exp": np.exp,
    "Identity": lambda array: array,
}


def _pair(function: Callable[[Array, Array], Array]) -> _Rule:
    def rule(inputs: list[Array], attributes: Mapping[str, Any]) -> Array:
        if any(array.dtype.kind != "f" for array in inputs):
            raise TypeError("integers divide and overflow in ways of their own")
        return function(inputs[0].astype(np.float64), inputs[1].astype(np.float64))

    return rule


def _single(function: Callable[[Array], Array]) -> _Rule:
    return lambda inputs, attributes: function(inputs[0])


_RULES: dict[str, _Rule] = {
    **{op: _pair(function) for op, function in _PAIRS.items()},
    **{op: _single(function) for op, function in _SINGLE.items()},
    "Cast": _cast,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _on_axes(np.squeeze),
    "Unsqueeze": _on_axes(np.expand_dims),
    "Transpose": lambda inputs, attributes: np.transpose(inputs[0], attributes.get("perm")),
}
