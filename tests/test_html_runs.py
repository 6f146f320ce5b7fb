"""The page of descents: what it says, and how it comes from the command line."""

from __future__ import annotations

import html
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from spectral_conv import SpectrumStore, descend, regularizers, steps
from spectral_conv.cli import app
from spectral_conv.operator import ConvOperator
from spectral_conv.report.html_runs import store_page
from spectral_conv.report.plots_penalty import plot_penalty
from tests.test_html import HOSTILE, Outline

DATA = Path(str(files("spectral_conv") / "data"))
STEM = (str(DATA / "digits.safetensors"), "--layers", str(DATA / "digits.layers.json"), "--layer", "stem.weight")


@pytest.fixture(scope="module")
def histories() -> dict[str, Any]:
    conv = ConvOperator(np.random.default_rng(1).standard_normal((3, 3, 2, 3)), (6, 6))
    rules = {HOSTILE[0]: steps.Fixed(1e-5), "exact \x07$x$": steps.ExactLineSearch()}
    penalty = regularizers.OrthogonalityGap()
    return {name: descend(conv, penalty, rule, maxiter=4, circulant_every=2).history for name, rule in rules.items()}


class TestStorePage:
    def test_it_is_sound_html_with_the_recorded_numbers(self, histories: dict[str, Any]) -> None:
        text = store_page(histories, title=HOSTILE[1])
        outline = Outline(text)
        assert outline.numbers[""] == [
            float(history[name].values[place])
            for history in histories.values()
            for name in ("penalty", "sigma_max", "sigma_min")
            for place in (0, -1)
        ]
        assert outline.all("script") == outline.all("img") == []
        assert "exact \\x07$x$" in html.unescape(text)
        layer = "zero-padded operator, kernel 3x3, channels 2 to 3, image 6x6"
        assert text.count(f'<dd class="name">{layer}</dd>') == 2
        assert text.count("<figure>") == text.count("<figcaption>") == 2 + 2 * 2
        assert "largest singular value" in text
        ids = [a["id"] for _, a, _ in outline.elements if "id" in a]
        assert len(ids) == len(set(ids))

    def test_a_run_that_tracked_nothing_shows_its_penalty(self) -> None:
        conv = ConvOperator(np.ones((3, 3, 1, 1)), (4, 4))
        run = descend(conv, regularizers.Frobenius(), steps.Fixed(1e-3), maxiter=2, track=(), circulant_every=None)
        text = store_page({"": run.history})
        Outline(text)
        assert text.count("<figure>") == 1
        assert "not tracked" not in text
        ax = plot_penalty({"": run.history})
        np.testing.assert_array_equal(ax.lines[0].get_ydata(), run.history["penalty"].values)

    def test_no_run_is_refused(self) -> None:
        for draw in (store_page, plot_penalty):
            with pytest.raises(ValueError, match="`histories` must hold at least one run"):
                draw({})

    def test_a_value_that_is_no_number_is_none_in_the_page(self, histories: dict[str, Any]) -> None:
        history = next(iter(histories.values())).copy(deep=True)
        history["sigma_max"][0] = np.inf
        history["penalty"][-1] = np.nan
        text = store_page({"odd": history.drop_vars("circulant_computed")})
        numbers = Outline(text).numbers[""]
        assert np.all(np.isfinite(numbers))
        assert len(numbers) == 4
        assert text.count(">inf</td>") == text.count(">nan</td>") == 1

    def test_runs_that_tracked_different_ends_share_the_table(self, histories: dict[str, Any]) -> None:
        first, second = (history.drop_vars("circulant_computed") for history in histories.values())
        text = store_page({"both": first, "largest": second.drop_vars([v for v in second if "sigma_min" in str(v)])})
        assert text.count("not tracked") == 2
        assert len(Outline(text).numbers[""]) == 10


