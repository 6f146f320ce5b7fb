"""Figures as SVG that stands inside a page: no identifiers that clash, colours of the page, few digits."""

from __future__ import annotations

import html
import io
import re
from typing import TYPE_CHECKING

from spectral_conv.report.plots_images import EXACT, FFT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Colours of the figures and the variables of the style sheet, which knows dark screens.
_COLOURS = {
    EXACT: "var(--exact)",
    FFT: "var(--fft)",
    "#000000": "currentColor",
    "#b0b0b0": "var(--rule)",
    "#1f77b4": "var(--fft)",
    "#d62728": "var(--exact)",
}
_LONG = re.compile(r"-?\d+\.\d{3,}")
_COORDINATES = re.compile(r'\b(?:d|x|y|transform|width|height|viewBox|points)="[^"]*"')


def inline_svg(figure: Figure, key: str, label: str) -> str:
    """Write a figure as an ``<svg>`` element.

    Parameters
    ----------
    figure : Figure
        What to draw; its backgrounds become transparent.
    key : str
        Letters, digits and hyphens that no other figure of the page has; the same figure with the same key gives the
        same text.
    label : str
        What a screen reader says.

    Returns
    -------
    str
        With text as text; all that it refers to is in it.

    Examples
    --------
    >>> from spectral_conv.report.plots import new_figure
    >>> inline_svg(new_figure(2.0, 1.0), "empty", "nothing < something")[:50]
    '<svg class="plot" role="img" aria-label="nothing &'
    """
    import matplotlib as mpl

    figure.patch.set_visible(False)
    # Shades of grey are read against white, whatever the screen.
    shaded = [ax for ax in figure.axes if any(mesh.get_cmap().name == "Greys" for mesh in ax.collections)]
    for ax in figure.axes:
        ax.patch.set_visible(ax in shaded)
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": key}):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # The style sheet of the figure would hold for the whole page; what it says is in that of the page.
    for part in ("metadata", "style"):
        text = re.sub(rf"<{part}\b.*?</{part}>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->|<defs>\s*</defs>", "", text, flags=re.DOTALL)
    size = re.search(r'viewBox="[^"]*"', text)
    assert size is not None
    kind = "plot shaded" if shaded else "plot"
    head = f'<svg class="{kind}" role="img" aria-label="{html.escape(label)}" {size.group()}>'
    text = head + text[text.index(">") + 1 :]
    text = _own_identifiers(text.replace("xlink:href", "href"), key)
    for colour, variable in _COLOURS.items():
        text = text.replace(colour, variable)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    text = _COORDINATES.sub(lambda found: _LONG.sub(_shortened, found.group()), text)
    return re.sub(r"\s*\n\s*", "\n", _without_bare_groups(text)).strip()


def _without_bare_groups(text: str) -> str:
    """Leave out ``<g>`` without attributes, of which there are more than of anything else."""
    kept: list[bool] = []

    def decide(tag: re.Match[str]) -> str:
        if tag.group().endswith("/>"):
            return ""
        if tag.group() != "</g>":
            kept.append(tag.group() != "<g>")
            return tag.group() if kept[-1] else ""
        return tag.group() if kept.pop() else ""

    return re.sub(r"<g\b[^>]*>|</g>", decide, text)


def _own_identifiers(text: str, key: str) -> str:
    """Keep those identifiers that something refers to, with the key before them."""
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    text = re.sub(r' id="([^"]*)"', lambda found: f' id="{key}-{found[1]}"' if found[1] in used else "", text)
    return re.sub(r'(url\(#|href="#)', rf"\g<1>{key}-", text)


def _shortened(number: re.Match[str]) -> str:
    return f"{float(number.group()):.2f}".rstrip("0").rstrip(".")
