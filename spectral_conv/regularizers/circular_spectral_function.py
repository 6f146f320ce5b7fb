"""``sum f(s)`` over the singular values s of the circular layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spectral_conv.operator import ConvOperator
from spectral_conv.results import NotApplicableError
from spectral_conv.symbols import CirculantVectors, circulant_svd
from spectral_conv.symbols._circulant import checked_grid
from spectral_conv.symbols._transform import coarse_grid, half_grid, phases

Elementwise = Callable[[NDArray[np.floating]], NDArray[np.floating]]


@dataclass(frozen=True)
class CircularSpectralFunction:
    r"""``sum_w sum_j f(s_j(w))`` over all singular values of the block circulant matrix with the same kernel.

    For circular padding they are those of the layer; for zero padding the penalty is about an **estimate** of its
    spectrum. The gradient is the adjoint of the symbol map at ``U f'(S) V^H``.

    Parameters
    ----------
    f, df : callable
        The function and its derivative, from arrays of values to arrays. Where values vanish (always, if f is to
        smooth them away) ``df(0) = 0`` is needed: there the singular vectors are arbitrary.
    grid : int or sequence of int, optional
        Size of the circulant, as in `circulant_singular_values`.

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_conv
    >>> conv = spectral_conv.ConvOperator(np.ones((3, 1, 1)), 4, layout="WIO", padding_mode="circular")
    >>> square = spectral_conv.regularizers.CircularSpectralFunction(lambda s: s**2, lambda s: 2 * s)
    >>> round(square.value(conv), 9)  # values 3, 1, 1, 1
    12.0
    """

    f: Elementwise
    df: Elementwise
    grid: int | Sequence[int] | None = None

    def value(self, conv: ConvOperator) -> float:
        """Return the sum over all frequencies."""
        found = circulant_svd(conv, self.grid)
        return self._total(found, self._sizes(conv))

    def value_and_grad(self, conv: ConvOperator) -> tuple[float, NDArray[np.floating]]:
        """Return the sum and its gradient, shaped like ``conv.kernel``."""
        found, sizes = circulant_svd(conv, self.grid), self._sizes(conv)
        outer = found.output_vectors * self._evaluated(self.df, found.values)[..., None, :]
        by_symbol = np.matmul(outer, np.conj(np.swapaxes(found.input_vectors, -1, -2)))
        by_symbol = by_symbol * _copies(sizes)[:, None, None, None]
        return self._total(found, sizes), _adjoint(conv, by_symbol, sizes).astype(conv.dtype, copy=False)

    def _sizes(self, conv: ConvOperator) -> tuple[int, ...]:
        return coarse_grid(conv.geometry, checked_grid(conv.geometry, self.grid))

    def _total(self, found: CirculantVectors, sizes: tuple[int, ...]) -> float:
        return float((self._evaluated(self.f, found.values) * _copies(sizes)[:, None, None]).sum())

    def _evaluated(self, function: Elementwise, values: NDArray[np.floating]) -> NDArray[np.floating]:
        result = np.asarray(function(values), dtype=np.float64)
        name = "f" if function is self.f else "df"
        if result.shape != values.shape:
            raise ValueError(
                f"`{name}` must return one number per value; got shape {result.shape}, not {values.shape}."
            )
        if not np.isfinite(result).all():
            worst = float(values[~np.isfinite(result)].ravel()[0])
            raise NotApplicableError(
                f"`{name}` must be finite at every singular value; it is not at {worst:.3g}. Choose a function that "
                "is smooth there, such as log(s**2 + eps) for log(s**2)."
            )
        return result


def _copies(sizes: tuple[int, ...]) -> NDArray[np.floating]:
    """How many frequencies of the whole grid each one of the half grid stands for, along its last axis."""
    copies = np.full(half_grid(sizes)[-1], 2.0)
    copies[0] = 1.0
    if sizes[-1] % 2 == 0:
        copies[-1] = 1.0
    return copies


def _adjoint(
    conv: ConvOperator, by_symbol: NDArray[np.complexfloating], sizes: tuple[int, ...]
) -> NDArray[np.floating]:
    """Carry a derivative by the symbol, (*half, groups, h, residues * g), back to the kernel."""
    geometry = conv.geometry
    h, columns = by_symbol.shape[-2:]
    ndim, groups = geometry.ndim, geometry.groups
    g = columns // int(np.prod(geometry.stride))
    # (*half, groups, h, *residues, g), then axis by axis from frequencies and residues to taps.
    partial = by_symbol.reshape(*half_grid(sizes), groups, h, *geometry.stride, g)
    for i, axis in enumerate(geometry.axes):
        points = half_grid(sizes)[i]
        wave = np.conj(phases(axis, 2 * np.pi / sizes[i] * np.arange(points)))  # (residues, frequencies, taps)
        # The first axis is always the next frequency; residues of axes not yet done follow groups and h.
        partial = np.tensordot(wave, partial, axes=([0, 1], [ndim - i + 2, 0]))
        partial = np.moveaxis(partial, 0, -1)
    # (groups, h, g, *taps)
    taps = np.moveaxis(partial.real, (0, 1, 2), (-2, -1, -3))
    plain = taps.reshape(conv.plain_kernel.shape)
    return np.ascontiguousarray(plain.swapaxes(-1, -2) if geometry.transposed else plain)
