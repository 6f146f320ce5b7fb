"""What a record becomes in Zarr's format 2, and what may follow it; apart from when and how that reaches the disk."""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import xarray as xr

SCHEMA = 1
DIM = "iteration"
# The one file whose replacement commits. Zarr's format 2, because its consolidated metadata is in its specification
# (that of format 3 is not, zarr says so in a warning), its `fill_value` may be null, so that no number reads as
# missing, and both are frozen: we write the files, which takes neither zarr's import nor trust in how it writes.
# Arrays have no metadata of their own: whoever looks past the consolidated ones finds nothing, rather than torn data.
COMMIT = ".zmetadata"
# A chunk of small records fills one block of the disk, whose replacement costs no more than that of one number.
BLOCK = 4096
_DECODED = {"_FillValue", "missing_value", "scale_factor", "add_offset", "_Unsigned", "dtype", "coordinates"}
_TIMES = {"nanoseconds", "microseconds", "milliseconds", "seconds", "minutes", "hours", "days"}
Metadata = dict[str, Any]
EMPTY: Metadata = {".zgroup": {"zarr_format": 2}, ".zattrs": {"schema": SCHEMA}}


def record_arrays(record: xr.Dataset) -> dict[str, xr.Variable]:
    """Check that a dataset is a record; return its variables, little-endian."""
    if DIM not in record.variables or record[DIM].dtype.kind not in "iu":
        raise ValueError(f"`record` must have an integer coordinate {DIM!r}; got {list(record.variables)}. Add it.")
    arrays = {}
    for name, variable in record.variables.items():
        if not isinstance(name, str) or not name or name.startswith(".") or set(name) & set('/\\:*?"<>|'):
            raise ValueError(f"`record` must have variables whose names can be those of folders; got {name!r}.")
        if (name in record.data_vars or DIM in variable.dims) and (
            variable.dims[:1] != (DIM,) or variable.shape[0] != 1
        ):
            raise ValueError(
                f"`record` must have {DIM!r} as first dimension of every variable, of length 1; got {name!r} with "
                f"{dict(variable.sizes)}. Append iterations one by one; what does not change is a coordinate."
            )
        dtype = variable.dtype
        if dtype.kind not in "biufcU" or dtype.itemsize > {"f": 8, "c": 16}.get(dtype.kind, dtype.itemsize):
            raise ValueError(
                f"`record` must hold booleans, numbers of at most 64 bits or text of fixed length; got {name!r} of "
                f"dtype {dtype}. Convert it."
            )
        # What xarray decodes would come back as something else.
        units = str(variable.attrs.get("units"))
        if _DECODED & set(variable.attrs) or " since " in units or units in _TIMES:
            raise ValueError(
                f"`record` must have attributes that xarray does not decode; got {name!r} with {variable.attrs}. "
                "Rename them, write units of time as symbols (s, h, d)."
            )
        arrays[name] = variable.to_base_variable().astype(np.dtype(dtype).newbyteorder("<"), copy=False)
    return arrays


