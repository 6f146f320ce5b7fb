"""Penalties on the operator itself: values and gradients by the kernel.

Frobenius -- ``1/2 ||M||_F^2``
SmallestSingularValue -- ``-sigma_min(M)``
FrobeniusMinusSmallest -- ``1/2 ||M||_F^2 - n sigma_min(M)``
OrthogonalityGap -- ``||M^T M - alpha I||_F^2``
TwoNormGap -- ``||M^T M - alpha I||_2``
SpectralNorm -- ``sigma_max(M)``
LipBound -- an upper bound of it, or its logarithm
CircularSpectralFunction -- any smooth function of the circular layer's values
PenaltySum -- a weighted sum of them
Penalty, PolynomialPenalty -- what `descend` and its step rules ask of a penalty
"""

from spectral_conv.regularizers._penalty import Penalty, PolynomialPenalty
from spectral_conv.regularizers.circular_spectral_function import CircularSpectralFunction
from spectral_conv.regularizers.frobenius import Frobenius
from spectral_conv.regularizers.frobenius_minus_smallest import FrobeniusMinusSmallest
from spectral_conv.regularizers.lip_bound import LipBound
from spectral_conv.regularizers.orthogonality_gap import OrthogonalityGap
from spectral_conv.regularizers.penalty_sum import PenaltySum
from spectral_conv.regularizers.smallest_singular_value import SmallestSingularValue
from spectral_conv.regularizers.spectral_norm import SpectralNorm
from spectral_conv.regularizers.two_norm_gap import TwoNormGap

__all__ = [
    "CircularSpectralFunction",
    "Frobenius",
    "FrobeniusMinusSmallest",
    "LipBound",
    "OrthogonalityGap",
    "Penalty",
    "PenaltySum",
    "PolynomialPenalty",
    "SmallestSingularValue",
    "SpectralNorm",
    "TwoNormGap",
]
