"""The command line as a person or a pipeline meets it: streams, exit codes, messages, waiting."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

from spectral_conv.cli import app
from spectral_conv.inspection import _analysis as analysis
from spectral_conv.results import Enclosure, StopReason

DATA = Path(str(files("spectral_conv") / "data"))
DIGITS = (str(DATA / "digits.safetensors"), "--layers", str(DATA / "digits.layers.json"))
KERNEL = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)

POSITIVE = {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1}
ENCLOSURE = {
    "type": ["object", "null"],
    "properties": {
        "value": {"type": "number", "minimum": 0},
        "lower": {"type": "number", "minimum": 0},
        "upper": {"type": ["number", "null"]},
        "basis": {"type": "string", "pattern": "^(certified: .|theorem: .|residual$)"},
        "method": {"enum": ["dense", "lanczos", "davidson", "factorized", "blocks", "symbol", "bracket"]},
        "applications": {"type": "integer", "minimum": 0},
    },
    "required": ["value", "lower", "upper", "basis", "method", "applications"],
    "additionalProperties": False,
}
CIRCULANT = {
    "type": ["object", "null"],
    "properties": {"sigma_max": {"type": "number"}, "sigma_min": {"type": "number"}},
    "required": ["sigma_max", "sigma_min"],
    "additionalProperties": False,
}
LAYER = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "kernel_shape": POSITIVE,
        "layout": {"type": "string"},
        "input_shape": POSITIVE,
        "output_shape": POSITIVE,
        "stride": POSITIVE,
        "padding": {
            "type": "array",
            "items": {
                "type": "array",
                "items": {"type": "integer", "minimum": 0},
                "minItems": 2,
                "maxItems": 2,
            },
        },
        "dilation": POSITIVE,
        "groups": {"type": "integer", "minimum": 1},
        "padding_mode": {"enum": ["zeros", "circular", "reflect", "replicate"]},
        "transposed": {"type": "boolean"},
        "assumed": {"type": "array", "items": {"type": "string"}},
        "sigma_max": ENCLOSURE,
        "sigma_max_reason": {"type": "string"},
        "sigma_min": ENCLOSURE,
        "sigma_min_reason": {"type": "string"},
        "circulant": CIRCULANT,
        "circulant_reason": {"type": "string"},
        "bounds": {"type": "object"},
        "seconds": {"type": "number", "minimum": 0},
    },
    "required": [
        *("name", "kernel_shape", "layout", "input_shape", "output_shape", "stride", "padding", "dilation"),
        *("groups", "padding_mode", "transposed", "assumed", "sigma_max", "sigma_min", "circulant"),
        *("bounds", "seconds"),
    ],
    "additionalProperties": False,
    # A reason stands where a value is missing, and only there.
    "allOf": [
        {
            "if": {"properties": {key: {"type": "null"}}},
            "then": {"required": [f"{key}_reason"]},
            "else": {"not": {"required": [f"{key}_reason"]}},
        }
        for key in ("sigma_max", "sigma_min", "circulant")
    ],
}
DOCUMENT = {
    "type": "object",
    "properties": {
        "model": {"type": "string"},
        "schema": {"const": 1},
        "version": {"type": "string"},
        "libraries": {"type": "object", "additionalProperties": {"type": "string"}},
        "settings": {"type": "object"},
        "layers": {"type": "array", "items": LAYER},
        "skipped": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "reason": {"type": "string"}},
                "required": ["name", "reason"],
                "additionalProperties": False,
            },
        },
    },
    "required": ["model", "schema", "version", "libraries", "settings", "layers", "skipped"],
    "additionalProperties": False,
}


def run(*arguments: str | Path, columns: int = 80) -> Any:
    return CliRunner(env={"COLUMNS": str(columns)}).invoke(app, [str(argument) for argument in arguments])


def strict_json(text: str) -> Any:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "ok.safetensors"
    save_file({"conv.weight": KERNEL, "fc.weight": KERNEL[:, :, 0, 0].copy()}, path)
    return path


def layers_json(folder: Path, **changes: Any) -> Path:
    entry = {"weight": "conv.weight", "stride": 1, "padding": 1, "dilation": 1, "groups": 1}
    path = folder / "some.layers.json"
    path.write_text(json.dumps({"layers": [entry | {"input_size": [8, 8]} | changes]}), encoding="utf-8")
    return path


class TestInspect:
    def test_table_on_standard_output_and_silence_on_standard_error(self) -> None:
        result = run("inspect", *DIGITS)
        assert result.exit_code == 0
        assert result.stderr == ""
        assert "\x1b" not in result.stdout
        assert max(map(len, result.stdout.splitlines())) <= 80
        for part in (
            "digits.safetensors",
            "square.weight",
            "16x16x3x3 in 8x8",
            "5.354430",
            "by FFT",
            "how sure",
        ):
            assert part in result.stdout

    def test_json_is_one_document_of_the_schema_and_nothing_else(self) -> None:
        result = run("inspect", *DIGITS, "--json")
        assert result.exit_code == 0
        assert result.stderr == ""
        document = strict_json(result.stdout)
        jsonschema.validate(document, DOCUMENT)
        assert len(document["layers"]) == 6
        assert document["version"] == version("spectral-conv")
        assert document["layers"][0]["kernel_shape"] == [16, 1, 3, 3]
        assert document["layers"][0]["padding"] == [[1, 1], [1, 1]]
        assert document["layers"][0]["bounds"] == {}

    def test_json_of_missing_values_says_why(self, tmp_path: Path, weights: Path) -> None:
        layers = layers_json(tmp_path, padding_mode="reflect")
        result = run("inspect", weights, "--layers", layers, "--json", "--largest-only")
        document = strict_json(result.stdout)
        jsonschema.validate(document, DOCUMENT)
        (layer,) = document["layers"]
        assert result.exit_code == 0
        assert layer["sigma_min"] is None
        assert layer["sigma_min_reason"] == "not asked for"
        assert "reflect" in layer["circulant_reason"]

    def test_certified_bounds_say_so_in_the_document_and_in_the_table(self) -> None:
        document = strict_json(run("inspect", *DIGITS, "--certify", "--json").stdout)
        jsonschema.validate(document, DOCUMENT)
        assert document["settings"]["certify"] is True
        for layer in document["layers"]:
            for end in ("sigma_max", "sigma_min"):
                assert layer[end]["basis"].startswith("certified: ")
            assert layer["sigma_max"]["upper"] - layer["sigma_max"]["lower"] <= 1e-9 * layer["sigma_max"]["value"]
        table = run("inspect", *DIGITS, "--certify", "--select", "stem")
        assert table.exit_code == 0
        assert "5.354430" in table.stdout
        assert "certified: the bounds are proved, rounding errors included." in table.stdout
        assert "residual" not in table.stdout

    def test_a_certified_bracket_says_that_it_is_certified(self) -> None:
        result = run("inspect", *DIGITS, "--certify", "--select", "square", "--memory-limit", "0.0001")
        assert result.exit_code == 1
        assert "certified" in result.stdout
        assert "max of square.weight: only a bracket." in result.stdout

    def test_several_files_make_one_document(self, weights: Path) -> None:
        arguments = ("inspect", weights, weights, "--input-size", "3x6x6")
        result = run(*arguments, "--json")
        document = strict_json(result.stdout)
        assert set(document) == {"schema", "models"}
        for model in document["models"]:
            jsonschema.validate(model, DOCUMENT)
        assert document["models"][0]["settings"]["input_size"] == [3, 6, 6]
        assert run(*arguments).stdout.count("ok.safetensors") == 2

    def test_assumed_geometry_is_marked(self, weights: Path) -> None:
        result = run("inspect", weights, "--input-size", "3x6x6")
        assert "conv.weight*" in result.stdout
        assert "* assumed" in result.stdout
        layer = strict_json(run("inspect", weights, "--input-size", "3x6x6", "--json").stdout)["layers"][0]
        assert {"stride", "padding", "dilation"} <= set(layer["assumed"])

    @pytest.mark.parametrize(
        ("pattern", "names"),
        [
            ("d*.weight", {"dilated.weight", "down.weight", "depthwise.weight"}),
            ("oint", {"pointwise.weight"}),
            ("s*", {"stem.weight", "square.weight"}),
        ],
    )
    def test_select(self, pattern: str, names: set[str]) -> None:
        document = strict_json(run("inspect", *DIGITS, "--json", "--select", pattern).stdout)
        assert {layer["name"] for layer in document["layers"]} == names

    def test_options_reach_the_engines(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []

        def record(conv: Any, **options: Any) -> Enclosure:
            asked.append(options)
            return Enclosure(lower=1.0, value=1.0, upper=1.0, basis="residual", method="dense", applications=0)

        monkeypatch.setattr(analysis, "spectral_norm", record)
        run(
            "inspect",
            *DIGITS,
            "--select",
            "stem",
            "--largest-only",
            "--rtol",
            "1e-5",
            "--memory-limit",
            "0.5",
            "--certify",
        )
        assert asked == [{"rtol": 1e-5, "certify": True, "memory_limit": 500_000_000}]


class TestExitCodes:
    def test_a_layer_that_does_not_converge_gives_1_and_the_table(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def failing(conv: Any, **options: Any) -> Enclosure:
            raise RuntimeError("`maxiter` was reached: raise it.")

        monkeypatch.setattr(analysis, "smallest_singular_value", failing)
        result = run("inspect", *DIGITS)
        assert result.exit_code == 1
        assert "5.354430" in result.stdout
        assert "! min of 6 layers: `maxiter` was reached: raise it." in result.stdout
        document = strict_json(run("inspect", *DIGITS, "--json").stdout)
        jsonschema.validate(document, DOCUMENT)
        assert document["layers"][0]["sigma_min_reason"] == "`maxiter` was reached: raise it."

    def test_a_bracket_gives_1(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def bracket(conv: Any, **options: Any) -> Enclosure:
            return Enclosure(
                lower=0.0,
                value=1.0,
                upper=float("inf"),
                basis="theorem: compression",
                method="bracket",
                applications=4,
                stop_reason=StopReason.LIMIT,
            )

        monkeypatch.setattr(analysis, "smallest_singular_value", bracket)
        result = run("inspect", *DIGITS, "--json", "--select", "stem")
        assert result.exit_code == 1
        document = strict_json(result.stdout)
        jsonschema.validate(document, DOCUMENT)
        assert document["layers"][0]["sigma_min"]["upper"] is None
        assert "only a bracket" in run("inspect", *DIGITS, "--select", "stem").stdout

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("inspect",), "Missing argument"),
            (("inspect", "a.npz", "--no-such-option"), "No such option"),
            (("no-such-command",), "No such command"),
            (("inspect", "a.npz", "--rtol", "small"), "'--rtol': Input should be a valid number"),
            (
                ("inspect", "a.npz", "--input-size", "32"),
                "`--input-size` must be channels and one to three sizes",
            ),
            (("inspect", "a.npz", "--input-size", "3x0x4"), "got '3x0x4'"),
            (("describe", "a.npz", "--input-size", "3,32,32"), "such as 3x32x32; got '3,32,32'"),
            (("inspect", *DIGITS, "--rtol", "0"), "`rtol` must lie between 0 and 1; got 0.0"),
            (("inspect", *DIGITS, "--memory-limit", "-1"), "`--memory-limit` must be a positive number"),
            (("inspect", *DIGITS, "--memory-limit", "nan"), "`--memory-limit` must be a positive number"),
            (
                ("inspect", *DIGITS, "--select", "conv9"),
                "`--select` must match a layer of digits.safetensors; got 'conv9'.",
            ),
        ],
    )
    def test_usage_gives_2(self, arguments: tuple[str, ...], message: str) -> None:
        result = run(*arguments)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert message in " ".join(result.stderr.split())


class RunsCode:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("echo this must never run",)


def _bad_files(folder: Path) -> dict[str, Path]:
    spoiled = KERNEL.copy()
    spoiled[0, 0, 0, 0] = np.nan
    endless = KERNEL.copy()
    endless[1, 1, 1, 1] = np.inf
    for name, kernel in (("nan", spoiled), ("inf", endless), ("empty", KERNEL[:0]), ("good", KERNEL)):
        save_file({"conv.weight": kernel}, folder / f"{name}.safetensors")
    save_file({"fc.weight": KERNEL[:, :, 0, 0].copy()}, folder / "dense.safetensors")
    np.savez(folder / "integer.npz", **{"conv.weight": np.ones((4, 3, 3, 3), dtype=np.int64)})
    np.savez(folder / "complex.npz", **{"conv.weight": KERNEL * 1j})
    np.savez(folder / "object.npz", **{"conv.weight": np.array([RunsCode()], dtype=object)})
    data = (folder / "good.safetensors").read_bytes()
    (folder / "truncated.safetensors").write_bytes(data[:-40])
    (folder / "words.safetensors").write_text("This is not a model, it is a sentence.")
    (folder / "nothing.npz").write_bytes(b"")
    (folder / "code.pkl").write_bytes(pickle.dumps(RunsCode()))
    (folder / "code.pth").write_bytes(pickle.dumps(RunsCode()))
    return {path.name: path for path in folder.iterdir()}


@pytest.mark.parametrize("command", ["inspect", "describe", "layers"])
class TestBadInput:
    """One clear message on standard error, exit code 2, nothing on standard output."""

    def refused(self, *arguments: str | Path) -> str:
        result = run(*arguments)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert result.stderr.startswith("spectral-conv: ")
        assert result.stderr.count("\n") == 1
        assert "Traceback" not in result.stderr
        return str(result.stderr)

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("nan.safetensors", "`kernel` must be finite; got 1 NaN or infinite of 108"),
            ("inf.safetensors", "`kernel` must be finite; got 1 NaN or infinite of 108"),
            ("empty.safetensors", "conv.weight"),
            ("dense.safetensors", "no convolution"),
            ("integer.npz", "int64"),
            ("complex.npz", "complex64"),
            ("object.npz", "object array"),
            ("truncated.safetensors", "truncated"),
            ("words.safetensors", "words.safetensors"),
            ("nothing.npz", "empty"),
            ("code.pkl", "code.pkl"),
            ("code.pth", "code.pth"),
            ("absent.safetensors", "absent.safetensors"),
            (".", "folder"),
        ],
    )
    def test_file(
        self, command: str, tmp_path: Path, name: str, message: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        _bad_files(tmp_path)
        assert message in self.refused(command, tmp_path / name)
        assert "this must never run" not in capfd.readouterr().out

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"weight": "conv1.weight"}, "Did you mean 'conv.weight'"),
            ({"shape": [4, 3, 5, 5]}, "`shape` is [4, 3, 5, 5]"),
            ({"groups": 3}, "`groups` must divide"),
            ({"padding": "smae"}, "Did you mean 'same'?"),
            ({"layout": "OHIW"}, "`layout`"),
            ({"stride": 0}, "`stride`"),
            ({"padding": 0, "input_size": [2, 2]}, "must be at least the extent 3 of the kernel"),
            ({"output_size": [9, 9]}, "`output_size`"),
            ({"padding_mode": "mirror"}, "`padding_mode`"),
        ],
    )
    def test_layers_document(
        self, command: str, tmp_path: Path, weights: Path, changes: dict[str, Any], message: str
    ) -> None:
        assert message in self.refused(command, weights, "--layers", layers_json(tmp_path, **changes))

    def test_layers_document_that_is_no_json(self, command: str, tmp_path: Path, weights: Path) -> None:
        path = tmp_path / "broken.json"
        path.write_text("{")
        assert "broken.json is not valid JSON" in self.refused(command, weights, "--layers", path)
        assert "absent.json" in self.refused(command, weights, "--layers", tmp_path / "absent.json")

    def test_input_size_that_fits_no_kernel(self, command: str, weights: Path) -> None:
        assert "`input_size`" in self.refused(command, weights, "--input-size", "3x32")


def test_a_bad_file_is_told_before_the_first_is_analysed(tmp_path: Path, weights: Path) -> None:
    result = run("inspect", weights, tmp_path / "absent.npz")
    assert (result.exit_code, result.stdout) == (2, "")


def test_a_spoiled_layer_is_listed_beside_the_good_ones(tmp_path: Path) -> None:
    spoiled = KERNEL.copy()
    spoiled[0, 0, 0, 0] = np.nan
    save_file({"a.weight": spoiled, "b.weight": KERNEL}, tmp_path / "m.safetensors")
    result = run("inspect", tmp_path / "m.safetensors", "--input-size", "3x6x6")
    assert result.exit_code == 1
    table = result.stdout
    assert "a.weight: " in table
    assert "`kernel` must be finite" in " ".join(table.split())
    result = run("inspect", tmp_path / "m.safetensors", "--input-size", "3x6x6", "--json")
    document = strict_json(result.stdout)
    assert [layer["name"] for layer in document["layers"]] == ["b.weight"]
    assert [entry["name"] for entry in document["skipped"]] == ["a.weight"]


def test_a_layer_name_cannot_command_the_terminal(tmp_path: Path) -> None:
    name = "[bold]\x1b]0;owned\x07.weight"
    save_file({name: KERNEL}, tmp_path / "m.safetensors")
    for command in ("inspect", "describe"):
        text = run(command, tmp_path / "m.safetensors", "--input-size", "3x4x4").stdout
        assert "\x1b" not in text
        assert "\x07" not in text
        assert r"[bold]\x1b]0" in text.replace("\n", "")


def test_layers_prints_a_document_that_can_be_read_back(tmp_path: Path, weights: Path) -> None:
    result = run("layers", weights, "--input-size", "3x8x8")
    assert result.exit_code == 0
    assert "Assumed, to be checked: " in result.stderr
    document = strict_json(result.stdout)
    assert document["layers"][0]["weight"] == "conv.weight"
    path = tmp_path / "edited.json"
    path.write_text(result.stdout, encoding="utf-8")
    again = run("layers", weights, "--layers", path)
    assert again.stderr == ""
    stated = strict_json(again.stdout)["layers"][0]
    assert stated == {key: value for key, value in document["layers"][0].items() if key != "assumed"}


def test_describe_tells_geometry_and_what_is_left_out(weights: Path) -> None:
    result = run("describe", weights, "--input-size", "3x8x8")
    assert result.exit_code == 0
    for part in ("conv.weight", "same *", "4x3x3x3 OIHW", "3x8x8", "4x8x8", "fc.weight"):
        assert part in result.stdout


def test_demo_shows_the_table_and_says_what_it_shows() -> None:
    result = run("demo")
    assert result.exit_code == 0
    assert result.stderr == ""
    words = " ".join(result.stdout.split())
    for part in (
        "handwritten digits",
        "square.weight",
        "depthwise.weight: it says",
        "too large in 5 of 6 layers",
    ):
        assert part in words
    assert "The FFT is right for pointwise.weight" in words


def test_version_and_help() -> None:
    assert run("--version").stdout == f"spectral-conv {version('spectral-conv')}\n"
    text = run("--help").stdout
    for command in ("inspect", "describe", "layers", "demo"):
        assert command in text
    assert "--largest-only" in run("inspect", "--help").stdout


def test_results_survive_a_terminal_of_few_letters(tmp_path: Path) -> None:
    save_file({"größe.weight": KERNEL}, tmp_path / "m.safetensors")
    arguments = ("inspect", str(tmp_path / "m.safetensors"), "--input-size", "3x4x4")
    process = _spawn(*arguments, PYTHONIOENCODING="ascii")
    assert process.returncode == 0
    assert process.stdout.isascii()
    assert r"gr\xf6\xdfe.weight" in process.stdout


def _spawn(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from spectral_conv.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, spectral_conv.cli as c\n"
        "try:\n    c.app(['inspect', '--help'])\nexcept SystemExit: pass\n"
        "heavy = {'numpy', 'scipy', 'numba', 'xarray', 'rich', 'jsonschema'} & sys.modules.keys()\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
