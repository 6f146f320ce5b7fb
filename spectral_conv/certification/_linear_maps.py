"""Convolutions and matrix products: the norm of the layer that a node applies."""

from __future__ import annotations

from typing import Any

from spectral_conv.certification._call import Call, Rule, Shape, Step
from spectral_conv.certification._norms import Layer, Norm
from spectral_conv.certification._rounding import product, root
from spectral_conv.operator import ConvOperator

_TURNS = ("Transpose", "Identity")
_LINEAR = "read the model with read_model(..., include_linear=True), which takes matrices as layers"


def _convolution(call: Call) -> Step:
    layers = call.norms.layers
    name = next((name for name in call.node.weights if name in layers), None)
    if name is None:
        kernel = ", ".join(call.node.weights[:1]) or "that it applies"
        call.refuse(f"its kernel {kernel} is none of the model's layers; `model.skipped` says why")
    norm = _norm_here(call, layers[name])
    return call.scaled(norm.value, norm.kind, norm.theorem)


def _norm_here(call: Call, layer: Layer) -> Norm:
    """Return the norm of a layer where this node applies it: a kernel may meet several sizes, strides, operators."""
    kernel, geometry = layer.operator.kernel, layer.operator.geometry
    ndim, transposed = geometry.ndim, call.node.op == "ConvTranspose"
    if transposed != geometry.transposed:
        kernel = kernel.swapaxes(-1, -2)  # ONNX stores both alike: what one reads, the other writes
    alone = call.norms.uses.get(layer.name, 0) < 2 and transposed == geometry.transposed
    groups = int(call.number("group", 1))
    channels = kernel.shape[-2] * (1 if transposed else groups)
    sizes = tuple(size for size in call.sizes(ndim) if size is not None)
    stated = len(sizes) == ndim and call.first.shape is not None and call.first.shape[0] in (None, channels)
    if not stated and alone:
        return call.norms.of_layer(layer)
    if not stated and "input_size" not in layer.assumed:
        call.refuse(f"it applies the shared kernel {layer.name} to an input whose size is not known")
    sizes = sizes if stated else geometry.input_shape
    pads = _pads(call, sizes, geometry.kernel_size)
    if pads is None and alone:
        return call.norms.of_layer(layer)
    if pads is None:
        call.refuse(f"it applies the shared kernel {layer.name} with a padding that its output size states")
    try:
        conv = ConvOperator(
            kernel,
            sizes,
            layout="DHWIO"[3 - ndim :],
            stride=call.integers("strides", ndim, 1),
            padding=pads,
            padding_mode=geometry.padding_mode,
            dilation=call.integers("dilations", ndim, 1),
            groups=groups,
            transposed=transposed,
            output_padding=call.integers("output_padding", ndim, 0),
        )
    except ValueError as error:
        call.refuse(f"it applies the kernel {layer.name} in a way that cannot be analysed ({error})")
    if conv.geometry == geometry:
        return call.norms.of_layer(layer)
    norm = call.norms.of_operator(conv)
    kind = norm.kind if stated else "estimate"
    return Norm(value=norm.value, kind=kind, theorem=f"{layer.name}, applied in another way: {norm.theorem}")


def _pads(call: Call, sizes: tuple[int, ...], kernel: tuple[int, ...]) -> list[tuple[int, int]] | None:
    """Return the (before, after) pairs that the node states, None where it states the size of the output."""
    ndim, attributes = len(kernel), call.node.attributes
    auto = attributes.get("auto_pad") or "NOTSET"
    transposed = call.node.op == "ConvTranspose"
    if transposed and (attributes.get("output_shape") or auto.startswith("SAME")):
        return None
    if auto in ("NOTSET", "VALID"):
        flat = call.integers("pads", 2 * ndim, 0) if auto == "NOTSET" else (0,) * (2 * ndim)
        return list(zip(flat[:ndim], flat[ndim:], strict=True))
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        call.refuse(f"its padding is {auto!r}")
    strides, dilations = call.integers("strides", ndim, 1), call.integers("dilations", ndim, 1)
    return same_pads(auto, sizes, kernel, strides, dilations)


def same_pads(
    auto: str, sizes: tuple[int, ...], kernel: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...]
) -> list[tuple[int, int]]:
    """Return the padding that makes the output ``ceil(input / stride)`` long.

    Examples
    --------
    >>> same_pads("SAME_UPPER", (8,), (3,), (2,), (1,))
    [(0, 1)]
    """
    pairs = []
    for n, k, s, d in zip(sizes, kernel, strides, dilations, strict=True):
        whole = max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
        small = whole // 2
        pairs.append((small, whole - small) if auto == "SAME_UPPER" else (whole - small, small))
    return pairs


def _matrix_product(call: Call) -> Step:
    factors = [operand for operand in call.operands[:2] if operand is not None]
    if sum(operand.varies for operand in factors) > 1:
        call.refuse("the product of two values that depend on the input is not globally Lipschitz")
    at = next((i for i, operand in enumerate(call.operands) if operand is not None and operand.varies), 0)
    if at > 1:
        call.refuse("only what it adds depends on the input")
    norm = _matrix_norm(call, 1 - at)
    constant, kind, theorem = norm.value, norm.kind, norm.theorem
    if call.node.op == "Gemm":
        alpha = abs(call.number("alpha", 1.0))
        if alpha != 1.0:
            constant, theorem = product(constant, alpha), f"|alpha| = {alpha:g} times {theorem}"
    bias = call.operands[2] if len(call.operands) > 2 else None
    if bias is None or not bias.varies:
        return call.scaled(constant, kind, theorem, at=at)
    added = product(abs(call.number("beta", 1.0)), root(call.copies(2)))
    kind = "estimate" if kind == "estimate" else "upper"
    return Step(factors=(*((constant, 0.0) if at == 0 else (0.0, constant)), added), kind=kind, theorem=theorem)


def _matrix_norm(call: Call, place: int) -> Norm:
    operand: Any = call.operands[place] if place < len(call.operands) else None
    if operand is None:
        call.refuse("it has no matrix")
    layers, name = call.norms.layers, operand.name
    source = call.producers.get(name)
    if name not in layers and source is not None and source.op in _TURNS and len(source.weights) == 1:
        name = source.weights[0]  # turning a matrix leaves its norm
    if name in layers and _is_matrix(layers[name], operand.shape):
        return call.norms.of_layer(layers[name])
    matrix = call.numbers(place)
    if matrix is None:
        call.refuse(f"its matrix {name} is none of the model's layers; {_LINEAR}")
    if matrix.ndim != 2:
        call.refuse(f"its matrix {name} has the shape {list(matrix.shape)}")
    norm = call.norms.of_operator(ConvOperator(matrix[None, None], (1, 1), padding=0))
    return Norm(value=norm.value, kind=norm.kind, theorem=f"{name}: {norm.theorem}")


def _is_matrix(layer: Layer, shape: Shape | None) -> bool:
    """Say whether a layer stands for a matrix, not for a convolution whose kernel is read as one."""
    geometry = layer.operator.geometry
    one = set(geometry.kernel_size) == set(geometry.input_shape) == {1}
    plain = not geometry.transposed and geometry.groups == 1 and set(geometry.output_shape) == {1}
    return one and plain and (shape is None or len(shape) == 1)


LINEAR_MAPS: dict[str, Rule] = {
    **dict.fromkeys(("Conv", "ConvTranspose"), _convolution),
    **dict.fromkeys(("Gemm", "MatMul"), _matrix_product),
}
