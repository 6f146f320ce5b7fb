"""Figures of descents: what they show is what was recorded, and they say what it is."""

from __future__ import annotations

import io
import itertools
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection, QuadMesh
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.text import Text

from spectral_conv import (
    ConvOperator,
    SpectrumStore,
    bounds,
    descend,
    plot_circulant,
    plot_descent,
    regularizers,
    steps,
)
from spectral_conv.report.plots import draw_course
from spectral_conv.report.plots_bounds import plot_bounds, plot_tightness
from spectral_conv.results import BoundTable

KERNEL = np.random.default_rng(1).standard_normal((3, 3, 2, 3))


def history(mode: str = "zeros", rule: Any = None, **options: Any) -> xr.Dataset:
    conv = ConvOperator(KERNEL, (6, 6), padding_mode=mode)
    rule = steps.ExactLineSearch() if rule is None else rule
    run = descend(conv, regularizers.OrthogonalityGap(), rule, **{"maxiter": 4, "circulant_every": 2, **options})
    return run.history


@pytest.fixture(scope="module")
def plain() -> xr.Dataset:
    return history()


def saved(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=50)
    return buffer.getvalue()


def curves(ax: Axes) -> list[Any]:
    return [line for line in ax.lines if len(line.get_xdata()) > 1]


def legend_words(ax: Axes) -> list[str]:
    legend = ax.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


