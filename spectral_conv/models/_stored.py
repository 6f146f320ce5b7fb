"""Every tensor of a file as it is stored, to be written again: readers fold some of them, or turn them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectral_conv.models import keras_file, onnx_file, safetensors_file, torch_file
from spectral_conv.models._keras_hdf5 import list_archive, list_hdf5
from spectral_conv.models._model import ModelError, Skipped
from spectral_conv.models._onnx_tensors import Weight, read_tensor, text
from spectral_conv.models._registry import find_reader
from spectral_conv.models._safetensors_index import is_index, shards
from spectral_conv.models._sandbox import in_child
from spectral_conv.models._state_dicts import flatten

Bytes = NDArray[np.uint8]

# Types of safetensors by NumPy's names.
_TYPES = {
    **{name: letters for letters, name in safetensors_file._FLOATS.items()},
    **{
        f"{kind}{bits}": f"{letter}{bits}"
        for kind, letter in (("int", "I"), ("uint", "U"))
        for bits in (8, 16, 32, 64)
    },
    "bool": "BOOL",
    "complex64": "C64",
    "float8_e8m0fnu": "F8_E8M0",
}
# What the child sends of a tensor of PyTorch: its name, shape, number format, bytes, and where its numbers lie.
_Sent = tuple[str, tuple[int, ...], str, Bytes, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Verbatim:
    """One tensor as it is stored.

    Attributes
    ----------
    name : str
        Full name.
    type : str
        The number format, in the letters of safetensors.
    shape : tuple of int
        As stored.
    bytes : callable
        Reads the numbers: little endian, the last axis running fastest.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    bytes: Callable[[], Bytes]

    @property
    def size(self) -> int:
        """Number of bytes."""
        return math.prod(self.shape) * safetensors_file._BITS[self.type] // 8

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """NumPy's type of real floating-point numbers, None for others."""
        name = safetensors_file._FLOATS.get(self.type)
        return None if name is None else safetensors_file._numpy_type(name)


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredFile:
    """All tensors of a file.

    Attributes
    ----------
    tensors : mapping of str to Verbatim
        In the order of their numbers in the file.
    metadata : mapping of str to str
        Of a safetensors file.
    left_out : tuple of Skipped
        What is in the file, and no tensor of a network: optimizer state, text, what is damaged.
    tied : tuple of tuple of str
        Names of one and the same tensor.
    files : tuple of Path
        Those that the tensors lie in.
    """

    tensors: Mapping[str, Verbatim]
    metadata: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[Skipped, ...] = ()
    tied: tuple[tuple[str, ...], ...] = ()
    files: tuple[Path, ...]


def stored_tensors(path: Path) -> StoredFile:
    """List the tensors of a file.

    Raises
    ------
    ModelError
        The file cannot be read, or holds tensors for which safetensors has no type; names them.
    """
    reader = find_reader(path)
    if reader is safetensors_file:
        return _from_safetensors(path)
    if reader is torch_file:
        return _from_torch(path)
    if reader is onnx_file:
        return _from_onnx(path)
    if reader is keras_file:
        return _from_keras(path)
    contents = reader.read(path)
    found = [(t.name, t.shape, t.dtype, t.load) for t in contents.tensors.values()]
    return StoredFile(tensors=_verbatim(path, found), left_out=contents.unread, files=(path,))


def _from_safetensors(path: Path) -> StoredFile:
    with path.open("rb") as stream:
        parts = shards(path) if is_index(path, stream.read(64)) else {path.name: None}
    tensors: dict[str, Verbatim] = {}
    metadata: dict[str, str] = {}
    left_out = []
    for file, names in parts.items():
        part = path.parent / file
        header, start = safetensors_file._read_header(part)
        metadata |= header.pop("__metadata__", None) or {}
        for name, info in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            if names is not None and name not in names:
                left_out.append(Skipped(name=name, reason=f"stands in {file}, but the index does not name it"))
                continue
            first, last = info["data_offsets"]
            load = functools.partial(safetensors_file._load, part, name, "uint8", (-1,), start + first, last - first)
            tensors[name] = Verbatim(name=name, type=info["dtype"], shape=tuple(info["shape"]), bytes=load)
    unknown = [t for t in tensors.values() if t.type not in safetensors_file._BITS]
    if unknown:
        raise _unwritable(path, [(tensor.name, tensor.type) for tensor in unknown])
    files = (path, *(path.parent / file for file in parts))
    return StoredFile(tensors=tensors, metadata=metadata, left_out=tuple(left_out), files=files)


