"""Figures in few bytes: what is shared, merged and shortened shows the same as before."""

from __future__ import annotations

import io
import re
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.image import imread, imsave

from spectral_conv.report.html_png import palette_png
from spectral_conv.report.html_shared import share
from spectral_conv.report.html_svg import inline_svg
from spectral_conv.report.plots import new_figure


def png(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    imsave(buffer, np.asarray(pixels, dtype=np.uint8), format="png")
    return buffer.getvalue()


def pixels_of(data: bytes) -> Any:
    return np.rint(255 * imread(io.BytesIO(data), format="png")[..., :3]).astype(int)


class TestPng:
    @settings(max_examples=40, deadline=None)
    @given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 300), st.integers(0, 2**32 - 1))
    def test_the_same_pixels(self, height: int, width: int, colours: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        palette = rng.integers(0, 256, (colours, 3))
        pixels = palette[rng.integers(0, colours, (height, width))]
        small = palette_png(png(pixels))
        assert len(small) <= len(png(pixels))
        np.testing.assert_array_equal(pixels_of(small), pixels)

    def test_a_map_of_noise_shrinks(self) -> None:
        buffer = io.BytesIO()
        imsave(buffer, np.random.default_rng(0).standard_normal((32, 32)), format="png")
        assert len(palette_png(buffer.getvalue())) < 0.7 * len(buffer.getvalue())

    def test_what_is_translucent_or_has_more_colours_is_left(self) -> None:
        many = np.random.default_rng(0).integers(0, 256, (40, 40, 3))
        clear = np.full((4, 4, 4), 128)
        for pixels in (many, clear):
            assert palette_png(png(pixels)) == png(pixels)


def figure_of(values: Any, size: float = 3.0) -> Any:
    figure = new_figure(size, size)
    ax = figure.add_subplot()
    ax.plot(values)
    ax.grid()
    return figure


class TestSvg:
    def test_a_curve_runs_through_its_values(self) -> None:
        values = np.random.default_rng(1).standard_normal(30)
        figure = figure_of(values)
        figure.set_layout_engine("none")  # of which the places depend on the pixels
        text = inline_svg(figure, "k", "a curve")
        curve = max(re.findall(r' d="([^"]*)"', text), key=len)
        found = np.array([list(map(float, point.split())) for point in re.split("[ML]", curve)[1:]])
        ax = figure.axes[0]
        figure.set_dpi(72)
        figure.draw_without_rendering()
        wanted = ax.transData.transform(np.column_stack([np.arange(30), values]))
        wanted[:, 1] = 72 * figure.get_figheight() - wanted[:, 1]
        np.testing.assert_allclose(found, wanted, atol=0.051)

    def test_ticks_and_grid_are_one_path_each(self) -> None:
        figure = figure_of([0.0, 1.0])
        text = inline_svg(figure, "k", "ticks")
        across, down = (len(axis.get_ticklocs()) for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis))
        ElementTree.fromstring(text)
        counted = sorted(line.count("M") for line in re.findall(r'<path d="([^"]*)"', text))
        shown = len(re.findall("<text", text))
        assert shown <= across + down
        # The curve, the four sides, the ticks of both axes, the lines of the grid of both axes.
        assert counted == [1, 4, shown, shown]
        assert "<use" not in text

    def test_text_is_text(self) -> None:
        figure = figure_of([0.0, 1.0])
        figure.axes[0].set(xlabel="across & <along>", ylabel="up")
        text = inline_svg(figure, "k", "words")
        assert "across &amp; &lt;along&gt;" in text
        assert text.count("rotate(") == 1


PICTURE = np.arange(64.0).reshape(8, 8)


def mapped(key: str, values: Any) -> str:
    figure = new_figure(2.0, 2.0)
    ax = figure.add_subplot()
    figure.colorbar(ax.imshow(values, interpolation="none", vmin=0, vmax=64)).solids.set_rasterized(True)
    return inline_svg(figure, key, "a map")


class TestShared:
    def page(self, *figures: str) -> str:
        return f"<html><head><style>p {{}}</style></head><body><p style='x'>{''.join(figures)}</p></body></html>"

    def test_put_back_it_is_the_same_page(self) -> None:
        drawn = [mapped("a", PICTURE), mapped("b", PICTURE.T), inline_svg(figure_of([0.0, 3.0]), "c", "c")]
        page = self.page(*drawn)
        small = share(page)
        assert len(small) < 0.8 * len(page)
        looks = dict(re.findall(r"\.plot \.(s\d+)\{([^}]*)\}\n", small))
        shelf = dict(re.findall(r'<image id="(shared-\d+)"([^>]*/>)', small))
        assert shelf
        back = re.sub(r"\.plot \.s\d+\{[^}]*\}\n", "", small)
        back = re.sub(r'\n<svg class="shelf".*?</svg>', "", back)
        back = re.sub(r'<use href="#(shared-\d+)"/>', lambda found: f"<image{shelf[found[1]]}", back)
        back = re.sub(r' class="(s\d+)"', lambda found: f' style="{looks[found[1]]}"', back)
        assert back == page

    def test_a_page_without_figures_is_left(self) -> None:
        assert share(self.page()) == self.page()

    @pytest.mark.parametrize("word", ['<image x="1"/>', 'style="color: red"'])
    def test_what_is_no_figure_is_left(self, word: str) -> None:
        assert word in share(self.page(word, mapped("a", PICTURE), mapped("b", PICTURE)))
