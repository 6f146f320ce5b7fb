"""Penalties in PyTorch: values of the NumPy side, derivatives of both orders, sums over a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import operators
from hypothesis import given, settings
from tolerances import TORCH

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from torch_layers import nn, options_of, weight_of  # noqa: E402

import spectral_conv.torch as sct  # noqa: E402
from spectral_conv import ConvOperator, bounds, regularizers  # noqa: E402
from spectral_conv.results import NotApplicableError  # noqa: E402
from spectral_conv.torch._plain_convolution import PlainConvolution  # noqa: E402

# Penalty in PyTorch, its options, and the same in NumPy.
POLYNOMIAL: list[tuple[Any, dict[str, Any], Any]] = [
    (sct.frobenius, {}, regularizers.Frobenius().value),
    (sct.orthogonality_gap, {}, regularizers.OrthogonalityGap().value),
    (sct.orthogonality_gap, {"alpha": 0.3}, regularizers.OrthogonalityGap(0.3).value),
]
BOUNDS: list[tuple[Any, dict[str, Any], Any]] = [
    (sct.lipbound, {}, lambda conv: bounds.lipbound(conv).value),
    (sct.lipbound, {"version": "inputs"}, lambda conv: bounds.lipbound(conv, version="inputs").value),
    (sct.lipbound, {"version": "frobenius"}, lambda conv: bounds.lipbound(conv, version="frobenius").value),
    (sct.gram, {}, lambda conv: bounds.gram(conv).value),
    (sct.gram, {"steps": 2}, lambda conv: bounds.gram(conv, steps=2).value),
    (sct.gram, {"domain": "frequencies"}, lambda conv: bounds.gram(conv, domain="frequencies").value),
]
EXTREMES: list[tuple[Any, dict[str, Any], Any]] = [
    (sct.spectral_norm, {"rtol": 1e-11}, lambda conv: regularizers.SpectralNorm(rtol=1e-11).value(conv)),
    (
        sct.smallest_singular_value,
        {"rtol": 1e-11},
        lambda conv: -regularizers.SmallestSingularValue(rtol=1e-11).value(conv),
    ),
]


def assert_close(found: Any, wanted: float, dtype: str, scale: float = 1e-3) -> None:
    assert abs(float(found.detach()) - wanted) <= TORCH[dtype] * max(abs(wanted), scale)


@settings(max_examples=40)
@given(conv=operators())
def test_plain_convolution_and_its_adjoint_are_the_matrix(conv: ConvOperator) -> None:
    plain, weight, M = PlainConvolution(conv.geometry), weight_of(conv), conv.to_dense()
    P = M.T if conv.geometry.transposed else M
    x = torch.randn(2, *plain.input_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.randn(2, *plain.output_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    image = plain.apply(x, weight)
    np.testing.assert_allclose(image.flatten(1), x.flatten(1).numpy() @ P.T, atol=1e-11)
    np.testing.assert_allclose(plain.adjoint(y, weight).flatten(1), y.flatten(1).numpy() @ P, atol=1e-11)
    along = float((plain.weight_gradient(y, x) * weight).sum())
    assert along == pytest.approx(float((y * image).sum()), rel=1e-10, abs=1e-10)


@settings(max_examples=40)
@given(conv=operators())
def test_values_are_those_of_numpy(conv: ConvOperator) -> None:
    weight, options = weight_of(conv), options_of(conv)
    for penalty, own, reference in POLYNOMIAL:
        assert_close(penalty(weight, conv.input_shape, **own, **options), reference(conv), "float64")
    for penalty, own, reference in BOUNDS if conv.geometry.read_taps.any() else []:
        try:
            wanted = reference(conv)
        except NotApplicableError:
            with pytest.raises(NotApplicableError):
                penalty(weight, conv.input_shape, **own, **options)
        else:
            assert_close(penalty(weight, conv.input_shape, **own, **options), wanted, "float64")


@pytest.mark.parametrize(
    "layer",
    [
        {},
        {"stride": 2, "padding": 1},
        {"padding_mode": "circular"},
        {"groups": 2},
        {"dilation": 2},
        {"transposed": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_values_of_both_precisions(layer: dict[str, Any], dtype: str) -> None:
    rng = np.random.default_rng(0)
    shape = (3, 3, 4 // layer.get("groups", 1), 6)
    conv = ConvOperator(rng.standard_normal(shape).astype(dtype), (8, 8), **layer)
    weight = weight_of(conv, getattr(torch, dtype))
    for penalty, own, reference in [*POLYNOMIAL, *BOUNDS, *EXTREMES]:
        found = penalty(weight, (8, 8), **own, **options_of(conv))
        assert found.dtype == weight.dtype
        # Singular values are found to a share of the largest; bounds in NumPy hold a margin for rounding.
        norm = float(sct.spectral_norm(weight, (8, 8), **options_of(conv)))
        assert_close(found, reference(conv), dtype, scale=(20.0 if penalty is sct.gram else 1.0) * norm)


GEOMETRIES: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((2, 2, 3, 3), (5, 5), {}),
    ((2, 1, 3, 3), (6, 6), {"stride": 2, "padding": 1, "groups": 2}),
    ((3, 2, 3), (6,), {"padding_mode": "circular"}),
    ((2, 3, 2, 2), (3, 3), {"transposed": True, "stride": 2, "padding": 0}),
]


@pytest.mark.parametrize(("shape", "size", "layer"), GEOMETRIES, ids=str)
@pytest.mark.parametrize(
    ("penalty", "own"),
    [
        (sct.frobenius, {}),
        (sct.orthogonality_gap, {"alpha": 0.7}),
        (sct.lipbound, {}),
        (sct.lipbound, {"log": True, "version": "inputs"}),
        (sct.gram, {"steps": 2, "domain": "frequencies"}),
        (sct.gram, {"steps": 2, "domain": "pixels", "log": True}),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_derivatives_of_both_orders(
    penalty: Any, own: dict[str, Any], shape: tuple[int, ...], size: tuple[int, ...], layer: dict[str, Any]
) -> None:
    weight = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()

    def value(w: Any) -> Any:
        return penalty(w, size, **own, **layer)

    assert torch.autograd.gradcheck(value, weight, fast_mode=True)
    assert torch.autograd.gradgradcheck(value, weight, fast_mode=True)


@pytest.mark.parametrize(("shape", "size", "layer"), GEOMETRIES, ids=str)
@pytest.mark.parametrize("penalty", [sct.spectral_norm, sct.smallest_singular_value])
def test_derivatives_of_singular_values_of_both_orders(
    penalty: Any, shape: tuple[int, ...], size: tuple[int, ...], layer: dict[str, Any]
) -> None:
    weight = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()

    def value(w: Any) -> Any:
        return penalty(w, size, **layer)

    assert torch.autograd.gradcheck(value, weight, atol=1e-5, fast_mode=True)
    assert torch.autograd.gradgradcheck(value, weight, atol=1e-5, fast_mode=True)


@pytest.mark.parametrize(("kernel", "size", "stride"), [((3, 3), (6, 6), 1), ((5, 4), (7, 6), 2), ((2,), (5,), 1)])
def test_the_gap_of_many_layers_is_the_sum(kernel: tuple[int, ...], size: tuple[int, ...], stride: int) -> None:
    def layer() -> Any:
        kind = nn.Conv2d if len(kernel) == 2 else nn.Conv1d
        return kind(2, 2, kernel, stride=stride, padding=1, bias=False, dtype=torch.float64)

    class Parallel(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(layer() for _ in range(7))

        def forward(self, x: Any) -> Any:
            return sum(conv(x) for conv in self.layers)

    torch.manual_seed(0)
    model = Parallel()
    found = sct.regularize(model, {"orthogonality_gap": 0.5}, input_shape=(2, *size))
    weights = [conv.weight for conv in model.layers]
    wanted = sum(0.5 * sct.orthogonality_gap(w, size, stride=stride, padding=1) for w in weights)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(torch.autograd.grad(found, weights), torch.autograd.grad(wanted, weights))


def test_a_multiple_singular_value_has_no_second_derivative() -> None:
    weight = torch.eye(2, dtype=torch.float64)[..., None, None].requires_grad_()  # M = I
    slope = torch.autograd.grad(sct.spectral_norm(weight, (3, 3)), weight, create_graph=True)[0]
    with pytest.raises(NotApplicableError, match="so near to another one that its vectors turn at once"):
        (slope * torch.randn(2, 2, 1, 1, dtype=torch.float64)).sum().backward()


def test_gradients_are_those_of_numpy() -> None:
    conv = ConvOperator(np.random.default_rng(1).standard_normal((3, 3, 3, 5)), (9, 9), stride=2)
    weight = weight_of(conv).requires_grad_()
    pairs = [
        (sct.orthogonality_gap, regularizers.OrthogonalityGap()),
        (sct.spectral_norm, regularizers.SpectralNorm()),
    ]
    for penalty, reference in pairs:
        (gradient,) = torch.autograd.grad(penalty(weight, (9, 9), stride=2), weight)
        wanted = np.moveaxis(reference.value_and_grad(conv)[1], (-1, -2), (0, 1))
        np.testing.assert_allclose(gradient, wanted, atol=1e-8 * np.abs(wanted).max())


def test_half_precision_and_autocast_are_computed_in_single() -> None:
    weight = torch.randn(4, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    wanted = sct.orthogonality_gap(weight, (8, 8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert sct.orthogonality_gap(weight, (8, 8)) == wanted
    half = sct.orthogonality_gap(weight.bfloat16(), (8, 8))
    assert half.dtype == torch.float32
    assert half == sct.orthogonality_gap(weight.bfloat16().float(), (8, 8))


def test_large_kernels_take_the_sparse_sets() -> None:
    conv = ConvOperator(np.random.default_rng(0).standard_normal((60, 1, 2)), (70,), layout="WIO")
    found = sct.orthogonality_gap(weight_of(conv).requires_grad_(), (70,))
    assert_close(found, regularizers.OrthogonalityGap().value(conv), "float64")
    found.backward()


def test_regularize_sums_over_the_convolutions() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Dropout(), nn.Conv2d(4, 4, 3, padding="same"), nn.Flatten()
    ).double()
    state = torch.get_rng_state()
    found = sct.regularize(
        model, {"orthogonality_gap": (0.5, {"alpha": 2.0}), "smallest_singular_value": 3.0}, input_shape=(3, 8, 8)
    )
    assert torch.equal(state, torch.get_rng_state())
    assert model[1].training
    wanted = 0.0
    for layer, size, options in ((model[0], (8, 8), {"stride": 2, "padding": 1}), (model[2], (4, 4), {})):
        wanted += 0.5 * float(sct.orthogonality_gap(layer.weight, size, alpha=2.0, **options).detach())
        wanted -= 3.0 * float(sct.smallest_singular_value(layer.weight, size, **options).detach())
    assert float(found.detach()) == pytest.approx(wanted, rel=1e-12)
    found.backward()
    one = sct.regularize(model, {"frobenius": 1.0}, input_shape=(3, 8, 8), layers=["2"])
    assert float(one.detach()) == pytest.approx(float(sct.frobenius(model[2].weight, (4, 4)).detach()))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: sct.regularize(m, {"gramm": 1.0}, (1, 8, 8)), "`penalties` must be one of .* Did you mean 'gram'"),
        (lambda m: sct.regularize(m, {}, (1, 8, 8)), "`penalties` must name at least one"),
        (lambda m: sct.regularize(m, {"gram": 1.0}, (2, 8, 8)), "`input_shape` must be that of the model's input"),
        (lambda m: sct.regularize(m, {"gram": 1.0}, (1, 8, 8), layers=["1"]), "`layers` must name convolutions"),
        (lambda m: sct.gram(m[0].weight, (8, 8), steps=13), "`steps` must be at most 12"),
        (lambda m: sct.orthogonality_gap(m[0].weight, (8, 8), alpha=np.nan), "`alpha` must be a finite number"),
        (lambda m: sct.frobenius(torch.ones(2, 2), (8,)), "`weight` must have the shape"),
    ],
)
def test_bad_input_says_what_to_do(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(nn.Sequential(nn.Conv2d(1, 1, 3)))


def test_a_weight_must_be_real_numbers() -> None:
    with pytest.raises(TypeError, match=r"`weight` must be a Tensor of real numbers; got torch\.int64"):
        sct.frobenius(torch.ones(1, 1, 3, dtype=torch.int64), (8,))
