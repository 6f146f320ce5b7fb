"""Layers documents: accepted spellings, refusals that name layer and key, and the round trip."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from safetensors.numpy import save_file

from spectral_conv.models import ModelError, layers_document, read_model

RNG = np.random.default_rng(21)


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    tensors = {
        "module.conv.weight": RNG.standard_normal((4, 3, 3, 3)),
        "module.line.weight": RNG.standard_normal((4, 3, 5)),
        "module.up.weight": RNG.standard_normal((6, 2, 3, 3)),
        "module.fc.weight": RNG.standard_normal((4, 4)),
        "module.count.weight": np.ones((4, 3, 3, 3), np.int64),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def entry(weight: str = "conv.weight", **changes: Any) -> dict[str, Any]:
    plain = {"weight": weight, "stride": 1, "padding": 1, "dilation": 1, "groups": 1, "input_size": [8, 8]}
    return {key: value for key, value in {**plain, **changes}.items() if value is not ...}


def refuse(model_file: Path, message: str, *layers: Any) -> None:
    with pytest.raises(ModelError, match=message):
        read_model(model_file, layers={"layers": list(layers)})


@pytest.mark.parametrize(
    ("changes", "padding", "stride", "output"),
    [
        ({"padding": "same"}, ((1, 1), (1, 1)), (1, 1), (8, 8)),
        ({"padding": "valid"}, ((0, 0), (0, 0)), (1, 1), (6, 6)),
        ({"padding": 2}, ((2, 2), (2, 2)), (1, 1), (10, 10)),
        ({"padding": [0, 1]}, ((0, 0), (1, 1)), (1, 1), (6, 8)),
        ({"padding": [[0, 1], [1, 2]]}, ((0, 1), (1, 2)), (1, 1), (7, 9)),
        ({"padding": [1, [1, 2]]}, ((1, 1), (1, 2)), (1, 1), (8, 9)),
        ({"stride": 2}, ((1, 1), (1, 1)), (2, 2), (4, 4)),
        ({"stride": [1, 2.0], "input_size": 8}, ((1, 1), (1, 1)), (1, 2), (8, 4)),
        ({"padding_mode": "reflect", "note": "unknown keys are ignored"}, ((1, 1), (1, 1)), (1, 1), (8, 8)),
    ],
)
def test_spellings(model_file: Path, changes: dict[str, Any], padding: Any, stride: Any, output: Any) -> None:
    model = read_model(model_file, layers={"layers": [entry(**changes)]})
    (layer,) = model.layers
    assert layer.name == "module.conv.weight"
    assert layer.assumed == ()
    geometry = layer.operator.geometry
    assert (geometry.padding, geometry.stride, geometry.output_shape) == (padding, stride, output)
    assert geometry.padding_mode == changes.get("padding_mode", "zeros")


def test_unnamed_kernels_are_listed(model_file: Path) -> None:
    model = read_model(model_file, layers={"layers": [entry()]})
    skipped = {item.name: item.reason for item in model.skipped}
    assert "does not name it" in skipped["module.line.weight"]
    assert "a matrix" in skipped["module.fc.weight"]
    assert len(skipped) == 4


def test_transposed_layer(model_file: Path) -> None:
    layer = entry("up.weight", op="conv_transpose", groups=2, stride=2, output_padding=1)
    (up,) = read_model(model_file, layers={"layers": [layer]}).layers
    assert up.layout == "IOHW"
    assert up.operator.geometry.transposed
    assert (up.operator.in_channels, up.operator.out_channels) == (6, 4)
    assert up.operator.output_shape == (16, 16)


@pytest.mark.parametrize("layout", ["HWIO", "OIHW", "IOHW", "HWCM"])
def test_layouts_name_the_same_operator(tmp_path: Path, layout: str) -> None:
    hwio = RNG.standard_normal((3, 3, 2, 4))
    stored = {
        "HWIO": hwio,
        "OIHW": hwio.transpose(3, 2, 0, 1),
        "IOHW": hwio.transpose(2, 3, 0, 1),
        "HWCM": hwio,
    }[layout]
    save_file({"w": np.ascontiguousarray(stored)}, tmp_path / "w.safetensors")
    op = "conv_transpose" if layout == "IOHW" else "conv"
    groups = 2 if layout == "HWCM" else 1
    document = {"layers": [entry("w", layout=layout, op=op, groups=groups)]}
    (layer,) = read_model(tmp_path / "w.safetensors", layers=document).layers
    assert layer.layout == layout
    assert_array_equal(layer.operator.kernel, hwio.reshape(3, 3, 1, 8) if layout == "HWCM" else hwio)


def test_round_trip(model_file: Path, tmp_path: Path) -> None:
    stated = [
        entry(padding=[[0, 1], [1, 2]], dilation=[1, 2], stride=2, padding_mode="replicate"),
        entry("line.weight", input_size=20, padding=[[4, 0]], stride=3),
        entry("up.weight", op="conv_transpose", groups=2, stride=2, output_padding=1),
    ]
    model = read_model(model_file, layers={"layers": stated})
    path = tmp_path / "layers.json"
    path.write_text(json.dumps(layers_document(model)))
    again = read_model(model_file, layers=path)
    assert layers_document(again) == layers_document(model)
    for one, other in zip(model.layers, again.layers, strict=True):
        assert (one.name, one.layout, one.kernel_shape) == (other.name, other.layout, other.kernel_shape)
        assert one.operator.geometry == other.operator.geometry
        assert_array_equal(one.operator.kernel, other.operator.kernel)


def test_document_of_assumptions_says_so(model_file: Path) -> None:
    document = layers_document(read_model(model_file))
    assert {"stride", "padding", "input_size"} <= set(document["layers"][0]["assumed"])
    assert document["original_file"] == "model.safetensors"
    assert [layer.assumed for layer in read_model(model_file, layers=document).layers] == [()] * 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stride": ...}, r"layers\[0\] \('conv.weight'\): `stride` missing\. A layer needs weight, stride"),
        ({"weight": ..., "groups": ...}, r"layers\[0\]: `weight`, `groups` missing"),
        ({"stride": 0}, r"`stride` must be an int from 1 to .*; got 0"),
        ({"stride": True}, r"`stride` must be .*; got True"),
        ({"dilation": [1, -1]}, r"`dilation` must be .*; got \[1, -1\]"),
        ({"stride": [1, 1, 1]}, r"`stride` needs one entry per spatial axis, 2 .*; got \(1, 1, 1\)"),
        ({"padding": [1]}, r"`padding` needs one entry per spatial axis, 2"),
        ({"padding": "smae"}, r"`padding` must be 'same', 'valid'.*; got 'smae'\. Did you mean 'same'\?"),
        ({"padding": [[1, 2, 3], 1]}, r"`padding` must be"),
        ({"padding": -1}, r"`padding` must be .*; got -1"),
        ({"padding_mode": "reflected"}, r"`padding_mode` must be one of 'zeros'.*Did you mean 'reflect'\?"),
        ({"groups": 1.5}, r"`groups` must be an int from 1 to .*; got 1\.5"),
        ({"groups": 3}, r"`groups` must divide the 4 output channels of 'module.conv.weight'.*; got 3"),
        ({"op": "convolution"}, r"`op` must be one of 'conv', 'conv_transpose'; got 'convolution'"),
        ({"layout": "OHWI"}, r"`layout` must be one of .*; got 'OHWI'"),
        (
            {"layout": "OIW"},
            r"`layout` of a convolution whose weight has 4 axes must be one of OIHW, HWIO, HWCM",
        ),
        ({"layout": "IOHW"}, r"`layout` of a convolution .* got 'IOHW'"),
        ({"layout": "HWCM"}, r"`groups` of a depthwise kernel \(HWCM\) must be its 3 channels; got 1"),
        ({"input_size": [3, 8, 8]}, r"`input_size` needs one entry per spatial axis, 2 .*without channels"),
        ({"input_size": 10**12}, r"`input_size` must be"),
        ({"shape": [4, 3, 5, 5]}, r"`shape` is \[4, 3, 5, 5\], but the tensor .* has \[4, 3, 3, 3\]"),
        ({"output_size": [8, 7]}, r"`output_size` is \(8, 7\), but this geometry gives \[8, 8\]"),
        ({"weight": "convv.weight"}, r"has no tensor 'convv.weight'\. Did you mean 'module.conv.weight'"),
        ({"weight": "fc.weight"}, r"has 3 to 5 axes; 'module.fc.weight' has the shape \[4, 4\]"),
        ({"weight": 3}, r"layers\[0\]: `weight` must be the name of the weight tensor; got 3"),
    ],
)
def test_refusals_name_layer_and_key(model_file: Path, changes: dict[str, Any], message: str) -> None:
    refuse(model_file, message, entry(**changes))


def test_layers_that_cannot_be_analysed_are_listed(model_file: Path) -> None:
    small = entry("line.weight", padding="valid", input_size=3)
    integer = entry("count.weight")
    model = read_model(model_file, layers={"layers": [small, integer, entry()]})
    assert [layer.name for layer in model.layers] == ["module.conv.weight"]
    skipped = {item.name: item.reason for item in model.skipped}
    assert "`input_size` plus padding must be at least the extent 5" in skipped["module.line.weight"]
    assert "I64" in skipped["module.count.weight"]


def test_one_weight_twice(model_file: Path) -> None:
    refuse(model_file, r"`weight` 'conv.weight' occurs 2 times", entry(), entry())
    refuse(model_file, r"'module.conv.weight' .* named twice", entry(), entry("module.conv.weight"))


def test_documents_that_are_none(model_file: Path, tmp_path: Path) -> None:
    for bad in ({}, {"layers": []}, {"layers": {}}, []):
        path = tmp_path / "bad.json"
        path.write_text(json.dumps(bad))
        with pytest.raises(ModelError, match=r"bad.json must be an object \{\"layers\": \[\.\.\.\]\}"):
            read_model(model_file, layers=path)
    refuse(model_file, r"layers\[0\] must be an object with the keys weight", 3)
    path.write_text('{"layers": [}')
    with pytest.raises(ModelError, match=r"bad.json is not valid JSON: .*line 1 column 13"):
        read_model(model_file, layers=path)
    path.write_text("[" * 100_000)
    with pytest.raises(ModelError, match=r"bad.json is not valid JSON"):
        read_model(model_file, layers=path)
    path.write_bytes(b"\xff\xfe{")
    with pytest.raises(ModelError, match=r"bad.json is not valid JSON"):
        read_model(model_file, layers=path)
    with pytest.raises(ModelError, match=r"no layers document .*absent\.json"):
        read_model(model_file, layers=tmp_path / "absent.json")
    with pytest.raises(ModelError, match="is a folder"):
        read_model(model_file, layers=tmp_path)
    with pytest.raises(ModelError, match="got list"):
        read_model(model_file, layers=[entry()])  # type: ignore[arg-type]
