"""Depthwise layers in files that do not say so: what the channel counts of the other layers give away."""

from __future__ import annotations

import re

from spectral_conv.models._layouts import PLAIN, channel_counts

_DEPTHWISE = re.compile(r"(^|[._/])(depth_?wise|dw_?conv|conv_?dw|dw)\d*[._/]", re.IGNORECASE)
_COLOURS = 3


def guess_groups(kernels: list[tuple[str, tuple[int, ...], str, bool]], channels: int | None) -> list[int]:
    """Return the number of groups of every layer: one, or as many as channels where the layer is depthwise.

    A weight of shape ``(C, 1, *k)`` is depthwise where its name says so, or where the layer before it writes
    C channels and it cannot be the one that reads a grey image. Other grouped layers leave no certain trace.

    Parameters
    ----------
    kernels : list of (name, shape, layout, transposed)
        In the order of the file.
    channels : int or None
        Channels of the network's input, where they are known.
    """
    reads_colour = any(layout in PLAIN and shape[1] == _COLOURS for _, shape, layout, _ in kernels)
    grey_image_to_read = channels == 1 if channels is not None else not reads_colour
    groups: list[int] = []
    written: int | None = None  # channels that the layer before writes
    for name, shape, layout, transposed in kernels:
        count = 1
        if "C" in layout:
            count = shape[-2]
        elif layout in PLAIN and shape[1] == 1:
            if _DEPTHWISE.search(name) or (written == shape[0] and not grey_image_to_read):
                count = shape[0]
            else:
                grey_image_to_read = False
        groups.append(count)
        written = channel_counts(shape, layout, transposed, count)[1]
    return groups
