"""ONNX files: geometry and sizes from the file alone; files that are damaged, cyclic or hostile."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import load_file, save_file
from shared_material import MODELS, needs_shared

from spectral_conv import ConvOperator
from spectral_conv.models import Model, ModelError, _onnx_parse, read_model
from spectral_conv.models._onnx_parse import Parsed, parse
from spectral_conv.models._registry import find_reader

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

RNG = np.random.default_rng(31)
KERNEL = RNG.standard_normal((4, 3, 3, 3)).astype(np.float32)


def network(
    nodes: list[Any],
    shape: list[Any],
    weights: dict[str, Any],
    opset: int = 17,
    outputs: tuple[str, ...] = ("y",),
) -> Any:
    """Build a model with the input `x` and stated weights; the shapes of its results are left to the reader."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [
            value if isinstance(value, TensorProto) else numpy_helper.from_array(np.asarray(value), name)
            for name, value in weights.items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def save(model: Any, folder: Path, name: str = "m.onnx") -> Path:
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path


def conv(inputs: list[str], output: str = "y", op: str = "Conv", **attributes: Any) -> Any:
    return helper.make_node(op, inputs, [output], name=f"node_{output}", **attributes)


def parsed(model: Any, folder: Path) -> Parsed:
    return parse(save(model, folder))


def only(result: Parsed) -> Any:
    (entry,) = result.entries
    return entry


def applied(model: Model) -> Any:
    (layer,) = model.layers
    return layer.operator.kernel.transpose(3, 2, 0, 1)


@needs_shared
class TestTrainedModels:
    @pytest.mark.parametrize(
        ("file", "document"), [("mnist.onnx", "mnist_cntk"), ("SqueezeNet_fp16.onnx", "squeezenet11_fp16")]
    )
    def test_geometry_from_the_file_alone(self, file: str, document: str) -> None:
        model = read_model(MODELS / file)
        stated = json.loads((MODELS / f"{document}.json").read_text())["layers"]
        assert [layer.name for layer in model.layers] == [entry["weight"] for entry in stated]
        for layer, entry in zip(model.layers, stated, strict=True):
            geometry = layer.operator.geometry
            assert layer.assumed == ()
            assert layer.layout == entry["layout"]
            assert list(layer.kernel_shape) == entry["shape"]
            assert list(geometry.stride) == entry["stride"]
            assert list(map(list, geometry.padding)) == entry["padding"]
            assert list(geometry.dilation) == entry["dilation"]
            assert geometry.groups == entry["groups"]
            assert list(geometry.input_shape) == entry["input_size"]
            assert list(geometry.output_shape) == entry["output_size"]
        assert model.format == "ONNX model"
        assert model.graph is not None

    def test_a_symbolic_length_leaves_the_size_open(self) -> None:
        document = json.loads((MODELS / "silero_vad_16k.json").read_text())["layers"]
        result_file = "silero_vad_16k_op15.onnx"
        result = parse(MODELS / result_file)
        stored = {t.name: numpy_helper.to_array(t) for t in onnx.load(MODELS / result_file).graph.initializer}
        weights = {weight.name: weight for weight in result.weights}
        for entry, stated in zip(result.entries, document, strict=True):
            assert entry.assumed == ("input_size",)
            assert entry.layout == stated["layout"]
            assert list(entry.stride) == stated["stride"]
            assert [list(pair) for pair in entry.padding] == stated["padding"]
            assert (list(entry.dilation), entry.groups) == (stated["dilation"], stated["groups"])
            assert_array_equal(weights[entry.weight].load(), stored[entry.weight])
        # Of the two silero files only the fixed Fourier basis is equal: the rest was trained a while longer.
        twins = load_file(MODELS / "silero_vad_16k.safetensors")
        same = [
            np.array_equal(weights[e.weight].load(), twins[d["weight"]])
            for e, d in zip(result.entries, document, strict=True)
        ]
        assert same == [True, False, False, False, False, False]

    def test_a_twin_with_the_same_weights_is_equal(self, tmp_path: Path) -> None:
        document = json.loads((MODELS / "silero_vad_16k.json").read_text())["layers"]
        result = parse(MODELS / "silero_vad_16k_op15.onnx")
        save_file({weight.name: np.array(weight.load()) for weight in result.weights}, tmp_path / "twin.safetensors")
        layers = {"layers": [{**d, "weight": e.weight} for e, d in zip(result.entries, document, strict=True)]}
        model = read_model(MODELS / "silero_vad_16k_op15.onnx", layers=layers)
        twin = read_model(tmp_path / "twin.safetensors", layers=layers)
        for ours, theirs in zip(model.layers, twin.layers, strict=True):
            assert (ours.name, ours.assumed) == (theirs.name, ())
            assert ours.operator.geometry == theirs.operator.geometry
            assert_array_equal(ours.operator.kernel, theirs.operator.kernel)

    @pytest.mark.parametrize("with_onnx", [True, False])
    def test_a_length_that_is_given_goes_through_pads_branches_and_lstm(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_onnx: bool
    ) -> None:
        model = onnx.load(MODELS / "silero_vad_16k_op15.onnx")
        for info, sizes in zip(model.graph.input, [(1, 576), (2, 1, 128)], strict=False):
            for dim, size in zip(info.type.tensor_type.shape.dim, sizes, strict=True):
                dim.dim_value = size
        if not with_onnx:
            monkeypatch.setattr(_onnx_parse, "infer", lambda model, path: {})
        document = json.loads((MODELS / "silero_vad_16k.json").read_text())["layers"]
        for entry, stated in zip(parsed(model, tmp_path).entries, document, strict=True):
            assert entry.input_size == tuple(stated["input_size"]), entry.where


