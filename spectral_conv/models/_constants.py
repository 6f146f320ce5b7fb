"""The small tensors that a network applies beside its layers: parameters of norms, slopes, factors, indices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectral_conv.models._contents import Contents, StoredTensor
from spectral_conv.models._model import ModelError

_MOST = 65536  # entries


def small_constants(
    contents: Contents, tensors: Mapping[str, StoredTensor], layers: set[str]
) -> dict[str, NDArray[Any]]:
    """Load the tensors that nodes of the graph name and that are no layer; without a graph there are none.

    A damaged one is left out: who needs it says so, and the layers do not depend on it.
    """
    if contents.graph is None:
        return {}
    constants = dict(contents.arguments)
    for name in dict.fromkeys(name for node in contents.graph.nodes for name in node.weights):
        tensor = tensors.get(name)
        if tensor is None or name in layers or tensor.size > _MOST:
            continue
        try:
            values = tensor.load()
        except (ModelError, OSError):
            continue
        # NumPy knows bfloat16 and its like by name only.
        constants[name] = values if values.dtype.kind in "fiub" else values.astype(np.float32)
    return constants
