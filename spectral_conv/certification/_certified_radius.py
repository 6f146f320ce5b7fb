"""From margins and a Lipschitz constant to radii within which the class cannot change."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectral_conv.certification._evidence import NetworkLipschitz
from spectral_conv.certification._rounding import product, root
from spectral_conv.results import NotApplicableError


def margins(logits: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    r"""By how much the logit of the label exceeds all others: ``f_y - max_{j != y} f_j``.

    Parameters
    ----------
    logits : (..., classes) array_like
        Outputs of the network, of two classes at least.
    labels : (...,) array_like of int
        The right class of each sample, counted from 0.

    Returns
    -------
    (...,) float64 ndarray
        In the units of the logits, rounded once; negative where another class wins, 0 where it is a tie.

    Raises
    ------
    ValueError
        An argument of the wrong shape or type, logits that are not finite, labels that are no class.

    References
    ----------
    Q. Li et al., "Preventing Gradient Attenuation in Lipschitz Constrained Convolutional Networks", NeurIPS 2019,
    arXiv:1911.00937, Section 2.3.

    Examples
    --------
    >>> from spectral_conv import certification
    >>> certification.margins([[3.0, 1.0, 0.5], [3.0, 1.0, 0.5]], [0, 1])
    array([ 2., -2.])
    """
    values = _checked_logits(logits)
    classes = values.shape[-1]
    right = np.asarray(labels)
    if right.shape != values.shape[:-1] or right.dtype.kind not in "iu":
        raise ValueError(
            f"`labels` must be integers of the shape {values.shape[:-1]}, one per row of `logits`; got shape "
            f"{right.shape} and dtype {right.dtype}. Of one-hot rows take `labels.argmax(axis=-1)`."
        )
    strange = right[(right < 0) | (right >= classes)]
    if strange.size:
        raise ValueError(
            f"`labels` must lie between 0 and {classes - 1} for {classes} classes; got {strange.flat[0]}. Classes "
            "are counted from 0; leave out samples without a label."
        )
    places = right[..., None].astype(np.intp)
    own = np.take_along_axis(values, places, axis=-1)[..., 0]
    others = values.copy()
    np.put_along_axis(others, places, -np.inf, axis=-1)
    return _difference(own, others.max(axis=-1))


def certified_radius(logits: ArrayLike, lipschitz: NetworkLipschitz | float) -> NDArray[np.float64]:
    r"""Radius around each input within which the class cannot change: ``(f_top - f_second) / (sqrt(2) L)``.

    A step d of the input moves the difference of two logits by at most ``|(e_i - e_j)^T (f(x + d) - f(x))| <=
    sqrt(2) L ||d||``. Sufficient, not necessary: beyond the radius nothing is said, and the smallest step that
    changes the class is usually far longer.

    Parameters
    ----------
    logits : (..., classes) array_like
        Outputs of the network, of two classes at least.
    lipschitz : NetworkLipschitz or float
        The constant L in Euclidean norms, from the inputs to these outputs; a number is taken as proved.

    Returns
    -------
    (...,) float64 ndarray
        In the units of the inputs that L refers to: every input nearer than this has the same largest logit. Rounded
        downwards, so that the statement holds for the logits as given. 0 for ties; inf where ``L = 0`` without a tie.

    Raises
    ------
    NotApplicableError
        `lipschitz` is an estimate, from which no radius follows.
    ValueError
        Logits or a constant that are not such.

    References
    ----------
    Q. Li et al., NeurIPS 2019, arXiv:1911.00937, Section 2.3 and Appendix P.
    Y. Tsuzuku, I. Sato, M. Sugiyama, "Lipschitz-Margin Training", NeurIPS 2018, arXiv:1802.04034, Proposition 1.

    Examples
    --------
    >>> from spectral_conv import certification
    >>> certification.certified_radius([[3.0, 1.0, 0.5], [1.0, 1.0, 0.5]], lipschitz=1.0).round(4)
    array([1.4142, 0.    ])
    """
    values = _checked_logits(logits)
    highest = np.partition(values, -2, axis=-1)
    return _radii(_difference(highest[..., -1], highest[..., -2]), _checked_constant(lipschitz))


@overload
def certified_accuracy(
    logits: ArrayLike, labels: ArrayLike, lipschitz: NetworkLipschitz | float, radius: float
) -> float: ...


@overload
def certified_accuracy(
    logits: ArrayLike,
    labels: ArrayLike,
    lipschitz: NetworkLipschitz | float,
    radius: Sequence[float] | NDArray[Any],
) -> NDArray[np.float64]: ...


def certified_accuracy(
    logits: ArrayLike,
    labels: ArrayLike,
    lipschitz: NetworkLipschitz | float,
    radius: float | Sequence[float] | NDArray[Any],
) -> float | NDArray[np.float64]:
    """Share of samples that are classified rightly, provably so for every step of at most a given length.

    Parameters
    ----------
    logits : (..., classes) array_like
        Outputs of the network, of two classes at least; every row is a sample.
    labels : (...,) array_like of int
        The right class of each sample, counted from 0.
    lipschitz : NetworkLipschitz or float
        As in `certified_radius`.
    radius : float or array_like
        Lengths of the steps, finite and at least 0.

    Returns
    -------
    float, or float64 ndarray shaped like `radius`
        A lower bound of the accuracy under any attack with steps of at most that length: the label's logit is the
        only largest one and the certified radius exceeds `radius` (strictly: the ball is closed). At 0 the clean
        accuracy, ties counted as wrong. It never grows with the radius.

    Raises
    ------
    NotApplicableError
        `lipschitz` is an estimate.
    ValueError
        An argument of the wrong shape, type or range; no samples.

    References
    ----------
    Q. Li et al., NeurIPS 2019, arXiv:1911.00937, Section 2.3.

    Examples
    --------
    >>> from spectral_conv import certification
    >>> logits, labels = [[3.0, 1.0], [1.0, 1.5], [0.0, 2.0]], [0, 1, 0]
    >>> certification.certified_accuracy(logits, labels, 1.0, [0.0, 0.5, 2.0]).round(4)
    array([0.6667, 0.3333, 0.    ])
    """
    found = margins(logits, labels)
    if not found.size:
        raise ValueError("`logits` must have one sample at least; got none. A share of no samples is not defined.")
    lengths = np.asarray(radius)
    if lengths.dtype.kind not in "fiu" or not np.isfinite(lengths).all() or (lengths < 0).any():
        raise ValueError(f"`radius` must be finite and at least 0; got {radius!r}. Radius 0 is the clean accuracy.")
    radii = np.sort(_radii(found, _checked_constant(lipschitz)), axis=None)
    certified = radii.size - np.searchsorted(radii, lengths.astype(np.float64), side="right")
    # A step of length 0 needs no radius; with an overflowing constant, or a margin near underflow, there is none.
    shares = np.where(lengths == 0, np.count_nonzero(found > 0.0), certified) / found.size
    return float(shares) if lengths.ndim == 0 else shares


def _checked_logits(logits: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(logits)
    if values.dtype.kind not in "fiu" or values.ndim == 0 or values.shape[-1] < 2:
        raise ValueError(
            "`logits` must be a real array (..., classes) with two classes at least; got shape "
            f"{values.shape} and dtype {values.dtype}. A single logit z is the pair (0, z)."
        )
    strange = np.count_nonzero(~np.isfinite(values))
    if strange:
        raise ValueError(
            f"`logits` must be finite; got {strange} NaN or infinite entries. Leave out classes that are masked."
        )
    return values.astype(np.float64)


def _checked_constant(lipschitz: object) -> float:
    if isinstance(lipschitz, NetworkLipschitz):
        if lipschitz.kind != "upper":
            link = next((link for link in lipschitz.links if link.kind == "estimate"), None)
            why = "" if link is None else f" (link {link.name!r}: {link.theorem})"
            raise NotApplicableError(
                f"`lipschitz` must be a proved upper bound; got an {lipschitz.kind}{why}. Use bounds that are proved "
                "and state the sizes that the file leaves open; or pass its `.value`, if you can vouch for it."
            )
        return lipschitz.value
    value = math.nan
    if isinstance(lipschitz, numbers.Real) and not isinstance(lipschitz, bool):
        value = float(lipschitz)
    if not value >= 0.0:
        raise ValueError(
            f"`lipschitz` must be a number of at least 0 or a NetworkLipschitz; got {lipschitz!r}. "
            "`network_lipschitz(model)` gives one."
        )
    return value


def _difference(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(over="ignore"):
        return np.asarray(first - second)


def _radii(found: NDArray[np.float64], constant: float) -> NDArray[np.float64]:
    """Return ``max(margin, 0) / (sqrt(2) L)``, below the exact quotient."""
    positive = np.maximum(found, 0.0)
    if constant == 0.0:
        return np.where(positive > 0.0, math.inf, 0.0)
    with np.errstate(over="ignore", under="ignore"):
        # Each step down undoes one rounding, also of what overflowed.
        quotients = np.nextafter(positive, 0.0) / product(root(2), constant)
        return np.asarray(np.nextafter(quotients, 0.0))
