"""From the operations of a network, in the order of the computation, to a bound of what they do together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from numpy.typing import NDArray

from spectral_conv.certification._activations import ACTIVATIONS, REFUSED
from spectral_conv.certification._arithmetic import ARITHMETIC
from spectral_conv.certification._call import Call, Operand, Rule, Step
from spectral_conv.certification._constants import constant_value
from spectral_conv.certification._evidence import Link, NetworkLipschitz
from spectral_conv.certification._first_axis import first_axis
from spectral_conv.certification._linear_maps import LINEAR_MAPS
from spectral_conv.certification._movements import MOVEMENTS
from spectral_conv.certification._norms import Layer, LayerNorms, Stated
from spectral_conv.certification._rounding import product, root_sum_square, total
from spectral_conv.certification._windows import WINDOWS
from spectral_conv.graph import Graph, Node
from spectral_conv.operator import ConvOperator
from spectral_conv.results import NotApplicableError

_RULES: dict[str, Rule] = {**LINEAR_MAPS, **ACTIVATIONS, **ARITHMETIC, **MOVEMENTS, **WINDOWS}
# What these say depends on shapes alone.
_SHAPES = ("Shape", "Size")
_RANDOM = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial")

_ARITHMETIC = "The constants hold for the maps as such: rounding in the arithmetic of the network is not in them."
_BATCH = "The first axis of the inputs is taken as the batch: of one sample, where the graph does not state its size."
_CHAIN = (
    "The operators are taken as the whole network, in this order, and whatever lies between them (activations, "
    "pooling, reshaping) as 1-Lipschitz."
)
_INPUTS = "All inputs of the network together are one vector."
_OUTPUTS = "All outputs of the network together are one vector."


class Network(Protocol):
    """A model with its graph; see `spectral_conv.models.Model`."""

    @property
    def graph(self) -> Graph | None:
        """The network as plain data."""

    @property
    def layers(self) -> Sequence[Layer]:
        """The convolutions and matrices."""

    @property
    def constants(self) -> Mapping[str, NDArray[Any]]:
        """Small tensors that nodes apply."""


def network_lipschitz(
    model: Network | Sequence[ConvOperator],
    bounds: Mapping[str, Stated] | Callable[[ConvOperator], Stated] | None = None,
) -> NetworkLipschitz:
    r"""Bound the Lipschitz constant of a network by those of its operations.

    With `L(v)` the constant of a value as a function of all inputs of the network, an operation of constant `c`
    writes ``L(y) = c L(x)``, a sum ``L(u + v) = L(u) + L(v)``, a join ``L((u, v))^2 = L(u)^2 + L(v)^2``. All norms
    are Euclidean. The constant of a convolution or a matrix is its norm. Operations without a global constant
    (products of two values, layer norms, recurrent layers, ...) are refused, not estimated.

    Parameters
    ----------
    model : Model or sequence of ConvOperator
        A model with a graph, or the operators of a chain with 1-Lipschitz maps between them. Matrices of a model are
        layers where it was read with ``include_linear=True``; small ones are known without.
    bounds : mapping, callable or None
        None: the upper end of ``spectral_norm(conv, rtol=1e-3)``, or where that is not proved the lesser of
        `bounds.circulant_embedding` and `bounds.reshaped`. A function of a ConvOperator, or a mapping from names of
        layers (the others are bounded as by default): each gives a `Bound`, an `Enclosure` or a number, which is
        taken for a proved upper bound.

    Returns
    -------
    NetworkLipschitz
        The value, rounded upwards; `kind` "upper" where every link is proved, "estimate" where a bound is none, or
        the file leaves open the geometry of a layer or sizes that have to be equal.

    Raises
    ------
    NotApplicableError
        The model has no graph, or an operation has no known global constant; the message names it and the remedy.
    ValueError
        `model` is neither; or `bounds` names no layer of it, or gives no bound.

    References
    ----------
    C. Szegedy et al., "Intriguing properties of neural networks", section 4.3, arXiv:1312.6199.
    H. Gouk et al., "Regularisation of neural networks by enforcing Lipschitz continuity", Machine Learning 110
    (2021), doi:10.1007/s10994-020-05929-w.

    Examples
    --------
    >>> import numpy as np
    >>> import spectral_conv
    >>> conv = spectral_conv.ConvOperator(2 * np.eye(3)[None, None], (4, 4))  # M = 2 I
    >>> bound = spectral_conv.certification.network_lipschitz([conv, conv])
    >>> round(bound.value, 6), bound.kind
    (4.0, 'upper')
    """
    if isinstance(model, Sequence):
        return _chain(model, bounds)
    if not hasattr(model, "graph"):
        raise ValueError(
            f"`model` must be a Model or a sequence of ConvOperator; got {type(model).__name__}. Use "
            "`read_model(path)`, or a list of operators."
        )
    graph = model.graph
    if graph is None:
        raise NotApplicableError(
            "The model has no graph: weights alone do not say what follows what. If the network is a chain, pass its "
            "operators in order, `[layer.operator for layer in model.layers]`; or read an ONNX export."
        )
    return _Evaluation.of(model, graph, bounds).result()


def _chain(
    operators: Sequence[ConvOperator], bounds: Mapping[str, Stated] | Callable[[ConvOperator], Stated] | None
) -> NetworkLipschitz:
    if not operators or not all(isinstance(conv, ConvOperator) for conv in operators):
        raise ValueError(
            "`model` must be a model with a graph or a sequence of ConvOperator, one at least; got "
            f"{[type(conv).__name__ for conv in operators][:5]}. Use `[layer.operator for layer in model.layers]`."
        )
    norms = LayerNorms(layers={}, bounds=bounds)
    reach, links = 1.0, []
    for i, conv in enumerate(operators):
        norm = norms.of_operator(conv)
        reach = product(norm.value, reach)
        op = "ConvTranspose" if conv.geometry.transposed else "Conv"
        links.append(Link(name=str(i), op=op, constant=norm.value, kind=norm.kind, theorem=norm.theorem, reach=reach))
    names = tuple(link.name for link in links)
    return _result(reach, links, names, [_CHAIN, _ARITHMETIC])


def _result(value: float, links: Sequence[Link], critical: tuple[str, ...], notes: Sequence[str]) -> NetworkLipschitz:
    kind = "estimate" if any(link.kind == "estimate" for link in links) else "upper"
    return NetworkLipschitz(value=value, kind=kind, links=tuple(links), critical=critical, notes=tuple(notes))


@dataclass(kw_only=True, eq=False)
class _Evaluation:
    """One pass over a graph."""

    graph: Graph
    constants: Mapping[str, NDArray[Any]]
    norms: LayerNorms
    producers: Mapping[str, Node]
    needed: frozenset[str]
    reaches: dict[str, float]
    fronts: dict[str, int | None]
    arrays: dict[str, NDArray[Any]]
    before: dict[str, str] = field(default_factory=dict)  # the value that weighs most in what writes a value
    links: list[Link] = field(default_factory=list)
    notes: dict[str, None] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        model: Network,
        graph: Graph,
        bounds: Mapping[str, Stated] | Callable[[ConvOperator], Stated] | None,
    ) -> _Evaluation:
        """Prepare the pass: what writes what, and which operations the outputs need."""
        layers = {layer.name: layer for layer in model.layers}
        producers = {name: node for node in graph.nodes for name in node.outputs}
        needed, waiting = set[str](), list(graph.outputs)
        while waiting:
            node = producers.get(waiting.pop())
            if node is not None and node.name not in needed:
                needed.add(node.name)
                waiting += node.inputs
        uses: dict[str, int] = {}
        for node in graph.nodes:
            # Another node without inputs only turns the kernel on its way to the convolution.
            applies = node.inputs or node.op in ("Conv", "ConvTranspose")
            for name in set(node.weights) & layers.keys() if applies else ():
                uses[name] = uses.get(name, 0) + 1
        return cls(
            graph=graph,
            constants=model.constants,
            norms=LayerNorms(layers=layers, bounds=bounds, uses=uses),
            producers=producers,
            needed=frozenset(needed),
            reaches=dict.fromkeys(graph.inputs, 1.0),
            fronts={**dict.fromkeys(graph.inputs, 1), **graph.fronts},
            arrays=dict(model.constants),
        )

    def result(self) -> NetworkLipschitz:
        """Go through the operations and join the outputs."""
        for node in self.graph.nodes:
            if node.name in self.needed:
                self._visit(node)
        missing = [name for name in self.graph.outputs if name not in self.reaches]
        if missing or not self.graph.outputs:
            what = f"No node of the graph writes its output {missing[0]!r}" if missing else "The graph has no outputs"
            raise NotApplicableError(f"{what}, so nothing can be said of it. Export the network again.")
        outputs = self.graph.outputs
        value = root_sum_square(self.reaches[name] for name in outputs)
        notes = [
            *([_INPUTS] if len(self.graph.inputs) > 1 else []),
            *([_OUTPUTS] if len(outputs) > 1 else []),
            *([_BATCH] if self.links else []),
            *self.notes,
            _ARITHMETIC,
        ]
        return _result(value, self.links, self._critical(max(outputs, key=self.reaches.__getitem__)), notes)

    def _critical(self, value: str) -> tuple[str, ...]:
        way: list[str] = []
        while value in self.before:
            way.append(self.producers[value].name)
            value = self.before[value]
        return tuple(reversed(way))

    def _visit(self, node: Node) -> None:
        operands = tuple(self._operand(node, name) for name in self._reads(node))
        if node.op in _SHAPES or not any(operand is not None and operand.varies for operand in operands):
            self._constant(node, operands)
            return
        written = self.graph.shapes.get(node.outputs[0]) if node.outputs else None
        front = first_axis(node, operands, written)
        for name in node.outputs:
            self.fronts.setdefault(name, front)
        granted: list[str] = []
        call = Call(
            node=node,
            operands=operands,
            written=written,
            front=self.fronts[node.outputs[0]] if node.outputs else None,
            producers=self.producers,
            norms=self.norms,
            note=granted.append,
        )
        if node.op in REFUSED:
            call.refuse(REFUSED[node.op])
        if node.op not in _RULES:
            call.refuse("this operation is not among those whose constant is known")
        step = _RULES[node.op](call)
        if granted:
            self.notes.update(dict.fromkeys(granted))
            step = dataclasses.replace(step, kind="estimate", theorem=f"{step.theorem} (for sizes taken to be equal)")
        self._follow(node, operands, step)

    def _reads(self, node: Node) -> tuple[str, ...]:
        """Return all that a node reads: the results of branches, too, which are no operands."""
        operands = node.operands or (*node.inputs, *node.weights)
        return (*operands, *(name for name in node.inputs if name not in operands))

    def _operand(self, node: Node, name: str) -> Operand | None:
        if not name:
            return None
        if name in node.inputs and name not in self.reaches and name not in self.constants:
            raise NotApplicableError(
                f"The node {node.name!r} ({node.op}) reads {name!r}, which no node before it writes in a way that is "
                "followed. Cut the network there: pass the operators of a part as a sequence."
            )
        array, shape, front = self.arrays.get(name), self.graph.shapes.get(name), self.fronts.get(name)
        if array is not None:
            front, *rest = array.shape or (1,)
            shape = tuple(rest)
        return Operand(name=name, reach=self.reaches.get(name, 0.0), array=array, shape=shape, front=front)

    def _constant(self, node: Node, operands: Sequence[Operand | None]) -> None:
        """Take down results that do not depend on the inputs of the network."""
        if node.op in _RANDOM:
            raise NotApplicableError(
                f"The node {node.name!r} ({node.op}) is random: the network is no function. Export it for inference."
            )
        self.reaches.update(dict.fromkeys(node.outputs, 0.0))
        arrays = [None if operand is None else operand.array for operand in operands]
        found = None if node.op in _SHAPES else constant_value(node.op, node.attributes, arrays)
        if found is not None and node.outputs:
            self.arrays[node.outputs[0]] = found

    def _follow(self, node: Node, operands: Sequence[Operand | None], step: Step) -> None:
        varying = [
            (product(factor, operand.reach), operand.name)
            for factor, operand in zip(step.factors, operands, strict=True)
            if operand is not None and operand.varies
        ]
        reach = (total if step.added else root_sum_square)(distance for distance, _ in varying)
        # Of what has several results, only the parts of a split are known.
        written = node.outputs if node.op == "Split" else node.outputs[:1]
        for name in written:
            self.reaches[name] = reach
            self.before[name] = max(varying)[1]
        self.links.append(
            Link(
                name=node.name,
                op=node.op,
                constant=max(step.factors),
                kind=step.kind,
                theorem=step.theorem,
                reach=reach,
            )
        )
