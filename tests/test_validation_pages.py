"""The pages of claims and of benchmarks: opened by a browser, and the data beside them."""

from __future__ import annotations

import html
import json
import math
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from validation.benchmarks import __main__ as benchmarks
from validation.benchmarks.record import benchmarks_page, kept, record
from validation.benchmarks.timing import Row, within
from validation.cases import edge_modes
from validation.checks.check import at_most, none_of, skipped
from validation.checks.document import document
from validation.checks.page import cases_page
from validation.checks.papers import LI
from validation.checks.picture import Picture
from validation.checks.run import Case, case_of, run_case

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SOURCE = LI.at("Figure 2")
ROWS = [
    Row(task="matvec", rival="SciPy", ours=2e-3, theirs=5e-3, ratio=2.5, wanted=2.0, agreement=1e-15),
    Row(task="<b>", rival="NumPy", ours=5e-3, theirs=2e-3, ratio=0.4, wanted=1.0, agreement=0.0),
    Row(task="shown", rival="the same", ours=3e9, theirs=1e9, ratio=math.nan, wanted=0.0, agreement=0.0, unit="B"),
    within("given up", math.inf, 10.0),
]


@pytest.fixture(scope="module")
def page() -> str:
    """Two cases: a real one with images, and one with every verdict and many claims on one figure."""
    picture = Picture(title="A line", text="What is seen.", draw=lambda figure: figure.add_subplot().plot([1, 2]))
    checks = [at_most(f"Claim {i}", SOURCE, i / 8, 1.0, picture=picture, note="`code` & note") for i in range(8)]
    checks += [none_of("Exceptions", SOURCE, 2), skipped("Unknown", SOURCE, "no file")]
    other = Case(name="other", title="Title <script>", about="With ``code``.", run=lambda: checks)
    broken = Case(name="broken", title="Broken", about="", run=lambda: 1 / 0)
    outcomes = [run_case(found) for found in (case_of(edge_modes), other, broken)]
    return cases_page(outcomes, document(outcomes, full=False))


@pytest.fixture(scope="module")
def measured() -> str:
    options = {"void": False, "seconds": 3.2, "options": ["quick"]}
    void = record("Another", [], ["VOID"], void=True, seconds=1.0, options=[])
    return benchmarks_page({"first": record("Title", ROWS, ["a `remark`"], **options), "second": void})


def shown(page: str) -> str:
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page)))


class TestCasesPage:
    def test_captions_state_claims_and_verdicts(self, page: str) -> None:
        captions = [shown(text) for text in re.findall(r"<figcaption>(.*?)</figcaption>", page, re.DOTALL)]
        assert len(captions) == 3
        assert captions[0].count("✓ pass") == 2
        assert "share of the smallest value's vector within 3 pixels of the border" in captions[0]
        assert "8 claims shown here" in captions[2]
        assert "Claim 7: 0.875 (wanted ≤ 1)" in captions[2]

    def test_every_figure_has_named_axes(self, page: str) -> None:
        figures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
        assert len(figures) == 3
        assert all("column (pixels)" in figure and "row (pixels)" in figure for figure in figures[:2])

    def test_what_failed_and_what_broke_off(self, page: str) -> None:
        text = shown(page)
        assert "12 of 15 checks passed, 1 skipped with a reason, 2 failed" in text
        assert "The case broke off, so nothing of it was checked: ZeroDivisionError: division by zero" in text

    def test_texts_are_escaped(self, page: str) -> None:
        assert "Title &lt;script&gt;" in page
        assert "<code>code</code> &amp; note" in page


