"""One table of tolerances per dtype; every numerical test takes its own from here."""

from __future__ import annotations

import numpy as np

# Relative to the largest singular value (or the largest entry) of the operator at hand.
DENSE = {np.dtype(np.float64): 1e-12, np.dtype(np.float32): 2e-5}
ADJOINT = {np.dtype(np.float64): 1e-12, np.dtype(np.float32): 2e-5}
NORM = 1e-8  # spectral_norm at its default rtol, relative
SMALLEST = 1e-9  # smallest_singular_value at its default rtol, relative to the largest
PENALTY = 1e-12  # values and gradients of polynomial penalties, relative
PENALTY_GRADIENT = 1e-6  # gradients against central differences, relative
BOUND_GRADIENT = 1e-6  # gradients of bounds against central differences, relative to the bound
ORTHONORMAL = 1e-12  # singular values of orthogonal matrices and convolutions, against 1
ORTHOGONAL_VJP = 1e-6  # vector-Jacobian products against central differences, relative
CLIPPED = 1e-6  # how far outside the interval `svcm` may leave a value, relative to the upper end
LINK = 1e-9  # Lipschitz constants in closed form, relative: each is rounded upwards by a few units
RADIUS = 2e-15  # certified radii below the quotient in double precision, relative
ENCLOSED = 2e-3  # what `network_lipschitz` may lose in the norm of one layer, relative
JACOBIAN = 1e-5  # first derivatives against central differences, relative and of slopes near 1
TORCH = {"float64": 1e-10, "float32": 1e-4}  # penalties in PyTorch against those in NumPy, relative
TRACKED_NORM = 1e-3  # the norm of layers divided by their exact norm, against 1, after some training
