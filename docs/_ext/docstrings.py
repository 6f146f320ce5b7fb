"""What Sphinx would misread in the docstrings, put right before it reads them."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_LITERAL = re.compile(r"(``?[^`]+``?)")
_STARRED = re.compile(r"(?<=[(, ])\*(?=[a-z(])")


def escape(app: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    """Keep the star of a shape, ``(k, *out)``, and dots that end no sentence."""
    for i, line in enumerate(lines):
        if not line.lstrip().startswith((">>> ", "... ")):
            parts = _LITERAL.split(line)
            parts[::2] = [_STARRED.sub(r"\*", part) for part in parts[::2]]
            lines[i] = "".join(parts).replace(" ... ", " … ")


def own_signature(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returned: str | None
) -> tuple[str | None, str | None] | None:
    """Show the parameters of a class where a base that takes anything, of SciPy or PyTorch, hides them."""
    if what != "class" or signature != "(*args, **kwargs)" or "__init__" not in vars(obj):
        return None
    found = inspect.signature(obj.__init__)
    parameters = [p.replace(annotation=inspect.Parameter.empty) for p in list(found.parameters.values())[1:]]
    return str(found.replace(parameters=parameters, return_annotation=inspect.Signature.empty)), returned


def setup(app: Sphinx) -> dict[str, bool]:
    """Listen before numpydoc does."""
    app.connect("autodoc-process-docstring", escape, priority=400)
    app.connect("autodoc-process-signature", own_signature, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
