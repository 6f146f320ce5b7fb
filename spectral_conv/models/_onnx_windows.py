"""Windows of convolutions and pools: kernel, stride, dilation and padding as ONNX states them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spectral_conv.models._entry import short

LARGEST = 1_000_000  # beyond any real stride, dilation or padding; larger ones only allocate index tables
_AUTO = ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")


@dataclass(frozen=True, kw_only=True)
class Window:
    """The geometry of one node along its spatial axes."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    auto: str
    output_padding: tuple[int, ...]
    output_shape: tuple[int, ...] | None

    @classmethod
    def read(cls, attributes: Mapping[str, Any], kernel: tuple[int, ...] | None) -> Window:
        """Read the attributes of a node; `kernel` is the size that the weight has.

        Raises
        ------
        ValueError
            Names the attribute that contradicts the weight or makes no sense.
        """
        stated = attributes.get("kernel_shape")
        if kernel is None:
            kernel = _integers("kernel_shape", stated, None, 1)
        elif stated is not None and tuple(stated) != kernel:
            raise ValueError(f"`kernel_shape` is {short(stated)}, its weight has the kernel size {list(kernel)}")
        ndim = len(kernel)
        auto = attributes.get("auto_pad", "NOTSET") or "NOTSET"
        if auto not in _AUTO:
            raise ValueError(f"`auto_pad` must be one of {', '.join(_AUTO)}; got {short(auto)}")
        flat = _integers("pads", attributes.get("pads", (0,) * 2 * ndim), 2 * ndim, 0)
        output_shape = attributes.get("output_shape") or None
        if output_shape is not None and len(output_shape) == ndim + 2:
            output_shape = output_shape[2:]  # old exporters wrote the batch and the channels too
        return cls(
            kernel=kernel,
            stride=_integers("strides", attributes.get("strides") or (1,) * ndim, ndim, 1),
            dilation=_integers("dilations", attributes.get("dilations") or (1,) * ndim, ndim, 1),
            pads=tuple(zip(flat[:ndim], flat[ndim:], strict=True)) if auto == "NOTSET" else ((0, 0),) * ndim,
            auto=auto,
            output_padding=_integers("output_padding", attributes.get("output_padding") or (0,) * ndim, ndim, 0),
            output_shape=None if output_shape is None else _integers("output_shape", output_shape, ndim, 1),
        )

    def extent(self, i: int) -> int:
        """Pixels from the first to the last that the kernel reads along axis `i`."""
        return self.dilation[i] * (self.kernel[i] - 1) + 1

    def needs_size(self, i: int) -> bool:
        """Whether the padding along axis `i` depends on the input size."""
        return self.auto.startswith("SAME") and self.stride[i] > 1

    def padding(self, i: int, size: int | None) -> tuple[int, int]:
        """Return the padding along axis `i`; of an unknown size, that of a multiple of the stride."""
        if not self.auto.startswith("SAME"):
            return self.pads[i]
        size = self.stride[i] if size is None else size
        total = max((-(-size // self.stride[i]) - 1) * self.stride[i] + self.extent(i) - size, 0)
        small = total // 2
        return (small, total - small) if self.auto == "SAME_UPPER" else (total - small, small)

    def output(self, i: int, size: int | None, *, ceil: bool = False) -> int | None:
        """Return the output size along axis `i`."""
        if size is None:
            return None
        before, after = self.padding(i, size)
        room = size + before + after - self.extent(i)
        if room < 0:
            return None
        if not ceil:
            return room // self.stride[i] + 1
        count = -(-room // self.stride[i]) + 1
        # A window that would begin in the padding behind the image is left out.
        return count - 1 if (count - 1) * self.stride[i] >= size + before else count

    def transposed_padding(self, i: int, size: int | None) -> tuple[tuple[int, int], int]:
        """Return what a transposed layer cuts off along axis `i`, and its output padding."""
        extra = self.output_padding[i]
        if self.output_shape is not None:
            wanted = self.output_shape[i]
            size = -(-wanted // self.stride[i]) if size is None else size
        elif self.auto.startswith("SAME"):
            size = 1 if size is None else size  # it cancels below
            wanted = size * self.stride[i]
        else:
            return self.pads[i], extra
        total = (size - 1) * self.stride[i] + extra + self.extent(i) - wanted
        if total < 0:
            total, extra = 0, extra - total
        small = total // 2
        return ((small, total - small) if self.auto == "SAME_UPPER" else (total - small, small)), extra

    def transposed_output(self, i: int, size: int | None) -> int | None:
        """Return the output size of a transposed layer along axis `i`."""
        if self.output_shape is not None:
            return self.output_shape[i]
        if size is None:
            return None
        padding, extra = self.transposed_padding(i, size)
        result = (size - 1) * self.stride[i] + self.extent(i) - sum(padding) + extra
        return result if result > 0 else None


def _integers(name: str, value: Any, count: int | None, least: int) -> tuple[int, ...]:
    whole = isinstance(value, tuple) and all(type(entry) is int for entry in value)
    if not whole or (count is not None and len(value) != count) or not 1 <= len(value) <= 16:
        wanted = "integers" if count is None else f"{count} integers"
        raise ValueError(f"`{name}` must be {wanted}; got {short(value)}")
    if not all(least <= entry <= LARGEST for entry in value):
        raise ValueError(f"`{name}` must lie in [{least}, {LARGEST}]; got {short(value)}")
    return tuple(value)
