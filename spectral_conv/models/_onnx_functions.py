"""Functions that an ONNX file defines itself: their calls become the nodes that they stand for."""

from __future__ import annotations

from typing import Any

from spectral_conv.models._model import ModelError
from spectral_conv.models._onnx_nodes import MOST_NODES
from spectral_conv.models._onnx_tensors import text

_DEEPEST = 100  # functions that call one another


def inlined(model: Any, name: str) -> Any:
    """Return the model without functions of its own: convolutions may be in them.

    Raises
    ------
    ModelError
        The functions call themselves, or stand for too many nodes.
    """
    if not model.functions:
        return model
    import onnx.inliner

    # Forty functions that call the next one twice are a million million nodes: they are counted before anything else.
    if _count(model.graph.node, {_key(function): function for function in model.functions}, {}) > MOST_NODES:
        raise ModelError(
            f"The functions of {name} call themselves, or stand for more than {MOST_NODES} nodes. It is refused as "
            "made to exhaust its reader."
        )
    try:
        return onnx.inliner.inline_local_functions(model)
    except Exception:  # damaged functions: their calls stay nodes without a rule
        return model


def _key(item: Any) -> tuple[str, str, str]:
    return text(item.domain), text(getattr(item, "op_type", "") or getattr(item, "name", "")), text(item.overload)


def _count(
    nodes: Any, functions: dict[tuple[str, str, str], Any], known: dict[tuple[str, str, str], int], depth: int = 0
) -> int:
    """Return how many nodes these stand for, more than `MOST_NODES` for those that call themselves."""
    total = 0
    for node in nodes:
        total += 1
        key = _key(node)
        if key in functions and key not in known:
            known[key] = MOST_NODES + 1  # what a call from within counts
            if depth < _DEEPEST:
                known[key] = _count(functions[key].node, functions, known, depth + 1)
        total += known.get(key, 0)
        for attribute in node.attribute:
            for body in (attribute.g,) if attribute.HasField("g") else attribute.graphs:
                total += _count(body.node, functions, known, depth)
        if total > MOST_NODES:
            break
    return total
