"""Sizes carried through a Keras network from its input to every convolution, and the network as plain data."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from spectral_conv.graph import Graph, Node
from spectral_conv.models._keras_config import ConfigError, LayerConfig, Network, Reference, Shape
from spectral_conv.models._keras_operators import activation_op, batch_norm_parameters, operator_of
from spectral_conv.models._keras_sizes import output_shape
from spectral_conv.models._keras_weights import Way, kernels
from spectral_conv.models._keras_windows import ConvSettings, channels_first

_MOST_NODES = 50_000


@dataclass(frozen=True, kw_only=True)
class ConvSite:
    """A kernel where the network applies it: its settings and the spatial sizes that it reads."""

    weight: str
    settings: ConvSettings
    pointwise: bool
    sizes: tuple[int | None, ...]


@dataclass(frozen=True, kw_only=True)
class _Value:
    name: str
    shape: Shape


@dataclass(kw_only=True)
class Walk:
    """One pass over a network.

    Attributes
    ----------
    weights : mapping of tuple to tuple of str
        The tensors of every layer.
    ranks : mapping of str to int
        Number of axes of every tensor.
    sites : list of ConvSite
        The convolutions that were met.
    """

    weights: Mapping[Way, tuple[str, ...]]
    ranks: Mapping[str, int]
    sites: list[ConvSite] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    shapes: dict[str, Shape] = field(default_factory=dict)
    front: bool = False
    steps: int = 0

    def graph(self, network: Network) -> Graph:
        """Carry the sizes through the network; return it.

        Raises
        ------
        ConfigError
            The configuration contradicts itself, or is larger than any network.
        """
        self.front = any(channels_first(layer.settings) for layer in network.layers)
        outputs = self._network(network, (), None, "")
        inputs = tuple(node.outputs[0] for node in self.nodes if node.op == "Input")
        return Graph(
            nodes=tuple(node for node in self.nodes if node.op != "Input"),
            inputs=inputs,
            outputs=tuple(value.name for value in outputs),
            shapes={name: self._turned(shape) for name, shape in self.shapes.items() if shape is not None},
        )

    def _turned(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return shape if self.front or len(shape) < 2 else (shape[-1], *shape[:-1])

    def _network(self, network: Network, way: Way, given: Sequence[_Value] | None, prefix: str) -> list[_Value]:
        """Walk the layers; `given` comes from the outer model."""
        by_name = {layer.name: layer for layer in network.layers}
        entrances = {reference.layer: i for i, reference in enumerate(network.inputs)}
        values: dict[tuple[str, int], list[_Value]] = {}
        for name, call in _order(network, by_name):
            self.steps += 1
            if self.steps > _MOST_NODES:
                raise ConfigError(f"it unfolds to more than {_MOST_NODES} operations")
            layer = by_name[name]
            here = prefix + name + (f"#{call}" if call else "")
            reads = layer.calls[call] if layer.calls else ()
            place = entrances.get(name)
            if layer.kind == "InputLayer" and given is not None and place is not None and place < len(given):
                shape = given[place].shape or output_shape(layer.kind, layer.settings, ())
                values[name, call] = [_Value(name=given[place].name, shape=shape)]
                continue
            inputs = [_read(values, by_name, reference, layer) for reference in reads]
            values[name, call] = self._layer(layer, (*way, name), inputs, here)
        return [_read(values, by_name, reference, None) for reference in network.outputs]

    def _layer(self, layer: LayerConfig, way: Way, inputs: list[_Value], here: str) -> list[_Value]:
        if layer.network is not None:
            return self._network(layer.network, way, inputs, f"{here}/")
        if layer.inner is not None:
            steps = [value.shape[0] if value.shape else None for value in inputs]
            rest = [_Value(name=v.name, shape=v.shape[1:] if v.shape else None) for v in inputs]
            before = len(self.nodes)
            found = self._layer(layer.inner, way, rest, here)
            for node in self.nodes[before:]:
                shape = self.shapes[node.name]
                self.shapes[node.name] = None if shape is None else (steps[0] if steps else None, *shape)
            return [
                _Value(
                    name=value.name,
                    shape=None if value.shape is None else (steps[0] if steps else None, *value.shape),
                )
                for value in found
            ]
        conv = ConvSettings.of(layer.kind, layer.settings)
        if conv is not None:
            return self._convolution(layer, conv, way, inputs, here)
        shape = output_shape(layer.kind, layer.settings, [value.shape for value in inputs])
        op, attributes = operator_of(layer)
        weights = self.weights.get(way, ())
        if op == "BatchNormalization":
            attributes["parameters"] = batch_norm_parameters(layer.settings, weights)
        value = self._node(here, op, inputs, shape, weights, attributes)
        if op == "Gemm":
            value = self._activation(layer, here, value)
        return [value]

    def _convolution(
        self, layer: LayerConfig, conv: ConvSettings, way: Way, inputs: list[_Value], here: str
    ) -> list[_Value]:
        names = self.weights.get(way, ())
        found = kernels(conv.family, names, self.ranks, conv.ndim)
        read = inputs[0].shape if inputs else None
        sizes, written = conv.spatial(read), conv.output_shape(read)
        others = [name for name in names if name not in found]
        pads, certain = conv.margins(sizes)
        attributes: dict[str, Any] = {
            "kernel_shape": conv.kernel,
            "strides": conv.stride,
            "dilations": conv.dilation,
            "group": conv.groups,
        }
        if certain:
            attributes["pads"] = tuple(pair[0] for pair in pads) + tuple(pair[1] for pair in pads)
        if conv.family == "transposed":
            attributes["output_padding"] = conv.surplus()
        if conv.family in ("depthwise", "separable") and read is not None and len(read) == conv.ndim + 1:
            attributes["group"] = read[0 if conv.front else -1]
        op = "ConvTranspose" if conv.family == "transposed" else "Conv"
        for i, weight in enumerate(found):
            between = conv.spatial(written) if i else sizes
            self.sites.append(ConvSite(weight=weight, settings=conv, pointwise=bool(i), sizes=between))
        if conv.family == "separable":
            middle = self._node(
                f"{here}/depthwise", op, inputs, _unknown_channels(conv, written), found[:1], attributes
            )
            ones = {
                "kernel_shape": (1,) * conv.ndim,
                "strides": (1,) * conv.ndim,
                "dilations": (1,) * conv.ndim,
                "pads": (0,) * (2 * conv.ndim),
            }
            value = self._node(here, op, [middle], written, (*found[1:], *others), {**ones, "group": 1})
        else:
            value = self._node(here, op, inputs, written, (*found, *others), attributes)
        return [self._activation(layer, here, value)]

    def _activation(self, layer: LayerConfig, here: str, value: _Value) -> _Value:
        op = activation_op(layer.settings.get("activation"))
        return value if op is None else self._node(f"{here}/activation", op, [value], value.shape, (), {})

    def _node(
        self,
        name: str,
        op: str,
        inputs: Sequence[_Value],
        shape: Shape,
        weights: Sequence[str],
        attributes: Mapping[str, Any],
    ) -> _Value:
        node = Node(
            name=name,
            op=op,
            inputs=tuple(value.name for value in inputs),
            outputs=(name,),
            weights=tuple(weights),
            attributes=dict(attributes),
        )
        self.nodes.append(node)
        self.shapes[name] = shape
        return _Value(name=name, shape=shape)


def _order(network: Network, by_name: Mapping[str, LayerConfig]) -> list[tuple[str, int]]:
    """Return the calls in an order in which they can be computed; those within a cycle are left out."""
    position = {layer.name: i for i, layer in enumerate(network.layers)}
    calls = [(layer.name, i) for layer in network.layers for i in range(max(len(layer.calls), 1))]
    if len(calls) > _MOST_NODES:
        raise ConfigError(f"it has more than {_MOST_NODES} layers")
    waiting: dict[tuple[str, int], int] = {}
    readers: dict[tuple[str, int], list[tuple[str, int]]] = {}
    for name, call in calls:
        layer = by_name[name]
        needed = {_target(by_name, r) for r in (layer.calls[call] if layer.calls else ()) if r.layer in by_name}
        waiting[name, call] = len(needed)
        for target in needed:
            readers.setdefault(target, []).append((name, call))
    # The order of the file wherever that is possible.
    ready = [(position[name], call, name) for (name, call), count in waiting.items() if count == 0]
    heapq.heapify(ready)
    order = []
    while ready:
        _, call, name = heapq.heappop(ready)
        order.append((name, call))
        for reader in readers.get((name, call), []):
            waiting[reader] -= 1
            if waiting[reader] == 0:
                heapq.heappush(ready, (position[reader[0]], reader[1], reader[0]))
    done = set(order)
    # What a cycle holds up is still a layer of the file: last, with unknown sizes.
    return order + [call for call in calls if call not in done]


def _target(by_name: Mapping[str, LayerConfig], reference: Reference) -> tuple[str, int]:
    """Return the call that a reference means; some versions count the calls in other models too."""
    return reference.layer, min(reference.call, max(len(by_name[reference.layer].calls), 1) - 1)


def _read(
    values: Mapping[tuple[str, int], list[_Value]],
    by_name: Mapping[str, LayerConfig],
    reference: Reference,
    reader: LayerConfig | None,
) -> _Value:
    found = values.get(_target(by_name, reference)) if reference.layer in by_name else None
    value = found[min(reference.index, len(found) - 1)] if found else _Value(name=reference.layer, shape=None)
    stated = reference.shape
    if stated is None and reader is not None and len(reader.calls) == 1 and len(reader.calls[0]) == 1:
        stated = reader.built
    return _Value(name=value.name, shape=_better(value.shape, stated))


def _better(shape: Shape, stated: Shape) -> Shape:
    if shape is None or stated is None or len(shape) != len(stated):
        return stated if shape is None else shape
    return tuple(own if own is not None else other for own, other in zip(shape, stated, strict=True))


def _unknown_channels(conv: ConvSettings, written: Shape) -> Shape:
    sizes = conv.spatial(written)
    return (None, *sizes) if conv.front else (*sizes, None)
