"""The page of a model that needs nothing but itself: data in, a string out.

inspection_page -- its layers
notebook_table -- their table alone, for notebooks
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spectral_conv.report.figures import LayerFigures
from spectral_conv.report.findings import EXPLODES, Finding, findings
from spectral_conv.report.html_layers import Drawing, row, section
from spectral_conv.report.html_shared import share
from spectral_conv.report.html_svg import inline_svg
from spectral_conv.report.html_templates import render
from spectral_conv.report.notes import footnotes
from spectral_conv.report.plots import new_figure
from spectral_conv.report.plots_layers import plot_extremes
from spectral_conv.report.record import NOT_ASKED, LayerReport
from spectral_conv.report.text import printable

TONES = {"grave": "look here", "fine": "all clear", "open": "to know"}
SHOWN = 4  # layers named beside a finding, the worst; the others are a link away, in the table


def inspection_page(
    model: str,
    reports: Sequence[LayerReport],
    figures: Sequence[LayerFigures],
    *,
    skipped: Sequence[tuple[str, str]] = (),
    lipschitz: Finding | None = None,
    facts: Sequence[tuple[str, str]] = (),
) -> str:
    """Write the page of a model: what to know first, the table, then every layer with its figures.

    Parameters
    ----------
    model : str
        Its name.
    reports : sequence of LayerReport
        Analysed layers.
    figures : sequence of LayerFigures
        What is drawn of each of them.
    skipped : sequence of (str, str)
        Name and reason of the tensors that were not taken as convolutions.
    lipschitz : Finding, optional
        What is known of the network as a whole.
    facts : sequence of (str, str)
        How the numbers came about: words and values.

    Returns
    -------
    str
        HTML without anything from elsewhere. Text from the model is shown, never obeyed. Every number is a ``<data>``
        element whose value is that of the JSON document.

    Examples
    --------
    >>> inspection_page("a <model>", [], []).partition("<title>")[2][:17]
    'a &lt;model&gt; ·'
    """
    overview = None
    if any(report.sigma_max is not None or report.circulant is not None for report in reports):
        figure = new_figure(5.4, 3.3)
        plot_extremes(reports, ax=figure.add_subplot())
        title = "Largest and smallest singular value of every layer"
        caption = (
            "Filled triangles are exact, hollow ones what the FFT says. A filled one within a hollow one: both "
            "agree, to the width of a mark. The numbers of the layers are those of the table."
        )
        overview = Drawing(title=title, svg=inline_svg(figure, "overview", title), caption=caption)
    rows = [row(report, i) for i, report in enumerate(reports, 1)]
    pairs = zip(reports, figures, strict=True)
    page = render(
        "inspection.html",
        title=printable(model),
        findings=[_finding(found, rows) for found in findings(reports, lipschitz)],
        overview=overview,
        rows=rows,
        smallest=any(report.sigma_min_reason != NOT_ASKED for report in reports),
        bounds=any(report.bounds is not None for report in reports),
        sections=[section(report, drawn, i) for i, (report, drawn) in enumerate(pairs, 1)],
        notes=[(note.mark, printable(note.text)) for note in footnotes(reports, skipped)],
        skipped=[(printable(name), printable(reason)) for name, reason in skipped],
        facts=[(word, printable(value)) for word, value in facts],
        explodes=f"{EXPLODES:g}",
    )
    return share(page)


def notebook_table(model: str, reports: Sequence[LayerReport]) -> str:
    """Write the table alone, for a notebook.

    Parameters
    ----------
    model : str
        Its name.
    reports : sequence of LayerReport
        Analysed layers.

    Returns
    -------
    str
        An HTML ``<table>`` without styles, text from the model escaped.

    Examples
    --------
    >>> "<th" in notebook_table("a model", [])
    True
    """
    rows = [row(report, i) for i, report in enumerate(reports, 1)]
    return render("notebook.html", title=printable(model), rows=rows)


def _finding(found: Finding, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "topic": found.topic,
        "sentences": [printable(sentence) for sentence in found.sentences],
        "tone": found.tone,
        "word": TONES[found.tone],
        "layers": [rows[i] for i in found.layers[:SHOWN]],
        "more": len(found.layers) - SHOWN,
        "flag": found.flag,
    }