class TestAgainstTheReference:
    """The operator does to a signal what ONNX's reference implementation of the node does."""

    @pytest.mark.parametrize("sizes", [(12,), (9, 7), (5, 6, 4)])
    @pytest.mark.parametrize(
        "attributes",
        [
            {},
            {"pads": (1, 2), "strides": (2,)},
            {"auto_pad": "SAME_UPPER", "strides": (2,)},
            {"auto_pad": "SAME_LOWER", "strides": (2,)},
            {"auto_pad": "VALID", "strides": (3,)},
            {"dilations": (2,), "pads": (2, 1)},
            {"group": 2},
        ],
    )
    def test_convolution(self, tmp_path: Path, sizes: tuple[int, ...], attributes: dict[str, Any]) -> None:
        self.check(tmp_path, "Conv", (6, 4 // attributes.get("group", 1)), sizes, attributes)

    @pytest.mark.parametrize("sizes", [(7,), (5, 6), (3, 4, 3)])
    @pytest.mark.parametrize(
        "attributes",
        [
            {},
            {"pads": (1, 0), "strides": (2,), "output_padding": (1,)},
            {"auto_pad": "SAME_UPPER", "strides": (2,)},
            {"auto_pad": "VALID", "strides": (2,)},
        ],
    )
    def test_transposed_convolution(self, tmp_path: Path, sizes: tuple[int, ...], attributes: dict[str, Any]) -> None:
        self.check(tmp_path, "ConvTranspose", (4, 6), sizes, attributes)

    def check(
        self,
        folder: Path,
        op: str,
        channels: tuple[int, int],
        sizes: tuple[int, ...],
        attributes: dict[str, Any],
    ) -> None:
        ndim = len(sizes)
        expanded: dict[str, Any] = {}
        for name, value in attributes.items():
            if name == "pads":
                expanded[name] = [value[0]] * ndim + [value[1]] * ndim
            else:
                expanded[name] = list(value) * ndim if isinstance(value, tuple) else value
        weight = RNG.standard_normal((*channels, *(3,) * ndim)).astype(np.float32)
        model = network([conv(["x", "w"], op=op, **expanded)], [1, 4, *sizes], {"w": weight})
        entry = only(parsed(model, folder))
        assert entry.assumed == ()
        operator = ConvOperator(
            weight.astype(np.float64),
            input_shape=entry.input_size,
            layout=entry.layout,
            stride=entry.stride,
            padding=entry.padding,
            dilation=entry.dilation,
            groups=entry.groups,
            transposed=entry.transposed,
            output_padding=entry.output_padding,
        )
        signal = RNG.standard_normal((1, 4, *sizes)).astype(np.float32)
        (expected,) = ReferenceEvaluator(model).run(None, {"x": signal})
        result = operator @ signal[0].ravel().astype(np.float64)
        assert_allclose(result.reshape(expected[0].shape), expected[0], rtol=1e-4, atol=1e-4)
        shape = parsed(model, folder).graph.shapes["y"]
        assert shape == expected.shape[1:]


class TestWeights:
    @pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "float32"])
    def test_number_formats(self, tmp_path: Path, dtype: str) -> None:
        stored = KERNEL.astype(getattr(ml_dtypes, dtype, dtype))
        path = save(network([conv(["x", "w"])], [1, 3, 8, 8], {"w": stored}), tmp_path)
        assert_array_equal(parse(path).weights[0].load().astype(np.float64), stored.astype(np.float64))
        if dtype == "bfloat16":
            model = read_model(path)
            assert_array_equal(applied(model), stored.astype(np.float64))
            assert model.layers[0].name == "w"

    def test_a_constant_node(self, tmp_path: Path) -> None:
        constant = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(KERNEL))
        result = parsed(network([constant, conv(["x", "w"])], [1, 3, 8, 8], {}), tmp_path)
        assert (only(result).weight, result.graph.nodes[0].weights) == ("w", ("w",))
        assert_array_equal(result.weights[0].load(), KERNEL)

    @pytest.mark.parametrize(("perm", "layout"), [((3, 2, 0, 1), "HWIO"), ((1, 0, 2, 3), "OIHW")])
    def test_transposed_weights_keep_their_name(self, tmp_path: Path, perm: tuple[int, ...], layout: str) -> None:
        nodes = [
            helper.make_node("Identity", ["w"], ["i"]),
            helper.make_node("Transpose", ["i"], ["t"], perm=perm),
            conv(["x", "t"]),
        ]
        stored = np.ascontiguousarray(KERNEL.transpose(np.argsort(perm)))
        model = read_model(save(network(nodes, [1, 3, 8, 8], {"w": stored}), tmp_path))
        assert (model.layers[0].name, model.layers[0].layout) == ("w", layout)
        assert_array_equal(applied(model), KERNEL.astype(np.float64))

    def test_casts_round_as_the_network_does(self, tmp_path: Path) -> None:
        nodes = [helper.make_node("Cast", ["w"], ["c"], to=TensorProto.FLOAT16), conv(["x", "c"])]
        result = parsed(network(nodes, [1, 3, 8, 8], {"w": KERNEL}), tmp_path)
        assert_array_equal(result.weights[0].load(), KERNEL.astype(np.float16))

    def test_a_reshaped_depthwise_kernel(self, tmp_path: Path) -> None:
        nodes = [helper.make_node("Reshape", ["w", "s"], ["r"]), conv(["x", "r"], group=4)]
        weights = {"w": KERNEL[:, 0].reshape(2, 2, 3, 3), "s": np.array([4, 1, 3, 3])}
        model = read_model(save(network(nodes, [1, 4, 8, 8], weights), tmp_path))
        assert (model.layers[0].kernel_shape, model.layers[0].operator.geometry.groups) == ((4, 1, 3, 3), 4)

    @pytest.mark.parametrize("per_channel", [True, False])
    def test_quantized_weights(self, tmp_path: Path, per_channel: bool) -> None:
        integers = RNG.integers(-100, 100, (4, 3, 3, 3)).astype(np.int8)
        scale = np.array([0.5, 0.25, 2, 1], np.float32) if per_channel else np.array(0.5, np.float32)
        nodes = [helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"], axis=0), conv(["x", "w"])]
        weights = {"q": integers, "s": scale, "z": np.full(scale.shape, 3, np.int8)}
        model = network(nodes, [1, 3, 8, 8], weights, opset=19)
        (expected,) = ReferenceEvaluator(network(nodes[:1], [1], weights, 19, ("w",))).run(
            None, {"x": np.zeros(1, np.float32)}
        )
        assert_array_equal(parsed(model, tmp_path).weights[0].load(), expected)
        assert only(parsed(model, tmp_path)).weight == "q"

    def test_quantized_convolutions(self, tmp_path: Path) -> None:
        integers = RNG.integers(-100, 100, (4, 3, 3, 3)).astype(np.int8)
        scale, zero = floats(0.5, 0.25, 2, 1), np.zeros(4, np.int8)
        one, none = floats(1).reshape(()), np.array(0, np.int8)
        weights = {"q": integers, "s": scale, "z": zero, "o": one, "n": none}
        node = conv(["x", "o", "n", "q", "s", "z", "o", "n"], op="QLinearConv")
        result = parsed(network([node], [1, 3, 8, 8], weights), tmp_path)
        (weight,) = [weight for weight in result.weights if weight.name == only(result).weight]
        assert_array_equal(weight.load(), integers * scale.reshape(4, 1, 1, 1).astype(np.float64))

    @pytest.mark.parametrize(
        ("op", "domain", "words"),
        [
            ("ConvInteger", "", "no scale of their own"),
            ("DeformConv", "", "no linear operator"),
            ("Conv", "com.microsoft.nchwc", "which may mean anything"),
        ],
    )
    def test_other_convolutions_are_named(self, tmp_path: Path, op: str, domain: str, words: str) -> None:
        node = helper.make_node(op, ["x", "w"], ["y"], name="odd", domain=domain)
        result = parsed(network([node], [1, 3, 8, 8], {"w": KERNEL}), tmp_path)
        assert not result.entries
        assert [(item.name, item.spoiled, words in item.reason) for item in result.unread] == [("odd", True, True)]

    def test_a_computed_weight_is_listed_with_the_reason(self, tmp_path: Path) -> None:
        nodes = [helper.make_node("Mul", ["w", "g"], ["m"], name="norm"), conv(["x", "m"], "h"), conv(["h", "v"])]
        weights = {"w": KERNEL, "g": np.ones(1, np.float32), "v": np.ones((2, 4, 1, 1), np.float32)}
        result = parsed(network(nodes, [1, 3, 8, 8], weights), tmp_path)
        assert only(result).weight == "v"
        (item,) = result.unread
        assert item.spoiled
        assert item.name == "m"
        assert "computed by the node 'norm' (Mul)" in item.reason
        assert {weight.name for weight in result.weights} == {"w", "g", "v"}

    def test_a_weight_applied_twice_is_one_layer(self, tmp_path: Path) -> None:
        weight = RNG.standard_normal((3, 3, 3, 3)).astype(np.float32)
        nodes = [conv(["x", "w"], "h", strides=[2, 2]), conv(["h", "w"])]
        result = parsed(network(nodes, [1, 3, 9, 9], {"w": weight}), tmp_path)
        assert only(result).input_size == (9, 9)
        (item,) = result.unread
        assert item.name == "node_y"
        assert "applies 'w' again, with the input size [4, 4] and another stride" in item.reason

    @pytest.mark.parametrize("op", ["If", "Loop"])
    def test_convolutions_inside_subgraphs(self, tmp_path: Path, op: str) -> None:
        def body(weight: str, inputs: list[Any], more: list[Any]) -> Any:
            nodes = [conv(["x", weight], "inner"), *more]
            names = [*(node.output[0] for node in more), "inner"]
            kinds = {name: TensorProto.BOOL if name == "go" else TensorProto.FLOAT for name in names}
            outputs = [helper.make_tensor_value_info(name, kinds[name], None) for name in names]
            return helper.make_graph(nodes, "body", inputs, outputs)

        if op == "If":
            node = helper.make_node(
                "If", ["c"], ["y"], name="if", then_branch=body("a", [], []), else_branch=body("b", [], [])
            )
        else:
            inputs = [
                helper.make_tensor_value_info("i", TensorProto.INT64, []),
                helper.make_tensor_value_info("c_in", TensorProto.BOOL, []),
            ]
            loop = body("a", inputs, [helper.make_node("Identity", ["c_in"], ["go"])])
            node = helper.make_node("Loop", ["n", "c"], ["y"], name="loop", body=loop)
        weights = {"a": KERNEL, "b": KERNEL[:2], "c": np.array(True), "n": np.array(2)}
        result = parsed(network([node], [1, 3, 8, 8], weights), tmp_path)
        assert {entry.weight for entry in result.entries} == ({"a", "b"} if op == "If" else {"a"})
        assert all(entry.input_size == (8, 8) and not entry.assumed for entry in result.entries)
        written = [name for node in result.graph.nodes for name in node.outputs]
        assert len(set(written)) == len(written)

    def test_convolutions_inside_functions(self, tmp_path: Path) -> None:
        function = helper.make_function(
            "mine", "Block", ["a", "k"], ["b"], [conv(["a", "k"], "b")], [helper.make_opsetid("", 17)]
        )
        model = network([helper.make_node("Block", ["x", "w"], ["y"], domain="mine")], [1, 3, 8, 8], {"w": KERNEL})
        model.functions.append(function)
        model.opset_import.append(helper.make_opsetid("mine", 1))
        assert only(parsed(model, tmp_path)).input_size == (8, 8)


class TestExternalData:
    def external(self, location: str, offset: str = "8", length: int = KERNEL.nbytes) -> Any:
        tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=KERNEL.shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", offset), ("length", str(length))):
            tensor.external_data.add(key=key, value=value)
        model = network([conv(["x", "w"])], [1, 3, 8, 8], {"w": tensor})
        model.graph.node.append(conv(["y", "v"], "z"))
        model.graph.initializer.append(numpy_helper.from_array(np.ones((2, 4, 1, 1), np.float32), "v"))
        return model

    def test_in_the_same_folder(self, tmp_path: Path) -> None:
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "w.bin").write_bytes(bytes(8) + KERNEL.tobytes())
        model = read_model(save(self.external("data/w.bin"), tmp_path))
        assert_array_equal(model.layers[0].operator.kernel.transpose(3, 2, 0, 1), KERNEL.astype(np.float64))

    @pytest.mark.parametrize("kind", ["absolute", "parent", "backslash", "symlink", "drive", "none", "folder link"])
    def test_outside_is_refused_and_the_rest_is_read(self, tmp_path: Path, kind: str) -> None:
        folder = tmp_path / "model"
        folder.mkdir()
        secret = tmp_path / "secret.bin"
        secret.write_bytes(bytes(8) + KERNEL.tobytes())
        (folder / "link.bin").symlink_to(secret)
        (folder / "up").symlink_to(tmp_path)
        location = {
            "absolute": str(secret),
            "parent": "../secret.bin",
            "backslash": "..\\secret.bin",
            "symlink": "link.bin",
            "drive": "C:secret.bin",
            "none": "",
            "folder link": "up/secret.bin",
        }[kind]
        result = parsed(self.external(location), folder)
        assert only(result).weight == "v"
        (item,) = [item for item in result.unread if item.name == "w"]
        assert item.spoiled
        assert "outside the folder of the model: refused" in item.reason

    @pytest.mark.parametrize(
        ("location", "offset", "length", "words"),
        [
            ("gone.bin", "0", KERNEL.nbytes, "is missing"),
            ("w.bin", "9", KERNEL.nbytes, "is truncated"),
            ("w.bin", "-1", KERNEL.nbytes, "not given in bytes"),
            ("w.bin", "0", 10**15, "are set aside"),
            ("w.bin", "9" * 18, KERNEL.nbytes, "is truncated"),
            (".", "0", KERNEL.nbytes, "is missing"),
            ("w" * 5000, "0", KERNEL.nbytes, "said to lie in"),
        ],
    )
    def test_places_that_make_no_sense(
        self, tmp_path: Path, location: str, offset: str, length: int, words: str
    ) -> None:
        (tmp_path / "w.bin").write_bytes(bytes(8) + KERNEL.tobytes())
        result = parsed(self.external(location, offset, length), tmp_path)
        assert only(result).weight == "v"
        (item,) = [item for item in result.unread if item.name == "w"]
        assert words in item.reason


