"""The nodes of an ONNX file as plain data, those of its subgraphs included, in the order of the computation."""

from __future__ import annotations

import heapq
from collections import ChainMap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spectral_conv.models._model import ModelError, Skipped
from spectral_conv.models._onnx_tensors import Weight, read_tensor, text

Shape = tuple[int | None, ...]

# The largest networks have some ten thousand; a million would keep the reader busy for a minute.
MOST_NODES = 30_000
MOST_VALUES = 100_000
_LONGEST = 4096  # entries of an attribute that are kept
_MOST_AXES = 16


@dataclass(kw_only=True)
class Op:
    """One node; an empty string among the inputs is one that was left out."""

    name: str
    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    bodies: tuple[tuple[str, tuple[str, ...]], ...] = ()  # of If, Loop, Scan: the attribute, the outputs


@dataclass(kw_only=True)
class Network:
    """All that the walk through a file collects; names of subgraphs are made unique."""

    ops: list[Op] = field(default_factory=list)
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    weights: dict[str, Weight] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)  # tensors that cannot be read, with the reason
    shapes: dict[str, Shape] = field(default_factory=dict)


def read_network(model: Any, path: Path) -> Network:
    """Collect the nodes, tensors and stated shapes of a ModelProto.

    Raises
    ------
    ModelError
        There are too many nodes, or one of them needs its own result.
    """
    walk = _Walk(path, with_tensors=True)
    walk.graph(model.graph, ChainMap(), "")
    network = walk.network
    network.inputs = tuple(text(info.name) for info in model.graph.input if text(info.name) not in walk.constants)
    network.outputs = tuple(text(info.name) for info in model.graph.output)
    network.ops = _sorted(network.ops, path)
    return network


def stated_shapes(model: Any, path: Path) -> dict[str, Shape]:
    """Return the shapes alone, under the names that `read_network` gives."""
    walk = _Walk(path, with_tensors=False)
    walk.graph(model.graph, ChainMap(), "")
    return walk.network.shapes


def unread_tensors(network: Network) -> tuple[Skipped, ...]:
    """Return the tensors that could not be read."""
    return tuple(Skipped(name=name, reason=reason) for name, reason in network.unread.items())


class _Walk:
    def __init__(self, path: Path, *, with_tensors: bool) -> None:
        self.path = path
        self.with_tensors = with_tensors
        self.network = Network()
        self.constants: set[str] = set()
        self._parts = 0
        self._values: dict[str, int] = {}
        self._nodes: dict[str, int] = {}

    def graph(self, graph: Any, outer: ChainMap[str, str], prefix: str) -> tuple[str, ...]:
        """Read one graph; return the names of its outputs."""
        if len(self.network.ops) + len(graph.node) > MOST_NODES:
            raise ModelError(
                f"{self.path.name} declares {len(self.network.ops) + len(graph.node)} nodes or more; a network has "
                f"at most {MOST_NODES}. It is refused as made to exhaust its reader."
            )
        self._parts += sum(map(len, (graph.initializer, graph.value_info, graph.input, graph.output)))
        if self._parts > MOST_VALUES:
            raise ModelError(
                f"{self.path.name} declares {self._parts} values or more; a network has at most {MOST_VALUES}. "
                "It is refused as made to exhaust its reader."
            )
        scope = outer.new_child()
        for tensor in graph.initializer:
            self._tensor(tensor, self._define(text(tensor.name), scope, prefix))
        for tensor in graph.sparse_initializer:
            name = self._define(text(tensor.values.name), scope, prefix)
            self.constants.add(name)
            self.network.unread[name] = "a sparse tensor; save it as a dense one"
        for info in graph.input:
            if text(info.name) not in scope.maps[0]:
                self._define(text(info.name), scope, prefix)
        for node in graph.node:
            self._node(node, scope, prefix)
        for info in (*graph.input, *graph.value_info, *graph.output):
            shape = _shape(info)
            if shape is not None and text(info.name) in scope:
                self.network.shapes[scope[text(info.name)]] = shape
        return tuple(scope.get(text(info.name), text(info.name)) for info in graph.output)

    def _node(self, node: Any, scope: ChainMap[str, str], prefix: str) -> None:
        inputs = tuple(scope.get(name, name) for name in map(text, node.input))
        results = tuple(map(text, node.output))
        op, domain = text(node.op_type), text(node.domain)
        name = self._unique(text(node.name) or f"{op}:{next(iter(results), '')}", self._nodes, prefix)
        attributes: dict[str, Any] = {}
        bodies = []
        for proto in node.attribute:
            value = _attribute(proto)
            label = text(proto.name)
            if op == "Constant" and label == "value" and proto.HasField("t"):
                self._tensor(proto.t, self._define(results[0], scope, prefix) if results else name)
                return
            if value is not None:
                attributes[label] = value
            for body in (proto.g,) if proto.HasField("g") else proto.graphs:
                bodies.append((label, self.graph(body, scope, f"{name}/{label}/")))
        outputs = tuple(self._define(result, scope, prefix) if result else "" for result in results)
        self.network.ops.append(
            Op(
                name=name,
                op=op,
                domain="" if domain == "ai.onnx" else domain,
                inputs=inputs,
                outputs=outputs,
                attributes=attributes,
                bodies=tuple(bodies),
            )
        )

    def _tensor(self, tensor: Any, name: str) -> None:
        self.constants.add(name)
        if not self.with_tensors:
            return
        try:
            self.network.weights[name] = read_tensor(tensor, name, self.path.parent)
        except ValueError as error:
            self.network.unread[name] = str(error)

    def _define(self, name: str, scope: ChainMap[str, str], prefix: str) -> str:
        scope[name] = self._unique(name, self._values, prefix)
        return scope[name]

    @staticmethod
    def _unique(name: str, taken: dict[str, int], prefix: str) -> str:
        # The graph's own names stay as they are; a name that two branches share gets the branch before it.
        unique = name if name not in taken else f"{prefix}{name}"
        while unique in taken:
            taken[name] += 1
            unique = f"{prefix}{name}#{taken[name]}"
        taken[unique] = 1
        return unique


