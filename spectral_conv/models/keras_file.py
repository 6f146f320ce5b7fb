"""Keras models: HDF5 (``.h5``, ``.hdf5``, with or without the network) and ``.keras`` archives.

Geometry comes from the configuration in the file, never from running anything in it.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectral_conv.graph import Graph
from spectral_conv.models._archive import first_member
from spectral_conv.models._contents import Contents, StoredTensor
from spectral_conv.models._entry import LayerEntry
from spectral_conv.models._keras_config import ConfigError, Network, parse_config
from spectral_conv.models._keras_entries import class_entries, stated_entries
from spectral_conv.models._keras_graph import Walk
from spectral_conv.models._keras_hdf5 import WEIGHTS, Dataset, Listing, list_archive, list_hdf5
from spectral_conv.models._keras_weights import in_order, weights_by_layer
from spectral_conv.models._model import ModelError, Skipped
from spectral_conv.models._sandbox import in_child

FORMAT = "Keras model"
SUFFIXES: tuple[str, ...] = (".keras", ".h5", ".hdf5")

_MAGIC = b"\x89HDF\r\n\x1a\n"
_MEMBERS = ("metadata.json", "config.json", WEIGHTS)


def can_open(path: Path, head: bytes) -> bool:
    """Say whether the file is HDF5, or a zip archive that begins as Keras writes it."""
    if head.startswith(_MAGIC):
        return True
    member = first_member(head)
    return member in _MEMBERS or (member is not None and path.suffix.lower() == ".keras")


def read(path: Path) -> Contents:
    """List the tensors of a model, and its convolutions where the file has the network.

    Raises
    ------
    ModelError
        h5py is missing; the file is damaged, or its configuration is none of Keras'.
    """
    if not _has_h5py():
        raise ModelError(
            f"Reading {path.name} (Keras, HDF5) needs h5py, which is not installed. Install it with "
            "pip install 'spectral-conv[models]', or save the weights as .safetensors or .npz."
        )
    with path.open("rb") as stream:
        zipped = stream.read(4) == b"PK\x03\x04"
    listing = in_child(list_archive if zipped else list_hdf5, path, "The HDF5 library", modules=("h5py",))
    names = in_order(listing)
    datasets = {dataset.name: dataset for dataset in listing.datasets}
    tensors = {name: _tensor(path, datasets[name]) for name in names}
    unread = list(listing.unread)
    network = _network(path, listing.config)
    if network is None:
        return Contents(tensors=tensors, unread=tuple(unread), stated=class_entries(tensors))
    stated, graph = _geometry(path, network, names, listing, tensors, unread)
    return Contents(tensors=tensors, unread=tuple(unread), stated=stated, graph=graph)


def _has_h5py() -> bool:
    try:
        return importlib.util.find_spec("h5py") is not None
    except ValueError:  # an import of it has failed before
        return False


def _network(path: Path, config: str | None) -> Network | None:
    try:
        return None if config is None else parse_config(config)
    except ConfigError as error:
        raise _strange(path, error) from error


def _geometry(
    path: Path,
    network: Network,
    names: list[str],
    listing: Listing,
    tensors: dict[str, StoredTensor],
    unread: list[Skipped],
) -> tuple[tuple[LayerEntry, ...], Graph]:
    walk = Walk(
        weights=weights_by_layer(network, names, listing),
        ranks={name: len(tensor.shape) for name, tensor in tensors.items()},
    )
    try:
        graph = walk.graph(network)
    except ConfigError as error:
        raise _strange(path, error) from error
    return stated_entries(walk.sites, tensors, unread), graph


def _strange(path: Path, error: ConfigError) -> ModelError:
    return ModelError(
        f"The network in {path.name} is not described as Keras does it: {error}. The file is damaged, or from an "
        "unknown version; save its weights alone with model.save_weights('model.weights.h5')."
    )


def _tensor(path: Path, dataset: Dataset) -> StoredTensor:
    kind = "f" if dataset.dtype == "bfloat16" else np.dtype(dataset.dtype).kind
    return StoredTensor(
        name=dataset.name,
        shape=dataset.shape,
        dtype=dataset.dtype if dataset.dtype == "bfloat16" else np.dtype(dataset.dtype).name,
        floating=kind == "f",
        load=functools.partial(_load, path, dataset),
    )


def _load(path: Path, dataset: Dataset) -> NDArray[Any]:
    dtype = _numpy_type(dataset.dtype)
    if dataset.numbers is not None:
        return dataset.numbers.view(dtype) if dtype.name == "bfloat16" else dataset.numbers
    count = math.prod(dataset.shape) * dtype.itemsize
    raw = np.fromfile(path, np.uint8, count=count, offset=dataset.offset or 0)
    if raw.size != count:
        raise ModelError(f"{dataset.name!r} in {path.name} is cut off: the file changed while it was read.")
    return raw.view(dtype).reshape(dataset.shape)


def _numpy_type(name: str) -> np.dtype[Any]:
    if name == "bfloat16":
        import ml_dtypes

        extended: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return extended
    return np.dtype(name)
