"""Parametrizations: what exact norms say of the layers, in training, after resuming, copied, exported, compiled."""

from __future__ import annotations

import copy
import io
from typing import Any

import numpy as np
import pytest
from cases import operators
from hypothesis import given, settings
from tolerances import TORCH, TRACKED_NORM

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from torch.nn.utils import parametrize  # noqa: E402
from torch_layers import ResNet20, nn, norm_of, operator_of, train, weight_of  # noqa: E402

import spectral_conv.torch as sct  # noqa: E402
from spectral_conv import orthogonal, singular_values, spectral_norm  # noqa: E402
from spectral_conv.results import NotApplicableError  # noqa: E402
from spectral_conv.torch._bcop import bcop_tensors  # noqa: E402
from spectral_conv.torch._carried_bound import CarriedBound  # noqa: E402
from spectral_conv.torch._layers import convolutions  # noqa: E402

LAYERS: list[tuple[Any, tuple[int, ...], dict[str, Any]]] = [
    (nn.Conv2d, (9, 9), {"padding": 1}),
    (nn.Conv2d, (10, 10), {"padding": 1, "stride": 2, "groups": 2}),
    (nn.Conv2d, (8, 8), {"padding": "same", "padding_mode": "circular", "dilation": 2}),
    (nn.Conv1d, (12,), {"padding": 1, "stride": 2}),
    (nn.Conv3d, (4, 5, 4), {"padding": 1}),
    (nn.ConvTranspose2d, (5, 5), {"stride": 2, "padding": 1, "output_padding": 1}),
    (nn.ConvTranspose1d, (9,), {"groups": 2}),
]
KINDS: dict[str, Any] = {
    "exact": sct.SpectralNorm,
    "upper": lambda size, layer: sct.SpectralNorm(size, "upper", layer=layer),
    "ossn": sct.OSSN,
    "bcop": sct.BCOP,
    "rko": sct.RKO,
}


def parametrized(kind: Any, make: Any, size: tuple[int, ...], options: dict[str, Any], dtype: Any) -> Any:
    torch.manual_seed(1)
    layer = make(4, 6, 3, dtype=dtype, **options)
    parametrize.register_parametrization(layer, "weight", kind(size, layer=layer))
    return layer


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("make", "size", "options"), LAYERS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_norms_of_all_geometries(
    kind: str, make: Any, size: tuple[int, ...], options: dict[str, Any], dtype: Any
) -> None:
    layer = parametrized(KINDS[kind], make, size, options, dtype)
    norm = float(singular_values(operator_of(layer, size))[0])
    rounding = 1e-9 if dtype == torch.float64 else 1e-5
    if kind in ("exact", "ossn"):
        assert norm == pytest.approx(1.0, abs=rounding)
    elif kind == "upper":
        assert 0.7 <= norm <= 1.0  # small images leave more between the layer and the torus
    else:
        assert norm <= 1.0 + rounding
    layer(torch.randn(2, 4, *size, dtype=dtype)).square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters())


@pytest.mark.parametrize("kind", ["exact", "ossn"])
@pytest.mark.parametrize("mode", ["reflect", "replicate"])
def test_exact_norms_need_no_symbol(kind: str, mode: str) -> None:
    layer = parametrized(KINDS[kind], nn.Conv2d, (6, 6), {"padding": 1, "padding_mode": mode}, torch.float64)
    assert norm_of(layer, (6, 6), rtol=1e-10) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("kind", ["upper", "bcop", "rko"])
def test_others_refuse_what_they_do_not_bound(kind: str) -> None:
    with pytest.raises(NotApplicableError, match="does not apply to padding_mode='reflect'"):
        parametrized(KINDS[kind], nn.Conv2d, (6, 6), {"padding": 1, "padding_mode": "reflect"}, torch.float64)


