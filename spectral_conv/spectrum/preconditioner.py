"""The circulant that resembles ``A = M^T M`` (or ``M M^T``), shifted and inverted: one small matrix per frequency."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from spectral_conv._kernels import hermitian
from spectral_conv._threads import run_parallel
from spectral_conv.geometry import ConvGeometry
from spectral_conv.operator import ConvOperator
from spectral_conv.spectrum.packing import Packing
from spectral_conv.symbols._transform import Complex, SymbolBox, boxes, evaluate_box, group_taps, half_grid

# tau lies so far above the largest ||F||^2: nearer for accurate values, where a residual holds little but the nearest
# others. For the smallest values the shift is this share of the largest square.
_ABOVE_LEAST, _ABOVE_MOST, _SHIFT = 1.001, 1.004, 1e-3
# Frequencies that a thread works on at one time.
_CHUNK_BYTES = 4 << 20
# Beyond this memory (or a quarter of the limit) only the largest directions of each frequency are kept, as many as
# fit, found by so many steps of subspace iteration. An eighth of them does nearly as well as all (measured).
_MOST_BYTES, _LEAST_RANK, _STEPS = 1 << 30, 4, 3
# Below this an application is not worth a second thread.
_THREAD_BYTES = 8 << 20
# Measured times of an inverse of order c: a call, per c^2 other of the Gram matrix, per c^3 of the rest.
_CALL_SECONDS, _FLOP_SECONDS = 4e-6, 1.2e-10
_VECTOR_SECONDS = 2e-9  # an entry of a vector at a frequency, both ways
_READ_SECONDS = 2e-10  # a byte of the inverses


class CirculantPreconditioner:
    r"""Apply ``(tau I - G(w))^{-1}``, or ``(G(w) + mu I)^{-1}`` for the smallest values, at every frequency.

    ``G = F F^H`` on the outputs or ``F^H F`` on the inputs of the plain convolution, by polyphase components where
    it is strided, on a grid a little larger than the image. `tau` lies just above the largest ``||F||^2``, so that
    the inverse is positive and largest where the sought vectors live.

    Parameters
    ----------
    conv : ConvOperator
        With one group.
    peak : float
        A lower bound of ``sup ||F||``, as right as may be.
    smallest : bool
        For which end of the spectrum.
    rtol : float
        How accurate the values are to be.
    memory : float
        Bytes; beyond a quarter only the largest directions per frequency are kept (largest values only).
    """

    def __init__(
        self, conv: ConvOperator, *, peak: float, smallest: bool = False, rtol: float = 0.0, memory: float = math.inf
    ) -> None:
        geometry = conv.geometry
        tau = min(_ABOVE_MOST, max(_ABOVE_LEAST, 1.0 + rtol)) * peak**2
        self._packing = Packing(geometry)
        grid = self._packing.grid
        taps = group_taps(geometry, conv.plain_kernel, 0)
        on_outputs = self._packing.on_outputs

        def near(box: SymbolBox) -> Complex:
            symbols = evaluate_box(geometry, taps, grid, box.slices)  # transposed: (..., inputs, outputs)
            part = np.swapaxes(symbols, -1, -2) if on_outputs else np.conj(symbols)
            return np.ascontiguousarray(part.astype(np.complex64))

        half, order = half_grid(grid), self._packing.order
        entry = 16 * order * max(order, _other(geometry, on_outputs))
        cuts = list(boxes(geometry, half, entry, _CHUNK_BYTES))
        allowed = min(_MOST_BYTES, memory / 4)
        rank = int(allowed / (8 * math.prod(half) * order))
        self._apply: Callable[[Complex], Complex]
        if smallest or rank >= order:
            self._apply = _full(near, cuts, half, order, _SHIFT * peak**2 if smallest else tau, smallest=smallest)
        else:
            self._apply = _low_rank(near, cuts, half, order, tau, max(_LEAST_RANK, rank))

    def __call__(self, rows: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return the preconditioned rows."""
        packing = self._packing
        spatial = range(1, 1 + len(packing.grid))
        result = np.empty_like(rows)
        for i, row in enumerate(rows):
            size = float(np.abs(row).max(initial=0.0)) or 1.0
            packed = packing.pack((row / size).astype(np.float32))
            waves = scipy.fft.rfftn(packed, packing.grid, axes=spatial)
            columns = self._apply(np.moveaxis(waves, 0, -1)[..., None])
            full = scipy.fft.irfftn(np.moveaxis(columns[..., 0], -1, 0), packing.grid, axes=spatial)
            result[i] = packing.unpack(full)
            result[i] *= size
        return result


