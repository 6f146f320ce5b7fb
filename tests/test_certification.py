"""Certified radii against attacks and exact arithmetic; sorting and downsampling against loops and Jacobians."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from tolerances import ENCLOSED, JACOBIAN, LINK, ORTHONORMAL, RADIUS

from spectral_conv import ConvOperator, NotApplicableError, bounds, orthogonal, spectral_norm
from spectral_conv.certification import (
    NetworkLipschitz,
    certified_accuracy,
    certified_radius,
    downsampling_operator,
    group_sort,
    invertible_downsampling,
    invertible_upsampling,
    margins,
    max_min,
    network_lipschitz,
)
from spectral_conv.graph import Graph, Node
from spectral_conv.models import ConvLayer

Array = NDArray[np.float64]
Pull = Callable[[Array], Array]


@dataclass(kw_only=True)
class Net:
    """A network as a graph for `network_lipschitz`, and as maps of batches with their derivatives."""

    shape: tuple[int, ...]  # (channels, *spatial) of the value written last
    layers: list[ConvLayer] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    matrices: dict[str, Array] = field(default_factory=dict)
    biases: dict[str, Array] = field(default_factory=dict)
    value: str = "x"

    def then(self, op: str, *reads: str, weights: tuple[str, ...] = (), **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.shapes[name] = self.shape
        self.nodes.append(
            Node(
                name=name,
                op=op,
                inputs=reads or (self.value,),
                outputs=(name,),
                weights=weights,
                attributes=attributes,
            )
        )
        self.value = name
        return name

    def conv(self, conv: ConvOperator, op: str = "Conv", *, bias: Array | None = None) -> str:
        name = f"w{len(self.layers)}"
        self.matrices[name] = conv.to_dense()
        if bias is not None:
            self.biases[name] = bias
        self.layers.append(
            ConvLayer(name=name, operator=conv, assumed=(), kernel_shape=conv.kernel.shape, layout="HWIO")
        )
        self.shape = (conv.out_channels, *conv.output_shape)
        geometry = conv.geometry
        attributes: dict[str, Any] = {
            "strides": geometry.stride,
            "dilations": geometry.dilation,
            "pads": (*(before for before, _ in geometry.padding), *(after for _, after in geometry.padding)),
        }
        weights = (name,) if bias is None else (name, f"bias of {name}")
        return self.then(op, weights=weights, **attributes if op == "Conv" else {})

    def head(self, matrix: Array, *, bias: Array | None = None) -> None:
        """Logits: `matrix` times the flattened value."""
        self.then("Flatten")
        self.conv(ConvOperator(matrix.T[None, None], (1, 1), padding=0), "Gemm", bias=bias)

    def lipschitz(self) -> NetworkLipschitz:
        graph = Graph(nodes=tuple(self.nodes), inputs=("x",), outputs=(self.value,), shapes=self.shapes)
        return network_lipschitz(SimpleNamespace(graph=graph, layers=tuple(self.layers), constants={}))

    def forward(self, x: Array) -> tuple[Array, Pull]:
        """Logits of a batch, and the map from derivatives by them to derivatives by the batch."""
        values, pulls = {"x": x}, []
        for node in self.nodes:
            values[node.outputs[0]], pull = self._apply(node, [values[name] for name in node.inputs])
            pulls.append(pull)

        def backward(cotangent: Array) -> Array:
            found = {self.value: cotangent}
            for node, pull in zip(reversed(self.nodes), reversed(pulls), strict=True):
                back = pull(found[node.outputs[0]])
                for name in node.inputs:
                    found[name] = found.get(name, 0.0) + back
            return found["x"]

        return values[self.value].reshape(len(x), -1), backward

    def _apply(self, node: Node, read: list[Array]) -> tuple[Array, Pull]:
        x = read[0]
        if node.op in ("Conv", "Gemm"):
            M = self.matrices[node.weights[0]]
            conv = next(layer.operator for layer in self.layers if layer.name == node.weights[0])
            y = (x.reshape(len(x), -1) @ M.T).reshape(len(x), conv.out_channels, *conv.output_shape)
            if node.weights[0] in self.biases:
                y = y + self.biases[node.weights[0]][:, None, None]
            return y, lambda g: (g.reshape(len(x), -1) @ M).reshape(x.shape)
        if node.op == "Relu":
            return np.maximum(x, 0.0), lambda g: g * (x > 0.0)
        if node.op == "MaxMin":
            return max_min(x), lambda g: unsorted(x, g, 2, -1.0)
        if node.op == "GroupSort":
            size = node.attributes["size"]
            return group_sort(x, size), lambda g: unsorted(x, g, size, 1.0)
        if node.op == "SpaceToDepth":
            return invertible_downsampling(x, 2), lambda g: invertible_upsampling(g, 2)
        if node.op == "Flatten":
            return x.reshape(len(x), -1), lambda g: g.reshape(x.shape)
        assert node.op == "Add"
        return read[0] + read[1], lambda g: g


def unsorted(x: Array, g: Array, size: int, sign: float) -> Array:
    """The derivative of sorting groups of channels: entries go back to where they came from."""
    groups = np.moveaxis(x, 1, -1)
    grouped = groups.reshape(*groups.shape[:-1], -1, size)
    moved = np.moveaxis(g.reshape(x.shape), 1, -1).reshape(grouped.shape)
    result = np.empty_like(grouped)
    np.put_along_axis(result, np.argsort(sign * grouped, axis=-1, kind="stable"), moved, axis=-1)
    return np.moveaxis(result.reshape(groups.shape), -1, 1)


BLOCKS = ("zeros", "circular", "stride", "residual", "down", "down operator", "valid")
ACTIVATIONS = ("Relu", "MaxMin", "GroupSort")


def random_net(rng: np.random.Generator, blocks: list[str], activations: list[str], classes: int) -> Net:
    net = Net(shape=(2, 4, 4), shapes={"x": (2, 4, 4)})
    for block, activation in zip(blocks, itertools.cycle(activations), strict=False):
        channels, *size = net.shape
        even = size[0] % 2 == 0 and channels <= 8
        if block in ("down", "down operator") and even:
            if block == "down":
                net.shape = (4 * channels, size[0] // 2, size[1] // 2)
                net.then("SpaceToDepth", blocksize=2)
            else:
                net.conv(downsampling_operator(channels, size, 2))
            continue
        if block == "residual":
            read = net.value
            net.conv(random_conv(rng, net, channels, padding_mode="zeros"))
            net.then(activation, **({"size": 2} if activation == "GroupSort" else {}))
            inner = net.conv(random_conv(rng, net, channels, padding_mode="circular"))
            net.then("Add", read, inner)
            continue
        options: dict[str, Any] = {"padding_mode": "circular" if block == "circular" else "zeros"}
        if block == "stride" and even:
            options["stride"] = 2
        if block == "valid" and size[0] >= 3:
            options["padding"] = "valid"
        out = int(rng.choice([2, 4, 6]))
        net.conv(random_conv(rng, net, out, **options), bias=rng.standard_normal(out))
        net.then(activation, **({"size": 2} if activation == "GroupSort" else {}))
    net.head(rng.standard_normal((classes, math.prod(net.shape))), bias=rng.standard_normal(classes))
    return net


def random_conv(rng: np.random.Generator, net: Net, out: int, **options: Any) -> ConvOperator:
    channels, *size = net.shape
    # As one-hot as it is dense: where all entries are alike the product of norms is far from the truth.
    kernel = rng.standard_normal((min(3, size[0]), min(3, size[1]), channels, out)) ** 3
    return ConvOperator(kernel, size, **options)


def attacked(net: Net, x: Array, radius: float, steps: int, rng: np.random.Generator) -> Array:
    """The least margin of the class of `x` that projected gradient steps find within `radius`, for every rival."""
    logits, _ = net.forward(x[None])
    top, classes = int(logits.argmax()), logits.shape[1]
    rivals = np.repeat([j for j in range(classes) if j != top], 2)
    rows = np.arange(len(rivals))
    moves = rng.standard_normal((len(rivals), *x.shape))
    moves[::2] = 0.0  # one start at the sample, one on the sphere
    moves *= radius / np.maximum(lengths(moves), 1e-300)
    least = np.inf
    for _ in range(steps + 1):
        logits, backward = net.forward(x + moves)
        least = min(least, margins(logits, np.full(len(rivals), top)).min())
        cotangent = np.zeros_like(logits)
        cotangent[rows, rivals], cotangent[:, top] = 1.0, -1.0
        slope = backward(cotangent)
        # The first step reaches the sphere: where the margin is linear it is the strongest attack there is.
        moves = moves + 2.0 * radius * slope / np.maximum(lengths(slope), 1e-300)
        moves = moves * np.minimum(1.0, radius / np.maximum(lengths(moves), 1e-300))
    return np.float64(least)


def lengths(batch: Array) -> Array:
    return np.sqrt((batch**2).sum(axis=tuple(range(1, batch.ndim)), keepdims=True))


@settings(max_examples=200)
@given(
    blocks=st.lists(st.sampled_from(BLOCKS), max_size=4),
    activations=st.lists(st.sampled_from(ACTIVATIONS), min_size=1, max_size=2),
    classes=st.integers(2, 4),
    seed=st.integers(0, 2**31),
)
@example(blocks=["down"], activations=["Relu"], classes=2, seed=0)
@example(blocks=["residual", "down operator"], activations=["MaxMin"], classes=3, seed=1)
def test_no_attack_contradicts_a_certified_radius(
    blocks: list[str], activations: list[str], classes: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    net = random_net(rng, blocks, activations, classes)
    found = net.lipschitz()
    assert found.kind == "upper"
    x = rng.standard_normal((2, 4, 4))
    radius = float(certified_radius(net.forward(x[None])[0][0], found))
    assert radius > 0.0
    assert attacked(net, x, radius * (1.0 - 1e-9), 12, rng) > 0.0


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_attack_follows_the_true_gradients(activation: str) -> None:
    rng = np.random.default_rng(4)
    net = random_net(rng, ["circular", "residual", "down", "valid", "stride"], [activation], 3)
    x, cotangent = rng.standard_normal((1, 2, 4, 4)), rng.standard_normal((1, 3))
    slope = jacobian(lambda z: net.forward(z)[0], x)
    assert_allclose(net.forward(x)[1](cotangent).ravel(), (cotangent @ slope).ravel(), rtol=JACOBIAN, atol=JACOBIAN)


def test_the_same_attack_succeeds_where_the_certificate_ends() -> None:
    broken = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        net = random_net(rng, ["zeros", "residual", "down"], list(ACTIVATIONS[seed % 3 :]), 3)
        x = rng.standard_normal((2, 4, 4))
        radius = float(certified_radius(net.forward(x[None])[0][0], net.lipschitz()))
        broken.append(attacked(net, x, 30.0 * radius, 12, rng) < 0.0)
    assert sum(broken) >= 15


def isometry(rng: np.random.Generator, activation: str | None) -> Net:
    """Layers that keep lengths, then the logits ``(w x, -w x)``, for which ``||w_1 - w_2|| = sqrt(2) ||W||``."""
    net = Net(shape=(2, 4, 4), shapes={"x": (2, 4, 4)})
    for size in (4, 2):
        channels = net.shape[0]
        kernel = orthogonal.sample_bcop(2, channels, channels, rng=rng)
        net.conv(ConvOperator(kernel, (size, size), padding_mode="circular"))
        if activation is not None:
            net.then(activation, **({"size": 2} if activation == "GroupSort" else {}))
        if size == 4:
            net.conv(downsampling_operator(channels, (4, 4), 2))
    row = rng.standard_normal((1, math.prod(net.shape)))
    net.head(np.concatenate([row, -row]))
    return net


@pytest.mark.parametrize("seed", range(5))
def test_the_radius_is_the_largest_one_for_two_opposite_linear_logits(seed: int) -> None:
    rng = np.random.default_rng(seed)
    net = isometry(rng, None)
    x = rng.standard_normal((2, 4, 4))
    radius = float(certified_radius(net.forward(x[None])[0][0], net.lipschitz()))
    assert attacked(net, x, radius * (1.0 - 1e-9), 2, rng) > 0.0
    assert attacked(net, x, radius * (1.0 + ENCLOSED), 2, rng) < 0.0


@pytest.mark.parametrize("activation", ["MaxMin", "GroupSort", "Relu"])
def test_the_slope_of_the_margin_reaches_its_bound_where_sorting_keeps_gradients(activation: str) -> None:
    rng = np.random.default_rng(3)
    net = isometry(rng, activation)
    _, backward = net.forward(rng.standard_normal((4, 2, 4, 4)))
    slopes = lengths(backward(np.tile([1.0, -1.0], (4, 1)))).ravel() / (math.sqrt(2.0) * net.lipschitz().value)
    assert (slopes <= 1.0 + LINK).all()
    if activation == "Relu":
        assert (slopes < 0.9).all()
    else:
        assert_allclose(slopes, 1.0, rtol=ENCLOSED)


def test_a_chain_of_operators_and_the_graph_say_the_same() -> None:
    net = random_net(np.random.default_rng(0), ["zeros", "down operator", "circular"], ["MaxMin"], 3)
    chain = network_lipschitz([layer.operator for layer in net.layers])
    assert_allclose(chain.value, net.lipschitz().value, rtol=LINK)
    assert_array_equal(certified_radius([2.0, 0.0], chain), certified_radius([2.0, 0.0], chain.value))


FINITE = st.floats(allow_nan=False, allow_infinity=False)


class TestCertifiedRadius:
    @settings(max_examples=300)
    @given(logits=st.lists(FINITE, min_size=2, max_size=5), lipschitz=st.floats(min_value=5e-324, allow_nan=False))
    @example(logits=[1e308, -1e308], lipschitz=1.0)
    @example(logits=[1e308, 1.0], lipschitz=5e-324)
    @example(logits=[5e-324, 0.0], lipschitz=1.0)
    @example(logits=[3.0, 1.0], lipschitz=math.inf)
    def test_it_is_never_above_the_exact_quotient(self, logits: list[float], lipschitz: float) -> None:
        radius = float(certified_radius(logits, lipschitz))
        first, second = sorted(map(Fraction, logits), reverse=True)[:2]
        if math.isinf(lipschitz):
            assert radius == 0.0
            return
        assert 0.0 <= radius < math.inf
        assert 2 * (Fraction(radius) * Fraction(lipschitz)) ** 2 <= (first - second) ** 2

    def test_it_loses_nothing_but_rounding(self) -> None:
        rng = np.random.default_rng(0)
        logits, constants = rng.standard_normal((200, 4)), rng.uniform(0.1, 100.0, 200)
        ordered = np.sort(logits, axis=-1)
        truth = (ordered[:, -1] - ordered[:, -2]) / (math.sqrt(2.0) * constants)
        found = [float(certified_radius(row, constant)) for row, constant in zip(logits, constants, strict=True)]
        assert_allclose(found, truth, rtol=RADIUS)

    def test_shapes_types_and_single_precision(self) -> None:
        logits = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
        found = certified_radius(logits, 2.0)
        assert (found.shape, found.dtype) == ((2, 3), np.float64)
        for i, j in itertools.product(range(2), range(3)):
            assert found[i, j] == certified_radius(logits[i, j].tolist(), 2)
        assert certified_radius([1, 0], 1).shape == ()
        assert certified_radius(np.empty((0, 3)), 1.0).shape == (0,)

    def test_a_constant_network(self) -> None:
        assert_array_equal(certified_radius([[1.0, 0.0], [1.0, 1.0]], 0.0), [math.inf, 0.0])
        constant = NetworkLipschitz(value=0.0, kind="upper", links=(), critical=(), notes=())
        assert certified_radius([1.0, 0.0], constant) == math.inf

    def test_an_estimate_certifies_nothing(self) -> None:
        conv = ConvOperator(np.eye(2)[None, None], (3, 3))
        guess = network_lipschitz([conv], bounds=bounds.power_iteration)
        message = r"`lipschitz` must be a proved upper bound; got an estimate \(link '0': .*\)\. .*pass its `.value`"
        with pytest.raises(NotApplicableError, match=message):
            certified_radius([1.0, 0.0], guess)
        with pytest.raises(NotApplicableError, match=message):
            certified_accuracy([[1.0, 0.0]], [0], guess, 0.1)
        assert certified_radius([1.0, 0.0], guess.value) > 0.0

    @pytest.mark.parametrize("lipschitz", [-1.0, math.nan, True, "1", None, [1.0], 1j])
    def test_a_constant_that_is_none(self, lipschitz: Any) -> None:
        with pytest.raises(ValueError, match=r"`lipschitz` must be a number of at least 0 or a Network"):
            certified_radius([1.0, 0.0], lipschitz)

    @pytest.mark.parametrize("logits", [1.0, [1.0], [[1.0], [2.0]], [1j, 0.0], ["a", "b"], [True, False], []])
    def test_logits_that_are_none(self, logits: Any) -> None:
        with pytest.raises(ValueError, match=r"`logits` must be a real array \(..., classes\) with two classes"):
            certified_radius(logits, 1.0)

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_logits_that_are_not_finite(self, bad: float) -> None:
        with pytest.raises(ValueError, match=r"`logits` must be finite; got 1 NaN or infinite"):
            certified_radius([[1.0, bad, 0.0], [1.0, 2.0, 3.0]], 1.0)


class TestMarginsAndAccuracy:
    @settings(max_examples=50)
    @given(seed=st.integers(0, 2**31), classes=st.integers(2, 5), samples=st.integers(1, 20))
    def test_against_loops(self, seed: int, classes: int, samples: int) -> None:
        rng = np.random.default_rng(seed)
        logits, labels = rng.integers(-3, 4, (samples, classes)) / 2.0, rng.integers(0, classes, samples)
        naive = [
            row[label] - max(entry for j, entry in enumerate(row) if j != label)
            for row, label in zip(logits, labels, strict=True)
        ]
        assert_array_equal(margins(logits, labels), naive)
        radii = np.array([0.0, 0.1, 0.25, 0.5, 1.0, 2.0])
        shares = certified_accuracy(logits, labels, 0.7, radii)
        truth = [
            sum(margin > 0 and (r == 0 or margin > math.sqrt(2.0) * 0.7 * r) for margin in naive) / samples
            for r in radii
        ]
        assert_array_equal(shares, truth)
        assert (np.diff(shares) <= 0.0).all()
        assert shares[0] == np.mean(np.array(naive) > 0.0)
        assert [certified_accuracy(logits, labels, 0.7, float(r)) for r in radii] == shares.tolist()

    def test_a_tie_is_wrong_and_the_radius_itself_is_not_certified(self) -> None:
        logits, labels = np.array([[1.0, 1.0, 0.0], [2.0, 0.0, 1.0]]), np.array([0, 0])
        assert certified_accuracy(logits, labels, 1.0, 0.0) == 0.5
        edge = float(certified_radius(logits[1], 1.0))
        assert certified_accuracy(logits, labels, 1.0, edge) == 0.0
        assert certified_accuracy(logits, labels, 1.0, math.nextafter(edge, 0.0)) == 0.5

    def test_what_is_wrong_is_never_certified_however_sure(self) -> None:
        assert certified_accuracy([[9.0, 0.0]], [1], 0.0, [0.0, 1.0]).tolist() == [0.0, 0.0]
        assert certified_accuracy([[9.0, 0.0]], [0], 0.0, [0.0, 1e300]).tolist() == [1.0, 1.0]

    def test_at_radius_0_no_constant_matters(self) -> None:
        assert certified_accuracy([[1.0, 0.0]], [0], math.inf, [0.0, 5e-324]).tolist() == [1.0, 0.0]
        assert certified_accuracy([[5e-324, 0.0]], [0], 1.0, 0) == 1.0

    def test_leading_axes_and_shapes_of_radii(self) -> None:
        logits = np.random.default_rng(0).standard_normal((4, 5, 3))
        labels = logits.argmax(axis=-1)
        radii = np.array([[0.0, 0.1], [0.2, 0.9]])
        shares = certified_accuracy(logits, labels, 1.0, radii)
        assert shares.shape == (2, 2)
        assert_array_equal(shares, certified_accuracy(logits.reshape(20, 3), labels.ravel(), 1.0, radii))
        assert type(certified_accuracy(logits, labels, 1.0, 0.1)) is float

    def test_mistakes(self) -> None:
        logits = np.eye(3)
        with pytest.raises(ValueError, match=r"`labels` must be integers of the shape \(3,\), .*got shape \(2,\)"):
            margins(logits, [0, 1])
        with pytest.raises(ValueError, match=r"`labels` must be integers .*dtype float64.*one-hot rows take"):
            margins(logits, [0.0, 1.0, 2.0])
        with pytest.raises(ValueError, match=r"`labels` must lie between 0 and 2 for 3 classes; got 3"):
            certified_accuracy(logits, [0, 1, 3], 1.0, 0.1)
        with pytest.raises(ValueError, match=r"`labels` must lie between 0 and 2 for 3 classes; got -1"):
            margins(logits, [0, -1, 2])
        for radius in (-0.1, math.nan, math.inf, [0.1, -1.0], "0.1"):
            with pytest.raises(ValueError, match=r"`radius` must be finite and at least 0; got"):
                certified_accuracy(logits, [0, 1, 2], 1.0, radius)  # type: ignore[call-overload]
        with pytest.raises(ValueError, match=r"`logits` must have one sample at least; got none"):
            certified_accuracy(np.empty((0, 3)), np.empty(0, int), 1.0, 0.1)
        with pytest.raises(ValueError, match=r"`lipschitz` must be a number"):
            certified_accuracy(logits, [0, 1, 2], -1.0, 0.1)


def jacobian(function: Callable[[Array], Array], x: Array) -> Array:
    h = 1e-6
    columns = [
        (function(x + h * e.reshape(x.shape)) - function(x - h * e.reshape(x.shape))).ravel() / (2.0 * h)
        for e in np.eye(x.size)
    ]
    return np.array(columns).T


def stated(op: str, **attributes: Any) -> float:
    net = Net(shape=(6,))
    net.then(op, **attributes)
    return net.lipschitz().value


class TestSorting:
    @settings(max_examples=60)
    @given(
        shape=st.lists(st.integers(1, 4), min_size=1, max_size=4),
        size=st.integers(1, 4),
        data=st.data(),
        seed=st.integers(0, 2**31),
    )
    def test_against_loops(self, shape: list[int], size: int, data: st.DataObject, seed: int) -> None:
        axis = data.draw(st.integers(-len(shape), len(shape) - 1))
        shape[axis] *= size
        x = np.random.default_rng(seed).integers(0, 5, shape).astype(np.float32)
        before, found = x.copy(), group_sort(x, size, axis)
        assert (found.dtype, found.shape) == (x.dtype, x.shape)
        rows = np.moveaxis(found, axis, -1).reshape(-1, shape[axis])
        naive = [
            [v for i in range(0, shape[axis], size) for v in sorted(row[i : i + size].tolist())]
            for row in np.moveaxis(x, axis, -1).reshape(-1, shape[axis])
        ]
        assert_array_equal(rows, naive)
        assert_array_equal(x, before)

    def test_max_min_is_the_maximum_then_the_minimum_of_neighbours(self) -> None:
        x = np.random.default_rng(0).standard_normal((3, 6, 2, 2))
        found = max_min(x)
        for i in range(3):
            assert_array_equal(found[:, 2 * i], np.maximum(x[:, 2 * i], x[:, 2 * i + 1]))
            assert_array_equal(found[:, 2 * i + 1], np.minimum(x[:, 2 * i], x[:, 2 * i + 1]))
        assert_array_equal(max_min(x[0], axis=0), found[0])
        assert_array_equal(np.sort(found.reshape(3, 3, 2, 2, 2), axis=2).reshape(x.shape), group_sort(x, 2))

    @pytest.mark.parametrize(
        ("op", "function"),
        [
            ("MaxMin", lambda x: max_min(x, 0)),
            ("GroupSort", lambda x: group_sort(x, 3, 0)),
            ("GroupSort", lambda x: group_sort(x, 6, 0)),
        ],
        ids=["pairs", "threes", "all"],
    )
    def test_jacobians_are_permutations_and_the_constant_is_1(self, op: str, function: Any) -> None:
        J = jacobian(function, np.random.default_rng(1).standard_normal((6, 2))).round(6)
        assert_array_equal(np.sort(J, axis=0), np.sort(np.eye(12), axis=0))
        assert_array_equal(J @ J.T, np.eye(12))
        assert stated(op) == np.linalg.norm(J, 2) == 1.0

    def test_relu_drops_gradients(self) -> None:
        x = np.random.default_rng(1).standard_normal(12)
        values = np.linalg.svd(jacobian(lambda z: np.maximum(z, 0.0), x), compute_uv=False)
        assert_allclose(values[0], stated("Relu"), rtol=JACOBIAN)
        assert values[-1] == 0.0

    @settings(max_examples=60)
    @given(pair=st.lists(st.lists(st.floats(-9, 9), min_size=12, max_size=12), min_size=2, max_size=2))
    def test_no_pair_moves_apart(self, pair: list[list[float]]) -> None:
        x, y = np.array(pair)
        for size in (2, 3, 4, 12):
            far = np.linalg.norm(group_sort(x, size, 0) - group_sort(y, size, 0))
            assert far <= np.linalg.norm(x - y) * (1.0 + ORTHONORMAL)

    def test_mistakes(self) -> None:
        x = np.zeros((2, 6, 3))
        with pytest.raises(ValueError, match=r"`x` must have a multiple of 4 entries along axis 1.*got 6"):
            group_sort(x, 4)
        with pytest.raises(ValueError, match=r"`x` must have a multiple of 2 entries along axis -1.*got 3"):
            max_min(x, -1)
        with pytest.raises(ValueError, match=r"`size` must be an integer of at least 1; got 0"):
            group_sort(x, 0)
        for axis in (3, -4, 1.0):
            with pytest.raises(ValueError, match=r"`axis` must be one of the 3 axes of `x`; got"):
                max_min(x, axis)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"`x` must be real; got dtype complex128"):
            max_min(x * 1j)


@st.composite
def images(draw: st.DrawFn) -> tuple[Array, tuple[int, ...]]:
    ndim = draw(st.integers(1, 3))
    factors = tuple(draw(st.integers(1, 3)) for _ in range(ndim))
    sizes = [f * draw(st.integers(1, 3 if ndim < 3 else 2)) for f in factors]
    shape = (draw(st.integers(1, 3)), *sizes)
    return np.random.default_rng(draw(st.integers(0, 2**31))).standard_normal(shape), factors


class TestInvertibleDownsampling:
    @settings(max_examples=60)
    @given(case=images())
    def test_against_loops_its_inverse_and_the_operator(self, case: tuple[Array, tuple[int, ...]]) -> None:
        x, factors = case
        y = invertible_downsampling(x, factors)
        block = math.prod(factors)
        for channel in range(len(x)):
            for a, place in enumerate(itertools.product(*map(range, factors))):
                naive = x[(channel, *(slice(i, None, f) for i, f in zip(place, factors, strict=True)))]
                assert_array_equal(y[channel * block + a], naive)
        assert_array_equal(invertible_upsampling(y, factors), x)
        batch = np.stack([x, -x])
        assert_array_equal(invertible_downsampling(batch, factors), np.stack([y, -y]))
        assert_array_equal(invertible_upsampling(np.stack([y, -y])[None], factors), batch[None])
        conv = downsampling_operator(len(x), x.shape[1:], factors)
        assert (conv.out_channels, *conv.output_shape) == y.shape
        assert_array_equal(conv @ x.ravel(), y.ravel())
        assert_array_equal(conv.H @ y.ravel(), x.ravel())

    @pytest.mark.parametrize(
        ("sizes", "factor"), [((6,), 3), ((4, 6), 2), ((6, 6), (3, 2)), ((4, 4, 2), 2), ((3, 3), 1)]
    )
    def test_it_is_a_permutation_of_norm_1(self, sizes: tuple[int, ...], factor: Any) -> None:
        conv = downsampling_operator(3, sizes, factor)
        M = conv.to_dense()
        assert_array_equal(M @ M.T, np.eye(len(M)))
        assert spectral_norm(conv).value == 1.0
        assert orthogonal.is_orthogonal(conv)
        assert_allclose(network_lipschitz([conv]).value, 1.0, rtol=LINK)
        x = np.arange(3.0 * math.prod(sizes)).reshape(3, *sizes)
        assert_array_equal(conv @ x.ravel(), invertible_downsampling(x, factor, ndim=len(sizes)).ravel())
        assert stated("SpaceToDepth", blocksize=2) == 1.0

    def test_a_stride_is_a_downsampling_before_a_convolution(self) -> None:
        rng = np.random.default_rng(0)
        K = rng.standard_normal((2, 2, 3, 5))
        strided = ConvOperator(K, (6, 6), stride=2, padding=0)
        # Taps (a, b) of input channel c read channel 4 c + 2 a + b of the image with half the size.
        mixed = ConvOperator(K.transpose(2, 0, 1, 3).reshape(1, 1, 12, 5), (3, 3))
        x = rng.standard_normal((3, 6, 6))
        assert_allclose(mixed @ invertible_downsampling(x, 2).ravel(), strided @ x.ravel(), rtol=LINK)

    def test_other_types_keep_theirs(self) -> None:
        x = np.arange(8, dtype=np.uint8).reshape(1, 8)
        y = invertible_downsampling(x, 2, ndim=1)
        assert (y.dtype, y.tolist()) == (np.uint8, [[0, 2, 4, 6], [1, 3, 5, 7]])

    def test_mistakes(self) -> None:
        x = np.zeros((2, 4, 6))
        with pytest.raises(ValueError, match=r"`factor` must divide the spatial sizes \(4, 6\) that `x` states"):
            invertible_downsampling(x, 4)
        with pytest.raises(ValueError, match=r"`factor` must divide the spatial sizes \(5, 6\) that `input_shape`"):
            downsampling_operator(2, (5, 6), 2)
        with pytest.raises(ValueError, match=r"`y` must have a multiple of 4 channels.*got 2"):
            invertible_upsampling(x, 2)
        with pytest.raises(ValueError, match=r"`x` must have channels before its 3 spatial axes; got shape"):
            invertible_downsampling(x, 2, ndim=3)
        with pytest.raises(ValueError, match=r"`y` must have channels before its 2 spatial axes"):
            invertible_upsampling(x[0], 2)
        with pytest.raises(ValueError, match=r"`ndim` must stand for 1 to 3 spatial axes; got 4"):
            invertible_downsampling(x, 2, ndim=4)
        with pytest.raises(ValueError, match=r"`factor` must stand for 1 to 3 spatial axes; got 4"):
            invertible_downsampling(x, (1, 1, 1, 1))
        with pytest.raises(ValueError, match=r"`input_shape` must stand for 1 to 3 spatial axes; got 0"):
            downsampling_operator(2, (), 2)
        with pytest.raises(ValueError, match=r"`factor` must be an integer of at least 1; got 0"):
            invertible_downsampling(x, 0)
        with pytest.raises(ValueError, match=r"`factor` must be an int or 2 ints"):
            downsampling_operator(2, (4, 4), (2, 2, 2))


def test_the_example_of_the_documentation_runs(capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[1] / "docs" / "certificates.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    (shown,) = re.findall(r"```text\n(.*?)```", text, flags=re.DOTALL)
    exec(compile(block, "docs/certificates.md", "exec"), {})
    assert capsys.readouterr().out == shown
