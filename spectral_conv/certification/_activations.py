"""Activation functions: the largest slope of each, and why it is the largest."""

from __future__ import annotations

import math

import numpy as np

from spectral_conv.certification._call import Call, Rule, Step, size
from spectral_conv.certification._rounding import above, root
from spectral_conv.graph import Node

# Largest slopes where the second derivative has no zero in closed form: found with 30 digits, rounded upwards in the
# last. Of Gelu the larger one of erf (1.12890414518515...) and of its tanh form (1.12899306865877...).
SWISH = 1.0998393201288670
MISH = 1.0884981612517280
GELU = 1.1289930686587720
_SELU = (1.6732632423543772, 1.0507010221481323)  # the larger ones of Keras' and ONNX's digits


def _fixed(constant: float, theorem: str) -> Rule:
    def rule(call: Call) -> Step:
        return call.scaled(constant, "exact", theorem)

    return rule


def _leaky(call: Call) -> Step:
    slope = abs(call.number("alpha", 0.01))
    return call.scaled(max(1.0, slope), "exact", "slopes 1 and alpha")


def _prelu(call: Call) -> Step:
    slopes = call.numbers(1)
    if slopes is None:
        call.refuse("its slopes are not known")
    return call.scaled(max(1.0, float(np.abs(slopes).max())), "exact", "slopes 1 and those of the channels")


def _elu(call: Call) -> Step:
    slope = abs(call.number("alpha", 1.0))
    return call.scaled(max(1.0, slope), "exact", "slopes 1 and alpha exp(x), x < 0")


def _celu(call: Call) -> Step:
    if call.number("alpha", 1.0) <= 0.0:
        call.refuse("with a negative alpha it grows exponentially")
    return call.scaled(1.0, "exact", "slopes 1 and exp(x / alpha), x < 0")


def _selu(call: Call) -> Step:
    alpha, gamma = abs(call.number("alpha", _SELU[0])), abs(call.number("gamma", _SELU[1]))
    return call.scaled(above(gamma * max(1.0, alpha)), "exact", "slopes gamma and gamma alpha exp(x), x < 0")


def _hard_sigmoid(call: Call) -> Step:
    return call.scaled(abs(call.number("alpha", 0.2)), "exact", "slopes 0 and alpha")


def _scaled_tanh(call: Call) -> Step:
    constant = above(abs(call.number("alpha", 1.0) * call.number("beta", 1.0)))
    return call.scaled(constant, "exact", "slope alpha beta / cosh(beta x)^2")


def _thresholded(call: Call) -> Step:
    if call.number("alpha", 1.0) != 0.0:
        call.refuse("it jumps at its threshold, so no constant holds")
    return call.scaled(1.0, "exact", "slopes 0 and 1")


def _shrink(call: Call) -> Step:
    if call.number("lambd", 0.5) != call.number("bias", 0.0):
        call.refuse("it jumps at its threshold, so no constant holds")
    return call.scaled(1.0, "exact", "slopes 0 and 1")


def _log_softmax(call: Call) -> Step:
    shape, axis = call.first.shape, call.node.attributes.get("axis", 1)
    if shape is None or type(axis) is not int or axis == 0 or not -len(shape) <= axis <= len(shape):
        call.refuse("its constant is the root of the number of classes, which is not known")
    # Before version 13 the axes behind the stated one belonged to the classes, too.
    classes = size(shape[axis - 1 if axis > 0 else axis :])
    if classes is None:
        call.refuse("its constant is the root of the number of classes, which is not known")
    theorem = "Jacobian I - 1 p^T: a projection beside the identity, norm sqrt(n) ||p||_2 <= sqrt(n)"
    return call.scaled(root(classes), "upper", theorem)


_SLOPE = "slope at most 1"
_ONE = {
    "Relu": "|max(a, 0) - max(b, 0)| <= |a - b|",
    "Clip": "|clip(a) - clip(b)| <= |a - b|",
    "Abs": "||a| - |b|| <= |a - b|",
    "Neg": "|-a + b| = |a - b|",
    "Tanh": "slope 1 / cosh(x)^2",
    "Softplus": "slope 1 / (1 + exp(-x))",
    "Softsign": "slope 1 / (1 + |x|)^2",
    "Sin": _SLOPE,
    "Cos": _SLOPE,
    "Atan": "slope 1 / (1 + x^2)",
    "Asinh": "slope 1 / sqrt(1 + x^2)",
    "GroupSort": "sorting: |sort(a) - sort(b)|_2 <= |a - b|_2",
    "MaxMin": "sorting: |sort(a) - sort(b)|_2 <= |a - b|_2",
}

