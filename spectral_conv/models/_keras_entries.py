"""From the convolutions met in a Keras network to layer entries, and what the stored kernels look like there."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectral_conv.models._contents import StoredTensor
from spectral_conv.models._entry import LayerEntry
from spectral_conv.models._keras_graph import ConvSite
from spectral_conv.models._keras_weights import layer_class
from spectral_conv.models._layouts import CHANNELS_LAST, DEPTHWISE, PLAIN, TRANSPOSED, channel_counts, spatial_sizes
from spectral_conv.models._model import Skipped

# Class of a Keras 3 layer -> the layouts of its numbered tensors that are kernels.
_CLASSES = {
    **{f"conv{n}d": (CHANNELS_LAST[n - 1],) for n in (1, 2, 3)},
    **{f"depthwise_conv{n}d": (DEPTHWISE[n - 1],) for n in (1, 2)},
    **{f"separable_conv{n}d": (DEPTHWISE[n - 1], CHANNELS_LAST[n - 1]) for n in (1, 2)},
    **{f"conv{n}d_transpose": ("transposed",) for n in (1, 2, 3)},
}
_OPEN = ("stride", "padding", "padding_mode", "dilation", "groups", "input_size")


def stated_entries(
    sites: Sequence[ConvSite], tensors: dict[str, StoredTensor], unread: list[Skipped]
) -> tuple[LayerEntry, ...]:
    """Return an entry per kernel; a kernel that contradicts its layer moves from `tensors` to `unread`.

    Kernels whose axes lie as no layout says (transposed layers, 1-D layers of Keras 1) are turned in `tensors`.
    """
    chosen: dict[str, ConvSite] = {}
    for site in sites:  # of a layer that is applied several times, the first with known sizes
        if site.weight not in chosen or (None in chosen[site.weight].sizes and None not in site.sizes):
            chosen[site.weight] = site
    entries = []
    for site in chosen.values():
        tensor, layout = _turned(site, tensors[site.weight])
        reason = _contradiction(site, tensor, layout)
        if reason:
            del tensors[site.weight]
            unread.append(Skipped(name=site.weight, reason=reason, spoiled=True))
            continue
        tensors[site.weight] = tensor
        entries.append(_entry(site, tensor, layout))
    return tuple(entries)


def class_entries(tensors: dict[str, StoredTensor]) -> tuple[LayerEntry, ...] | None:
    """Return the kernels of a weights file of Keras 3, None where names have to tell them.

    Its tensors have numbers for names, but their groups are called like the class of the layer.
    """
    entries = []
    numbered = False
    for name in list(tensors):
        group, separator, number = name.replace("\\", "/").rpartition("/vars/")
        numbered = numbered or bool(separator)
        layouts = _CLASSES.get(layer_class(group), ()) if separator and number.isdecimal() else ()
        if not separator or not number.isdecimal() or int(number[:9]) >= len(layouts):
            continue
        layout, tensor = layouts[int(number[:9])], tensors[name]
        transposed = layout == "transposed"
        if len(tensor.shape) != int(layer_class(group).partition("conv")[2][0]) + 2:
            continue
        if transposed:
            tensor = tensors[name] = _with_axes(tensor, _swapped(len(tensor.shape)))
            layout = CHANNELS_LAST[len(tensor.shape) - 3]
        entries.append(
            LayerEntry(
                weight=name,
                where=f"layer {name!r}",
                layout=layout,
                transposed=transposed,
                groups=channel_counts(tensor.shape, layout, transposed, 1)[0] if "C" in layout else 1,
                assumed=_OPEN if "C" not in layout else tuple(field for field in _OPEN if field != "groups"),
            )
        )
    return tuple(entries) if numbered else None


def _turned(site: ConvSite, tensor: StoredTensor) -> tuple[StoredTensor, str]:
    """Return the kernel with its axes in the order of a known layout, and that layout."""
    conv = site.settings
    i = conv.ndim - 1
    if conv.ndim == 1 and len(tensor.shape) == 4 and tensor.shape[1] == 1:  # Keras 1: (length, 1, in, out)
        tensor = _with_shape(tensor, (tensor.shape[0], *tensor.shape[2:]))
    if conv.family == "transposed":
        if conv.old and conv.front:  # as a plain one, (out, in, ...)
            return _with_axes(tensor, (1, 0, *range(2, len(tensor.shape)))), TRANSPOSED[i]
        if conv.old:
            return tensor, CHANNELS_LAST[i]
        # Keras stores (..., out, in) where the others store (..., in, out).
        return _with_axes(tensor, _swapped(len(tensor.shape))), CHANNELS_LAST[i]
    if conv.old and conv.front and conv.ndim > 1:
        return tensor, PLAIN[i]
    if conv.family == "depthwise" or (conv.family == "separable" and not site.pointwise):
        return tensor, DEPTHWISE[i]
    return tensor, CHANNELS_LAST[i]


def _swapped(ndim: int) -> tuple[int, ...]:
    return (*range(ndim - 2), ndim - 1, ndim - 2)


def _contradiction(site: ConvSite, tensor: StoredTensor, layout: str) -> str | None:
    conv = site.settings
    if len(tensor.shape) != conv.ndim + 2:
        return f"its shape {list(tensor.shape)} is none of a {conv.ndim}-D convolution, which its layer is"
    stored, wanted = spatial_sizes(tensor.shape, layout), (1,) * conv.ndim if site.pointwise else conv.kernel
    if stored != wanted:
        return f"its shape {list(tensor.shape)} contradicts the configuration, whose kernel size is {list(wanted)}"
    written = channel_counts(tensor.shape, layout, conv.family == "transposed", 1)[1]
    if conv.family in ("conv", "transposed") and conv.filters is not None and written != conv.filters:
        return f"its shape {list(tensor.shape)} contradicts the configuration, which has {conv.filters} filters"
    return None


def _entry(site: ConvSite, tensor: StoredTensor, layout: str) -> LayerEntry:
    conv = site.settings
    known = tuple(size for size in site.sizes if size is not None)
    complete = len(known) == conv.ndim
    sizes: dict[str, Any] = {"input_size": known} if complete else {}
    assumed = () if complete else ("input_size",)
    plain = LayerEntry(weight=site.weight, where=f"layer {site.weight!r}", layout=layout, assumed=assumed, **sizes)
    if site.pointwise:
        return dataclasses.replace(plain, stride=1, padding=0)
    pads, certain = conv.margins(site.sizes)
    depthwise = "C" in layout
    return dataclasses.replace(
        plain,
        transposed=conv.family == "transposed",
        stride=conv.stride,
        padding=pads,
        dilation=conv.dilation,
        groups=channel_counts(tensor.shape, layout, False, 1)[0] if depthwise else conv.groups,
        output_padding=conv.surplus() if conv.family == "transposed" else 0,
        assumed=assumed if certain else (*assumed, "padding"),
    )


def _with_axes(tensor: StoredTensor, order: tuple[int, ...]) -> StoredTensor:
    if len(tensor.shape) != len(order) or len(order) < 2:
        return tensor
    return dataclasses.replace(
        tensor,
        shape=tuple(tensor.shape[axis] for axis in order),
        load=functools.partial(_transposed, tensor, order),
    )


def _with_shape(tensor: StoredTensor, shape: tuple[int, ...]) -> StoredTensor:
    return dataclasses.replace(tensor, shape=shape, load=functools.partial(_reshaped, tensor, shape))


def _transposed(tensor: StoredTensor, order: tuple[int, ...]) -> NDArray[Any]:
    return np.transpose(tensor.load(), order)


def _reshaped(tensor: StoredTensor, shape: tuple[int, ...]) -> NDArray[Any]:
    return tensor.load().reshape(shape)
