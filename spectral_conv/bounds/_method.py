"""What all bounds have in common: groups, scale, adjoints, the clock, and the gradient by the kernel."""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Concatenate, Generic, ParamSpec

import numpy as np
from numpy.typing import NDArray

from spectral_conv._threads import serial_blas
from spectral_conv.bounds._reads import stack_of_reads
from spectral_conv.geometry import NOTHING, ConvGeometry
from spectral_conv.operator import ConvOperator
from spectral_conv.results import Bound
from spectral_conv.spectrum.checks import check_operator
from spectral_conv.spectrum.rounding import above, below
from spectral_conv.spectrum.scale import is_zero, normalized

Options = ParamSpec("Options")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a method finds for an operator with weights of order one.

    Attributes
    ----------
    value : float
        Rounding included where it is a bound.
    kind, scope, notes : str
        As in `Bound`.
    gradient : callable
        The derivative of the value by the plain kernel, shaped like it; a subgradient where there is none.
    """

    value: float
    kind: str
    scope: str
    gradient: Callable[[], NDArray[np.floating]]
    notes: str = ""


class BoundMethod(Generic[Options]):
    """A bound as a function of an operator; with `value` and `value_and_grad` it is a penalty, too.

    Parameters
    ----------
    evaluate : callable
        From an operator in float64 with weights of order one, and options, to an `Evaluation`.
    source : str
        Where the method comes from.
    by_group : bool
        Whether groups are bounded one by one, the largest counting; then `evaluate` sees one group at a time. Groups
        whose norm cannot be the largest are left out.
    """

    def __init__(
        self, evaluate: Callable[Concatenate[ConvOperator, Options], Evaluation], *, source: str, by_group: bool
    ) -> None:
        functools.update_wrapper(self, evaluate)
        self.name = evaluate.__name__
        self.source = source
        self._evaluate, self._by_group = evaluate, by_group

    def __repr__(self) -> str:
        return f"<bound {self.name}>"

    def __reduce__(self) -> str:
        return self.name  # pickled by reference, like a function

    def __call__(self, conv: ConvOperator, *args: Options.args, **options: Options.kwargs) -> Bound:
        """Return the bound of an operator."""
        start = time.perf_counter()
        found, scale = self._found(conv, *args, **options)[1:]
        value = _scaled(found.value, scale, found.kind)
        return Bound(
            method=self.name,
            value=value,
            kind=found.kind,
            scope=found.scope,
            source=self.source,
            seconds=time.perf_counter() - start,
            notes=found.notes,
        )

    def value(self, conv: ConvOperator, *args: Options.args, **options: Options.kwargs) -> float:
        """Return the value alone."""
        return self(conv, *args, **options).value

    def value_and_grad(
        self, conv: ConvOperator, *args: Options.args, **options: Options.kwargs
    ) -> tuple[float, NDArray[np.floating]]:
        """Return the value and its gradient by the kernel, shaped like ``conv.kernel``.

        Where the value is a maximum that several groups, frequencies or singular vectors attain, it has no
        derivative: one subgradient is returned.
        """
        group, found, scale = self._found(conv, *args, **options)
        plain = np.zeros(conv.plain_kernel.shape)
        if found.value > 0.0:
            part = found.gradient()
            at = slice(group * part.shape[-1], (group + 1) * part.shape[-1])
            plain[..., at] = np.where(conv.geometry.read_taps[..., None, None], part, 0.0)
        gradient = plain.swapaxes(-1, -2) if conv.geometry.transposed else plain
        return _scaled(found.value, scale, found.kind), gradient.astype(conv.dtype)

    def _found(
        self, conv: ConvOperator, *args: Options.args, **options: Options.kwargs
    ) -> tuple[int, Evaluation, float]:
        """The group that counts, what was found for it, and the scale of the weights."""
        check_operator(conv)
        if is_zero(conv):
            # Other weights show what the method says about the geometry.
            ones = without_idle_mode(conv.with_kernel(np.ones(conv.kernel.shape)))
            found = self._evaluate(ones.split_groups()[0] if self._by_group else ones, *args, **options)
            return 0, dataclasses.replace(found, value=0.0, notes="the layer is zero"), 1.0
        scaled, scale = normalized(without_idle_mode(conv))
        parts = scaled.split_groups() if self._by_group else (scaled,)
        limits = [_limit(part) for part in parts]
        order = sorted(range(len(parts)), key=lambda i: -limits[i])
        with serial_blas():
            best, group = self._evaluate(parts[order[0]], *args, **options), order[0]
            for i in order[1:]:
                if limits[i] <= best.value:
                    break  # no group that is left has a larger norm
                found = self._evaluate(parts[i], *args, **options)
                if found.value > best.value:
                    best, group = found, i
        return group, best, scale


def bound_method(
    *, source: str, by_group: bool = True
) -> Callable[[Callable[Concatenate[ConvOperator, Options], Evaluation]], BoundMethod[Options]]:
    """Make a `BoundMethod` of the function that evaluates it."""
    return lambda evaluate: BoundMethod(evaluate, source=source, by_group=by_group)


def without_idle_mode(conv: ConvOperator) -> ConvOperator:
    """The same operator with padding mode "zeros", where no tap reads the padding."""
    geometry = conv.geometry
    if geometry.padding_mode == "zeros" or any(_reads_padding(geometry, i) for i in range(geometry.ndim)):
        return conv
    return ConvOperator.from_geometry(dataclasses.replace(geometry, padding_mode="zeros"), conv.kernel)


def _reads_padding(geometry: ConvGeometry, i: int) -> bool:
    axis = dataclasses.replace(geometry.axes[i], mode="zeros")
    return bool((axis.reads == NOTHING).any())


def _limit(conv: ConvOperator) -> float:
    """A bound of the norm at once, for this size of the image and, with zero padding, every other."""
    reads = math.prod(max(axis.kernel, stack_of_reads(axis)) for axis in conv.geometry.axes)
    return math.sqrt(reads) * float(np.linalg.norm(conv.kernel)) * (1.0 + 1e-9)


def _scaled(value: float, scale: float, kind: str) -> float:
    """The value of the operator before scaling, rounded to the safe side."""
    if value == 0.0:
        return 0.0
    product = value * scale  # a power of two: exact, unless it leaves the range
    if product < math.ldexp(1.0, -1000):
        return below(product) if kind == "lower" else above(product)
    return min(product, sys.float_info.max) if kind == "lower" else product
