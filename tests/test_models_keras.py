"""Keras files (HDF5 and .keras) and Flax parameters: geometry from the configuration, damaged and hostile files."""

from __future__ import annotations

import copy
import io
import json
import pickle
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from shared_material import MODELS, needs_shared

from spectral_conv.models import Model, ModelError, keras_file, layers_document, read_model
from spectral_conv.models._keras_hdf5 import list_archive, list_hdf5
from spectral_conv.models._sandbox import in_child

h5py = pytest.importorskip("h5py")
RNG = np.random.default_rng(31)
FILES = 40

Layers = list[dict[str, Any]]


def numbers(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def layer(kind: str, name: str = "", /, reads: Any = None, **config: Any) -> dict[str, Any]:
    """One layer as Keras 2 writes it; `reads` are the layers that it reads, in a functional model."""
    name = name or kind.lower()
    document = {"class_name": kind, "name": name, "config": {"name": name, **config}}
    if reads is not None:
        calls = reads if reads and isinstance(reads[0], list) else [reads]
        document["inbound_nodes"] = [[[source, 0, 0, {}] for source in call] for call in calls if call]
    return document


def sequential(*layers: dict[str, Any], size: Any = (16, 16, 3), **config: Any) -> dict[str, Any]:
    layers[0]["config"].setdefault("batch_input_shape", [None, *size])
    return {"class_name": "Sequential", "config": {"name": "net", "layers": list(layers), **config}}


def functional(*layers: dict[str, Any], reads: str = "in", writes: str = "out") -> dict[str, Any]:
    config = {
        "name": "net",
        "layers": list(layers),
        "input_layers": [[reads, 0, 0]],
        "output_layers": [[writes, 0, 0]],
    }
    return {"class_name": "Functional", "config": config}


def start(*size: int | None, name: str = "in") -> dict[str, Any]:
    return layer("InputLayer", name, reads=[], batch_input_shape=[None, *size])


def save(path: Path, config: Any, weights: dict[str, Any], name: str = "model.h5") -> Path:
    """Write a full model: "conv" -> one kernel, or {"kernel:0": ..., "bias:0": ...}."""
    with h5py.File(path / name, "w") as file:
        file.attrs["keras_version"] = "2.10.0"
        if config is not None:
            file.attrs["model_config"] = config if isinstance(config, str) else json.dumps(config)
        group = file.create_group("model_weights")
        for owner, value in weights.items():
            for last, array in (value if isinstance(value, dict) else {"kernel:0": value}).items():
                group[f"{owner}/{owner}/{last}"] = array
    return path / name


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parse well-meant files here: a child for each takes most of a second."""
    monkeypatch.setattr(keras_file, "in_child", lambda parse, path, library, modules=(): parse(path))


def only(model: Model) -> Any:
    (found,) = model.layers
    return found


def geometry(model: Model) -> dict[str, Any]:
    return {entry["weight"].split("/")[0]: entry for entry in layers_document(model)["layers"]}


@needs_shared
@pytest.mark.parametrize(
    ("file", "document", "input_size"),
    [
        ("fer2013_mini_XCEPTION.102-0.66.hdf5", "mini_xception_fer.json", None),
        ("model-attRNN.h5", "speechcmd_attrnn.json", (1, 125, 80)),
    ],
)
def test_published_models(file: str, document: str, input_size: Any) -> None:
    wanted = json.loads((MODELS / document).read_text(encoding="utf-8"))["layers"]
    model = read_model(MODELS / file, input_size=input_size)
    found = layers_document(model)["layers"]
    keys = [key for key in found[0] if key in wanted[0]]
    assert [[entry[key] for key in keys] for entry in found] == [[entry[key] for key in keys] for entry in wanted]
    assert {"weight", "shape", "layout", "stride", "padding", "dilation", "groups", "input_size"} < set(keys)
    # The network of the second begins with a spectrogram of a sound of any length.
    assert {item.assumed for item in model.layers} == ({()} if input_size is None else {("input_size",)})
    assert "optimizer" in {item.name: item.reason for item in model.skipped}["optimizer_weights"]
    assert model.graph is not None
    assert [node.weights[0] for node in model.graph.nodes if node.op == "Conv"] == [e["weight"] for e in wanted]


@pytest.mark.usefixtures("quick")
class TestGeometry:
    @pytest.mark.parametrize("n", [7, 8, 9, 10])
    @pytest.mark.parametrize("stride", [1, 2, 3])
    @pytest.mark.parametrize("kernel", [1, 2, 3, 4])
    def test_same_is_what_keras_means(self, tmp_path: Path, n: int, stride: int, kernel: int) -> None:
        config = sequential(
            layer("Conv1D", "conv", filters=2, kernel_size=[kernel], strides=[stride], padding="same"), size=(n, 1)
        )
        found = only(read_model(save(tmp_path, config, {"conv": numbers(kernel, 1, 2)}))).operator.geometry
        outputs = -(-n // stride)
        total = max((outputs - 1) * stride + kernel - n, 0)
        assert found.padding == ((total // 2, total - total // 2),)
        assert (found.output_shape, found.stride) == ((outputs,), (stride,))

    @pytest.mark.parametrize(
        ("settings", "padding", "output"),
        [
            ({"padding": "causal", "dilation_rate": [2]}, ((4, 0),), (9,)),
            ({"padding": "valid", "dilation_rate": 2}, ((0, 0),), (5,)),
            ({"padding": "same", "dilation_rate": 2}, ((2, 2),), (9,)),
        ],
    )
    def test_padding_words(self, tmp_path: Path, settings: Any, padding: Any, output: Any) -> None:
        config = sequential(layer("Conv1D", "conv", filters=2, kernel_size=3, **settings), size=(9, 1))
        found = only(read_model(save(tmp_path, config, {"conv": numbers(3, 1, 2)}))).operator.geometry
        assert (found.padding, found.output_shape) == (padding, output)

    @pytest.mark.parametrize(
        ("kind", "settings", "shape", "layout"),
        [
            ("Convolution2D", {"nb_row": 3, "nb_col": 2, "nb_filter": 5, "dim_ordering": "tf"}, (3, 2, 3, 5), "HWIO"),
            ("Convolution2D", {"nb_row": 3, "nb_col": 2, "nb_filter": 5, "dim_ordering": "th"}, (5, 3, 3, 2), "OIHW"),
            (
                "AtrousConvolution2D",
                {"nb_row": 3, "nb_col": 2, "nb_filter": 5, "atrous_rate": 1},
                (3, 2, 3, 5),
                "HWIO",
            ),
            ("Conv2D", {"kernel_size": [3, 2], "filters": 5, "data_format": "channels_first"}, (3, 2, 3, 5), "HWIO"),
        ],
    )
    def test_spellings(self, tmp_path: Path, kind: str, settings: Any, shape: Any, layout: str) -> None:
        front = "th" in settings.values() or "channels_first" in settings.values()
        old = "nb_row" in settings
        words = {"border_mode": "same", "subsample": [2, 2]} if old else {"padding": "same", "strides": [2, 2]}
        config = sequential(layer(kind, "conv", **settings, **words), size=(3, 10, 11) if front else (10, 11, 3))
        if old:  # Keras 1 wrote the list of layers alone, and called the kernel W
            config["config"] = config["config"]["layers"]
        found = only(
            read_model(save(tmp_path, config, {"conv": {"conv_W:0" if old else "kernel:0": numbers(*shape)}}))
        )
        assert (found.layout, found.kernel_shape, found.assumed) == (layout, shape, ())
        assert found.operator.geometry.padding == ((0, 1), (0, 1))
        assert found.operator.input_shape == (10, 11)

    def test_one_axis_of_keras_1(self, tmp_path: Path) -> None:
        config = sequential(
            layer("Convolution1D", "conv", filter_length=3, nb_filter=4, subsample_length=2), size=(9, 2)
        )
        stored = numbers(3, 1, 2, 4)
        found = only(read_model(save(tmp_path, config, {"conv": {"conv_W:0": stored}})))
        assert (found.layout, found.operator.output_shape) == ("WIO", (4,))
        assert_array_equal(found.operator.kernel, stored[:, 0])

    def test_separable_and_depthwise(self, tmp_path: Path) -> None:
        wide = {"kernel_size": [3, 5], "strides": [2, 2], "padding": "same", "depth_multiplier": 2}
        config = sequential(
            layer("SeparableConv2D", "sep", filters=4, **wide),
            layer("DepthwiseConv2D", "dw", kernel_size=3, padding="valid"),
        )
        both = {
            "depthwise_kernel:0": numbers(3, 5, 3, 2),
            "pointwise_kernel:0": numbers(1, 1, 6, 4),
            "bias:0": numbers(4),
        }
        path = save(tmp_path, config, {"sep": both, "dw": {"depthwise_kernel:0": numbers(3, 3, 4, 1)}})
        first, second, third = layers_document(read_model(path))["layers"]
        assert (first["layout"], first["groups"], first["stride"], first["padding"]) == (
            "HWCM",
            3,
            [2, 2],
            [[0, 1], [1, 2]],
        )
        assert (second["groups"], second["stride"], second["padding"], second["input_size"]) == (
            1,
            [1, 1],
            [[0, 0]] * 2,
            [8, 8],
        )
        assert (third["layout"], third["groups"], third["output_size"]) == ("HWCM", 4, [6, 6])

    @pytest.mark.parametrize(
        ("kernel", "stride", "padding", "output"),
        [(3, 2, "same", 10), (4, 2, "same", 10), (2, 3, "same", 15), (3, 2, "valid", 11), (2, 3, "valid", 15)],
    )
    def test_transposed(self, tmp_path: Path, kernel: int, stride: int, padding: str, output: int) -> None:
        config = sequential(
            layer("Conv1DTranspose", "up", filters=2, kernel_size=kernel, strides=stride, padding=padding),
            size=(5, 3),
        )
        stored = numbers(kernel, 2, 3)  # Keras: length, out, in
        found = only(read_model(save(tmp_path, config, {"up": stored})))
        assert found.operator.output_shape == (output,)
        # By definition: the adjoint of the convolution that reads `output` pixels and writes 5.
        total = max(4 * stride + kernel - output, 0) if padding == "same" else 0
        dense = np.zeros((2, output, 3, 5))
        for r in range(5):
            for a in range(kernel):
                if 0 <= r * stride + a - total // 2 < output:
                    dense[:, r * stride + a - total // 2, :, r] += stored[a]
        assert_allclose(found.operator.to_dense(), dense.reshape(2 * output, 15), atol=1e-12)

    def test_transposed_with_output_padding(self, tmp_path: Path) -> None:
        settings = {"kernel_size": 3, "strides": 2, "padding": "same", "output_padding": 1, "filters": 2}
        config = sequential(layer("Conv2DTranspose", "up", **settings), size=(5, 5, 3))
        found = only(read_model(save(tmp_path, config, {"up": numbers(3, 3, 2, 3)})))
        assert found.operator.output_shape == (10, 10)  # (5 - 1) * 2 + 3 - 2 * 1 + 1

    def test_three_axes_and_groups(self, tmp_path: Path) -> None:
        settings = {"filters": 4, "kernel_size": [3, 1, 2], "strides": [1, 2, 1], "groups": 2, "padding": "same"}
        config = sequential(layer("Conv3D", "conv", **settings), size=(4, 5, 6, 2))
        found = only(read_model(save(tmp_path, config, {"conv": numbers(3, 1, 2, 1, 4)}))).operator.geometry
        assert (found.groups, found.output_shape, found.padding) == (2, (4, 3, 6), ((1, 1), (0, 0), (0, 1)))

    def test_layer_with_another_shape_than_stated(self, tmp_path: Path) -> None:
        config = sequential(
            layer("Conv2D", "a", filters=4, kernel_size=3),
            layer("Conv2D", "b", filters=4, kernel_size=5, padding="same"),
        )
        model = read_model(save(tmp_path, config, {"a": numbers(3, 3, 3, 4), "b": numbers(3, 3, 4, 4)}))
        (skipped,) = model.skipped
        assert skipped.spoiled
        assert "contradicts the configuration, whose kernel size is [5, 5]" in skipped.reason


CONV = {"filters": 2, "kernel_size": 1, "padding": "same"}


@pytest.mark.usefixtures("quick")
class TestSizes:
    @pytest.mark.parametrize(
        ("between", "size", "expected"),
        [
            ([layer("ZeroPadding2D", padding=[[1, 2], [0, 3]])], (9, 8, 2), (12, 11)),
            ([layer("ZeroPadding2D", padding=[1, 2])], (9, 8, 2), (11, 12)),
            ([layer("ZeroPadding1D", padding=[1, 2])], (9, 2), (12,)),
            ([layer("Cropping2D", cropping=[[1, 2], [0, 3]])], (9, 8, 2), (6, 5)),
            ([layer("MaxPooling2D", pool_size=[3, 2], strides=None, padding="valid")], (9, 8, 2), (3, 4)),
            ([layer("AveragePooling2D", pool_size=3, strides=2, padding="same")], (9, 8, 2), (5, 4)),
            ([layer("MaxPooling1D", pool_length=2, stride=2, border_mode="valid")], (9, 2), (4,)),
            ([layer("UpSampling2D", size=[2, 3])], (9, 8, 2), (18, 24)),
            ([layer("Reshape", target_shape=[-1, 4, 2])], (8, 4, 2), (8, 4)),
            ([layer("Permute", dims=[2, 1, 3])], (9, 8, 2), (8, 9)),
            (
                [layer("Flatten"), layer("Dense", units=36), layer("Reshape", target_shape=[6, 3, 2])],
                (9, 8, 2),
                (6, 3),
            ),
            ([layer("LSTM", units=2, return_sequences=True), layer("Dropout", rate=0.5)], (9, 4), (9,)),
            ([layer("GlobalAveragePooling2D"), layer("RepeatVector", n=7)], (9, 8, 2), (7,)),
            ([layer("Resizing", height=5, width=6), layer("BatchNormalization")], (9, 8, 2), (5, 6)),
        ],
    )
    def test_rules(self, tmp_path: Path, between: Layers, size: Any, expected: tuple[int, ...]) -> None:
        conv = layer(f"Conv{len(expected)}D", "conv", **CONV)
        config = json.loads(json.dumps(sequential(*between, conv, size=size)))
        found = only(read_model(save(tmp_path, config, {"conv": numbers(*(1,) * len(expected), 2, 2)})))
        assert (found.operator.input_shape, found.assumed) == (expected, ())
        assert set(found.operator.geometry.padding) == {(0, 0)}  # a layer that pads is never folded in

    def test_branches(self, tmp_path: Path) -> None:
        config = functional(
            start(None, 10, 2),
            layer("Conv2D", "a", reads=["in"], filters=2, kernel_size=3, strides=2, padding="same"),
            layer(
                "Conv2D", "b", reads=["in"], filters=2, kernel_size=1, strides=2, padding="valid", activation="relu"
            ),
            layer("Add", reads=["a", "b"]),
            layer("Concatenate", reads=["add", "a"], axis=-1),
            layer("ZeroPadding2D", "out", reads=["concatenate"], padding=1),
        )
        model = read_model(save(tmp_path, config, {"a": numbers(3, 3, 2, 2), "b": numbers(1, 1, 2, 2)}))
        assert [found.assumed for found in model.layers] == [("input_size", "padding"), ("input_size",)]
        assert model.graph is not None
        nodes = {node.name: node for node in model.graph.nodes}
        assert {name: node.op for name, node in nodes.items()} == {
            "a": "Conv",
            "b": "Conv",
            "b/activation": "Relu",
            "add": "Add",
            "concatenate": "Concat",
            "out": "Pad",
        }
        assert nodes["add"].inputs == ("a", "b/activation")
        assert (nodes["a"].weights, nodes["a"].attributes["strides"]) == (("a/a/kernel:0",), (2, 2))
        assert (model.graph.inputs, model.graph.outputs) == (("in",), ("out",))
        assert model.graph.shapes["concatenate"] == (4, None, 5)

    def test_nested_and_shared(self, tmp_path: Path) -> None:
        inner = functional(
            start(None, None, 2),
            layer("Conv2D", "deep", reads=["in"], filters=2, kernel_size=3, strides=2, padding="same"),
            writes="deep",
        )
        twice = {**inner, "name": "inner", "inbound_nodes": [[["in", 0, 0, {}]], [["inner", 0, 0, {}]]]}
        config = functional(start(9, 9, 2), twice, layer("Conv2D", "out", reads=[["inner"]], **CONV))
        config["config"]["layers"][2]["inbound_nodes"] = [[["inner", 1, 0, {}]]]
        path = tmp_path / "model.h5"
        with h5py.File(path, "w") as file:
            file.attrs["model_config"] = json.dumps(config)
            file["model_weights/inner/deep/kernel:0"] = numbers(3, 3, 2, 2)
            file["model_weights/out/out/kernel:0"] = numbers(1, 1, 2, 2)
        model = read_model(path)
        assert [(found.name, found.operator.input_shape) for found in model.layers] == [
            ("inner/deep/kernel:0", (9, 9)),
            ("out/out/kernel:0", (3, 3)),
        ]
        assert model.graph is not None
        assert [node.name for node in model.graph.nodes] == ["inner/deep", "inner#1/deep", "out"]

    def test_time_distributed(self, tmp_path: Path) -> None:
        wrapped = layer("TimeDistributed", "each", layer=layer("Conv1D", "conv", **CONV))
        found = only(read_model(save(tmp_path, sequential(wrapped, size=(5, 7, 2)), {"each": numbers(1, 2, 2)})))
        assert (found.operator.input_shape, found.assumed) == ((7,), ())

    def test_lambda_is_only_a_name(self, tmp_path: Path) -> None:
        # The code would create a folder; nothing here unmarshals it.
        config = sequential(
            layer("Conv2D", "a", filters=2, kernel_size=3),
            layer("Lambda", function=["4wEAAAAAAAAAAAAAAAEAAAAEAAAAUwAAAA==", None, None], function_type="lambda"),
            layer("Conv2D", "b", filters=2, kernel_size=3, strides=2, padding="same"),
        )
        path = save(tmp_path, config, {"a": numbers(3, 3, 3, 2), "b": numbers(3, 3, 2, 2)})
        first, second = read_model(path).layers
        assert (first.assumed, second.assumed) == ((), ("input_size", "padding"))
        assert read_model(path, input_size=(2, 12, 12)).layers[1].operator.output_shape == (6, 6)

    def test_batch_norm_in_the_graph(self, tmp_path: Path) -> None:
        config = sequential(
            layer("Conv2D", "conv", filters=2, kernel_size=1, activation="linear"),
            layer("BatchNormalization", "bn", epsilon=0.5, axis=[3], scale=False),
        )
        parts = {"beta:0": numbers(2), "moving_mean:0": numbers(2), "moving_variance:0": numbers(2)}
        graph = read_model(save(tmp_path, config, {"conv": numbers(1, 1, 3, 2), "bn": parts})).graph
        assert graph is not None
        conv, norm = graph.nodes
        assert norm.inputs == conv.outputs
        assert norm.attributes == {
            "epsilon": 0.5,
            "axis": 3,
            "parameters": ("beta", "moving_mean", "moving_variance"),
        }


def keras3(path: Path, weights: dict[str, Any], config: Any = None, packed: bool = False) -> Path:
    """Write a .keras archive: groups called like the class of the layer."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, array in weights.items():
            file[name] = array
    method = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(path / "model.keras", "w", method) as archive:
        archive.writestr("metadata.json", "{}")
        if config is not None:
            archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", buffer.getvalue())
    return path / "model.keras"


def tensor(name: str, *shape: Any) -> dict[str, Any]:
    history = {"shape": [None, *shape], "dtype": "float32", "keras_history": [name, 0, 0]}
    return {"class_name": "__keras_tensor__", "config": history}


@pytest.mark.usefixtures("quick")
class TestKeras3:
    @pytest.mark.parametrize("packed", [False, True])
    def test_archive(self, tmp_path: Path, packed: bool) -> None:
        layers = [
            {
                "class_name": "InputLayer",
                "name": "in",
                "config": {"batch_shape": [None, 8, 8, 3]},
                "inbound_nodes": [],
            },
            layer("Conv2D", "first", filters=4, kernel_size=[3, 3], padding="valid"),
            layer("Mystery", "odd"),
            layer("Conv2D", "second", filters=2, kernel_size=[3, 3], strides=[2, 2], padding="same"),
        ]
        for document, reads in zip(layers[1:], (("in", 8, 8, 3), ("first", 6, 6, 4), ("odd", 5, 7, 4)), strict=True):
            document["inbound_nodes"] = [{"args": [tensor(*reads)], "kwargs": {}}]
        config = {
            "class_name": "Functional",
            "config": {"layers": layers, "input_layers": ["in", 0, 0], "output_layers": [["second", 0, 0]]},
        }
        stored = numbers(3, 3, 3, 4)
        weights = {"layers/conv2d/vars/0": stored, "layers/conv2d/vars/1": numbers(4)}
        weights |= {"layers/conv2d_1/vars/0": numbers(3, 3, 4, 2), "optimizer/vars/0": numbers(3, 3, 3, 4)}
        model = read_model(keras3(tmp_path, weights, config, packed))
        first, second = model.layers
        assert (first.name, first.operator.input_shape) == ("layers/conv2d/vars/0", (8, 8))
        assert_array_equal(first.operator.kernel, stored)
        # The size behind the unknown layer stands in the file.
        assert (second.operator.input_shape, second.operator.geometry.padding) == ((5, 7), ((1, 1), (1, 1)))
        assert (first.assumed, second.assumed) == ((), ())
        assert "optimizer" in {item.name for item in model.skipped}

    def test_weights_alone(self, tmp_path: Path) -> None:
        with h5py.File(tmp_path / "model.weights.h5", "w") as file:
            file["layers/conv2d/vars/0"] = numbers(3, 3, 2, 4)
            file["layers/depthwise_conv2d/vars/0"] = numbers(3, 3, 4, 1)
            file["layers/conv2d_transpose/vars/0"] = numbers(3, 3, 5, 4)
            file["layers/dense/vars/0"] = numbers(4, 4)
        found = {item.name.split("/")[1]: item for item in read_model(tmp_path / "model.weights.h5").layers}
        assert found["depthwise_conv2d"].operator.geometry.groups == 4
        transposed = found["conv2d_transpose"].operator.geometry
        assert (transposed.transposed, transposed.in_channels, transposed.out_channels) == (True, 4, 5)
        assert found["conv2d"].assumed == ("stride", "padding", "padding_mode", "dilation", "groups", "input_size")

    def test_label_wins_over_the_count(self, tmp_path: Path) -> None:
        path = keras3(
            tmp_path, {"layers/conv2d/vars/0": numbers(3, 3, 3, 2), "layers/conv2d_1/vars/0": numbers(3, 3, 2, 3)}
        )
        with zipfile.ZipFile(path) as archive:
            buffer = io.BytesIO(archive.read("model.weights.h5"))
        with h5py.File(buffer, "r+") as file:
            file["layers/conv2d/vars"].attrs["name"] = "z"
            file["layers/conv2d_1/vars"].attrs["name"] = "a"
        conv = {"kernel_size": 3, "padding": "same"}
        config = sequential(
            layer("Conv2D", "a", filters=3, **conv), layer("Conv2D", "z", filters=2, **conv), size=(9, 9, 2)
        )
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", json.dumps(config))
            archive.writestr("model.weights.h5", buffer.getvalue())
        assert [item.name for item in read_model(path).layers] == ["layers/conv2d_1/vars/0", "layers/conv2d/vars/0"]

    def test_bfloat16(self, tmp_path: Path) -> None:
        ml_dtypes = pytest.importorskip("ml_dtypes")
        stored = numbers(3, 3, 2, 4).astype(ml_dtypes.bfloat16)
        with h5py.File(tmp_path / "m.weights.h5", "w") as file:
            item = file.create_dataset("layers/conv2d/vars/0", data=stored.view("V2"))
            item.attrs["dtype"] = "bfloat16"
        assert_array_equal(only(read_model(tmp_path / "m.weights.h5")).operator.kernel, stored.astype(np.float64))


@pytest.mark.usefixtures("quick")
def test_weights_alone_by_names(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file.attrs["layer_names"] = ["conv_b", "conv_a"]
        for name in ("conv_a", "conv_b"):
            file.create_dataset(f"{name}/{name}/kernel:0", data=numbers(3, 3, 4, 4), compression="gzip", shuffle=True)
            file[f"{name}/{name}/bias:0"] = numbers(4)
    model = read_model(tmp_path / "weights.h5")
    assert [item.name for item in model.layers] == ["conv_b/conv_b/kernel:0", "conv_a/conv_a/kernel:0"]
    assert {item.layout for item in model.layers} == {"HWIO"}
    assert "stride" in model.layers[0].assumed
    assert model.graph is None


class TestHostile:
    def test_links_and_claims(self, tmp_path: Path) -> None:
        """One file with everything that leads out of it, read in the sandbox."""
        outside = save(tmp_path, None, {"secret": numbers(3, 3, 3, 4)}, "outside.h5")
        path = save(tmp_path, None, {"good": numbers(3, 3, 3, 4)})
        with h5py.File(path, "r+") as file:
            file["ext/kernel"] = h5py.ExternalLink(outside.name, "/model_weights/secret/secret/kernel:0")
            file["soft/kernel"] = h5py.SoftLink("/model_weights/good/good/kernel:0")
            file["loop/again"] = file["loop"] if "loop" in file else file.create_group("loop")
            raw = [("outside.h5", 0, 3 * 3 * 3 * 4 * 4)]
            file.create_dataset("raw/kernel", shape=(3, 3, 3, 4), dtype="f4", external=raw)
            layout = h5py.VirtualLayout((3, 3, 3, 4), "f4")
            layout[:] = h5py.VirtualSource(outside, "model_weights/secret/secret/kernel:0", shape=(3, 3, 3, 4))
            file.create_virtual_dataset("virtual/kernel", layout)
            file.create_dataset("text/kernel", data=["words"] * 3, dtype=h5py.string_dtype())
            file.create_dataset(
                "huge/kernel", shape=(10**6, 10**5, 10), chunks=(1, 10**5, 10), dtype="f4", compression=1
            )
            file["huge/kernel"][0] = 1
            file.create_dataset("unwritten/kernel", shape=(10**12,), dtype="f4")
        model = read_model(path)
        assert [item.name for item in model.layers] == ["model_weights/good/good/kernel:0"]
        reasons = {item.name.split("/")[0]: item.reason for item in model.skipped}
        for name, words in {
            "ext": "a link to another file, which is never opened",
            "soft": "symbolic link",
            "loop": "the same as 'loop'",
            "raw": "numbers lie in another file",
            "virtual": "virtual dataset",
            "text": "text or objects",
            "huge": "claims 4000000000000 bytes, but",
            "unwritten": "claims 4000000000000 bytes, but none were ever written",
        }.items():
            assert words in reasons[name], name

    @pytest.mark.usefixtures("quick")
    @pytest.mark.parametrize(
        ("config", "words"),
        [
            ("{not json", "it is not JSON"),
            ("[" * 100_000, "it is not JSON"),
            (
                '{"class_name": "Sequential", "config": ' * 40 + "{}" + "}" * 40,
                "no convolution|holds no|not described",
            ),
            ('{"class_name": 3}', "no `class_name`"),
            (json.dumps({"class_name": "Sequential", "config": {"layers": []}}), "has no layers"),
            (json.dumps(sequential(layer("Conv2D", kernel_size=[3]), layer("Conv2D", kernel_size=3))), "two layers"),
            (json.dumps(sequential(layer("Conv2D", kernel_size=[3, 3, 3]))), r"`kernel_size` is \[3, 3, 3\]"),
            (json.dumps(sequential(layer("Conv2D", kernel_size=-3))), "`kernel_size` is -3"),
            (json.dumps(sequential(layer("Conv2D", kernel_size=3, padding={}, strides=10**9))), "not described"),
        ],
    )
    def test_configurations(self, tmp_path: Path, config: str, words: str) -> None:
        path = tmp_path / "model.h5"
        with h5py.File(path, "w") as file:
            file.create_group("model_weights")
            file.attrs["model_config"] = config
        with pytest.raises(ModelError, match=words):
            read_model(path)

    @pytest.mark.usefixtures("quick")
    def test_models_within_models(self, tmp_path: Path) -> None:
        def nested(depth: int, times: int) -> dict[str, Any]:
            inner: dict[str, Any] = layer("Conv2D", "conv", reads=[["in"]] * times, **CONV)
            for i in range(depth):
                inner = {**functional(start(8, 8, 2), inner, writes=inner["name"]), "name": f"m{i}"}
                inner["inbound_nodes"] = [[["in", 0, 0, {}]]] * times
            return inner

        for depth, times, words in ((40, 1, "nested more than 16 deep"), (10, 4, "unfolds to more than 50000")):
            with pytest.raises(ModelError, match=words):
                read_model(save(tmp_path, nested(depth, times), {"conv": numbers(1, 1, 2, 2)}))

    def test_settings_of_any_type(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        config = functional(
            start(9, 8, 2),
            layer("ZeroPadding2D", "pad", reads=["in"], padding=[[1, 2], [0, 3]]),
            layer(
                "SeparableConv2D", "sep", reads=["pad"], filters=2, kernel_size=3, padding="same", activation="relu"
            ),
            layer("BatchNormalization", "bn", reads=["sep"], axis=[3], epsilon=1e-3),
            layer("MaxPooling2D", "pool", reads=["bn"], pool_size=2, strides=2, padding="same"),
            layer("Concatenate", "both", reads=["pool", "pool"], axis=-1),
            layer("Conv2DTranspose", "up", reads=["both"], filters=2, kernel_size=3, strides=2, output_padding=1),
            layer("Reshape", "turn", reads=["up"], target_shape=[-1, 2]),
            layer("Bidirectional", "rnn", reads=["turn"], layer=layer("GRU", units=2, return_sequences=True)),
            layer("Conv1D", "out", reads=["rnn"], filters=2, kernel_size=3, groups=2, dilation_rate=2),
        )
        kernels: dict[str, Any] = {
            "sep": {"depthwise_kernel:0": numbers(3, 3, 2, 1), "pointwise_kernel:0": numbers(1, 1, 2, 2)},
            "up": numbers(3, 3, 2, 4),
            "out": numbers(3, 2, 2),
        }
        path = save(tmp_path, config, kernels)
        assert not any(item.assumed for item in read_model(path).layers)
        listing = list_hdf5(path)
        monkeypatch.setattr(keras_file, "in_child", lambda *args, **options: copy.copy(listing))
        strange: list[Any] = [None, -1, 0, 1.5, 10**30, [], {}, "x", True, [None], [[]], ["in", 0, 0], {"a": 1}]
        places = list(ways(config, ()))
        rng = np.random.default_rng(5)
        read = 0
        for _ in range(400):
            changed = json.loads(json.dumps(config))
            *way, last = places[rng.integers(len(places))]
            owner = changed
            for key in way:
                owner = owner[key]
            owner[last] = strange[rng.integers(len(strange))]
            listing.config = json.dumps(changed)
            read += refusal(path) is None
        assert read > 100

    @pytest.mark.usefixtures("quick")
    def test_cycle(self, tmp_path: Path) -> None:
        config = functional(
            start(8, 8, 2),
            layer("Add", "add", reads=["in", "out"]),
            layer("Conv2D", "out", reads=["add"], filters=2, kernel_size=3, strides=2, padding="same"),
        )
        found = only(read_model(save(tmp_path, config, {"out": numbers(3, 3, 2, 2)})))
        assert found.assumed == ("input_size", "padding")

    def test_without_h5py(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = save(tmp_path, None, {"good": numbers(3, 3, 3, 4)})
        monkeypatch.setitem(sys.modules, "h5py", None)
        with pytest.raises(ModelError, match=r"needs h5py, .*pip install 'spectral-conv\[models\]'"):
            read_model(path)

    def test_zip_without_weights(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
            archive.writestr("config.json", "{}")
        with pytest.raises(ModelError, match=r"has no member model\.weights\.h5"):
            read_model(tmp_path / "m.keras")


def list_many(path: Path) -> None:
    """Run in the sandbox: list every file named in `path`, and write down what came of each at once."""
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found: Any = (list_archive if line.endswith(".keras") else list_hdf5)(Path(line))
        except Exception as error:  # the sandbox makes a ModelError of each
            found = ModelError(str(error))
        Path(f"{line}.found").write_bytes(pickle.dumps(found))


def outcomes(folder: Path, files: list[Path]) -> dict[Path, Any]:
    """List the files in as few children as possible: where one dies, another goes on with the next file."""
    found: dict[Path, Any] = {}
    order = folder / "order.txt"
    while len(found) < len(files):
        order.write_text("\n".join(map(str, files[len(found) :])), encoding="utf-8")
        death = None
        try:
            in_child(list_many, order, "HDF5", modules=("h5py",))
        except ModelError as error:
            death = error
        for file in files[len(found) :]:
            outcome = file.with_name(f"{file.name}.found")
            if not outcome.exists():
                assert death is not None
                found[file] = death
                break
            found[file] = pickle.loads(outcome.read_bytes())
    return found


def ways(document: Any, way: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """Return the way to every value of a JSON document."""
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in items:
        yield (*way, key)
        yield from ways(value, (*way, key))


def refusal(path: Path) -> str | None:
    """Read the file; return what the one allowed error says, None where layers came."""
    try:
        assert read_model(path).layers
    except ModelError as error:
        return str(error)
    return None


def spoil(content: bytes, i: int) -> bytes:
    rng = np.random.default_rng(i)
    if i % 4 == 0:
        return content[: int(rng.integers(1, len(content)))]
    changed = bytearray(content)
    for place in rng.integers(0, min(len(content), 4096 if i % 4 == 1 else len(content)), size=1 + i % 4 * 4):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_damaged_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    config = sequential(
        layer("Conv2D", "conv", filters=4, kernel_size=3, padding="same"),
        layer("Dense", "dense", units=2),
        size=(8, 8, 3),
    )
    if suffix == ".h5":
        whole = save(tmp_path, config, {"conv": numbers(3, 3, 3, 4), "dense": numbers(4, 2)})
    else:
        whole = keras3(tmp_path, {"layers/conv2d/vars/0": numbers(3, 3, 3, 4)}, config)
    content = whole.read_bytes()
    files = [tmp_path / f"copy{i}{suffix}" for i in range(FILES)]
    for i, file in enumerate(files):
        file.write_bytes(spoil(content, i))
    listed = outcomes(tmp_path, files)

    def answer(parse: Callable[..., Any], path: Path, library: str, modules: Any = ()) -> Any:
        if isinstance(listed[path], ModelError):
            raise listed[path]
        return listed[path]

    monkeypatch.setattr(keras_file, "in_child", answer)
    refused = [refusal(file) for file in files]
    assert "" not in refused
    # A flip in the numbers of an HDF5 file is not to be seen; a zip archive has checksums.
    assert refused.count(None) >= (8 if suffix == ".h5" else 0)
    assert sum(message is not None for message in refused) >= 8


class TestFlax:
    @pytest.fixture
    def msgpack(self) -> Any:
        return pytest.importorskip("msgpack")

    @staticmethod
    def array(msgpack: Any, values: Any, name: str = "", shape: Any = None) -> Any:
        content = (list(values.shape) if shape is None else shape, name or values.dtype.name, values.tobytes())
        return msgpack.ExtType(1, msgpack.packb(content, use_bin_type=True))

    def test_parameters(self, msgpack: Any, tmp_path: Path) -> None:
        ml_dtypes = pytest.importorskip("ml_dtypes")
        stored = numbers(3, 3, 2, 4)
        short = stored.astype(ml_dtypes.bfloat16)
        halves = [self.array(msgpack, part) for part in np.split(stored.ravel(), 2)]
        parts = {
            "__msgpack_chunked_array__": True,
            "shape": {"0": 3, "1": 3, "2": 2, "3": 4},
            "chunks": {"0": halves[0], "1": halves[1]},
        }
        tree = {
            "params": {
                "Conv_0": {"kernel": self.array(msgpack, stored), "bias": self.array(msgpack, numbers(4))},
                "Conv_1": {"kernel": self.array(msgpack, short)},
                "Conv_2": {"kernel": parts},
            },
            "opt_state": {"0": {"mu": {"kernel": self.array(msgpack, stored)}}},
            "step": 3,
        }
        (tmp_path / "m.msgpack").write_bytes(msgpack.packb(tree))
        model = read_model(tmp_path / "m.msgpack", input_size=(2, 8, 8))
        assert model.format == "Flax parameters"
        assert [item.name for item in model.layers] == [f"params/Conv_{i}/kernel" for i in range(3)]
        assert {item.layout for item in model.layers} == {"HWIO"}
        for item, expected in zip(model.layers, (stored, short.astype(np.float64), stored), strict=True):
            assert_array_equal(item.operator.kernel, expected)
        reasons = {item.name: item.reason for item in model.skipped}
        assert "optimizer" in reasons["opt_state/0/mu/kernel"]
        assert "no array: a int" in reasons["step"]

    def test_lies(self, msgpack: Any, tmp_path: Path) -> None:
        good = numbers(3, 3, 2, 4)
        tree = {
            "good": {"kernel": self.array(msgpack, good)},
            "long": {"kernel": self.array(msgpack, good, shape=[10**12])},
            "odd": {"kernel": self.array(msgpack, good, name="O")},
            "code": {"kernel": msgpack.ExtType(9, b"x")},
            "torn": {"kernel": msgpack.ExtType(1, b"\x93")},
            "empty": {"kernel": {"__msgpack_chunked_array__": True, "shape": {}, "chunks": {}}},
        }
        (tmp_path / "m.msgpack").write_bytes(msgpack.packb(tree))
        model = read_model(tmp_path / "m.msgpack")
        assert [item.name for item in model.layers] == ["good/kernel"]
        assert all(item.reason.startswith("no array") for item in model.skipped)
        assert len(model.skipped) == 5

    def test_damaged(self, msgpack: Any, tmp_path: Path) -> None:
        content = msgpack.packb({"params": {"conv": {"kernel": self.array(msgpack, numbers(3, 3, 2, 4))}}})
        (tmp_path / "deep.msgpack").write_bytes(b"\x81\xa1a" * 300 + b"\x01")
        (tmp_path / "long.msgpack").write_bytes(b"\xdf\xff\xff\xff\xff")
        for name in ("deep", "long"):
            with pytest.raises(ModelError, match=f"{name}.msgpack cannot be read|nested more than"):
                read_model(tmp_path / f"{name}.msgpack")
        for i in range(FILES):
            (tmp_path / "m.msgpack").write_bytes(spoil(content, i))
            assert refusal(tmp_path / "m.msgpack") != ""

    def test_without_msgpack(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "m.msgpack").write_bytes(b"\x80")
        monkeypatch.setitem(sys.modules, "msgpack", None)
        with pytest.raises(ModelError, match=r"needs msgpack, .*pip install 'spectral-conv\[models\]'"):
            read_model(tmp_path / "m.msgpack")
