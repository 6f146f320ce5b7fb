"""Exact singular values and triplets of the layer as the network applies it."""

from spectral_conv.spectrum.triplets import (
    condition_number,
    singular_triplets,
    singular_values,
    smallest_singular_value,
    spectral_norm,
)

__all__ = [
    "condition_number",
    "singular_triplets",
    "singular_values",
    "smallest_singular_value",
    "spectral_norm",
]