def _attribute(proto: Any) -> Any:
    """Return an attribute as plain data, None for graphs, types and large tensors."""
    import onnx

    for single in ("f", "i", "s"):
        if proto.HasField(single):
            return _plain(getattr(proto, single))
    for several in ("floats", "ints", "strings"):
        if getattr(proto, several):
            return tuple(_plain(value) for value in getattr(proto, several)[:_LONGEST])
    if proto.HasField("t") and proto.t.ByteSize() <= _LONGEST:
        try:
            values = onnx.numpy_helper.to_array(proto.t).ravel().tolist()
        except (ValueError, TypeError, KeyError, OverflowError):
            return None
        return tuple(value for value in values if isinstance(value, int | float))
    # Some writers leave out zeros and empty lists.
    kinds = onnx.AttributeProto
    if proto.type in (kinds.INTS, kinds.FLOATS, kinds.STRINGS):
        return ()
    return {kinds.INT: 0, kinds.FLOAT: 0.0, kinds.STRING: ""}.get(proto.type)


def _plain(value: Any) -> Any:
    return value.decode("utf-8", "replace")[:_LONGEST] if isinstance(value, bytes) else value


def _shape(info: Any) -> Shape | None:
    """Return what the file says of a value's shape; sizes that are symbols, 0 or negative are unknown."""
    if not info.type.HasField("tensor_type") or not info.type.tensor_type.HasField("shape"):
        return None
    sizes = info.type.tensor_type.shape.dim
    if len(sizes) > _MOST_AXES:
        return None
    return tuple(size.dim_value if size.dim_value > 0 else None for size in sizes)


def _sorted(ops: list[Op], path: Path) -> list[Op]:
    """Order the nodes so that each comes after those that it reads; as few as possible are moved."""
    producer: dict[str, int] = {}
    for i, op in enumerate(ops):
        for name in op.outputs:
            if name:
                producer.setdefault(name, i)
    needs = [{producer[name] for name in _read(op) if name in producer} for op in ops]
    if all(not sources or max(sources) < i for i, sources in enumerate(needs)):
        return ops
    readers: list[list[int]] = [[] for _ in ops]
    missing = [len(sources) for sources in needs]
    for i, sources in enumerate(needs):
        for source in sources:
            readers[source].append(i)
    ready = [i for i, count in enumerate(missing) if not count]
    order = []
    while ready:
        i = heapq.heappop(ready)
        order.append(ops[i])
        for reader in readers[i]:
            missing[reader] -= 1
            if not missing[reader]:
                heapq.heappush(ready, reader)
    if len(order) < len(ops):
        stuck = ops[next(i for i, count in enumerate(missing) if count)]
        raise ModelError(
            f"The graph of {path.name} is cyclic: node {stuck.name!r} needs its own result. The file is damaged; "
            "export it again."
        )
    return order


def _read(op: Op) -> Sequence[str]:
    return (*op.inputs, *(name for _, outputs in op.bodies for name in outputs))
