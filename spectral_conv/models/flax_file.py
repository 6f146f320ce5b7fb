"""Flax parameters (``.msgpack``, as ``flax.serialization.to_bytes`` writes them): nested maps of arrays."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from spectral_conv.models._contents import Contents, StoredTensor
from spectral_conv.models._model import ModelError, Skipped

FORMAT = "Flax parameters"
SUFFIXES: tuple[str, ...] = (".msgpack",)

_ARRAY, _COMPLEX, _SCALAR = 1, 2, 3  # the extension types of Flax
_CHUNKED = "__msgpack_chunked_array__"
_DEEPEST = 64
_LARGEST = 8 * 2**30  # bytes
_EXTENDED = ("bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")


def can_open(path: Path, head: bytes) -> bool:
    """Say whether the file has the suffix and begins with a map: the format has no magic number."""
    return path.suffix.lower() in SUFFIXES and (0x80 <= head[0] <= 0x8F or head[0] in (0xDE, 0xDF))


def read(path: Path) -> Contents:
    """List the arrays; their names are the keys on the way to them, joined by ``/``.

    Raises
    ------
    ModelError
        msgpack is missing, or the file is damaged.
    """
    msgpack = _import_msgpack(path)
    size = path.stat().st_size
    if size > _LARGEST:
        raise ModelError(f"{path.name} has {size} bytes; such files are read whole, up to {_LARGEST}. Split it.")
    tree = _unpack(msgpack, path)
    if not isinstance(tree, Mapping):
        raise ModelError(f"{path.name} is no map of parameters. Save it with flax.serialization.to_bytes(params).")
    tensors: dict[str, StoredTensor] = {}
    unread: list[Skipped] = []
    for way, value in _leaves(tree, ()):
        name = "/".join(way)
        if "opt_state" in way:
            reason: str | None = "the state of the optimizer, no weights of the network"
        else:
            found = _tensor(msgpack, path, name, value)
            reason = found if isinstance(found, str) else None
            if isinstance(found, StoredTensor):
                if name in tensors:
                    raise ModelError(f"{path.name} holds two arrays called {name!r}. Save plain names.")
                tensors[name] = found
        if reason is not None:
            unread.append(Skipped(name=name, reason=reason))
    return Contents(tensors=tensors, unread=tuple(unread))


def _import_msgpack(path: Path) -> ModuleType:
    try:
        import msgpack
    except ImportError as error:
        raise ModelError(
            f"Reading {path.name} needs msgpack, which is not installed. Install it with "
            "pip install 'spectral-conv[models]', or save the weights as .safetensors or .npz."
        ) from error
    return cast(ModuleType, msgpack)


def _unpack(msgpack: ModuleType, path: Path) -> Any:
    try:
        # Lengths that the file claims are checked against its size by the package itself.
        return msgpack.unpackb(path.read_bytes(), raw=False, strict_map_key=False)
    except Exception as error:  # the package raises many types for damaged files
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise ModelError(
            f"{path.name} cannot be read as Flax parameters: {first_line}. The file is truncated or damaged; copy or "
            "download it again."
        ) from error


def _leaves(tree: Mapping[Any, Any], way: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if len(way) > _DEEPEST:
        raise ModelError(f"The parameters are nested more than {_DEEPEST} levels deep. Save a plain tree.")
    for key, value in tree.items():
        here = (*way, str(key))
        if isinstance(value, Mapping) and _CHUNKED not in value:
            yield from _leaves(value, here)
        else:
            yield here, value


def _tensor(msgpack: ModuleType, path: Path, name: str, value: Any) -> StoredTensor | str:
    """Return the array, or the reason why it is none."""
    try:
        if isinstance(value, Mapping):
            shape, parts = _chunks(value)
        else:
            shape, parts = None, [value]
        arrays = [_array(msgpack, part) for part in parts]
    except (ValueError, TypeError, KeyError, msgpack.exceptions.UnpackException) as error:
        return f"no array: {str(error)[:160]}"
    dtype = arrays[0][1]
    shape = arrays[0][0] if shape is None else shape
    if any(part[1] != dtype for part in arrays) or sum(math.prod(part[0]) for part in arrays) != math.prod(shape):
        return f"its parts do not add up to the shape {list(shape)}"
    return StoredTensor(
        name=name,
        shape=shape,
        dtype=dtype.name,
        floating=dtype.kind == "f" or dtype.name in _EXTENDED,
        load=functools.partial(_load, [part[2] for part in arrays], dtype, shape),
    )


def _chunks(value: Mapping[str, Any]) -> tuple[tuple[int, ...], list[Any]]:
    """Flax splits arrays beyond 1 GB: {"shape": {"0": 3, ...}, "chunks": {"0": array, ...}}."""
    shape, chunks = (_listed(value[key]) for key in ("shape", "chunks"))
    if not chunks:
        raise ValueError("an array in parts has none")
    return _checked(shape), chunks


def _listed(items: Any) -> list[Any]:
    return [items[str(i)] for i in range(len(items))] if isinstance(items, Mapping) else list(items)


def _array(msgpack: ModuleType, value: Any) -> tuple[tuple[int, ...], np.dtype[Any], bytes]:
    if not isinstance(value, msgpack.ExtType):
        raise ValueError(f"a {type(value).__name__}")
    if value.code not in (_ARRAY, _SCALAR):
        raise ValueError("a complex number" if value.code == _COMPLEX else f"of the unknown type {value.code}")
    shape, name, content = msgpack.unpackb(value.data, raw=False)
    if not isinstance(content, bytes) or not isinstance(name, str):
        raise ValueError("shape, type and bytes are expected")
    dtype, sizes = _numpy_type(name), _checked(shape)
    if math.prod(sizes) * dtype.itemsize != len(content):
        raise ValueError(f"the shape {list(sizes)} of {name} with {len(content)} bytes")
    return sizes, dtype, content


def _checked(shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, list) or len(shape) > 32 or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError("its shape is no list of sizes")
    return tuple(shape)


def _numpy_type(name: str) -> np.dtype[Any]:
    if name in _EXTENDED:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, name))
    dtype: np.dtype[Any] = np.dtype(name[:40])
    if dtype.hasobject or dtype.kind not in "fiubc":
        raise ValueError(f"of the type {name[:40]!r}")
    return dtype


def _load(parts: list[bytes], dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    return np.frombuffer(b"".join(parts) if len(parts) > 1 else parts[0], dtype).reshape(shape)
