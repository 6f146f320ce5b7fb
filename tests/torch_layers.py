"""What the tests of `spectral_conv.torch` share: operators as PyTorch sees them, a small ResNet-20, exact norms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spectral_conv import ConvOperator, spectral_norm

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
nn = torch.nn


def weight_of(conv: ConvOperator, dtype: Any = torch.float64) -> Any:
    """PyTorch's weight of an operator."""
    plain = np.moveaxis(conv.plain_kernel, (-1, -2), (0, 1))
    return torch.tensor(plain.copy(), dtype=dtype)


def options_of(conv: ConvOperator) -> dict[str, Any]:
    """The geometry as keyword arguments."""
    names = ("stride", "padding", "padding_mode", "dilation", "groups", "transposed", "output_padding")
    return {name: getattr(conv.geometry, name) for name in names}


def operator_of(layer: Any, input_shape: tuple[int, ...]) -> ConvOperator:
    """The layer as it is now, without gradients, in float64."""
    layout = {1: "OIW", 2: "OIHW", 3: "OIDHW"}[len(input_shape)]
    with torch.no_grad():
        weight = layer.weight.double().numpy()
    return ConvOperator(
        weight,
        input_shape,
        layout=layout.replace("OI", "IO") if layer.transposed else layout,
        stride=layer.stride,
        padding=layer.padding,
        padding_mode=layer.padding_mode,
        dilation=layer.dilation,
        groups=layer.groups,
        transposed=layer.transposed,
        output_padding=layer.output_padding if layer.transposed else 0,
    )


def norm_of(layer: Any, input_shape: tuple[int, ...], rtol: float = 1e-6) -> float:
    return spectral_norm(operator_of(layer, input_shape), rtol=rtol).value


class Block(nn.Module):
    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(into, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.norm2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.skip = nn.Conv2d(into, out, 1, stride, bias=False) if stride > 1 else nn.Identity()

    def forward(self, x: Any) -> Any:
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(y)) + self.skip(x))


class ResNet20(nn.Module):
    """The network of He et al. for CIFAR, shortcuts by convolutions."""

    def __init__(self) -> None:
        super().__init__()
        widths = [(16, 16, 1)] * 3 + [(16, 32, 2)] + [(32, 32, 1)] * 2 + [(32, 64, 2)] + [(64, 64, 1)] * 2
        self.stem, self.norm = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.blocks = nn.Sequential(*(Block(*width) for width in widths))
        self.head = nn.Linear(64, 10)

    def forward(self, x: Any) -> Any:
        return self.head(self.blocks(torch.relu(self.norm(self.stem(x)))).mean(dim=(2, 3)))


def train(model: Any, steps: int, *, lr: float, seed: int = 0, optimizer: Any = None, after: Any = None) -> Any:
    """SGD with momentum on ten noisy patterns, shaped like CIFAR; the optimizer."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.randn(10, 3, 32, 32, generator=torch.Generator().manual_seed(99))
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4)
    model.train()
    for step in range(steps):
        labels = torch.randint(0, 10, (8,), generator=generator)
        images = patterns[labels] + torch.randn(8, 3, 32, 32, generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        if after is not None:
            after(step)
    return optimizer