def run(*arguments: str | Path) -> Any:
    return CliRunner(env={"COLUMNS": "100"}).invoke(app, list(map(str, arguments)))


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stores")
    for name, step in (("fixed", "1e-5"), ("exact", "exact")):
        result = run(
            "descend",
            *STEM,
            "--maxiter",
            "2",
            "--step",
            step,
            "--circulant-every",
            "0",
            "--store",
            folder / f"{name}.zarr",
        )
        assert result.exit_code == 0
    return folder


class TestCommandLine:
    def test_descend_writes_the_page_of_its_run(self, tmp_path: Path) -> None:
        path, store = tmp_path / "run.html", tmp_path / "run.zarr"
        result = run("descend", *STEM, "--maxiter", "2", "--circulant-every", "0", "--html", path, "--store", store)
        assert result.exit_code == 0
        assert f"Page in {path}." in result.stdout.replace("\n", "")
        text = path.read_text(encoding="utf-8")
        assert text == store_page(
            {"stem.weight": SpectrumStore(store).open()}, title="digits.safetensors: stem.weight"
        )
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["run.html", "run.zarr"]

    def test_runs_side_by_side(self, stores: Path, tmp_path: Path) -> None:
        path = tmp_path / "runs.html"
        result = run("runs", stores / "fixed.zarr", stores / "exact.zarr", "--html", path, "--title", "<two>")
        assert result.exit_code == 0
        assert result.stdout.replace("\n", "") == f"2 runs in {path}."
        histories = {name: SpectrumStore(stores / f"{name}.zarr").open() for name in ("fixed", "exact")}
        assert path.read_text(encoding="utf-8") == store_page(histories, title="<two>")

    def test_stores_of_one_name_are_told_apart_by_their_folder(self, stores: Path, tmp_path: Path) -> None:
        copy = tmp_path / "fixed.zarr"
        copy.symlink_to(stores / "fixed.zarr")
        result = run("runs", copy, stores / "fixed.zarr", "--html", tmp_path / "runs.html")
        assert result.exit_code == 0
        text = (tmp_path / "runs.html").read_text(encoding="utf-8")
        for folder in (tmp_path, stores):
            assert f"{folder}/fixed</a>" in text

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("fixed.zarr", "--html", "page.pdf"), "`--html` must end in .html or .htm; got 'page.pdf'."),
            (("fixed.zarr", "--html", "nowhere/page.html"), "`--html` must be a file in a folder that exists"),
            (("none.zarr", "--html", "page.html"), "`STORE` must be a store with a record; none.zarr has none. Run"),
            (("fixed.zarr", "fixed.zarr", "--html", "page.html"), "name each store once; got fixed.zarr twice."),
            (("fixed.zarr",), "Missing option '--html'"),
        ],
    )
    def test_refused(
        self, stores: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
    ) -> None:
        monkeypatch.chdir(stores)
        before = sorted(entry.name for entry in stores.iterdir())
        result = run("runs", *arguments)
        assert result.exit_code == 2
        assert message in result.stderr.replace("\n", " ")
        assert sorted(entry.name for entry in stores.iterdir()) == before

    def test_a_store_of_something_else(self, tmp_path: Path) -> None:
        import xarray as xr

        SpectrumStore(tmp_path / "other.zarr").append(xr.Dataset({"x": ("iteration", [1.0])}, {"iteration": [0]}), {})
        result = run("runs", tmp_path / "other.zarr", "--html", tmp_path / "page.html")
        assert result.exit_code == 2
        assert "holds no penalty" in result.stderr.replace("\n", " ")

    @pytest.mark.parametrize(
        ("path", "message"),
        [
            ("page.txt", "`--html` must end in .html or .htm; got 'page.txt'."),
            ("nowhere/page.html", "`--html` must be a file in a folder that exists"),
        ],
    )
    def test_descend_refuses_before_the_work(self, path: str, message: str, tmp_path: Path) -> None:
        result = run("descend", *STEM, "--html", path, "--store", tmp_path / "run.zarr")
        assert result.exit_code == 2
        assert message in result.stderr.replace("\n", " ")
        assert list(tmp_path.iterdir()) == []