def new_metadata(arrays: dict[str, xr.Variable], record: xr.Dataset) -> Metadata:
    """Return the metadata of a store of one record."""
    attrs = {**record.attrs, "schema": SCHEMA}
    # Where xarray looks for the names of coordinates that are no dimensions.
    if others := sorted(str(name) for name in record.coords if name not in record.dims):
        attrs["coordinates"] = " ".join(others)
    metadata: Metadata = {**EMPTY, ".zattrs": attrs}
    for name, variable in arrays.items():
        dimensions, sizes = [str(dimension) for dimension in variable.dims], list(variable.shape)
        rows = max(1, BLOCK // max(1, variable.nbytes))
        metadata[f"{name}/.zarray"] = {
            "zarr_format": 2,
            "shape": sizes,
            "chunks": [rows] * (DIM in dimensions) + [max(1, size) for size in sizes[DIM in dimensions :]],
            "dtype": variable.dtype.str,
            # Spectra that were not computed shrink to nothing; small arrays stay open to be continued.
            "compressor": {"id": "zstd", "level": 1} if rows == 1 and DIM in dimensions else None,
            "fill_value": None,
            "filters": None,
            "order": "C",
        }
        metadata[f"{name}/.zattrs"] = {**variable.attrs, "_ARRAY_DIMENSIONS": dimensions}
    return metadata


def grown(stored: Metadata) -> Metadata:
    """Return the metadata of one record more."""
    metadata = dict(stored)
    for name in array_names(stored):
        if _grows(stored, name):
            layout = stored[f"{name}/.zarray"]
            metadata[f"{name}/.zarray"] = {**layout, "shape": [layout["shape"][0] + 1, *layout["shape"][1:]]}
    return metadata


def check_fit(stored: Metadata, new: Metadata) -> None:
    """Raise where a record does not fit the stored ones."""
    for name in sorted({*array_names(stored), *array_names(new)}):
        kept, came = _described(stored, name), _described(new, name)
        if kept != came:
            raise ValueError(
                f"`record` must fit the stored ones; {name!r} is stored as {kept}, came as {came}. Go on with the "
                "layer and the options that the run started with, or choose another path."
            )


def _described(metadata: Metadata, name: str) -> str:
    """Say all that must not change of a variable."""
    if f"{name}/.zarray" not in metadata:
        return "nothing"
    layout, dimensions = metadata[f"{name}/.zarray"], metadata[f"{name}/.zattrs"]["_ARRAY_DIMENSIONS"]
    sizes = (d if d == DIM else f"{d}: {n}" for d, n in zip(dimensions, layout["shape"], strict=True))
    return f"{np.dtype(layout['dtype']).name} ({', '.join(sizes)})"


def array_names(metadata: Metadata) -> list[str]:
    return [key.removesuffix("/.zarray") for key in metadata if key.endswith("/.zarray")]


def _grows(metadata: Metadata, name: str) -> bool:
    return DIM in metadata[f"{name}/.zattrs"]["_ARRAY_DIMENSIONS"]


def length(metadata: Metadata) -> int:
    """Return how many records are stored."""
    return int(metadata[f"{DIM}/.zarray"]["shape"][0]) if metadata.keys() - EMPTY.keys() else 0


def chunk_file(index: int, layout: Metadata) -> str:
    """Return the file of a chunk; only the first axis has several."""
    return ".".join([str(index), *"0" * (len(layout["shape"]) - 1)])


def compressed(values: NDArray[Any], layout: Metadata) -> bytes:
    """Return the chunk of an array whose chunks are compressed."""
    from numcodecs.zstd import Zstd  # type: ignore[import-untyped,unused-ignore]

    return bytes(Zstd(level=layout["compressor"]["level"]).encode(values.tobytes()))


def check_complete(folder: Path, metadata: Metadata) -> None:
    """Raise where a chunk is gone: it would be read as zeros."""
    for name in array_names(metadata):
        layout = metadata[f"{name}/.zarray"]
        chunks = -(-layout["shape"][0] // layout["chunks"][0]) if _grows(metadata, name) else 1
        there = set(os.listdir(folder / name)) if (folder / name).is_dir() else set()
        missing = sorted({chunk_file(index, layout) for index in range(chunks)} - there)
        if missing:
            raise OSError(
                errno.ENOENT,
                f"{folder} is damaged: {len(missing)} files of {name!r} are gone, the first is {missing[0]}. "
                "Restore it from a copy",
            )


def encoded(metadata: Metadata) -> bytes:
    """Return the commit file."""
    # Unique, so that what one object remembers of a store cannot pass for that of another one in its place.
    commit = os.urandom(16).hex()
    return encoded_part({"zarr_consolidated_format": 1, "commit": commit, "metadata": metadata})


def encoded_part(part: Metadata) -> bytes:
    try:
        return json.dumps(part, default=_jsonable).encode()
    except TypeError as error:
        raise ValueError(f"`record` must have attributes of text and numbers; {error}. Convert them.") from error


def _jsonable(value: object) -> object:
    """Return NumPy's numbers and arrays as Python's."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"got {value!r} of type {type(value).__name__}")


def decoded(raw: bytes, folder: Path) -> Metadata:
    """Return the metadata in a commit file; raise where it is that of something else."""
    try:
        metadata: Metadata = json.loads(raw)["metadata"]
        schema = metadata[".zattrs"]["schema"]
    except (ValueError, TypeError, KeyError):
        raise foreign(folder) from None
    if schema != SCHEMA:
        raise ValueError(
            f"`path` must hold a store of schema {SCHEMA}; {folder} has schema {schema}. Read it with the "
            "version of spectral_conv that its attributes name, or choose another path."
        )
    return metadata


def foreign(folder: Path) -> ValueError:
    """Return the error of a folder that is not ours."""
    return ValueError(
        f"`path` must be a SpectrumStore, an empty folder or new; {folder} holds something else. Choose another path."
    )


def packed_state(state: Mapping[str, NDArray[Any]]) -> bytes:
    """Return arrays as the bytes of an .npz file, by number: names may be any."""
    arrays = [np.asarray(array) for array in state.values()]
    for name, array in zip(state, arrays, strict=True):
        if array.dtype.hasobject:
            raise ValueError(f"`state` must hold arrays of numbers; got {name!r} of dtype {array.dtype}. Convert it.")
    buffer = io.BytesIO()
    np.savez(buffer, *arrays, names=np.array(list(state), dtype=np.str_))
    return buffer.getvalue()


def unpacked_state(raw: bytes) -> dict[str, NDArray[Any]]:
    """Return what was packed."""
    with np.load(io.BytesIO(raw), allow_pickle=False) as file:
        return {str(name): file[f"arr_{i}"] for i, name in enumerate(file["names"])}