class TestDescent:
    def test_lines_are_the_recorded_values(self, plain: xr.Dataset) -> None:
        figure = plot_descent(plain)
        left, right = figure.axes
        for ax, end, colour in ((left, "sigma_max", "tab:blue"), (right, "sigma_min", "tab:red")):
            (line,) = curves(ax)
            np.testing.assert_array_equal(line.get_xdata(), plain["iteration"])
            np.testing.assert_array_equal(line.get_ydata(), plain[end])
            assert to_rgba(line.get_color()) == to_rgba(colour)
            assert line.get_linestyle() == "-"
        assert left.get_xlabel() == "iteration"
        assert left.get_ylabel() == r"largest singular value $\sigma_{\max}$ (dimensionless)"
        assert right.get_ylabel() == r"smallest singular value $\sigma_{\min}$ (dimensionless)"
        assert right.yaxis.get_label_position() == "right"
        assert legend_words(left) == ["largest (left axis)", "smallest (right axis)"]
        assert saved(figure).startswith(b"\x89PNG")

    def test_the_caption_says_which_operator_penalty_and_rule(self, plain: xr.Dataset) -> None:
        caption = " ".join(plot_descent(plain).get_supxlabel().split())
        assert caption == (
            "Exact singular values of the zero-padded operator, kernel 3x3, channels 2 to 3, image 6x6; penalty "
            "OrthogonalityGap(alpha=1.0); steps by ExactLineSearch()."
        )

    @pytest.mark.parametrize(
        ("geometry", "words"),
        [
            ({"padding_mode": "circular"}, "circular operator"),
            ({"padding_mode": "reflect"}, "reflection-padded operator"),
            ({"padding": "valid", "stride": 2}, "unpadded operator, kernel 3x3, channels 2 to 3, stride 2x2, image"),
            ({"dilation": 2, "padding": 2}, "dilation 2x2"),
        ],
    )
    def test_the_caption_says_how_it_is_padded(self, geometry: dict[str, Any], words: str) -> None:
        conv = ConvOperator(KERNEL, (6, 6), **geometry)
        run = descend(conv, regularizers.Frobenius(), maxiter=0)
        assert words in " ".join(plot_descent(run.history).get_supxlabel().split())

    def test_several_runs_differ_in_line_style(self, plain: xr.Dataset) -> None:
        fixed = history(rule=steps.Fixed(1e-5))
        figure = plot_descent({"exact": plain, "fixed $a_b$": fixed})
        left, right = figure.axes
        for ax in (left, right):
            assert [line.get_linestyle() for line in curves(ax)] == ["-", "--"]
        assert legend_words(left)[2:] == ["exact", "fixed $a_b$"]
        caption = figure.get_supxlabel().splitlines()
        assert caption[-2:] == ["exact: steps by ExactLineSearch().", "fixed $a_b$: steps by Fixed(t=1e-05)."]
        saved(figure)

    def test_one_end_alone_and_runs_with_different_ends(self, plain: xr.Dataset) -> None:
        largest = history(track=("sigma_max",))
        (ax,) = plot_descent(largest).axes
        assert ax.get_ylabel().startswith("largest")
        assert legend_words(ax) == ["largest"]
        (ax,) = plot_descent(history(track=("sigma_min",))).axes
        assert ax.get_ylabel().startswith("smallest")
        left, right = plot_descent({"a": largest, "b": plain}).axes
        assert [line.get_linestyle() for line in curves(left)] == ["-", "--"]
        assert [line.get_linestyle() for line in curves(right)] == ["--"]

    def test_bounds_are_a_band_only_where_they_are_visible(self, plain: xr.Dataset) -> None:
        def bands(figure: Any) -> list[bool]:
            return [any(isinstance(c, PolyCollection) for c in ax.collections) for ax in figure.axes]

        assert bands(plot_descent(plain)) == [False, False]
        wide = plain.assign(sigma_min_lower=plain["sigma_min"] - 0.1, sigma_min_upper=plain["sigma_min"] + 0.1)
        assert bands(plot_descent(wide)) == [False, True]

    def test_legend_and_caption_cover_nothing(self, plain: xr.Dataset) -> None:
        figure = plot_descent({"exact": plain, "again": plain})
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        renderer = canvas.get_renderer()
        frame = figure.axes[0].get_window_extent(renderer)
        legend = figure.axes[0].get_legend().get_window_extent(renderer)
        caption = figure._supxlabel.get_window_extent(renderer)
        label = figure.axes[0].xaxis.label.get_window_extent(renderer)
        assert legend.y0 >= frame.y1 - 1
        assert caption.y1 <= label.y0
        for box in (legend, caption):
            assert figure.bbox.x0 <= box.x0
            assert box.x1 <= figure.bbox.x1
            assert figure.bbox.y0 <= box.y0
            assert box.y1 <= figure.bbox.y1

    def test_a_single_iteration_is_a_point(self, plain: xr.Dataset) -> None:
        figure = plot_descent(plain.isel(iteration=[0]))
        assert figure.axes[0].lines[0].get_marker() == "o"
        saved(figure)

    def test_a_stored_run_and_a_given_figure(self, tmp_path: Path) -> None:
        history(store=tmp_path / "run.zarr")
        mine = Figure()
        assert plot_descent(SpectrumStore(tmp_path / "run.zarr").open(), figure=mine) is mine
        saved(mine)

    def test_runs_without_either_end_are_refused(self, plain: xr.Dataset) -> None:
        bare = history(track=())
        with pytest.raises(ValueError, match=r"`sigma_max` or `sigma_min`; got 1 runs\. Pass track="):
            plot_descent(bare)
        with pytest.raises(ValueError, match=r"got 2 runs; 'b' has neither"):
            plot_descent({"a": plain, "b": bare})
        with pytest.raises(ValueError, match=r"got 0 runs"):
            plot_descent({})

    def test_attributes_may_be_missing(self, plain: xr.Dataset) -> None:
        bare = plain.drop_attrs()
        assert plot_descent(bare).get_supxlabel() == "Exact singular values of the operator."
        assert "unless padding is circular" in plot_circulant(bare).get_title()


