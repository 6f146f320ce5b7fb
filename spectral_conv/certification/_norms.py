"""Norms of the layers: the caller's bounds, or the tightest proved ones."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from spectral_conv.bounds import circulant_embedding, reshaped
from spectral_conv.operator import ConvOperator
from spectral_conv.results import Bound, CostLimitError, Enclosure, MemoryLimitError, NotApplicableError
from spectral_conv.spectrum import spectral_norm

Stated = Bound | Enclosure | float
_RTOL = 1e-3
_EXACT = 2e-3  # relative width of an enclosure whose upper end still counts as the norm


class Layer(Protocol):
    """A layer of a model; see `spectral_conv.models.ConvLayer`."""

    @property
    def name(self) -> str:
        """Name of its kernel."""

    @property
    def operator(self) -> ConvOperator:
        """The layer as a linear operator."""

    @property
    def assumed(self) -> tuple[str, ...]:
        """What nobody stated of its geometry."""

    @property
    def folded(self) -> tuple[str, ...]:
        """Nodes that the kernel has in it."""


@dataclass(frozen=True, kw_only=True)
class Norm:
    """A bound of the norm of one operator; `kind` and `theorem` as in `Link`."""

    value: float
    kind: str
    theorem: str


@dataclass(kw_only=True, eq=False)
class LayerNorms:
    """The norms of a network's layers, each computed once.

    Attributes
    ----------
    layers : mapping of str to Layer
        By name.
    bounds : mapping, callable or None
        What the caller passed.
    uses : mapping of str to int
        Number of operations that apply each kernel, those included that no output needs.
    """

    layers: Mapping[str, Layer]
    bounds: Mapping[str, Stated] | Callable[[ConvOperator], Stated] | None = None
    uses: Mapping[str, int] = field(default_factory=dict)
    known: dict[str, Norm] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.bounds, Mapping):
            strange = [name for name in self.bounds if name not in self.layers]
            if strange:
                have = ", ".join(map(repr, self.layers)) or "none"
                raise ValueError(
                    f"`bounds` must name layers of the model; got {strange[0]!r}. The layers are {have}. A sequence "
                    "of operators has no names: pass a function of the operator."
                )
        elif self.bounds is not None and not callable(self.bounds):
            raise ValueError(
                "`bounds` must be None, a function of a ConvOperator or a mapping from the names of layers; got "
                f"{type(self.bounds).__name__}. The default None encloses the norm of each layer."
            )

    @property
    def folded(self) -> frozenset[str]:
        """Nodes that some kernel has in it."""
        return frozenset(name for layer in self.layers.values() for name in layer.folded)

    def of_layer(self, layer: Layer) -> Norm:
        """Return the norm of a layer as the model has it."""
        if layer.name not in self.known:
            stated = self.bounds.get(layer.name) if isinstance(self.bounds, Mapping) else None
            norm = self.of_operator(layer.operator) if stated is None else _checked(stated, layer.name)
            open_fields = [entry for entry in layer.assumed if entry != "op"]
            if open_fields and stated is None:
                why = f"{norm.theorem}, for {' and '.join(open_fields)} that the file does not state"
                norm = Norm(value=norm.value, kind="estimate", theorem=why)
            self.known[layer.name] = Norm(value=norm.value, kind=norm.kind, theorem=f"{layer.name}: {norm.theorem}")
        return self.known[layer.name]

    def of_operator(self, conv: ConvOperator) -> Norm:
        """Return the norm of an operator that has no name."""
        if callable(self.bounds):
            return _checked(self.bounds(conv), repr(conv))
        return _checked(_proved(conv), repr(conv))


def _proved(conv: ConvOperator) -> Enclosure | Bound:
    """Return the tightest upper bound that is proved and costs no more than an iteration."""
    try:
        enclosure = spectral_norm(conv, rtol=_RTOL)
    except (MemoryLimitError, CostLimitError):
        return _least_bound(conv)
    return _least_bound(conv) if enclosure.basis == "residual" else enclosure


def _least_bound(conv: ConvOperator) -> Bound:
    bound = reshaped(conv)  # holds for every padding
    try:
        embedded = circulant_embedding(conv)
    except NotApplicableError:
        return bound
    return min(bound, embedded, key=lambda found: found.value)


def _checked(stated: object, name: str) -> Norm:
    if isinstance(stated, Enclosure):
        proved = stated.basis != "residual"
        narrow = stated.upper <= stated.lower * (1.0 + _EXACT)
        kind = "estimate" if not proved else "exact" if narrow else "upper"
        value, theorem = stated.upper, stated.basis if proved else "residual: some singular value lies there"
    elif isinstance(stated, Bound):
        kind = stated.kind if stated.kind in ("exact", "upper") else "estimate"
        value, theorem = stated.value, f"{stated.method}: {stated.source.partition(';')[0]}"
        if kind == "estimate":
            theorem = f"{theorem} ({stated.kind})"
    elif isinstance(stated, numbers.Real) and not isinstance(stated, bool):
        value, kind, theorem = float(stated), "upper", "stated by the caller"
    else:
        raise ValueError(
            f"`bounds` must give a Bound, an Enclosure or a number; got {type(stated).__name__} for {name}. Pass a "
            "function such as spectral_conv.spectral_norm."
        )
    if math.isnan(value) or value < 0.0:
        raise ValueError(f"`bounds` must give numbers of at least 0; got {value!r} for {name}. A norm is never less.")
    return Norm(value=value, kind=kind, theorem=theorem)
