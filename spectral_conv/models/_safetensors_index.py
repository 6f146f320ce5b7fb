"""Safetensors files in several parts: an index (``*.safetensors.index.json``) says which part holds which tensor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from spectral_conv.models._contents import Contents, StoredTensor
from spectral_conv.models._entry import short
from spectral_conv.models._model import ModelError, Skipped

SUFFIX = ".index.json"
_LARGEST_INDEX = 64 * 2**20  # bytes
_SEPARATORS = "/\\:\0"


def is_index(path: Path, head: bytes) -> bool:
    """Say whether the file is named like an index and begins like JSON."""
    return path.name.lower().endswith(SUFFIX) and head.lstrip()[:1] == b"{"


def shards(path: Path) -> dict[str, list[str]]:
    """Return the names of the tensors by the file, in the index's folder, that holds them.

    Raises
    ------
    ModelError
        The index is damaged, or a part is missing or outside the folder.
    """
    found: dict[str, list[str]] = {}
    for name, file in _weight_map(path).items():
        found.setdefault(file, []).append(name)
    for file in found:
        # A link inside the folder is the user's own doing (caches of downloads are full of them); a path is not.
        if not file or file in (".", "..") or any(separator in file for separator in _SEPARATORS):
            raise ModelError(
                f"{path.name} names the part {short(file)}, which is no plain file name. Parts must lie beside the "
                "index; nothing else is opened."
            )
        if not file.lower().endswith(".safetensors"):
            raise ModelError(
                f"{path.name} is an index of {short(file)} and others: no safetensors files. Pass the parts "
                "one by one, or save the model as .safetensors."
            )
        if not (path.parent / file).is_file():
            raise ModelError(
                f"{path.name} names the part {file!r}, which does not lie beside it. Download all {len(found)} parts "
                "into one folder."
            )
    return found


def merge(
    path: Path, wanted: dict[str, list[str]], parts: dict[str, Contents]
) -> tuple[dict[str, StoredTensor], list[Skipped]]:
    """Return the tensors of all parts by name, and those that the index does not name.

    Raises
    ------
    ModelError
        A part lacks a tensor that the index promises.
    """
    tensors: dict[str, StoredTensor] = {}
    unread: list[Skipped] = []
    for file, contents in parts.items():
        names = set(wanted[file])
        missing = sorted(names - contents.tensors.keys())
        if missing:
            raise ModelError(
                f"{path.name} says that {file} holds {short(missing[0])}, which it does not. Index and parts are of "
                "different models; download them again."
            )
        for name, tensor in contents.tensors.items():
            if name in names:
                tensors[name] = tensor
            else:
                unread.append(Skipped(name=name, reason=f"stands in {file}, but the index does not name it"))
    return tensors, unread


def _weight_map(path: Path) -> dict[str, str]:
    size = path.stat().st_size
    if size > _LARGEST_INDEX:
        raise ModelError(f"{path.name} has {size} bytes; an index of safetensors files has at most {_LARGEST_INDEX}.")
    try:
        index: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path.name} is not valid JSON: {error}. Copy or download it again.") from error
    table = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(table, dict) or not table or not all(isinstance(file, str) for file in table.values()):
        raise ModelError(
            f"{path.name} is no index of safetensors files: it must be an object whose `weight_map` gives the file "
            "of each tensor. Pass a .safetensors file itself."
        )
    return table
