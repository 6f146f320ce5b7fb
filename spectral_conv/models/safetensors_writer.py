"""Writing safetensors files: a header of names, types, shapes and places, then the numbers one after the other."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

from spectral_conv._whole_file import write_whole
from spectral_conv.models._model import ModelError
from spectral_conv.models._stored import Bytes, Verbatim

_ALIGNMENT = 8  # of the first number; types in falling size then keep every number on a multiple of its own
_NATURAL = {"64": 8, "32": 4, "16": 2}


def write_safetensors(
    path: Path, tensors: Iterable[Verbatim], metadata: Mapping[str, str], replaced: Mapping[str, Bytes]
) -> None:
    """Write a file as a whole or not at all; each tensor is read when its turn comes.

    Parameters
    ----------
    path : Path
        The new file.
    tensors : iterable of Verbatim
        What it is to hold.
    metadata : mapping of str to str
        Goes into the header; none where it is empty.
    replaced : mapping of str to bytes
        New numbers of some of the tensors, in their types and shapes.

    Raises
    ------
    ModelError
        A tensor is shorter or longer than it was; nothing is written.
    OSError
        The file cannot be written; what was there before stays.
    """
    ordered = sorted(tensors, key=lambda tensor: -_itemsize(tensor.type))

    def write(stream: IO[bytes]) -> None:
        stream.write(_header(ordered, metadata))
        for tensor in ordered:
            _write(stream, tensor, replaced)

    write_whole(path, write)


def _header(tensors: list[Verbatim], metadata: Mapping[str, str]) -> bytes:
    table: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for tensor in tensors:
        first, end = end, end + tensor.size
        table[tensor.name] = {"dtype": tensor.type, "shape": list(tensor.shape), "data_offsets": [first, end]}
    text = json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _write(stream: IO[bytes], tensor: Verbatim, replaced: Mapping[str, Bytes]) -> None:
    raw = replaced[tensor.name] if tensor.name in replaced else tensor.bytes()
    if raw.nbytes != tensor.size:
        raise ModelError(
            f"{tensor.name!r} has {raw.nbytes} bytes instead of {tensor.size}: the file changed while it was read."
        )
    stream.write(raw.data)


def _itemsize(kind: str) -> int:
    return _NATURAL.get(kind.partition("_")[0][-2:], 1)
