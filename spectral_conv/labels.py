"""Names for the axes of results: the labelled face of plain arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from spectral_conv.geometry import ConvGeometry
from spectral_conv.results import BoundTable, Enclosure, SingularTriplets, Snapshot, SpectralDensity

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


def label_bounds(table: BoundTable) -> xr.Dataset:
    """Label a table of bounds along `bound`, in the order of the table."""
    bounds = [row.bound for row in table.rows]
    numbers = {
        "value": [np.nan if bound is None else bound.value for bound in bounds],
        "ratio": [np.nan if row.ratio is None else row.ratio for row in table.rows],
        "seconds": [np.nan if bound is None else bound.seconds for bound in bounds],
    }
    words = {
        name: ["" if bound is None else getattr(bound, name) for bound in bounds]
        for name in ("kind", "scope", "source", "notes")
    }
    dataset = xr.Dataset(
        {name: ("bound", column) for name, column in (numbers | words).items()}
        | {"reason": ("bound", [row.reason for row in table.rows])},
        coords={"bound": [row.method for row in table.rows]},
    )
    if table.exact is not None:
        exact = (table.exact.lower, table.exact.value, table.exact.upper)
        dataset = dataset.assign(exact=("end", list(exact))).assign_coords(end=["lower", "value", "upper"])
        dataset.attrs |= {"basis": table.exact.basis, "exact_seconds": table.exact_seconds}
    return dataset


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


def label_snapshots(
    snapshots: Sequence[Snapshot], geometry: ConvGeometry, circulant_shape: tuple[int, ...] | None = None
) -> xr.Dataset:
    """Label iterations of a descent along `iteration`, with the axes of the kernel and of the frequency grid.

    The circulant spectrum, if it has a shape, is NaN where it was not computed; ``circulant_computed`` says where it
    was.
    """
    axes = _AXES[geometry.ndim]
    kernel_axes = (*(f"kernel_{axis}" for axis in axes), "input_channel", "output_channel")
    variables = {
        "kernel": (kernel_axes, [s.kernel for s in snapshots], "weights, HWIO"),
        "penalty": ((), [s.penalty for s in snapshots], "penalty"),
        "gradient_norm": ((), [s.gradient_norm for s in snapshots], "Frobenius norm of the gradient"),
        "step": ((), [s.step for s in snapshots], "size of the step that led here"),
        "multiplicity": (
            (),
            [s.multiplicity for s in snapshots],
            "multiplicity of the extreme value, 0 if not asked",
        ),
        "seconds": ((), [s.seconds for s in snapshots], "time of the iteration"),
    }
    first = snapshots[0]
    for name in first.terms:
        variables[f"penalty_{name}"] = ((), [s.terms[name] for s in snapshots], f"term {name!r} of the penalty")
    for name in first.extremes:
        end = "largest" if name == "sigma_max" else "smallest"
        ends = {"": "value", "_lower": "lower", "_upper": "upper"}
        for suffix, field in ends.items():
            bound = f"{field} bound of the " if suffix else ""
            numbers = [getattr(s.extremes[name], field) for s in snapshots]
            variables[f"{name}{suffix}"] = ((), numbers, f"{bound}{end} singular value, exact operator")
    coordinates: dict[str, Any] = {"iteration": [s.iteration for s in snapshots]}
    if circulant_shape is not None:
        spectra = np.full((len(snapshots), *circulant_shape), np.nan)
        for row, snapshot in zip(spectra, snapshots, strict=True):
            if snapshot.circulant is not None:
                row[...] = snapshot.circulant
        frequencies = tuple(f"frequency_{axis}" for axis in axes)
        name = "singular values of the circular layer (an estimate unless padding is circular)"
        variables["circulant_spectrum"] = ((*frequencies, "rank"), spectra, name)
        computed = [s.circulant is not None for s in snapshots]
        variables["circulant_computed"] = ((), computed, "whether the circulant spectrum was computed here")
        for dimension, size in zip(frequencies, circulant_shape, strict=False):
            wave = 2.0 * np.pi * np.arange(size) / size
            coordinates[dimension] = (dimension, wave, {"units": "rad", "long_name": "frequency"})
        coordinates["rank"] = (
            "rank",
            np.arange(circulant_shape[-1]),
            {"units": "1", "long_name": "rank, largest first"},
        )
    for dimension, size in zip(kernel_axes, first.kernel.shape, strict=True):
        coordinates[dimension] = (
            dimension,
            np.arange(size),
            {"units": "1", "long_name": dimension.replace("_", " ")},
        )
    return xr.Dataset(
        {
            name: (
                ("iteration", *dimensions),
                np.asarray(values),
                {"units": "s" if name == "seconds" else "1", "long_name": long_name},
            )
            for name, (dimensions, values, long_name) in variables.items()
        },
        coords=coordinates,
    )
