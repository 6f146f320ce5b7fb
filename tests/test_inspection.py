"""A whole model: the numbers, the reasons, the forms they are handed out in."""

from __future__ import annotations

import json
import math
import pickle
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from importlib.resources import files
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from threadpoolctl import threadpool_limits

from spectral_conv import bounds
from spectral_conv.inspection import Inspection, Settings, analyze_layer, inspect_model
from spectral_conv.inspection import _analysis as analysis
from spectral_conv.models import ConvLayer, read_model
from spectral_conv.operator import ConvOperator
from spectral_conv.report.record import NOT_ASKED, is_upper
from spectral_conv.results import StopReason
from tests.tolerances import DENSE, NORM

DATA = Path(str(files("spectral_conv") / "data"))
WEIGHTS, GEOMETRY = DATA / "digits.safetensors", DATA / "digits.layers.json"


def operators() -> list[ConvOperator]:
    rng = np.random.default_rng(3)
    return [
        ConvOperator(rng.standard_normal((3, 3, 1, 2)), (5, 6)),
        ConvOperator(rng.standard_normal((3, 3, 2, 2)).astype(np.float32), (6, 6), stride=2),
        ConvOperator(rng.standard_normal((3, 3, 2, 1)), (5, 5), padding_mode="reflect"),
        ConvOperator(rng.standard_normal((3, 2, 3)), (9,), layout="WIO"),
    ]


def dense_values(conv: ConvOperator) -> Any:
    with threadpool_limits(1):  # two threads of BLAS on a busy machine take ten times as long as one
        return np.linalg.svd(conv.to_dense().astype(np.float64), compute_uv=False)


@pytest.fixture(scope="module")
def digits() -> Inspection:
    return inspect_model(WEIGHTS, layers=GEOMETRY)


@pytest.fixture(scope="module")
def small() -> Inspection:
    return inspect_model(operators())


def values(inspection: Inspection) -> list[tuple[Any, ...]]:
    return [
        (
            r.name,
            r.sigma_max,
            r.sigma_max_reason,
            r.sigma_min,
            r.sigma_min_reason,
            r.circulant,
            r.circulant_reason,
        )
        for r in inspection.reports
    ]


def test_values_of_the_digits_network_are_those_of_the_dense_matrices(digits: Inspection) -> None:
    model = read_model(WEIGHTS, layers=GEOMETRY)
    assert digits.complete
    assert [report.name for report in digits.reports] == [layer.name for layer in model.layers]
    for report, layer in zip(digits.reports, model.layers, strict=True):
        exact = dense_values(layer.operator)
        assert report.sigma_max is not None
        assert report.sigma_min is not None
        assert abs(report.sigma_max.value - exact[0]) <= 1e-8 * exact[0]
        assert abs(report.sigma_min.value - exact[-1]) <= 1e-9 * exact[0]
        for enclosure, value in ((report.sigma_max, exact[0]), (report.sigma_min, exact[-1])):
            slack = 1e-13 * exact[0]  # of the dense values themselves
            assert enclosure.lower - slack <= value <= enclosure.upper + slack
        assert report.seconds > 0
        assert report.assumed == ()


def test_the_digits_network_shows_what_the_demo_says(digits: Inspection) -> None:
    by_name = {report.name: report for report in digits.reports}
    square, pointwise = by_name["square.weight"], by_name["pointwise.weight"]
    assert square.circulant[1] > 100 * square.sigma_min.value
    assert pointwise.circulant == pytest.approx((pointwise.sigma_max.value, pointwise.sigma_min.value), rel=1e-9)


def test_circular_ends_are_those_of_the_circular_operator(digits: Inspection) -> None:
    layer = read_model(WEIGHTS, layers=GEOMETRY).layers[1]
    wrapped = ConvOperator(layer.operator.kernel, layer.operator.input_shape, padding_mode="circular")
    exact = dense_values(wrapped)
    circulant = next(report.circulant for report in digits.reports if report.name == layer.name)
    assert circulant == pytest.approx((exact[0], exact[-1]), rel=1e-10)


def test_operators_need_no_file(small: Inspection) -> None:
    assert [report.name for report in small.reports] == ["layer0", "layer1", "layer2", "layer3"]
    assert [report.layout for report in small.reports] == ["HWIO", "HWIO", "HWIO", "WIO"]
    assert small.complete
    assert small.skipped == ()


def test_a_missing_symbol_is_a_reason_and_no_failure(small: Inspection) -> None:
    report = small.reports[2]
    assert report.circulant is None
    assert "reflect" in report.circulant_reason
    assert report.complete


