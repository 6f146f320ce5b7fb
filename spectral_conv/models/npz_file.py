"""NumPy archives (``.npz``), read without ever unpickling."""

from __future__ import annotations

import functools
import lzma
import math
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from spectral_conv.models._archive import first_member, open_archive
from spectral_conv.models._contents import Contents, StoredTensor
from spectral_conv.models._model import ModelError, Skipped

FORMAT = "NumPy archive"
SUFFIXES: tuple[str, ...] = (".npz",)

# What zipfile and numpy raise for damaged members; NotImplementedError is a RuntimeError.
_DAMAGE = (zipfile.BadZipFile, EOFError, OSError, ValueError, RuntimeError, zlib.error, lzma.LZMAError)


def can_open(path: Path, head: bytes) -> bool:
    """Say whether the file is a zip archive that begins with an array."""
    return (first_member(head) or "").endswith(".npy")


def read(path: Path) -> Contents:
    """List the arrays of an archive; their numbers are read on demand.

    Raises
    ------
    ModelError
        The archive is damaged, or a zip bomb.
    """
    tensors: dict[str, StoredTensor] = {}
    unread = []
    with open_archive(path) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if name == member.filename:
                unread.append(Skipped(name=name, reason="not an array (its name does not end in .npy)"))
                continue
            try:
                with archive.open(member) as stream:
                    shape, dtype = _header(stream)
                    header_bytes = stream.tell()
            except _DAMAGE as error:
                unread.append(Skipped(name=name, reason=f"its header is damaged: {error}"))
                continue
            if dtype.hasobject:
                reason = "an object array; reading it would unpickle it, which may run code. Save plain numbers"
                unread.append(Skipped(name=name, reason=reason))
            elif header_bytes + math.prod(shape) * dtype.itemsize != member.file_size:
                reason = (
                    f"its header promises {math.prod(shape) * dtype.itemsize} bytes, the archive holds "
                    f"{member.file_size - header_bytes}"
                )
                unread.append(Skipped(name=name, reason=reason))
            else:
                tensors[name] = StoredTensor(
                    name=name,
                    shape=shape,
                    dtype=str(dtype),
                    floating=dtype.kind == "f",
                    load=functools.partial(_load, path, member.filename, name),
                )
    return Contents(tensors=tensors, unread=tuple(unread))


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = npy.read_magic(stream)
    if version == (1, 0):
        shape, _, dtype = npy.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, _, dtype = npy.read_array_header_2_0(stream)
    else:
        # Version 3 differs from 2 only for arrays of records with non-ASCII field names: no weights.
        raise ValueError(f"npy version {version[0]}.{version[1]} is not a plain array")
    if any(size < 0 for size in shape):
        raise ValueError(f"negative shape {shape}")
    return shape, dtype


def _load(path: Path, member: str, name: str) -> NDArray[Any]:
    try:
        with open_archive(path) as archive, archive.open(member) as stream:
            return npy.read_array(stream, allow_pickle=False)
    except _DAMAGE as error:
        raise ModelError(f"{name!r} in {path.name} is damaged: {error}") from error
