"""The geometry of Keras' convolution layers: strides, dilations, and the padding that "same" means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spectral_conv.models._entry import LARGEST_INTEGER, short
from spectral_conv.models._keras_config import ConfigError, Shape, first, split_kind

# Class name without its number of axes -> family.
_FAMILIES = {
    "Conv": "conv",
    "Convolution": "conv",
    "AtrousConvolution": "conv",
    "ConvTranspose": "transposed",
    "ConvolutionTranspose": "transposed",
    "Deconvolution": "transposed",
    "DepthwiseConv": "depthwise",
    "SeparableConv": "separable",
    "SeparableConvolution": "separable",
}
_PADDINGS = ("valid", "same", "causal")


def channels_first(settings: Mapping[str, Any]) -> bool:
    """Say whether the layer reads channels first; Keras 1 calls it "th"."""
    return first(settings, "data_format", "dim_ordering") in ("channels_first", "th")


def numbers(
    settings: Mapping[str, Any], ndim: int, default: int | Sequence[int], *keys: str, least: int = 1
) -> tuple[int, ...]:
    """Return one number per axis: an int is the same along every axis."""
    value = first(settings, *keys)
    if value is None:
        value = default
    entries = [value] * ndim if type(value) is int else value
    if isinstance(entries, list | tuple) and len(entries) == 1:
        entries = list(entries) * ndim
    if (
        not isinstance(entries, list | tuple)
        or len(entries) != ndim
        or not all(type(number) is int and least <= number <= LARGEST_INTEGER for number in entries)
    ):
        raise ConfigError(f"`{keys[0]}` is {short(value)} for {ndim} axes")
    return tuple(entries)


@dataclass(frozen=True, kw_only=True)
class ConvSettings:
    """A convolution layer of Keras, whichever version wrote it.

    Attributes
    ----------
    family : str
        "conv", "depthwise", "separable" or "transposed".
    old : bool
        Whether Keras 1 wrote it: kernels for channels first are then stored channels first.
    filters : int or None
        Channels that it writes; of a depthwise layer per channel that it reads.
    """

    family: str
    ndim: int
    old: bool
    front: bool
    filters: int | None
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: str
    groups: int
    output_padding: tuple[int, ...] | None

    @classmethod
    def of(cls, kind: str, settings: Mapping[str, Any]) -> ConvSettings | None:
        """Read the settings of a layer, None where it is no convolution.

        Raises
        ------
        ConfigError
            A setting is none that Keras writes.
        """
        plain, ndim = split_kind(kind)
        family = _FAMILIES.get(plain)
        if family is None or not ndim:
            return None
        padding = first(settings, "padding", "border_mode") or "valid"
        if padding not in _PADDINGS:
            raise ConfigError(f"the padding of a {kind} is {short(padding)}")
        sides = [settings.get(key) for key in ("nb_row", "nb_col")]
        if ndim == 3:
            sides = [settings.get(f"kernel_dim{i}") for i in (1, 2, 3)]
        kernel = settings if first(settings, "kernel_size", "filter_length") is not None else {"kernel_size": sides}
        key = ("depth_multiplier",) if family == "depthwise" else ("filters", "nb_filter")
        has_output_padding = family == "transposed" and settings.get("output_padding") is not None
        return cls(
            family=family,
            ndim=ndim,
            old=any(word in settings for word in ("border_mode", "nb_filter", "dim_ordering")),
            front=channels_first(settings),
            filters=numbers(settings, 1, 1, *key)[0] if first(settings, *key) is not None else None,
            kernel=numbers(kernel, ndim, 0, "kernel_size", "filter_length"),
            stride=numbers(settings, ndim, 1, "strides", "subsample", "subsample_length"),
            dilation=numbers(settings, ndim, 1, "dilation_rate", "atrous_rate"),
            padding=padding,
            groups=numbers(settings, 1, 1, "groups")[0],
            output_padding=numbers(settings, ndim, 0, "output_padding", least=0) if has_output_padding else None,
        )

    def spatial(self, shape: Shape) -> tuple[int | None, ...]:
        """Return the spatial sizes of what the layer reads."""
        if shape is None or len(shape) != self.ndim + 1:
            return (None,) * self.ndim
        return shape[1:] if self.front else shape[:-1]

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape of what the layer writes."""
        sizes = tuple(self._written(i, size) for i, size in enumerate(self.spatial(shape)))
        channels = self.filters
        if self.family == "depthwise":
            read = None if shape is None else shape[0 if self.front else -1]
            channels = None if read is None else read * (self.filters or 1)
        return (channels, *sizes) if self.front else (*sizes, channels)

    def margins(self, sizes: Sequence[int | None]) -> tuple[tuple[tuple[int, int], ...], bool]:
        """Return the (before, after) pairs of the padding, and whether they are certain.

        "same" adds what makes the output ``ceil(input / stride)`` long, the smaller half before. Where the stride is
        not 1 that depends on the size; an unknown one is taken for a multiple of the stride. Of a transposed layer
        they are what is cut off.
        """
        pairs, certain = [], True
        for i, size in enumerate(sizes):
            extent = self.dilation[i] * (self.kernel[i] - 1) + 1
            if self.family == "transposed":
                total = max(-self._surplus(i), 0)
            elif self.padding == "causal":
                pairs.append((extent - 1, 0))
                continue
            elif self.padding == "valid":
                total = 0
            else:
                certain = certain and (size is not None or self.stride[i] == 1)
                beyond = (size or 0) % self.stride[i] or self.stride[i]
                total = max(extent - beyond, 0)
            pairs.append((total // 2, total - total // 2))
        return tuple(pairs), certain

    def surplus(self) -> tuple[int, ...]:
        """Return the pixels that a transposed layer writes beyond those that some tap reaches."""
        return tuple(max(self._surplus(i), 0) for i in range(self.ndim))

    def _surplus(self, i: int) -> int:
        """Return the output size of a transposed layer less ``(input - 1) * stride + extent``."""
        extent = self.dilation[i] * (self.kernel[i] - 1) + 1
        if self.output_padding is not None:
            return self.output_padding[i] - (2 * (extent // 2) if self.padding == "same" else 0)
        if self.padding == "same":
            return self.stride[i] - extent
        return max(self.stride[i] - extent, 0)

    def _written(self, i: int, size: int | None) -> int | None:
        if size is None:
            return None
        extent = self.dilation[i] * (self.kernel[i] - 1) + 1
        if self.family == "transposed":
            written = (size - 1) * self.stride[i] + extent + self._surplus(i)
        elif self.padding == "valid":
            written = (size - extent) // self.stride[i] + 1
        else:
            written = -(-size // self.stride[i])
        return written if 1 <= written <= LARGEST_INTEGER else None
