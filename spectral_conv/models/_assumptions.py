"""The geometry that is assumed where a file holds weights alone, every assumed field on record."""

from __future__ import annotations

from collections.abc import Mapping

from spectral_conv.models._contents import StoredTensor
from spectral_conv.models._entry import LayerEntry
from spectral_conv.models._grouping import guess_groups
from spectral_conv.models._kernel_names import (
    is_channels_last,
    is_depthwise,
    longest_kernel,
    plain_name,
    refusal,
    sibling,
)
from spectral_conv.models._layouts import (
    CHANNELS_LAST,
    DEPTHWISE,
    PLAIN,
    TRANSPOSED,
    channel_counts,
    spatial_sizes,
)
from spectral_conv.models._model import ModelError, Skipped

ASSUMED = ("op", "layout", "stride", "padding", "padding_mode", "dilation", "groups", "input_size")
DEFAULT_SIZE = (64, 32, 16)  # per axis, for 1, 2 and 3 axes


def assume_layers(
    tensors: Mapping[str, StoredTensor], input_size: tuple[int, ...] | None
) -> tuple[list[LayerEntry], list[Skipped]]:
    """Return an entry for every tensor that looks like a kernel, and the others with the reason.

    Assumed are PyTorch's layout (HWIO where the name is Keras' or JAX's), padding "same", stride 1,
    dilation 1, one group unless the layer is depthwise and, for every layer, the spatial size of `input_size`
    or else 64, 32 x 32 or 16 x 16 x 16 pixels.

    Raises
    ------
    ModelError
        `input_size` fits none of the kernels.
    """
    kernels: list[tuple[StoredTensor, str, bool]] = []
    skipped = []
    for tensor in tensors.values():
        reason = refusal(tensor, tensors)
        if reason is None:
            layout, transposed = _layout(tensor)
            reason = _too_long(tensor.shape, layout)
        if reason is None and layout in PLAIN:
            layout, transposed, reason = _by_bias(tensor, tensors, layout)
        if reason is None:
            kernels.append((tensor, layout, transposed))
        else:
            skipped.append(Skipped(name=tensor.name, reason=reason))
    groups = guess_groups(
        [(plain_name(tensor.name), tensor.shape, layout, transposed) for tensor, layout, transposed in kernels],
        None if input_size is None else input_size[0],
    )
    entries = [
        LayerEntry(
            weight=tensor.name,
            where=f"layer {tensor.name!r}",
            layout=layout,
            transposed=transposed,
            groups=count,
            input_size=_spatial(len(tensor.shape) - 2, input_size),
            assumed=ASSUMED,
        )
        for (tensor, layout, transposed), count in zip(kernels, groups, strict=True)
    ]
    if input_size is not None and entries:
        _check_input_size(input_size, entries, tensors)
    return entries, skipped


def _layout(tensor: StoredTensor) -> tuple[str, bool]:
    i = len(tensor.shape) - 3
    if is_depthwise(tensor.name):
        return DEPTHWISE[i], False
    if not is_channels_last(tensor.name):
        return PLAIN[i], False
    # Keras' name on a tensor whose shape makes sense only in PyTorch's order: (16, 3, 3, 3).
    first, last = (spatial_sizes(tensor.shape, layout) for layout in (CHANNELS_LAST[i], PLAIN[i]))
    if len(set(first)) > 1 and len(set(last)) == 1 and last[0] <= longest_kernel(i + 1):
        return PLAIN[i], False
    return CHANNELS_LAST[i], False


def _by_bias(tensor: StoredTensor, tensors: Mapping[str, StoredTensor], layout: str) -> tuple[str, bool, str | None]:
    """Let the bias beside the weight tell which axis is written; only the second one: a transposed layer."""
    bias = tensors.get(sibling(plain_name(tensor.name), "bias"))
    if bias is None or len(bias.shape) != 1 or bias.shape[0] == tensor.shape[0]:
        return layout, False, None
    if bias.shape[0] == tensor.shape[1]:
        return TRANSPOSED[PLAIN.index(layout)], True, None
    reason = (
        f"its bias has {bias.shape[0]} entries, which fits no axis of {list(tensor.shape)} that a "
        "convolution could write; name it in a layers document if it is one"
    )
    return layout, False, reason


def _too_long(shape: tuple[int, ...], layout: str) -> str | None:
    sizes = () if "C" in layout else spatial_sizes(shape, layout)
    limit = longest_kernel(len(shape) - 2)
    if any(size > limit for size in sizes):
        return (
            f"as a kernel it would have the size {list(sizes)}, more than {limit}: probably no convolution; "
            "name it in a layers document if it is one"
        )
    return None


def _spatial(ndim: int, input_size: tuple[int, ...] | None) -> tuple[int, ...]:
    if input_size is not None and len(input_size) == ndim + 1:
        return input_size[1:]
    return (DEFAULT_SIZE[ndim - 1],) * ndim


def _check_input_size(
    input_size: tuple[int, ...], entries: list[LayerEntry], tensors: Mapping[str, StoredTensor]
) -> None:
    shapes = [(entry, tensors[entry.weight].shape) for entry in entries]
    fitting = [(entry, shape) for entry, shape in shapes if len(shape) == len(input_size) + 1]
    if not fitting:
        wanted = " or ".join(str(n) for n in sorted({len(shape) - 2 for _, shape in shapes}))
        raise ModelError(
            f"`input_size` must be (channels, *spatial) with {wanted} spatial sizes for the kernels of this "
            f"file; got {input_size}, which has {len(input_size) - 1}."
        )
    read = {channel_counts(shape, str(entry.layout), entry.transposed, entry.groups)[0] for entry, shape in fitting}
    if input_size[0] not in read:
        raise ModelError(
            f"`input_size` is (channels, *spatial) and says {input_size[0]} channels, but the convolutions "
            f"read {', '.join(map(str, sorted(read)[:8]))}. Give what the first convolution reads."
        )
