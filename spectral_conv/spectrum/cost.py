"""What the two ends of a spectrum will cost, before anything is computed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from spectral_conv._kernels.banded import NARROW
from spectral_conv._kernels.threads import numba_threads
from spectral_conv._taps import tap_seconds
from spectral_conv.operator import ConvOperator
from spectral_conv.results import NotApplicableError
from spectral_conv.spectrum.blocks import falls_apart
from spectral_conv.spectrum.checks import check_operator, checked_positive, memory_or_half
from spectral_conv.spectrum.davidson import davidson_bytes
from spectral_conv.spectrum.dense import dense_bytes
from spectral_conv.spectrum.engines import suited_method
from spectral_conv.spectrum.factorized import factorized_bytes, factorized_flops, inverse_bytes, smaller_gram
from spectral_conv.spectrum.flat_axes import at_one_position
from spectral_conv.spectrum.largest import cheaper_iteration
from spectral_conv.spectrum.preconditioner import preconditioner_bytes, preconditioner_seconds
from spectral_conv.spectrum.request import Request
from spectral_conv.spectrum.smallest import MOST_FLOPS, suits_circulant
from spectral_conv.symbols._circulant import checked_grid
from spectral_conv.symbols._transform import coarse_grid, half_grid, require_symbol

# All times were measured on one core of an ordinary server; what threads share is divided by their number.
# A call, whatever it does; and LAPACK's decomposition with vectors per n^2 m.
_CALL_SECONDS, _DENSE_SECONDS = 1.5e-3, 1.0e-9
# Singular values of small complex matrices m x n: each, per m n, per m n^2.
_SYMBOL_SECONDS = (6e-7, 7.6e-8, 5.4e-10)
# Applications of trained layers to rtol = 1e-2 and for each further digit; of the smallest values by the circulant
# preconditioner. Random kernels take up to twice as many.
_DAVIDSON, _LANCZOS, _DAVIDSON_SMALLEST, _ROUGH = (12, 9), (60, 100), 250, 15
# An application besides its products: a call, and per entry of a vector on the smaller and the larger side of M.
_DAVIDSON_SECONDS, _LANCZOS_SECONDS = (2e-4, 4.5e-8, 7e-9), (2e-5, 1.5e-8, 1.5e-8)
_CACHED, _UNCACHED = 1e5, 2.0  # a basis of longer vectors lies in main memory
_TAP_FACTOR = 1.4  # vectors that were elsewhere meanwhile are not in the cache
# The factor: operations per second and core, triangular solutions, bytes of the band filled per second.
_FACTOR_RATE, _SOLVE_RATE, _FILL_RATE = 1.6e10, 1.6e10, 2e9
# Blocks of 8 rows until Lanczos on the inverse converges, where M is about square or singular (the inverse then tells
# the smallest values apart), and oblong; where it is very oblong the more the more channels (measured from 3 to 40).
_BLOCKS, _OBLONG, _VERY_OBLONG, _ROWS = (4, 14), 1.25, 3.0, 8
_FEWEST_BLOCKS, _BLOCKS_PER_DOUBLING, _MOST_BLOCKS = 14, 4, 40
# Per entry, row of the block and row of the basis; per n^3 of the small decomposition.
_ORTHOGONAL_SECONDS, _TRIANGLE_SECONDS, _BLOCK_SECONDS = 7e-10, 7.5e-10, 5e-4
# A bracket instead of a value: applications that it takes.
_BRACKET = 10
# What any analysis takes for its tables and vectors.
_LEAST_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Predicted cost of analysing one layer: usually right within a factor of two, on an ordinary machine.

    Attributes
    ----------
    seconds : float
        Time, in seconds, with as many threads as numba may use.
    bytes : float
        Memory besides the weights, in bytes.
    """

    seconds: float
    bytes: float


