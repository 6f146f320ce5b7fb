"""The alternating direction method of multipliers for the nearest kernel whose image lies in a norm ball."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.inexact]

# Over-relaxation, and by how much the weight of the constraint follows the two residuals.
_RELAXATION = 1.6
_IMBALANCE, _FACTOR, _ADAPT_EVERY, _ADAPT_UNTIL = 5.0, 1.7, 10, 200


@dataclass(frozen=True, kw_only=True)
class Ball:
    """Kernels `x` whose image ``T x`` consists of matrices of norm `c` at most, up to a factor.

    Attributes
    ----------
    forward, adjoint : callable
        T, scaled to a norm of about 1, and its adjoint.
    solve : callable
        From r and rho to the solution of ``(I + rho T^* T) x = r``.
    clip : callable
        From images and c to the nearest images in the ball.
    support : callable
        From Y and c to the largest ``<Y, z>`` of all z in the ball: c times a sum of singular values.
    window : ndarray
        Broadcast against kernels: for every kernel x whose layer has norm c at most, ``T (window x)`` is in the ball.
    """

    forward: Callable[[NDArray[np.float64]], Array]
    adjoint: Callable[[Array], NDArray[np.float64]]
    solve: Callable[[NDArray[np.float64], float], NDArray[np.float64]]
    clip: Callable[[Array, float], Array]
    support: Callable[[Array, float], float]
    window: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Iterate:
    """Where the iteration stands: it goes on from here for another `c`.

    Attributes
    ----------
    kernel : ndarray
        x; nearly feasible, and nearly the nearest.
    image, multiplier : ndarray
        z in the ball, and the scaled multiplier u: ``rho u`` is a solution of the dual problem.
    rho : float
        Weight of the constraint.
    iterations : int
        Done so far.
    converged : bool
        Whether both residuals are small enough.
    """

    kernel: NDArray[np.float64]
    image: Array
    multiplier: Array
    rho: float
    iterations: int
    converged: bool


def first_iterate(start: NDArray[np.float64], ball: Ball, c: float) -> Iterate:
    """Begin at the kernel to be approximated."""
    image = ball.clip(ball.forward(start), c)
    return Iterate(kernel=start, image=image, multiplier=np.zeros_like(image), rho=1.0, iterations=0, converged=False)


def nearest(start: NDArray[np.float64], ball: Ball, c: float, at: Iterate, *, rtol: float, maxiter: int) -> Iterate:
    r"""Minimize ``||x - start||^2 / 2`` over the kernels with ``||T x|| <= c``.

    Stops where ``||T x - z||`` and ``rho ||z - z_before||`` are at most ``rtol ||T start||``.

    References
    ----------
    S. Boyd, N. Parikh, E. Chu, B. Peleato, J. Eckstein, "Distributed optimization and statistical learning via the
    alternating direction method of multipliers", 2011, doi:10.1561/2200000016, sections 3.1, 3.3, 3.4.
    """
    x, z, u, rho = at.kernel, at.image, at.multiplier, at.rho
    tolerance = rtol * float(np.linalg.norm(ball.forward(start)))
    converged = False
    for count in range(1, maxiter + 1):
        x = ball.solve(start + rho * ball.adjoint(z - u), rho)
        image = ball.forward(x)
        relaxed = _RELAXATION * image + (1.0 - _RELAXATION) * z
        before, z = z, ball.clip(relaxed + u, c)
        u = u + relaxed - z
        primal, dual = float(np.linalg.norm(image - z)), rho * float(np.linalg.norm(z - before))
        if max(primal, dual) <= tolerance:
            converged = True
            break
        if count % _ADAPT_EVERY == 0 and count <= _ADAPT_UNTIL:
            factor = _FACTOR if primal > _IMBALANCE * dual else 1.0 / _FACTOR if dual > _IMBALANCE * primal else 1.0
            rho, u = rho * factor, u / factor
    return Iterate(kernel=x, image=z, multiplier=u, rho=rho, iterations=at.iterations + count, converged=converged)


def least_distance(start: NDArray[np.float64], ball: Ball, c: float, at: Iterate) -> float:
    r"""No kernel whose layer has norm `c` at most is nearer to `start` than this: weak duality.

    With any multiplier Y and ``D = window T^* Y``, every such kernel x has ``<D, x> <= support(Y)``, so that
    ``||start - x|| >= (<D, start> - support(Y)) / ||D||``.
    """
    direction = ball.window * ball.adjoint(at.multiplier)
    size = float(np.linalg.norm(direction))
    if size == 0.0:
        return 0.0
    return max(0.0, (float((direction * start).sum()) - ball.support(at.multiplier, c)) / size)
