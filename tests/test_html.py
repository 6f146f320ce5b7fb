"""The report: what the page says, that text from files is never obeyed, and how a browser takes it."""

from __future__ import annotations

import csv
import html
import io
import itertools
import json
import math
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from safetensors.numpy import save_file
from threadpoolctl import threadpool_limits
from typer.testing import CliRunner

from spectral_conv.certification import network_lipschitz
from spectral_conv.cli import app
from spectral_conv.graph import Graph, Node
from spectral_conv.inspection import Inspection, inspect_model
from spectral_conv.models import Skipped, read_model
from spectral_conv.operator import ConvOperator
from spectral_conv.report.figures import (
    LayerFigures,
    Spectrum,
    extreme_mode,
    frequency_map,
    layer_figures,
    layer_spectra,
)
from spectral_conv.report.findings import Finding, findings, network_finding
from spectral_conv.report.html import inspection_page, notebook_table
from spectral_conv.report.plots import new_figure
from spectral_conv.report.plots_images import EXACT
from spectral_conv.report.plots_layers import KINDS
from spectral_conv.report.record import LayerReport
from spectral_conv.report.spreadsheet import layers_csv
from spectral_conv.report.text import printable
from spectral_conv.results import Enclosure, StopReason
from spectral_conv.symbols import circulant_singular_values
from tests.shared_material import MODELS, needs_shared
from tests.tolerances import DENSE

DATA = Path(str(files("spectral_conv") / "data"))
HOSTILE = (
    "<script>document.title='run'</script>",
    "<img src=x onerror=\"document.title='run'\">",
    "'\" onmouseover=alert(1) x='",
    "[link=http://evil.example]click[/link]",
    "=cmd|' /C calc'!A0",
    "@SUM(1+1)",
    "ctrl\x1b[31m\x07\u202eend",
    "$\\frac{1}$ {{ 7*7 }} {% raw %}",
)
VOID = {"wbr", "meta", "link", "input", "br", "img", "hr"}


def operators() -> list[ConvOperator]:
    rng = np.random.default_rng(3)
    return [
        ConvOperator(rng.standard_normal((3, 3, 2, 3)), (6, 7)),
        ConvOperator(rng.standard_normal((3, 3, 2, 1)), (5, 5), padding_mode="reflect"),
        ConvOperator(rng.standard_normal((3, 2, 3)), (9,), layout="WIO"),
        ConvOperator(rng.standard_normal((2, 2, 2, 1, 2)), (3, 4, 5), layout="DHWIO"),
        ConvOperator(20.0 * np.eye(2)[None, None], (4, 4)),
        ConvOperator(1e-5 * np.eye(2)[None, None], (4, 4)),
        ConvOperator(rng.standard_normal((3, 3, 2, 3)), (5, 5), stride=2, transposed=True),
    ]


@pytest.fixture(scope="module")
def several() -> Inspection:
    return inspect_model(operators(), bounds=True)


@pytest.fixture(scope="module")
def page(several: Inspection) -> str:
    return several.page()


@pytest.fixture(scope="module")
def hostile() -> str:
    inspection = inspect_model([ConvOperator(np.full((1, 1, 1, 1), 20.0), (3, 3))] * len(HOSTILE))
    reports = [
        replace(report, name=name, assumed=(name,), circulant=None, circulant_reason=name)
        for report, name in zip(inspection.reports, HOSTILE, strict=True)
    ]
    drawn = layer_figures(inspection.source.layers[0].operator)
    drawn = replace(drawn, frequencies=None, largest=None, smallest=None, reasons={"largest": HOSTILE[0]})
    figures = [drawn] * len(HOSTILE)
    skipped = [(name, name) for name in HOSTILE]
    network = Finding(topic="network", sentences=HOSTILE)
    return inspection_page(HOSTILE[0], reports, figures, skipped=skipped, lipschitz=network)


