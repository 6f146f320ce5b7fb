"""Operations that move, drop or repeat entries: the root of how often one is repeated."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spectral_conv.certification._call import Call, Rule, Step, size
from spectral_conv.certification._rounding import root

_FLOATS = (1, 10, 11, 16)  # ONNX's numbers of float32, float16, float64, bfloat16
_PAD_MODES: dict[str, Literal["reflect", "edge", "wrap"]] = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}
_LARGEST = 10**7  # pixels along an axis


def _kept(call: Call) -> Step:
    return call.scaled(1.0, "exact", "entries move, none is repeated")


def _dropped(call: Call) -> Step:
    return call.scaled(1.0, "exact", "entries are dropped, none is repeated")


def _dropout(call: Call) -> Step:
    training = call.numbers(2)
    if len(call.operands) > 2 and call.operands[2] is not None and (training is None or training.any()):
        call.refuse("it is random (training mode)")
    return call.scaled(1.0, "exact", "the identity at inference")


def _cast(call: Call) -> Step:
    if call.node.attributes.get("to") not in _FLOATS:
        call.refuse("it makes other numbers than floating-point ones, which jumps")
    return call.scaled(1.0, "exact", "the same numbers")


def _gather(call: Call) -> Step:
    if len(call.operands) < 2 or call.operands[1] is None or call.operands[1].varies:
        call.refuse("what it picks depends on the input, so that it jumps")
    indices = call.numbers(1)
    if indices is None:
        call.refuse("its indices are not known")
    axis, shape = call.node.attributes.get("axis", 0), call.first.shape
    length = None
    if shape is not None and type(axis) is int and -len(shape) <= axis <= len(shape) and axis != 0:
        length = shape[axis - 1 if axis > 0 else axis]
    count = _most(indices if length is None else np.where(indices < 0, indices + length, indices))
    if length is None and indices.min() < 0 <= indices.max():
        count = _most(indices[indices < 0]) + _most(indices[indices >= 0])  # -1 may be any of the others
    return _repeated(call, count, exact=length is not None)


def _most(indices: NDArray[np.float64]) -> int:
    return int(np.unique(indices, return_counts=True)[1].max())


def _repeated(call: Call, count: int, *, exact: bool = True) -> Step:
    if count == 1:
        return call.scaled(1.0, "exact", "no entry is repeated")
    return call.scaled(
        root(count), "exact" if exact else "upper", f"an entry is repeated at most {count} times: sqrt({count})"
    )


def _pad(call: Call) -> Step:
    mode = call.node.attributes.get("mode") or "constant"
    if mode == "constant":
        return call.scaled(1.0, "exact", "constants are added around")
    if mode not in _PAD_MODES:
        call.refuse(f"its mode is {mode!r}")
    pads, shape = call.node.attributes.get("pads"), call.first.shape
    if shape is None or not isinstance(pads, tuple | list) or not all(type(x) is int and x >= 0 for x in pads):
        call.refuse("its pads, or the sizes that it reads, are not known")
    half = len(pads) // 2
    axes = call.node.attributes.get("axes", tuple(range(half)))
    count = 1
    for axis, before, after in zip(axes, pads[:half], pads[half:], strict=True):
        if before == after == 0:
            continue
        place = axis % (len(shape) + 1)
        length = None if place == 0 else shape[place - 1]
        if length is None or length + before + after > _LARGEST:
            call.refuse("the sizes that it reads are not known")
        padded = np.pad(np.arange(length), (before, after), mode=_PAD_MODES[mode])
        count *= int(np.bincount(padded).max())
    return _repeated(call, count)


def _expand(call: Call) -> Step:
    before, after = size(call.first.full), size(None if call.written is None else (call.front, *call.written))
    if not before or not after:
        call.refuse("the sizes that it reads and writes are not known")
    return _repeated(call, -(-after // before))


def _tile(call: Call) -> Step:
    stated = call.numbers(1)
    repeats = call.node.attributes.get("repeats") if stated is None else stated.astype(int).ravel().tolist()
    if not isinstance(repeats, tuple | list) or not all(type(x) is int and x >= 1 for x in repeats):
        call.refuse("how often it repeats is not known")
    return _repeated(call, math.prod(repeats))


MOVEMENTS: dict[str, Rule] = {
    **dict.fromkeys(
        ("Identity", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "DepthToSpace", "SpaceToDepth"), _kept
    ),
    **dict.fromkeys(("Slice", "Split", "Crop"), _dropped),
    "Dropout": _dropout,
    "Cast": _cast,
    "Gather": _gather,
    "Pad": _pad,
    "Expand": _expand,
    "Tile": _tile,
}
