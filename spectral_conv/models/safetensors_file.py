"""safetensors files, every floating type included, whole or in parts with an index.

The header is parsed here because the NumPy side of the safetensors package knows neither bfloat16 nor the
8-bit types. Checks are as strict as that package's: the tensors must cover the rest of the file exactly.
"""

from __future__ import annotations

import functools
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectral_conv.models._contents import Contents, StoredTensor
from spectral_conv.models._entry import short
from spectral_conv.models._model import ModelError, Skipped
from spectral_conv.models._safetensors_index import SUFFIX as INDEX_SUFFIX
from spectral_conv.models._safetensors_index import is_index, merge, shards

FORMAT = "safetensors"
SUFFIXES: tuple[str, ...] = (".safetensors", f".safetensors{INDEX_SUFFIX}")

_LARGEST_HEADER = 100_000_000  # bytes, the format's own limit
_LENGTH_BYTES = 8
_FLOATS = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
}
_BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("F8_E4M3", "F8_E4M3FNUZ", "F8_E5M2", "F8_E5M2FNUZ", "F8_E8M0", "BOOL"), 8),
    **dict.fromkeys(("F16", "BF16"), 16),
    **dict.fromkeys(("F32",), 32),
    **dict.fromkeys(("F64", "C64"), 64),
    **{f"{sign}{bits}": bits for sign in "IU" for bits in (8, 16, 32, 64)},
}


def can_open(path: Path, head: bytes) -> bool:
    """Say whether the file begins with a header length and a brace, or is an index of several files."""
    if is_index(path, head):
        return True
    length = int.from_bytes(head[:_LENGTH_BYTES], "little")
    # A text file that begins with "{" at byte 8 gives a length of 10^17 and more: no header of any kind.
    return head[_LENGTH_BYTES : _LENGTH_BYTES + 1] == b"{" and length < 2**48


def read(path: Path) -> Contents:
    """List the tensors of a file in natural order of their names; their numbers are read on demand.

    Raises
    ------
    ModelError
        The file is truncated, its header is not valid, or parts that an index names are missing.
    """
    unread: list[Skipped] = []
    if path.name.lower().endswith(INDEX_SUFFIX):
        wanted = shards(path)
        parts = {file: Contents(tensors=_read_tensors(path.parent / file)) for file in wanted}
        tensors, unread = merge(path, wanted, parts)
    else:
        tensors = _read_tensors(path)
    # Writers sort by type and name, which puts layer 10 before layer 2; natural order is nearer the net's.
    return Contents(tensors={name: tensors[name] for name in sorted(tensors, key=_natural)}, unread=tuple(unread))


def _read_tensors(path: Path) -> dict[str, StoredTensor]:
    header, data_start = _read_header(path)
    header.pop("__metadata__", None)
    data_bytes = path.stat().st_size - data_start
    tensors = {}
    spans = []
    for name, info in header.items():
        tensor, span = _describe(path, name, info, data_start)
        tensors[name] = tensor
        spans.append((*span, name))
    end = 0
    for first, last, name in sorted(spans):
        if first != end:
            raise _invalid(path, f"{name!r} begins at byte {first} of the data, not at {end}")
        end = last
    if end > data_bytes:
        raise ModelError(
            f"{path.name} is truncated: its header describes {end} bytes of tensors, the file holds "
            f"{data_bytes}. Copy or download it again."
        )
    if end < data_bytes:
        raise _invalid(path, f"{data_bytes - end} bytes at its end belong to no tensor")
    return tensors


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    size = path.stat().st_size
    with path.open("rb") as stream:
        prefix = stream.read(_LENGTH_BYTES)
        length = int.from_bytes(prefix, "little")
        if len(prefix) < _LENGTH_BYTES:
            raise ModelError(f"{path.name} is truncated: {size} bytes are no safetensors file.")
        if length > _LARGEST_HEADER:
            raise _invalid(path, f"its header claims {length} bytes; the format allows {_LARGEST_HEADER}")
        if length > size - _LENGTH_BYTES:
            raise ModelError(
                f"{path.name} is truncated, or no safetensors file: its header claims {length} bytes, the "
                f"file holds {size - _LENGTH_BYTES} after the length. Copy or download it again."
            )
        text = stream.read(length)
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _invalid(path, f"its header is not JSON ({error})") from error
    if not isinstance(header, dict):
        raise _invalid(path, "its header is not a JSON object")
    return header, _LENGTH_BYTES + length


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name occurs twice")
    return table


def _describe(path: Path, name: str, info: Any, data_start: int) -> tuple[StoredTensor, tuple[int, int]]:
    fields = info if isinstance(info, dict) else {}
    dtype: Any = fields.get("dtype")
    shape: Any = fields.get("shape")
    offsets: Any = fields.get("data_offsets")
    if not (isinstance(dtype, str) and _sizes(shape) and _sizes(offsets) and len(offsets) == 2):
        raise _invalid(
            path, f"the entry of {name!r} must have `dtype`, `shape` and `data_offsets`; got {short(info)}"
        )
    first, last = offsets
    bits = _BITS.get(dtype)
    if last < first or (bits is not None and math.prod(shape) * bits != 8 * (last - first)):
        raise _invalid(
            path,
            f"{name!r} has the shape {short(shape)} and type {dtype}, but takes bytes {first} to {last}",
        )
    stored = _FLOATS.get(dtype)
    tensor = StoredTensor(
        name=name,
        shape=tuple(shape),
        dtype=stored or dtype,
        floating=stored is not None,
        load=functools.partial(_load, path, name, stored or "", tuple(shape), data_start + first, last - first),
    )
    return tensor, (first, last)


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and size >= 0 for size in value)


def _load(path: Path, name: str, dtype: str, shape: tuple[int, ...], start: int, count: int) -> NDArray[Any]:
    raw = np.fromfile(path, np.uint8, count=count, offset=start)
    if raw.size != count:
        raise ModelError(f"{name!r} in {path.name} is cut off: the file changed while it was read.")
    return raw.view(_numpy_type(dtype)).reshape(shape)


def _numpy_type(name: str) -> np.dtype[Any]:
    if name == "bfloat16" or name.startswith("float8"):
        import ml_dtypes

        extended: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return extended
    return np.dtype(name).newbyteorder("<")


def _natural(name: str) -> tuple[tuple[bool, int, str], ...]:
    parts = re.split(r"(\d+)", name)
    return tuple((part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts)


def _invalid(path: Path, what: str) -> ModelError:
    return ModelError(
        f"{path.name} is not a valid safetensors file: {what}. Save it again with the safetensors package."
    )
