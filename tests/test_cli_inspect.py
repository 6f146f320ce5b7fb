"""`spectral-conv inspect` for pipelines: workers, results on disk, limits of time, conditions, many files."""

from __future__ import annotations

import csv
import io
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from safetensors.numpy import save_file
from typer.testing import CliRunner

from spectral_conv import inspection
from spectral_conv.cli import app
from spectral_conv.cli import models as command

DATA = Path(str(files("spectral_conv") / "data"))
DIGITS = (str(DATA / "digits.safetensors"), "--layers", str(DATA / "digits.layers.json"))
SIZE = ("--input-size", "2x4x4")


def run(*arguments: str | Path) -> Any:
    return CliRunner(env={"COLUMNS": "80"}).invoke(app, ["inspect", *(str(argument) for argument in arguments)])


def numbers(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [{**layer, "seconds": 0.0} for layer in document["layers"]]


@pytest.fixture
def zoo(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(8)
    paths = [tmp_path / f"{name}.safetensors" for name in "abc"]
    for factor, path in enumerate(paths, 1):
        save_file({"conv.weight": factor * rng.standard_normal((2, 2, 1, 1))}, path)
    return paths


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[str | Path, ...]:
    """The digits network with a store that knows it."""
    known = (*DIGITS, "--store", tmp_path_factory.mktemp("digits") / "results.zarr")
    assert run(*known).exit_code == 0
    return known


def test_jobs_and_store_change_nothing_but_the_place_of_work(tmp_path: Path) -> None:
    digits = (*DIGITS, "--select", "d*")
    plain = json.loads(run(*digits, "--json").stdout)
    store = tmp_path / "results.zarr"
    result = run(*digits, "--json", "--jobs", "1", "--store", store)
    assert (result.exit_code, result.stderr) == (0, "")
    there = json.loads(result.stdout)
    for one, other in zip(numbers(plain), numbers(there), strict=True):
        assert one.keys() == other.keys()
        assert other["sigma_max"]["value"] == pytest.approx(one["sigma_max"]["value"], rel=1e-12)
    (table,) = xr.open_datatree(store, engine="zarr").children.values()
    values = [layer["sigma_max"]["value"] for layer in there["layers"]]
    assert list(table["sigma_max"].values) == values
    again = run(*digits, "--json", "--store", store)
    assert json.loads(again.stdout) == there  # the seconds, too: nothing was computed


def test_options_reach_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def record(paths: list[Path], **options: Any) -> Any:
        asked.update(options, paths=paths)
        return iter(())

    monkeypatch.setattr(inspection, "inspect_files", record)
    options = "--jobs 3 --time-limit 2.5 --store s.zarr --memory-limit 0.5 --select c*"
    result = run("a.pt", "b.pt", *options.split())
    assert result.exit_code == 0
    wanted = {"jobs": 3, "time_limit": 2.5, "store": Path("s.zarr"), "memory_limit": 500_000_000, "select": "c*"}
    assert {name: asked[name] for name in wanted} == wanted
    assert asked["paths"] == [Path("a.pt"), Path("b.pt")]
    assert asked["on_failure"] == "raise"
    assert asked["executor"] is None


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("terminal", [False, True])
def test_a_bar_leaves_standard_output_what_is_its_own(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    out, err = Terminal() if terminal else io.StringIO(), Terminal()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.stderr", err)
    monkeypatch.setenv("TERM", "xterm")
    with pytest.raises(SystemExit) as ended:
        app(["inspect", *DIGITS, "--select", "stem"])
    assert ended.value.code == 0
    assert "1/1" in err.getvalue()
    # On a terminal both are one, and what is printed goes above the bar.
    assert "5.354430" in (err if terminal else out).getvalue()
    assert "5.354430" not in (out if terminal else err).getvalue()


class TestFailIf:
    @pytest.mark.parametrize(
        ("condition", "names"),
        [
            ("sigma_max > 10", ["square.weight", "down.weight", "dilated.weight"]),
            ("sigma_max > 10 and stride == '2x2'", ["down.weight"]),
            ("groups > 1 or layer == 'stem.weight'", ["stem.weight", "depthwise.weight"]),
            ("circulant_sigma_max > 1.05 * sigma_max_upper", ["dilated.weight", "depthwise.weight"]),
            ("sigma_max_method == 'bracket'", []),
            ("layer.str.startswith('d')", ["dilated.weight", "down.weight", "depthwise.weight"]),
        ],
    )
    def test_names_the_layers(self, digits: tuple[str | Path, ...], condition: str, names: list[str]) -> None:
        result = run(*digits, "--fail-if", condition)
        assert "5.354430" in result.stdout
        frame = json.loads(run(*digits, "--json").stdout)["layers"]
        order = [layer["name"] for layer in frame if layer["name"] in names]
        assert result.exit_code == (1 if order else 0)
        count = "1 layer" if len(order) == 1 else f"{len(order)} layers"
        listed = f"`--fail-if` holds for {count} of digits.safetensors: {', '.join(order)}.\n"
        assert result.stderr == (listed if order else "")

    @pytest.mark.filterwarnings("ignore:overflow encountered")
    def test_one_without_an_answer_for_a_file_is_told_and_the_others_are_shown(self, zoo: list[Path]) -> None:
        save_file({"conv.weight": np.full((2, 2, 3, 3), 1e308)}, zoo[0])  # its circulant values are missing
        condition = "circulant_sigma_max.astype('int') > 100"
        result = run(*zoo, *SIZE, "--csv", "--fail-if", condition)
        assert result.exit_code == 1
        assert [row[0] for row in csv.reader(io.StringIO(result.stdout))][1:] == [path.name for path in zoo]
        assert result.stderr.startswith(f'`--fail-if` of a.safetensors: "{condition}" has no answer: ')

    @pytest.mark.parametrize(
        ("condition", "message"),
        [
            ("sigma > 1", "name 'sigma' is not defined"),
            ("sigma_max >", "invalid syntax"),
            ("sigma_max > 'a'", "'--fail-if'"),
            ("sigma_max", "it is not true or false for each layer"),
            ("1 > 2", "it is not true or false for each layer"),
            ("sigma_max.max() > 1", "it is not true or false for each layer"),
            ("", "--fail-if"),
            ("x = sigma_max > 1", "it is not true or false for each layer"),
            ("@nowhere", "--fail-if"),
            ("@frame.sigma_max > 1", "@ has no meaning here"),
        ],
    )
    def test_a_wrong_expression_is_refused_before_the_work(self, condition: str, message: str) -> None:
        result = run("nowhere.safetensors", "--fail-if", condition)
        assert (result.exit_code, result.stdout) == (2, "")
        assert message.strip("'") in result.stderr
        assert "The columns are sigma_max, sigma_max_lower" in result.stderr

    def test_with_json_and_over_several_files(self, zoo: list[Path]) -> None:
        result = run(*zoo, *SIZE, "--json", "--fail-if", "sigma_max > 0")
        assert result.exit_code == 1
        assert len(json.loads(result.stdout)["models"]) == 3
        assert result.stderr.count("holds for 1 layer of") == 3


class TestFiles:
    def test_csv_has_one_header(self, zoo: list[Path]) -> None:
        rows = list(csv.reader(io.StringIO(run(*zoo, *SIZE, "--csv").stdout)))
        assert [row[0] for row in rows] == ["model", "a.safetensors", "b.safetensors", "c.safetensors"]

    def test_of_few_a_bad_one_stops_all_of_many_only_itself(
        self, zoo: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        zoo[0].write_bytes(b"no model")
        few = run(*zoo, *SIZE)
        assert (few.exit_code, few.stdout) == (2, "")
        monkeypatch.setattr(command, "FEW", 2)
        many = run(*zoo, *SIZE, "--csv")
        assert many.exit_code == 1
        assert [row[0] for row in csv.reader(io.StringIO(many.stdout))] == ["model", "b.safetensors", "c.safetensors"]
        assert many.stderr.startswith("spectral-conv: ")
        assert "a.safetensors" in many.stderr
        document = json.loads(run(*zoo, *SIZE, "--json").stdout)
        assert [len(model["layers"]) for model in document["models"]] == [0, 1, 1]
        assert "a.safetensors" in document["models"][0]["failure"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--jobs", "2", "--dask", "tcp://here:1"), "`--jobs` and `--dask` must not be given together"),
        (("--jobs", "0"), "greater than or equal to 1"),
        (("--time-limit", "0"), "`--time-limit` must be a positive number; got 0.0"),
        (("--time-limit", "nan"), "`--time-limit` must be a positive number; got nan"),
        (("--store", DATA), "`--store` must be a store of inspections, an empty folder or new"),
        (("--store", "nowhere/results.zarr"), "`--store` must be a folder that can be written"),
    ],
)
def test_usage_gives_2_before_the_work(options: tuple[str, ...], message: str) -> None:
    result = run(*DIGITS, *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in " ".join(result.stderr.split())


@pytest.mark.filterwarnings("default")  # those of dask about itself
class TestDask:
    def test_a_cluster_by_its_address(self) -> None:
        distributed = pytest.importorskip("distributed", reason="the extra `distributed` is not installed")
        cluster = distributed.LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            processes=False,
            dashboard_address=None,
            silence_logs=50,
            protocol="tcp",
        )
        with cluster:
            result = run(*DIGITS, "--dask", cluster.scheduler_address)
            assert result.exit_code == 0
            assert "5.354430" in result.stdout
            limited = run(*DIGITS, "--dask", cluster.scheduler_address, "--time-limit", "5")
        assert limited.exit_code == 2
        assert "`--time-limit` must not be given with `--dask`" in limited.stderr

    def test_one_that_does_not_answer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("distributed", reason="the extra `distributed` is not installed")
        monkeypatch.setattr("spectral_conv.cli.cluster.PATIENCE", 0.2)
        result = run(*DIGITS, "--dask", "tcp://127.0.0.1:9")
        assert (result.exit_code, result.stdout) == (2, "")
        assert "127.0.0.1:9" in result.stderr

    def test_without_the_package_it_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(__import__("sys").modules, "distributed", None)
        result = run(*DIGITS, "--dask", "tcp://127.0.0.1:9")
        assert result.exit_code == 2
        assert "pip install 'spectral-conv[distributed]'" in result.stderr
