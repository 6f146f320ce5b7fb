"""One application of M on one thread takes no longer than PyTorch's conv2d, float64; where the FFT takes over."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import numpy as np
from threadpoolctl import threadpool_limits

from spectral_conv import ConvOperator
from spectral_conv._fourier import fourier_seconds
from spectral_conv._taps import tap_seconds
from validation.benchmarks.timing import Row, compare

TITLE = "matvec on one thread, float64"
LAYERS = [(64, 64, 3, 32), (64, 64, 3, 56), (256, 256, 3, 14)]
CROSSOVER = [(1, 9, 64), (1, 15, 64), (1, 31, 64), (8, 5, 64), (8, 9, 64), (8, 15, 64), (64, 7, 32), (64, 11, 32)]


def run() -> Iterator[Row]:
    """Compare with PyTorch where it is installed, and the two fast paths with each other."""
    with threadpool_limits(1):
        if importlib.util.find_spec("torch"):
            for g, h, k, n in LAYERS:
                yield _against_torch(g, h, k, n)
        for channels, k, n in CROSSOVER:
            yield _paths(channels, k, n)


def _operator(g: int, h: int, k: int, n: int) -> ConvOperator:
    kernel = np.random.default_rng(0).standard_normal((k, k, g, h))
    return ConvOperator(kernel, (n, n))


def _against_torch(g: int, h: int, k: int, n: int) -> Row:
    import torch

    torch.set_num_threads(1)
    conv = _operator(g, h, k, n)
    weight = torch.from_numpy(np.ascontiguousarray(conv.kernel.transpose(3, 2, 0, 1)))
    x = np.random.default_rng(1).standard_normal(conv.shape[1])
    tensor = torch.from_numpy(x.reshape(1, g, n, n))
    with torch.inference_mode():
        return compare(
            f"{g}x{h}x{k}x{k} at {n}x{n}",
            "torch conv2d",
            lambda: conv.matvec(x),
            lambda: torch.nn.functional.conv2d(tensor, weight, padding=k // 2).numpy().ravel(),
            wanted=1.0,
        )


def _paths(channels: int, k: int, n: int) -> Row:
    """The path that the cost estimate chose against the other one."""
    conv = _operator(channels, channels, k, n)
    other = _operator(channels, channels, k, n)
    other.__dict__["uses_fft"] = not conv.uses_fft
    estimate = fourier_seconds(conv.geometry) / tap_seconds(conv.geometry)
    x = np.random.default_rng(1).standard_normal(conv.shape[1])
    chosen, rejected = ("FFT", "taps") if conv.uses_fft else ("taps", "FFT")
    return compare(
        f"{channels}x{channels}x{k}x{k} at {n}x{n}: {chosen}",
        f"{rejected} (estimate {max(estimate, 1 / estimate):.1f})",
        lambda: conv.matvec(x),
        lambda: other.matvec(x),
        wanted=0.8,
    )
