r"""How much a trigonometric polynomial may exceed its largest value on a grid.

    ``sup ||F|| <= max_grid ||F|| prod_j min(1 / cos(pi D_j / (2 S_j)), (1 - D_j / S_j)^(-1/2))``

for S_j equispaced points and degree D_j < S_j along axis j, whatever the norm on the matrices.
"""

from __future__ import annotations

import math

from spectral_conv.geometry import ConvGeometry


def substitutions(geometry: ConvGeometry) -> tuple[int, ...]:
    """The symbol is a polynomial in ``exp(i q t)``: q per axis, the dilation where no stride mixes the residues."""
    return geometry.dilation if geometry.stride == (1,) * geometry.ndim else (1,) * geometry.ndim


def degrees(geometry: ConvGeometry) -> tuple[int, ...]:
    """Degree of the symbol in ``exp(i q t)`` per axis."""
    if geometry.stride == (1,) * geometry.ndim:
        return tuple(axis.kernel - 1 for axis in geometry.axes)
    return tuple(axis.dilation * (axis.kernel - 1) // axis.stride for axis in geometry.axes)


def fewest_points(degree: int, excess: float) -> int:
    """Points of which the largest value is at most ``1 + excess`` times below the supremum."""
    # 1 / cos x <= 1 + excess with x = pi D / (2 S).
    return max(degree + 1, math.ceil(math.pi * degree / (2.0 * math.acos(1.0 / (1.0 + excess)))))


def excess_factor(degree: int, points: int) -> float:
    """The factor of one axis."""
    if degree == 0:
        return 1.0
    return min(1.0 / math.cos(math.pi * degree / (2 * points)), 1.0 / math.sqrt(1.0 - degree / points))
