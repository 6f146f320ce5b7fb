"""The templates of the pages, and how text from elsewhere gets into them: escaped."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, **values: Any) -> str:
    """Fill a template of the folder `templates`.

    Parameters
    ----------
    template : str
        Name of the file.
    **values
        What it asks for; a missing one is an error, all text is escaped.

    Returns
    -------
    str
        HTML.

    Examples
    --------
    >>> "a &lt;b&gt;" in render("notebook.html", title="a <b>", rows=[])
    True
    """
    return _environment().get_template(template).render(**values)


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("spectral_conv.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
