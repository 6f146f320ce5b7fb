"""Sums, factors, reductions, joins, and norms with fixed statistics."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from spectral_conv.certification._activations import with_gate
from spectral_conv.certification._call import Call, Rule, Step
from spectral_conv.certification._rounding import above, product, root

_EPSILON = 1e-5  # ONNX's default


def _spread(call: Call) -> tuple[float, ...]:
    """Return for each operand that varies the root of how often it is repeated."""
    return tuple(
        root(call.copies(i)) if operand is not None and operand.varies else 0.0
        for i, operand in enumerate(call.operands)
    )


def _varying(call: Call) -> int:
    return sum(operand is not None and operand.varies for operand in call.operands)


def _add(call: Call) -> Step:
    factors = _spread(call)
    if _varying(call) == 1 and max(factors) == 1.0:
        return Step(factors=factors, kind="exact", theorem="a constant is added, which changes no distance")
    return Step(factors=factors, kind="upper", theorem="||u + v|| <= ||u|| + ||v||: the reaches add")


def _mean(call: Call) -> Step:
    count = len(call.operands)
    factors = tuple(above(factor / count) if factor else 0.0 for factor in _spread(call))
    return Step(factors=factors, kind="upper", theorem="||u + v|| <= ||u|| + ||v||: the mean of the reaches")


def _extreme(call: Call) -> Step:
    theorem = "|max(a, b) - max(c, d)| <= max(|a - c|, |b - d|): squares of the reaches add"
    return Step(factors=_spread(call), kind="upper", theorem=theorem, added=False)


def _where(call: Call) -> Step:
    if call.first.varies:
        call.refuse("its condition depends on the input, so that it may jump")
    factors = (0.0, *_spread(call)[1:])
    return Step(factors=factors, kind="upper", theorem="a fixed choice: squares of the reaches add", added=False)


def _concat(call: Call) -> Step:
    factors = tuple(1.0 for _ in call.operands)
    return Step(factors=factors, kind="upper", theorem="||(u, v)||^2 = ||u||^2 + ||v||^2", added=False)


def _multiply(call: Call) -> Step:
    if _varying(call) > 1:
        gated = with_gate(call) if len(call.operands) == 2 else None
        if gated is None:
            call.refuse("the product of two values that depend on the input is not globally Lipschitz")
        return gated
    if len(call.operands) != 2:
        call.refuse(f"it has {len(call.operands)} operands")
    at = next(i for i, operand in enumerate(call.operands) if operand is not None and operand.varies)
    factors = call.numbers(1 - at)
    if factors is None:
        call.refuse("the factor is not known")
    return _times(call, float(np.abs(factors).max()), "the largest factor", at)


def _divide(call: Call) -> Step:
    if len(call.operands) != 2 or call.operands[1] is None or call.operands[1].varies:
        call.refuse("a quotient whose divisor depends on the input is not globally Lipschitz")
    divisors = call.numbers(1)
    least = 0.0 if divisors is None else float(np.abs(divisors).min())
    if least == 0.0:
        call.refuse("the divisor is not known, or 0")
    return _times(call, above(1.0 / least), "the inverse of the least divisor", 0)


def _times(call: Call, largest: float, theorem: str, at: int) -> Step:
    count = call.copies(at)
    if count > 1:
        return call.scaled(
            product(largest, root(count)), "upper", f"{theorem}, times the root of {count} copies", at=at
        )
    return call.scaled(largest, "exact", theorem, at=at)


def _power(call: Call) -> Step:
    exponents = call.numbers(1)
    if exponents is None or not np.all(exponents == 1.0) or exponents.size > 1:
        call.refuse("powers other than the first are not globally Lipschitz")
    return call.scaled(1.0, "exact", "the first power")


def _image_scaler(call: Call) -> Step:
    return call.scaled(abs(call.number("scale", 1.0)), "exact", "the factor")


def _batch_norm(call: Call) -> Step:
    attributes = call.node.attributes
    if attributes.get("training_mode", 0):
        call.refuse("it normalizes by each batch (training mode)")
    if call.node.name in call.norms.folded:
        return call.scaled(1.0, "exact", "its factors scale the kernel already; the rest is a constant")
    roles = attributes.get("parameters", ("gamma", "beta", "moving_mean", "moving_variance"))
    if len(roles) + 1 != len(call.operands):
        call.refuse(f"it has {len(call.operands) - 1} parameters, {len(roles)} are expected")
    places = {role: i for i, role in enumerate(roles, start=1)}
    variance = call.numbers(places.get("moving_variance", len(call.operands)))
    gamma = call.numbers(places["gamma"]) if "gamma" in places else np.ones(1)
    if variance is None or gamma is None:
        call.refuse("its parameters are not known")
    spread = variance + call.number("epsilon", _EPSILON)
    if np.min(spread) <= 0.0 or gamma.size not in (1, spread.size):
        call.refuse("its variance plus epsilon is not positive everywhere, or does not fit the factors")
    largest = above(float(np.max(np.abs(gamma).ravel() / np.sqrt(spread).ravel())))
    return call.scaled(largest, "exact", "max |gamma| / sqrt(variance + epsilon), fixed statistics")


def _reduced(call: Call) -> int | None:
    """Return how many entries become one; None where that, or an axis, is not known."""
    shape, attributes = call.first.shape, call.node.attributes
    axes = attributes.get("axes")
    stated = call.numbers(1)
    if stated is not None:
        axes = tuple(int(axis) for axis in stated.ravel())
    if shape is None or (axes is None and len(call.operands) > 1):
        return None
    ndim = len(shape) + 1
    if not axes:
        axes = () if attributes.get("noop_with_empty_axes") else range(ndim)
    # The first axis may be a batch of any size.
    sizes = [None if axis == 0 else shape[axis - 1] for axis in {axis % ndim for axis in axes}]
    return None if None in sizes else math.prod(entry or 1 for entry in sizes)


def _reduction(factor: Callable[[int], float], safe: float | None, theorem: str) -> Rule:
    """Return the rule of a reduction of n entries; `safe` holds for every n."""

    def rule(call: Call) -> Step:
        count = _reduced(call)
        if count is not None:
            return call.scaled(factor(count), "exact", theorem)
        if safe is None:
            call.refuse("its constant is the root of the number of entries, which is not known")
        return call.scaled(safe, "upper", f"{theorem}; n is not known, {safe:g} holds for every n")

    return rule


def _inverse_root(count: int) -> float:
    return above(1.0 / math.sqrt(count)) if count > 1 else 1.0


_INSIDE = "the largest of a group: |max(a) - max(b)| <= ||a - b||"
_MEAN = "mean of n entries: 1 / sqrt(n)"

ARITHMETIC: dict[str, Rule] = {
    **dict.fromkeys(("Add", "Sub", "Sum"), _add),
    **dict.fromkeys(("Max", "Min"), _extreme),
    "Mean": _mean,
    "Where": _where,
    "Concat": _concat,
    "Mul": _multiply,
    "Div": _divide,
    "Pow": _power,
    "ImageScaler": _image_scaler,
    "BatchNormalization": _batch_norm,
    "ReduceMean": _reduction(_inverse_root, 1.0, _MEAN),
    **dict.fromkeys(("ReduceSum", "ReduceL1"), _reduction(root, None, "sum of n entries: sqrt(n)")),
    **dict.fromkeys(("ReduceMax", "ReduceMin"), _reduction(lambda _: 1.0, 1.0, _INSIDE)),
    "ReduceL2": _reduction(lambda _: 1.0, 1.0, "|||a|| - ||b||| <= ||a - b||"),
    "ReduceLogSumExp": _reduction(lambda _: 1.0, 1.0, "the gradient is a vector of probabilities"),
}