class TestCirculant:
    def test_columns_are_histograms_of_the_recorded_spectra(self, plain: xr.Dataset) -> None:
        ax = plot_circulant(plain)
        (mesh,) = (c for c in ax.collections if isinstance(c, QuadMesh))
        shares = np.ma.filled(mesh.get_array(), 0.0)
        np.testing.assert_allclose(shares.sum(axis=0), 1.0)  # no value is left out
        corners = mesh.get_coordinates()
        np.testing.assert_array_equal(corners[0, :, 0], [-0.5, 1.0, 3.0, 4.5])
        edges = corners[:, 0, 1]
        for column, iteration in enumerate((0, 2, 4)):
            values = plain["circulant_spectrum"].sel(iteration=iteration).values
            inside = np.histogram(values, edges)[0] / values.size
            np.testing.assert_allclose(shares[:, column], inside)

    def test_exact_ends_are_lines_over_it(self, plain: xr.Dataset) -> None:
        ax = plot_circulant(plain)
        largest, smallest = curves(ax)
        np.testing.assert_array_equal(largest.get_ydata(), plain["sigma_max"])
        np.testing.assert_array_equal(smallest.get_ydata(), plain["sigma_min"])
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("iteration", "singular value (dimensionless)")
        assert legend_words(ax) == ["largest, exact", "smallest, exact"]
        colour_bar = ax.figure.axes[1]
        assert colour_bar.get_ylabel() == "share of the circulant's values (dimensionless)"
        saved(ax.figure)

    def test_the_title_says_whether_it_is_an_estimate(self, plain: xr.Dataset) -> None:
        assert plot_circulant(plain).get_title() == "Circulant spectrum: an estimate of the layer's spectrum"
        assert "exact" in plot_circulant(history("circular")).get_title()

    def test_title_and_legend_do_not_meet(self, plain: xr.Dataset) -> None:
        ax = plot_circulant(plain)
        canvas = FigureCanvasAgg(ax.figure)
        canvas.draw()
        legend = ax.get_legend().get_window_extent(canvas.get_renderer())
        assert ax.title.get_window_extent(canvas.get_renderer()).y0 >= legend.y1 - 6

    def test_given_axes_and_one_computed_spectrum(self) -> None:
        mine = Figure().add_subplot()
        assert plot_circulant(history(circulant_every=9, track=()), ax=mine) is mine
        assert mine.get_legend() is None
        saved(mine.figure)

    @pytest.mark.parametrize("options", [{"circulant_every": None}, {"mode": "reflect"}])
    def test_without_a_circulant_spectrum_it_is_refused(self, options: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="`history` must hold a circulant spectrum"):
            plot_circulant(history(**options))


def test_the_course_has_the_second_panel_where_there_is_something_to_show(plain: xr.Dataset) -> None:
    both = draw_course(plain, title="odd $name_")
    assert len(both.subfigs) == 2
    assert both.get_suptitle() == "odd $name_"
    saved(both)
    one = draw_course(history(circulant_every=None))
    assert len(one.subfigs) == 1
    saved(one)


@pytest.fixture(scope="module")
def table() -> BoundTable:
    return bounds.table(ConvOperator(KERNEL, (6, 6)))


class TestBounds:
    def test_one_labelled_point_per_method(self, table: BoundTable) -> None:
        ax = plot_bounds(table)
        assert [text.get_text() for text in ax.texts] == sorted_by_distance(table)
        points = {float(line.get_xdata()[0]): line for line in ax.lines if len(line.get_xdata()) == 1}
        for row in table.rows:
            line = points[1e3 * row.bound.seconds]
            assert float(line.get_ydata()[0]) == max(abs(row.ratio - 1.0), 1e-6)
            assert (line.get_marker() == "o") == (row.bound.kind in ("upper", "exact"))
        assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
        assert ax.get_xlabel() == "time (ms)"
        assert ax.get_ylabel().startswith("distance from the exact value, |ratio - 1| (dimensionless)")
        assert ax.get_title() == "Bounds of the largest singular value"
        assert {"upper bound", "lower bound: 1 - ratio", "estimate, no bound"} <= set(legend_words(ax))
        assert saved(ax.figure).startswith(b"\x89PNG")

    def test_labels_do_not_meet_and_stay_in_the_figure(self, table: BoundTable) -> None:
        close = replace(table, rows=tuple(replace(row, ratio=1.001) for row in table.rows))
        for shown in (table, close):
            ax = plot_bounds(shown)
            boxes = text_boxes(ax)
            for lower, upper in itertools.pairwise(sorted(boxes, key=lambda box: box.y0)):
                assert lower.y1 <= upper.y0
            assert max(box.x1 for box in boxes) <= ax.figure.bbox.x1
            assert min(box.y0 for box in boxes) >= ax.figure.bbox.y0

    def test_what_is_closer_than_can_be_told_is_said_to_be(self, table: BoundTable) -> None:
        close = replace(table, rows=(replace(table.rows[0], ratio=1.0 + 1e-12), *table.rows[1:]))
        assert "closer than 1e-06 is drawn there" in plot_bounds(close).get_ylabel()
        wide = replace(table, rows=tuple(replace(row, ratio=2.0) for row in table.rows))
        assert "closer" not in plot_bounds(wide).get_ylabel()

    def test_without_an_exact_value_it_is_refused(self) -> None:
        conv = ConvOperator(KERNEL, (6, 6))
        with pytest.raises(ValueError, match=r"`table` must hold an exact value above 0 .* got 0 ratios\. not asked"):
            plot_bounds(bounds.table(conv, exact=False))
        with pytest.raises(ValueError, match=r"got 0 ratios\. Pass exact=True"):
            plot_bounds(bounds.table(conv.with_kernel(0.0 * KERNEL)))

    def test_given_axes(self, table: BoundTable) -> None:
        mine = Figure().add_subplot()
        assert plot_bounds(table, ax=mine) is mine


