"""`spectral-conv bounds` and `inspect --bounds`: what they show, print, draw and refuse."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import save_file
from typer.testing import CliRunner

import spectral_conv.bounds
from spectral_conv import ConvOperator, bounds, inspect_model, read_model
from spectral_conv.cli import app
from spectral_conv.inspection import layer_record
from spectral_conv.models import find_layer
from spectral_conv.report.bounds import BoundsTable
from spectral_conv.report.document import bounds_document
from spectral_conv.report.record import is_upper
from spectral_conv.results import BoundTable, MemoryLimitError
from tests.tolerances import NORM

DATA = Path(str(files("spectral_conv") / "data"))
DIGITS = (str(DATA / "digits.safetensors"), "--layers", str(DATA / "digits.layers.json"))
STEM = (*DIGITS, "--layer", "stem.weight")
KERNEL = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)


def run(*arguments: str | Path, columns: int = 80) -> Any:
    return CliRunner(env={"COLUMNS": str(columns)}).invoke(app, [str(argument) for argument in arguments])


def strict_json(text: str) -> Any:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


def stem() -> ConvOperator:
    return find_layer(read_model(DIGITS[0], layers=DIGITS[2]), "stem.weight").operator


@pytest.fixture(scope="module")
def found() -> BoundTable:
    return bounds.table(stem())


def rendered(table: BoundTable, width: int = 80, **options: Any) -> str:
    model = read_model(DIGITS[0], layers=DIGITS[2])
    out = io.StringIO()
    console = Console(file=out, width=width, markup=False, highlight=False, emoji=False, **options)
    console.print(BoundsTable(layer_record(model.layers[0]), table, "m"))
    return out.getvalue()


class TestTable:
    def test_every_method_beside_the_exact_value_in_80_columns(self, found: BoundTable) -> None:
        result = run("bounds", *STEM)
        assert (result.exit_code, result.stderr) == (0, "")
        assert "\x1b" not in result.stdout
        lines = result.stdout.splitlines()
        assert max(map(len, lines)) <= 80
        assert lines[:2] == ["digits.safetensors: stem.weight", "16x1x3x3 in 8x8"]
        assert lines[2].startswith("exact: 5.354430 by dense, ")
        for row in found.rows:
            (line,) = (line for line in lines if line.startswith(f"{row.method}  "))  # not folded
            assert f"{row.bound.value:#.7g}  " in line
            assert f"  {row.ratio:.4f}  " in line
            # What is no upper bound is marked.
            assert (f"! {row.bound.kind}  " in line) == (not is_upper(row.bound))
        words = " ".join(result.stdout.split())
        assert "! lower: at most the exact value, so no upper bound." in words
        assert "! estimate: no bound at all, above or below." in words
        for scope in {row.bound.scope for row in found.rows}:
            assert f"- for {scope}: " in words

    def test_bars_are_as_long_as_the_bounds_are_off(self, found: BoundTable) -> None:
        text = rendered(found, 120)
        lengths = {}
        for line in text.splitlines():
            for row in found.rows:
                if line.startswith(f"{row.method}  "):
                    lengths[row.method] = line.count("█") + line.count("░")
                    assert ("░" in line) <= (not is_upper(row.bound))
        off = {row.method: abs(row.ratio - 1.0) for row in found.rows}
        longest = max(off.values())
        for method, length in lengths.items():
            assert length == math.floor(30 * off[method] / longest + 0.5), method
        assert "off by" not in rendered(found, 60)
        assert "█" not in rendered(found, 60)

    @pytest.mark.parametrize("width", [60, 80, 100, 140])
    def test_no_line_is_wider_than_the_terminal(self, found: BoundTable, width: int) -> None:
        assert max(map(len, rendered(found, width).splitlines())) <= width

    def test_colours_tell_bounds_from_what_is_none(self, found: BoundTable) -> None:
        text = rendered(found, force_terminal=True, color_system="standard")
        assert "\x1b[1;33m! lower" in text
        assert "\x1b[1;33m! estimate" in text
        assert "\x1b[32mupper" in text
        loose = replace(found, rows=tuple(replace(row, ratio=5.0) for row in found.rows))
        assert "\x1b[33mupper" in rendered(loose, force_terminal=True, color_system="standard")

    def test_what_does_not_apply_comes_last_with_the_reason(self, tmp_path: Path) -> None:
        save_file({"conv.weight": KERNEL}, tmp_path / "m.safetensors")
        entry = {"weight": "conv.weight", "stride": 1, "padding": 1, "dilation": 1, "groups": 1}
        layers = tmp_path / "m.layers.json"
        layers.write_text(json.dumps({"layers": [entry | {"input_size": [8, 8], "padding_mode": "reflect"}]}))
        arguments = ("bounds", tmp_path / "m.safetensors", "--layers", layers, "--layer", "conv")
        result = run(*arguments[:-1], "conv.weight")
        assert result.exit_code == 0
        words = " ".join(result.stdout.split())
        assert (
            words.count("- not for padding_mode='reflect': the rows at the border are no shifts of the others.") == 1
        )
        assert words.index("- not for ") > words.index("- for ")
        left_out = words.partition("Left out: ")[2]
        document = strict_json(run(*arguments[:-1], "conv.weight", "--json").stdout)
        reasons = {row["method"]: row["reason"] for row in document["bounds"] if "reason" in row}
        assert all(method in left_out for method in reasons)
        assert reasons["circulant_embedding"].endswith("Use singular_triplets, which works on the operator itself.")
        assert set(next(row for row in document["bounds"] if "reason" in row)) == {"method", "reason"}

    def test_assumed_geometry_is_marked(self) -> None:
        result = run("bounds", DIGITS[0], "--layer", "module.stem.weight", "--input-size", "1x6x6")
        assert result.exit_code == 0
        assert "stem.weight*" in result.stdout
        assert "16x1x3x3 in 6x6" in result.stdout
        assert "* assumed, for the file does not say:" in result.stdout

    def test_a_zero_layer_has_no_ratios(self) -> None:
        table = bounds.table(ConvOperator(np.zeros((3, 3, 2, 2)), (4, 4)))
        text = rendered(table)
        assert "exact: 0 by" in text
        assert "off by" not in text
        assert all(row["ratio"] is None for row in bounds_document(table)["bounds"])


class TestJson:
    def test_the_document_is_the_table(self) -> None:
        result = run("bounds", *STEM, "--json")
        assert (result.exit_code, result.stderr) == (0, "")
        document = strict_json(result.stdout)
        table = bounds.table(stem())
        assert list(document) == ["model", "schema", "version", "layer", "exact", "bounds"]
        assert document["model"] == "digits.safetensors"
        assert (document["schema"], document["layer"]) == (1, "stem.weight")
        assert document["version"] == version("spectral-conv")
        assert document["exact"]["value"] == pytest.approx(table.exact.value, rel=NORM)
        assert document["exact"]["seconds"] > 0.0
        assert [row["method"] for row in document["bounds"]] == [row.method for row in table.rows]
        for told, row in zip(document["bounds"], table.rows, strict=True):
            assert set(told) == {"method", "kind", "value", "ratio", "seconds", "scope", "source", "notes"}
            assert (told["kind"], told["value"]) == (row.bound.kind, row.bound.value)
            assert told["ratio"] == pytest.approx(told["value"] / document["exact"]["value"])

    def test_a_bound_beyond_all_numbers_is_null_with_a_reason(self, found: BoundTable) -> None:
        first = found.rows[0]
        endless = replace(first, bound=replace(first.bound, value=math.inf), ratio=math.inf)
        row = bounds_document(replace(found, rows=(endless,)))["bounds"][0]
        assert (row["value"], row["ratio"]) == (None, None)
        assert row["reason"] == "the value is beyond the range of numbers"
        assert "inf" in rendered(replace(found, rows=(endless, *found.rows[1:])))

    def test_options_reach_the_table(self, monkeypatch: pytest.MonkeyPatch, found: BoundTable) -> None:
        asked = []

        def record(conv: ConvOperator, **options: Any) -> BoundTable:
            asked.append(options)
            return found

        monkeypatch.setattr(spectral_conv.bounds, "table", record)
        run("bounds", *STEM, "--rtol", "1e-5", "--memory-limit", "0.5", "--json")
        assert asked == [{"rtol": 1e-5, "memory_limit": 500_000_000}]


@pytest.mark.parametrize(("name", "start"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml")])
def test_figure(tmp_path: Path, name: str, start: bytes) -> None:
    result = run("bounds", *STEM, "--figure", tmp_path / name)
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"Figure in {tmp_path / name}." in result.stdout.replace("\n", "")
    assert (tmp_path / name).read_bytes().startswith(start)
    assert [path.name for path in tmp_path.iterdir()] == [name]


class TestErrors:
    def refused(self, *arguments: str | Path) -> str:
        result = run("bounds", *arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith("spectral-conv: ")
        assert result.stderr.count("\n") == 1
        return str(result.stderr)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("--rtol", "0"), "`rtol` must be a positive number; got 0.0"),
            (("--memory-limit", "-1"), "`--memory-limit` must be a positive number of gigabytes; got -1.0."),
            (("--figure", "a.gif"), "`--figure` must end in .png or .pdf or .svg; got 'a.gif'."),
            (("--figure", "no/such/a.png"), "`--figure` must be a file in a folder that exists"),
        ],
    )
    def test_usage(self, options: tuple[str, ...], message: str) -> None:
        assert message in self.refused(*STEM, *options)

    def test_layers_are_suggested_and_ambiguous_names_are_listed(self, tmp_path: Path) -> None:
        assert "Did you mean 'stem.weight'" in self.refused(*DIGITS, "--layer", "stm.weight")
        save_file({"module.a.weight": KERNEL, "model.a.weight": KERNEL}, tmp_path / "m.safetensors")
        message = self.refused(tmp_path / "m.safetensors", "--layer", "a.weight")
        assert "The name 'a.weight' is ambiguous: " in message
        assert "module.a.weight" in message
        assert "model.a.weight" in message

    def test_layer_is_required_and_the_file_must_be_there(self, tmp_path: Path) -> None:
        result = run("bounds", *DIGITS)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "Missing option '--layer'" in " ".join(result.stderr.split())
        assert "absent.npz" in self.refused(tmp_path / "absent.npz", "--layer", "a")

    def test_without_the_exact_value_the_bounds_are_shown_and_the_code_is_1(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def failing(conv: ConvOperator, **options: Any) -> Any:
            raise MemoryLimitError("It needs 3 GB: raise `memory_limit`.")

        monkeypatch.setattr("spectral_conv.bounds._table.spectral_norm", failing)
        result = run("bounds", *STEM, "--figure", tmp_path / "a.png")
        assert result.exit_code == 1
        assert "exact: not found. It needs 3 GB: raise `memory_limit`." in " ".join(result.stdout.split())
        assert "circulant_embedding" in result.stdout
        assert "no figure" in result.stderr
        assert list(tmp_path.iterdir()) == []
        document = strict_json(run("bounds", *STEM, "--json").stdout)
        assert document["exact"] is None
        assert document["exact_reason"].startswith("It needs 3 GB")
        assert all(row["ratio"] is None for row in document["bounds"])

    def test_a_bracket_gives_1_and_says_so(self) -> None:
        result = run("bounds", *DIGITS, "--layer", "square.weight", "--memory-limit", "0.0000001")
        assert result.exit_code == 1
        assert "exact: only a bracket, " in result.stdout


class TestInspect:
    def test_table_has_the_tightest_bound_and_a_summary(self) -> None:
        result = run("inspect", *DIGITS, "--bounds", "--select", "s*")
        assert (result.exit_code, result.stderr) == (0, "")
        lines = result.stdout.splitlines()
        assert max(map(len, lines)) <= 80
        words = " ".join(result.stdout.split())
        assert "bound: the tightest upper bound of max, how far it is off and its method." in words
        model = read_model(DIGITS[0], layers=DIGITS[2])
        layers = [find_layer(model, f"{name}.weight") for name in ("stem", "square")]
        inspection = inspect_model([layer.operator for layer in layers], bounds=True)
        ratios = inspection.dataset["bound_ratio"]
        for method in ratios["bound"].values:
            (line,) = (line for line in lines if line.startswith(f"{method}  "))
            some = ratios.sel(bound=method).values
            assert f"2 of 2  {some.min():8.4f}  {np.median(some):.4f}   {some.max():.4f}" in line
        assert run("inspect", *DIGITS, "--select", "stem").stdout.count(" bound ") == 0

    def test_json(self) -> None:
        result = run("inspect", *DIGITS, "--bounds", "--json", "--largest-only")
        assert (result.exit_code, result.stderr) == (0, "")
        document = strict_json(result.stdout)
        assert document["settings"]["bounds"] is True
        methods = {row.method for row in bounds.table(stem(), exact=False).rows}
        for layer in document["layers"]:
            assert set(layer["bounds"]) == methods
            for told in layer["bounds"].values():
                assert set(told) == {"value", "kind", "ratio", "seconds"}
                assert told["ratio"] == pytest.approx(told["value"] / layer["sigma_max"]["value"])
        assert strict_json(run("inspect", *DIGITS, "--json", "--select", "stem").stdout)["layers"][0]["bounds"] == {}