def ints(*values: int) -> Any:
    return np.array(values, np.int64)


def floats(*values: float) -> Any:
    return np.array(values, np.float32)


# operator, shape of x, constants that follow, attributes, version
CURRENT: list[tuple[str, list[int], list[Any], dict[str, Any], int]] = [
    ("MaxPool", [1, 2, 9, 8], [], {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 0]}, 17),
    ("MaxPool", [1, 2, 10, 7], [], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, 17),
    ("MaxPool", [1, 2, 9, 8], [], {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}, 17),
    ("AveragePool", [1, 2, 9, 8], [], {"kernel_shape": [3, 3], "strides": [2, 3], "auto_pad": "VALID"}, 17),
    ("GlobalAveragePool", [1, 2, 9, 8], [], {}, 17),
    ("Reshape", [1, 2, 6, 4], [ints(0, -1, 3)], {}, 17),
    ("Flatten", [2, 3, 4], [], {"axis": 2}, 17),
    ("Squeeze", [1, 3, 1, 4], [ints(0, -2)], {}, 17),
    ("Squeeze", [1, 3, 1, 4], [], {}, 17),
    ("Unsqueeze", [3, 4], [ints(0, -1)], {}, 17),
    ("Transpose", [1, 3, 4], [], {"perm": [2, 0, 1]}, 17),
    ("Slice", [1, 3, 9, 8], [ints(1, -1), ints(8, -(2**63)), ints(2, 3), ints(2, -3)], {}, 17),
    ("Pad", [1, 2, 5, 6], [ints(0, 0, 1, 2, 0, 0, 3, 0)], {}, 17),
    ("Pad", [1, 2, 5, 6], [ints(1, 2, 3, 0), floats(0.0).reshape(()), ints(2, 3)], {}, 18),
    ("Resize", [1, 2, 6, 5], [floats(), floats(1, 1, 2, 0.5)], {"mode": "nearest"}, 17),
    ("Resize", [1, 2, 6, 5], [floats(), floats(), ints(1, 2, 9, 3)], {"mode": "nearest"}, 17),
    ("Concat", [1, 2, 6], [np.ones((1, 3, 6), np.float32)], {"axis": 1}, 17),
    ("Add", [1, 2, 6, 5], [np.ones((2, 1, 1), np.float32)], {}, 17),
    ("Expand", [1, 2, 1], [ints(3, 1, 4)], {}, 17),
    ("Tile", [1, 2, 3], [ints(1, 2, 2)], {}, 17),
    ("DepthToSpace", [1, 8, 3, 2], [], {"blocksize": 2}, 17),
    ("SpaceToDepth", [1, 2, 4, 6], [], {"blocksize": 2}, 17),
    ("MatMul", [1, 2, 3, 4], [np.ones((4, 5), np.float32)], {}, 17),
    ("Gemm", [4, 3], [np.ones((5, 4), np.float32)], {"transA": 1, "transB": 1}, 17),
    ("Gather", [3, 4, 5], [ints(0, 2)], {"axis": 1}, 17),
    ("ReduceMean", [1, 3, 4, 5], [], {"axes": [2, -1], "keepdims": 0}, 17),
    ("ReduceSum", [1, 3, 4], [ints(1)], {}, 17),
    ("Split", [1, 6, 2], [ints(2, 4)], {"axis": 1}, 17),
    ("Clip", [1, 3, 4], [floats(0).reshape(()), floats(6).reshape(())], {}, 17),
    ("Dropout", [1, 3, 4], [], {}, 17),
    ("LeakyRelu", [1, 3, 4], [], {}, 17),
]
# ... and what becomes of x, where nothing runs the operator any more.
RETIRED: list[tuple[str, list[int], list[Any], dict[str, Any], int, tuple[int, ...]]] = [
    ("Crop", [1, 2, 9, 8], [], {"border": [1, 2, 3, 0]}, 1, (2, 7, 4)),
    ("Crop", [1, 2, 9, 8], [], {"border": [1, 2, 0, 0], "scale": [5, 4]}, 1, (2, 5, 4)),
    ("ImageScaler", [1, 3, 9, 8], [], {"scale": 2.0, "bias": [1.0, 2.0, 3.0]}, 1, (3, 9, 8)),
    ("Affine", [1, 3, 9, 8], [], {"alpha": 2.0, "beta": 1.0}, 1, (3, 9, 8)),
    ("ParametricSoftplus", [1, 3, 9], [], {"alpha": 2.0}, 1, (3, 9)),
    ("Upsample", [1, 2, 6, 5], [], {"height_scale": 2.0, "width_scale": 3.0}, 1, (2, 12, 15)),
    ("Upsample", [1, 2, 6, 5], [], {"scales": [1.0, 1.0, 2.0, 1.5]}, 7, (2, 12, 7)),
    ("Upsample", [1, 2, 6, 5], [floats(1, 1, 2, 2)], {}, 9, (2, 12, 10)),
    ("Resize", [1, 2, 6, 5], [floats(1, 1, 0.5, 2)], {}, 10, (2, 3, 10)),
    ("Pad", [1, 2, 6, 5], [], {"paddings": [0, 0, 1, 2, 0, 0, 1, 0]}, 1, (2, 8, 7)),
    ("Pad", [1, 2, 6, 5], [], {"pads": [0, 0, 1, 2, 0, 0, 1, 0]}, 2, (2, 8, 7)),
    ("Pad", [1, 2, 6, 5], [ints(0, 0, -1, 0, 0, 0, -2, 0)], {}, 17, (2, 3, 5)),
    ("Add", [1, 2, 6, 5], [np.ones(2, np.float32)], {"broadcast": 1, "axis": 1}, 6, (2, 6, 5)),
    ("Slice", [1, 2, 6, 5], [], {"starts": [1], "ends": [-1], "axes": [2]}, 1, (2, 4, 5)),
    ("InstanceNormalization", [1, 2, 6], [floats(1, 1), floats(0, 0)], {"consumed_inputs": [0, 0, 0]}, 1, (2, 6)),
    ("BatchNormalization", [1, 1, 6], [floats(1)] * 4, {"is_test": 1, "consumed_inputs": [0] * 5}, 1, (1, 6)),
    ("Reshape", [1, 2, 6], [], {"shape": [0, 3, -1]}, 1, (3, 4)),
    ("Unsqueeze", [1, 2], [], {"axes": [2, 3]}, 1, (2, 1, 1)),
]


