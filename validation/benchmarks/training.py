"""Training with exact norms and penalties: the cost of a step beside the same network without them."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

from spectral_conv import spectral_norm
from validation.benchmarks.timing import Row

TITLE = "ResNet-20, batch 32, CIFAR's shape, SGD: forward and backward, float32"
SHAPE, BATCH, WARM, ROUNDS = (3, 32, 32), 32, 10, 60
# Ratios wanted: time without over time with.
WANTED = {"exact": 1 / 1.15, "upper": 1 / 1.35, "gap": 1 / 1.10}


def run(quick: bool = False) -> Iterator[Row | str]:
    """Compare within one process, step by step in turn."""
    try:
        import torch
    except ImportError:
        yield "not run without PyTorch, which is not installed"
        return
    yield f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads"
    rounds = ROUNDS // 4 if quick else ROUNDS
    for lr in (0.1, 0.01):
        for mode in ("exact", "upper"):
            yield _normalized(torch, mode, lr, rounds)
    yield _penalized(torch, rounds)


def _normalized(torch: Any, mode: str, lr: float, rounds: int) -> Row:
    import spectral_conv.torch as sct

    torch.manual_seed(0)
    plain = _resnet20(torch)
    ours = sct.constrain(copy.deepcopy(plain), sct.SpectralNorm, SHAPE, mode=mode)
    pairs = _paired(torch, ours, plain, lambda model, loss: loss, lr, rounds)
    norms = _norms(torch, ours)
    error = max(abs(norm - 1.0) for norm in norms)
    if mode == "exact" and error > 1e-3:
        raise AssertionError(f"norms differ from 1 by {error:.1e}")
    if mode == "upper" and not 0.9 <= min(norms) <= max(norms) <= 1.0 + 1e-6:
        raise AssertionError(f"norms lie in [{min(norms):.4f}, {max(norms):.7f}]")
    return _row(f'SpectralNorm "{mode}", learning rate {lr}', pairs, WANTED[mode], error)


def _penalized(torch: Any, rounds: int) -> Row:
    import numpy as np

    import spectral_conv.torch as sct
    from spectral_conv import regularizers
    from spectral_conv.torch._layers import convolutions, operator_of

    torch.manual_seed(0)
    plain = _resnet20(torch)
    ours = copy.deepcopy(plain)
    found = float(sct.regularize(ours, {"orthogonality_gap": 1.0}, SHAPE).detach())
    gap = regularizers.OrthogonalityGap()
    wanted = sum(gap.value(operator_of(layer.weight, geometry)) for _, layer, geometry in convolutions(ours, SHAPE))
    error = float(np.abs(found / wanted - 1.0))
    if error > 1e-4:
        raise AssertionError(f"the penalties differ by {error:.1e}")

    def loss_of(model: Any, loss: Any) -> Any:
        return loss + sct.regularize(model, {"orthogonality_gap": 1e-6}, SHAPE)

    return _row(
        "orthogonality_gap on every layer", _paired(torch, ours, plain, loss_of, 0.1, rounds), WANTED["gap"], error
    )


def _paired(
    torch: Any, ours: Any, plain: Any, loss_of: Callable[[Any, Any], Any], lr: float, rounds: int
) -> list[tuple[float, float]]:
    """Times of forward and backward of both, in turn; both are trained."""
    generator = torch.Generator().manual_seed(1)
    patterns = torch.randn(10, *SHAPE, generator=generator)
    terms: dict[Any, Callable[[Any, Any], Any]] = {ours: loss_of, plain: lambda model, loss: loss}
    optimizers = {
        model: torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4) for model in terms
    }
    pairs = []
    for step in range(WARM + rounds):
        labels = torch.randint(0, 10, (BATCH,), generator=generator)
        images = patterns[labels] + torch.randn(BATCH, *SHAPE, generator=generator)
        times = []
        for model, term in terms.items():
            optimizers[model].zero_grad()
            start = time.perf_counter()
            term(model, torch.nn.functional.cross_entropy(model(images), labels)).backward()
            times.append(time.perf_counter() - start)
            optimizers[model].step()
        if step >= WARM:
            pairs.append((times[0], times[1]))
    return pairs


def _norms(torch: Any, model: Any) -> list[float]:
    from spectral_conv.torch._layers import convolutions, operator_of

    with torch.no_grad():
        return [
            spectral_norm(operator_of(layer.weight, geometry), rtol=1e-6).value
            for _, layer, geometry in convolutions(model, SHAPE)
        ]


def _row(task: str, pairs: list[tuple[float, float]], wanted: float, agreement: float) -> Row:
    return Row(
        task=task,
        rival="the same without",
        ours=statistics.median(pair[0] for pair in pairs),
        theirs=statistics.median(pair[1] for pair in pairs),
        ratio=statistics.median(pair[1] / pair[0] for pair in pairs),
        wanted=wanted,
        agreement=agreement,
    )


def _resnet20(torch: Any) -> Any:
    nn = torch.nn

    class Block(nn.Module):  # type: ignore[misc]
        def __init__(self, into: int, out: int, stride: int) -> None:
            super().__init__()
            self.conv1, self.norm1 = nn.Conv2d(into, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
            self.conv2, self.norm2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
            self.skip = nn.Conv2d(into, out, 1, stride, bias=False) if stride > 1 else nn.Identity()

        def forward(self, x: Any) -> Any:
            y = torch.relu(self.norm1(self.conv1(x)))
            return torch.relu(self.norm2(self.conv2(y)) + self.skip(x))

    widths = [(16, 16, 1)] * 3 + [(16, 32, 2)] + [(32, 32, 1)] * 2 + [(32, 64, 2)] + [(64, 64, 1)] * 2
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        *(Block(*width) for width in widths),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )
