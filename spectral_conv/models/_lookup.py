"""Finding a tensor by the name that a person remembers."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable
from fnmatch import fnmatchcase

from spectral_conv.models._model import ConvLayer, Model, ModelError

_PREFIXES = ("module.", "_orig_mod.", "model.", "state_dict.")


def find_layer(model: Model, name: str) -> ConvLayer:
    """Return the layer called `name`, with or without the prefixes that wrappers add.

    An exact match wins; otherwise the prefixes ``module.``, ``_orig_mod.``, ``model.`` and ``state_dict.``
    are stripped from both sides.

    Parameters
    ----------
    model : Model
        From `read_model`.
    name : str
        Name of the weight tensor.

    Returns
    -------
    ConvLayer
        The one layer of that name.

    Raises
    ------
    ModelError
        No layer matches (the message suggests names) or several do (it lists them).

    Examples
    --------
    >>> from importlib.resources import files
    >>> from spectral_conv.models import find_layer, read_model
    >>> data = files("spectral_conv") / "data"
    >>> model = read_model(data / "digits.safetensors", layers=data / "digits.layers.json")
    >>> find_layer(model, "module.stem.weight").name
    'stem.weight'
    """
    found = match_name(name, [layer.name for layer in model.layers])
    if found is None:
        for skipped in model.skipped:
            if bare_name(skipped.name) == bare_name(name):
                raise ModelError(f"{skipped.name!r} of {model.name} is no layer of the table: {skipped.reason}.")
        raise ModelError(f"{model.name} has no convolution called {name!r}.{suggestion(name, model_names(model))}")
    return next(layer for layer in model.layers if layer.name == found)


def model_names(model: Model) -> list[str]:
    """Return the names of the layers of a model."""
    return [layer.name for layer in model.layers]


def bare_name(name: str) -> str:
    """Return `name` without the prefixes of wrappers."""
    while name.startswith(_PREFIXES):
        name = name.split(".", 1)[1]
    return name


def match_name(name: str, names: Iterable[str]) -> str | None:
    """Return the one of `names` that `name` means, None where there is none.

    Raises
    ------
    ModelError
        Several match.
    """
    candidates = list(names)
    if name in candidates:
        return name
    matches = [candidate for candidate in candidates if bare_name(candidate) == bare_name(name)]
    if len(matches) > 1:
        raise ModelError(f"The name {name!r} is ambiguous: {', '.join(matches)}. Give the full name.")
    return matches[0] if matches else None


def suggestion(name: str, names: Iterable[str]) -> str:
    """Return a sentence with close names, or a few names where none is close; starts with a blank."""
    candidates = list(names)
    close = difflib.get_close_matches(name, candidates, n=3, cutoff=0.5)
    if close:
        return f" Did you mean {' or '.join(map(repr, close))}?"
    if not candidates:
        return " There are none."
    shown = ", ".join(candidates[:5]) + (", ..." if len(candidates) > 5 else "")
    return f" There are {len(candidates)}: {shown}."


def select_layers(model: Model, pattern: str, *, option: str = "select") -> Model:
    """Return the model with those layers only whose names match a glob, or else have the pattern as a part.

    Raises
    ------
    ValueError
        None does; the message names the `option`.

    Examples
    --------
    >>> from importlib.resources import files
    >>> from spectral_conv.models import read_model
    >>> data = files("spectral_conv") / "data"
    >>> model = read_model(data / "digits.safetensors", layers=data / "digits.layers.json")
    >>> [layer.name for layer in select_layers(model, "depth").layers], len(select_layers(model, "d*").layers)
    (['depthwise.weight'], 3)
    """
    layers = tuple(layer for layer in model.layers if matches(layer.name, pattern))
    if not layers:
        names = [layer.name for layer in model.layers]
        shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        raise ValueError(f"`{option}` must match a layer of {model.name}; got {pattern!r}. Its layers are {shown}.")
    return dataclasses.replace(model, layers=layers)


def matches(name: str, pattern: str) -> bool:
    """Whether a name matches a glob, or has a pattern that is none as a part."""
    return fnmatchcase(name, pattern if any(c in pattern for c in "*?[") else f"*{pattern}*")
