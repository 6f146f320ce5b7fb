"""A convolution layer as a linear operator."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.linalg import LinearOperator

from spectral_conv._fourier import FourierPlan, fourier_seconds
from spectral_conv._kernels import convolution
from spectral_conv._taps import TapPlan, plan_taps, tap_seconds
from spectral_conv._threads import serial_blas
from spectral_conv.geometry import NOTHING, ConvGeometry, as_integer

_CHANNELS_LAST = ("WIO", "HWIO", "DHWIO")
_CHANNELS_FIRST = ("OIW", "OIHW", "OIDHW")
_TRANSPOSED = ("IOW", "IOHW", "IODHW")


class ConvOperator(LinearOperator):
    r"""The linear map ``M`` of a convolution layer, exactly as the network applies it.

    Cross-correlation (no flip); per axis ``y[r] = sum_a K[a]^T x[r s + a d - p]`` with stride `s`, dilation `d`
    and `p` pixels of padding before. Vectors are flattened channels-first arrays ``(channels, *spatial)``.

    Parameters
    ----------
    kernel : (k1, ..., g, h) array_like
        Real weights, laid out as `layout` says; ``g = in_channels / groups``.
    input_shape : tuple of int
        Spatial input size.
    layout : str
        WIO, HWIO, DHWIO (TensorFlow, JAX), OIW, OIHW, OIDHW (PyTorch, ONNX), or IOW, IOHW, IODHW
        (PyTorch's transposed layers). HWIO of a transposed layer is ``(*k, in, out / groups)``, not flipped.
    stride, dilation : int or sequence of int
        Per spatial axis.
    padding : {"same", "valid"}, int or sequence
        "same" pads ``dilation * (k - 1)`` in all, the larger half after; a sequence has an int or a
        ``(before, after)`` pair per axis (in 1-D a pair is ``[(1, 2)]``).
    padding_mode : {"zeros", "circular", "reflect", "replicate"}
        With PyTorch's meaning.
    groups : int
        M is block diagonal with this many blocks.
    transposed : bool
        The adjoint of a plain convolution; padding and `output_padding` as in PyTorch's ``conv_transpose``.
    output_padding : int or sequence of int
        Extra output pixels of a transposed layer.
    dtype : float32, float64 or None
        None keeps float32 and float64 weights and promotes shorter floats to float32.

    Raises
    ------
    ValueError
        A parameter that does not fit; the message names it and the remedy.

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_conv
    >>> K = np.ones((3, 3, 1, 1)) / 9
    >>> conv = spectral_conv.ConvOperator(K, input_shape=(8, 8))
    >>> conv.shape
    (64, 64)
    >>> float((conv @ np.ones(64)).max())
    1.0
    """

    dtype: np.dtype[Any]
    shape: tuple[int, int]

    def __init__(
        self,
        kernel: ArrayLike,
        input_shape: int | Sequence[int] = (32, 32),
        *,
        layout: str = "HWIO",
        stride: int | Sequence[int] = 1,
        padding: str | int | Sequence[Any] = "same",
        padding_mode: str = "zeros",
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        transposed: bool = False,
        output_padding: int | Sequence[int] = 0,
        dtype: Any = None,
    ) -> None:
        weights = _to_hwio(_checked_weights(kernel, dtype), layout, transposed)
        count = as_integer("groups", groups, minimum=1)
        inner, outer = weights.shape[-2:]
        geometry = ConvGeometry.create(
            kernel_size=weights.shape[:-2],
            in_channels=inner if transposed else inner * count,
            out_channels=outer * count if transposed else outer,
            input_shape=input_shape,
            stride=stride,
            padding=padding,
            padding_mode=padding_mode,
            dilation=dilation,
            groups=count,
            transposed=transposed,
            output_padding=output_padding,
        )
        self._assemble(geometry, weights)

    @classmethod
    def from_geometry(cls, geometry: ConvGeometry, kernel: NDArray[np.floating]) -> ConvOperator:
        """Build the operator of a checked `geometry` from its HWIO `kernel`."""
        operator = cls.__new__(cls)
        operator._assemble(geometry, kernel)
        return operator

    def _assemble(self, geometry: ConvGeometry, kernel: NDArray[np.floating]) -> None:
        owned = np.array(kernel, order="C")
        owned.flags.writeable = False
        self.geometry = geometry
        self.kernel = owned
        super().__init__(owned.dtype, geometry.shape)
        self._sealed = True

    def __setattr__(self, name: str, value: Any) -> None:
        if getattr(self, "_sealed", False):
            raise AttributeError(
                f"ConvOperator is immutable; cannot set `{name}`. Build a new one, or use with_kernel()."
            )
        super().__setattr__(name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).from_geometry, (self.geometry, self.kernel)

    def __repr__(self) -> str:
        g = self.geometry
        kind = "transposed " if g.transposed else ""
        return (
            f"<ConvOperator {self.shape[0]} x {self.shape[1]} {self.dtype}: {kind}kernel {self.kernel.shape}, "
            f"input {g.input_shape}, stride {g.stride}, padding {g.padding} {g.padding_mode}, "
            f"dilation {g.dilation}, groups {g.groups}>"
        )

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Spatial input size."""
        return self.geometry.input_shape

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Spatial output size."""
        return self.geometry.output_shape

    @property
    def in_channels(self) -> int:
        """Channels that the layer reads."""
        return self.geometry.in_channels

    @property
    def out_channels(self) -> int:
        """Channels that the layer writes."""
        return self.geometry.out_channels

    @property
    def plain_kernel(self) -> NDArray[np.floating]:
        """HWIO kernel of the plain convolution: of the layer, or of the adjoint of a transposed layer."""
        return self.kernel.swapaxes(-1, -2) if self.geometry.transposed else self.kernel

    def with_kernel(self, kernel: ArrayLike) -> ConvOperator:
        """Return the same layer with another HWIO `kernel` of the same shape."""
        weights = _checked_weights(kernel, None)
        if weights.shape != self.kernel.shape:
            raise ValueError(f"`kernel` must have the shape {self.kernel.shape}; got {weights.shape}.")
        return self.from_geometry(self.geometry, weights)

    def split_groups(self) -> tuple[ConvOperator, ...]:
        """Return one operator per group: M is block diagonal with these blocks."""
        count = self.geometry.groups
        if count == 1:
            return (self,)
        axis = -2 if self.geometry.transposed else -1
        geometry = dataclasses.replace(
            self.geometry,
            groups=1,
            in_channels=self.in_channels // count,
            out_channels=self.out_channels // count,
        )
        return tuple(self.from_geometry(geometry, part) for part in np.split(self.kernel, count, axis=axis))

    def plan(self, dtype: Any = None) -> TapPlan:
        """Tables for the jitted kernels, in `dtype` (default: the operator's own); made once."""
        wanted = np.dtype(self.dtype if dtype is None else dtype)
        plans: dict[np.dtype[Any], TapPlan] = self.__dict__.setdefault("_plans", {})
        if wanted not in plans:
            plans[wanted] = plan_taps(self.geometry, self.plain_kernel.astype(wanted, copy=False))
        return plans[wanted]

    @functools.cached_property
    def uses_fft(self) -> bool:
        """Whether an application by FFT is estimated to take less time than one by products per tap."""
        return fourier_seconds(self.geometry) < tap_seconds(self.geometry)

    def _fourier(self, dtype: np.dtype[Any]) -> FourierPlan:
        plans: dict[np.dtype[Any], FourierPlan] = self.__dict__.setdefault("_fourier_plans", {})
        if dtype not in plans:
            plans[dtype] = FourierPlan(self.geometry, self.plain_kernel.astype(dtype, copy=False))
        return plans[dtype]

    def _apply(self, x: NDArray[Any], *, adjoint: bool) -> NDArray[Any]:
        vector = np.asarray(x).reshape(-1)
        if np.iscomplexobj(vector):
            parts = [self._apply(part, adjoint=adjoint) for part in (vector.real, vector.imag)]
            return parts[0] + 1j * parts[1]
        dtype = np.result_type(self.dtype, vector.dtype)
        dtype = dtype if dtype in (np.float32, np.float64) else np.dtype(np.float64)
        contiguous = np.ascontiguousarray(vector, dtype)
        plain_forward = adjoint == self.geometry.transposed
        if self.uses_fft:
            return self._apply_fourier(contiguous, plain_forward)
        plan = self.plan(dtype)
        shapes = (plan.input_shape, plan.output_shape)
        source, target = shapes if plain_forward else shapes[::-1]
        result = np.empty(target, dtype)
        kernel = convolution.forward if plain_forward else convolution.adjoint
        with serial_blas() if plan.threaded else contextlib.nullcontext():
            kernel(contiguous.reshape(source), plan.taps, plan.row, plan.shift, *plan.sources, plan.loop, result)
        return result.reshape(-1)

    def _apply_fourier(self, vector: NDArray[Any], plain_forward: bool) -> NDArray[Any]:
        plan = self._fourier(vector.dtype)
        channels_in, channels_out = self.geometry.plain_channels
        axes = self.geometry.axes
        if plain_forward:
            return plan.forward(vector.reshape(channels_in, *(axis.inputs for axis in axes))).reshape(-1)
        return plan.adjoint(vector.reshape(channels_out, *(axis.outputs for axis in axes))).reshape(-1)

    def _matvec(self, x: NDArray[Any]) -> NDArray[Any]:
        return self._apply(x, adjoint=False)

    def _rmatvec(self, y: NDArray[Any]) -> NDArray[Any]:
        return self._apply(y, adjoint=True)

    def _matmat(self, X: NDArray[Any]) -> NDArray[Any]:
        return np.stack([self._apply(x, adjoint=False) for x in X.T], axis=1)

    def _rmatmat(self, Y: NDArray[Any]) -> NDArray[Any]:
        return np.stack([self._apply(y, adjoint=True) for y in Y.T], axis=1)

    def to_sparse(self) -> scipy.sparse.csr_array:
        """Return M as a sparse array, one stored entry per pair of pixels that a tap joins."""
        row, column, tap = self.pixel_pairs()
        g, h = self.plain_kernel.shape[-2], self.plain_kernel.shape[-1] // self.geometry.groups
        grids = [np.prod([getattr(axis, side) for axis in self.geometry.axes]) for side in ("outputs", "inputs")]
        taps = self.plain_kernel.reshape(-1, g, self.geometry.groups, h)[tap]  # (pairs, g, groups, h)
        channel_in = np.arange(self.geometry.groups) * g + np.arange(g)[:, None]
        channel_out = np.arange(self.geometry.groups)[:, None] * h + np.arange(h)
        rows = channel_out[None, None] * grids[0] + row[:, None, None, None]
        columns = channel_in[None, :, :, None] * grids[1] + column[:, None, None, None]
        rows, columns = (np.broadcast_to(index, taps.shape).ravel() for index in (rows, columns))
        shape = self.shape[::-1] if self.geometry.transposed else self.shape
        matrix = scipy.sparse.coo_array((taps.ravel(), (rows, columns)), shape=shape)
        return scipy.sparse.csr_array(matrix.T if self.geometry.transposed else matrix)

    def to_dense(self) -> NDArray[np.floating]:
        """Return M as a dense array of shape `shape`."""
        return self.to_sparse().toarray()

    def pixel_pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Flat output pixel, input pixel and tap of every product that the plain convolution forms."""
        row, column, tap = (np.zeros(1, np.int64) for _ in range(3))
        for axis in self.geometry.axes:
            r, a = np.nonzero(axis.reads != NOTHING)
            row = (row[:, None] * axis.outputs + r).ravel()
            column = (column[:, None] * axis.inputs + axis.reads[r, a]).ravel()
            tap = (tap[:, None] * axis.kernel + a).ravel()
        return row, column, tap


def _checked_weights(kernel: ArrayLike, dtype: Any) -> NDArray[np.floating]:
    weights = np.asarray(kernel)
    if weights.dtype.kind not in "fV" or weights.dtype in (np.longdouble, np.complex128):
        raise ValueError(
            f"`kernel` must have a real floating dtype of at most 64 bits; got {weights.dtype}. "
            "Convert it, for example with kernel.astype(np.float64)."
        )
    if weights.size == 0 or not 3 <= weights.ndim <= 5:
        raise ValueError(
            "`kernel` must have 1 to 3 spatial axes and two channel axes, none of them empty; got shape "
            f"{weights.shape}. A linear layer is a kernel of size 1: W.T[None, None]."
        )
    if dtype is None:
        dtype = weights.dtype if weights.dtype in (np.float32, np.float64) else np.float32
    wanted = np.dtype(dtype)
    if wanted not in (np.float32, np.float64):
        raise ValueError(f"`dtype` must be float32, float64 or None; got {dtype!r}.")
    weights = weights.astype(wanted, copy=False)
    if not np.isfinite(weights).all():
        bad = int(np.size(weights) - np.isfinite(weights).sum())
        raise ValueError(
            f"`kernel` must be finite; got {bad} NaN or infinite of {weights.size} weights. "
            "The training probably diverged: use an earlier checkpoint."
        )
    return weights


def _to_hwio(weights: NDArray[np.floating], layout: str, transposed: bool) -> NDArray[np.floating]:
    axes = weights.ndim - 3
    known = {_CHANNELS_LAST[axes]: "last", (_TRANSPOSED if transposed else _CHANNELS_FIRST)[axes]: "first"}
    if layout not in known:
        kind = "transposed " if transposed else ""
        hint = " That is the layout of a transposed layer: pass transposed=True." if layout in _TRANSPOSED else ""
        raise ValueError(
            f"`layout` must be {' or '.join(map(repr, known))} for a {kind}kernel with {axes + 1} spatial axes; "
            f"got {layout!r}.{hint}"
        )
    if known[layout] == "last":
        return weights
    # OIHW -> HWIO swaps the two channel axes; IOHW -> HWIO only moves them.
    channels = weights if transposed else weights.swapaxes(0, 1)
    return np.moveaxis(channels, (0, 1), (-2, -1))
