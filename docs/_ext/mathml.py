"""Formulas as MathML: no network, no LaTeX, no script; browsers draw them in the colours of the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.writers.html5 import HTML5Translator


def inline(writer: HTML5Translator, node: nodes.math) -> None:
    """Write a formula in a line."""
    writer.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def block(writer: HTML5Translator, node: nodes.math_block) -> None:
    """Write a formula of its own, which scrolls where the screen is narrow."""
    number = f'<span class="eqno">({node["number"]})</span>' if node["number"] else ""
    target = f' id="{node["ids"][0]}"' if node["ids"] else ""
    formula = tex2mathml(node.astext(), as_block=True)
    writer.body.append(f'<div class="formula"{target}>{formula}{number}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer for ``html_math_renderer``."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
