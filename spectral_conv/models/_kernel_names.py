"""Which tensors of a file without a graph look like convolution kernels, and why the others do not."""

from __future__ import annotations

import re
from collections.abc import Mapping

from spectral_conv.models._contents import StoredTensor

_WEIGHT = re.compile(r"(^|[._/])(weights?|kernels?|w|filters?)$", re.IGNORECASE)
_KERAS = re.compile(r"(^|[._/])(depthwise_|pointwise_)?kernels?$", re.IGNORECASE)
_PARAMETRIZED = {
    "weight_v": "weight normalization",
    "weight_g": "weight normalization",
    "weight_orig": "spectral normalization or pruning",
    "weight_u": "spectral normalization",
    "weight_mask": "pruning",
}
_SCALES = ("weight_scale", "weight_scale_inv", "scale_weight", "weight_zero_point")
# Modules whose weights are tables or per-head matrices, and the largest square kernel that is one there:
# patch embeddings and the 1x1 convolutions of attention blocks are true convolutions.
_NO_KERNELS = {"attention": (r"att(n|ention)", 7), "capsule": (r"caps", 9), "embedding": (r"emb(ed)?", 32)}
_LOW_RANK = ("a scalar", "a vector", "a matrix, as of a fully connected layer")
_LONGEST = (4096, 64, 32)  # kernel size per axis for 1, 2 and 3 axes


def refusal(tensor: StoredTensor, names: Mapping[str, StoredTensor]) -> str | None:
    """Return why a tensor is not taken as a kernel, None for one that is.

    Parameters
    ----------
    tensor : StoredTensor
        The tensor.
    names : mapping of str to StoredTensor
        All tensors of the file: a bias or a scale beside the weight is evidence.
    """
    by_rank = _wrong_rank(tensor)
    if by_rank:
        return by_rank
    name = plain_name(tensor.name)
    by_parametrization = _parametrized(name)
    if by_parametrization:
        return by_parametrization
    if not _WEIGHT.search(name) and not _KERAS.search(name):
        return "its name does not end in weight or kernel; name it in a layers document if it is one"
    if not tensor.floating:
        return _wrong_type(tensor)
    if any(sibling(name, scale) in names for scale in _SCALES):
        return "a quantized weight, to be multiplied by the scale stored beside it; save the product"
    if tensor.size == 0:
        return f"an empty kernel: its shape is {list(tensor.shape)}"
    return _wrong_module(name, tensor.shape)


def matrix_refusal(tensor: StoredTensor, names: Mapping[str, StoredTensor]) -> str | None:
    """Return why a tensor is not taken as the matrix of a fully connected layer, None for one that is."""
    name = plain_name(tensor.name)
    if len(tensor.shape) != 2:
        return f"{len(tensor.shape)} axes; a fully connected layer has a matrix"
    if not (_WEIGHT.search(name) or _KERAS.search(name)):
        return "its name does not end in weight or kernel"
    if not tensor.floating:
        return _wrong_type(tensor)
    if tensor.size == 0 or any(sibling(name, scale) in names for scale in _SCALES):
        return "an empty or quantized matrix"
    segments = [part for part in re.split(r"[./]", name)[:-1] if not part.isdecimal()]
    if any(re.search(r"emb(ed)?|tokens?$|wte|wpe", part, re.IGNORECASE) for part in segments[-1:]):
        return "part of a module named like embedding: a table, no map of its input"
    return None


def plain_name(name: str) -> str:
    """Return the name without TensorFlow's output number."""
    return name.removesuffix(":0")


def sibling(name: str, last: str) -> str:
    """Return the name of another parameter of the same module."""
    return re.sub(r"[^._/]+$", last, name)


def is_channels_last(name: str) -> bool:
    """Say whether the name is one that Keras and JAX use, whose kernels are HWIO."""
    return bool(_KERAS.search(plain_name(name)))


def is_depthwise(name: str) -> bool:
    """Say whether the name is that of a Keras depthwise kernel, laid out HWCM."""
    return bool(re.search(r"(^|[._/])depthwise_kernel$", plain_name(name)))


def longest_kernel(ndim: int) -> int:
    """Return the largest kernel size along an axis that is still taken for one."""
    return _LONGEST[ndim - 1]


def _wrong_rank(tensor: StoredTensor) -> str | None:
    ndim = len(tensor.shape)
    if 3 <= ndim <= 5:
        return None
    if ndim > 5:
        return f"{ndim} axes; a kernel has 3 to 5"
    return f"{_LOW_RANK[ndim]}; a kernel has 3 to 5 axes"


def _wrong_type(tensor: StoredTensor) -> str:
    text = f"its numbers are {tensor.dtype}; weights must be real floating-point numbers"
    if "V" in tensor.dtype:
        text += ". NumPy archives cannot hold bfloat16 or float8: save .safetensors, or widen to float32"
    return text


def _parametrized(name: str) -> str | None:
    kind = next((kind for last, kind in _PARAMETRIZED.items() if re.search(rf"(^|[._/]){last}$", name)), None)
    if kind is None and ".parametrizations." in f".{name}":
        kind = "a parametrization"
    if kind is None:
        return None
    return (
        f"a part of {kind}: the layer applies a weight computed from it, which is not in the file, and by a rule "
        "that the file does not tell; remove the parametrization in the program that wrote the file and save again"
    )


def _wrong_module(name: str, shape: tuple[int, ...]) -> str | None:
    segments = [part for part in re.split(r"[./]", name)[:-1] if not part.isdecimal()]
    sizes = (shape[:-2] if is_channels_last(name) else shape[2:]) or (0,)
    square = len(sizes) > 1 and len(set(sizes)) == 1
    for kind, (pattern, largest) in _NO_KERNELS.items():
        where = segments[-1:] if kind != "attention" else segments
        if any(re.search(pattern, part, re.IGNORECASE) for part in where) and not (square and sizes[0] <= largest):
            return (
                f"part of a module named like {kind}, of shape {list(shape)}: probably no convolution; "
                "name it in a layers document if it is one"
            )
    return None
