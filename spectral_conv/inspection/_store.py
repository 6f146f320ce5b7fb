"""A folder of inspections: the results of layers, and for each model its labelled table as a group of Zarr."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spectral_conv._whole_file import write_whole
from spectral_conv.inspection._records import SCHEMA

if TYPE_CHECKING:
    import xarray as xr

# Zarr's format 2: its consolidated metadata is in its specification, that of format 3 is not.
COMMIT = ".zmetadata"
KIND = "spectral_conv inspections"
_ROOT: dict[str, dict[str, Any]] = {".zgroup": {"zarr_format": 2}, ".zattrs": {"kind": KIND, "schema": SCHEMA}}
_NEW, _OLD = ".new-", ".old-"
_ABANDONED = 3600.0  # seconds after which what a killed run left is swept up; another run may be at work


class InspectionStore:
    """The results of a run, to go on from and to read with xarray.

    ``xarray.open_zarr(path / name)`` gives the table of one model as soon as the model is done, and
    ``xarray.open_datatree(path, engine="zarr")`` all of them after the run. Several runs may write to one store at a
    time.

    Parameters
    ----------
    path : str or PathLike
        The folder, in one that exists. One that exists must be empty or such a store.

    Raises
    ------
    ValueError
        The folder is something else, or of another schema.
    OSError
        It cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sorted(entry.name for entry in InspectionStore(f"{folder}/results.zarr").path.iterdir())
    ['.layers', '.zattrs', '.zgroup', '.zmetadata']
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        try:
            self.path.mkdir(exist_ok=True)
            if not self._is_ours():
                _write_json(self.path / COMMIT, _consolidated(_ROOT))
            for name, content in _ROOT.items():  # again, to know before the work that it can be written
                _write_json(self.path / name, content)
            self.records.mkdir(exist_ok=True)
        except OSError as error:
            raise OSError(
                error.errno,
                f"`store` must be a folder that can be written; {self.path}: {error.strerror or error} Make the "
                "folder that it is in, free space, or choose another path",
            ) from error
        self._sweep()

    @property
    def records(self) -> Path:
        """The folder of the results of layers."""
        return self.path / ".layers"

    def write_table(self, name: str, identity: str, table: xr.Dataset) -> str:
        """Put the table of a model in its place, whole or not at all; return the name of its group.

        Parameters
        ----------
        name : str
            Name of the model.
        identity : str
            What tells models of equal names apart.
        table : xarray.Dataset
            It replaces the one of an earlier run, unless it says the same.
        """
        group = group_name(name, identity)
        digest = hashlib.sha256(json.dumps(table.to_dict(), sort_keys=True).encode()).hexdigest()
        place = self.path / group
        if _attributes(place).get("digest") == digest:
            return group
        new = self.path / f"{_NEW}{uuid.uuid4().hex}"
        try:
            _encodable(table).assign_attrs(digest=digest).to_zarr(new, mode="w-", zarr_format=2, consolidated=True)
            _put(new, place)
        except OSError as error:
            raise OSError(
                error.errno,
                f"The table of {name} could not be written to {self.path}: {error.strerror or error}. Nothing was "
                "lost: free space or mend the disk, and run it again.",
            ) from error
        finally:
            shutil.rmtree(new, ignore_errors=True)
        return group

    def consolidate(self) -> None:
        """Gather the metadata of all groups in one file, so that all tables open at once."""
        metadata = dict(_ROOT)
        for place in sorted(self.path.iterdir()):
            if not place.name.startswith("."):
                # No group of ours, replaced by another run just now, or cut off by a loss of power.
                with contextlib.suppress(FileNotFoundError, NotADirectoryError, ValueError):
                    part = json.loads((place / COMMIT).read_bytes())["metadata"]
                    metadata |= {f"{place.name}/{key}": value for key, value in part.items()}
        _write_json(self.path / COMMIT, _consolidated(metadata))

    def _is_ours(self) -> bool:
        """Whether there is a store; False for an empty folder."""
        try:
            attributes = json.loads((self.path / COMMIT).read_bytes())["metadata"][".zattrs"]
            kind, schema = attributes["kind"], attributes["schema"]
        except FileNotFoundError:
            # What a run leaves that was killed while it made the folder.
            if all(name.startswith(f".{COMMIT}.") for name in os.listdir(self.path)):
                return False
            kind = schema = None
        except (ValueError, LookupError, TypeError):
            kind = schema = None
        if kind != KIND:
            raise ValueError(
                f"`store` must be a store of inspections, an empty folder or new; {self.path} holds something else. "
                "Choose another path."
            )
        if schema != SCHEMA:
            raise ValueError(
                f"`store` must have schema {SCHEMA}; {self.path} has schema {schema}. Choose another path, or use "
                "the version of spectral_conv that wrote it."
            )
        return True

    def _sweep(self) -> None:
        for folder in self.path.iterdir():
            if folder.name.startswith((_NEW, _OLD)):
                with contextlib.suppress(OSError):
                    if time.time() - folder.stat().st_mtime > _ABANDONED:
                        shutil.rmtree(folder)


def group_name(name: str, identity: str) -> str:
    """Return a name that every file system takes, unique for the identity.

    Examples
    --------
    >>> group_name("../a b?.pt", "/models/a b?.pt")
    'a_b_.pt-4062a0114b77597c'
    """
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip("._-")[:80]
    return f"{safe or 'model'}-{hashlib.sha256(identity.encode(errors='surrogateescape')).hexdigest()[:16]}"


def _encodable(table: xr.Dataset) -> xr.Dataset:
    """Return a table with surrogates, which names in files may have but UTF-8 has not, as escapes."""
    escape = np.frompyfunc(lambda text: text.encode(errors="backslashreplace").decode(), 1, 1)
    texts = {name: v.copy(data=escape(v.values)) for name, v in table.variables.items() if v.dtype == object}
    coords = {name: texts.pop(name) for name in table.coords}
    return table.assign(texts).assign_coords(coords)


def _put(new: Path, place: Path) -> None:
    """Put a folder in the place of another, also where other runs do so at the same time."""
    while True:
        old = place.with_name(f"{_OLD}{uuid.uuid4().hex}")
        try:
            with contextlib.suppress(FileNotFoundError):
                os.rename(place, old)
            os.rename(new, place)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        finally:
            shutil.rmtree(old, ignore_errors=True)


def _attributes(group: Path) -> dict[str, Any]:
    try:
        attributes: dict[str, Any] = json.loads((group / COMMIT).read_bytes())["metadata"][".zattrs"]
    except (OSError, ValueError, LookupError):  # none, or cut off by a loss of power: to be written again
        return {}
    return attributes


def _consolidated(metadata: dict[str, Any]) -> dict[str, Any]:
    return {"zarr_consolidated_format": 1, "metadata": metadata}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_whole(path, lambda file: file.write(json.dumps(content).encode()))
