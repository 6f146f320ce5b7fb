"""ONNX's names of what Keras layers compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spectral_conv.models._keras_config import ConfigError, LayerConfig, first, split_kind
from spectral_conv.models._keras_sizes import margins
from spectral_conv.models._keras_weights import without_output_number
from spectral_conv.models._keras_windows import numbers

_OPS = {
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "SyncBatchNormalization": "BatchNormalization",
    "ReLU": "Relu",
    "LeakyReLU": "LeakyRelu",
    "PReLU": "PRelu",
    "ELU": "Elu",
    "ThresholdedReLU": "ThresholdedRelu",
    "Subtract": "Sub",
    "Multiply": "Mul",
    "Average": "Mean",
    "Maximum": "Max",
    "Minimum": "Min",
    "Concatenate": "Concat",
    "Dense": "Gemm",
    "Permute": "Transpose",
    "ZeroPadding": "Pad",
    "Cropping": "Slice",
    "UpSampling": "Resize",
    "Resizing": "Resize",
    "Rescaling": "ImageScaler",
    "MaxPooling": "MaxPool",
    "AveragePooling": "AveragePool",
    "AvgPool": "AveragePool",
    "GlobalMaxPooling": "GlobalMaxPool",
    "GlobalAveragePooling": "GlobalAveragePool",
    "GlobalAvgPool": "GlobalAveragePool",
    "SpatialDropout": "Dropout",
    **dict.fromkeys(("GaussianNoise", "GaussianDropout", "AlphaDropout", "ActivityRegularization"), "Identity"),
    "Embedding": "Gather",
    "SimpleRNN": "RNN",
    "CuDNNLSTM": "LSTM",
    "CuDNNGRU": "GRU",
}
_ACTIVATIONS = {
    "linear": None,
    "relu": "Relu",
    "relu6": "Clip",
    "leaky_relu": "LeakyRelu",
    "sigmoid": "Sigmoid",
    "hard_sigmoid": "HardSigmoid",
    "tanh": "Tanh",
    "softmax": "Softmax",
    "softplus": "Softplus",
    "softsign": "Softsign",
    "elu": "Elu",
    "selu": "Selu",
    "gelu": "Gelu",
    "swish": "Swish",
    "silu": "Swish",
    "exponential": "Exp",
    "mish": "Mish",
}
# Keras' classes whose name is ONNX's, or no operator's; another class of such a name may do anything.
_NAMES = frozenset(
    """
    Add BatchNormalization Bidirectional Concat Dot Dropout Embedding Flatten GRU GlobalAveragePool GlobalMaxPool
    GroupNormalization Identity LSTM Lambda LayerNormalization Masking MaxPool Normalization Operation
    RMSNormalization RepeatVector Reshape SlicingOpLambda Softmax TFOpLambda UnitNormalization
    """.split()  # noqa: SIM905 -- a table of words
)
_STRANGER = "keras"  # the operator set of everything else
_MERGES = {"sum": "Add", "mul": "Mul", "ave": "Mean", "concat": "Concat", "max": "Max"}
_PARAMETERS = ("gamma", "beta", "moving_mean", "moving_variance")


def _role(name: str, present: Sequence[str]) -> str | None:
    last = without_output_number(name)
    last = {"running_mean": "moving_mean", "running_std": "moving_variance"}.get(last, last)
    return next((role for role in present if last == role or last.endswith(f"_{role}")), None)


def activation_op(activation: Any) -> str | None:
    """Return the operator of an activation function, None where it does nothing."""
    if activation is None:
        return None
    if isinstance(activation, Mapping):
        activation = first(activation, "registered_name", "class_name") or first(activation, "config")
    word = str(activation)[:60]
    return _ACTIVATIONS.get(word, f"{_STRANGER}.{word}")


def operator_of(layer: LayerConfig) -> tuple[str, dict[str, Any]]:
    """Return the operator of a layer and its attributes."""
    plain, ndim = split_kind(layer.kind)
    settings = layer.settings
    attributes: dict[str, Any] = {}
    if layer.kind == "InputLayer":
        return "Input", attributes
    if layer.kind == "Activation":
        return activation_op(settings.get("activation")) or "Identity", attributes
    if layer.kind == "Merge":
        mode = str(settings.get("mode") or "concat")
        return _MERGES.get(mode, f"{_STRANGER}.{mode}"), _joint(settings) if mode == "concat" else attributes
    op = _OPS.get(plain) or (plain if plain in _NAMES else f"{_STRANGER}.{plain}")
    if op == "Relu":
        return _rectifier(settings)
    if op in ("MaxPool", "AveragePool"):
        attributes = _window(settings, ndim)
    elif op == "BatchNormalization":
        axis = settings.get("axis", -1)
        epsilon = settings.get("epsilon", 1e-3)
        attributes = {"epsilon": float(epsilon) if isinstance(epsilon, int | float) else 1e-3, "axis": axis}
        attributes["axis"] = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    elif op in ("Pad", "Slice"):
        pairs = margins(settings, ndim, "padding" if op == "Pad" else "cropping")
        if op == "Slice":
            attributes["crops"] = pairs
        elif pairs is not None:
            attributes["pads"] = tuple(entry for side in zip(*pairs, strict=True) for entry in (0, 0, *side))
    elif layer.kind.startswith("UpSampling"):
        attributes = _enlargement(settings, ndim)
    elif layer.kind == "Resizing":
        attributes = _resizing(settings)
    elif op == "Concat":
        attributes = _joint(settings)
    elif op in ("Reshape", "Transpose"):
        order = first(settings, "target_shape", "dims")
        if isinstance(order, list) and all(type(entry) is int for entry in order):
            attributes["shape" if op == "Reshape" else "perm"] = (0, *order)  # the batch stays
    elif op == "LeakyRelu":
        attributes["alpha"] = first(settings, "alpha", "negative_slope")
    elif op == "Elu":
        attributes["alpha"] = first(settings, "alpha")
    elif op == "ImageScaler":
        attributes["scale"] = settings.get("scale")
    elif op in ("TFOpLambda", "Operation", "SlicingOpLambda"):
        attributes["function"] = str(settings.get("function"))[:200]
    return op, attributes


def _rectifier(settings: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    if settings.get("threshold"):
        return "ThresholdedRelu", {"alpha": settings["threshold"]}
    slope = first(settings, "negative_slope")
    return ("LeakyRelu", {"alpha": slope}) if slope else ("Relu", {})


def _window(settings: Mapping[str, Any], ndim: int) -> dict[str, Any]:
    try:
        pool = numbers(settings, ndim, 2, "pool_size", "pool_length")
        stride = numbers(settings, ndim, pool, "strides", "stride")
    except ConfigError:  # a class of that name from somewhere else: its window is unknown
        return {}
    same = first(settings, "padding", "border_mode") == "same"
    return {"kernel_shape": pool, "strides": stride, "auto_pad": "SAME_UPPER" if same else "VALID"}


def _enlargement(settings: Mapping[str, Any], ndim: int) -> dict[str, Any]:
    try:
        factor = numbers(settings, ndim, 2, "size", "length")
    except ConfigError:
        return {}
    return {"mode": str(settings.get("interpolation") or "nearest")[:60], "scales": (1.0, 1.0, *map(float, factor))}


def _joint(settings: Mapping[str, Any]) -> dict[str, Any]:
    axis = first(settings, "axis", "concat_axis")
    return {"axis": axis if type(axis) is int else -1}


def _resizing(settings: Mapping[str, Any]) -> dict[str, Any]:
    fitted = settings.get("crop_to_aspect_ratio") or settings.get("pad_to_aspect_ratio")
    return {
        "mode": str(settings.get("interpolation") or "bilinear")[:60],
        "keep_aspect_ratio_policy": "crop" if fitted else "stretch",
        "antialias": int(bool(settings.get("antialias"))),
    }


def batch_norm_parameters(settings: Mapping[str, Any], weights: Sequence[str]) -> tuple[str, ...]:
    """Return the role of each tensor of a batch normalization: "gamma", "beta", "moving_mean", "moving_variance"."""
    flags = [settings.get(key) is not False for key in ("scale", "center")]
    present = [name for name, flag in zip(_PARAMETERS, (*flags, True, True), strict=True) if flag]
    roles = [_role(name, present) for name in weights]
    # Keras 3 only numbers them, in this order.
    return tuple(role for role in roles if role) if all(roles) else tuple(present[: len(weights)])
