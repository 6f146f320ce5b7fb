"""ONNX models (``.onnx``): kernels, their geometry and their input sizes, all from the file itself."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from spectral_conv.models._contents import Contents, StoredTensor
from spectral_conv.models._model import ModelError
from spectral_conv.models._onnx_parse import parse
from spectral_conv.models._sandbox import in_child

FORMAT = "ONNX model"
SUFFIXES: tuple[str, ...] = (".onnx",)

# First bytes of the fields of a ModelProto: its versions, names, graph, operator sets, metadata.
_INTEGERS = (0x08, 0x28)
_LENGTHS = (0x12, 0x1A, 0x22, 0x32, 0x3A, 0x42, 0x72)


def can_open(path: Path, head: bytes) -> bool:
    """Say whether the file is called ``.onnx`` and begins with a field of an ONNX model: protobuf has no magic."""
    if path.suffix.lower() not in SUFFIXES or len(head) < 2:
        return False
    if head[0] in _INTEGERS:
        return head[1] < 0x80
    return head[0] in _LENGTHS or head[:2] in (b"\xa2\x01", b"\xca\x01")


def read(path: Path) -> Contents:
    """List the convolutions of a network with their geometry, and its other tensors.

    Raises
    ------
    ModelError
        The onnx package is missing; the file is damaged or made to exhaust its reader.
    """
    if importlib.util.find_spec("onnx") is None:
        raise ModelError(
            f"Reading {path.name} needs the onnx package, which is not installed. Install it with "
            "pip install 'spectral-conv[models]'."
        )
    parsed = in_child(parse, path, "onnx", ("onnx", "ml_dtypes"))
    tensors = {
        weight.name: StoredTensor(
            name=weight.name, shape=weight.shape, dtype=weight.dtype, floating=weight.floating, load=weight.load
        )
        for weight in parsed.weights
    }
    return Contents(
        tensors=tensors,
        unread=parsed.unread,
        stated=parsed.entries,
        graph=parsed.graph,
        arguments=parsed.arguments,
    )