class TestSizes:
    def run(self, folder: Path, case: Any) -> tuple[Any, Parsed]:
        op, shape, constants, attributes, opset = case
        names = [f"c{i}" for i in range(len(constants))]
        inputs = ["x", *(name if value.size else "" for name, value in zip(names, constants, strict=True))]
        outputs = ["y", "z"] if op == "Split" else ["y"]
        node = helper.make_node(op, inputs, outputs, **attributes)
        weights = {name: value for name, value in zip(names, constants, strict=True) if value.size}
        model = network([node], shape, weights, opset)
        return model, parsed(model, folder)

    @pytest.mark.parametrize("case", CURRENT, ids=[f"{i}-{case[0]}" for i, case in enumerate(CURRENT)])
    def test_rules_of_our_own(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: Any) -> None:
        monkeypatch.setattr(_onnx_parse, "infer", lambda model, path: {})
        model, result = self.run(tmp_path, case)
        expected = ReferenceEvaluator(model).run(None, {"x": np.ones(case[1], np.float32)})[0]
        assert result.graph.shapes["y"] == expected.shape[1:]

    @pytest.mark.parametrize("case", RETIRED, ids=[f"{i}-{case[0]}-{case[4]}" for i, case in enumerate(RETIRED)])
    def test_retired_operators(self, tmp_path: Path, case: Any) -> None:
        assert self.run(tmp_path, case[:-1])[1].graph.shapes["y"] == case[-1]

    def test_an_unknown_operator_stops_nothing(self, tmp_path: Path) -> None:
        weight = np.ones((3, 3, 3, 3), np.float32)
        nodes = [
            conv(["x", "a"], "p"),
            helper.make_node("Mystery", ["p"], ["q"], domain="nowhere"),
            conv(["q", "b"], "r", auto_pad="SAME_UPPER", strides=[2, 2]),
            helper.make_node("Resize", ["r", "", "", "sizes"], ["s"]),
            conv(["s", "c"]),
        ]
        weights = {"a": weight, "b": weight, "c": weight, "sizes": ints(1, 3, 10, 11)}
        first, second, third = parsed(network(nodes, [1, 3, 8, 8], weights), tmp_path).entries
        assert (first.input_size, first.assumed) == ((8, 8), ())
        assert (second.padding, second.assumed) == (((0, 1), (0, 1)), ("padding", "input_size"))
        assert (third.input_size, third.assumed) == ((10, 11), ())

    def test_symbols_are_unknown_and_the_rest_is_known(self, tmp_path: Path) -> None:
        result = parsed(network([conv(["x", "w"])], ["batch", 3, 8, 10], {"w": KERNEL}), tmp_path)
        assert (only(result).input_size, only(result).assumed) == ((8, 10), ())
        result = parsed(network([conv(["x", "w"])], [1, 3, "height", 10], {"w": KERNEL}), tmp_path)
        assert only(result).assumed == ("input_size",)
        assert result.graph.shapes["y"] == (4, None, 8)

    def test_pads_stay_apart(self, tmp_path: Path) -> None:
        nodes = [helper.make_node("Pad", ["x", "p"], ["h"], mode="reflect"), conv(["h", "w"])]
        weights = {"w": KERNEL, "p": ints(0, 0, 1, 1, 0, 0, 1, 1)}
        entry = only(parsed(network(nodes, [1, 3, 8, 8], weights), tmp_path))
        assert (entry.padding, entry.input_size) == (((0, 0), (0, 0)), (10, 10))

    def test_shapes_that_contradict_the_weight_are_not_used(self, tmp_path: Path) -> None:
        assert only(parsed(network([conv(["x", "w"])], [1, 5, 8, 8], {"w": KERNEL}), tmp_path)).assumed == (
            "input_size",
        )

    def test_output_shape_of_a_transposed_layer(self, tmp_path: Path) -> None:
        weight = np.ones((3, 2, 3, 3), np.float32)
        node = conv(["x", "w"], op="ConvTranspose", strides=[2, 2], output_shape=[16, 15])
        entry = only(parsed(network([node], [1, 3, 8, 8], {"w": weight}), tmp_path))
        assert (entry.padding, entry.output_padding, entry.layout) == (((1, 0), (1, 1)), (0, 0), "IOHW")
        model = read_model(save(network([node], [1, 3, 8, 8], {"w": weight}), tmp_path))
        assert model.layers[0].operator.output_shape == (16, 15)