@pytest.mark.parametrize(("into", "out"), [(4, 4), (3, 6), (5, 2)])
@pytest.mark.parametrize("kernel", [(3, 2), (4,), (2, 3, 2)])
def test_bcop_is_the_map_of_numpy(into: int, out: int, kernel: tuple[int, ...]) -> None:
    parameters = orthogonal.BcopParameters.sample(kernel, into, out, ndim=len(kernel), rng=2)
    make = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[len(kernel)]
    layer = make(into, out, kernel, dtype=torch.float64)
    map_of = sct.BCOP((8,) * len(kernel), layer=layer)
    found = map_of(*bcop_tensors(parameters, layer.weight))
    mapped = orthogonal.bcop_with_vjp(parameters)
    np.testing.assert_allclose(found, np.moveaxis(mapped.kernel, (-1, -2), (0, 1)), atol=TORCH["float64"])
    cotangent = np.random.default_rng(0).standard_normal(mapped.kernel.shape)
    free = [part.requires_grad_() for part in bcop_tensors(parameters, layer.weight)]
    map_of(*free).backward(torch.tensor(np.moveaxis(cotangent, (-1, -2), (0, 1)).copy()))
    wanted = mapped.vjp(cotangent)
    np.testing.assert_allclose(free[0].grad[0], wanted.matrix, atol=1e-9)
    np.testing.assert_allclose(free[1].grad[0], wanted.projectors, atol=1e-9)


def test_bcop_keeps_a_weight_that_it_can_make() -> None:
    kernel = orthogonal.sample_bcop(3, 4, 4, rng=0)
    layer = nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular", dtype=torch.float64)
    weight = torch.tensor(np.moveaxis(kernel, (-1, -2), (0, 1)).copy())
    layer.weight.data = weight
    parametrize.register_parametrization(layer, "weight", sct.BCOP((8, 8), layer=layer))
    np.testing.assert_allclose(layer.weight.detach(), weight, atol=1e-9)
    values = singular_values(operator_of(layer, (8, 8)))
    np.testing.assert_allclose(values, 1.0, atol=1e-9)
    layer(torch.randn(1, 4, 8, 8, dtype=torch.float64)).square().sum().backward()
    # Its matrix is orthonormal: the derivative of a decomposition would not be finite.
    assert torch.isfinite(layer.parametrizations.weight.original0.grad).all()
    with pytest.raises(ValueError, match="`kernel` must be a product of convolutions"):
        layer.weight = torch.randn(4, 4, 3, 3, dtype=torch.float64)


def test_rko_and_ossn_are_the_maps_of_numpy() -> None:
    layer = nn.Conv2d(3, 5, 3, padding=1, stride=2, dtype=torch.float64)
    free = operator_of(layer, (9, 9))
    found = sct.RKO((9, 9), layer=layer)(layer.weight)
    wanted = orthogonal.rko(free.kernel, stride=2)
    np.testing.assert_allclose(found.detach(), np.moveaxis(wanted, (-1, -2), (0, 1)), atol=TORCH["float64"])
    found = sct.OSSN((9, 9), layer=layer)(layer.weight)
    np.testing.assert_allclose(found.detach(), np.moveaxis(orthogonal.ossn(free), (-1, -2), (0, 1)), atol=1e-8)


def test_derivatives_by_central_differences() -> None:
    for kind in ("exact", "rko", "ossn"):
        layer = parametrized(KINDS[kind], nn.Conv2d, (6, 6), {"padding": 1}, torch.float64).eval()
        weight = layer.parametrizations.weight.original.detach().clone().requires_grad_()
        assert torch.autograd.gradcheck(
            layer.parametrizations.weight[0], weight, atol=1e-5, rtol=1e-3, fast_mode=True
        )


def test_one_million_fold_weights_are_bounded() -> None:
    # The bound holds for every weight, however far from the last one that was proved.
    layer = parametrized(KINDS["upper"], nn.Conv2d, (8, 8), {"padding": 1}, torch.float32)
    generator = torch.Generator().manual_seed(0)
    for scale in (1e-6, 1.0, 1e6, 1.0001e6, 1e-30):
        with torch.no_grad():
            free = layer.parametrizations.weight.original
            free.copy_(torch.randn(free.shape, generator=generator) * scale)
        assert 0.85 <= norm_of(layer, (8, 8)) <= 1.0
        assert 0.85 <= float(singular_values(operator_of(layer, (8, 8)))[0]) <= 1.0


@settings(max_examples=30)
@given(conv=operators())
def test_the_bound_holds_for_all_geometries_proved_and_carried(conv: Any) -> None:
    weight = weight_of(conv)
    if not conv.geometry.read_taps.any():
        return
    try:
        bound = CarriedBound(conv.geometry, weight)
    except NotApplicableError:
        return
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        plain = np.moveaxis(weight.numpy(), (0, 1), (-1, -2))
        kernel = plain.swapaxes(-1, -2) if conv.geometry.transposed else plain
        norm = np.linalg.norm(conv.with_kernel(kernel).to_dense(), 2)
        assert float(bound(weight, keep=True)[0]) >= norm
        weight = weight + 0.02 * weight.std(correction=0) * torch.randn(weight.shape, generator=generator)


