"""Geometry of a convolution layer: which input pixel each tap of each output pixel reads."""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

PADDING_MODES = ("zeros", "circular", "reflect", "replicate")
NOTHING = -1  # a tap that meets the zero padding reads no pixel


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis of a plain (not transposed) convolution.

    Output pixel `r` and tap `a` read padded position ``r * stride + a * dilation``, which is input pixel
    ``r * stride + a * dilation - before`` wherever that lies inside the grid.
    """

    kernel: int
    stride: int
    dilation: int
    before: int
    inputs: int
    outputs: int
    mode: str

    @property
    def padded(self) -> int:
        """Number of padded positions that some tap reads."""
        return (self.outputs - 1) * self.stride + self.dilation * (self.kernel - 1) + 1

    @cached_property
    def source(self) -> NDArray[np.int64]:
        """Input pixel at each padded position, shape ``(padded,)``; `NOTHING` where the padding is zero."""
        pixel = np.arange(self.padded) - self.before
        n = self.inputs
        if self.mode == "circular":
            return pixel % n
        if self.mode == "replicate":
            return np.clip(pixel, 0, n - 1)
        if self.mode == "reflect":
            return (n - 1) - np.abs((n - 1) - np.abs(pixel))
        return np.where((pixel >= 0) & (pixel < n), pixel, NOTHING)

    @cached_property
    def reads(self) -> NDArray[np.int64]:
        """Input pixel that output `r` reads through tap `a`, shape ``(outputs, kernel)``."""
        r = np.arange(self.outputs)[:, None] * self.stride
        a = np.arange(self.kernel)[None, :] * self.dilation
        return self.source[r + a]


@dataclass(frozen=True, kw_only=True)
class ConvGeometry:
    """Everything about a convolution layer but its weights.

    Built by `ConvGeometry.create`, which fills in defaults and checks; all per-axis fields are tuples.

    Attributes
    ----------
    kernel_size, stride, dilation : tuple of int
        One entry per spatial axis.
    padding : tuple of (int, int)
        Pixels added before and after each axis (of a transposed layer: cut off its output).
    padding_mode : str
        "zeros", "circular", "reflect" or "replicate", with PyTorch's meaning.
    groups, in_channels, out_channels : int
        Channel bookkeeping of the layer itself.
    transposed : bool
        Whether the layer is the adjoint of the plain convolution that `axes` describe.
    output_padding : tuple of int
        Extra output pixels of a transposed layer.
    input_shape : tuple of int
        Spatial input size.
    """

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    padding_mode: str
    groups: int
    in_channels: int
    out_channels: int
    transposed: bool
    output_padding: tuple[int, ...]
    input_shape: tuple[int, ...]

    @classmethod
    def create(
        cls,
        *,
        kernel_size: Sequence[int],
        in_channels: int,
        out_channels: int,
        input_shape: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: str | int | Sequence[Any] = "same",
        padding_mode: str = "zeros",
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        transposed: bool = False,
        output_padding: int | Sequence[int] = 0,
    ) -> ConvGeometry:
        """Fill in defaults, check every field and the fields against each other.

        Raises
        ------
        ValueError
            Names the parameter, the requirement, what came and the remedy.
        """
        kernel = tuple(int(k) for k in kernel_size)
        ndim = len(kernel)
        geometry = cls(
            kernel_size=kernel,
            stride=per_axis("stride", stride, ndim, minimum=1),
            dilation=per_axis("dilation", dilation, ndim, minimum=1),
            padding=_padding_pairs(padding, kernel, per_axis("dilation", dilation, ndim, minimum=1)),
            padding_mode=checked_word("padding_mode", padding_mode, PADDING_MODES),
            groups=as_integer("groups", groups, minimum=1),
            in_channels=as_integer("in_channels", in_channels, minimum=1),
            out_channels=as_integer("out_channels", out_channels, minimum=1),
            transposed=bool(transposed),
            output_padding=per_axis("output_padding", output_padding, ndim, minimum=0),
            input_shape=_input_shape(input_shape, ndim),
        )
        geometry._check()
        return geometry

    @property
    def ndim(self) -> int:
        """Number of spatial axes, 1 to 3."""
        return len(self.kernel_size)

    @cached_property
    def output_shape(self) -> tuple[int, ...]:
        """Spatial output size."""
        return tuple(self._output_size(i) for i in range(self.ndim))

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the matrix: (out_channels * output pixels, in_channels * input pixels)."""
        return (
            self.out_channels * math.prod(self.output_shape),
            self.in_channels * math.prod(self.input_shape),
        )

    @cached_property
    def axes(self) -> tuple[Axis, ...]:
        """The axes of the plain convolution: of the layer itself, or of the adjoint of a transposed one."""
        inputs, outputs = self.input_shape, self.output_shape
        if self.transposed:
            inputs, outputs = outputs, inputs
        return tuple(
            Axis(
                kernel=self.kernel_size[i],
                stride=self.stride[i],
                dilation=self.dilation[i],
                before=self.padding[i][0],
                inputs=inputs[i],
                outputs=outputs[i],
                mode=self.padding_mode,
            )
            for i in range(self.ndim)
        )

    @cached_property
    def read_taps(self) -> NDArray[np.bool_]:
        """Taps through which some output reads a pixel, shape ``kernel_size``; the others only meet zeros."""
        meets = np.ones((), dtype=bool)
        for axis in self.axes:
            meets = np.logical_and.outer(meets, (axis.reads != NOTHING).any(axis=0))
        return meets

    @property
    def plain_channels(self) -> tuple[int, int]:
        """Channels that the plain convolution of `axes` reads and writes."""
        both = (self.in_channels, self.out_channels)
        return both[::-1] if self.transposed else both

    def _output_size(self, i: int) -> int:
        n, s, reach = self.input_shape[i], self.stride[i], self.dilation[i] * (self.kernel_size[i] - 1)
        pad = sum(self.padding[i])
        if self.transposed:
            return (n - 1) * s + reach + 1 - pad + self.output_padding[i]
        return (n + pad - reach - 1) // s + 1

    def _check(self) -> None:
        for name in ("in_channels", "out_channels"):
            if getattr(self, name) % self.groups:
                raise ValueError(
                    f"`groups` must divide `{name}`; got groups={self.groups} and "
                    f"{name}={getattr(self, name)}. Check `groups` and the kernel's layout."
                )
        if self.transposed and self.padding_mode != "zeros":
            raise ValueError(
                "`padding_mode` must be 'zeros' for a transposed convolution (as in PyTorch); "
                f"got {self.padding_mode!r}."
            )
        for i in range(self.ndim):
            self._check_axis(i)

    def _check_axis(self, i: int) -> None:
        n, extra, size = self.input_shape[i], self.output_padding[i], self._output_size(i)
        if size < 1 and not self.transposed:
            reach = self.dilation[i] * (self.kernel_size[i] - 1) + 1
            raise ValueError(
                f"`input_shape` plus padding must be at least the extent {reach} of the kernel on axis {i}; "
                f"got {n} + {sum(self.padding[i])}. Use a larger input or padding='same'."
            )
        if size < 1:
            raise ValueError(
                f"`padding` must leave at least one output pixel of the transposed convolution on axis {i}; "
                f"got {self.padding[i]}, which leaves {size}. Use less padding."
            )
        if extra and not self.transposed:
            raise ValueError(
                f"`output_padding` is for transposed convolutions only; got {extra}. Pass transposed=True."
            )
        if extra and extra >= max(self.stride[i], self.dilation[i]):
            raise ValueError(
                f"`output_padding` must be smaller than the stride or the dilation; got {extra} on axis {i} "
                f"with stride {self.stride[i]} and dilation {self.dilation[i]}."
            )
        widest = {"circular": n, "reflect": n - 1}.get(self.padding_mode)
        if widest is not None and max(self.padding[i]) > widest:
            raise ValueError(
                f"`padding` must be at most {widest} on axis {i} for padding_mode={self.padding_mode!r} and "
                f"{n} input pixels; got {self.padding[i]}. Use less padding or a larger `input_shape`."
            )