class TestHostile:
    """A clear error or a marked partial result, never anything else, and never after more than 10 s."""

    def tried(self, path: Path, through_child: bool = False) -> Any:
        start = time.perf_counter()
        try:
            return read_model(path) if through_child else parse(path)
        except ModelError as error:
            message = str(error)
        finally:
            assert time.perf_counter() - start < 10
        assert path.name in message
        return None

    def small(self) -> bytes:
        nodes = [
            conv(["x", "w"], "h", auto_pad="SAME_UPPER", strides=[2, 2]),
            helper.make_node("Relu", ["h"], ["i"]),
            helper.make_node("Reshape", ["i", "s"], ["j"]),
            helper.make_node("Pad", ["j", "p"], ["k"]),
            conv(["k", "v"], dilations=[2, 2]),
        ]
        weights = {
            "w": KERNEL,
            "v": KERNEL[:, :, :2, :1].copy(),
            "s": ints(1, 3, -1, 4),
            "p": ints(0, 0, 1, 1, 0, 0, 1, 1),
        }
        return network(nodes, [1, 3, 9, 9], weights).SerializeToString()

    def test_truncated_and_flipped_copies(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(7)
        whole = self.small()
        read = 0
        for i in range(300):
            data = bytearray(whole)
            if i % 3:
                for position in rng.integers(0, len(data), rng.integers(1, 5)):
                    data[position] ^= 1 << rng.integers(0, 8)
            else:
                del data[rng.integers(1, len(data)) :]
            path = tmp_path / "m.onnx"
            path.write_bytes(data)
            read += self.tried(path) is not None
        assert 0 < read < 300

    def test_flipped_structure_through_the_child(self, tmp_path: Path) -> None:
        whole = self.small()
        names = whole.find(b"SAME_UPPER"), whole.find(b"Reshape"), len(whole) - 8
        for position in names:
            data = bytearray(whole)
            data[position] ^= 0xFF
            path = tmp_path / "m.onnx"
            path.write_bytes(data)
            self.tried(path, through_child=True)

    def test_a_cycle(self, tmp_path: Path) -> None:
        nodes = [helper.make_node("Add", ["x", "b"], ["a"]), conv(["a", "w"], "b")]
        with pytest.raises(ModelError, match=r"graph of m\.onnx is cyclic: node 'Add:a'"):
            parsed(network(nodes, [1, 3, 8, 8], {"w": KERNEL}), tmp_path)

    def test_nodes_in_the_wrong_order_are_sorted(self, tmp_path: Path) -> None:
        weight = np.ones((3, 3, 3, 3), np.float32)
        nodes = [conv(["h", "v"]), conv(["x", "w"], "h")]
        result = parsed(network(nodes, [1, 3, 8, 8], {"v": weight, "w": weight}), tmp_path)
        assert [(entry.weight, entry.input_size) for entry in result.entries] == [("w", (8, 8)), ("v", (6, 6))]

    def test_a_million_nodes(self, tmp_path: Path) -> None:
        node = helper.make_node("Relu", ["x"], ["x"]).SerializeToString()
        graph = (b"\x0a" + bytes([len(node)]) + node) * 10**6
        length = len(graph)
        varint = b""
        while True:
            varint += bytes([length & 127 | (128 if length > 127 else 0)])
            length >>= 7
            if not length:
                break
        path = tmp_path / "m.onnx"
        path.write_bytes(b"\x08\x08\x3a" + varint + graph)
        start = time.perf_counter()
        with pytest.raises(ModelError, match=r"m\.onnx declares 1000000 nodes"):
            read_model(path)
        assert time.perf_counter() - start < 10

    def test_a_hundred_thousand_tensors(self, tmp_path: Path) -> None:
        model = network([conv(["x", "w"])], [1, 3, 8, 8], {"w": KERNEL})
        tiny = TensorProto(data_type=TensorProto.FLOAT, dims=[1], raw_data=bytes(4))
        for i in range(100_000):
            tiny.name = f"t{i % 2}"
            model.graph.initializer.append(tiny)
        with pytest.raises(ModelError, match=r"m\.onnx declares \d+ values"):
            parsed(model, tmp_path)

    @pytest.mark.parametrize("kind", ["recursive", "doubling"])
    def test_functions_that_call_one_another(self, tmp_path: Path, kind: str) -> None:
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
        model = network([helper.make_node("f0", ["x"], ["y"], domain="mine")], [1, 3, 8, 8], {"w": KERNEL})
        model.opset_import.append(opsets[1])
        for i in range(1 if kind == "recursive" else 40):
            called = "f0" if kind == "recursive" else f"f{i + 1}"
            nodes = [
                helper.make_node(called, ["a"], ["m"], domain="mine"),
                helper.make_node(called, ["m"], ["b"], domain="mine"),
            ]
            model.functions.append(helper.make_function("mine", f"f{i}", ["a"], ["b"], nodes, opsets))
        with pytest.raises(ModelError, match=r"functions of m\.onnx call themselves"):
            parsed(model, tmp_path)

    @pytest.mark.parametrize(
        ("attributes", "words"),
        [
            ({"kernel_shape": [10**9, 3]}, "`kernel_shape` is"),
            ({"pads": [-1, 0, 0, 0]}, "`pads` must lie in"),
            ({"pads": [10**12] * 4}, "`pads` must lie in"),
            ({"pads": [1, 1]}, "`pads` must be 4 integers"),
            ({"group": 0}, "`group` must divide"),
            ({"group": -2}, "`group` must divide"),
            ({"group": 3}, "`group` must divide"),
            ({"strides": [0, 1]}, "`strides` must lie in"),
            ({"strides": [2.5, 1.0]}, "`strides` must be 2 integers"),
            ({"strides": [1] * 10**5}, "`strides` must be 2 integers"),
            ({"dilations": [2**62, 1]}, "`dilations` must lie in"),
            ({"auto_pad": "SAME"}, "`auto_pad` must be one of"),
        ],
    )
    def test_absurd_attributes(self, tmp_path: Path, attributes: dict[str, Any], words: str) -> None:
        nodes = [conv(["x", "v"], "h", pads=[1, 1, 1, 1]), conv(["h", "w"], **attributes)]
        weights = {"v": np.ones((3, 3, 3, 3), np.float32), "w": KERNEL}
        result = parsed(network(nodes, [1, 3, 8, 8], weights), tmp_path)
        assert only(result).weight == "v"
        (item,) = result.unread
        assert (item.name, item.spoiled) == ("w", True)
        assert words in item.reason

    @pytest.mark.parametrize("shape", [[1, 3, 10**9, 10**9], [1, 3, 2, 2], [1, 3, 10**7, 10**7], [1, 3] * 500])
    def test_absurd_inputs(self, tmp_path: Path, shape: list[int]) -> None:
        nodes = [conv(["x", "w"], "h"), conv(["z", "v"])]
        weights = {"w": KERNEL, "v": np.ones((3, 3, 1, 1), np.float32)}
        model = self.tried(save(network(nodes, shape, weights), tmp_path), through_child=True)
        assert "v" in [layer.name for layer in model.layers]

    @pytest.mark.parametrize(
        ("dims", "kind", "data"),
        [
            ([10**6, 10**6, 3, 3], TensorProto.FLOAT, bytes(64)),
            ([-4, 3, 3, 3], TensorProto.FLOAT, KERNEL.tobytes()),
            ([4, 3, 3, 3], TensorProto.FLOAT, KERNEL.tobytes()[:-2]),
            ([4, 3, 3, 3], 99, KERNEL.tobytes()),
            ([4, 3, 3, 3], TensorProto.STRING, b""),
            ([1] * 10**4, TensorProto.FLOAT, bytes(4)),
            ([10**6, 10**6, 3, 3], TensorProto.INT4, bytes(64)),
        ],
    )
    def test_tensors_that_lie(self, tmp_path: Path, dims: list[int], kind: int, data: bytes) -> None:
        tensor = TensorProto(name="w", data_type=kind, dims=dims, raw_data=data)
        result = parsed(network([conv(["x", "w"])], [1, 3, 8, 8], {"w": tensor}), tmp_path)
        assert not result.entries
        assert [item.name for item in result.unread] == ["w"]

    def test_weights_that_are_not_finite_are_listed(self, tmp_path: Path) -> None:
        weights = {"w": np.full_like(KERNEL, np.nan), "v": np.ones((2, 4, 1, 1), np.float32)}
        nodes = [conv(["x", "w"], "h"), conv(["h", "v"])]
        model = read_model(save(network(nodes, [1, 3, 8, 8], weights), tmp_path))
        assert [layer.name for layer in model.layers] == ["v"]
        assert [item.name for item in model.skipped if item.spoiled] == ["w"]

    def test_other_files_are_not_swallowed(self, tmp_path: Path) -> None:
        path = tmp_path / "m.onnx"
        for head, words in (
            (b"<html>not found</html>", "a text page"),
            (b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"),
            (b"\x89HDF\r\n\x1a\n" + bytes(64), "HDF5"),
            (b"\x08\x08", "holds no network"),
            (b"\xff" * 100, "damaged or no ONNX file"),
        ):
            path.write_bytes(head)
            with pytest.raises(ModelError, match=words):
                find_reader(path).read(path)
        (tmp_path / "m.bin").write_bytes(self.small())
        with pytest.raises(ModelError, match="no format that can be read"):
            find_reader(tmp_path / "m.bin")

    def test_without_onnx_the_message_says_what_to_install(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "m.onnx"
        path.write_bytes(self.small())
        monkeypatch.setitem(sys.modules, "onnx", None)
        with pytest.raises(ModelError, match=r"pip install 'spectral-conv\[models\]'"):
            read_model(path)
