"""Modules without weights, the monitor and its callbacks, the examples in the docstrings, and who imports torch."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import subprocess
import sys
import threading
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from torch_layers import nn, operator_of  # noqa: E402

import spectral_conv.torch as sct  # noqa: E402
from spectral_conv import SpectrumStore, circulant_singular_values, singular_values  # noqa: E402

MODULES = [module.name for module in pkgutil.iter_modules(sct.__path__)]


def test_import_of_the_package_does_not_import_torch() -> None:
    code = "import sys, spectral_conv; spectral_conv.ConvOperator; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("module", MODULES)
def test_examples(module: str) -> None:
    torch.manual_seed(0)
    assert doctest.testmod(importlib.import_module(f"spectral_conv.torch.{module}")).failed == 0


def test_public_names_are_there_and_described() -> None:
    for name in sct.__all__:
        thing = getattr(sct, name)
        assert thing.__doc__
        assert "Examples\n" in thing.__doc__
        assert f"{name}" in (sct.__doc__ or "")


@given(
    groups=st.integers(1, 3),
    size=st.integers(1, 4),
    pixels=st.lists(st.integers(1, 3), max_size=3),
    seed=st.integers(0, 99),
)
def test_group_sort_sorts_groups(groups: int, size: int, pixels: list[int], seed: int) -> None:
    x = np.random.default_rng(seed).standard_normal((2, groups * size, *pixels))
    found = sct.GroupSort(size)(torch.tensor(x)).numpy()
    wanted = np.sort(x.reshape(2, groups, size, *pixels), axis=2).reshape(x.shape)
    np.testing.assert_array_equal(found, wanted)
    if size == 2:
        pairs = sct.MaxMin()(torch.tensor(x)).numpy()
        np.testing.assert_array_equal(pairs.reshape(2, groups, 2, *pixels)[:, :, ::-1].reshape(x.shape), wanted)


def test_activations_keep_the_norms_of_gradients() -> None:
    x = torch.randn(3, 6, 4, 4, dtype=torch.float64, requires_grad=True)
    for module in (sct.MaxMin(), sct.GroupSort(3), sct.InvertibleDownsampling(2)):
        (gradient,) = torch.autograd.grad(module(x), x, torch.ones_like(module(x)))
        assert float(gradient.norm()) == pytest.approx(x.numel() ** 0.5)


@settings(max_examples=20)
@given(factor=st.integers(1, 3), blocks=st.lists(st.integers(1, 3), min_size=1, max_size=3))
def test_invertible_downsampling(factor: int, blocks: list[int]) -> None:
    x = torch.arange(2.0 * 3 * np.prod([n * factor for n in blocks])).reshape(2, 3, *(n * factor for n in blocks))
    down = sct.InvertibleDownsampling(factor)
    assert down(x).shape == (2, 3 * factor ** len(blocks), *blocks)
    assert torch.equal(down.inverse(down(x)), x)
    if len(blocks) == 2:
        assert torch.equal(down(x), nn.functional.pixel_unshuffle(x, factor))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sct.GroupSort(0), "`group_size` must be an integer of at least 1"),
        (lambda: sct.MaxMin()(torch.ones(1, 3)), "`group_size` must divide the channels; got 2 and 3"),
        (lambda: sct.InvertibleDownsampling(2)(torch.ones(1, 1, 3)), "1 to 3 sides that 2 divides"),
        (lambda: sct.InvertibleDownsampling(2).inverse(torch.ones(1, 2, 3, 3)), "a multiple of 4 channels; got 2"),
        (lambda: sct.SpectrumMonitor(nn.Linear(3, 3), (3,)), "`model` must have a convolution"),
        (lambda: sct.SpectrumMonitor(model(), (2, 6, 6), every=0), "`every` must be an integer of at least 1"),
    ],
)
def test_bad_input_says_what_to_do(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def model() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"))


class Writer:
    def __init__(self) -> None:
        self.scalars: list[tuple[str, float, int]] = []
        self.threads: set[int] = set()

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.scalars.append((tag, value, step))
        self.threads.add(threading.get_ident())


def test_the_record_is_the_exact_spectrum_of_each_step(tmp_path: Path) -> None:
    net, writer, wanted = model(), Writer(), []
    with sct.SpectrumMonitor(net, (2, 6, 6), every=2, store=tmp_path / "run.zarr", writer=writer) as monitor:
        for step in range(5):
            if step % 2 == 0:
                wanted.append([operator_of(layer, (6, 6)) for layer in net])
            monitor.step(100 + step)
            with torch.no_grad():  # what happens to the weights later does not matter
                for layer in net:
                    layer.weight.mul_(1.5)
    stored = SpectrumStore(tmp_path / "run.zarr").open()
    assert stored["step"].values.tolist() == [100, 102, 104]
    assert stored["layer"].values.tolist() == ["0", "1"]
    for row, operators in enumerate(wanted):
        for column, conv in enumerate(operators):
            values = singular_values(conv)
            assert float(stored["sigma_max"][row, column]) == pytest.approx(values[0], rel=1e-5)
            assert float(stored["sigma_min"][row, column]) == pytest.approx(values[-1], abs=1e-5 * values[0])
            assert float(stored["sigma_max_upper"][row, column]) >= values[0] * (1 - 1e-9)
        circulant = circulant_singular_values(operators[0])
        np.testing.assert_allclose(stored["circulant_spectrum_0"][row], circulant, rtol=1e-12)
    assert "circulant_spectrum_1" not in stored  # reflect padding has none
    assert [scalar[0] for scalar in writer.scalars[:4]] == [
        "sigma_max/0",
        "sigma_min/0",
        "sigma_max/1",
        "sigma_min/1",
    ]
    assert {scalar[2] for scalar in writer.scalars} == {100, 102, 104}
    assert writer.threads == {threading.get_ident()}


def test_a_stored_record_goes_on(tmp_path: Path) -> None:
    net = model()
    for _ in range(2):
        with sct.SpectrumMonitor(net, (2, 6, 6), layers=["1"], every=1, store=tmp_path / "run.zarr") as monitor:
            monitor.step()
    assert monitor.history()["iteration"].values.tolist() == [0, 1]
    assert monitor.history()["layer"].values.tolist() == ["1"]


def test_in_memory_and_without_circulants() -> None:
    with sct.SpectrumMonitor(model(), (2, 6, 6), every=1, circulant=False) as monitor:
        for _ in range(4):
            monitor.step()
    history = monitor.history()
    assert history.sizes == {"iteration": 4, "layer": 2}
    assert not [name for name in history if str(name).startswith("circulant")]


def test_errors_of_the_worker_surface_in_training(tmp_path: Path) -> None:
    (tmp_path / "foreign").write_text("not ours")
    monitor = sct.SpectrumMonitor(model(), (2, 6, 6), every=1, store=tmp_path)
    monitor.step()
    with pytest.raises(RuntimeError, match="The spectra could not be recorded: `path` must be"):
        monitor.close()
    monitor.close()  # once told
    with pytest.raises(RuntimeError, match="`step` must be called before `close`"):
        monitor.step()


def test_an_error_of_the_training_comes_first(tmp_path: Path) -> None:
    (tmp_path / "foreign").write_text("not ours")

    def training() -> None:
        with sct.SpectrumMonitor(model(), (2, 6, 6), every=1, store=tmp_path) as monitor:
            monitor.step()
            raise KeyError("training")

    with pytest.raises(KeyError, match="training"):
        training()


def test_history_needs_a_record() -> None:
    monitor = sct.SpectrumMonitor(model(), (2, 6, 6))
    with pytest.raises(RuntimeError, match="`history` needs a record"):
        monitor.history()
    monitor.close()


def test_parametrized_layers_are_watched_and_left_alone() -> None:
    net = sct.constrain(nn.Sequential(nn.Conv2d(2, 3, 3, padding=1)), sct.SpectralNorm, (2, 6, 6)).train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with sct.SpectrumMonitor(net, (2, 6, 6), every=1) as monitor:
        monitor.step()
    assert float(monitor.history()["sigma_max"][0, 0]) == pytest.approx(1.0, abs=1e-5)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize("package", ["", "lightning.pytorch", "pytorch_lightning"])
def test_lightning_callback(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Callback:
        def setup(self) -> str:
            return "of the base class"

    if package:
        monkeypatch.setitem(sys.modules, package, types.SimpleNamespace(Callback=Callback))
    monitor = sct.SpectrumMonitor(model(), (2, 6, 6), every=1)
    callback = sct.lightning_callback(monitor)
    assert isinstance(callback, Callback) == bool(package)
    callback.on_train_batch_end(types.SimpleNamespace(global_step=7), None, None, None, 0)
    callback.on_train_end(None, None)
    assert monitor.history()["step"].values.tolist() == [7]


@pytest.mark.parametrize("there", [False, True])
def test_trainer_callback(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class TrainerCallback:
        def on_init_end(self) -> str:
            return "of the base class"

    if there:
        monkeypatch.setitem(sys.modules, "transformers", types.SimpleNamespace(TrainerCallback=TrainerCallback))
    monitor = sct.SpectrumMonitor(model(), (2, 6, 6), every=1)
    callback = sct.trainer_callback(monitor)
    assert isinstance(callback, TrainerCallback) == there
    callback.on_step_end(None, types.SimpleNamespace(global_step=3), None, model=None)
    callback.on_train_end(None, None, None)
    assert monitor.history()["step"].values.tolist() == [3]