def changed(kind: str, steps: int, shift: float) -> Any:
    """A layer whose weight wanders."""
    layer = parametrized(KINDS[kind], nn.Conv2d, (8, 8), {"padding": 1}, torch.float32)
    generator = torch.Generator().manual_seed(0)
    free = layer.parametrizations.weight.original
    for _ in range(steps):
        with torch.no_grad():
            free.add_(shift * free.norm() * torch.randn(free.shape, generator=generator) / free.numel() ** 0.5)
        weight = layer.weight
        yield float(singular_values(operator_of_weight(weight.detach()))[0])


def operator_of_weight(weight: Any) -> Any:
    from spectral_conv import ConvOperator

    return ConvOperator(weight.double().numpy(), (8, 8), layout="OIHW", padding=1)


@pytest.mark.parametrize("shift", [1e-3, 3e-2])
def test_upper_holds_at_every_training_step(shift: float) -> None:
    found = list(changed("upper", 40, shift))
    assert max(found) <= 1.0 + 1e-6
    assert min(found) >= 0.85


def test_exact_follows_small_steps() -> None:
    found = list(changed("exact", 40, 3e-3))
    assert max(abs(norm - 1.0) for norm in found) <= 2e-2


@pytest.fixture(scope="module")
def trained() -> dict[str, tuple[Any, list[float]]]:
    """ResNet-20 after training with each mode, and the least and largest norm of "upper" on the way."""
    found = {}
    for mode, steps in (("exact", 100), ("upper", 20)):
        torch.manual_seed(0)
        model = sct.constrain(ResNet20(), sct.SpectralNorm, (3, 32, 32), mode=mode)
        seen: list[float] = []

        def look(step: int, model: Any = model, seen: list[float] = seen, mode: str = mode) -> None:
            if mode == "upper" and step in (10, 19):
                seen += [
                    spectral_norm(operator_of(layer, geometry.input_shape), rtol=1e-5).value
                    for _, layer, geometry in convolutions(model, (3, 32, 32))
                ]

        train(model, steps, lr=0.05, after=look)
        found[mode] = (model, seen)
    return found


def test_exact_norms_after_a_hundred_steps(trained: dict[str, tuple[Any, list[float]]]) -> None:
    model = trained["exact"][0]
    for name, layer, geometry in convolutions(model, (3, 32, 32)):
        assert norm_of(layer, geometry.input_shape, rtol=1e-5) == pytest.approx(1.0, abs=TRACKED_NORM), name


def test_upper_is_certain_and_close(trained: dict[str, tuple[Any, list[float]]]) -> None:
    norms = trained["upper"][1]
    assert len(norms) == 42
    assert max(norms) <= 1.0 + 1e-6
    assert min(norms) >= 0.9


def small() -> Any:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        sct.MaxMin(),
        nn.Conv2d(4, 4, 3, padding=1, stride=2),
        nn.Flatten(),
        nn.LazyLinear(10),
    )


def constrained(kind: str) -> Any:
    torch.manual_seed(0)
    model = small()
    model(torch.zeros(1, 3, 32, 32))
    options = {"mode": "upper"} if kind == "upper" else {}
    classes = {
        "exact": sct.SpectralNorm,
        "upper": sct.SpectralNorm,
        "ossn": sct.OSSN,
        "bcop": sct.BCOP,
        "rko": sct.RKO,
    }
    return sct.constrain(model, classes[kind], (3, 32, 32), **options)


@pytest.mark.parametrize("kind", KINDS)
def test_training_resumes_identically(kind: str) -> None:
    straight = constrained(kind)
    optimizer = train(straight, 6, lr=0.02)
    file = io.BytesIO()
    torch.save({"model": straight.state_dict(), "optimizer": optimizer.state_dict()}, file)
    train(straight, 6, lr=0.02, seed=1, optimizer=optimizer)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed = constrained(kind)
    again = torch.optim.SGD(resumed.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-4)
    resumed.load_state_dict(saved["model"])
    again.load_state_dict(saved["optimizer"])
    train(resumed, 6, lr=0.02, seed=1, optimizer=again)
    for name, tensor in straight.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