ACTIVATIONS: dict[str, Rule] = {
    **{op: _fixed(1.0, theorem) for op, theorem in _ONE.items()},
    "Sigmoid": _fixed(0.25, "slope s (1 - s), s = sigmoid(x)"),
    "HardSwish": _fixed(1.5, "slopes 0, 1 and (2 x + 3) / 6 for |x| < 3"),
    "Swish": _fixed(SWISH, "largest slope, at x = 2.3994"),
    "Mish": _fixed(MISH, "largest slope, at x = 1.4906"),
    "Gelu": _fixed(GELU, "largest slope, at x = 1.4142 (of the tanh form at 1.4185)"),
    "Erf": _fixed(above(2.0 / math.sqrt(math.pi)), "slope 2 exp(-x^2) / sqrt(pi)"),
    "Softmax": _fixed(0.5, "Jacobian diag(p) - p p^T: rows of at most 2 p_i (1 - p_i) <= 1/2 (Gershgorin)"),
    "LogSoftmax": _log_softmax,
    "LeakyRelu": _leaky,
    "PRelu": _prelu,
    "Elu": _elu,
    "Celu": _celu,
    "Selu": _selu,
    "HardSigmoid": _hard_sigmoid,
    "ScaledTanh": _scaled_tanh,
    "ThresholdedRelu": _thresholded,
    "Shrink": _shrink,
}

_UNBOUNDED = "its slope is unbounded"
_JUMPS = "it jumps, so no constant holds"
_STATISTICS = (
    "it divides by statistics of its own input, so that its slope is bounded by its epsilon only, or not at all; "
    "replace it by a norm with fixed statistics"
)
# Operations that are known not to be globally Lipschitz, or to be so with useless constants only.
_REASONS = {
    _UNBOUNDED: "Exp Log Sqrt Reciprocal Tan Sinh Cosh Asin Acos Acosh Atanh",
    _JUMPS: """
        Floor Ceil Round Sign Hardmax ArgMax ArgMin QuantizeLinear DynamicQuantizeLinear Greater Less GreaterOrEqual
        LessOrEqual Equal Not TopK NonZero IsNaN IsInf
    """,
    _STATISTICS: """
        InstanceNormalization LayerNormalization GroupNormalization RMSNormalization LpNormalization
        MeanVarianceNormalization UnitNormalization LRN
    """,
    "a recurrent layer multiplies values that depend on the input": "LSTM GRU RNN Bidirectional",
    "its branches or repetitions are not followed": "If Loop Scan",
    "it is random": "RandomNormalLike RandomUniformLike Bernoulli Multinomial",
    "what the function computes is not known": "Lambda TFOpLambda Operation SlicingOpLambda",
    "it multiplies values that depend on the input": "Attention MultiHeadAttention Einsum Dot",
}
REFUSED: dict[str, str] = {op: reason for reason, ops in _REASONS.items() for op in ops.split()}


def with_gate(call: Call) -> Step | None:
    """Return the step of ``x g(x)`` for the gates g that networks have, None for another product of two values."""
    for i, j in ((0, 1), (1, 0)):
        plain, gate = call.operands[i], call.operands[j]
        source = None if gate is None else call.producers.get(gate.name)
        if plain is None or source is None:
            continue
        found = _gate(call, plain.name, source)
        if found is not None:
            constant, theorem = found
            return Step(factors=(constant, 0.0) if i == 0 else (0.0, constant), kind="exact", theorem=theorem)
    return None


def _gate(call: Call, value: str, source: Node) -> tuple[float, str] | None:
    if source.op == "Sigmoid" and source.inputs == (value,):
        return SWISH, "x sigmoid(x): largest slope, at x = 2.3994"
    if source.op == "HardSigmoid" and source.inputs == (value,):
        beta = source.attributes.get("beta", 0.5)
        if isinstance(beta, int | float) and 0.0 <= beta <= 1.0:
            # Between the corners, t = alpha x + beta in [0, 1], the slope is 2 t - beta.
            return above(2.0 - beta), "x hard_sigmoid(x): slopes 0, 1 and 2 t - beta, 0 <= t <= 1"
    if source.op == "Tanh":
        inner = call.producers.get(source.inputs[0]) if len(source.inputs) == 1 else None
        if inner is not None and inner.op == "Softplus" and inner.inputs == (value,):
            return MISH, "x tanh(softplus(x)): largest slope, at x = 1.4906"
    return None
