"""The spectral norm of the kernel as a tensor, by alternating maximization."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spectral_conv.bounds._method import Evaluation, bound_method
from spectral_conv.bounds._proof import top_pair
from spectral_conv.bounds._supremum import supremum
from spectral_conv.bounds._symbol import any_size, waves_of, with_symbol
from spectral_conv.operator import ConvOperator
from spectral_conv.symbols._peaks import symbol_peaks
from spectral_conv.symbols._transform import Complex, group_taps

# Random starts besides the peaks of the symbol; most rounds, and the relative gain below which they end, of the best
# and of the others.
_STARTS, _ROUNDS, _GAIN, _ROUGH_GAIN = 4, 1000, 1e-13, 1e-3


@bound_method(
    source="E. Grishina, M. Gorbunov, M. Rakhuba, 'Tight and efficient upper bound on spectral norm of convolutional "
    "layers', ECCV 2024, arXiv:2409.11859"
)
def tensor_norm(conv: ConvOperator, *, certified: bool = False) -> Evaluation:
    r"""Estimate ``sqrt(prod k_i) max |<K, w_1 (x) ... (x) x (x) y>|`` over complex unit vectors.

    The maximum, the spectral norm of the kernel as a tensor with one axis per spatial axis and one for the channels
    on either side, bounds the symbol, whose waves are among the vectors. Alternating maximization finds a local
    maximum, that is, *less* than the bound perhaps: started at the waves where the symbol is largest it ends at the
    symbol's supremum or above, unless the search for that missed the highest peak. Strided layers are taken apart by
    residues (polyphase), so that fewer taps count.

    Parameters
    ----------
    conv : ConvOperator
        Any layer with zero padding, or circular padding up to "same".
    certified : bool
        Return an upper bound: the larger of the tensor norm found and the proved supremum of the symbol.

    Returns
    -------
    Bound
        An estimate of an upper bound for every size of the image; with `certified` an upper bound in
        floating point too. Dimensionless.

    Raises
    ------
    NotApplicableError
        Reflect and replicate padding, and circular padding wider than "same".

    References
    ----------
    E. Grishina, M. Gorbunov, M. Rakhuba, "Tight and efficient upper bound on spectral norm of convolutional layers",
    ECCV 2024, arXiv:2409.11859.

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_conv
    >>> conv = spectral_conv.ConvOperator(np.ones((3, 3, 1, 1)), (8, 8))
    >>> round(spectral_conv.bounds.tensor_norm(conv).value, 6)
    9.0
    """
    conv = with_symbol(conv, "The tensor norm")
    waves = waves_of(conv)
    read = conv.geometry.read_taps.ravel() | (not conv.geometry.read_taps.any())
    used = [np.unique(shifts, return_inverse=True) for shifts in waves.shift[read].T]
    sizes = tuple(len(shifts) for shifts, _ in used)
    place = (*(where for _, where in used), waves.residue[read])
    tensor = np.zeros((*sizes, waves.residues, *waves.taps.shape[1:]))
    tensor[place] = waves.taps[read]
    tensor = tensor.reshape(*sizes, -1, waves.taps.shape[-1])
    root = math.sqrt(math.prod(sizes))
    peaks = symbol_peaks(conv.geometry, group_taps(conv.geometry, conv.plain_kernel, 0))
    waves_there = [
        [_unit(np.exp(-1j * t * shifts)) for t, (shifts, _) in zip(peak.frequency, used, strict=True)]
        for peak in peaks
    ]
    rng = np.random.default_rng(0)
    starts = waves_there + [_random(rng, sizes) for _ in range(_STARTS)]
    rough = max((_alternate(tensor, start, _ROUGH_GAIN) for start in starts), key=lambda state: state.value)
    best = _alternate(tensor, rough.vectors, _GAIN)
    found = root * best.value
    proved = supremum(conv) if certified else None

    def gradient() -> NDArray[np.floating]:
        if proved is not None and proved.value > found:
            by_kernel = supremum.value_and_grad(conv)[1]
            return by_kernel.swapaxes(-1, -2) if conv.geometry.transposed else by_kernel
        outer = root * _outer([*best.vectors, best.x, best.y]).real  # the value is Re <outer, K>
        by_taps = np.zeros(waves.taps.shape)
        by_taps[read] = outer.reshape(*sizes, waves.residues, *waves.taps.shape[1:])[place]
        return by_taps.reshape(conv.plain_kernel.shape)

    return Evaluation(
        value=found if proved is None else max(found, proved.value),
        kind="estimate" if proved is None else "upper",
        scope=any_size(conv),
        gradient=gradient,
        notes="a local maximum: the tensor norm is this or more"
        if proved is None
        else f"the proved supremum of the symbol is {proved.value:.6g}, the tensor norm found {found:.6g}",
    )


def _random(rng: np.random.Generator, sizes: Sequence[int]) -> list[Complex]:
    drawn = [rng.standard_normal(n) + 1j * rng.standard_normal(n) for n in sizes]
    return [vector / np.linalg.norm(vector) for vector in drawn]


@dataclass(frozen=True, kw_only=True)
class _State:
    """Unit vectors, one per spatial axis and for the channels on either side, and what the tensor makes of them."""

    value: float
    vectors: Sequence[Complex]
    x: Complex
    y: Complex


def _alternate(tensor: NDArray[np.floating], start: Sequence[Complex], gain: float) -> _State:
    """Maximize over one vector at a time; the value never falls. Ends where a round gains less than `gain` of it."""
    vectors = list(start)
    pair = top_pair(_channels(tensor, vectors))
    x: Complex = pair.left.astype(np.complex128)
    y: Complex = np.conj(pair.right).astype(np.complex128)
    value = pair.value
    for _ in range(_ROUNDS):
        taps = (tensor @ np.conj(y)) @ np.conj(x)
        for i in range(len(vectors)):
            others = [np.conj(v) if j != i else np.ones(len(v)) for j, v in enumerate(vectors)]
            vectors[i] = _unit((taps * _outer(others)).sum(axis=tuple(j for j in range(len(vectors)) if j != i)))
        matrix, before = _channels(tensor, vectors), value
        for _ in range(2):
            x = _unit(matrix @ np.conj(y))
            y = np.conj(x) @ matrix
            value, y = float(np.linalg.norm(y)), _unit(y)
        if value <= before * (1.0 + gain):
            break
    return _State(value=value, vectors=vectors, x=x, y=y)


def _channels(tensor: NDArray[np.floating], vectors: Sequence[Complex]) -> Complex:
    """The matrix that the spatial vectors leave of the tensor, ``(in, out)``."""
    weights = np.conj(_outer(vectors)).ravel()
    flat = tensor.reshape(weights.size, -1)
    return np.asarray((weights.real @ flat + 1j * (weights.imag @ flat)).reshape(tensor.shape[-2:]))


def _unit(vector: Complex) -> Complex:
    return np.asarray(vector / (np.linalg.norm(vector) or 1.0))


def _outer(vectors: Sequence[NDArray[np.inexact]]) -> Complex:
    product: Complex = np.ones((), np.complex128)
    for vector in vectors:
        product = np.multiply.outer(product, vector)
    return product
