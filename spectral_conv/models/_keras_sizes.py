"""The shape that each kind of Keras layer writes, from the shapes that it reads. Unknown sizes stay unknown."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from spectral_conv.models._entry import LARGEST_INTEGER
from spectral_conv.models._keras_config import ConfigError, Shape, first, shape_of, split_kind
from spectral_conv.models._keras_windows import ConvSettings, channels_first, numbers

_KEEPS = frozenset(
    (
        *("Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "ThresholdedReLU", "Softmax", "Identity"),
        *("BatchNormalization", "BatchNormalizationV1", "BatchNormalizationV2", "SyncBatchNormalization"),
        *("LayerNormalization", "GroupNormalization", "UnitNormalization", "RMSNormalization"),
        *("Normalization", "Rescaling", "Masking", "MultiHeadAttention", "ActivityRegularization"),
        *("Dropout", "SpatialDropout", "GaussianNoise", "GaussianDropout", "AlphaDropout"),
        *("RandomFlip", "RandomRotation", "RandomZoom", "RandomContrast", "RandomTranslation", "RandomBrightness"),
    )
)
_MERGES = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum")
_ELEMENTWISE = re.compile(
    r"(math|nn|__operators__|keras\.activations|keras\.ops)\."
    r"(add|subtract|sub|multiply|mul|truediv|divide|relu6?|sigmoid|tanh|abs|log|exp|sqrt|square|swish|silu|gelu|softplus|leaky_relu|elu|maximum|minimum)"
)


def output_shape(kind: str, settings: Mapping[str, Any], inputs: Sequence[Shape]) -> Shape:
    """Return what a layer writes for what it reads; None where that cannot be told.

    Raises
    ------
    ConfigError
        A setting of a convolution is none that Keras writes.
    """
    plain, ndim = split_kind(kind)
    conv = ConvSettings.of(kind, settings)
    shape = inputs[0] if inputs else None
    if kind == "InputLayer":
        return shape if inputs else shape_of(first(settings, "batch_shape", "batch_input_shape"))
    if conv is not None:
        return conv.output_shape(shape)
    if plain in _MERGES or kind in ("Merge", "Concatenate"):
        mode = first(settings, "mode") or "concat"
        if kind == "Concatenate" or (kind == "Merge" and mode == "concat"):
            return _concatenated(first(settings, "axis", "concat_axis"), inputs)
        return _broadcast(inputs)
    if kind in ("TFOpLambda", "Operation"):
        same = _ELEMENTWISE.fullmatch(str(settings.get("function", "")))
        return _broadcast(inputs) if same else None
    if plain in _KEEPS:
        return shape
    rule = _RULES.get(plain)
    try:
        return None if rule is None or shape is None else rule(settings, shape, ndim)
    except ConfigError:  # a class of that name from somewhere else: its sizes are unknown, the others are not
        return None


def _broadcast(shapes: Sequence[Shape]) -> Shape:
    if not shapes or any(shape is None for shape in shapes):
        return None
    known = [shape for shape in shapes if shape is not None]
    ndim = max(map(len, known))
    padded = [(1,) * (ndim - len(shape)) + shape for shape in known]
    return tuple(_common(sizes) for sizes in zip(*padded, strict=True))


def _common(sizes: Sequence[int | None]) -> int | None:
    """Return the size along one axis of things added up: where one is known and not 1, it is that."""
    large = {size for size in sizes if size not in (None, 1)}
    if len(large) > 1:  # cannot be added up: what wrote them is not what its name says
        return None
    return next(iter(large)) if large else (None if None in sizes else 1)


def _concatenated(axis: Any, shapes: Sequence[Shape]) -> Shape:
    known = [shape for shape in shapes if shape is not None]
    axis = -1 if axis is None else axis
    if not known or len(known) < len(shapes) or len({len(shape) for shape in known}) > 1 or type(axis) is not int:
        return None
    ndim = len(known[0])
    along = axis - 1 if axis > 0 else axis + ndim  # the configuration counts the batch axis
    if not 0 <= along < ndim:
        return None
    sizes = [shape[along] for shape in known]
    joined = None if None in sizes else sum(size for size in sizes if size is not None)
    others = [next((s[i] for s in known if s[i] is not None), None) for i in range(ndim)]
    return tuple(joined if i == along else others[i] for i in range(ndim))


def _spatially(
    settings: Mapping[str, Any], shape: tuple[int | None, ...], ndim: int, change: Callable[[int, int], int | None]
) -> Shape:
    """Apply ``change(axis, size)`` to every spatial size."""
    if len(shape) != ndim + 1:
        return None
    start = 1 if channels_first(settings) else 0
    sizes = list(shape)
    for i in range(ndim):
        size = sizes[start + i]
        changed = None if size is None else change(i, size)
        sizes[start + i] = changed if changed is None or 1 <= changed <= LARGEST_INTEGER else None
    return tuple(sizes)


def _pooled(settings: Mapping[str, Any], shape: tuple[int | None, ...], ndim: int) -> Shape:
    pool = numbers(settings, ndim, 2, "pool_size", "pool_length")
    stride = numbers(settings, ndim, pool, "strides", "stride")
    same = first(settings, "padding", "border_mode") == "same"
    return _spatially(
        settings,
        shape,
        ndim,
        lambda i, size: -(-size // stride[i]) if same else (size - pool[i]) // stride[i] + 1,
    )


def _globally_pooled(settings: Mapping[str, Any], shape: tuple[int | None, ...], ndim: int) -> Shape:
    if len(shape) != ndim + 1:
        return None
    ones, front = (1,) * ndim, channels_first(settings)
    channels = shape[:1] if front else shape[-1:]
    if not settings.get("keepdims"):
        return channels
    return (*channels, *ones) if front else (*ones, *channels)


def _upsampled(settings: Mapping[str, Any], shape: tuple[int | None, ...], ndim: int) -> Shape:
    factor = numbers(settings, ndim, 2, "size", "length")
    return _spatially(settings, shape, ndim, lambda i, size: size * factor[i])


def margins(settings: Mapping[str, Any], ndim: int, key: str) -> tuple[tuple[int, int], ...] | None:
    """Return the (before, after) pairs of a padding or cropping layer: an int, one per axis, or pairs."""
    value = settings.get(key, 1)
    if isinstance(value, Mapping):  # Keras 1: {"top_pad": 1, ...}
        value = [value.get(f"{side}_{key[:-3] or key}", 0) for side in ("top", "bottom", "left", "right")]
    if type(value) is int:
        value = [value] * ndim if ndim > 1 else [value, value]
    if not isinstance(value, list):
        return None
    if ndim == 1 and len(value) == 2 and all(type(size) is int for size in value):
        value = [value]  # with one axis a flat pair is (before, after)
    if ndim == 2 and len(value) == 4:  # Keras 1: top, bottom, left, right
        value = [value[:2], value[2:]]
    pairs = [[item, item] if type(item) is int else item for item in value]
    if len(pairs) != ndim or not all(
        isinstance(pair, list) and len(pair) == 2 and all(type(n) is int and 0 <= n <= LARGEST_INTEGER for n in pair)
        for pair in pairs
    ):
        return None
    return tuple((pair[0], pair[1]) for pair in pairs)


def _padded(settings: Mapping[str, Any], shape: tuple[int | None, ...], ndim: int) -> Shape:
    pairs = margins(settings, ndim, "padding")
    return _spatially(settings, shape, ndim, lambda i, size: None if pairs is None else size + sum(pairs[i]))


def _cropped(settings: Mapping[str, Any], shape: tuple[int | None, ...], ndim: int) -> Shape:
    pairs = margins(settings, ndim, "cropping")
    return _spatially(settings, shape, ndim, lambda i, size: None if pairs is None else size - sum(pairs[i]))


def _flattened(_: Mapping[str, Any], shape: tuple[int | None, ...], __: int) -> Shape:
    return (_product(shape),)


def _product(shape: Sequence[int | None]) -> int | None:
    known = [size for size in shape if size is not None]
    total = math.prod(known)
    return total if len(known) == len(shape) and total <= 2**40 else None


def _reshaped(settings: Mapping[str, Any], shape: tuple[int | None, ...], _: int) -> Shape:
    target = first(settings, "target_shape", "dims")
    if not isinstance(target, list) or len(target) > 8 or not all(type(size) is int for size in target):
        return None
    total, known = _product(shape), math.prod(size for size in target if size > 0)
    rest = total // known if total is not None and known and total % known == 0 else None
    return tuple(size if size > 0 else rest for size in target)


def _permuted(settings: Mapping[str, Any], shape: tuple[int | None, ...], _: int) -> Shape:
    order = settings.get("dims")
    if not isinstance(order, list) or sorted(map(str, order)) != sorted(map(str, range(1, len(shape) + 1))):
        return None
    return tuple(shape[i - 1] for i in order)


def _units(settings: Mapping[str, Any]) -> int | None:
    units = first(settings, "units", "output_dim")
    return units if type(units) is int and 1 <= units <= LARGEST_INTEGER else None


def _dense(settings: Mapping[str, Any], shape: tuple[int | None, ...], _: int) -> Shape:
    return (*shape[:-1], _units(settings))


def _recurrent(settings: Mapping[str, Any], shape: tuple[int | None, ...], _: int) -> Shape:
    if len(shape) != 2 or settings.get("return_state"):
        return None
    return (shape[0], _units(settings)) if settings.get("return_sequences") else (_units(settings),)


def _bidirectional(settings: Mapping[str, Any], shape: tuple[int | None, ...], _: int) -> Shape:
    layer = settings.get("layer")
    config = layer.get("config") if isinstance(layer, Mapping) else None
    one = _recurrent(config, shape, 0) if isinstance(config, Mapping) else None
    if not one or settings.get("merge_mode", "concat") != "concat":
        return one
    return (*one[:-1], None if one[-1] is None else 2 * one[-1])


def _repeated(settings: Mapping[str, Any], shape: tuple[int | None, ...], _: int) -> Shape:
    count = settings.get("n")
    return (count if type(count) is int and count > 0 else None, *shape)


def _resized(settings: Mapping[str, Any], shape: tuple[int | None, ...], _: int) -> Shape:
    sizes = numbers({"size": [settings.get("height"), settings.get("width")]}, 2, 1, "size")
    return _spatially(settings, shape, 2, lambda i, _: sizes[i])


_Rule = Callable[[Mapping[str, Any], tuple[int | None, ...], int], Shape]
_RULES: dict[str, _Rule] = {
    **dict.fromkeys(("MaxPooling", "AveragePooling", "MaxPool", "AvgPool"), _pooled),
    **dict.fromkeys(("GlobalMaxPooling", "GlobalAveragePooling", "GlobalMaxPool", "GlobalAvgPool"), _globally_pooled),
    **dict.fromkeys(("LSTM", "GRU", "SimpleRNN", "CuDNNLSTM", "CuDNNGRU"), _recurrent),
    **dict.fromkeys(("Dense", "TimeDistributedDense"), _dense),
    **dict.fromkeys(("Resizing", "CenterCrop"), _resized),
    "UpSampling": _upsampled,
    "ZeroPadding": _padded,
    "Cropping": _cropped,
    "Flatten": _flattened,
    "Reshape": _reshaped,
    "Permute": _permuted,
    "Bidirectional": _bidirectional,
    "RepeatVector": _repeated,
    "Embedding": lambda settings, shape, _: (*shape, _units(settings)),
}
