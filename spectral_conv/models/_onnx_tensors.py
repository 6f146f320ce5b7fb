"""Tensors of an ONNX file as arrays, those in other files of its folder included."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectral_conv.models._entry import short
from spectral_conv.models._model import ModelError

_FLOATS = {"float16", "float32", "float64", "bfloat16"} | {
    f"float8_{kind}" for kind in ("e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz")
}
_MOST_AXES = 64


@dataclass(frozen=True, kw_only=True)
class Span:
    """Where the numbers of a tensor lie in another file."""

    file: Path
    offset: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Weight:
    """One tensor, with its numbers or the place where they are."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    values: NDArray[Any] | None = None
    span: Span | None = None

    @property
    def floating(self) -> bool:
        """Whether the numbers are real floating-point numbers."""
        return self.dtype in _FLOATS

    def load(self) -> NDArray[Any]:
        """Return the numbers.

        Raises
        ------
        ModelError
            The other file is shorter than it was.
        """
        if self.values is not None:
            return self.values
        assert self.span is not None
        count = math.prod(self.shape)
        numbers = np.fromfile(self.span.file, _numpy_type(self.dtype), count=count, offset=self.span.offset)
        if numbers.size != count:
            raise ModelError(
                f"{self.name!r} in {self.span.file.name} is cut off: the file changed while it was read."
            )
        return numbers.reshape(self.shape)


def text(value: str | bytes) -> str:
    """Return a string of the file; protobuf hands over bytes where they are no UTF-8."""
    return value if isinstance(value, str) else value.decode("utf-8", "backslashreplace")


def read_tensor(proto: Any, name: str, folder: Path) -> Weight:
    """Read a TensorProto.

    Raises
    ------
    ValueError
        It is damaged, or refers to a file that must not be read; says why.
    """
    import onnx

    if proto.data_type == onnx.TensorProto.STRING:
        raise ValueError("it holds text")
    if len(proto.dims) > _MOST_AXES or any(size < 0 for size in proto.dims):
        raise ValueError(f"its shape {short(list(proto.dims[:9]))} is impossible")
    shape = tuple(int(size) for size in proto.dims)
    try:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(proto.data_type))
    except (KeyError, TypeError) as error:
        raise ValueError(f"its number format {proto.data_type} is unknown") from error
    if proto.data_location == onnx.TensorProto.EXTERNAL:
        if dtype.name not in _FLOATS and dtype.kind not in "iub":
            raise ValueError(f"its numbers are {dtype.name} and lie in another file; put them into the model file")
        return Weight(
            name=name, shape=shape, dtype=dtype.name, span=_span(proto, folder, math.prod(shape) * dtype.itemsize)
        )
    try:
        values = onnx.numpy_helper.to_array(proto)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise ValueError(f"it is damaged: {short(str(error), 120)}") from error
    return Weight(name=name, shape=values.shape, dtype=values.dtype.name, values=values)


def _span(proto: Any, folder: Path, size: int) -> Span:
    entries = {text(entry.key): text(entry.value) for entry in proto.external_data}
    location = entries.get("location", "")
    file = _inside(folder, location)
    numbers = [entries.get("offset") or "0", entries.get("length") or str(size)]
    if not all(re.fullmatch(r"[0-9]{1,18}", text) for text in numbers):
        raise ValueError(f"its place in {location!r} is not given in bytes: {short(numbers)}")
    offset, length = map(int, numbers)
    if length != size:
        raise ValueError(f"its shape needs {size} bytes, {length} are set aside for it in {location!r}")
    if offset + length > file.stat().st_size:
        raise ValueError(
            f"{location!r} is truncated: it holds {file.stat().st_size} bytes, the tensor ends at {offset + length}"
        )
    return Span(file=file, offset=offset)


def _inside(folder: Path, location: str) -> Path:
    """Return the file at `location`; a model file has no business outside its own folder."""
    outside = f"its numbers are said to lie in {short(location)}, outside the folder of the model: refused"
    parts = re.split(r"[\\/]", location)
    if not location or "\0" in location or parts[0] == "" or ".." in parts or ":" in parts[0]:
        raise ValueError(outside)
    try:
        root = folder.resolve()
        file = (root / location).resolve()
        inside, present = file.is_relative_to(root), file.is_file()
    except (OSError, RuntimeError) as error:
        raise ValueError(f"its numbers are said to lie in {short(location)}: {error}") from error
    if not inside:
        raise ValueError(outside)
    if not present:
        raise ValueError(f"its numbers lie in {location!r}, which is missing; put that file beside the model")
    return file


def _numpy_type(name: str) -> np.dtype[Any]:
    if name == "bfloat16" or name.startswith("float8"):
        import ml_dtypes

        extended: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return extended
    return np.dtype(name).newbyteorder("<")
