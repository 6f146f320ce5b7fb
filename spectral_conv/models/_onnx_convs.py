"""The convolutions among the nodes of an ONNX graph, as entries with all that the file states."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import numpy as np

from spectral_conv.models._entry import LARGEST_INTEGER, LayerEntry
from spectral_conv.models._layouts import channel_counts, spatial_sizes
from spectral_conv.models._model import Skipped
from spectral_conv.models._onnx_nodes import Network, Op, Shape
from spectral_conv.models._onnx_rules import CONVOLUTIONS
from spectral_conv.models._onnx_tensors import Weight
from spectral_conv.models._onnx_weights import Applied, UntraceableError, applied_weight, quantized_weight
from spectral_conv.models._onnx_windows import Window

# Convolutions whose weights mean something else.
_OTHERS = {
    "ConvInteger": "its integers have no scale of their own",
    "DeformConv": "its sampling points depend on the input: no linear operator",
    "NhwcConv": "a channels-last convolution of one runtime; export the model without optimizations",
    "QLinearConvTranspose": "a quantized operator of one runtime; export the model before quantization",
    "NhwcFusedConv": "a channels-last convolution of one runtime; export the model without optimizations",
}
_DOMAINS = ("", "com.microsoft")
_EXCHANGED = str.maketrans("IO", "OI")


@dataclass(kw_only=True)
class Convolutions:
    """What was found; `network.weights` holds the tensors as they are applied."""

    entries: dict[str, LayerEntry] = field(default_factory=dict)
    unread: list[Skipped] = field(default_factory=list)
    kernels: dict[str, tuple[str, str]] = field(default_factory=dict)  # of a node: what it reads, the tensor behind


def find_convolutions(network: Network) -> Convolutions:
    """Return an entry for every convolution that can be used, and the others with the reason."""
    found = Convolutions()
    producers = {name: op for op in network.ops for name in op.outputs if name}
    replaced = {}
    for op in network.ops:
        if op.op not in CONVOLUTIONS and op.op not in _OTHERS:
            continue
        try:
            if op.domain not in _DOMAINS:
                raise UntraceableError(
                    op.name, f"a {op.op} of the operator set {op.domain!r}, which may mean anything"
                )
            if op.op in _OTHERS:
                raise UntraceableError(op.name, f"a {op.op}: {_OTHERS[op.op]}")
            applied = _applied(network, producers, op)
            entry = _entry(op, applied, network.shapes.get(op.inputs[0]))
        except UntraceableError as error:
            found.unread.append(Skipped(name=error.name, reason=_reason(op, str(error)), spoiled=True))
            continue
        first = found.entries.get(entry.weight)
        if first is None:
            found.entries[entry.weight] = entry
            replaced[entry.weight] = applied.weight
        if first is None or _same_kernel(entry, applied, first, replaced[entry.weight]):
            found.kernels[op.name] = (op.inputs[CONVOLUTIONS[op.op]], entry.weight)
        if first is not None:
            found.unread.append(Skipped(name=op.name, reason=_again(op, entry, first)))
    network.weights.update(replaced)
    return found


def _same_kernel(entry: LayerEntry, applied: Applied, first: LayerEntry, weight: Weight) -> bool:
    """Whether the two kernels are one, not one tensor turned or scaled in two ways."""
    # What a convolution writes, its transpose reads: their layouts name the same axes in two ways.
    layout = str(entry.layout)
    if (layout if entry.transposed == first.transposed else layout.translate(_EXCHANGED)) != first.layout:
        return False
    return applied.weight is weight or np.array_equal(applied.weight.load(), weight.load())


def _reason(op: Op, why: str) -> str:
    return f"the weight of the {op.op} {op.name!r}, which cannot be analysed: {why}"


def _again(op: Op, entry: LayerEntry, first: LayerEntry) -> str:
    size = "an unknown input size" if "input_size" in entry.assumed else f"the input size {_list(entry.input_size)}"
    changed = [
        name
        for name in ("transposed", "stride", "padding", "dilation", "groups", "output_padding", "layout")
        if getattr(entry, name) != getattr(first, name)
    ]
    differs = f" and another {', '.join(changed)}" if changed else ""
    return f"a {op.op} that applies {entry.weight!r} again, with {size}{differs}; listed is {first.where} only"


def _list(size: int | tuple[int, ...]) -> str:
    return str(list(size)) if isinstance(size, tuple) else str(size)


def _applied(network: Network, producers: dict[str, Op], op: Op) -> Applied:
    place = CONVOLUTIONS[op.op]
    if len(op.inputs) <= place or not op.inputs[place]:
        raise UntraceableError(op.name, "it has no weight")
    applied = applied_weight(network, producers, op.inputs[place], transposed=op.op == "ConvTranspose")
    if op.op == "QLinearConv":
        applied = quantized_weight(network, op, applied)
    return applied


def _entry(op: Op, applied: Applied, shape: Shape | None) -> LayerEntry:
    weight, transposed = applied.weight, op.op == "ConvTranspose"
    kernel = spatial_sizes(weight.shape, applied.layout)
    ndim = len(kernel)
    try:
        if 0 in weight.shape:
            raise ValueError(f"its weight is empty: its shape is {list(weight.shape)}")
        window = Window.read(op.attributes, kernel)
    except ValueError as error:
        raise UntraceableError(weight.name, str(error)) from error
    groups = op.attributes.get("group", 1)
    stored = channel_counts(weight.shape, applied.layout, transposed, 1)
    divided = stored[0] if transposed else stored[1]
    if type(groups) is not int or groups < 1 or divided % groups:
        raise UntraceableError(weight.name, f"`group` must divide its {divided} channels; got {groups!r}")
    sizes = _input_sizes(shape, ndim, channel_counts(weight.shape, applied.layout, transposed, groups)[0])
    if sizes is not None and max(sizes) > LARGEST_INTEGER:
        raise UntraceableError(weight.name, f"its input size {list(sizes)} is beyond {LARGEST_INTEGER}")
    known: tuple[int | None, ...] = sizes or (None,) * ndim
    extra = window.output_padding
    if transposed:
        cut = [window.transposed_padding(i, size) for i, size in enumerate(known)]
        padding, extra = tuple(pair for pair, _ in cut), tuple(more for _, more in cut)
        depends = window.output_shape is not None
    else:
        padding = tuple(window.padding(i, size) for i, size in enumerate(known))
        depends = any(window.needs_size(i) for i in range(ndim))
    entry = LayerEntry(
        weight=weight.name,
        where=f"node {op.name!r}",
        layout=applied.layout,
        transposed=transposed,
        stride=window.stride,
        padding=padding,
        dilation=window.dilation,
        groups=groups,
        output_padding=extra if transposed else 0,
    )
    if sizes is not None:
        return dataclasses.replace(entry, input_size=sizes)
    return dataclasses.replace(entry, assumed=("padding", "input_size") if depends else ("input_size",))


def _input_sizes(shape: Shape | None, ndim: int, channels: int) -> tuple[int, ...] | None:
    if shape is None or len(shape) != ndim + 2 or shape[1] not in (None, channels):
        return None  # a shape that contradicts the weight is a mistake of the file or of ours
    sizes = tuple(size for size in shape[2:] if size)
    return sizes if len(sizes) == ndim else None
