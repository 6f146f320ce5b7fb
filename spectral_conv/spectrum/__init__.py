"""Exact singular values and triplets of the layer as the network applies it."""

from spectral_conv.spectrum.density import spectral_density
from spectral_conv.spectrum.extremes import condition_number, smallest_singular_value, spectral_norm
from spectral_conv.spectrum.triplets import singular_triplets, singular_values

__all__ = [
    "condition_number",
    "singular_triplets",
    "singular_values",
    "smallest_singular_value",
    "spectral_density",
    "spectral_norm",
]
