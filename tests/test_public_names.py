"""Every public name gives one object, however often and in whatever order the modules are imported."""

from __future__ import annotations

import doctest
import json
import pkgutil
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import import_module
from importlib.resources import files
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import xarray as xr

import spectral_conv
import spectral_conv.inspection
from spectral_conv import orthogonal

# What the first part of the package promises to be importable from `spectral_conv`.
PROMISED = {
    *("ConvOperator", "symbol", "circulant_singular_values", "singular_values", "singular_triplets"),
    *(
        "spectral_norm",
        "smallest_singular_value",
        "condition_number",
        "read_model",
        "inspect_model",
        "models",
    ),
}
# Public names that are modules; every other one must not be shadowed by its own file.
MODULES = {"bounds", "certification", "models", "orthogonal", "regularizers", "steps"}

KERNEL = np.random.default_rng(1).standard_normal((3, 3, 2, 2))


def _conv() -> Any:
    return spectral_conv.ConvOperator(KERNEL, (4, 4))


def _digits() -> Any:
    data = files("spectral_conv") / "data"
    return spectral_conv.read_model(data / "digits.safetensors", layers=data / "digits.layers.json")


def _descent() -> Any:
    return spectral_conv.descend(_conv(), spectral_conv.regularizers.OrthogonalityGap(), maxiter=1)


def _bcop_parameters() -> Any:
    return orthogonal.BcopParameters.sample(3, 2, 2, rng=0)


def _bcop_kernel() -> Any:
    return orthogonal.sample_bcop(3, 2, 2, rng=0)


def _factors() -> Any:
    return orthogonal.factorize(_bcop_kernel())


def _tightness() -> Any:
    data = {"ratio": (("kernel", "bound", "size"), [[[1.1, 1.01]]]), "kind": ("bound", ["upper"])}
    return xr.Dataset(data, {"bound": ["some"], "size": [8, 16]})


# One call for every public function; classes need none.
CALLS: dict[str, Callable[[Callable[..., Any]], object]] = {
    "analyze_layer": lambda f: f(_digits().layers[0], spectral_conv.inspection.Settings()),
    "layer_cost": lambda f: f(_digits().layers[0], spectral_conv.inspection.Settings()),
    "layer_record": lambda f: f(_digits().layers[0]),
    "inspect_files": lambda f: list(
        f(
            [files("spectral_conv") / "data" / "digits.safetensors"],
            layers=files("spectral_conv") / "data" / "digits.layers.json",
        )
    ),
    "symbol": lambda f: f(_conv()),
    "circulant_singular_values": lambda f: f(_conv()),
    "circulant_svd": lambda f: f(_conv()),
    "singular_values": lambda f: f(_conv()),
    "singular_triplets": lambda f: f(_conv(), k=1),
    "spectral_norm": lambda f: f(_conv()),
    "smallest_singular_value": lambda f: f(_conv()),
    "condition_number": lambda f: f(_conv()),
    "spectral_density": lambda f: f(_conv()),
    "read_model": lambda _: _digits(),
    "compare_models": lambda f: f(_digits(), _digits()),
    "clip_model": lambda f: f(_digits(), 20.0, f"{tempfile.mkdtemp()}/new.safetensors"),
    "find_layer": lambda f: f(_digits(), "stem.weight"),
    "layers_document": lambda f: f(_digits()),
    "inspect_model": lambda f: f([_conv()]),
    "network_lipschitz": lambda f: f([_conv()]),
    "descend": lambda f: f(_conv(), spectral_conv.regularizers.OrthogonalityGap(), maxiter=1),
    "plot_descent": lambda f: f(_descent().history),
    "plot_circulant": lambda f: f(_descent().history),
    **{name: lambda f: f(_conv()) for name in spectral_conv.bounds.__all__ if not name.startswith("Bound")},
    "plot_bounds": lambda f: f(spectral_conv.bounds.table(_conv())),
    "plot_tightness": lambda f: f(_tightness()),
    "bcop": lambda f: f(_bcop_parameters()),
    "bcop_parameters": lambda f: f(_bcop_kernel()),
    "bcop_with_vjp": lambda f: f(_bcop_parameters()),
    "bjorck": lambda f: f(KERNEL[0, 0]),
    "block_convolution": lambda f: f(KERNEL, KERNEL),
    "certified_radius": lambda f: f([2.0, 1.0], 1.0),
    "certified_accuracy": lambda f: f([[2.0, 1.0]], [0], 1.0, 0.1),
    "margins": lambda f: f([[2.0, 1.0]], [0]),
    "max_min": lambda f: f(np.ones((1, 2))),
    "group_sort": lambda f: f(np.ones((1, 2)), 2),
    "invertible_downsampling": lambda f: f(np.ones((1, 2, 2)), 2),
    "invertible_upsampling": lambda f: f(np.ones((4, 1, 1)), 2),
    "downsampling_operator": lambda f: f(1, (2, 2), 2),
    "clip": lambda f: f(_conv(), 1.0),
    "component": lambda f: f(np.eye(2)[None]),
    "compose": lambda f: f(_factors()),
    "factorize": lambda f: f(_bcop_kernel()),
    "is_orthogonal": lambda f: f(_conv()),
    "nearest_projector": lambda f: f(KERNEL[0, 0]),
    "ossn": lambda f: f(_conv()),
    "ossn_with_vjp": lambda f: f(_conv()),
    "projector": lambda f: f(KERNEL[0, 0, :, :1]),
    "rko": lambda f: f(KERNEL),
    "rko_with_vjp": lambda f: f(KERNEL),
    "sample_bcop": lambda f: f(3, 2, 2, rng=0),
    "sample_ossn": lambda f: f(3, 2, 2, rng=0, input_shape=(4, 4)),
    "sample_projector": lambda f: f(2, 1, rng=0),
    "sample_rko": lambda f: f(3, 2, 2, rng=0),
    "svcm": lambda f: f(_conv()),
    "with_auxiliary_channels": lambda f: f(_factors()),
}