def predicted_cost(
    conv: ConvOperator, *, rtol: float = 1e-8, smallest: bool = True, memory_limit: float | None = None
) -> Cost:
    """Predict time and memory of the largest and smallest singular value and the circulant spectrum of a layer.

    Only the geometry counts; how many steps an iteration takes depends on the weights, too, and typical counts are
    assumed.

    Parameters
    ----------
    conv : ConvOperator
        The layer.
    rtol : float
        Wanted error of the largest value, relative to it.
    smallest : bool
        Whether the smallest value is wanted.
    memory_limit : float, optional
        In bytes; default: half of the memory that is free.

    Returns
    -------
    Cost
        An **estimate**.

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_conv
    >>> conv = spectral_conv.ConvOperator(np.ones((3, 3, 4, 4)), input_shape=(8, 8))
    >>> predicted_cost(conv).seconds < 10.0
    True
    """
    check_operator(conv)
    rtol, memory = checked_positive("rtol", rtol), memory_or_half(memory_limit)
    group, count = at_one_position(conv.split_groups()[0]), conv.geometry.groups
    parts = [_end(group, _request(rtol, memory, smallest=False))]
    if smallest:
        parts.append(_end(group, _request(min(rtol, 1e-9), memory, smallest=True)))
    parts = [Cost(seconds=count * part.seconds, bytes=part.bytes) for part in parts]
    parts.append(_circulant(conv))
    overhead = len(parts) * _CALL_SECONDS
    vectors = 8 * 4 * sum(conv.shape) + _LEAST_BYTES
    return Cost(
        seconds=overhead + sum(part.seconds for part in parts), bytes=vectors + max(part.bytes for part in parts)
    )


def _request(rtol: float, memory: float, *, smallest: bool) -> Request:
    return Request(
        k=1,
        smallest=smallest,
        rtol=rtol,
        method="auto",
        maxiter=None,
        memory=memory,
        rng=np.random.default_rng(0),
    )


def _end(group: ConvOperator, request: Request) -> Cost:
    """One end of the spectrum of an operator with one group, as `engines.solve` finds it."""
    method = suited_method(group, request)
    if method == "symbol":
        return _circulant(group)
    if method == "blocks":
        h, g = group.geometry.plain_channels[1], group.geometry.plain_channels[0]
        read = g * int(group.geometry.read_taps.sum())
        kinds = math.prod(min(axis.outputs, 1 + 2 * (axis.before > 0)) for axis in group.geometry.axes)
        return Cost(seconds=kinds * _svd_seconds(h, read), bytes=8 * 4 * h * read)
    if method == "dense":
        return Cost(seconds=_CALL_SECONDS + _svd_seconds(*group.shape), bytes=dense_bytes(group, vectors=True))
    if method == "smallest":
        return _smallest(group, request)
    return _largest(group, request, method)


def _svd_seconds(rows: int, columns: int) -> float:
    few, many = sorted((rows, columns))
    return _DENSE_SECONDS * few**2 * many


def _largest(group: ConvOperator, request: Request, method: str, applications: float | None = None) -> Cost:
    few, many = sorted(group.shape)
    digits = max(0.0, -2.0 - math.log10(request.rtol))
    tap = _TAP_FACTOR * tap_seconds(group.geometry)
    if method == "lanczos":
        call, near, far = _LANCZOS_SECONDS
        first, each = _LANCZOS
        count = applications or min(first + each * digits, 0.7 * few)
        return Cost(
            seconds=_CALL_SECONDS + count * (call + tap + near * few + far * many),
            bytes=8 * sum(group.shape) * 40,
        )
    first, each = _DAVIDSON
    return _davidson(group, request, applications or first + each * digits)


def _davidson(group: ConvOperator, request: Request, applications: float) -> Cost:
    few, many = sorted(group.shape)
    call, near, far = _DAVIDSON_SECONDS
    setup, preconditioning = preconditioner_seconds(group.geometry)
    near *= 1.0 if few < _CACHED else _UNCACHED
    application = call + _TAP_FACTOR * tap_seconds(group.geometry) + preconditioning / 2 + near * few + far * many
    kept = preconditioner_bytes(group.geometry, smallest=request.smallest, memory=request.memory)
    return Cost(
        seconds=2 * _CALL_SECONDS + setup / numba_threads() + applications * application,
        bytes=davidson_bytes(group, request.k) + kept,
    )


