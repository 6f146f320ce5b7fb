"""Rules for sizes: from the shapes of a node's inputs and its attributes to the shapes of its results."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from spectral_conv.models._onnx_nodes import Op, Shape
from spectral_conv.models._onnx_values import slice_indices
from spectral_conv.models._onnx_windows import Window

Shapes = Sequence[Shape | None]

# Results as large as the first input. ImageScaler, Affine, ScaledTanh, ParametricSoftplus and Scale are retired.
_SAME = frozenset(
    """
    Abs Acos Acosh Affine Asin Asinh Atan Atanh BatchNormalization BiasGelu Bernoulli BitwiseNot Cast CastLike Ceil
    Celu Clip Cos Cosh CumSum DequantizeLinear Dropout Elu Erf Exp FastGelu Floor Gelu GroupNormalization HardSigmoid
    HardSwish Hardmax Identity ImageScaler InstanceNormalization IsInf IsNaN LRN LayerNormalization LeakyRelu Log
    LogSoftmax LpNormalization MeanVarianceNormalization Mish Neg Not PRelu ParametricSoftplus QuantizeLinear
    QuickGelu RMSNormalization Reciprocal Relu Round Scale ScaledTanh Selu Shrink Sigmoid Sign Sin Sinh
    SkipLayerNormalization Softmax Softplus Softsign SpatialBN Sqrt Swish Tan Tanh ThresholdedRelu Trilu
    """.split()  # noqa: SIM905 -- a table of words
)
_BROADCAST = frozenset(
    """
    Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min
    Mod Mul Or Pow Sub Sum Where Xor
    """.split()  # noqa: SIM905
)
_DOMAINS = ("", "com.microsoft")  # whatever a stranger calls "Relu" may do something else
# Where the weight is among the inputs.
CONVOLUTIONS = {"Conv": 1, "FusedConv": 1, "ConvInteger": 1, "QLinearConv": 3, "ConvTranspose": 1}


def result_shapes(op: Op, attributes: Mapping[str, Any], inputs: Shapes) -> Sequence[Shape | None]:
    """Return the shapes of a node's results, None for unknown ones.

    Raises
    ------
    ValueError, TypeError, IndexError, KeyError, OverflowError
        The node makes no sense.
    """
    if op.domain not in _DOMAINS:
        return []
    if op.op in _SAME:
        return [inputs[0]]
    if op.op in _BROADCAST:
        # Before version 7 only the second operand was stretched, from the axis that `axis` names.
        return [inputs[0] if attributes.get("broadcast") else _broadcast(inputs)]
    if op.op.startswith("Reduce") or op.op in ("ArgMax", "ArgMin"):
        return [_reduce(op, attributes, inputs)]
    rule = _RULES.get(op.op)
    return [] if rule is None else rule(op, attributes, inputs)


def _broadcast(inputs: Shapes) -> Shape | None:
    shapes = [shape for shape in inputs if shape is not None]
    if len(shapes) < len(inputs) or not shapes:
        return None
    ndim = max(map(len, shapes))
    result: list[int | None] = []
    for i in range(-ndim, 0):
        sizes = [shape[i] for shape in shapes if len(shape) >= -i]
        large = [size for size in sizes if size is not None and size != 1]
        result.append(large[0] if large else None if None in sizes else 1)
    return tuple(result)


def _reduce(op: Op, attributes: Mapping[str, Any], inputs: Shapes) -> Shape | None:
    shape = inputs[0]
    if shape is None:
        return None
    axes = attributes.get("axes")
    if op.op.startswith("Arg"):
        axes = (attributes.get("axis", 0),)
    if not axes:
        axes = () if attributes.get("noop_with_empty_axes") else range(len(shape))
    gone = {range(len(shape))[axis] for axis in axes}
    if attributes.get("keepdims", 1):
        return tuple(1 if i in gone else size for i, size in enumerate(shape))
    return tuple(size for i, size in enumerate(shape) if i not in gone)


def _convolution(op: Op, attributes: Mapping[str, Any], inputs: Shapes) -> list[Shape | None]:
    shape, weight = inputs[0], inputs[CONVOLUTIONS[op.op]]
    if shape is None and weight is None:
        return []
    kernel = None if weight is None or None in weight else tuple(int(size or 0) for size in weight[2:])
    window = Window.read(attributes, kernel)
    transposed = op.op == "ConvTranspose"
    channels = None if weight is None else weight[1 if transposed else 0]
    if transposed and channels is not None:
        channels *= attributes.get("group", 1)
    sizes = (None,) * len(window.kernel) if shape is None else shape[2:]
    function = window.transposed_output if transposed else window.output
    return [(shape[0] if shape else None, channels, *(function(i, size) for i, size in enumerate(sizes)))]


def _pool(op: Op, attributes: Mapping[str, Any], inputs: Shapes) -> list[Shape | None]:
    shape = inputs[0]
    if shape is None:
        return []
    window = Window.read(attributes, None)
    ceil = bool(attributes.get("ceil_mode", 0))
    sizes = [window.output(i, size, ceil=ceil) for i, size in enumerate(shape[2:])]
    return [(*shape[:2], *sizes)] * len(op.outputs)


def _global_pool(op: Op, attributes: Mapping[str, Any], inputs: Shapes) -> list[Shape | None]:
    shape = inputs[0]
    return [None if shape is None else (*shape[:2], *(1 for _ in shape[2:]))]


def _concat(op: Op, attributes: Mapping[str, Any], inputs: Shapes) -> list[Shape | None]:
    shapes = [shape for shape in inputs if shape is not None]
    if not shapes:
        return []
    axis = range(len(shapes[0]))[attributes.get("axis", 1)]
    sizes = [[shape[i] for shape in shapes] for i in range(len(shapes[0]))]
    result = [next((size for size in column if size is not None), None) for column in sizes]
    joined = sizes[axis]
    whole = len(shapes) == len(inputs) and None not in joined
    result[axis] = sum(size or 0 for size in joined) if whole else None
    return [tuple(result)]


def _sizes(value: Any) -> list[int | None]:
    return [None if not math.isfinite(x) else int(x) for x in value]


def _reshape(op: Op, attributes: Mapping[str, Any], inputs: Shapes) -> list[Shape | None]:
    shape, wanted = inputs[0], _sizes(attributes["shape"])
    if wanted == [None]:  # not even their number is known
        return []
    copied = [
        (shape[i] if shape is not None else None) if size == 0 and not attributes.get("allowzero") else size
        for i, size in enumerate(wanted)
    ]
    if -1 in copied:
        rest = [size for size in copied if size != -1]
        known = None
        if shape is not None and None not in shape and None not in rest:
            product = math.prod(size or 0 for size in rest)
            known = math.prod(size or 0 for size in shape) // product if product else None
        elif shape is not None and copied[0] is None and wanted[0] == 0:
            # A batch of unknown size that stays in front.
            others, product = shape[1:], math.prod(size or 0 for size in rest[1:])
            if None not in others and None not in rest[1:] and product:
                known = math.prod(size or 0 for size in others) // product
        copied[copied.index(-1)] = known
    return [tuple(copied)]


def _flatten(op: Op, attributes: Mapping[str, Any], inputs: Shapes) -> list[Shape | None]:
    shape, axis = inputs[0], attributes.get("axis", 1)
    if shape is None:
        return [(None, None)]
    halves = (shape[:axis], shape[axis:])
    return [tuple(None if None in half else math.prod(size or 0 for size in half) for half in halves)]


def _squeeze(op: Op, attributes: Mapping[str, Any], inputs: Shapes) -> list[Shape | None]:
    shape, axes = inputs[0], attributes.get("axes")
    if shape is None or (axes is None and None in shape):
        return []
    gone = (
        {range(len(shape))[axis] for axis in axes} if axes is not None else {i for i, n in enumerate(shape) if n == 1}
    )
    return [tuple(size for i, size in enumerate(shape) if i not in gone)]


def _unsqueeze(op: Op, attributes: Mapping[str, Any], inputs: Shapes) -> list[Shape | None]:
    shape, axes = inputs[0], attributes["axes"]
    if shape is None:
        return []
    new = {range(len(shape) + len(axes))[axis] for axis in axes}
    rest = iter(shape)
    return [tuple(1 if i in new else next(rest) for i in range(len(shape) + len(axes)))]


def _transpose(op: Op, attributes: Mapping[str, Any], inputs: Shapes) -> list[Shape | None]:
    shape = inputs[0]
    if shape is None:
        return []
    return [tuple(shape[i] for i in attributes.get("perm", range(len(shape))[::-1]))]


def _slice(op: Op, attributes: Mapping[str, Any], inputs: Shapes) -> list[Shape | None]:
    shape, starts, ends = inputs[0], attributes["starts"], attributes["ends"]
    if shape is None:
        return []
    result = list(shape)
    axes, steps = attributes.get("axes", range(len(starts))), attributes.get("steps", (1,) * len(starts))
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = result[axis]
        fixed = size is not None and all(math.isfinite(x) for x in (start, end, step))
        result[axis] = len(range(*slice_indices(int(size or 0), int(start), int(end), int(step)))) if fixed else None
    return [tuple(result)]


def _split(op: Op, attributes: Mapping[str, Any], inputs: Shapes) -> list[Shape | None]:
    shape = inputs[0]
    if shape is None:
        return []
    axis = range(len(shape))[attributes.get("axis", 0)]
    count, size = len(op.outputs), shape[axis]
    parts: list[int | None] = [None] * count
    if attributes.get("split"):
        parts = _sizes(attributes["split"])
    elif size is not None:
        part = -(-size // count)
        parts = [part] * (count - 1) + [size - part * (count - 1)]
    return [(*shape[:axis], part, *shape[axis + 1 :]) for part in parts]


def _pad(op: Op, attributes: Mapping[str, Any], inputs: Shapes) -> list[Shape | None]:
    shape = inputs[0]
    if shape is None:
        return []
    pads = attributes["pads"] if "pads" in attributes else attributes["paddings"]
    half = len(pads) // 2
    axes = attributes.get("axes", range(half))
    if half == 0:
        return [(None,) * len(shape)]
    result = list(shape)
    for axis, before, after in zip(axes, pads[:half], pads[half:], strict=True):
        size, more = result[axis], before + after
        result[axis] = size + int(more) if size is not None and math.isfinite(more) else None
    return [tuple(result)]


def _crop(op: Op, attributes: Mapping[str, Any], inputs: Shapes) -> list[Shape | None]:
    shape = inputs[0]
    if shape is None:
        return []
    left, top, right, bottom = attributes["border"]
    height, width = attributes.get("scale") or (
        None if shape[2] is None else shape[2] - top - bottom,
        None if shape[3] is None else shape[3] - left - right,
    )
    return [(*shape[:2], height, width)]


def _resize(op: Op, attributes: Mapping[str, Any], inputs: Shapes) -> list[Shape | None]:
    shape = inputs[0]
    if attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        return []
    if shape is None:  # sizes of all axes say it all
        sizes = _sizes(attributes["sizes"])
        return [] if "axes" in attributes or sizes == [None] else [tuple(sizes)]
    result = list(shape)
    scales = attributes.get("scales")
    if "width_scale" in attributes:  # the first Upsample
        scales = (1.0, 1.0, attributes["height_scale"], attributes["width_scale"])
    if attributes.get("sizes"):
        for axis, size in zip(attributes.get("axes", range(len(shape))), _sizes(attributes["sizes"]), strict=True):
            result[axis] = size
        return [tuple(result)]
    if not scales:
        return []
    for axis, scale in zip(attributes.get("axes", range(len(shape))), scales, strict=True):
        size = result[axis]
        fixed = size is not None and math.isfinite(scale)
        # The scales are float32, and so is the product: 1/3 of 6 pixels are 2 of them.
        result[axis] = int(np.float32(size or 0) * np.float32(scale)) if fixed else (size if scale == 1 else None)
    return [tuple(result)]


def _expand(op: Op, attributes: Mapping[str, Any], inputs: Shapes) -> list[Shape | None]:
    wanted = _sizes(attributes["shape"])
    return [] if wanted == [None] else [_broadcast([inputs[0], tuple(wanted)])]


def _tile(op: Op, attributes: Mapping[str, Any], inputs: Shapes) -> list[Shape | None]:
    shape = inputs[0]
    if shape is None:
        return []
    pairs = zip(shape, _sizes(attributes["repeats"]), strict=True)
    return [tuple(None if size is None or count is None else size * count for size, count in pairs)]


def _constant_of_shape(op: Op, attributes: Mapping[str, Any], inputs: Shapes) -> list[Shape | None]:
    wanted = _sizes(attributes["shape"])
    return [] if wanted == [None] else [tuple(wanted)]


def _depth_to_space(op: Op, attributes: Mapping[str, Any], inputs: Shapes) -> list[Shape | None]:
    shape, block = inputs[0], attributes["blocksize"]
    if shape is None:
        return []
    batch, channels, *sizes = shape
    if op.op == "DepthToSpace":
        fewer = None if channels is None else channels // block ** len(sizes)
        return [(batch, fewer, *(None if size is None else size * block for size in sizes))]
    more = None if channels is None else channels * block ** len(sizes)
    return [(batch, more, *(None if size is None else size // block for size in sizes))]


def _matmul(op: Op, attributes: Mapping[str, Any], inputs: Shapes) -> list[Shape | None]:
    first, second = inputs[:2]
    if first is None or second is None or min(len(first), len(second)) < 2:
        return []
    batch = _broadcast([first[:-2], second[:-2]])
    return [None if batch is None else (*batch, first[-2], second[-1])]


def _gemm(op: Op, attributes: Mapping[str, Any], inputs: Shapes) -> list[Shape | None]:
    first, second = inputs[:2]
    rows = None if first is None else first[1 if attributes.get("transA") else 0]
    columns = None if second is None else second[0 if attributes.get("transB") else 1]
    return [(rows, columns)]


def _gather(op: Op, attributes: Mapping[str, Any], inputs: Shapes) -> list[Shape | None]:
    shape, indices = inputs[:2]
    if shape is None or indices is None:
        return []
    axis = range(len(shape))[attributes.get("axis", 0)]
    return [(*shape[:axis], *indices, *shape[axis + 1 :])]


def _shape(op: Op, attributes: Mapping[str, Any], inputs: Shapes) -> list[Shape | None]:
    shape = inputs[0]
    return [] if shape is None else [(len(shape[attributes.get("start", 0) : attributes.get("end")]),)]


def _recurrent(op: Op, attributes: Mapping[str, Any], inputs: Shapes) -> list[Shape | None]:
    shape, hidden = inputs[0], attributes["hidden_size"]
    if shape is None:
        return []
    ways = 2 if attributes.get("direction") == "bidirectional" else 1
    if attributes.get("layout"):
        batch, steps = shape[:2]
        return [(batch, steps, ways, hidden), (batch, ways, hidden), (batch, ways, hidden)]
    steps, batch = shape[:2]
    return [(steps, ways, batch, hidden), (ways, batch, hidden), (ways, batch, hidden)]


_Rule = Callable[[Op, Mapping[str, Any], Shapes], Sequence[Shape | None]]
_RULES: dict[str, _Rule] = {
    **dict.fromkeys(CONVOLUTIONS, _convolution),
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool"), _pool),
    **dict.fromkeys(("GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool"), _global_pool),
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), _depth_to_space),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
    "Concat": _concat,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Slice": _slice,
    "Split": _split,
    "Pad": _pad,
    "Crop": _crop,
    "Expand": _expand,
    "Tile": _tile,
    "ConstantOfShape": _constant_of_shape,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Gather": _gather,
    "Shape": _shape,
}
