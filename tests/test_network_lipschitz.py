"""Lipschitz constants of networks: against Jacobians, closed forms, dense matrices, and what must be refused."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from shared_material import MODELS, needs_shared
from tolerances import LINK, NORM

from spectral_conv import ConvOperator, NotApplicableError, bounds, read_model, spectral_norm
from spectral_conv.certification import NetworkLipschitz, network_lipschitz
from spectral_conv.graph import Graph, Node
from spectral_conv.models import ConvLayer, keras_file
from spectral_conv.results import Enclosure

RNG = np.random.default_rng(7)
Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Net:
    """A model as plain data, without a file."""

    graph: Graph | None
    layers: tuple[ConvLayer, ...] = ()
    constants: Mapping[str, Any] = field(default_factory=dict)


def layer(name: str, conv: ConvOperator, *, folded: tuple[str, ...] = (), assumed: tuple[str, ...] = ()) -> ConvLayer:
    return ConvLayer(
        name=name, operator=conv, assumed=assumed, kernel_shape=conv.kernel.shape, layout="HWIO", folded=folded
    )


def node(op: str, reads: str, writes: str = "", weights: str = "", /, **attributes: Any) -> Node:
    outputs = tuple((writes or op.lower()).split())
    return Node(
        name=f"n_{outputs[0]}",
        op=op,
        inputs=tuple(reads.split()),
        outputs=outputs,
        weights=tuple(weights.split()),
        attributes=attributes,
    )


def net(
    *nodes: Node,
    layers: tuple[ConvLayer, ...] = (),
    constants: Mapping[str, Any] | None = None,
    shapes: Mapping[str, Any] | None = None,
    fronts: Mapping[str, int] | None = None,
    inputs: str = "x",
    outputs: str = "y",
) -> Net:
    graph = Graph(
        nodes=nodes,
        inputs=tuple(inputs.split()),
        outputs=tuple(outputs.split()),
        shapes=shapes or {},
        fronts=fronts or {},
    )
    return Net(graph=graph, layers=layers, constants={k: np.asarray(v) for k, v in (constants or {}).items()})


def only(op: str, weights: str = "", /, *, constants: Any = None, shapes: Any = None, **attributes: Any) -> Any:
    """The link of a network that is one operation from x to y."""
    found = network_lipschitz(net(node(op, "x", "y", weights, **attributes), constants=constants, shapes=shapes))
    (link,) = found.links
    assert found.value == link.reach
    return link


def constant(op: str, weights: str = "", /, **rest: Any) -> float:
    return float(only(op, weights, **rest).constant)


# What the networks of these tests compute, on (channels, *spatial) arrays.
FORWARD: dict[str, Callable[..., Array]] = {
    "Relu": lambda x: np.maximum(x, 0.0),
    "Tanh": np.tanh,
    "Sigmoid": lambda x: 1.0 / (1.0 + np.exp(-x)),
    "Add": lambda *xs: sum(xs[1:], xs[0]),
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Concat": lambda *xs: np.concatenate(xs),
    "Max": lambda *xs: np.maximum.reduce(xs),
    "Softmax": lambda x: np.exp(x) / np.exp(x).sum(axis=0),
    "GlobalAveragePool": lambda x: x.mean(axis=tuple(range(1, x.ndim)), keepdims=True),
    "Flatten": np.ravel,
}


def forward(model: Net, x: Array) -> Array:
    assert model.graph is not None
    values = computed(model, x)
    return np.concatenate([values[name].ravel() for name in model.graph.outputs])


def computed(model: Net, x: Array) -> dict[str, Array]:
    assert model.graph is not None
    values: dict[str, Array] = {"x": x, **model.constants}
    layers = {item.name: item.operator for item in model.layers}
    for step in model.graph.nodes:
        read = [values[name] for name in step.inputs]
        if step.op == "Conv":
            conv = layers[step.weights[0]]
            result = (conv.to_dense() @ read[0].ravel()).reshape(conv.out_channels, *conv.output_shape)
        elif step.op == "Gemm":
            result = layers[step.weights[0]].to_dense() @ read[0].ravel()
        elif step.op == "MaxPool":
            (k, _), (s, _) = step.attributes["kernel_shape"], step.attributes["strides"]
            result = max_pool(read[0], k, s)
        else:
            result = FORWARD[step.op](*read, *(values[name] for name in step.weights))
        values[step.outputs[0]] = result
    return values


def with_shapes(model: Net, x: Array) -> Net:
    """The same with the sizes that a file states."""
    assert model.graph is not None
    shapes = {name: value.shape for name, value in computed(model, x).items()}
    return dataclasses.replace(model, graph=dataclasses.replace(model.graph, shapes=shapes))


def max_pool(x: Array, k: int, s: int) -> Array:
    sizes = [(n - k) // s + 1 for n in x.shape[1:]]
    result = np.empty((len(x), *sizes))
    for r in itertools.product(*map(range, sizes)):
        window = x[(slice(None), *(slice(i * s, i * s + k) for i in r))]
        result[(slice(None), *r)] = window.reshape(len(x), -1).max(axis=1)
    return result


def jacobian_norm(model: Net, x: Array) -> float:
    h = 1e-6
    columns = [
        (forward(model, x + h * e.reshape(x.shape)) - forward(model, x - h * e.reshape(x.shape))) / (2 * h)
        for e in np.eye(x.size)
    ]
    return float(np.linalg.norm(np.array(columns), 2))


def random_net(rng: np.random.Generator, kinds: list[str]) -> Net:
    """Blocks after one another, on two channels of 4 x 4 pixels, then a matrix."""
    nodes: list[Node] = []
    layers: list[ConvLayer] = []
    channels, size, value = 2, 4, "x"

    def conv(read: str, out: int) -> str:
        name = f"w{len(layers)}"
        layers.append(layer(name, ConvOperator(rng.standard_normal((3, 3, channels, out)), (size, size))))
        nodes.append(node("Conv", read, f"c{len(nodes)}", name, pads=(1, 1, 1, 1)))
        return nodes[-1].outputs[0]

    def then(op: str, read: str, **attributes: Any) -> str:
        nodes.append(node(op, read, f"v{len(nodes)}", **attributes))
        return nodes[-1].outputs[0]

    for kind in kinds:
        if kind == "plain":
            value = then("Relu", conv(value, 3))
            channels = 3
        elif kind == "residual":
            value = then("Add", f"{value} {conv(then('Tanh', conv(value, channels)), channels)}")
        elif kind == "concat":
            value = then("Concat", f"{conv(value, 1)} {then('Sigmoid', conv(value, 2))}")
            channels = 3
        elif kind == "max":
            value = then("Max", f"{value} {conv(value, channels)}")
        elif kind == "pool" and size >= 3:
            value = then("MaxPool", value, kernel_shape=(2, 2), strides=(1, 1))
            size -= 1
    value = then("Flatten", value)
    matrix = rng.standard_normal((1, 1, channels * size**2, 3))
    layers.append(layer("w", ConvOperator(matrix, (1, 1), padding=0)))
    nodes += [node("Gemm", value, "logits", "w"), node("Softmax", "logits", "y")]
    return with_shapes(net(*nodes, layers=tuple(layers)), np.zeros((2, 4, 4)))


BLOCKS = st.lists(st.sampled_from(["plain", "residual", "concat", "max", "pool"]), min_size=1, max_size=4)


@settings(max_examples=12, deadline=None)
@given(kinds=BLOCKS, seed=st.integers(0, 2**31))
def test_no_pair_of_inputs_and_no_jacobian_exceeds_the_bound(kinds: list[str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_net(rng, kinds)
    found = network_lipschitz(model)
    assert found.kind == "upper"
    for scale in (0.1, 1.0):
        x, y = scale * rng.standard_normal((2, 2, 4, 4))
        ratio = np.linalg.norm(forward(model, x) - forward(model, y)) / np.linalg.norm(x - y)
        assert ratio <= found.value
        assert jacobian_norm(model, x) <= found.value * (1 + 1e-6)
    # Every value within the network, too.
    assert model.graph is not None
    for link in found.links:
        assert link.reach > 0.0


class TestClosedForms:
    def test_a_chain_of_multiples_of_isometries(self) -> None:
        rotation = np.linalg.qr(RNG.standard_normal((3, 3)))[0]
        layers = tuple(
            layer(f"w{i}", ConvOperator(factor * rotation[None, None], (4, 4)))
            for i, factor in enumerate((2.0, 0.5, 3.0))
        )
        model = net(
            node("Conv", "x", "a", "w0"),
            node("Conv", "a", "b", "w1"),
            node("Conv", "b", "y", "w2"),
            layers=layers,
        )
        found = network_lipschitz(model)
        assert_allclose(found.value, 3.0, rtol=LINK)
        assert found.value >= 3.0
        assert [link.kind for link in found.links] == ["exact"] * 3
        assert_allclose([link.reach for link in found.links], [2.0, 1.0, 3.0], rtol=LINK)
        assert found.critical == ("n_a", "n_b", "n_y")

    @pytest.mark.parametrize(("op", "truth"), [("Add", 3.0), ("Sub", 3.0), ("Sum", 3.0), ("Mean", 1.5)])
    def test_a_residual_connection_of_a_multiple_of_the_identity(self, op: str, truth: float) -> None:
        conv = ConvOperator(-2.0 * np.eye(2)[None, None], (3, 3))
        model = net(node("Conv", "x", "f", "w"), node(op, "x f", "y"), layers=(layer("w", conv),))
        assert_allclose(network_lipschitz(model).value, truth, rtol=LINK)

    def test_a_join_and_several_outputs(self) -> None:
        convs = [ConvOperator(factor * np.eye(2)[None, None], (3, 3)) for factor in (3.0, 4.0)]
        layers = tuple(layer(f"w{i}", conv) for i, conv in enumerate(convs))
        both = (node("Conv", "x", "a", "w0"), node("Conv", "x", "b", "w1"))
        joined = network_lipschitz(net(*both, node("Concat", "a b", "y"), layers=layers))
        apart = network_lipschitz(net(*both, layers=layers, outputs="a b"))
        # (3 x, 4 x) has the norm 5 ||x||.
        assert_allclose([joined.value, apart.value], 5.0, rtol=LINK)
        assert joined.critical == ("n_b", "n_y")
        assert apart.critical == ("n_b",)
        assert "All outputs of the network together are one vector." in apart.notes
        assert "All outputs of the network together are one vector." not in joined.notes

    def test_a_value_that_the_outputs_do_not_need_is_not_looked_at(self) -> None:
        found = network_lipschitz(net(node("Relu", "x", "y"), node("Exp", "x", "z")))
        assert [link.op for link in found.links] == ["Relu"]

    def test_a_network_that_is_constant(self) -> None:
        model = net(node("Shape", "x", "s"), node("Exp", "s", "y"))
        assert (network_lipschitz(model).value, network_lipschitz(model).links) == (0.0, ())

    def test_operators_in_order(self) -> None:
        convs = [ConvOperator(RNG.standard_normal((3, 3, 2, 2)), (5, 5), stride=s) for s in (1, 2)]
        found = network_lipschitz(convs)
        truth = math.prod(spectral_norm(conv).value for conv in convs)
        assert truth <= found.value <= truth * (1 + 2.1e-3)
        assert [link.name for link in found.links] == ["0", "1"]
        assert "1-Lipschitz" in found.notes[0]

    def test_transposed_convolutions(self) -> None:
        conv = ConvOperator(RNG.standard_normal((3, 3, 2, 2)), (4, 4), transposed=True, stride=2, padding=1)
        found = network_lipschitz(net(node("ConvTranspose", "x", "y", "w"), layers=(layer("w", conv),)))
        assert_allclose(found.value, np.linalg.norm(conv.to_dense(), 2), rtol=2e-3)


class TestBounds:
    def test_the_source_of_the_norms_is_the_callers_choice(self) -> None:
        conv = ConvOperator(RNG.standard_normal((3, 3, 2, 2)), (6, 6))
        model = net(node("Conv", "x", "y", "w"), layers=(layer("w", conv),))
        norm = float(np.linalg.norm(conv.to_dense(), 2))
        lip = bounds.lipbound(conv).value
        for chosen, value, kind in [
            (None, norm, "upper"),
            (lambda _: spectral_norm(conv), norm, "upper"),
            (bounds.lipbound, lip, "upper"),
            ({"w": bounds.lipbound(conv)}, lip, "upper"),
            ({"w": 7.5}, 7.5, "upper"),
            ({}, norm, "upper"),
            (bounds.power_iteration, bounds.power_iteration(conv).value, "estimate"),
            (bounds.reshaped_norm, bounds.reshaped_norm(conv).value, "estimate"),
        ]:
            found = network_lipschitz(model, bounds=chosen)
            assert (found.kind, found.links[0].kind == "estimate") == (kind, kind == "estimate")
            assert_allclose(found.value, value, rtol=2e-3 if value == norm else NORM)

    def test_what_rests_on_a_residual_is_an_estimate(self) -> None:
        conv = ConvOperator(np.eye(2)[None, None], (3, 3))
        model = net(node("Conv", "x", "y", "w"), layers=(layer("w", conv),))
        loose = Enclosure(lower=0.9, value=1.0, upper=1.1, basis="residual", method="lanczos", applications=1)
        assert network_lipschitz(model, bounds=lambda _: loose).kind == "estimate"

    @pytest.mark.parametrize("mode", ["zeros", "reflect"])
    def test_by_default_every_link_is_proved(self, mode: str) -> None:
        # Small images with wide kernels: the enclosure rests on a residual, a bound takes its place.
        conv = ConvOperator(RNG.standard_normal((7, 7, 3, 5)), (9, 9), padding=3, padding_mode=mode)
        found = network_lipschitz([conv])
        assert found.kind == "upper"
        assert found.value >= np.linalg.norm(conv.to_dense(), 2) * (1 - NORM)

    def test_a_size_that_nobody_stated_makes_an_estimate(self) -> None:
        conv = ConvOperator(RNG.standard_normal((3, 3, 1, 1)), (8, 8))
        model = net(node("Conv", "x", "y", "w"), layers=(layer("w", conv, assumed=("input_size",)),))
        found = network_lipschitz(model)
        assert found.kind == "estimate"
        assert "input_size that the file does not state" in found.links[0].theorem
        assert network_lipschitz(model, bounds={"w": bounds.supremum(conv)}).kind == "upper"

    def test_what_is_no_model(self) -> None:
        conv = ConvOperator(np.eye(2)[None, None], (3, 3))
        for mistake, kind in ((conv, "ConvOperator"), ((item for item in [conv]), "generator"), (5, "int")):
            with pytest.raises(ValueError, match=rf"must be a Model or a sequence of ConvOperator; got {kind}"):
                network_lipschitz(mistake)  # type: ignore[arg-type]

    def test_mistakes(self) -> None:
        conv = ConvOperator(np.eye(2)[None, None], (3, 3))
        model = net(node("Conv", "x", "y", "w"), layers=(layer("w", conv),))
        with pytest.raises(ValueError, match=r"`bounds` must name layers of the model; got 'v'. The layers are 'w'"):
            network_lipschitz(model, bounds={"v": 1.0})
        with pytest.raises(ValueError, match=r"`bounds` must give numbers of at least 0; got -1.0"):
            network_lipschitz(model, bounds={"w": -1.0})
        with pytest.raises(ValueError, match=r"`bounds` must give a Bound, an Enclosure or a number; got str"):
            network_lipschitz(model, bounds=lambda _: "one")
        with pytest.raises(ValueError, match=r"`bounds` must be None, a function"):
            network_lipschitz(model, bounds=3)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"a sequence of ConvOperator, one at least; got \[\]"):
            network_lipschitz([])


def slope(function: Callable[[Any], Any], low: float = -12.0, high: float = 12.0) -> float:
    """The largest slope of differences over a dense grid: never above the true one."""
    x = np.linspace(low, high, 240_001)
    y = function(x)
    return float(np.abs(np.diff(y) / np.diff(x)).max())


def sigmoid(x: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-x))


def gelu(x: Array) -> Array:
    return np.array([0.5 * t * (1.0 + math.erf(t / math.sqrt(2.0))) for t in x])


class TestActivations:
    @pytest.mark.parametrize(
        ("op", "attributes", "function"),
        [
            ("Relu", {}, lambda x: np.maximum(x, 0)),
            ("LeakyRelu", {"alpha": 0.2}, lambda x: np.where(x > 0, x, 0.2 * x)),
            ("LeakyRelu", {"alpha": -3.0}, lambda x: np.where(x > 0, x, -3.0 * x)),
            ("Elu", {}, lambda x: np.where(x > 0, x, np.expm1(x))),
            ("Elu", {"alpha": 2.5}, lambda x: np.where(x > 0, x, 2.5 * np.expm1(x))),
            ("Celu", {"alpha": 0.5}, lambda x: np.maximum(x, 0) + np.minimum(0, 0.5 * np.expm1(x / 0.5))),
            ("Selu", {}, lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x))),
            ("Sigmoid", {}, sigmoid),
            ("HardSigmoid", {}, lambda x: np.clip(0.2 * x + 0.5, 0, 1)),
            ("HardSigmoid", {"alpha": 1.0}, lambda x: np.clip(x + 0.5, 0, 1)),
            ("Tanh", {}, np.tanh),
            ("ScaledTanh", {"alpha": 2.0, "beta": 1.5}, lambda x: 2 * np.tanh(1.5 * x)),
            ("Softplus", {}, lambda x: np.logaddexp(0, x + 24)),
            ("Softsign", {}, lambda x: x / (1 + np.abs(x))),
            ("Clip", {}, lambda x: np.clip(x, -1, 1)),
            ("Abs", {}, np.abs),
            ("Neg", {}, np.negative),
            ("Sin", {}, np.sin),
            ("Cos", {}, np.cos),
            ("Atan", {}, np.arctan),
            ("Asinh", {}, np.arcsinh),
            ("Swish", {}, lambda x: x * sigmoid(x)),
            ("HardSwish", {}, lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
            ("Mish", {}, lambda x: x * np.tanh(np.logaddexp(0, x))),
            ("Gelu", {}, lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))),
            ("Erf", {}, lambda x: np.array([math.erf(t) for t in x])),
            ("Shrink", {"lambd": 0.5, "bias": 0.5}, lambda x: np.sign(x) * np.maximum(np.abs(x) - 0.5, 0)),
            ("ImageScaler", {"scale": -0.1}, lambda x: -0.1 * x + 3),
        ],
    )
    def test_the_constant_is_the_largest_slope(
        self, op: str, attributes: dict[str, Any], function: Callable[[Any], Any]
    ) -> None:
        found, steepest = constant(op, **attributes), slope(function)
        assert steepest <= found * (1 + 1e-10)
        assert found <= steepest * (1 + 1e-4)  # at corners the grid is as coarse as that
        assert only(op, **attributes).kind == "exact"

    def test_both_forms_of_gelu(self) -> None:
        assert slope(gelu, 1.0, 2.0) <= constant("Gelu")

    @pytest.mark.parametrize(
        ("op", "function", "near"),
        [
            ("Swish", lambda x: x / (1 + mpmath.exp(-x)), 2.4),
            ("Mish", lambda x: x * mpmath.tanh(mpmath.log(1 + mpmath.exp(x))), 1.5),
            (
                "Gelu",
                lambda x: x / 2 * (1 + mpmath.tanh(mpmath.sqrt(2 / mpmath.pi) * (x + mpmath.mpf("0.044715") * x**3))),
                1.4,
            ),
        ],
    )
    def test_digits_are_rounded_upwards(self, op: str, function: Any, near: float) -> None:
        with mpmath.workdps(30):
            peak = mpmath.findroot(lambda x: mpmath.diff(function, x, 2), near)
            truth = mpmath.diff(function, peak)
            assert truth <= mpmath.mpf(constant(op)) <= truth * (1 + mpmath.mpf("1e-15"))

    def test_slopes_of_the_channels(self) -> None:
        assert constant("PRelu", "a", constants={"a": [[0.1], [-1.5]]}) == 1.5
        assert constant("PRelu", "a", constants={"a": [0.1]}) == 1.0

    def test_softmax(self) -> None:
        p = np.exp(RNG.standard_normal((2000, 3)) * 5)
        p /= p.sum(axis=1, keepdims=True)
        jacobians = np.einsum("ni,ij->nij", p, np.eye(3)) - p[:, :, None] * p[:, None, :]
        norms = np.linalg.norm(jacobians, 2, axis=(1, 2))
        assert 0.49 < norms.max() <= constant("Softmax") == 0.5

    @pytest.mark.parametrize(("axis", "classes"), [(1, 5), (-1, 5), (None, 5)])
    def test_log_softmax(self, axis: int | None, classes: int) -> None:
        attributes = {} if axis is None else {"axis": axis}
        found = constant("LogSoftmax", shapes={"x": (classes,), "y": (classes,)}, **attributes)
        p = np.exp(RNG.standard_normal((2000, classes)) * 5)
        p /= p.sum(axis=1, keepdims=True)
        norms = np.linalg.norm(np.eye(classes) - p[:, None, :], 2, axis=(1, 2))
        assert 0.99 * found < norms.max() <= found

    @pytest.mark.parametrize(
        ("gate", "truth"),
        [
            ((node("Sigmoid", "x", "g"),), "Swish"),
            ((node("HardSigmoid", "x", "g", alpha=1 / 6, beta=0.5),), "HardSwish"),
            ((node("Softplus", "x", "s"), node("Tanh", "s", "g")), "Mish"),
        ],
    )
    @pytest.mark.parametrize("order", ["x g", "g x"])
    def test_gates_that_exporters_write_as_products(self, gate: Any, truth: str, order: str) -> None:
        found = network_lipschitz(net(*gate, node("Mul", order, "y")))
        assert_allclose(found.value, constant(truth), rtol=LINK)

    def test_another_gate_is_a_product(self) -> None:
        gate = (node("Relu", "x", "r"), node("Sigmoid", "r", "g"))
        with pytest.raises(NotApplicableError, match=r"the product of two values"):
            network_lipschitz(net(*gate, node("Mul", "x g", "y")))


def spread(size: int, windows: list[list[int]], weights: Callable[[int], float]) -> Array:
    matrix = np.zeros((len(windows), size))
    for r, pixels in enumerate(windows):
        for pixel in pixels:
            if 0 <= pixel < size:
                matrix[r, pixel] += weights(sum(0 <= p < size for p in pixels))
    return matrix


WINDOWS = [
    (2, 2, 1, 0),
    (3, 1, 1, 1),
    (3, 2, 1, 1),
    (3, 2, 1, 0),
    (2, 1, 2, 0),
    (5, 3, 1, 2),
    (2, 3, 1, 0),
    (3, 2, 2, 2),
]


class TestPools:
    @staticmethod
    def axis(n: int, k: int, s: int, d: int, p: int) -> list[list[int]]:
        count = (n + 2 * p - d * (k - 1) - 1) // s + 1
        return [[r * s + a * d - p for a in range(k)] for r in range(count)]

    @pytest.mark.parametrize("window", WINDOWS)
    def test_averages_are_the_norm_of_the_matrix(self, window: tuple[int, int, int, int]) -> None:
        k, s, d, p = window
        attributes = {"kernel_shape": (k, k), "strides": (s, s), "dilations": (d, d), "pads": (p,) * 4}
        for whole in (0, 1):
            sizes = (7, 8)
            parts = [
                spread(n, self.axis(n, k, s, d, p), lambda inside: 1 / (k if whole else inside))  # noqa: B023
                for n in sizes
            ]
            truth = np.linalg.norm(np.kron(*parts), 2)
            known = constant("AveragePool", shapes={"x": (2, *sizes)}, count_include_pad=whole, **attributes)
            assert truth * (1 - 1e-14) <= known <= truth * (1 + LINK)
            assert constant("AveragePool", count_include_pad=whole, **attributes) >= truth * (1 - 1e-14)

    @pytest.mark.parametrize("window", WINDOWS)
    def test_a_pixel_that_is_the_largest_of_all_its_windows(self, window: tuple[int, int, int, int]) -> None:
        k, s, d, p = window
        attributes = {"kernel_shape": (k, k), "strides": (s, s), "dilations": (d, d), "pads": (p,) * 4}
        counts = [spread(n, self.axis(n, k, s, d, p), lambda _: 1.0).sum(axis=0) for n in (7, 8)]
        truth = math.sqrt(np.outer(*counts).max())
        known = only("MaxPool", shapes={"x": (2, 7, 8)}, **attributes)
        assert (known.constant, known.kind) == (pytest.approx(truth, rel=LINK), "exact")
        assert known.constant >= truth
        assert constant("MaxPool", **attributes) >= truth

    def test_padding_that_follows_the_size(self) -> None:
        same = {"kernel_shape": (3,), "strides": (2,), "auto_pad": "SAME_UPPER"}
        # 8 pixels: windows at 0, 2, 4, 6 of pixels r .. r + 2; pixels 2, 4, 6 are in two.
        truth = np.linalg.norm(spread(8, [[r, r + 1, r + 2] for r in (0, 2, 4, 6)], lambda i: 1 / i), 2)
        assert_allclose(constant("AveragePool", shapes={"x": (1, 8)}, **same), truth, rtol=LINK)
        assert_allclose(constant("MaxPool", shapes={"x": (1, 8)}, **same), math.sqrt(2), rtol=LINK)
        assert constant("AveragePool", **same) >= truth

    def test_the_last_window_of_ceil_mode(self) -> None:
        truth = np.linalg.norm(spread(5, [[0, 1], [2, 3], [4]], lambda i: 1 / i), 2)
        found = constant("AveragePool", shapes={"x": (1, 5)}, kernel_shape=(2,), strides=(2,), ceil_mode=1)
        assert_allclose(found, truth, rtol=LINK)
        assert constant("AveragePool", kernel_shape=(2,), strides=(2,), ceil_mode=1) >= truth

    def test_global_pools(self) -> None:
        shapes = {"x": (3, 4, 5), "y": (3, 1, 1)}
        assert_allclose(constant("GlobalAveragePool", shapes=shapes), 1 / math.sqrt(20), rtol=LINK)
        assert constant("GlobalAveragePool") == constant("GlobalMaxPool") == 1.0
        assert_allclose(constant("ReduceMean", shapes=shapes, axes=(2, 3)), 1 / math.sqrt(20), rtol=LINK)
        assert_allclose(constant("ReduceMean", shapes=shapes, axes=(-1,)), 1 / math.sqrt(5), rtol=LINK)
        assert_allclose(constant("ReduceSum", shapes=shapes, axes=(2, 3)), math.sqrt(20), rtol=LINK)
        assert_allclose(
            constant("ReduceSum", "a", shapes=shapes, constants={"a": np.array([1])}), math.sqrt(3), rtol=LINK
        )
        assert constant("ReduceMean") == constant("ReduceMax") == 1.0
        with pytest.raises(NotApplicableError, match="the root of the number of entries, which is not known"):
            constant("ReduceSum", shapes=shapes)

    @pytest.mark.parametrize("coordinates", ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"])
    @pytest.mark.parametrize(("before", "after"), [(5, 10), (4, 7), (6, 3), (1, 4)])
    def test_linear_interpolation(self, coordinates: str, before: int, after: int) -> None:
        def place(i: int) -> float:
            if coordinates == "align_corners":
                return i * (before - 1) / (after - 1)
            return i * before / after if coordinates == "asymmetric" else (i + 0.5) * before / after - 0.5

        matrix = np.zeros((after, before))
        for i in range(after):
            x = min(max(place(i), 0.0), before - 1.0)
            left = min(int(x), before - 1)
            matrix[i, left] += 1 - (x - left)
            matrix[i, min(left + 1, before - 1)] += x - left
        found = constant(
            "Resize",
            mode="linear",
            coordinate_transformation_mode=coordinates,
            shapes={"x": (2, before), "y": (2, after)},
        )
        truth = np.linalg.norm(matrix, 2)
        assert truth <= found <= truth * (1 + 2e-4)

    def test_a_factor_that_does_not_divide_is_read_in_both_ways(self) -> None:
        # 6 pixels become 10 by the factor 1.7: the last one reads place 9 * 5 / 9, or 9 * 5 / 9.2.
        norms = []
        for length in (10.0, 10.2):
            places = np.minimum(np.arange(10) * 5 / (length - 1), 5)
            norms.append(np.linalg.norm(np.maximum(1 - np.abs(places[:, None] - np.arange(6)), 0), 2))
        found = constant(
            "Resize",
            mode="linear",
            coordinate_transformation_mode="align_corners",
            scales=(1.0, 1.0, 1.7),
            shapes={"x": (2, 6), "y": (2, 10)},
        )
        assert max(norms) <= found <= max(norms) * (1 + 2e-4)

    @pytest.mark.parametrize("mode", ["nearest", "linear"])
    @pytest.mark.parametrize("coordinates", ["asymmetric", "half_pixel", "align_corners"])
    def test_a_factor_that_leaves_the_size_moves_the_places(self, mode: str, coordinates: str) -> None:
        places = np.arange(3)
        source = {
            "asymmetric": places / 1.3,
            "half_pixel": (places + 0.5) / 1.3 - 0.5,
            "align_corners": places * 2 / (3 * 1.3 - 1),
        }[coordinates]
        linear = np.maximum(1 - np.abs(np.clip(source, 0, 2)[:, None] - places), 0)
        matrix = linear if mode == "linear" else np.eye(3)[np.floor(np.clip(source, 0, 2)).astype(int)]
        attributes = {"mode": mode, "coordinate_transformation_mode": coordinates, "nearest_mode": "floor"}
        found = constant("Resize", scales=(1.0, 1.0, 1.3), shapes={"x": (1, 3), "y": (1, 3)}, **attributes)
        assert 1.0 < np.linalg.norm(matrix, 2) <= found <= math.sqrt(3) * (1 + 1e-9)

    @pytest.mark.parametrize(
        ("attributes", "reason"),
        [
            ({"coordinate_transformation_mode": "tf_crop_and_resize"}, "'tf_crop_and_resize'"),
            ({"scales": (2.0, 1.0, 1.0)}, "the number of samples or of channels"),
            ({"scales": (1.0, 1.3, 1.0)}, "the number of samples or of channels"),
            ({"sizes": (2, 3, 4)}, "the number of samples or of channels"),
            ({"sizes": (3, 4), "axes": (1, 2)}, "the number of samples or of channels"),
        ],
    )
    def test_changes_of_resolution_that_are_refused(self, attributes: dict[str, Any], reason: str) -> None:
        with pytest.raises(NotApplicableError, match=reason):
            constant("Resize", shapes={"x": (3, 4), "y": (3, 4)}, **attributes)

    def test_nearest_neighbours(self) -> None:
        assert_allclose(constant("Resize", scales=(1.0, 1.0, 2.0, 3.0)), math.sqrt(6), rtol=LINK)
        assert_allclose(constant("Upsample", scales=(1.0, 1.0, 2.0)), math.sqrt(2), rtol=LINK)
        # 4 pixels become 7: one of them has a single copy, the others two; every way to round is allowed for.
        found = constant("Resize", shapes={"x": (1, 4), "y": (1, 7)})
        assert math.sqrt(2) <= found <= 2.0


class TestMovements:
    @pytest.mark.parametrize(
        "op", ["Identity", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "DepthToSpace", "SpaceToDepth"]
    )
    def test_isometries(self, op: str) -> None:
        assert (only(op).constant, only(op).kind) == (1.0, "exact")

    def test_a_shape_that_the_graph_computes(self) -> None:
        model = net(node("Shape", "x", "s"), node("Gather", "s", "n", "i"), node("Reshape", "x n", "y"))
        assert network_lipschitz(model).value == 1.0

    def test_parts(self) -> None:
        model = net(node("Split", "x", "a b"), node("Concat", "a b", "y"))
        assert_allclose(network_lipschitz(model).value, math.sqrt(2), rtol=LINK)

    @pytest.mark.parametrize(
        ("indices", "copies"),
        [([0, 2], 1), ([0, 2, 2, 2], 3), ([-1, 3], 2), ([-1, 2], 1), ([[0, 1], [1, 0]], 2)],
    )
    def test_picks(self, indices: Any, copies: int) -> None:
        constants = {"i": np.array(indices)}
        found = constant("Gather", "i", constants=constants, shapes={"x": (4, 2)}, axis=1)
        picked = np.take(np.eye(4), np.ravel(indices), axis=0)
        assert_allclose(found, np.linalg.norm(picked, 2), rtol=LINK)
        assert_allclose(found, math.sqrt(copies), rtol=LINK)
        assert constant("Gather", "i", constants=constants, axis=1) >= found

    @pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
    def test_padding(self, mode: Any) -> None:
        matrix = np.pad(np.eye(5), ((3, 2), (0, 0)), mode=mode)
        found = constant("Pad", mode=mode, pads=(0, 0, 3, 0, 0, 2), shapes={"x": (2, 5)})
        assert_allclose(found, np.linalg.norm(matrix, 2), rtol=LINK)
        assert constant("Pad", pads=(0, 0, 3, 0, 0, 2)) == 1.0

    def test_repetitions(self) -> None:
        assert_allclose(constant("Tile", repeats=(1, 2, 3)), math.sqrt(6), rtol=LINK)
        found = constant("Expand", shape=(2, 3, 4, 5), shapes={"x": (3, 1, 5), "y": (3, 4, 5)})
        assert_allclose(found, math.sqrt(8), rtol=LINK)

    def test_a_small_operand_is_repeated_to_fit(self) -> None:
        shapes = {"x": (2, 3, 3), "m": (2, 1, 1), "y": (2, 3, 3)}
        model = net(node("GlobalMaxPool", "x", "m"), node("Add", "x m", "y"), shapes=shapes)
        assert_allclose(network_lipschitz(model).value, 1.0 + 3.0, rtol=LINK)
        model = net(
            node("GlobalMaxPool", "x", "m"), node("Mul", "m", "y", "c"), shapes=shapes, constants={"c": [-2.0]}
        )
        assert_allclose(network_lipschitz(model).value, 6.0, rtol=LINK)


class TestArithmetic:
    def test_factors(self) -> None:
        c = np.array([0.5, -4.0, 2.0])
        assert constant("Mul", "c", constants={"c": c}, shapes={"x": (2, 3), "y": (2, 3)}) == 4.0
        assert constant("Div", "c", constants={"c": c}, shapes={"x": (2, 3), "y": (2, 3)}) == pytest.approx(2.0)
        assert constant("Add", "c", constants={"c": c}) == constant("Pow", "c", constants={"c": 1.0}) == 1.0
        # A factor of three samples makes three copies of one sample.
        found = constant("Mul", "c", constants={"c": np.full((3, 1), 2.0)}, shapes={"x": (4,), "y": (4,)})
        assert_allclose(found, 2 * math.sqrt(3), rtol=LINK)

    def test_choices(self) -> None:
        model = net(node("Where", "x", "y", "c o"), constants={"c": [True], "o": [1.0]})
        with pytest.raises(NotApplicableError, match="its condition depends on the input"):
            network_lipschitz(model)
        chosen = Node(
            name="n", op="Where", inputs=("x", "z"), outputs=("y",), weights=("c",), operands=("c", "x", "z")
        )
        found = network_lipschitz(net(chosen, inputs="x z", constants={"c": [True, False]}))
        assert_allclose(found.value, math.sqrt(2), rtol=LINK)
        assert "All inputs of the network together are one vector." in found.notes

    @pytest.mark.parametrize("folded", [(), ("n_y",)])
    def test_batch_norm(self, folded: tuple[str, ...]) -> None:
        constants = {"g": [1.0, -3.0], "b": [0.0, 9.0], "m": [1.0, 1.0], "v": [0.24, 3.99]}
        conv = ConvOperator(np.eye(2)[None, None], (3, 3))
        model = net(
            node("Conv", "x", "c", "w"),
            node("BatchNormalization", "c", "y", "g b m v", epsilon=0.01),
            layers=(layer("w", conv, folded=folded),),
            constants=constants,
        )
        assert_allclose(network_lipschitz(model).value, 1.0 if folded else 2.0, rtol=LINK)

    def test_batch_norm_without_factors(self) -> None:
        found = constant(
            "BatchNormalization",
            "v m",
            constants={"v": [0.24, 3.99], "m": [0.0, 0.0]},
            parameters=("moving_variance", "moving_mean"),
            epsilon=0.01,
        )
        assert_allclose(found, 2.0, rtol=LINK)

    @pytest.mark.parametrize("op", ["Gemm", "MatMul"])
    def test_matrices(self, op: str) -> None:
        matrix = RNG.standard_normal((4, 3))
        norm = float(np.linalg.norm(matrix, 2))
        known = layer("w", ConvOperator(matrix[None, None], (1, 1), padding=0))
        for model in (
            net(node(op, "x", "y", "w"), layers=(known,)),
            net(node(op, "x", "y", "w"), constants={"w": matrix}),
            net(node("Reshape", "", "r", "w", shape=(4, 3)), node(op, "x r", "y"), constants={"w": matrix.ravel()}),
            net(node("Transpose", "", "r", "w"), node(op, "x r", "y"), layers=(known,)),
        ):
            assert_allclose(network_lipschitz(model).value, norm, rtol=2e-3)
        scaled = net(node("Gemm", "x", "y", "w", alpha=-0.5), layers=(known,))
        assert_allclose(network_lipschitz(scaled).value, norm / 2, rtol=2e-3)

    def test_a_bias_that_depends_on_the_input(self) -> None:
        matrix = layer("w", ConvOperator(2 * np.eye(3)[None, None], (1, 1), padding=0))
        gemm = Node(
            name="n", op="Gemm", inputs=("x", "x"), outputs=("y",), weights=("w",), operands=("x", "w", "x"),
            attributes={"beta": 0.5},
        )  # fmt: skip
        assert_allclose(network_lipschitz(net(gemm, layers=(matrix,))).value, 2.5, rtol=LINK)


class TestSharedKernels:
    def test_each_application_has_its_own_norm(self) -> None:
        kernel = RNG.standard_normal((3, 3, 2, 2))
        first = ConvOperator(kernel, (8, 8), padding=1)
        second = ConvOperator(kernel, (8, 8), padding=1, stride=2)
        third = ConvOperator(kernel, (4, 4), padding=0)
        pads = {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1)}
        model = net(
            node("Conv", "x", "a", "w", **pads),
            node("Conv", "a", "b", "w", strides=(2, 2), **pads),
            node("Conv", "b", "y", "w"),
            layers=(layer("w", first),),
            shapes={"x": (2, 8, 8), "a": (2, 8, 8), "b": (2, 4, 4)},
        )
        links = network_lipschitz(model).links
        for link, conv in zip(links, (first, second, third), strict=True):
            assert_allclose(link.constant, np.linalg.norm(conv.to_dense(), 2), rtol=2e-3)
        assert ["another way" in link.theorem for link in links] == [False, True, True]

    def test_an_unknown_size_is_refused(self) -> None:
        model = net(
            node("Conv", "x", "a", "w"),
            node("Conv", "a", "y", "w"),
            layers=(layer("w", ConvOperator(np.ones((3, 3, 1, 1)), (8, 8), padding=1)),),
        )
        with pytest.raises(NotApplicableError, match="shared kernel w to an input whose size is not known"):
            network_lipschitz(model)

    def test_another_node_that_no_output_needs_does_not_lend_its_stride(self) -> None:
        kernel = RNG.uniform(0.5, 1.0, (3, 3, 1, 1))
        listed, applied = ConvOperator(kernel, (6, 6), stride=3, padding=0), ConvOperator(kernel, (6, 6), padding=1)
        for dead in (node("Conv", "x", "a", "w", strides=(3, 3)), node("Conv", "", "a", "p w", strides=(3, 3))):
            model = net(
                dead,
                node("Conv", "x", "y", "w", pads=(1, 1, 1, 1)),
                layers=(layer("w", listed),),
                shapes={"x": (1, 6, 6)},
            )
            assert_allclose(network_lipschitz(model).value, np.linalg.norm(applied.to_dense(), 2), rtol=2e-3)
            hidden = dataclasses.replace(model, graph=dataclasses.replace(model.graph, shapes={}))
            with pytest.raises(NotApplicableError, match="shared kernel w to an input whose size is not known"):
                network_lipschitz(hidden)

    @pytest.mark.parametrize(("channels", "groups"), [((1, 1), 1), ((2, 4), 1), ((4, 6), 2)])
    @pytest.mark.parametrize("first", ["Conv", "ConvTranspose"])
    def test_a_tied_autoencoder(self, first: str, channels: tuple[int, int], groups: int) -> None:
        read, written = channels
        kernel = RNG.uniform(0.5, 1.0, (3, 3, read // groups, written))  # of the convolution
        conv = ConvOperator(kernel, (5, 5), padding=0, groups=groups)
        back = ConvOperator(kernel.swapaxes(-1, -2), (3, 3), padding=0, groups=groups, transposed=True)
        code = np.zeros((written, 3, 3))
        truth = np.linalg.norm(conv.to_dense(), 2) * np.linalg.norm(back.to_dense(), 2)
        model = net(
            node("Conv", "x", "a", "w", group=groups),
            node("ConvTranspose", "a", "y", "w", group=groups),
            layers=(layer("w", conv if first == "Conv" else back),),
            shapes={"x": (read, 5, 5), "a": code.shape},
        )
        assert_allclose(network_lipschitz(model).value, truth, rtol=3e-3)

    @pytest.mark.parametrize("ndim", [1, 3])
    def test_any_number_of_axes(self, ndim: int) -> None:
        conv = ConvOperator(np.ones((3,) * ndim + (1, 1)), (5,) * ndim, layout="DHWIO"[3 - ndim :], padding=1)
        pads = (1,) * (2 * ndim)
        model = net(
            node("Conv", "x", "a", "w", pads=pads),
            node("Conv", "a", "y", "w", pads=pads, strides=(2,) * ndim),
            layers=(layer("w", conv),),
            shapes=dict.fromkeys("xa", (1, *(5,) * ndim)),
        )
        first, second = network_lipschitz(model).links
        assert_allclose(first.constant, np.linalg.norm(conv.to_dense(), 2), rtol=2e-3)
        assert "applied in another way" in second.theorem
        assert second.constant < first.constant

    def test_a_size_that_is_assumed_does_not_lend_the_bound_of_another_stride(self) -> None:
        conv = ConvOperator(np.ones((3, 3, 1, 1)), (8, 8), stride=2, padding=1)
        pads = {"pads": (1, 1, 1, 1)}
        model = net(
            node("Conv", "x", "a", "w", strides=(2, 2), **pads),
            node("Conv", "x", "b", "w", **pads),
            node("Concat", "a b", "y"),
            layers=(layer("w", conv, assumed=("input_size",)),),
        )
        found = network_lipschitz(model, bounds={"w": bounds.supremum(conv)})
        assert (found.kind, [link.kind for link in found.links][:2]) == ("estimate", ["upper", "estimate"])

    def test_the_kernel_of_a_convolution_is_no_matrix(self) -> None:
        shared = layer("w", ConvOperator(np.ones((3, 3, 1, 1)), (1, 3), padding=1))
        one = layer("w", ConvOperator(np.ones((1, 1, 3, 3)), (1, 1)))
        for known, shapes in ((shared, {}), (one, {"w": (3, 1, 1)})):
            model = net(node("MatMul", "x", "y", "w"), layers=(known,), shapes=shapes)
            with pytest.raises(NotApplicableError, match="its matrix w is none of the model's layers"):
                network_lipschitz(model)

    def test_a_kernel_that_a_file_reads_in_two_ways(self, tmp_path: Path) -> None:
        kernel = np.random.default_rng(2).uniform(0.5, 1.0, (2, 2, 3, 1))
        turned = ("Transpose", ["w"], ["t"], {"perm": [1, 0, 2, 3]})
        both = [turned, ("Conv", ["x", "t"], ["a"], {}), ("Conv", ["a", "w"], ["y"], {})]
        with pytest.raises(NotApplicableError, match="its kernel that it applies is none of the model's layers"):
            network_lipschitz(onnx_model(tmp_path, both, {"w": kernel}, (1, 2, 7, 5))[0])


class TestRefusals:
    @pytest.mark.parametrize(
        ("op", "reason"),
        [
            ("Exp", "its slope is unbounded"),
            ("Sqrt", "its slope is unbounded"),
            ("Round", "it jumps"),
            ("ThresholdedRelu", "it jumps at its threshold"),
            ("Shrink", "it jumps at its threshold"),
            ("LayerNormalization", "statistics of its own input"),
            ("InstanceNormalization", "statistics of its own input"),
            ("LSTM", "a recurrent layer"),
            ("If", "branches"),
            ("PRelu", "its slopes are not known"),
            ("LogSoftmax", "the number of classes, which is not known"),
            ("BatchNormalization", "it has 0 parameters, 4 are expected"),
            ("MaxPool", "its window is not known"),
            ("Cast", "which jumps"),
            ("Gather", "depends on the input"),
            ("Tile", "how often it repeats is not known"),
            ("Expand", "are not known"),
            ("Conv", "none of the model's layers"),
            ("LpPool", "not among those whose constant is known"),
            ("keras.Relu", "not among those whose constant is known"),
        ],
    )
    def test_the_node_and_the_reason_are_named(self, op: str, reason: str) -> None:
        with pytest.raises(NotApplicableError, match=rf"The node 'n_y' \({op}\) has no known .*{reason}.*network"):
            constant(op)

    @pytest.mark.parametrize(
        ("op", "constants", "reason"),
        [
            ("Mul", {}, "the factor is not known"),
            ("Div", {"c": [1.0, 0.0]}, "the divisor is not known, or 0"),
            ("Pow", {"c": 2.0}, "powers other than the first"),
            ("Mul", {"c": [np.inf]}, "the factor is not known"),
            ("Gemm", {}, r"include_linear=True"),
            ("MatMul", {"c": np.ones((2, 2, 2))}, r"has the shape \[2, 2, 2\]"),
            ("BatchNormalization", {"c": [1.0]}, "it has 1 parameters"),
        ],
    )
    def test_constants_that_are_missing_or_do_not_do(self, op: str, constants: Any, reason: str) -> None:
        with pytest.raises(NotApplicableError, match=reason):
            constant(op, "c", constants=constants)

    def test_products_of_two_values(self) -> None:
        for op in ("Mul", "Div", "MatMul"):
            with pytest.raises(NotApplicableError, match="not globally Lipschitz"):
                network_lipschitz(net(node("Tanh", "x", "t"), node(op, "x t", "y")))
        inverse = Node(name="n", op="Div", inputs=("x",), outputs=("y",), weights=("c",), operands=("c", "x"))
        with pytest.raises(NotApplicableError, match="a quotient whose divisor depends on the input"):
            network_lipschitz(net(inverse, constants={"c": [1.0]}))

    def test_a_model_without_a_graph(self) -> None:
        with pytest.raises(NotApplicableError, match=r"no graph.*\[layer.operator for layer in model.layers\].*ONNX"):
            network_lipschitz(Net(graph=None))

    def test_a_graph_with_holes(self) -> None:
        with pytest.raises(NotApplicableError, match=r"reads 'gone', which no node before it writes"):
            network_lipschitz(net(node("Relu", "gone", "y")))
        with pytest.raises(NotApplicableError, match=r"No node of the graph writes its output 'y'"):
            network_lipschitz(net(node("Relu", "x", "z")))
        with pytest.raises(NotApplicableError, match=r"The graph has no outputs"):
            network_lipschitz(net(node("Relu", "x", "z"), outputs=""))

    def test_random_numbers(self) -> None:
        noise = Node(name="n", op="RandomNormal", inputs=(), outputs=("r",))
        with pytest.raises(NotApplicableError, match="is random: the network is no function"):
            network_lipschitz(net(noise, node("Add", "x r", "y")))


def test_the_chain_of_evidence_as_text_and_as_data() -> None:
    conv = ConvOperator(2 * np.eye(2)[None, None], (3, 3))
    nodes = (node("Conv", "x", "f", "w"), node("Relu", "f", "r"), node("Add", "x r", "y"))
    model = with_shapes(net(*nodes, layers=(layer("w", conv),)), np.zeros((2, 3, 3)))
    found = network_lipschitz(model)
    lines = found.to_text().splitlines()
    assert lines[0] == "Lipschitz constant <= 3 (upper)"
    assert [line.split()[:4] for line in lines[3:6]] == [
        ["*", "n_f", "Conv", "2"],
        ["*", "n_r", "Relu", "1"],
        ["*", "n_y", "Add", "1"],
    ]
    document = json.loads(json.dumps(found.document(), allow_nan=False))
    assert document["critical"] == ["n_f", "n_r", "n_y"]
    assert [link["op"] for link in document["links"]] == ["Conv", "Relu", "Add"]
    assert document["links"][1]["theorem"] == "|max(a, 0) - max(b, 0)| <= |a - b|"
    endless = network_lipschitz(model, bounds={"w": math.inf})
    assert endless.value == math.inf
    assert json.loads(json.dumps(endless.document(), allow_nan=False))["value"] is None


class TestFirstAxis:
    """Samples lie along the first axis until a network puts something else there."""

    @pytest.mark.parametrize(
        ("nodes", "shapes", "constants", "truth"),
        [
            # (1, 1, 3, 2) turned to (3, 1, 1, 2): the sum has (3, 1, 3, 2) entries.
            (
                [node("Transpose", "x", "t", perm=(2, 1, 0, 3)), node("Add", "x t", "y")],
                {"x": (1, 3, 2), "t": (1, 1, 2), "y": (1, 3, 2)},
                {},
                2 * math.sqrt(3),
            ),
            # The largest of a row and a column of 9.
            (
                [
                    node("Reshape", "x", "r", shape=(1, 9)),
                    node("Reshape", "x", "c", shape=(9, 1)),
                    node("Max", "r c", "y"),
                ],
                {"x": (1, 3, 3), "r": (9,), "c": (1,), "y": (9,)},
                {},
                math.sqrt(18),
            ),
            # Four rows, of which the first is added to each of them.
            (
                [
                    node("Reshape", "x", "r", shape=(4, 1)),
                    node("Slice", "r", "s", axes=(0,)),
                    Node(
                        name="g",
                        op="Gemm",
                        inputs=("r", "s"),
                        outputs=("y",),
                        weights=("w",),
                        operands=("r", "w", "s"),
                    ),
                ],
                {"x": (2, 2), "r": (1,), "s": (1,), "y": (1,)},
                {"w": [[0.0]]},
                2.0,
            ),
            # A constant of nine samples makes nine copies, whether its numbers are known or not.
            ([node("Add", "x", "y", "c")], {"x": (4,), "y": (4,)}, {"c": np.ones((9, 1))}, 3.0),
            ([node("Add", "x", "y", "k")], {"x": (4,), "y": (4,), "k": (1,)}, {}, 3.0),
            ([node("Add", "x", "y", "k")], {"x": (1, 1), "y": (5, 5), "k": (5, 5)}, {}, 15.0),
            # The axis in front of the sample.
            ([node("Expand", "x", "y", shape=(9, 1, 4))], {"x": (4,), "y": (1, 4)}, {}, 3.0),
        ],
    )
    def test_repetitions_along_it_count(self, nodes: Any, shapes: Any, constants: Any, truth: float) -> None:
        fronts = {"s": 1, "k": 9}
        found = network_lipschitz(net(*nodes, shapes=shapes, constants=constants, fronts=fronts))
        assert (found.kind, found.value) == ("upper", pytest.approx(truth, rel=LINK))

    def test_without_the_sizes_there_is_no_proof(self) -> None:
        model = net(
            node("Transpose", "x", "t", perm=(2, 1, 0)),
            node("Add", "x t", "y"),
            shapes={"x": (None, None), "t": (None, None), "y": (None, None)},
        )
        with pytest.raises(NotApplicableError, match="how often 'x' is repeated depends on a size that is not known"):
            network_lipschitz(model)

    @pytest.mark.parametrize(
        "between",
        [
            node("Transpose", "x", "t", perm=(0, 3, 1, 2)),
            node("Reshape", "x", "t", shape=(0, -1)),
            node("Flatten", "x", "t"),
            node("Unsqueeze", "x", "t", axes=(1,)),
            node("Squeeze", "x", "t", axes=(1,)),
            node("Slice", "x", "t", axes=(1,)),
            node("Pad", "x", "t", pads=(0, 1, 0, 0, 0, 1, 0, 0)),
            node("ReduceMax", "x", "t", axes=(2, 3)),
            node("Tile", "x", "t", repeats=(1, 2)),
            node("Gather", "x", "t", "i", axis=1),
            node("Concat", "x x", "t", axis=1),
            node("Conv", "x", "t", "w"),
            node("MatMul", "x", "t", "m"),
        ],
    )
    def test_what_leaves_the_samples_where_they_are(self, between: Node) -> None:
        conv = layer("w", ConvOperator(np.ones((1, 1, 1, 1)), (2, 2), padding=0))
        model = net(
            between,
            node("Add", "t", "y", "c"),
            shapes={"x": (None, None, None), "t": (2, None), "y": (2, None)},
            constants={"c": np.ones((1, 2, 1)), "i": [0], "m": np.eye(2)},
            layers=(conv,),
        )
        assert network_lipschitz(model).links[-1].constant == 1.0
        wide = dataclasses.replace(model, constants={**model.constants, "c": np.ones((4, 2, 1))})
        assert network_lipschitz(wide).links[-1].constant == 2.0

    @pytest.mark.parametrize(
        "between",
        [
            node("Transpose", "x", "t"),
            node("Reshape", "x", "t", shape=(-1, 4)),
            node("Reshape", "x", "t", shape=(0, -1), allowzero=1),
            node("Flatten", "x", "t", axis=2),
            node("Squeeze", "x", "t"),
            node("Unsqueeze", "x", "t", axes=(0,)),
            node("Unsqueeze", "x", "t", axes=(-3,)),
            node("Slice", "x", "t", axes=(-4,)),
            node("Pad", "x", "t", pads=(1, 0, 0, 0, 0, 0, 0, 0)),
            node("ReduceMax", "x", "t"),
            node("Tile", "x", "t", repeats=(2, 1)),
            node("Gather", "x", "t", "i"),
            node("Split", "x", "t"),
            node("Concat", "x x", "t", axis=-4),
            node("Gemm", "x", "t", "m", transA=1),
        ],
    )
    def test_what_puts_something_else_there(self, between: Node) -> None:
        model = net(
            between,
            node("Add", "t", "y", "c"),
            shapes={"x": (None, None, None), "t": (2, None), "y": (2, None)},
            constants={"c": np.ones((1, 2, 1)), "i": [0], "m": np.eye(2)},
        )
        found = network_lipschitz(dataclasses.replace(model, constants={**model.constants, "c": np.ones((4, 2, 1))}))
        assert found.links[-1].constant == 2.0  # as many copies as there can be
        one = network_lipschitz(dataclasses.replace(model, constants={**model.constants, "c": np.ones((1, 2, 1))}))
        assert (one.links[-1].constant, one.kind) == (1.0, "upper")


class TestUnknownSizes:
    def test_two_unknown_sizes_need_not_be_equal(self) -> None:
        shapes = {"x": (1, None), "s": (1, None), "y": (1, None)}
        found = network_lipschitz(net(node("Slice", "x", "s", axes=(2,)), node("Add", "x s", "y"), shapes=shapes))
        assert [link.kind for link in found.links] == ["exact", "estimate"]
        assert "Where the graph does not state the sizes, operands are taken to have one size." in found.notes
        assert found.kind == "estimate"
        # One that meets itself, or a single number, has no choice.
        assert network_lipschitz(net(node("Add", "x x", "y"), shapes=shapes)).kind == "upper"
        number = net(node("Add", "x", "y", "c"), shapes=shapes, constants={"c": [[[2.0]]]})
        assert network_lipschitz(number).kind == "upper"

    def test_no_sizes_at_all(self) -> None:
        for op in ("Add", "Mul"):
            link = only(op, "c", constants={"c": np.ones((1, 7))})
            assert (link.constant, link.kind) == (1.0, "estimate")
            assert only(op, "c", constants={"c": [1.0]}).kind == "exact"

    def test_an_output_that_is_named_twice(self) -> None:
        found = network_lipschitz(net(node("Relu", "x", "y"), outputs="y y"))
        assert_allclose(found.value, math.sqrt(2), rtol=LINK)

    def test_an_axis_that_is_named_twice(self) -> None:
        shapes = {"x": (3, 4), "y": (3, 1)}
        assert_allclose(constant("ReduceMean", shapes=shapes, axes=(2, -1)), 0.5, rtol=LINK)


class TestCasts:
    @pytest.mark.parametrize(
        ("value", "to", "truth"),
        [(0.5, 9, 1.0), (0.0, 9, 0.0), (-2.7, 6, 2.0), (200.9, 2, 200.0), (2051.0, 10, 2052.0), (0.1, 1, 0.1)],
    )
    def test_constants_are_what_the_type_holds(self, value: float, to: int, truth: float) -> None:
        nodes = (node("Cast", "", "a", "c", to=to), node("Cast", "a", "b", to=11), node("Mul", "x b", "y"))
        shapes = {"x": (3,), "y": (3,)}
        found = network_lipschitz(net(*nodes, shapes=shapes, constants={"c": np.array([value])}))
        assert_allclose(found.value, truth, rtol=1e-7)

    @pytest.mark.parametrize(
        ("value", "to"), [(-1.0, 2), (256.0, 2), (3e9, 6), (2.0**63, 7), (np.nan, 7), (70000.0, 10), (0.5, 17)]
    )
    def test_what_runtimes_do_in_ways_of_their_own_is_unknown(self, value: float, to: int) -> None:
        nodes = (node("Cast", "", "a", "c", to=to), node("Cast", "a", "b", to=11), node("Mul", "x b", "y"))
        with pytest.raises(NotApplicableError, match="the factor is not known"):
            network_lipschitz(net(*nodes, constants={"c": np.array([value])}))

    def test_whole_numbers_divide_without_a_rest(self) -> None:
        nodes = (
            node("Cast", "", "a", "c", to=7),
            node("Div", "a", "b", "d"),
            node("Cast", "b", "e", to=11),
            node("Div", "x e", "y"),
        )
        with pytest.raises(NotApplicableError, match="the divisor is not known"):
            network_lipschitz(net(*nodes, constants={"c": [5.0], "d": np.array([2])}))


def onnx_model(folder: Path, nodes: Any, weights: Mapping[str, Array], size: Any) -> tuple[Any, Any]:
    """The model of a file from x to y with weights in double precision, and a function that runs it."""
    pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    graph = helper.make_graph(
        [helper.make_node(op, reads, writes, **attributes) for op, reads, writes, attributes in nodes],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, size)],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, None)],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    document = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    path = folder / "m.onnx"
    path.write_bytes(document.SerializeToString())
    run = ReferenceEvaluator(document)
    return read_model(path), lambda x: run.run(None, {"x": x})[0]


class TestFiles:
    @pytest.mark.parametrize("batch", [1, "N"])
    @pytest.mark.parametrize(
        "nodes",
        [
            [("Transpose", ["a"], ["t"], {"perm": [2, 1, 0, 3]}), ("Add", ["a", "t"], ["y"], {})],
            [("GlobalAveragePool", ["a"], ["t"], {}), ("Add", ["t", "large"], ["y"], {})],
            [("Expand", ["one", "nine"], ["t"], {}), ("Add", ["a", "t"], ["y"], {})],
            [("Conv", ["x", "w"], ["t"], {"strides": [3, 3]}), ("Conv", ["x", "w"], ["y"], {"pads": [1] * 4})],
            [("Conv", ["x", "w"], ["t"], {}), ("ConvTranspose", ["t", "w"], ["y"], {})],
        ],
    )
    def test_no_jacobian_of_a_file_exceeds_the_bound(self, tmp_path: Path, batch: Any, nodes: Any) -> None:
        rng = np.random.default_rng(4)
        weights = {
            "k": rng.standard_normal((1, 1, 1, 1)),
            "w": rng.uniform(0.5, 1.0, (1, 1, 3, 3)),
            "large": np.ones((9, 1, 150, 150)),  # more entries than a model keeps
            "one": np.ones((1, 1, 1, 1)),
            "nine": np.array([9, 1, 1, 1]),
        }
        model, run = onnx_model(tmp_path, [("Conv", ["x", "k"], ["a"], {}), *nodes], weights, [batch, 1, 4, 3])
        found = network_lipschitz(model)
        x, zero = rng.standard_normal((1, 1, 4, 3)), np.zeros((1, 1, 4, 3))
        columns = [(run(x + e.reshape(x.shape)) - run(x)).ravel() for e in np.eye(12)]  # it is affine
        truth = np.linalg.norm(np.array(columns), 2)
        assert found.kind == "upper"
        assert truth * (1 - 1e-9) <= found.value <= truth * 1.5
        assert np.linalg.norm(run(x) - run(zero)) <= found.value * np.linalg.norm(x)

    @needs_shared
    @pytest.mark.parametrize("file", ["mnist.onnx", "SqueezeNet_fp16.onnx", "fer2013_mini_XCEPTION.102-0.66.hdf5"])
    def test_trained_networks(self, file: str) -> None:
        pytest.importorskip("onnx")
        pytest.importorskip("h5py")
        model = read_model(MODELS / file)
        cheap = {item.name: bounds.reshaped(item.operator) for item in model.layers}
        found = network_lipschitz(model, bounds=cheap)
        assert found.kind == "upper"
        assert math.isfinite(found.value)
        convolutions = [link for link in found.links if link.op == "Conv"]
        assert len(convolutions) == len(model.layers)

    @needs_shared
    def test_mnist_against_its_own_jacobian(self) -> None:
        onnx = pytest.importorskip("onnx")
        from onnx.reference import ReferenceEvaluator

        found = network_lipschitz(read_model(MODELS / "mnist.onnx"))
        run = ReferenceEvaluator(onnx.load(MODELS / "mnist.onnx"))
        rng = np.random.default_rng(3)
        for scale in (1.0, 100.0):
            x = scale * rng.standard_normal((2, 1, 1, 28, 28)).astype(np.float32)
            y = [run.run(None, {"Input3": sample})[0].astype(np.float64) for sample in x]
            assert np.linalg.norm(y[0] - y[1]) <= found.value * np.linalg.norm(x[0].astype(np.float64) - x[1])
        assert found.value == pytest.approx(410, rel=0.05)

    @needs_shared
    @pytest.mark.parametrize(
        ("file", "reason"), [("model-attRNN.h5", "signal.stft.*TFOpLambda"), ("silero_vad_16k_op15.onnx", "Pad")]
    )
    def test_networks_that_have_no_constant(self, file: str, reason: str) -> None:
        with pytest.raises(NotApplicableError, match=reason):
            network_lipschitz(read_model(MODELS / file))

    def test_an_onnx_file(self, tmp_path: Path) -> None:
        pytest.importorskip("onnx")
        from onnx import TensorProto, helper, numpy_helper
        from onnx.reference import ReferenceEvaluator

        rng = np.random.default_rng(5)
        weights = {
            "w": rng.standard_normal((3, 3, 2, 2)),  # turned on its way to the convolution
            "gamma": rng.standard_normal(2),
            "beta": rng.standard_normal(2),
            "mean": rng.standard_normal(2),
            "var": rng.uniform(0.5, 2, 2),
            "slope": np.full((2, 1, 1), 0.25),
            "scale": np.array([3.0]),
            "picked": np.array([0, 1, 1]),
            "shape": np.array([0, -1]),
            "m": rng.standard_normal((4, 192)),
        }
        nodes = [
            helper.make_node("Transpose", ["w"], ["kernel"], perm=[3, 2, 0, 1]),
            helper.make_node("Conv", ["x", "kernel"], ["c"], pads=[1, 1, 1, 1]),
            helper.make_node("BatchNormalization", ["c", "gamma", "beta", "mean", "var"], ["n"]),
            helper.make_node("PRelu", ["n", "slope"], ["p"]),
            helper.make_node("Conv", ["p", "kernel"], ["d"], pads=[1, 1, 1, 1]),
            helper.make_node("Add", ["d", "x"], ["s"]),
            helper.make_node("Div", ["s", "scale"], ["q"]),
            helper.make_node("Gather", ["q", "picked"], ["g"], axis=1),
            helper.make_node("Reshape", ["g", "shape"], ["f"]),
            helper.make_node("Transpose", ["m"], ["mt"]),
            helper.make_node("MatMul", ["f", "mt"], ["y"]),
        ]
        graph = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 8, 8])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [
                numpy_helper.from_array(np.asarray(v, np.int64 if v.dtype.kind == "i" else np.float32), k)
                for k, v in weights.items()
            ],
        )
        document = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        path = tmp_path / "m.onnx"
        path.write_bytes(document.SerializeToString())
        model = read_model(path)
        found = network_lipschitz(model)
        assert found.kind == "upper"
        links = {link.op: link for link in found.links}
        assert_allclose(links["Gather"].constant, math.sqrt(2), rtol=LINK)
        assert_allclose(links["Div"].constant, 1 / 3, rtol=LINK)
        assert_allclose(links["MatMul"].constant, np.linalg.norm(weights["m"], 2), rtol=2e-3)
        factors = np.abs(weights["gamma"]) / np.sqrt(weights["var"] + 1e-5)
        assert_allclose(links["BatchNormalization"].constant, factors.max(), rtol=1e-6)
        run = ReferenceEvaluator(document)
        for _ in range(5):
            x, y = rng.standard_normal((2, 1, 2, 8, 8)).astype(np.float32)
            difference = run.run(None, {"x": x})[0].astype(np.float64) - run.run(None, {"x": y})[0]
            assert np.linalg.norm(difference) <= found.value * np.linalg.norm(x.astype(np.float64) - y) * (1 + 1e-5)
        # As a layer the matrix is known just the same.
        complete = read_model(path, include_linear=True)
        assert {item.name for item in complete.layers} == {"w", "m"}
        assert_allclose(network_lipschitz(complete).value, found.value, rtol=2e-3)

    @pytest.fixture
    def quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("h5py")
        monkeypatch.setattr(keras_file, "in_child", lambda parse, path, library, modules=(): parse(path))

    @pytest.mark.usefixtures("quick")
    def test_a_keras_file_with_its_norms_folded_and_not(self, tmp_path: Path) -> None:
        from test_models_keras import functional, save, start
        from test_models_keras import layer as keras_layer

        rng = np.random.default_rng(8)
        config = functional(
            start(9, 9, 3),
            keras_layer("Conv2D", "conv", reads=["in"], filters=4, kernel_size=3, padding="same", use_bias=False),
            keras_layer("BatchNormalization", "bn", reads=["conv"], epsilon=0.001),
            keras_layer("ReLU", "act", reads=["bn"], negative_slope=0.5),
            keras_layer("Conv2D", "deep", reads=["act"], filters=4, kernel_size=1, activation="elu"),
            keras_layer("Add", "add", reads=["act", "deep"]),
            keras_layer("MaxPooling2D", "max", reads=["add"], pool_size=3, strides=2, padding="same"),
            keras_layer("AveragePooling2D", "mean", reads=["max"], pool_size=2),
            keras_layer("UpSampling2D", "up", reads=["mean"], size=2),
            keras_layer("GlobalAveragePooling2D", "pool", reads=["up"]),
            keras_layer("Dense", "out", reads=["pool"], units=5, activation="softmax"),
        )
        norm = {"gamma:0": rng.standard_normal(4), "beta:0": rng.standard_normal(4)}
        norm |= {"moving_mean:0": rng.standard_normal(4), "moving_variance:0": rng.uniform(0.5, 2.0, 4)}
        kernels = {"conv": rng.standard_normal((3, 3, 3, 4)), "deep": rng.standard_normal((1, 1, 4, 4))}
        path = save(tmp_path, config, {**kernels, "bn": norm, "out": rng.standard_normal((4, 5))})
        plain = network_lipschitz(read_model(path))
        folded = network_lipschitz(read_model(path, fold_batchnorm=True))
        assert folded.value <= plain.value
        links = {link.name: link for link in plain.links}
        assert_allclose(
            links["bn"].constant, np.abs(norm["gamma:0"] / np.sqrt(norm["moving_variance:0"] + 1e-3)).max()
        )
        assert (links["act"].op, links["deep/activation"].op) == ("LeakyRelu", "Elu")
        assert_allclose(links["max"].constant, 2.0, rtol=LINK)  # 9 pixels, windows of 3 at every second
        assert_allclose([links["mean"].constant, links["up"].constant], [0.5, 2.0], rtol=LINK)
        assert_allclose(links["pool"].constant, 1 / 4, rtol=LINK)  # of 4 x 4 pixels
        assert links["out/activation"].constant == 0.5
        assert {link.name: link.constant for link in folded.links}["bn"] == 1.0

    @pytest.mark.usefixtures("quick")
    def test_images_that_keras_resizes(self, tmp_path: Path) -> None:
        from test_models_keras import layer as keras_layer
        from test_models_keras import save, sequential, start

        def resized(**settings: Any) -> float:
            conv = keras_layer("Conv2D", "conv", filters=2, kernel_size=1)
            config = sequential(start(4, 4, 3), conv, keras_layer("Resizing", "r", height=8, width=8, **settings))
            model = read_model(save(tmp_path, config, {"conv": np.ones((1, 1, 3, 2))}))
            return network_lipschitz(model).links[-1].constant

        assert_allclose(resized(interpolation="nearest"), 2.0, rtol=LINK)
        half = np.clip((np.arange(8) + 0.5) / 2 - 0.5, 0, 3)
        plain = np.clip(np.arange(8) / 2, 0, 3)
        norms = [np.linalg.norm(np.maximum(1 - np.abs(p[:, None] - np.arange(4)), 0), 2) for p in (half, plain)]
        assert_allclose(resized(), max(norms) ** 2, rtol=1e-3)  # bilinear, in both readings that Keras had
        for strange in ({"interpolation": "bicubic"}, {"crop_to_aspect_ratio": True}, {"antialias": True}):
            with pytest.raises(NotApplicableError, match="'r'"):
                resized(**strange)

    @pytest.mark.usefixtures("quick")
    def test_keras_layers_from_somewhere_else_are_refused(self, tmp_path: Path) -> None:
        from test_models_keras import layer as keras_layer
        from test_models_keras import save, sequential

        for strange in (
            keras_layer("Abs", "odd"),
            keras_layer("Activation", "odd", activation="Tanh"),
            keras_layer("ReLU", "odd", threshold=1.0),
        ):
            config = sequential(keras_layer("Conv2D", "conv", filters=2, kernel_size=1), strange)
            model = read_model(save(tmp_path, config, {"conv": np.ones((1, 1, 3, 2))}))
            with pytest.raises(NotApplicableError, match="'odd'"):
                network_lipschitz(model)


def test_the_result_is_what_it_says() -> None:
    found = network_lipschitz([ConvOperator(np.eye(2)[None, None], (3, 3))])
    assert isinstance(found, NetworkLipschitz)
    with pytest.raises(AttributeError):
        found.value = 1.0  # type: ignore[misc]
