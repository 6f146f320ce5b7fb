"""Size of the first axis of what an operation writes: the batch, until a network puts something else there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from spectral_conv.certification._activations import ACTIVATIONS
from spectral_conv.certification._call import Operand, Shape, size
from spectral_conv.certification._windows import WINDOWS
from spectral_conv.graph import Node

_Operands = Sequence[Operand | None]
_Rule = Callable[[Node, _Operands, Shape | None], int | None]


def first_axis(node: Node, operands: _Operands, written: Shape | None) -> int | None:
    """Return the size of the first axis of the first result, None where it is not known.

    Parameters
    ----------
    node : Node
        An operation of which some operand varies.
    operands : sequence of Operand or None
        What it reads.
    written : tuple or None
        Shape of its first result without that axis.
    """
    rule = _RULES.get(node.op)
    return None if rule is None or not operands or operands[0] is None else rule(node, operands, written)


def _kept(node: Node, operands: _Operands, written: Shape | None) -> int | None:
    assert operands[0] is not None
    return operands[0].front


def _moved(leaves: Callable[[Mapping[str, Any], int | None, int | None], bool]) -> _Rule:
    """Return the rule of an operation that drops and repeats nothing; `leaves` tells whether the first axis stays."""

    def rule(node: Node, operands: _Operands, written: Shape | None) -> int | None:
        assert operands[0] is not None
        entries, behind = size(operands[0].full), size(written)
        if entries and behind:
            return entries // behind
        ranks = (_rank(operands[0].shape), _rank(written))
        return operands[0].front if leaves(node.attributes, *ranks) else None

    return rule


def _on_axes(axes: Callable[[Mapping[str, Any]], tuple[int, ...]]) -> _Rule:
    """Return the rule of an operation that keeps every axis but those that it names."""

    def rule(node: Node, operands: _Operands, written: Shape | None) -> int | None:
        assert operands[0] is not None
        return operands[0].front if _behind(axes(node.attributes), _rank(operands[0].shape)) else None

    return rule


def _reduced(node: Node, operands: _Operands, written: Shape | None) -> int | None:
    assert operands[0] is not None
    axes = _integers(node.attributes, "axes")
    if len(operands) > 1 and operands[1] is not None:
        axes = _entries(operands[1])
    return operands[0].front if _behind(axes, _rank(operands[0].shape)) else None


def _entries(operand: Operand) -> tuple[int, ...]:
    return () if operand.array is None else tuple(operand.array.ravel().astype(int).tolist())


def _rank(shape: Shape | None) -> int | None:
    return None if shape is None else len(shape) + 1


def _integers(attributes: Mapping[str, Any], name: str) -> tuple[int, ...]:
    """Return an attribute that is an integer or several, nothing where it is absent or something else."""
    value = attributes.get(name, ())
    entries = value if isinstance(value, tuple | list) else (value,)
    return tuple(entries) if all(type(entry) is int for entry in entries) else ()


def _behind(axes: Sequence[int], rank: int | None) -> bool:
    """Say whether there are axes, none of them the first."""
    return bool(axes) and all(axis > 0 if rank is None or axis >= 0 else axis + rank > 0 for axis in axes)


_NOT_THE_FIRST = (1,)


def _padded(attributes: Mapping[str, Any]) -> tuple[int, ...]:
    pads = _integers(attributes, "pads")
    half = len(pads) // 2
    axes = _integers(attributes, "axes") or tuple(range(half))
    changed = tuple(axis for axis, *sides in zip(axes, pads[:half], pads[half:], strict=False) if any(sides))
    return changed or _NOT_THE_FIRST if pads else ()


def _tiled(attributes: Mapping[str, Any]) -> tuple[int, ...]:
    repeats = _integers(attributes, "repeats")
    return tuple(axis for axis, count in enumerate(repeats) if count != 1) or _NOT_THE_FIRST if repeats else ()


def _sliced(attributes: Mapping[str, Any]) -> tuple[int, ...]:
    # Keras crops images, never the batch.
    return _NOT_THE_FIRST if "crops" in attributes else _integers(attributes, "axes")


def _broadcast(node: Node, operands: _Operands, written: Shape | None) -> int | None:
    present = [operand for operand in operands if operand is not None]
    if all(operand.front == 1 for operand in present):
        return 1
    if any(operand.shape is None for operand in present):
        return None
    rank = max(len(operand.shape or ()) for operand in present)
    return _common(operand.front for operand in present if len(operand.shape or ()) == rank)


def _common(fronts: Iterable[int | None]) -> int | None:
    sizes = set(fronts)
    large = sizes - {None, 1}
    return large.pop() if large else None if None in sizes else 1


def _expanded(node: Node, operands: _Operands, written: Shape | None) -> int | None:
    own, wanted = operands[0], _integers(node.attributes, "shape")
    if len(operands) > 1 and operands[1] is not None:
        wanted = _entries(operands[1]) or wanted
    rank = None if own is None else _rank(own.shape)
    if not wanted or own is None or rank is None:
        return None
    first = max(wanted[0], 1)
    return first if len(wanted) > rank else own.front if len(wanted) < rank else _common((first, own.front))


def _product(node: Node, operands: _Operands, written: Shape | None) -> int | None:
    at = next(i for i, operand in enumerate(operands) if operand is not None and operand.varies)
    read, other = operands[at], operands[1 - at] if at < 2 else None
    if read is None or other is None or not read.shape:
        return None
    if node.op == "Gemm" and (at == 1 or node.attributes.get("transA", 0)):
        return None
    if at == 0 or len(read.shape) > 1:
        return read.front
    return other.front  # a matrix from the left


_RULES: dict[str, _Rule] = {
    **dict.fromkeys((*ACTIVATIONS, *WINDOWS), _kept),
    **dict.fromkeys(
        ("Conv", "ConvTranspose", "BatchNormalization", "ImageScaler", "Identity", "Dropout", "Cast", "Crop"), _kept
    ),
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), _kept),
    **dict.fromkeys(("Add", "Sub", "Sum", "Mean", "Max", "Min", "Mul", "Div", "Pow", "Where"), _broadcast),
    "Transpose": _moved(lambda attributes, read, written: _integers(attributes, "perm")[:1] == (0,)),
    "Reshape": _moved(
        lambda attributes, read, written: (
            _integers(attributes, "shape")[:1] == (0,) and not attributes.get("allowzero")
        )
    ),
    "Flatten": _moved(lambda attributes, read, written: attributes.get("axis", 1) == 1),
    "Squeeze": _moved(lambda attributes, read, written: _behind(_integers(attributes, "axes"), read)),
    "Unsqueeze": _moved(lambda attributes, read, written: _behind(_integers(attributes, "axes"), written)),
    **dict.fromkeys(("Concat", "Gather", "Split"), _on_axes(lambda attributes: _integers(attributes, "axis"))),
    "Slice": _on_axes(_sliced),
    "Pad": _on_axes(_padded),
    "Tile": _on_axes(_tiled),
    **dict.fromkeys(
        ("ReduceMean", "ReduceSum", "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMin", "ReduceLogSumExp"),
        _reduced,
    ),
    "Expand": _expanded,
    **dict.fromkeys(("Gemm", "MatMul"), _product),
}
