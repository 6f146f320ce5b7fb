r"""Pools and changes of resolution: how often a pixel is read, or the norm of an averaging matrix along each axis.

A pixel that w windows of a maximum share moves each of them by at most what it moves itself: ``sqrt(w)``. An average
over boxes is a Kronecker product of averages along the axes, also where the divisor counts the pixels inside the
image only; so its norm is the product of the norms along the axes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spectral_conv.certification._call import Call, Rule, Shape, Step, size
from spectral_conv.certification._linear_maps import same_pads
from spectral_conv.certification._rounding import above, product, root

_LARGEST_DENSE = 1024  # pixels along an axis
# Runtimes compute places and weights of an interpolation in single precision.
_FLOAT32 = 1e-4
_NEAR = 1e-3


@dataclass(frozen=True, kw_only=True)
class _Axis:
    """The windows along one axis; size None and padding None where they are not known."""

    kernel: int
    stride: int
    dilation: int
    size: int | None
    pads: tuple[int, int] | None

    @property
    def most_windows(self) -> int:
        """Largest number of windows that a pixel can be in: tap a of window r reads pixel ``r s + a d - p``."""
        return -(-self.kernel * math.gcd(self.stride, self.dilation) // self.stride)

    def reads(self, *, ceil: bool) -> NDArray[np.bool_] | None:
        """Return which pixels each window reads, ``(windows, pixels)``; None for unknown or large sizes."""
        if self.size is None or self.pads is None or self.size > _LARGEST_DENSE:
            return None
        extent = self.dilation * (self.kernel - 1) + 1
        room = self.size + sum(self.pads) - extent
        if room < 0:
            return None
        windows = (-(-room // self.stride) if ceil else room // self.stride) + 1
        reads = np.zeros((windows, self.size), np.bool_)
        for r in range(windows):
            pixels = r * self.stride + self.dilation * np.arange(self.kernel) - self.pads[0]
            reads[r, pixels[(pixels >= 0) & (pixels < self.size)]] = True
        return reads


def _axes(call: Call) -> list[_Axis]:
    stated = call.node.attributes.get("kernel_shape")
    if not isinstance(stated, tuple | list) or not 1 <= len(stated) <= 3:
        call.refuse("its window is not known")
    ndim = len(stated)
    kernel, strides = call.integers("kernel_shape", ndim, 1), call.integers("strides", ndim, 1)
    dilations, sizes = call.integers("dilations", ndim, 1), call.sizes(ndim)
    if min((*kernel, *strides, *dilations)) < 1:
        call.refuse("its window, stride or dilation is less than 1")
    auto = call.node.attributes.get("auto_pad") or "NOTSET"
    pads: list[tuple[int, int] | None]
    if auto in ("NOTSET", "VALID"):
        flat = call.integers("pads", 2 * ndim, 0) if auto == "NOTSET" else (0,) * (2 * ndim)
        pads = list(zip(flat[:ndim], flat[ndim:], strict=True))
    elif auto in ("SAME_UPPER", "SAME_LOWER"):
        pads = [
            None if n is None else same_pads(auto, (n,), (k,), (s,), (d,))[0]
            for n, k, s, d in zip(sizes, kernel, strides, dilations, strict=True)
        ]
    else:
        call.refuse(f"its padding is {auto!r}")
    return [
        _Axis(kernel=k, stride=s, dilation=d, size=n, pads=p)
        for k, s, d, n, p in zip(kernel, strides, dilations, sizes, pads, strict=True)
    ]


def _max_pool(call: Call) -> Step:
    count, exact, ceil = 1, True, bool(call.node.attributes.get("ceil_mode", 0))
    for axis in _axes(call):
        reads = axis.reads(ceil=ceil)
        most = axis.most_windows if reads is None else int(reads.sum(axis=0).max())
        exact = exact and (reads is not None or most == 1)
        count *= most
    kind = "exact" if exact else "upper"
    return call.scaled(root(count), kind, f"a pixel is in at most {count} windows: sqrt({count})")


def _average_pool(call: Call) -> Step:
    attributes = call.node.attributes
    ceil, whole = bool(attributes.get("ceil_mode", 0)), bool(attributes.get("count_include_pad", 0))
    norms = [_averaging(axis, ceil=ceil, whole=whole) for axis in _axes(call)]
    value = 1.0
    for norm, _ in norms:
        value = product(value, norm)
    exact = all(exact for _, exact in norms)
    theorem = "averages along the axes: the product of their norms"
    if exact:
        return call.scaled(value, "exact", f"{theorem}, by singular values")
    return call.scaled(value, "upper", f"{theorem}, by ||A||^2 <= max row sum times max column sum")


def _averaging(axis: _Axis, *, ceil: bool, whole: bool) -> tuple[float, bool]:
    """Return a bound of the norm of the averages along one axis, and whether it is the norm."""
    if axis.stride >= axis.dilation * (axis.kernel - 1) + 1 and (axis.pads == (0, 0) or whole) and not ceil:
        value = 1.0 if axis.kernel == 1 else above(1.0 / math.sqrt(axis.kernel))
        return value, axis.pads == (0, 0)  # windows do not meet
    reads = axis.reads(ceil=ceil)
    if reads is None:
        full = (axis.pads == (0, 0) or whole) and not ceil
        least = axis.kernel if full else 1  # what a window divides by
        return math.sqrt(above(axis.most_windows / least)), False
    inside = reads.sum(axis=1)
    # Where windows stick out of the padding, runtimes divide by different counts: the least is the largest weight.
    count = np.full(len(inside), axis.kernel) if whole and not ceil else np.maximum(inside, 1)
    weights = reads / count[:, None]
    return _norm(weights), not (whole and ceil)


def _norm(matrix: NDArray[np.float64]) -> float:
    """Return the norm, or 1.0 where that is attained: rounding must not hide it."""
    if np.array_equal(matrix, np.eye(*matrix.shape)):
        return 1.0
    value = float(np.linalg.norm(matrix, 2))
    # LAPACK's error is a small multiple of the rounding unit times the norm.
    return above(value * (1.0 + max(matrix.shape) * 2.0**-50))


def _global_average(call: Call) -> Step:
    shape, written = size(call.first.shape), size(call.written)
    if shape is None or written is None or not written:
        return call.scaled(1.0, "upper", "mean of n pixels: 1 / sqrt(n); n is not known, 1 holds for every n")
    count = max(shape // written, 1)
    value = 1.0 if count == 1 else above(1.0 / math.sqrt(count))
    return call.scaled(value, "exact", f"mean of {count} pixels: 1 / sqrt({count})")


def _global_max(call: Call) -> Step:
    return call.scaled(1.0, "exact", "the largest of a channel: |max(a) - max(b)| <= ||a - b||")


def _resize(call: Call) -> Step:
    attributes = call.node.attributes
    shape, written = call.first.shape, call.written
    mode = attributes.get("mode") or "nearest"
    if attributes.get("antialias") or mode not in ("nearest", "linear", "bilinear", "trilinear"):
        call.refuse(f"no constant is known for the interpolation {mode!r} (nearest and linear ones have one)")
    if attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch" or attributes.get("exclude_outside"):
        call.refuse("its attributes change the interpolation at the border")
    if call.node.op == "Upsample":
        coordinates, nearest = "asymmetric", "floor"
    else:
        coordinates = attributes.get("coordinate_transformation_mode") or "half_pixel"
        nearest = attributes.get("nearest_mode") or "round_prefer_floor"
    if not _leaves_samples(call):
        call.refuse("it changes the number of samples or of channels")
    factors = _factors(call)
    whole = factors is not None and all(factor == int(factor) for factor in factors)
    plain = (coordinates, nearest) in (("asymmetric", "floor"), ("half_pixel", "round_prefer_floor"))
    if mode == "nearest" and whole and plain:
        assert factors is not None
        count = math.prod(int(factor) for factor in factors)
        return call.scaled(root(count), "exact", f"{count} copies of every pixel: sqrt({count})")
    if shape is None or written is None or len(shape) != len(written) or shape[:1] != written[:1]:
        call.refuse("the sizes that it reads and writes are not known")
    # Keras, whose word is "bilinear", has placed the outputs in two ways and does not state which.
    open_ = mode == "bilinear" and not attributes.get("coordinate_transformation_mode")
    readings = ("half_pixel", "asymmetric") if open_ else (coordinates,)
    value = 1.0
    for before, after, ratio in zip(shape[1:], written[1:], _ratios(call, shape, written), strict=True):
        if before is None or after is None or max(before, after) > _LARGEST_DENSE:
            call.refuse("the sizes that it reads and writes are not known, or too large")
        sources = [source for reading in readings for source in _sources(before, after, ratio, reading)]
        if not sources:
            call.refuse(f"no constant is known for the coordinates {coordinates!r}")
        if before == after and ratio == 1.0:
            continue
        if mode == "nearest":
            # Runtimes round in different ways: a pixel has no more copies than there are places beside it.
            near = [np.abs(source[:, None] - np.arange(before)) < 1.0 + _NEAR for source in sources]
            value = product(value, root(max(int(places.sum(axis=0).max()) for places in near)))
        else:
            norm = max(_norm(_interpolation(source, before)) for source in sources)
            value = product(value, above(norm * (1.0 + _FLOAT32)))
    return call.scaled(value, "upper", "interpolation along the axes: the product of its norms")


def _leaves_samples(call: Call) -> bool:
    axes, scales, sizes = (call.node.attributes.get(name) for name in ("axes", "scales", "sizes"))
    if axes is not None:
        return isinstance(axes, tuple | list) and all(type(axis) is int and axis > 1 for axis in axes)
    if isinstance(scales, tuple | list) and scales:
        return tuple(scales[:2]) == (1.0, 1.0)
    return not isinstance(sizes, tuple | list) or sizes[:1] in ((), [], (call.first.front,))


def _factors(call: Call) -> list[float] | None:
    """Return the factors, all at least 1, of the axes; None where they are not known."""
    stated = call.node.attributes.get("scales")
    if isinstance(stated, tuple | list) and stated and all(isinstance(x, int | float) and x >= 1.0 for x in stated):
        return [float(factor) for factor in stated]
    shape, written = call.first.shape, call.written
    if stated or shape is None or written is None or len(shape) != len(written):
        return None
    factors = []
    for before, after in zip(shape, written, strict=True):
        if before is None or after is None or after < before:
            return None
        factors.append(after / before)
    return factors


def _ratios(call: Call, shape: Shape, written: Shape) -> list[float]:
    """Return the distance of neighbouring outputs, in input pixels, of the spatial axes."""
    stated = call.node.attributes.get("scales")
    if isinstance(stated, tuple | list) and stated:
        if len(stated) != len(shape) + 1 or not all(isinstance(x, int | float) and x > 0.0 for x in stated):
            call.refuse(f"its attribute 'scales' is {stated!r}")
        return [1.0 / factor for factor in stated[2:]]
    pairs = zip(shape[1:], written[1:], strict=True)
    return [(before or 1) / (after or 1) for before, after in pairs]


def _sources(before: int, after: int, ratio: float, coordinates: str) -> list[NDArray[np.float64]]:
    """Return the places along one axis of the input that the outputs read, in every reading of the coordinates."""
    places = np.arange(after, dtype=np.float64)
    if coordinates == "align_corners":
        # The output is as long as it is, or as the factor says before that is rounded down: runtimes differ.
        lengths = {float(after), before / ratio}
        sources = [places * ((before - 1) / (length - 1.0)) if length > 1.0 else 0.0 * places for length in lengths]
    elif coordinates == "asymmetric":
        sources = [places * ratio]
    elif coordinates == "half_pixel" or (coordinates == "pytorch_half_pixel" and after > 1):
        sources = [(places + 0.5) * ratio - 0.5]
    elif coordinates == "pytorch_half_pixel":
        sources = [0.0 * places]
    else:
        sources = []
    return [np.clip(source, 0.0, before - 1.0) for source in sources]


def _interpolation(source: NDArray[np.float64], before: int) -> NDArray[np.float64]:
    """Return the matrix ``(after, before)`` of the linear interpolation along one axis."""
    return np.maximum(1.0 - np.abs(source[:, None] - np.arange(before)), 0.0)


WINDOWS: dict[str, Rule] = {
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_average,
    "GlobalMaxPool": _global_max,
    **dict.fromkeys(("Resize", "Upsample"), _resize),
}
