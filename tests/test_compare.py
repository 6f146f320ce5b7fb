"""Two checkpoints of one network: which layers moved and how, and what could not be compared."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console
from safetensors.numpy import save_file
from shared_material import MODELS, needs_shared
from typer.testing import CliRunner

from spectral_conv import ConvOperator, read_model
from spectral_conv.cli import app
from spectral_conv.comparison import Comparison, compare_models
from spectral_conv.models import ModelError
from spectral_conv.report.change import QUANTILES, LayerChange, condition
from spectral_conv.report.comparison import ComparisonTable, change_text, ratio_text
from spectral_conv.results import Enclosure
from spectral_conv.symbols import circulant_singular_values

RNG = np.random.default_rng(1)
SIZE = {"input_size": (3, 6, 6)}
WORDS: dict[str, Any] = {"basis": "residual", "method": "dense", "applications": 0}


def kernel(h: int, g: int) -> NDArray[np.float32]:
    return RNG.standard_normal((h, g, 3, 3)).astype(np.float32)


FIRST = {"a.weight": kernel(4, 3), "b.weight": kernel(4, 4), "c.weight": kernel(5, 4), "d.weight": kernel(2, 5)}
SECOND = {
    "a.weight": FIRST["a.weight"],
    "b.weight": 3.0 * FIRST["b.weight"],
    "c.weight": FIRST["c.weight"] + 0.01 * kernel(5, 4),
    "d.weight": kernel(3, 5),
    "e.weight": kernel(2, 2),
}


def saved(path: Path, tensors: dict[str, NDArray[np.float32]]) -> Path:
    save_file(tensors, path)
    return path


def exact(weights: NDArray[np.float32], n: int = 6) -> NDArray[np.floating]:
    conv = ConvOperator(weights.astype(float), (n, n), layout="OIHW")
    return np.linalg.svd(conv.to_dense(), compute_uv=False)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    wrapped = {f"module.{name}": values for name, values in SECOND.items()}
    return saved(folder / "one.safetensors", FIRST), saved(folder / "two.safetensors", wrapped)


@pytest.fixture(scope="module")
def comparison(files: tuple[Path, Path]) -> Comparison:
    return compare_models(*files, **SIZE)


def test_values_are_those_of_the_dense_matrices(comparison: Comparison) -> None:
    for change in comparison.changes:
        for report, weights in ((change.before, FIRST), (change.after, SECOND)):
            values = exact(weights[change.name])
            assert report.sigma_max is not None
            assert report.sigma_max.value == pytest.approx(values[0], rel=1e-8)
            found = condition(report)
            assert found is not None
            assert found.lower * (1 - 1e-9) <= values[0] / values[-1] <= found.upper * (1 + 1e-9)
            assert found.value == pytest.approx(values[0] / values[-1], rel=1e-5)


def test_layers_are_matched_without_prefixes_and_sorted_by_their_norm(comparison: Comparison) -> None:
    assert [change.name for change in comparison.changes] == ["b.weight", "c.weight", "a.weight"]
    assert [change.after.name for change in comparison.changes] == [f"module.{c.name}" for c in comparison.changes]
    tripled, moved, same = comparison.changes
    assert tripled.weight_change == pytest.approx(2.0, rel=1e-6)
    assert tripled.ratios["sigma_max"] == pytest.approx(3.0, rel=1e-6)
    assert tripled.ratios["condition"] == pytest.approx(1.0, rel=1e-5)
    difference = SECOND["c.weight"].astype(float) - FIRST["c.weight"]
    assert moved.weight_change == pytest.approx(np.linalg.norm(difference) / np.linalg.norm(FIRST["c.weight"]))
    assert same.weight_change == same.movement == 0.0
    assert same.before.sigma_max == same.after.sigma_max


def test_quantiles_are_those_of_the_circulant_spectrum(comparison: Comparison) -> None:
    change = comparison.changes[1]
    conv = ConvOperator(SECOND["c.weight"].astype(float), (6, 6), layout="OIHW")
    expected = np.quantile(circulant_singular_values(conv), QUANTILES)
    assert change.quantiles_after == pytest.approx(tuple(expected), rel=1e-12)


def test_what_has_no_partner_is_listed_with_the_reason(comparison: Comparison) -> None:
    listed = {item.name: (item.model, item.reason) for item in comparison.unmatched}
    assert listed == {
        "d.weight": ("both", "output channels 2 and 3 (A, B)"),
        "module.e.weight": ("b", "only in B"),
    }
    assert comparison.complete


def test_frame_and_document_say_the_same(comparison: Comparison) -> None:
    frame, document = comparison.to_dataframe(), comparison.document()
    assert list(frame.index) == [layer["name"] for layer in document["layers"]]
    for layer in document["layers"]:
        row = frame.loc[layer["name"]]
        assert row["sigma_max_b"] == layer["b"]["sigma_max"]["value"]
        assert row["condition_ratio"] == layer["ratio"]["condition"]
        assert row["circulant_quantile_50_a"] == layer["a"]["circulant_quantiles"]["50 %"]
        assert row["weight_change"] == layer["weight_change"]
    json.dumps(document, allow_nan=False)


def test_layers_that_differ_in_geometry_only(files: tuple[Path, Path]) -> None:
    small, large = (read_model(files[0], input_size=(3, n, n)) for n in (4, 6))
    with pytest.raises(ModelError, match=r"no convolution in common.*input size 4x4 and 6x6"):
        compare_models(small, large)
    with pytest.raises(ValueError, match="`input_size` and `layers` go with a path"):
        compare_models(small, large, input_size=(3, 4, 4))


def test_names_that_fit_several_layers_are_not_guessed(tmp_path: Path) -> None:
    a = saved(tmp_path / "a.safetensors", {"conv.weight": kernel(2, 2), "other.weight": kernel(2, 2)})
    twice = {"module.conv.weight": kernel(2, 2), "model.conv.weight": kernel(2, 2), "other.weight": kernel(2, 2)}
    b = saved(tmp_path / "b.safetensors", twice)
    comparison = compare_models(a, b, input_size=(2, 4, 4))
    assert [change.name for change in comparison.changes] == ["other.weight"]
    assert sorted(item.name for item in comparison.unmatched) == [
        "conv.weight",
        "model.conv.weight",
        "module.conv.weight",
    ]
    assert all("fits several layers" in item.reason for item in comparison.unmatched[:1])


def test_a_layer_that_is_spoiled_makes_the_comparison_incomplete(tmp_path: Path, files: tuple[Path, Path]) -> None:
    broken = saved(tmp_path / "nan.safetensors", FIRST | {"c.weight": np.full((5, 4, 3, 3), np.nan, np.float32)})
    comparison = compare_models(files[0], broken, **SIZE)
    (item,) = comparison.unmatched
    assert (item.name, item.model, item.spoiled) == ("c.weight", "a", True)
    assert "in B a convolution" in item.reason
    assert not comparison.complete
    result = run("compare", files[0], broken)
    assert result.exit_code == 1
    assert "b.weight" in result.stdout
    # In both: one line.
    both = compare_models(broken, broken, **SIZE)
    assert [entry.name for entry in both.unmatched] == ["c.weight"]


def test_zero_layers(tmp_path: Path, files: tuple[Path, Path]) -> None:
    zero = saved(tmp_path / "zero.safetensors", FIRST | {"a.weight": np.zeros_like(FIRST["a.weight"])})
    for first, second, weights in ((files[0], zero, 1.0), (zero, files[0], math.inf)):
        comparison = compare_models(first, second, **SIZE)
        change = comparison.changes[0]
        assert (change.name, change.movement, change.weight_change) == ("a.weight", math.inf, weights)
        json.dumps(comparison.document(), allow_nan=False)
        assert comparison.complete
        Console(width=80).print(ComparisonTable(comparison.changes))


def test_only_the_largest_values(files: tuple[Path, Path]) -> None:
    comparison = compare_models(*files, **SIZE, smallest=False)
    assert comparison.complete
    assert all(change.before.sigma_min is None for change in comparison.changes)
    assert np.isnan(comparison.to_dataframe()["sigma_min_a"]).all()
    text = table(comparison.changes)
    assert "max" in text
    assert "cond" not in text


def enclosure(value: float, error: float = 0.0) -> Enclosure:
    return Enclosure(lower=value - error, value=value, upper=value + error, **WORDS)


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (enclosure(1.0), enclosure(1.05), "+5.0 %"),
        (enclosure(1.0), enclosure(0.5), "-50.0 %"),
        (enclosure(1.0), enclosure(0.01), "1/100"),
        (enclosure(1.0), enclosure(25.0), "25 x"),
        (enclosure(1.0), enclosure(1e7), "1e7 x"),
        (enclosure(1.0, 1e-3), enclosure(1.001, 1e-3), "same"),
        (enclosure(0.0, 1e-9), enclosure(1.0), "> 1e9 x"),
        (enclosure(1.0), enclosure(0.0, 1e-9), "< 1/1e9"),
        (enclosure(1.0), enclosure(0.0), "to 0"),
        (enclosure(0.0), enclosure(1.0), "from 0"),
        (enclosure(math.inf), enclosure(1.0), "from inf"),
        (enclosure(1.0), Enclosure(lower=5.0, value=math.inf, upper=math.inf, **WORDS), "to inf"),
        (None, enclosure(1.0), "-"),
        (enclosure(1.0), Enclosure(lower=0.0, value=1.0, upper=2.0, **WORDS | {"method": "bracket"}), "-"),
    ],
)
def test_changes_in_words(before: Enclosure | None, after: Enclosure, text: str) -> None:
    assert change_text(before, after)[0] == text


def test_small_changes_keep_their_digits() -> None:
    assert [ratio_text(1.0 + d) for d in (0.5, 0.013, 0.0042, 1e-5)] == ["+50.0 %", "+1.3 %", "+0.42 %", "+1e-03 %"]


def table(changes: tuple[LayerChange, ...], width: int = 80) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(ComparisonTable(changes, ("one", "two"), [("d.weight", "only in A")]))
    return capture.get()


@pytest.mark.parametrize("width", [80, 100, 140])
def test_the_table_fits(comparison: Comparison, width: int) -> None:
    text = table(comparison.changes, width)
    assert max(map(len, text.splitlines())) <= width
    for part in (
        "b.weight",
        "weights 200 %",
        "same weights",
        "3.0 x",
        "an estimate of the distribution",
        "only in A",
    ):
        assert part in text


def run(*arguments: object, columns: int = 80) -> Any:
    words = [str(argument) for argument in arguments] + ["--input-size", "3x6x6"]
    return CliRunner(env={"COLUMNS": str(columns)}).invoke(app, words)


def test_the_command_line(tmp_path: Path, files: tuple[Path, Path]) -> None:
    result = run("compare", *files)
    assert result.exit_code == 0
    assert result.stdout.startswith("A: one.safetensors\nB: two.safetensors\n")
    document = json.loads(run("compare", *files, "--json").stdout)
    assert document["layers"][0]["name"] == "b.weight"
    assert document["layers"][0]["name_b"] == "module.b.weight"
    missing = run("compare", files[0], tmp_path / "nowhere.safetensors")
    assert missing.exit_code == 2
    assert "There is no file" in missing.stderr
    stranger = saved(tmp_path / "stranger.safetensors", {"other.weight": kernel(2, 3)})
    refused = run("compare", files[0], stranger)
    assert refused.exit_code == 2
    assert "no convolution in common" in refused.stderr


def test_names_cannot_command_the_terminal(tmp_path: Path) -> None:
    name = "[bold]\x1b]0;owned\x07.weight"
    paths = [saved(tmp_path / f"{i}.safetensors", {name: kernel(2, 3)}) for i in range(2)]
    text = run("compare", *paths, columns=140).stdout
    assert "\x1b" not in text
    assert r"\x1b]0" in text.replace("\n", "")


@needs_shared
def test_long_names_fit_80_columns(tmp_path: Path) -> None:
    original = MODELS / "resnet20_cifar10.safetensors"
    model = read_model(original, input_size=(3, 4, 4))
    changed = {
        layer.name: np.ascontiguousarray(np.moveaxis(layer.operator.kernel, (3, 2), (0, 1))) * 1.01
        for layer in model.layers[:7]
    }
    second = saved(tmp_path / "b.safetensors", changed)
    result = CliRunner(env={"COLUMNS": "80"}).invoke(
        app, ["compare", str(original), str(second), "--input-size", "3x4x4"]
    )
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "layer1.0.conv1*" in result.stdout
    assert "+1.0 %" in result.stdout