class TestBenchmarks:
    def test_verdicts(self) -> None:
        assert [row.verdict for row in ROWS] == ["met", "missed", "shown", "missed"]
        assert Row(**(vars(ROWS[0]) | {"ratio": math.nan})).verdict == "missed"

    def test_page(self, measured: str) -> None:
        text = shown(measured)
        assert "1 of 3" in text
        assert "2 ms 5 ms SciPy 2.5 ≥ 2 1e-15 ✓ met" in text
        assert "given up given up 10.00 s" in text
        assert "&lt;b&gt;" in measured
        assert "3000 MB" in text
        assert "Void: the answers did not agree" in text
        assert "python -m validation.benchmarks first --quick" in text

    def test_data_is_kept_and_replaced(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        rows = list(ROWS[:1])
        module = SimpleNamespace(TITLE="Title", run=lambda: iter([*rows, "a remark"]))
        monkeypatch.setattr(benchmarks, "importlib", SimpleNamespace(import_module=lambda name: module))
        target = tmp_path / "out" / "page.html"
        assert benchmarks.main(["matvec", f"--page={target}"]) == 0
        rows[:] = ROWS
        assert benchmarks.main(["startup", f"--page={target}"]) == 1
        found = kept(target)
        assert list(found) == ["matvec", "startup"]
        assert found["matvec"]["rows"][0]["ours"] == 2e-3
        assert found["matvec"]["remarks"] == ["a remark"]
        assert [row["ratio"] for row in found["startup"]["rows"]] == [2.5, 0.4, None, 0.0]
        assert json.loads(target.with_suffix(".json").read_text())["schema"] == 1
        assert "a remark" in target.read_text()
        assert "SciPy" in capsys.readouterr().out

    def test_a_void_comparison_is_a_failure(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def run() -> Any:
            yield ROWS[0]
            raise AssertionError("the answers differ")

        module = SimpleNamespace(TITLE="Title", run=run)
        monkeypatch.setattr(benchmarks, "importlib", SimpleNamespace(import_module=lambda name: module))
        assert benchmarks.main(["matvec"]) == 1

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--page"], "unknown benchmark or option --page; known are startup"),
            (["--quick=1"], "--quick"),
            (["none"], "none"),
            (["--page=a.json"], "`--page` must end in .html; got a.json"),
        ],
    )
    def test_refused(self, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert benchmarks.main(words) == 2
        assert message in capsys.readouterr().err

    def test_other_data_is_not_overwritten(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "page.json").write_text('{"mine": 1}')
        assert benchmarks.main(["startup", f"--page={tmp_path / 'page.html'}"]) == 2
        assert "must have no JSON file beside it but its own" in capsys.readouterr().err


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on the PATH")
@pytest.mark.parametrize("name", ["page", "measured"])
@pytest.mark.parametrize("scheme", [0, 1])
def test_in_a_browser(name: str, scheme: int, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """No message on the console, nothing wider than a phone, nothing missing of the figures."""
    frame = html.escape(request.getfixturevalue(name))
    script = """
    onload = () => {
      const inside = document.querySelector("iframe").contentDocument;
      const root = inside.documentElement;
      const figures = [...inside.querySelectorAll("figure svg")];
      const drawn = figures.filter((svg) => svg.getBoundingClientRect().height > 50);
      document.documentElement.dataset.answer = JSON.stringify({ client: root.clientWidth, scroll: root.scrollWidth,
        drawn: drawn.length, title: inside.title, paper: getComputedStyle(inside.body).backgroundColor });
    };
    """
    path = tmp_path / "page.html"
    phone = f'<iframe width="380" height="800" srcdoc="{frame}"></iframe>'
    path.write_text(f"<!doctype html><body><script>{script}</script>{phone}</body>", encoding="utf-8")
    command = [str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
    command += ["--enable-logging=stderr", f"--blink-settings=preferredColorScheme={scheme}"]
    command += ["--virtual-time-budget=5000", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    found = re.search(r'data-answer="([^"]*)"', done.stdout)
    assert found is not None, done.stderr
    answer = json.loads(html.unescape(found[1]))
    assert answer["scroll"] <= answer["client"] <= 380
    assert answer["drawn"] == (3 if name == "page" else 0)
    assert answer["title"].endswith("spectral_conv")
    assert answer["paper"] == ("rgb(255, 255, 255)" if scheme else "rgb(20, 23, 28)")
