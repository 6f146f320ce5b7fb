"""Every trained model in the folder `shared`: geometry, extremes, and all bounds against the exact value.

``python -m validation.models [name ...]``; exit code 1 where something differs. ONNX and Keras files are read alone,
unless their input size is open, the others with the document.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from spectral_conv import bounds, inspect_model, read_model
from spectral_conv.models import Model

SHARED = Path(__file__).resolve().parents[2] / "shared"
# Files that state their geometry, and those of them that leave the input size open.
STATED, OPEN = (".onnx", ".hdf5", ".h5"), ("silero_vad_16k", "speechcmd_attrnn")
LARGEST, SMALLEST = 1e-6, 2e-8
FIELDS = ("stride", "padding", "dilation", "groups", "input_size", "output_size")


def geometry_differences(model: Model, document: dict[str, Any]) -> list[str]:
    """Say which fields of which layers differ from the document."""
    found = {layer.name: layer.operator.geometry for layer in model.layers}
    differences = []
    for stated in document["layers"]:
        geometry = found.get(stated["weight"])
        if geometry is None:
            differences.append(f"{stated['weight']} is missing")
            continue
        ours = {
            "stride": list(geometry.stride),
            "padding": [list(pair) for pair in geometry.padding],
            "dilation": list(geometry.dilation),
            "groups": geometry.groups,
            "input_size": list(geometry.input_shape),
            "output_size": list(geometry.output_shape),
        }
        differences += [
            f"{stated['weight']}: {field} {ours[field]}, not {stated[field]}"
            for field in FIELDS
            if field in stated and ours[field] != stated[field]
        ]
    extra = found.keys() - {stated["weight"] for stated in document["layers"]}
    return differences + [f"{name} is not in the document" for name in sorted(extra)]


def wrong_bounds(model: Model, layers: dict[str, Any]) -> list[str]:
    """Say which bounds lie on the wrong side of the enclosure of the exact value."""
    wrong = []
    for layer in model.layers:
        exact = layers[layer.name]["sigma_max"]
        for row in bounds.table(layer.operator, exact=False).rows if exact else ():
            if row.bound is None:
                continue
            over = row.bound.kind in ("exact", "upper") and row.bound.value < exact["lower"]
            if over or (row.bound.kind == "lower" and row.bound.value > exact["upper"]):
                wrong.append(f"{layer.name}: {row.method} is {row.bound.value}, the exact value {exact['value']}")
    return wrong


def check(name: str, reference: list[dict[str, Any]]) -> list[str]:
    """Read and inspect one model; print a line, return what differs."""
    folder = SHARED / "data" / "models"
    document = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    file = folder / document["original_file"]
    alone = file.suffix in STATED and name not in OPEN
    start = time.perf_counter()
    model = read_model(file) if alone else read_model(file, layers=folder / f"{name}.json")
    differences = geometry_differences(model, document)
    inspection = inspect_model(model)
    seconds = time.perf_counter() - start
    reports = {layer["name"]: layer for layer in inspection.document()["layers"]}
    start = time.perf_counter()
    differences += wrong_bounds(model, reports)
    bounds_seconds = time.perf_counter() - start
    largest = smallest = 0.0
    for stated in reference:
        layer = reports[stated["weight"]]
        for end, allowed in (("sigma_max", LARGEST), ("sigma_min", SMALLEST)):
            if stated[end] is None:  # too large for the reference's method
                continue
            if layer[end] is None or layer[end]["method"] == "bracket":
                differences.append(f"{stated['weight']}: no exact {end}")
                continue
            error = abs(layer[end]["value"] - stated[end]) / stated["sigma_max"]
            largest, smallest = (
                max(largest, error * (end == "sigma_max")),
                max(smallest, error * (end == "sigma_min")),
            )
            if not error <= allowed:
                differences.append(f"{stated['weight']}: {end} is off by {error:.1e} of the largest")
    source = "alone" if alone else "with its document"
    print(
        f"{name}: {len(model.layers)} layers of {file.name} {source}, {seconds:.1f} s; off by {largest:.0e} at the "
        f"largest, {smallest:.0e} at the smallest of {len(reference)}; all bounds {bounds_seconds:.1f} s",
        flush=True,
    )
    return differences


def main(words: list[str]) -> int:
    """Check the named models, or all."""
    path = SHARED / "reference" / "real_layers.json"
    if not path.is_file():
        print("the folder `shared` with trained models does not lie beside the repository")
        return 1
    references = json.loads(path.read_text(encoding="utf-8"))
    failed = 0
    for name in words or references:
        for difference in check(name, references[name]):
            failed += 1
            print(f"  {difference}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