def test_float32_weights_are_analysed_in_float64(small: Inspection) -> None:
    conv = operators()[1]
    exact = dense_values(conv)
    assert small.reports[1].sigma_max.value == pytest.approx(exact[0], rel=1e-8)


def test_smallest_can_be_left_out() -> None:
    report = inspect_model(operators()[:1], smallest=False).reports[0]
    assert report.sigma_min is None
    assert report.sigma_min_reason == NOT_ASKED
    assert report.complete


def test_rtol_of_the_smallest_value_is_never_looser_than_its_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def record(conv: ConvOperator, *, rtol: float, memory_limit: int | None, certify: bool) -> Any:
        asked.append((rtol, memory_limit))
        raise ValueError("only recorded")

    monkeypatch.setattr(analysis, "spectral_norm", record)
    monkeypatch.setattr(analysis, "smallest_singular_value", record)
    inspect_model(operators()[:1])
    inspect_model(operators()[:1], rtol=1e-11, memory_limit=1000)
    assert asked == [(1e-8, None), (1e-9, None), (1e-11, 1000), (1e-11, 1000)]


@pytest.mark.parametrize(
    "error",
    [ValueError("too large"), RuntimeError("no convergence"), MemoryError(), FloatingPointError("overflow")],
)
def test_a_layer_that_fails_stays_in_the_list(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    real = analysis.smallest_singular_value

    def failing(conv: ConvOperator, **options: Any) -> Any:
        if conv.geometry.ndim == 1:
            raise error
        return real(conv, **options)

    monkeypatch.setattr(analysis, "smallest_singular_value", failing)
    result = inspect_model(operators())
    assert [report.sigma_min is None for report in result.reports] == [False, False, False, True]
    assert result.reports[3].sigma_max is not None
    assert (str(error) or "`memory_limit`") in result.reports[3].sigma_min_reason
    assert not result.complete
    assert not result.reports[3].complete


def test_a_mistake_of_the_package_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(conv: ConvOperator, **options: Any) -> Any:
        raise TypeError("a mistake")

    monkeypatch.setattr(analysis, "spectral_norm", broken)
    with pytest.raises(TypeError, match="a mistake"):
        inspect_model(operators()[:1])


def test_a_bracket_counts_as_incomplete(digits: Inspection) -> None:
    report = digits.reports[0]
    bracket = replace(report.sigma_max, method="bracket", stop_reason=StopReason.LIMIT)
    assert report.complete
    assert not replace(report, sigma_max=bracket).complete
    assert not replace(digits, reports=(replace(report, sigma_min=bracket),)).complete


class Inline(Executor):
    """Runs a batch at once and notes its layers; `deaths` say how often the worker of a layer with one axis dies."""

    def __init__(self, deaths: int = 0) -> None:
        self.sizes: list[list[int]] = []
        self.deaths = deaths

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.sizes.append([math.prod(task.source.operator.shape) for task in args[0]])
        future: Future[Any] = Future()
        if self.deaths and any(task.source.operator.geometry.ndim == 1 for task in args[0]):
            self.deaths -= 1
            future.set_exception(BrokenProcessPool("a worker was killed"))
        else:
            future.set_result(fn(*args, **kwargs))
        return future


def test_executor_gives_the_same_values_in_the_same_order(small: Inspection) -> None:
    with ThreadPoolExecutor(2) as pool:
        threaded = inspect_model(operators(), executor=pool)
    assert values(threaded) == values(small)


def test_executor_gets_the_costliest_layer_first(small: Inspection) -> None:
    convs = [ConvOperator(np.ones((3, 3, 2, 2)) / n, (n, n)) for n in (4, 8, 6)]
    executor = Inline()
    result = inspect_model(convs, executor=executor)
    assert executor.sizes == sorted(executor.sizes, reverse=True)
    assert [report.input_shape for report in result.reports] == [(2, 4, 4), (2, 8, 8), (2, 6, 6)]


def test_layers_that_go_together_are_all_there() -> None:
    rng = np.random.default_rng(6)
    convs = [ConvOperator(rng.standard_normal((2, 2, 1, 1)), (3, 3)) for _ in range(40)]
    executor = Inline()
    found = inspect_model(convs, executor=executor)
    assert max(map(len, executor.sizes)) > 1
    assert values(found) == values(inspect_model(convs))


@pytest.mark.parametrize("deaths", [1, 2])
def test_a_worker_that_dies_once_loses_nothing_and_twice_its_own_layer_only(deaths: int, small: Inspection) -> None:
    result = inspect_model(operators(), executor=Inline(deaths))
    assert values(result)[:3] == values(small)[:3]
    assert result.complete == (deaths == 1)
    if deaths == 1:
        assert values(result) == values(small)
        return
    lost = result.reports[3]
    assert lost.sigma_max is None
    assert lost.sigma_max_reason == lost.sigma_min_reason == lost.circulant_reason
    assert lost.sigma_max_reason.startswith("The worker died twice (a worker was killed). Is memory short? Set a")


def test_a_task_is_picklable(small: Inspection) -> None:
    conv = operators()[0]
    layer = ConvLayer(name="layer0", operator=conv, assumed=(), kernel_shape=conv.kernel.shape, layout="HWIO")
    analyze, args = pickle.loads(pickle.dumps((analyze_layer, (layer, Settings()))))
    assert analyze is analyze_layer
    assert replace(analyze(*args), seconds=0.0) == replace(small.reports[0], seconds=0.0)


def test_dataset_has_one_labelled_row_per_layer(digits: Inspection) -> None:
    dataset = digits.dataset
    assert dict(dataset.sizes) == {"layer": 6}
    assert list(dataset["layer"].values) == [report.name for report in digits.reports]
    largest = dataset["sigma_max"]
    assert largest.attrs == {"long_name": "largest singular value", "units": "1"}
    assert float(largest.sel(layer="square.weight")) == digits.reports[1].sigma_max.value
    assert all("long_name" in dataset[name].attrs for name in dataset.data_vars)
    assert dataset.attrs["model"] == "digits.safetensors"
    assert digits.dataset is dataset


def test_dataframe_has_the_columns_of_the_dataset(digits: Inspection, small: Inspection) -> None:
    frame = digits.to_dataframe()
    assert list(frame.columns) == list(digits.dataset.data_vars)
    assert frame.loc["stem.weight", "kernel_shape"] == "16x1x3x3"
    missing = small.to_dataframe().loc["layer2"]
    assert math.isnan(missing["circulant_sigma_max"])


def test_document_is_plain_json(digits: Inspection) -> None:
    document = digits.document()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["model"] == "digits.safetensors"
    assert document["schema"] == 1
    assert {entry["name"] for entry in document["skipped"]} >= {"head.weight", "stem.bias"}


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_numbers_beyond_their_range_leave_the_document_plain_json() -> None:
    found = inspect_model([ConvOperator(np.full((3, 3, 2, 2), 1e308), (5, 5))])
    assert "beyond the range of numbers" in found.reports[0].circulant_reason
    assert json.loads(json.dumps(found.document(), allow_nan=False)) == found.document()


@pytest.fixture(scope="module")
def bounded() -> Inspection:
    return inspect_model(operators(), bounds=True)


class TestBounds:
    def test_each_layer_has_the_table_beside_its_value(self, bounded: Inspection, small: Inspection) -> None:
        assert bounded.complete
        assert values(bounded) == values(small)
        for report, conv in zip(bounded.reports, operators(), strict=True):
            alone = bounds.table(conv, exact=False)
            assert report.bounds.exact == report.sigma_max
            assert report.bounds.exact_seconds > 0.0
            assert report.bounds_reason is None
            for row, expected in zip(report.bounds.rows, alone.rows, strict=True):
                assert (row.method, row.reason) == (expected.method, expected.reason)
                if expected.bound is None:
                    assert (row.bound, row.ratio) == (None, None)
                else:
                    assert row.bound.value == expected.bound.value
                    assert row.ratio == row.bound.value / report.sigma_max.value
                    assert row.ratio >= 1.0 - NORM or not is_upper(row.bound)

    def test_not_asked_for_is_the_default(self, small: Inspection) -> None:
        assert all(report.bounds is None and report.bounds_reason == NOT_ASKED for report in small.reports)
        assert "bound" not in small.dataset.dims
        document = small.document()
        assert document["settings"]["bounds"] is False
        assert all(layer["bounds"] == {} for layer in document["layers"])

    def test_dataset_is_over_layer_and_method(self, bounded: Inspection) -> None:
        dataset = bounded.dataset
        assert set(dataset["bound"].values) == {row.method for row in bounded.reports[0].bounds.rows}
        for name in ("bound_value", "bound_kind", "bound_ratio", "bound_seconds", "bound_reason"):
            assert dataset[name].dims == ("layer", "bound")
            assert "long_name" in dataset[name].attrs
        for i, report in enumerate(bounded.reports):
            for row in report.bounds.rows:
                here = dataset.isel(layer=i).sel(bound=row.method)
                assert (str(here["bound_kind"].values), str(here["bound_reason"].values)) == (
                    "" if row.bound is None else row.bound.kind,
                    row.reason,
                )
                for name, number in (("bound_value", row.bound and row.bound.value), ("bound_ratio", row.ratio)):
                    np.testing.assert_equal(float(here[name]), math.nan if number is None else number)
        frame = bounded.to_dataframe()
        assert list(frame.index) == [report.name for report in bounded.reports]
        assert not any(name.startswith("bound") for name in frame.columns)

    def test_document_says_what_applies_and_why_not(self, bounded: Inspection) -> None:
        document = bounded.document()
        assert json.loads(json.dumps(document, allow_nan=False)) == document
        reflecting = document["layers"][2]["bounds"]
        assert "reflect" in reflecting["supremum"]["reason"]
        assert set(reflecting["supremum"]) == {"reason"}
        assert set(reflecting["reshaped"]) == {"value", "kind", "ratio", "seconds"}

    def test_bounds_that_fail_lose_nothing_else(self, monkeypatch: pytest.MonkeyPatch, small: Inspection) -> None:
        def failing(conv: ConvOperator, **options: Any) -> Any:
            raise MemoryError

        monkeypatch.setattr(bounds, "table", failing)
        result = inspect_model(operators(), bounds=True)
        assert values(result) == values(small)
        assert not result.complete
        assert all("`memory_limit`" in layer["bounds_reason"] for layer in result.document()["layers"])

    def test_without_an_exact_value_there_are_bounds_but_no_ratios(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real = analysis.spectral_norm

        def failing(conv: ConvOperator, **options: Any) -> Any:
            if conv.geometry.ndim == 1:
                raise RuntimeError("no convergence")
            return replace(real(conv, **options), method="bracket")

        monkeypatch.setattr(analysis, "spectral_norm", failing)
        result = inspect_model([operators()[0], operators()[3]], bounds=True)
        for report in result.reports:
            assert all(row.ratio is None for row in report.bounds.rows)
            assert report.bounds.rows[0].bound.value > 0.0
        assert result.reports[1].sigma_max_reason == "no convergence"

    def test_zero_layers_have_no_ratios(self) -> None:
        table = inspect_model([ConvOperator(np.zeros((3, 3, 1, 1)), (4, 4))], bounds=True).reports[0].bounds
        assert {row.bound.value for row in table.rows} == {0.0}
        assert {row.ratio for row in table.rows} == {None}

    def test_an_executor_gives_the_same(self, bounded: Inspection) -> None:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            elsewhere = inspect_model(operators(), bounds=True, executor=pool)
        xr.testing.assert_allclose(
            elsewhere.dataset.drop_vars(["seconds", "bound_seconds"]),
            bounded.dataset.drop_vars(["seconds", "bound_seconds"]),
            rtol=DENSE[np.dtype(np.float64)],  # the order of sums depends on the number of threads
        )
        lost = inspect_model(operators(), bounds=True, executor=Inline(deaths=2))
        (reason,) = [report.bounds_reason for report in lost.reports if report.bounds is None]
        assert "a worker was killed" in reason


def test_only_the_layers_of_a_model_are_needed(digits: Inspection) -> None:
    model = read_model(WEIGHTS, layers=GEOMETRY)
    part = inspect_model(replace(model, layers=model.layers[:1]))
    assert values(part) == values(digits)[:1]


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("nowhere.safetensors", {}, "nowhere.safetensors"),
        (3, {}, "A model must be given as the path of its file, or as a torch.nn.Module; got int"),
        ([1, 2], {}, "`model` must be a path"),
        ([], {"input_size": (3, 8, 8)}, "`input_size` and `layers` go with a path"),
        ([], {"rtol": 0.0}, "`rtol` must lie between 0 and 1; got 0.0"),
        ([], {"rtol": float("nan")}, "`rtol` must lie between 0 and 1; got nan"),
    ],
)
def test_wrong_arguments_are_named(model: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        inspect_model(model, **options)


def test_no_bar_without_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    inspect_model(operators()[:1], progress=True)
    assert capfd.readouterr() == ("", "")


class Terminal:
    encoding = "utf-8"

    def __init__(self) -> None:
        self.written = ""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.written += text
        return len(text)

    def flush(self) -> None:
        pass


@pytest.mark.parametrize("wanted", [True, False])
def test_a_bar_on_a_terminal_and_only_if_wanted(monkeypatch: pytest.MonkeyPatch, wanted: bool) -> None:
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", terminal)
    inspect_model(operators()[:2], progress=wanted)
    assert ("2/2" in terminal.written) == wanted
    assert bool(terminal.written) == wanted
