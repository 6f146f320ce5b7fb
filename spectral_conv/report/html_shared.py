"""What many figures of a page have in common, written once."""

from __future__ import annotations

import re
from collections import Counter

_FIGURE = re.compile(r'<svg class="plot.*?</svg>', flags=re.DOTALL)
_STYLE = re.compile(r' style="([^"]*)"')
_PICTURE = re.compile(r'<image [^>]*"/>')
_END_OF_SHEET = "</style>"
_START = "<body>"


def share(page: str) -> str:
    """Let the figures of a page share looks and pictures.

    Parameters
    ----------
    page : str
        HTML with figures as `spectral_conv.report.html_svg.inline_svg` writes them.

    Returns
    -------
    str
        The same page, smaller: the looks of lines and texts are classes, and what several figures show alike, such as
        a scale of colours, stands in front of the first.

    Examples
    --------
    >>> line = '<svg class="plot"><path style="stroke: red"/></svg>'
    >>> print(share(f"<style></style><body>{line}{line}"))
    <style>.plot .s0{stroke: red}
    </style><body><svg class="plot"><path class="s0"/></svg><svg class="plot"><path class="s0"/></svg>
    """
    drawn = "".join(_FIGURE.findall(page))
    looks = {look: f"s{place}" for place, look in enumerate(dict.fromkeys(_STYLE.findall(drawn)))}
    repeated = [picture for picture, count in Counter(_PICTURE.findall(drawn)).items() if count > 1]
    names = {picture: f"shared-{place}" for place, picture in enumerate(repeated)}

    def shorter(found: re.Match[str]) -> str:
        text = _PICTURE.sub(
            lambda picture: f'<use href="#{names[picture[0]]}"/>' if picture[0] in names else picture[0], found[0]
        )
        return _STYLE.sub(lambda style: f' class="{looks[style[1]]}"', text)

    page = _FIGURE.sub(shorter, page)
    sheet = "".join(f".plot .{name}{{{look}}}\n" for look, name in looks.items())
    page = page.replace(_END_OF_SHEET, sheet + _END_OF_SHEET, 1)
    if not names:
        return page
    pictures = "".join(picture.replace("<image", f'<image id="{name}"', 1) for picture, name in names.items())
    # Not `display: none`, of which some browsers show nothing elsewhere either.
    shelf = f'<svg class="shelf" aria-hidden="true" width="0" height="0"><defs>{pictures}</defs></svg>'
    return page.replace(_START, f"{_START}\n{shelf}", 1)
