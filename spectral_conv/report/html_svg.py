"""Figures as SVG that stands inside a page: no identifiers that clash, colours of the page, few bytes."""

from __future__ import annotations

import base64
import html
import io
import re
from typing import TYPE_CHECKING

from spectral_conv.report.html_png import palette_png
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
_LONG = re.compile(r"-?\d+\.\d{2,}")
_COORDINATES = re.compile(r'\b(d|x|y|transform|width|height|viewBox|points)="[^"]*"')
_MARK = re.compile(r'<use href="#([^"]+)" x="([^"]+)" y="([^"]+)" style="([^"]*)"/>')
_LINE = re.compile(r'<path d="(M[-\d. ]+[Ll][-\d. ]+)"([^>]*)/>')


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
        With text as text; all that it refers to is in it. Lines are right to a twentieth of a point.

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
    for colour, variable in _COLOURS.items():
        text = text.replace(colour, variable)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text.replace("xlink:href", "href"))
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    text = re.sub(r' transform="rotate\(-0 [^"]*"', "", text)
    text = re.sub(r'base64,([^"]+)', lambda found: f"base64,{_smaller(found[1])}", text)
    text = _COORDINATES.sub(_shortened, text)
    text = _own_identifiers(_lines_together(_without_bare_groups(text)), key)
    return re.sub(r"\s*\n\s*", "\n", text).strip()


def _without_bare_groups(text: str) -> str:
    """Leave out ``<g>`` without attributes, of which there are more than of anything else."""
    kept: list[bool] = []

    def decide(tag: re.Match[str]) -> str:
        if tag.group().endswith("/>"):
            return ""
        if tag.group() != "</g>":
            kept.append(re.fullmatch(r'<g(?: id="[^"]*")?>', tag.group()) is None)
            return tag.group() if kept[-1] else ""
        return tag.group() if kept.pop() else ""

    return re.sub(r"<g\b[^>]*>|</g>", decide, text)


def _lines_together(text: str) -> str:
    """Draw straight lines of one look, such as those of a grid or the ticks of an axis, as one path.

    It stands where the first of them stood.
    """
    marks = dict(re.findall(r'<path id="([^"]+)" d="M0 0L([-\d. ]+)"', text))

    def tick(found: re.Match[str]) -> str:
        name, x, y, style = found.groups()
        return f'<path d="M{x} {y}l{marks[name]}" style="{style}"/>' if name in marks else found.group()

    text = _MARK.sub(tick, text)
    lines: dict[str, str] = {}
    for line, look in _LINE.findall(text):
        lines[look] = lines.get(look, "") + line

    def first(found: re.Match[str]) -> str:
        together = lines.pop(found[2], None)
        return "" if together is None else f'<path d="{together}"{found[2]}/>'

    text = _LINE.sub(first, text)
    unused = "|".join(name for name in marks if f"#{name}" not in text) or "$^"
    return re.sub(rf'<defs>\s*<path id="(?:{unused})"[^>]*/>\s*</defs>', "", text)


def _own_identifiers(text: str, key: str) -> str:
    """Keep those identifiers that something refers to, as letters with the key before them."""
    used = list(dict.fromkeys(re.findall(r'(?:url\(#|href="#)([^)"]+)', text)))
    short = {name: f"{key}-{place}" for place, name in enumerate(used)}
    text = re.sub(r' id="([^"]*)"', lambda found: f' id="{short[found[1]]}"' if found[1] in short else "", text)
    return re.sub(r'(url\(#|href="#)([^)"]+)', lambda found: found[1] + short[found[2]], text)


def _shortened(found: re.Match[str]) -> str:
    # A matrix multiplies what it transforms; of places, a tenth of a point is finer than the line.
    digits = 2 if found[1] == "transform" else 1
    text = _LONG.sub(lambda number: f"{float(number.group()):.{digits}f}".rstrip("0").rstrip("."), found.group())
    return re.sub(r"\s*([MLz])\s*", r"\1", re.sub(r"\s+", " ", text)) if found[1] == "d" else text


def _smaller(picture: str) -> str:
    """A picture with few colours as a number for each pixel and a list of the colours."""
    png = palette_png(base64.b64decode(picture))
    return base64.b64encode(png).decode("ascii")
