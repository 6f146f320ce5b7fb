"""What is written and read in what order: a record is there entirely or not at all, whatever ends the process."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spectral_conv.store._files import PROBE, TEMPORARY, probe, sync_folders, unwritable, write_files
from spectral_conv.store._layout import (
    BLOCK,
    COMMIT,
    DIM,
    EMPTY,
    Metadata,
    check_complete,
    check_fit,
    chunk_file,
    compressed,
    decoded,
    encoded,
    encoded_part,
    foreign,
    grown,
    length,
    new_metadata,
    packed_state,
    record_arrays,
    unpacked_state,
)
from spectral_conv.store._lock import Lock, lock_of
from spectral_conv.store._netcdf import netcdf

if TYPE_CHECKING:
    import xarray as xr

# All that a process killed before the first commit file leaves.
_OURS = {COMMIT + TEMPORARY, PROBE, PROBE + TEMPORARY}


class SpectrumStore:
    """A folder of records along `iteration`, appended one by one, each entirely or not at all.

    ``xarray.open_zarr(path)``, without further arguments, reads it at any time. It must read the consolidated
    metadata, as it does by default: with ``consolidated=False`` it finds no variable (and zarr warns of that). Do not
    call ``zarr.consolidate_metadata`` on it.

    The first append or `check` takes the right to append for this process, until its last store of that folder is
    gone; where the platform or file system knows no `flock`, one must take care that only one process appends.

    Parameters
    ----------
    path : str or PathLike
        The folder; made by the first append, in a folder that exists. Nothing is touched before.

    Examples
    --------
    >>> import tempfile, numpy as np, xarray as xr
    >>> from spectral_conv.store import SpectrumStore
    >>> folder = tempfile.TemporaryDirectory()
    >>> store = SpectrumStore(f"{folder.name}/run.zarr")
    >>> store.append(xr.Dataset({"penalty": ("iteration", [2.5])}, {"iteration": [0]}), {"rows": np.eye(2)})
    >>> store.last_iteration, store.state()["rows"].shape
    (0, (2, 2))
    >>> folder.cleanup()
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._raw = b""
        self._metadata: Metadata = {}
        self._chunks: dict[str, NDArray[Any]] = {}  # the last chunk of each small array; valid with `_raw`
        self._lock: Lock | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({os.fspath(self.path)!r})"

    @property
    def last_iteration(self) -> int | None:
        """Number of the last record, None if there is none."""
        count = length(self._committed())
        return count - 1 if count else None

    def check(self, record: xr.Dataset) -> None:
        """Raise what `append` would raise, as far as it can be known; the number of the iteration may be any.

        Parameters
        ----------
        record : xarray.Dataset
            A record like those to come.

        Raises
        ------
        ValueError
            A record that is none or does not fit the stored ones; a folder of something else or of another schema.
        OSError
            A folder that cannot be written, or that another process appends to.
        """
        metadata = new_metadata(record_arrays(record), record)
        encoded(metadata)
        made = self._make()
        try:
            with self._locked():
                stored = self._committed()
                if length(stored):
                    check_fit(stored, metadata)
                probe(self.path, BLOCK)
        finally:
            if made:
                with contextlib.suppress(OSError):
                    self.path.rmdir()

    def append(self, record: xr.Dataset, state: Mapping[str, NDArray[Any]] | None = None) -> None:
        """Add a record; what this returned from is kept, what it did not return from is not there, or entirely.

        Parameters
        ----------
        record : xarray.Dataset
            Every variable with `iteration` as first dimension, of length 1, numbered one above the last record, the
            first one 0; coordinates may be without, and are stored with the first record, as are all attributes.
        state : dict of ndarray, optional
            Arrays of any shape and dtype to go on from; those of the last record are kept.

        Raises
        ------
        ValueError, OSError
            See `check`. Nothing is lost, and the same record may be appended again.
        """
        arrays, packed = record_arrays(record), packed_state(state or {})
        if self.last_iteration is None:
            self.check(record)
        self._make()
        with self._locked():
            stored = self._committed()
            count, number = length(stored), int(arrays[DIM].values[0])
            if number != count:
                raise ValueError(
                    f"`record` must have the iteration {count}, the next one of {self.path}; got {number}. Append "
                    "the iterations in order, by one run alone, or choose another path."
                )
            metadata = new_metadata(arrays, record)
            if count:
                check_fit(stored, metadata)
                metadata = grown(stored)
            try:
                self._commit(arrays, packed, metadata, count)
            except OSError as error:
                raise OSError(
                    error.errno,
                    f"Iteration {count} could not be stored in {self.path}: {error.strerror or error}. Nothing was "
                    f"lost: {count} iterations are kept. Free space or mend the disk, then append it again or resume",
                ) from error
            # Visible from here on: an error now would have the caller repeat what is kept.
            with contextlib.suppress(OSError):
                sync_folders([self.path] if count else [self.path, self.path.parent])
            for stale in set(self.path.glob(".state-*")) - {self._state_file(count)}:
                with contextlib.suppress(OSError):
                    stale.unlink()

    def open(self) -> xr.Dataset:
        """Load all records.

        Raises
        ------
        FileNotFoundError
            There is none.
        OSError
            Files were removed from the folder.
        """
        import xarray as xr

        metadata = self._committed()
        if not length(metadata):
            raise FileNotFoundError(f"`path` must be a store with a record; {self.path} has none. Append one first.")
        check_complete(self.path, metadata)
        with xr.open_zarr(self.path, consolidated=True, chunks=None) as stored:
            return stored.load().drop_encoding()

    def state(self) -> dict[str, NDArray[Any]]:
        """Load the `state` of the last record, bit for bit; empty if it had none or there is no record."""
        while (last := self.last_iteration) is not None:
            try:
                return unpacked_state(self._state_file(last).read_bytes())
            except FileNotFoundError:
                if self.last_iteration == last:  # otherwise another process went on meanwhile
                    raise
        return {}

    def to_netcdf(self, path: str | os.PathLike[str]) -> None:
        """Write all records into one netCDF file, which replaces one of that name as a whole.

        It is netCDF 3, which every reader knows and SciPy writes: booleans are marked integers, which xarray turns
        back; integers have 32 bits or, where those do not do, become float64; attributes that are neither text nor
        numbers become their text.

        Parameters
        ----------
        path : str or PathLike
            The file, in a folder that exists.
        """
        content = netcdf(self.open())
        try:
            write_files({Path(path): content})
        except OSError as error:
            raise unwritable(Path(path), error) from error

    def _state_file(self, number: int) -> Path:
        return self.path / f".state-{number}.npz"

    def _committed(self) -> Metadata:
        """Metadata of all that is acknowledged; without arrays before the first record is, empty without a store."""
        try:
            raw = (self.path / COMMIT).read_bytes()
        except FileNotFoundError:
            return {}
        except NotADirectoryError:
            raise NotADirectoryError(
                f"`path` must be a folder; {self.path} is a file. Choose another path."
            ) from None
        if raw != self._raw:
            metadata = decoded(raw, self.path)
            self._raw, self._metadata, self._chunks = raw, metadata, {}
        return self._metadata

    def _make(self) -> bool:
        """Make the folder, unless it is there and ours or empty."""
        try:
            os.mkdir(self.path)
        except FileExistsError:
            if not self._committed() and set(os.listdir(self.path)) - _OURS:
                raise foreign(self.path) from None
            return False
        except OSError as error:
            raise unwritable(self.path, error) from error
        return True

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self._lock = lock_of(self.path)
        with self._lock.mutex:
            yield

    def _commit(self, arrays: dict[str, xr.Variable], packed: bytes, metadata: Metadata, count: int) -> None:
        """Write what lies beyond the committed length, then replace the commit file."""
        raw = encoded(metadata)
        if not count:
            # From here on the folder is recognized as ours.
            write_files({self.path / COMMIT: encoded(EMPTY)})
        files = {self._state_file(count): packed}
        if not count:
            files |= {self.path / key: encoded_part(metadata[key]) for key in EMPTY}
        for name, variable in arrays.items():
            folder, layout = self.path / name, metadata[f"{name}/.zarray"]
            if DIM in variable.dims:
                chunk = self._chunk(name, variable.values, layout, count)
                files[folder / chunk_file(count // layout["chunks"][0], layout)] = chunk
            elif not count:
                files[folder / chunk_file(0, layout)] = variable.values.tobytes()
            if not count:
                folder.mkdir(exist_ok=True)
        write_files(files)
        sync_folders({path.parent for path in files})
        write_files({self.path / COMMIT: raw})
        self._raw, self._metadata = raw, metadata

    def _chunk(self, name: str, values: NDArray[Any], layout: Metadata, count: int) -> bytes:
        """Return the chunk of iteration `count`: the committed iterations in it, and the new one."""
        if layout["compressor"]:
            return compressed(values, layout)
        rows = layout["chunks"][0]
        if count % rows == 0:
            self._chunks[name] = np.zeros((rows, *values.shape[1:]), values.dtype)
        elif name not in self._chunks:
            raw = (self.path / name / chunk_file(count // rows, layout)).read_bytes()
            self._chunks[name] = np.frombuffer(raw, values.dtype).reshape(rows, *values.shape[1:]).copy()
        self._chunks[name][count % rows] = values[0]
        return self._chunks[name].tobytes()
