"""Geometry from a file that states most of it: a layers document, then assumptions, fill in the rest."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from spectral_conv.models._assumptions import DEFAULT_SIZE
from spectral_conv.models._contents import Contents
from spectral_conv.models._entry import LayerEntry
from spectral_conv.models._kernel_names import refusal
from spectral_conv.models._lookup import match_name, suggestion
from spectral_conv.models._model import ModelError, Skipped

# Fields of an entry that a document may supply where the file is silent ("op" is `transposed`).
_FIELDS = {
    "op": "transposed",
    "layout": "layout",
    "stride": "stride",
    "padding": "padding",
    "padding_mode": "padding_mode",
    "dilation": "dilation",
    "groups": "groups",
    "input_size": "input_size",
}


def complete_layers(
    file: Path, contents: Contents, document: Sequence[LayerEntry], input_size: tuple[int, ...] | None
) -> tuple[list[LayerEntry], list[Skipped]]:
    """Return the stated layers with what they leave open filled in, and the other tensors with the reason.

    What the file says stands; the document fills what it leaves open, then `input_size`, then the usual sizes. Where
    there is a document only the layers that it names are taken.

    Raises
    ------
    ModelError
        The document names a layer that the file does not have.
    """
    assert contents.stated is not None
    stated = {entry.weight: entry for entry in contents.stated}
    given: dict[str, LayerEntry] = {}
    for entry in document:
        name = match_name(entry.weight, stated)
        if name is None:
            close = suggestion(entry.weight, stated)
            raise ModelError(f"{entry.where}: {file.name} has no convolution {entry.weight!r}.{close}")
        given[name] = entry
    entries = [
        _completed(entry, given.get(name), contents, input_size)
        for name, entry in stated.items()
        if not document or name in given
    ]
    skipped = []
    for tensor in contents.tensors.values():
        if tensor.name in stated and document and tensor.name not in given:
            skipped.append(Skipped(name=tensor.name, reason="a convolution that the layers document does not name"))
        elif tensor.name not in stated:
            # Names tell nothing where the network does.
            like_kernel = 3 <= len(tensor.shape) <= 5
            own = None if like_kernel else refusal(tensor, contents.tensors)
            reason = own or "no convolution of the file's network uses it"
            skipped.append(Skipped(name=tensor.name, reason=reason))
    return entries, skipped


def _completed(
    entry: LayerEntry, given: LayerEntry | None, contents: Contents, input_size: tuple[int, ...] | None
) -> LayerEntry:
    if given is not None:
        known = {_FIELDS[name]: getattr(given, _FIELDS[name]) for name in entry.assumed if name in _FIELDS}
        return dataclasses.replace(entry, **known, assumed=())
    if "input_size" not in entry.assumed:
        return entry
    ndim = len(contents.tensors[entry.weight].shape) - 2
    fits = input_size is not None and len(input_size) == ndim + 1
    size = input_size[1:] if input_size is not None and fits else (DEFAULT_SIZE[ndim - 1],) * ndim
    return dataclasses.replace(entry, input_size=size)