def _smallest(group: ConvOperator, request: Request) -> Cost:
    """As `smallest.run_smallest` decides."""
    rough = _rough(group, request)
    if suits_circulant(group, request):
        found = _davidson(group, request, _DAVIDSON_SMALLEST)
        return Cost(seconds=rough.seconds + found.seconds, bytes=max(rough.bytes, found.bytes))
    single = inverse_bytes(group, np.float32) + davidson_bytes(group, request.k)
    fits = factorized_bytes(group) <= request.memory
    if factorized_flops(group) > MOST_FLOPS or not (fits or single <= request.memory):
        return Cost(seconds=_BRACKET * tap_seconds(group.geometry), bytes=8 * 4 * sum(group.shape))
    seconds = rough.seconds + _factor_seconds(group) * (1.0 if fits else 0.5)
    few, many = sorted(group.shape)
    table = smaller_gram(group)
    # Pixels of their own for the largest values, but not for the smallest: then some are read by no output.
    singular = falls_apart(group, 1, smallest=False)
    blocks = _BLOCKS[0 if singular or many < _OBLONG * few else 1]
    if many > _VERY_OBLONG * few and not singular:
        blocks = min(_FEWEST_BLOCKS + round(_BLOCKS_PER_DOUBLING * math.log2(table.channels)), _MOST_BLOCKS)
    blocks = min(blocks, -(-few // _ROWS))
    solve = _ROWS * 4.0 * table.size * (table.bandwidth + 1) / _SOLVE_RATE
    seconds += blocks * (_BLOCK_SECONDS + solve + _ROWS * _TAP_FACTOR * tap_seconds(group.geometry))
    basis = _ROWS * blocks
    seconds += _ORTHOGONAL_SECONDS * sum(group.shape) * basis**2 / 2
    seconds += _TRIANGLE_SECONDS * sum((_ROWS * j) ** 3 for j in range(1, blocks + 1))
    kept = 8 * sum(group.shape) * (basis + 2 * _ROWS)
    needed = inverse_bytes(group) + kept if fits else single
    return Cost(seconds=seconds, bytes=max(rough.bytes, needed))


def _rough(group: ConvOperator, request: Request) -> Cost:
    loose = _request(0.1, request.memory, smallest=False)
    method = suited_method(group, loose)
    if method not in ("lanczos", "davidson"):
        method = cheaper_iteration(group, loose)
    return _largest(group, loose, method, _ROUGH)


def _factor_seconds(group: ConvOperator) -> float:
    """Assembly and factorization of the band; a narrow one is left to one thread."""
    table = smaller_gram(group)
    threads = numba_threads() if table.bandwidth >= NARROW else 1
    return 8.0 * table.size * (table.bandwidth + 1) / _FILL_RATE + factorized_flops(group) / (_FACTOR_RATE * threads)


def _circulant(conv: ConvOperator) -> Cost:
    geometry = conv.geometry
    try:
        require_symbol(geometry)
    except NotApplicableError:
        return Cost(seconds=0.0, bytes=0.0)
    sizes = coarse_grid(geometry, checked_grid(geometry, None))
    g, h = (channels // geometry.groups for channels in geometry.plain_channels)
    few, many = sorted((g * math.prod(geometry.stride), h))
    each, entry, product = _SYMBOL_SECONDS
    matrices = geometry.groups * math.prod(half_grid(sizes))
    seconds = matrices * (each + entry * few * many + product * few**2 * many) / numba_threads()
    values = 8 * geometry.groups * math.prod(sizes) * few
    return Cost(seconds=seconds, bytes=3 * values + 16 * few * many * numba_threads())
