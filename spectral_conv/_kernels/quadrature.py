"""Gauss quadrature of a spectral measure, and the Chebyshev-Markov-Stieltjes bounds of its distribution function."""

from __future__ import annotations

import numpy as np
from numba import njit

_EPS = 2.220446049250313e-16
# Relative to the largest entry: smaller pivots would send a node so far out that rounding spoils the others, and
# nodes that close (Lanczos finds a converged value again and again) count as one.
_LEAST_PIVOT, _SAME_NODE = 1e-8, 1e-8


@njit(cache=True, nogil=True)
def gauss_rule(diagonal, off_diagonal, first):
    """Golub-Welsch: implicit QL on a symmetric tridiagonal matrix; only the first row of the eigenvectors.

    `diagonal` ``(n,)`` becomes the eigenvalues, in any order; `first` ``(n,)``, on entry ``(1, 0, ...)``, the first
    components of the unit eigenvectors; `off_diagonal` ``(n,)``, its last entry unused, is destroyed.
    """
    n = diagonal.size
    for start in range(n):
        for _ in range(60):
            stop = start
            while stop < n - 1:
                size = abs(diagonal[stop]) + abs(diagonal[stop + 1])
                if abs(off_diagonal[stop]) <= _EPS * size:
                    break
                stop += 1
            if stop == start:
                break
            # Wilkinson's shift.
            g = (diagonal[start + 1] - diagonal[start]) / (2.0 * off_diagonal[start])
            r = np.hypot(g, 1.0)
            g = diagonal[stop] - diagonal[start] + off_diagonal[start] / (g + (r if g >= 0.0 else -r))
            s, c, p = 1.0, 1.0, 0.0
            split = False
            for i in range(stop - 1, start - 1, -1):
                f, b = s * off_diagonal[i], c * off_diagonal[i]
                r = np.hypot(f, g)
                off_diagonal[i + 1] = r
                if r == 0.0:
                    diagonal[i + 1] -= p
                    off_diagonal[stop] = 0.0
                    split = True
                    break
                s, c = f / r, g / r
                g = diagonal[i + 1] - p
                r = (diagonal[i] - g) * s + 2.0 * c * b
                p = s * r
                diagonal[i + 1] = g + p
                g = c * r - b
                f = first[i + 1]
                first[i + 1] = s * first[i] + c * f
                first[i] = c * first[i] - s * f
            if split:
                continue
            diagonal[start] -= p
            off_diagonal[start] = g
            off_diagonal[stop] = 0.0


@njit(cache=True, nogil=True)
def markov_bounds(alpha, beta, x, below, mass):
    """Bound the distribution function of the measure whose Golub-Kahan coefficients are `alpha` and `beta`.

    ``B`` has `alpha` ``(k,)`` on its diagonal and ``beta[:-1]`` above it; its measure is that of ``B^T B`` and the
    first unit vector. Among all measures with the same 2k moments, `below` is the least mass on ``(-inf, x)``, and
    ``below + mass`` the largest on ``(-inf, x]``: the quadrature rule that has `x` among its k + 1 nodes has `mass`
    there and `below` to the left.
    """
    k = alpha.size
    diagonal, off_diagonal = alpha**2, np.zeros(k + 1)
    diagonal[1:] += beta[: k - 1] ** 2
    off_diagonal[:k] = alpha * beta
    size = max(diagonal.max(), off_diagonal.max())
    nodes, rest, first = np.empty(k + 1), np.empty(k + 1), np.empty(k + 1)
    for i in range(x.size):
        # The last diagonal entry for which the last pivot of T - x vanishes.
        shift = 0.0
        for j in range(k):
            pivot = diagonal[j] - x[i] - shift
            least = _LEAST_PIVOT * size if j == k - 1 else _EPS * size
            if abs(pivot) < least:
                pivot = least if pivot >= 0.0 else -least
            shift = off_diagonal[j] ** 2 / pivot
        nodes[:k], rest[:] = diagonal, off_diagonal
        nodes[k] = x[i] + shift
        first[:] = 0.0
        first[0] = 1.0
        gauss_rule(nodes, rest, first)
        here = nodes[np.argmin(np.abs(nodes - x[i]))]
        below[i] = mass[i] = 0.0
        for j in range(k + 1):
            if abs(nodes[j] - here) <= _SAME_NODE * size:
                mass[i] += first[j] ** 2
            elif nodes[j] < here:
                below[i] += first[j] ** 2
