"""The claims of papers: what a check says, how cases run, what the command prints and writes."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import spectral_conv.cli.validate as command_line
from spectral_conv import ConvOperator
from spectral_conv.cli import app
from spectral_conv.results import Enclosure
from validation.cases import (
    closed_form,
    edge_modes,
    fft_smallest_square,
    guo_two_norm,
    layer_structure,
    lfa_symbol,
    li_certified,
    li_histograms,
    li_wasserstein,
    sedghi_circular,
)
from validation.checks import command
from validation.checks.cached import ordered
from validation.checks.check import Check, at_least, at_most, between, near, none_of, skipped
from validation.checks.document import document
from validation.checks.papers import GUO_FROBENIUS, LI
from validation.checks.picture import Picture
from validation.checks.run import Case, Outcome, case_of, find_cases, run_case
from validation.checks.table import summary

SOURCE = LI.at("Figure 2")
# Those that take no second; the others run with `make validate`.
FAST = (
    closed_form,
    edge_modes,
    fft_smallest_square,
    layer_structure,
    lfa_symbol,
    li_certified,
    li_histograms,
    li_wasserstein,
)


def case(run: Callable[..., list[Check]], name: str = "a_case") -> Case:
    return Case(name=name, title=f"Title of {name}", about="What it is about.", run=run)


class TestCheck:
    @pytest.mark.parametrize(
        ("check", "verdict", "wanted"),
        [
            (at_most("c", SOURCE, 1e-13, 1e-12), "pass", "≤ 1e-12"),
            (at_most("c", SOURCE, 2e-12, 1e-12), "fail", "≤ 1e-12"),
            (at_least("c", SOURCE, 0.5, 0.5), "pass", "≥ 0.5"),
            (at_least("c", SOURCE, 0.49, 0.5), "fail", "≥ 0.5"),
            (between("c", SOURCE, 1.2, 1.0, 1.15), "fail", "1 to 1.15"),
            (near("c", SOURCE, 1.0478, 1.048, 6e-4), "pass", "1.048 ± 0.0006"),
            (near("c", SOURCE, 1.0488, 1.048, 6e-4), "fail", "1.048 ± 0.0006"),
            (none_of("c", SOURCE, 0), "pass", "0"),
            (none_of("c", SOURCE, 1), "fail", "0"),
            (at_most("c", SOURCE, math.nan, 1.0), "fail", "≤ 1"),
            (at_most("c", SOURCE, math.inf, 1.0), "fail", "≤ 1"),
            (skipped("c", SOURCE, "no file"), "skipped", "-"),
        ],
    )
    def test_verdict(self, check: Check, verdict: str, wanted: str) -> None:
        assert (check.verdict, check.wanted) == (verdict, wanted)

    @given(st.floats(), st.floats(-1e6, 1e6), st.floats(0.0, 1e6))
    def test_passes_only_inside(self, measured: float, low: float, width: float) -> None:
        check = between("c", SOURCE, measured, low, low + width)
        assert (check.verdict == "pass") == (low <= measured <= low + width)

    def test_nothing_measured_needs_a_reason(self) -> None:
        with pytest.raises(ValueError, match=r"`reason` must be given where and only where nothing was measured"):
            Check(claim="c", source=SOURCE, measured=None)
        with pytest.raises(ValueError, match="`reason` must be given"):
            Check(claim="c", source=SOURCE, measured=1.0, reason="why")

    def test_the_interval_must_not_be_empty(self) -> None:
        with pytest.raises(ValueError, match=r"`low` must not be above `high`; got 2\.0 and 1\.0 for 'c'"):
            between("c", SOURCE, 1.0, 2.0, 1.0)

    @pytest.mark.parametrize(
        ("first", "second", "verdict"),
        [([3.0, 3.1], [1.0, 1.1], "pass"), ([1.0, 1.1], [3.0, 3.1], "fail"), ([1.0, 2.0], [1.1, 1.3], "skipped")],
    )
    def test_order_only_beyond_two_deviations(self, first: list[float], second: list[float], verdict: str) -> None:
        check = ordered("a above b", SOURCE, first, second)
        assert check.verdict == verdict
        assert ("undecided" in check.reason) == (verdict == "skipped")

    def test_sources_lead_somewhere(self) -> None:
        assert SOURCE.url == "https://arxiv.org/abs/1911.00937"
        assert (GUO_FROBENIUS.at("x").short, GUO_FROBENIUS.at("x").place) == ("Guo 2019", "x")


class TestRun:
    def test_every_module_is_a_case(self) -> None:
        cases = find_cases()
        names = {path.stem for path in Path(closed_form.__file__).parent.glob("*.py")} - {"__init__"}
        assert {found.name for found in cases} == names
        assert len(names) >= 18
        assert all(found.title and found.about and not found.title.endswith(".") for found in cases)

    def test_a_case_that_breaks_off_fails(self, capsys: pytest.CaptureFixture[str]) -> None:
        outcome = run_case(case(lambda: 1 / 0))
        assert (outcome.checks, outcome.count("fail")) == ((), 1)
        assert outcome.error == "ZeroDivisionError: division by zero"
        assert "Traceback" in capsys.readouterr().err

    def test_full_reaches_those_that_know_it(self) -> None:
        def run(full: bool = False) -> list[Check]:
            return [none_of("c", SOURCE, int(full))]

        assert [run_case(case(run), full=full).count("pass") for full in (False, True)] == [1, 0]
        assert run_case(case(list), full=True).error == ""

    def test_pictures_know_their_checks(self) -> None:
        picture = Picture(title="t", text="x", draw=lambda figure: None)
        checks = [none_of(str(i), SOURCE, 0, picture=picture if i != 1 else None) for i in range(3)]
        ((found, shown),) = run_case(case(lambda: checks)).pictures
        assert found is picture
        assert [check.claim for check in shown] == ["0", "2"]

    @pytest.mark.parametrize("module", [*FAST, sedghi_circular], ids=lambda module: module.__name__.split(".")[-1])
    def test_fast_cases_hold(self, module: ModuleType) -> None:
        outcome = run_case(case_of(module))
        assert outcome.error == ""
        assert [check.claim for check in outcome.checks if check.verdict == "fail"] == []
        assert outcome.count("pass") > 0

    def test_a_case_can_fail(self, monkeypatch: pytest.MonkeyPatch) -> None:
        wrong = closed_form.cosines
        monkeypatch.setattr(closed_form, "cosines", lambda *numbers: wrong(*numbers) * (1.0 + 1e-9))
        outcome = run_case(case_of(closed_form))
        failed = [check.claim for check in outcome.checks if check.verdict == "fail"]
        assert any("Second difference" in claim for claim in failed)
        assert not any("Identity" in claim for claim in failed)

    def test_structure_and_certificates_can_fail(self, monkeypatch: pytest.MonkeyPatch) -> None:
        right, enclosed = layer_structure.singular_values, closed_form.spectral_norm

        def first_group_for_all(conv: ConvOperator) -> np.ndarray:
            groups = conv.geometry.groups
            return np.concatenate([right(conv.split_groups()[0]) for _ in range(groups)])

        def too_low(conv: ConvOperator, **options: Any) -> Enclosure:
            found = enclosed(conv, **options)
            return dataclasses.replace(found, upper=found.lower * (1.0 - 1e-7), lower=found.lower * (1.0 - 2e-7))

        monkeypatch.setattr(layer_structure, "singular_values", first_group_for_all)
        monkeypatch.setattr(closed_form, "spectral_norm", too_low)
        outcomes = [run_case(case_of(module)) for module in (layer_structure, closed_form)]
        failed = [check.claim for one in outcomes for check in one.checks if check.verdict == "fail"]
        assert [claim.split(":")[0] for claim in failed[:2]] == ["3 groups", "4 groups, stride 2"]
        assert any("certified intervals" in claim for claim in failed)

    @pytest.mark.parametrize(("ours", "word"), [(3, "reproduced"), (90, "not reproduced")])
    def test_fixed_steps_that_no_paper_names_decide_nothing(
        self, ours: int, word: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = {
            "Frobenius, exact line search": np.linspace(1.0, 0.0, 3),
            "Frobenius, fixed steps 1": np.linspace(1.0, 0.0, ours + 1),
            "2-norm, fixed step 1": np.linspace(1.0, 0.0, 21),
        }
        monkeypatch.setattr(guo_two_norm, "courses", lambda shape: found)
        checks = run_case(case_of(guo_two_norm)).checks
        assert [check.verdict for check in checks] == ["pass"] * 3 + ["skipped"] * 3
        assert all(check.reason.startswith(f"{word} with the steps tried here") for check in checks[3:])


def outcome(*checks: Check) -> Outcome:
    return Outcome(case=case(lambda: list(checks)), checks=checks, seconds=0.1)


class TestDocument:
    def test_no_number_that_json_lacks(self) -> None:
        checks = (
            at_most("nan", SOURCE, math.nan, 1.0),
            at_least("inf", SOURCE, math.inf, 1.0),
            skipped("s", SOURCE, "r"),
        )
        found = json.loads(json.dumps(document([outcome(*checks)], full=False), allow_nan=False))
        assert found["counts"] == {"pass": 1, "fail": 1, "skipped": 1}
        first, second, third = found["cases"][0]["checks"]
        assert (first["measured"], first["low"], first["high"], first["verdict"]) == (None, None, 1.0, "fail")
        assert (second["measured"], second["verdict"]) == (None, "pass")
        assert (third["reason"], third["source"]["link"]) == ("r", "arXiv:1911.00937")
        assert found["machine"]["Python"]
        assert found["set"] == "quick"

    def test_summary(self) -> None:
        good, bad = none_of("c", SOURCE, 0), none_of("c", SOURCE, 1)
        assert summary([outcome(good, skipped("s", SOURCE, "r"))]) == "No check failed: 1 of 2 passed, 1 skipped."
        assert summary([outcome(good), outcome(bad)]) == "1 of 2 checks FAILED: 1 of 2 passed."


@pytest.fixture
def two_cases(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Case]]:
    """Instead of the real cases: one that holds, with a figure and long texts, and one that does not."""
    picture = Picture(title="A line", text="What is seen.", draw=lambda figure: figure.add_subplot().plot([1, 2]))
    claim = "A claim of so many words that it must go on in another line of the table " * 2
    good = [
        at_most(claim, SOURCE, 0.5, 1.0, note="a note", picture=picture),
        skipped("Another", SOURCE, "there is no file"),
    ]
    found = [case(lambda: good, "good"), case(lambda: [none_of("Exceptions <b>", SOURCE, 3)], "bad")]
    monkeypatch.setattr(command, "find_cases", lambda: found)
    return found


class TestCommand:
    def test_all_hold(self, two_cases: list[Case], tmp_path: Path) -> None:
        result = CliRunner().invoke(app, ["validate", "good", "--output", str(tmp_path / "new" / "folder")])
        assert result.exit_code == 0
        assert "No check failed: 1 of 2 passed, 1 skipped." in result.stdout
        assert "[1] a note" in result.stdout
        assert max(map(len, result.stdout.partition("Report with")[0].splitlines())) <= 80
        assert "[1/1] Title of good ..." in result.stderr
        assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == ["index.html", "report.json"]

    def test_one_fails(self, two_cases: list[Case], tmp_path: Path) -> None:
        result = CliRunner().invoke(app, ["validate", "--output", str(tmp_path)])
        assert result.exit_code == 1
        assert "FAIL  Exceptions <b>" in result.stdout
        assert "1 of 3 checks FAILED" in result.stdout
        found = json.loads((tmp_path / "report.json").read_text())
        assert [c["verdict"] for one in found["cases"] for c in one["checks"]] == ["pass", "skipped", "fail"]
        page = (tmp_path / "index.html").read_text()
        assert "✗ FAIL" in page
        assert "Exceptions &lt;b&gt;" in page
        addresses = set(re.findall(r"https?://[^\"' ]+", page))
        namespaces = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
        assert addresses <= {SOURCE.url, *namespaces}

    def test_json_alone_on_standard_output(self, two_cases: list[Case], tmp_path: Path) -> None:
        result = CliRunner().invoke(app, ["validate", "bad", "--json", "--full", "--output", str(tmp_path)])
        assert result.exit_code == 1
        assert json.loads(result.stdout) == json.loads((tmp_path / "report.json").read_text())
        assert json.loads(result.stdout)["set"] == "full"
        assert "index.html" in result.stderr

    def test_some_cases_leave_the_report_of_all_alone(
        self, two_cases: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(command, "REPORT", tmp_path / "report")
        assert CliRunner().invoke(app, ["validate", "good"]).exit_code == 0
        assert not (tmp_path / "report").exists()
        assert CliRunner().invoke(app, ["validate"]).exit_code == 1
        assert (tmp_path / "report" / "index.html").is_file()

    def test_unknown_case(self, two_cases: list[Case]) -> None:
        result = CliRunner().invoke(app, ["validate", "goood"])
        assert result.exit_code == 2
        assert "`CASE` must be the name of a case; got 'goood'. Known are good, bad." in result.stderr
        assert result.stdout == ""

    def test_a_folder_that_is_none(self, two_cases: list[Case], tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        result = CliRunner().invoke(app, ["validate", "--output", str(tmp_path / "file")])
        assert result.exit_code == 2
        assert "`--output` must be a folder" in result.stderr

    def test_a_report_that_cannot_be_written(self, two_cases: list[Case], tmp_path: Path) -> None:
        (tmp_path / "index.html").mkdir()
        result = CliRunner().invoke(app, ["validate", "good", "--output", str(tmp_path)])
        assert result.exit_code == 2
        assert "index.html could not be written" in result.stderr
        assert json.loads((tmp_path / "report.json").read_text())["counts"]["pass"] == 1

    def test_outside_of_a_checkout(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(command_line, "CHECKOUT", tmp_path)
        result = CliRunner().invoke(app, ["validate"])
        assert result.exit_code == 2
        assert "needs a checkout of the repository" in result.stderr
        assert result.stdout == ""

    def test_another_package_of_that_name_is_not_taken(self, tmp_path: Path) -> None:
        (tmp_path / "validation").mkdir()
        (tmp_path / "validation" / "__init__.py").write_text("raise SystemExit('the wrong package')")
        code = (
            f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.argv = ['spectral-conv', 'validate', 'none']; "
        )
        code += "from spectral_conv.cli import main; main()"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 2
        assert "Known are araujo_cost" in done.stderr