def preconditioner_bytes(geometry: ConvGeometry, *, smallest: bool = False, memory: float = math.inf) -> int:
    """Memory that stays, and that of one application."""
    packing = Packing(geometry)
    points = math.prod(half_grid(packing.grid))
    full = 8 * points * packing.order**2
    least = 8 * points * packing.order * _LEAST_RANK
    kept = full if smallest else min(full, max(min(_MOST_BYTES, memory / 4), least))
    return int(kept) + 48 * points * packing.order


def preconditioner_seconds(geometry: ConvGeometry) -> tuple[float, float]:
    """Estimate the time to set up, on one thread, and the time of one application."""
    packing = Packing(geometry)
    order, points = packing.order, math.prod(half_grid(packing.grid))
    flops = order**2 * (_other(geometry, packing.on_outputs) + order)
    kept = min(8 * points * order**2, _MOST_BYTES)
    return (
        points * (_CALL_SECONDS + _FLOP_SECONDS * flops),
        _VECTOR_SECONDS * points * order + _READ_SECONDS * kept,
    )


def _other(geometry: ConvGeometry, on_outputs: bool) -> int:
    inputs, outputs = geometry.plain_channels
    residues = math.prod(geometry.stride)
    return inputs * residues if on_outputs else outputs


def _full(
    near: Callable[[SymbolBox], Complex],
    cuts: Sequence[SymbolBox],
    half: tuple[int, ...],
    order: int,
    shift: float,
    *,
    smallest: bool,
) -> Callable[[Complex], Complex]:
    """The inverse of every frequency."""
    inverses = np.empty((*half, order, order), np.complex64)
    failed = True
    while failed:
        failures: list[int] = []

        def invert(box: SymbolBox, shift: float = shift, failures: list[int] = failures) -> None:
            symbols = near(box)
            flat = symbols.reshape(-1, *symbols.shape[-2:])
            target = np.empty((len(flat), order, order), np.complex64)
            sign = np.float32(1.0 if smallest else -1.0)
            failures.append(hermitian.shifted_inverses(sign, flat, np.float32(shift), target))
            inverses[box.slices] = target.reshape(*symbols.shape[:-2], order, order)

        run_parallel(invert, cuts)
        failed = sum(failures) > 0
        # The peak was missed, or rounding spoilt a vanishing value: a larger shift serves as well.
        shift *= 10.0 if smallest else 1.02
    flat = inverses.reshape(-1, order, order)

    def apply(columns: Complex) -> Complex:
        result = np.empty(columns.shape, np.complex64)
        source, target = columns.reshape(-1, order, 1), result.reshape(-1, order, 1)
        pieces = 1 if flat.nbytes < _THREAD_BYTES else 4
        edges = [len(flat) * i // pieces for i in range(pieces + 1)]

        def multiply(i: int) -> None:
            part = slice(edges[i], edges[i + 1])
            np.matmul(flat[part], source[part], out=target[part])

        if pieces == 1:
            multiply(0)
        else:
            run_parallel(multiply, range(pieces))
        return result

    return apply


def _low_rank(
    near: Callable[[SymbolBox], Complex],
    cuts: Sequence[SymbolBox],
    half: tuple[int, ...],
    order: int,
    tau: float,
    rank: int,
) -> Callable[[Complex], Complex]:
    """``(tau - s^2)^{-1}`` on the largest directions of every frequency, a mean value on the rest."""
    vectors = np.empty((*half, order, rank), np.complex64)
    squares, totals = np.empty((*half, rank)), np.empty(half)
    start = np.random.default_rng(0).standard_normal((order, rank)).astype(np.complex64)

    def iterate(box: SymbolBox) -> None:
        symbols = near(box)
        adjoint = np.conj(np.swapaxes(symbols, -1, -2))
        X = np.broadcast_to(start, (*symbols.shape[:-2], order, rank))
        for _ in range(_STEPS):
            X, _ = np.linalg.qr(symbols @ (adjoint @ X))
        image = adjoint @ X
        squares[box.slices], turn = np.linalg.eigh(np.conj(np.swapaxes(image, -1, -2)) @ image)
        vectors[box.slices] = X @ turn
        totals[box.slices] = (np.abs(symbols) ** 2).sum(axis=(-2, -1))

    run_parallel(iterate, cuts)
    tau = max(tau, _ABOVE_LEAST * float(squares.max()))
    base = 1.0 / (tau - (totals - squares.sum(axis=-1)) / (order - rank))
    gains = (1.0 / (tau - squares) - base[..., None])[..., None].astype(np.float32)
    scalar = base[..., None, None].astype(np.float32)

    def apply(columns: Complex) -> Complex:
        # conj(conj(c)^T V) = V^H c without a second copy of V.
        inner = np.conj(np.swapaxes(np.conj(columns), -1, -2) @ vectors).swapaxes(-1, -2)
        return np.asarray(scalar * columns + vectors @ (gains * inner))

    return apply
