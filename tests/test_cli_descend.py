"""`spectral-conv descend`: what it shows, keeps and writes, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

import spectral_conv.descent
from spectral_conv import MemoryLimitError, SpectrumStore, read_model
from spectral_conv.cli import app
from spectral_conv.cli.choices import PENALTIES
from spectral_conv.models import find_layer
from spectral_conv.results import DescentStop, NotConvergedError, SingularTriplets, StopReason

DATA = Path(str(files("spectral_conv") / "data"))
DIGITS = (str(DATA / "digits.safetensors"), "--layers", str(DATA / "digits.layers.json"))
STEM = (*DIGITS, "--layer", "stem.weight")
RNG = np.random.default_rng(0)


def run(*arguments: str | Path, columns: int = 80) -> Any:
    return CliRunner(env={"COLUMNS": str(columns)}).invoke(app, ["descend", *map(str, arguments)])


def strict_json(text: str) -> Any:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


class TestTable:
    def test_some_iterations_and_why_it_stopped(self) -> None:
        result = run(*STEM, "--maxiter", "7")
        assert result.exit_code == 0
        assert result.stderr == ""
        assert "\x1b" not in result.stdout
        lines = [line.strip() for line in result.stdout.splitlines()]
        assert max(map(len, lines)) <= 80
        assert lines[:3] == [
            "digits.safetensors: stem.weight",
            "16x1x3x3 in 8x8",
            "OrthogonalityGap(alpha=1.0), steps by ExactLineSearch()",
        ]
        rows = [line.split() for line in lines if line[:1].isdigit() and len(line.split()) == 6]
        assert [row[0] for row in rows] == ["0", "1", "2", "5", "7"]
        assert rows[0][3:] == ["-", "5.354430", "2.352778"]
        assert "`--maxiter` was reached. The penalty is" in result.stdout

    def test_assumed_geometry_is_marked(self) -> None:
        result = run(DIGITS[0], "--layer", "module.stem.weight", "--maxiter", "0", "--input-size", "1x6x6")
        assert result.exit_code == 0
        assert "stem.weight*" in result.stdout
        assert "16x1x3x3 in 6x6" in result.stdout
        assert "* assumed, for the file does not say:" in result.stdout

    def test_a_name_cannot_command_the_terminal(self, tmp_path: Path) -> None:
        name = "[bold]\x1b]0;owned\x07.weight"
        save_file({name: RNG.standard_normal((2, 1, 3, 3)).astype(np.float32)}, tmp_path / "m.safetensors")
        text = run(tmp_path / "m.safetensors", "--layer", name, "--maxiter", "1", "--input-size", "1x4x4").stdout
        assert "\x1b" not in text
        assert r"[bold]\x1b]0" in text

    @pytest.mark.parametrize("word", PENALTIES)
    def test_every_penalty_descends(self, word: str) -> None:
        document = strict_json(run(*STEM, "--penalty", word, "--maxiter", "1", "--json").stdout)
        assert document["history"]["penalty"][1] < document["history"]["penalty"][0]

    @pytest.mark.parametrize(
        ("text", "rule"),
        [
            ("exact", "ExactLineSearch()"),
            ("Armijo", "Armijo(first=None, decrease=0.0001, factor=0.5)"),
            ("barzilai-borwein", "BarzilaiBorwein(first=None, short=False)"),
            ("1e-5", "Fixed(t=1e-05)"),
            ("1:1e-5,2:1e-4", "Schedule(sizes={1: 1e-05, 2: 0.0001})"),
        ],
    )
    def test_every_step_rule_is_understood(self, text: str, rule: str) -> None:
        document = strict_json(run(*STEM, "--step", text, "--maxiter", "2", "--json").stdout)
        assert document["step"] == rule
        assert document["iterations"] == 2

    def test_the_target_ends_it(self) -> None:
        result = run(*STEM, "--target", "0.1,2", "--json")
        document = strict_json(result.stdout)
        assert (result.exit_code, document["stop_reason"], document["iterations"]) == (0, "TARGET", 1)

    def test_alpha_is_the_square_that_is_wanted(self) -> None:
        document = strict_json(run(*STEM, "--alpha", "4", "--maxiter", "20", "--json").stdout)
        assert document["penalty"] == "OrthogonalityGap(alpha=4.0)"
        assert document["history"]["sigma_max"][-1] == pytest.approx(2.0, abs=0.1)


class TestJson:
    def test_one_document_with_all_iterations(self, tmp_path: Path) -> None:
        store, out = tmp_path / "run.zarr", tmp_path / "k.npz"
        result = run(*STEM, "--maxiter", "3", "--json", "--store", store, "--out", out)
        assert (result.exit_code, result.stderr) == (0, "")
        document = strict_json(result.stdout)
        history = document.pop("history")
        assert "after 3 iterations" in document.pop("message")
        assert document == {
            "schema": 1,
            "model": "digits.safetensors",
            "layer": "stem.weight",
            "penalty": "OrthogonalityGap(alpha=1.0)",
            "step": "ExactLineSearch()",
            "iterations": 3,
            "stop_reason": "MAXITER",
            "store": str(store),
            "out": str(out),
        }
        stored = SpectrumStore(store).open()
        assert set(history) == {"iteration", "penalty", "gradient_norm", "step", "sigma_max", "sigma_min"}
        for name, column in history.items():
            assert column == stored[name].values.tolist()

    def test_what_was_assumed_is_said_on_standard_error(self) -> None:
        result = run(DIGITS[0], "--layer", "stem.weight", "--maxiter", "0", "--json", "--input-size", "1x6x6")
        document = strict_json(result.stdout)
        assert (document["store"], document["out"]) == (None, None)
        assert result.stderr.startswith("Assumed, to be checked: ")


class TestStore:
    def test_a_resumed_run_equals_one_run(self, tmp_path: Path) -> None:
        options = (*STEM, "--step", "barzilai-borwein", "--circulant-every", "2")
        assert run(*options, "--maxiter", "6", "--store", tmp_path / "one.zarr").exit_code == 0
        assert run(*options, "--maxiter", "2", "--store", tmp_path / "two.zarr", "--resume").exit_code == 0
        result = run(*options, "--maxiter", "6", "--store", tmp_path / "two.zarr", "--resume")
        assert result.exit_code == 0
        assert f"Iterations in {tmp_path / 'two.zarr'}." in result.stdout
        one, two = (SpectrumStore(tmp_path / name).open() for name in ("one.zarr", "two.zarr"))
        assert two.sizes["iteration"] == 7
        for name in ("kernel", "penalty", "sigma_max", "sigma_min", "circulant_spectrum"):
            np.testing.assert_array_equal(one[name], two[name])

    def test_a_stored_run_is_not_written_over(self, tmp_path: Path) -> None:
        store = tmp_path / "run.zarr"
        run(*STEM, "--maxiter", "1", "--store", store)
        assert "`--store` already holds a run of 1 iterations" in refused(*STEM, "--store", store)
        assert "Pass --resume to go on" in refused(*STEM, "--store", store)
        other = (*STEM, "--store", store, "--resume", "--penalty", "frobenius")
        assert "`--store` holds a run of another penalty" in refused(*other)
        assert SpectrumStore(store).last_iteration == 1

    def test_a_folder_of_something_else_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "mine.txt").write_text("mine")
        assert "`--store` must be" in refused(*STEM, "--store", tmp_path)

    def test_no_circulant_spectrum_where_none_is_wanted(self, tmp_path: Path) -> None:
        run(*STEM, "--maxiter", "1", "--store", tmp_path / "run.zarr", "--circulant-every", "0")
        assert "circulant_spectrum" not in SpectrumStore(tmp_path / "run.zarr").open()


def model_file(folder: Path, layout: str, shape: tuple[int, ...], **entry: Any) -> tuple[Path, Path]:
    """A file of one layer and its layers document."""
    np.savez(folder / "model.npz", **{"a/b:0": RNG.standard_normal(shape).astype(np.float32)})
    common = {"weight": "a/b:0", "layout": layout, "stride": 1, "padding": 1, "dilation": 1, "groups": 1}
    layers = folder / "model.layers.json"
    layers.write_text(json.dumps({"layers": [common | {"input_size": [5, 5]} | entry]}), encoding="utf-8")
    return folder / "model.npz", layers


class TestOut:
    @pytest.mark.parametrize(
        ("layout", "shape", "entry"),
        [
            ("OIHW", (4, 2, 3, 2), {}),
            ("OIHW", (4, 1, 3, 2), {"groups": 2}),
            ("HWIO", (3, 2, 2, 4), {"stride": 2}),
            ("HWCM", (3, 2, 2, 4), {"groups": 2}),
            ("IOHW", (2, 4, 3, 2), {"op": "conv_transpose", "stride": 2}),
            ("IOHW", (4, 1, 3, 2), {"op": "conv_transpose", "groups": 2}),
            ("HWIO", (3, 2, 2, 4), {"op": "conv_transpose"}),
            ("OIW", (4, 2, 3), {"input_size": [7]}),
            ("IOW", (2, 4, 3), {"input_size": [7], "op": "conv_transpose"}),
            ("DHWIO", (2, 3, 2, 2, 3), {"input_size": [3, 4, 5]}),
            ("OIDHW", (3, 2, 2, 3, 2), {"input_size": [3, 4, 5]}),
        ],
    )
    def test_the_kernel_can_be_put_back(
        self, tmp_path: Path, layout: str, shape: tuple[int, ...], entry: dict[str, Any]
    ) -> None:
        path, layers = model_file(tmp_path, layout, shape, **entry)
        out, store = tmp_path / "new.npz", tmp_path / "run.zarr"
        options = ("--layer", "a/b:0", "--penalty", "frobenius", "--maxiter", "1", "--store", store)
        result = run(path, "--layers", layers, *options, "--out", out)
        assert result.exit_code == 0, result.stderr
        assert f"Kernel in {out}." in result.stdout
        before, after = (find_layer(read_model(p, layers=layers), "a/b:0") for p in (path, out))
        assert after.kernel_shape == before.kernel_shape == shape
        assert after.operator.geometry == before.operator.geometry
        last = SpectrumStore(store).open()["kernel"].values[-1]
        np.testing.assert_array_equal(after.operator.kernel, last)
        assert not np.array_equal(after.operator.kernel, before.operator.kernel)
        assert sorted(p.name for p in tmp_path.iterdir()) == [
            *("model.layers.json", "model.npz", "new.npz", "run.zarr"),
        ]

    def test_it_replaces_another_file_but_none_that_is_read(self, tmp_path: Path) -> None:
        path, layers = model_file(tmp_path, "OIHW", (2, 2, 3, 3))
        content = path.read_bytes()
        (tmp_path / "link.npz").symlink_to(path)
        options = (path, "--layers", layers, "--layer", "a/b:0", "--maxiter", "1")
        for name in ("model.npz", "link.npz", "../" + tmp_path.name + "/model.npz"):
            message = refused(*options, "--out", tmp_path / name)
            assert "`--out` must not be" in message
        assert path.read_bytes() == content
        (tmp_path / "old.npz").write_bytes(b"old")
        assert run(*options, "--out", tmp_path / "old.npz").exit_code == 0
        assert set(np.load(tmp_path / "old.npz")) == {"a/b:0"}

    def test_what_was_there_stays_where_writing_fails(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: Any, **__: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(np.lib.format, "write_array", full)
        out = tmp_path / "k.npz"
        out.write_bytes(b"old")
        result = run(*STEM, "--maxiter", "0", "--out", out)
        assert result.exit_code == 2
        assert result.stderr == f"spectral-conv: {out} could not be written: No space left on device.\n"
        assert "5.354430" in result.stdout  # the table is not lost
        assert [p.name for p in tmp_path.iterdir()] == ["k.npz"]
        assert out.read_bytes() == b"old"


@pytest.mark.parametrize(("name", "start"), [("a.png", b"\x89PNG"), ("a.pdf", b"%PDF"), ("a.SVG", b"<?xml")])
def test_figure(tmp_path: Path, name: str, start: bytes) -> None:
    result = run(*STEM, "--maxiter", "2", "--figure", tmp_path / name)
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"Figure in {tmp_path / name}." in result.stdout.replace("\n", "")
    content = (tmp_path / name).read_bytes()
    assert content.startswith(start)
    assert len(content) > 5000
    assert [p.name for p in tmp_path.iterdir()] == [name]


def refused(*arguments: str | Path) -> str:
    """One line on standard error, exit code 2, nothing on standard output."""
    result = run(*arguments)
    assert result.exit_code == 2, result.stdout
    assert result.stdout == ""
    assert result.stderr.startswith("spectral-conv: ")
    assert result.stderr.count("\n") == 1
    return str(result.stderr)


class TestErrors:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("--penalty", "orthogonality"), "`--penalty` must be one of 'frobenius', "),
            (("--penalty", "orthogonality"), "got 'orthogonality'. Did you mean 'orthogonality-gap'?"),
            (
                ("--penalty", "frobenius", "--alpha", "1"),
                "`--alpha` is for `--penalty` orthogonality-gap or two-norm",
            ),
            (("--alpha", "nan"), "`--alpha` must be a finite number"),
            (("--step", "exakt"), "`--step` must be one of 'exact', 'armijo', 'barzilai-borwein', a number"),
            (("--step", "exakt"), "got 'exakt'. Did you mean 'exact'?"),
            (("--step", "-1"), "got '-1'. `t` must be a finite number above 0"),
            (("--step", "2:1e-5"), "must say what to do from iteration 1 on"),
            (("--step", "1:1e-5,10"), "got '1:1e-5,10'."),
            (("--step", "exact", "--penalty", "spectral-norm"), "SpectralNorm is none. Use --step armijo"),
            (("--target", "1"), "`--target` must be two numbers, LOW,HIGH with LOW at most HIGH; got '1'."),
            (("--target", "2,1"), "got '2,1'."),
            (("--target", "nan,1"), "got 'nan,1'."),
            (("--maxiter", "-1"), "`--maxiter` must be an integer of at least 0; got -1."),
            (("--rtol", "-1"), "`--rtol` must be a finite number, 0 or more"),
            (("--circulant-every", "-1"), "`--circulant-every` must be an integer of at least 1"),
            (("--resume",), "`--resume` needs the `--store`"),
            (("--out", "kernel.npy"), "`--out` must end in .npz; got 'kernel.npy'."),
            (("--out", "no/such/folder/k.npz"), "`--out` must be a file in a folder that exists"),
            (("--figure", "a.gif"), "`--figure` must end in .png or .pdf or .svg; got 'a.gif'."),
            (("--store", DIGITS[0]), "`--store` must be a folder"),
        ],
    )
    def test_usage(self, options: tuple[str, ...], message: str) -> None:
        assert message in refused(*STEM, *options)

    def test_a_missing_layer_is_suggested(self) -> None:
        assert "Did you mean 'stem.weight'" in refused(*DIGITS, "--layer", "stm.weight")

    def test_layer_is_required(self) -> None:
        result = run(*DIGITS)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "Missing option '--layer'" in " ".join(result.stderr.split())

    def test_an_unreadable_file(self, tmp_path: Path) -> None:
        assert "absent.npz" in refused(tmp_path / "absent.npz", "--layer", "a")

    def test_divergence_gives_1_and_a_remedy_in_options(self) -> None:
        result = run(*STEM, "--step", "1", "--maxiter", "9")
        assert (result.exit_code, result.stderr) == (1, "")
        words = " ".join(result.stdout.split())
        assert "The penalty grew, or left the range of numbers." in words
        assert "Take a smaller one, such as --step 0.1, or --step armijo." in words
        document = strict_json(run(*STEM, "--step", "1e200", "--maxiter", "9", "--json").stdout)
        assert (document["stop_reason"], document["iterations"]) == ("DIVERGED", 0)

    @pytest.mark.parametrize(("maxiter", "code"), [("0", 0), ("5", 1)])
    def test_no_decrease_at_the_start_gives_1(self, maxiter: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("spectral_conv.descent.steps.ExactLineSearch.size", lambda rule, at: 0.0)
        result = run(*STEM, "--maxiter", maxiter)
        assert result.exit_code == code
        assert ("No step size decreased the penalty." in result.stdout) == bool(code)

    def test_an_interrupted_descent_shows_what_it_reached(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(rule: Any, at: Any) -> float:
            if at.iteration == 3:
                raise KeyboardInterrupt
            return 1e-6

        monkeypatch.setattr("spectral_conv.descent.steps.Fixed.size", interrupted)
        result = run(*STEM, "--step", "1e-6", "--json")
        document = strict_json(result.stdout)
        assert (result.exit_code, document["stop_reason"]) == (1, DescentStop.INTERRUPTED.name)
        assert document["iterations"] == 2

    @pytest.mark.parametrize("error", [MemoryLimitError("too much"), None])
    def test_values_that_cannot_be_had_give_1(self, error: Exception | None, monkeypatch: pytest.MonkeyPatch) -> None:
        bare = np.zeros((1, 1, 1, 1))
        result = SingularTriplets(
            **{name: np.ones(1) for name in ("values", "residuals", "lower", "upper")},
            left=bare,
            right=bare,
            applications=9,
            method="lanczos",
            basis="residual",
            stop_reason=StopReason.MAXITER,
        )

        def failing(*_: Any, **__: Any) -> None:
            raise error or NotConvergedError(result)

        monkeypatch.setattr(spectral_conv.descent, "descend", failing)
        shown = run(*STEM)
        assert (shown.exit_code, shown.stdout) == (1, "")
        assert shown.stderr.count("\n") == 1
        assert "on_failure" not in shown.stderr

    def test_a_mistake_of_ours_is_not_hidden(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def failing(*_: Any, **__: Any) -> None:
            raise RecursionError("a bug")

        monkeypatch.setattr(spectral_conv.descent, "descend", failing)
        assert isinstance(run(*STEM).exception, RecursionError)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, spectral_conv.cli as c\n"
        "try:\n    c.app(['descend', '--help'])\nexcept SystemExit: pass\n"
        "heavy = {'numpy', 'scipy', 'numba', 'xarray', 'zarr', 'rich', 'matplotlib'} & sys.modules.keys()\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
