"""`is_orthogonal` on near misses: by the exact spectrum of the layer as it is."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from spectral_conv import ConvOperator, Enclosure, MemoryLimitError, StopReason, orthogonal, spectral_norm

LAYOUT = {1: "WIO", 2: "HWIO", 3: "DHWIO"}


def layer(K: np.ndarray, n: int, **options: Any) -> ConvOperator:
    axes = K.ndim - 2
    return ConvOperator(K, (n,) * axes, layout=LAYOUT[axes], **options)


def circular(K: np.ndarray, n: int, **options: Any) -> ConvOperator:
    return layer(K, n, padding_mode="circular", **options)


def nearly(K: np.ndarray, off: float) -> np.ndarray:
    """Scale the first output channel: of an orthogonal layer some values become ``1 + off``."""
    factors = np.ones(K.shape[-1])
    factors[0] += off
    return K * factors


def at_one_frequency(n: int, off: float) -> np.ndarray:
    """An orthogonal kernel as large as its image, the values of one frequency changed."""
    F = np.fft.fft(orthogonal.sample_bcop(n, 3, 3, ndim=1, rng=0), axis=0)
    F[1], F[-1] = F[1] * (1.0 + off), F[-1] * (1.0 + off)
    return np.fft.ifft(F, axis=0).real


def windows(k: int, channels: tuple[int, int]) -> np.ndarray:
    """An orthogonal kernel for windows that do not overlap."""
    return orthogonal.sample_rko(k, *channels, rng=0, stride=k)


EXACT: dict[str, Callable[[float], ConvOperator]] = {
    "circular": lambda off: circular(nearly(orthogonal.sample_bcop(3, 4, 4, rng=0), off), 8),
    "circular, tall": lambda off: circular(orthogonal.sample_bcop(3, 3, 7, rng=0) * (1.0 + off), 6),
    "circular, wide": lambda off: circular(nearly(orthogonal.sample_bcop((2, 4), 7, 3, rng=0), off), 6),
    "circular, one frequency": lambda off: circular(at_one_frequency(5, off), 5),
    "circular, smaller than the kernel": lambda off: circular(nearly(orthogonal.sample_bcop(5, 3, 3, rng=0), off), 3),
    "circular, groups": lambda off: circular(
        nearly(np.concatenate([orthogonal.sample_bcop(3, 2, 2, rng=i) for i in range(2)], axis=-1), off), 5, groups=2
    ),
    "one tap, zeros": lambda off: layer(nearly(orthogonal.sample_bcop(1, 8, 8, rng=0), off), 20),
    "one tap, reflect": lambda off: layer(
        nearly(orthogonal.sample_bcop(1, 4, 4, rng=0), off), 5, padding_mode="reflect"
    ),
    "windows": lambda off: layer(nearly(windows(3, (2, 4)), off), 12, stride=3, padding="valid"),
    "windows, transposed": lambda off: layer(
        nearly(windows(2, (3, 12)), off).swapaxes(-1, -2), 9, stride=2, padding=0, transposed=True
    ),
    "3-D": lambda off: circular(nearly(orthogonal.sample_bcop(2, 3, 3, ndim=3, rng=0), off), 3),
}


@pytest.mark.parametrize("name", EXACT)
def test_membership_is_right_on_near_misses(name: str) -> None:
    assert orthogonal.is_orthogonal(EXACT[name](0.0), atol=1e-12)
    for off in (1e-6, -1e-6):
        conv = EXACT[name](off)
        for atol, answer in ((1e-5, True), (1.001e-6, True), (0.999e-6, False), (1e-7, False), (1e-8, False)):
            assert orthogonal.is_orthogonal(conv, atol) is answer


@pytest.mark.parametrize("n", [5, 12])
@pytest.mark.parametrize("mode", ["zeros", "replicate"])
def test_membership_of_nearly_pointwise_layers(n: int, mode: str) -> None:
    K = np.zeros((3, 3, 3, 3))
    K[1, 1] = orthogonal.sample_bcop(1, 3, 3, rng=0)[0, 0]
    assert orthogonal.is_orthogonal(layer(K, n, padding_mode=mode))
    K += 1e-6 * np.random.default_rng(1).standard_normal(K.shape)
    conv = layer(K, n, padding_mode=mode)
    s = np.linalg.svd(conv.to_dense(), compute_uv=False)
    off = max(s[0] - 1.0, 1.0 - s[-1])
    assert orthogonal.is_orthogonal(conv, 1.05 * off)
    assert not orthogonal.is_orthogonal(conv, 0.95 * off)


def test_membership_refuses_what_only_resembles() -> None:
    K = orthogonal.sample_bcop(3, 4, 4, rng=0)
    assert not orthogonal.is_orthogonal(layer(K, 8))
    assert not orthogonal.is_orthogonal(layer(K, 8, padding_mode="reflect"))
    assert not orthogonal.is_orthogonal(circular(K, 8, padding=2))  # wider than same: rows twice
    assert not orthogonal.is_orthogonal(circular(0.5 * K, 8))
    # The right Frobenius norm alone is not enough.
    D = np.diag([np.sqrt(1.5), np.sqrt(0.5)])[None, None]
    assert not orthogonal.is_orthogonal(layer(D, 6), atol=0.2)
    single = K.astype(np.float32)
    assert orthogonal.is_orthogonal(circular(single, 8), atol=1e-6)
    assert not orthogonal.is_orthogonal(circular(single, 8), atol=1e-9)


def test_layers_of_the_wrong_size_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> Enclosure:
        raise AssertionError("the Frobenius norm was enough")

    membership = import_module("spectral_conv.orthogonal._membership")
    for name in ("spectral_norm", "smallest_singular_value", "circulant_singular_values"):
        monkeypatch.setattr(membership, name, never)
    K = orthogonal.sample_bcop(3, 4, 4, rng=0)
    assert not orthogonal.is_orthogonal(layer(1.5 * K, 8))
    assert not orthogonal.is_orthogonal(layer(K, 64))
    assert not orthogonal.is_orthogonal(circular(0.5 * K, 64))


def bracket(lower: float, upper: float) -> Enclosure:
    return Enclosure(
        lower=lower,
        value=lower,
        upper=upper,
        basis="theorem: bounds",
        method="bracket",
        applications=0,
        stop_reason=StopReason.LIMIT,
    )


def test_what_does_not_fit_in_memory_is_not_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    membership, normalization = (
        import_module(f"spectral_conv.orthogonal.{name}") for name in ("_membership", "_ossn")
    )
    conv = layer(orthogonal.sample_bcop(1, 3, 3, rng=0), 6)
    for module in (membership, normalization):
        monkeypatch.setattr(module, "spectral_norm", lambda *_, **__: bracket(0.9, 1.5))
    with pytest.raises(MemoryLimitError, match=r"exact largest singular value; only 0\.9 to 1\.5 is known"):
        orthogonal.is_orthogonal(conv)
    with pytest.raises(MemoryLimitError, match=r"exact norm; only 0\.9 <= sigma_max <= 1\.5"):
        orthogonal.ossn(conv)
    monkeypatch.setattr(membership, "spectral_norm", lambda *_, **__: bracket(1.2, 1.5))
    assert not orthogonal.is_orthogonal(conv)
    monkeypatch.setattr(membership, "spectral_norm", spectral_norm)
    monkeypatch.setattr(membership, "smallest_singular_value", lambda *_, **__: bracket(0.0, 1.0))
    with pytest.raises(MemoryLimitError, match="exact smallest singular value; only 0 to 1 is known"):
        orthogonal.is_orthogonal(conv)
    monkeypatch.setattr(membership, "smallest_singular_value", lambda *_, **__: bracket(0.0, 0.9))
    assert not orthogonal.is_orthogonal(conv)
