"""Fully connected layers as convolutions: a matrix is a 1 x 1 kernel on an image of one pixel."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from spectral_conv.graph import Node
from spectral_conv.models._contents import Contents, StoredTensor
from spectral_conv.models._entry import LayerEntry
from spectral_conv.models._kernel_names import is_channels_last, matrix_refusal

_MATRIX_PRODUCTS = ("Gemm", "MatMul")


def split_linear(contents: Contents) -> tuple[Contents, Contents]:
    """Take the matrices of fully connected layers out of `contents`; they come back as the second value.

    A file of weights alone tells them by their names; each then lists "op" in `assumed`. Of a network, they are the
    matrices that its products apply. Shapes become ``(out, in, 1, 1)``, or ``(1, 1, in, out)`` of a matrix that
    stands on the right.
    """
    layouts = _by_graph(contents) if contents.graph is not None else _by_name(contents)
    stated = {entry.weight for entry in contents.stated or ()}
    layouts = {name: layout for name, layout in layouts.items() if name not in stated}
    assumed = () if contents.graph is not None else ("op",)
    linear = {name: as_kernel(contents.tensors[name], layout) for name, layout in layouts.items()}
    entries = tuple(linear_entry(name, layout, assumed) for name, layout in layouts.items())
    rest = {name: tensor for name, tensor in contents.tensors.items() if name not in linear}
    return dataclasses.replace(contents, tensors=rest), Contents(tensors=linear, stated=entries)


def linear_entry(name: str, layout: str = "OIHW", assumed: tuple[str, ...] = ()) -> LayerEntry:
    """Return the geometry of a fully connected layer."""
    where = f"layer {name!r}"
    return LayerEntry(weight=name, where=where, layout=layout, padding=0, input_size=(1, 1), assumed=assumed)


def as_kernel(tensor: StoredTensor, layout: str = "OIHW") -> StoredTensor:
    """Return a matrix as the kernel of a 1 x 1 convolution."""
    shape = (*tensor.shape, 1, 1) if layout == "OIHW" else (1, 1, *tensor.shape)
    return dataclasses.replace(tensor, shape=shape, load=functools.partial(_load, tensor, shape))


def _load(tensor: StoredTensor, shape: tuple[int, ...]) -> NDArray[Any]:
    return tensor.load().reshape(shape)


def _by_name(contents: Contents) -> dict[str, str]:
    return {
        name: "HWIO" if is_channels_last(name) else "OIHW"
        for name, tensor in contents.tensors.items()
        if matrix_refusal(tensor, contents.tensors) is None
    }


def _by_graph(contents: Contents) -> dict[str, str]:
    assert contents.graph is not None
    layouts: dict[str, str] = {}
    turned = {node.outputs[0]: node.weights for node in contents.graph.nodes if _turns(node)}
    for node in contents.graph.nodes:
        if node.op not in _MATRIX_PRODUCTS:
            continue
        # Some writers turn the matrix first, which changes its name but not its singular values.
        behind = (name for value in node.inputs for name in turned.get(value, ()))
        name = next((name for name in (*node.weights, *behind) if _is_matrix(contents.tensors, name)), None)
        if name is not None:
            right_way = bool(node.attributes.get("transB", 0)) == (name in node.weights)
            layouts[name] = "OIHW" if right_way else "HWIO"
    return layouts


def _turns(node: Node) -> bool:
    return node.op == "Transpose" and not node.inputs and len(node.weights) == len(node.outputs) == 1


def _is_matrix(tensors: Mapping[str, StoredTensor], name: str) -> bool:
    tensor = tensors.get(name)
    return tensor is not None and tensor.floating and len(tensor.shape) == 2 and tensor.size > 0
