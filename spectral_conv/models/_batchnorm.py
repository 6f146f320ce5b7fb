"""Batch norms taken into the convolutions that they follow: at inference each scales the channels by constants."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spectral_conv.graph import Graph, Node
from spectral_conv.models._contents import Contents, StoredTensor
from spectral_conv.models._model import ConvLayer, ModelError, Skipped

_CONVOLUTIONS = ("Conv", "ConvTranspose")
_NORM = "BatchNormalization"
# ONNX's order of the arguments, under the names that Keras gives them.
_ROLES = ("gamma", "beta", "moving_mean", "moving_variance")
_EPSILON = 1e-5  # ONNX's default
_NOT = "batch norm was not folded"

Vector = NDArray[np.float64]


def fold_batchnorms(
    file: Path, contents: Contents, layers: Sequence[ConvLayer]
) -> tuple[tuple[ConvLayer, ...], list[Skipped]]:
    """Scale the kernels by ``gamma / sqrt(variance + epsilon)`` where a batch norm alone reads a convolution.

    Parameters
    ----------
    file : Path
        Names the model in messages.
    contents : Contents
        What the reader found; its graph says what follows what.
    layers : sequence of ConvLayer
        The layers to be scaled.

    Returns
    -------
    (layers, skipped)
        The layers, `folded` naming the batch norm of those that have one, and every batch norm that stays with the
        reason.
    """
    graph = contents.graph
    if graph is None:
        reason = f"{_NOT}: weights alone do not say what follows what; a file with the network (ONNX, Keras) does"
        return tuple(layers), [Skipped(name=file.name, reason=reason)]
    norms = [node for node in graph.nodes if node.op == _NORM]
    if not norms:
        return tuple(layers), [Skipped(name=file.name, reason=f"{_NOT}: the network has none")]
    by_name = {layer.name: layer for layer in layers}
    skipped = []
    for norm in norms:
        try:
            layer = _convolution_before(norm, graph, by_name)
            if layer.folded:
                raise _KeptError(f"the kernel {layer.name} has one already")
            by_name[layer.name] = _scaled(layer, _factors(norm, contents.tensors), norm)
        except _KeptError as error:
            skipped.append(Skipped(name=norm.name, reason=f"{_NOT}: {error}"))
    return tuple(by_name[layer.name] for layer in layers), skipped


class _KeptError(Exception):
    """A batch norm that cannot be folded; the message says why."""


def _convolution_before(norm: Node, graph: Graph, layers: Mapping[str, ConvLayer]) -> ConvLayer:
    """The convolution whose only reader is the batch norm."""
    if not norm.inputs:
        raise _KeptError("the file does not say what it reads")
    value = norm.inputs[0]
    producer = next((node for node in graph.nodes if value in node.outputs), None)
    if producer is None:
        raise _KeptError("it follows no convolution but an input of the network")
    if producer.op not in _CONVOLUTIONS:
        raise _KeptError(f"it follows no convolution but {producer.op}")
    readers = sum(node.inputs.count(value) for node in graph.nodes)
    if readers > 1 or value in graph.outputs:
        raise _KeptError(f"something else reads the convolution {producer.name}, too")
    kernel = next((name for name in producer.weights if name in layers), None)
    if kernel is None:
        raise _KeptError(f"the convolution {producer.name} is none of the layers")
    # A node without inputs only turns the kernel on its way to the convolution.
    if sum(kernel in node.weights for node in graph.nodes if node.inputs) > 1:
        raise _KeptError(f"several layers apply the kernel {kernel}")
    return layers[kernel]


def _factors(norm: Node, tensors: Mapping[str, StoredTensor]) -> Vector:
    """``gamma / sqrt(variance + epsilon)``, one factor per channel."""
    if norm.attributes.get("training_mode", 0):
        raise _KeptError("it normalizes by each batch (training mode)")
    roles = norm.attributes.get("parameters", _ROLES)
    if len(roles) != len(norm.weights) or "moving_variance" not in roles:
        raise _KeptError(f"its {len(_ROLES)} parameters are not all stored; the file has {len(norm.weights)}")
    names = dict(zip(roles, norm.weights, strict=True))
    variance = _vector(names["moving_variance"], tensors)
    gamma = _vector(names["gamma"], tensors) if "gamma" in names else np.ones_like(variance)
    epsilon = norm.attributes.get("epsilon", _EPSILON)
    if gamma.shape != variance.shape:
        raise _KeptError(f"its parameters have {gamma.size} and {variance.size} entries")
    if not isinstance(epsilon, int | float) or not np.all(variance + epsilon > 0.0):
        raise _KeptError("its variance plus epsilon is not positive everywhere")
    with np.errstate(over="ignore"):
        factors: Vector = gamma / np.sqrt(variance + epsilon)
    if not np.isfinite(factors).all():
        raise _KeptError("its parameters are not all finite")
    return factors


def _vector(name: str, tensors: Mapping[str, StoredTensor]) -> Vector:
    tensor = tensors.get(name)
    if tensor is None or not tensor.floating:
        raise _KeptError(f"its parameter {name} could not be read")
    try:
        with np.errstate(invalid="ignore"):  # widening a signalling NaN warns
            return tensor.load().astype(np.float64).ravel()
    except (ModelError, OSError) as error:
        raise _KeptError(f"its parameter {name} could not be read ({error})") from error


def _scaled(layer: ConvLayer, factors: Vector, norm: Node) -> ConvLayer:
    conv = layer.operator
    if factors.size != conv.out_channels:
        raise _KeptError(f"it has {factors.size} channels, the convolution {layer.name} writes {conv.out_channels}")
    with np.errstate(over="ignore"):  # checked below
        kernel = conv.kernel * _spread(factors, conv.geometry.groups, conv.kernel.shape[-2:])
    if not np.isfinite(kernel).all():
        raise _KeptError(f"the kernel {layer.name} would overflow")
    return dataclasses.replace(layer, operator=conv.with_kernel(kernel), folded=(*layer.folded, norm.name))


def _spread(factors: Vector, groups: int, channels: tuple[int, int]) -> Vector:
    """Factors of the output channels along the last two axes of a kernel, which of a transposed one are split.

    An ordinary kernel ends in (inputs per group, outputs), a transposed one in (inputs, outputs per group).
    """
    if channels[1] == factors.size:
        return factors
    return np.repeat(factors.reshape(groups, -1), channels[0] // groups, axis=0)
