"""The symbol of a convolution and the circulant spectrum: cheap, exact for circular padding only."""

from spectral_conv.symbols._circulant import (
    CirculantVectors,
    circulant_singular_values,
    circulant_svd,
    symbol,
)

__all__ = ["CirculantVectors", "circulant_singular_values", "circulant_svd", "symbol"]
