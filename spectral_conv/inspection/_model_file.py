"""A model file that can be opened again, here or elsewhere, and notices when it is not what it was."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spectral_conv.models import Model, ModelError, read_model
from spectral_conv.models._lookup import select_layers

Stamp = tuple[int, int] | None


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """A model file and how it is read: all that a worker, or a figure drawn later, needs to open it again.

    Attributes
    ----------
    path : Path
        The file, absolute.
    layers : Path or None
        Its layers document, absolute.
    input_size : tuple of int or None
        As in `read_model`.
    fold_batchnorm : bool
        As in `read_model`.
    select : str or None
        Only layers whose name matches.
    stamps : tuple
        Size and time of change of both files when they were first seen.
    """

    path: Path
    layers: Path | None
    input_size: tuple[int, ...] | None
    fold_batchnorm: bool
    select: str | None
    stamps: tuple[Stamp, Stamp]

    @classmethod
    def at(
        cls,
        path: str | os.PathLike[str],
        *,
        layers: str | os.PathLike[str] | None,
        input_size: Any,
        fold_batchnorm: bool = False,
        select: str | None = None,
    ) -> ModelFile:
        """Take note of a file, which is not opened yet; a bad `input_size` is left to the reader."""
        file, document = Path(path).absolute(), None if layers is None else Path(layers).absolute()
        size = tuple(input_size) if isinstance(input_size, Iterable) else input_size
        stamps = (_stamp(file), _stamp(document))
        return cls(
            path=file,
            layers=document,
            input_size=size,
            fold_batchnorm=fold_batchnorm,
            select=select,
            stamps=stamps,
        )

    def open(self) -> Model:
        """Read the layers.

        Raises
        ------
        ModelError
            See `read_model`; also where the file is not what it was.
        ValueError
            No layer matches `select`.
        """
        model = read_model(
            self.path, input_size=self.input_size, layers=self.layers, fold_batchnorm=self.fold_batchnorm
        )
        if (_stamp(self.path), _stamp(self.layers)) != self.stamps:
            raise self.changed()
        return model if self.select is None else select_layers(model, self.select, option="--select")

    def changed(self) -> ModelError:
        """Return the error of a file that is not what it was."""
        return ModelError(f"{self.path.name} has changed since it was first read. Inspect it again.")


def _stamp(path: Path | None) -> Stamp:
    try:
        status = None if path is None else path.stat()
    except OSError:  # the reader says what is wrong with it
        return None
    return None if status is None else (status.st_size, status.st_mtime_ns)
