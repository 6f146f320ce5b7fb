"""The readers, and the choice among them: by the file's first bytes, then by its suffix."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from spectral_conv.models import flax_file, keras_file, npz_file, onnx_file, safetensors_file, torch_file
from spectral_conv.models._contents import Contents
from spectral_conv.models._model import ModelError


class Reader(Protocol):
    """What a module must have to be a reader: one file per format, optional packages imported on use."""

    FORMAT: str
    SUFFIXES: tuple[str, ...]

    def can_open(self, path: Path, head: bytes) -> bool:
        """Say by the first bytes whether the file has this format."""
        ...

    def read(self, path: Path) -> Contents:
        """List the tensors of the file."""
        ...


# The first whose bytes match wins: a safetensors length may begin like a pickle, never the other way round.
READERS: tuple[Reader, ...] = (safetensors_file, npz_file, keras_file, flax_file, onnx_file, torch_file)
_HEAD_BYTES = 512
_FOREIGN = {
    b"\x89HDF\r\n\x1a\n": "an HDF5 file (Keras .h5)",
    b"\x93NUMPY": "a single NumPy array (.npy)",
    b"GGUF": "a GGUF file",
    b"\x1f\x8b": "a gzip archive",
    b"PK\x03\x04": "a zip archive of something else",
    b"<": "a text page (HTML or XML), perhaps a failed download",
    b"version https://git-lfs": "a Git LFS pointer, not the weights themselves; run git lfs pull",
}


def find_reader(path: Path) -> Reader:
    """Return the reader of a file.

    Raises
    ------
    ModelError
        There is no such file, it is a folder or empty, or no reader knows it.
    """
    head = _first_bytes(path)
    for reader in READERS:
        if reader.can_open(path, head):
            return reader
    looks = next((text for magic, text in _FOREIGN.items() if head.startswith(magic)), None)
    if looks is None:
        for reader in READERS:
            if path.suffix.lower() in reader.SUFFIXES:
                return reader
    raise ModelError(
        f"{path.name} has no format that can be read{f': it is {looks}' if looks else ''} (suffix "
        f"{path.suffix or 'missing'!r}, first bytes {head[:8]!r}). Readable are {supported_formats()}."
    )


def supported_formats() -> str:
    """Return the formats and their suffixes as part of a sentence."""
    return ", ".join(f"{reader.FORMAT} ({', '.join(reader.SUFFIXES)})" for reader in READERS)


def _first_bytes(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise ModelError(f"{path} is a folder. Pass the model file inside it; {_inside(path)}.")
        if path.exists() and not path.is_file():
            raise ModelError(f"{path} is no regular file (a device or a pipe). Copy the model to a file.")
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
    except ModelError:
        raise
    except FileNotFoundError as error:
        raise ModelError(f"There is no file {path}. Check the path.") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be opened: {error}.") from error
    if not head:
        raise ModelError(f"{path.name} is empty (0 bytes). Copy or download it again.")
    return head


def _inside(folder: Path) -> str:
    suffixes = [suffix for reader in READERS for suffix in reader.SUFFIXES]
    names = sorted(item.name for item in folder.iterdir() if item.suffix.lower() in suffixes)
    return f"it holds {', '.join(names[:5])}{' and others' * (len(names) > 5)}" if names else "it holds none"
