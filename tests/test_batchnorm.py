"""Batch norms folded into the convolutions that they follow, where the graph shows that they do."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file
from shared_material import MODELS, needs_shared
from typer.testing import CliRunner

import spectral_conv.models._read as read_module
from spectral_conv import read_model
from spectral_conv.cli import app
from spectral_conv.graph import Graph, Node
from spectral_conv.models import Model
from spectral_conv.models._contents import Contents, StoredTensor
from spectral_conv.models._entry import LayerEntry
from spectral_conv.models._model import ModelError

RNG = np.random.default_rng(0)
EPSILON = 1e-3
GAMMA, BETA, MEAN = RNG.standard_normal((3, 4))
VARIANCE = RNG.uniform(0.5, 2.0, 4)
VECTORS = {"gamma": GAMMA, "beta": BETA, "mean": MEAN, "var": VARIANCE}
FACTORS = GAMMA / np.sqrt(VARIANCE + EPSILON)
KERNEL = RNG.standard_normal((4, 3, 3, 3))
NORM = Node(
    name="bn",
    op="BatchNormalization",
    inputs=("y",),
    outputs=("z",),
    weights=("gamma", "beta", "mean", "var"),
    attributes={"epsilon": EPSILON},
)
CONV = Node(name="conv", op="Conv", inputs=("x",), outputs=("y",), weights=("w",))


class Reader:
    """A reader whose file is what the test says."""

    FORMAT = "test"

    def __init__(self, contents: Contents) -> None:
        self.contents = contents

    def read(self, path: Path) -> Contents:
        return self.contents


def stored(name: str, values: NDArray[Any], load: Any = None) -> StoredTensor:
    return StoredTensor(
        name=name,
        shape=values.shape,
        dtype=str(values.dtype),
        floating=values.dtype.kind == "f",
        load=load or (lambda: values),
    )


def folded(
    monkeypatch: pytest.MonkeyPatch,
    *nodes: Node,
    tensors: dict[str, NDArray[Any]] | None = None,
    outputs: tuple[str, ...] = ("z",),
    damaged: str = "",
    **geometry: Any,
) -> Model:
    """Read a made-up file whose convolution has the weight "w"."""
    values = {"w": KERNEL} | VECTORS | (tensors or {})

    def damage() -> NDArray[Any]:
        raise ModelError(f"{damaged!r} is damaged")

    every = {name: stored(name, value, damage if name == damaged else None) for name, value in values.items()}
    kernels = [name for name, value in values.items() if value.ndim == 4]
    stated = tuple(LayerEntry(weight=name, where=name, input_size=6, **geometry) for name in kernels)
    graph = Graph(nodes=nodes, inputs=("x",), outputs=outputs)
    reader = Reader(Contents(tensors=every, stated=stated, graph=graph))
    monkeypatch.setattr(read_module, "find_reader", lambda file: reader)
    return read_model("model.test", fold_batchnorm=True)


def reasons(model: Model) -> dict[str, str]:
    return {entry.name: entry.reason for entry in model.skipped if "batch norm" in entry.reason}


def test_a_batch_norm_scales_the_output_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    model = folded(monkeypatch, CONV, NORM)
    (layer,) = model.layers
    assert layer.folded == ("bn",)
    assert not reasons(model)
    conv, x = layer.operator, RNG.standard_normal((3, 6, 6))
    plain = conv.with_kernel(np.moveaxis(KERNEL, (0, 1), (3, 2)))

    def norm(y: NDArray[Any]) -> NDArray[Any]:
        columns = (np.s_[:], None, None)
        scale = GAMMA[columns] / np.sqrt(VARIANCE[columns] + EPSILON)
        return np.asarray((y.reshape(4, 6, 6) - MEAN[columns]) * scale + BETA[columns])

    # The linear part of conv and batch norm together: the constant goes.
    difference = norm(plain.matvec(x.ravel())) - norm(np.zeros(4 * 36))
    np.testing.assert_allclose(conv.matvec(x.ravel()).reshape(4, 6, 6), difference, rtol=0, atol=1e-12)


def test_a_kernel_that_is_turned_on_its_way_has_one_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    turn = Node(name="turn", op="Transpose", inputs=(), outputs=("k",), weights=("w",))
    model = folded(monkeypatch, turn, CONV, NORM)
    assert model.layers[0].folded == ("bn",)
    assert not reasons(model)


def test_small_tensors_of_the_network_are_its_constants(monkeypatch: pytest.MonkeyPatch) -> None:
    model = folded(monkeypatch, CONV, NORM)
    assert set(model.constants) == set(VECTORS)
    np.testing.assert_array_equal(model.constants["var"], VARIANCE)
    # A damaged one does not spoil the layers.
    model = folded(monkeypatch, CONV, NORM, damaged="beta")
    assert (len(model.layers), set(model.constants)) == (1, set(VECTORS) - {"beta"})


def test_without_the_request_kernels_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    folded(monkeypatch, CONV, NORM)
    model = read_model("model.test")
    assert model.layers[0].folded == ()
    assert not reasons(model)
    np.testing.assert_array_equal(model.layers[0].operator.kernel, np.moveaxis(KERNEL, (0, 1), (3, 2)))


@pytest.mark.parametrize(("transposed", "groups"), [(False, 1), (False, 2), (True, 1), (True, 2)])
def test_output_channels_of_every_kind_of_layer(
    monkeypatch: pytest.MonkeyPatch, transposed: bool, groups: int
) -> None:
    shape = (6, 4 // groups, 2, 2) if transposed else (4, 6 // groups, 2, 2)
    kernel = RNG.standard_normal(shape)
    conv = dataclasses.replace(CONV, op="ConvTranspose" if transposed else "Conv")
    geometry: dict[str, Any] = {"transposed": transposed, "groups": groups, "padding": 0}
    model = folded(monkeypatch, conv, NORM, tensors={"w": kernel}, **geometry)
    plain = read_model("model.test").layers[0].operator
    (layer,) = model.layers
    x = RNG.standard_normal(plain.shape[1])
    scaled = plain.matvec(x).reshape(4, -1) * FACTORS[:, None]
    np.testing.assert_allclose(layer.operator.matvec(x).reshape(4, -1), scaled, rtol=0, atol=1e-12)


def test_parameters_that_keras_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    attributes = {"epsilon": EPSILON, "parameters": ("moving_mean", "moving_variance")}
    norm = dataclasses.replace(NORM, weights=("mean", "var"), attributes=attributes)
    (layer,) = folded(monkeypatch, CONV, norm).layers
    expected = np.moveaxis(KERNEL, (0, 1), (3, 2)) / np.sqrt(VARIANCE + EPSILON)
    np.testing.assert_allclose(layer.operator.kernel, expected, rtol=1e-14)


RELU = Node(name="relu", op="Relu", inputs=("y",), outputs=("r",))


@pytest.mark.parametrize(
    ("nodes", "changes", "reason"),
    [
        ((CONV, RELU, dataclasses.replace(NORM, inputs=("r",))), {}, "it follows no convolution but Relu"),
        ((CONV, dataclasses.replace(NORM, inputs=("x",))), {}, "but an input of the network"),
        ((CONV, dataclasses.replace(NORM, inputs=())), {}, "does not say what it reads"),
        ((CONV, NORM, RELU), {}, "something else reads the convolution conv, too"),
        ((CONV, NORM), {"outputs": ("z", "y")}, "something else reads the convolution conv, too"),
        ((dataclasses.replace(CONV, weights=("other",)), NORM), {}, "the convolution conv is none of the layers"),
        (
            (CONV, NORM, dataclasses.replace(CONV, name="twin", inputs=("z",), outputs=("t",))),
            {},
            "several layers apply the kernel w",
        ),
        ((CONV, dataclasses.replace(NORM, weights=("gamma", "beta"))), {}, "are not all stored; the file has 2"),
        ((CONV, dataclasses.replace(NORM, attributes={"training_mode": 1})), {}, "normalizes by each batch"),
        ((CONV, NORM), {"tensors": {"var": -VARIANCE}}, "is not positive everywhere"),
        ((CONV, NORM), {"tensors": {"var": VARIANCE * np.nan}}, "is not positive everywhere"),
        ((CONV, NORM), {"tensors": {"gamma": GAMMA * np.inf}}, "are not all finite"),
        ((CONV, NORM), {"tensors": {"gamma": GAMMA * 1e308, "w": KERNEL * 1e10}}, "would overflow"),
        ((CONV, NORM), {"tensors": {"gamma": GAMMA[:3]}}, "have 3 and 4 entries"),
        ((CONV, NORM), {"tensors": {"gamma": GAMMA[:3], "var": VARIANCE[:3]}}, "it has 3 channels"),
        ((CONV, NORM), {"damaged": "var"}, "its parameter var could not be read"),
        ((CONV,), {}, "the network has none"),
    ],
)
def test_a_batch_norm_that_stays_is_listed_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, nodes: tuple[Node, ...], changes: dict[str, Any], reason: str
) -> None:
    model = folded(monkeypatch, *nodes, **changes)
    assert model.layers[0].folded == ()
    (found,) = reasons(model).values()
    assert found.startswith("batch norm was not folded: ")
    assert reason in found


def test_a_second_batch_norm_follows_no_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    second = dataclasses.replace(NORM, name="second", inputs=("z",), outputs=("q",))
    model = folded(monkeypatch, CONV, NORM, second, outputs=("q",))
    assert model.layers[0].folded == ("bn",)
    assert "no convolution but BatchNormalization" in reasons(model)["second"]


def test_weights_alone_do_not_say_what_follows_what(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"conv.weight": KERNEL, "bn.weight": GAMMA, "bn.running_var": VARIANCE}, path)
    model = read_model(path, fold_batchnorm=True)
    assert "weights alone do not say what follows what" in reasons(model)["m.safetensors"]
    for command in ("inspect", "describe"):
        result = CliRunner().invoke(app, [command, str(path), "--fold-batchnorm", "--input-size", "3x5x5"])
        assert result.exit_code == 0
        assert "batch norm was not folded" in " ".join(result.stdout.split())


def test_an_onnx_file(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="needs the extra `models`")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    single = {name: value.astype(np.float32) for name, value in ({"w": KERNEL} | VECTORS).items()}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1]),
            helper.make_node("BatchNormalization", ["y", *VECTORS], ["z"], epsilon=EPSILON),
        ],
        "net",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, 6, 6])],
        [helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [1, 4, 6, 6])],
        [numpy_helper.from_array(value, name) for name, value in single.items()],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)]), path)
    model = read_model(path, fold_batchnorm=True)
    (layer,) = model.layers
    assert layer.folded
    assert not reasons(model)
    expected = np.moveaxis(KERNEL, (0, 1), (3, 2)) * FACTORS
    np.testing.assert_allclose(layer.operator.kernel, expected, rtol=1e-5)
    result = CliRunner().invoke(app, ["describe", str(path), "--fold-batchnorm"])
    assert "folded into 1 of 1 layers" in result.stdout
    result = CliRunner().invoke(app, ["inspect", str(path), "--fold-batchnorm"])
    assert "folded into 1 of 1 layers" in result.stdout


@needs_shared
def test_a_keras_network() -> None:
    pytest.importorskip("h5py", reason="needs the extra `models`")
    path = MODELS / "fer2013_mini_XCEPTION.102-0.66.hdf5"
    plain = read_model(path)
    model = read_model(path, fold_batchnorm=True)
    # Every convolution has its batch norm but the depthwise halves of the separable ones and the last.
    pointed = [layer for layer in model.layers if not layer.name.endswith("depthwise_kernel:0")]
    assert all(layer.folded for layer in pointed[:-1])
    assert sum(bool(layer.folded) for layer in model.layers) == len(pointed) - 1
    assert not reasons(model)
    before, after = (m.layers[0].operator.kernel for m in (plain, model))
    assert np.ptp(after / before, axis=(0, 1, 2)) == pytest.approx(np.zeros(before.shape[-1]), abs=1e-12)
