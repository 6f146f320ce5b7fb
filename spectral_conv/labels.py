"""Names for the axes of results: the labelled face of plain arrays."""

from __future__ import annotations

import numpy as np
import xarray as xr

from spectral_conv.results import Enclosure, SingularTriplets, SpectralDensity

_AXES = {1: ("x",), 2: ("y", "x"), 3: ("z", "y", "x")}


def label_triplets(triplets: SingularTriplets) -> xr.Dataset:
    """Label singular triplets: `rank`, channels and pixels of either side."""
    axes = _AXES[triplets.left.ndim - 2]
    outputs, inputs = (tuple(f"{side}_{axis}" for axis in axes) for side in ("output", "input"))
    per_rank = {name: ("rank", getattr(triplets, name)) for name in ("values", "residuals", "lower", "upper")}
    return xr.Dataset(
        {
            "singular_value": per_rank.pop("values"),
            **per_rank,
            "left": (("rank", "output_channel", *outputs), triplets.left),
            "right": (("rank", "input_channel", *inputs), triplets.right),
        },
        coords={"rank": np.arange(len(triplets.values))},
        attrs={
            "applications": triplets.applications,
            "method": triplets.method,
            "stop_reason": triplets.stop_reason.name,
        },
    )


def label_enclosure(enclosure: Enclosure) -> xr.Dataset:
    """Label an enclosure: one variable along `end`."""
    return xr.Dataset(
        {"singular_value": ("end", [enclosure.lower, enclosure.value, enclosure.upper])},
        coords={"end": ["lower", "value", "upper"]},
        attrs={
            "basis": enclosure.basis,
            "method": enclosure.method,
            "applications": enclosure.applications,
            "stop_reason": enclosure.stop_reason.name,
        },
    )


def label_density(density: SpectralDensity) -> xr.Dataset:
    """Label a spectral density: counts, error and density along `bin`, whose coordinate is the centres."""
    left, right = density.edges[:-1], density.edges[1:]
    return xr.Dataset(
        {name: ("bin", getattr(density, name)) for name in ("counts", "error", "density")},
        coords={"bin": left + (right - left) / 2, "left_edge": ("bin", left), "right_edge": ("bin", right)},
        attrs={
            name: getattr(density, name)
            for name in ("total", "resolution", "vectors", "moments", "applications", "method")
        },
    )
