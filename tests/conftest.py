"""Shared settings of the tests."""

from __future__ import annotations

import os

# Several BLAS threads on a busy machine of few cores are many times slower than one; before NumPy is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from hypothesis import HealthCheck, settings

# The first example of a test may compile kernels; the machine may be slow: no deadlines.
settings.register_profile(
    "spectral_conv", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("spectral_conv")
