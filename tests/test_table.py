"""The terminal table: widths, words, escapes."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from spectral_conv.report.bounds import bounds_summary, ratio_text, tightest
from spectral_conv.report.contents import ContentsTable
from spectral_conv.report.document import layer_document
from spectral_conv.report.record import NOT_ASKED, LayerReport
from spectral_conv.report.summary import summarize
from spectral_conv.report.table import LayerTable
from spectral_conv.report.text import describe_geometry, elide, exact_text, off_by, printable
from spectral_conv.results import Bound, BoundRow, BoundTable, Enclosure, StopReason


def enclosure(value: float, error: float = 1e-12, *, basis: str = "residual", method: str = "lanczos") -> Enclosure:
    return Enclosure(
        lower=max(value - error, 0.0),
        value=value,
        upper=value + error,
        basis=basis,
        method=method,
        applications=10,
        stop_reason=StopReason.LIMIT if method == "bracket" else StopReason.CONVERGED,
    )


def layer(name: str = "conv.weight", **changes: object) -> LayerReport:
    report = LayerReport(
        name=name,
        kernel_shape=(16, 16, 3, 3),
        layout="OIHW",
        input_shape=(16, 32, 32),
        output_shape=(16, 32, 32),
        kernel_size=(3, 3),
        stride=(1, 1),
        dilation=(1, 1),
        padding=((1, 1), (1, 1)),
        groups=1,
        padding_mode="zeros",
        transposed=False,
        sigma_max=enclosure(5.311269005),
        sigma_min=enclosure(1.4135e-6, method="factorized"),
        circulant=(5.35, 0.02133),
        seconds=0.42,
    )
    return replace(report, **changes)


def rendered(renderable: object, width: int = 80, **console: object) -> str:
    out = io.StringIO()
    Console(file=out, width=width, markup=False, highlight=False, emoji=False, **console).print(renderable)
    return out.getvalue()


RESNET = [layer(f"module.layer{i}.{j}.conv{k}.weight") for i in (1, 2) for j in (0, 1) for k in (1, 2)]


@pytest.mark.parametrize("width", [60, 80, 100, 140, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    reports = [
        *RESNET,
        layer(
            "a.very.long.prefix.of.a.model.that.somebody.wrote.conv.weight",
            stride=(2, 2),
            dilation=(2, 2),
            groups=16,
            padding=((0, 1), (2, 1)),
            padding_mode="reflect",
            circulant=None,
            circulant_reason="no symbol for reflect padding",
        ),
    ]
    lines = rendered(LayerTable(reports, "model.safetensors", [("fc.weight", "a matrix")]), width).splitlines()
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for number in ("5.311269", "1.413500e-06", "0.02133"):
        assert number in text or width < 80


def test_names_of_a_resnet_stay_whole_at_80_columns() -> None:
    text = rendered(LayerTable(RESNET))
    assert all(report.name in text for report in RESNET)


def test_every_form_shows_the_same_numbers() -> None:
    narrow, medium, wide = (rendered(LayerTable([layer()]), width) for width in (80, 110, 160))
    for text in (narrow, medium, wide):
        for cell in (
            "5.311269",
            "5.350",
            "+0.73 %",
            "1.413500e-06",
            "0.02133",
            "15,090 x",
            "16x16x3x3",
            "residual",
        ):
            assert cell in text
    assert "factorized" in medium
    assert "factorized" not in narrow


def test_cut_names_stay_distinct_or_wrap() -> None:
    same_ends = [layer("start" + "x" * 60 + middle + "y" * 60 + "end") for middle in "ab"]
    text = rendered(LayerTable(same_ends)).replace("\n", "")
    assert "…" not in text


def test_output_without_terminal_is_plain() -> None:
    assert "\x1b" not in rendered(LayerTable([layer()], "model"))


def test_colour_only_on_terminals_and_where_it_matters() -> None:
    text = rendered(LayerTable([layer()]), force_terminal=True, color_system="standard")
    assert "\x1b[1;31m15,090 x\x1b[0m" in text
    assert "\x1b[33m" not in text


def test_ascii_terminals_get_ascii() -> None:
    class Ascii(io.StringIO):
        encoding = "ascii"

    out = Ascii()
    Console(file=out, width=80).print(LayerTable([layer("conv." * 30)]))
    assert out.getvalue().isascii()


@pytest.mark.parametrize("width", [80, 160])
def test_names_cannot_command_the_terminal(width: int) -> None:
    names = [
        "[red]x[/red]",
        "[link=http://a.b]y[/link]",
        "esc\x1b[31m",
        "line\nbreak",
        "turn\u202eed",
        "\ud800",
        ":smile:",
    ]
    reports = [layer(name, sigma_max=None, sigma_max_reason=f"no value for {name}") for name in names]
    text = rendered(LayerTable(reports, "\x1b]0;title\x07", [(name, f"reason {name}") for name in names]), width)
    assert "[red]x[/red]" in text
    assert ":smile:" in text
    assert r"esc\x1b[31m" in text
    assert r"turn\u202eed" in text
    assert not any(c in text for c in "\x1b\x07\u202e\ud800")
    assert r"line\nbreak" in text


def test_brackets_and_failures_are_marked_with_the_remedy() -> None:
    reports = [
        layer("one", sigma_min=replace(enclosure(0.2, 0.1, method="bracket"))),
        layer("two", sigma_min=None, sigma_min_reason="`maxiter` was reached."),
    ]
    text = rendered(LayerTable(reports), 160)
    assert "0.1..0.3" in text
    assert "! min of one: only a bracket. The exact method needs more memory than `memory_limit` allows" in text
    assert "! min of two: `maxiter` was reached." in text
    assert "not found" in text


def test_assumed_geometry_is_starred() -> None:
    text = rendered(LayerTable([layer("a.weight", assumed=("stride", "padding")), layer("b.weight")]))
    assert "a.weight*" in text
    assert "b.weight*" not in text
    assert "* assumed, for the file does not say: stride, padding." in text


def test_smallest_value_that_was_not_asked_for_takes_no_line() -> None:
    report = layer(sigma_min=None, sigma_min_reason=NOT_ASKED)
    for width in (80, 110, 160):
        text = rendered(LayerTable([report]), width)
        assert "not found" not in text
        assert " min" not in text
    assert report.complete


def test_footnotes_define_only_the_words_in_the_table() -> None:
    text = rendered(LayerTable([layer()]))
    assert "residual:" in text
    assert "theorem:" not in text
    text = rendered(LayerTable([layer(sigma_max=enclosure(5.0, basis="theorem: Weyl"))]))
    assert "theorem: the bounds are proved" in text


def bounds(*values: tuple[str, str, float | None], exact: float = 5.311269005) -> BoundTable:
    """Rows of method, kind and value; no value where the method does not apply."""
    words = {"scope": "", "source": "", "seconds": 0.25, "notes": ""}
    rows = [
        BoundRow(method=method, bound=None, ratio=None, reason="no symbol")
        if value is None
        else BoundRow(
            method=method,
            bound=Bound(method=method, kind=kind, value=value, **words),
            ratio=value / exact if exact else None,
            reason="",
        )
        for method, kind, value in values
    ]
    return BoundTable(exact=None, exact_seconds=0.0, exact_reason="", rows=tuple(rows))


class TestBounds:
    TABLE = bounds(
        ("long_name (some)", "upper", 5.7), ("tight", "upper", 5.4), ("below", "lower", 5.3), ("none", "", None)
    )

    @pytest.mark.parametrize("width", [60, 80, 120, 200])
    def test_one_column_for_the_tightest_upper_bound(self, width: int) -> None:
        reports = [replace(report, bounds=self.TABLE, bounds_reason=None) for report in RESNET]
        text = rendered(LayerTable(reports), width)
        assert max(map(len, text.splitlines())) <= width
        if width >= 80:
            assert text.count("+1.7 %") == len(reports)
            assert text.count("tight") == len(reports) + 1  # and once in the footnote
            assert "bound: the tightest" in text

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({}, ("+1.7 %", "tight")),
            ({"bounds": bounds(("a_b", "exact", 5.311269005))}, ("exact", "a")),
            ({"bounds": bounds(("a", "upper", 5311.0))}, ("1,000 x", "a")),
            ({"bounds": bounds(("a", "lower", 5.3), ("b", "upper", None))}, ("-", "")),
            ({"sigma_max": None}, ("<= 5.4", "tight")),
            ({"sigma_max": enclosure(5.0, 1.0, method="bracket")}, ("<= 5.4", "tight")),
            ({"bounds": bounds(("a", "upper", float("inf")))}, ("<= inf", "a")),
            ({"bounds": None}, ("-", "")),
        ],
    )
    def test_the_tightest_in_words(self, changes: dict[str, object], expected: tuple[str, str]) -> None:
        assert tightest(layer(**{"bounds": self.TABLE} | changes))[:2] == expected

    def test_a_layer_whose_bounds_failed_is_named(self) -> None:
        reports = [layer("good", bounds=self.TABLE, bounds_reason=None), layer("bad", bounds_reason="out of memory")]
        text = rendered(LayerTable(reports), 120)
        assert "! bounds of bad: out of memory" in text

    def test_the_summary_sorts_upper_bounds_by_their_median(self) -> None:
        other = bounds(("tight", "upper", 10.0), ("long_name (some)", "upper", 5.4), ("below", "lower", 2.0))
        third = bounds(("tight", "upper", 12.0), ("below", "lower", 2.0), exact=0.0)
        reports = [layer(bounds=table, bounds_reason=None) for table in (self.TABLE, other, third)]
        lines = [line.split() for line in rendered(bounds_summary(reports)).splitlines()][2:]
        assert [line[0] for line in lines] == ["long_name", "tight", "below", "none"]
        assert lines[0][2:] == ["upper", "2", "of", "3", "1.0167", "1.0449", "1.0732", "500"]
        assert lines[1][1:] == ["upper", "3", "of", "3", "1.0167", "1.4497", "1.8828", "750"]
        assert lines[2][1:3] == ["!", "lower"]
        assert lines[3][1:] == ["-", "0", "of", "3", "-", "-", "-", "0"]

    def test_ratios(self) -> None:
        ratios = (0.5, 1.0, 9.9996, 1234.5, None)
        assert [ratio_text(ratio) for ratio in ratios] == [
            "0.5000",
            "1.0000",
            "10",
            "1.23e+03",
            "-",
        ]


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (5.354430284925847, 1e-13, "5.354430"),
        (5.354430284925847, 1e-3, "5.354"),
        (1.4135e-6, 1e-8, "1.41e-06"),
        (3e-17, 4e-12, "< 4.0e-12"),
        (0.0, 0.0, "0"),
        (1234567.0, 1e-3, "1234567."),
    ],
)
def test_only_digits_that_the_error_leaves_are_shown(value: float, error: float, text: str) -> None:
    assert exact_text(enclosure(value, error)) == text


@pytest.mark.parametrize(
    ("estimate", "exact", "text"),
    [
        (5.5, enclosure(5.0), "+10 %"),
        (4.0, enclosure(5.0), "-20 %"),
        (5.0, enclosure(5.0), "none"),
        (5.0001, enclosure(5.0), "+0.002 %"),
        (0.02, enclosure(1e-5), "2,000 x"),
        (0.02, enclosure(1e-17, 1e-12), "> 2e10 x"),
        (1.0, enclosure(5.0), "1/5.0"),
        (0.0, enclosure(0.0, 0.0), "none"),
        (0.25, enclosure(0.2, 0.1, method="bracket"), "inside"),
        (0.6, enclosure(0.2, 0.1, method="bracket"), "> +100 %"),
        (0.05, enclosure(0.2, 0.1, method="bracket"), "> -50 %"),
    ],
)
def test_distance_of_the_estimate_in_words(estimate: float, exact: Enclosure, text: str) -> None:
    assert off_by(estimate, exact)[0] == text


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, ""),
        ({"stride": (2, 2)}, "stride 2"),
        ({"stride": (2, 1), "groups": 16}, "stride 2x1, groups 16"),
        ({"dilation": (2, 2), "padding": ((2, 2), (2, 2))}, "dilation 2"),
        ({"padding": ((0, 0), (0, 0))}, "valid"),
        ({"padding": ((2, 2), (2, 2))}, "pad 2"),
        ({"padding": ((0, 1), (0, 1))}, "pad 0+1"),
        ({"padding": ((0, 1), (1, 1))}, "pad 0+1x1+1"),
        ({"padding_mode": "circular"}, "circular"),
        ({"transposed": True, "padding": ((0, 0), (0, 0))}, "transposed"),
        ({"transposed": True}, "transposed, pad 1"),
    ],
)
def test_geometry_says_what_is_not_the_default(changes: dict[str, object], text: str) -> None:
    assert describe_geometry(layer(**changes)) == text


def test_elide_keeps_both_ends() -> None:
    assert elide("short", 10) == "short"
    assert elide("module.layer1.0.conv1.weight", 20) == "module…0.conv1.weight"[:0] + "module…" + "0.conv1.weight"[1:]
    assert len(elide("x" * 100, 20)) == 20


def test_printable_leaves_letters_of_all_scripts() -> None:
    assert printable("größe.权重") == "größe.权重"
    assert printable("a\tb\x00") == r"a\tb\x00"


def test_summary_is_computed_from_the_numbers() -> None:
    sentences = " ".join(summarize([layer("first"), layer("second", circulant=(4.0, 1.4135e-6))]))
    assert "wrong in 2 of 2 layers, most of all in second: it says 4.000, the truth is 5.311 (-25 %)" in sentences
    assert "in 1 of 2 layers, most of all in first: it says 0.02133, the truth is 1.414e-06 (15,090 x)" in sentences
    assert "read zeros" in sentences
    right = summarize([layer("exact", circulant=(5.311269005, 1.4135e-6))])
    assert right == ["The FFT is right for exact."]


def test_summary_says_nothing_without_numbers() -> None:
    assert summarize([layer(circulant=None), layer(sigma_max=None, sigma_min=None)]) == []


def test_json_form_has_no_infinity() -> None:
    bracket = replace(enclosure(0.2, method="bracket"), upper=float("inf"))
    document = layer_document(layer(sigma_min=bracket, circulant=None, circulant_reason="why"))
    assert document["sigma_min"]["upper"] is None
    assert document["circulant"] is None
    assert document["circulant_reason"] == "why"
    assert "sigma_max_reason" not in document


def test_contents_lists_layers_and_the_rest() -> None:
    table = ContentsTable(
        [layer("c.weight", stride=(2, 2))], "m.npz (NumPy archive)", [("b", "a vector"), ("d", "a vector")]
    )
    text = rendered(table)
    for part in ("m.npz", "c.weight", "16x16x3x3 OIHW", "stride 2", "a vector:", "b, d"):
        assert part in text
    assert max(map(len, text.splitlines())) <= 80