def as_integer(name: str, value: Any, *, minimum: int) -> int:
    """Return `value` as an int of at least `minimum`, or raise a ValueError that names it."""
    try:
        number = operator.index(value)
    except TypeError:
        number = minimum - 1
    if number < minimum or isinstance(value, bool | np.bool_):
        raise ValueError(f"`{name}` must be an integer of at least {minimum}; got {value!r}.")
    return number


def per_axis(name: str, value: Any, ndim: int, *, minimum: int) -> tuple[int, ...]:
    """Return `value` as one int per spatial axis, or raise a ValueError that names it."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        return (as_integer(name, value, minimum=minimum),) * ndim
    entries = tuple(value)
    if len(entries) != ndim:
        raise ValueError(
            f"`{name}` must be an int or {ndim} ints, one per spatial axis; got {len(entries)}: {value!r}."
        )
    return tuple(as_integer(name, entry, minimum=minimum) for entry in entries)


def _input_shape(value: Any, ndim: int) -> tuple[int, ...]:
    if not isinstance(value, Iterable) and ndim > 1:
        raise ValueError(
            f"`input_shape` must have one entry per spatial axis, {ndim} for this kernel; got {value!r}."
        )
    return per_axis("input_shape", value, ndim, minimum=1)


def checked_word(name: str, value: Any, known: Sequence[str]) -> str:
    """Return `value` if it is one of the `known` words, or raise a ValueError that suggests the closest."""
    if value in known:
        return str(value)
    close = difflib.get_close_matches(str(value), known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"`{name}` must be one of {', '.join(map(repr, known))}; got {value!r}.{hint}")


def _padding_pairs(padding: Any, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    if isinstance(padding, str):
        if padding == "valid":
            return ((0, 0),) * len(kernel)
        if padding == "same":
            # PyTorch's rule: the larger half goes after; with dilation 1 the papers' m = ceil(k/2).
            totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
            return tuple((t // 2, t - t // 2) for t in totals)
        close = difflib.get_close_matches(padding, ("same", "valid"), n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"`padding` must be 'same', 'valid', an int or (before, after) pairs; got {padding!r}.{hint}"
        )
    if not isinstance(padding, Iterable):
        return tuple((p, p) for p in per_axis("padding", padding, len(kernel), minimum=0))
    entries = tuple(padding)
    if len(entries) != len(kernel):
        raise ValueError(
            f"`padding` must have one int or one (before, after) pair per spatial axis, {len(kernel)} for "
            f"this kernel; got {padding!r}. In 1-D write a pair as [(before, after)]."
        )
    return tuple(_pair(entry) for entry in entries)


def _pair(entry: Any) -> tuple[int, int]:
    before, after = per_axis("padding", entry, 2, minimum=0)
    return before, after
