"""What an analysis is predicted to cost: from the geometry alone, in time to be of use, and of the right size."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from shared_material import MODELS, needs_shared
from typer.testing import CliRunner

from spectral_conv import ConvOperator, read_model, smallest_singular_value
from spectral_conv.cli import app
from spectral_conv.inspection import Settings, layer_cost
from spectral_conv.spectrum.cost import predicted_cost
from spectral_conv.spectrum.factorized import factorized_flops
from spectral_conv.spectrum.smallest import MOST_FLOPS


def layer(k: int, g: int, h: int, n: int, **geometry: object) -> ConvOperator:
    groups = int(geometry.get("groups", 1))  # type: ignore[call-overload]
    kernel = np.random.default_rng(0).standard_normal((k, k, g // groups, h))
    return ConvOperator(kernel, (n, n), **geometry)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("k", "channels", "n", "geometry"),
    [
        (1, (16, 8), 12, {}),  # blocks
        (3, (2, 2), 6, {}),  # dense
        (3, (8, 8), 16, {}),  # Davidson and the factor
        (3, (8, 8), 16, {"groups": 8}),  # Lanczos
        (3, (4, 4), 12, {"padding_mode": "circular"}),  # the symbol
        (3, (4, 4), 12, {"padding_mode": "reflect"}),  # no symbol
        (3, (64, 16), 64, {}),  # the circulant preconditioner
        (2, (4, 4), 9, {"transposed": True, "stride": 2, "padding": 0}),
        (1, (8, 16), 16, {"stride": 2}),  # some pixels are not read
    ],
)
def test_every_way_has_a_price(k: int, channels: tuple[int, int], n: int, geometry: dict[str, object]) -> None:
    conv = layer(k, *channels, n, **geometry)
    both, largest = predicted_cost(conv), predicted_cost(conv, smallest=False)
    assert 0.0 < largest.seconds <= both.seconds < 60.0
    assert 0.0 < largest.bytes <= both.bytes < 1e9


def test_larger_layers_cost_more() -> None:
    costs = [predicted_cost(layer(3, 16, 16, n)) for n in (8, 16, 32, 64)]
    assert [cost.seconds for cost in costs] == sorted(cost.seconds for cost in costs)
    assert [cost.bytes for cost in costs] == sorted(cost.bytes for cost in costs)
    assert costs[-1].seconds > 10 * costs[0].seconds


def test_a_looser_tolerance_costs_less() -> None:
    conv = layer(3, 16, 16, 32)
    loose, tight = (predicted_cost(conv, rtol=rtol, smallest=False).seconds for rtol in (1e-3, 1e-10))
    assert loose < tight


def test_what_exceeds_the_limits_costs_what_the_bracket_costs() -> None:
    conv = ConvOperator(np.ones((3, 3, 3, 28, 32)), (24, 24, 24), layout="DHWIO")
    assert factorized_flops(conv) > MOST_FLOPS
    assert predicted_cost(conv).seconds < 1.2 * predicted_cost(conv, smallest=False).seconds
    small = layer(3, 16, 16, 32)
    assert predicted_cost(small, memory_limit=2e7).bytes < predicted_cost(small, memory_limit=1e9).bytes


@pytest.mark.parametrize(("k", "channels", "n"), [(3, (16, 16), 32), (3, (16, 32), 24)])
def test_memory_of_the_factor_is_right_within_a_factor_of_two(k: int, channels: tuple[int, int], n: int) -> None:
    conv = layer(k, *channels, n)
    smallest_singular_value(layer(3, 4, 4, 8))  # what is loaded and compiled once is not the layer's
    tracemalloc.start()
    try:
        smallest_singular_value(conv)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # NumPy reports arrays in full, whose last pages are never touched: the basis of the most blocks counts.
    assert peak / 4 < predicted_cost(conv).bytes < 2 * peak


def test_bad_parameters_are_named() -> None:
    with pytest.raises(ValueError, match="`rtol`"):
        predicted_cost(layer(1, 1, 1, 2), rtol=0.0)
    with pytest.raises(ValueError, match="`conv`"):
        predicted_cost("conv")  # type: ignore[arg-type]


@needs_shared
def test_resnet20_takes_the_seconds_that_an_idle_machine_took() -> None:
    """Measured on 2 cores: the best of two runs of every different layer."""
    measured = {
        "module.conv1.weight": 0.30,
        "module.layer1.0.conv1.weight": 1.17,
        "module.layer2.0.conv1.weight": 0.56,
        "module.layer2.0.conv2.weight": 0.50,
        "module.layer3.0.conv1.weight": 0.30,
        "module.layer3.0.conv2.weight": 0.31,
    }
    model = read_model(MODELS / "resnet20_cifar10.safetensors", layers=MODELS / "resnet20_cifar10.json")
    for each in model.layers:
        if each.name in measured:
            cost = layer_cost(each, Settings())
            assert cost is not None
            # Fewer or more threads than two change the factorization only.
            assert abs(math.log(cost.seconds / measured[each.name])) < math.log(2.5)


@needs_shared
def test_describe_shows_time_and_memory_in_80_columns() -> None:
    arguments = ["describe", str(MODELS / "resnet20_cifar10.safetensors")]
    arguments += ["--layers", str(MODELS / "resnet20_cifar10.json")]
    result = CliRunner(env={"COLUMNS": "80"}).invoke(app, arguments)
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80
    header = next(line for line in result.stdout.splitlines() if line.startswith("layer"))
    assert header.split()[-2:] == ["time", "memory"]
    assert "inspect will take ~" in result.stdout
    assert " MB" in result.stdout
