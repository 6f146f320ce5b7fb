"""From a stored tensor and the geometry stated for it to a layer."""

from __future__ import annotations

import numpy as np

from spectral_conv.models._contents import StoredTensor
from spectral_conv.models._entry import LayerEntry, short
from spectral_conv.models._layouts import channel_counts, check_layout, default_layout, for_operator
from spectral_conv.models._model import ConvLayer, ModelError, Skipped
from spectral_conv.operator import ConvOperator


def build_layer(entry: LayerEntry, tensor: StoredTensor) -> ConvLayer | Skipped:
    """Build the layer; one that cannot be analysed comes back as `Skipped` with the reason.

    Raises
    ------
    ModelError
        The entry contradicts the tensor, or its own `output_size`.
    """
    layout = check_entry(entry, tensor)
    if not tensor.floating:
        return _unusable(tensor, f"its numbers are {tensor.dtype}; weights must be real floating-point numbers")
    ndim = len(tensor.shape) - 2
    try:
        with np.errstate(invalid="ignore"):  # widening a signalling NaN warns; ConvOperator refuses it by name
            weights = tensor.load().astype(np.float64)
        kernel, operator_layout = for_operator(weights, layout)
        operator = ConvOperator(
            kernel,
            input_shape=_per_axis(entry.input_size, ndim),
            layout=operator_layout,
            stride=entry.stride,
            padding=entry.padding,
            padding_mode=entry.padding_mode,
            dilation=entry.dilation,
            groups=entry.groups,
            transposed=entry.transposed,
            output_padding=entry.output_padding,
            dtype=np.float64,
        )
    except (ValueError, OSError) as error:
        # The operator speaks of `input_shape`; the document and the command line call it `input_size`.
        return _unusable(tensor, str(error).replace("`input_shape`", "`input_size`").rstrip("."))
    except MemoryError:
        return _unusable(tensor, f"its {tensor.size} weights do not fit into memory")
    stated = entry.output_size
    if stated is not None and operator.output_shape != _per_axis(stated, ndim):
        raise ModelError(
            f"{entry.where}: `output_size` is {short(stated)}, but this geometry gives "
            f"{list(operator.output_shape)}. Check `input_size`, `stride`, `padding` and `dilation`."
        )
    return ConvLayer(
        name=tensor.name, operator=operator, assumed=entry.assumed, kernel_shape=tensor.shape, layout=layout
    )


def check_entry(entry: LayerEntry, tensor: StoredTensor) -> str:
    """Check the entry against the tensor and return the layout.

    Raises
    ------
    ModelError
        Names the layer, the key, the requirement and what came.
    """
    if entry.shape is not None and entry.shape != tensor.shape:
        raise ModelError(
            f"{entry.where}: `shape` is {list(entry.shape)}, but the tensor {tensor.name!r} in the file has "
            f"{list(tensor.shape)}. Is this document for another model?"
        )
    ndim = len(tensor.shape) - 2
    if not 1 <= ndim <= 3:
        raise ModelError(
            f"{entry.where}: the weight of a convolution has 3 to 5 axes; {tensor.name!r} has the shape "
            f"{list(tensor.shape)}. Remove this entry."
        )
    layout = entry.layout or default_layout(ndim, entry.transposed)
    check_layout(entry.where, layout, ndim, entry.transposed)
    for key in ("stride", "padding", "dilation", "output_padding", "input_size", "output_size"):
        value = getattr(entry, key)
        if isinstance(value, tuple) and len(value) != ndim:
            spatial = " (spatial sizes only, without channels)" if key.endswith("_size") else ""
            raise ModelError(
                f"{entry.where}: `{key}` needs one entry per spatial axis, {ndim} for a weight of shape "
                f"{list(tensor.shape)}{spatial}; got {short(value)}."
            )
    _check_groups(entry, tensor, layout)
    return layout


def _check_groups(entry: LayerEntry, tensor: StoredTensor, layout: str) -> None:
    channels = channel_counts(tensor.shape, layout, entry.transposed, entry.groups)
    if "C" in layout and entry.groups != channels[0]:
        raise ModelError(
            f"{entry.where}: `groups` of a depthwise kernel ({layout}) must be its {channels[0]} channels; "
            f"got {entry.groups}."
        )
    divided = channels[0] if entry.transposed else channels[1]
    if divided % entry.groups:
        raise ModelError(
            f"{entry.where}: `groups` must divide the {divided} {'input' if entry.transposed else 'output'} "
            f"channels of {tensor.name!r}, shape {list(tensor.shape)} ({layout}); got {entry.groups}. "
            "Check `groups` and `layout`."
        )


def _per_axis(size: int | tuple[int, ...], ndim: int) -> tuple[int, ...]:
    return (size,) * ndim if isinstance(size, int) else size


def _unusable(tensor: StoredTensor, reason: str) -> Skipped:
    return Skipped(
        name=tensor.name,
        reason=f"a convolution of shape {list(tensor.shape)} that cannot be analysed: {reason}",
        spoiled=True,
    )
