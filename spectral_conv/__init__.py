"""Exact spectra of convolution layers, beside what the FFT says.

Operator
    ConvOperator -- a convolution layer as a linear operator
    ConvGeometry -- everything about a layer but its weights

Spectra
    symbol -- the Fourier symbol of the kernel
    circulant_singular_values -- all values of the circular layer: exact for circular padding, else an estimate
    circulant_svd -- their singular vectors
    singular_triplets -- exact triplets of the layer as it is
    spectral_norm -- exact largest singular value, enclosed
    smallest_singular_value -- exact smallest singular value, enclosed
    condition_number -- their ratio, enclosed
    singular_values -- all of them, dense
    spectral_density -- a histogram of all of them, estimated with error bars

Models
    read_model -- the convolutions of a model file
    inspect_model -- their spectra in one table

Results
    SingularTriplets, Enclosure, SpectralDensity, StopReason -- what the functions return
    NotApplicableError, NotConvergedError, MemoryLimitError, CostLimitError, ModelError -- what they raise
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# name -> module: loaded on first use, so that `import spectral_conv` costs nothing (PEP 562).
_HOMES = {
    "ConvOperator": "operator",
    "ConvGeometry": "geometry",
    "symbol": "symbols",
    "circulant_singular_values": "symbols",
    "circulant_svd": "symbols",
    "singular_triplets": "spectrum",
    "spectral_norm": "spectrum",
    "smallest_singular_value": "spectrum",
    "condition_number": "spectrum",
    "singular_values": "spectrum",
    "spectral_density": "spectrum",
    "read_model": "models",
    "ModelError": "models",
    "inspect_model": "inspection",
    "SingularTriplets": "results",
    "SpectralDensity": "results",
    "Enclosure": "results",
    "StopReason": "results",
    "NotApplicableError": "results",
    "NotConvergedError": "results",
    "MemoryLimitError": "results",
    "CostLimitError": "results",
}
_MODULES = ("models",)

__all__ = ["__version__", *sorted(_HOMES), *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"spectral_conv.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'spectral_conv' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"spectral_conv.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
