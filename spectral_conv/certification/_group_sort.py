"""Sorting activations: Lipschitz constant 1, and gradients keep their norms."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectral_conv.geometry import as_integer


def group_sort(x: ArrayLike, size: int, axis: int = 1) -> NDArray[Any]:
    r"""Sort each group of `size` neighbours along an axis, the least first.

    Parameters
    ----------
    x : array_like
        Real numbers, such as ``(batch, channels, *spatial)``.
    size : int
        Of the groups; it divides the length of the axis. 1 changes nothing, the whole length sorts all.
    axis : int
        Along which the groups lie; 0 for one sample ``(channels, *spatial)``.

    Returns
    -------
    ndarray
        Of the shape and dtype of `x`. As a map it is 1-Lipschitz, ``||sort(a) - sort(b)||_2 <= ||a - b||_2``, and
        where no two entries of a group tie its Jacobian is a permutation matrix: gradients keep their norms.

    Raises
    ------
    ValueError
        `size` does not divide the length of the axis, or there is no such axis.

    References
    ----------
    C. Anil, J. Lucas, R. Grosse, "Sorting out Lipschitz function approximation", ICML 2019, arXiv:1811.05381,
    Section 4.

    Examples
    --------
    >>> from spectral_conv import certification
    >>> certification.group_sort([[3.0, 1.0, 2.0, 0.0, 5.0, 4.0]], 3)
    array([[1., 2., 3., 0., 4., 5.]])
    """
    return _in_groups(x, as_integer("size", size, minimum=1), axis, descending=False)


def max_min(x: ArrayLike, axis: int = 1) -> NDArray[Any]:
    r"""Replace each pair of neighbours along an axis by its maximum and its minimum.

    `group_sort` with groups of two, the larger one first.

    Parameters
    ----------
    x : array_like
        Real numbers, such as ``(batch, channels, *spatial)``.
    axis : int
        Of even length; entries 2 i and 2 i + 1 are a pair. 0 for one sample ``(channels, *spatial)``.

    Returns
    -------
    ndarray
        Of the shape and dtype of `x`. The map is 1-Lipschitz and keeps the norms of gradients, see `group_sort`.

    Raises
    ------
    ValueError
        The length of the axis is odd, or there is no such axis.

    References
    ----------
    C. Anil, J. Lucas, R. Grosse, ICML 2019, arXiv:1811.05381, Section 4.
    Q. Li et al., NeurIPS 2019, arXiv:1911.00937, who use it between orthogonal convolutions.

    Examples
    --------
    >>> from spectral_conv import certification
    >>> certification.max_min([[1.0, 3.0, 2.0, 0.0]])
    array([[3., 1., 2., 0.]])
    """
    return _in_groups(x, 2, axis, descending=True)


def _in_groups(x: ArrayLike, size: int, axis: int, *, descending: bool) -> NDArray[Any]:
    array = np.asarray(x)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"`x` must be real; got dtype {array.dtype}. Only real numbers have an order.")
    if not isinstance(axis, int | np.integer) or not -array.ndim <= axis < array.ndim:
        raise ValueError(
            f"`axis` must be one of the {array.ndim} axes of `x`; got {axis!r}. Channels are axis 1 behind a batch, "
            "else axis 0."
        )
    last = np.moveaxis(array, axis, -1)
    if last.shape[-1] % size:
        raise ValueError(
            f"`x` must have a multiple of {size} entries along axis {axis}, the size of a group; got "
            f"{last.shape[-1]}. Change the number of channels or the size of the groups."
        )
    groups = np.sort(last.reshape(*last.shape[:-1], last.shape[-1] // size, size), axis=-1)
    if descending:
        groups = groups[..., ::-1]
    return np.ascontiguousarray(np.moveaxis(groups.reshape(last.shape), -1, axis))
