"""Weights that a file stores in parts: the weight that the layer applies is computed from them.

Weight normalization stores a direction v and lengths g, W = g v / |v|; spectral normalization W0 and the vectors of
its power iteration, W = W0 / (u' W0 v); pruning W0 and a mask, W = W0 * mask. PyTorch has written each in two ways:
as ``weight_g, weight_v, weight_orig, weight_u, weight_mask`` and below ``parametrizations.weight``.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectral_conv.models._contents import Contents, StoredTensor
from spectral_conv.models._model import Skipped

Floats = NDArray[np.float64]

_PART = re.compile(
    r"(?P<old_module>(?:.*[._/])?)(?P<old_weight>weight\w*?)_(?P<old_part>g|v|u|orig|mask)$"
    r"|(?P<new_module>(?:.*\.)?)parametrizations\.(?P<new_weight>\w+)\.(?P<new_part>.+)$"
)
# The same parts under the old names and the new ones.
_PARTS = {
    "old": {"g": "g", "v": "v", "u": "u", "orig": "original", "mask": "mask"},
    "new": {"original0": "g", "original1": "v", "original": "original", "0._u": "u", "0._v": "v"},
}


def fold_parametrized(contents: Contents) -> Contents:
    """Replace the parts of every parametrized weight by the weight itself.

    The parts come back in `unread`. Parametrizations whose weight cannot be computed from the file are left alone.
    """
    groups: dict[str, dict[str, str]] = {}
    for name in contents.tensors:
        weight, part = _split(name)
        if weight is not None:
            groups.setdefault(weight, {})[part] = name
    folded: dict[str, StoredTensor | None] = {}  # by the first part, in whose place the weight stands
    unread: dict[str, str] = {}
    for weight, names in groups.items():
        parts = {part: contents.tensors[name] for part, name in names.items()}
        kind, fold = _kind(parts)
        if kind is None or fold is None:
            continue
        stored = weight in contents.tensors
        folded[next(iter(names.values()))] = None if stored else _folded(weight, parts, fold)
        also = ", which is in the file itself" if stored else ""
        unread |= dict.fromkeys(names.values(), f"part of {kind} of {weight}{also}")
    if not unread:
        return contents
    tensors: dict[str, StoredTensor] = {}
    for name, tensor in contents.tensors.items():
        replacement = folded.get(name)
        if replacement is not None:
            tensors[replacement.name] = replacement
        elif name not in unread:
            tensors[name] = tensor
    parts_unread = tuple(Skipped(name=name, reason=reason) for name, reason in unread.items())
    return dataclasses.replace(contents, tensors=tensors, unread=(*contents.unread, *parts_unread))


def _split(name: str) -> tuple[str | None, str]:
    """Return the name of the weight that a tensor is a part of, and which part; None for any other tensor."""
    match = _PART.fullmatch(name)
    if match is None:
        return None, ""
    style = "old" if match["old_weight"] else "new"
    weight = match[f"{style}_module"] + match[f"{style}_weight"]
    part = match[f"{style}_part"]
    return weight, _PARTS[style].get(part, part)


def _kind(
    parts: Mapping[str, StoredTensor],
) -> tuple[str | None, Callable[[Mapping[str, Floats]], Floats] | None]:
    if not all(tensor.floating for tensor in parts.values()):
        return None, None
    shapes = {part: tensor.shape for part, tensor in parts.items()}
    names = set(parts)
    if names == {"g", "v"} and _fits_weight_norm(shapes["g"], shapes["v"]):
        return "weight normalization", _weight_norm
    if names in ({"original", "u", "v"}, {"original", "u"}) and _spectral_axes(shapes):
        return "spectral normalization", _spectral_norm
    if names == {"original", "mask"} and shapes["mask"] == shapes["original"]:
        return "pruning", _pruned
    return None, None


def _folded(
    weight: str, parts: Mapping[str, StoredTensor], fold: Callable[[Mapping[str, Floats]], Floats]
) -> StoredTensor:
    whole = parts["v"] if "original" not in parts else parts["original"]
    return StoredTensor(
        name=weight,
        shape=whole.shape,
        dtype=whole.dtype,
        floating=True,
        load=functools.partial(_load, dict(parts), fold),
    )


def _load(parts: Mapping[str, StoredTensor], fold: Callable[[Mapping[str, Floats]], Floats]) -> NDArray[Any]:
    with np.errstate(all="ignore"):  # what is not finite is found, by name, when the operator is built
        return fold({part: tensor.load().astype(np.float64) for part, tensor in parts.items()})


def _fits_weight_norm(lengths: tuple[int, ...], directions: tuple[int, ...]) -> bool:
    if lengths == ():
        return True  # one length for the whole weight (dim=None)
    same_rank = len(lengths) == len(directions) and len(directions) > 0
    return (
        same_rank
        and all(length in (1, size) for length, size in zip(lengths, directions, strict=True))
        and sum(length > 1 for length in lengths) <= 1
    )


def _weight_norm(parts: Mapping[str, Floats]) -> Floats:
    lengths, directions = parts["g"], parts["v"]
    # The axes along which g does not vary are those over which PyTorch took the norm, whatever `dim` was.
    axes = tuple(axis for axis in range(directions.ndim) if lengths.ndim == 0 or lengths.shape[axis] == 1)
    norms = np.sqrt(np.sum(directions**2, axis=axes, keepdims=True))
    weight: Floats = directions * (lengths / norms)
    return weight


def _spectral_axes(shapes: Mapping[str, tuple[int, ...]]) -> list[int]:
    """Return the axes that may have been the rows: 0, or 1 for a transposed convolution."""
    shape, u, v = shapes["original"], shapes["u"], shapes.get("v")
    size = int(np.prod(shape, dtype=np.int64))
    return [
        axis
        for axis in range(min(len(shape), 2))
        if len(shape) >= 2 and u == (shape[axis],) and shape[axis] and (v is None or v == (size // shape[axis],))
    ]


def _spectral_norm(parts: Mapping[str, Floats]) -> Floats:
    weight = parts["original"]
    axes = _spectral_axes({part: array.shape for part, array in parts.items()})
    # Where both axes have the length of u, the wrong one makes u and v strangers to the matrix: a small product.
    sigma = max((_sigma(np.moveaxis(weight, axis, 0), parts["u"], parts.get("v")) for axis in axes), key=abs)
    scaled: Floats = weight / sigma
    return scaled


def _sigma(weight: Floats, u: Floats, v: Floats | None) -> float:
    matrix = weight.reshape(len(weight), -1)
    if v is None:  # PyTorch before 1.0 kept u alone and did one step of the power iteration in every call
        v = matrix.T @ u
        v = v / np.linalg.norm(v)
        return float(np.linalg.norm(matrix @ v))
    return float(u @ (matrix @ v))


def _pruned(parts: Mapping[str, Floats]) -> Floats:
    pruned: Floats = parts["original"] * parts["mask"]
    return pruned


def whole_of(name: str) -> str | None:
    """Return the name of the weight that a tensor is a part of, None for any other tensor."""
    return _split(name)[0]