def _submodules() -> list[str]:
    walked = pkgutil.walk_packages(spectral_conv.__path__, "spectral_conv.")
    return [module.name for module in walked if not module.name.startswith("spectral_conv.torch")]


def _public_names() -> list[tuple[str, str]]:
    """(module, name) of the package and of every subpackage that says what is public."""
    modules = ["spectral_conv", *_submodules()]
    return [(module, name) for module in modules for name in getattr(import_module(module), "__all__", ())]


# Imports the submodules in the order given, then reads every public name twice.
READER = """
import importlib, json, sys
order, names = json.loads(sys.argv[1])
for module in order:
    importlib.import_module(module)
found = []
for module, name in names:
    owner = importlib.import_module(module)
    thing = getattr(owner, name)
    assert getattr(owner, name) is thing, f"{module}.{name} changes from one reading to the next"
    origin = [getattr(thing, key, "") for key in ("__module__", "__qualname__", "__name__")]
    found.append([type(thing).__name__, *origin])
print(json.dumps(found))
"""


def _read_elsewhere(order: list[str], names: list[tuple[str, str]]) -> list[list[str]]:
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", READER, json.dumps([order, names])],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    found: list[list[str]] = json.loads(process.stdout)
    return found


def test_promised_names_are_public() -> None:
    assert set(spectral_conv.__all__) >= PROMISED
    assert set(dir(spectral_conv)) >= PROMISED
    assert len(spectral_conv.__all__) == len(set(spectral_conv.__all__))


def test_every_submodule_can_be_imported() -> None:
    for name in _submodules():
        assert isinstance(import_module(name), ModuleType)


def test_no_name_is_shadowed_by_its_own_file() -> None:
    for name in _submodules():
        import_module(name)
    for module, name in _public_names():
        thing = getattr(import_module(module), name)
        assert getattr(import_module(module), name) is thing
        assert isinstance(thing, ModuleType) == (name in MODULES), f"{module}.{name} is {thing!r}"


def test_a_name_of_the_package_is_that_of_its_module() -> None:
    for module, name in _public_names():
        if name in spectral_conv.__all__:
            assert getattr(spectral_conv, name) is getattr(import_module(module), name)


@pytest.mark.parametrize("name", sorted({name for _, name in _public_names()} - MODULES))
def test_every_public_name_can_be_used(name: str) -> None:
    owner = next(import_module(module) for module, other in _public_names() if other == name)
    thing = getattr(owner, name)
    if isinstance(thing, type) or not callable(thing):
        assert thing.__doc__
        return
    assert name in CALLS, f"add a call of `{name}` to tests/test_public_names.py"
    assert CALLS[name](thing) is not None
    assert ">>>" in (thing.__doc__ or ""), f"`{name}` needs an example that runs"


@pytest.mark.parametrize("module", ["spectral_conv", *_submodules()])
def test_examples_in_docstrings_run(module: str) -> None:
    failed, _ = doctest.testmod(import_module(module), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


@pytest.mark.parametrize("seed", range(3))
def test_names_do_not_depend_on_the_order_of_imports(seed: int) -> None:
    names = _public_names()
    order = _submodules()
    random.Random(seed).shuffle(order)
    assert _read_elsewhere(order, names) == _read_elsewhere([], names)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = spectral_conv.no_such_name