@pytest.mark.parametrize("kind", KINDS)
def test_export_copies_and_evaluation(kind: str) -> None:
    model = constrained(kind)
    train(model, 3, lr=0.02)
    x = torch.randn(2, 3, 32, 32)
    model.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        wanted = model(x)
        model.train()
        model(x)  # neither evaluation nor calls without gradients change anything
        model.eval()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    with torch.no_grad():
        plain, copied = sct.export(model), copy.deepcopy(model)
        assert float((plain(x) - wanted).abs().max()) <= 1e-6
        assert torch.equal(copied(x), wanted)
        assert not any(parametrize.is_parametrized(module) for module in plain.modules())
        assert parametrize.is_parametrized(model[0])
    train(copied, 1, lr=0.02)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
def test_replicas_like_those_of_data_parallel(kind: str) -> None:
    model = constrained(kind).train()
    x = torch.randn(2, 3, 32, 32)
    modules = list(model.modules())
    place = {module: number for number, module in enumerate(modules)}
    copies = [module._replicate_for_data_parallel() for module in modules]
    for module, replica in zip(modules, copies, strict=True):
        for name, child in module._modules.items():
            replica._modules[name] = copies[place[child]]
        for name, parameter in module._parameters.items():
            replica._parameters[name] = parameter
        for name, buffer in module._buffers.items():
            replica._buffers[name] = buffer
    reference = copy.deepcopy(model)
    loss = copies[0](x).square().sum()
    loss.backward()
    reference(x).square().sum().backward()
    for own, other in zip(model.parameters(), reference.parameters(), strict=True):
        assert torch.equal(own.grad, other.grad)
    # The replica on the first device shares its buffers: what it found is kept.
    for (name, own), other in zip(model.named_buffers(), reference.buffers(), strict=True):
        assert torch.equal(own, other), name


# What the compiler itself does with tensors and functions.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_compiled_models_train(kind: str) -> None:
    plain = constrained(kind).train()
    compiled = torch.compile(copy.deepcopy(plain), backend="aot_eager")
    x = torch.randn(2, 3, 32, 32)
    for model in (plain, compiled):
        model(x).square().sum().backward()
    for own, other in zip(compiled.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad)


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_keeps_norms_in_single_precision(kind: str) -> None:
    model = constrained(kind)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model[0].weight.dtype == torch.float32
        model(torch.randn(2, 3, 32, 32)).float().square().sum().backward()
    assert norm_of(model[0], (32, 32)) <= 1.0 + 1e-4


def test_a_model_in_another_precision_is_proved_anew() -> None:
    model = constrained("upper").double()
    train_like = model[0].weight.square().sum()
    train_like.backward()
    assert norm_of(model[0], (32, 32)) <= 1.0
    assert norm_of(constrained("upper").bfloat16()[0], (32, 32)) <= 1.0 + 2**-6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda layer: sct.SpectralNorm((8, 8), "lower", layer=layer), "`mode` must be one of 'exact', 'upper'"),
        (lambda layer: sct.SpectralNorm((8, 8), every=0, layer=layer), "`every` must be an integer of at least 1"),
        (lambda layer: sct.SpectralNorm(8, layer=layer), "`input_shape` must have one entry per spatial axis"),
        (lambda layer: sct.constrain(nn.Sequential(layer), sct.RKO, (1, 8, 8), layers=["x"]), "`layers` must name"),
    ],
)
def test_bad_input_says_what_to_do(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(nn.Conv2d(1, 1, 3))


@pytest.mark.parametrize("mode", ["exact", "upper"])
def test_a_zero_weight_is_refused_and_nothing_is_changed(mode: str) -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3))
    nn.init.zeros_(model[1].weight)
    with pytest.raises(ValueError, match="`layer` must not have the weight 0"):
        sct.constrain(model, sct.SpectralNorm, (1, 8, 8), mode=mode)
    assert not any(parametrize.is_parametrized(module) for module in model.modules())


def test_other_modules_are_refused() -> None:
    with pytest.raises(TypeError, match="`layer` must be a Conv1d, 2d, 3d or ConvTranspose"):
        sct.RKO((8, 8), layer=nn.Linear(1, 1))


def test_a_detour_over_half_precision_proves_anew() -> None:
    layer = parametrized(KINDS["upper"], nn.Conv2d, (8, 8), {"padding": 1}, torch.float32)
    layer.half().float()
    assert 0.85 <= norm_of(layer, (8, 8)) <= 1.0 + 1e-6
    layer.train()
    assert layer.weight.isfinite().all()
    assert layer.parametrizations.weight[0].norm.bound.isfinite()
