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
    compare_models -- two checkpoints of one network: which layers moved, and how
    clip_model -- a file written again, no layer's norm above a maximum, each kernel moved as little as possible

Bounds
    bounds -- upper bounds, lower bounds and estimates of the norm, beside the truth
    plot_bounds -- how close the bounds of a layer are, over their time, as a figure
    plot_tightness -- how close they are, over the size of the image
    certification -- a network's Lipschitz bound from its layers, with the chain of evidence; certified radii

Orthogonal convolutions
    orthogonal -- maps from free parameters, projections, membership by the exact spectrum

Penalties and descent
    regularizers -- penalties on the operator itself, with gradients by the kernel
    descend -- gradient descent on a kernel, its exact spectrum recorded
    steps -- step sizes
    SpectrumStore -- the course of a descent on disk, safe against whatever kills the process
    plot_descent -- the exact largest and smallest value over the iterations, as a figure
    plot_circulant -- the circulant spectrum over the iterations, as a heat map

PyTorch (``import spectral_conv.torch``)
    spectral_conv.torch -- parametrizations, differentiable penalties, a monitor of spectra while training

Results
    SingularTriplets, Enclosure, Bound, SpectralDensity, StopReason -- what the functions return
    Descent, DescentStop, Snapshot -- what `descend` returns and records
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
    "compare_models": "comparison",
    "clip_model": "clipping",
    "descend": "descent",
    "SpectrumStore": "store",
    "plot_descent": "report.plots",
    "plot_circulant": "report.plots",
    "plot_bounds": "report.plots_bounds",
    "plot_tightness": "report.plots_bounds",
    "Descent": "results",
    "DescentStop": "results",
    "Snapshot": "results",
    "SingularTriplets": "results",
    "SpectralDensity": "results",
    "Enclosure": "results",
    "Bound": "results",
    "StopReason": "results",
    "NotApplicableError": "results",
    "NotConvergedError": "results",
    "MemoryLimitError": "results",
    "CostLimitError": "results",
}
# Public modules, by where they live.
_MODULES = {
    "bounds": "bounds",
    "certification": "certification",
    "models": "models",
    "orthogonal": "orthogonal",
    "regularizers": "regularizers",
    "steps": "descent.steps",
}

__all__ = ["__version__", *sorted(_HOMES), *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"spectral_conv.{_MODULES[name]}")
    if name not in _HOMES:
        raise AttributeError(f"module 'spectral_conv' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"spectral_conv.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