def _from_keras(path: Path) -> StoredFile:
    with path.open("rb") as stream:
        listing = list_archive if stream.read(4) == b"PK\x03\x04" else list_hdf5
    found = in_child(listing, path, "The HDF5 library", modules=("h5py",))
    tensors = [keras_file._tensor(path, dataset) for dataset in found.datasets]
    table = _verbatim(path, [(t.name, t.shape, t.dtype, t.load) for t in tensors])
    return StoredFile(tensors=table, left_out=tuple(found.unread), files=(path,))


def _from_onnx(path: Path) -> StoredFile:
    weights, unread = in_child(initializers, path, "onnx", ("onnx", "ml_dtypes"))
    table = _verbatim(path, [(w.name, w.shape, w.dtype, w.load) for w in weights])
    files = {path, *(weight.span.file for weight in weights if weight.span is not None)}
    return StoredFile(tensors=table, left_out=tuple(unread), files=tuple(files))


def initializers(path: Path) -> tuple[list[Weight], list[Skipped]]:
    """Return the named tensors of an ONNX file: what the child process does."""
    import onnx

    model = onnx.ModelProto()
    model.ParseFromString(path.read_bytes())
    weights, unread = [], []
    for proto in model.graph.initializer:
        try:
            weights.append(read_tensor(proto, text(proto.name), path.parent))
        except ValueError as error:
            unread.append(Skipped(name=text(proto.name), reason=str(error)))
    unread += [
        Skipped(name=text(sparse.values.name), reason="a sparse tensor; save it dense")
        for sparse in model.graph.sparse_initializer
    ]
    return weights, unread


def _from_torch(path: Path) -> StoredFile:
    torch_file._require_torch(path)
    sent, unread = in_child(state_dict, path, "PyTorch", ("torch",))
    found = [(name, shape, dtype, functools.partial(np.asarray, raw)) for name, shape, dtype, raw, _ in sent]
    table = _verbatim(path, found)
    places: dict[tuple[int, ...], list[str]] = {}
    for name, _, _, raw, place in sent:
        if raw.size:
            places.setdefault(place, []).append(name)
    tied = tuple(tuple(names) for names in places.values() if len(names) > 1)
    return StoredFile(tensors=table, left_out=tuple(unread), tied=tied, files=(path,))


def state_dict(path: Path) -> tuple[list[_Sent], list[Skipped]]:
    """Return the tensors of a PyTorch file, integers included: what the child process does.

    Raises
    ------
    ModelError
        As `torch_file.read`.
    """
    import torch

    # The reader has judged the file already; here its numbers are taken as bytes.
    torch_file.parse(path)
    _, is_zip = torch_file._check_container(path)
    found, unread = flatten(torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip), torch.is_tensor)
    sent: list[_Sent] = []
    for name, value in found.items():
        reason = torch_file._refusal(torch, value)
        if reason:
            unread.append(Skipped(name=name, reason=reason))
            continue
        plain = value.detach().resolve_neg().resolve_conj().contiguous()
        raw = plain.reshape(-1).view(torch.uint8).numpy()
        place = (value.untyped_storage().data_ptr(), value.storage_offset(), *value.shape, *value.stride())
        sent.append((name, tuple(value.shape), torch_file._dtype(value), raw, place))
    return sent, unread


def _verbatim(
    path: Path, found: Sequence[tuple[str, tuple[int, ...], str, Callable[[], NDArray[Any]]]]
) -> dict[str, Verbatim]:
    types = {name: _type(dtype) for name, _, dtype, _ in found}
    unknown = [(name, dtype) for name, _, dtype, _ in found if types[name] is None]
    if unknown:
        raise _unwritable(path, unknown)
    return {
        name: Verbatim(name=name, type=str(types[name]), shape=shape, bytes=functools.partial(_bytes, load))
        for name, shape, _, load in found
    }


def _type(dtype: str) -> str | None:
    if dtype in _TYPES:
        return _TYPES[dtype]
    try:
        return _TYPES.get(np.dtype(dtype).name)  # of either byte order
    except TypeError:
        return None


def _unwritable(path: Path, tensors: Sequence[tuple[str, str]]) -> ModelError:
    shown = ", ".join(f"{name} ({dtype})" for name, dtype in tensors[:5])
    more = f" and {len(tensors) - 5} more" if len(tensors) > 5 else ""
    return ModelError(
        f"{path.name} holds numbers for which .safetensors has no type: {shown}{more}. Nothing may be lost, so "
        "nothing is written: save the file without these tensors, or convert them."
    )


def _bytes(load: Callable[[], NDArray[Any]]) -> Bytes:
    array = np.ascontiguousarray(load()).reshape(-1)
    if array.dtype.byteorder == ">":
        array = array.byteswap()
    return array.view(np.uint8)
