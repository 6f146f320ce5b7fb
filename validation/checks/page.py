"""The outcome as a page of HTML that needs nothing but itself."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, PrefixLoader, StrictUndefined
from markupsafe import Markup, escape

from spectral_conv.report.html_svg import inline_svg
from spectral_conv.report.plots import new_figure
from spectral_conv.report.text import printable
from validation.checks.check import Check
from validation.checks.picture import Picture
from validation.checks.run import Outcome

WORDS = {"pass": "✓ pass", "fail": "✗ FAIL", "skipped": "– skipped"}


def cases_page(outcomes: Sequence[Outcome], document: dict[str, Any]) -> str:
    """Write the page of the cases: how many claims hold, every case with its checks and figures."""
    return render(
        "cases.html",
        title="Do the claims hold?",
        counts=document["counts"],
        total=sum(document["counts"].values()),
        set=document["set"],
        seconds=document["seconds"],
        machine=document["machine"],
        cases=[_case(outcome) for outcome in outcomes],
        words=WORDS,
    )


def render(template: str, **values: Any) -> str:
    """Fill a template of this folder; it may extend those of the package's own reports."""
    return _environment().get_template(template).render(**values)


def amount(value: float | None, unit: str) -> str:
    """A number with its unit, "s", "B" or "" for numbers.

    Examples
    --------
    >>> amount(0.0312, "s"), amount(2.5e9, "B"), amount(None, "s")
    ('31.2 ms', '2500 MB', 'given up')
    """
    if value is None:
        return "given up"
    if unit == "":
        return f"{value:.4g}" if value >= 1.0 else f"{value:.1e}"
    # Nothing here takes hours, nothing fits in 10 kB.
    if unit == "B" or 1e4 < value < float("inf"):
        return f"{value / 1e6:.0f} MB"
    return f"{value:.2f} s" if value >= 1.0 else f"{1e3 * value:.4g} ms"


def _case(outcome: Outcome) -> dict[str, Any]:
    failed, skipped = outcome.count("fail"), outcome.count("skipped")
    return {
        "name": outcome.case.name,
        "title": outcome.case.title,
        "about": outcome.case.about,
        "seconds": outcome.seconds,
        "verdict": "fail" if failed else "pass" if outcome.count("pass") else "skipped",
        "said": f"{outcome.count('pass')} of {len(outcome.checks)} hold"
        + (f", {skipped} skipped" if skipped else ""),
        "error": printable(outcome.error),
        "checks": outcome.checks,
        "sources": list({check.source.paper: check.source for check in outcome.checks}.values()),
        "figures": [
            {
                "title": picture.title,
                "svg": _svg(f"{outcome.case.name.replace('_', '-')}-{number}", picture),
                "text": picture.text,
                "checks": _grouped(checks),
            }
            for number, (picture, checks) in enumerate(outcome.pictures, 1)
        ],
    }


def _svg(key: str, picture: Picture) -> str:
    figure = new_figure(*picture.size)
    picture.draw(figure)
    return inline_svg(figure, key, picture.title)


def _grouped(checks: Sequence[Check]) -> list[tuple[str, list[str]]]:
    """Return verdicts with the claims that have them, as a caption says them."""
    said: dict[str, list[str]] = {verdict: [] for verdict in WORDS}
    for check in checks:
        why = check.reason or f"{check.found} (wanted {check.wanted})"
        said[check.verdict].append(f"{check.claim}: {why}")
    return [(verdict, claims) for verdict, claims in said.items() if claims]


@functools.cache
def _environment() -> Environment:
    ours, package = PackageLoader("validation.checks"), PackageLoader("spectral_conv.report")
    # Our style sheet takes the place of the package's and includes it.
    found = Environment(
        loader=ChoiceLoader([ours, package, PrefixLoader({"report": package})]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"code": _code, "amount": amount}
    return found


def _code(text: str) -> Markup:
    """Escape a text, and set what stands between backticks as code."""
    return Markup(re.sub(r"(`+)(.+?)\1", r"<code>\2</code>", str(escape(text))))
