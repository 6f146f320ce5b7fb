"""Bounds of the largest singular value, beside one another and beside the truth.

Each is a function from an operator to a `Bound`, and a penalty: ``bounds.gram.value_and_grad(conv)``.

circulant_embedding -- upper: the norm on a larger torus; close for every image size, exact for circular padding
supremum -- upper: the norm for an infinite image
gram -- upper: Gram iteration, over frequencies or over pixels
fantastic_four -- upper: the least norm of the reshaped kernels, times a factor
reshaped -- upper: the norm of the kernel reshaped to a matrix, times how often a pixel is read; any padding
lipbound -- upper: the largest rows of the symbol
tensor_norm -- estimate of an upper bound: the kernel's norm as a tensor; upper with ``certified=True``
power_iteration -- lower: what some steps of the power method reach
reshaped_norm -- estimate: the norm that spectral normalization divides by, no bound
table -- all of them, their ratio to the exact value and their time
"""

from spectral_conv.bounds._circulant_embedding import circulant_embedding
from spectral_conv.bounds._gram import gram
from spectral_conv.bounds._lipbound import lipbound
from spectral_conv.bounds._method import BoundMethod
from spectral_conv.bounds._power_iteration import power_iteration
from spectral_conv.bounds._reshaped import fantastic_four, reshaped
from spectral_conv.bounds._reshaped_norm import reshaped_norm
from spectral_conv.bounds._supremum import supremum
from spectral_conv.bounds._table import table
from spectral_conv.bounds._tensor_norm import tensor_norm
from spectral_conv.results import Bound, BoundRow, BoundTable

__all__ = [
    "Bound",
    "BoundMethod",
    "BoundRow",
    "BoundTable",
    "circulant_embedding",
    "fantastic_four",
    "gram",
    "lipbound",
    "power_iteration",
    "reshaped",
    "reshaped_norm",
    "supremum",
    "table",
    "tensor_norm",
]
