"""Layers that several benchmarks measure: random kernels, ResNet-20 as trained, the shapes of ResNet-50."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from spectral_conv import ConvOperator, read_model

SHARED = Path(__file__).resolve().parents[3] / "shared"
# Why layers or reference values are left out where that folder is missing.
MISSING = "the folder `shared` with trained models does not lie beside the repository"
_RESNET20 = "resnet20_cifar10"
# Blocks, width and input size of the four stages of ResNet-50 at 224 x 224.
_STAGES = ((3, 64, 56), (4, 128, 56), (6, 256, 28), (3, 512, 14))
_EXPANSION = 4


class Layer(NamedTuple):
    """An operator, its name, and the family whose median is shown."""

    name: str
    family: str
    conv: ConvOperator


def gaussian(shape: tuple[int, ...], size: int, seed: int) -> ConvOperator:
    """Standard normal HWIO kernel, stride 1, padding "same", float64."""
    return ConvOperator(np.random.default_rng(seed).standard_normal(shape), (size, size))


def label(shape: tuple[int, ...], size: int) -> str:
    """Name of a family, such as "3x3x16x16 at 32"."""
    return f"{'x'.join(map(str, shape))} at {size}"


def gaussians(shapes: list[tuple[tuple[int, ...], int]], seeds: int) -> Iterator[Layer]:
    """Make `seeds` random layers of each shape."""
    for shape, size in shapes:
        for seed in range(seeds):
            yield Layer(f"{label(shape, size)}, seed {seed}", label(shape, size), gaussian(shape, size, seed))


@functools.cache
def resnet20() -> tuple[Layer, ...]:
    """Convolutions of a trained ResNet-20 at their own sizes, float64; none where `shared` is missing."""
    folder = SHARED / "data" / "models"
    if not folder.is_dir():
        return ()
    model = read_model(folder / f"{_RESNET20}.safetensors", layers=folder / f"{_RESNET20}.json")
    return tuple(
        Layer(layer.name, "ResNet-20, trained", layer.operator.with_kernel(layer.operator.kernel.astype(np.float64)))
        for layer in model.layers
    )


def resnet20_reference() -> dict[str, tuple[float, float]]:
    """Largest and smallest value of the layers of `resnet20`, found without this package."""
    path = SHARED / "reference" / "real_layers.json"
    if not path.is_file():
        return {}
    records = json.loads(path.read_text(encoding="utf-8"))[_RESNET20]
    return {record["weight"]: (record["sigma_max"], record["sigma_min"]) for record in records}


def resnet50() -> list[Layer]:
    """Make the 53 convolutions of ResNet-50 v1.5 (stride in the 3x3) at 224, He-normal, float32, always the same."""
    rng = np.random.default_rng(0)
    found = [_he("conv1", 7, 3, 64, 224, 2, rng)]
    channels = 64
    for number, (blocks, width, size) in enumerate(_STAGES, start=1):
        for block in range(blocks):
            stride = 2 if block == 0 and number > 1 else 1
            name, inner = f"layer{number}.{block}", size // stride
            found += [
                _he(f"{name}.conv1", 1, channels, width, size, 1, rng),
                _he(f"{name}.conv2", 3, width, width, size, stride, rng),
                _he(f"{name}.conv3", 1, width, _EXPANSION * width, inner, 1, rng),
            ]
            if block == 0:
                found.append(_he(f"{name}.downsample", 1, channels, _EXPANSION * width, size, stride, rng))
            channels, size = _EXPANSION * width, inner
    return found


def he_layer(name: str, k: int, channels: tuple[int, int], size: int, stride: int = 1) -> Layer:
    """One layer of such a network, float32; its family says "/2" for stride 2."""
    return _he(name, k, *channels, size, stride, np.random.default_rng(0))


def in_float64(conv: ConvOperator) -> ConvOperator:
    """Return the same layer, its weights exactly those, computed in float64."""
    return conv.with_kernel(conv.kernel.astype(np.float64))


def _he(name: str, k: int, into: int, out: int, size: int, stride: int, rng: np.random.Generator) -> Layer:
    kernel = rng.standard_normal((k, k, into, out), dtype=np.float32) * np.float32(math.sqrt(2 / (k * k * into)))
    family = f"{k}x{k}x{into}x{out}{f'/{stride}' if stride > 1 else ''} at {size}"
    return Layer(name, family, ConvOperator(kernel, (size, size), stride=stride, padding=k // 2))
