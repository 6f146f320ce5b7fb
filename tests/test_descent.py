"""Descents: the runs of the papers, step rules, stopping, resuming."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

from spectral_conv import ConvOperator, NotApplicableError, SpectrumStore, descend, regularizers, steps
from spectral_conv.descent.directions import Gradient
from spectral_conv.results import DescentStop, Snapshot
from validation.cases.guo_frobenius import KERNELS, SCHEDULE, PaperGap


def normal_layer(shape: tuple[int, ...] = (3, 3, 3, 1), size: int = 20) -> ConvOperator:
    return ConvOperator(np.random.default_rng(1).standard_normal(shape), (size,) * (len(shape) - 2))


def uniform_layer() -> ConvOperator:
    return ConvOperator(np.random.default_rng(1).random((3, 3, 3, 1)), (20, 20))


def ends(history: xr.Dataset, iteration: int) -> tuple[float, float]:
    at = history.sel(iteration=iteration)
    return float(at.sigma_max), float(at.sigma_min)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((3, 3, 3, 1), {0: (6.290, 0.967), 1: (5.126, 0.834), 20: (1.048, 0.250), 30: (1.039, 0.351)}),
        ((3, 3, 3, 6), {20: (1.131, None)}),
        ((3, 3, 6, 3), {20: (1.096, None)}),
    ],
)
def test_the_frobenius_paper(shape: tuple[int, ...], expected: dict[int, tuple[float, float | None]]) -> None:
    run = descend(normal_layer(shape), PaperGap(), steps.Schedule(SCHEDULE), maxiter=max(expected))
    assert run.stop_reason is DescentStop.MAXITER
    for iteration, (largest, smallest) in expected.items():
        found = ends(run.history, iteration)
        assert found[0] == pytest.approx(largest, abs=6e-4)
        assert smallest is None or found[1] == pytest.approx(smallest, abs=6e-4)
    if 30 in expected:  # sigma_min falls first and then rises towards 1
        assert run.history.sigma_min[20] < run.history.sigma_min[0]
        assert run.history.sigma_min[20] < run.history.sigma_min[30]


@pytest.mark.parametrize(
    ("penalty", "step", "expected"),
    [
        (regularizers.Frobenius(), 1e-5, {0: (7.966, 0.531), 100: (5.483, 0.368)}),
        (regularizers.SmallestSingularValue(), 1e-4, {10: (7.966, 0.534), 20: (7.966, 0.538)}),
        (regularizers.FrobeniusMinusSmallest(), 1e-5, {15: (7.536, 0.693), 30: (7.130, 0.736)}),
    ],
    ids=["3.1", "3.2", "3.3"],
)
def test_the_three_algorithms_of_the_other_paper(
    penalty: Any, step: float, expected: dict[int, tuple[float, float]]
) -> None:
    run = descend(uniform_layer(), penalty, steps.Fixed(step), maxiter=max(expected))
    for iteration, pair in expected.items():
        assert ends(run.history, iteration) == pytest.approx(pair, abs=6e-4)


@pytest.mark.parametrize("shape", KERNELS)
def test_exact_line_search_takes_a_fifth_of_the_iterations(shape: tuple[int, ...]) -> None:
    conv = normal_layer(shape)
    paper = descend(conv, PaperGap(), steps.Schedule(SCHEDULE), maxiter=200, track=())
    run = descend(conv, regularizers.OrthogonalityGap(), steps.ExactLineSearch(), maxiter=40, track=())
    assert float(run.history.penalty[-1]) <= float(paper.history.penalty[200])
    assert float(run.history.penalty.min()) <= float(paper.history.penalty[100])
    assert np.all(np.diff(run.history.penalty) <= 0)


def test_exact_steps_along_the_gradient_are_the_best_of_many() -> None:
    conv = normal_layer((3, 3, 2, 3), 8)
    gap = regularizers.OrthogonalityGap()
    run = descend(conv, gap, steps.ExactLineSearch(), direction=Gradient(), maxiter=1, track=())
    gradient = gap.value_and_grad(conv)[1]
    size = float(run.history.step[1])
    np.testing.assert_allclose(run.kernel, conv.kernel - size * gradient, atol=1e-14)
    tried = [gap.value(conv.with_kernel(conv.kernel - t * gradient)) for t in np.linspace(0.0, 3.0 * size, 301)]
    assert float(run.history.penalty[1]) <= min(tried) * (1 + 1e-12)
    # The quadratic is minimized in one step.
    flat = descend(conv, regularizers.Frobenius(), steps.ExactLineSearch(), maxiter=60, track=(), rtol=0.0)
    assert float(flat.history.penalty[-1]) < 1e-20


@pytest.mark.parametrize("rule", [steps.Armijo(), steps.BarzilaiBorwein(), steps.BarzilaiBorwein(short=True)])
def test_other_rules_reach_the_minimum(rule: steps.StepRule) -> None:
    conv = normal_layer((3, 3, 2, 2), 10)
    gap = regularizers.OrthogonalityGap()
    best = descend(conv, gap, steps.ExactLineSearch(), maxiter=300, track=()).history.penalty[-1]
    run = descend(conv, gap, rule, maxiter=400, track=())
    assert float(run.history.penalty[-1]) <= float(best) + 1e-3 * float(run.history.penalty[0])
    assert float(run.history.penalty[-1]) < 1e-2 * float(run.history.penalty[0])


def test_armijo_raises_the_smallest_value_of_a_penalty_without_polynomial() -> None:
    run = descend(uniform_layer(), regularizers.SmallestSingularValue(), steps.Armijo(), maxiter=5)
    assert np.all(np.diff(run.history.sigma_min) > 0)
    assert np.all(run.history.multiplicity == 1)


def test_the_record_is_exact_and_labelled() -> None:
    conv = normal_layer((3, 3, 2, 3), 6)
    seen: list[Snapshot] = []
    run = descend(
        conv,
        regularizers.FrobeniusMinusSmallest(),
        steps.Fixed(1e-3),
        maxiter=4,
        circulant_every=2,
        callback=lambda snapshot: seen.append(snapshot),
    )
    history = run.history
    assert [s.iteration for s in seen] == list(history.iteration.values) == [0, 1, 2, 3, 4]
    for record in seen:
        M = conv.with_kernel(record.kernel).to_dense()
        s = np.linalg.svd(M, compute_uv=False)
        at = history.sel(iteration=record.iteration)
        assert float(at.sigma_max) == pytest.approx(s[0], rel=1e-8)
        assert float(at.sigma_min) == pytest.approx(s[-1], abs=1e-8 * s[0])
        assert at.sigma_max_lower <= at.sigma_max <= at.sigma_max_upper
        assert float(at.penalty) == pytest.approx(0.5 * (M**2).sum() - len(s) * s[-1])
        assert float(at.penalty_frobenius + at.penalty_smallest) == pytest.approx(float(at.penalty))
        assert bool(at.circulant_computed) == (record.iteration % 2 == 0)
        assert bool(np.isnan(at.circulant_spectrum).all()) == (record.iteration % 2 == 1)
    assert history.kernel.dims == ("iteration", "kernel_y", "kernel_x", "input_channel", "output_channel")
    assert history.circulant_spectrum.dims == ("iteration", "frequency_y", "frequency_x", "rank")
    assert float(history.frequency_y[1]) == pytest.approx(2 * np.pi / 6)
    assert all("units" in history[name].attrs and "long_name" in history[name].attrs for name in history.data_vars)
    assert {"created_at", "version", "geometry", "penalty", "step_rule"} <= set(history.attrs)


def test_axes_of_every_dimension_are_named() -> None:
    for shape in ((3, 2, 2), (2, 2, 2, 1, 2)):
        conv = ConvOperator(
            np.random.default_rng(0).standard_normal(shape),
            (4,) * (len(shape) - 2),
            layout={3: "WIO", 5: "DHWIO"}[len(shape)],
        )
        history = descend(conv, regularizers.Frobenius(), steps.Fixed(1e-3), maxiter=1).history
        assert history.kernel.shape == (2, *shape)
    assert history.circulant_spectrum.dims == ("iteration", "frequency_z", "frequency_y", "frequency_x", "rank")


def test_padding_without_a_symbol_leaves_the_circulant_spectrum_out() -> None:
    conv = ConvOperator(np.random.default_rng(0).standard_normal((3, 3, 2, 2)), (6, 6), padding_mode="reflect")
    run = descend(conv, regularizers.OrthogonalityGap(), steps.ExactLineSearch(), maxiter=2)
    assert "circulant_spectrum" not in run.history


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"maxiter": 0}, DescentStop.MAXITER),
        ({"maxiter": 50, "rtol": 0.5}, DescentStop.CHANGE),
        ({"maxiter": 50, "gtol": 1e9}, DescentStop.GRADIENT),
        ({"maxiter": 500, "target": (0.2, 1.5)}, DescentStop.TARGET),
        ({"maxiter": 50, "callback": lambda snapshot: snapshot.iteration == 3}, DescentStop.CALLBACK),
    ],
)
def test_reasons_to_stop(options: dict[str, Any], reason: DescentStop) -> None:
    run = descend(normal_layer(), regularizers.OrthogonalityGap(), steps.ExactLineSearch(), **options)
    assert run.stop_reason is reason
    assert reason.value in run.message
    if reason is DescentStop.TARGET:
        assert ends(run.history, int(run.history.iteration[-1]))[1] >= 0.2
    if reason is DescentStop.CALLBACK:
        assert int(run.history.iteration[-1]) == 3


def test_numbers_out_of_range_are_a_reason_to_stop() -> None:
    conv = normal_layer((3, 3, 2, 3), 8)
    run = descend(
        conv.with_kernel(1e60 * conv.kernel),
        regularizers.OrthogonalityGap(),
        steps.ExactLineSearch(),
        maxiter=3,
        track=(),
    )
    assert run.stop_reason is DescentStop.DIVERGED
    assert np.isfinite(run.kernel).all()


@pytest.mark.parametrize("size", [1e-2, 1e3, 1e200])
def test_too_long_steps_stop_with_their_size(size: float) -> None:
    run = descend(normal_layer(), regularizers.OrthogonalityGap(), steps.Fixed(size), maxiter=100, track=())
    assert run.stop_reason is DescentStop.DIVERGED
    assert f"{size:.3g}" in run.message
    assert "Take a smaller one" in run.message
    assert np.isfinite(run.kernel).all()
    assert np.isfinite(run.history.penalty).all()


def test_a_minimum_ends_exact_line_search() -> None:
    # An isometry: no step decreases the penalty.
    conv = ConvOperator(np.eye(2)[None, None], (4, 4))
    run = descend(conv, regularizers.OrthogonalityGap(), steps.ExactLineSearch(), maxiter=5)
    assert run.stop_reason is DescentStop.GRADIENT
    assert float(run.history.penalty[0]) == 0.0


RUNS: dict[str, tuple[Any, Any]] = {
    "exact": (regularizers.OrthogonalityGap, steps.ExactLineSearch),
    "armijo on a singular value": (regularizers.FrobeniusMinusSmallest, steps.Armijo),
    "barzilai-borwein": (regularizers.OrthogonalityGap, steps.BarzilaiBorwein),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_resumed_run_equals_one_that_did_not_stop(tmp_path: Path, name: str) -> None:
    penalty, step = RUNS[name]
    conv = normal_layer((3, 3, 3, 6), 10)
    whole = descend(conv, penalty(), step(), maxiter=9, circulant_every=3, store=tmp_path / "whole.zarr")
    path = tmp_path / "parts.zarr"
    descend(conv, penalty(), step(), maxiter=4, circulant_every=3, store=path)
    descend(conv, penalty(), step(), maxiter=6, circulant_every=3, store=path, resume=True)
    parts = descend(conv, penalty(), step(), maxiter=9, circulant_every=3, store=path, resume=True)
    np.testing.assert_array_equal(whole.kernel, parts.kernel)
    for variable in whole.history.data_vars:
        if variable != "seconds":
            np.testing.assert_array_equal(whole.history[variable], parts.history[variable], err_msg=str(variable))
    assert SpectrumStore(path).last_iteration == 9
    # Nothing is left to do.
    again = descend(conv, penalty(), step(), maxiter=9, circulant_every=3, store=path, resume=True)
    assert again.stop_reason is DescentStop.MAXITER
    assert SpectrumStore(path).last_iteration == 9


@pytest.mark.parametrize("where", ["callback", "penalty"])
def test_an_interrupt_keeps_everything_before(tmp_path: Path, where: str) -> None:
    calls = []

    class Interrupting(regularizers.OrthogonalityGap):
        def value_and_grad(self, conv: ConvOperator) -> tuple[float, NDArray[np.floating]]:
            calls.append(1)
            if where == "penalty" and len(calls) == 4:
                raise KeyboardInterrupt
            return super().value_and_grad(conv)

    def callback(snapshot: Snapshot) -> None:
        if where == "callback" and snapshot.iteration == 2:
            raise KeyboardInterrupt

    path = tmp_path / "run.zarr"
    run = descend(normal_layer(), Interrupting(), steps.ExactLineSearch(), maxiter=10, store=path, callback=callback)
    assert run.stop_reason is DescentStop.INTERRUPTED
    with xr.open_zarr(path) as stored:
        assert list(stored.iteration.values) == [0, 1, 2]
        np.testing.assert_array_equal(stored.kernel[-1], run.kernel)


class TestBadInput:
    def run(self, **options: Any) -> Any:
        arguments = {"penalty": regularizers.Frobenius(), "step": steps.Fixed(1e-3), "maxiter": 2, **options}
        return descend(normal_layer((3, 3, 1, 1), 4), **arguments)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"penalty": abs}, "`penalty` must have methods `value` and `value_and_grad`"),
            ({"step": 1e-3}, "`step` must be a step rule such as steps.Fixed"),
            ({"direction": 3}, "`direction` must have a method"),
            ({"maxiter": -1}, "`maxiter` must be an integer of at least 0"),
            ({"rtol": -1.0}, "`rtol` must be a finite number"),
            ({"track": ("sigma",)}, "`track` must hold names out of sigma_max, sigma_min"),
            ({"target": (1.0, 0.5)}, "`target` must be"),
            ({"target": (0.5, 1.0), "track": ("sigma_max",)}, "`target` must be"),
            ({"resume": True}, "`resume=True` needs the `store`"),
            ({"circulant_every": 0}, "`circulant_every` must be an integer of at least 1"),
        ],
    )
    def test_parameters(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            self.run(**options)

    def test_exact_search_names_the_penalty_without_polynomial(self) -> None:
        with pytest.raises(NotApplicableError, match="`line_polynomial`; SpectralNorm has none"):
            self.run(penalty=regularizers.SpectralNorm(), step=steps.ExactLineSearch())

    def test_a_penalty_that_is_not_finite_at_the_start(self) -> None:
        with pytest.raises(ValueError, match="`penalty` must be finite at the first kernel; LipBound is -inf"):
            descend(ConvOperator(np.zeros((3, 3, 1, 1)), (4, 4)), regularizers.LipBound(), maxiter=1)

    @pytest.mark.parametrize(
        ("other", "message"),
        [
            ({"resume": False}, "`store` already holds a run of 2 iterations"),
            ({"penalty": regularizers.OrthogonalityGap()}, "`store` holds a run of another penalty"),
            ({"track": ("sigma_max",)}, "`track` must be that of the stored run"),
        ],
    )
    def test_a_store_of_another_run(self, tmp_path: Path, other: dict[str, Any], message: str) -> None:
        path = tmp_path / "run.zarr"
        self.run(store=path)
        with pytest.raises(ValueError, match=message):
            self.run(**{"store": path, "resume": True, "maxiter": 4, **other})
        assert SpectrumStore(path).last_iteration == 2

    def test_a_store_of_another_layer(self, tmp_path: Path) -> None:
        path = tmp_path / "run.zarr"
        self.run(store=path)
        for conv, message in (
            (normal_layer((3, 3, 1, 2), 4), "another geometry"),
            (ConvOperator(np.ones((3, 3, 1, 1)), (4, 4)), "started from another kernel"),
        ):
            with pytest.raises(ValueError, match=message):
                descend(conv, regularizers.Frobenius(), steps.Fixed(1e-3), maxiter=4, store=path, resume=True)

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: steps.Fixed(0.0), "`t` must be a finite number above 0"),
            (lambda: steps.Schedule({10: 1e-3}), "`sizes` must say what to do from iteration 1 on"),
            (lambda: steps.Schedule({1: -1.0}), "`sizes` must be a finite number above 0"),
            (lambda: steps.Armijo(decrease=2.0), "`decrease` must be a number between 0 and 1"),
            (lambda: steps.BarzilaiBorwein(first=np.inf), "`first` must be a finite number above 0"),
        ],
    )
    def test_step_rules(self, make: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            make()
