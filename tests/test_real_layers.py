"""Trained networks at their native size, through the command line, against values of sparse matrices."""

from __future__ import annotations

import json

import pytest
from shared_material import MODELS, REFERENCE, needs_shared
from typer.testing import CliRunner

from spectral_conv.cli import app


@needs_shared
def test_resnet20_through_the_command_line() -> None:
    name = "resnet20_cifar10"
    stated = json.loads((REFERENCE / "real_layers.json").read_text(encoding="utf-8"))[name]
    result = CliRunner().invoke(
        app,
        ["inspect", str(MODELS / f"{name}.safetensors"), "--layers", str(MODELS / f"{name}.json"), "--json"],
    )
    assert result.exit_code == 0, result.stderr
    layers = {layer["name"]: layer for layer in json.loads(result.stdout)["layers"]}
    assert layers.keys() == {entry["weight"] for entry in stated}
    for entry in stated:
        layer, largest = layers[entry["weight"]], entry["sigma_max"]
        assert layer["sigma_max"]["value"] == pytest.approx(largest, rel=1e-7)
        assert abs(layer["sigma_min"]["value"] - entry["sigma_min"]) <= 2e-8 * largest
        assert layer["sigma_max"]["upper"] - layer["sigma_max"]["lower"] <= 1e-8 * largest
        assert layer["sigma_min"]["upper"] - layer["sigma_min"]["lower"] <= 1e-9 * largest