class TestTightness:
    DATA = xr.Dataset(
        {
            "ratio": (
                ("kernel", "bound", "size"),
                [
                    [[1.3, 1.1, 1.01], [0.9, 0.99, 0.999], [np.nan, np.nan, np.nan]],
                    [[1.5, 1.2, 1.03], [0.8, 0.98, 0.998], [np.nan, np.nan, np.nan]],
                ],
            ),
            "kind": ("bound", ["upper", "lower", "upper"]),
        },
        {"bound": ["above", "below", "nowhere"], "size": [8, 16, 32]},
    )

    def test_lines_are_medians_in_a_band(self) -> None:
        ax = plot_tightness(self.DATA)
        above, below = curves(ax)
        np.testing.assert_array_equal(above.get_xdata(), [8, 16, 32])
        np.testing.assert_allclose(above.get_ydata(), [0.4, 0.15, 0.02])
        np.testing.assert_allclose(below.get_ydata(), [0.15, 0.015, 0.0015])
        assert above.get_linestyle() != below.get_linestyle()
        assert sum(isinstance(c, PolyCollection) for c in ax.collections) == 2
        assert [text.get_text() for text in ax.texts] == ["below", "above"]
        assert ax.get_xlabel() == "image size N (pixels per axis)"
        assert ax.get_ylabel() == "distance from the exact value, |ratio - 1| (dimensionless)"
        assert [tick.get_text() for tick in ax.get_xticklabels()] == ["8", "16", "32"]
        assert saved(ax.figure).startswith(b"\x89PNG")

    def test_one_kernel_has_no_band_and_the_axes_are_given(self) -> None:
        mine = Figure().add_subplot()
        assert plot_tightness(self.DATA.isel(kernel=[0]), ax=mine) is mine
        assert not any(isinstance(c, PolyCollection) for c in mine.collections)

    def test_what_is_missing_is_named(self) -> None:
        with pytest.raises(ValueError, match=r"`data` must hold `ratio` .*; kind is missing"):
            plot_tightness(self.DATA.drop_vars("kind"))


def sorted_by_distance(table: BoundTable) -> list[str]:
    """Methods from the closest to the farthest, of equal ones the slowest first."""
    rows = sorted(table.rows, key=lambda row: (max(abs(row.ratio - 1.0), 1e-6), -row.bound.seconds))
    return [row.method for row in rows]


def text_boxes(ax: Axes) -> list[Any]:
    canvas = FigureCanvasAgg(ax.figure)
    canvas.draw()
    return [Text.get_window_extent(text, canvas.get_renderer()) for text in ax.texts]


def test_pyplot_is_left_alone(plain: xr.Dataset) -> None:
    before = "matplotlib.pyplot" in sys.modules
    saved(draw_course(plain))
    assert ("matplotlib.pyplot" in sys.modules) == before