class Outline(HTMLParser):
    """Every element in order, with its place; complains of tags that do not fit together."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None], tuple[str, ...]]] = []
        self.section = ""
        self.numbers: dict[str, list[float]] = {}
        self.words: list[tuple[float, str]] = []  # of each number its value, and what a person reads
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(attrs) == len(dict(attrs)), f"an attribute twice in <{tag}>"
        attributes = dict(attrs)
        self.elements.append((tag, attributes, tuple(self.open)))
        if tag == "section":
            self.section = attributes.get("id") or ""
        if tag == "data":
            self.numbers.setdefault(self.section, []).append(float(attributes["value"] or "nan"))
            self.words.append((self.numbers[self.section][-1], ""))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), tuple(self.open)))

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "data":
            value, words = self.words.pop()
            self.words.append((value, words + data))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes, _ in self.elements if name == tag]


def numbers_of_a_section(layer: dict[str, Any]) -> list[float]:
    """Every number that the document has of a layer and its section shows."""
    ends = ("sigma_max", "sigma_min")
    found = [layer[end][part] for end in ends if layer[end] for part in ("value", "lower", "upper")]
    found += (layer["circulant"] or {}).values()
    for bound in layer["bounds"].values():
        found += [bound.get(part) for part in ("value", "ratio", "seconds")]
    return sorted(number for number in found if number is not None)


def numbers_of_the_table(layers: list[dict[str, Any]]) -> list[float]:
    found: list[float | None] = []
    for layer in layers:
        found += [layer[end]["value"] for end in ("sigma_max", "sigma_min") if layer[end]]
        found += [*(layer["circulant"] or {}).values(), layer["seconds"]]
    return sorted(number for number in found if number is not None)


def assert_reads_as(value: float, words: str) -> None:
    """The words are the value to half a unit of their last digit, or an inequality that holds; times may be in ms."""
    if words.startswith("< "):
        assert value < float(words[2:])
        return
    digits, _, power = words.partition("e")
    unit = 10.0 ** (int(power or 0) - len(digits.partition(".")[2]))
    scale = max(unit, 1e-14)
    assert any(abs(float(words) - factor * value) <= 0.5001 * scale for factor in (1.0, 1e3)), (value, words)


def odd_reports(report: LayerReport) -> tuple[LayerReport, ...]:
    """A bracket without an end; a limit and a failure; bounds that overflow; nothing at all."""
    words: dict[str, Any] = {"basis": "theorem: some", "method": "bracket", "applications": 0}
    bracket = Enclosure(lower=2.0, value=3.5, upper=math.inf, stop_reason=StopReason.TIME_LIMIT, **words)
    low = Enclosure(lower=0.0, value=0.0, upper=1.5, stop_reason=StopReason.LIMIT, **words)
    assert report.bounds is not None
    first, second, *others = (row for row in report.bounds.rows if row.bound is not None)
    rows = (
        replace(first, bound=replace(first.bound, value=math.inf), ratio=math.inf),
        replace(second, ratio=None),
        *others,
    )
    return (
        replace(report, name="bracket", sigma_max=bracket, sigma_min=low),
        replace(report, name="half", sigma_min=None, sigma_min_reason="out of memory", bounds=None),
        replace(report, name="overflow", bounds=replace(report.bounds, rows=rows), bounds_reason=None),
        replace(
            report,
            name="nothing",
            sigma_max=None,
            sigma_max_reason="no convergence",
            sigma_min=None,
            sigma_min_reason="too large",
            circulant=None,
            circulant_reason="no symbol",
            bounds=None,
            bounds_reason="reflected",
            seconds=0.0,
        ),
    )


def drawn_without(inspection: Inspection) -> LayerFigures:
    """No figure at all, each with a reason."""
    drawn = layer_figures(inspection.opened().layers[0].operator)
    nothing: dict[str, Any] = dict.fromkeys(("circulant", "exact", "frequencies", "largest", "smallest"))
    return replace(drawn, **nothing, reasons=dict.fromkeys(nothing, "none of it"))


class TestPage:
    def test_it_is_sound_html(self, page: str, hostile: str) -> None:
        for text in (page, hostile):
            outline = Outline(text)
            ids = [a["id"] for _, a, _ in outline.elements if "id" in a]
            assert [name for name, count in Counter(ids).items() if count > 1] == []
            for _, attributes, _ in outline.elements:
                for key in ("href", "aria-labelledby"):
                    target = attributes.get(key)
                    if target is not None and not target.startswith("data:"):
                        assert target.removeprefix("#") in ids
            assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(ids)
            assert all("scope" in attributes for attributes in outline.all("th"))
            assert all("colspan" in a for _, a, _ in outline.elements if a.get("scope") == "colgroup")
            levels = [int(tag[1]) for tag, _, _ in outline.elements if re.fullmatch("h[1-6]", tag)]
            assert levels[0] == 1
            assert all(after <= before + 1 for before, after in itertools.pairwise(levels))

    def test_every_figure_has_a_name_a_caption_axes_and_sound_svg(self, page: str) -> None:
        figures = re.findall(r"<figure>(.*?)</figure>", page, flags=re.DOTALL)
        assert len(figures) > 40
        for figure in figures:
            assert len(re.sub(r"<[^>]+>", "", figure.partition("<figcaption>")[2]).split()) >= 4
            svg = figure[figure.index("<svg") : figure.index("</svg>") + 6]
            drawing = ElementTree.fromstring(svg)
            assert drawing.get("aria-label")
            words = " ".join(text.text or "" for text in drawing.iter("text"))
            assert re.search(r"\((dimensionless|norm 1|%)\)", words)
            assert re.search(r"layer|place|singular value|frequency|pixels", words)

    def test_nothing_comes_from_elsewhere(self, page: str) -> None:
        assert not re.search(r"https?://|@import|//cdn", page)
        for tag, attributes, _ in Outline(page).elements:
            assert "src" not in attributes, tag
            for value in (attributes.get("href"),):
                assert value is None or value.startswith(("#", "data:image/png;base64,"))

    def test_every_number_is_that_of_the_document(self, page: str, several: Inspection) -> None:
        outline, layers = Outline(page), several.document()["layers"]
        for i, layer in enumerate(layers, 1):
            assert sorted(outline.numbers[f"layer-{i}"]) == numbers_of_a_section(layer)
        assert sorted(outline.numbers[""]) == numbers_of_the_table(layers)
        assert len(outline.words) > 200
        for value, words in outline.words:
            assert_reads_as(value, words)

    def test_so_are_brackets_and_what_is_infinite_or_missing(self, several: Inspection) -> None:
        reports = odd_reports(several.reports[0])
        figures = [drawn_without(several)] * len(reports)
        outline = Outline(inspection_page("odd", reports, figures))
        layers = replace(several, reports=reports).document()["layers"]
        for i, layer in enumerate(layers, 1):
            assert sorted(outline.numbers.get(f"layer-{i}", [])) == numbers_of_a_section(layer)
        assert sorted(outline.numbers[""]) == numbers_of_the_table(layers)
        assert np.all(np.isfinite([value for value, _ in outline.words]))
        text = html.unescape(inspection_page("odd", reports, figures))
        for words in ("2..inf", "`time_limit` was reached: raise it.", "out of memory", "not found", "no symbol"):
            assert words in text
        assert "reflected" in text
        tops = {finding.topic: finding for finding in findings(reports)}
        assert tops["Not complete"].layers == (0, 1, 3)

    def test_methods_without_a_bound_share_their_reason(self, page: str) -> None:
        (line,) = re.findall(r"<p[^>]*>(Without [^<]*padding_mode=&#39;reflect[^<]*)</p>", page)
        for method in ("supremum", "tensor_norm", "lipbound (inputs)", "circulant_embedding"):
            assert method in line

    def test_it_says_what_was_assumed_and_how_each_number_was_obtained(self, page: str, hostile: str) -> None:
        assert "LAPACK&#39;s singular value decomposition of the whole matrix" in page
        assert "theorem: the bounds are proved in exact arithmetic" in page
        assert "does not apply to padding_mode=&#39;reflect&#39;" in page
        assert "No Lipschitz bound is known: the weights alone do not say which layer follows which." in page
        assert html.escape(HOSTILE[0], quote=False).replace("'", "&#39;") + ": the file does not say" in hostile

    def test_the_same_inspection_gives_the_same_page(self, several: Inspection) -> None:
        inspection = replace(several, reports=several.reports[:1], source=_first(several))
        assert inspection.page() == inspection.page()

    def test_layers_that_failed_are_shown_with_the_reason(self) -> None:
        inspection = inspect_model(operators()[:1])
        report = replace(
            inspection.reports[0],
            sigma_max=None,
            sigma_max_reason="no convergence",
            sigma_min=None,
            sigma_min_reason="too large",
            circulant=None,
            circulant_reason="no symbol",
        )
        figures = replace(
            layer_figures(inspection.source.layers[0].operator),
            circulant=None,
            exact=None,
            frequencies=None,
            largest=None,
            smallest=None,
            reasons={"largest": "out of memory"},
        )
        text = inspection_page("model", [report], [figures])
        Outline(text)
        for words in ("no convergence", "too large", "no symbol", "out of memory", "1 of 1 layers could not"):
            assert words in text
        assert "<svg" not in text

    def test_nothing_asked_for_leaves_no_columns(self) -> None:
        inspection = inspect_model(operators()[:1], smallest=False)
        text = inspection.page()
        assert 'data-key="smallest"' not in text
        assert 'data-key="bound"' not in text
        assert "Smallest value:" not in text

    def test_no_layers_are_a_page_too(self) -> None:
        Outline(inspect_model([]).page())

    def test_fifty_five_layers_of_full_size_have_3_MB(self) -> None:
        rng = np.random.default_rng(0)
        layers = [ConvOperator(rng.standard_normal((3, 3, 4, 4)), (32, 32)) for _ in range(2)]
        reports = inspect_model(layers, bounds=True).reports
        figures = [layer_figures(conv) for conv in layers]
        one, two = (len(inspection_page("m", reports[:count], figures[:count])) for count in (1, 2))
        assert one < 100_000
        assert two - one < 3e6 / 55

    def test_to_html_writes_it_and_leaves_a_file_that_cannot_be_replaced(self, several: Inspection) -> None:
        inspection = replace(several, reports=several.reports[4:5], source=_first(several, 4))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "report.html")
            inspection.to_html(path)
            assert path.read_text(encoding="utf-8") == inspection.page()
            with pytest.raises(OSError, match="No such file"):
                inspection.to_html(Path(folder, "nowhere", "report.html"))


def _first(inspection: Inspection, place: int = 0) -> Any:
    return replace(inspection.source, layers=inspection.source.layers[place : place + 1])


class TestTextFromFiles:
    def test_it_is_shown_and_never_obeyed(self, hostile: str) -> None:
        outline = Outline(hostile)
        assert len(outline.all("script")) == 1
        assert outline.all("img") == []
        assert not any(key.startswith("on") for _, attributes, _ in outline.elements for key in attributes)
        shown = html.unescape(re.sub(r"<[^>]+>", "", hostile))
        for name in HOSTILE[:6]:
            assert name in shown
        assert "\\x1b[31m\\x07\\u202eend" in shown
        assert "{{ 7*7 }} {% raw %}" in shown
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e]", hostile)

    def test_in_a_notebook(self) -> None:
        report = inspect_model([ConvOperator([[[[2.0]]]], (4, 4))]).reports[0]
        text = notebook_table(HOSTILE[1], [replace(report, name=HOSTILE[0])])
        Outline(text)
        assert "<script" not in text
        assert "<img" not in text
        assert '<data value="2.0">2.000000</data>' in text

    def test_in_a_notebook_through_the_inspection(self, several: Inspection) -> None:
        text = several._repr_html_()
        assert text.count('<th scope="row">') == len(several.reports)

    def test_in_a_spreadsheet(self, several: Inspection) -> None:
        reports = [replace(several.reports[0], name=name, assumed=(name,)) for name in (*HOSTILE, "-1", "+1", "\t=1")]
        rows = list(csv.DictReader(io.StringIO(layers_csv([("=model", reports)]))))
        assert len(rows) == len(reports)
        for row, report in zip(rows, reports, strict=True):
            for cell in row.values():
                assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
            assert row["name"] in (printable(report.name), "'" + printable(report.name))
            assert not re.search(r"[\x00-\x1f]", "".join(row.values()))

    def test_in_the_terminal(self, tmp_path: Path) -> None:
        path = tmp_path / "model.safetensors"
        save_file({"[link=u]a[/link]\x1b[31m.weight": np.full((1, 1, 1, 1), 2.0)}, path)
        result = CliRunner().invoke(app, ["inspect", str(path), "--input-size", "1x4x4"])
        assert "[link=u]a[/link]\\x1b[31m.wei" in result.stdout


class TestSpreadsheet:
    def test_numbers_are_those_of_the_document(self, several: Inspection) -> None:
        rows = list(csv.DictReader(io.StringIO(several.to_csv())))
        for row, layer in zip(rows, several.document()["layers"], strict=True):
            assert row["name"] == layer["name"]
            for end in ("sigma_max", "sigma_min"):
                assert float(row[end]) == layer[end]["value"]
                assert float(row[f"{end}_upper"]) == layer[end]["upper"]
                estimate = layer["circulant"] and layer["circulant"][end]
                assert row[f"circulant_{end}"] == ("" if estimate is None else repr(estimate))
            assert row["kernel_shape"] == "x".join(map(str, layer["kernel_shape"]))

    def test_several_models_share_the_headers(self, several: Inspection) -> None:
        lines = layers_csv([("a", several.reports[:1]), ("b", several.reports[:2])]).splitlines()
        assert len(lines) == 4
        assert [line.partition(",")[0] for line in lines] == ["model", "a", "b", "b"]


class TestFigures:
    def test_spectra_are_those_of_the_matrices(self) -> None:
        conv = operators()[0]
        circulant, exact, reasons = layer_spectra(conv)
        assert reasons == {}
        with threadpool_limits(1):
            truth = np.linalg.svd(conv.to_dense(), compute_uv=False)
        tolerance = DENSE[np.dtype(np.float64)]
        np.testing.assert_allclose(exact.values, truth[exact.ranks - 1], rtol=0, atol=tolerance * truth[0])
        wrapped = np.sort(circulant_singular_values(conv), axis=None)[::-1]
        assert circulant.total == wrapped.size == circulant.ranks[-1]
        np.testing.assert_array_equal(circulant.values, wrapped[circulant.ranks - 1])

    def test_many_values_are_thinned_out_but_all_are_counted(self) -> None:
        values = np.linspace(0.0, 7.0, 100_001)
        spectrum = Spectrum.of(values)
        assert len(spectrum.ranks) < 300
        assert (spectrum.values[0], spectrum.values[-1]) == (7.0, 0.0)
        assert spectrum.shares.sum() == pytest.approx(1.0)
        np.testing.assert_allclose(spectrum.shares, 1 / 40, atol=1e-4)

    def test_a_map_has_zero_frequency_in_the_middle(self) -> None:
        constant = frequency_map(ConvOperator(np.ones((3, 3, 1, 1)), (40, 40)))
        assert constant.largest.shape == (40, 40)
        assert np.unravel_index(constant.largest.argmax(), (40, 40)) == (20, 20)
        assert constant.largest[20, 20] == pytest.approx(9.0)
        refined = frequency_map(ConvOperator(np.ones((3, 3, 1, 1)), (4, 4)))
        assert refined.largest.shape == (32, 32)
        joined = frequency_map(ConvOperator(np.ones((3, 3, 1, 1)), (200, 100)))
        assert joined.largest.shape == (50, 50)
        assert joined.largest.max() == pytest.approx(9.0)
        assert np.all(joined.smallest <= joined.largest)

    def test_vectors_are_the_singular_ones(self) -> None:
        conv = operators()[0]
        with threadpool_limits(1):
            left, values, right = np.linalg.svd(conv.to_dense())
        for end, place in (("largest", 0), ("smallest", len(values) - 1)):
            mode = extreme_mode(conv, end)
            before = right[place].reshape(conv.in_channels, *conv.input_shape)
            after = left[:, place].reshape(conv.out_channels, *conv.output_shape)
            assert mode.value == pytest.approx(values[place], abs=1e-6 * values[0])
            np.testing.assert_allclose(mode.input, np.linalg.norm(before, axis=0), atol=1e-5)
            np.testing.assert_allclose(mode.output, np.linalg.norm(after, axis=0), atol=1e-5)
            np.testing.assert_allclose(np.abs(mode.signal), np.abs(before[mode.channel]), atol=1e-5)
            assert mode.signal.flat[np.abs(mode.signal).argmax()] > 0.0

    def test_a_limit_is_a_reason(self) -> None:
        conv = ConvOperator(np.random.default_rng(0).standard_normal((3, 3, 4, 4)), (40, 40))
        figures = layer_figures(conv, memory_limit=1000)
        assert figures.smallest is None
        assert "emory" in figures.reasons["smallest"]
        assert "6400 x 6400" in figures.reasons["exact"]
        assert figures.circulant is not None

    @pytest.mark.parametrize("kind", KINDS)
    def test_every_kind_has_axes_labels_and_units(self, several: Inspection, kind: str) -> None:
        ax = new_figure(4.0, 3.0).add_subplot()
        drawn = several.plot(kind, None if kind == "extremes" else "layer0", ax=ax)
        assert drawn is ax
        words = drawn.get_xlabel() + drawn.get_ylabel()
        words += "".join(other.get_ylabel() for other in drawn.get_figure().axes)
        assert drawn.get_xlabel()
        assert drawn.get_ylabel()
        assert re.search(r"\((dimensionless|norm 1|%)\)", words)

    def test_marks_are_the_exact_ends(self, several: Inspection) -> None:
        report = several.reports[0]
        ax = several.plot("values", "layer0")
        ends = [(line.get_xdata()[0], line.get_ydata()[0]) for line in ax.lines if len(line.get_xdata()) == 1]
        assert ends == [(1, report.sigma_max.value), (84, report.sigma_min.value)]
        marks = [line for line in several.plot().lines if line.get_color() == EXACT]
        heights = [line.get_ydata()[0] for line in marks]
        assert heights == [end.value for r in several.reports for end in (r.sigma_max, r.sigma_min)]

    @pytest.mark.parametrize(
        ("kind", "layer", "message"),
        [
            ("valeus", "layer0", "`kind` must be.*Did you mean 'values'"),
            ("values", None, "`layer` must name a layer for kind='values'; the model has 7"),
            ("values", "layer9", "no convolution called 'layer9'"),
            ("largest_over_frequency", "layer1", "does not apply to padding_mode='reflect'"),
        ],
    )
    def test_wrong_requests_are_named(self, several: Inspection, kind: str, layer: str | None, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            several.plot(kind, layer)

    def test_bounds_that_were_not_asked_for(self) -> None:
        with pytest.raises(ValueError, match=r"no bounds: not asked for\. Pass bounds=True"):
            inspect_model(operators()[:1]).plot("bounds")


class TestFindings:
    def test_what_explodes_and_what_kills(self, several: Inspection) -> None:
        found = {finding.topic: finding for finding in findings(several.reports)}
        norms, smallest = found["Norms that explode a signal"], found["Smallest values that kill a signal"]
        large = {i for i, report in enumerate(several.reports) if report.sigma_max.value > 10}
        assert 4 in large
        assert set(norms.layers) == large
        assert 5 in smallest.layers
        assert 4 not in smallest.layers
        assert norms.tone == smallest.tone == "grave"

    def test_a_layer_that_is_fine(self) -> None:
        reports: tuple[LayerReport, ...] = inspect_model([ConvOperator([[[[1.0]]]], (4, 4))]).reports
        found = {finding.topic: finding for finding in findings(reports)}
        assert {finding.tone for finding in found.values()} == {"fine", "open"}
        assert found["Norms that explode a signal"].sentences[0].startswith("No layer can stretch")

    def test_the_worst_come_first(self, several: Inspection) -> None:
        reports = (
            several.reports
            + inspect_model([ConvOperator(s * np.eye(2)[None, None], (3, 3)) for s in (1e-6, 30.0)]).reports
        )
        found = {finding.topic: finding for finding in findings(reports)}
        norms = [reports[i].sigma_max.value for i in found["Norms that explode a signal"].layers]
        least = [reports[i].sigma_min.value for i in found["Smallest values that kill a signal"].layers]
        assert len(least) > 1
        assert len(norms) > 1
        assert norms == sorted(norms, reverse=True)
        assert least == sorted(least)

    def test_what_is_not_known_is_not_called_fine(self, several: Inspection) -> None:
        fine, odd = several.reports[5], odd_reports(several.reports[0])
        found = {finding.topic: finding for finding in findings((fine, odd[0], odd[3]))}
        norms, smallest = found["Norms that explode a signal"], found["Smallest values that kill a signal"]
        assert norms.tone == "open"
        assert norms.sentences[0].startswith(
            "No layer is known to stretch a signal more than 10 times. For 2 layers it"
        )
        assert smallest.tone == "grave"
        assert "For 2 layers it is not known." in smallest.sentences[0]

    def test_of_some_layers_no_bound_of_the_network_is_given(self, several: Inspection) -> None:
        model = several.opened()
        nodes = tuple(
            Node(name=f"n{i}", op="Conv", inputs=(f"v{i}",), outputs=(f"v{i + 1}",), weights=(f"layer{i}",))
            for i in range(3)
        )
        model = replace(model, graph=Graph(nodes=nodes, inputs=("v0",), outputs=("v3",)))
        (sentence,) = network_finding(replace(model, layers=model.layers[1:2])).sentences
        assert "it would be that of the whole network, and 2 of its convolutions are not among" in sentence
        (sentence,) = network_finding(replace(model, layers=model.layers[:3])).sentences
        assert "that were chosen" not in sentence
        skipped = tuple(Skipped(name=f"layer{i}", reason="nan") for i in range(2))
        (sentence,) = network_finding(replace(model, layers=model.layers[2:3], skipped=skipped)).sentences
        assert "that were chosen" not in sentence

    @needs_shared
    def test_select_on_the_command_line_gives_no_bound_of_the_network(self, tmp_path: Path) -> None:
        path = tmp_path / "page.html"
        arguments = [str(MODELS / "mnist.onnx"), "--select", "Parameter5", "--largest-only", "--html", str(path)]
        assert CliRunner().invoke(app, ["inspect", *arguments]).exit_code == 0
        text = path.read_text(encoding="utf-8")
        assert "1 of its convolutions is not among the layers that were chosen" in text
        assert "at most" not in text.partition('id="all"')[0]

    @needs_shared
    def test_a_network_with_a_graph_has_a_bound(self) -> None:
        model = read_model(MODELS / "mnist.onnx")
        (sentence,) = network_finding(model).sentences
        said = re.match(r"Its Lipschitz constant is at most ([\d.]+):", sentence)
        assert said is not None
        truth = network_lipschitz(model).value
        assert truth <= float(said[1]) <= 1.001 * truth


class TestCommandLine:
    SMALL = ("--layers", str(DATA / "digits.layers.json"), "--select", "stem", "--largest-only")
    FILE = str(DATA / "digits.safetensors")

    def run(self, *arguments: str) -> Any:
        return CliRunner().invoke(app, ["inspect", *arguments])

    def test_html_beside_json(self, tmp_path: Path) -> None:
        path = tmp_path / "out.html"
        result = self.run(self.FILE, *self.SMALL, "--json", "--html", str(path))
        assert result.exit_code == 0
        assert json.loads(result.stdout)["layers"][0]["name"] == "stem.weight"
        assert "stem.weight" in path.read_text(encoding="utf-8")
        assert [entry.name for entry in tmp_path.iterdir()] == ["out.html"]

    def test_csv(self) -> None:
        result = self.run(self.FILE, self.FILE, *self.SMALL, "--csv")
        rows = list(csv.DictReader(io.StringIO(result.stdout)))
        assert [row["model"] for row in rows] == ["digits.safetensors"] * 2

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--json", "--csv"), "`--json` and `--csv` must not be given together"),
            (("--html", "report.pdf"), "`--html` must end in .html or .htm"),
            ((FILE, "--html", "report.html"), "`--html` must go with one file; got 2"),
            (("--html", "nowhere/report.html"), "must be a file in a folder that exists"),
        ],
    )
    def test_refused_before_the_work(self, arguments: tuple[str, ...], message: str) -> None:
        result = self.run(self.FILE, *self.SMALL, *arguments)
        assert result.exit_code == 2
        assert message in result.stderr.replace("\n", " ")
        assert result.stdout == ""


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# The contrast of every text with what is behind it, by WCAG 2.2, 1.4.3.
CONTRAST = """
const channel = (c) => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
const parse = (text) => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const behind = (node) => {
  for (; node; node = node.parentElement) {
    const colour = parse(getComputedStyle(node).backgroundColor);
    if (colour.length === 3 || colour[3] === 1) return colour;
  }
  return [255, 255, 255];
};
let worst = [99, ""], texts = 0;
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const node = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || ["SCRIPT", "STYLE"].includes(node.tagName)) continue;
  const style = getComputedStyle(node);
  const [a, b] = [light(parse(node.closest("svg") ? style.fill : style.color)), light(behind(node))];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  texts += 1;
  if (ratio < worst[0]) worst = [ratio, walker.currentNode.data];
}
return { worst, texts, paper: getComputedStyle(document.body).backgroundColor };
"""
ROWS = '[...document.querySelectorAll("#layer-table tbody tr")].filter((r) => !r.hidden).map((r) => r.dataset.name)'


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        yield Path(name)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on the PATH")
class TestBrowser:
    def ask(self, folder: Path, page: str, script: str, *options: str) -> Any:
        """Open the page, run a function body when it is there, return its result; no message is allowed."""
        answer = f"<script>document.documentElement.dataset.answer = JSON.stringify((() => {{{script}}})());</script>"
        path = folder / "page.html"
        path.write_text(page.replace("</body>", answer + "</body>"), encoding="utf-8")
        command = [
            str(BROWSER),
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={folder}/profile",
        ]
        command += ["--enable-logging=stderr", "--window-size=1400,1000", *options, "--dump-dom", path.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
        found = re.search(r'data-answer="([^"]*)"', done.stdout)
        assert found is not None, done.stderr
        return json.loads(html.unescape(found[1]))

    def test_sorting(self, folder: Path, page: str, several: Inspection) -> None:
        script = f"""
        const key = (name) => document.querySelector(`th[data-key="${{name}}"]`);
        const seen = [];
        for (const name of ["largest", "largest", "smallest", "name", "largest-fft"]) {{
          key(name).querySelector("button").click();
          seen.push([key(name).getAttribute("aria-sort"), {ROWS}]);
        }}
        return {{ seen, said: document.getElementById("said").textContent,
          others: document.querySelectorAll('th[aria-sort="none"]').length,
          hidden: document.getElementById("tools").hidden }};
        """
        answer = self.ask(folder, page, script)
        largest = sorted(several.reports, key=lambda report: -report.sigma_max.value)
        falling = [report.name for report in largest]
        smallest = [report.name for report in sorted(several.reports, key=lambda report: report.sigma_min.value)]
        estimates = sorted((r for r in several.reports if r.circulant), key=lambda report: -report.circulant[0])
        assert answer["seen"] == [
            ["descending", falling],
            ["ascending", falling[::-1]],
            ["ascending", smallest],
            ["ascending", [report.name for report in several.reports]],
            ["descending", [*(report.name for report in estimates), "layer1"]],
        ]
        assert answer["said"] == "7 of 7 layers, by largest value, by FFT, descending"
        assert answer["others"] == 10
        assert answer["hidden"] is False

    def test_filtering(self, folder: Path, page: str, several: Inspection) -> None:
        script = f"""
        const set = (id, value, event) => {{
          const input = document.getElementById(id);
          input.value = value;
          input.dispatchEvent(new Event(event));
          return {ROWS};
        }};
        return [set("search", "LAYER3", "input"), set("search", "zz", "input"), set("search", "", "input").length,
          set("show", "explodes", "change"), set("show", "vanishes", "change"), set("show", "", "change").length,
          set("order", "largest ascending", "change")[0], document.getElementById("said").textContent];
        """
        answer = self.ask(folder, page, script)
        explode = [report.name for report in several.reports if report.sigma_max.lower > 10]
        vanish = [report.name for report in several.reports if report.sigma_min.upper < 1e-3]
        assert answer[:6] == [["layer3"], [], 7, explode, vanish, 7]
        assert answer[6] == "layer5"
        assert answer[7] == "7 of 7 layers, by largest value, exact, ascending"

    def test_a_finding_leads_to_its_layers(self, folder: Path, hostile: str) -> None:
        script = f"""
        document.getElementById("search").value = "zz";
        document.querySelector('a[data-show="explodes"]').click();
        return [document.getElementById("show").value, {ROWS}.length, document.getElementById("search").value,
          document.querySelectorAll("th button").length,
          [...document.querySelectorAll("th button")].filter((b) => !b.getAttribute("aria-label")).length];
        """
        assert self.ask(folder, hostile, script) == ["explodes", len(HOSTILE), "", 10, 0]

    def test_names_are_not_run(self, folder: Path, hostile: str) -> None:
        script = f"return [document.title, document.images.length, {ROWS}];"
        title, images, names = self.ask(folder, hostile, script)
        assert title.startswith(HOSTILE[0])
        assert images == 0
        assert names[:6] == list(HOSTILE[:6])

    @pytest.mark.parametrize("width", [320, 380, 760, 1400])
    def test_no_scrolling_sideways(self, folder: Path, page: str, width: int) -> None:
        long = page.replace("layer0", "a_layer_with_a_long_name." * 6)
        # What is out of sight is to be laid out, too: it could be too wide.
        assert "content-visibility: auto" in long
        long = long.replace("content-visibility: auto", "content-visibility: visible")
        frame = (
            f'<!doctype html><body><iframe width="{width}" height="800" srcdoc="{html.escape(long)}"></iframe></body>'
        )
        script = """
        const inside = document.querySelector("iframe").contentDocument;
        const root = inside.documentElement;
        return [root.clientWidth, root.scrollWidth, inside.querySelectorAll("svg").length];
        """
        deferred = (
            f"onload = () => {{ document.documentElement.dataset.answer = JSON.stringify((() => {{{script}}})()); }};"
        )
        client, scroll, drawings = self.ask(folder, frame, f"{deferred} return null;", "--virtual-time-budget=5000")
        assert drawings > 40
        assert 0.9 * width < client <= width
        assert scroll <= client

    @pytest.mark.parametrize(("scheme", "paper"), [(1, "rgb(255, 255, 255)"), (0, "rgb(20, 23, 28)")])
    def test_contrast(self, folder: Path, page: str, scheme: int, paper: str) -> None:
        answer = self.ask(folder, page, CONTRAST, f"--blink-settings=preferredColorScheme={scheme}")
        assert answer["paper"] == paper
        assert answer["texts"] > 500
        assert answer["worst"][0] >= 4.5, answer["worst"]
